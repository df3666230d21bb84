"""What is taken of unpacked packages, here of a few synthetic files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgenas.devices.self_contained.layout import copy_libraries
from edgenas.errors import EdgeNASError


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Packages that have one library, also under another name, and links out of the folder in every order."""
    (tmp_path / "of_this_machine.so").write_text("of this machine")
    folder = tmp_path / "unpacked/usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "ld.so.2").write_text("of the package")
    (folder / "libz.so.1").symlink_to("ld.so.2")
    for name in ("lib", "lib64", "usr/lib64"):
        links = tmp_path / "unpacked" / name
        links.mkdir()
        for library in ("ld.so.2", "absent.so"):
            (links / library).symlink_to(tmp_path / "of_this_machine.so")
    return tmp_path / "unpacked"


def test_a_link_out_of_the_packages_is_not_followed(unpacked: Path, tmp_path: Path) -> None:
    """Debian's lib64 links to an absolute path, which here is this machine's own file."""
    (tmp_path / "lib").mkdir()
    copy_libraries(unpacked, tmp_path / "lib", ["ld.so.2", "libz.so.1"])
    for name in ("ld.so.2", "libz.so.1"):
        assert (tmp_path / "lib" / name).read_text() == "of the package"


def test_an_absent_library_is_named(unpacked: Path, tmp_path: Path) -> None:
    """One that only a link out of the packages has is absent."""
    (tmp_path / "lib").mkdir()
    with pytest.raises(EdgeNASError, match=r"absent\.so is in none of Debian's packages"):
        copy_libraries(unpacked, tmp_path / "lib", ["absent.so"])
