"""A real SSH server on this machine's loopback, to test against: unprivileged, with keys and folders of its own.

It can be frozen, and its sessions killed, as a device's can. Needs OpenSSH's
sshd and ssh-keygen.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgenas.devices.profile import DeviceProfile
from edgenas.devices.profile_files import load_profile, profile_from_dict
from edgenas.errors import DeviceError

_PLACES = "/usr/sbin:/usr/local/sbin:/sbin"
_PRIVILEGE_FOLDER = Path("/run/sshd")
_START_SECONDS = 30.0
_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/client_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100
AllowTcpForwarding yes
LogLevel ERROR
# bash reads no start-up files of yours below another shell
SetEnv SHLVL=2
"""


def find_sshd() -> str | None:
    """The server's program, or None where it is not installed."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{_PLACES}")


class Sshd:
    """A server with one user, you, and one key. A context manager; raises DeviceError when it does not start.

    ``before`` is a command that starts it, with the server's own as further
    arguments.
    """

    def __init__(self, folder: Path, before: Sequence[str] = ()) -> None:
        program = find_sshd()
        if program is None:
            raise DeviceError("no sshd is installed here; install openssh-server")
        self.folder = folder
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.port = _free_port()
        self.log = folder / "sshd.log"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "client_key"):
            make_key(folder / name)
        (folder / "sshd_config").write_text(_CONFIG.format(port=self.port, folder=folder))
        (folder / "ssh_config").write_text("IdentityFile none\nIdentityAgent none\n")
        self.know(folder / "host_key.pub")
        with_us = [shutil.which("setpriv") or "", "--pdeathsig", "KILL"]
        self._command = [
            *before,
            *(with_us if with_us[0] else []),
            program,
            "-D",
            "-e",
            "-f",
            str(folder / "sshd_config"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def connection(self, **changes: Any) -> dict[str, Any]:
        """The ``connection`` of a profile that reaches it; with None a key is left out."""
        data = {
            "kind": "ssh",
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.user,
            "identity_file": str(self.folder / "client_key"),
            "known_hosts": str(self.folder / "known_hosts"),
            "config_file": str(self.folder / "ssh_config"),
            **changes,
        }
        return {key: value for key, value in data.items() if value is not None}

    def profile(self, connection: dict[str, Any] | None = None, **changes: Any) -> DeviceProfile:
        """A profile of it: this machine's, with this interpreter and a work_dir of its own."""
        data = {
            **load_profile("localhost").to_dict(),
            "name": "loopback",
            "connection": connection or self.connection(),
            "python": sys.executable,
            "work_dir": str(self.folder / "work"),
            **changes,
        }
        return profile_from_dict(data, "loopback")

    def know(self, public_key: Path) -> None:
        """Let known_hosts have this key for it, and nothing else."""
        kind, key = public_key.read_text().split()[:2]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def start(self) -> None:
        if os.getuid() == 0:
            _PRIVILEGE_FOLDER.mkdir(mode=0o755, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _START_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise DeviceError(f"sshd does not start: {self.log.read_text(errors='replace')[-400:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and all of its sessions; may be called again."""
        if self._process is None:
            return
        everything = [*self.processes(), self._process.pid]
        for pid in everything:
            _signal(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def processes(self) -> list[int]:
        """All that runs in its sessions, the sessions' own processes first."""
        assert self._process is not None
        parents = _parents()
        found = [self._process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found[1:]

    def freeze(self) -> None:
        """Stop everything that it runs, itself included: a device that hangs."""
        assert self._process is not None
        for pid in [self._process.pid, *self.processes()]:
            _signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        for pid in [self._process.pid, *self.processes()]:
            _signal(pid, signal.SIGCONT)

    def kill_sessions(self) -> None:
        """Kill the server's own processes of all sessions, not what runs in them: connections break."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    _signal(pid, signal.SIGKILL)


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> None:
    """A new pair of keys at ``path`` and ``path.pub``."""
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)  # noqa: S603 - an argument list, no shell


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as sock:
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


def _parents() -> dict[int, int]:
    """The parent of every process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            found[int(folder.name)] = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
    return found


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
