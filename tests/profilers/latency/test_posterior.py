"""What intervals are made from, in a table's file: whatever does not fit together is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgenas.errors import UsageError
from edgenas.profilers.latency.fit import PartCosts, count_parts, fit_parts
from edgenas.profilers.latency.posterior import posterior_from_dict, posterior_to_dict
from edgenas.space import MobileNetV3
from edgenas.space.parts import macs

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28), classes=10)
_GENES = _SPACE.sample_distinct(12, np.random.default_rng(0))
_OTHERS = (PartCosts(0.1, 0.02 + _SPACE.part_costs(macs) / 1e7),)
_LATENCY = 0.05 + _SPACE.sum_over_parts(_GENES, 0.01 + _SPACE.part_costs(macs) / 1e7)
_PROCESS = fit_parts(_SPACE, _GENES, _LATENCY, np.linspace(0.0, 5.5, 12), _OTHERS)


def _plain() -> dict[str, Any]:
    """As it comes back from a file."""
    data: dict[str, Any] = json.loads(json.dumps(posterior_to_dict(_SPACE, _PROCESS, _GENES, _OTHERS)))
    return data


def test_it_comes_back_to_the_same_bits() -> None:
    """Genes, the others' costs, predictions and spread are what they were."""
    process, genes, others = posterior_from_dict(_SPACE, _plain())
    counts = count_parts(_SPACE, _SPACE.sample(50, np.random.default_rng(1)))
    assert np.array_equal(genes, _GENES)
    assert np.array_equal(others[0].part_ms, _OTHERS[0].part_ms)
    assert np.array_equal(process.predict(counts), _PROCESS.predict(counts))
    assert np.array_equal(process.spread(counts), _PROCESS.spread(counts))


def _with(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {**data, **changed}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: [], "inferred: must be a mapping"),
        (_with(more=1), "inferred: unknown key 'more'"),
        (lambda data: {key: data[key] for key in data if key != "at_s"}, "inferred: key 'at_s' is missing"),
        (_with(architectures=[]), "inferred: architectures: .*at least 1 item"),
        (_with(architectures=["nonsense"] * 12), "'nonsense' is no architecture of this space"),
        (_with(latency_ms=[1.0] * 11), "inferred: latency_ms must have a number for each of 12 subnets, but has 11"),
        (_with(latency_ms=[0.0] * 12), "inferred: latency_ms.0: input should be greater"),
        (_with(latency_ms=["nan"] * 12), "inferred: latency_ms.0: "),
        (_with(at_s=None), "inferred: at_s: input should be a valid list"),
        (_with(weights=[0.0] * 12), "inferred: weights.0: input should be greater"),
        (_with(weights=[1.5] * 12), "inferred: weights.0: input should be less"),
        (_with(variances={"noise": -1.0}), "inferred: strengths.noise: input should be greater"),
        (_with(variances={"noise": 1.0}), "strengths must be those of all, .*, but .* are not of both"),
        (_with(others=[{"overhead_ms": 0.1, "parts_ms": [1.0]}]), "parts_ms of others must have a number for each of"),
        (_with(others=[{"overhead_ms": -0.1, "parts_ms": []}]), "inferred: others.0.overhead_ms: "),
        (_with(transfer_weight="half"), "inferred: lean: "),
        (_with(transfer_weight=1.5), "inferred: lean: "),
    ],
)
def test_what_does_not_fit_is_refused(damage: Callable[[dict[str, Any]], Any], said: str) -> None:
    """Wrong types, lengths and names, and numbers that mean nothing, end in one line that says what is wrong."""
    with pytest.raises(UsageError, match=said) as caught:
        posterior_from_dict(_SPACE, damage(_plain()))
    assert "\n" not in str(caught.value)


def test_a_strength_of_nothing_that_is_known_is_refused() -> None:
    """A term that the fit has not is named."""
    data = _plain()
    data["variances"]["tides"] = 0.1
    with pytest.raises(UsageError, match="but tides are not of both"):
        posterior_from_dict(_SPACE, data)
