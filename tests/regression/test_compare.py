"""Two models on one device, and one model on two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import DeviceProfile, Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import UsageError
from edgenas.regression.compare import compare_models

CPU = "CPUExecutionProvider"
MakeNet = Callable[[str, int], Path]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Files that only a fake device runs: its time grows with the size, 0.32 ms and 0.48 ms."""
    for name, size in (("old.onnx", 320_000), ("new.onnx", 480_000)):
        (tmp_path / name).write_bytes(bytes(size))
    return [tmp_path / "old.onnx", tmp_path / "new.onnx"]


def other(profile: DeviceProfile, **changes: Any) -> DeviceProfile:
    return profile_from_dict({**profile.to_dict(), **changes}, "test")


def test_two_models_on_one_device(files: list[Path], fake_target: Target) -> None:
    """They are measured in turn, and their one operator explains the whole difference."""
    started: list[tuple[str, int]] = []
    ended: list[None] = []
    comparison = compare_models(
        files,
        [fake_target.profile],
        on_start=lambda what, processes: started.append((what, processes)),
        on_process=lambda: ended.append(None),
    )
    assert comparison.side_by_side
    assert comparison.ratio is not None
    assert comparison.ratio[0] == pytest.approx(481 / 321, rel=0.01)
    assert [change.part for change in comparison.operators.changes] == [1.0]
    assert started == [("measure", 12), ("operators", 20)]
    assert len(ended) == 32
    document = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert document["before"]["model"] == str(files[0])
    assert document["operators"]["difference_us"] == 160.0


def test_one_model_on_two_devices(files: list[Path], fake_target: Target) -> None:
    """Each is measured by itself, and says so; operators that take equally long are no difference."""
    devices = [fake_target.profile, other(fake_target.profile, name="second")]
    comparison = compare_models(files[:1], devices)
    assert not comparison.side_by_side
    assert [side.target.profile.name for side in (comparison.before, comparison.after)] == ["board", "second"]
    assert comparison.operators.difference_us == 0.0
    assert not comparison.operators.differs


@pytest.mark.parametrize(("models", "devices"), [(1, 1), (2, 2), (0, 2), (3, 1), (2, 0)])
def test_another_number_is_refused(files: list[Path], fake_target: Target, models: int, devices: int) -> None:
    """The message says which numbers are right, and which were given."""
    profile = fake_target.profile
    with pytest.raises(UsageError, match=rf"one model and two devices, but got {models} and {devices}"):
        compare_models([*files, files[0]][:models], [profile, other(profile, name="second")][:devices])


def test_the_same_twice_is_refused(files: list[Path], fake_target: Target) -> None:
    """A file, or a device, compared with itself would be measured once."""
    with pytest.raises(UsageError, match=r"old\.onnx: is given twice"):
        compare_models(files[:1] * 2, [fake_target.profile])
    with pytest.raises(UsageError, match="board: is given twice"):
        compare_models(files[:1], [fake_target.profile] * 2)


@pytest.mark.slow
def test_precisions_of_one_runtime_run_in_turn(target: Target, data_folder: Path) -> None:
    """A float and an int8 file: operators are paired by what they compute, and two left the delegate."""
    pytest.importorskip("ai_edge_litert")
    models = [data_folder / "models" / f"mlperf_tiny_resnet8_{precision}.tflite" for precision in ("float", "int8")]
    comparison = compare_models(models, [target.profile])
    assert comparison.side_by_side
    assert [side.target.precision for side in (comparison.before, comparison.after)] == ["fp32", "int8"]
    assert comparison.operators.after.target["precision"] == "int8"
    assert {moved.type for moved in comparison.operators.placement.left} == {"AVERAGE_POOL_2D", "SOFTMAX"}
    assert comparison.operators.difference_us is None


@pytest.mark.slow
def test_two_runtimes_on_one_device(target: Target, make_net: MakeNet, data_folder: Path) -> None:
    """One after the other; operators of which only one runtime tells the time are listed all the same."""
    pytest.importorskip("ai_edge_litert")
    files = [make_net("net.onnx", 2), data_folder / "models" / "mlperf_tiny_resnet8_float.tflite"]
    comparison = compare_models(files, [target.profile])
    assert not comparison.side_by_side
    assert comparison.operators.difference_us is None
    assert comparison.operators.before.time_us is not None
    assert not comparison.operators.placement.is_regression


@pytest.mark.slow
def test_one_thread_and_two(target: Target, make_net: MakeNet) -> None:
    """Two profiles of this machine: the same operators on both."""
    profile = target.profile
    if (profile.cores or 2) < 2:
        pytest.skip("this machine has one core")
    two = other(profile, name="two-threads", default={"runtime": "onnxruntime", "threads": 2})
    comparison = compare_models([make_net("net.onnx", 3)], [profile, two])
    assert all(None not in pair for pair in comparison.operators.pairs)
    assert comparison.after.target.threads == 2
