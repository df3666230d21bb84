"""The reference model, and the drift that it shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.profilers.reference import drift, reference_model, with_reference

USUAL = [1.0, 1.01, 0.99, 1.005, 0.995] * 4


def test_the_reference_is_always_the_same_file() -> None:
    """Its bytes do not change from call to call, or old measurements could not be held against new ones."""
    first = reference_model(".onnx")
    reference_model.cache_clear()
    assert first is not None
    assert reference_model(".onnx") == first
    assert 1e6 < len(first) < 2e6


def test_the_reference_exists_for_every_kind_of_file() -> None:
    """The same network as TFLite, written from the ONNX file."""
    pytest.importorskip("ai_edge_litert")
    model = reference_model(".tflite")
    assert model is not None
    assert model[4:8] == b"TFL3"


def test_the_reference_runs_before_the_first_and_after_every_tenth() -> None:
    """Twenty-one turns have three of the reference between them."""
    order = list(with_reference(range(21)))
    assert [place for place, turn in enumerate(order) if turn is None] == [0, 11, 22]
    assert [turn for turn in order if turn is not None] == list(range(21))


def test_few_processes_say_nothing() -> None:
    """Before the fifth process of the reference nobody knows what is usual."""
    assert drift([]) is None
    assert drift([1.0, 2.0, 3.0, 4.0]) is None


def test_noise_is_no_drift() -> None:
    """Medians that differ by as much as they always do are as usual; one outlier is too."""
    assert drift(USUAL) == 0.0
    assert drift([*USUAL, 2.0]) == 0.0


def test_a_slower_device_is_seen() -> None:
    """Five processes of 1.06 after twenty of 0.99 to 1.01: of all 25 the median is 1.005."""
    assert drift([*USUAL, 1.06, 1.06, 1.06, 1.06, 1.06]) == pytest.approx(1.06 / 1.005 - 1)


def test_what_lasts_becomes_usual() -> None:
    """After fifty slow processes slow is how the device is."""
    assert drift([*USUAL, *[1.5] * 50]) == 0.0


@given(st.lists(st.floats(0.1, 100), min_size=5, max_size=80), st.floats(0.01, 100))
def test_the_unit_does_not_matter(medians: list[float], scale: float) -> None:
    """Drift is a ratio."""
    found, scaled = drift(medians), drift([median * scale for median in medians])
    assert found is not None
    assert scaled is not None
    assert (1 + scaled) / (1 + found) == pytest.approx(1, abs=0.03)
