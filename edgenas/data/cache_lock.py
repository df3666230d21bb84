"""One process at a time prepares a data set: under torchrun, all begin to load it at once."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgenas.errors import printable
from edgenas.files import opened_without_links

_SILENT_SECONDS = 10.0  # of waiting, before a line says what is waited for
_PAUSE_SECONDS = 0.05


@contextmanager
def cache_lock(prepared: Path) -> Iterator[None]:
    """Hold the lock of a file or folder of the cache while it is made; others wait, and find it made.

    The lock of a killed process is released. Where its file cannot be written, as in a cache that was put on a disk for
    reading, nothing can be made either, and no lock is held.

    Args:
        prepared: What is made. The lock is a hidden file beside it.
    """
    with ExitStack() as stack:
        try:
            prepared.parent.mkdir(parents=True, exist_ok=True)
            lock_path = prepared.with_name(f".{prepared.name}.lock")
            lock = stack.enter_context(opened_without_links(lock_path, os.O_RDWR | os.O_CREAT))
        except OSError:
            pass
        else:
            _wait(lock, prepared)
        yield


def _wait(lock: int, prepared: Path) -> None:
    """Lock an open file; say so once where that takes long."""
    begun: float | None = time.monotonic()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if begun is not None and time.monotonic() - begun > _SILENT_SECONDS:
                say(f"{prepared}: waits until another process has made it")
                begun = None
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def say(text: str) -> None:
    """Log a line, which without a log of the caller's own goes to standard error."""
    logging.getLogger("edgenas").warning("edgenas: %s", printable(text))
