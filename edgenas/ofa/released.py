"""The official Once-for-All checkpoints (arXiv 1908.09791) as supernets: their search space and their weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgenas.errors import FormatError, UsageError
from edgenas.ofa.released_file import ReleasedCheckpoint, read_released_file
from edgenas.ofa.released_keys import is_kernel_matrix, matrix_kernel_sizes, released_names
from edgenas.ofa.supernet import Supernet
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace, space_from_dict
from edgenas.space.choices import parse_choices
from edgenas.space.rules import make_divisible

# Multipliers of the published networks, preferred where several give the same channels.
_PUBLISHED_WIDTHS = (1.0, 1.2, 1.3)
_MAX_WIDTH = 16
# Weights fit every resolution. The caller knows those that were trained.
_RESOLUTIONS = tuple(range(32, 257, 4))
_SHOWN = 3  # of the tensors that do not fit, of each kind


def load_released(path: str | Path, choices: Mapping[str, Any] | None = None) -> Supernet:
    """Return the supernet of an official Once-for-All checkpoint (arXiv 1908.09791), in eval mode.

    Family, width, classes and the largest choices follow from the tensors. The
    other choices are those published for the family, up to the checkpoint's
    largest. Resolutions, which weights do not depend on, are every fourth from
    32 to 256. Batch norm keeps the statistics of the file. A file without
    kernel matrices, such as that of a network with one kernel size, gets the
    identity. Networks in wrappers such as DataParallel are read as well; of
    averaged and other weights in one file the averaged ones count.

    Args:
        path: A PyTorch file. Nothing but tensors is ever loaded from it.
        choices: Choices that differ from the published ones, any of ``kernel_sizes``, ``expand_ratios``, ``depths``,
            ``width_mults`` and ``resolutions``.

    Raises:
        UsageError: The file cannot be read, or a choice is unknown, impossible or not the family's.
        FormatError: The file is no checkpoint of tensors, or tensors do not fit; the message counts them and names
            the first with their shapes.
    """
    return build_supernet(read_released_file(Path(path)), choices or {})


def build_supernet(released: ReleasedCheckpoint, choices: Mapping[str, Any]) -> Supernet:
    """Return the supernet of a checkpoint's tensors, in eval mode, as ``load_released`` does."""
    supernet = Supernet(infer_space(released, choices))
    weights = supernet.state_dict()
    supernet.load_state_dict(weights | _match_tensors(released, supernet.space, weights))
    return supernet.eval()


