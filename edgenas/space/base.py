"""Search spaces: which architectures exist, as genes, and what each consists of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from edgenas.costs import Genes, Vector, apply_in_chunks
from edgenas.errors import SpaceError, UsageError
from edgenas.files import canonical_json, digest, parse_dataclass, read_yaml
from edgenas.space import parts as part_costs
from edgenas.space.parts import Part

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u to misread


@dataclass(frozen=True)
class Gene:
    """One choice of a space: its name and the values it may take, ascending. A gene is an index into them."""

    name: str
    values: tuple[float, ...]

    @property
    def kind(self) -> str:
        """What it chooses: the last word of its name, for example ``kernel_size``."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Slot:
    """A place in the network: the part that sits there, as a function of a few genes.

    ``parts`` lists the part for every combination of the genes in ``columns``
    (the last varies fastest); None where the place is empty.
    """

    name: str
    columns: tuple[int, ...]
    parts: tuple[Part | None, ...]


class SearchSpace(ABC):
    """A set of architectures. Subclasses are frozen values; ``family`` is their name in files.

    A subclass defines ``genes``, ``slots`` and ``dead_genes``; everything else
    follows from them. Genes matrices are int64 of shape (N, G), one row an
    architecture, each number an index into its gene's values.
    """

    family: ClassVar[str]
    resolutions: tuple[int, ...]
    classes: int

    @property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """The choices, in the order of a genes matrix's columns. The first is the resolution."""

    @property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """The places of the network, from input to output."""

    @abstractmethod
    def dead_genes(self, genes: Genes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mask (N, G) of the genes that have no effect."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The exact number of different networks."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Self:
        """The inverse of ``to_dict``; raises UsageError naming ``where`` for unknown keys and wrong values."""
        return parse_dataclass(cls, {key: value for key, value in data.items() if key != "family"}, where)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """A space of one's own from a YAML file with any of the fields of this class."""
        data = read_yaml(Path(path))
        if not isinstance(data, dict):
            raise UsageError(f"{path}: a space must be a mapping, for example 'classes: 10'")
        return cls.from_dict(data, str(path))

    def to_dict(self) -> dict[str, Any]:
        """The space as plain data, ``family`` included."""
        fields: Any = self  # every space is a dataclass
        return {"family": self.family, **asdict(fields)}

    @abstractmethod
    def describe(self, architecture: Architecture) -> dict[str, Any]:
        """The live choices of an architecture as plain, readable data."""

    @abstractmethod
    def from_ofa(self, config: Mapping[str, Any], resolution: int, where: str = "Once-for-All config") -> Architecture:
        """An architecture from Once-for-All's lists; skipped blocks may have any value. Raises UsageError."""

    @abstractmethod
    def to_ofa(self, architecture: Architecture) -> dict[str, Any]:
        """Once-for-All's lists, and the resolution ``r``; skipped blocks have the smallest values."""

    @abstractmethod
    def from_description(self, data: Mapping[str, Any], where: str) -> Architecture:
        """The inverse of ``describe``; raises UsageError naming ``where`` and the rule that is broken."""

    # -- genes ------------------------------------------------------------------

    @cached_property
    def radices(self) -> Genes:
        """How many values each gene has, shape (G,)."""
        return np.array([len(gene.values) for gene in self.genes], dtype=np.int64)

    def differs_in_more_than_resolutions(self, other: SearchSpace) -> bool:
        """Whether the two need other weights: those do not depend on which resolutions there are."""
        if self == other:
            return False
        mine, theirs = ({**space.to_dict(), "resolutions": ()} for space in (self, other))
        return mine != theirs

    @cached_property
    def short_hash(self) -> str:
        """Six characters that stand for the whole space in an architecture's id."""
        return _to_base32(int(digest(canonical_json(self.to_dict())), 16))[:6]

    def canonical(self, genes: Genes) -> Genes:
        """Genes (N, G) with every choice that has no effect set to 0: equal networks get equal rows."""
        return np.where(self.dead_genes(genes), 0, genes)

    def sample(self, count: int, rng: np.random.Generator) -> Genes:
        """``count`` canonical rows, each gene drawn uniformly from its values.

        This is Once-for-All's sampling (arXiv 1908.09791); dead genes are
        cleared afterwards, so shallow stages are as frequent as deep ones.
        """
        return self.canonical(rng.integers(0, self.radices, size=(count, len(self.genes)), dtype=np.int64))

    def sample_distinct(self, count: int, rng: np.random.Generator) -> Genes:
        """The smallest and the largest architecture, then random ones, none twice: ``min(count, size)`` rows.

        A longer sample from an equal generator begins with the shorter one.
        """
        rows = {self.smallest.genes: None, self.largest.genes: None}
        while len(rows) < min(count, self.size):
            rows.update(dict.fromkeys(tuple(row) for row in self.sample(64, rng).tolist()))
        return np.array(list(rows)[:count], dtype=np.int64)

    def encode(self, architectures: Sequence[Architecture]) -> Genes:
        """Architectures as a genes matrix (N, G)."""
        rows = [architecture.genes for architecture in architectures]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.genes))

    def decode(self, genes: Genes) -> list[Architecture]:
        """A genes matrix (N, G) as architectures; raises SpaceError for a gene out of range."""
        return [Architecture(self, tuple(int(gene) for gene in row)) for row in genes]

    @property
    def smallest(self) -> Architecture:
        """Every gene at its smallest value."""
        return Architecture(self, (0,) * len(self.genes))

    @property
    def largest(self) -> Architecture:
        """Every gene at its largest value."""
        return Architecture(self, tuple(int(radix) - 1 for radix in self.radices))

    def from_id(self, text: str) -> Architecture:
        """The architecture of an id; raises SpaceError when it is no id of this space."""
        prefix, _, number = text.partition("-")
        if prefix != self.short_hash or not number:
            raise SpaceError(f"{text!r} is no architecture of this space: its ids begin with {self.short_hash}-")
        if any(letter not in _BASE32 for letter in number):
            raise SpaceError(f"{text!r} is no architecture id: after the dash it may only have {_BASE32}")
        value = 0
        for letter in number:
            value = value * 32 + _BASE32.index(letter)
        genes = []
        for radix in reversed(self.radices.tolist()):
            value, gene = divmod(value, radix)
            genes.append(gene)
        architecture = Architecture(self, tuple(reversed(genes)))
        if value or architecture.id != text:
            raise SpaceError(f"{text!r} is no architecture id of this space: it decodes to no canonical genes")
        return architecture

    # -- readable forms ---------------------------------------------------------------

    def _values(self, architecture: Architecture) -> dict[str, float]:
        return {gene.name: gene.values[index] for gene, index in zip(self.genes, architecture.genes, strict=True)}

    def _from_values(self, values: Mapping[str, float], where: str) -> Architecture:
        genes = []
        for gene in self.genes:
            value = values.get(gene.name, gene.values[0])
            if value not in gene.values:
                allowed = ", ".join(map(str, gene.values))
                raise SpaceError(f"{where}: {gene.name} must be one of {allowed}, but got {value}")
            genes.append(gene.values.index(value))
        return Architecture(self, tuple(genes))

    def _checked_id(self, architecture: Architecture, data: Mapping[str, Any], where: str) -> Architecture:
        """The architecture of a description, refused when the description has another's id."""
        if data.get("id", architecture.id) != architecture.id:
            raise SpaceError(f"{where}: the id {data['id']!r} belongs to other choices; correct or remove it")
        return architecture

    # -- costs ------------------------------------------------------------------

    @cached_property
    def distinct_parts(self) -> tuple[Part, ...]:
        """Every part that any architecture can have, once each by key."""
        found: dict[str, Part] = {}
        for slot in self.slots:
            for part in slot.parts:
                if part is not None:
                    found.setdefault(part.key, part)
        return tuple(found.values())

    @cached_property
    def _part_numbers(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], ...]:
        """Per slot, the number in ``distinct_parts`` of each of its parts; -1 where it is empty."""
        number = {part.key: index for index, part in enumerate(self.distinct_parts)}
        return tuple(np.array([-1 if part is None else number[part.key] for part in slot.parts]) for slot in self.slots)

    def part_indices(self, genes: Genes) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
        """For each slot in turn, which of ``distinct_parts`` each architecture has there, shape (N,); -1 for none."""
        for slot, numbers in zip(self.slots, self._part_numbers, strict=True):
            yield numbers[_combination(genes, slot.columns, self.radices)]

    def sum_over_parts(self, genes: Genes, cost: Vector) -> Vector:
        """The sum over each architecture's parts of ``cost`` (P,), one entry for each of ``distinct_parts``."""
        padded = np.append(cost, 0.0)

        def added(rows: Genes) -> Vector:
            total = np.zeros(len(rows))
            for indices in self.part_indices(rows):
                total += padded[indices]
            return total

        return apply_in_chunks(added, genes)

    def max_over_parts(self, genes: Genes, cost: Vector) -> Vector:
        """As ``sum_over_parts``, with the largest instead of the sum."""
        padded = np.append(cost, -np.inf)

        def most(rows: Genes) -> Vector:
            largest = np.full(len(rows), -np.inf)
            for indices in self.part_indices(rows):
                np.maximum(largest, padded[indices], out=largest)
            return largest

        return apply_in_chunks(most, genes)

    def part_costs(self, function: Callable[[Part], float]) -> Vector:
        """``function`` of each of ``distinct_parts``, shape (P,)."""
        return np.array([function(part) for part in self.distinct_parts], dtype=np.float64)

    @cached_property
    def _static_costs(self) -> dict[str, Vector]:
        functions = (part_costs.params, part_costs.macs, part_costs.weight_bytes, part_costs.activation_bytes)
        return {function.__name__: self.part_costs(function) for function in functions}

    def params(self, genes: Genes) -> Vector:
        """Parameters of each architecture, batch norm not folded."""
        return self.sum_over_parts(genes, self._static_costs["params"])

    def macs(self, genes: Genes) -> Vector:
        """Multiply-accumulates of one inference of each architecture."""
        return self.sum_over_parts(genes, self._static_costs["macs"])

    def weight_bytes(self, genes: Genes) -> Vector:
        """Bytes of each architecture's float32 weights as exported."""
        return self.sum_over_parts(genes, self._static_costs["weight_bytes"])

    def activation_bytes(self, genes: Genes) -> Vector:
        """Peak bytes of each architecture's own float32 activations."""
        return self.max_over_parts(genes, self._static_costs["activation_bytes"])


