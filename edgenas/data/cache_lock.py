"""One process at a time prepares a data set: under torchrun, all begin to load it at once."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgenas.errors import printable
from edgenas.files import opened_without_links
from edgenas.locks import take_lock

_SILENT_SECONDS = 10.0  # of waiting, before a line says what is waited for


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
            if not take_lock(lock, _SILENT_SECONDS):
                say(f"{prepared}: waits until another process has made it")
                take_lock(lock, math.inf)
        yield


def say(text: str) -> None:
    """Log a line, which without a log of the caller's own goes to standard error."""
    logging.getLogger("edgenas").warning("edgenas: %s", printable(text))
