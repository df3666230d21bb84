"""A Gaussian process of which only sums are measured, against values derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgenas.costs import Vector
from edgenas.profilers.latency.drift import DRIFTS, Moments
from edgenas.profilers.latency.gaussian_process import PartProcess, fit_part_process
from edgenas.profilers.latency.prior import Features, Observations, PartBasis


def _basis(similarity: Vector) -> PartBasis:
    """Parts of equal base cost, and no overhead."""
    parts = np.ones((len(similarity), 1))
    return PartBasis(Features(parts, np.zeros(1), np.full(1, np.inf)), parts, {"own": similarity})


_BASIS = _basis(np.eye(2))  # two parts, independent of each other
_VARIANCES = {
    "own": 0.04,
    "detail": 0.0,
    "overhead": 0.0,
    "curve": 0.0,
    **dict.fromkeys(DRIFTS, 0.0),
    "noise": 0.01,
}


def _process(counts: list[list[float]], values: list[float], **changed: float) -> PartProcess:
    count = len(values)
    observations = Observations(np.array(counts), np.array(values), Moments.at(np.zeros(count)), np.ones(count))
    return PartProcess(_BASIS, observations, {**_VARIANCES, **changed})


def test_posterior_by_hand() -> None:
    """At the posterior mean, the gradient of the likelihood equals that of the prior.

    Parts deviate by 20%, values by 10% and at least 0.2%. The base cost b has the
    least squared relative error: (b / 0.9 - 1) / 0.9 + (b / 1.1 - 1) / 1.1 = 0.
    """
    values = np.array([0.9, 1.1])
    costs = _process([[1, 0], [0, 1]], values.tolist()).costs
    base = (1 / values).sum() / (1 / values**2).sum()
    deviation = costs / base - 1
    to_value = np.log(values / costs) / (1 + deviation) / (0.01 + 0.002**2)
    np.testing.assert_allclose(to_value, deviation / 0.04, rtol=1e-3)


def test_predict_std_by_hand() -> None:
    """A measured part has the deviation of one measurement and the prior; an unmeasured one that of the prior."""
    std = _process([[1, 0]], [1.0]).predict_std(np.eye(2))
    noise = 0.01 + 0.002**2
    assert std.tolist() == pytest.approx([(0.04 * noise / (0.04 + noise)) ** 0.5, 0.2])


def test_sums_are_known_better_than_their_parts() -> None:
    """If only the sum of two parts is measured, the sum is certain and its division is not."""
    process = _process([[1, 1]] * 50, [2.0] * 50)
    apart, together = process.predict_std(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert together / 2 < 0.02
    assert apart == pytest.approx(0.2 / 2**0.5, rel=0.05)


def test_similar_parts_learn_from_each_other() -> None:
    """An unmeasured part with a similarity of one half to a measured one becomes more certain."""
    basis = _basis(np.array([[1.0, 0.5], [0.5, 1.0]]))
    counts, values = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1.0, 1.0])
    process = PartProcess(basis, Observations(counts, values, Moments.at(np.zeros(2)), np.ones(2)), _VARIANCES)
    measured, alike = process.predict_std(np.eye(2))
    assert measured < alike < 0.2


def test_values_without_weight_count_less() -> None:
    """A value of little weight moves a cost less than one of full weight."""
    counts, values = np.eye(2), np.array([0.9, 1.1])

    def difference(weights: Vector) -> float:
        costs = PartProcess(_BASIS, Observations(counts, values, Moments.at(np.zeros(2)), weights), _VARIANCES).costs
        return float(costs[1] - costs[0])

    assert 0 < difference(np.array([0.1, 0.1])) < difference(np.ones(2))


def test_negative_costs_are_clamped_to_zero() -> None:
    """One part takes 1.0, with another 0.6: the other costs nothing, and the first their geometric mean."""
    first, other = _process([[1, 0], [1, 1]], [1.0, 0.6], own=100.0).costs
    assert other == pytest.approx(0, abs=1e-3)
    assert first == pytest.approx(0.6**0.5, abs=1e-3)


def test_the_most_uncertain_sum_is_selected() -> None:
    """The part that was not measured comes first, then the sum that it is in, and nothing twice."""
    process = _process([[1, 0]] * 20, [1.0] * 20)
    candidates = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert process.select_most_uncertain(candidates, 1) == [1]
    assert sorted(process.select_most_uncertain(candidates, 5)) == [0, 1, 2]


def test_equal_candidates_are_not_selected_twice() -> None:
    """Once one of two equal candidates is chosen, the other is certain to its noise, and a third comes first."""
    basis = _basis(np.diag([1.0, 1.0, 0.5]))
    observations = Observations(np.array([[1.0, 0.0, 0.0]]), np.ones(1), Moments.at(np.zeros(1)), np.ones(1))
    process = PartProcess(basis, observations, _VARIANCES)
    candidates = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert process.select_most_uncertain(candidates, 2) == [0, 2]


def test_drift_std_by_hand() -> None:
    """Of values of 1 and 3, whose base values have the median 2, half as much is added to 4 as to 2."""
    process = _process([[1, 0], [0, 3]], [1.0, 3.0], **{"drift added": 0.04})
    assert process.drift_std(np.array([2.0, 4.0])) == pytest.approx([0.2, 0.1], rel=1e-6)


def test_values_of_one_moment_do_not_drift() -> None:
    """Values of equal or unknown times have no drift."""
    counts, values = np.ones((10, 2)), np.full(10, 2.0)
    for moments in (None, Moments.at(np.full(10, 7.0))):
        process = fit_part_process(_BASIS, counts, values, moments)
        assert process.drift_std(values).max() == 0


def test_quiet_batches_show_little_drift() -> None:
    """Two batches of 16 values with 1% of noise and no drift give a drift of less than 2.5%."""
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 20, (32, 2)).astype(float)
    values = counts.sum(axis=1) * np.exp(rng.normal(0, 0.01, 32))
    at_s = np.concatenate([np.arange(16) * 0.4, 12 + np.arange(16) * 0.4])
    process = fit_part_process(_BASIS, counts, values, Moments.at(at_s))
    assert np.median(process.drift_std(values)) < 0.025


def test_added_and_relative_drift_are_separated() -> None:
    """If all values grow by one for a while, the variance of added drift is large, and costs are as without."""
    counts = np.random.default_rng(0).integers(1, 20, (200, 2)).astype(float)
    at_s = np.arange(200.0)
    values = counts.sum(axis=1) + np.sin(at_s / 30)  # sums of 2 to 38
    process = fit_part_process(_BASIS, counts, values, Moments.at(at_s))
    assert process.variances["drift added"] > 10 * process.variances["drift"]
    assert process.costs == pytest.approx([1, 1], rel=0.02)


def test_the_speed_probe_explains_slow_values_by_a_fitted_power() -> None:
    """Values that grow with the 0.7th power of the probe's time give that exponent, and the costs at its median."""
    rng = np.random.default_rng(0)
    counts, probe_ms = rng.integers(1, 20, (200, 2)).astype(float), np.exp(rng.normal(0, 0.2, 200)) / 500
    slowness = probe_ms / np.median(probe_ms)
    values = counts.sum(axis=1) * slowness**0.7
    process = fit_part_process(_BASIS, counts, values, Moments(np.zeros(200), probe_ms))
    assert process.costs == pytest.approx([1, 1], rel=0.01)
    exponent, variance = process.probe_exponent
    assert exponent == pytest.approx(0.7, abs=0.01)
    assert 0 < variance < 0.01**2
    assert process.drift_std(values)[0] == pytest.approx(0.7 * np.log(slowness).std(), rel=0.05)


