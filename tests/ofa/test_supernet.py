"""The supernet and its extracted subnets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from edgenas.errors import SpaceError
from edgenas.ofa import Subnet, Supernet
from edgenas.space import Architecture, MobileNetV3, SearchSpace
from edgenas.space.parts import weight_shapes

Lively = Callable[[SearchSpace], Supernet]


def _sampled(space: SearchSpace, count: int) -> list[Architecture]:
    """The smallest, the largest, and random ones."""
    return space.decode(space.sample_distinct(count, np.random.default_rng(5)))


def _images(architecture: Architecture) -> torch.Tensor:
    size = architecture.resolution
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to the largest logit where that is above 1."""
    return float((one - other).abs().max() / max(1.0, float(one.abs().max())))


@pytest.mark.parametrize(("name", "count"), [("tiny", 40), ("published", 25)])
def test_a_subnet_computes_what_the_supernet_computes(
    name: str, count: int, lively: Lively, request: pytest.FixtureRequest
) -> None:
    """``supernet(x, arch)`` and ``supernet.extract(arch)(x)`` agree to 1e-5 in eval mode."""
    space = request.getfixturevalue(name)
    supernet = lively(space)
    with torch.no_grad():
        for architecture in _sampled(space, count):
            x = _images(architecture)
            assert _apart(supernet(x, architecture), supernet.extract(architecture)(x)) < 1e-5, architecture


def test_architectures_differ_in_their_output(tiny: MobileNetV3, lively: Lively) -> None:
    """Different architectures of equal resolution give different logits: every choice reaches the output."""
    supernet = lively(tiny)
    architectures = {each.at_resolution(8) for each in _sampled(tiny, 30)}
    with torch.no_grad():
        logits = [supernet(_images(each), each) for each in architectures]
    assert len({tuple(each.flatten().tolist()) for each in logits}) == len(architectures)


def test_a_subnets_tensors_are_those_of_its_parts(tiny: MobileNetV3, lively: Lively) -> None:
    """Names and shapes of a subnet's weights are those that its parts list, and no others."""
    supernet = lively(tiny)
    for architecture in _sampled(tiny, 10):
        expected = {
            f"{place}.{name}": shape
            for place, part in architecture.parts.items()
            for name, shape in weight_shapes(part).items()
        }
        shapes = {name: array.shape for name, array in supernet.extract(architecture).weights().items()}
        assert shapes == expected


def test_a_subnet_holds_nothing_elastic(tiny: MobileNetV3) -> None:
    """Below the subnet itself there are only its own plain blocks and PyTorch's modules, and no kernel matrix."""
    subnet = Supernet(tiny).extract(tiny.largest)
    modules = {type(module).__module__ for module in subnet.modules()}
    assert {name for name in modules if name.startswith("edgenas")} == {"edgenas.ofa.subnet"}
    assert not [name for name, _ in subnet.named_parameters() if name.endswith("_matrix")]


def test_a_subnet_owns_its_weights(tiny: MobileNetV3) -> None:
    """Changing an extracted subnet does not change the supernet."""
    supernet = Supernet(tiny)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    subnet = supernet.extract(tiny.largest)
    with torch.no_grad():
        for tensor in subnet.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_a_subnet_refuses_incomplete_weights(tiny: MobileNetV3) -> None:
    """A missing tensor is an error, not a default."""
    weights = Supernet(tiny).extract(tiny.smallest).state_dict()
    del weights["stem.bn.running_mean"]
    with pytest.raises(RuntimeError, match=r"stem\.bn\.running_mean"):
        Subnet(tiny.smallest).load_weights(weights)


