"""Curves over sums, against what can be derived by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgenas.errors import UsageError
from edgenas.profilers.latency.curve import Curve, interpolation_weights
from edgenas.profilers.latency.gaussian_process import fit_part_process
from edgenas.profilers.latency.prior import Features, PartBasis

_KNOTS = np.array([1.0, 2.0, 3.0])
_CURVE = Curve(_KNOTS, np.array([0.0, 0.0, np.log(2.0)]))


def test_values_between_knots_by_hand() -> None:
    """Sums of 2, 4 and 8 take factors 1, 1 and 2; half an octave before the last, the root of 2."""
    sums = np.array([2.0, 4.0, 8.0, 2**2.5])
    np.testing.assert_allclose(_CURVE(sums) / sums, [1.0, 1.0, 2.0, 2**0.5])


def test_the_factor_is_constant_beyond_the_knots() -> None:
    """No value was measured there, and an extrapolated line would soon be absurd."""
    assert _CURVE(np.array([0.1, 1000.0])).tolist() == pytest.approx([0.1, 2000.0])


def test_interpolation_weights_agree_with_the_curve() -> None:
    """Weights of the knots, times the logarithms there, are the curve's logarithm, within and beyond."""
    logs = np.linspace(0.0, 4.0, 17)
    np.testing.assert_allclose(
        interpolation_weights(logs, _KNOTS) @ _CURVE.logs, np.log(_CURVE(2**logs) / 2**logs), atol=1e-12
    )


def test_a_curve_comes_back_from_plain_data() -> None:
    """Knots and logarithms survive as they are."""
    again = Curve.from_dict(_CURVE.to_dict())
    assert again.knots.tolist() == _KNOTS.tolist()
    assert again.logs.tolist() == _CURVE.logs.tolist()


def test_an_effect_of_size_is_fitted() -> None:
    """Sums of equal parts that take 5% longer an octave from 8 of them, 20% two octaves, are predicted to 1%."""
    features = Features(np.ones((1, 1)), np.zeros(1), np.full(1, np.inf))
    basis = PartBasis(features, np.ones((1, 1)), {"own": np.eye(1)})
    numbers = np.geomspace(2.0, 32.0, 60)
    truth = numbers * np.exp(0.05 * np.log2(numbers / 8) ** 2)
    process = fit_part_process(basis, numbers[:, None], truth * np.random.default_rng(0).lognormal(0, 0.005, 60))
    np.testing.assert_allclose(process.predict(numbers[:, None]), truth, rtol=0.01)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"knots": [1.0, 2.0]}, "as many logs"),
        ({"knots": [1.0, 3.0, 2.0]}, "must rise"),
        ({"knots": [1.0, 1.0, 2.0]}, "must rise"),
        ({"knots": [], "logs": []}, "knots: .*at least 2"),
        ({"logs": [0.0, 0.0, 1e9]}, "logs.2: .*less than or equal to 100"),
        ({"logs": [0.0, 0.0, "nan"]}, "logs.2: "),
        ({"logs": {}}, "logs: .*valid list"),
        ({"degree": 2}, "unknown key 'degree'"),
    ],
)
def test_invalid_curve_data_is_refused(changed: dict[str, Any], said: str) -> None:
    """The message names the key and the rule."""
    with pytest.raises(UsageError, match=f"curve: .*{said}"):
        Curve.from_dict({**_CURVE.to_dict(), **changed})
