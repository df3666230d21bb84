"""The rules that a search space must keep, checked before anything is made of it."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable

import numpy as np

from edgenas.errors import EdgeNASError, SpaceError
from edgenas.space.base import Architecture, SearchSpace
from edgenas.space.rules import require
from edgenas.units import format_bytes

_SAMPLES = 16


def check_space(space: SearchSpace) -> None:
    """Raise SpaceError, naming the family and the broken rule, for a space that contradicts itself.

    A family of another package may break any rule, which would show only after hours of training, or in wrong costs.
    """
    try:
        _check_genes(space)
        _check_slots(space)
        check_memory(space)
        for architecture in space.decode(space.sample_distinct(_SAMPLES, np.random.default_rng(0))):
            _check_shapes(architecture)
    except EdgeNASError as error:
        raise SpaceError(f"family {space.family}: {error}") from error
    except Exception as error:  # what a family's own code raises
        raise SpaceError(f"family {space.family}: {type(error).__name__}: {error}; correct the family") from error


def check_memory(space: SearchSpace) -> None:
    """Raise SpaceError for a space whose supernet cannot be in this machine's memory, before one is made."""
    parameters = float(space.params(space.encode([space.largest]))[0])
    # As float32: the weights, their gradients and momenta.
    needed, memory = 3 * 4 * parameters, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    require(
        needed <= memory,
        f"its largest network has {parameters:,.0f} parameters, which take {format_bytes(needed)} in training, and this"
        f" machine has {format_bytes(memory)}: give smaller widths, or fewer classes",
    )


def _check_genes(space: SearchSpace) -> None:
    genes = space.genes
    require(bool(genes) and tuple(genes[0].values) == tuple(space.resolutions), "the first gene must be the resolution")
    _require_distinct("genes", (gene.name for gene in genes))
    for gene in genes:
        ascending = list(gene.values) == sorted(set(gene.values))
        require(bool(gene.values) and ascending, f"values of gene {gene.name} must ascend, but are {list(gene.values)}")
    drawn = np.random.default_rng(0).integers(0, space.radices, (_SAMPLES, len(genes)), dtype=np.int64)
    dead = space.dead_genes(drawn)
    right = isinstance(dead, np.ndarray) and dead.dtype == np.bool_ and dead.shape == drawn.shape
    require(right, "dead_genes must return a mask of the shape of its genes")
    require(isinstance(space.size, int) and space.size > 0, f"size must be an int above 0, but is {space.size!r}")


def _check_slots(space: SearchSpace) -> None:
    _require_distinct("slots", (slot.name for slot in space.slots))
    for slot in space.slots:
        wrong = [column for column in slot.columns if not 0 <= column < len(space.genes)]
        require(not wrong, f"slot {slot.name}: there is no column {wrong[:1]}")
        count = math.prod(len(space.genes[column].values) for column in slot.columns)
        require(len(slot.parts) == count, f"slot {slot.name} must have {count} parts, but has {len(slot.parts)}")
        for part in dict.fromkeys(slot.parts):
            if part is not None:
                _require_distinct(f"layers of {slot.name}", (layer.name for layer in part.graph.layers))


def _check_shapes(architecture: Architecture) -> None:
    parts = list(architecture.parts.items())
    for (name, part), (next_name, next_part) in itertools.pairwise(parts):
        require(
            part.out_shape == next_part.in_shape,
            f"{name} makes {part.out_shape}, but {next_name} takes {next_part.in_shape} (channels, height, width)",
        )
    name, part = parts[-1]
    classes = (architecture.space.classes, 1, 1)
    require(part.out_shape == classes, f"{name} is the last part and must make {classes}, but makes {part.out_shape}")


def _require_distinct(what: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    require(not twice, f"{what} must have different names, but {twice[:1]} occurs twice")