def _match_tensors(
    released: ReleasedCheckpoint, space: SearchSpace, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the checkpoint's tensors by our names. Raises FormatError unless they are exactly the expected ones."""
    names, found = released_names(space, expected), released.tensors
    has_matrices = any(is_kernel_matrix(name) for name in found)
    shapes = {
        theirs: tuple(expected[ours].shape)
        for theirs, ours in names.items()
        if theirs in found or has_matrices or not is_kernel_matrix(theirs)
    }
    misfits = _describe_misfits(released, shapes)
    if misfits:
        fields = ("width", "width_mults", "kernel_sizes", "expand_ratios", "depths")
        choices = ", ".join(f"{field} {getattr(space, field)}" for field in fields if hasattr(space, field))
        others = f" (such as its {' or '.join(released.others)}, saved alone)" if released.others else ""
        raise FormatError(
            f"{released.where}: its {len(found)} tensors are not the {len(shapes)} of a {space.family} with {choices}:"
            f" {misfits}; give the choices of the network in the file, or a file with these tensors{others}"
        )
    return {names[theirs]: tensor for theirs, tensor in found.items()}


def _describe_misfits(released: ReleasedCheckpoint, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return which tensors are missing, unexpected or of other than these shapes: how many, and the first of each."""
    found, keys = released.tensors, released.keys
    kinds = {
        "missing": [f"{name} {shape}" for name, shape in shapes.items() if name not in found],
        "unexpected": [f"{keys[name]} {tuple(found[name].shape)}" for name in found if name not in shapes],
        "of another shape": [
            f"{keys[name]} is {tuple(found[name].shape)}, but must be {shape}"
            for name, shape in shapes.items()
            if name in found and found[name].shape != shape
        ],
    }
    return ", ".join(
        f"{len(names)} {kind} ({'; '.join(names[:_SHOWN])}{'; ...' if len(names) > _SHOWN else ''})"
        for kind, names in kinds.items()
        if names
    )


def infer_family(released: ReleasedCheckpoint) -> str:
    """Return the family of a checkpoint's network. Raises FormatError when no family has such tensors."""
    return _published_space(released).family


def infer_space(released: ReleasedCheckpoint, choices: Mapping[str, Any]) -> SearchSpace:
    """Return the search space whose largest network has the checkpoint's tensors.

    Where no space has exactly these tensors, the nearest one is returned.

    Raises:
        FormatError: No family has such tensors.
        UsageError: A choice is unknown, impossible or not the family's.
    """
    family = _published_space(released)
    chosen = parse_choices(choices, "choices")
    foreign = "kernel_sizes" if isinstance(family, ResNet50D) else "width_mults"
    if foreign in chosen:
        raise UsageError(f"choices: a checkpoint of family {family.family} has no {foreign} to choose; leave them out")
    if isinstance(family, ResNet50D):
        inferred = _infer_resnet(released, family)
    else:
        inferred = _infer_inverted_residual(released, family, chosen.get("depths"))
    fields = {"resolutions": _RESOLUTIONS, **inferred, **chosen}
    return space_from_dict({"family": family.family, **fields}, "choices")


def _published_space(released: ReleasedCheckpoint) -> MobileNetV3 | ProxylessNAS | ResNet50D:
    """Return the published space of the checkpoint's family."""
    names = released.tensors
    if any(name.startswith("input_stem.") for name in names):
        return ResNet50D()
    if any(name.startswith("final_expand_layer.") or ".se." in name for name in names):
        return MobileNetV3()
    if any(name.startswith(("first_conv.", "blocks.0.")) for name in names):
        return ProxylessNAS()
    examples = ", ".join(list(released.keys.values())[:_SHOWN])
    raise FormatError(
        f"{released.where}: has no tensor first_conv.* or input_stem.*, one of which every Once-for-All network has;"
        f" it has {len(names)} tensors{f' ({examples})' if examples else ''}; give the file of such a network"
    )


def _count_classes(released: ReleasedCheckpoint, published: int) -> int:
    return released.size("classifier.linear.weight") or released.size("classifier.linear.bias") or published


def _last_block(released: ReleasedCheckpoint) -> int:
    numbers = (re.match(r"blocks\.(\d{1,4})\.", name) for name in released.tensors)
    return max((int(match[1]) for match in numbers if match), default=0)


def _choices_up_to(largest: float, published: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the published choices up to the checkpoint's largest.

    Returns all where the largest is none of them; then the tensors do not fit and are refused by name.
    """
    return tuple(value for value in published if value <= largest) if largest in published else published


def _infer_resnet(released: ReleasedCheckpoint, published: ResNet50D) -> dict[str, Any]:
    depths = [gene.values[0] for gene in published.genes if gene.kind == "depth" and gene.name.startswith("stage")]
    mid, out = released.size("blocks.0.conv3.conv.weight", 1), released.size("blocks.0.conv3.conv.weight")
    ratios = [ratio for ratio in published.expand_ratios if make_divisible(round(out * ratio)) == mid]
    return {
        "classes": _count_classes(released, published.classes),
        "depths": _choices_up_to((_last_block(released) + 1 - sum(depths)) / len(depths), published.depths),
        "expand_ratios": _choices_up_to(max(ratios, default=0), published.expand_ratios),
    }


def _infer_inverted_residual(
    released: ReleasedCheckpoint, published: MobileNetV3 | ProxylessNAS, depths: tuple[int, ...] | None
) -> dict[str, Any]:
    """Return the fields of a space of inverted residual blocks; with None the depths too follow from the tensors."""
    if depths is None:
        fixed = sum(stage.depths[-1] for stage in published.stages if stage.depths)
        elastic_stages = sum(stage.depths is None for stage in published.stages)
        depths = _choices_up_to((_last_block(released) - fixed) / elastic_stages, published.depths)
    kernel_size = released.size("blocks.1.depth_conv.conv.weight", -1)
    expand = "blocks.1.inverted_bottleneck.conv.weight"
    expand_ratio = released.size(expand) / max(released.size(expand, 1), 1)
    return {
        "width": _infer_width(_base_and_actual_widths(released, published, max(depths, default=1))),
        "classes": _count_classes(released, published.classes),
        "kernel_sizes": matrix_kernel_sizes(released.tensors) or _choices_up_to(kernel_size, published.kernel_sizes),
        "expand_ratios": _choices_up_to(expand_ratio, published.expand_ratios),
        "depths": depths,
    }


def _base_and_actual_widths(
    released: ReleasedCheckpoint, published: MobileNetV3 | ProxylessNAS, max_depth: int
) -> list[tuple[int, int]]:
    """Return (width before the multiplier, channels in the checkpoint) of every place that the checkpoint has."""
    bases = {"first_conv": published.stem}
    if isinstance(published, MobileNetV3):
        bases |= {"blocks.0.point_linear": published.stem}
        bases |= {"final_expand_layer": published.head[0], "feature_mix_layer": published.head[1]}
    else:
        bases |= {"blocks.0.point_linear": published.first, "feature_mix_layer": published.head}
    number = 1
    for stage in published.stages:
        bases[f"blocks.{number}.point_linear"] = stage.width
        number += stage.depths[-1] if stage.depths else max_depth
    widths = [(base, released.size(f"{place}.conv.weight")) for place, base in bases.items()]
    return [(base, channels) for base, channels in widths if channels]


def _infer_width(widths: list[tuple[int, int]]) -> float:
    """Return the roundest multiplier that gives the channels of all places, else of the most places."""
    best, most_matches = 1.0, -1
    for width in _candidate_widths(widths):
        matches = sum(make_divisible(base * width) == channels for base, channels in widths)
        if matches > most_matches:
            best, most_matches = width, matches
        if most_matches == len(widths):
            break
    return best


def _candidate_widths(widths: list[tuple[int, int]]) -> Iterator[float]:
    """Yield multipliers from round to fine: published ones, hundredths, then those that fit the widest place."""
    yield from _PUBLISHED_WIDTHS
    yield from (hundredths / 100 for hundredths in range(1, 100 * _MAX_WIDTH + 1))
    base, channels = max(widths, default=(1, 1))
    for digits in (3, 4):
        steps = range(int((channels - 8) / base * 10**digits), int((channels + 8) / base * 10**digits) + 2)
        yield from (step / 10**digits for step in steps if 0 < step <= _MAX_WIDTH * 10**digits)