def test_two_speeds_of_the_cpu_do_not_widen_intervals() -> None:
    """Where a third of all values is from a CPU twice as slow, costs refer to the usual speed and are known as well."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 20, (120, 2)).astype(float)
    probe_ms = np.where(np.arange(120) % 3 == 0, 2.0, 1.0)
    values = counts.sum(axis=1) * probe_ms * rng.lognormal(0, 0.01, 120)
    process = fit_part_process(_BASIS, counts, values, Moments(np.zeros(120), probe_ms))
    assert np.abs(process.predict(counts) / counts.sum(axis=1) - 1).max() < 0.02
    assert (process.predict_std(counts) / counts.sum(axis=1)).max() < 0.02


def test_an_unknown_speed_beside_a_constant_one_shows_nothing() -> None:
    """Half of the values without the probe, and the same time for the others, is no term of the fit."""
    counts, probe_ms = np.ones((10, 2)), np.where(np.arange(10) < 5, np.nan, 0.002)
    process = fit_part_process(_BASIS, counts, np.full(10, 2.0), Moments(np.zeros(10), probe_ms))
    assert process.variances["probe"] == 0


def test_the_mean_drift_is_uncertain() -> None:
    """Values of one moment leave the mean speed open; the standard deviation includes that, the costs do not."""
    counts, values = [[1.0, 1.0]] * 50, [2.0] * 50
    quiet, drifting = _process(counts, values), _process(counts, values, **{"drift": 0.01})
    together = np.array([[1.0, 1.0]])
    np.testing.assert_allclose(drifting.costs, quiet.costs)
    assert (drifting.predict_std(together) ** 2 - quiet.predict_std(together) ** 2) / 4 == pytest.approx(0.01, rel=1e-6)


def test_log_marginal_likelihood_by_hand() -> None:
    """One value at its base cost has the density of no deviation; variances add their own prior density."""
    expected = -np.log(0.04 + 0.01 + 0.002**2) / 2
    expected -= ((np.log(0.04 / 0.006) / 2) ** 2 + (np.log(0.01 / 0.001) / 2) ** 2) / 2
    assert _process([[1, 0]], [1.0]).log_marginal_likelihood() == pytest.approx(expected)


def test_the_likelihood_is_largest_at_the_true_variance() -> None:
    """Values of parts that deviate by 20% are likelier with deviations of 20% than with 2% or 200%."""
    costs = np.exp(np.random.default_rng(1).normal(0, 0.2, 40))
    basis, observations = _basis(np.eye(40)), Observations(np.eye(40), costs, Moments.at(np.zeros(40)), np.ones(40))
    found = [PartProcess(basis, observations, {**_VARIANCES, "own": own, "noise": 1e-3}) for own in (4e-4, 0.04, 4.0)]
    few, right, many = (process.log_marginal_likelihood() for process in found)
    assert right > max(few, many)
