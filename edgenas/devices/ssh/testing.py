"""A real, unprivileged SSH server on this machine's loopback for tests, with its own keys and folders.

Tests can freeze it and kill its sessions. Needs OpenSSH's sshd and ssh-keygen.
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

_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/sbin"
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
# a bash below another shell reads none of your start-up files
SetEnv SHLVL=2
"""


def find_sshd() -> str | None:
    """Return the path of sshd, None where it is not installed."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}")


class Sshd:
    """A server with one user, you, and one key. A context manager that starts and stops it.

    Args:
        folder: The folder of its keys, configuration and log.
        command_prefix: A command that runs the server, whose own command line follows.

    Raises:
        DeviceError: sshd is not installed or does not start.
    """

    def __init__(self, folder: Path, command_prefix: Sequence[str] = ()) -> None:
        program = find_sshd()
        if program is None:
            raise DeviceError("no sshd is installed here; install openssh-server")
        self.folder = folder
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.port = _pick_free_port()
        self.log = folder / "sshd.log"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "client_key"):
            write_key_pair(folder / name)
        (folder / "sshd_config").write_text(_CONFIG.format(port=self.port, folder=folder))
        (folder / "ssh_config").write_text("IdentityFile none\nIdentityAgent none\n")
        self.write_known_host_key(folder / "host_key.pub")
        setpriv = shutil.which("setpriv")
        die_with_parent = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        server = [program, "-f", str(folder / "sshd_config")]
        # OpenSSH 9.8 and newer turn an address away after a few failed logins.
        without_penalties = ["-o", "PerSourcePenalties=no"]
        checked = subprocess.run([*server, *without_penalties, "-t"], capture_output=True, check=False)  # noqa: S603
        options = without_penalties if checked.returncode == 0 else []
        self._command = [*command_prefix, *die_with_parent, *server, *options, "-D", "-e"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def connection_data(self, **changes: Any) -> dict[str, Any]:
        """Return the ``connection`` of a profile of this server, with changes; a change to None removes a key."""
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
        """Return a profile of this server: localhost's, with this interpreter and its own work_dir."""
        data = {
            **load_profile("localhost").to_dict(),
            "name": "loopback",
            "connection": connection or self.connection_data(),
            "python": sys.executable,
            "work_dir": str(self.folder / "work"),
            **changes,
        }
        return profile_from_dict(data, "loopback")

    def write_known_host_key(self, public_key: Path) -> None:
        """Write known_hosts with this key for the server, and nothing else."""
        kind, key = public_key.read_text().split()[:2]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        if os.getuid() == 0:
            _PRIVILEGE_FOLDER.mkdir(mode=0o755, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _START_SECONDS
        while not _is_answering(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise DeviceError(f"sshd does not start: {self.log.read_text(errors='replace')[-400:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill the server and all processes of its sessions. May be called again."""
        if self._process is None:
            return
        for pid in [*self.session_pids(), self._process.pid]:
            _send_signal(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def session_pids(self) -> list[int]:
        """Return the processes of its sessions, parents before children."""
        assert self._process is not None
        parent_of = _read_parent_pids()
        family = [self._process.pid]
        for pid in family:
            family += [child for child, parent in parent_of.items() if parent == pid]
        return family[1:]

    def freeze(self) -> None:
        """Stop the server and its sessions, as a device that hangs."""
        assert self._process is not None
        for pid in [self._process.pid, *self.session_pids()]:
            _send_signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the server and its sessions run again."""
        assert self._process is not None
        for pid in [self._process.pid, *self.session_pids()]:
            _send_signal(pid, signal.SIGCONT)

    def kill_sessions(self) -> None:
        """Kill sshd's processes of all sessions, not the commands in them, so that connections break."""
        for pid in self.session_pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    _send_signal(pid, signal.SIGKILL)


def write_key_pair(path: Path, passphrase: str = "", kind: str = "ed25519") -> None:
    """Make a pair of keys at ``path`` and ``path.pub``, unless it exists."""
    if not path.exists():
        command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)  # noqa: S603 - an argument list, no shell


def _pick_free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _is_answering(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as sock:
            return sock.recv(4) == b"SSH-"
    except OSError:
        return False


def _read_parent_pids() -> dict[int, int]:
    """Return the parent of every process."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
    return parents


def _send_signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
