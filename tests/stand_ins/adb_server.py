"""An adb server with its own port and key folder, so that tests meet neither the user's server nor his phones."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.stand_ins.machine import ATTEMPTS, pick_free_port

_START_SECONDS = 20.0


class AdbServer:
    """A server that ends with its context.

    Args:
        folder: The folder of its key and log.
    """

    def __init__(self, folder: Path) -> None:
        self.port = pick_free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        setpriv = shutil.which("setpriv")
        die_with_parent = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        # It looks for keys in the home folder, and for emulators at ports from 5555 on.
        environment = {**os.environ, "HOME": str(self._folder), "ADB_LOCAL_TRANSPORT_MAX_PORT": "1"}
        for _ in range(ATTEMPTS):
            command = [*die_with_parent, shutil.which("adb") or "adb", "-P", str(self.port), "nodaemon", "server"]
            with (self._folder / "adb.log").open("wb") as log:
                self._process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            end = time.monotonic() + _START_SECONDS
            while self._process.poll() is None and time.monotonic() < end:
                if self._is_listening():
                    return self
                time.sleep(0.05)
            self.__exit__(None, None, None)
            self.port = pick_free_port()  # somebody else may have taken the first one meanwhile
        raise AssertionError(f"adb's server does not listen: {(self._folder / 'adb.log').read_text(errors='replace')}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def run(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run an adb command and return what it says."""
        command = [shutil.which("adb") or "adb", "-P", str(self.port), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )

    def connect(self, serial: str) -> None:
        """Make a device known by its address, anew where it was known before a reset."""
        self.run("disconnect", serial)
        done = self.run("connect", serial)
        assert done.stdout.startswith("connected to"), done.stdout + done.stderr

    def _is_listening(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True
