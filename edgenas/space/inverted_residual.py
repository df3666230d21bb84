"""The base class of spaces of inverted residual blocks (MobileNetV2, arXiv 1801.04381), and their stages."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Genes
from edgenas.errors import SpaceError
from edgenas.files import parse_dataclass
from edgenas.space.base import Architecture, Gene, SearchSpace, Slot
from edgenas.space.blocks.inverted_residual import InvertedResidual
from edgenas.space.blocks.plain import ConvPart, GlobalPoolPart
from edgenas.space.ofa_lists import OfaLists, parse_ofa_lists
from edgenas.space.parts import Part
from edgenas.space.rules import (
    FORBID_UNKNOWN,
    block_name,
    check_choices,
    check_classes,
    check_part_count,
    check_width,
    make_divisible,
    require,
    strided_size,
)

_ACTIVATIONS = ("relu", "relu6", "hswish")


@dataclass(frozen=True)
class Stage:
    """A sequence of blocks of one width. Only the first block may change size and width; then it has no shortcut.

    Args:
        width: The channels before the space's multiplier.
        stride: The stride of the first block, 1 or 2.
        activation: ``relu``, ``relu6`` or ``hswish``.
        se: Whether the blocks have squeeze-excite.
        depths: The numbers of blocks to choose from; None for the space's.

    Raises:
        SpaceError: A value is impossible.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    width: int
    stride: int
    activation: str
    se: bool
    depths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        check_width("a stage's width", self.width)
        require(self.stride in (1, 2), f"a stage's stride must be 1 or 2, but got {self.stride}")
        require(
            self.activation in _ACTIVATIONS,
            f"a stage's activation must be one of {', '.join(_ACTIVATIONS)}, but got {self.activation!r}",
        )
        if self.depths is not None:
            object.__setattr__(self, "depths", check_choices("a stage's depths", self.depths))


