"""Device profiles and targets."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Target, connect_device, load_profile, shipped_profile_files_by_name
from edgenas.devices.fake import FakeDevice
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import FormatError, UsageError
from tests.fixtures.installed_package import install_package


def profile_data(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": "board",
        "connection": {"kind": "local"},
        "cores": 4,
        "runtimes": {"onnxruntime": {"providers": ["XnnpackExecutionProvider", "CPUExecutionProvider"]}},
        "default": {"runtime": "onnxruntime", "threads": 2},
    }
    return {**data, **changes}


def options(given: dict[str, Any]) -> dict[str, Any]:
    """A change of the board: options of its runtime's providers."""
    return {"runtimes": {"onnxruntime": {"providers": ["XnnpackExecutionProvider"], "options": given}}}


@pytest.mark.parametrize("name", sorted(shipped_profile_files_by_name()))
def test_a_shipped_profile_is_complete(name: str) -> None:
    """Each parses under its own name and has a valid default target of at most its cores."""
    profile = load_profile(name)
    assert profile.name == name
    assert Target(profile).name.startswith(f"{name}-")
    assert set(profile.runtimes) == {"onnxruntime", "litert"}
    assert profile.runtimes["onnxruntime"].providers[-1] == "CPUExecutionProvider"


@pytest.mark.parametrize("name", sorted(set(shipped_profile_files_by_name()) - {"localhost"}))
def test_a_shipped_board_says_what_was_checked(name: str) -> None:
    """Its notes say that it was never run on the board and which documents it was checked against; its host is a blank.

    The host is a name to be replaced, of the kind that boards announce themselves by. A phone is the one attached.
    """
    profile = load_profile(name)
    assert profile.notes.startswith("Never run on the board. Checked against documents: ")
    connection = profile.to_dict()["connection"]
    if connection["kind"] == "adb":
        assert connection["serial"] is None
    else:
        assert "set this" in shipped_profile_files_by_name()[name].read_text()
        assert str(connection["host"]).endswith(".local")
    assert profile.cores is not None


def test_boards_have_their_cores() -> None:
    """The big cores of RK3588 are 4 to 7, Orin has clusters of up to four, the Raspberry Pis four equal cores."""
    assert Target(load_profile("rock-5b")).affinity == (4, 5, 6, 7)
    assert load_profile("jetson-orin-nano").clusters == {"cluster0": (0, 1, 2, 3), "cluster1": (4, 5)}
    assert load_profile("jetson-orin-nx").cores == 8
    assert {load_profile(f"raspberry-pi-{board}").cores for board in ("4", "5", "zero-2w")} == {4}


def test_own_profiles_go_before_shipped_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile in the folder device_profiles is found by its name, also instead of a shipped board's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "device_profiles").mkdir()
    for name in ("mine", "rock-5b"):
        text = f"name: {name}\nconnection: {{kind: local}}\nruntimes: {{litert: {{}}}}\ndefault: {{runtime: litert}}\n"
        (tmp_path / "device_profiles" / f"{name}.yaml").write_text(text)
        assert load_profile(name).default.runtime == "litert"
    with pytest.raises(UsageError, match="did you mean 'mine'"):
        load_profile("min")


def test_localhost_is_always_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile in device_profiles that would stand in for this machine is refused, not run in its place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "device_profiles").mkdir()
    own = Path(shutil.copy(shipped_profile_files_by_name()["localhost"], tmp_path / "device_profiles"))
    own.write_text(own.read_text() + "work_dir: /tmp\n")
    with pytest.raises(UsageError, match="localhost always means the shipped profile"):
        load_profile("localhost")


def test_a_name_and_its_file_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that calls itself otherwise than its file is not found by name; its path is as good as before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "device_profiles").mkdir()
    path = tmp_path / "device_profiles" / "mine.yaml"
    path.write_text("name: board\nconnection: {kind: local}\nruntimes: {litert: {}}\ndefault: {runtime: litert}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml: calls itself board"):
        load_profile("mine")
    assert load_profile(path).name == "board"


