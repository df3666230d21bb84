"""Atomic writing and strict reading of files."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas import files
from edgenas.errors import EdgeNASError, FormatError, SpaceError, UsageError

BODY: dict[str, Any] = {"name": "café", "count": 3, "rows": [[1, 2.5], []], "nested": {"none": None, "yes": True}}
TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "counts": np.array([1, -2, 3], dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float64),
}
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(
    st.text().filter(lambda key: key not in ("format", "version", "sha256")), JSON_VALUES, max_size=4
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property test."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="session")
def document(folder: Path) -> bytes:
    """The bytes of a JSON document."""
    files.write_document(folder / "whole.json", "test", 2, BODY)
    return (folder / "whole.json").read_bytes()


@pytest.fixture(scope="session")
def tensor_file(folder: Path) -> bytes:
    """The bytes of a tensor file."""
    files.write_tensors(folder / "whole.safetensors", "test", 2, TENSORS, BODY)
    return (folder / "whole.safetensors").read_bytes()


def flip(data: bytes, position: int, mask: int) -> bytes:
    damaged = bytearray(data)
    damaged[position % len(data)] ^= mask
    return bytes(damaged)


# -- writing ----------------------------------------------------------------------------


def test_folders_are_made_on_the_way(tmp_path: Path) -> None:
    """Writing makes the folders above the file, and leaves nothing beside it."""
    files.write_bytes(tmp_path / "a" / "b" / "file", b"content")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails before the file is whole, the old one stays and no temporary one is left."""
    path = tmp_path / "file"
    files.write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeNASError, match="file: cannot be written \\(No space left on device\\); free space"):
        files.write_bytes(path, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_killed_write_keeps_the_old_file(tmp_path: Path) -> None:
    """A process that dies while it writes leaves the old file as it was."""
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    code = (
        "import os, sys, signal, pathlib\nfrom edgenas import files\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_bytes(pathlib.Path(sys.argv[1]), b'new')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["file/below", "n" * 300])
def test_unwritable_place_is_named(tmp_path: Path, name: str) -> None:
    """A path below a file, or one too long, is an error of edgenas that names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(EdgeNASError, match="cannot be written"):
        files.write_bytes(tmp_path / name, b"content")


def test_absent_file_is_named(tmp_path: Path) -> None:
    """Reading an absent file is an error that names it."""
    with pytest.raises(UsageError, match=r"gone: cannot be read \(No such file or directory\)"):
        files.read_bytes(tmp_path / "gone")


# -- JSON documents -----------------------------------------------------------------------


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


# -- tensor files -------------------------------------------------------------------------


@pytest.mark.usefixtures("tensor_file")
def test_tensors_round_trip(folder: Path) -> None:
    """Arrays come back with value, type and shape, and the body with them."""
    arrays, body = files.read_tensors_and_body(folder / "whole.safetensors", "test", 2)
    assert body == BODY
    assert arrays.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


@given(position=st.integers(0, 10_000), mask=st.integers(1, 255))
def test_flipped_byte_of_tensors_is_never_believed(folder: Path, tensor_file: bytes, position: int, mask: int) -> None:
    """A tensor file with one byte changed, in header, body or data, is refused or still says the very same."""
    (folder / "flipped").write_bytes(flip(tensor_file, position, mask))
    try:
        arrays, body = files.read_tensors_and_body(folder / "flipped", "test", 2)
    except FormatError:
        return
    assert body == BODY
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


@given(length=st.integers(0, 10_000))
def test_truncated_tensors_are_refused(folder: Path, tensor_file: bytes, length: int) -> None:
    """A tensor file that lacks its end is refused."""
    (folder / "cut").write_bytes(tensor_file[: length % len(tensor_file)])
    with pytest.raises(FormatError, match="is damaged"):
        files.read_tensors_and_body(folder / "cut", "test", 2)


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    """Weights that something else wrote are refused."""
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(FormatError, match="no edgenas file"):
        files.read_tensors_and_body(tmp_path / "foreign.safetensors", "test", 1)


def test_newer_tensors_ask_for_an_upgrade(tmp_path: Path) -> None:
    """Tensors of a newer schema are refused like documents."""
    files.write_tensors(tmp_path / "new", "test", 3, TENSORS, {})
    with pytest.raises(FormatError, match="this edgenas reads up to 2; upgrade"):
        files.read_tensors_and_body(tmp_path / "new", "test", 2)


def test_equal_tensors_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    """The same content gives the same file whatever the hash seed and the order of insertion."""
    code = (
        "import sys, pathlib, numpy as np\nfrom edgenas import files\n"
        "names = sys.argv[2].split(',')\n"
        "tensors = {name: np.arange(ord(name), dtype=np.float32) for name in names}\n"
        "files.write_tensors(pathlib.Path(sys.argv[1]), 'test', 1, tensors, {name: 1 for name in names})"
    )
    for seed, names in (("1", "a,b,c"), ("2", "c,b,a")):
        command = [sys.executable, "-c", code, str(tmp_path / seed), names]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


# -- YAML and plain data --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["a: [1, 2", "a: b: c", "when: 2020-99-99", "x: !!timestamp y", "!!python/object:os.system {}"]
)
def test_wrong_yaml_is_refused(tmp_path: Path, text: str) -> None:
    """A syntax error, an impossible value or a Python object in YAML is refused, naming the file."""
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"config\.yaml.*is not valid YAML"):
        files.read_yaml(tmp_path / "config.yaml")


def test_yaml_error_names_the_line(tmp_path: Path) -> None:
    """The message about a syntax error has its line."""
    (tmp_path / "config.yaml").write_text("good: 1\nbad: b: c\n")
    with pytest.raises(FormatError, match="line 2: is not valid YAML"):
        files.read_yaml(tmp_path / "config.yaml")


@given(data=st.binary(max_size=40) | st.text(alphabet="{}[]&*!%-:,>|'\"\n ab1", max_size=40).map(str.encode))
def test_any_yaml_is_read_or_refused(folder: Path, data: bytes) -> None:
    """No content makes reading YAML fail with anything but FormatError."""
    (folder / "any.yaml").write_bytes(data)
    try:
        files.read_yaml(folder / "any.yaml")
    except FormatError as error:
        assert_one_line(error)


def assert_one_line(error: Exception) -> None:
    assert "\n" not in str(error)


@pytest.mark.parametrize("indent", [None, 1, "\t"])
@given(value=st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False, allow_infinity=False), max_size=3))
def test_json_is_read_as_json(folder: Path, indent: str | int | None, value: Any) -> None:
    """Text and numbers of JSON come back, also what YAML reads otherwise: 1e-05, tabs, pairs of surrogates."""
    (folder / "any.json").write_text(json.dumps([value, 1e-05, "\U0001f600"], indent=indent))
    assert files.read_yaml(folder / "any.json") == [value, 1e-05, "\U0001f600"]


def test_a_repeated_key_of_json_is_refused(tmp_path: Path) -> None:
    """JSON has no key twice either, and the message has the line."""
    (tmp_path / "any.json").write_text('{"a": 1,\n "b": {"c": 1, "c": 2}}')
    with pytest.raises(FormatError, match=r"line 2: key 'c' stands twice"):
        files.read_yaml(tmp_path / "any.json")


@dataclass(frozen=True)
class Wheel:
    """A part of a configuration."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    diameter: int

    def __post_init__(self) -> None:
        if self.diameter < 0:
            raise SpaceError(f"diameter must not be negative, but got {self.diameter}")


@dataclass(frozen=True)
class Car:
    """A configuration with parts."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    wheels: tuple[Wheel, ...]
    colour: str = "red"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"wheels": [], "color": "blue"},
            "car.yaml: unknown key 'color'; did you mean 'colour'? known: colour, wheels",
        ),
        ({"wheels": [], "xyz": 1}, "car.yaml: unknown key 'xyz'; known: colour, wheels"),
        (
            {"wheels": [{"diameter": 1, "diametre": 2}]},
            "car.yaml: unknown key 'wheels.0.diametre'; did you mean 'diameter'? known: diameter",
        ),
        ({"wheelz": []}, "car.yaml: unknown key 'wheelz'; did you mean 'wheels'?"),
        ({}, "car.yaml: key 'wheels' is missing; known: colour, wheels"),
        ({"wheels": [{"diameter": "big"}]}, "car.yaml: wheels.0.diameter: input should be a valid integer"),
        ({"wheels": [3]}, "car.yaml: wheels.0: must be a mapping with keys, but got 3"),
        ([], "car.yaml: must be a mapping with keys, but got []"),
    ],
)
def test_wrong_data_is_refused_by_name(data: Any, message: str) -> None:
    """A wrong key or value is named with its place; an unknown key with the nearest known one."""
    with pytest.raises(UsageError) as caught:
        files.parse_dataclass(Car, data, "car.yaml")
    assert str(caught.value).startswith(message)
    assert_one_line(caught.value)


def test_rule_of_the_dataclass_is_placed_in_its_file() -> None:
    """An error that the dataclass itself raises keeps its kind and gains the name of the file."""
    with pytest.raises(SpaceError, match=r"car\.yaml: diameter must not be negative, but got -1"):
        files.parse_dataclass(Car, {"wheels": [{"diameter": -1}]}, "car.yaml")


@given(data=JSON_VALUES | st.dictionaries(st.sampled_from(["wheels", "colour"]) | st.integers(), JSON_VALUES))
def test_any_data_is_parsed_or_refused(data: Any) -> None:
    """No data fails with anything but UsageError, on one line."""
    try:
        files.parse_dataclass(Car, data, "car.yaml")
    except UsageError as error:
        assert_one_line(error)


def test_huge_integers_are_refused(tmp_path: Path) -> None:
    """An integer that Python would refuse to print is refused when it is read, wherever it stands."""
    path = tmp_path / "config.yaml"
    path.write_text("a: [1, {b: 0x" + "f" * 5000 + "}]\n")
    with pytest.raises(FormatError, match="holds an integer of more than 64 bits"):
        files.read_yaml(path)


def test_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """A repeated key is refused with its line: the second would win in silence."""
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\nb: {c: 1}\na: 2\n")
    with pytest.raises(FormatError, match=r"line 3: key 'a' stands twice"):
        files.read_yaml(path)


def test_merged_keys_are_no_repetition(tmp_path: Path) -> None:
    """A key beside a merged mapping overrides it, as YAML says."""
    path = tmp_path / "config.yaml"
    path.write_text("base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  a: 3\n")
    assert files.read_yaml(path)["other"] == {"a": 3, "b": 2}


@pytest.mark.parametrize("lists", ["[{0}]", "{{<<: [{0}]}}"])
def test_aliases_of_aliases_are_refused(tmp_path: Path, lists: str) -> None:
    """Some lines that stand for millions of values are refused before anybody counts them."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, 12):
        lines.append(f"a{level}: &a{level} " + lists.format(", ".join([f"*a{level - 1}"] * 9)))
    path = tmp_path / "config.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(FormatError, match="its aliases repeat more than 100000 values"):
        files.read_yaml(path)


# -- files that are not what they seem ------------------------------------------------------


def test_a_link_in_the_temporary_files_place_is_not_followed(tmp_path: Path) -> None:
    """What a link at the name of the temporary file leads to keeps its content."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / f".file.{os.getpid()}.edgenas-tmp").symlink_to(tmp_path / "mine")
    files.write_bytes(tmp_path / "file", b"content")
    assert [(tmp_path / name).read_text() for name in ("mine", "file")] == ["precious", "content"]


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    """Where a file must be new, one that another process made meanwhile is kept."""
    files.write_bytes(tmp_path / "file", b"first", replace=False)
    with pytest.raises(UsageError, match="file: is there already"):
        files.write_bytes(tmp_path / "file", b"second", replace=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Reading a named pipe that nobody writes to is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe: is no regular file"):
        files.read_bytes(tmp_path / "pipe")


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    """A file that the user names may be a link."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert files.read_bytes(tmp_path / "link") == b"content"


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


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


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


def test_very_many_values_of_yaml_are_refused(tmp_path: Path) -> None:
    """YAML is read slowly, so that fewer values are the limit."""
    (tmp_path / "many.yaml").write_text("# not JSON\n- a\n" * 100_001)
    with pytest.raises(FormatError, match=r"many\.yaml: holds more than 100000 values"):
        files.read_yaml(tmp_path / "many.yaml")


def test_many_keys_take_no_long_time(tmp_path: Path) -> None:
    """The time to look for repeated keys grows with their number, not with its square."""
    text = "".join(f"key{number}: {number}\n" for number in range(40_000))
    (tmp_path / "keys.yaml").write_text(text)
    began = time.process_time()
    assert len(files.read_yaml(tmp_path / "keys.yaml")) == 40_000
    assert time.process_time() - began < 12
    (tmp_path / "keys.yaml").write_text(f"{text}key7: 1\n")
    with pytest.raises(FormatError, match="key 'key7' stands twice"):
        files.read_yaml(tmp_path / "keys.yaml")


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


@pytest.mark.parametrize("value", [True, "4", "１２", None, [4]])  # noqa: RUF001 - full-width digits
def test_only_a_number_is_a_number(value: object) -> None:
    """Neither true nor text, digits of other scripts included, is converted to a number."""
    with pytest.raises(UsageError, match=r"car\.yaml: wheels\.0\.diameter: input should be a valid integer"):
        files.parse_dataclass(Car, {"wheels": [{"diameter": value}]}, "car.yaml")
