"""An arm64 machine that qemu emulates, with one port on this machine's loopback.

It can be frozen, reset and cut off. Emulated time is no latency: it is for
protocol and correctness.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from tests.stand_ins.images import Image, make_disk

Daemon = Literal["adbd", "dropbear", "sshd"]

ATTEMPTS = 3  # of starting a server, each at another port
_BOOT_SECONDS = 120.0
_DISK_BYTES = 2 << 30  # sparse
_HOST_KEY = re.compile(r"host key: (ssh-\S+ \S+) ")


class Machine:
    """A machine that runs one server. A context manager that boots and ends it.

    Args:
        image: What it boots from.
        folder: The folder of its disk and log.
        daemon: The server. OpenSSH's runs in Debian, which forgets all but what is below /data when the machine ends.
        authorized_key: The public key that may log in by SSH as root.

    Attributes:
        port: The server's port on 127.0.0.1.
        folder: The folder.
    """

    def __init__(self, image: Image, folder: Path, daemon: Daemon, authorized_key: str = "") -> None:
        self.port = pick_free_port()
        self.folder, self._image, self._daemon = folder, image, daemon
        self._disk, self._log, self._control = folder / "data", folder / "console.log", folder / "qmp"
        self._process: subprocess.Popen[bytes] | None = None
        _make_data_disk(self._disk, folder / "content", authorized_key)

    def _command(self) -> list[str]:
        debian = f"if=none,id=debian,format=raw,snapshot=on,file={self._image.debian}"
        network = f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:5555"
        return [
            *(["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []),
            *("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "1024"),
            *("-accel", "tcg,thread=multi", "-nodefaults", "-display", "none"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)),
            *("-append", f"console=ttyAMA0 quiet panic=-1 edgenas.daemon={self._daemon}"),
            *("-drive", f"if=none,id=disk,format=raw,file={self._disk}", "-device", "virtio-blk-device,drive=disk"),
            *(["-drive", debian, "-device", "virtio-blk-device,drive=debian"] if self._daemon == "sshd" else []),
            *("-netdev", network, "-device", "virtio-net-device,netdev=net"),
            *("-serial", f"file:{self._log}", "-qmp", f"unix:{self._control},server=on,wait=off"),
        ]

    def __enter__(self) -> Self:
        for attempts_left in reversed(range(ATTEMPTS)):
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )
            try:
                self.wait_until_it_answers()
                break
            except BaseException:
                has_ended = self._process.poll() is not None
                self.stop()
                if not has_ended or not attempts_left:
                    raise
            self.port = pick_free_port()  # somebody else may have taken the first one meanwhile
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the machine at once, as if it lost its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def serial(self) -> str:
        """The name under which adb knows the machine."""
        return f"127.0.0.1:{self.port}"

    def repair(self) -> None:
        """Undo freezing and cutting, and wait until the server speaks."""
        self.thaw()
        self.mend_link()
        self.wait_until_it_answers()

    def freeze(self) -> None:
        """Stop the machine's time, as a board that hangs."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen machine go on."""
        os.kill(self._pid, signal.SIGCONT)

    def reset(self) -> None:
        """Reset the machine, as by its button; its disk stays as it is. It answers again after some seconds."""
        self._log.write_bytes(b"")
        self._ask_qemu("system_reset")

    def cut_link(self) -> None:
        """Cut the machine off the network; nothing is told to either side."""
        self._ask_qemu("set_link", name="net", up=False)

    def mend_link(self) -> None:
        """Connect the machine to the network again."""
        self._ask_qemu("set_link", name="net", up=True)

    def wait_until_it_answers(self) -> None:
        """Wait until the server speaks."""
        end = time.monotonic() + _BOOT_SECONDS
        while not self._is_answering():
            if self._process is None or self._process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the machine does not boot: {self.console()[-2000:]}")
            time.sleep(0.1)

    def console(self) -> str:
        """Return what the machine has printed since it booted."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def host_key(self) -> str:
        """Return the SSH server's public key, as the machine printed it on its console."""
        found = _HOST_KEY.search(self.console())
        assert found is not None, self.console()[-2000:]
        return found[1]

    @property
    def _pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def _is_answering(self) -> bool:
        """Return whether the server answers the first bytes of its protocol; qemu alone accepts and says nothing."""
        hello = _adb_hello() if self._daemon == "adbd" else b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as sock:
                sock.sendall(hello)
                return sock.recv(4) in (b"CNXN", b"AUTH", b"STLS", b"SSH-")
        except OSError:
            return False

    def _ask_qemu(self, execute: str, **arguments: Any) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10.0)
            sock.connect(str(self._control))
            with sock.makefile("rw") as stream:
                stream.readline()  # its greeting
                for request in ({"execute": "qmp_capabilities"}, {"execute": execute, "arguments": arguments}):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    answer: dict[str, Any] = {}
                    while not answer.keys() & {"return", "error"}:  # there are events between the answers
                        answer = json.loads(stream.readline())
                    assert "return" in answer, answer


def pick_free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _make_data_disk(disk: Path, content: Path, authorized_key: str) -> None:
    keys = content / "root/.ssh"
    keys.mkdir(parents=True)
    for folder in (content / "root", keys):
        folder.chmod(0o700)
    (keys / "authorized_keys").write_text(authorized_key)
    make_disk(disk, content, _DISK_BYTES)


def _adb_hello() -> bytes:
    """Return the first message of an adb client: CNXN (AOSP, protocol.txt)."""
    payload = b"host::\0"
    words = (0x4E584E43, 0x01000001, 1 << 20, len(payload), sum(payload), 0x4E584E43 ^ 0xFFFFFFFF)
    return b"".join(word.to_bytes(4, "little") for word in words) + payload
