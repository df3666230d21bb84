"""Measuring with the real agent and runtimes: open shapes, given inputs, and models of several files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgenas.devices import DeviceProfile, Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import ModelError, UsageError
from edgenas.profilers import (
    Measurement,
    MeasureSettings,
    MeasuringRounds,
    MeasuringSession,
    ModelInputs,
    measure_model,
    measure_models,
)

BRIEF = MeasureSettings(processes=1, max_processes=1, max_runs=10, min_seconds=0, max_seconds=0.1, warmup_seconds=0.05)

Make = Callable[..., Path]


@pytest.fixture
def litert(profile: DeviceProfile) -> Target:
    """This machine's TensorFlow Lite."""
    return Target(profile, "litert")


def measure(model: Path, target: Target, *shapes: str, file: Path | None = None) -> Measurement:
    """The one measurement of a model with these inputs."""
    (measurement,) = measure_model(model, target, BRIEF, ModelInputs.parse(shapes, file)).measurements
    return measurement


def refusal(model: Path, target: Target, *shapes: str, file: Path | None = None) -> str:
    """The message that a model with these inputs is refused with, without the file's folder."""
    with pytest.raises(ModelError) as error:
        measure(model, target, *shapes, file=file)
    return str(error.value).removeprefix(f"{model.parent}/")


# -- open shapes -------------------------------------------------------------------


def test_a_batch_by_name_is_one_and_told(make_conv: Make, target: Target) -> None:
    """A model with a free batch runs with a batch of one, and its measurement says so."""
    assert measure(make_conv(shape=("batch", 3, 16, 16)), target).filled_shapes == {"image": (1, 3, 16, 16)}


def test_the_first_dimension_of_an_image_is_one_and_told(make_conv: Make, make_relu: Make, litert: Target) -> None:
    """Without a name, in both runtimes."""
    onnxruntime = Target(litert.profile)
    assert measure(make_conv(shape=(None, 3, 16, 16)), onnxruntime).filled_shapes == {"image": (1, 3, 16, 16)}
    relu = make_relu((1, 4, 4, 3), (-1, 4, 4, 3))
    assert measure(relu, litert).filled_shapes == {"x": (1, 4, 4, 3)}


def test_a_fixed_shape_is_not_told(conv: Path, target: Target) -> None:
    """Nothing was filled in."""
    assert measure(conv, target).filled_shapes == {}


def test_open_dimensions_of_a_tflite_file_are_refused(make_relu: Make, litert: Target) -> None:
    """A shape of 1 x 1 x 1 x 3 that its signature leaves open is none: it would be measured at one pixel."""
    assert refusal(make_relu((1, 1, 1, 3), (1, -1, -1, 3)), litert) == (
        "relu.tflite: input 'x' has an open dimension at place 1 of 1 x ? x ? x 3;"
        " give its shape: --shape x=1xSIZExSIZEx3"
    )
    assert "open dimension at place 0 of ? x 3" in refusal(make_relu((1, 3), (-1, 3)), litert)


def test_a_tflite_file_is_measured_at_the_size_that_is_given(make_relu: Make, litert: Target) -> None:
    """200 x 200 pixels of three floats take 480 kB in and out, and much longer than one pixel."""
    relu = make_relu((1, 1, 1, 3), (1, -1, -1, 3))
    small, large = (measure(relu, litert, f"x=1x{size}x{size}x3") for size in (1, 200))
    assert large.filled_shapes == {"x": (1, 200, 200, 3)}
    assert large.median_ms > 4 * small.median_ms


def test_a_length_is_not_guessed(make_onnx: Make, target: Target) -> None:
    """The first dimension of a text model is its length, not a batch."""
    model = make_onnx({"tokens": ("FLOAT", ("sequence_length", 64))})
    assert refusal(model, target) == (
        "echo.onnx: input 'tokens' has an open dimension 'sequence_length' at place 0 of sequence_length x 64;"
        " give its shape: --shape tokens=SIZEx64"
    )
    assert measure(model, target, "tokens=128x64").filled_shapes == {"tokens": (128, 64)}


def test_an_unknown_rank_is_refused(make_onnx: Make, make_relu: Make, target: Target, litert: Target) -> None:
    """An input without dimensions is no single number, in both runtimes; with a shape it is measured."""
    model, relu = make_onnx({"x": ("FLOAT", None)}), make_relu(())
    assert refusal(model, target).startswith("echo.onnx: input 'x' has no known rank; give its shape: --shape x=")
    assert refusal(relu, litert).startswith("relu.tflite: input 'x' has no known rank; give its shape: --shape x=")
    for file, where in ((model, target), (relu, litert)):
        assert measure(file, where, "x=2x5").filled_shapes == {"x": (2, 5)}
        assert measure(file, where, "x=scalar").filled_shapes == {"x": ()}


