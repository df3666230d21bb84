"""Part costs recovered from the latencies of whole subnets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.costs import Genes, Vector
from edgenas.errors import UsageError
from edgenas.profilers import PublishedTables
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.fit import (
    PartCosts,
    fit_part_costs,
    part_count_matrix,
    part_process_from_dict,
    part_process_to_dict,
)
from edgenas.profilers.latency.gaussian_process import PartProcess
from edgenas.space import MobileNetV3
from edgenas.space.parts import macs

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_HELD_OUT = _SPACE.sample(200, np.random.default_rng(77))


def _by_work() -> Vector:
    """A cost for each part, ms: 10 us a call and 0.1 us for a thousand MACs."""
    return 0.01 + _SPACE.part_costs(macs) / 1e7


def _own(deviation: float, seed: int = 4) -> Vector:
    """As by work, but each part deviates from that by itself."""
    return _by_work() * np.random.default_rng(seed).lognormal(0, deviation, len(_SPACE.distinct_parts))


def _subnets(count: int) -> Genes:
    return _SPACE.sample_distinct(count, np.random.default_rng(2))


def _latency(genes: Genes, costs: Vector) -> Vector:
    """True latencies in ms, with 50 us overhead."""
    return 0.05 + _SPACE.sum_over_parts(genes, costs)


def _fit(costs: Vector, fitted: int, noise: float) -> PartProcess:
    """A fit to so many noisy latencies."""
    genes = _subnets(fitted)
    return fit_part_costs(_SPACE, genes, _latency(genes, costs) * np.random.default_rng(3).lognormal(0, noise, fitted))


def _errors(process: PartProcess, costs: Vector) -> Vector:
    """Relative errors on held-out subnets."""
    predicted = process.predict(part_count_matrix(_SPACE, _HELD_OUT))
    errors: Vector = np.abs(predicted / _latency(_HELD_OUT, costs) - 1)
    return errors


def test_counts_by_hand() -> None:
    """A row counts each part of its architecture as often as it occurs."""
    [architecture] = _SPACE.decode(_HELD_OUT[:1])
    keys = [part.key for part in architecture.parts.values()]
    expected = [keys.count(part.key) for part in _SPACE.distinct_parts]
    assert part_count_matrix(_SPACE, _HELD_OUT[:1])[0].tolist() == expected


def test_costs_that_follow_work_are_recovered() -> None:
    """From 60 exact latencies, made from calls and MACs, held-out subnets are predicted within 1% each."""
    assert _errors(_fit(_by_work(), 60, noise=0), _by_work()).max() < 0.01


def test_individual_costs_of_parts_are_recovered() -> None:
    """Where each part deviates by some 10% from its work, 600 exact latencies predict to 1% on average."""
    assert _errors(_fit(_own(0.1), 600, noise=0), _own(0.1)).mean() < 0.01


def test_noise_is_averaged_out() -> None:
    """With 3% of noise on 100 latencies, predictions of the true ones are nearer than one measurement would be."""
    assert _errors(_fit(_by_work(), 100, noise=0.03), _by_work()).mean() < 0.015


def test_costs_are_never_negative() -> None:
    """Even with much noise, no part has a negative cost."""
    process = _fit(_by_work(), 40, noise=0.3)
    assert process.overhead >= 0
    assert process.costs.min() >= 0


def test_more_subnets_make_a_better_table() -> None:
    """The error falls with the number of measured subnets."""
    errors = [_errors(_fit(_own(0.2), count, noise=0.02), _own(0.2)).mean() for count in (30, 120, 480)]
    assert errors == sorted(errors, reverse=True)


def test_a_temporary_slowdown_is_compensated() -> None:
    """Minutes of 30% longer latencies worsen a fit with times less than half as much as one without."""
    genes, costs = _subnets(150), _own(0.1)
    at_s = np.linspace(0.0, 298.0, 150)
    slow = np.where((at_s > 100) & (at_s < 200), 1.3, 1.0)
    latency = _latency(genes, costs) * slow * np.random.default_rng(3).lognormal(0, 0.01, 150)

    def log_error_std(process: PartProcess) -> float:
        ratio = (process.predict(part_count_matrix(_SPACE, _HELD_OUT))) / _latency(_HELD_OUT, costs)
        return float(np.std(np.log(ratio)))

    quiet = log_error_std(fit_part_costs(_SPACE, genes, latency / slow))
    without, aware = (
        log_error_std(fit_part_costs(_SPACE, genes, latency, times)) for times in (None, Moments.at(at_s))
    )
    assert aware - quiet < (without - quiet) / 2


def test_outliers_lose_weight() -> None:
    """Three of 100 latencies are three times too long: they count little, and the others decide."""
    genes, costs = _subnets(100), _by_work()
    latency = _latency(genes, costs) * np.random.default_rng(3).lognormal(0, 0.01, 100)
    latency[[20, 50, 80]] *= 3
    process = fit_part_costs(_SPACE, genes, latency)
    assert process.observations.weights[[20, 50, 80]].max() < 0.1
    assert np.median(process.observations.weights) > 0.9
    assert _errors(process, costs).mean() < 0.02


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_value_wrong_by_a_thousand_is_harmless(factor: float) -> None:
    """One of 60 latencies is a thousand times too short or too long: the others decide."""
    genes, costs = _subnets(60), _by_work()
    latency = _latency(genes, costs) * np.random.default_rng(3).lognormal(0, 0.02, 60)
    latency[5] *= factor
    moments = Moments.at(np.linspace(0.0, 29.5, 60))
    assert _errors(fit_part_costs(_SPACE, genes, latency, moments), costs).mean() < 0.02


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 24),
    scale=st.sampled_from([1e-4, 1.0, 1e5]),
    damage=st.sampled_from(["none", "equal", "outlier", "level", "noise"]),
    times=st.sampled_from(["none", "equal", "steady", "half unknown"]),
    informed=st.booleans(),
)
def test_any_measured_values_give_a_fit(count: int, scale: float, damage: str, times: str, informed: bool) -> None:
    """For few, equal or wrong values, predictions are in their range, and the same after restoring."""
    genes, costs = _subnets(count), _by_work()
    latency = scale * _latency(genes, costs)
    half = np.arange(count) >= count // 2
    latency = {
        "none": latency,
        "equal": np.full(count, scale),
        "outlier": np.where(np.arange(count) == 0, 1e6 * latency, latency),
        "level": np.where(half, 2 * latency, latency),
        "noise": scale * np.random.default_rng(count).lognormal(0, 1, count),
    }[damage]
    steady = np.linspace(1.7e9, 1.7e9 + count / 2, count)
    at_s = {
        "none": None,
        "equal": np.full(count, 1.7e9),
        "steady": steady,
        "half unknown": np.where(half, steady, 0.0),
    }[times]
    source_costs = [PartCosts(0.1, _own(0.3))] if informed else []
    process = fit_part_costs(_SPACE, genes, latency, None if at_s is None else Moments.at(at_s), source_costs)
    counts = part_count_matrix(_SPACE, _HELD_OUT)
    predicted = process.predict(counts)
    assert latency.min() / 20 < predicted.min()
    assert predicted.max() < 20 * latency.max()
    assert np.isfinite(process.predict_std(counts)).all()
    again = part_process_from_dict(_SPACE, genes, part_process_to_dict(process), source_costs)
    assert np.array_equal(again.predict(counts), predicted)


@pytest.mark.parametrize(("latency", "at_s"), [(0.0, 1.0), (np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan)])
def test_invalid_latencies_and_times_are_refused(latency: float, at_s: float) -> None:
    """Zero, infinity and not a number are refused."""
    with pytest.raises(UsageError, match="above 0 and finite"):
        fit_part_costs(_SPACE, _subnets(2), np.array([1.0, latency]), Moments.at(np.array([0.0, at_s])))


@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_the_standard_deviation_is_as_large_as_the_errors(noise: float) -> None:
    """Over four fits, 95% (give or take 6%) of held-out true latencies are within 1.96 standard deviations."""
    counts, within, found = part_count_matrix(_SPACE, _HELD_OUT), [], []
    for seed in range(4):
        costs, genes = _own(0.1, seed), _SPACE.sample(150, np.random.default_rng(50 + seed))
        latency = _latency(genes, costs) * np.random.default_rng(60 + seed).lognormal(0, noise, 150)
        process = fit_part_costs(_SPACE, genes, latency)
        within.append(
            (_errors(process, costs) <= 1.96 * process.predict_std(counts) / _latency(_HELD_OUT, costs)).mean()
        )
        found.append(process.noise_std)
    assert np.mean(within) == pytest.approx(0.95, abs=0.06)
    assert np.mean(found) == pytest.approx(noise, rel=0.3)


def test_another_targets_costs_save_measurements() -> None:
    """Where a device is twice as slow give or take 5% a part, 20 subnets do better with that than 40 without."""
    other = _own(0.3)
    mine = 2 * other * np.random.default_rng(6).lognormal(0, 0.05, len(other))
    genes = _subnets(40)
    latency = _latency(genes, mine) * np.random.default_rng(3).lognormal(0, 0.02, 40)
    plain = fit_part_costs(_SPACE, genes, latency)
    informed = fit_part_costs(_SPACE, genes[:20], latency[:20], source_costs=[PartCosts(0.1, other)])
    assert _errors(informed, mine).mean() < _errors(plain, mine).mean()


@pytest.mark.parametrize(("count", "apart"), [(20, 0.02), (60, 0.0)])
def test_another_targets_costs_that_mislead_do_no_harm(count: int, apart: float) -> None:
    """Costs that have nothing to do with these parts leave predictions as without: to 2%, then to the same bits."""
    strange = np.random.default_rng(8).permutation(_own(0.5))
    genes, mine = _subnets(count), _own(0.05)
    latency = _latency(genes, mine) * np.random.default_rng(3).lognormal(0, 0.02, count)
    plain, misled = (
        fit_part_costs(_SPACE, genes, latency, source_costs=each) for each in ((), [PartCosts(0.1, strange)])
    )
    counts = part_count_matrix(_SPACE, _HELD_OUT)
    np.testing.assert_allclose(misled.predict(counts), plain.predict(counts), rtol=apart)


def test_few_subnets_give_a_medium_transfer_weight() -> None:
    """Three subnets cannot tell: base costs are between those of plain features and the source costs."""
    genes = _subnets(3)
    process = fit_part_costs(
        _SPACE, genes, _latency(genes, _own(0.1)), source_costs=[PartCosts(0.1, _own(0.1, seed=9))]
    )
    assert 0.2 < process.basis.transfer_weight < 0.8


def test_a_process_with_another_targets_costs_is_restored() -> None:
    """With its transfer weight and source costs it comes back to the same bits."""
    other = PartCosts(0.1, _own(0.3))
    genes = _subnets(20)
    process = fit_part_costs(_SPACE, genes, 2 * _latency(genes, _own(0.3)), source_costs=[other])
    data = part_process_to_dict(process)
    assert 0.9 < data["transfer_weight"] <= 1
    assert np.array_equal(part_process_from_dict(_SPACE, genes, data, [other]).costs, process.costs)


@pytest.mark.parametrize("count", [2, 5, 10])
def test_very_few_subnets_are_enough(count: int) -> None:
    """From two on, a fit gives finite costs, with another target's costs and without."""
    genes = _subnets(count)
    for source_costs in ((), [PartCosts(0.1, _own(0.3))]):
        process = fit_part_costs(
            _SPACE, genes, _latency(genes, _own(0.1)), Moments.at(np.linspace(0.0, count / 2, count)), source_costs
        )
        assert _errors(process, _own(0.1)).mean() < 0.2


