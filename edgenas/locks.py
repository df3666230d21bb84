"""Locks of open files, which end with the process that holds them."""

from __future__ import annotations

import fcntl
import time

_PAUSE_S = 0.02


def take_lock(descriptor: int, wait_s: float = 0.0) -> bool:
    """Lock an open file for this process alone, and return whether that succeeded.

    Args:
        descriptor: The open file.
        wait_s: How long to wait for another process, in seconds; ``math.inf`` for as long as it takes.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_S)
        else:
            return True