@dataclass(frozen=True)
class Architecture:
    """One point of a space, canonical and validated when made: equal networks are equal values.

    ``genes`` are indices into the values of ``space.genes``. Raises SpaceError
    when their number or range is wrong.
    """

    space: SearchSpace
    genes: tuple[int, ...]

    def __post_init__(self) -> None:
        space = self.space
        if len(self.genes) != len(space.genes):
            raise SpaceError(f"an architecture of this space has {len(space.genes)} genes, but got {len(self.genes)}")
        for gene, index in zip(space.genes, self.genes, strict=True):
            if not 0 <= index < len(gene.values):
                raise SpaceError(f"gene {gene.name} must be from 0 to {len(gene.values) - 1}, but got {index}")
        row = space.canonical(np.array([self.genes], dtype=np.int64))[0]
        object.__setattr__(self, "genes", tuple(int(gene) for gene in row))

    @cached_property
    def id(self) -> str:
        """The canonical genes as one mixed-radix number in base 32 behind the space's short hash."""
        value = 0
        for gene, radix in zip(self.genes, self.space.radices.tolist(), strict=True):
            value = value * radix + gene
        width = math.ceil(math.log2(math.prod(self.space.radices.tolist())) / 5)
        return f"{self.space.short_hash}-{_to_base32(value).rjust(width, '0')}"

    @property
    def resolution(self) -> int:
        """Height and width of the input, pixels."""
        return self.space.resolutions[self.genes[0]]

    def at_resolution(self, resolution: int) -> Architecture:
        """The same network for another input size; raises SpaceError when the space does not have it."""
        choices = self.space.resolutions
        if resolution not in choices:
            raise SpaceError(f"resolution must be one of {', '.join(map(str, choices))}, but got {resolution}")
        return Architecture(self.space, (choices.index(resolution), *self.genes[1:]))

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The parts by the name of their place, from input to output."""
        row = np.array([self.genes], dtype=np.int64)
        radices = self.space.radices
        found = {slot.name: slot.parts[int(_combination(row, slot.columns, radices)[0])] for slot in self.space.slots}
        return {name: part for name, part in found.items() if part is not None}

    def to_dict(self) -> dict[str, Any]:
        """The architecture as plain data: its id and its live choices."""
        return {"id": self.id, **self.space.describe(self)}

    def to_ofa(self) -> dict[str, Any]:
        """Once-for-All's lists and the resolution ``r``; ``space.from_ofa`` is the inverse."""
        return self.space.to_ofa(self)

    def __str__(self) -> str:
        return self.id


def _combination(genes: Genes, columns: tuple[int, ...], radices: Genes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The number of each row's combination of ``columns``, the last varying fastest; shape (N,)."""
    number = np.zeros(len(genes), dtype=np.int64)
    for column in columns:
        number *= radices[column]
        number += genes[:, column]
    return number


def _to_base32(value: int) -> str:
    letters = ""
    while value:
        value, digit = divmod(value, 32)
        letters = _BASE32[digit] + letters
    return letters or "0"
