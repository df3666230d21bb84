"""Fetching Debian's packages for another machine, by the real apt-get from the mirror of this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgenas.devices import Deadline
from edgenas.devices.self_contained import debian
from edgenas.devices.self_contained.debian import fetch_packages, is_debian_here, unpack_packages
from edgenas.errors import DeviceError, EdgeNASError, UsageError

ARM64 = 183  # EM_AARCH64, in the ELF specification


@pytest.fixture
def on_debian() -> None:
    """A machine with apt-get; skips elsewhere."""
    if not is_debian_here():
        if os.environ.get("EDGENAS_REQUIRE_DEVICES") == "1":
            pytest.fail("no apt-get here, and EDGENAS_REQUIRE_DEVICES=1 asks for it")
        pytest.skip("no apt-get here; this is no Debian")


def fetch(names: list[str], folder: Path, seconds: float = 300.0) -> list[Path]:
    return fetch_packages(names, suite="bookworm", architecture="arm64", folder=folder, deadline=Deadline(seconds))


@pytest.mark.slow
@pytest.mark.usefixtures("on_debian")
def test_packages_of_another_processor_are_unpacked(tmp_path: Path) -> None:
    """What comes is for the processor that was asked for, with what it depends on, and is not installed here."""
    (tmp_path / "apt").mkdir()
    packages = fetch(["bzip2"], tmp_path / "apt")
    assert {path.name.partition("_")[0] for path in packages} >= {"bzip2", "libbz2-1.0", "libc6"}
    unpack_packages(packages, tmp_path / "root", Deadline(60))
    header = (tmp_path / "root/bin/bzip2").read_bytes()[:20]
    assert header.startswith(b"\x7fELF")
    assert int.from_bytes(header[18:20], "little") == ARM64


@pytest.mark.slow
@pytest.mark.usefixtures("on_debian")
def test_an_unknown_package_is_named(tmp_path: Path) -> None:
    """apt's own words say what is wrong."""
    with pytest.raises(EdgeNASError, match=r"apt-get install here failed \(E: Unable to locate package no-such"):
        fetch(["no-such-thing"], tmp_path)


@pytest.mark.usefixtures("on_debian")
def test_apt_ends_with_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apt-get that hangs is ended when the time is up."""
    slow = tmp_path / "bin/apt-get"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    started = time.monotonic()
    with pytest.raises(DeviceError, match=r"apt-get indextargets here: did not end within 0\.5 s"):
        fetch(["bzip2"], tmp_path, 0.5)
    assert time.monotonic() - started < 30


def test_a_machine_without_apt_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Debian a userland must come from somewhere else."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no apt-get and dpkg-deb here .*; give a userland .* with --userland FILE"):
        fetch(["bzip2"], tmp_path)


@pytest.mark.usefixtures("on_debian")
def test_a_machine_without_a_mirror_of_debian_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu's packages are others."""
    monkeypatch.setattr(debian, "_run", lambda *_: "http://localhost/ubuntu Ubuntu\n")
    with pytest.raises(UsageError, match=r"no mirror of Debian among its sources.*--userland FILE"):
        debian.find_debian_mirror(Deadline(30))


def test_a_label_with_blanks_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backports and security updates are no mirror of Debian itself."""
    others = "http://localhost/a Debian Backports\nhttp://localhost/b Debian-Security\n"
    monkeypatch.setattr(debian, "_run", lambda *_: f"{others}http://localhost/debian/ Debian\n")
    assert debian.find_debian_mirror(Deadline(30)) == "http://localhost/debian/"
