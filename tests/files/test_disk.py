"""Writing files whole or not at all, and reading regular files only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgenas import files
from edgenas.errors import EdgeNASError, UsageError


def test_folders_are_made_on_the_way(tmp_path: Path) -> None:
    """Writing makes the folders above the file, and leaves nothing beside it."""
    files.write_bytes(tmp_path / "a" / "b" / "file", b"content")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fails before the file is whole, the old one stays and no temporary one is left."""
    path = tmp_path / "file"
    files.write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeNASError, match="file: cannot be written \\(No space left on device\\); free space"):
        files.write_bytes(path, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_killed_write_keeps_the_old_file(tmp_path: Path) -> None:
    """A process that dies while it writes leaves the old file as it was."""
    path = tmp_path / "file"
    files.write_bytes(path, b"old")
    code = (
        "import os, sys, signal, pathlib\nfrom edgenas import files\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_bytes(pathlib.Path(sys.argv[1]), b'new')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["file/below", "n" * 300])
def test_unwritable_place_is_named(tmp_path: Path, name: str) -> None:
    """A path below a file, or one too long, is an error of edgenas that names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(EdgeNASError, match="cannot be written"):
        files.write_bytes(tmp_path / name, b"content")


def test_absent_file_is_named(tmp_path: Path) -> None:
    """Reading an absent file is an error that names it."""
    with pytest.raises(UsageError, match=r"gone: cannot be read \(No such file or directory\)"):
        files.read_bytes(tmp_path / "gone")


def test_a_link_in_the_temporary_files_place_is_not_followed(tmp_path: Path) -> None:
    """What a link at the name of the temporary file leads to keeps its content."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / f".file.{os.getpid()}.edgenas-tmp").symlink_to(tmp_path / "mine")
    files.write_bytes(tmp_path / "file", b"content")
    assert [(tmp_path / name).read_text() for name in ("mine", "file")] == ["precious", "content"]


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    """Where a file must be new, one that another process made meanwhile is kept."""
    files.write_bytes(tmp_path / "file", b"first", replace=False)
    with pytest.raises(UsageError, match="file: is there already"):
        files.write_bytes(tmp_path / "file", b"second", replace=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"first"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Reading a named pipe that nobody writes to is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe: is no regular file"):
        files.read_bytes(tmp_path / "pipe")


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    """A file that the user names may be a link."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert files.read_bytes(tmp_path / "link") == b"content"
