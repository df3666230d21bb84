"""``edgenas device``: what it prints for people and for machines, and what it records."""

from __future__ import annotations

import io
import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgenas.cli.device import _parse_host
from edgenas.devices import Deadline, connect_device, load_profile, shipped_profile_files_by_name
from edgenas.devices.ssh.testing import Sshd, write_key_pair
from edgenas.errors import UsageError
from edgenas.pipeline import device_check

Call = Callable[..., tuple[int, str, str]]
Answer = Callable[[str], None]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a working folder of its own, without profiles."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for this machine while other tests measure on it."""
    monkeypatch.setattr(device_check, "_LOCK_SECONDS", 600.0)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Sets the user's answer to the next question."""
    return lambda said: monkeypatch.setattr("sys.stdin", io.StringIO(f"{said}\n"))


@pytest.fixture
def board(sshd: Sshd, folder: Path) -> Callable[..., str]:
    """Write a profile of the SSH server on loopback; returns its name."""

    def write(connection: dict[str, Any] | None = None, **changes: Any) -> str:
        data = sshd.profile(connection, work_dir=str(folder / "there"), **changes).to_dict()
        (folder / "device_profiles").mkdir(exist_ok=True)
        kept = {key: value for key, value in data.items() if value is not None}
        kept["connection"] = {key: value for key, value in data["connection"].items() if value is not None}
        (folder / "device_profiles" / "loopback.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(kept))))
        return "loopback"

    return write


@pytest.fixture
def server_with_home(loopback: Sshd, folder: Path) -> Iterator[Sshd]:
    """An SSH server whose user has another home folder, where a profile without a work_dir makes its folders."""
    server = Sshd(folder / "server")
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace("SetEnv ", f"SetEnv HOME={folder}/home "))  # a second line is ignored
    (folder / "home").mkdir()
    with server:
        yield server


@pytest.fixture
def unknown_host(sshd: Sshd, folder: Path) -> dict[str, Any]:
    """A connection to the server by somebody who knows no host keys."""
    return sshd.connection_data(known_hosts=str(folder / "known_hosts"))


def ssh_arguments(connection: dict[str, Any]) -> list[str]:
    """The options of ``new`` that say the same as a connection."""
    files = [f"--{key.replace('_', '-')}={connection[key]}" for key in ("identity_file", "known_hosts", "config_file")]
    return ["--host", f"{connection['user']}@{connection['host']}:{connection['port']}", *files]


@pytest.mark.parametrize("command", ["list", "facts", "check", "trust", "new", "setup"])
def test_every_command_has_help_with_an_example(call: Call, command: str) -> None:
    """--help of each command shows an example."""
    code, out, _ = call("device", command, "--help")
    assert (code, f"Example: edgenas device {command}" in out) == (0, True)


def test_list_shows_all_profiles(call: Call, folder: Path) -> None:
    """The shipped profiles and one's own are listed with their default targets."""
    call("device", "new", "mine", "--local")
    code, out, _ = call("device", "list")
    assert code == 0
    assert all(name in out for name in [*shipped_profile_files_by_name(), "mine"])
    listed = json.loads(call("device", "list", "--json")[1])["profiles"]
    found = next(profile for profile in listed if profile["name"] == "rock-5b")
    assert (found["target"], found["cores"]) == ("rock-5b-onnxruntime-fp32-4t-big", 8)


def test_show_explains_a_profile(call: Call) -> None:
    """A profile's values, and what it was checked against, are shown without connecting to the device."""
    code, out, _ = call("device", "show", "galaxy-s24")
    assert code == 0
    assert "little 0 1, middle 2 3 4 5 6, big 7" in out
    assert "Never run on the board. Checked against documents: CPU numbers" in out
    assert json.loads(call("device", "show", "galaxy-s24", "--json")[1])["connection"] == {
        "kind": "adb",
        "serial": None,
    }