def test_a_dimension_of_zero_is_refused(make_onnx: Make, make_relu: Make, target: Target, litert: Target) -> None:
    """It is no size to measure at."""
    said = "input 'x' has a dimension of size 0 at place 1 of 1 x 0; export it with fixed sizes"
    assert refusal(make_onnx({"x": ("FLOAT", (1, 0))}), target) == f"echo.onnx: {said}"
    assert refusal(make_relu((1, 0)), litert) == f"relu.tflite: {said}"


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (["y=1x64"], "it has no input 'y', only 'x'; correct the name"),
        (["x=1x65"], "input 'x' has shape length x 64, but got 1 x 65; give one that fits"),
        (["x=64"], "input 'x' has shape length x 64, but got 64; give one that fits"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(make_onnx: Make, target: Target, shapes: list[str], said: str) -> None:
    """It is checked against the model, and nothing is run."""
    assert refusal(make_onnx({"x": ("FLOAT", ("length", 64))}), target, *shapes) == f"echo.onnx: {said}"


def test_a_network_that_only_fits_the_given_size_runs(make_relu: Make, litert: Target) -> None:
    """A TFLite file may not be runnable at the sizes that the library takes for open ones."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    path = make_relu((1, 1), (1, -1))
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    # y is x as 3 x 4 numbers, which 1 x 1 is not.
    graph.tensors[graph.outputs[0]].shapeSignature = None
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    graph.operators[0].builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    graph.operators[0].builtinOptions = schema.ReshapeOptionsT()
    graph.operators[0].builtinOptions.newShape = [3, 4]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    assert measure(path, litert, "x=1x12").filled_shapes == {"x": (1, 12)}
    assert "is refused by litert" in refusal(path, litert, "x=1x13")


# -- given inputs ------------------------------------------------------------------


@pytest.fixture
def gather(tmp_path: Path) -> Path:
    """An ONNX file that looks up rows by their numbers, of which it has 100."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "gather",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["length"])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["length", 8])],
        [numpy_helper.from_array(np.ones((100, 8), np.float32), "table")],
    )
    path = tmp_path / "gather.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    """Write an archive of arrays by name."""

    def write(**arrays: Any) -> Path:
        np.savez(tmp_path / "inputs.npz", **arrays)
        return tmp_path / "inputs.npz"

    return write


def test_given_inputs_are_run(gather: Path, target: Target, npz: Make) -> None:
    """Their shapes are those of the open dimensions."""
    file = str(npz(ids=np.array([1, 99, 7])))
    (measurement,) = measure_model(gather, target, BRIEF, ModelInputs(file=file)).measurements
    assert measurement.filled_shapes == {"ids": (3,)}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"id": np.array([1])}, "it has no input 'id', only 'ids'; correct the name"),
        ({"ids": np.array([[1]])}, "input 'ids' has shape length, but got 1 x 1; give one that fits"),
        ({"ids": np.array([1], np.int32)}, "input 'ids' is of int64, but got int32; give an array of that type"),
        ({}, "input 'ids' is not among the given arrays; add it to the file of --inputs"),
    ],
)
def test_given_inputs_that_do_not_fit_are_refused(
    gather: Path, target: Target, npz: Make, arrays: dict[str, Any], said: str
) -> None:
    """Name, shape and type are checked against the model."""
    assert refusal(gather, target, file=npz(**arrays)) == f"gather.onnx: {said}"


def test_values_that_the_model_does_not_take_are_told_as_such(gather: Path, target: Target, npz: Make) -> None:
    """Row 100 of 100 is no fault of the file."""
    said = refusal(gather, target, file=npz(ids=np.array([100])))
    assert said.startswith("gather.onnx: fails when it is run by onnxruntime ")
    assert said.endswith("; its inputs may not suit it: give others with --inputs FILE.npz")


def test_text_is_run_where_it_is_given(make_onnx: Make, target: Target, npz: Make) -> None:
    """It cannot be made up."""
    model = make_onnx({"words": ("STRING", (3,))})
    assert refusal(model, target) == (
        "echo.onnx: input 'words' takes text, which cannot be made up; give it: --inputs FILE.npz"
    )
    assert measure(model, target, file=npz(words=np.array(["a", "bc", ""]))).median_ms > 0


def test_single_numbers_are_run(make_onnx: Make, target: Target) -> None:
    """Scalars of whole numbers and of truth are made up as arrays, which the runtime wants."""
    assert measure(make_onnx({"step": ("INT64", ()), "flag": ("BOOL", ())}), target).median_ms > 0


def test_inputs_are_given_to_all_models_of_a_call(make_onnx: Make, profile: DeviceProfile) -> None:
    """The shape holds for each; a model without that input fails alone."""
    shape = {"x": ("FLOAT", ("length", 8))}
    first, second, other = make_onnx(shape, "a.onnx"), make_onnx(shape, "b.onnx"), make_onnx({"y": ("FLOAT", (1,))})
    measured = measure_models([first, second, other], profile, BRIEF, inputs=ModelInputs({"x": (5, 8)}))
    assert [one.filled_shapes for one in measured.results.values()] == [{"x": (5, 8)}] * 2
    assert list(measured.errors) == [other]


@pytest.mark.parametrize("dtype", ["FLOAT", "FLOAT16", "UINT8", "INT64"])
def test_making_inputs_takes_no_memory_of_the_model(make_onnx: Make, target: Target, dtype: str) -> None:
    """An input and its copy, of 4 MB each in single bytes, and hardly more: nothing else is made on the way."""
    numbers = 2**22
    peak = measure(make_onnx({"x": (dtype, (1, numbers))}), target).peak_bytes
    assert peak is not None
    both = 2 * numbers * {"FLOAT": 4, "FLOAT16": 2, "UINT8": 1, "INT64": 8}[dtype]
    assert both - 2**20 < peak < both + 2 * 2**20


# -- models of several files -------------------------------------------------------


@pytest.fixture
def split(conv: Path) -> Path:
    """The convolution with its weights in a file beside it."""
    path = conv.parent / "split" / "net.onnx"
    path.parent.mkdir()
    onnx.save(onnx.load(conv), path, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    return path


def test_a_model_of_several_files_computes_what_it_does_in_one(conv: Path, split: Path, target: Target) -> None:
    """Its weights travel with it."""
    image = np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)
    with MeasuringSession(target) as session:
        (expected,), (found,) = (session.compute_outputs(path, [image]) for path in (conv, split))
    np.testing.assert_array_equal(found, expected)


def test_a_model_of_several_files_is_measured(conv: Path, split: Path, profile: DeviceProfile) -> None:
    """Beside others; every measurement has the hash that the weights are part of."""
    measured = measure_models([conv, split], profile, BRIEF)
    one, two = measured.results.values()
    assert one.median_ms > 0
    assert two.median_ms > 0
    assert one.model_sha256 != two.model_sha256


def test_a_model_of_several_files_is_measured_over_ssh(split: Path, ssh_profile: DeviceProfile) -> None:
    """The files lie side by side on the device."""
    assert measure(split, Target(ssh_profile)).median_ms > 0


def test_given_inputs_travel_over_ssh(gather: Path, ssh_profile: DeviceProfile, npz: Make) -> None:
    """The archive lies on the device."""
    assert measure(gather, Target(ssh_profile), file=npz(ids=np.array([1, 2]))).filled_shapes == {"ids": (2,)}


def test_weights_that_were_changed_since_they_were_checked_are_refused(split: Path, target: Target) -> None:
    """What was checked is measured, or nothing."""
    rounds = MeasuringRounds([split], target, BRIEF)
    split.with_name("net.onnx.data").write_bytes(b"others")
    with (
        MeasuringSession(target) as session,
        pytest.raises(UsageError, match=r"net\.onnx\.data: has changed since its digest was taken"),
    ):
        session.measure(rounds)


def test_cut_weights_are_told_by_the_runtime(split: Path, target: Target) -> None:
    """The runtime refuses the file, and says why."""
    split.with_name("net.onnx.data").write_bytes(b"cut")
    assert refusal(split, target).startswith("net.onnx: is refused by onnxruntime ")


def test_a_mixed_call_measures_each_precision(profile: DeviceProfile, real_models: Path) -> None:
    """A float file and an integer file of one runtime run in common rounds, each under its own precision."""
    files = [real_models / f"mlperf_tiny_vww96_{kind}.tflite" for kind in ("float", "int8")]
    seen: list[Path] = []
    two = MeasureSettings(**{**BRIEF.to_dict(), "processes": 2, "max_processes": 2})
    measured = measure_models(files, profile, two, on_process=lambda model, _: seen.append(model))
    assert [target.precision for target in measured.targets.values()] == ["fp32", "int8"]
    assert [one.target["precision"] for one in measured.results.values()] == ["fp32", "int8"]
    assert seen == files * 2


def test_tensorrt_decides_the_precision(conv: Path, profile: DeviceProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its provider computes a float32 file in the precision that was asked for; any other one does not."""
    monkeypatch.setattr(MeasuringSession, "measure", lambda session, rounds: None)
    with pytest.raises(
        UsageError, match=r"conv\.onnx: is a file in fp32, not int8; leave out the precision, or export"
    ):
        measure_models([conv], profile, precision="int8")
    providers = {"onnxruntime": {"providers": ["TensorrtExecutionProvider", "CPUExecutionProvider"]}}
    jetson = profile_from_dict({**profile.to_dict(), "runtimes": providers}, "test")
    assert measure_models([conv], jetson, precision="int8").targets[conv].precision == "int8"
