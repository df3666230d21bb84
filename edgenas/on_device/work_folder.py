"""What lies on a device: work folders, files kept for the next time, the lock of the whole machine.

Also runs on devices: Python 3.8, standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_PREFIX = "edgenas-work-"
_LOCK = ".lock"
_KEPT = "files"
_CHUNK = 1 << 20
_UNOWNED_SECONDS = 3600.0
# Neither a link nor a pipe that others put there can lead elsewhere or make us wait.
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# The same for every user and every profile: they would disturb each other's measurements.
DEVICE_LOCK = Path("/tmp/edgenas.lock")  # noqa: S108 - opened without following links


class WorkFolder:
    """A new folder under ``parent``, by default the system's folder for temporary files.

    Its owner holds a lock in it for as long as it lives; making a folder
    removes those beside it whose lock nobody holds. A relative parent is one
    below the current folder. ``close`` may be called again. Raises OSError
    when the folder cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = (parent or Path(tempfile.gettempdir())).absolute()
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = os.open(self.path / "lock.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Renamed only when it is held: a lock file that can be seen and taken is a dead owner's.
        (self.path / "lock.new").rename(self.path / _LOCK)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class DeviceLock:
    """The lock that one edgenas at a time, of whichever user, holds while it measures on this machine.

    It is a lock of the kernel, so that a holder that dies lets go of it.
    """

    def __init__(self, path: Path = DEVICE_LOCK) -> None:
        self._path = path
        self._file = -1

    def take(self, holder: str) -> str | None:
        """Take it at once: None, or who holds it. Raises OSError when its file cannot be made."""
        file = _open_shared(self._path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.write(file, holder.encode())
        except BlockingIOError:
            said = os.read(file, 400).decode(errors="replace").strip()
            os.close(file)
            return said or "another edgenas"
        except OSError:
            os.close(file)
            raise
        self._file = file
        return None

    def release(self) -> None:
        """Let go of it, if it is held."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1


class KeptFiles:
    """Files by their SHA-256, kept below ``parent`` so that none is sent twice; the least used are dropped."""

    def __init__(self, parent: Path, pulse: Callable[[], None]) -> None:
        self._folder = parent / _KEPT
        self._pulse = pulse
        self._most_bytes = math.inf  # that they can take together; they are looked at when this may be too much

    def place(self, sha256: str, target: Path) -> bool:
        """Give ``target`` the content of this hash, if it is kept and intact."""
        kept = self._folder / sha256
        try:
            if file_digest(kept, self._pulse) != sha256:
                kept.unlink()
                return False
            os.utime(kept)
            temporary = target.with_name(f".{target.name}.tmp")
            os.link(kept, temporary)
            temporary.replace(target)
        except OSError:
            return False
        return True

    def keep(self, path: Path, sha256: str) -> None:
        """Remember a file that was sent; where the file system has no links it is sent again."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            os.link(path, self._folder / sha256)
            self._most_bytes += path.stat().st_size

    def trim(self, most_bytes: int, free_bytes: int) -> None:
        """Drop the least used until those that are left take at most this much and leave this much free."""
        with contextlib.suppress(OSError):
            if self._most_bytes <= most_bytes and shutil.disk_usage(self._folder).free >= free_bytes:
                return
            files = [(path.stat(), path) for path in self._folder.iterdir()]
            total = sum(seen.st_size for seen, _ in files)
            for seen, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
                if total <= most_bytes and shutil.disk_usage(self._folder).free >= free_bytes:
                    break
                path.unlink()
                total -= seen.st_size
            self._most_bytes = total


def file_digest(path: Path, pulse: Callable[[], None] = lambda: None) -> str:
    """SHA-256 as hex text; ``pulse`` is called every now and then. Raises OSError."""
    summed = hashlib.sha256()
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return summed.hexdigest()
            summed.update(chunk)
            pulse()


def _open_shared(path: Path) -> int:
    """Open a file that all users of the machine may lock, made where it is not there."""
    try:
        file = os.open(path, _FLAGS)
    except FileNotFoundError:
        try:
            file = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:  # another user made it meanwhile, whose file must not be opened with O_CREAT
            file = os.open(path, _FLAGS)
        else:
            os.fchmod(file, 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def _sweep(parent: Path) -> None:
    """Remove our own work folders whose owner is gone; one without a lock was left while it was made."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            seen = folder.lstat()
            if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid():
                continue
            try:
                handle = os.open(folder / _LOCK, _FLAGS)
            except FileNotFoundError:
                if time.time() - seen.st_mtime > _UNOWNED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
