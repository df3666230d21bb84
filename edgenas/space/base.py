"""The base class of search spaces, with their genes and slots, and one architecture of a space."""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from edgenas.costs import Genes, Vector, apply_in_chunks
from edgenas.errors import SpaceError, UsageError
from edgenas.files import canonical_json_bytes, check_keys, parse_dataclass, read_yaml, sha256_hex
from edgenas.space import parts as part_functions
from edgenas.space.layers import Shape
from edgenas.space.parts import Part
from edgenas.space.rules import FORBID_UNKNOWN

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u to misread
SHORT_NAME = 6  # characters of a name that is a digest


@dataclass(frozen=True)
class Gene:
    """One choice of a space: its name and its possible values, ascending.

    In a genes matrix the choice is an index into these values.
    """

    name: str
    values: tuple[float, ...]

    @property
    def kind(self) -> str:
        """The kind of choice: the last word of the name, for example ``kernel_size``."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Slot:
    """A place in the network, and the part at that place as a function of a few genes.

    Args:
        name: The place's name, for example ``stage1.block1``.
        columns: The columns of the genes that decide.
        parts: The part for every combination of these genes, the last varying fastest; None where the place is empty.
    """

    name: str
    columns: tuple[int, ...]
    parts: tuple[Part | None, ...]


class SearchSpace(ABC):
    """A set of architectures; abstract.

    A genes matrix is int64 of shape (N, G): one row for each architecture, one
    column for each gene, and each number an index into the gene's values.

    Subclasses are frozen dataclasses. ``family`` is their name in files. They
    define ``genes``, ``slots``, ``dead_genes``, ``size`` and the readable
    forms; everything else follows from these.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    family: ClassVar[str]
    resolutions: tuple[int, ...]
    classes: int

    @property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """The genes in the order of a genes matrix's columns. The first is the resolution."""

    @property
    @abstractmethod
    def slots(self) -> tuple[Slot, ...]:
        """The places of the network, from input to output."""

    @abstractmethod
    def dead_genes(self, genes: Genes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return the mask (N, G) of the genes that have no effect, such as those of skipped blocks."""

    @property
    @abstractmethod
    def size(self) -> int:
        """The exact number of different networks."""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Self:
        """Return a space from what ``to_dict`` gives; missing fields have their defaults.

        Raises UsageError, naming ``where``, for unknown keys and wrong values.
        """
        space: Any = cls  # every space is a dataclass
        check_keys(data, ["family", *(field.name for field in fields(space))], where)
        return parse_dataclass(cls, {key: value for key, value in data.items() if key != "family"}, where)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Return a space from a YAML file with any of the fields of this class.

        Raises UsageError, naming the file, for unknown keys and wrong values.
        """
        data = read_yaml(Path(path))
        if not isinstance(data, dict):
            raise UsageError(f"{path}: a space must be a mapping, for example 'classes: 10'")
        return cls.from_dict(data, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the space as plain data, ``family`` included."""
        space: Any = self  # every space is a dataclass
        return {"family": self.family, **asdict(space)}

    def __repr__(self) -> str:
        pixels = f"{self.resolutions[0]} to {self.resolutions[-1]} pixels"
        return f"{type(self).__name__}({self.classes} classes, {pixels}, {self.short_hash})"

    @abstractmethod
    def describe(self, architecture: Architecture) -> dict[str, Any]:
        """Return the live choices of an architecture as plain, readable data."""

    @abstractmethod
    def from_description(self, data: Mapping[str, Any], where: str) -> Architecture:
        """Return the architecture that ``describe`` described.

        Raises UsageError, naming ``where`` and the broken rule.
        """

    # -- genes ------------------------------------------------------------------

    @cached_property
    def radices(self) -> Genes:
        """The number of values of each gene, (G,)."""
        return np.array([len(gene.values) for gene in self.genes], dtype=np.int64)

    def differs_in_more_than_resolutions(self, other: SearchSpace) -> bool:
        """Return true when weights of one space do not fit the other. Weights do not depend on the resolutions."""
        return self != other and {**self.to_dict(), "resolutions": ()} != {**other.to_dict(), "resolutions": ()}

    @cached_property
    def short_hash(self) -> str:
        """Six characters that identify the space in the ids of its architectures."""
        return short_name(self.to_dict())

    @cached_property
    def _id_length(self) -> int:
        """The least number of characters of an architecture's id after the dash."""
        return math.ceil(math.log2(math.prod(self.radices.tolist())) / 5)

    def canonical(self, genes: Genes) -> Genes:
        """Return genes (N, G) with every gene without effect set to 0, so that equal networks have equal rows."""
        return np.where(self.dead_genes(genes), 0, genes)

    def sample(self, count: int, rng: np.random.Generator) -> Genes:
        """Return ``count`` random architectures as canonical genes (count, G), each gene drawn uniformly.

        This is Once-for-All's sampling (arXiv 1908.09791). Dead genes are
        cleared afterwards, so shallow stages are as frequent as deep ones.
        """
        return self.canonical(rng.integers(0, self.radices, size=(count, len(self.genes)), dtype=np.int64))

    def sample_distinct(self, count: int, rng: np.random.Generator) -> Genes:
        """Return the smallest and the largest architecture and then random ones, none twice.

        There are ``min(count, size)`` rows. A longer sample from an equal
        generator begins with the shorter one.
        """
        rows = {self.smallest.genes: None, self.largest.genes: None}
        while len(rows) < min(count, self.size):
            rows.update(dict.fromkeys(tuple(row) for row in self.sample(64, rng).tolist()))
        return np.array(list(rows)[:count], dtype=np.int64)

    def encode(self, architectures: Sequence[Architecture]) -> Genes:
        """Return architectures as a genes matrix (N, G)."""
        rows = [architecture.genes for architecture in architectures]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.genes))

    def decode(self, genes: Genes) -> list[Architecture]:
        """Return the architectures of a genes matrix (N, G). Raises SpaceError for a gene out of range."""
        return [Architecture(self, tuple(int(gene) for gene in row)) for row in genes]

    @property
    def smallest(self) -> Architecture:
        """The architecture with every gene at its smallest value."""
        return Architecture(self, (0,) * len(self.genes))

    @property
    def largest(self) -> Architecture:
        """The architecture with every gene at its largest value."""
        return Architecture(self, tuple(int(radix) - 1 for radix in self.radices))

    def from_id(self, text: str) -> Architecture:
        """Return the architecture with an id, and the name of its weights where the id has one.

        Raises SpaceError when it is no id of this space.
        """
        name, plus, weights = text.partition("+")
        if plus:
            _check_name_of_weights(weights)
        prefix, _, number = name.partition("-")
        if prefix != self.short_hash or not number:
            raise SpaceError(
                f"{reprlib.repr(text)} is no architecture of this space: its ids begin with {self.short_hash}-"
            )
        if len(number) > self._id_length + 1:  # before the arithmetic, which is slow for megabytes of digits
            raise SpaceError(
                f"{reprlib.repr(text)} is no architecture id of this space: after the dash it has {self._id_length}"
                f" characters, not {len(number)}"
            )
        if any(letter not in _BASE32 for letter in number):
            raise SpaceError(f"{text!r} is no architecture id: after the dash it may only have {_BASE32}")
        value = 0
        for letter in number:
            value = value * 32 + _BASE32.index(letter)
        genes = []
        for radix in reversed(self.radices.tolist()):
            value, gene = divmod(value, radix)
            genes.append(gene)
        architecture = Architecture(self, tuple(reversed(genes)), weights)
        if value or architecture.id != text:
            raise SpaceError(f"{text!r} is no architecture id of this space: it decodes to no canonical genes")
        return architecture

    # -- readable forms ---------------------------------------------------------------

    def _gene_values(self, architecture: Architecture) -> dict[str, float]:
        """Return the value of each gene by the gene's name."""
        return {gene.name: gene.values[index] for gene, index in zip(self.genes, architecture.genes, strict=True)}

    def _from_gene_values(self, values: Mapping[str, float], where: str) -> Architecture:
        """Return the architecture with these values of genes; genes without one have their smallest value."""
        genes = []
        for gene in self.genes:
            value = values.get(gene.name, gene.values[0])
            if value not in gene.values:
                allowed = ", ".join(map(str, gene.values))
                raise SpaceError(f"{where}: {gene.name} must be one of {allowed}, but got {value}")
            genes.append(gene.values.index(value))
        return Architecture(self, tuple(genes))

    def _check_id(self, architecture: Architecture, data: Mapping[str, Any], where: str) -> Architecture:
        """Return the architecture of a description. Raises SpaceError when the description has another id."""
        given = str(data.get("id", architecture.id))
        if given.partition("+")[0] != architecture.id:
            raise SpaceError(f"{where}: the id {data['id']!r} belongs to other choices; correct or remove it")
        return self.from_id(given)

    # -- lists of Once-for-All, in the families that have them ------------------------

    def from_ofa(
        self, config: Mapping[str, Any], resolution: int | None = None, where: str = "Once-for-All config"
    ) -> Architecture:
        """Return the architecture of Once-for-All's lists. Entries of skipped blocks may have any value.

        Args:
            config: The lists as Once-for-All's implementation prints them.
            resolution: The resolution in pixels; by default ``image_size`` or ``r`` of ``config``, a number or a list
                of one, else the largest of the space.
            where: The file or argument that messages name.

        Raises:
            UsageError: A list is wrong, or the family has none.
        """
        raise SpaceError(f"{where}: family {self.family} has no Once-for-All lists; give an id or a description")

    def to_ofa(self, architecture: Architecture) -> dict[str, Any]:
        """Return Once-for-All's lists and the resolution ``r``. Skipped blocks have the smallest values.

        Raises SpaceError in a family that has no such lists.
        """
        raise SpaceError(f"family {self.family} has no Once-for-All lists; use to_dict of {architecture}")

    # -- costs ------------------------------------------------------------------

    @cached_property
    def distinct_parts(self) -> tuple[Part, ...]:
        """The parts of all architectures, each once by its key."""
        parts: dict[str, Part] = {}
        for part in self._unequal_parts:
            parts.setdefault(part.key, part)
        return tuple(parts.values())

    @cached_property
    def _unequal_parts(self) -> tuple[Part, ...]:
        """The parts of all slots, of equal ones the first: only these build their layers."""
        return tuple(dict.fromkeys(part for slot in self.slots for part in slot.parts if part is not None))

    @cached_property
    def _part_numbers(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], ...]:
        """For each slot, the index of each of its parts in ``distinct_parts``; -1 where it is empty."""
        by_key = {part.key: index for index, part in enumerate(self.distinct_parts)}
        number: dict[Part | None, int] = {None: -1, **{part: by_key[part.key] for part in self._unequal_parts}}
        return tuple(np.array([number[part] for part in slot.parts]) for slot in self.slots)

    def part_indices(self, genes: Genes) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
        """Yield for each slot the index (N,) in ``distinct_parts`` of each architecture's part; -1 for none."""
        for slot, numbers in zip(self.slots, self._part_numbers, strict=True):
            yield numbers[_combination_index(genes, slot.columns, self.radices)]

    def sum_over_parts(self, genes: Genes, cost: Vector) -> Vector:
        """Return the sum (N,) over each architecture's parts of ``cost`` (P,), one entry a distinct part."""
        return self._accumulate_over_parts(genes, cost, np.add, 0.0)

    def max_over_parts(self, genes: Genes, cost: Vector) -> Vector:
        """Return the maximum (N,) over each architecture's parts of ``cost`` (P,), one entry a distinct part."""
        return self._accumulate_over_parts(genes, cost, np.maximum, -np.inf)

    def _accumulate_over_parts(self, genes: Genes, cost: Vector, function: np.ufunc, initial: float) -> Vector:
        padded = np.append(cost, initial)  # index -1 is an empty slot

        def accumulate(rows: Genes) -> Vector:
            result = np.full(len(rows), initial)
            for indices in self.part_indices(rows):
                function(result, padded[indices], out=result)
            return result

        return apply_in_chunks(accumulate, genes)

    def part_costs(self, function: Callable[[Part], float]) -> Vector:
        """Return ``function`` of each distinct part, (P,)."""
        return np.array([function(part) for part in self.distinct_parts], dtype=np.float64)

    @cached_property
    def _static_costs(self) -> dict[str, Vector]:
        functions = (
            part_functions.params,
            part_functions.macs,
            part_functions.weight_bytes,
            part_functions.activation_bytes,
        )
        return {function.__name__: self.part_costs(function) for function in functions}

    def params(self, genes: Genes) -> Vector:
        """Return the parameters of each architecture (N,), batch norm not folded."""
        return self.sum_over_parts(genes, self._static_costs["params"])

    def macs(self, genes: Genes) -> Vector:
        """Return the multiply-accumulates of one inference of each architecture (N,)."""
        return self.sum_over_parts(genes, self._static_costs["macs"])

    def weight_bytes(self, genes: Genes) -> Vector:
        """Return the bytes of each architecture's float32 weights as exported (N,)."""
        return self.sum_over_parts(genes, self._static_costs["weight_bytes"])

    def activation_bytes(self, genes: Genes) -> Vector:
        """Return the peak bytes of each architecture's float32 activations (N,)."""
        return self.max_over_parts(genes, self._static_costs["activation_bytes"])


