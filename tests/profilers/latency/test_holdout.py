"""The holdout report of a latency table, against values derived by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edgenas.costs import Genes, Vector
from edgenas.files import parse_dataclass
from edgenas.profilers import LatencyTable, Measurement
from edgenas.profilers.latency.conditions import ConditionsSummary
from edgenas.profilers.latency.holdout import (
    HoldoutReport,
    MeasuredSubnets,
    kendall_tau_at_equal_resolution,
    mape_upper_bound,
)
from edgenas.profilers.measure.validity import Validity
from edgenas.space import MobileNetV3
from edgenas.space.parts import macs

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_GENES = _SPACE.sample_distinct(64, np.random.default_rng(0))
_HELD_OUT = np.arange(64) >= 60
# How far each held-out subnet's prediction is from what is "measured": predicted / measured - 1.
_ERRORS = (0.02, -0.04, 0.08, -0.2)


def _latency_ms(genes: Genes) -> Vector:
    return 0.05 + _SPACE.sum_over_parts(genes, 0.01 + _SPACE.part_costs(macs) / 1e7)


def _peak_bytes(genes: Genes) -> Vector:
    return 1e6 + 2 * _SPACE.activation_bytes(genes) + 3 * _SPACE.weight_bytes(genes)


def _measured(median_ms: float, peak_bytes: float = 1e6, status: Any = "valid", **changes: Any) -> Measurement:
    """A made-up measurement with this median: three runs of equal distance."""
    fields: dict[str, Any] = {
        "model_sha256": "0" * 64,
        "target": {"device": "made up"},
        "samples_ms": (0.9 * median_ms, median_ms, 1.1 * median_ms),
        "peak_bytes": round(peak_bytes),
        "load_ms": 1.0,
        "device_s": 0.5,
        "facts": {},
        "versions": {},
        "conditions_before": {},
        "conditions_after": {},
        "validity": Validity(status),
        "synthetic": False,
        "settings": {},
    }
    return Measurement(**{**fields, **changes})


def _measurements() -> list[Measurement]:
    """Exact to the formula for fitted subnets; off by ``_ERRORS``, and by 10% in memory, for what is held out."""
    latency, peak = _latency_ms(_GENES), _peak_bytes(_GENES)
    latency[_HELD_OUT] /= 1 + np.array(_ERRORS)
    peak[_HELD_OUT] /= 1.1
    statuses = ["valid"] * 50 + ["unverified"] * 14
    return [_measured(*values) for values in zip(latency.tolist(), peak.tolist(), statuses, strict=True)]


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    """A table fitted to made-up measurements."""
    return LatencyTable.fit(_SPACE, "made-up", _GENES, _measurements(), _HELD_OUT, "inputs")


def _report(table: LatencyTable, held_out_ms: Vector, held_out: Any = _HELD_OUT, **changes: Any) -> HoldoutReport:
    """The report for these medians of the held-out subnets."""
    measurements = _measurements()
    for place, median_ms in zip(np.flatnonzero(held_out).tolist(), held_out_ms.tolist(), strict=True):
        measurements[place] = _measured(median_ms, **changes)
    return table.evaluate(MeasuredSubnets.of(_GENES, [[each] for each in measurements]), held_out)


def test_the_report_by_hand(table: LatencyTable) -> None:
    """Errors of 2, -4, 8 and -20% on four held-out subnets give these numbers."""
    holdout = table.holdout
    assert holdout is not None
    assert holdout.errors == pytest.approx(_ERRORS, abs=1e-3)
    assert holdout.mape == pytest.approx(0.085, abs=1e-3)
    assert holdout.bias == pytest.approx(-0.035, abs=1e-3)
    # Between the third (0.08) and the fourth (0.2), at 0.95 * 3 = 2.85: 0.08 + 0.85 * 0.12
    assert holdout.p95 == pytest.approx(0.182, abs=1e-3)
    assert (holdout.within_5_percent, holdout.within_10_percent) == (0.5, 0.75)
    assert holdout.memory_mape == pytest.approx(0.1, abs=1e-3)
    assert (holdout.fitted, holdout.held_out) == (60, 4)
    assert holdout.device_s == 32.0
    assert holdout.validity_counts == {"valid": 50, "unverified": 14}


def test_rank_correlation_by_hand(table: LatencyTable) -> None:
    """Of the six pairs of four held-out subnets one is measured the wrong way round: tau is (5 - 1) / 6."""
    medians = np.empty(4)
    medians[np.argsort(table.latency_ms(_GENES[_HELD_OUT]))] = (1.0, 2.0, 4.0, 3.0)
    assert _report(table, medians).kendall_tau == pytest.approx(4 / 6)


def test_rank_correlation_is_reported_at_equal_resolution(table: LatencyTable) -> None:
    """Within each resolution the order is reversed: tau over all pairs hides it, tau at equal resolution is -1."""
    rows = [np.flatnonzero(_GENES[:, 0] == place)[:2] for place in range(3)]
    held_out = np.isin(np.arange(64), np.concatenate(rows))
    medians = np.zeros(64)
    for place, pair in enumerate(rows):
        medians[pair[np.argsort(table.latency_ms(_GENES[pair]))]] = np.array([2.0, 1.0]) * 10.0**place
    holdout = _report(table, medians[held_out], held_out)
    assert (holdout.kendall_tau_within, holdout.compared_pairs) == (-1.0, 3)
    assert holdout.kendall_tau > -1
    assert "over all pairs; -1.00 at equal resolution" in str(holdout)
    assert "Kendall tau -1.00 on 6 held-out subnets" in holdout.headline


def test_one_held_out_subnet_has_no_rank_correlation(table: LatencyTable) -> None:
    """Of one subnet there is no order: there is no pair to report, and no confidence in the error."""
    only = int(np.flatnonzero(_GENES[:, 0] == 1)[0])
    holdout = _report(table, np.array([1.0]), np.arange(64) == only)
    assert (holdout.kendall_tau, holdout.kendall_tau_within, holdout.compared_pairs) == (0.0, None, 0)
    assert holdout.mape_upper_bound == math.inf
    assert "confidence" not in str(holdout)
    assert "at equal resolution" not in str(holdout)


def test_pairs_of_other_resolutions_do_not_count() -> None:
    """At each of two resolutions one pair: one is ranked as measured and one the wrong way round."""
    genes = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    predicted, measured = np.array([1.0, 2.0, 10.0, 11.0]), np.array([1.0, 2.0, 11.0, 10.0])
    assert kendall_tau_at_equal_resolution(genes, predicted, measured) == (0.0, 2)
    assert kendall_tau_at_equal_resolution(genes[:2], predicted[:2], measured[:2]) == (1.0, 1)


def test_an_equal_prediction_is_neither_right_nor_wrong() -> None:
    """Of three pairs two are ranked as measured, and one is predicted to be equally fast: tau is 2 / 3."""
    genes, measured = np.zeros((3, 2), dtype=np.int64), np.array([1.0, 2.0, 3.0])
    tau, pairs = kendall_tau_at_equal_resolution(genes, np.array([5.0, 5.0, 7.0]), measured)
    assert (tau, pairs) == (2 / 3, 3)


def test_without_a_pair_there_is_no_tau() -> None:
    """Subnets that all differ in resolution cannot be ranked at any."""
    found = kendall_tau_at_equal_resolution(np.array([[0, 0], [1, 0]]), np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert found == (None, 0)


def _with_ranks(table: LatencyTable, tau: float | None, pairs: int) -> HoldoutReport:
    assert table.holdout is not None
    return dataclasses.replace(table.holdout, kendall_tau_within=tau, compared_pairs=pairs)


def test_a_table_that_hardly_tells_subnets_apart_is_too_coarse(table: LatencyTable) -> None:
    """Tau of 0.4 means that 7 of 10 pairs are in order; the listing says so, with what to do."""
    coarse = _with_ranks(table, 0.4, 10)
    assert coarse.coarseness == ("orders 70% of 10 pairs at equal resolution: profile with more --minutes")
    (line,) = (line for line in str(coarse).splitlines() if line.startswith("TOO COARSE"))
    assert line.endswith(coarse.coarseness)


@pytest.mark.parametrize(("tau", "pairs"), [(0.5, 10), (0.4, 9), (None, 0)])
def test_a_table_is_not_called_too_coarse_without_reason(table: LatencyTable, tau: float | None, pairs: int) -> None:
    """Three of four pairs in order are enough, and fewer than ten pairs say nothing."""
    report = _with_ranks(table, tau, pairs)
    assert report.coarseness == ""
    assert "TOO COARSE" not in str(report)


def test_subnets_of_several_processes_by_hand() -> None:
    """The latency is the median over a subnet's processes, the peak their largest, and 0 where it is not known."""
    slow = [_measured(3.0, 2e6), _measured(1.0, 3e6), _measured(7.0, 1e6)]
    fast = dataclasses.replace(_measured(2.0), peak_bytes=None)
    subnets = MeasuredSubnets.of(_GENES[:2], [slow, [fast]])
    assert len(subnets) == 2
    assert subnets.latency_ms.tolist() == [3.0, 2.0]
    assert subnets.peak_bytes.tolist() == [3e6, 0.0]
    assert subnets.processes == (*slow, fast)


