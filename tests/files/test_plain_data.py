"""Plain data of JSON and YAML text."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas import files
from edgenas.errors import FormatError
from tests.files.conftest import assert_one_line


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
