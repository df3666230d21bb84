"""This machine as a device."""

from __future__ import annotations

import contextlib
import filecmp
import os
import platform
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgenas.devices.base import STDERR_KEPT, Completed, Deadline, Device, LineSplitter, check_name
from edgenas.devices.facts import read_facts
from edgenas.devices.workfolder import WorkFolder
from edgenas.errors import DeviceError, UsageError

if TYPE_CHECKING:
    from edgenas.devices.profile import DeviceProfile

_POLL_SECONDS = 0.2
_CHUNK = 64 * 1024


class LocalDevice(Device):
    """Commands run here, each in a process group of its own that is killed when it ends, in any way.

    The work folder is a new one under ``work_dir``, by default the system's
    folder for temporary files.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self._python = profile.python or sys.executable
        try:
            self._work = WorkFolder(Path(profile.work_dir).expanduser() if profile.work_dir else None)
        except OSError as error:
            raise DeviceError(
                f"{profile.name}: no work folder can be made in {error.filename} ({error.strerror});"
                " free space there or set work_dir in the profile"
            ) from None
        self._folder = self._work.path
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    @classmethod
    def connect(cls, profile: DeviceProfile) -> Self:
        return cls(profile)

    @property
    def python(self) -> str:
        return self._python

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        self._check_open()
        process = self._start(command)
        self._process = process
        try:
            return _Exchange(process, command[0], stdin, on_line).finish(deadline)
        finally:
            _end(process)
            self._process = None

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        try:
            return subprocess.Popen(  # noqa: S603 - an argument list, no shell
                list(command), stdin=pipe, stdout=pipe, stderr=pipe, cwd=self._folder, start_new_session=True, bufsize=0
            )
        except OSError as error:
            raise DeviceError(
                f"{command[0]}: cannot be started ({error.strerror}); correct the profile's python"
            ) from None

    def push(self, local: Path, name: str) -> str:
        self._check_open()
        target = self._folder / check_name(name)
        if not local.is_file():
            raise UsageError(f"{local}: cannot be read (no such file)")
        if not (target.is_file() and filecmp.cmp(local, target, shallow=False)):
            _copy(local, target)
        return str(target)

    def pull(self, remote: str, local: Path) -> None:
        self._check_open()
        source = self._folder / check_name(remote.removeprefix(f"{self._folder}/"))
        if not source.is_file():
            raise DeviceError(f"{remote}: there is no such file on the device")
        _copy(source, local)

    def facts(self) -> dict[str, Any]:
        self._check_open()
        same = self._python == sys.executable
        return read_facts(
            _text,
            kernel=platform.release() or None,
            arch=platform.machine() or None,
            python=platform.python_version() if same else self._python_version(),
        )

    def _python_version(self) -> str | None:
        code = "import platform; print(platform.python_version())"
        answer = self.run([self._python, "-c", code], deadline=Deadline(30))
        return answer.stdout.strip() or None

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            _end(self._process)
        self._work.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("the device was closed; connect again")


class _Exchange:
    """Feeds and drains the three pipes of one process at once, so that none of them can fill up and block it."""

    def __init__(
        self, process: subprocess.Popen[bytes], name: str, stdin: bytes, on_line: Callable[[str], None] | None
    ) -> None:
        self._process = process
        self._name = name
        self._stdin = memoryview(stdin)
        self._whole = bytearray()
        self._errors = bytearray()
        self._lines = LineSplitter(on_line) if on_line else None

    def finish(self, deadline: Deadline) -> Completed:
        with self._selector() as selector:
            while any(key.data is not self._write for key in selector.get_map().values()):
                deadline.check(self._name)
                for key, _ in selector.select(min(_POLL_SECONDS, deadline.left)):
                    if not key.data():
                        selector.unregister(key.fileobj)
                if _has_ended(self._process.pid):
                    # A child left behind would hold the pipes open for ever.
                    _kill_group(self._process.pid)
        if self._lines:
            self._lines.finish()
        while not _has_ended(self._process.pid):
            deadline.check(self._name)
            time.sleep(0.001)
        _end(self._process)
        return Completed(
            self._process.returncode, self._whole.decode(errors="replace"), self._errors.decode(errors="replace")
        )

    def _selector(self) -> selectors.BaseSelector:
        selector = selectors.DefaultSelector()
        for pipe, event, action in (
            (self._process.stdout, selectors.EVENT_READ, self._read_output),
            (self._process.stderr, selectors.EVENT_READ, self._read_errors),
            (self._process.stdin, selectors.EVENT_WRITE, self._write),
        ):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, event, action)
        return selector

    def _read_output(self) -> bool:
        assert self._process.stdout is not None
        data = os.read(self._process.stdout.fileno(), _CHUNK)
        if self._lines:
            self._lines.feed(data)
        else:
            self._whole += data
        return bool(data)

    def _read_errors(self) -> bool:
        assert self._process.stderr is not None
        data = os.read(self._process.stderr.fileno(), _CHUNK)
        self._errors += data
        del self._errors[:-STDERR_KEPT]
        return bool(data)

    def _write(self) -> bool:
        """Send the next bytes; the pipe stays open afterwards, as the sign that this side lives."""
        assert self._process.stdin is not None
        if self._stdin:
            try:
                self._stdin = self._stdin[os.write(self._process.stdin.fileno(), self._stdin[:_CHUNK]) :]
            except BrokenPipeError:
                return False
        return bool(self._stdin)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group, reap the process, close its pipes; may be called again."""
    if process.returncode is None:
        _kill_group(process.pid)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _has_ended(pid: int) -> bool:
    """Whether the process ended; it is not reaped yet, so that its number cannot become another's."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DeviceError(
            f"{target}: cannot be written ({error.strerror}); free space or choose another folder"
        ) from None


def _copy(source: Path, target: Path) -> None:
    with _temporary(target) as temporary:
        shutil.copyfile(source, temporary)