def test_a_report_of_fresh_subnets_by_hand(table: LatencyTable) -> None:
    """Two subnets of three processes each, measured 25% above the prediction: the device's time is that of all six."""
    fresh = _SPACE.sample(2, np.random.default_rng(3))
    processes = [[_measured(1.25 * float(ms)) for _ in range(3)] for ms in table.latency_ms(fresh)]
    report = table.evaluate(MeasuredSubnets.of(fresh, processes), np.ones(2, dtype=np.bool_))
    assert report.errors == pytest.approx((-0.2, -0.2))  # 1 / 1.25 - 1
    assert report.device_s == 3.0
    assert report.validity_counts == {"valid": 6}
    assert (report.fitted, report.held_out) == (60, 2)


def test_the_upper_end_of_the_error_by_hand() -> None:
    """Of 1, 2 and 3%, whatever their sign: 2% + 4.302653 (Student's t, 2 degrees of freedom) * 1% / sqrt(3)."""
    assert mape_upper_bound(np.array([0.01, -0.02, 0.03])) == pytest.approx(0.02 + 4.302653 * 0.01 / math.sqrt(3))


def test_the_report_names_the_extremes(table: LatencyTable) -> None:
    """Fastest and slowest of all measured subnets are named with their measured medians."""
    measured = np.array([each.median_ms for each in _measurements()])
    ids = [architecture.id for architecture in _SPACE.decode(_GENES)]
    holdout = table.holdout
    assert holdout is not None
    assert (holdout.fastest, holdout.fastest_ms) == (ids[measured.argmin()], measured.min())
    assert (holdout.slowest, holdout.slowest_ms) == (ids[measured.argmax()], measured.max())


