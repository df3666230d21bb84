"""How fast the CPU is while a model is timed: a fixed piece of work, its pace, timed between the runs.

What shares a core's power, caches and execution units with a model slows this
work more than the model, from one tenth of a second to the next. The time that
the work usually takes on a device is remembered there from one request to the
next. Sent to a device beside agent.py. Python 3.8, standard library and numpy
only; never imports edgenas.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import platform
import stat
import time
from pathlib import Path
from typing import Any

# 128 KiB: more than the first cache of a core has, so that what happens to the second is seen, and little enough not
# to push a model's weights out of that.
NUMBERS = 32 * 1024
PAGE = 4096
# No turn of the work takes less, or more.
LEAST_MS, MOST_MS = 1e-5, 1e4
WORK_NS = 200_000
# As a share of a model's time: one twentieth.
RARELY = 20
# A run feels this power of the pace: work of 1.6 times the usual time makes one of 1.25 times. By size and runtime of a
# model between 0.4 and 0.9; of small differences more than of large ones.
EXPONENT = 0.5
# ProbeSamples on each side of a run that say how fast the CPU was.
NEAR = 3
# BaselineSpeeds of this many processes say what is usual; more do not change it.
FEWEST, MOST = 10, 1000
# A device that was more than a tenth off, as models feel it, for so many processes, one after the other, has become
# another one.
MOST_OFF, ENOUGH_OFF = 0.1, 10


class SpeedProbe:
    """A fixed piece of work."""

    def __init__(self) -> None:
        import numpy as np

        # On whole pages: where the numbers of one process lie across cache lines, its work takes an eighth longer.
        space = np.zeros(4 * NUMBERS + PAGE, dtype=np.uint8)
        first = -space.ctypes.data % PAGE
        self._numbers = space[first : first + 4 * NUMBERS].view(np.float32)
        self._add, self._times = np.add, 1
        self()
        least = min(self() for _ in range(5))
        self._times = max(1, round(WORK_NS / least))
        self.every_ns = round(RARELY * self._times * least)

    def __call__(self) -> float:
        """Nanoseconds that one turn of the work takes now."""
        add, numbers, times = self._add, self._numbers, self._times
        add(numbers, 1, out=numbers)  # a model may have pushed them out of the cache
        before = time.perf_counter_ns()
        for _ in range(times):
            add(numbers, 1, out=numbers)
        return (time.perf_counter_ns() - before) / times


class ProbeSamples:
    """How fast the CPU was between the runs of a model. ``every_ns``: after how long a look is due again."""

    def __init__(self, pacer: SpeedProbe) -> None:
        self._pacer, self.every_ns = pacer, pacer.every_ns
        self._found = [pacer()]
        self._runs = [0]  # how many there were at each look

    def after(self, runs: int) -> None:
        """Look after so many runs in all."""
        self._found.append(self._pacer())
        self._runs.append(runs)

    @property
    def probe_times(self) -> list[float]:
        """That around each run up to the last look, nanoseconds: the median of the three looks before and after it.

        One alone is as noisy as a run.
        """
        probe_times: list[float] = []
        for place in range(1, len(self._runs)):
            near = middle(self._found[max(0, place - NEAR) : place + NEAR])
            probe_times += [near] * (self._runs[place] - self._runs[place - 1])
        return probe_times

    @property
    def scale_factors(self) -> list[float]:
        """What each run up to the last look is to be divided by, in the same unit for all."""
        return [probe**EXPONENT for probe in self.probe_times]

    @property
    def taken_ns(self) -> int:
        """What looking took, about."""
        return (len(self._found) - 1) * self.every_ns // RARELY


class BaselineSpeeds:
    """The probe_times of earlier processes like those of a request, remembered in a file of its folder, if that can be.

    Alike are those of the same machine, CPUs, threads, runtime and numpy.
    """

    def __init__(self, request: dict[str, Any], version: str) -> None:
        folder, cpus = request.get("remember_in"), request.get("affinity")
        self._path = None if folder is None else _place(Path(folder))
        self._key = ", ".join(
            [
                _machine(),
                "any CPU" if cpus is None else "CPU " + " ".join(map(str, cpus)),
                "{threads} threads, {runtime}".format(**request),
                version,
                "numpy " + importlib.import_module("numpy").__version__,
            ]
        )
        self._all = _read(self._path)
        self._known, self._off = self._all.get(self._key, ([], []))

    @property
    def usual_ms(self) -> float | None:
        """The pace that is usual here, ms; None before there were enough."""
        return middle(self._known) if len(self._known) >= FEWEST else None

    def add(self, probe_times_ms: list[float] | None) -> None:
        """Take in those of a process."""
        if not probe_times_ms:
            return
        probe, usual = middle(probe_times_ms), self.usual_ms
        if usual is None or is_same_speed(probe, usual):
            self._known, self._off = [*self._known, probe][:MOST], []
            return
        self._off = [*self._off, probe]
        if len(self._off) >= ENOUGH_OFF:
            self._known, self._off = self._off, []

    def write(self) -> None:
        """Remember them for the next request, if that can be written."""
        if self._path is None or not (self._known or self._off):
            return
        self._all[self._key] = self._known, self._off
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(self._all))
            new.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()


def is_same_speed(probe: float, usual: float) -> bool:
    """Whether a pace is that of the same device: at most a tenth off, as models feel it."""
    return bool(abs((probe / usual) ** EXPONENT - 1) <= MOST_OFF)


def middle(values: list[float]) -> float:
    """The median; a file beside this one hides the standard library's statistics where it is not sent."""
    ordered, half = sorted(values), len(values) // 2
    return (ordered[half] + ordered[~half]) / 2


def _machine() -> str:
    """What tells this machine from others that share a home folder."""
    with contextlib.suppress(OSError, ValueError):
        return Path("/etc/machine-id").read_text().strip()[:32] or platform.node()
    return platform.node()


def _place(folder: Path) -> Path | None:
    """Where probe_times are remembered: in ``folder``, or among this user's files where that is everybody's."""
    with contextlib.suppress(OSError, RuntimeError, KeyError):
        seen = folder.stat()
        if seen.st_uid == os.getuid() and not seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return folder / "speed_probe.json"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenas" / "speed_probe.json"
    return None


def _read(path: Path | None) -> dict[str, tuple[list[float], list[float]]]:
    """What is remembered; nothing of a file that is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        found = {}
        for key, lists in json.loads(path.read_text() if path else "{}").items():
            known, off = ([float(probe) for probe in probe_times] for probe_times in lists)
            if not all(LEAST_MS < probe < MOST_MS for probe in known + off):
                return {}
            found[key] = known, off
        return found
    return {}
