"""Setting up and checking a board: its written profile, and faults that are found."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgenas.devices import Deadline, DeviceProfile, Target, connect_device, load_profile
from edgenas.devices.profile_files import profile_from_dict
from edgenas.devices.ssh import connection as ssh_connection
from edgenas.devices.ssh.known_hosts import HostKey
from edgenas.errors import DeviceError, UsageError
from edgenas.pipeline import device_check
from edgenas.pipeline.device_check import CheckResult, all_passed, check_device
from edgenas.pipeline.device_setup import complete_draft, create_profile, profile_yaml, set_up_device, trust_host_keys
from edgenas.runtimes import load_runtime

Make = Callable[..., DeviceProfile]
Mounted = Callable[[str], AbstractContextManager[DeviceProfile]]

DRAFT: dict[str, Any] = {
    "name": "board",
    "connection": {"kind": "local"},
    "runtimes": {"onnxruntime": {}, "litert": {}},
    "default": {"runtime": "onnxruntime"},
}
EQUAL = [{"cores": [0, 1, 2, 3], "cpu": "Cortex-A76", "capacity": 1024, "max_frequency_khz": 2_400_000}]
BIG_LITTLE = [
    {"cores": [4, 5, 6, 7], "cpu": "Cortex-A55", "capacity": 414, "max_frequency_khz": 1_800_000},
    {"cores": [0, 1, 2, 3], "cpu": "Cortex-A76", "capacity": 1024, "max_frequency_khz": 2_352_000},
]


def device_facts(cores: int, clusters: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {"model": "Some board", "cpu": "Some cores", "cores": cores, "clusters": clusters}


@pytest.fixture
def profile(tmp_path: Path) -> Make:
    """Make a profile of this machine, in a folder whose lock nobody else takes."""
    return lambda **changes: profile_from_dict({**DRAFT, "work_dir": str(tmp_path), **changes}, "board.yaml")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for this machine while other tests measure on it."""
    monkeypatch.setattr(device_check, "_LOCK_SECONDS", 600.0)


def result_of(checks: list[CheckResult], name: str) -> CheckResult:
    return next(each for each in checks if each.name == name)


def test_equal_cores_make_no_clusters() -> None:
    """A board of equal cores gets their number, at most four threads and no affinity."""
    data = complete_draft(DRAFT, device_facts(8, EQUAL), [])
    assert (data["cores"], data["default"]["threads"]) == (8, 4)
    assert "clusters" not in data
    assert "affinity" not in data["default"]


def test_models_are_bound_to_the_fastest_cluster() -> None:
    """Unequal cores become clusters, little before big whatever their numbers; the big ones are the default."""
    data = complete_draft(DRAFT, device_facts(8, BIG_LITTLE), [])
    assert data["clusters"] == {"little": [4, 5, 6, 7], "big": [0, 1, 2, 3]}
    assert Target(profile_from_dict(data, "board.yaml")).affinity == (0, 1, 2, 3)


def test_clusters_of_unknown_speed_are_left_out() -> None:
    """Which cores are big is not guessed."""
    silent = [{**each, "capacity": None, "max_frequency_khz": None} for each in BIG_LITTLE]
    assert "clusters" not in complete_draft(DRAFT, device_facts(8, silent), [])
    assert complete_draft(DRAFT, device_facts(8, None), [])["cores"] == 8


def test_the_power_mode_is_kept() -> None:
    """The mode that a Jetson is in becomes the one that it is to be measured in."""
    data = complete_draft(DRAFT, {**device_facts(6, EQUAL), "power_mode": "25W"}, [])
    assert Target(profile_from_dict(data, "board.yaml")).name == "board-onnxruntime-fp32-4t-25w"


def test_accelerators_that_are_there_come_first() -> None:
    """Providers of an onnxruntime on the board are used before its processor, TensorRT with an engine cache."""
    providers = ["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider", "AzureExecutionProvider"]
    data = profile_from_dict(complete_draft(DRAFT, device_facts(6, EQUAL), providers), "board.yaml")
    options = data.runtimes["onnxruntime"]
    assert options.providers == ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    assert options.options["TensorrtExecutionProvider"]["trt_engine_cache_enable"] is True


def test_what_is_written_is_read_back() -> None:
    """The YAML of a described board gives the same profile."""
    data = complete_draft(DRAFT, device_facts(8, BIG_LITTLE), ["CUDAExecutionProvider"])
    text = profile_yaml(data)
    assert profile_from_dict(yaml.safe_load(text), "x") == profile_from_dict(data, "x")
    assert text.startswith("# board: edgenas device check board says")


def test_new_describes_this_machine(tmp_path: Path) -> None:
    """A profile is written from the device's own facts, and a file that is there is not touched."""
    path = tmp_path / "mine.yaml"
    assert create_profile("mine", {"kind": "local"}, lambda key: False, path) == path
    with connect_device(load_profile("localhost")) as device:
        assert load_profile(path).cores == device.facts()["cores"]
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        create_profile("mine", {"kind": "local"}, lambda key: False, path)
    assert path.read_text() == "mine"


