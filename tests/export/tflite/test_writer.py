"""TFLite of whole networks, for every family: the numbers of onnxruntime and of PyTorch, names, batches, speed."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgenas.errors import MissingExtraError, UsageError, VerificationError
from edgenas.export import build_onnx, random_weights, run_onnx
from edgenas.export.tflite.file import schema
from edgenas.export.tflite.interpreter import run_tflite
from edgenas.export.tflite.writer import build_tflite
from edgenas.space import Architecture, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace

Weights = dict[str, np.ndarray]
Make = Callable[[Architecture, int], Weights]
Torch = Callable[[Architecture, Weights, np.ndarray], np.ndarray]
Operators = Callable[[bytes], list[str]]

pytestmark = pytest.mark.usefixtures("one_thread")


def _assert_close(expected: np.ndarray, actual: np.ndarray) -> None:
    """At most 1e-4 of the largest logit or of 1 apart; in truth far less."""
    assert np.isfinite(expected).all()
    assert expected.shape == actual.shape
    assert np.abs(expected - actual).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


def _images(architecture: Architecture, number: int) -> np.ndarray:
    size = architecture.resolution
    return np.random.default_rng(5).standard_normal((number, 3, size, size), dtype=np.float32)


def _assert_same_logits(architecture: Architecture, weights: Weights, torch_logits: Torch) -> None:
    images = _images(architecture, 2)
    expected = torch_logits(architecture, weights, images)
    model = build_onnx(architecture, weights)
    actual = run_tflite(build_tflite(model), images)
    _assert_close(expected, actual)
    _assert_close(run_onnx(model, images), actual)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_file_module_and_onnx_give_the_same_logits(
    space: SearchSpace, lively_weights: Make, torch_logits: Torch, seed: int
) -> None:
    """A random architecture's file gives the logits of its PyTorch module and of its ONNX file."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    _assert_same_logits(architecture, lively_weights(architecture, seed), torch_logits)


def test_they_agree_at_every_resolution(space: SearchSpace, lively_weights: Make, torch_logits: Torch) -> None:
    """Even and odd feature maps, down to a single pixel, are padded and pooled alike."""
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(3)))
    weights = lively_weights(architecture, 0)
    for resolution in space.resolutions:
        _assert_same_logits(architecture.at_resolution(resolution), weights, torch_logits)


@pytest.mark.parametrize(
    "space", [MobileNetV3(resolutions=(99,)), ProxylessNAS(resolutions=(99,)), ResNet50D(resolutions=(99,))]
)
def test_they_agree_at_full_width(space: SearchSpace, lively_weights: Make, torch_logits: Torch) -> None:
    """Networks of the published widths give ONNX's logits too."""
    _assert_same_logits(space.smallest, lively_weights(space.smallest, 0), torch_logits)


@pytest.mark.parametrize("batch", [1, 2, None])
def test_every_batch_gives_the_same_logits(space: SearchSpace, lively_weights: Make, batch: int | None) -> None:
    """A fixed batch, or an open one of any size, computes each image by itself."""
    architecture = space.smallest
    weights, images = lively_weights(architecture, 4), _images(architecture, 6)
    file = build_tflite(build_onnx(architecture, weights, batch=batch))
    actual = run_tflite(file, images)
    _assert_close(run_onnx(build_onnx(architecture, weights), images), actual)
    if batch is None:
        _assert_close(actual[:3], run_tflite(file, images[:3]))


@pytest.mark.parametrize(("batch", "shape"), [(1, [1, 24, 24, 3]), (4, [4, 24, 24, 3]), (None, [-1, 24, 24, 3])])
def test_input_and_output_have_the_names_of_onnx(small_space: MobileNetV3, batch: int | None, shape: list[int]) -> None:
    """(N, H, W, C) by the name ``input``, ``logits`` out, as tensors and as the file's signature; N may be open."""
    from ai_edge_litert.interpreter import Interpreter

    model = build_onnx(small_space.smallest, random_weights(small_space.smallest), batch=batch)
    interpreter = Interpreter(model_content=build_tflite(model))
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (entry["name"], entry["shape_signature"].tolist(), entry["dtype"]) == ("input", shape, np.float32)
    assert (result["name"], result["shape_signature"].tolist()) == ("logits", [shape[0], 10])
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["input"], "outputs": ["logits"]}}