def test_one_made_up_measurement_makes_a_synthetic_report(table: LatencyTable) -> None:
    """It says so in its first line, and in its headline; without one it does not."""
    made_up = _report(table, np.ones(4), synthetic=True)
    assert str(made_up).startswith("SYNTHETIC")
    assert made_up.headline.endswith("SYNTHETIC")
    real = _report(table, np.ones(4))
    assert "SYNTHETIC" not in str(real) + real.headline


def test_a_listing_fits_a_screen(table: LatencyTable) -> None:
    """Every figure with its unit on a line of its own; none is wider than 100 columns."""
    lines = str(table.holdout).splitlines()
    assert len(lines) <= 16
    assert max(len(line) for line in lines) <= 100
    assert lines[0].split()[:5] == ["MAPE", "8.5%", "of", "4", "random"]
    assert any(line.split() == ["device", "time", "32", "s"] for line in lines)


def test_a_report_comes_back_from_plain_data(table: LatencyTable) -> None:
    """The plain data is complete."""
    holdout = table.holdout
    assert holdout is not None
    assert parse_dataclass(HoldoutReport, dataclasses.asdict(holdout), "here") == holdout


# -- conditions ----------------------------------------------------------------------


def _conditions(before: Mapping[str, Any], after: Mapping[str, Any]) -> ConditionsSummary:
    return ConditionsSummary.from_measurements(
        [_measured(1.0, conditions_before=dict(before), conditions_after=dict(after))]
    )


def test_conditions_are_ranges_of_the_readings() -> None:
    """Frequencies and temperatures are ranges, sampled ones included; the limit is the lowest that was set."""
    before = {
        "governor": "performance",
        "frequency_khz": 2_400_000,
        "frequency_limit_khz": 2_400_000,
        "temperature_c": 45,
    }
    after = {**before, "lowest_frequency_khz": 1_500_000, "frequency_limit_khz": 2_000_000, "temperature_c": 61.4}
    found = _conditions(before, after)
    assert found == ConditionsSummary("performance", (1_500_000, 2_400_000), 2_000_000, (45.0, 61.4), None, None)
    assert str(found) == "governor performance, 1500 to 2400 MHz, limit 2000 MHz, 45 to 61 °C"


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [
        ({"throttle_count": 3}, {"throttle_count": 3}, False),
        ({"throttle_count": 3}, {"throttle_count": 4}, True),
        ({"throttled_flags": 0}, {"throttled_flags": 0x50000}, False),  # since it started, not now
        ({"throttled_flags": 0}, {"throttled_flags": 0x4}, True),
        ({}, {}, None),
    ],
)
def test_throttling_is_reported(before: Mapping[str, Any], after: Mapping[str, Any], throttled: bool | None) -> None:
    """A counter that rose or a flag that holds now; throttling before the table does not count."""
    assert _conditions(before, after).throttled is throttled


def test_a_silent_device_has_no_conditions() -> None:
    """A virtual machine reports nothing; the listing says so."""
    assert _conditions({"governor": None}, {}) == ConditionsSummary()
    assert str(ConditionsSummary()) == "the device does not say"
