"""Part costs recovered from the latencies of whole subnets."""

from __future__ import annotations

import numpy as np
import pytest

from edgenas.costs import Genes, Vector
from edgenas.profilers import fit as fit_module
from edgenas.profilers.fit import fit_non_negative, fit_part_costs
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace
from edgenas.space.parts import macs

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)


def _by_work(space: SearchSpace) -> Vector:
    """A cost for each part, ms: 10 us a call and 0.1 us for a thousand MACs."""
    return 0.01 + space.part_costs(macs) / 1e7


def _subnets(count: int) -> Genes:
    return _SPACE.sample_distinct(count, np.random.default_rng(2))


def _errors(costs: Vector, fitted: int, noise: float) -> Vector:
    """Relative errors on 200 unseen subnets after a fit to ``fitted`` noisy latencies; the truth has 50 us overhead."""
    genes = _subnets(fitted + 200)
    latency = 0.05 + _SPACE.sum_over_parts(genes, costs)
    seen = latency[:fitted] * np.random.default_rng(3).lognormal(0, noise, fitted)
    overhead, found = fit_part_costs(_SPACE, genes[:fitted], seen)
    assert overhead >= 0
    assert (found >= 0).all()
    predicted = overhead + _SPACE.sum_over_parts(genes[fitted:], found)
    return np.abs(predicted / latency[fitted:] - 1)


def test_costs_that_follow_work_are_recovered() -> None:
    """From 60 exact latencies, made from calls and MACs, unseen subnets are predicted within 1% each."""
    assert _errors(_by_work(_SPACE), 60, noise=0).max() < 0.01


def test_costs_of_parts_own_are_recovered() -> None:
    """Where each part deviates by some 10% from its work, 600 exact latencies predict to 1% on average."""
    deviation = np.random.default_rng(4).lognormal(0, 0.1, len(_SPACE.distinct_parts))
    assert _errors(_by_work(_SPACE) * deviation, 600, noise=0).mean() < 0.01


def test_noise_is_averaged_out() -> None:
    """With 3% of noise on 100 latencies, predictions of the true ones are nearer than one measurement would be."""
    assert _errors(_by_work(_SPACE), 100, noise=0.03).mean() < 0.02


def test_more_subnets_make_a_better_table() -> None:
    """The error falls with the number of measured subnets."""
    deviation = np.random.default_rng(4).lognormal(0, 0.2, len(_SPACE.distinct_parts))
    errors = [_errors(_by_work(_SPACE) * deviation, count, noise=0.02).mean() for count in (30, 120, 480)]
    assert errors == sorted(errors, reverse=True)


def test_weights_by_hand() -> None:
    """Two columns are taken apart to their weights, however different their units."""
    columns = np.array([[1e-9, 1e9], [2e-9, 1e9], [1e-9, 4e9]])
    # 2e9 * 1e-9 + 3e-9 * 1e9 = 2 + 3, and so on
    assert fit_non_negative(columns, np.array([5.0, 7.0, 14.0])) == pytest.approx([2e9, 3e-9])


def test_weights_are_never_negative() -> None:
    """A column that would want a negative weight gets none."""
    columns = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    assert fit_non_negative(columns, np.array([3.0, 2.0, 1.0]))[1] == 0


def test_an_empty_column_is_harmless() -> None:
    """A feature that no subnet has gets some finite weight."""
    weights = fit_non_negative(np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([1.0, 2.0]))
    assert weights[0] == pytest.approx(1)
    assert np.isfinite(weights).all()


@pytest.mark.parametrize("space", [MobileNetV3(), ProxylessNAS(), ResNet50D()])
def test_every_operator_of_every_family_has_features(space: SearchSpace) -> None:
    """No family can be measured for minutes and then turn out to have a part that cannot be fitted."""
    assert {part.operator for part in space.distinct_parts} <= set(fit_module._FEATURES)
