"""What lies on a device: work folders, the lock beside them, files kept for the next time.

Also runs on devices: Python 3.8, standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_PREFIX = "edgenas-work-"
_LOCK = ".lock"
_DEVICE_LOCK = "edgenas.lock"
_KEPT = "files"
_CHUNK = 1 << 20


class WorkFolder:
    """A new folder under ``parent``, by default the system's folder for temporary files.

    Its owner holds a lock in it for as long as it lives; making a folder
    removes those beside it whose lock nobody holds. ``close`` may be called
    again. Raises OSError when the folder cannot be made.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir())
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
    """The lock that one edgenas at a time holds while it measures; it lies beside the work folders.

    It is a lock of the kernel, so that a holder that dies lets go of it.
    """

    def __init__(self, parent: Path) -> None:
        self._path = parent / _DEVICE_LOCK
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

    def trim(self, most_bytes: int, free_bytes: int) -> None:
        """Drop the least used until those that are left take at most this much and leave this much free."""
        with contextlib.suppress(OSError):
            files = [(path.stat(), path) for path in self._folder.iterdir()]
            total = sum(stat.st_size for stat, _ in files)
            for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
                if total <= most_bytes and shutil.disk_usage(self._folder).free >= free_bytes:
                    break
                path.unlink()
                total -= stat.st_size


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
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        file = os.open(path, flags | os.O_CREAT, 0o666)
        with contextlib.suppress(PermissionError):
            os.fchmod(file, 0o666)
        return file


def _sweep(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(handle)