def test_a_profile_knows_how_it_was_named(tmp_path: Path) -> None:
    """Remedies name a profile as commands take it: by the path that was given, quoted, or by its name."""
    path = tmp_path / "my board.yaml"
    path.write_text("name: board\nconnection: {kind: local}\nruntimes: {litert: {}}\ndefault: {runtime: litert}\n")
    assert load_profile(path).cli_name == f"'{path}'"
    assert load_profile("localhost").cli_name == "localhost"
    assert "cli_name" not in load_profile(path).to_dict()
    with pytest.raises(UsageError, match="unknown key 'cli_name'"):
        profile_from_dict(profile_data(cli_name="x"), "board.yaml")


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
        ({"clusters": {"big": [2, 4]}}, "clusters.big: must be CPU numbers from 0 to 3, but got [2, 4]"),
        ({"clusters": {"big": []}}, "clusters.big: must be CPU numbers"),
        ({"clusters": {"big": [3, 2]}}, "clusters.big: must list each CPU once, in rising order"),
        ({"clusters": {"all": [0]}}, "clusters.all: is no name of a cluster"),
        ({"clusters": {"big": "0-3"}}, "clusters.big"),
        ({"power_mode": "MAXN; reboot"}, "power_mode must be letters"),
        ({"default": {"runtime": "onnxruntime", "affinity": "bigg"}}, "no cluster 'bigg'"),
        ({"default": {"runtime": "onnxruntime", "affinity": [7]}}, "affinity: must be CPU numbers from 0 to 3"),
        ({"default": {"runtime": "onnxruntime", "threads": 2, "affinity": [0]}}, "at most the 1 CPUs [0]"),
        (options({"CUDA": {}}), "options are for 'CUDA', which is no provider here; known: XnnpackExecutionProvider"),
        (options({"XnnpackExecutionProvider": {"threads": [1]}}), "runtimes.onnxruntime: options.Xnnpack"),
        (options({"XnnpackExecutionProvider": {"api_key": "x"}}), "api_key: looks like a secret"),
        (options({"XnnpackExecutionProvider": {"plugin": "lib/x.so.1"}}), "'lib/x.so.1' is code to be loaded"),
        (options({"XnnpackExecutionProvider": {"plugin": "x.so "}}), "'x.so ' is code to be loaded"),
        (options({"XnnpackExecutionProvider": {"plugin": "lib/libQnnHtp.so"}}), "is code to be loaded"),
        (options({"XnnpackExecutionProvider": {"ratio": float("nan")}}), "ratio: must be a finite number, but got nan"),
        (options({"XnnpackExecutionProvider": {"cache_dir": "~/../x"}}), "must stay below the home folder"),
        ({"runtimes": {"onnxruntime": {"providers": ["CPU ExecutionProvider"]}}}, "is no provider's name"),
        ({"cores": True}, "cores: input should be a valid integer, but got True"),
        ({"cores": "4"}, "cores: input should be a valid integer, but got '4'"),
        ({"clusters": {"big": [2, True]}}, "clusters.big.1: input should be a valid integer, but got True"),
        ({"default": {"runtime": "onnxruntime", "threads": "2"}}, "default.threads: input should be a valid integer"),
        ({"python": "venv/bin/python"}, "python must be an absolute path, one that begins with ~/, or a bare name"),
        ({"python": "~pi/python"}, "python must be an absolute path"),
        ({"python": "/bin/python\x00"}, "python must be an absolute path"),
        ({"work_dir": "there"}, "work_dir must be an absolute path or begin with ~/, but got 'there'"),
        ({"work_dir": "~pi/there"}, "work_dir must be an absolute path or begin with ~/"),
        ({"work_dir": "/there\n"}, "work_dir must be an absolute path or begin with ~/"),
        ({"work_dir": "/\udc80"}, "work_dir"),
        (
            {"connection": {"kind": "ssh", "host": "x", "port": True}},
            "connection: port: input should be a valid integer",
        ),
        ({"connection": {"kind": "ssh", "host": "x", "known_hosts": "a\x00"}}, "connection.known_hosts must be print"),
    ],
)
def test_a_wrong_profile_is_refused(change: dict[str, Any], message: str) -> None:
    """A wrong key or value is refused on one line that names the source and the rule."""
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        profile_from_dict(profile_data(**change), "board.yaml")
    assert str(error.value).startswith("board.yaml")
    assert "\n" not in str(error.value)