def test_a_broken_profile_hides_no_other(call: Call, folder: Path) -> None:
    """One that cannot be read, or not by its name, is listed with what is wrong with it."""
    (folder / "device_profiles").mkdir()
    (folder / "device_profiles" / "cut.yaml").write_text("name: [\n")
    text = "name: board\nconnection: {kind: local}\nruntimes: {litert: {}}\ndefault: {runtime: litert}\n"
    (folder / "device_profiles" / "mine.yaml").write_text(text)
    code, out, _ = call("device", "list")
    assert (code, "cannot be used" in out, "rock-5b" in out) == (0, True, True)
    listed = {each["name"]: each for each in json.loads(call("device", "list", "--json")[1])["profiles"]}
    assert "is not valid YAML" in listed["cut"]["error"]
    assert "calls itself board" in listed["mine"]["error"]
    assert listed["rock-5b"]["cores"] == 8


def test_facts_are_shown(call: Call) -> None:
    """Facts are a table, or one JSON document."""
    code, out, _ = call("device", "facts", "localhost")
    assert (code, "kernel" in out) == (0, True)
    assert json.loads(call("device", "facts", "localhost", "--json")[1])["cores"] > 0


def test_check_ends_with_the_next_command(call: Call, folder: Path) -> None:
    """When everything works, check exits with 0 and names the next command."""
    (folder / "mine.yaml").write_text(
        f"name: mine\nconnection: {{kind: local}}\nruntimes: {{onnxruntime: {{}}}}\n"
        f"default: {{runtime: onnxruntime}}\nwork_dir: {folder}/there\n"
    )
    code, out, _ = call("device", "check", "mine.yaml")
    assert (code, out.splitlines()[-1]) == (0, "next: edgenas measure MODEL --device mine.yaml")


def test_check_over_ssh_passes(call: Call, board: Callable[..., str]) -> None:
    """A board that is reached by SSH passes, each step of the way shown."""
    code, out, _ = call("device", "check", board(), "--json")
    document = json.loads(out)
    assert (code, document["passed"]) == (0, True), out
    assert [each["name"] for each in document["checks"]][:4] == ["reach", "host key", "login", "python"]


@pytest.mark.parametrize(
    ("change", "failed", "remedy"),
    [
        ({"known_hosts": "/dev/null"}, "host key", "edgenas device trust loopback"),
        ({"user": "no-such-user"}, "login", "ssh-copy-id"),
        ({"port": 1}, "reach", "ssh"),
    ],
)
def test_check_names_the_step_that_fails(
    call: Call, board: Callable[..., str], sshd: Sshd, change: dict[str, Any], failed: str, remedy: str
) -> None:
    """A step that fails is named with its remedy, and check exits with 1."""
    name = board(sshd.connection_data(**change))
    code, out, _ = call("device", "check", name, "--json")
    first = next(each for each in json.loads(out)["checks"] if each["status"] != "ok")
    assert (code, first["name"], first["status"]) == (1, failed, "failed")
    assert remedy in first["remedy"]
    code, out, _ = call("device", "check", name)
    assert (code, out.splitlines()[-1]) == (1, "it cannot be measured on yet")


def test_check_names_a_missing_interpreter(call: Call, board: Callable[..., str]) -> None:
    """A python that is not on the board fails that step; what needs it is not tried."""
    code, out, _ = call("device", "check", board(python="python9"), "--json")
    states = {each["name"]: each["status"] for each in json.loads(out)["checks"]}
    assert (code, states["login"], states["python"], states["runtime"]) == (1, "ok", "failed", "not tried")


def test_check_names_a_work_folder_that_cannot_be_made(call: Call, board: Callable[..., str], folder: Path) -> None:
    """A work_dir in a place that is no folder fails that step."""
    (folder / "file").touch()
    name = board()
    path = folder / "device_profiles" / "loopback.yaml"
    path.write_text(path.read_text().replace(f"{folder}/there", f"{folder}/file/x"))
    code, out, _ = call("device", "check", name, "--json")
    states = {each["name"]: each["status"] for each in json.loads(out)["checks"]}
    assert (code, states["work folder"]) == (1, "failed")


