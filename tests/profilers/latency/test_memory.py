"""Peak memory: what it is fitted to, what cannot spoil it, and what is counted where nothing was measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.costs import Genes, Vector
from edgenas.errors import MeasurementError, UsageError
from edgenas.profilers.latency.memory import MemoryCosts, MemoryModel, memory_mape
from edgenas.space import MobileNetV3, ResNet50D

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_GENES = _SPACE.sample_distinct(120, np.random.default_rng(0))
_COSTS = MemoryCosts(2e6, 1.5, 2.5, 30e3)
_COUNT = st.integers(0, 2**16)


def _noisy(genes: Genes, seed: int = 0) -> Vector:
    """Peaks by ``_COSTS`` with 1% of noise."""
    noise = np.random.default_rng(seed).normal(1, 0.01, len(genes))
    peaks: Vector = MemoryModel(_SPACE, _COSTS).peak_bytes(genes) * noise
    return peaks


def test_exact_costs_are_recovered() -> None:
    """Without noise, the fit gives back the four costs that the peaks were made with."""
    found = MemoryModel.fit(_SPACE, _GENES, MemoryModel(_SPACE, _COSTS).peak_bytes(_GENES)).to_dict()
    assert found == pytest.approx(MemoryModel(_SPACE, _COSTS).to_dict(), rel=1e-3)


def test_ten_measurements_are_enough() -> None:
    """With 1% of noise, ten subnets are enough to predict 100 others to 3%."""
    model = MemoryModel.fit(_SPACE, _GENES[:10], _noisy(_GENES[:10]))
    assert memory_mape(model.peak_bytes(_GENES[20:]), _noisy(_GENES[20:], seed=1)) < 0.03


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from([0.0, 1.0, 4096.0, 1e9, 1e15]), min_size=1, max_size=4), _COUNT)
def test_peaks_that_are_wrong_by_any_factor_move_little(wrong: list[float], seed: int) -> None:
    """Up to four of forty recorded as nothing, as a page, or as more than the machine has: errors stay below 3%."""
    peaks = _noisy(_GENES[:40], seed)
    peaks[np.random.default_rng(seed).choice(40, len(wrong), replace=False)] = wrong
    model = MemoryModel.fit(_SPACE, _GENES[:40], peaks)
    assert memory_mape(model.peak_bytes(_GENES[40:]), MemoryModel(_SPACE, _COSTS).peak_bytes(_GENES[40:])) < 0.03


def test_peaks_of_zero_are_left_out() -> None:
    """Those recorded as 0 count no more than if they had not been measured."""
    peaks = _noisy(_GENES)
    without = MemoryModel.fit(_SPACE, _GENES[10:], peaks[10:])
    peaks[:10] = 0
    assert MemoryModel.fit(_SPACE, _GENES, peaks) == without


def test_only_zeros_are_refused() -> None:
    """A device where no process takes memory is refused."""
    with pytest.raises(MeasurementError, match="all of 120 measurements took no memory"):
        MemoryModel.fit(_SPACE, _GENES, np.zeros(120))


@settings(deadline=None, max_examples=20)
@given(_COUNT)
def test_costs_are_never_negative(seed: int) -> None:
    """Random peaks still give non-negative costs."""
    peaks = np.random.default_rng(seed).lognormal(15, 1, 30)
    assert min(MemoryModel.fit(_SPACE, _GENES[:30], peaks).to_dict().values()) >= 0


def test_a_batch_gets_the_bits_of_single_rows() -> None:
    """Each row of a matrix larger than a chunk gets the value that it gets alone."""
    genes = _SPACE.sample(5000, np.random.default_rng(1))
    peaks = MemoryModel(_SPACE, _COSTS).peak_bytes(genes)
    assert [MemoryModel(_SPACE, _COSTS).peak_bytes(genes[[row]])[0] for row in range(2000, 2100)] == list(
        peaks[2000:2100]
    )
    by_law = 2e6 + 1.5 * _SPACE.activation_bytes(genes) + 2.5 * _SPACE.weight_bytes(genes)
    operators = (peaks - by_law) / 30e3
    assert operators == pytest.approx(np.round(operators), abs=1e-6)


def test_operators_with_weights_are_counted() -> None:
    """The smallest MobileNetV3: stem 1, first block 2, ten blocks of 3, the gates of six of them 2 each, head 3."""
    count = MemoryModel(_SPACE, MemoryCosts(0, 0, 0, 1)).peak_bytes(_SPACE.encode([_SPACE.smallest]))
    assert count[0] == 1 + 2 + 10 * 3 + 6 * 2 + 3


@pytest.mark.parametrize("space", [_SPACE, ResNet50D(resolutions=(32,))])
def test_unmeasured_memory_is_activations_and_weights(space: MobileNetV3 | ResNet50D) -> None:
    """Each is counted once."""
    genes = space.sample(20, np.random.default_rng(0))
    counted = MemoryModel.with_unit_costs(space).peak_bytes(genes)
    assert counted == pytest.approx(space.activation_bytes(genes) + space.weight_bytes(genes), rel=1e-12)


def test_plain_data_gives_the_model_back() -> None:
    """The model survives ``to_dict``; missing, unknown and negative values are refused by name."""
    model = MemoryModel(_SPACE, _COSTS)
    assert MemoryModel.from_dict(_SPACE, model.to_dict(), "table") == model
    with pytest.raises(UsageError, match=r"table: .*per_operator"):
        MemoryModel.from_dict(_SPACE, {"constant": 0.0, "per_activation_byte": 1.0, "per_weight_byte": 1.0}, "table")
    for wrong in ({"constant": -1.0}, {"per_operator": "nan"}, {"per_gate": 1.0}):
        with pytest.raises(UsageError, match="table: .*" + next(iter(wrong))):
            MemoryModel.from_dict(_SPACE, {**model.to_dict(), **wrong}, "table")


def test_the_mean_error_leaves_out_zero_peaks() -> None:
    """Errors of 10% and 30% are 20%, without the peak of 0; with no other peak it is 100%."""
    assert memory_mape(np.array([1.1, 0.7, 5.0]), np.array([1.0, 1.0, 0.0])) == pytest.approx(0.2)
    assert memory_mape(np.array([5.0]), np.array([0.0])) == 1.0
