"""Device profiles and targets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Target, connect, load_profile, registry
from edgenas.devices.fake import FakeDevice
from edgenas.devices.profile import profile_from_dict
from edgenas.errors import FormatError, UsageError


def board(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": "board",
        "connection": {"kind": "local"},
        "cores": 4,
        "runtimes": {"onnxruntime": {"providers": ["XnnpackExecutionProvider", "CPUExecutionProvider"]}},
        "default": {"runtime": "onnxruntime", "threads": 2},
    }
    return {**data, **changes}


def test_a_shipped_profile_is_found_by_name() -> None:
    """localhost is shipped, and measures on one thread of onnxruntime."""
    assert Target(load_profile("localhost")).name == "localhost-onnxruntime-fp32-1t"


def test_a_profile_is_read_from_a_file(tmp_path: Path) -> None:
    """A path with a YAML ending is read as a file."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nconnection: {kind: local}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"
    )
    assert load_profile(path).runtimes["onnxruntime"].providers == ("CPUExecutionProvider",)


def test_an_unknown_name_lists_what_exists() -> None:
    """A misspelt name is refused with the nearest one."""
    with pytest.raises(UsageError, match="'localhots'; did you mean 'localhost'"):
        load_profile("localhots")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is refused by its path."""
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "x.yaml"))):
        load_profile(tmp_path / "x.yaml")


def test_broken_yaml_is_refused(tmp_path: Path) -> None:
    """A file that is no YAML is refused with the line."""
    path = tmp_path / "x.yaml"
    path.write_text("name: [\n")
    with pytest.raises(FormatError, match="line 2"):
        load_profile(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": "x"}, "unknown key 'nmae'; did you mean 'name'"),
        ({"connection": {"kind": "lokal"}}, "unknown kind of connection 'lokal'; did you mean 'local'"),
        ({"connection": {"kind": "local", "host": "x"}}, "connection: unknown key 'host'"),
        ({"connection": "local"}, "key 'connection' must say its kind"),
        ({"runtimes": {"onnxruntime": {"provider": []}}}, "did you mean 'providers'"),
        ({"runtimes": {"onnxruntime": {"providers": []}}}, "must name at least one"),
        ({"runtimes": {"onnxruntime": None}}, "runtimes.onnxruntime"),
        ({"runtimes": []}, "runtimes"),
        ({"runtimes": {}}, "at least one runtime"),
        ({"runtimes": {"../x": {}}}, "no name of a runtime"),
        ({"default": {"runtime": "onnxrutime"}}, "no runtime 'onnxrutime'; did you mean 'onnxruntime'"),
        ({"default": {}}, "key 'default.runtime' is missing"),
        ({"cores": "many"}, "cores"),
        ({"cores": 0}, "cores must be above 0"),
        ({"name": "../x"}, "name must be"),
    ],
)
def test_a_wrong_profile_is_refused(change: dict[str, Any], message: str) -> None:
    """A wrong key or value is refused on one line that names the source and the rule."""
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        profile_from_dict(board(**change), "board.yaml")
    assert str(error.value).startswith("board.yaml")
    assert "\n" not in str(error.value)


def test_a_profile_that_is_no_mapping_is_refused() -> None:
    """A list is no profile."""
    with pytest.raises(UsageError, match="must be a mapping"):
        profile_from_dict([], "board.yaml")


class _Point:
    """An installed package's entry point."""

    def __init__(self, name: str, value: object) -> None:
        self.name = name
        self._value = value

    def load(self) -> object:
        return self._value


def test_an_installed_package_adds_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of connection from an entry point is used like a built-in one; one that is no device is refused."""
    points = [_Point("pretended", FakeDevice), _Point("wrong", dict)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    profile = profile_from_dict(board(connection={"kind": "pretended"}), "board.yaml")
    assert isinstance(connect(profile), FakeDevice)
    with pytest.raises(UsageError, match="no edgenas Device class"):
        profile_from_dict(board(connection={"kind": "wrong"}), "board.yaml")


def test_a_profile_round_trips() -> None:
    """The plain form of a profile gives an equal profile."""
    profile = profile_from_dict(board(), "board.yaml")
    assert profile_from_dict(profile.to_dict(), "again") == profile


def test_a_target_takes_the_profiles_defaults() -> None:
    """What a target leaves out is the profile's default."""
    target = Target(profile_from_dict(board(), "board.yaml"))
    assert (target.runtime, target.precision, target.threads) == ("onnxruntime", "fp32", 2)
    assert target.to_dict() == {
        "device": "board",
        "runtime": "onnxruntime",
        "providers": ["XnnpackExecutionProvider", "CPUExecutionProvider"],
        "precision": "fp32",
        "threads": 2,
    }


def test_equal_targets_are_one_key() -> None:
    """Targets made apart are equal and hash alike, so that they can be keys."""
    first, second = (Target(profile_from_dict(board(), "x"), threads=1) for _ in range(2))
    assert {first: 1}[second] == 1


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"runtime": "tflite"}, "profile board has no runtime 'tflite'; known: onnxruntime"),
        ({"precision": "int8"}, "unknown precision 'int8'; known: fp32"),
        ({"threads": 0}, "threads must be from 1 to 256, but got 0"),
        ({"threads": 5}, "threads must be at most board's 4 cores, but got 5"),
    ],
)
def test_a_wrong_target_is_refused(choice: dict[str, Any], message: str) -> None:
    """What the profile does not have is refused, with a list of what it has."""
    with pytest.raises(UsageError, match=re.escape(message)):
        Target(profile_from_dict(board(), "board.yaml"), **choice)
