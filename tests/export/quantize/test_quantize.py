"""Model files in fewer bits."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgenas.errors import ModelError, UsageError, VerificationError
from edgenas.export import build_onnx, check_onnx, run_onnx
from edgenas.export.onnx.session import OnnxFile
from edgenas.export.quantize.calibration import Calibration
from edgenas.export.quantize.layer_selection import is_kept_in_float
from edgenas.export.tflite.interpreter import open_interpreter, run_tflite
from edgenas.export.tflite.writer import build_tflite
from edgenas.graph import summarise_model
from edgenas.runtimes import ExportFormat
from edgenas.runtimes.building import float_layers, layer_errors, quantize
from edgenas.space import Architecture, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace

Make = Callable[[Architecture, int], dict[str, np.ndarray]]
Graph = Callable[..., bytes]
Files = dict[str, bytes]
RUN = {"onnx": run_onnx, "tflite": run_tflite}
INT8 = {"onnx": ExportFormat("onnx", "int8"), "tflite": ExportFormat("tflite", "int8")}
FEWER = [
    ExportFormat("onnx", "fp16"),
    *INT8.values(),
    ExportFormat("tflite", "fp16"),
    ExportFormat("tflite", "dynamic"),
]
# Root mean square of the logits' difference over that of the logits, and the share of the float32 file's size. Random
# weights are harder to quantise than trained ones, whose logits differ by 0.03 in int8.
LIMITS = {"fp16": (0.002, 0.6), "dynamic": (0.05, 0.45), "int8": (0.1, 0.5)}
SPACES: dict[str, SearchSpace] = {
    "mobilenet_v3": MobileNetV3(width=0.35, resolutions=(1, 24, 31, 45), classes=10),
    "proxyless": ProxylessNAS(width=0.35, resolutions=(1, 32, 45), classes=10),
    "resnet50d": ResNet50D(resolutions=(1, 5, 31, 33, 45), classes=10, width_mults=(0.1, 0.15, 0.3)),
}
every_format = pytest.mark.parametrize("file_format", ["onnx", "tflite"])


def _images(size: int, number: int = 8) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((number, 3, size, size), dtype=np.float32)


def _error(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(np.sqrt(np.square(expected - actual).mean() / np.square(expected).mean()))


@pytest.fixture(scope="module")
def files(small_space: MobileNetV3, lively_weights: Make) -> Files:
    """The smallest network of the digits' space, float32, in both formats."""
    model = build_onnx(small_space.smallest, lively_weights(small_space.smallest, 1))
    return {"onnx": model, "tflite": build_tflite(model)}


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Eight images of noise."""
    return Calibration(_images(24))


@pytest.fixture(scope="module")
def int8_files(files: Files, calibration: Calibration) -> Files:
    """The same network in int8."""
    return {name: quantize(files[name], export_format, calibration) for name, export_format in INT8.items()}


@pytest.mark.parametrize("export_format", FEWER, ids=str)
def test_fewer_bits_give_nearly_the_same_logits(
    files: Files, calibration: Calibration, export_format: ExportFormat
) -> None:
    """Each precision keeps its distance to float32, in less space."""
    base = files[export_format.format]
    model = quantize(base, export_format, calibration)
    limit, share = LIMITS[export_format.precision]
    run = RUN[export_format.format]
    assert 0 < _error(run(base, calibration.images), run(model, calibration.images)) < limit
    assert len(model) < share * len(base)


@every_format
def test_float32_is_returned_as_it_is(files: Files, file_format: str) -> None:
    """A float32 file stays as it is."""
    assert quantize(files[file_format], ExportFormat(file_format, "fp32")) == files[file_format]


@pytest.mark.parametrize("export_format", FEWER, ids=str)
def test_equal_arguments_give_equal_bytes(files: Files, calibration: Calibration, export_format: ExportFormat) -> None:
    """Quantising twice writes the same file, and does not change what it reads."""
    first = quantize(files[export_format.format], export_format, calibration, keep_float=["stem"])
    assert quantize(files[export_format.format], export_format, calibration, keep_float=["stem"]) == first


@pytest.mark.parametrize("keep_float", [[], ["stem", "stage2.block1"]])
@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-tensorrt"])
def test_the_float_model_stays_as_it_is(
    files: Files, calibration: Calibration, precision: str, keep_float: list[str]
) -> None:
    """Converting and comparing read the parsed float32 model that all files of a subnet share, and change nothing."""
    base, export_format = OnnxFile(files["onnx"]), ExportFormat("onnx", precision)
    before = base.proto.SerializeToString(deterministic=True)
    quantized = quantize(base, export_format, calibration, keep_float=keep_float)
    layer_errors(base, quantized, export_format, calibration.images)
    build_tflite(base)
    summarise_model(base.proto)
    assert base.proto.SerializeToString(deterministic=True) == before


@every_format
def test_int8_computes_in_integers_only(int8_files: Files, file_format: str) -> None:
    """No layer stays in float that was not named."""
    assert float_layers(int8_files[file_format], INT8[file_format]) == ()


@every_format
def test_float_layers_are_nodes_of_the_float32_graph(files: Files, calibration: Calibration, file_format: str) -> None:
    """A node that the quantizer adds, such as the gate of a hard swish, is reported as the node it belongs to."""
    export_format = INT8[file_format]
    nodes = {node.name for node in onnx.load_from_string(files["onnx"]).graph.node}
    floats = float_layers(
        quantize(files[file_format], export_format, calibration, keep_float=["stem", "stage5"]), export_format
    )
    assert {name for layer in floats for name in layer.split(";")} <= nodes
    assert any(is_kept_in_float(layer, ["stem.act"]) for layer in floats)


def test_int8_tflite_takes_and_gives_integers(int8_files: Files) -> None:
    """Input and output of TFLite are int8."""
    interpreter = open_interpreter(int8_files["tflite"])
    for details in (interpreter.get_input_details(), interpreter.get_output_details()):
        assert [tensor["dtype"] for tensor in details] == [np.int8]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_onnx_can_be_read_by_old_runtimes(files: Files, calibration: Calibration, precision: str) -> None:
    """The file keeps format version, opset and metadata, needs no other domain, and takes and gives float32."""
    model = quantize(files["onnx"], ExportFormat("onnx", precision), calibration)
    check_onnx(model)
    before, after = onnx.load_from_string(files["onnx"]), onnx.load_from_string(model)
    assert after.ir_version == 8
    assert [(entry.domain, entry.version) for entry in after.opset_import] == [("", 17)]
    assert after.metadata_props == before.metadata_props
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output


def test_onnx_weights_are_symmetric_with_a_scale_per_channel_and_seven_bits(int8_files: Files) -> None:
    """A convolution's weights have zero points 0, and their pairs cannot overflow 16 bits."""
    graph = onnx.load_from_string(int8_files["onnx"]).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = stored["stem.conv.weight_quantized"]
    assert weights.dtype == np.int8
    assert np.abs(weights.astype(int)).reshape(8, -1).max(axis=1).tolist() == [64] * 8
    assert stored["stem.conv.weight_scale"].shape == (8,)
    assert not stored["stem.conv.weight_zero_point"].any()


