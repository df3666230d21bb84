"""Appending to files of lines that a kill or a full disk must not damage."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgenas.files import opened_without_links


def append_at(path: Path, end: int, data: bytes) -> None:
    """Write after the first ``end`` bytes of a file, to the disk. What stood there, such as a cut line, is replaced.

    The file and its folder are made where they are missing.

    Raises:
        UsageError: It is a link or no regular file.
        OSError: It cannot be written; the file is cut back to the first ``end`` bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened_without_links(path, os.O_WRONLY | os.O_CREAT) as descriptor:
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, end)
            raise
