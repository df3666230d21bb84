"""Baselines: recording, the file, and the median over processes."""

from __future__ import annotations

import hashlib
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgenas.regression.listing
from edgenas.devices import Target
from edgenas.errors import FormatError, MeasurementError, ModelError, UsageError
from edgenas.files import Schema
from edgenas.profilers import Measurement, Operator
from edgenas.profilers.measure.model_files import read_model_files
from edgenas.profilers.measure.result import process_median_with_interval
from edgenas.profilers.measure.validity import Validity
from edgenas.regression import Baseline, record_baseline

Make = Callable[..., tuple[Measurement, ...]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"m" * 1000)
    return path


def test_a_baseline_is_twelve_measurements(model: Path, fake_target: Target, tmp_path: Path) -> None:
    """Recording measures the file in twelve processes on the target, and says that a fake's numbers are made up."""
    baseline = record_baseline(model, fake_target, tmp_path / "b.json")
    assert len(baseline.measurements) == 12
    assert baseline.target == fake_target.to_dict()
    assert baseline.synthetic
    # The fake takes 1 µs and 1 ms a megabyte, within 1%.
    assert baseline.result.median_ms == pytest.approx(0.002, rel=0.01)


def test_the_anchor_is_measured_in_the_same_rounds(model: Path, fake_target: Target, tmp_path: Path) -> None:
    """It is another file, measured in as many processes, one in each round of the model's."""
    baseline = record_baseline(model, fake_target, tmp_path / "b.json")
    assert [one.round for one in baseline.anchor] == [one.round for one in baseline.measurements] == list(range(12))
    assert baseline.anchor[0].model_sha256 != baseline.model_sha256


def test_what_was_recorded_is_loaded_equal(model: Path, fake_target: Target, tmp_path: Path) -> None:
    """Everything is in the file, and saving it again gives the same bytes."""
    baseline = record_baseline(str(model), fake_target, str(tmp_path / "b.json"))
    loaded = Baseline.load(tmp_path / "b.json")
    assert loaded == baseline
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_where_the_operators_ran_is_recorded(model: Path, fake_target: Target, tmp_path: Path) -> None:
    """The made-up device has one operator; its time belongs to the process that listed it, and is left out."""
    baseline = record_baseline(model, fake_target, tmp_path / "b.json")
    assert baseline.operators == (Operator("fake", "Fake", "CPUExecutionProvider"),)
    assert baseline.profile is not None
    assert baseline.profile.target == fake_target.to_dict()


