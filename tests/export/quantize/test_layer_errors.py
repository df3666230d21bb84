"""The error of each layer of a quantized file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from edgenas.errors import ModelError, UsageError
from edgenas.export import build_onnx
from edgenas.export.quantize.calibration import Calibration
from edgenas.export.tflite.writer import build_tflite
from edgenas.runtimes import ExportFormat
from edgenas.runtimes.building import layer_errors, quantize
from edgenas.space import Architecture, MobileNetV3

Make = Callable[[Architecture, int], dict[str, np.ndarray]]
Graph = Callable[..., bytes]
FP16 = ExportFormat("onnx", "fp16")
IMAGES = np.random.default_rng(5).standard_normal((4, 3, 24, 24), dtype=np.float32)


@pytest.fixture(scope="module")
def files(small_space: MobileNetV3, lively_weights: Make) -> dict[str, bytes]:
    """A network in which one channel of one layer is a thousand times as large as the others."""
    weights = lively_weights(small_space.smallest, 1)
    for name in ("expand.bn.weight", "expand.bn.bias"):
        weights[f"stage2.block1.{name}"][0] *= 1000
    weights["stage2.block1.depthwise.conv.weight"][0] /= 1000
    model = build_onnx(small_space.smallest, weights)
    return {"onnx": model, "tflite": build_tflite(model)}


def _scaled(small_graph: Graph, factor: float) -> bytes:
    nodes: list[tuple[str, str, dict[str, float]]] = [
        ("Mul", "x a -> scaled", {}),
        ("Mul", "scaled b -> y", {}),
        ("Relu", "y -> z", {}),
    ]
    return small_graph((1, 3, 2, 2), *nodes, a=np.float32(factor), b=np.float32(3))


def test_errors_by_hand(small_graph: Graph) -> None:
    """A layer a tenth too large differs by 0.1 and adds it; the next ones pass that on and add nothing."""
    images = np.full((2, 3, 2, 2), 5, np.float32)
    first, *others = layer_errors(_scaled(small_graph, 2.0), _scaled(small_graph, 2.2), FP16, images)
    assert first.layer == "scaled_node"
    assert (first.relative_error, first.added_error) == pytest.approx((0.1, 0.1), rel=1e-5)
    assert [each.layer for each in others] == ["y_node", "z_node"]
    for each in others:
        assert each.relative_error == pytest.approx(0.1, rel=1e-5)
        assert each.added_error == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_the_layer_that_spoils_a_network_comes_first(files: dict[str, bytes], file_format: str) -> None:
    """The wide layer or the one that reads it adds the largest error."""
    export_format = ExportFormat(file_format, "int8")
    base = files[file_format]
    errors = layer_errors(base, quantize(base, export_format, Calibration(IMAGES)), export_format, IMAGES)
    assert errors[0].layer.startswith("stage2.block1.")
    assert errors[0].added_error > 0.3
    assert len(errors) > 40
    assert list(errors) == sorted(errors, key=lambda each: -each.added_error)
    assert len({each.layer for each in errors}) == len(errors)
    nodes = {node.name for node in onnx.load_model_from_string(files["onnx"]).graph.node}
    assert {each.layer for each in errors} <= nodes


@pytest.mark.parametrize(
    "export_format", [FP16, ExportFormat("tflite", "fp16"), ExportFormat("tflite", "dynamic")], ids=str
)
def test_every_precision_has_a_report(files: dict[str, bytes], export_format: ExportFormat) -> None:
    """Errors of float16 are below a hundredth, those of dynamic range are larger."""
    base = files[export_format.format]
    errors = layer_errors(base, quantize(base, export_format), export_format, IMAGES)
    assert len(errors) > 40
    largest = max(each.relative_error for each in errors)
    assert 0 < largest < 0.01 if export_format.precision == "fp16" else largest > 0.01


def test_float32_has_no_report(files: dict[str, bytes]) -> None:
    """There is nothing to compare a float32 file with."""
    with pytest.raises(UsageError, match="float32"):
        layer_errors(files["onnx"], files["onnx"], ExportFormat(), IMAGES)


@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_images_and_models_are_checked(files: dict[str, bytes], file_format: str) -> None:
    """Images of another size and damaged models are refused."""
    export_format = ExportFormat(file_format, "int8")
    with pytest.raises(UsageError, match=r"\(N, 3, 24, 24\)"):
        layer_errors(files[file_format], files[file_format], export_format, IMAGES[:, :, 1:, 1:])
    with pytest.raises(ModelError):
        layer_errors(files[file_format], b"no model", export_format, IMAGES)