def test_a_backend_of_the_provider_itself_may_be_named() -> None:
    """onnxruntime-qnn chooses its accelerator by the bare name of a library of its own."""
    given: dict[str, Any] = {"providers": ["QNNExecutionProvider"]}
    given["options"] = {"QNNExecutionProvider": {"backend_path": "libQnnHtp.so"}}
    profile = profile_from_dict(profile_data(runtimes={"onnxruntime": given}), "board.yaml")
    assert Target(profile).options["QNNExecutionProvider"]["backend_path"] == "libQnnHtp.so"


@pytest.mark.parametrize("python", ["/usr/bin/python3", "~/venv/bin/python", "python3.11"])
def test_an_interpreter_has_a_place(python: str) -> None:
    """An absolute path, one below the home folder, and a bare name are kept as they are."""
    assert profile_from_dict(profile_data(python=python, work_dir="~/there"), "board.yaml").python == python


def test_a_profile_that_is_no_mapping_is_refused() -> None:
    """A list is no profile."""
    with pytest.raises(UsageError, match="must be a mapping"):
        profile_from_dict([], "board.yaml")


def test_an_installed_package_adds_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of connection from an entry point is used like a built-in one; one that is no device is refused."""
    points = {"edgenas.devices": {"pretended": "edgenas.devices.fake:FakeDevice", "wrong": "builtins:dict"}}
    install_package(tmp_path, monkeypatch, "pretended-devices", "", points)
    profile = profile_from_dict(profile_data(connection={"kind": "pretended"}), "board.yaml")
    assert isinstance(connect_device(profile), FakeDevice)
    with pytest.raises(UsageError, match="not an edgenas Device class"):
        profile_from_dict(profile_data(connection={"kind": "wrong"}), "board.yaml")


def test_a_profile_round_trips() -> None:
    """The plain form of a profile gives an equal profile."""
    profile = profile_from_dict(profile_data(), "board.yaml")
    assert profile_from_dict(profile.to_dict(), "again") == profile


def test_a_target_takes_the_profiles_defaults() -> None:
    """A target takes the profile's defaults for values that are left out."""
    target = Target(profile_from_dict(profile_data(), "board.yaml"))
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
    first, second = (Target(profile_from_dict(profile_data(), "x"), threads=1) for _ in range(2))
    assert {first: 1}[second] == 1


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"runtime": "tflite"}, "profile board has no runtime 'tflite'; known: onnxruntime"),
        ({"precision": "int4"}, "unknown precision 'int4'; did you mean 'int8'? known: fp32, fp16, dynamic, int8"),
        ({"threads": 0}, "threads must be from 1 to 256, but got 0"),
        ({"threads": 5}, "threads must be at most board's 4 cores, but got 5"),
        ({"affinity": "bgi"}, "profile board has no cluster 'bgi'; did you mean 'big'? known: big, all"),
        ({"affinity": [4]}, "affinity: must be CPU numbers from 0 to 3, but got [4]"),
        ({"threads": 3, "affinity": "big"}, "threads must be at most the 2 CPUs [2, 3] that they are bound to"),
    ],
)
def test_a_wrong_target_is_refused(choice: dict[str, Any], message: str) -> None:
    """A value that the profile does not have is refused with a list of those that it has."""
    with pytest.raises(UsageError, match=re.escape(message)):
        Target(profile_from_dict(profile_data(clusters={"big": [2, 3]}), "board.yaml"), **choice)


