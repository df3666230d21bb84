"""How a loaded model is warmed up and timed. Sent to a device beside agent.py.

Python 3.8, standard library and numpy only; never imports edgenas.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

WARM_SECONDS = 0.03
BLOCKS = 10
# A run that lost more than this share of its time to other programs was interrupted.
MOST_LOST = 0.02
# Where the time that was lost is not known: one that had to leave its CPU more often than this. A quiet core takes it
# away 5 to 20 times a second for a moment, a program that competes for it about 150 times for milliseconds.
SWITCH_NS = 10_000_000
# Runs of a model so slow that a single one takes longer than all of them should.
FEWEST_RUNS = 3
# 97.5% quantiles of Student's t with 1 to 9 degrees of freedom.
STUDENT_T = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)


def half_width(samples: Sequence[float]) -> float:
    """Half the 95% interval of the median, relative to it, by sectioning: see edgenas.profilers.measure.statistics."""
    import numpy as np

    blocks = min(BLOCKS, len(samples))
    median = float(np.median(samples))
    parts = [float(np.median(part)) for part in np.array_split(samples, blocks)]
    variance = sum((part - median) ** 2 for part in parts) / (blocks - 1)
    return STUDENT_T[blocks - 2] * math.sqrt(variance / blocks) / median


def warm_up(run: Callable[[], Any], settings: dict[str, Any]) -> int:
    """Run until five runs are no longer faster than the five before, within bounds; nanoseconds of a run then."""
    spent: list[int] = []
    started = time.perf_counter()
    while True:
        before = time.perf_counter_ns()
        run()
        spent.append(time.perf_counter_ns() - before)
        seconds = time.perf_counter() - started
        if len(spent) < settings["warmup_runs"] or seconds < min(WARM_SECONDS, settings["warmup_seconds"]):
            continue
        latest = sorted(spent[-5:])[len(spent[-5:]) // 2]
        stable = len(spent) >= 10 and latest >= 0.98 * sorted(spent[-10:-5])[2]
        if stable or seconds >= settings["warmup_seconds"]:
            return latest


class Runs:
    """What was timed: nanoseconds of single runs, and the places of those that another program interrupted.

    ``count``: how many were run in all. ``looks``: at the pace of the CPU, if anybody looks.
    """

    def __init__(self, probe_samples: Any) -> None:
        self.samples: list[int] = []
        self.interrupted: list[int] = []
        self.count = 0
        self._looks, self._since_ns = probe_samples, 0

    def add(self, spent: int, is_calm: bool, times: int) -> None:
        """One run was timed, and as many made in all."""
        if not is_calm:
            self.interrupted.append(len(self.samples))
        self.samples.append(spent)
        self.count += times
        self._since_ns += times * spent
        if self._looks and self._since_ns >= self._looks.every_ns:
            self.look()

    def look(self) -> None:
        """See how fast the CPU is, if there were runs since that was seen last."""
        if self._looks and self._since_ns:
            self._looks.after(len(self.samples))
            self._since_ns = 0

    @property
    def probe_times(self) -> list[float]:
        """How fast the CPU was around each run up to the last look, nanoseconds; nothing where nobody looked."""
        return self._looks.probe_times if self._looks else []

    @property
    def calm(self) -> int:
        """How many runs nobody interrupted."""
        return len(self.samples) - len(self.interrupted)

    def half_width(self) -> float:
        """Half the 95% interval of the median, relative to it, of the runs that nobody interrupted, by their pace."""
        self.look()
        places = set(self.interrupted)
        scale_factors = self._looks.scale_factors if self._looks else [1.0] * len(self.samples)
        return half_width([ns / scale_factors[place] for place, ns in enumerate(self.samples) if place not in places])


def sample(
    run: Callable[[], Any], expected_ns: int, settings: dict[str, Any], single: bool, probe_samples: Any = None
) -> Runs:
    """Time single runs.

    Goes on until the median of those that were not interrupted is known well
    enough, or time or runs are used up. Where max_runs would not span
    min_seconds, runs that are not kept lie between those that are. ``single``: a
    run is computed by one thread of this process and nothing else. ``looks``:
    at the pace, between the runs (``speed_probe.ProbeSamples``).
    """
    least = settings["min_runs"]
    if expected_ns > settings["max_seconds"] * 1e9:
        least = min(least, FEWEST_RUNS)
    skipped = int(settings["min_seconds"] * 1e9 / max(1, settings["max_runs"] * expected_ns))
    runs = Runs(probe_samples)
    check, started = settings["min_runs"], time.perf_counter_ns()
    while len(runs.samples) < settings["max_runs"]:
        for _ in range(skipped):
            run()
        runs.add(*timed(run, single), 1 + skipped)
        seconds = (time.perf_counter_ns() - started) / 1e9
        if len(runs.samples) >= least and seconds >= settings["max_seconds"]:
            break
        if runs.calm >= check:
            if seconds >= settings["min_seconds"] and runs.half_width() <= settings["relative_half_width"]:
                break
            check = runs.calm + 1 + runs.calm // 5
    runs.look()
    return runs


def timed(run: Callable[[], Any], single: bool) -> tuple[int, bool]:
    """Nanoseconds of one run, and whether no other program interrupted it.

    The clocks that tell are read outside of the time that is taken.
    """
    switches, worked = interruptions(), time.process_time_ns()
    before = time.perf_counter_ns()
    run()
    spent = time.perf_counter_ns() - before
    worked = time.process_time_ns() - worked
    if single:
        return spent, worked >= (1 - MOST_LOST) * spent
    return spent, (interruptions() - switches) * SWITCH_NS <= spent


def interruptions() -> int:
    """How often this process had to leave its CPU to another."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