@every_format
@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("stem", {"stem.conv", "stem.act"}),
        ("stage2.block1.project.conv", {"stage2.block1.project.conv"}),
        ("stage2.block1.se", {"stage2.block1.se.reduce", "stage2.block1.se.expand", "stage2.block1.se.mul"}),
        ("classifier", {"classifier.linear"}),
    ],
)
def test_named_layers_stay_in_float(
    files: Files, calibration: Calibration, file_format: str, keep: str, expected: set[str]
) -> None:
    """A layer's name keeps it in float, a place's name all below it, and nothing else."""
    export_format = INT8[file_format]
    model = quantize(files[file_format], export_format, calibration, keep_float=[keep])
    layers = float_layers(model, export_format)
    assert all(is_kept_in_float(layer, [keep]) for layer in layers)
    assert expected <= {part for layer in layers for part in layer.split(";")}
    run = RUN[file_format]
    images = calibration.images
    assert _error(run(files[file_format], images), run(model, images)) < LIMITS["int8"][0]


def test_float16_keeps_named_layers_in_float32(files: Files) -> None:
    """The weights of a named place stay float32, all others become float16."""
    model = quantize(files["onnx"], ExportFormat("onnx", "fp16"), keep_float=["stem"])
    types = {tensor.name: tensor.data_type for tensor in onnx.load_from_string(model).graph.initializer}
    assert types.pop("stem.conv.weight.float") == types.pop("stem.conv.bias.float") == onnx.TensorProto.FLOAT
    assert set(types.values()) == {onnx.TensorProto.FLOAT16}


