"""A run's measurements: taken once, stored at once. The device makes its answers up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import edgenas.pipeline.measurement_store
from edgenas.devices import Device, Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import FormatError, MeasurementError
from edgenas.pipeline.measurement_store import Measurer
from edgenas.profilers import Measurement, MeasureSettings
from edgenas.profilers.measure.validity import Validity

ONE = MeasureSettings(processes=1, max_processes=1)
MODELS = [bytes([65 + number]) * 1000 * (number + 1) for number in range(20)]
Connect = Callable[..., Device]


class StopError(Exception):
    """What kills a step in the middle."""


@pytest.fixture
def target() -> Target:
    """A device that makes its answers up: the time of a model grows with the size of its file."""
    profile = {
        "name": "board",
        "connection": {"kind": "fake"},
        "runtimes": {"onnxruntime": {}},
        "default": {"runtime": "onnxruntime"},
    }
    return Target(profile_from_dict(profile, "test"))


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let any further use of a device fail."""

    def connect(profile: object) -> Device:
        raise AssertionError("nothing was to be measured")

    return lambda: monkeypatch.setattr(edgenas.pipeline.measurement_store, "connect_device", connect)


def test_what_is_stored_is_not_measured_again(tmp_path: Path, target: Target, no_device: Callable[[], None]) -> None:
    """The second time no device is connected to, and the results are the same."""
    with Measurer(tmp_path, target, ONE) as measurer:
        first = measurer.measure(MODELS)
    no_device()
    with Measurer(tmp_path, target, ONE) as measurer:
        assert measurer.measure(MODELS) == first
    assert len(list(tmp_path.glob("*.json"))) == 20


def test_another_version_of_the_runtime_is_not_mixed_in(tmp_path: Path, target: Target) -> None:
    """When the runtime was updated since, nothing more is stored beside the old numbers, and the remedy is said."""
    with Measurer(tmp_path, target, ONE) as measurer:
        measurer.measure(MODELS[:1])
    (path,) = tmp_path.glob("*.json")
    old = Measurement.load(path)
    replace(old, versions={**old.versions, "onnxruntime": "0.9"}).save(path)
    with (
        Measurer(tmp_path, target, ONE) as measurer,
        pytest.raises(MeasurementError, match=r"another runtime's version .*onnxruntime was 0\.9.*bring that back"),
    ):
        measurer.measure(MODELS[1:2])
    assert list(tmp_path.glob("*.json")) == [path]


def test_a_record_that_cannot_be_read_costs_no_device_time(
    tmp_path: Path, target: Target, no_device: Callable[[], None]
) -> None:
    """Where what is recorded is damaged, that is said before the device is connected to."""
    (tmp_path / "0-0-0.json").write_text("{")
    no_device()
    with Measurer(tmp_path, target, ONE) as measurer, pytest.raises(FormatError, match=r"0-0-0\.json: is damaged"):
        measurer.measure(MODELS[:1])


def test_the_reference_is_stored_too(tmp_path: Path, target: Target) -> None:
    """Twenty models have the reference twice between them; its measurements lie in a folder of their own."""
    with Measurer(tmp_path, target, ONE) as measurer:
        measurer.measure(MODELS)
    files = sorted((tmp_path / "reference").glob("*.json"))
    assert len(files) == 2
    assert Measurement.load(files[0]).settings["max_runs"] == 10


def test_a_killed_step_goes_on_where_it_was(tmp_path: Path, target: Target) -> None:
    """What came before the kill is stored, is not taken again, and the rest is measured."""
    seen: list[Measurement] = []

    def stop(measurement: Measurement) -> None:
        seen.append(measurement)
        if len(seen) == 5:
            raise StopError

    with Measurer(tmp_path, target, ONE) as measurer, pytest.raises(StopError):
        measurer.measure(MODELS, stop)
    kept = {path: path.read_bytes() for path in tmp_path.glob("*.json")}
    assert len(kept) == 5
    with Measurer(tmp_path, target, ONE) as measurer:
        assert measurer.measure(MODELS)[:5] == seen
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(list(tmp_path.glob("*.json"))) == 20


def test_equal_models_are_measured_once(tmp_path: Path, target: Target) -> None:
    """The same bytes twice have the same measurement."""
    with Measurer(tmp_path, target, ONE) as measurer:
        first, second = measurer.measure([MODELS[0], MODELS[0]])
    assert first == second
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_proof_takes_six_processes(tmp_path: Path, target: Target) -> None:
    """A proof is six stored measurements; they can be had again without a device."""
    with Measurer(tmp_path, target, edgenas.pipeline.measurement_store.SETTINGS) as measurer:
        assert measurer.recorded(MODELS[0]) is None
        proof = measurer.prove(MODELS[0])
        assert len(proof.measurements) == 6
        assert measurer.recorded(MODELS[0]) == proof


