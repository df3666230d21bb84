"""The MobileNetV3 space of Once-for-All (arXiv 1908.09791), at any width, and with stages of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Genes
from edgenas.errors import SpaceError, UsageError
from edgenas.files import parse, read_yaml
from edgenas.space.base import Architecture, Gene, SearchSpace, Slot
from edgenas.space.parts import Part

_FORBID_UNKNOWN = {"extra": "forbid"}
_ACTIVATIONS = ("relu", "hswish")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise SpaceError(message)


def _choices(name: str, values: Sequence[int]) -> tuple[int, ...]:
    _require(bool(values), f"{name} must name at least one choice")
    _require(len(set(values)) == len(values), f"{name} must not repeat a choice, but got {list(values)}")
    _require(min(values) > 0, f"{name} must be above 0, but got {min(values)}")
    return tuple(sorted(values))


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``value``, never below nine tenths of it (MobileNetV2's rule)."""
    result = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return result + divisor if result < 0.9 * value else result


@dataclass(frozen=True)
class Stage:
    """A run of blocks of one width; only the first may have a stride, and it has no shortcut.

    ``width`` is in channels before the space's multiplier; ``depths`` are the
    numbers of blocks to choose from, None for the space's own.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    width: int
    stride: int
    activation: str
    se: bool
    depths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _require(self.width > 0, f"a stage's width must be above 0, but got {self.width}")
        _require(self.stride in (1, 2), f"a stage's stride must be 1 or 2, but got {self.stride}")
        _require(
            self.activation in _ACTIVATIONS,
            f"a stage's activation must be one of {', '.join(_ACTIVATIONS)}, but got {self.activation!r}",
        )
        if self.depths is not None:
            object.__setattr__(self, "depths", _choices("a stage's depths", self.depths))


_STAGES = (
    Stage(24, 2, "relu", False),
    Stage(40, 2, "relu", True),
    Stage(80, 2, "hswish", False),
    Stage(112, 1, "hswish", True),
    Stage(160, 2, "hswish", True),
)


@dataclass(frozen=True)
class MobileNetV3(SearchSpace):
    """Elastic resolution, depth per stage, kernel size and expand ratio per block.

    All widths are multiplied by ``width`` and rounded to multiples of eight.
    ``head`` holds the widths of the final expansion and of the feature mix.
    Raises SpaceError when a choice is empty, repeated or impossible.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN
    family: ClassVar[str] = "mobilenet_v3"

    width: float = 1.0
    resolutions: tuple[int, ...] = tuple(range(128, 225, 4))
    classes: int = 1000
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expand_ratios: tuple[int, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    stem: int = 16
    stem_stride: int = 2
    stages: tuple[Stage, ...] = _STAGES
    head: tuple[int, int] = (960, 1280)

    def __post_init__(self) -> None:
        for name in ("resolutions", "kernel_sizes", "expand_ratios", "depths"):
            object.__setattr__(self, name, _choices(name, getattr(self, name)))
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "head", tuple(self.head))
        object.__setattr__(self, "width", float(self.width))
        _require(0 < self.width <= 16, f"width must be above 0 and at most 16, but got {self.width}")
        _require(self.classes > 1, f"classes must be at least 2, but got {self.classes}")
        even = [size for size in self.kernel_sizes if size % 2 == 0]
        _require(not even, f"kernel_sizes must be odd, but got {even}")
        _require(self.expand_ratios[0] > 1, f"expand_ratios must be above 1, but got {self.expand_ratios[0]}")
        _require(bool(self.stages), "a space needs at least one stage")
        _require(self.stem_stride in (1, 2), f"stem_stride must be 1 or 2, but got {self.stem_stride}")
        _require(self.stem > 0 and min(self.head) > 0, "stem and head must be widths above 0")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> MobileNetV3:
        """The inverse of ``to_dict``; raises UsageError naming ``where`` for unknown keys and wrong values."""
        return parse(cls, {key: value for key, value in data.items() if key != "family"}, where)

    @classmethod
    def from_yaml(cls, path: str | Path) -> MobileNetV3:
        """A space of one's own from a YAML file with any of the fields of this class."""
        data = read_yaml(Path(path))
        if not isinstance(data, dict):
            raise UsageError(f"{path}: a space must be a mapping, for example 'width: 0.35'")
        return cls.from_dict(data, str(path))

    def to_dict(self) -> dict[str, Any]:
        return {"family": self.family, **asdict(self)}

    # -- widths, multiplied and rounded ---------------------------------------------

    def _channels(self, base: int) -> int:
        return make_divisible(base * self.width)

    def _stage_depths(self, stage: int) -> tuple[int, ...]:
        return self.stages[stage].depths or self.depths

    @cached_property
    def _blocks(self) -> tuple[tuple[int, int], ...]:
        """(stage, place in the stage) of every elastic block, in the order of Once-for-All's lists."""
        stages = range(len(self.stages))
        return tuple((stage, place) for stage in stages for place in range(self._stage_depths(stage)[-1]))

    # -- genes: resolution, depth per stage, kernel per block, expand per block -------

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        stages, blocks = range(len(self.stages)), self._blocks
        return (
            Gene("resolution", self.resolutions),
            *(Gene(f"stage{stage + 1}.depth", self._stage_depths(stage)) for stage in stages),
            *(Gene(f"{_block_name(*block)}.kernel_size", self.kernel_sizes) for block in blocks),
            *(Gene(f"{_block_name(*block)}.expand_ratio", self.expand_ratios) for block in blocks),
        )

    def dead_genes(self, genes: Genes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        dead = np.zeros(genes.shape, dtype=bool)
        first = 1 + len(self.stages)
        for number, (stage, place) in enumerate(self._blocks):
            skipped = np.array(self._stage_depths(stage))[genes[:, 1 + stage]] <= place
            dead[:, first + number] = skipped
            dead[:, first + len(self._blocks) + number] = skipped
        return dead

    @property
    def size(self) -> int:
        block = len(self.kernel_sizes) * len(self.expand_ratios)
        size = len(self.resolutions)
        for stage in range(len(self.stages)):
            size *= sum(block**depth for depth in self._stage_depths(stage))
        return size

    # -- parts ----------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        stem, (final, mix) = self._channels(self.stem), map(self._channels, self.head)
        first = 1 + len(self.stages)
        slots = [
            self._fixed("stem", lambda size: _conv(size, 3, stem, self.stem_stride, 3)),
            self._fixed("block0", lambda size: _mbconv(self._reduced(size, 0), stem, stem, stem, 3, 1, "relu", False)),
        ]
        for number, (stage, place) in enumerate(self._blocks):
            columns = (0, 1 + stage, first + number, first + len(self._blocks) + number)
            slots.append(Slot(_block_name(stage, place), columns, self._block_parts(stage, place)))
        last = self._channels(self.stages[-1].width)
        end = len(self.stages)
        slots += [
            self._fixed("final_expand", lambda size: _conv(self._reduced(size, end), last, final, 1, 1)),
            self._fixed("pool", lambda size: Part("pool", self._reduced(size, end), final, 1, final)),
            self._fixed("feature_mix", lambda _: Part("conv", 1, final, 1, mix, activation="hswish", batch_norm=False)),
            self._fixed("classifier", lambda _: Part("linear", 1, mix, 1, self.classes, bias=True)),
        ]
        return tuple(slots)

    def _fixed(self, name: str, part: Callable[[int], Part]) -> Slot:
        return Slot(name, (0,), tuple(part(size) for size in self.resolutions))

    def _reduced(self, resolution: int, stages: int) -> int:
        """The size of the feature map after the stem and ``stages`` stages."""
        size = _strided(resolution, self.stem_stride)
        for stage in self.stages[:stages]:
            size = _strided(size, stage.stride)
        return size

    def _block_parts(self, stage: int, place: int) -> tuple[Part | None, ...]:
        config = self.stages[stage]
        out = self._channels(config.width)
        before = self._channels(self.stages[stage - 1].width if stage else self.stem)
        entry = before if place == 0 else out
        stride = config.stride if place == 0 else 1
        parts: list[Part | None] = []
        for resolution, depth, kernel, ratio in itertools.product(
            self.resolutions, self._stage_depths(stage), self.kernel_sizes, self.expand_ratios
        ):
            if depth <= place:
                parts.append(None)
                continue
            size = self._reduced(resolution, stage if place == 0 else stage + 1)
            mid = make_divisible(entry * ratio)
            parts.append(_mbconv(size, entry, mid, out, kernel, stride, config.activation, config.se, first=place == 0))
        return tuple(parts)

    # -- readable forms ---------------------------------------------------------------

    def describe(self, architecture: Architecture) -> dict[str, Any]:
        values = self._values(architecture)
        stages = []
        for stage in range(len(self.stages)):
            live = [_block_name(stage, place) for place in range(values[f"stage{stage + 1}.depth"])]
            stages.append(
                {
                    "kernel_sizes": [values[f"{block}.kernel_size"] for block in live],
                    "expand_ratios": [values[f"{block}.expand_ratio"] for block in live],
                }
            )
        return {"resolution": architecture.resolution, "stages": stages}

    def from_description(self, data: Mapping[str, Any], where: str) -> Architecture:
        description = parse(_Description, {key: value for key, value in data.items() if key != "id"}, where)
        if len(description.stages) != len(self.stages):
            raise SpaceError(f"{where}: this space has {len(self.stages)} stages, but got {len(description.stages)}")
        values = {"resolution": description.resolution}
        for number, stage in enumerate(description.stages):
            depth = len(stage.kernel_sizes)
            if len(stage.expand_ratios) != depth:
                raise SpaceError(
                    f"{where}: stage{number + 1} has {depth} kernel_sizes and {len(stage.expand_ratios)} expand_ratios;"
                    " give one of each per block"
                )
            values[f"stage{number + 1}.depth"] = depth
            for place in range(depth):
                values[f"{_block_name(number, place)}.kernel_size"] = stage.kernel_sizes[place]
                values[f"{_block_name(number, place)}.expand_ratio"] = stage.expand_ratios[place]
        architecture = self._from_values(values, where)
        if data.get("id", architecture.id) != architecture.id:
            raise SpaceError(f"{where}: the id {data['id']!r} belongs to other choices; correct or remove it")
        return architecture

    def from_ofa(self, config: Mapping[str, Any], resolution: int, where: str = "Once-for-All config") -> Architecture:
        """An architecture from Once-for-All's lists ``ks``, ``e`` (one entry a block) and ``d`` (one a stage).

        Entries of skipped blocks may have any value. Raises UsageError naming ``where``.
        """
        lists = parse(_OfaLists, dict(config), where)
        for name, length in (("ks", len(self._blocks)), ("e", len(self._blocks)), ("d", len(self.stages))):
            if len(getattr(lists, name)) != length:
                raise SpaceError(f"{where}: {name!r} must have {length} entries, but got {len(getattr(lists, name))}")
        values = {"resolution": resolution}
        for stage, depth in enumerate(lists.d):
            values[f"stage{stage + 1}.depth"] = depth
        for (stage, place), kernel, ratio in zip(self._blocks, lists.ks, lists.e, strict=True):
            if place < lists.d[stage]:
                values[f"{_block_name(stage, place)}.kernel_size"] = kernel
                values[f"{_block_name(stage, place)}.expand_ratio"] = ratio
        return self._from_values(values, where)

    def to_ofa(self, architecture: Architecture) -> dict[str, list[int] | int]:
        """Once-for-All's lists ``ks``, ``e``, ``d`` and resolution ``r``; skipped blocks have the smallest values."""
        values = self._values(architecture)
        names = [_block_name(*block) for block in self._blocks]
        return {
            "ks": [values[f"{name}.kernel_size"] for name in names],
            "e": [values[f"{name}.expand_ratio"] for name in names],
            "d": [values[f"stage{stage + 1}.depth"] for stage in range(len(self.stages))],
            "r": architecture.resolution,
        }

    def _values(self, architecture: Architecture) -> dict[str, int]:
        return {gene.name: gene.values[index] for gene, index in zip(self.genes, architecture.genes, strict=True)}

    def _from_values(self, values: Mapping[str, int], where: str) -> Architecture:
        genes = []
        for gene in self.genes:
            value = values.get(gene.name, gene.values[0])
            if value not in gene.values:
                choices = ", ".join(map(str, gene.values))
                raise SpaceError(f"{where}: {gene.name} must be one of {choices}, but got {value}")
            genes.append(gene.values.index(value))
        return Architecture(self, tuple(genes))


@dataclass(frozen=True)
class _StageDescription:
    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]


@dataclass(frozen=True)
class _Description:
    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    resolution: int
    stages: tuple[_StageDescription, ...]


@dataclass(frozen=True)
class _OfaLists:
    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    ks: tuple[int, ...]
    e: tuple[int, ...]
    d: tuple[int, ...]


def _block_name(stage: int, place: int) -> str:
    return f"stage{stage + 1}.block{place + 1}"


def _strided(size: int, stride: int) -> int:
    """Output size of a convolution with odd kernel k and padding k // 2."""
    return (size - 1) // stride + 1


def _conv(size: int, entry: int, out: int, stride: int, kernel: int) -> Part:
    return Part("conv", size, entry, _strided(size, stride), out, kernel, stride, "hswish")


def _mbconv(
    size: int,
    entry: int,
    mid: int,
    out: int,
    kernel: int,
    stride: int,
    activation: str,
    se: bool,
    first: bool = False,
) -> Part:
    return Part(
        "mbconv",
        size,
        entry,
        _strided(size, stride),
        out,
        kernel,
        stride,
        activation,
        mid_channels=mid,
        se_channels=make_divisible(mid // 4) if se else 0,
        expand=mid != entry,
        shortcut=not first,
    )
