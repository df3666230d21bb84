"""The posterior in a table's file: data that does not fit together is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgenas.errors import UsageError
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.fit import PartCosts, fit_part_costs, part_count_matrix
from edgenas.profilers.latency.table_data import posterior_from_dict, posterior_to_dict
from edgenas.space import MobileNetV3
from edgenas.space.parts import macs

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28), classes=10)
_GENES = _SPACE.sample_distinct(12, np.random.default_rng(0))
_SOURCE_COSTS = (PartCosts(0.1, 0.02 + _SPACE.part_costs(macs) / 1e7),)
_LATENCY = 0.05 + _SPACE.sum_over_parts(_GENES, 0.01 + _SPACE.part_costs(macs) / 1e7)
_PROCESS = fit_part_costs(_SPACE, _GENES, _LATENCY, Moments.at(np.linspace(0.0, 5.5, 12)), _SOURCE_COSTS)


def _plain() -> dict[str, Any]:
    """As it comes back from a file."""
    data: dict[str, Any] = json.loads(json.dumps(posterior_to_dict(_SPACE, _PROCESS, _GENES, _SOURCE_COSTS)))
    return data


def test_it_comes_back_to_the_same_bits() -> None:
    """Genes, source costs, predictions and standard deviations are what they were."""
    process, genes, source_costs = posterior_from_dict(_SPACE, _plain())
    counts = part_count_matrix(_SPACE, _SPACE.sample(50, np.random.default_rng(1)))
    assert np.array_equal(genes, _GENES)
    assert np.array_equal(source_costs[0].part_ms, _SOURCE_COSTS[0].part_ms)
    assert np.array_equal(process.predict(counts), _PROCESS.predict(counts))
    assert np.array_equal(process.predict_std(counts), _PROCESS.predict_std(counts))


def _with(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {**data, **changed}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: [], "posterior: must be a mapping"),
        (_with(more=1), "posterior: unknown key 'more'"),
        (lambda data: {key: data[key] for key in data if key != "at_s"}, "posterior: key 'at_s' is missing"),
        (_with(architectures=[]), "posterior: architectures: .*at least 1 item"),
        (_with(architectures=["nonsense"] * 12), "'nonsense' is no architecture of this space"),
        (_with(latency_ms=[1.0] * 11), "posterior: latency_ms must have a number for each of 12 subnets, but has 11"),
        (_with(latency_ms=[0.0] * 12), "posterior: latency_ms.0: input should be greater"),
        (_with(latency_ms=["nan"] * 12), "posterior: latency_ms.0: "),
        (_with(at_s=None), "posterior: at_s: input should be a valid list"),
        (_with(weights=[0.0] * 12), "posterior: weights.0: input should be greater"),
        (_with(weights=[1.5] * 12), "posterior: weights.0: input should be less"),
        (_with(variances={"noise": -1.0}), "posterior: variances.noise: input should be greater"),
        (_with(variances={"noise": 1.0}), "variances must be those of all, .*, but .* are not of both"),
        (_with(others=[{"overhead_ms": 0.1, "parts_ms": [1.0]}]), "parts_ms of others must have a number for each of"),
        (_with(others=[{"overhead_ms": -0.1, "parts_ms": []}]), "posterior: others.0.overhead_ms: "),
        (_with(transfer_weight="half"), "posterior: transfer_weight: "),
        (_with(transfer_weight=1.5), "posterior: transfer_weight: "),
    ],
)
def test_inconsistent_data_is_refused(damage: Callable[[dict[str, Any]], Any], said: str) -> None:
    """Wrong types, lengths and names, and numbers that mean nothing, are refused with one line that names them."""
    with pytest.raises(UsageError, match=said) as caught:
        posterior_from_dict(_SPACE, damage(_plain()))
    assert "\n" not in str(caught.value)


def test_a_variance_of_an_unknown_term_is_refused() -> None:
    """The term is named."""
    data = _plain()
    data["variances"]["tides"] = 0.1
    with pytest.raises(UsageError, match="but tides are not of both"):
        posterior_from_dict(_SPACE, data)
