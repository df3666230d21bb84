"""Files on a device: work folders, files kept for the next connection, the lock of the whole machine.

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
_MAX_UNLOCKED_SECONDS = 3600.0
# A link or a pipe that other users put there can neither lead elsewhere nor make us wait.
_SAFE_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OPEN_FLAGS = os.O_RDWR | _SAFE_FLAGS
# The same for every user and every profile: they would disturb each other's measurements.
_DEVICE_LOCK = Path("/tmp/edgenas.lock")  # noqa: S108 - opened without following links


class WorkFolder:
    """A new folder under ``parent``, by default the system's folder for temporary files.

    Its owner holds a lock in it as long as it lives. Making a folder
    removes those beside it whose lock nobody holds. A relative parent is
    below the current folder. Raises OSError when the folder cannot be made.

    As a context it gives the folder's path, and removes the folder at its end.
    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = (parent or Path(tempfile.gettempdir())).absolute()
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_folders(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = os.open(self.path / "lock.new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Renamed when it is held: a lock file with the final name that can be locked is a dead owner's.
        (self.path / "lock.new").rename(self.path / _LOCK)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder; may be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def find_device_lock(parent: Path) -> Path:
    """Return the file of the machine's lock: in /tmp, and where there is none, as on a phone, in TMPDIR or ``parent``.

    TMPDIR there is the same for all shells, and ``parent`` is the folder that work folders are made in.
    """
    if _DEVICE_LOCK.parent.is_dir():
        return _DEVICE_LOCK
    return Path(os.environ.get("TMPDIR") or parent) / _DEVICE_LOCK.name


class DeviceLock:
    """The lock that one edgenas at a time, of any user, holds while it measures on this machine.

    It is a lock of the kernel, which is released when its holder dies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def acquire_or_get_holder(self, holder: str) -> str | None:
        """Acquire the lock at once and return None, or return its holder; raise OSError when it has no file."""
        file = _open_or_create_for_all_users(self._path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.write(file, holder.encode())
        except BlockingIOError:
            other = os.read(file, 400).decode(errors="replace").strip()
            os.close(file)
            return other or "another edgenas"
        except OSError:
            os.close(file)
            raise
        self._file = file
        return None

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1


class KeptFiles:
    """Files by their SHA-256, kept below ``parent`` so that none is sent twice; the least recently used are removed."""

    def __init__(self, parent: Path, pulse: Callable[[], None]) -> None:
        self._folder = parent / _KEPT
        self._pulse = pulse
        self._max_bytes = math.inf  # an upper bound of what they take; they are counted when it is too much

    def link_if_kept(self, sha256: str, target: Path) -> bool:
        """Write the file of this hash to ``target``, if it is kept and intact; return whether it is."""
        kept = self._folder / sha256
        try:
            if read_file_digest(kept, self._pulse) != sha256:
                kept.unlink()
                return False
            os.utime(kept)
            link_or_copy(kept, target, self._pulse)
        except OSError:
            return False
        return True

    def keep(self, path: Path, sha256: str) -> None:
        """Keep a file that was sent; one that cannot be kept is sent again next time."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            link_or_copy(path, self._folder / sha256, self._pulse)
            self._max_bytes += path.stat().st_size

    def trim(self, max_bytes: int, free_bytes: int) -> None:
        """Remove the least recently used files until the others take at most this much and leave this much free."""
        with contextlib.suppress(OSError):
            if self._max_bytes <= max_bytes and shutil.disk_usage(self._folder).free >= free_bytes:
                return
            files = [(path.stat(), path) for path in self._folder.iterdir()]
            total = sum(status.st_size for status, _ in files)
            for status, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
                if total <= max_bytes and shutil.disk_usage(self._folder).free >= free_bytes:
                    break
                path.unlink()
                total -= status.st_size
            self._max_bytes = total


def read_file_digest(path: Path, pulse: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 as hex text; call ``pulse`` after each megabyte; raise OSError for an unreadable file."""
    sha256 = hashlib.sha256()
    with open(_checked(os.open(path, os.O_RDONLY | _SAFE_FLAGS), path), "rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return sha256.hexdigest()
            sha256.update(chunk)
            pulse()


def link_or_copy(source: Path, target: Path, pulse: Callable[[], None]) -> None:
    """Give a file a second name, or copy it where there are no hard links, as in Android's shell; replace the target.

    Raise OSError, and leave nothing, where neither can be done.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    with contextlib.suppress(FileNotFoundError):  # left by a copy that was cut off
        temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:
        try:
            with source.open("rb") as file, temporary.open("xb") as copy:
                while True:
                    chunk = file.read(_CHUNK)
                    if not chunk:
                        break
                    copy.write(chunk)
                    pulse()
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    temporary.replace(target)


def _open_or_create_for_all_users(path: Path) -> int:
    """Open a file that all users of the machine may lock; create it where it is absent."""
    try:
        file = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError:
        try:
            file = os.open(path, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:  # another user made it meanwhile, whose file must not be opened with O_CREAT
            file = os.open(path, _OPEN_FLAGS)
        else:
            os.fchmod(file, 0o666)
    if os.fstat(_checked(file, path)).st_nlink != 1:  # it would be emptied under its other name, too
        os.close(file)
        raise OSError(errno.EMLINK, "it has another name, too", str(path))
    return file


def _checked(file: int, path: Path) -> int:
    """Return an open file; close it and raise OSError where it is no regular one."""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def _remove_abandoned_folders(parent: Path) -> None:
    """Remove this user's work folders whose owner is gone; an old one without a lock was left while it was made."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            try:
                handle = os.open(folder / _LOCK, _OPEN_FLAGS)
            except FileNotFoundError:
                if time.time() - status.st_mtime > _MAX_UNLOCKED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
