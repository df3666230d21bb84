"""A device that is known from published latency tables only."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgenas.devices import Target, absent_profile, check_present, connect_device, is_absent, load_profile
from edgenas.errors import DeviceError, UsageError


def test_connecting_says_that_there_is_no_device() -> None:
    """Connecting fails at once, naming the device and what to do instead."""
    with pytest.raises(DeviceError, match=r"note10: is known from published .* no device to measure on; give the prof"):
        connect_device(absent_profile("note10"))


def test_its_target_says_published() -> None:
    """Its target's name says that nothing was measured."""
    assert Target(absent_profile("note10")).name == "note10-published-fp32-1t"


def test_its_profile_is_a_file_like_any_other(tmp_path: Path) -> None:
    """Written as YAML it is read back as the same profile."""
    profile = absent_profile("note10")
    path = tmp_path / "note10.yaml"
    path.write_text(
        yaml.safe_dump(
            {"name": "note10", "connection": {"kind": "absent"}}
            | {"runtimes": {"published": {"providers": ["unknown"]}}, "default": {"runtime": "published"}}
        )
    )
    assert load_profile(path) == profile


def test_present_and_absent_are_told_apart() -> None:
    """This machine is there; a published device is not."""
    check_present(load_profile("localhost"))
    assert not is_absent(load_profile("localhost"))
    with pytest.raises(DeviceError):
        check_present(absent_profile("note10"))


@pytest.mark.parametrize("name", ["", "Note 10", "../note10", "a/b"])
def test_a_name_that_cannot_be_a_file_is_refused(name: str) -> None:
    """A device's name becomes part of file names: blanks, capitals and folders are refused."""
    with pytest.raises(UsageError, match="name must be lower-case letters"):
        absent_profile(name)
