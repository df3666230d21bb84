"""The ONNX writer against a plain PyTorch forward written here, and its refusals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from edgenas.errors import UsageError, VerificationError
from edgenas.export import build_onnx, check_onnx, random_weights, run_onnx
from edgenas.space import Architecture, MobileNetV3, Part, Stage
from edgenas.space.blocks.inverted_residual import InvertedResidual
from edgenas.space.blocks.plain import ConvPart

Weights = dict[str, np.ndarray]
Make = Callable[[Architecture, int], Weights]
_ACTIVATE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "hswish": functional.hardswish,
    "none": lambda values: values,
}


class _Reference:
    """The network in PyTorch's functions, batch norm unfolded."""

    def __init__(self, weights: Weights) -> None:
        self.weights = {name: torch.from_numpy(array) for name, array in weights.items()}

    def conv(self, name: str, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
        kernel = self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias")
        return functional.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2, groups=groups)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance, weight, bias = (
            self.weights[f"{name}.{tensor}"] for tensor in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, weight, bias, eps=1e-5)

    def block(self, place: str, part: InvertedResidual, x: torch.Tensor) -> torch.Tensor:
        y, activate = x, _ACTIVATE[part.activation]
        if part.expand:
            y = activate(self.norm(f"{place}.expand.bn", self.conv(f"{place}.expand.conv", y)))
        y = self.conv(f"{place}.depthwise.conv", y, part.stride, part.mid_channels)
        y = activate(self.norm(f"{place}.depthwise.bn", y))
        if part.se_channels:
            gate = functional.relu(self.conv(f"{place}.se.reduce", y.mean((2, 3), keepdim=True)))
            y = y * functional.hardsigmoid(self.conv(f"{place}.se.expand", gate))
        y = self.norm(f"{place}.project.bn", self.conv(f"{place}.project.conv", y))
        return x + y if part.shortcut else y

    def part(self, place: str, part: Part, x: torch.Tensor) -> torch.Tensor:
        if isinstance(part, InvertedResidual):
            return self.block(place, part, x)
        if part.operator == "pool":
            return x.mean((2, 3), keepdim=True)
        if part.operator == "linear":
            return functional.linear(
                x.flatten(1), self.weights[f"{place}.linear.weight"], self.weights[f"{place}.linear.bias"]
            )
        assert isinstance(part, ConvPart)
        y = self.conv(f"{place}.conv", x, part.stride)
        return _ACTIVATE[part.activation](self.norm(f"{place}.bn", y) if part.batch_norm else y)


def _reference_logits(architecture: Architecture, weights: Weights, images: np.ndarray) -> np.ndarray:
    reference, x = _Reference(weights), torch.from_numpy(images)
    with torch.no_grad():
        for place, part in architecture.parts.items():
            x = reference.part(place, part, x)
    return x.numpy()


def _assert_equal_to_reference(architecture: Architecture, weights: Weights) -> None:
    size = architecture.resolution
    images = np.random.default_rng(5).standard_normal((2, 3, size, size), dtype=np.float32)
    model = build_onnx(architecture, weights)
    check_onnx(model)
    expected, actual = _reference_logits(architecture, weights, images), run_onnx(model, images)
    assert np.abs(expected - actual).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize("seed", range(8))
def test_logits_equal_those_of_plain_pytorch(small_space: MobileNetV3, lively_weights: Make, seed: int) -> None:
    """A random architecture's file passes the checker and gives the logits of a forward pass written by hand."""
    (architecture,) = small_space.decode(small_space.sample(1, np.random.default_rng(seed)))
    _assert_equal_to_reference(architecture, lively_weights(architecture, seed))


def test_logits_of_a_full_size_network_equal_those_of_plain_pytorch(lively_weights: Make) -> None:
    """Width 1.0 at 128 pixels agrees as well."""
    architecture = MobileNetV3().smallest
    _assert_equal_to_reference(architecture, lively_weights(architecture, 0))


def test_stages_of_ones_own_agree_too(lively_weights: Make) -> None:
    """A space with its own stages and an unstrided stem gives the logits of the forward pass written by hand."""
    stages = (Stage(16, 1, "relu", True, (1, 2)), Stage(24, 2, "hswish", False, (1,)))
    space = MobileNetV3(resolutions=(9,), classes=4, stem_stride=1, stages=stages, head=(32, 40))
    _assert_equal_to_reference(space.largest, lively_weights(space.largest, 1))


def test_equal_arguments_give_equal_bytes(small_space: MobileNetV3) -> None:
    """Two exports of one network are the same file, in any order of its weights."""
    architecture = small_space.largest
    weights = random_weights(architecture, seed=2)
    shuffled = dict(reversed(weights.items()))
    assert build_onnx(architecture, weights) == build_onnx(architecture, shuffled)


