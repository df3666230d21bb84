"""Tables of architectures with measured values, as spaces with their cost models."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import FormatError, SpaceError, UsageError
from edgenas.search import Front, MeasuredTable, nondominated_mask, search_front

CSV = "arch,top1,ms\n|conv~0|+|skip~0|,60,3\n|skip~0|+|conv~0|,70,5\n|conv~0|+|conv~0|,65,8\n"


def write(path: Path, text: str = CSV) -> Path:
    path.write_text(text)
    return path


def test_a_csv_file_is_a_space_and_its_costs(tmp_path: Path) -> None:
    """Three cells of two operations: the words are the choices, the numbers the costs."""
    table = MeasuredTable.load(write(tmp_path / "cells.csv"))
    assert (table.size, len(table.genes), list(table.costs)) == (3, 2, ["top1", "ms"])
    genes = table.encode([table.from_id("|skip~0|+|conv~0|")])
    assert (table.costs["top1"](genes).tolist(), table.costs["ms"](genes).tolist()) == ([70.0], [5.0])


def test_a_packed_file_is_the_same(tmp_path: Path) -> None:
    """A file packed with gzip gives the same space."""
    packed = tmp_path / "cells.csv.gz"
    packed.write_bytes(gzip.compress(CSV.encode()))
    assert MeasuredTable.load(packed).short_hash == MeasuredTable.load(write(tmp_path / "cells.csv")).short_hash


def test_the_front_of_a_table_is_found(tmp_path: Path) -> None:
    """The third cell is slower and less accurate than the second; the front comes back from its file."""
    table = MeasuredTable.load(write(tmp_path / "cells.csv"))
    front = search_front(table.problem(["top1", "ms"], maximised=["top1"]), evaluations=10)
    assert [each.id for each in front.architectures()] == ["|conv~0|+|skip~0|", "|skip~0|+|conv~0|"]
    front.save(tmp_path / "front.json")
    assert np.array_equal(Front.load(tmp_path / "front.json", table).genes, front.genes)


def test_genes_without_a_row_stand_for_the_nearest(tmp_path: Path) -> None:
    """Two skips are in no row; the first of those that differ in one choice stands for them."""
    table = MeasuredTable.load(write(tmp_path / "cells.csv"))
    skip = table.from_id("|conv~0|+|skip~0|").genes[1], table.from_id("|skip~0|+|conv~0|").genes[0]
    absent = np.array([[skip[1], skip[0]]])
    assert table.decode(absent)[0].id == "|conv~0|+|skip~0|"
    assert table.canonical(absent).tolist() == [list(table.from_id("|conv~0|+|skip~0|").genes)]


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=12))
def test_every_architecture_comes_back(rows: set[tuple[int, int, int]]) -> None:
    """Each row is decoded to its own text, is canonical, and has its own values."""
    texts = [" ".join(map(str, row)) for row in sorted(rows)]
    table = MeasuredTable(texts, {"cost": list(range(len(texts)))})
    genes = table.encode([table.from_id(text) for text in texts])
    assert [each.id for each in table.decode(genes)] == texts
    assert np.array_equal(table.canonical(genes), genes)
    assert table.costs["cost"](genes).tolist() == list(range(len(texts)))
    sample = table.sample(20, np.random.default_rng(0))
    assert np.array_equal(table.canonical(sample), sample)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a line of different names of columns"),
        ("arch,top1\n", "must begin with a line of different names of columns, and have more lines"),
        ("arch,arch\na b,1\n", "must begin with a line of different names"),
        ("arch,top1\na b,1\nc d\n", "line 3: has 1 values for 2 columns"),
        ("arch,top1\na b,1\nc d,x\n", "line 3: top1 must be a finite number as in the first row, but got 'x'"),
        ("arch,top1\na b,1\nc d,\n", "line 3: top1 must be a finite number as in the first row, but got ''"),
        ("arch,top1\na b,1\nc d,nan\n", "line 3: top1 must be a finite number"),
        ("arch,top1\na b,1\nc,2\n", "architecture 'c' has 1 choices, but the first one has 2"),
        ("arch,top1\na b,1\nc d,2\na b,3\n", "architecture 'a b' occurs twice"),
        (
            "arch,accuracy\na b,71\nc d,72\n",
            "accuracy must be from 0 to 1, but reaches from 71 to 72; divide it by 100",
        ),
        ("top1,ms\n1,2\n3,4\n", "has no architectures; give a table with a column of text"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """What is no table is refused with the file, the line and the rule."""
    with pytest.raises(FormatError, match=rf"cells\.csv.*{message}"):
        MeasuredTable.load(write(tmp_path / "cells.csv", text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and a packed file that was cut off, are refused; so is a file that is not there."""
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(CSV.encode())[:-9])
    for name in ("bytes.csv", "cut.csv.gz"):
        with pytest.raises(FormatError, match="is no CSV file in UTF-8"):
            MeasuredTable.load(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read"):
        MeasuredTable.load(tmp_path / "absent.csv")


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    """An architecture and a column that the table does not have are named."""
    table = MeasuredTable.load(write(tmp_path / "cells.csv"))
    with pytest.raises(SpaceError, match="'conv' is no architecture of this table"):
        table.from_id("conv")
    with pytest.raises(UsageError, match="objective 'top5' is no cost of this problem; did you mean 'top1'"):
        table.problem(["top5", "ms"])


def test_a_front_of_one_architecture_is_a_front(tmp_path: Path) -> None:
    """Where one architecture beats all others, the front is that one."""
    table = MeasuredTable(["a x", "b x", "a y"], {"ms": [1, 2, 3], "mb": [1, 5, 5]})
    front = search_front(table.problem(["ms", "mb"]), evaluations=10)
    assert [each.id for each in front.architectures()] == ["a x"]
    assert repr(front) == "Front(1 architecture, ms 1 to 1, )"


def test_nasbench201_is_searched(data_folder: Path) -> None:
    """In 1,000 of 15,625 cells the search finds nearly the whole front of accuracy and latency on a Raspberry Pi 4."""
    table = MeasuredTable.load(data_folder / "nasbench201" / "nasbench201.csv.gz")
    problem = table.problem(["cifar10_top1", "raspi4_ms"], maximised=["cifar10_top1"])
    every = table.encode([table.from_id(text) for text in table.texts[:1]])
    assert (table.size, table.radices.tolist(), len(every)) == (15_625, [5] * 6, 1)
    truth = np.column_stack([-table.columns["cifar10_top1"], table.columns["raspi4_ms"]])
    true_front = truth[nondominated_mask(truth)]
    front = search_front(problem, evaluations=1000)
    found = np.column_stack([-front["cifar10_top1"], front["raspi4_ms"]])
    assert front.evaluations == 1000
    near = [(np.abs(found - row) <= [0.5, 0.1 * row[1]]).all(axis=1).any() for row in true_front]
    assert np.mean(near) > 0.8