@pytest.mark.parametrize(
    ("affinity", "cpus", "name"),
    [
        (None, (2, 3), "board-onnxruntime-fp32-2t-big"),
        ("big", (2, 3), "board-onnxruntime-fp32-2t-big"),
        ([3, 2, 3], (2, 3), "board-onnxruntime-fp32-2t-big"),
        ([0, 3], (0, 3), "board-onnxruntime-fp32-2t-cpu0.3"),
        ("all", None, "board-onnxruntime-fp32-2t"),
    ],
)
def test_an_affinity_is_cpu_numbers(affinity: str | list[int] | None, cpus: tuple[int, ...] | None, name: str) -> None:
    """A cluster's name or a list is kept as numbers, ``all`` as none; the target is named after the cluster."""
    default = {"runtime": "onnxruntime", "threads": 2, "affinity": "big"}
    profile = profile_from_dict(profile_data(clusters={"little": [0, 1], "big": [2, 3]}, default=default), "board.yaml")
    target = Target(profile, affinity=affinity)
    assert (target.affinity, target.name) == (cpus, name)
    assert target.to_dict().get("affinity") == (None if cpus is None else list(cpus))


def test_a_target_takes_the_name_or_file_of_a_profile(tmp_path: Path) -> None:
    """A profile may be given by its name, or by the path of its YAML file as text or as a Path."""
    assert Target("localhost", threads=1) == Target(load_profile("localhost"), threads=1)
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nconnection: {kind: local}\nruntimes: {litert: {}}\ndefault: {runtime: litert}\n")
    assert Target(path) == Target(str(path)) == Target(load_profile(path))
    with pytest.raises(UsageError, match="did you mean 'localhost'"):
        Target("localhots")


def test_profiles_and_targets_print_on_one_line() -> None:
    """A target shows its device, runtime, precision, threads, CPUs and power mode."""
    assert repr(Target("localhost")) == "Target(localhost, onnxruntime, fp32, 1 thread)"
    profile = profile_from_dict(profile_data(clusters={"big": [2, 3]}, power_mode="MAXN"), "board.yaml")
    assert repr(profile) == "DeviceProfile(board, local, runtimes onnxruntime)"
    target = Target(profile, precision="int8", affinity="big")
    assert repr(target) == "Target(board, onnxruntime, int8, 2 threads, CPUs 2 3, power mode MAXN)"


def test_a_target_says_how_commands_name_it(tmp_path: Path) -> None:
    """Its profile as it was given, and every option that the profile's default does not say."""
    profile = profile_from_dict(profile_data(runtimes={"onnxruntime": {}, "litert": {}}), "test")
    assert Target(profile).cli_name == "board"
    assert Target(profile, "onnxruntime", "fp32", 2).cli_name == "board"
    assert Target(profile, "litert", "int8", 4).cli_name == "board --runtime litert --precision int8 --threads 4"
    (tmp_path / "my board.yaml").write_text(
        "name: board\nconnection: {kind: local}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"
    )
    mine = load_profile(tmp_path / "my board.yaml")
    assert Target(mine, precision="int8").cli_name == f"'{tmp_path}/my board.yaml' --precision int8"


def test_what_decides_a_number_is_part_of_the_target() -> None:
    """Options of providers and the power mode are in a target's plain form, the mode in its name too."""
    given = options({"XnnpackExecutionProvider": {"intra_op_num_threads": 2}})
    target = Target(profile_from_dict(profile_data(power_mode="MAXN", **given), "board.yaml"))
    assert target.name == "board-onnxruntime-fp32-2t-maxn"
    assert target.to_dict()["options"] == {"XnnpackExecutionProvider": {"intra_op_num_threads": 2}}
    assert target.to_dict()["power_mode"] == "MAXN"
    assert target.options["XnnpackExecutionProvider"]["intra_op_num_threads"] == 2