@every_format
def test_an_unknown_layer_is_refused_with_the_nearest(files: Files, calibration: Calibration, file_format: str) -> None:
    """A misspelt name gets the names that look like it, and a part of a name is no name."""
    with pytest.raises(UsageError, match=r"'stem\.con'.*nearest: stem\.conv, "):
        quantize(files[file_format], INT8[file_format], calibration, keep_float=["stem.con"])


def test_names_end_where_a_place_ends() -> None:
    """``stage1.block1`` is not the start of ``stage1.block10``; of joined names one is enough."""
    assert is_kept_in_float("stage1.block1.conv", ["stage1.block1"])
    assert is_kept_in_float("a.conv;b.act", ["b"])
    assert is_kept_in_float("stem.conv/pad", ["stem.conv"])
    assert not is_kept_in_float("stage1.block10.conv", ["stage1.block1"])


def test_int8_needs_calibration(files: Files) -> None:
    """Without images there are no ranges."""
    with pytest.raises(UsageError, match="onnx-int8 needs images"):
        quantize(files["onnx"], INT8["onnx"])


def test_symmetric_integers_have_zero_points_of_zero(files: Files, calibration: Calibration) -> None:
    """For TensorRT, activations are signed, and every zero point of the file is 0."""
    model = quantize(files["onnx"], ExportFormat("onnx", "int8-tensorrt"), calibration)
    graph = onnx.load_from_string(model).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    points = [stored[node.input[2]] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(points) > 50
    assert {point.dtype for point in points} == {np.dtype(np.int8)}
    assert not any(point.any() for point in points)
    actual = run_onnx(model, calibration.images)
    assert _error(run_onnx(files["onnx"], calibration.images), actual) < LIMITS["int8"][0]


def test_symmetric_integers_are_for_onnx_int8() -> None:
    """Other formats have no such precision, which is refused and not ignored."""
    with pytest.raises(UsageError, match="tflite has no precision 'int8-tensorrt'; it has fp32, fp16, dynamic, int8"):
        ExportFormat("tflite", "int8-tensorrt")
    with pytest.raises(UsageError, match="onnx has no precision 'fp16-tensorrt'"):
        ExportFormat("onnx", "fp16-tensorrt")


def test_only_int8_files_are_asked_for_float_layers(files: Files) -> None:
    """Of the others all layers are float."""
    with pytest.raises(UsageError, match="onnx-fp16"):
        float_layers(files["onnx"], ExportFormat("onnx", "fp16"))


@every_format
@pytest.mark.parametrize("batch", [3, None])
def test_any_batch_is_calibrated(
    small_space: MobileNetV3, lively_weights: Make, calibration: Calibration, batch: int | None, file_format: str
) -> None:
    """Files that take three images at a time or any number are calibrated on eight."""
    model = build_onnx(small_space.smallest, lively_weights(small_space.smallest, 1), batch=batch)
    base = model if file_format == "onnx" else build_tflite(model)
    quantized = quantize(base, INT8[file_format], calibration)
    run = RUN[file_format]
    images = calibration.images[:6]
    assert _error(run(base, images), run(quantized, images)) < LIMITS["int8"][0]


@every_format
def test_images_of_another_size_are_refused(files: Files, file_format: str) -> None:
    """Calibration images must fit the model's input."""
    with pytest.raises(UsageError, match=r"\(N, 3, 24, 24\).*\(8, 3, 25, 25\)"):
        quantize(files[file_format], INT8[file_format], Calibration(_images(25)))


@every_format
@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("damage", [b"", b"no model at all", None])
def test_a_damaged_model_is_one_line(
    files: Files, calibration: Calibration, file_format: str, precision: str, damage: bytes | None
) -> None:
    """Bytes that are no model, or half of one, are refused on one line."""
    model = files[file_format][:500] if damage is None else damage
    with pytest.raises(ModelError) as caught:
        quantize(model, ExportFormat(file_format, precision), calibration)
    assert "\n" not in str(caught.value)


@every_format
def test_a_weight_that_float16_cannot_hold_is_named(
    small_space: MobileNetV3, lively_weights: Make, file_format: str
) -> None:
    """65504 is float16's largest number."""
    weights = lively_weights(small_space.smallest, 1)
    weights["classifier.linear.weight"] = weights["classifier.linear.weight"] * np.float32(1e6)
    model = build_onnx(small_space.smallest, weights)
    base = model if file_format == "onnx" else build_tflite(model)
    with pytest.raises(VerificationError, match=r"classifier\.linear\.weight.*float16"):
        quantize(base, ExportFormat(file_format, "fp16"))


@pytest.mark.parametrize("precision", ["fp16", "dynamic", "int8"])
def test_labels_stay_behind_a_tflite_file(files: Files, calibration: Calibration, precision: str) -> None:
    """Quantisation rewrites the file, and the labels come along."""
    labels = [f"digit {number}" for number in range(10)]
    model = quantize(build_tflite(files["onnx"], labels=labels), ExportFormat("tflite", precision), calibration)
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == labels
    assert run_tflite(model, calibration.images).shape == (8, 10)


@pytest.mark.parametrize("export_format", FEWER, ids=str)
def test_nothing_is_printed(
    files: Files, calibration: Calibration, export_format: ExportFormat, capfd: pytest.CaptureFixture[str]
) -> None:
    """The libraries' progress bars and greetings stay away, and leave no thread behind."""
    before = threading.active_count()
    quantize(files[export_format.format], export_format, calibration)
    assert capfd.readouterr() == ("", "")
    assert threading.active_count() == before


@every_format
def test_a_layer_that_is_always_zero_does_no_harm(
    small_space: MobileNetV3, lively_weights: Make, calibration: Calibration, file_format: str
) -> None:
    """A dead activation has no range of its own; runtimes refuse the scale that would follow."""
    weights = lively_weights(small_space.smallest, 1)
    weights["block0.depthwise.bn.weight"] = weights["block0.depthwise.bn.weight"] * 0
    weights["block0.depthwise.bn.bias"] = weights["block0.depthwise.bn.bias"] * 0 - 1
    model = build_onnx(small_space.smallest, weights)
    base = model if file_format == "onnx" else build_tflite(model)
    run = RUN[file_format]
    actual = run(quantize(base, INT8[file_format], calibration), calibration.images)
    assert _error(run(base, calibration.images), actual) < LIMITS["int8"][0]


@every_format
def test_keeping_the_layers_that_need_it_repairs_a_network(
    small_space: MobileNetV3, lively_weights: Make, calibration: Calibration, file_format: str
) -> None:
    """One channel a thousand times as large as the others spoils int8; in float, its block works again."""
    weights = lively_weights(small_space.smallest, 1)
    place = "stage2.block1"
    for name in ("expand.bn.weight", "expand.bn.bias"):
        weights[f"{place}.{name}"][0] *= 1000
    weights[f"{place}.depthwise.conv.weight"][0] /= 1000
    model = build_onnx(small_space.smallest, weights)
    base = model if file_format == "onnx" else build_tflite(model)
    export_format, run, images = INT8[file_format], RUN[file_format], calibration.images
    kept = [f"{place}.expand", f"{place}.depthwise"]
    spoilt = _error(run(base, images), run(quantize(base, export_format, calibration), images))
    repaired = _error(run(base, images), run(quantize(base, export_format, calibration, keep_float=kept), images))
    assert repaired < LIMITS["int8"][0] < spoilt


def test_dynamic_range_leaves_depthwise_convolutions_to_float16(files: Files) -> None:
    """Their weights are float16, all other convolutions' weights int8."""
    interpreter = open_interpreter(quantize(files["tflite"], ExportFormat("tflite", "dynamic")))
    types = {tensor["name"]: tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    weights = {name: kind for name, kind in types.items() if name.endswith("conv.weight")}
    assert {kind for name, kind in weights.items() if "depthwise" in name} == {np.float16}
    assert {kind for name, kind in weights.items() if "depthwise" not in name} == {np.int8}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_every_familys_networks_run_in_integers(space: SearchSpace, lively_weights: Make, seed: int) -> None:
    """Random architectures at odd and even resolutions become int8 whole, and stay near to float32."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    images = _images(architecture.resolution)
    model = build_onnx(architecture, lively_weights(architecture, seed))
    for file_format, base in (("onnx", model), ("tflite", build_tflite(model))):
        export_format, run = INT8[file_format], RUN[file_format]
        quantized = quantize(base, export_format, Calibration(images))
        assert float_layers(quantized, export_format) == ()
        # Deep networks of random weights amplify any difference.
        assert _error(run(base, images), run(quantized, images)) < 0.5


def _int8_logits(model: bytes, images: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    quantized = quantize(model, INT8["onnx"], Calibration(images, "minmax"))
    return run_onnx(quantized, images), float_layers(quantized, INT8["onnx"])


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("HardSigmoid", "x -> y", {"alpha": 0.25, "beta": 0.75})], lambda x: np.clip(0.25 * x + 0.75, 0, 1)),
        ([("HardSigmoid", "x -> y", {})], lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
        ([("HardSwish", "x -> y", {})], lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
        ([("ReduceMean", "x -> y", {"axes": [2, 3]})], lambda x: x.mean(axis=(2, 3), keepdims=True)),
        ([("ReduceMean", "x -> y", {"axes": [-1, -2]})], lambda x: x.mean(axis=(2, 3), keepdims=True)),
    ],
)
def test_operators_without_integer_kernels_are_written_with_others(
    small_graph: Graph, nodes: list[Any], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Hard sigmoid, hard swish and mean compute in integers, as exactly as their two or three steps of 8 bits allow."""
    images = np.linspace(-8, 8, 4 * 3 * 64, dtype=np.float32).reshape(4, 3, 8, 8)
    actual, floats = _int8_logits(small_graph((1, 3, 8, 8), *nodes), images)
    assert floats == ()
    wanted = expected(images)
    assert np.abs(actual - wanted).max() <= 0.03 * np.abs(wanted).max()


def test_int8_tflite_has_no_operator_that_xnnpack_lacks(
    int8_files: Files, operators_of: Callable[[bytes], list[str]]
) -> None:
    """A hard swish of 8 bits would end the part of the graph that XNNPACK runs; it is written as three operators."""
    operators = operators_of(int8_files["tflite"])
    assert not [operator for operator in operators if operator.startswith("HARD_SWISH")]
    assert operators[1:5] == [
        "CONV_2D stem.conv",
        "ADD stem.act/shifted",
        "MUL stem.act/sixfold",
        "MUL stem.act",
    ]


@pytest.mark.parametrize(("name", "size", "scale"), [("resnet8", 32, 255), ("vww96", 96, 1)])
def test_published_networks_are_no_farther_from_float_than_the_published_int8_files(
    name: str, size: int, scale: int, real_models: Path
) -> None:
    """MLPerf Tiny's float files in our int8 agree with themselves at least as well as its own int8 files do."""
    float_file, int8_file = (
        (real_models / f"mlperf_tiny_{name}_{kind}.tflite").read_bytes() for kind in ("float", "int8")
    )
    images = np.random.default_rng(0).random((32, 3, size, size), dtype=np.float32) * np.float32(scale)
    ours = quantize(float_file, INT8["tflite"], Calibration(images[:16]))
    expected = run_tflite(float_file, images[16:])
    assert float_layers(ours, INT8["tflite"]) == ()
    ours_error, theirs = (_error(expected, run_tflite(model, images[16:])) for model in (ours, int8_file))
    assert ours_error <= theirs