def test_trust_records_after_asking(
    call: Call, board: Callable[..., str], unknown_host: dict[str, Any], folder: Path, answer: Answer
) -> None:
    """A no leaves the key unknown; a yes records it; after that it is known."""
    name = board(unknown_host)
    answer("n")
    code, out, err = call("device", "trust", name)
    assert (code, "shows the ssh-ed25519 key SHA256:" in out, "was not confirmed" in err) == (1, True, True)
    assert not (folder / "known_hosts").exists()
    answer("y")
    code, out, _ = call("device", "trust", name)
    assert (code, "recorded the key" in out) == (0, True)
    assert call("device", "trust", name) == (0, "loopback: its host key is known already\n", "")
    assert call("device", "facts", name)[0] == 0


def test_a_changed_key_wants_its_own_yes(
    call: Call, board: Callable[..., str], unknown_host: dict[str, Any], folder: Path, answer: Answer
) -> None:
    """--yes does not replace a changed key: that takes an answer or --replace."""
    name = board(unknown_host)
    assert call("device", "trust", name, "--yes")[0] == 0
    write_key_pair(folder / "other")
    kind, key = (folder / "other.pub").read_text().split()[:2]
    known = folder / "known_hosts"
    known.write_text(f"{known.read_text().split()[0]} {kind} {key}\n")
    answer("n")
    code, out, _ = call("device", "trust", name, "--yes")
    assert (code, "ANOTHER key" in out, f"{known}:1" in out) == (1, True, True)
    assert call("device", "trust", name, "--replace")[0] == 0
    assert key not in known.read_text()


def test_a_revoked_key_is_never_recorded(
    call: Call, board: Callable[..., str], unknown_host: dict[str, Any], folder: Path
) -> None:
    """trust ends at once, naming the line that revokes the key, and leaves the file as it is."""
    name = board(unknown_host)
    assert call("device", "trust", name, "--yes")[0] == 0
    known = folder / "known_hosts"
    known.write_text(f"@revoked {known.read_text()}")
    before = known.read_text()
    code, _, err = call("device", "trust", name, "--yes", "--replace")
    assert (code, f"{known}, line 1" in err, known.read_text()) == (1, True, before)
    code, out, _ = call("device", "check", name, "--json")
    first = next(each for each in json.loads(out)["checks"] if each["status"] != "ok")
    assert (first["name"], "is revoked in" in first["found"]) == ("host key", True)


def test_remedies_name_what_was_typed(call: Call, board: Callable[..., str], unknown_host: dict[str, Any]) -> None:
    """A profile that was given as a file is named so in the command that mends it."""
    board(unknown_host)
    path = "device_profiles/loopback.yaml"
    code, out, _ = call("device", "check", path, "--json")
    first = next(each for each in json.loads(out)["checks"] if each["status"] != "ok")
    assert (code, f"edgenas device trust {path}" in first["remedy"]) == (1, True)