def test_setup_refuses_what_it_would_do_in_vain(profile: Make) -> None:
    """Nothing is installed when the profile names an interpreter, or the device is this machine."""
    with pytest.raises(UsageError, match="remove python from the profile"):
        set_up_device(profile(python="/usr/bin/python3"))
    with pytest.raises(UsageError, match="reached by ssh or adb, this one is local"):
        set_up_device(profile())


def test_trust_is_for_ssh(profile: Make) -> None:
    """A device without host keys has none to trust."""
    with pytest.raises(UsageError, match="has no host keys"):
        trust_host_keys(profile(), lambda key: True)


def test_this_machine_passes(profile: Make) -> None:
    """Everything that measuring needs is found here, in a fixed order."""
    checks = check_device(Target(profile()))
    assert all_passed(checks), checks
    there = ["connection", "python", "work folder", "clock", "lock", "runtime", "conditions"]
    assert [each.name for each in checks][: len(there)] == there
    assert result_of(checks, "runtime").found.startswith("onnxruntime ")


def test_providers_that_run_nothing_are_a_warning(profile: Make) -> None:
    """A provider that the runtime has, and that runs no node of a small model, is named with the remedy."""
    built = pytest.importorskip("onnxruntime").get_available_providers()
    if "AzureExecutionProvider" not in built:
        pytest.skip("this onnxruntime has no provider that runs nothing")
    wanted = {"runtimes": {"onnxruntime": {"providers": ["AzureExecutionProvider", "CPUExecutionProvider"]}}}
    found = result_of(check_device(Target(profile(**wanted))), "runtime")
    assert (found.status, "nodes ran on CPUExecutionProvider instead" in found.found) == ("warning", True)
    assert "leave it out of the profile" in found.remedy


