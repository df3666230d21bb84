"""The names of tensors in released Once-for-All checkpoints, and ours."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgenas.space import ResNet50D, SearchSpace

_BLOCK = re.compile(r"^(blocks\.\d+\.)(?:mobile_inverted_conv|conv)\.")
_DOUBLED = re.compile(r"\b(conv|bn|linear)(?:\.\1\b)+")
_PLACES = {
    "stem": "first_conv",
    "block0": "blocks.0",
    "final_expand": "final_expand_layer",
    "feature_mix": "feature_mix_layer",
    "classifier": "classifier",
    "stem.conv1": "input_stem.0",
    "stem.residual": "input_stem.1.conv",
    "stem.conv2": "input_stem.2",
}
_MBCONV = {
    "expand": "inverted_bottleneck",
    "depthwise": "depth_conv",
    "transform": "depth_conv.conv",
    "se": "depth_conv.se.fc",
    "project": "point_linear",
}
_BOTTLENECK = {"reduce": "conv1", "filter": "conv2", "project": "conv3", "shortcut": "downsample"}
_INSIDE = {"mbconv": _MBCONV, "bottleneck": _BOTTLENECK}


def canonical(key: str) -> str:
    """One name for what files call differently.

    Old files say ``mobile_inverted_conv`` where new ones say ``conv``; elastic
    layers say ``conv.conv`` and ``bn.bn`` where static ones say it once; a
    network that was trained in parallel has ``module.`` in front.
    """
    return _DOUBLED.sub(r"\1", _BLOCK.sub(r"\1", key.removeprefix("module.")))


def is_matrix(name: str) -> bool:
    """Whether a tensor is a kernel transformation: a network whose kernels never shrank has none."""
    return name.endswith("_matrix")


def matrix_kernels(names: Iterable[str]) -> tuple[int, ...]:
    """The kernel sizes that the kernel transformations among ``names`` lead from and to, ascending."""
    found = (re.search(r"\.(\d{1,2})to(\d{1,2})_matrix$", name) for name in names)
    return tuple(sorted({int(size) for match in found if match for size in match.groups()}))


def released_names(space: SearchSpace, names: Iterable[str]) -> dict[str, str]:
    """Canonical released name -> our name, for ``names`` of tensors in a supernet of ``space``."""
    first = 0 if isinstance(space, ResNet50D) else 1
    stages = [slot.name for slot in space.slots if slot.name.startswith("stage")]
    places = _PLACES | {name: f"blocks.{first + number}" for number, name in enumerate(stages)}
    operators = {name: part.operator for name, part in space.largest.parts.items()}
    found = {}
    for name in names:
        slot = next(slot for slot in operators if name.startswith(f"{slot}."))
        inside, _, tensor = name.removeprefix(f"{slot}.").partition(".")
        inside = _INSIDE.get(operators[slot], {}).get(inside, inside)
        found[canonical(f"{places[slot]}.{inside}.{tensor}")] = name
    return found