def _active(layer: str, parameter: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Mask of the numbers that a subnet with a tensor of this shape uses: leading, or the centre of a kernel."""
    mask = torch.zeros_like(parameter, dtype=torch.bool)
    if layer == "depthwise.conv.weight":
        margin = (parameter.shape[2] - shape[2]) // 2
        mask[: shape[0], :, margin : margin + shape[2], margin : margin + shape[3]] = True
    else:
        mask[tuple(slice(size) for size in shape)] = True
    return mask


def test_gradients_reach_the_active_numbers_only(tiny: MobileNetV3, lively: Lively) -> None:
    """Of the tensors of a subnet every active slice gets a gradient, the rest of them none."""
    supernet = lively(tiny).train()
    supernet(_images(tiny.smallest), tiny.smallest).square().sum().backward()
    parameters = dict(supernet.named_parameters())
    for place, part in tiny.smallest.parts.items():
        for name, shape in weight_shapes(part).items():
            parameter = parameters.get(f"{place}.{name}")
            if parameter is None:
                continue  # a running statistic
            assert parameter.grad is not None, f"{place}.{name}"
            active = _active(name, parameter, shape)
            assert parameter.grad[active].any(), f"{place}.{name}"
            assert not parameter.grad[~active].any(), f"{place}.{name}"


def test_blocks_past_the_depth_get_no_gradient(tiny: MobileNetV3, lively: Lively) -> None:
    """A skipped block is not run: its gradients stay None."""
    supernet = lively(tiny).train()
    supernet(_images(tiny.smallest), tiny.smallest).sum().backward()
    skipped = set(tiny.largest.parts) - set(tiny.smallest.parts)
    assert skipped
    for place in skipped:
        assert all(parameter.grad is None for parameter in supernet.get_submodule(place).parameters())


def test_kernel_matrices_learn_from_small_kernels_only(tiny: MobileNetV3, lively: Lively) -> None:
    """The matrix of a block gets a gradient with kernel 3 and none with kernel 7."""
    supernet = lively(tiny).train()
    name = "stage1.block1.transform.7to3_matrix"
    supernet(_images(tiny.largest), tiny.largest).sum().backward()
    assert supernet.get_parameter(name).grad is None
    supernet(_images(tiny.smallest), tiny.smallest).square().sum().backward()
    gradient = supernet.get_parameter(name).grad
    assert gradient is not None
    assert gradient.any()


def test_a_forward_pass_leaves_no_trace(tiny: MobileNetV3, lively: Lively) -> None:
    """In eval mode the output of one architecture does not depend on which ran before it."""
    supernet = lively(tiny)
    x = _images(tiny.smallest)
    with torch.no_grad():
        first = supernet(x, tiny.smallest)
        supernet(_images(tiny.largest), tiny.largest)
        assert torch.equal(supernet(x, tiny.smallest), first)


def test_initial_weights_follow_from_the_seed(tiny: MobileNetV3) -> None:
    """Equal seeds give equal weights, other seeds others, and the global generator is left alone."""
    state = torch.get_rng_state()
    one, same, other = (torch.cat([p.flatten() for p in Supernet(tiny, seed).parameters()]) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    Supernet(tiny).extract(tiny.smallest)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_fresh_residual_block_is_the_identity(tiny: MobileNetV3) -> None:
    """Blocks with a shortcut begin as the identity, so that deep networks train as easily as shallow ones."""
    supernet = Supernet(tiny).eval()
    part = tiny.largest.parts["stage1.block2"]
    x = torch.randn(1, *part.in_shape)
    assert torch.equal(supernet.get_submodule("stage1.block2")(x, part), x)


def test_an_architecture_of_another_space_is_refused(tiny: MobileNetV3, published: MobileNetV3) -> None:
    """Neither forward nor extract takes an architecture of another space."""
    supernet = Supernet(tiny)
    with pytest.raises(SpaceError, match="another space"):
        supernet(_images(published.smallest), published.smallest)
    with pytest.raises(SpaceError, match="another space"):
        supernet.extract(published.smallest)


def test_the_subnet_is_in_eval_mode(tiny: MobileNetV3) -> None:
    """An extracted subnet is ready to infer, whatever mode the supernet is in."""
    subnet: nn.Module = Supernet(tiny).train().extract(tiny.smallest)
    assert not any(module.training for module in subnet.modules())