def test_a_proof_is_recorded_at_the_pace_it_was_given(tmp_path: Path, target: Target) -> None:
    """A device that is a third slower than each process remembers is another one: both say so."""
    with Measurer(tmp_path, target, edgenas.pipeline.measurement_store.SETTINGS) as measurer:
        measurer.prove(MODELS[0])
        for path in tmp_path.glob("*.json"):
            taken = Measurement.load(path)
            after = {**taken.conditions_after, "baseline_probe_ms": 3.0}
            replace(taken, probe_ms=(4.0,) * len(taken.samples_ms), conditions_after=after).save(path)
        proof = measurer.prove(MODELS[0])
        assert {each.reference_probe_ms for each in proof.measurements} == {4.0}
        assert measurer.recorded(MODELS[0]) == proof


@pytest.fixture
def disturbed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A proof that fails for this reason, while processes of these turns are refused; then all is calm again."""

    def prove(measurer: Measurer, said: str, refused: Callable[[int], bool] = lambda turn: True) -> None:
        turns = iter(range(1000))

        def assess(*before: object, **options: object) -> Validity:
            return Validity("rejected", ("busy: wait",)) if refused(next(turns)) else Validity("valid")

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(sys.modules["edgenas.profilers.measure.session"], "assess", assess)
            with pytest.raises(MeasurementError, match=said):
                measurer.prove(MODELS[0])

    return prove


def test_no_proof_without_trust(tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where conditions refuse every process, the remedy is said."""
    refused = Validity("rejected", ("governor is powersave: change it",))
    monkeypatch.setattr(sys.modules["edgenas.profilers.measure.session"], "assess", lambda *before, **options: refused)
    with (
        Measurer(tmp_path, target, edgenas.pipeline.measurement_store.SETTINGS) as measurer,
        pytest.raises(MeasurementError, match="governor is powersave: change it"),
    ):
        measurer.prove(MODELS[0])


def test_after_the_remedy_it_is_proven(tmp_path: Path, target: Target, disturbed: Callable[..., None]) -> None:
    """Refused, then quiet: the next proof takes six processes, and is what is recorded."""
    with Measurer(tmp_path, target, edgenas.pipeline.measurement_store.SETTINGS) as measurer:
        disturbed(measurer, "busy: wait")
        assert measurer.recorded(MODELS[0]) is None
        proof = measurer.prove(MODELS[0])
        assert len(proof.measurements) == 6
        assert not proof.rejected
        assert measurer.recorded(MODELS[0]) == proof


def test_a_proof_among_disturbances_is_taken_anew(
    tmp_path: Path, target: Target, disturbed: Callable[..., None]
) -> None:
    """Two of three processes are disturbed: refused the first time, not proven by its six calm ones the second."""
    with Measurer(tmp_path, target, edgenas.pipeline.measurement_store.SETTINGS) as measurer:
        disturbed(measurer, "of 16 processes rejected: busy: wait", lambda turn: turn % 3 > 0)
        assert measurer.recorded(MODELS[0]) is None
        proof = measurer.prove(MODELS[0])
        assert len(proof.measurements) == 6
        assert measurer.recorded(MODELS[0]) == proof


def test_a_few_good_processes_do_not_complete_a_disturbed_proof(
    tmp_path: Path, target: Target, disturbed: Callable[..., None]
) -> None:
    """Four of 18 processes were calm: two more would make six, but the second proof is of six calm ones of its own."""
    with Measurer(tmp_path, target, edgenas.pipeline.measurement_store.SETTINGS) as measurer:
        disturbed(measurer, "busy: wait", lambda turn: turn % 4 < 3)
        proof = measurer.prove(MODELS[0])
        assert len(proof.measurements) == 6
        assert not proof.rejected
        assert measurer.recorded(MODELS[0]) == proof


def test_a_measurement_of_an_older_edgenas_is_refused(tmp_path: Path, target: Target) -> None:
    """A stored file of the version before is named, with what to do about it and all others."""
    with Measurer(tmp_path, target, ONE) as measurer:
        measurer.measure(MODELS[:1])
        (path,) = tmp_path.glob("*.json")
        path.write_text(path.read_text().replace('"version": 3', '"version": 2').replace('"version":3', '"version":2'))
        with pytest.raises(
            FormatError, match=rf"{path.name}.*if others of {tmp_path} are like it, move that folder away"
        ):
            measurer.measure(MODELS[:1])
