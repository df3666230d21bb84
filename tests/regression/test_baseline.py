"""Baselines: recording, the file, and the median over processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgenas.regression.baseline
from edgenas.devices import Target
from edgenas.errors import FormatError, MeasurementError, ModelError, UsageError
from edgenas.profilers import Measurement, MeasureSettings
from edgenas.profilers.measure.result import process_median_with_interval
from edgenas.profilers.measure.validity import Validity
from edgenas.regression import Baseline, record_baseline

Make = Callable[..., tuple[Measurement, ...]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"m" * 1000)
    return path


def test_a_baseline_is_twelve_measurements(model: Path, fake_target: Target) -> None:
    """Recording measures the file in twelve processes on the target, and says that a fake's numbers are made up."""
    baseline = record_baseline(model, fake_target)
    assert len(baseline.measurements) == 12
    assert baseline.target == fake_target.to_dict()
    assert baseline.synthetic
    # The fake takes 1 µs and 1 ms a megabyte, within 1%.
    assert baseline.result.median_ms == pytest.approx(0.002, rel=0.01)


def test_settings_hold_for_every_process(model: Path, fake_target: Target) -> None:
    """Settings that are given are those of each measurement."""
    settings = MeasureSettings(max_runs=50)
    baseline = record_baseline(str(model), fake_target, settings)
    assert {each.settings["max_runs"] for each in baseline.measurements} == {50}


def test_a_saved_baseline_is_loaded_equal(model: Path, fake_target: Target, tmp_path: Path) -> None:
    """Everything is in the file, and saving it again gives the same bytes."""
    baseline = record_baseline(model, fake_target)
    baseline.save(tmp_path / "baseline.json")
    loaded = Baseline.load(tmp_path / "baseline.json")
    assert loaded == baseline
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "baseline.json").read_bytes()


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


def test_rejected_measurements_make_no_baseline(
    model: Path, fake_target: Target, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where conditions reject all processes, nothing is recorded, and the reason is said once."""
    rejected = make([1.0] * 12, validity=Validity("rejected", ("governor is powersave: change it",)))
    monkeypatch.setattr(edgenas.regression.baseline, "measure_processes", lambda *arguments: rejected)
    with pytest.raises(MeasurementError) as error:
        record_baseline(model, fake_target)
    assert str(error.value) == (
        f"{model}: no baseline can be recorded on board-onnxruntime-fp32-1t: governor is powersave: change it"
    )


def test_a_few_rejected_measurements_do_not_count(
    model: Path, fake_target: Target, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that heated up in its first process is measured by the others."""
    taken = make([2.0], validity=Validity("rejected", ("the device heated up",))) + make([1.0] * 11)
    monkeypatch.setattr(edgenas.regression.baseline, "measure_processes", lambda *arguments: taken)
    assert record_baseline(model, fake_target).measurements == taken[1:]


def test_a_model_that_is_refused_raises(tmp_path: Path, target: Target) -> None:
    """A file that the runtime cannot load has no baseline: the model is wrong, not the device."""
    path = tmp_path / "garbage.onnx"
    path.write_bytes(b"this is no model")
    with pytest.raises(ModelError, match=r"garbage\.onnx: is refused by onnxruntime"):
        record_baseline(path, target)


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
