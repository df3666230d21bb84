"""A table of architectures with measured values, as a space and its cost models in one."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from edgenas.costs import CostModel, Genes, Vector, apply_in_chunks
from edgenas.errors import FormatError, SpaceError
from edgenas.files import format_value, read_bytes, sha256_hex
from edgenas.search.problem import Problem
from edgenas.search.quantities import ACCURACY
from edgenas.space import Gene

_MAX_BYTES = 1 << 28  # of a table, unpacked
_SEPARATORS = re.compile(r"[\s|+,;/]+")  # between the choices of an architecture
_CHUNK_ROWS = 64  # of distances to all rows of a table


@dataclass(frozen=True)
class TableRow:
    """An architecture of a table: its text as its id, and its genes."""

    id: str
    genes: tuple[int, ...]


class MeasuredTable:
    """A space that is the rows of a table, with a cost model for each column of numbers.

    The columns of text describe an architecture: each of their words is a choice, and words at one place are the
    values of one gene. A table need not have all combinations: genes without a row stand for the row that differs in
    the fewest choices.

    Args:
        texts: The architectures as text, each once.
        columns: The measured values by their names, a number for each architecture.
        where: The file that messages name.

    Raises:
        FormatError: An architecture occurs twice, one has another number of choices than the first, or a column named
            ``accuracy`` has no fractions.

    Example:
        >>> from edgenas import MeasuredTable, search_front
        >>> table = MeasuredTable(["conv3 relu", "conv5 relu", "conv5 swish"], {"top1": [60, 70, 71], "ms": [2, 3, 4]})
        >>> front = search_front(table.problem(["top1", "ms"], {"ms": "3.5"}, maximised=["top1"]), evaluations=10)
        >>> [architecture.id for architecture in front.architectures()]
        ['conv3 relu', 'conv5 relu']
    """

    def __init__(self, texts: Sequence[str], columns: Mapping[str, Sequence[float]], where: str = "table") -> None:
        words = [[word for word in _SEPARATORS.split(text) if word] for text in texts]
        if not words or not words[0]:
            raise FormatError(f"{where}: has no architectures; give a table with a column of text and one of numbers")
        uneven = next((number for number, each in enumerate(words) if len(each) != len(words[0])), None)
        if uneven is not None:
            raise FormatError(
                f"{where}: architecture {format_value(texts[uneven])!r} has {len(words[uneven])} choices, but the first"
                f" one has {len(words[0])}; give all the same number of words"
            )
        self.texts = tuple(texts)
        choices = [sorted(set(place)) for place in zip(*words, strict=True)]
        numbers = [{word: index for index, word in enumerate(place)} for place in choices]
        self._rows: Genes = np.array(
            [[known[word] for known, word in zip(numbers, row, strict=True)] for row in words], dtype=np.int64
        )
        self._row_of = {row.tobytes(): index for index, row in enumerate(self._rows)}
        if len(self._row_of) < len(texts):
            _, first = np.unique(self._rows, axis=0, return_index=True)
            twice = next(index for index in range(len(texts)) if index not in set(first.tolist()))
            raise FormatError(f"{where}: architecture {format_value(texts[twice])!r} occurs twice; leave one out")
        self.genes = tuple(
            Gene(f"choice{place + 1}", tuple(map(float, range(len(values))))) for place, values in enumerate(choices)
        )
        self.columns = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
        accuracy = self.columns.get(ACCURACY, np.zeros(1))
        if accuracy.min() < 0 or accuracy.max() > 1:
            raise FormatError(
                f"{where}: accuracy must be from 0 to 1, but reaches from {accuracy.min():g} to {accuracy.max():g};"
                " divide it by 100, or give the column another name"
            )

    def __repr__(self) -> str:
        return f"MeasuredTable({self.size} architectures, {', '.join(self.columns)})"

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a CSV file, which may be packed with gzip. The first line has the columns' names.

        Columns whose first value is a number are measured values; the others describe the architecture.

        Raises:
            UsageError: The file cannot be read.
            FormatError: It is no table, or a value is no finite number; the message has the line.
        """
        lines = list(csv.reader(io.StringIO(_read_text(Path(path)), newline=""), strict=True))
        if len(lines) < 2 or len(set(lines[0])) < len(lines[0]):
            raise FormatError(f"{path}: must begin with a line of different names of columns, and have more lines")
        names, rows = lines[0], lines[1:]
        for number, row in enumerate(rows, start=2):
            if len(row) != len(names):
                raise FormatError(f"{path}, line {number}: has {len(row)} values for {len(names)} columns; correct it")
        is_number = [_to_number(value) is not None for value in rows[0]]
        columns = {
            name: [_parse_cell(path, number, name, row[place]) for number, row in enumerate(rows, start=2)]
            for place, name in enumerate(names)
            if is_number[place]
        }
        described = [place for place, numeric in enumerate(is_number) if not numeric]
        return cls([" ".join(row[place] for place in described) for row in rows], columns, str(path))

    def problem(
        self,
        objectives: Sequence[str],
        limits: Mapping[str, float | str] | None = None,
        maximised: Collection[str] = (ACCURACY,),
    ) -> Problem:
        """Return the problem of finding the front of columns of this table, as ``Problem`` describes."""
        return Problem(self, self.costs, objectives, limits or {}, maximised)

    @cached_property
    def costs(self) -> dict[str, CostModel]:
        """The cost models, by the names of their columns."""
        return {name: self._cost_model(column) for name, column in self.columns.items()}

    def _cost_model(self, column: Vector) -> CostModel:
        return lambda genes: column[self._find_rows(genes)]

    # -- the space --------------------------------------------------------------------

    @property
    def size(self) -> int:
        """The number of architectures."""
        return len(self._rows)

    @cached_property
    def radices(self) -> Genes:
        """The number of values of each gene, (G,)."""
        return np.array([len(gene.values) for gene in self.genes], dtype=np.int64)

    @cached_property
    def short_hash(self) -> str:
        """Six characters that identify the architectures of the table."""
        return sha256_hex("\n".join(self.texts).encode())[:6]

    @property
    def smallest(self) -> TableRow:
        """The first row: which one is the smallest is not known before it is measured."""
        return self.decode(self._rows[:1])[0]

    @property
    def largest(self) -> TableRow:
        """The last row."""
        return self.decode(self._rows[-1:])[0]

    def canonical(self, genes: Genes) -> Genes:
        """Return for each row of genes (N, G) the row of the table that differs in the fewest choices."""
        return self._rows[self._find_rows(genes)]

    def sample(self, count: int, rng: np.random.Generator) -> Genes:
        """Return the genes (count, G) of uniformly random rows."""
        return self._rows[rng.integers(self.size, size=count)]

    def decode(self, genes: Genes) -> list[TableRow]:
        """Return the architectures of a genes matrix (N, G)."""
        return [TableRow(self.texts[row], tuple(self._rows[row].tolist())) for row in self._find_rows(genes).tolist()]

    def encode(self, architectures: Sequence[TableRow]) -> Genes:
        """Return architectures as a genes matrix (N, G)."""
        return np.array([each.genes for each in architectures], dtype=np.int64).reshape(-1, len(self.genes))

    def from_id(self, text: str) -> TableRow:
        """Return the architecture with a text; SpaceError where the table has none."""
        if text not in self.texts:
            raise SpaceError(f"{format_value(text)!r} is no architecture of this table")
        return self.decode(self._rows[self.texts.index(text)][None])[0]

    def _find_rows(self, genes: Genes) -> Genes:
        keys = [row.tobytes() for row in np.ascontiguousarray(genes, dtype=np.int64)]
        rows = np.array([self._row_of.get(key, -1) for key in keys], dtype=np.int64)
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            nearest = apply_in_chunks(
                lambda some: (some[:, None, :] != self._rows).sum(axis=2).argmin(axis=1).astype(np.float64),
                genes[absent],
                _CHUNK_ROWS,
            )
            rows[absent] = nearest.astype(np.int64)
        return rows


def _read_text(path: Path) -> str:
    data = read_bytes(path, _MAX_BYTES)
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as file:
                data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise FormatError(f"{path}: has more than {_MAX_BYTES} bytes; give a smaller table")
        return data.decode()
    except (OSError, EOFError, ValueError):
        raise FormatError(f"{path}: is no CSV file in UTF-8, nor one packed with gzip; give another") from None


def _to_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _parse_cell(path: str | Path, line: int, name: str, text: str) -> float:
    value = _to_number(text)
    if value is None or not math.isfinite(value):
        raise FormatError(
            f"{path}, line {line}: {format_value(name)} must be a finite number as in the first row, but got"
            f" {format_value(text)!r}; correct it or leave the line out"
        )
    return value
