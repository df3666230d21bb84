"""Names of tensors: those of released Once-for-All checkpoints, and ours for the same tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgenas.space import ResNet50D, SearchSpace

_BLOCK = re.compile(r"^(blocks\.\d+\.)(?:mobile_inverted_conv|conv)\.")
# Attributes in which PyTorch keeps the network that it wraps: DataParallel, AveragedModel and most classes that average
# or train a network; torch.compile; FSDP; activation checkpointing.
_WRAPPERS = re.compile(r"\b(?:module|model|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_DOUBLED = re.compile(r"\b(conv|bn|linear)(?:\.\1\b)+")
_RELEASED_PLACES = {
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
_RELEASED_LAYERS = {"mbconv": _MBCONV, "bottleneck": _BOTTLENECK}


def canonical_name(key: str) -> str:
    """Return one name for a tensor that released files name in several ways.

    Old files say ``mobile_inverted_conv`` where new ones say ``conv``. Elastic
    layers say ``conv.conv`` and ``bn.bn`` where static ones say it once. A
    wrapped network or layer has ``module.``, ``_orig_mod.`` and the like in
    front, nested in any order.
    """
    return _DOUBLED.sub(r"\1", _BLOCK.sub(r"\1", _WRAPPERS.sub("", key)))


def is_kernel_matrix(name: str) -> bool:
    """Return true for a kernel transformation matrix, which a network with one kernel size does not have."""
    return name.endswith("_matrix")


def matrix_kernel_sizes(names: Iterable[str]) -> tuple[int, ...]:
    """Return the kernel sizes that the kernel matrices among ``names`` transform from and to, ascending."""
    matches = (re.search(r"\.(\d{1,2})to(\d{1,2})_matrix$", name) for name in names)
    return tuple(sorted({int(size) for match in matches if match for size in match.groups()}))


def released_names(space: SearchSpace, names: Iterable[str]) -> dict[str, str]:
    """Return our name by canonical released name, for the tensors ``names`` of a supernet of ``space``."""
    first_block = 0 if isinstance(space, ResNet50D) else 1
    stages = [slot.name for slot in space.slots if slot.name.startswith("stage")]
    places = _RELEASED_PLACES | {name: f"blocks.{first_block + number}" for number, name in enumerate(stages)}
    operators = {name: part.operator for name, part in space.largest.parts.items()}
    ours = {}
    for name in names:
        slot = next(slot for slot in operators if name.startswith(f"{slot}."))
        layer, _, tensor = name.removeprefix(f"{slot}.").partition(".")
        layer = _RELEASED_LAYERS.get(operators[slot], {}).get(layer, layer)
        ours[canonical_name(f"{places[slot]}.{layer}.{tensor}")] = name
    return ours
