"""The speed probe: a fixed piece of work, timed between the runs of a model to show how fast the CPU is meanwhile.

What shares a core's power, caches and execution units with a model slows this
work more than the model, from one tenth of a second to the next. Sent to a device
beside agent.py. Python 3.8, standard library and numpy only; never imports edgenas.
"""

from __future__ import annotations

import time

# 128 KiB: more than the first cache of a core has, so that the work depends on the second one too, and little enough
# not to push a model's weights out of that.
NUMBERS = 32 * 1024
PAGE = 4096
WORK_NS = 200_000
# A probe is due after this many times its own time: it takes one twentieth of a model's time.
TIME_RATIO = 20
# Probe samples on each side of a run that give the speed at that run.
NEIGHBOURS = 3


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
    def spent_ns(self) -> int:
        """The time that probing took, about."""
        return (len(self._samples) - 1) * self.every_ns // TIME_RATIO


def median(values: list[float]) -> float:
    """Return the median. The standard library's statistics may be hidden by a file beside this one."""
    ordered, half = sorted(values), len(values) // 2
    return (ordered[half] + ordered[~half]) / 2
