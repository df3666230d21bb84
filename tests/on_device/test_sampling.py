"""Warming up and timing runs, as the agent does it in a model's process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from edgenas.on_device import sampling
from edgenas.profilers import MeasureSettings
from edgenas.profilers.measure.statistics import median_with_interval

QUICK: dict[str, Any] = MeasureSettings(max_runs=20, min_seconds=0, max_seconds=0.2, warmup_seconds=0.1).to_dict()


def test_it_stops_by_the_rule_that_the_host_reports() -> None:
    """The agent's half-width is that of the published interval."""
    samples = [1000 + 37 * (number * 7 % 13) for number in range(53)]
    median, low, _ = median_with_interval([float(sample) for sample in samples])
    assert sampling.relative_half_width(samples) == pytest.approx((median - low) / median, rel=1e-12)


Script = Callable[..., Callable[[], None]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Runs by clocks of their own: of each, nanoseconds from its begin to its end, those worked, and switches."""
    now = SimpleNamespace(ns=0, worked=0, switches=0)
    clocks = {"perf_counter_ns": lambda: now.ns, "process_time_ns": lambda: now.worked}
    monkeypatch.setattr(sampling, "time", SimpleNamespace(**clocks))
    monkeypatch.setattr(sampling, "count_involuntary_switches", lambda: now.switches)

    def make(*runs: tuple[int, int, int]) -> Callable[[], None]:
        left = itertools.cycle(runs)

        def run() -> None:
            spent, worked, switches = next(left)
            now.ns, now.worked, now.switches = now.ns + spent, now.worked + worked, now.switches + switches

        return run

    return make


def test_sampling_respects_its_bounds(scripted: Script) -> None:
    """At least min_runs although time is up; at most max_runs although nothing is known."""
    slow = {**QUICK, "min_runs": 4, "max_seconds": 0.003, "min_seconds": 0.0}
    run = scripted((2_000_000, 2_000_000, 0))
    assert len(sampling.sample_runs(run, 2_000_000, slow, True).samples) == 4
    fast = {**QUICK, "relative_half_width": 1e-9, "max_runs": 25, "max_seconds": 10}
    run = scripted(*((length, length, 0) for length in range(100, 800, 100)))
    assert len(sampling.sample_runs(run, 100, fast, True).samples) == 25


def test_a_model_of_seconds_is_run_three_times(scripted: Script) -> None:
    """Where a single run takes longer than all of them should, ten would keep the device for a minute."""
    run = scripted((5 * 10**9, 5 * 10**9, 0))
    settings = MeasureSettings().to_dict()
    assert len(sampling.sample_runs(run, 5 * 10**9, settings, True).samples) == 3
    assert len(sampling.sample_runs(run, 5 * 10**9, {**settings, "min_runs": 2}, True).samples) == 2


def test_fast_runs_are_spread_over_the_least_time() -> None:
    """Ten samples of 1 ms that must span 50 ms are every sixth run: five lie between them."""
    runs: list[None] = []
    settings = {**QUICK, "min_seconds": 0.05, "max_seconds": 10, "max_runs": 10, "min_runs": 10}
    timed = sampling.sample_runs(lambda: runs.append(None), 1_000_000, settings, True)
    assert (len(timed.samples), timed.count, len(runs)) == (10, 60, 60)


def test_interrupted_runs_are_named(scripted: Script) -> None:
    """The places of runs that lost more than a fiftieth of their time come with the samples, which keep them."""
    settings = {**QUICK, "min_runs": 4, "max_runs": 4}
    run = scripted((1000, 1000, 0), (1000, 979, 1), (1000, 980, 1), (3000, 1000, 0))
    timed = sampling.sample_runs(run, 10**9, settings, True)
    assert (timed.samples, timed.interrupted, timed.count) == ([1000, 1000, 1000, 3000], [1, 3], 4)


@pytest.mark.parametrize(("milliseconds", "interrupted"), [(5, [0, 1, 2, 3]), (100, []), (600, [])])
def test_without_its_time_a_run_counts_by_how_often_it_was_interrupted(
    scripted: Script, milliseconds: int, interrupted: list[int]
) -> None:
    """Several threads, or other hardware: more than one switch in 10 ms counts, the few of a long run do not."""
    settings = {**QUICK, "min_runs": 4, "max_runs": 4}
    run = scripted((milliseconds * 10**6, 0, max(1, milliseconds // 50)))
    assert sampling.sample_runs(run, 10**9, settings, False).interrupted == interrupted


def test_the_clocks_tell_work_from_waiting() -> None:
    """A millisecond of work is calm at least once in 2000 times; one of sleep never."""

    def work() -> None:
        end = time.perf_counter_ns() + 1_000_000
        while time.perf_counter_ns() < end:
            pass

    assert any(sampling.time_run(work, True)[1] for _ in range(2000))
    assert not sampling.time_run(lambda: time.sleep(0.001), True)[1]


def test_a_busy_cpu_ends_sampling_in_time(scripted: Script) -> None:
    """Where every run is interrupted, the bound on seconds still holds: 50 runs of 1 ms in 50 ms."""
    settings = {**QUICK, "min_runs": 2, "max_runs": 10**9, "max_seconds": 0.05}
    timed = sampling.sample_runs(scripted((10**6, 0, 1)), 10**9, settings, True)
    assert len(timed.interrupted) == len(timed.samples) == 50


def test_warm_up_goes_on_while_it_gets_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that still get faster are not counted; it ends when five are no faster than the five before.

    The median of the runs 14 to 18 is 5 ms, as is that of 9 to 13, the first five that have three of 5 ms.
    """
    now = 0
    left = iter([20_000_000] * 5 + [10_000_000] * 5 + [5_000_000] * 100)

    def run() -> None:
        nonlocal now
        now += next(left)

    clock = SimpleNamespace(perf_counter=lambda: now / 1e9, perf_counter_ns=lambda: now)
    monkeypatch.setattr(sampling, "time", clock)
    assert sampling.warm_up_and_time(run, {"warmup_runs": 3, "warmup_seconds": 30}) == 5_000_000
    assert len(list(left)) == 110 - 18


class ProbeSamples:
    """Probe samples of given times, each due after 10 ms of runs; a run has the sample after it."""

    every_ns = 10_000_000

    def __init__(self, *probe_times: float) -> None:
        self._left = itertools.chain(probe_times, itertools.repeat(probe_times[-1]))
        self.probe_times: list[float] = []

    def take_sample(self, runs: int) -> None:
        self.probe_times += [next(self._left)] * (runs - len(self.probe_times))


def test_a_probe_is_due_now_and_then_and_at_the_end(scripted: Script) -> None:
    """Of seven runs of 4 ms the first three have one sample, the next three another, the last its own."""
    settings = {**QUICK, "min_runs": 7, "max_runs": 7, "relative_half_width": 1e-9, "max_seconds": 1}
    run = scripted(*((4_000_000 + place, 4_000_000 + place, 0) for place in range(7)))
    timed = sampling.sample_runs(run, 4_000_000, settings, True, ProbeSamples(110, 130, 150))
    assert timed.probe_times == [110] * 3 + [130] * 3 + [150]


def test_the_probe_does_not_decide_how_many_runs_are_enough(scripted: Script) -> None:
    """Runs that double half-way with the probe's time are as little known as without a probe."""
    settings = {**QUICK, "min_runs": 10, "max_runs": 100, "max_seconds": 10}
    runs = [(length, length, 0) for length in [12_000_000] * 5 + [24_000_000] * 95]
    probed = sampling.sample_runs(scripted(*runs), 12_000_000, settings, True, ProbeSamples(*[100.0] * 5, 400.0))
    assert len(probed.probe_times) == len(probed.samples)
    assert probed.samples == sampling.sample_runs(scripted(*runs), 12_000_000, settings, True).samples
    assert len(probed.samples) > 10


def test_without_a_probe_there_are_no_probe_times(scripted: Script) -> None:
    """On other hardware than the CPU the speed is not probed."""
    settings = {**QUICK, "min_runs": 4, "max_runs": 4}
    assert sampling.sample_runs(scripted((1000, 1000, 0)), 10**9, settings, True).probe_times == []
