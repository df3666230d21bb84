"""Warming up and timing runs, as the agent does it in a model's process."""

from __future__ import annotations

import time
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


def test_sampling_respects_its_bounds() -> None:
    """At least min_runs although time is up; at most max_runs although nothing is known."""
    slow = {**QUICK, "min_runs": 4, "max_seconds": 0.001, "min_seconds": 0.0}
    assert len(agent_sampling.sample(lambda: time.sleep(0.002), 2_000_000, slow)[0]) == 4
    fast = {**QUICK, "relative_half_width": 1e-9, "max_runs": 25, "max_seconds": 10}
    assert len(agent_sampling.sample(lambda: None, 100, fast)[0]) == 25


def test_fast_runs_are_spread_over_the_least_time() -> None:
    """Ten samples of 1 ms that must span 50 ms are every sixth run: five lie between them."""
    runs: list[None] = []
    settings = {**QUICK, "min_seconds": 0.05, "max_seconds": 10, "max_runs": 10, "min_runs": 10}
    samples, _, count = agent_sampling.sample(lambda: runs.append(None), 1_000_000, settings)
    assert (len(samples), count, len(runs)) == (10, 60, 60)


def test_interrupted_runs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The places of runs during which the process lost its CPU come with the samples, which keep them."""
    switches = iter([0, 0, 1, 2, 2, 2, 2, 3])  # before and after each of four runs
    monkeypatch.setattr(agent_sampling, "interruptions", lambda: next(switches))
    settings = {**QUICK, "min_runs": 2, "max_runs": 4, "relative_half_width": 1e-9}
    samples, interrupted, _ = agent_sampling.sample(lambda: None, 10**9, settings)
    assert len(samples) == 4
    assert interrupted == [1, 3]


def test_a_busy_cpu_ends_sampling_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every run is interrupted, the bound on seconds still holds."""
    count = iter(range(10**9))
    monkeypatch.setattr(agent_sampling, "interruptions", lambda: next(count))
    settings = {**QUICK, "min_runs": 2, "max_runs": 10**9, "max_seconds": 0.05}
    samples, interrupted, _ = agent_sampling.sample(lambda: time.sleep(0.001), 10**9, settings)
    assert len(interrupted) == len(samples) <= 51


def test_warm_up_goes_on_while_it_gets_faster() -> None:
    """Runs that still get faster are not counted; it ends when five are no faster than the five before."""
    sleeps = [0.02] * 5 + [0.01] * 5 + [0.005] * 100
    left = iter(sleeps)
    agent_sampling.warm_up(lambda: time.sleep(next(left)), {"warmup_runs": 3, "warmup_seconds": 30})
    assert 100 - 12 <= len(list(left)) <= 100 - 5
