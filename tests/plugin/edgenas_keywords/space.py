"""A space of depthwise-separable convolutions over spectrograms (Hello Edge, arXiv 1711.07128)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Genes
from edgenas.errors import SpaceError
from edgenas.space import Architecture, Gene, Part, SearchSpace, Slot
from edgenas.space.blocks.plain import ConvPart, GlobalPoolPart, LinearPart
from edgenas.space.layers import GraphBuilder


@dataclass(frozen=True)
class DepthwiseSeparable(Part):
    """A depthwise and a 1x1 convolution, each with batch norm and ReLU."""

    operator: ClassVar[str] = "separable"
    label: ClassVar[str] = "separable conv"

    out_channels: int
    kernel: int

    def build(self, b: GraphBuilder) -> None:
        y = b.depthwise("depthwise", 0, self.kernel, bn_eps=1e-5, activation="relu", transform="transform")
        b.conv_bn("pointwise", y, self.out_channels, bn_eps=1e-5, activation="relu")


@dataclass(frozen=True, repr=False)
class KeywordSpace(SearchSpace):
    """A stem and up to three separable convolutions, elastic in depth and kernels.

    The inputs have one channel, ``resolutions`` frames of time, and ``bands`` of frequency.
    """

    family: ClassVar[str] = "keywords"

    resolutions: tuple[int, ...] = (24, 32)
    bands: int = 10
    classes: int = 4
    channels: int = 16
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    depths: tuple[int, ...] = (1, 2, 3)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:
        kernels = (Gene(f"stage1.block{place}.kernel_size", self.kernel_sizes) for place in self._places)
        return (Gene("resolution", self.resolutions), Gene("stage1.depth", self.depths), *kernels)

    @property
    def _places(self) -> range:
        return range(1, self.depths[-1] + 1)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        channels, half = self.channels, (self.bands + 1) // 2
        stem = tuple(ConvPart((1, size, self.bands), channels, 3, 2, "relu") for size in self.resolutions)
        pool = tuple(GlobalPoolPart((channels, (size + 1) // 2, half)) for size in self.resolutions)
        blocks = []
        for place in self._places:
            parts = (
                DepthwiseSeparable((channels, (size + 1) // 2, half), channels, kernel) if place <= depth else None
                for size, depth, kernel in product(self.resolutions, self.depths, self.kernel_sizes)
            )
            blocks.append(Slot(f"stage1.block{place}", (0, 1, 1 + place), tuple(parts)))
        linear = LinearPart((channels, 1, 1), self.classes)
        return (Slot("stem", (0,), stem), *blocks, Slot("pool", (0,), pool), Slot("classifier", (), (linear,)))

    @property
    def size(self) -> int:
        return len(self.resolutions) * int(sum(len(self.kernel_sizes) ** depth for depth in self.depths))

    def dead_genes(self, genes: Genes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        dead = np.zeros(genes.shape, dtype=bool)
        dead[:, 2:] = np.array(self.depths)[genes[:, 1], None] < np.array(self._places)
        return dead

    def describe(self, architecture: Architecture) -> dict[str, Any]:
        dead = self.dead_genes(np.array([architecture.genes]))[0]
        values = self._gene_values(architecture)
        return {gene.name: values[gene.name] for gene, skipped in zip(self.genes, dead, strict=True) if not skipped}

    def from_description(self, data: Mapping[str, Any], where: str) -> Architecture:
        values = {key: value for key, value in data.items() if key != "id"}
        if unknown := sorted(values.keys() - {gene.name for gene in self.genes}):
            raise SpaceError(
                f"{where}: unknown key {unknown[0]!r}; known: {', '.join(gene.name for gene in self.genes)}"
            )
        return self._check_id(self._from_gene_values(values, where), data, where)
