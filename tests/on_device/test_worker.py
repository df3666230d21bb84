"""The remote worker, and the files that it keeps on a device."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgenas.devices.link import SENT_MODULES
from edgenas.files import sha256_hex
from edgenas.on_device import worker
from edgenas.on_device.work_folder import DeviceLock, KeptFiles, WorkFolder, find_device_lock, read_file_digest

HERE = Path(worker.__file__).parent


def kept(folder: Path) -> KeptFiles:
    return KeptFiles(folder, lambda: None)


def keep(folder: Path, content: bytes, age_seconds: int = 0) -> str:
    """Let the folder keep a file; returns its hash."""
    source = folder / "source"
    source.write_bytes(content)
    os.utime(source, (1_000_000_000 - age_seconds,) * 2)
    kept(folder).keep(source, sha256_hex(content))
    source.unlink()
    return sha256_hex(content)


@pytest.mark.parametrize("name", SENT_MODULES)
def test_what_is_sent_runs_on_python_3_8(name: str) -> None:
    """Modules that are sent have the grammar of Python 3.8 and evaluate no newer annotation."""
    tree = ast.parse((HERE / f"{name}.py").read_text(), feature_version=(3, 8))
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


@pytest.mark.parametrize("name", SENT_MODULES)
def test_what_is_sent_needs_nothing_else(name: str) -> None:
    """Modules that are sent import the standard library and each other only."""
    tree = ast.parse((HERE / f"{name}.py").read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    sent = {f"edgenas.on_device.{module}" for module in SENT_MODULES}
    assert {module for module in imported if module.partition(".")[0] not in sys.stdlib_module_names} <= sent


def test_a_kept_file_is_placed(tmp_path: Path) -> None:
    """A file that is kept is there again under any name, also in place of another."""
    sha256 = keep(tmp_path, b"content")
    (tmp_path / "target").write_bytes(b"old")
    assert kept(tmp_path).link_if_kept(sha256, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"content"


def test_an_unknown_file_is_not_placed(tmp_path: Path) -> None:
    """What is not kept leaves the target alone."""
    assert not kept(tmp_path).link_if_kept(sha256_hex(b"content"), tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_damaged_file_is_dropped(tmp_path: Path) -> None:
    """A kept file whose content is not that of its name is forgotten."""
    sha256 = keep(tmp_path, b"content")
    (tmp_path / "files" / sha256).write_bytes(b"damaged")
    assert not kept(tmp_path).link_if_kept(sha256, tmp_path / "target")
    assert list((tmp_path / "files").iterdir()) == []


def test_the_least_used_files_go_first(tmp_path: Path) -> None:
    """When they are too large together, the oldest are dropped."""
    ages = {keep(tmp_path, bytes([number]) * 100, age_seconds=number): number for number in range(5)}
    kept(tmp_path).trim(250, 0)
    assert sorted(ages[path.name] for path in (tmp_path / "files").iterdir()) == [0, 1]


def test_kept_files_are_counted_as_they_come(tmp_path: Path) -> None:
    """Of files that are kept after a first look, those that are too much are dropped too."""
    files = kept(tmp_path)
    for number in range(4):
        files.trim(250, 0)
        source = tmp_path / f"source{number}"
        source.write_bytes(bytes([number]) * 100)
        os.utime(source, (1_000_000_000 + number,) * 2)
        files.keep(source, sha256_hex(source.read_bytes()))
    assert len(list((tmp_path / "files").iterdir())) == 3
    files.trim(250, 0)
    assert sorted(path.read_bytes()[0] for path in (tmp_path / "files").iterdir()) == [2, 3]


def test_all_files_go_where_the_disk_is_full(tmp_path: Path) -> None:
    """When there is less free than is wanted, none is left."""
    keep(tmp_path, b"content")
    kept(tmp_path).trim(1 << 40, 1 << 60)
    assert list((tmp_path / "files").iterdir()) == []


def test_files_are_kept_where_links_are_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Android's shell may make no hard links: a file is copied, and a copy that was cut off is no obstacle."""

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "no links here")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / ".model.onnx.tmp").write_bytes(b"half")
    sha256 = keep(tmp_path, b"content")
    target = tmp_path / "model.onnx"
    assert kept(tmp_path).link_if_kept(sha256, target)
    assert target.read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "files").iterdir()] == [sha256]
    assert not (tmp_path / ".model.onnx.tmp").exists()


