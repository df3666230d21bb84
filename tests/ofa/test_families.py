"""Supernets and subnets of every family: equal outputs, the costs of the space, gradients of active weights only."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgenas.data import DataSet
from edgenas.ofa import Phase, Schedule, Supernet, Trainer, TrainingFiles
from edgenas.ofa.layers import ElasticBlock
from edgenas.ofa.subnet import Subnet
from edgenas.space import Architecture, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace, Stage
from edgenas.space.blocks.bottleneck import Bottleneck
from edgenas.space.parts import weight_shapes

Lively = Callable[[SearchSpace], Supernet]

SPACES: dict[str, SearchSpace] = {
    "mobilenet_v3": MobileNetV3(width=0.35, resolutions=(31, 33), classes=10),
    "proxyless": ProxylessNAS(width=0.35, resolutions=(32, 45), classes=10),
    "own proxyless": ProxylessNAS(
        width=0.5,
        resolutions=(7, 8),
        classes=10,
        kernel_sizes=(3, 7),
        expand_ratios=(3, 4),
        depths=(1, 2),
        stem=16,
        stem_stride=1,
        stages=(Stage(32, 2, "relu6", False), Stage(32, 1, "relu6", True, depths=(1, 3))),
        first=32,
        head=64,
    ),
    "resnet50d": ResNet50D(resolutions=(1, 33, 64), classes=10, width_mults=(0.1, 0.15, 0.3)),
    "own resnet50d": ResNet50D(
        resolutions=(8, 19), classes=10, depths=(0, 1), expand_ratios=(0.25, 1.5), width_mults=(0.03, 0.05, 0.1)
    ),
}
every_space = pytest.mark.parametrize("name", SPACES)
trainable = pytest.mark.parametrize("name", ["own proxyless", "own resnet50d"])


@pytest.fixture(scope="module")
def supernets(lively: Lively) -> Callable[[str], Supernet]:
    """The supernet of a space above in eval mode, made once, with logits of ordinary size."""
    made: dict[str, Supernet] = {}

    def get(name: str) -> Supernet:
        if name not in made:
            made[name] = lively(SPACES[name])
            with torch.no_grad():
                made[name].get_parameter("classifier.linear.weight").mul_(30)
        return made[name]

    return get


Get = Callable[[str], Supernet]


def _sampled(space: SearchSpace, count: int) -> list[Architecture]:
    """The smallest, the largest, and random ones."""
    return space.decode(space.sample_distinct(count, np.random.default_rng(5)))


def _images(architecture: Architecture, count: int = 2) -> Tensor:
    size = architecture.resolution
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def _counted_macs(subnet: nn.Module, x: Tensor) -> int:
    """Multiply-accumulates by watching the module run: per layer its weights times the positions of its output."""
    counts: list[int] = []

    def count(module: nn.Module, _: object, out: Tensor) -> None:
        weight = module.get_parameter("weight")
        counts.append(weight.numel() * math.prod(out.shape[2:]))

    layers = [module for module in subnet.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        subnet(x)
    for hook in hooks:
        hook.remove()
    assert len(counts) == len(layers)
    return sum(counts)


# -- one function, and its costs -----------------------------------------------------------------


@every_space
def test_a_subnet_computes_what_the_supernet_computes(name: str, supernets: Get) -> None:
    """``supernet(x, arch)`` and ``supernet.extract(arch)(x)`` agree to 1e-5 in eval mode."""
    supernet = supernets(name)
    with torch.no_grad():
        for architecture in _sampled(SPACES[name], 12):
            x = _images(architecture)
            logits = supernet(x, architecture)
            apart = (logits - supernet.extract(architecture)(x)).abs().max()
            assert float(apart) <= 1e-5 * max(1.0, float(logits.abs().max())), architecture


@every_space
def test_every_choice_reaches_the_output(name: str, supernets: Get) -> None:
    """Different architectures of equal resolution give different logits for the same image."""
    resolution = SPACES[name].resolutions[-1]
    architectures = {each.at_resolution(resolution) for each in _sampled(SPACES[name], 10)}
    supernet, found = supernets(name), set()
    with torch.no_grad():
        for each in architectures:
            found.add(tuple(supernet(_images(each), each).flatten().tolist()))
    assert len(found) == len(architectures)


@every_space
def test_module_has_the_parameters_and_macs_of_its_space(name: str, supernets: Get) -> None:
    """Counted on the PyTorch module, parameters and multiplications are those that the genes predict."""
    space, supernet = SPACES[name], supernets(name)
    architectures = _sampled(space, 12)
    subnets = [supernet.extract(each) for each in architectures]
    counted = [_counted_macs(subnet, _images(each, 1)) for subnet, each in zip(subnets, architectures, strict=True)]
    genes = space.encode(architectures)
    assert space.params(genes).tolist() == [sum(p.numel() for p in subnet.parameters()) for subnet in subnets]
    assert space.macs(genes).tolist() == counted


@pytest.mark.parametrize("space", [MobileNetV3(), ProxylessNAS(), ResNet50D()])
def test_published_networks_have_the_parameters_of_their_space(space: SearchSpace) -> None:
    """The smallest and the largest network of each published space have the predicted number of parameters."""
    for architecture in (space.smallest, space.largest):
        with torch.device("meta"):
            subnet = Subnet(architecture)
        assert space.params(space.encode([architecture])) == [sum(p.numel() for p in subnet.parameters())]


@every_space
def test_a_subnets_tensors_are_those_of_its_parts(name: str, supernets: Get) -> None:
    """Names and shapes of a subnet's weights are those that its parts list, and no others."""
    for architecture in _sampled(SPACES[name], 5):
        expected = {
            f"{place}.{tensor}": shape
            for place, part in architecture.parts.items()
            for tensor, shape in weight_shapes(part).items()
        }
        found = supernets(name).extract(architecture).weights()
        assert {tensor: array.shape for tensor, array in found.items()} == expected


