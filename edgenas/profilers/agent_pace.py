"""How fast the CPU is while a model is timed: a fixed piece of work, its pace, timed between the runs.

What shares a core's power, caches and execution units with a model slows this
work as much as the model, from one tenth of a second to the next. The time that
the work usually takes on a device is remembered there from one request to the
next. Sent to a device beside agent.py. Python 3.8, standard library and numpy
only; never imports edgenas.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from pathlib import Path

# 128 KiB: more than the first cache of a core has, so that what happens to the second is seen, and little enough not
# to push a model's weights out of that.
NUMBERS = 32 * 1024
PAGE = 4096
WORK_NS = 200_000
# As a share of a model's time: one twentieth.
RARELY = 20
# Paces of this many processes say what is usual; more do not change it.
FEWEST, MOST = 10, 1000
# A device that was more than a tenth off for so many processes, one after the other, has become another one.
MOST_OFF, ENOUGH_OFF = 0.1, 10


class Pacer:
    """A fixed piece of work."""

    def __init__(self) -> None:
        import numpy as np

        # On whole pages: where the numbers of one process lie across cache lines, its work takes an eighth longer.
        space = np.zeros(4 * NUMBERS + PAGE, dtype=np.uint8)
        first = -space.ctypes.data % PAGE
        self._numbers = space[first : first + 4 * NUMBERS].view(np.float32)
        self._add, self._times = np.add, 1
        self()
        self._times = max(1, round(WORK_NS / min(self() for _ in range(5))))
        self()
        self.every_ns = RARELY * self.taken_ns

    def __call__(self) -> float:
        """Nanoseconds that one turn of the work takes now; ``taken_ns`` are those of all of it."""
        add, numbers, times = self._add, self._numbers, self._times
        add(numbers, 1, out=numbers)  # a model may have pushed them out of the cache
        before = time.perf_counter_ns()
        for _ in range(times):
            add(numbers, 1, out=numbers)
        self.taken_ns = time.perf_counter_ns() - before
        return self.taken_ns / times


class Paces:
    """The paces of earlier processes on these CPUs, remembered in a file of ``folder``, if that can be written."""

    def __init__(self, affinity: list[int] | None, folder: str | None) -> None:
        self._path = None if folder is None else _place(Path(folder))
        self._key = "any" if affinity is None else ",".join(map(str, affinity))
        self._all = _read(self._path)
        self._known, self._off = self._all.get(self._key, ([], []))

    @property
    def usual_ms(self) -> float | None:
        """The pace that is usual here, ms; None before there were enough."""
        return median(self._known) if len(self._known) >= FEWEST else None

    def add(self, paces_ms: list[float] | None) -> None:
        """Take in those of a process."""
        if not paces_ms:
            return
        pace, usual = median(paces_ms), self.usual_ms
        if usual is None or abs(pace / usual - 1) <= MOST_OFF:
            self._known, self._off = [*self._known, pace][:MOST], []
            return
        self._off = [*self._off, pace]
        if len(self._off) >= ENOUGH_OFF:
            self._known, self._off = self._off, []

    def write(self) -> None:
        """Remember them for the next request, if that can be written."""
        if self._path is None or not (self._known or self._off):
            return
        self._all[self._key] = self._known, self._off
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(self._all))
            new.replace(self._path)


def median(values: list[float]) -> float:
    """As in the statistics of the standard library, whose name a file beside this one has where it is not sent."""
    ordered, middle = sorted(values), len(values) // 2
    return (ordered[middle] + ordered[~middle]) / 2


def _place(folder: Path) -> Path | None:
    """Where paces are remembered: in ``folder``, or among this user's files where that is everybody's."""
    with contextlib.suppress(OSError, RuntimeError):
        seen = folder.stat()
        own = seen.st_uid == os.getuid() and not seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return (folder if own else cache / "edgenas") / "pace.json"
    return None


def _read(path: Path | None) -> dict[str, tuple[list[float], list[float]]]:
    """What is remembered; nothing of a file that is damaged."""
    found = {}
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        for key, (known, off) in json.loads(path.read_text() if path else "{}").items():
            found[key] = [float(pace) for pace in known], [float(pace) for pace in off]
            if not all(0 < pace < float("inf") for pace in known + off):
                return {}
    return found
