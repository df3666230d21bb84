"""Spaces, data sets, devices and runtimes of installed packages, found by their entry points."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from edgenas.data import load_data
from edgenas.devices import connect_device
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import UsageError
from edgenas.registry import DATA_SETS, DEVICES, RUNTIMES, SPACES, STRATEGIES, Registry
from edgenas.space import space_from_dict
from tests.fixtures.installed_package import install_package

BUILT_IN = ["digits", "fashion_mnist", "cifar10", "cifar100", "imagenet"]
REGISTRIES = [SPACES, DATA_SETS, DEVICES, RUNTIMES, STRATEGIES]
EXTENSION = """
from dataclasses import dataclass, replace
from typing import ClassVar

from edgenas.data import load_data
from edgenas.devices.fake import FakeDevice
from edgenas.space import MobileNetV3


@dataclass(frozen=True)
class TinySpace(MobileNetV3):
    family: ClassVar[str] = "tiny"


class ToyDevice(FakeDevice):
    pass


def load_keywords():
    return replace(load_data("digits"), name="keywords")
"""


def device(kind: str) -> dict[str, object]:
    connection, runtimes = {"kind": kind}, {"onnxruntime": dict[str, object]()}
    return {"name": "toy", "connection": connection, "runtimes": runtimes, "default": {"runtime": "onnxruntime"}}


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.group)
def test_everything_built_in_can_be_loaded(registry: Registry) -> None:
    """Each built-in name loads, without a warning."""
    assert list(registry.load_all()) == registry.names()


def test_each_family_is_registered_under_its_own_name() -> None:
    """A space is found by the name that it writes into files."""
    assert {name: space.family for name, space in SPACES.load_all().items()} == {name: name for name in SPACES.names()}


def test_an_installed_package_adds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space, a data set and a kind of device of an installed package are used like those of edgenas."""
    points = {
        "edgenas.spaces": {"tiny": "registry_extension:TinySpace"},
        "edgenas.data_sets": {"keywords": "registry_extension:load_keywords"},
        "edgenas.devices": {"toy": "registry_extension:ToyDevice"},
    }
    install_package(tmp_path, monkeypatch, "registry-extension", EXTENSION, points)
    assert space_from_dict({"family": "tiny", "classes": 3}, "space.json").family == "tiny"
    assert load_data("keywords").class_count == 10
    with connect_device(profile_from_dict(device("toy"), "toy.yaml")) as connected:
        assert type(connected).__name__ == "ToyDevice"
    assert DATA_SETS.names() == [*BUILT_IN, "keywords"]
    with pytest.raises(UsageError) as caught:
        load_data("keyword")
    known = "cifar10, cifar100, digits, fashion_mnist, imagenet, keywords"
    assert (
        str(caught.value) == f"no folder and no data set is called 'keyword'; did you mean 'keywords'? known: {known}"
    )


