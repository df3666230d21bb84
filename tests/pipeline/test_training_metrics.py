"""The metrics of a training: lines that come back equal, and what is damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import FormatError
from edgenas.pipeline.training_metrics import TrainingMetrics, append_metrics, begin_metrics, read_metrics

_ONE = TrainingMetrics(1.5, "full", 100, 1000, 0.1, 2.3, 0.2, 0.05, 50.0, 18.0)
_EVALUATED = dataclasses.replace(_ONE, images=200, smallest=0.5, largest=0.75)


def _write(path: Path) -> None:
    begin_metrics(path, 0)
    append_metrics(path, _ONE)
    append_metrics(path, _EVALUATED)


def test_lines_come_back_equal(tmp_path: Path) -> None:
    """Two lines are read as they were appended, and none from a file that is not there."""
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    _write(tmp_path / "metrics.jsonl")
    assert read_metrics(tmp_path / "metrics.jsonl") == [_ONE, _EVALUATED]


def test_what_is_trained_again_is_removed(tmp_path: Path) -> None:
    """Training that goes on from 150 images keeps the line of 100 and not that of 200."""
    _write(tmp_path / "metrics.jsonl")
    begin_metrics(tmp_path / "metrics.jsonl", 150)
    assert read_metrics(tmp_path / "metrics.jsonl") == [_ONE]


def test_a_damaged_file_is_begun_anew(tmp_path: Path) -> None:
    """Training does not need it, so it does not end for it."""
    (tmp_path / "metrics.jsonl").write_text("no header\n")
    begin_metrics(tmp_path / "metrics.jsonl", 150)
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@given(cut=st.integers(1, 150))
def test_an_unfinished_last_line_is_left_out(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Cut anywhere in its last line, the file has the lines before."""
    path = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    _write(path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_metrics(path) == [_ONE]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"loss": 2.3', b'"loss": "low"', "line 2: loss"),
        (b'"loss": 2.3', b'"loss": NaN', "line 2: is damaged (NaN is no JSON)"),
        (b'"loss"', b'"losses"', "line 2: unknown key 'losses'"),
        (b"training_metrics", b"front", "expected format edgenas.training_metrics"),
        (b'"version":1', b'"version":9', "has schema version 9"),
        (b'{"format', b"[", "line 1: is damaged"),
    ],
)
def test_damage_is_named(old: bytes, new: bytes, message: str, tmp_path: Path) -> None:
    """The file, the line and what to do stand in the message."""
    path = tmp_path / "metrics.jsonl"
    _write(path)
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(FormatError) as caught:
        read_metrics(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
