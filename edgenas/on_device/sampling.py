"""Warm-up and timing of a loaded model. Sent to a device beside agent.py.

Python 3.8, standard library and numpy only; never imports edgenas.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

MIN_WARM_SECONDS = 0.03
BLOCKS = 10
# A run that lost more than this share of its time to other programs was interrupted.
MAX_LOST_SHARE = 0.02
# Where the lost time is not known, a run that had to leave its CPU more often than this was interrupted. A quiet core
# takes it away 5 to 20 times a second for a moment, a program that competes for it about 150 times for milliseconds.
SWITCH_NS = 10_000_000
# Runs of a model so slow that a single one takes longer than all of them should.
MIN_SLOW_RUNS = 3
# 97.5% quantiles of Student's t with 1 to BLOCKS - 1 degrees of freedom.
STUDENT_T = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)


def relative_half_width(samples: Sequence[float]) -> float:
    """Return half the 95% interval of the median, relative to the median, by sectioning.

    See edgenas.profilers.measure.statistics.
    """
    import numpy as np

    blocks = min(BLOCKS, len(samples))
    median = float(np.median(samples))
    medians = [float(np.median(block)) for block in np.array_split(samples, blocks)]
    variance = sum((each - median) ** 2 for each in medians) / (blocks - 1)
    return STUDENT_T[blocks - 2] * math.sqrt(variance / blocks) / median


def warm_up_and_time(run: Callable[[], Any], settings: dict[str, Any]) -> int:
    """Run until five runs are no longer faster than the five before, within bounds; return the ns of a run then."""
    spent: list[int] = []
    started = time.perf_counter()
    while True:
        before = time.perf_counter_ns()
        run()
        spent.append(time.perf_counter_ns() - before)
        seconds = time.perf_counter() - started
        if len(spent) < settings["warmup_runs"] or seconds < min(MIN_WARM_SECONDS, settings["warmup_seconds"]):
            continue
        latest = sorted(spent[-5:])[len(spent[-5:]) // 2]
        stable = len(spent) >= 10 and latest >= 0.98 * sorted(spent[-10:-5])[2]
        if stable or seconds >= settings["warmup_seconds"]:
            return latest


class Runs:
    """Timed runs: their nanoseconds, and the indices of those that another program interrupted.

    ``count`` is how many were run in all, with those between the timed ones. ``probe_samples`` are
    the speed probe's between the runs, None where it is not run.
    """

    def __init__(self, probe_samples: Any) -> None:
        self.samples: list[int] = []
        self.interrupted: list[int] = []
        self.count = 0
        self._probe_samples, self._since_probe_ns = probe_samples, 0

    def add(self, spent: int, is_calm: bool, times: int) -> None:
        """Add one timed run of as many made in all, and run the speed probe when it is due."""
        if not is_calm:
            self.interrupted.append(len(self.samples))
        self.samples.append(spent)
        self.count += times
        self._since_probe_ns += times * spent
        if self._probe_samples and self._since_probe_ns >= self._probe_samples.every_ns:
            self.probe()

    def probe(self) -> None:
        """Run the speed probe, if there were runs since the last time."""
        if self._probe_samples and self._since_probe_ns:
            self._probe_samples.take_sample(len(self.samples))
            self._since_probe_ns = 0

    @property
    def probe_times(self) -> list[float]:
        """The speed probe's time around each run up to the last probe, ns; empty without a probe."""
        return self._probe_samples.probe_times if self._probe_samples else []

    @property
    def calm_count(self) -> int:
        """The number of runs that were not interrupted."""
        return len(self.samples) - len(self.interrupted)

    def measure_relative_half_width(self) -> float:
        """Return half the relative 95% interval of the median of the uninterrupted runs."""
        interrupted = set(self.interrupted)
        return relative_half_width([ns for index, ns in enumerate(self.samples) if index not in interrupted])


def sample_runs(
    run: Callable[[], Any], expected_ns: int, settings: dict[str, Any], single: bool, probe_samples: Any = None
) -> Runs:
    """Time single runs until the median of the uninterrupted ones is known well enough, or time or runs are used up.

    Where max_runs would not span min_seconds, runs that are not kept lie between those that are.
    ``single``: a run is computed by one thread of this process and nothing else.
    ``probe_samples``: the speed probe's between the runs (``speed_probe.ProbeSamples``).
    """
    least = settings["min_runs"]
    if expected_ns > settings["max_seconds"] * 1e9:
        least = min(least, MIN_SLOW_RUNS)
    skipped = int(settings["min_seconds"] * 1e9 / max(1, settings["max_runs"] * expected_ns))
    runs = Runs(probe_samples)
    check, started = settings["min_runs"], time.perf_counter_ns()
    while len(runs.samples) < settings["max_runs"]:
        for _ in range(skipped):
            run()
        runs.add(*time_run(run, single), 1 + skipped)
        seconds = (time.perf_counter_ns() - started) / 1e9
        if len(runs.samples) >= least and seconds >= settings["max_seconds"]:
            break
        if runs.calm_count >= check:
            if (
                seconds >= settings["min_seconds"]
                and runs.measure_relative_half_width() <= settings["relative_half_width"]
            ):
                break
            check = runs.calm_count + 1 + runs.calm_count // 5
    runs.probe()
    return runs


def time_run(run: Callable[[], Any], single: bool) -> tuple[int, bool]:
    """Return the nanoseconds of one run, and whether no other program interrupted it.

    The clocks that show interruptions are read outside of the timed section.
    """
    switches, worked = count_involuntary_switches(), time.process_time_ns()
    before = time.perf_counter_ns()
    run()
    spent = time.perf_counter_ns() - before
    worked = time.process_time_ns() - worked
    if single:
        return spent, worked >= (1 - MAX_LOST_SHARE) * spent
    return spent, (count_involuntary_switches() - switches) * SWITCH_NS <= spent


def count_involuntary_switches() -> int:
    """Return how often this process had to leave its CPU to another."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