@dataclass(frozen=True, repr=False)
class InvertedResidualSpace(SearchSpace):
    """A space of inverted residual blocks, elastic in depth, kernel size and expand ratio; abstract.

    The depth is chosen for each stage, kernel size and expand ratio for each
    block. All widths are multiplied by ``width`` and rounded to multiples of
    eight. A stem and a fixed block come first, then the stages, then the
    family's head. Raises SpaceError when a choice is empty, repeated or
    impossible.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    width: float
    resolutions: tuple[int, ...]
    classes: int
    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]
    depths: tuple[int, ...]
    stem: int
    stem_stride: int
    stages: tuple[Stage, ...]

    # Fixed by the family: activation of stem and head, the first block, batch norm's epsilon.
    _activation: ClassVar[str]
    _first_activation: ClassVar[str]
    _first_shortcut: ClassVar[bool]
    _bn_eps: ClassVar[float]

    @property
    @abstractmethod
    def _first_width(self) -> int:
        """The width of the fixed block after the stem, before the multiplier."""

    @abstractmethod
    def _head(self, entry: int) -> tuple[Slot, ...]:
        """Return the slots after the last stage, which gives ``entry`` channels."""

    def __post_init__(self) -> None:
        for name in ("resolutions", "kernel_sizes", "expand_ratios", "depths"):
            object.__setattr__(self, name, check_choices(name, getattr(self, name)))
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "width", float(self.width))
        require(0 < self.width <= 16, f"width must be above 0 and at most 16, but got {self.width}")
        check_classes(self.classes)
        even = [size for size in self.kernel_sizes if size % 2 == 0]
        require(not even, f"kernel_sizes must be odd, but got {even}")
        require(self.expand_ratios[0] > 1, f"expand_ratios must be above 1, but got {self.expand_ratios[0]}")
        require(bool(self.stages), "a space needs at least one stage")
        require(self.stem_stride in (1, 2), f"stem_stride must be 1 or 2, but got {self.stem_stride}")
        check_width("stem", self.stem)
        blocks = sum(len(depths) * depths[-1] for depths in map(self._stage_depths, range(len(self.stages))))
        check_part_count(len(self.resolutions) * len(self.kernel_sizes) * len(self.expand_ratios) * blocks)

    def __repr__(self) -> str:
        name, _, fields = super().__repr__().partition("(")
        return f"{name}(width {self.width:g}, {fields}"

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
            *(Gene(f"{block_name(*block)}.kernel_size", self.kernel_sizes) for block in blocks),
            *(Gene(f"{block_name(*block)}.expand_ratio", self.expand_ratios) for block in blocks),
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
        first = 1 + len(self.stages)
        stem, entry = self._channels(self.stem), self._channels(self._first_width)
        slots = [
            self._fixed_slot("stem", lambda size: self._conv_part(size, 3, stem, 3, self.stem_stride)),
            self._fixed_slot("block0", lambda size: self._first_block(self._size_after(size, 0), stem, entry)),
        ]
        for number, (stage, place) in enumerate(self._blocks):
            columns = (0, 1 + stage, first + number, first + len(self._blocks) + number)
            slots.append(Slot(block_name(stage, place), columns, self._block_parts(stage, place)))
        return (*slots, *self._head(self._channels(self.stages[-1].width)))

    def _conv_part(self, size: int, entry: int, out: int, kernel: int = 1, stride: int = 1) -> Part:
        """Return a convolution outside of the blocks."""
        activation, eps = self._activation, self._bn_eps
        return ConvPart((entry, size, size), out, kernel, stride, activation, bn_eps=eps)

    def _first_block(self, size: int, entry: int, out: int) -> Part:
        """Return the fixed block after the stem, which has no expansion."""
        activation, shortcut, eps = self._first_activation, self._first_shortcut, self._bn_eps
        return InvertedResidual(
            (entry, size, size), out, 3, 1, activation, mid_channels=entry, shortcut=shortcut, bn_eps=eps
        )

    def _pool(self, resolution: int, channels: int) -> Part:
        """Return the mean over the feature map after the last stage."""
        size = self._size_after(resolution, len(self.stages))
        return GlobalPoolPart((channels, size, size))

    def _fixed_slot(self, name: str, part: Callable[[int], Part]) -> Slot:
        """Return a slot whose part depends on the resolution alone."""
        return Slot(name, (0,), tuple(part(size) for size in self.resolutions))

    def _size_after(self, resolution: int, stages: int) -> int:
        """Return the size of the feature map after the stem and ``stages`` stages."""
        size = strided_size(resolution, self.stem_stride)
        for stage in self.stages[:stages]:
            size = strided_size(size, stage.stride)
        return size

    def _block_parts(self, stage: int, place: int) -> tuple[Part | None, ...]:
        config = self.stages[stage]
        out = self._channels(config.width)
        before = self._channels(self.stages[stage - 1].width if stage else self._first_width)
        entry = before if place == 0 else out
        stride = config.stride if place == 0 else 1
        parts: list[Part | None] = []
        for resolution, depth, kernel, ratio in itertools.product(
            self.resolutions, self._stage_depths(stage), self.kernel_sizes, self.expand_ratios
        ):
            if depth <= place:
                parts.append(None)
                continue
            size = self._size_after(resolution, stage if place == 0 else stage + 1)
            mid = make_divisible(entry * ratio)
            part = InvertedResidual(
                (entry, size, size),
                out,
                kernel,
                stride,
                config.activation,
                mid_channels=mid,
                se_channels=make_divisible(mid // 4) if config.se else 0,
                expand=True,
                shortcut=stride == 1 and entry == out,
                bn_eps=self._bn_eps,
            )
            parts.append(part)
        return tuple(parts)

    # -- readable forms ---------------------------------------------------------------

    def describe(self, architecture: Architecture) -> dict[str, Any]:
        values = self._gene_values(architecture)
        stages = []
        for stage in range(len(self.stages)):
            live = [block_name(stage, place) for place in range(int(values[f"stage{stage + 1}.depth"]))]
            stages.append(
                {
                    "kernel_sizes": [values[f"{block}.kernel_size"] for block in live],
                    "expand_ratios": [values[f"{block}.expand_ratio"] for block in live],
                }
            )
        return {"resolution": architecture.resolution, "stages": stages}

    def from_description(self, data: Mapping[str, Any], where: str) -> Architecture:
        description = parse_dataclass(_Description, data, where)
        if len(description.stages) != len(self.stages):
            raise SpaceError(f"{where}: this space has {len(self.stages)} stages, but got {len(description.stages)}")
        values: dict[str, float] = {"resolution": description.resolution}
        for number, stage in enumerate(description.stages):
            depth = len(stage.kernel_sizes)
            if len(stage.expand_ratios) != depth:
                raise SpaceError(
                    f"{where}: stage{number + 1} has {depth} kernel_sizes and {len(stage.expand_ratios)} expand_ratios;"
                    " give one of each per block"
                )
            values[f"stage{number + 1}.depth"] = depth
            for place in range(depth):
                values[f"{block_name(number, place)}.kernel_size"] = stage.kernel_sizes[place]
                values[f"{block_name(number, place)}.expand_ratio"] = stage.expand_ratios[place]
        return self._check_id(self._from_gene_values(values, where), data, where)

    def from_ofa(
        self, config: Mapping[str, Any], resolution: int | None = None, where: str = "Once-for-All config"
    ) -> Architecture:
        """Return the architecture of Once-for-All's lists ``ks``, ``e`` (one entry a block) and ``d`` (one a stage).

        The resolution and errors are as in ``SearchSpace.from_ofa``.
        """
        lists, resolution = parse_ofa_lists(_OfaLists, config, resolution, self.resolutions[-1], where)
        # Published lists leave out the depth of a last stage that has no choice.
        omitted = [self._stage_depths(stage) for stage in range(len(lists.d), len(self.stages))]
        if all(len(depths) == 1 for depths in omitted):
            lists = replace(lists, d=(*lists.d, *(depth for depths in omitted for depth in depths)))
        for name, length in (("ks", len(self._blocks)), ("e", len(self._blocks)), ("d", len(self.stages))):
            if len(getattr(lists, name)) != length:
                raise SpaceError(f"{where}: {name!r} must have {length} entries, but got {len(getattr(lists, name))}")
        values: dict[str, float] = {"resolution": resolution}
        for stage, depth in enumerate(lists.d):
            values[f"stage{stage + 1}.depth"] = depth
        for (stage, place), kernel, ratio in zip(self._blocks, lists.ks, lists.e, strict=True):
            if place < lists.d[stage]:
                values[f"{block_name(stage, place)}.kernel_size"] = kernel
                values[f"{block_name(stage, place)}.expand_ratio"] = ratio
        return self._from_gene_values(values, where)

    def to_ofa(self, architecture: Architecture) -> dict[str, Any]:
        """Return Once-for-All's ``ks``, ``e``, ``d`` and resolution ``r``. Skipped blocks have the smallest values."""
        values = self._gene_values(architecture)
        names = [block_name(*block) for block in self._blocks]
        return {
            "ks": [values[f"{name}.kernel_size"] for name in names],
            "e": [values[f"{name}.expand_ratio"] for name in names],
            "d": [values[f"stage{stage + 1}.depth"] for stage in range(len(self.stages))],
            "r": architecture.resolution,
        }


@dataclass(frozen=True)
class _StageDescription:
    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    kernel_sizes: tuple[int, ...]
    expand_ratios: tuple[int, ...]


@dataclass(frozen=True)
class _Description:
    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    resolution: int
    stages: tuple[_StageDescription, ...]
    id: Any = None  # compared with that of the choices


@dataclass(frozen=True)
class _OfaLists(OfaLists):
    ks: tuple[Any, ...]  # skipped blocks may have any value
    e: tuple[Any, ...]
    d: tuple[int, ...]
