"""The ResNet-50D search space of Once-for-All (arXiv 1812.01187, 1908.09791)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Genes
from edgenas.files import parse_dataclass
from edgenas.space.base import Architecture, Gene, SearchSpace, Slot
from edgenas.space.blocks.bottleneck import Bottleneck
from edgenas.space.blocks.plain import ConvPart, GlobalPoolPart, LinearPart, MaxPoolPart
from edgenas.space.ofa_lists import OfaLists, parse_ofa_lists
from edgenas.space.parts import Part
from edgenas.space.rules import (
    FORBID_UNKNOWN,
    block_name,
    check_choices,
    check_classes,
    check_part_count,
    make_divisible,
    require,
    strided_size,
)

_STEM = 64
_WIDTHS = (256, 512, 1024, 2048)
_STRIDES = (1, 2, 2, 2)
_BASE_DEPTHS = (2, 2, 4, 2)
# Columns of a genes matrix: resolution and stem depth come first; here begin the depths and widths of the stages and
# the expand ratios of the blocks. The two widths of the stem stand before those of the stages.
_DEPTH_COLUMN, _WIDTH_COLUMN, _EXPAND_COLUMN = 2, 8, 12


@dataclass(frozen=True, repr=False)
class ResNet50D(SearchSpace):
    """The search space of ResNet-50D: bottleneck blocks, elastic in depth, width and expand ratio.

    The defaults are the space that Once-for-All published (arXiv 1812.01187,
    1908.09791). Depth and width are chosen for each stage, the expand ratio for
    each block. The stem has a residual block or not.

    Args:
        resolutions: The heights and widths of the input to choose from, in pixels.
        classes: The number of classes.
        depths: The numbers of blocks that are added to the four stages' 2, 2, 4, 2.
        expand_ratios: The ratios of a block's inner to its outgoing channels.
        width_mults: The multipliers of the stages' 256 to 2048 channels and the stem's 64. Two multipliers that
            give the same number of channels are one value of the width gene.

    Raises:
        SpaceError: A choice is empty, repeated or impossible.

    Example:
        >>> from edgenas import ResNet50D
        >>> space = ResNet50D(resolutions=(160, 192, 224))
        >>> space
        ResNet50D(1000 classes, 160 to 224 pixels, d6d8cx)
        >>> space.params(space.encode([space.smallest, space.largest])).tolist()
        [6539280.0, 48105992.0]
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN
    family: ClassVar[str] = "resnet50d"

    resolutions: tuple[int, ...] = tuple(range(128, 225, 4))
    classes: int = 1000
    depths: tuple[int, ...] = (0, 1, 2)
    expand_ratios: tuple[float, ...] = (0.2, 0.25, 0.35)
    width_mults: tuple[float, ...] = (0.65, 0.8, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolutions", check_choices("resolutions", self.resolutions))
        for name in ("expand_ratios", "width_mults"):
            object.__setattr__(self, name, check_choices(name, tuple(map(float, getattr(self, name)))))
        object.__setattr__(self, "depths", check_choices("depths", self.depths, zero=True))
        check_classes(self.classes)
        choices = len(self.resolutions) * len(self.depths) * len(self.width_mults) * len(self.expand_ratios)
        first, others = len(_BASE_DEPTHS), len(self._blocks) - len(_BASE_DEPTHS)
        check_part_count(choices * (first * len(self.width_mults) + others))

    # -- widths -----------------------------------------------------------------------

    @cached_property
    def _widths(self) -> tuple[tuple[int, ...], ...]:
        """The channels for each multiplier of each place with a width: middle of the stem, stem, four stages.

        They are ascending, and repeated where two multipliers give the same channels.
        """
        stem, *stages = ([make_divisible(base * mult) for mult in self.width_mults] for base in (_STEM, *_WIDTHS))
        middle = [make_divisible(width // 2) for width in stem]
        return tuple(tuple(widths) for widths in (middle, stem, *stages))

    @cached_property
    def _channels(self) -> tuple[tuple[int, ...], ...]:
        """The different channels of each place with a width, ascending: the values of the genes of width."""
        return tuple(tuple(sorted(set(widths))) for widths in self._widths)

    @cached_property
    def _blocks(self) -> tuple[tuple[int, int], ...]:
        """(stage, place in the stage) of every block, in the order of Once-for-All's lists."""
        added = self.depths[-1]
        return tuple((stage, place) for stage, base in enumerate(_BASE_DEPTHS) for place in range(base + added))

    # -- genes: resolution, stem depth and widths, stage depths, stage widths, expand per block -

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        stem = (0, 1) if len(self.depths) > 1 else (1,)
        return (
            Gene("resolution", self.resolutions),
            Gene("stem.depth", stem),
            *(Gene(f"stage{i + 1}.depth", tuple(b + d for d in self.depths)) for i, b in enumerate(_BASE_DEPTHS)),
            Gene("stem.mid.width", self._channels[0]),
            Gene("stem.width", self._channels[1]),
            *(Gene(f"stage{stage + 1}.width", self._channels[2 + stage]) for stage in range(len(_WIDTHS))),
            *(Gene(f"{block_name(*block)}.expand_ratio", self.expand_ratios) for block in self._blocks),
        )

    def dead_genes(self, genes: Genes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        dead = np.zeros(genes.shape, dtype=bool)
        for number, (stage, place) in enumerate(self._blocks):
            depths = np.array(self.genes[_DEPTH_COLUMN + stage].values)
            dead[:, _EXPAND_COLUMN + number] = depths[genes[:, _DEPTH_COLUMN + stage]] <= place
        return dead

    def canonical(self, genes: Genes) -> Genes:
        """Return genes (N, G) with genes without effect set to 0 and equivalent expand ratios set to the smallest.

        Expand ratios are equivalent when rounding gives them the same middle channels.
        """
        genes = super().canonical(genes).copy()
        for number, (stage, _) in enumerate(self._blocks):
            column = _EXPAND_COLUMN + number
            width_genes = genes[:, _WIDTH_COLUMN + stage]
            genes[:, column] = self._smallest_equivalent_ratio[stage][width_genes, genes[:, column]]
        return genes

    @cached_property
    def _smallest_equivalent_ratio(self) -> tuple[Genes, ...]:
        """For each stage, by the genes of width and expand ratio: the smallest ratio with the same middle channels."""
        tables = []
        for stage in range(len(_WIDTHS)):
            widths = self._channels[2 + stage]
            mids = [[self._mid_channels(out, ratio) for ratio in self.expand_ratios] for out in widths]
            tables.append(np.array([[row.index(mid) for mid in row] for row in mids], dtype=np.int64))
        return tuple(tables)

    @staticmethod
    def _mid_channels(out: int, ratio: float) -> int:
        return make_divisible(round(out * ratio))

    @property
    def size(self) -> int:
        size = len(self.resolutions) * len(self.genes[1].values) * len(self._channels[0]) * len(self._channels[1])
        for stage, base in enumerate(_BASE_DEPTHS):
            stage_size = 0
            for out in self._channels[2 + stage]:
                mids = len({self._mid_channels(out, ratio) for ratio in self.expand_ratios})
                stage_size += sum(mids ** (base + depth) for depth in self.depths)
            size *= stage_size
        return size

    # -- parts ------------------------------------------------------------------------

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        blocks = (self._block_slot(number, *block) for number, block in enumerate(self._blocks))
        return (*self._stem_slots(), *blocks, *self._head_slots())

    def _stem_slots(self) -> tuple[Slot, ...]:
        """Return a convolution with stride 2, an optional residual one, a convolution, a max-pool with stride 2."""
        mids, stems = self._channels[:2]
        halves = [strided_size(size, 2) for size in self.resolutions]
        first = [ConvPart((3, size, size), mid, 3, 2, "relu") for size, mid in product(self.resolutions, mids)]
        residual = [
            ConvPart((mid, half, half), mid, 3, 1, "relu", shortcut=True) if depth else None
            for half, depth, mid in product(halves, self.genes[1].values, mids)
        ]
        last = [ConvPart((mid, half, half), stem, 3, 1, "relu") for half, mid, stem in product(halves, mids, stems)]
        pool = [MaxPoolPart((stem, half, half), 3, 2) for half, stem in product(halves, stems)]
        return (
            Slot("stem.conv1", (0, 6), tuple(first)),
            Slot("stem.residual", (0, 1, 6), tuple(residual)),
            Slot("stem.conv2", (0, 6, 7), tuple(last)),
            Slot("stem.pool", (0, 7), tuple(pool)),
        )

    def _block_slot(self, number: int, stage: int, place: int) -> Slot:
        """Return a bottleneck block. The first of a stage has the stride and a projected shortcut."""
        width, depth = _WIDTH_COLUMN + stage, _DEPTH_COLUMN + stage
        entries = self._channels[1 + stage] if place == 0 else (0,)
        parts: list[Part | None] = []
        for resolution, blocks, entry, out, ratio in product(
            self.resolutions, self.genes[depth].values, entries, self._channels[2 + stage], self.expand_ratios
        ):
            if blocks <= place:
                parts.append(None)
                continue
            size = self._entry_size(resolution, stage if place == 0 else stage + 1)
            stride = _STRIDES[stage] if place == 0 else 1
            part = Bottleneck(
                (entry or out, size, size),
                out,
                3,
                stride,
                "relu",
                mid_channels=self._mid_channels(out, ratio),
                shortcut=True,
                projected=place == 0,
            )
            parts.append(part)
        before = (width - 1,) if place == 0 else ()
        return Slot(block_name(stage, place), (0, depth, *before, width, _EXPAND_COLUMN + number), tuple(parts))

    def _entry_size(self, resolution: int, stage: int) -> int:
        """Return the size of the feature map that enters a stage."""
        size = strided_size(strided_size(resolution, 2), 2)
        for stride in _STRIDES[:stage]:
            size = strided_size(size, stride)
        return size

    def _head_slots(self) -> tuple[Slot, ...]:
        last, width = self._channels[-1], _WIDTH_COLUMN + len(_WIDTHS) - 1
        sizes = [self._entry_size(resolution, len(_WIDTHS)) for resolution in self.resolutions]
        pool = [GlobalPoolPart((channels, size, size)) for size, channels in product(sizes, last)]
        linear = [LinearPart((channels, 1, 1), self.classes) for channels in last]
        return (Slot("pool", (0, width), tuple(pool)), Slot("classifier", (width,), tuple(linear)))

    # -- readable forms ---------------------------------------------------------------

    def describe(self, architecture: Architecture) -> dict[str, Any]:
        values = self._gene_values(architecture)
        stages = [
            {
                "width": values[f"stage{stage + 1}.width"],
                "expand_ratios": [
                    values[f"{block_name(stage, place)}.expand_ratio"]
                    for place in range(int(values[f"stage{stage + 1}.depth"]))
                ],
            }
            for stage in range(len(_WIDTHS))
        ]
        stem = {"residual": bool(values["stem.depth"]), "mid": values["stem.mid.width"], "width": values["stem.width"]}
        return {"resolution": architecture.resolution, "stem": stem, "stages": stages}

    def from_description(self, data: Mapping[str, Any], where: str) -> Architecture:
        description = parse_dataclass(_Description, data, where)
        require(
            len(description.stages) == len(_WIDTHS),
            f"{where}: this space has {len(_WIDTHS)} stages, but got {len(description.stages)}",
        )
        values: dict[str, float] = {
            "resolution": description.resolution,
            "stem.depth": int(description.stem.residual),
            "stem.mid.width": description.stem.mid,
            "stem.width": description.stem.width,
        }
        for number, stage in enumerate(description.stages):
            values[f"stage{number + 1}.depth"] = len(stage.expand_ratios)
            values[f"stage{number + 1}.width"] = stage.width
            for place, ratio in enumerate(stage.expand_ratios):
                values[f"{block_name(number, place)}.expand_ratio"] = ratio
        return self._check_id(self._from_gene_values(values, where), data, where)

    def from_ofa(
        self, config: Mapping[str, Any], resolution: int | None = None, where: str = "Once-for-All config"
    ) -> Architecture:
        """Return the architecture of Once-for-All's lists ``d`` (stem, stages), ``e`` (blocks) and ``w`` (six places).

        The resolution and errors are as in ``SearchSpace.from_ofa``.
        """
        lists, resolution = parse_ofa_lists(_OfaLists, config, resolution, self.resolutions[-1], where)
        for name, length in (("d", 1 + len(_WIDTHS)), ("e", len(self._blocks)), ("w", 2 + len(_WIDTHS))):
            actual = len(getattr(lists, name))
            require(actual == length, f"{where}: {name!r} must have {length} entries, but got {actual}")
        require(
            all(0 <= index < len(self.width_mults) for index in lists.w),
            f"{where}: 'w' must be indices from 0 to {len(self.width_mults) - 1}, but got {list(lists.w)}",
        )
        require(lists.d[0] in self.depths, f"{where}: 'd' must be among {list(self.depths)}, but got {lists.d[0]}")
        mid, stem, *stages = (widths[index] for widths, index in zip(self._widths, lists.w, strict=True))
        residual = int(lists.d[0] == self.depths[-1])
        values: dict[str, float] = {"resolution": resolution, "stem.depth": residual}
        values |= {"stem.mid.width": mid, "stem.width": stem}
        for number, (base, depth, width) in enumerate(zip(_BASE_DEPTHS, lists.d[1:], stages, strict=True)):
            values[f"stage{number + 1}.depth"] = base + depth
            values[f"stage{number + 1}.width"] = width
        for (stage, place), ratio in zip(self._blocks, lists.e, strict=True):
            if place < values[f"stage{stage + 1}.depth"]:
                values[f"{block_name(stage, place)}.expand_ratio"] = ratio
        return self._from_gene_values(values, where)

    def to_ofa(self, architecture: Architecture) -> dict[str, Any]:
        """Return Once-for-All's lists ``d``, ``e``, ``w`` and the resolution ``r``, with the smallest equal choices."""
        values = self._gene_values(architecture)
        depths = [values[f"stage{number + 1}.depth"] - base for number, base in enumerate(_BASE_DEPTHS)]
        names = ("stem.mid.width", "stem.width", *(f"stage{number + 1}.width" for number in range(len(_WIDTHS))))
        return {
            "d": [self.depths[-1] if values["stem.depth"] else self.depths[0], *depths],
            "e": [values[f"{block_name(*block)}.expand_ratio"] for block in self._blocks],
            "w": [channels.index(int(values[name])) for channels, name in zip(self._widths, names, strict=True)],
            "r": architecture.resolution,
        }


@dataclass(frozen=True)
class _StemDescription:
    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    residual: bool
    mid: int
    width: int


@dataclass(frozen=True)
class _StageDescription:
    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    width: int
    expand_ratios: tuple[float, ...]


@dataclass(frozen=True)
class _Description:
    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    resolution: int
    stem: _StemDescription
    stages: tuple[_StageDescription, ...]
    id: Any = None  # compared with that of the choices


@dataclass(frozen=True)
class _OfaLists(OfaLists):
    d: tuple[int, ...]
    e: tuple[Any, ...]  # skipped blocks may have any value
    w: tuple[int, ...]
