"""Writing files whole or not at all, and reading regular files only."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgenas.errors import EdgeNASError, UsageError

TEMPORARY_SUFFIX = ".edgenas-tmp"  # of files that are being written
_MAX_BYTES = 1 << 32  # of any file


def write_bytes(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file as a whole or not at all: to a temporary file beside it, fsync, rename.

    Folders that are missing are made.

    Raises:
        EdgeNASError: The folder cannot be written or the disk is full.
        UsageError: There is a file already, and ``replace`` is false.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not replace:
            _create_empty(path)
        temporary.unlink(missing_ok=True)  # what an earlier process of this number left, or a link that waits for us
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = f"cannot be written ({error.strerror})"
        raise EdgeNASError(f"{path}: {reason}; free space or choose another folder") from None


def _create_empty(path: Path) -> None:
    """Create a file; raise UsageError where there is one, also when another process was faster."""
    try:
        path.open("xb").close()
    except FileExistsError:
        raise UsageError(f"{path}: is there already; choose another name, or move it away") from None


def read_bytes(path: Path, max_bytes: int = _MAX_BYTES) -> bytes:
    """Return the content of a regular file, or of the one that a link leads to; never wait for a pipe or a terminal.

    Raises:
        UsageError: The file is absent, unreadable, no regular file, or larger than ``max_bytes`` or the memory.
    """
    try:
        with _opened(path, os.O_RDONLY, "is no regular file; give a file") as descriptor:
            size = os.fstat(descriptor).st_size
            if size > max_bytes:
                raise UsageError(f"{path}: has {size} bytes, and no such file has more than {max_bytes}; move it away")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
    except MemoryError:
        raise UsageError(f"{path}: has {size} bytes, more than fit into memory; move it away") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def check_regular_file(path: Path) -> None:
    """Raise UsageError for a file that is absent, a folder, or one that reading may wait for, such as a pipe."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise UsageError(f"{path}: is {kind}; give a file")


def cache_folder(name: str) -> Path:
    """Return the folder of downloads of a kind: below XDG_CACHE_HOME, else below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(base).is_absolute():
        base = str(Path("~/.cache").expanduser())
    return Path(base) / "edgenas" / name


@contextlib.contextmanager
def opened_without_links(path: Path, flags: int) -> Iterator[int]:
    """Open a regular file of a folder that others may have filled, and close it again.

    Its name may not be a link, which could lead to any file of the user, and a pipe is not waited for. A new file is
    readable and writable as the umask says.

    Raises:
        UsageError: It is a link or no regular file.
        OSError: It cannot be opened.
    """
    with _opened(path, flags | os.O_NOFOLLOW, "is a link or no regular file; move it away") as descriptor:
        yield descriptor


@contextlib.contextmanager
def _opened(path: Path, flags: int, problem: str) -> Iterator[int]:
    try:
        # O_NONBLOCK: opening a named pipe would wait for its other end.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO) or (error.errno == errno.ELOOP and flags & os.O_NOFOLLOW):
            raise UsageError(f"{path}: {problem}") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path}: {problem}")
        yield descriptor
    finally:
        os.close(descriptor)
