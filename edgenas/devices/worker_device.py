"""A machine with a shell, on which a remote worker runs commands and stores files."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.devices.answers import PathText, check_answer
from edgenas.devices.channel import CommandChannel, ConnectionLostError, run_in_shell
from edgenas.devices.contract import Deadline, Device, check_digest, checked_file_name
from edgenas.devices.facts import FACT_PATTERNS, collect_facts
from edgenas.devices.link import WorkerLink
from edgenas.devices.output import CommandOutput, CompletedCommand
from edgenas.devices.setup import VENV_PYTHON
from edgenas.devices.worker_answers import Done, ExitStatus, LockAnswer, PullAnswer, PushAnswer, Refusal
from edgenas.errors import DeviceError, UsageError
from edgenas.files import read_bytes, sha256_hex, write_bytes

if TYPE_CHECKING:
    from edgenas.devices.profile import DeviceProfile

START_SECONDS = 60.0
_KILL_SECONDS = 10.0
_SLOWEST_BYTES_PER_SECOND = 20_000
MARK = "== edgenas == "
# Scripts stand on one line and hold no !, or csh could not read them.
# Prints the interpreter $0, with a leading ~/ as the home folder, if it works; otherwise an empty line.
_FIND_PYTHON = (
    'p=$0; case "$p" in "~/"*) p="$HOME/${p#??}";; esac; "$p" -I -c "" 2>/dev/null || p=; ' + f'echo "{MARK}$p"'
)
# Prints every readable file that matches the arguments, then the kernel's release and architecture, and the
# version of the interpreter $0.
_FACTS = (
    "for pattern; do for file in $pattern; do"
    f' if [ -r "$file" ]; then echo "{MARK}$file"; cat "$file"; echo; fi; done; done 2>/dev/null; '
    f'echo "{MARK}system"; uname -r; uname -m;'
    ' "$0" -I -c "import platform; print(platform.python_version())" 2>/dev/null; '
    f'echo "{MARK}end"'
)


class WorkerDevice(Device):
    """A machine with a shell, abstract: a subclass starts commands there. A remote worker runs commands, stores files.

    The worker is a small Python program that is sent with the first command or
    file. It ends the running command and removes the work folder when the host
    disconnects. Connecting and ``facts`` need only a shell. ``python`` is the
    profile's interpreter, else that of the environment from ``edgenas device
    setup``, else ``python3``.

    A device that sends nothing for ten seconds is given up.

    Args:
        profile: Its profile.
        work_folder_parents: Folders for the work folder; the first that can be
            written is used.
        silence_seconds: The worker ends when it receives nothing for this long,
            not even a heartbeat.
    """

    def __init__(self, profile: DeviceProfile, work_folder_parents: list[str], silence_seconds: float) -> None:
        self.name = profile.name
        self._python = profile.python
        self._work_folder_parents = work_folder_parents
        self._silence_seconds = silence_seconds
        self._link: WorkerLink | None = None
        self._why_closed: str | None = None

    @abstractmethod
    def _start_command(self, command: str, deadline: Deadline) -> CommandChannel:
        """Start a command line, quoted for the device's sh.

        Raises:
            DeviceError: It has not started at the deadline, or the connection is lost.
        """

    @abstractmethod
    def _close_connection(self, *, wait: bool) -> None:
        """Close the connection to the device. ``wait`` says whether what runs there may take some seconds to end."""

    def locks_without_python(self, deadline: Deadline) -> bool:
        """Return whether the device holds its lock where there is no Python.

        Raises:
            DeviceError: The device is lost or silent.
        """
        return False

    @property
    def work_dir(self) -> str:
        """The folder there that work folders and installed runtimes go to; it may begin with ``~/``."""
        return self._work_folder_parents[0]

    @property
    def python(self) -> str:
        return self._resolve_python(Deadline(START_SECONDS))

    def _resolve_python(self, deadline: Deadline) -> str:
        if self._python is None or self._python.startswith("~/"):
            printed = self.run_in_shell(deadline, _FIND_PYTHON, self._python or f"{self.work_dir}/{VENV_PYTHON}")
            found = printed.partition("\n")[0].strip() or self._python or "python3"
            self._python = check_answer(PathText, found, f"{self.name}: looking for python")
        return self._python

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> CompletedCommand:
        link, output = self._get_or_start_worker(deadline), CommandOutput(on_line)
        try:
            ended = _run_to_end(link, command, output, stdin, deadline)
        except ConnectionLostError as error:
            self._disconnect(str(error))
            raise
        except BaseException:
            self._kill_command(link)
            raise
        if isinstance(ended, Refusal):
            raise DeviceError(f"{command[0]}: cannot be started ({ended.error}); correct the profile's python")
        return output.to_completed_command(ended)

    def push(self, local: str | Path, name: str, sha256: str | None = None) -> str:
        self._check_open()
        checked_file_name(name)
        local = Path(local)
        data = read_bytes(local)
        with self._open_exchange(len(data)) as (link, deadline):
            what = f"{self.name}: sending {local}"
            wanted = {"name": name, "sha256": sha256 or sha256_hex(data), "size": len(data)}
            answer = link.request(PushAnswer, deadline, what, "push", **wanted)
            if isinstance(answer, PushAnswer) and answer.path is None:
                link.send_frames(b"F", data, deadline, what)
                answer = link.receive_answer(PushAnswer, deadline, what)
        if isinstance(answer, Refusal) or answer.path is None:
            check_digest(local, data, sha256)
            reason = answer.error if isinstance(answer, Refusal) else "it was sent and is wanted again"
            raise DeviceError(
                f"{self.name}: {local} cannot be stored there ({reason});"
                " free space there or set work_dir in the profile"
            )
        return answer.path

    def pull(self, remote: str, local: str | Path) -> None:
        with self._open_exchange(0) as (link, deadline):
            what = f"{self.name}: fetching {remote}"
            name = checked_file_name(remote.removeprefix(f"{link.folder}/"))
            answer = link.request(PullAnswer, deadline, what, "pull", name=name)
            data = b"" if isinstance(answer, Refusal) else _receive_file(link, answer.size, what)
        if isinstance(answer, Refusal):
            raise DeviceError(f"{remote}: cannot be fetched from the device ({answer.error})")
        if sha256_hex(data) != answer.sha256:
            raise DeviceError(f"{remote}: changed while it was fetched; fetch it when nothing writes to it")
        write_bytes(Path(local), data)

    def facts(self) -> dict[str, Any]:
        deadline = Deadline(START_SECONDS)
        printed = self.run_in_shell(deadline, _FACTS, self._resolve_python(deadline), *FACT_PATTERNS)
        texts = {path: text[:-1] for path, _, text in (part.partition("\n") for part in printed.split(MARK))}
        kernel, arch, python, *_ = [*texts.pop("system", "").split("\n"), "", "", ""]
        return collect_facts(texts.get, self.name, kernel=kernel or None, arch=arch or None, python=python or None)

    def close(self) -> None:
        self._disconnect("the device was closed; connect again", wait=True)

    def _take_lock_or_get_holder(self, holder: str) -> str | None:
        with self._open_exchange(0) as (link, deadline):
            answer = link.request(LockAnswer, deadline, f"{self.name}: its lock", "lock", holder=holder)
        if isinstance(answer, Refusal):
            raise DeviceError(
                f"{self.name}: its lock {answer.path or 'file'} cannot be taken ({answer.error});"
                " make it writable for you there, or remove it"
            )
        return answer.held_by

    def _release_lock(self) -> None:
        if self._link is not None:
            with contextlib.suppress(DeviceError), self._open_exchange(0) as (link, deadline):
                link.request(Done, deadline, f"{self.name}: its lock", "unlock")

    # -- the connection ------------------------------------------------------------

    def _check_open(self) -> None:
        """Raise DeviceError with the reason when the connection is closed."""
        if self._why_closed is not None:
            raise DeviceError(self._why_closed)

    def run_in_shell(self, deadline: Deadline, script: str, *arguments: str, stdin: bytes = b"") -> str:
        """Run a script in the device's sh, which needs no Python there.

        Args:
            deadline: The time until it must have ended.
            script: One line without ``!``, which prints MARK before anything else.
            *arguments: Its ``$0``, ``$1`` and so on.
            stdin: Its standard input, which then ends.

        Returns:
            What it prints after its first mark, which may be cut short: a script whose output matters ends it with
            a word of its own.

        Raises:
            DeviceError: The device is lost or silent, or the deadline passed.
        """
        self._check_open()
        command = ["sh", "-c", script, *arguments]
        try:
            return run_in_shell(self._start_command, self.name, command, MARK, deadline, stdin)
        except ConnectionLostError as error:
            self._disconnect(str(error))
            raise

    def _get_or_start_worker(self, deadline: Deadline) -> WorkerLink:
        """Return the link to the worker, which is started at the first call."""
        self._check_open()
        if self._link is None:
            try:
                python = self._resolve_python(deadline)
                parents, seconds = self._work_folder_parents, self._silence_seconds
                self._link = WorkerLink(self._start_command, self.name, python, parents, seconds, deadline)
            except ConnectionLostError as error:
                self._disconnect(str(error))
                raise
        return self._link

    @contextlib.contextmanager
    def _open_exchange(self, size: int) -> Iterator[tuple[WorkerLink, Deadline]]:
        """Give the link for a request with this many bytes; disconnect when the exchange breaks off."""
        deadline = transfer_deadline(size)
        link = self._get_or_start_worker(deadline)
        try:
            yield link, deadline
        except UsageError:
            raise
        except BaseException as error:
            self._disconnect(str(error) or "an exchange was interrupted; connect again")
            raise

    def _kill_command(self, link: WorkerLink) -> None:
        """Kill the running command, so that the next can run; disconnect where that fails, which ends it too."""
        why = "a command there could not be ended; connect again"
        try:
            link.send_frame(b"K")
            deadline = Deadline(_KILL_SECONDS)
            while True:
                letter, _ = link.receive_frame(deadline, "ending the command")
                if letter in (b"X", b"R"):
                    return
        except DeviceError:
            self._disconnect(why)
        except BaseException:
            self._disconnect(why)
            raise

    def _disconnect(self, why: str, *, wait: bool = False) -> None:
        """Close the connection; later calls raise DeviceError with ``why``."""
        if self._link is not None:
            self._link.close(wait=wait)
            self._link = None
        if self._why_closed is None:
            self._close_connection(wait=wait)
            self._why_closed = why


def _run_to_end(
    link: WorkerLink, command: Sequence[str], output: CommandOutput, stdin: bytes, deadline: Deadline
) -> int | Refusal:
    """Start a command, send it its input and collect its output until it ends; return its exit status."""
    what = command[0]
    answer = link.request(Done, deadline, what, "run", command=list(command))
    if isinstance(answer, Refusal):
        return answer
    link.send_frames(b"I", stdin, deadline, what)
    while True:
        letter, content = link.receive_frame(deadline, what)
        if letter == b"O":
            output.add_stdout(content)
        elif letter == b"E":
            output.add_stderr(content)
        elif letter == b"X":
            return link.read_content(ExitStatus, content)
        else:
            raise link.out_of_turn_error(letter)


def _receive_file(link: WorkerLink, size: int, what: str) -> bytes:
    """Return the content of a file that the worker has announced."""
    data, deadline = bytearray(), transfer_deadline(size)
    while len(data) < size:
        letter, piece = link.receive_frame(deadline, what)
        if letter != b"F" or len(data) + len(piece) > size:
            raise link.out_of_turn_error(letter)
        data += piece
    return bytes(data)


def transfer_deadline(size: int) -> Deadline:
    """Return the time that a file of this many bytes may take on a slow line."""
    return Deadline(START_SECONDS + size / _SLOWEST_BYTES_PER_SECOND)
