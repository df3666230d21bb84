"""A machine that is reached over SSH."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgenas.devices.contract import Completed, Deadline, Device, Output, check_content, check_name
from edgenas.devices.facts import FACT_PATTERNS, read_facts
from edgenas.devices.setup import BASE, VENV_PYTHON
from edgenas.devices.ssh.config import SshConnection
from edgenas.devices.ssh.connection import Way, open_way
from edgenas.devices.ssh.link import LinkLostError, WorkerLink, shell
from edgenas.errors import DeviceError, UsageError
from edgenas.files import digest, read_bytes, write_bytes
from edgenas.on_device.work_folder import DEVICE_LOCK

if TYPE_CHECKING:
    from edgenas.devices.profile import DeviceProfile

_CONNECT_SECONDS = 30.0
_START_SECONDS = 60.0
_KILL_SECONDS = 10.0
_SLOWEST_BYTES_PER_SECOND = 20_000
_MARK = "== edgenas == "
# Scripts stand on one line without a !, or csh could not read them.
# Prints the interpreter $0 if it works, a leading ~/ being the home folder; else nothing.
_FIND_PYTHON = (
    'p=$0; case "$p" in "~/"*) p="$HOME/${p#??}";; esac; "$p" -I -c "" 2>/dev/null || p=; ' + f'echo "{_MARK}$p"'
)
# Prints every readable file of the patterns that follow, then what the kernel and the interpreter $0 say.
_FACTS = (
    "for pattern; do for file in $pattern; do"
    f' if [ -r "$file" ]; then echo "{_MARK}$file"; cat "$file"; echo; fi; done; done 2>/dev/null; '
    f'echo "{_MARK}system"; uname -r; uname -m;'
    ' "$0" -I -c "import platform; print(platform.python_version())" 2>/dev/null; '
    f'echo "{_MARK}end"'
)


class SshDevice(Device):
    """Commands run over there, by a worker that ends them and tidies up when this side goes.

    The worker is a small Python program that is sent at the first command or
    file; connecting and ``facts`` need a plain shell only. Work folders and files
    that are kept for the next time lie under ``work_dir``, by default
    ``~/.cache/edgenas``. ``python`` is the profile's, else that of the
    environment which ``edgenas device setup`` made, else ``python3``.

    A device that gives no sign of life for ten seconds is given up. A worker
    that hears nothing for ``silence_seconds`` takes this side for dead, so
    ``on_line`` must not block for so long.
    """

    connection_type = SshConnection

    def __init__(self, profile: DeviceProfile, *, silence_seconds: float = 60.0) -> None:
        if not isinstance(profile.connection, SshConnection):
            raise UsageError(f"{profile.name}: connection must be of kind ssh")
        self.name = profile.name
        self._python = profile.python
        self._base = profile.work_dir or BASE
        self._parents = [profile.work_dir] if profile.work_dir else [BASE, ""]
        self._silence = silence_seconds
        self._link: WorkerLink | None = None
        self._why_closed = "the device was closed; connect again"
        self._way: Way | None = open_way(profile.connection, profile.cli_name, Deadline(_CONNECT_SECONDS))

    @classmethod
    def connect(cls, profile: DeviceProfile) -> Self:
        return cls(profile)

    @property
    def python(self) -> str:
        return self._find_python(Deadline(_START_SECONDS))

    def _find_python(self, deadline: Deadline) -> str:
        if self._python is None or self._python.startswith("~/"):
            said = self._shell(deadline, _FIND_PYTHON, self._python or f"{self._base}/{VENV_PYTHON}")
            self._python = said.partition("\n")[0].strip() or self._python or "python3"
        return self._python

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        link, output = self._talk(deadline), Output(on_line)
        try:
            answer = link.ask(deadline, command[0], "run", command=list(command))
            status = None if "error" in answer else _follow(link, output, stdin, deadline, command[0])
        except LinkLostError as error:
            self._end(str(error))
            raise
        except BaseException:
            self._kill(link)
            raise
        if status is None:
            raise DeviceError(f"{command[0]}: cannot be started ({answer['error']}); correct the profile's python")
        return output.completed(status)

    def push(self, local: Path, name: str, sha256: str | None = None) -> str:
        self._check_open()
        check_name(name)
        if not local.is_file():
            raise UsageError(f"{local}: cannot be read (no such file)")
        data = read_bytes(local)
        with self._exchange(len(data)) as (link, deadline):
            what = f"{self.name}: sending {local}"
            answer = link.ask(deadline, what, "push", name=name, sha256=sha256 or digest(data), size=len(data))
            if answer.get("send"):
                link.send_pieces(b"F", data, deadline, what)
                answer = link.answer(deadline, what)
        if "error" in answer:
            check_content(local, data, sha256)
            raise DeviceError(
                f"{self.name}: {local} cannot be stored there ({answer['error']});"
                " free space there or set work_dir in the profile"
            )
        return str(answer["path"])

    def pull(self, remote: str, local: Path) -> None:
        with self._exchange(0) as (link, deadline):
            what = f"{self.name}: fetching {remote}"
            name = check_name(remote.removeprefix(f"{link.folder}/"))
            answer = link.ask(deadline, what, "pull", name=name)
            size = answer.get("size", 0)
            data, deadline = bytearray(), _transfer_deadline(size)
            while len(data) < size:
                data += link.receive(deadline, what)[1]
        if "sha256" not in answer:
            raise DeviceError(f"{remote}: there is no such file on the device")
        if digest(bytes(data)) != answer["sha256"]:
            raise DeviceError(f"{remote}: changed while it was fetched; fetch it when nothing writes to it")
        write_bytes(local, bytes(data))

    def facts(self) -> dict[str, Any]:
        deadline = Deadline(_START_SECONDS)
        said = self._shell(deadline, _FACTS, self._find_python(deadline), *FACT_PATTERNS)
        texts = {path: text[:-1] for path, _, text in (part.partition("\n") for part in said.split(_MARK))}
        kernel, arch, python, *_ = [*texts.pop("system", "").split("\n"), "", "", ""]
        return read_facts(texts.get, kernel=kernel or None, arch=arch or None, python=python or None)

    def close(self) -> None:
        self._end("the device was closed; connect again", wait=True)

    def _take_lock(self, holder: str) -> str | None:
        with self._exchange(0) as (link, deadline):
            answer = link.ask(deadline, f"{self.name}: its lock", "lock", holder=holder)
        if "error" in answer:
            raise DeviceError(
                f"{self.name}: its lock {DEVICE_LOCK} cannot be taken ({answer['error']});"
                " make it writable for you there, or remove it"
            )
        held_by: str | None = answer["held_by"]
        return held_by

    def _release_lock(self) -> None:
        if self._link is not None:
            with contextlib.suppress(DeviceError), self._exchange(0) as (link, deadline):
                link.ask(deadline, f"{self.name}: its lock", "unlock")

    # -- the connection ------------------------------------------------------------

    def _check_open(self) -> Way:
        if self._way is None:
            raise DeviceError(self._why_closed)
        return self._way

    def _shell(self, deadline: Deadline, script: str, *arguments: str) -> str:
        """What a script for the plain shell there prints after its first mark."""
        transport = self._check_open().transports[-1]
        try:
            return shell(transport, self.name, ["sh", "-c", script, *arguments], _MARK, deadline)
        except LinkLostError as error:
            self._end(str(error))
            raise

    def _talk(self, deadline: Deadline) -> WorkerLink:
        """The talk with the worker, begun at the first need of it."""
        transport = self._check_open().transports[-1]
        if self._link is None:
            try:
                python = self._find_python(deadline)
                self._link = WorkerLink(transport, self.name, python, self._parents, self._silence, deadline)
            except LinkLostError as error:
                self._end(str(error))
                raise
        return self._link

    @contextlib.contextmanager
    def _exchange(self, size: int) -> Iterator[tuple[WorkerLink, Deadline]]:
        """A request with its answer and as many bytes; when it breaks off in between, the connection ends."""
        deadline = _transfer_deadline(size)
        link = self._talk(deadline)
        try:
            yield link, deadline
        except UsageError:
            raise
        except BaseException as error:
            self._end(str(error) or "an exchange was interrupted; connect again")
            raise

    def _kill(self, link: WorkerLink) -> None:
        """End the command there, so that the next can run; where that fails, the connection ends, and it with it."""
        try:
            link.send(b"K")
            deadline = Deadline(_KILL_SECONDS)
            while True:
                kind, content = link.receive(deadline, "ending the command")
                if kind == b"X" or (kind == b"J" and "error" in json.loads(content)):
                    return
        except DeviceError:
            self._end("a command there could not be ended; connect again")
        except BaseException:
            self._end("a command there could not be ended; connect again")
            raise

    def _end(self, why: str, *, wait: bool = False) -> None:
        if self._link is not None:
            self._link.close(wait=wait)
            self._link = None
        if self._way is not None:
            self._way.close()
            self._way, self._why_closed = None, why


def _follow(link: WorkerLink, output: Output, stdin: bytes, deadline: Deadline, what: str) -> int:
    """Give a command its input and take its output until it ends; returns its exit status."""
    link.send_pieces(b"I", stdin, deadline, what)
    while True:
        kind, content = link.receive(deadline, what)
        if kind == b"O":
            output.take(content)
        elif kind == b"E":
            output.take_errors(content)
        elif kind == b"X":
            return int(content)


def _transfer_deadline(size: int) -> Deadline:
    return Deadline(_START_SECONDS + size / _SLOWEST_BYTES_PER_SECOND)