def test_the_lock_lies_where_all_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in /tmp; on a phone, which has none, where TMPDIR says; elsewhere in the folder of the work folders."""
    assert find_device_lock(tmp_path) == Path("/tmp/edgenas.lock")  # noqa: S108 - where everybody looks
    monkeypatch.setattr("edgenas.on_device.work_folder._DEVICE_LOCK", tmp_path / "absent/edgenas.lock")
    monkeypatch.setenv("TMPDIR", "/data/local/tmp")
    assert find_device_lock(tmp_path) == Path("/data/local/tmp/edgenas.lock")
    monkeypatch.delenv("TMPDIR")
    assert find_device_lock(tmp_path) == tmp_path / "edgenas.lock"


def test_a_lock_names_its_holder(tmp_path: Path) -> None:
    """Who comes second is told who was first, and gets it afterwards."""
    first, second = DeviceLock(tmp_path / "lock"), DeviceLock(tmp_path / "lock")
    assert first.acquire_or_get_holder("me") is None
    assert second.acquire_or_get_holder("you") == "me"
    first.release()
    assert second.acquire_or_get_holder("you") is None
    second.release()
    second.release()


def test_a_lock_is_for_all_users(tmp_path: Path) -> None:
    """Its file may be locked by other users of the device."""
    lock = DeviceLock(tmp_path / "lock")
    lock.acquire_or_get_holder("me")
    lock.release()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o666


def test_a_folder_for_temporary_files_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the usual folder cannot be made another is; where none can, the first one's error is raised."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    folder = worker.make_work_folder([str(tmp_path / "file"), ""])
    assert folder.path.parent == tmp_path / f"edgenas-{os.getuid()}"
    folder.remove()
    with pytest.raises(OSError, match="file"):
        worker.make_work_folder([str(tmp_path / "file")])


def test_another_users_folder_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files that somebody else may have put there is refused."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / f"edgenas-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="another user"):
        worker.make_work_folder([""])


def test_a_lock_with_another_name_is_not_taken(tmp_path: Path) -> None:
    """A hard link in the lock's place cannot make us empty another file."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "lock").hardlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="it has another name"):
        DeviceLock(tmp_path / "lock").acquire_or_get_holder("me")
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    """A link in the lock's place cannot make us empty another file."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="lock"):
        DeviceLock(tmp_path / "lock").acquire_or_get_holder("me")
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_pipe_is_no_lock(tmp_path: Path) -> None:
    """What could be locked but not written to is refused, without waiting for it."""
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match="it is no regular file"):
        DeviceLock(tmp_path / "lock").acquire_or_get_holder("me")


def test_an_unknown_users_home_is_no_place(tmp_path: Path) -> None:
    """A work_dir in the home folder of nobody is an error like others."""
    with pytest.raises(FileNotFoundError, match="there is no such user"):
        worker.make_work_folder(["~nobody-here/work"])


def test_a_work_folder_has_a_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in the work folder and find their files there, whatever it was called."""
    monkeypatch.chdir(tmp_path)
    folder = worker.make_work_folder(["work"])
    assert folder.path.parent == tmp_path / "work"
    folder.remove()


def test_a_folder_left_while_it_was_made_is_swept(tmp_path: Path) -> None:
    """A work folder without a lock goes once it is old; a new one may be about to get its lock."""
    for name in ("edgenas-work-old", "edgenas-work-new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "edgenas-work-old", (1_000_000_000,) * 2)
    WorkFolder(tmp_path).remove()
    assert [path.name for path in tmp_path.iterdir()] == ["edgenas-work-new"]


def test_sweeping_follows_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    """What others may have put among temporary files is left alone."""
    elsewhere, linked = tmp_path / "elsewhere", tmp_path / "edgenas-work-linked"
    for folder in (elsewhere, linked):
        folder.mkdir()
    (elsewhere / ".lock").write_text("")
    (tmp_path / "edgenas-work-a").symlink_to(elsewhere)
    (linked / ".lock").symlink_to(elsewhere / ".lock")
    WorkFolder(tmp_path).remove()
    assert (elsewhere / ".lock").exists()
    assert linked.exists()


def test_another_users_folder_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who made a work folder removes it."""
    WorkFolder(tmp_path).path.joinpath(".lock").with_name("file").write_text("")
    monkeypatch.setattr("os.getuid", lambda: -1)
    WorkFolder(tmp_path).remove()
    assert len(list(tmp_path.glob("edgenas-work-*/file"))) == 1


def test_a_living_owners_folder_is_left_alone(tmp_path: Path) -> None:
    """Making a work folder removes only those whose owner is gone."""
    first, second = WorkFolder(tmp_path), WorkFolder(tmp_path)
    assert first.path.is_dir()
    first.remove()
    second.remove()


def test_a_digest_gives_signs_of_life(tmp_path: Path) -> None:
    """While a large file is read the other side is told so now and then."""
    (tmp_path / "file").write_bytes(bytes(3 << 20))
    pulses: list[None] = []
    assert read_file_digest(tmp_path / "file", lambda: pulses.append(None)) == sha256_hex(bytes(3 << 20))
    assert len(pulses) == 3


def test_a_temporary_folder_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    """The next temporary folder that is made sweeps it; one whose owner lives stays."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom edgenas.on_device.work_folder import WorkFolder\n"
        "with WorkFolder(Path(sys.argv[1])) as folder:\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with WorkFolder(tmp_path) as first, WorkFolder(tmp_path) as second:
        assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert not list(tmp_path.iterdir())
