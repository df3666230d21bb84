"""The search space of a released checkpoint: what its tensors tell, and what they do not hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from edgenas.errors import FormatError, UsageError
from edgenas.files import parse_dataclass
from edgenas.ofa.released_file import Released
from edgenas.ofa.released_keys import matrix_kernels
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace, space_from_dict
from edgenas.space.rules import make_divisible

# The multipliers of the published networks: taken first where several give the same channels.
_PUBLISHED_WIDTHS = (1.0, 1.2, 1.3)
_WIDEST = 16
# Weights fit any input: what was trained is narrower, and the importer's business.
_RESOLUTIONS = tuple(range(32, 257, 4))


@dataclass(frozen=True)
class Choices:
    """What a checkpoint's tensors do not hold; None for what was published for its family."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kernel_sizes: tuple[int, ...] | None = None
    expand_ratios: tuple[float, ...] | None = None
    depths: tuple[int, ...] | None = None
    width_mults: tuple[float, ...] | None = None
    resolutions: tuple[int, ...] | None = None


def find_space(released: Released, choices: Mapping[str, Any]) -> SearchSpace:
    """The space whose largest network has the tensors of ``released``, as far as any has.

    Raises FormatError when no family has such tensors, UsageError for choices
    that are unknown, impossible or not the family's.
    """
    family = _family(released)
    given = {
        key: value
        for key, value in asdict(parse_dataclass(Choices, _plain(choices), "choices")).items()
        if value is not None
    }
    wrong = "kernel_sizes" if isinstance(family, ResNet50D) else "width_mults"
    if wrong in given:
        raise UsageError(f"choices: a checkpoint of family {family.family} has no {wrong} to choose; leave them out")
    found = _of_resnet(released, family) if isinstance(family, ResNet50D) else _of_blocks(released, family, given)
    resolutions = {"resolutions": _RESOLUTIONS}
    return space_from_dict({"family": family.family, **resolutions, **found, **given}, "choices")


def _plain(choices: Any) -> dict[str, Any]:
    if not isinstance(choices, Mapping):
        raise UsageError(f"choices must be a mapping such as {{'depths': (2, 3, 4)}}, but got {choices!r}")
    return dict(choices)


def _family(released: Released) -> MobileNetV3 | ProxylessNAS | ResNet50D:
    """The published space of the checkpoint's family."""
    names = released.tensors
    if any(name.startswith("input_stem.") for name in names):
        return ResNet50D()
    if any(name.startswith("final_expand_layer.") or ".se." in name for name in names):
        return MobileNetV3()
    if any(name.startswith(("first_conv.", "blocks.0.")) for name in names):
        return ProxylessNAS()
    some = ", ".join(list(released.keys.values())[:2]) or "nothing"
    raise FormatError(
        f"{released.where}: is no checkpoint of a Once-for-All network: it has {some},"
        " where first_conv.* or input_stem.* should be"
    )


def _classes(released: Released, published: int) -> int:
    return released.size("classifier.linear.weight") or released.size("classifier.linear.bias") or published


def _last_block(released: Released) -> int:
    numbers = (re.match(r"blocks\.(\d{1,4})\.", name) for name in released.tensors)
    return max((int(match[1]) for match in numbers if match), default=0)


def _up_to(published: tuple[Any, ...], largest: float) -> tuple[Any, ...]:
    """The published choices up to the checkpoint's largest; all where it is none of them, to be refused by name."""
    return tuple(value for value in published if value <= largest) if largest in published else published


def _of_resnet(released: Released, published: ResNet50D) -> dict[str, Any]:
    depths = [gene.values[0] for gene in published.genes if gene.kind == "depth" and gene.name.startswith("stage")]
    mid, out = released.size("blocks.0.conv3.conv.weight", 1), released.size("blocks.0.conv3.conv.weight")
    ratios = [ratio for ratio in published.expand_ratios if make_divisible(round(out * ratio)) == mid]
    return {
        "classes": _classes(released, published.classes),
        "depths": _up_to(published.depths, (_last_block(released) + 1 - sum(depths)) / len(depths)),
        "expand_ratios": _up_to(published.expand_ratios, max(ratios, default=0)),
    }


def _of_blocks(
    released: Released, published: MobileNetV3 | ProxylessNAS, given: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Fields of a space of inverted residual blocks."""
    fixed = sum(stage.depths[-1] for stage in published.stages if stage.depths)
    elastic = sum(stage.depths is None for stage in published.stages)
    depths = given.get("depths", _up_to(published.depths, (_last_block(released) - fixed) / elastic))
    kernel = released.size("blocks.1.depth_conv.conv.weight", -1)
    expand = "blocks.1.inverted_bottleneck.conv.weight"
    ratio = released.size(expand) / max(released.size(expand, 1), 1)
    return {
        "width": _width(_widths(released, published, max(depths, default=1))),
        "classes": _classes(released, published.classes),
        "kernel_sizes": matrix_kernels(released.tensors) or _up_to(published.kernel_sizes, kernel),
        "expand_ratios": _up_to(published.expand_ratios, ratio),
        "depths": depths,
    }


def _widths(released: Released, published: MobileNetV3 | ProxylessNAS, deepest: int) -> dict[str, tuple[int, int]]:
    """Place -> (width before the multiplier, channels in the checkpoint), where it has the place."""
    bases = {"first_conv": published.stem}
    if isinstance(published, MobileNetV3):
        bases |= {"blocks.0.point_linear": published.stem}
        bases |= {"final_expand_layer": published.head[0], "feature_mix_layer": published.head[1]}
    else:
        bases |= {"blocks.0.point_linear": published.first, "feature_mix_layer": published.head}
    number = 1
    for stage in published.stages:
        bases[f"blocks.{number}.point_linear"] = stage.width
        number += stage.depths[-1] if stage.depths else deepest
    found = {place: (base, released.size(f"{place}.conv.weight")) for place, base in bases.items()}
    return {place: widths for place, widths in found.items() if widths[1]}


def _width(widths: Mapping[str, tuple[int, int]]) -> float:
    """The roundest multiplier that gives the channels of all places; of most, where none does."""
    best, most = 1.0, -1
    for width in _multipliers(widths):
        matches = sum(make_divisible(base * width) == channels for base, channels in widths.values())
        if matches > most:
            best, most = width, matches
        if most == len(widths):
            break
    return best


def _multipliers(widths: Mapping[str, tuple[int, int]]) -> Iterator[float]:
    """Candidates from round to fine: published ones, hundredths, then what the widest place leaves room for."""
    yield from _PUBLISHED_WIDTHS
    yield from (hundredths / 100 for hundredths in range(1, 100 * _WIDEST + 1))
    base, channels = max(widths.values(), default=(1, 1))
    for digits in (3, 4):
        steps = range(int((channels - 8) / base * 10**digits), int((channels + 8) / base * 10**digits) + 2)
        yield from (step / 10**digits for step in steps if 0 < step <= _WIDEST * 10**digits)