def test_a_runtime_that_runs_no_model_fails(profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that can be imported must also run a small model."""
    monkeypatch.setattr(device_check, "_try_build_small_model", lambda runtime: b"no model")
    failed = result_of(check_device(Target(profile())), "runtime")
    assert (failed.status, "cannot run a small model (refused:" in failed.found) == ("failed", True)
    assert "edgenas device setup board" in failed.remedy


def test_a_runtime_that_no_model_can_be_made_for_must_start(profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the libraries that write a small model are missing here, the runtime is only imported there."""
    monkeypatch.setattr(device_check, "_try_build_small_model", lambda runtime: None)
    started = result_of(check_device(Target(profile())), "runtime")
    assert (started.status, started.found.endswith(", CPUExecutionProvider")) == ("ok", True)


@pytest.mark.parametrize("name", ["onnxruntime", "litert"])
def test_a_small_model_exists_for_every_kind_of_file(name: str) -> None:
    """It is of a few megabytes at most, which a board gets and runs at once."""
    pytest.importorskip("ai_edge_litert")
    model = device_check._try_build_small_model(load_runtime(name))
    assert model is not None
    assert 1e5 < len(model) < 5e6


def test_an_agent_that_ends_early_fails_the_runtime(profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that cannot even start is told with its last words and a remedy."""
    monkeypatch.setattr(
        device_check, "send_agent", lambda device, runtime: [device.python, "-c", "raise SystemExit('no numpy')"]
    )
    failed = result_of(check_device(Target(profile())), "runtime")
    assert (failed.status, failed.found) == ("failed", "the agent ended too early (no numpy)")
    assert failed.remedy


def test_a_step_fails_under_its_own_name(profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure belongs to the step that was tried, whatever words are in its message."""

    def fail(connection: object, deadline: Deadline) -> None:
        raise DeviceError("clock.invalid: no machine is called clock.invalid; correct connection.host")

    monkeypatch.setattr(ssh_connection, "fetch_host_key", fail)
    checks = check_device(Target(profile(connection={"kind": "ssh", "host": "clock.invalid"})))
    assert [(each.name, each.status) for each in checks][:2] == [("reach", "failed"), ("host key", "not tried")]
    assert result_of(checks, "clock").status == "not tried"


def test_trust_ends_where_a_name_has_two_keys(profile: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A host that shows another key each time is recorded once, and then given up."""
    file = tmp_path / "known_hosts"
    kind = "ssh-ed25519"
    shown = (HostKey("board", kind, f"AAA{number}", "changed", file, 1, file) for number in range(9))
    monkeypatch.setattr(ssh_connection, "fetch_host_key", lambda connection, deadline: next(shown))
    with pytest.raises(DeviceError, match="board showed another key right after one was recorded"):
        trust_host_keys(profile(connection={"kind": "ssh", "host": "board"}), lambda key: True)
    assert file.read_text() == f"board {kind} AAA0\n"


def test_localhost_is_nobody_elses_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No profile is written that would stand in for the shipped one of this machine."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="localhost always means the shipped profile"):
        create_profile("localhost", {"kind": "local"}, lambda key: False)


def test_a_missing_interpreter_is_named(profile: Make) -> None:
    """Without Python there what follows is not tried, and the remedy is said."""
    checks = check_device(Target(profile(python="/nowhere/python3")))
    assert not all_passed(checks)
    assert result_of(checks, "python").status == "failed"
    assert "/nowhere/python3" in result_of(checks, "python").found
    assert "python" in result_of(checks, "python").remedy
    assert result_of(checks, "runtime").status == "not tried"


def test_something_that_is_no_python_is_named(profile: Make) -> None:
    """An interpreter that does not answer as Python does is a failure with a remedy."""
    failed = result_of(check_device(Target(profile(python="/bin/true"))), "python")
    assert (failed.status, "/bin/true cannot be used there" in failed.found) == ("failed", True)


def test_an_old_python_is_refused(profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python below 3.8 is a failure, whatever else works."""
    monkeypatch.setattr("platform.python_version", lambda: "3.7.3")
    checks = check_device(Target(profile()))
    assert (result_of(checks, "python").status, result_of(checks, "lock").status) == ("failed", "not tried")


def test_a_missing_provider_is_named(profile: Make) -> None:
    """A provider that the runtime there was not built with fails the runtime; the rest is still tried."""
    wanted = {"runtimes": {"onnxruntime": {"providers": ["CUDAExecutionProvider"]}}}
    checks = check_device(Target(profile(**wanted)))
    failed = result_of(checks, "runtime")
    assert "onnxruntime here has no CUDAExecutionProvider" in failed.found
    assert "-m pip install onnxruntime, or correct the profile" in failed.remedy
    assert result_of(checks, "lock").status == "ok"


def test_a_taken_device_is_named(profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else measures there, the lock's holder is named."""
    monkeypatch.setattr(device_check, "_LOCK_SECONDS", 0.1)
    mine = profile()
    with connect_device(mine) as device, device.lock(Deadline(5)):
        failed = result_of(check_device(Target(mine)), "lock")
    assert failed.status == "failed"
    assert "is taken by" in failed.found


def test_a_full_disk_is_named(profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space in the work folder is a failure."""
    monkeypatch.setattr(device_check, "_FREE_BYTES", 10**18)
    assert result_of(check_device(Target(profile())), "work folder").status == "failed"


def test_setup_on_a_disk_without_programs_sends_nothing(mounted: Mounted) -> None:
    """A work_dir that is mounted noexec is refused with the remedy before anything is fetched or sent."""
    said: list[str] = []
    with mounted("noexec") as there, pytest.raises(DeviceError, match=r"mounted noexec.*; set work_dir in the profile"):
        set_up_device(replace(there, python=None), offline=True, say=said.append)
    assert said == []


def test_a_disk_without_programs_is_a_warning(mounted: Mounted) -> None:
    """Check says that setup would fail on a work_dir that is mounted noexec, unless the profile names a Python."""
    with mounted("noexec") as there:
        warned = result_of(check_device(Target(replace(there, python=None))), "work folder")
        fine = result_of(check_device(Target(there)), "work folder")
    assert (warned.status, fine.status) == ("warning", "ok")
    assert "mounted noexec: edgenas device setup cannot install runtimes there" in warned.found
    assert warned.remedy == "set work_dir in the profile to a folder on another disk"


def test_a_wrong_clock_is_a_warning(profile: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is ten minutes behind is said with the command that sets it; measuring works all the same."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 600)
    checks = check_device(Target(profile()))
    warned = result_of(checks, "clock")
    assert (warned.status, "behind this machine's" in warned.found) == ("warning", True)
    assert "timedatectl" in warned.remedy
    assert all_passed(checks)


@pytest.mark.parametrize(
    ("given", "found", "remedy"),
    [({"governor": "ondemand"}, "governor is ondemand", "performance"), ({"power_mode": "15W"}, "15W", "nvpmodel")],
)
def test_conditions_that_refuse_are_warnings(
    profile: Make, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], found: str, remedy: str
) -> None:
    """A slow governor, and another power mode than the profile's, are warnings with what mends them."""
    conditions = {"governor": "performance", "frequency_khz": 1, "temperature_c": 40.0, **given}
    monkeypatch.setattr(device_check, "_CONDITIONS", f"import json; print(json.dumps({conditions!r}))")
    checks = check_device(Target(profile(power_mode="MAXN" if "power_mode" in given else None)))
    (warned,) = [each for each in checks if each.status == "warning"]
    assert (warned.name, found in warned.found, remedy in warned.remedy) == ("conditions", True, True)
    assert all_passed(checks)


def test_a_device_that_is_not_there(profile: Make) -> None:
    """A board known from tables only fails at the connection, and nothing else is tried."""
    data = {
        "connection": {"kind": "absent"}, "runtimes": {"published": {}}, "default": {"runtime": "published"},
    }  # fmt: skip
    checks = check_device(Target(profile(**data)))
    assert [each.status for each in checks] == ["failed", *["not tried"] * 6]
    with pytest.raises(DeviceError):
        connect_device(profile(**data))