def test_no_answer_is_a_no(
    call: Call, board: Callable[..., str], unknown_host: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without anybody to ask, an unknown key is not recorded."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = call("device", "trust", board(unknown_host))
    assert (code, "was not confirmed" in err) == (1, True)


def test_new_asks_the_board(call: Call, server_with_home: Sshd, folder: Path) -> None:
    """new records the host key when told to, and writes a profile that reaches the board again."""
    unknown_host = server_with_home.connection_data(known_hosts=str(folder / "known_hosts"))
    code, out, err = call("device", "new", "mine", *ssh_arguments(unknown_host), "--yes")
    assert code == 0, err
    assert out.splitlines()[-2:] == ["wrote device_profiles/mine.yaml", "next: edgenas device setup mine"]
    profile = load_profile("mine")
    assert profile.cores == json.loads(call("device", "facts", "mine", "--json")[1])["cores"]
    assert "identity_file" in (folder / "device_profiles" / "mine.yaml").read_text()


def test_an_interpreter_below_the_home_folder(
    server_with_home: Sshd, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A python that begins with ~/ is looked for in the home folder of the device, over SSH and here."""
    script = folder / "home" / "bin" / "python3"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("HOME", str(folder / "home"))
    over_ssh = server_with_home.profile(python="~/bin/python3")
    for profile in (over_ssh, replace(load_profile("localhost"), python="~/bin/python3")):
        with connect_device(profile) as device:
            assert device.python == str(script)
            assert device.facts()["python"] == platform.python_version()
            assert device.run([device.python, "-c", "print(1)"], deadline=Deadline(60)).stdout == "1\n"


def test_new_overwrites_nothing(call: Call, folder: Path) -> None:
    """A second profile of the same name is refused, and the first is as it was."""
    assert call("device", "new", "mine", "--local", "--out", "x.yaml")[0] == 0
    before = (folder / "x.yaml").read_bytes()
    code, _, err = call("device", "new", "mine", "--local", "--out", "x.yaml")
    assert (code, "x.yaml: is there already" in err) == (2, True)
    assert (folder / "x.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    [
        ["--host", "x", "--local"],
        [],
        ["--local", "--jump", "x"],
        ["--host", "a b"],
        ["--host", "@"],
        ["--host", "x", "--adb", "y"],
    ],
)
def test_new_wants_one_way_to_the_board(call: Call, wrong: list[str]) -> None:
    """Neither a host nor --local, both, or a host that is none: wrong use."""
    code, _, err = call("device", "new", "mine", *wrong)
    assert (code, "--host" in err) == (2, True)


@pytest.mark.parametrize("name", ["localhost", "no-such-board"])
def test_setup_and_trust_are_for_boards(call: Call, name: str) -> None:
    """This machine has no host key and needs no setup; an unknown name is wrong use."""
    for command in ("setup", "trust"):
        assert call("device", command, name)[0] == 2


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("board", {"host": "board"}),
        ("pi@board", {"host": "board", "user": "pi"}),
        ("pi@board.local:2222", {"host": "board.local", "user": "pi", "port": 2222}),
        ("pi@[fe80::1]:22", {"host": "fe80::1", "user": "pi", "port": 22}),
        ("fe80::1", {"host": "fe80::1"}),
        ("you@example.org@board", {"host": "board", "user": "you@example.org"}),
    ],
)
def test_hosts_are_parsed(text: str, host: dict[str, Any]) -> None:
    """user, address and port are told apart, also for IPv6."""
    assert _parse_host(text) == host


@pytest.mark.parametrize("text", ["", "pi@", "board:", "board:port", "-oProxyCommand=x", "a b", "[::1"])
def test_what_is_no_host_is_refused(text: str) -> None:
    """Text that ssh could take for something else is refused."""
    with pytest.raises(UsageError, match="--host must be"):
        _parse_host(text)


def test_a_board_behind_another_machine(call: Call, sshd: Sshd, server_with_home: Sshd, folder: Path) -> None:
    """With --jump the jump host's key is recorded first, then the board's, and the board answers."""
    config = folder / "config"
    for server in (sshd, server_with_home):
        with config.open("a") as file:
            file.write(f'Match originalhost 127.0.0.1 exec "test %p = {server.port}"\n')
            file.write(f"  IdentityFile {server.folder}/client_key\n  IdentityAgent none\n")
    files = ["--config-file", config, "--known-hosts", folder / "known_hosts"]
    jump = f"{sshd.user}@127.0.0.1:{sshd.port}"
    host = f"{server_with_home.user}@127.0.0.1:{server_with_home.port}"
    code, out, err = call("device", "new", "mine", "--host", host, "--jump", jump, *files, "--yes")
    assert code == 0, err
    shown = [line.split()[0] for line in out.splitlines() if "shows the" in line]
    assert shown == [f"[127.0.0.1]:{sshd.port}", f"[127.0.0.1]:{server_with_home.port}"]


def test_more_threads_than_cores_fail_the_check(call: Call) -> None:
    """With more threads than the machine has cores nothing can be measured, which the check says."""
    code, out, _ = call("device", "check", "localhost", "--threads", 256)
    assert code == 1
    (line,) = (line for line in out.splitlines() if line.startswith("threads"))
    assert "FAILED" in line
    assert "must be at most localhost's" in line
