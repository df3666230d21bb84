"""The reference model, and the drift that it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.profilers import Measurement
from edgenas.profilers.measure.reference_model import (
    DriftMonitor,
    baseline_level_ms,
    find_drift,
    iter_turns_with_reference,
    try_build_reference_model,
)
from edgenas.profilers.measure.validity import Validity
from edgenas.runtimes import load_runtime

Processes = Callable[[Sequence[float]], list[Measurement]]
STEADY = [1.0, 1.01, 0.99, 1.005, 0.995] * 4


@pytest.fixture
def processes() -> Processes:
    """Make measurements at 1, 2, 3 s and so on, one for each median in ms."""

    def make(medians: Sequence[float]) -> list[Measurement]:
        fields: dict[str, Any] = {
            "model_sha256": "0" * 64, "target": {}, "peak_bytes": 1, "load_ms": 1.0, "device_s": 1.0, "facts": {},
            "versions": {}, "conditions_before": {}, "conditions_after": {}, "validity": Validity("valid"),
            "synthetic": True, "settings": {},
        }  # fmt: skip
        return [Measurement(samples_ms=(median,) * 5, taken_s=time, **fields) for time, median in at(medians)]

    return make


def at(medians: Sequence[float]) -> list[tuple[float, float]]:
    """Processes of the reference at 1, 2, 3 s and so on."""
    return [(float(time), median) for time, median in enumerate(medians, 1)]


def test_the_reference_is_always_the_same_file() -> None:
    """Its bytes do not change from call to call, or old measurements could not be held against new ones."""
    first = try_build_reference_model(load_runtime("onnxruntime"))
    try_build_reference_model.cache_clear()
    assert first is not None
    assert try_build_reference_model(load_runtime("onnxruntime")) == first
    assert 1e6 < len(first) < 2e6


def test_the_reference_exists_for_every_kind_of_file() -> None:
    """The same network as TFLite, written from the ONNX file."""
    pytest.importorskip("ai_edge_litert")
    model = try_build_reference_model(load_runtime("litert"))
    assert model is not None
    assert model[4:8] == b"TFL3"


def test_the_reference_runs_before_the_first_and_after_every_tenth() -> None:
    """Twenty-one turns have three of the reference between them."""
    order = list(iter_turns_with_reference(range(21)))
    assert [place for place, turn in enumerate(order) if turn is None] == [0, 11, 22]
    assert [turn for turn in order if turn is not None] == list(range(21))


def test_few_processes_say_nothing() -> None:
    """Before the tenth process of the reference the baseline is unknown; so is the drift at an unknown moment."""
    assert find_drift(5.5, at([1.0] * 9)) is None
    assert find_drift(5.5, at([1.0] * 10)) == 0.0
    assert find_drift(0.0, at([1.0] * 10)) is None


def test_noise_is_no_drift() -> None:
    """Medians that differ by as much as they always do are no drift; one outlier is none either."""
    assert all(find_drift(moment, at(STEADY)) == 0.0 for moment in range(1, 21))
    assert all(find_drift(moment, at([*STEADY, 2.0, *STEADY])) == 0.0 for moment in range(1, 42))


def test_a_slower_device_is_seen_from_both_sides() -> None:
    """Twenty processes of 0.99 to 1.01 and ten of 1.06: of all thirty the median is 1.005, and where it changes is."""
    references = at([*STEADY, *[1.06] * 10])
    assert find_drift(22.5, references) == pytest.approx(1.06 / 1.005 - 1)
    assert find_drift(18.5, references) == 0.0


def test_a_change_half_way_does_not_hide_in_the_noise() -> None:
    """Ten processes of 1 and ten of 1.08: 1.04 is the level, and both halves are off it."""
    references = at([1.0, 1.002] * 5 + [1.08, 1.082] * 5)
    assert find_drift(3.5, references) == pytest.approx(1.0 / 1.041 - 1, abs=0.002)
    assert find_drift(17.5, references) == pytest.approx(1.08 / 1.041 - 1, abs=0.002)


def test_a_lasting_change_never_becomes_the_baseline() -> None:
    """After a hundred slow processes slow is still not how the device is."""
    medians = [*STEADY, *[1.5] * 100]
    assert baseline_level_ms(medians) == 1.0
    assert find_drift(110.5, at(medians)) == pytest.approx(0.5)


def test_a_lasting_change_is_told_from_a_short_one(processes: Processes) -> None:
    """Ten slow processes in a row are a change; nine are not, nor are ten that were recorded earlier."""
    medians = [*STEADY, *[1.5] * 10]
    monitor = DriftMonitor()
    for each in processes(medians[:-1]):
        monitor.add(each)
    assert monitor.find_lasting_change() is None
    monitor.add(processes(medians)[-1])
    assert monitor.find_lasting_change() == pytest.approx(0.5)
    monitor.forget_lasting_change()
    assert monitor.find_lasting_change() is None
    assert DriftMonitor(processes(medians)).find_lasting_change() is None


@given(st.lists(st.floats(0.1, 100), min_size=10, max_size=80), st.floats(0.5, 80.5), st.sampled_from([0.125, 2, 64]))
def test_the_unit_does_not_matter(medians: list[float], moment: float, scale: float) -> None:
    """Drift is a ratio: powers of two change nothing at all."""
    assert find_drift(moment, at(medians)) == find_drift(moment, at([median * scale for median in medians]))


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=40))
def test_the_baseline_is_within_the_measured_medians(medians: list[float]) -> None:
    """However few processes there are and however they differ, the level is between the least and the greatest."""
    assert min(medians) <= baseline_level_ms(medians) <= max(medians)


def test_the_baseline_of_a_monitor(processes: Processes) -> None:
    """It is the level of its processes, and nothing before the first."""
    assert DriftMonitor().baseline_ms is None
    assert DriftMonitor(processes([1.0, 1.02, 3.0])).baseline_ms == pytest.approx(1.01)


def test_a_disturbed_process_of_the_reference_says_nothing(processes: Processes) -> None:
    """Three of which other programs interrupted most runs, at four times the baseline, make nothing slower."""
    calm = processes(STEADY)
    disturbed = [replace(each, samples_ms=(4.0,) * 5, conditions_after={"interrupted_share": 0.6}) for each in calm[:3]]
    monitor = DriftMonitor([*disturbed, *calm[3:]])
    assert len(monitor) == 17
    assert monitor.baseline_ms == pytest.approx(1.0)
    assert monitor.find_drift(1.5) == 0.0
    before = len(monitor)
    monitor.add(disturbed[0])
    assert len(monitor) == before