def test_the_file_says_what_it_is(small_space: MobileNetV3) -> None:
    """Input, output, operator set, format version and the architecture's id stand in the file."""
    architecture = small_space.smallest
    model = onnx.load_model_from_string(build_onnx(architecture, random_weights(architecture)))
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"input": [1, 3, 24, 24], "logits": [1, 10]}
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"edgenas.architecture": architecture.id}


def test_names_are_unique(small_space: MobileNetV3) -> None:
    """No two nodes and no two tensors share a name."""
    architecture = small_space.largest
    graph = onnx.load_model_from_string(build_onnx(architecture, random_weights(architecture))).graph
    nodes = [node.name for node in graph.node]
    tensors = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    assert len(set(nodes)) == len(nodes)
    assert len(set(tensors)) == len(tensors)


def _refuse(space: MobileNetV3, error: type[Exception], change: Callable[[Weights], object]) -> str:
    weights = random_weights(space.smallest)
    change(weights)
    with pytest.raises(error) as caught:
        build_onnx(space.smallest, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_tensor_is_named_with_its_shape(small_space: MobileNetV3) -> None:
    """A tensor that is not there is refused by name."""
    message = _refuse(small_space, UsageError, lambda weights: weights.pop("stem.bn.running_var"))
    assert "'stem.bn.running_var'" in message
    assert "(8,)" in message


def test_an_extra_tensor_is_named_with_the_nearest_known(small_space: MobileNetV3) -> None:
    """A tensor of no part is refused, and the likely one is suggested."""
    extra = {"stem.bn.runing_var": np.ones(8, np.float32)}
    message = _refuse(small_space, UsageError, lambda weights: weights.update(extra))
    assert "'stem.bn.runing_var'" in message
    assert "did you mean 'stem.bn.running_var'" in message


def test_a_tensor_of_another_place_is_refused(small_space: MobileNetV3) -> None:
    """A tensor of a block that the architecture has not is refused by name."""
    extra = {"stage1.block4.expand.bn.bias": np.ones(8, np.float32)}
    assert "'stage1.block4.expand.bn.bias'" in _refuse(small_space, UsageError, lambda weights: weights.update(extra))


def test_a_misshapen_tensor_is_named_with_both_shapes(small_space: MobileNetV3) -> None:
    """A tensor of another shape is refused with both shapes."""
    wrong = {"stem.conv.weight": np.ones((8, 1, 3, 3), np.float32)}
    message = _refuse(small_space, UsageError, lambda weights: weights.update(wrong))
    assert "(8, 3, 3, 3)" in message
    assert "(8, 1, 3, 3)" in message


def test_a_tensor_of_integers_is_refused(small_space: MobileNetV3) -> None:
    """Weights are floats."""
    wrong = {"stem.bn.bias": np.ones(8, np.int64)}
    assert "int64" in _refuse(small_space, UsageError, lambda weights: weights.update(wrong))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_tensor_that_is_not_finite_is_named(small_space: MobileNetV3, value: float) -> None:
    """NaN and infinity are refused with the tensor's name."""
    wrong = {"stem.bn.bias": np.full(8, value, np.float32)}
    assert "'stem.bn.bias'" in _refuse(small_space, VerificationError, lambda weights: weights.update(wrong))


def test_a_negative_variance_is_named(small_space: MobileNetV3) -> None:
    """A batch norm's variance cannot be negative."""
    wrong = {"stem.bn.running_var": np.full(8, -1, np.float32)}
    assert "'stem.bn.running_var'" in _refuse(small_space, VerificationError, lambda weights: weights.update(wrong))


def test_an_overflow_of_folding_is_named(small_space: MobileNetV3) -> None:
    """Finite weights whose product is not finite are refused."""
    huge = {"stem.bn.weight": np.full(8, 3e38, np.float32), "stem.conv.weight": np.full((8, 3, 3, 3), 3e38, np.float32)}
    assert "'stem.conv.weight'" in _refuse(small_space, VerificationError, lambda weights: weights.update(huge))


def test_random_weights_depend_on_the_seed_alone(small_space: MobileNetV3) -> None:
    """One seed, one set of weights; another seed, another."""
    architecture = small_space.smallest
    first, again, other = (random_weights(architecture, seed)["stem.conv.weight"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_random_weights_give_ordinary_numbers(small_space: MobileNetV3, which: str) -> None:
    """The logits of random weights are neither infinite nor so small that arithmetic slows down."""
    architecture: Architecture = getattr(small_space, which)
    size = architecture.resolution
    images = np.random.default_rng(0).standard_normal((4, 3, size, size), dtype=np.float32)
    logits = run_onnx(build_onnx(architecture, random_weights(architecture)), images)
    assert 1e-4 < np.abs(logits).mean() < 1e4
