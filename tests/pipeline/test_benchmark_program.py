"""Getting LiteRT's benchmark_model for a phone, from a file server of this test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile, Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import EdgeNASError, UsageError
from edgenas.files import sha256_hex
from edgenas.pipeline.benchmark_program import set_up_benchmark_program
from edgenas.pipeline.device_setup import set_up_device
from edgenas.pipeline.progress import Silent
from edgenas.profilers.measure.benchmark_run import find_benchmark_program
from tests.fixtures.file_server import FileServer

PROGRAM = b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + b"\xb7\x00" + bytes(range(256)) * 64
VERSION = "2.9.1"


def phone(runner: str = "benchmark_model") -> DeviceProfile:
    data = {
        "name": "phone",
        "connection": {"kind": "adb"},
        "runtimes": {"litert": {"runner": runner}},
        "default": {"runtime": "litert"},
    }
    return profile_from_dict(data, "phone")


@pytest.fixture(autouse=True)
def server(file_server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FileServer:
    """A file server in place of the makers'; LiteRT 2.9.1 is in use here, and the cache is a new folder."""
    file_server.content = PROGRAM
    monkeypatch.setattr("edgenas.pipeline.benchmark_program.BASE", file_server.address + "/")
    monkeypatch.setattr("edgenas.pipeline.benchmark_program.importlib.metadata.version", lambda package: VERSION)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return file_server


def test_the_program_of_the_version_in_use_is_fetched_once(server: FileServer) -> None:
    """Its address has version and platform, its SHA-256 is recorded, and the second time nothing is asked for."""
    installed = set_up_device(phone())
    assert installed.versions == {"litert": VERSION}
    assert installed.python == ""
    set_up_device(phone())
    assert [path for path, _ in server.asked] == [f"/nets/{VERSION}/android_arm64/benchmark_model"]
    version, file = find_benchmark_program(Target(phone()))
    assert (version, file.read_bytes()) == (VERSION, PROGRAM)
    assert file.with_name("benchmark_model.sha256").read_text().strip() == sha256_hex(PROGRAM)


def test_a_download_that_broke_off_goes_on(server: FileServer) -> None:
    """Nothing half-fetched is used; the second call asks for the rest."""
    server.sends = 1000
    with pytest.raises(EdgeNASError, match="broke off after 1000 of"):
        set_up_device(phone())
    with pytest.raises(UsageError, match="there is no benchmark_model for it here"):
        find_benchmark_program(Target(phone()))
    server.sends = 1 << 30
    set_up_device(phone())
    assert server.asked[-1][1] == "bytes=1000-"
    assert find_benchmark_program(Target(phone()))[1].read_bytes() == PROGRAM


def test_an_absent_version_is_said(server: FileServer) -> None:
    """A version without a program there is an error that names the address."""
    server.status = 404
    problem = rf"/{VERSION}/android_arm64/benchmark_model: cannot be downloaded .*, or give .* --benchmark-model FILE$"
    with pytest.raises(EdgeNASError, match=problem):
        set_up_device(phone())


def test_a_page_instead_of_the_program_is_not_kept(server: FileServer) -> None:
    """What a proxy answers instead is refused once, and the program is fetched the next time."""
    server.content = b"<html>log in first</html>"
    with pytest.raises(EdgeNASError, match="benchmark_model: gave no program for 64-bit Arm"):
        set_up_device(phone())
    with pytest.raises(UsageError, match="there is no benchmark_model"):
        find_benchmark_program(Target(phone()))
    server.content = PROGRAM
    assert set_up_device(phone()).versions == {"litert": VERSION}
    assert find_benchmark_program(Target(phone()))[1].read_bytes() == PROGRAM


def test_a_file_takes_its_place(server: FileServer, tmp_path: Path) -> None:
    """A file of one's own replaces the downloaded one; its version is its digest."""
    set_up_device(phone())
    own = tmp_path / "own"
    own.write_bytes(PROGRAM + b"mine")
    installed = set_up_device(phone(), benchmark_model=own)
    assert installed.versions == {"litert": f"sha256-{sha256_hex(PROGRAM + b'mine')[:12]}"}
    assert find_benchmark_program(Target(phone()))[1].read_bytes() == PROGRAM + b"mine"
    assert len(server.asked) == 1


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", PROGRAM.replace(b"\xb7\x00", b"\x3e\x00")])
def test_what_is_no_program_for_the_phone_is_refused(tmp_path: Path, content: bytes) -> None:
    """A script, an empty file and a program for x86 are not taken."""
    (tmp_path / "own").write_bytes(content)
    with pytest.raises(UsageError, match="is no program for 64-bit Arm"):
        set_up_device(phone(), benchmark_model=tmp_path / "own")
    with pytest.raises(UsageError, match="there is no benchmark_model"):
        find_benchmark_program(Target(phone()))


def test_a_profile_that_does_not_use_it_is_said(tmp_path: Path) -> None:
    """The option is refused where the profile measures by the agent."""
    with pytest.raises(UsageError, match="has runner: benchmark_model, so --benchmark-model is not used"):
        set_up_benchmark_program(phone("agent"), tmp_path / "own", Silent(), lambda text: None)
