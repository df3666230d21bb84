"""Warming up and timing runs, as the agent does it in a model's process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from edgenas.profilers import MeasureSettings, agent_sampling
from edgenas.profilers.statistics import median_interval

QUICK: dict[str, Any] = MeasureSettings(max_runs=20, min_seconds=0, max_seconds=0.2, warmup_seconds=0.1).to_dict()


def test_it_stops_by_the_rule_that_the_host_reports() -> None:
    """The agent's half-width is that of the published interval."""
    samples = [1000 + 37 * (number * 7 % 13) for number in range(53)]
    median, low, _ = median_interval([float(sample) for sample in samples])
    assert agent_sampling.half_width(samples) == pytest.approx((median - low) / median, rel=1e-12)


Runs = Callable[..., Callable[[], None]]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Runs by clocks of their own: of each, nanoseconds from its begin to its end, those worked, and switches."""
    now = SimpleNamespace(ns=0, worked=0, switches=0)
    clocks = {"perf_counter_ns": lambda: now.ns, "process_time_ns": lambda: now.worked}
    monkeypatch.setattr(agent_sampling, "time", SimpleNamespace(**clocks))
    monkeypatch.setattr(agent_sampling, "interruptions", lambda: now.switches)

    def make(*runs: tuple[int, int, int]) -> Callable[[], None]:
        left = itertools.cycle(runs)

        def run() -> None:
            spent, worked, switches = next(left)
            now.ns, now.worked, now.switches = now.ns + spent, now.worked + worked, now.switches + switches

        return run

    return make


def test_sampling_respects_its_bounds(scripted: Runs) -> None:
    """At least min_runs although time is up; at most max_runs although nothing is known."""
    slow = {**QUICK, "min_runs": 4, "max_seconds": 0.003, "min_seconds": 0.0}
    run = scripted((2_000_000, 2_000_000, 0))
    assert len(agent_sampling.sample(run, 2_000_000, slow, True)[0]) == 4
    fast = {**QUICK, "relative_half_width": 1e-9, "max_runs": 25, "max_seconds": 10}
    run = scripted(*((length, length, 0) for length in range(100, 800, 100)))
    assert len(agent_sampling.sample(run, 100, fast, True)[0]) == 25


def test_a_model_of_seconds_is_run_three_times(scripted: Runs) -> None:
    """Where a single run takes longer than all of them should, ten would keep the device for a minute."""
    run = scripted((5 * 10**9, 5 * 10**9, 0))
    settings = MeasureSettings().to_dict()
    assert len(agent_sampling.sample(run, 5 * 10**9, settings, True)[0]) == 3
    assert len(agent_sampling.sample(run, 5 * 10**9, {**settings, "min_runs": 2}, True)[0]) == 2


def test_fast_runs_are_spread_over_the_least_time() -> None:
    """Ten samples of 1 ms that must span 50 ms are every sixth run: five lie between them."""
    runs: list[None] = []
    settings = {**QUICK, "min_seconds": 0.05, "max_seconds": 10, "max_runs": 10, "min_runs": 10}
    samples, _, count = agent_sampling.sample(lambda: runs.append(None), 1_000_000, settings, True)
    assert (len(samples), count, len(runs)) == (10, 60, 60)


def test_interrupted_runs_are_named(scripted: Runs) -> None:
    """The places of runs that lost more than a fiftieth of their time come with the samples, which keep them."""
    settings = {**QUICK, "min_runs": 4, "max_runs": 4}
    run = scripted((1000, 1000, 0), (1000, 979, 1), (1000, 980, 1), (3000, 1000, 0))
    assert agent_sampling.sample(run, 10**9, settings, True) == ([1000, 1000, 1000, 3000], [1, 3], 4)


@pytest.mark.parametrize(("milliseconds", "interrupted"), [(5, [0, 1, 2, 3]), (100, []), (600, [])])
def test_without_its_time_a_run_is_judged_by_how_often_it_was_interrupted(
    scripted: Runs, milliseconds: int, interrupted: list[int]
) -> None:
    """Several threads, or other hardware: more than one switch in 10 ms counts, the few of a long run do not."""
    settings = {**QUICK, "min_runs": 4, "max_runs": 4}
    run = scripted((milliseconds * 10**6, 0, max(1, milliseconds // 50)))
    assert agent_sampling.sample(run, 10**9, settings, False)[1] == interrupted


def test_the_clocks_tell_work_from_waiting() -> None:
    """A millisecond of work is calm at least once in 2000 times; one of sleep never."""

    def work() -> None:
        end = time.perf_counter_ns() + 1_000_000
        while time.perf_counter_ns() < end:
            pass

    assert any(agent_sampling.timed(work, True)[1] for _ in range(2000))
    assert not agent_sampling.timed(lambda: time.sleep(0.001), True)[1]


def test_a_busy_cpu_ends_sampling_in_time(scripted: Runs) -> None:
    """Where every run is interrupted, the bound on seconds still holds: 50 runs of 1 ms in 50 ms."""
    settings = {**QUICK, "min_runs": 2, "max_runs": 10**9, "max_seconds": 0.05}
    samples, interrupted, _ = agent_sampling.sample(scripted((10**6, 0, 1)), 10**9, settings, True)
    assert len(interrupted) == len(samples) == 50


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
    monkeypatch.setattr(agent_sampling, "time", clock)
    assert agent_sampling.warm_up(run, {"warmup_runs": 3, "warmup_seconds": 30}) == 5_000_000
    assert len(list(left)) == 110 - 18