def test_a_process_is_restored_to_the_same_bits() -> None:
    """Costs, overhead and standard deviations come back exactly."""
    process = _fit(_own(0.1), 60, noise=0.02)
    again = part_process_from_dict(_SPACE, _subnets(60), part_process_to_dict(process))
    counts = part_count_matrix(_SPACE, _HELD_OUT)
    assert np.array_equal(again.costs, process.costs)
    assert again.overhead == process.overhead
    assert np.array_equal(again.predict_std(counts), process.predict_std(counts))


def test_resolutions_in_between_are_interpolated(data_folder: Path) -> None:
    """From 160, 192 and 224 pixels the published tables of 176 and 208 are predicted within 2% on average."""
    space = MobileNetV3(width=1.2, resolutions=(160, 176, 192, 208, 224))
    table = PublishedTables.load(data_folder / "ofa" / "note10").to_latency_table(space, "note10")
    genes = space.sample(1000, np.random.default_rng(0))
    measured = genes[np.isin(genes[:, 0], (0, 2, 4))][:120]
    between = genes[np.isin(genes[:, 0], (1, 3))]
    latency = table.latency_ms(measured) * np.random.default_rng(1).lognormal(0, 0.01, 120)
    process = fit_part_costs(space, measured, latency)
    predicted = process.predict(part_count_matrix(space, between))
    assert np.abs(predicted / table.latency_ms(between) - 1).mean() < 0.02