def test_operators_bear_the_names_of_their_nodes(small_space: MobileNetV3, operators_of: Operators) -> None:
    """An operator that does the work of several nodes has all their names; parts and padding say whose they are."""
    import onnx

    architecture = small_space.largest
    model = build_onnx(architecture, random_weights(architecture))
    nodes = {node.name for node in onnx.load_model_from_string(model).graph.node}
    lines = operators_of(build_tflite(model))
    assert lines[1] == "CONV_2D stem.conv"
    assert "ADD stage1.block1.depthwise.conv;stage1.block1.depthwise.act" in lines
    assert "CONV_2D stage2.block1.se.expand;stage2.block1.se.gate" in lines
    written = {name.split("/")[0] for line in lines[:-1] for name in line.split(" ", 1)[1].split(";")}
    assert written == nodes - {line for line in nodes if line.endswith((".flatten", ".linear"))}


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_nothing_is_transposed_reshaped_or_scaled(
    small_space: MobileNetV3, operators_of: Operators, which: str
) -> None:
    """Operators that only move data are not there, and one MUL a squeeze-and-excite is all there are."""
    architecture: Architecture = getattr(small_space, which)
    kinds = [
        line.split()[0] for line in operators_of(build_tflite(build_onnx(architecture, random_weights(architecture))))
    ]
    assert not {"TRANSPOSE", "RESHAPE", "RELU", "RELU6"} & set(kinds)
    assert kinds.count("MUL") == sum(", SE" in part.what for part in architecture.parts.values())


def test_equal_models_give_equal_bytes(space: SearchSpace) -> None:
    """Two files of one model are the same."""
    model = build_onnx(space.smallest, random_weights(space.smallest))
    assert build_tflite(model) == build_tflite(model)


def test_weights_lie_at_multiples_of_16(small_space: MobileNetV3) -> None:
    """The schema wants it of every buffer, and vector instructions thank for it."""
    file = build_tflite(build_onnx(small_space.smallest, random_weights(small_space.smallest)))
    model = schema().Model.GetRootAs(file)
    data = [model.Buffers(number) for number in range(1, model.BuffersLength())]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in data]
    assert not [start for start in starts if start % 16]


def test_no_byte_of_weights_is_there_twice(small_space: MobileNetV3) -> None:
    """A file is its weights and a few hundred bytes for each operator."""
    model = build_onnx(small_space.largest, random_weights(small_space.largest))
    file = build_tflite(model)
    assert len(file) < len(model) * 1.1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(small_space: MobileNetV3, value: float) -> None:
    """A weight that was damaged in the ONNX file is refused."""
    import onnx

    model = onnx.load_model_from_string(build_onnx(small_space.smallest, random_weights(small_space.smallest)))
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "stem.conv.bias")
    bias.raw_data = np.full(list(bias.dims), value, np.float32).tobytes()
    with pytest.raises(VerificationError, match=r"'stem\.conv\.bias'"):
        build_tflite(model.SerializeToString())


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_below_one_is_refused(small_space: MobileNetV3, batch: int) -> None:
    """A file takes one image or more."""
    with pytest.raises(UsageError, match="batch"):
        build_onnx(small_space.smallest, random_weights(small_space.smallest), batch=batch)


def test_a_missing_schema_is_named_with_its_command(small_space: MobileNetV3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LiteRT the pip command is given."""
    schema.cache_clear()
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgenas\[litert\]'"):
        build_tflite(build_onnx(small_space.smallest, random_weights(small_space.smallest)))