def test_an_added_thing_is_gone_with_its_package(tmp_path: Path) -> None:
    """Without the package on the search path its name is unknown; nothing is remembered."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        points = {"edgenas.data_sets": {"passing": "registry_passing:load"}}
        install_package(tmp_path, monkeypatch, "registry-passing", "load = dict", points)
        assert "passing" in DATA_SETS.names()
    assert DATA_SETS.names() == BUILT_IN


def test_nothing_is_imported_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are known without importing the package, and another name loads without it."""
    points = {"edgenas.data_sets": {"heavy": "registry_heavy:load"}}
    install_package(tmp_path, monkeypatch, "registry-heavy", "raise RuntimeError('imported')", points)
    assert DATA_SETS.names() == [*BUILT_IN, "heavy"]
    assert load_data("digits").name == "digits"
    assert "registry_heavy" not in sys.modules


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("registry-raising", "import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("registry-empty", "", "AttributeError: module 'registry_empty' has no attribute 'load'"),
        ("registry-exiting", "raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named(
    name: str,
    source: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is left out with one warning, others work on, and using it gives the reason."""
    module = name.replace("-", "_")
    install_package(tmp_path, monkeypatch, name, source, {"edgenas.data_sets": {"broken": f"{module}:load"}})
    with caplog.at_level(logging.WARNING):
        assert list(DATA_SETS.load_all()) == BUILT_IN
        assert list(DATA_SETS.load_all()) == BUILT_IN
    (record,) = caplog.records
    assert record.getMessage() == (
        f"edgenas: package {name}: its data set 'broken' cannot be loaded ({reason});"
        " update or uninstall the package; it is left out"
    )
    with pytest.raises(UsageError) as caught:
        load_data("broken")
    assert str(caught.value).startswith(f"data set 'broken' of package {name} cannot be loaded ({reason})")
    with pytest.raises(UsageError, match=r"known: cifar10, cifar100, digits, fashion_mnist, imagenet$"):
        load_data("brokn")


@pytest.mark.parametrize(
    ("registry", "message"),
    [
        (DEVICES, "gives <class 'dict'>, not an edgenas Device class"),
        (SPACES, "gives <class 'dict'>, not an edgenas SearchSpace class"),
        (RUNTIMES, "gives <class 'dict'>, not an edgenas Runtime class"),
    ],
    ids=["devices", "spaces", "runtimes"],
)
def test_a_thing_of_the_wrong_kind_is_refused(
    registry: Registry, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry point that gives something else is refused, naming its package."""
    install_package(
        tmp_path, monkeypatch, f"registry-wrong-{registry.group[8:]}", "", {registry.group: {"wrong": "builtins:dict"}}
    )
    with pytest.raises(UsageError, match=f"package registry-wrong-[a-z]+ {message}"):
        registry.load("wrong", "here")


def test_a_runtime_without_a_method_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A class that lacks what its contract asks for is named in a warning, with what it lacks."""
    source = "from edgenas.runtimes.contract import Runtime\nclass Bare(Runtime):\n    name = 'bare'\n"
    points = {"edgenas.runtimes": {"bare": "registry_bare:Bare"}}
    install_package(tmp_path, monkeypatch, "registry-bare", source, points)
    with caplog.at_level(logging.WARNING):
        assert list(RUNTIMES.load_all()) == ["onnxruntime", "litert"]
    (record,) = caplog.records
    lacks = "lacks make_float_file, parse_interface, run_batches; it is left out"
    assert record.getMessage() == f"edgenas: package registry-bare: its runtime 'bare' {lacks}"


def test_a_data_set_that_is_no_function_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set is a function that loads it."""
    points = {"edgenas.data_sets": {"wrong": "registry_value:load"}}
    install_package(tmp_path, monkeypatch, "registry-value", "load = 3", points)
    with pytest.raises(UsageError, match="'wrong' of package registry-value gives 3, which is no function"):
        load_data("wrong")


@pytest.mark.parametrize(
    ("file", "content"), [("entry_points.txt", b"[edgenas.data_sets]\ndamaged\n"), ("METADATA", b"Name: \xff\n")]
)
def test_damaged_metadata_stops_nothing(
    file: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A package whose metadata cannot be parsed is named once, and everything else is found."""
    points = {"edgenas.data_sets": {"lost": "registry_damaged:load"}}
    install_package(tmp_path, monkeypatch, "registry-damaged", "", points)
    (tmp_path / "registry_damaged-1.0.dist-info" / file).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [registry.names() == list(registry.load_all()) for registry in REGISTRIES] == [True] * len(REGISTRIES)
    (record,) = caplog.records
    assert "registry_damaged-1.0.dist-info: its entry points cannot be read" in record.getMessage()


def test_an_entry_point_is_called_as_what_it_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space under another name than its family is refused: files that hold the family could not be read."""
    points = {"edgenas.spaces": {"mobile": "edgenas.space.mobilenet_v3:MobileNetV3"}}
    install_package(tmp_path, monkeypatch, "registry-renamed", "", points)
    with pytest.raises(UsageError, match="has family 'mobilenet_v3'; give its entry point that name"):
        space_from_dict({"family": "mobile"}, "space.json")


def test_a_built_in_name_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A package that adds a name of edgenas is named and left out; the built-in one stays."""
    points = {"edgenas.data_sets": {"digits": "registry_thief:load"}}
    install_package(tmp_path, monkeypatch, "registry-thief", "load = dict", points)
    with caplog.at_level(logging.WARNING):
        assert load_data("digits").name == "digits"
    (record,) = caplog.records
    assert record.getMessage() == (
        "edgenas: package registry-thief: its data set 'digits' is left out, because edgenas has one of this name;"
        " rename it there"
    )


def test_of_two_packages_with_one_name_the_second_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first by name is used, the other one is named."""
    for name in ("registry-one", "registry-two"):
        points = {"edgenas.data_sets": {"doubled": f"{name.replace('-', '_')}:load"}}
        install_package(tmp_path, monkeypatch, name, f"def load():\n    return {name!r}", points)
    with caplog.at_level(logging.WARNING):
        assert DATA_SETS.load("doubled")() == "registry-one"
    assert ["registry-two" in record.getMessage() for record in caplog.records] == [True]


def test_a_warning_is_a_line_on_standard_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command with a broken package installed works on, and says so on standard error."""
    points = {"edgenas.data_sets": {"digits": "registry_shown:load"}}
    install_package(tmp_path, monkeypatch, "registry-shown", "", points)
    code = "from edgenas.data import load_data; print(load_data('digits').name)"
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "digits\n"
    assert done.stderr.startswith("edgenas: package registry-shown: its data set 'digits' is left out")
    assert done.stderr.count("\n") == 1