def test_a_runtime_that_lists_no_operators_records_all_the_same(
    model: Path, fake_target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline says that it does not know."""

    def refuse(*arguments: object, **options: object) -> None:
        raise ModelError("model.onnx: it has no profiler")

    monkeypatch.setattr(edgenas.regression.listing, "profile_operators", refuse)
    record_baseline(model, fake_target, tmp_path / "b.json")
    loaded = Baseline.load(tmp_path / "b.json")
    assert (loaded.operators, loaded.profile) == (None, None)


def test_the_model_is_kept_beside_the_baseline(model: Path, fake_target: Target, tmp_path: Path) -> None:
    """Under the baseline's name and the beginning of its hash, so that the model itself may change."""
    record_baseline(model, fake_target, tmp_path / "all" / "b.json")
    digest = hashlib.sha256(b"m" * 1000).hexdigest()
    assert (tmp_path / "all" / f"b-{digest[:12]}.onnx").read_bytes() == b"m" * 1000
    assert Baseline.load(tmp_path / "all" / "b.json").kept == f"b-{digest[:12]}.onnx"


def test_recording_again_leaves_one_copy(model: Path, fake_target: Target, tmp_path: Path) -> None:
    """The copy of the model before is removed when the new baseline is complete."""
    record_baseline(model, fake_target, tmp_path / "b.json")
    model.write_bytes(b"n" * 1000)
    kept = record_baseline(model, fake_target, tmp_path / "b.json").kept
    assert [path.name for path in tmp_path.glob("b-*")] == [kept]


@pytest.mark.parametrize("name", ["model.onnx", "README.md"])
def test_no_other_file_is_replaced(model: Path, fake_target: Target, tmp_path: Path, name: str) -> None:
    """Neither the model itself nor somebody's notes; said before anything is measured."""
    path = model if name == "model.onnx" else tmp_path / name
    path.write_bytes(b"m" * 1000)
    with pytest.raises(
        UsageError, match=r"is there already and is no baseline that can be read, so it is not replaced"
    ) as error:
        record_baseline(model, fake_target, path, on_process=lambda done, total: pytest.fail("measured"))
    assert str(error.value).endswith("choose another name, or move it away")
    assert path.read_bytes() == b"m" * 1000


def test_a_foreign_baseline_cannot_have_a_file_removed(
    model: Path, make: Make, fake_target: Target, tmp_path: Path
) -> None:
    """Only a name that edgenas gives to the copy of that model is removed with it."""
    (tmp_path / "notes.txt").write_text("mine")
    Baseline(make([1.0] * 6), kept="notes.txt").save(tmp_path / "b.json")
    record_baseline(model, fake_target, tmp_path / "b.json")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_model_of_several_files_is_kept_whole(tmp_path: Path, target: Target, make: Make) -> None:
    """Weights in a file beside the model are copied and listed, and the copy has the model's hash."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "net", ends[:1], ends[1:], [weights])
    net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(net, path, save_as_external_data=True, location="net.data", size_threshold=0)
    (file,) = read_model_files([path], target)
    file.copy_to(tmp_path / "copies" / "kept.onnx")
    (again,) = read_model_files([tmp_path / "copies" / "kept.onnx"], target)
    assert again.sha256 == file.sha256
    assert len(list((tmp_path / "copies").iterdir())) == 2
    kept = Baseline(make([1.0] * 6), kept="kept.onnx").list_kept_files(tmp_path / "copies" / "b.json")
    assert kept[0].name == "kept.onnx"
    assert set(kept) == set((tmp_path / "copies").iterdir())


def test_a_baseline_of_version_5_has_no_copy_of_its_model(make: Make, tmp_path: Path) -> None:
    """What an earlier edgenas recorded loads, and knows neither its model nor an anchor."""
    path = tmp_path / "b.json"
    Schema("baseline", 5).write(path, {"measurements": [one.to_dict() for one in make([1.0] * 6)]})
    assert Baseline.load(path) == Baseline(make([1.0] * 6))


@pytest.mark.parametrize("name", ["../key", "", ".."])
def test_a_baseline_keeps_its_model_beside_itself(make: Make, name: str) -> None:
    """A name that leads elsewhere is refused: whoever gives you a baseline may not name your files."""
    with pytest.raises(UsageError, match=re.escape(f"must keep its model beside itself, but names {name!r}")):
        Baseline(make([1.0] * 6), kept=name)


def test_paths_may_be_text(make: Make, tmp_path: Path) -> None:
    """Saving and loading take a string as well as a path, and the baseline shows itself on one line."""
    baseline = Baseline(make([1.0] * 6))
    baseline.save(str(tmp_path / "baseline.json"))
    assert Baseline.load(str(tmp_path / "baseline.json")) == baseline
    assert repr(baseline) == "Baseline(1.00 ms, 95% interval 1.00 to 1.00 ms, 6 processes, synthetic, valid)"


def test_a_damaged_baseline_is_refused(make: Make, tmp_path: Path) -> None:
    """A number changed by hand no longer fits the checksum."""
    path = tmp_path / "baseline.json"
    Baseline(make([1.25] * 6)).save(path)
    path.write_text(path.read_text().replace("1.25", "2.25"))
    with pytest.raises(FormatError, match=r"baseline\.json: is damaged"):
        Baseline.load(path)


def test_a_measurement_is_no_baseline(make: Make, tmp_path: Path) -> None:
    """Another kind of edgenas file is refused with both names."""
    make([1.0])[0].save(tmp_path / "measurement.json")
    with pytest.raises(FormatError, match=r"expected format edgenas\.baseline.*edgenas\.measurement"):
        Baseline.load(tmp_path / "measurement.json")


def test_a_baseline_needs_six_measurements(make: Make) -> None:
    """Fewer than six values have no 95% interval of their median."""
    with pytest.raises(UsageError, match="at least 6 measurements, but got 5"):
        Baseline(make([1.0] * 5))


@pytest.mark.parametrize(("field", "value"), [("model_sha256", "1" * 64), ("target", {"device": "other"})])
def test_a_baseline_is_of_one_model_and_target(make: Make, field: str, value: object) -> None:
    """Measurements of two files, or on two targets, make no baseline."""
    with pytest.raises(UsageError, match=f"must be of one {field.removesuffix('_sha256')}"):
        Baseline(make([1.0] * 6) + make([1.0], **{field: value}))


@pytest.fixture
def reject(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Let the conditions of some processes, by their number, be those of a slow governor."""

    def install(is_rejected: Callable[[int], bool]) -> None:
        taken = itertools.count()

        def assess(before: object, after: object, **options: object) -> Validity:
            rejected = Validity("rejected", ("governor is powersave: change it",))
            return rejected if is_rejected(next(taken)) else Validity("valid")

        monkeypatch.setattr(sys.modules["edgenas.profilers.measure.session"], "assess_validity", assess)

    return install


def test_rejected_measurements_make_no_baseline(
    model: Path, fake_target: Target, tmp_path: Path, reject: Callable[[Callable[[int], bool]], None]
) -> None:
    """Where conditions reject all processes, nothing is recorded, and the reason is said once."""
    reject(lambda number: True)
    with pytest.raises(MeasurementError) as error:
        record_baseline(model, fake_target, tmp_path / "b.json")
    assert str(error.value) == (
        f"{model}: no baseline can be recorded on board-onnxruntime-fp32-1t: governor is powersave: change it"
    )
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


def test_a_few_rejected_measurements_do_not_count(
    model: Path, fake_target: Target, tmp_path: Path, reject: Callable[[Callable[[int], bool]], None]
) -> None:
    """A device that heated up in its first process is measured by twelve others."""
    reject(lambda number: number == 0)
    assert len(record_baseline(model, fake_target, tmp_path / "b.json").measurements) == 12


def test_a_model_that_is_refused_raises(tmp_path: Path, target: Target) -> None:
    """A file that the runtime cannot load has no baseline: the model is wrong, not the device."""
    path = tmp_path / "garbage.onnx"
    path.write_bytes(b"this is no model")
    with pytest.raises(ModelError, match=r"garbage\.onnx: is refused by onnxruntime"):
        record_baseline(path, target, tmp_path / "b.json")


@pytest.mark.parametrize(("count", "ends"), [(6, (1.0, 6.0)), (8, (1.0, 8.0)), (9, (2.0, 8.0)), (12, (3.0, 10.0))])
def test_the_interval_ends_at_order_statistics(make: Make, count: int, ends: tuple[float, float]) -> None:
    """As in tables of the sign test: of 6 and 8 values the extremes, of 9 the second, of 12 the third from each end."""
    median, low, high = process_median_with_interval(make([float(value) for value in range(count, 0, -1)]))
    assert median == (count + 1) / 2
    assert (low, high) == ends


def test_a_slow_process_does_not_move_the_interval(make: Make) -> None:
    """Two of twelve processes that were disturbed, ten times as slow, leave the interval where the others put it."""
    quiet = [1.0, 1.001, 1.002, 1.003, 1.004, 1.005, 1.006, 1.007, 1.008, 1.009]
    assert process_median_with_interval(make([*quiet, 10.0, 10.0])) == (1.0055, 1.002, 1.009)


def test_the_interval_covers_the_median(make: Make) -> None:
    """Of 400 intervals of skewed noise around a true median of 1, about 96% must cover it, and at least 93% do."""
    noise = np.exp(0.02 * np.random.default_rng(0).gamma(1.0, size=(400, 12)))
    true = float(np.exp(0.02 * np.log(2)))
    intervals = [process_median_with_interval(make(row.tolist()))[1:] for row in noise]
    assert np.mean([low <= true <= high for low, high in intervals]) >= 0.93
