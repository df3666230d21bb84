"""The speed probe: a fixed piece of work, timed between the runs of a model to show how fast the CPU is meanwhile.

What shares a core's power, caches and execution units with a model slows this
work more than the model, from one tenth of a second to the next. The device remembers the
work's usual time, its baseline, from one request to the
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

# 128 KiB: more than the first cache of a core has, so that the work depends on the second one too, and little enough
# not to push a model's weights out of that.
NUMBERS = 32 * 1024
PAGE = 4096
# The work takes no less and no more, ms.
SHORTEST_MS, LONGEST_MS = 1e-5, 1e4
WORK_NS = 200_000
# A probe is due after this many times its own time: it takes one twentieth of a model's time.
TIME_RATIO = 20
# Latency changes by this power of the probe's time: 1.6 times the probe's baseline makes a run of 1.25 times. By size
# and runtime of a model between 0.4 and 0.9; greater for small changes than for large ones.
EXPONENT = 0.5
# Probe samples on each side of a run that give the speed at that run.
NEIGHBOURS = 3
# The baseline is the median over so many processes at least; more than the greater number do not change it.
MIN_PROCESSES, MAX_PROCESSES = 10, 1000
# A device whose latency was more than a tenth off for so many processes in a row has changed and gets a new baseline.
MAX_CHANGE, CHANGED_PROCESSES = 0.1, 10


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
        shortest = min(self() for _ in range(5))
        self._times = max(1, round(WORK_NS / shortest))
        self.every_ns = round(TIME_RATIO * self._times * shortest)

    def __call__(self) -> float:
        """Do the work and return its time, ns."""
        add, numbers, times = self._add, self._numbers, self._times
        add(numbers, 1, out=numbers)  # a model may have pushed them out of the cache
        before = time.perf_counter_ns()
        for _ in range(times):
            add(numbers, 1, out=numbers)
        return (time.perf_counter_ns() - before) / times


class ProbeSamples:
    """The speed probe's samples between the runs of a model; the next is due after ``every_ns`` of runs."""

    def __init__(self, probe: SpeedProbe) -> None:
        self._probe, self.every_ns = probe, probe.every_ns
        self._samples = [probe()]
        self._runs = [0]  # the number of runs before each sample

    def take_sample(self, runs: int) -> None:
        """Take a sample after this many runs in all."""
        self._samples.append(self._probe())
        self._runs.append(runs)

    @property
    def probe_times(self) -> list[float]:
        """The probe's time around each run up to the last sample, ns: the median of three samples on each side.

        One sample alone is as noisy as a run.
        """
        probe_times: list[float] = []
        for place in range(1, len(self._runs)):
            time_ns = median(self._samples[max(0, place - NEIGHBOURS) : place + NEIGHBOURS])
            probe_times += [time_ns] * (self._runs[place] - self._runs[place - 1])
        return probe_times

    @property
    def scale_factors(self) -> list[float]:
        """The divisor of each run up to the last sample, in the same unit for all."""
        return [probe**EXPONENT for probe in self.probe_times]

    @property
    def spent_ns(self) -> int:
        """The time that probing took, about."""
        return (len(self._samples) - 1) * self.every_ns // TIME_RATIO


class BaselineSpeeds:
    """The speed probe's times in earlier processes, remembered in a file of the request's folder where possible.

    Times are kept apart by machine, CPUs, threads, runtime and numpy.
    """

    def __init__(self, request: dict[str, Any], version: str) -> None:
        folder, cpus = request.get("remember_in"), request.get("affinity")
        self._path = None if folder is None else _choose_private_path(Path(folder))
        self._key = ", ".join(
            [
                _read_machine_id(),
                "any CPU" if cpus is None else "CPU " + " ".join(map(str, cpus)),
                "{threads} threads, {runtime}".format(**request),
                version,
                "numpy " + importlib.import_module("numpy").__version__,
            ]
        )
        self._all = _read_times(self._path)
        # Times of processes at the baseline, and of the latest ones that were off it.
        self._times, self._changed = self._all.get(self._key, ([], []))

    @property
    def baseline_ms(self) -> float | None:
        """The baseline of the probe's time here, ms; None before there were enough processes."""
        return median(self._times) if len(self._times) >= MIN_PROCESSES else None

    def add(self, probe_times_ms: list[float] | None) -> None:
        """Add the probe's times in one process."""
        if not probe_times_ms:
            return
        probe_ms, baseline_ms = median(probe_times_ms), self.baseline_ms
        if baseline_ms is None or is_same_speed(probe_ms, baseline_ms):
            self._times, self._changed = [*self._times, probe_ms][:MAX_PROCESSES], []
            return
        self._changed = [*self._changed, probe_ms]
        if len(self._changed) >= CHANGED_PROCESSES:
            self._times, self._changed = self._changed, []

    def write(self) -> None:
        """Remember the times for the next request, if they can be written."""
        if self._path is None or not (self._times or self._changed):
            return
        self._all[self._key] = self._times, self._changed
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(self._all))
            new.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink()


def is_same_speed(probe: float, baseline: float) -> bool:
    """Return whether latencies at this probe time are at most a tenth off those at the baseline."""
    return bool(abs((probe / baseline) ** EXPONENT - 1) <= MAX_CHANGE)


def median(values: list[float]) -> float:
    """Return the median. The standard library's statistics may be hidden by a file beside this one."""
    ordered, half = sorted(values), len(values) // 2
    return (ordered[half] + ordered[~half]) / 2


def _read_machine_id() -> str:
    """Return what distinguishes this machine from others that share a home folder."""
    with contextlib.suppress(OSError, ValueError):
        return Path("/etc/machine-id").read_text().strip()[:32] or platform.node()
    return platform.node()


def _choose_private_path(folder: Path) -> Path | None:
    """Return the file's path in ``folder``, or in this user's cache where others can write to ``folder``."""
    with contextlib.suppress(OSError, RuntimeError, KeyError):
        status = folder.stat()
        if status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return folder / "speed_probe.json"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenas" / "speed_probe.json"
    return None


def _read_times(path: Path | None) -> dict[str, tuple[list[float], list[float]]]:
    """Return the remembered times by key; nothing for a damaged file."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        remembered = {}
        for key, lists in json.loads(path.read_text() if path else "{}").items():
            times, changed = ([float(probe) for probe in probe_times] for probe_times in lists)
            if not all(SHORTEST_MS < probe < LONGEST_MS for probe in times + changed):
                return {}
            remembered[key] = times, changed
        return remembered
    return {}