@dataclass(frozen=True, repr=False)
class Architecture:
    """One architecture of a space. Its genes are made canonical, so equal networks are equal values.

    Args:
        space: The space.
        genes: Indices into the values of ``space.genes``, (G,).
        weights: The name of weights of its own, six characters; empty for those that it inherits from a supernet.
            All costs but accuracy are the same.

    Raises:
        SpaceError: The number of genes or one of them is out of range, or ``weights`` is no such name.

    Example:
        >>> import edgenas
        >>> space = edgenas.MobileNetV3(width=0.5)
        >>> architecture = space.smallest
        >>> architecture
        Architecture(mobilenet_v3 kjwwq5-0000000000000000)
        >>> space.from_id(architecture.id) == architecture
        True
        >>> architecture.at_resolution(224).to_dict()["stages"][0]
        {'kernel_sizes': [3, 3], 'expand_ratios': [3, 3]}
        >>> genes = space.encode([space.smallest, space.largest])
        >>> space.macs(genes).tolist()
        [13681664.0, 221432048.0]
    """

    space: SearchSpace
    genes: tuple[int, ...]
    weights: str = ""

    def __post_init__(self) -> None:
        space = self.space
        if self.weights:
            _check_name_of_weights(self.weights)
        if len(self.genes) != len(space.genes):
            raise SpaceError(f"an architecture of this space has {len(space.genes)} genes, but got {len(self.genes)}")
        for gene, index in zip(space.genes, self.genes, strict=True):
            if not 0 <= index < len(gene.values):
                raise SpaceError(f"gene {gene.name} must be from 0 to {len(gene.values) - 1}, but got {index}")
        row = space.canonical(np.array([self.genes], dtype=np.int64))[0]
        object.__setattr__(self, "genes", tuple(int(gene) for gene in row))

    @cached_property
    def id(self) -> str:
        """The space's short hash and the canonical genes in base 32; behind a plus sign the name of its own weights."""
        value = 0
        for gene, radix in zip(self.genes, self.space.radices.tolist(), strict=True):
            value = value * radix + gene
        name = f"{self.space.short_hash}-{_to_base32(value).rjust(self.space._id_length, '0')}"
        return f"{name}+{self.weights}" if self.weights else name

    @property
    def inherited(self) -> Architecture:
        """The same architecture with the weights that it inherits from the supernet."""
        return Architecture(self.space, self.genes)

    @cached_property
    def input_shape(self) -> Shape:
        """Channels, height and width of the input."""
        return next(iter(self.parts.values())).in_shape

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.input_shape[1:]

    @property
    def resolution(self) -> int:
        """The value of the resolution gene: height and width of a square input, in pixels."""
        return self.space.resolutions[self.genes[0]]

    def at_resolution(self, resolution: int) -> Architecture:
        """Return the same network for another resolution. Raises SpaceError when the space does not have it."""
        choices = self.space.resolutions
        if resolution not in choices:
            raise SpaceError(f"resolution must be one of {', '.join(map(str, choices))}, but got {resolution}")
        return Architecture(self.space, (choices.index(resolution), *self.genes[1:]))

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The parts by the names of their places, from input to output."""
        space, row = self.space, np.array([self.genes], dtype=np.int64)
        radices = space.radices
        parts = {slot.name: slot.parts[int(_combination_index(row, slot.columns, radices)[0])] for slot in space.slots}
        return {name: part for name, part in parts.items() if part is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as plain data: its id and its live choices."""
        return {"id": self.id, **self.space.describe(self)}

    def to_ofa(self) -> dict[str, Any]:
        """Return Once-for-All's lists and the resolution ``r``. ``space.from_ofa`` reads them."""
        return self.space.to_ofa(self)

    def __repr__(self) -> str:
        return f"Architecture({self.space.family} {self.id})"

    def __str__(self) -> str:
        return self.id


def _combination_index(genes: Genes, columns: tuple[int, ...], radices: Genes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the index of each row's combination of ``columns``, the last varying fastest, (N,)."""
    index = np.zeros(len(genes), dtype=np.int64)
    for column in columns:
        index *= radices[column]
        index += genes[:, column]
    return index


def _check_name_of_weights(text: str) -> None:
    if len(text) != SHORT_NAME or any(letter not in _BASE32 for letter in text):
        raise SpaceError(
            f"{reprlib.repr(text)} is no name of weights: behind the plus sign, an id has {SHORT_NAME} characters of"
            f" {_BASE32}"
        )


def short_name(value: Any) -> str:
    """Return ``SHORT_NAME`` characters of base 32 that identify plain data: the beginning of its digest."""
    return _to_base32(int(sha256_hex(canonical_json_bytes(value)), 16))[:SHORT_NAME]


def _to_base32(value: int) -> str:
    letters = ""
    while value:
        value, digit = divmod(value, 32)
        letters = _BASE32[digit] + letters
    return letters or "0"
