"""JSON documents with a header and a checksum."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas import files
from edgenas.errors import FormatError, UsageError
from tests.files.conftest import BODY, JSON_VALUES, flip, nested
from tests.files.test_tensors import TENSORS

BODIES = st.dictionaries(
    st.text().filter(lambda key: key not in ("format", "version", "sha256")), JSON_VALUES, max_size=4
)


@pytest.fixture(scope="session")
def document(folder: Path) -> bytes:
    """The bytes of a JSON document."""
    files.write_document(folder / "whole.json", "test", 2, BODY)
    return (folder / "whole.json").read_bytes()


@given(body=BODIES)
def test_document_round_trips(folder: Path, body: dict[str, Any]) -> None:
    """What is written is read back."""
    files.write_document(folder / "trip.json", "test", 1, body)
    assert files.read_document(folder / "trip.json", "test", 1) == body


@given(position=st.integers(0, 10_000), mask=st.integers(1, 255))
def test_flipped_byte_of_a_document_is_never_believed(folder: Path, document: bytes, position: int, mask: int) -> None:
    """A document with one byte changed is refused, or still says the very same."""
    (folder / "flipped.json").write_bytes(flip(document, position, mask))
    try:
        body = files.read_document(folder / "flipped.json", "test", 2)
    except FormatError:
        return
    assert body == BODY


@given(length=st.integers(0, 10_000))
def test_truncated_document_is_refused(folder: Path, document: bytes, length: int) -> None:
    """A document that lacks its end is refused as damaged."""
    (folder / "cut.json").write_bytes(document[: length % (len(document) - 1)])
    with pytest.raises(FormatError, match=r"cut.json: is damaged \(not JSON\); move it away and run the command"):
        files.read_document(folder / "cut.json", "test", 2)


@given(data=st.binary(max_size=60) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_foreign_document_is_refused(folder: Path, data: bytes) -> None:
    """Anything that is not one of our documents is refused with a FormatError."""
    (folder / "foreign.json").write_bytes(data)
    with pytest.raises(FormatError):
        files.read_document(folder / "foreign.json", "test", 1)


def test_edited_document_is_refused(tmp_path: Path) -> None:
    """A document with a number changed by hand is refused."""
    path = tmp_path / "table.json"
    files.write_document(path, "test", 1, {"latency_ms": 1.5})
    path.write_text(path.read_text().replace("1.5", "0.5"))
    with pytest.raises(FormatError, match="was edited"):
        files.read_document(path, "test", 1)


def test_newer_document_asks_for_an_upgrade(tmp_path: Path) -> None:
    """A file of a newer schema is refused with the command that upgrades edgenas."""
    files.write_document(tmp_path / "new.json", "test", 3, {})
    with pytest.raises(FormatError, match=r"version 3, this edgenas reads up to 2; .*pip install -U edgenas"):
        files.read_document(tmp_path / "new.json", "test", 2)


def test_older_document_asks_to_be_made_again(tmp_path: Path) -> None:
    """A file of an older schema is refused with the way to replace it."""
    files.write_document(tmp_path / "old.json", "test", 1, {})
    with pytest.raises(FormatError, match="has schema version 1, this edgenas reads 2; move it away and run"):
        files.read_document(tmp_path / "old.json", "test", 2)


def test_document_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A file of another kind is refused, naming both kinds."""
    files.write_document(tmp_path / "front.json", "front", 1, {})
    with pytest.raises(FormatError, match=r"expected format edgenas\.table, but it says 'edgenas\.front'"):
        files.read_document(tmp_path / "front.json", "table", 1)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A sparse file of terabytes is refused by its size, whatever kind it claims to be."""
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    for read in (
        files.read_bytes,
        files.read_yaml,
        lambda path: files.read_document(path, "test", 2),
        lambda path: files.read_tensors_and_body(path, "test", 2),
    ):
        with pytest.raises(UsageError, match=r"huge\.json: has 4398046511104 bytes, and no such file has more than"):
            read(path)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """Nesting that the parser still takes, but not what follows it, is refused; a document may be 50 deep."""
    files.write_document(tmp_path / "good.json", "test", 2, {"value": nested(49)})
    files.write_document(tmp_path / "deep.json", "test", 2, {"value": nested(50)})
    files.write_tensors(tmp_path / "deep.safetensors", "test", 2, TENSORS, {"value": nested(50)})
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 90 + "]" * 90)
    files.read_document(tmp_path / "good.json", "test", 2)
    with pytest.raises(FormatError, match=r"deep\.json: is nested more than 50 deep"):
        files.read_document(tmp_path / "deep.json", "test", 2)
    with pytest.raises(FormatError, match=r"deep\.safetensors: is nested more than 50 deep"):
        files.read_tensors_and_body(tmp_path / "deep.safetensors", "test", 2)
    with pytest.raises(FormatError, match=r"deep\.yaml: is nested more than 50 deep"):
        files.read_yaml(tmp_path / "deep.yaml")


def test_very_many_values_are_refused(tmp_path: Path) -> None:
    """A list that would take gigabytes as objects is refused before it is parsed."""
    (tmp_path / "many.json").write_bytes(b"[" + b"[]," * 5_000_001 + b"[]]")
    with pytest.raises(FormatError, match=r"many\.json: holds more than 5000000 values"):
        files.read_document(tmp_path / "many.json", "test", 2)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "1e999", "9" * 5000])
def test_a_number_that_is_none_is_refused_in_any_header(tmp_path: Path, constant: str) -> None:
    """NaN, infinity and integers without end are refused in documents and in the headers of tensors."""
    path = tmp_path / "file"
    files.write_document(path, "test", 2, {"value": 12345})
    path.write_bytes(path.read_bytes().replace(b"12345", constant.encode()))
    with pytest.raises(FormatError, match="is damaged"):
        files.read_document(path, "test", 2)
    files.write_tensors(path, "test", 2, {}, {"value": "x" * 5000})
    path.write_bytes(path.read_bytes().replace(b'\\"' + b"x" * 5000 + b'\\"', constant.encode().rjust(5004)))
    with pytest.raises(FormatError, match="is damaged"):
        files.read_tensors_and_body(path, "test", 2)