@pytest.mark.parametrize("name", ["resnet50d", "own proxyless"])
def test_a_subnet_can_be_exported_by_torch(name: str, supernets: Get) -> None:
    """torch.export takes a subnet, and its program gives the same logits."""
    architecture = _sampled(SPACES[name], 3)[2].at_resolution(SPACES[name].resolutions[1])
    subnet, x = supernets(name).extract(architecture), _images(architecture)
    program = torch.export.export(subnet, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(program(x), subnet(x), rtol=1e-5, atol=1e-5)


# -- the bottleneck by hand ----------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stride", "projected"), [(5, 1, False), (5, 1, True), (5, 2, True), (4, 2, True)])
def test_bottleneck_by_pytorchs_functions(size: int, stride: int, projected: bool) -> None:
    """Three convolutions with the stride in the second, plus the input, pooled to rounded-up size and projected."""
    part = Bottleneck(
        (4, size, size),
        6 if projected else 4,
        3,
        stride,
        "relu",
        mid_channels=3,
        shortcut=True,
        projected=projected,
    )
    layer = ElasticBlock((part,)).eval()
    x = torch.randn(2, 4, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # A fresh batch norm in eval mode only divides by sqrt(1 + 1e-5).
        weights = {name: p / math.sqrt(1 + 1e-5) for name, p in layer.named_parameters() if p.dim() == 4}
        y = functional.conv2d(x, weights["reduce.conv.weight"]).clamp(min=0)
        y = functional.conv2d(y, weights["filter.conv.weight"], stride=stride, padding=1).clamp(min=0)
        y = functional.conv2d(y, weights["project.conv.weight"])
        side = x if stride == 1 else _mean_of_what_is_there(x)
        side = functional.conv2d(side, weights["shortcut.conv.weight"]) if projected else side
        torch.testing.assert_close(layer(x, part), (y + side).clamp(min=0), rtol=1e-5, atol=1e-5)


def _mean_of_what_is_there(x: Tensor) -> Tensor:
    """Return means of 2x2 pixels; at an odd edge, of fewer pixels."""
    steps = range(0, x.shape[2], 2)
    rows = [torch.stack([x[:, :, i : i + 2, j : j + 2].mean((2, 3)) for j in steps], dim=-1) for i in steps]
    return torch.stack(rows, dim=-2)


# -- training ------------------------------------------------------------------------------------


def _active(layer: str, parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Mask of the numbers that a subnet with a tensor of this shape uses: leading, or the centre of a kernel."""
    mask = torch.zeros_like(parameter, dtype=torch.bool)
    if layer == "depthwise.conv.weight":
        margin = (parameter.shape[2] - shape[2]) // 2
        mask[: shape[0], :, margin : margin + shape[2], margin : margin + shape[3]] = True
    else:
        mask[tuple(slice(size) for size in shape)] = True
    return mask


def _masks(supernet: Supernet, architecture: Architecture) -> dict[str, Tensor]:
    """For each parameter that the architecture uses which of its numbers, kernel matrices left out."""
    parameters = dict(supernet.named_parameters())
    return {
        f"{place}.{name}": _active(name, parameters[f"{place}.{name}"], shape)
        for place, part in architecture.parts.items()
        for name, shape in weight_shapes(part).items()
        if f"{place}.{name}" in parameters
    }


@trainable
def test_a_step_on_digits_moves_the_active_numbers_only(name: str, lively: Lively, digits: DataSet) -> None:
    """One step of SGD with one subnet changes every slice that it uses, leaves the rest bit for bit, makes no NaN."""
    space, supernet = SPACES[name], lively(SPACES[name]).train()
    architecture = space.smallest
    images = digits.to_augmented_inputs(digits.train.images[:32], architecture.image_size, np.random.default_rng(0))
    before = {key: tensor.clone() for key, tensor in supernet.state_dict().items()}
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.01)
    logits = supernet(images, architecture)
    functional.cross_entropy(logits, torch.from_numpy(digits.train.labels[:32])).backward()
    optimizer.step()
    assert all(torch.isfinite(tensor).all() for tensor in supernet.state_dict().values())
    masks = _masks(supernet, architecture)
    for key, parameter in supernet.named_parameters():
        if key.endswith("_matrix"):
            continue
        changed = parameter.detach() != before[key]
        active = masks.get(key, torch.zeros_like(changed))
        # A shift before a 1x1 convolution with batch norm has no effect in training, hence no gradient to speak of.
        shift = name == "own proxyless" and key.endswith("project.bn.bias")
        assert shift or changed[active].any() == bool(active.any()), key
        assert not changed[~active].any(), key


@trainable
def test_gradients_of_random_subnets_stay_in_their_slices(name: str, lively: Lively) -> None:
    """Whatever the architecture, gradients lie within its slices, and skipped places have none."""
    supernet = lively(SPACES[name]).train()
    for architecture in _sampled(SPACES[name], 6)[1:]:
        supernet.zero_grad(set_to_none=True)
        supernet(_images(architecture, 4), architecture).square().sum().backward()
        masks = _masks(supernet, architecture)
        for key, parameter in supernet.named_parameters():
            if key in masks:
                assert parameter.grad is not None, key
                assert parameter.grad.isfinite().all(), key
                assert not parameter.grad[~masks[key]].any(), key
            elif not key.endswith("_matrix"):
                assert parameter.grad is None, key


@trainable
def test_every_phase_trains_on_digits(name: str, digits: DataSet, tmp_path: Path) -> None:
    """A phase of the largest network and one of random subnets with distillation end with finite weights."""
    phases = (Phase("full", 1, 0.05, distill=False), Phase("all", 1, 0.02, 2, 2, 2, subnets=2))
    schedule = Schedule("two steps", phases, batch_size=512)
    files = TrainingFiles(tmp_path / "checkpoint", tmp_path / "teacher")
    losses: list[float] = []
    supernet = Trainer(SPACES[name], digits, schedule, 0, files).run(lambda step: losses.append(step.loss))
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    assert all(torch.isfinite(tensor).all() for tensor in supernet.state_dict().values())


@trainable
def test_training_can_lower_the_loss(name: str, digits: DataSet) -> None:
    """Ten steps with one batch make the largest network fit it better."""
    supernet = Supernet(SPACES[name]).train()
    architecture = SPACES[name].largest
    images = digits.to_augmented_inputs(digits.train.images[:64], architecture.image_size, np.random.default_rng(0))
    labels = torch.from_numpy(digits.train.labels[:64])
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.2, momentum=0.9)
    losses = []
    for _ in range(10):
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(supernet(images, architecture), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
