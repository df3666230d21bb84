"""Installing a userland through a real shell: here this machine's, with a userland that borrows this Python."""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import os
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Deadline, DeviceProfile, connect_device, link
from edgenas.devices.self_contained import install as installing
from edgenas.devices.self_contained.install import has_python, install_userland
from edgenas.devices.self_contained.userland import MANIFEST, UserlandManifest, _pack
from edgenas.devices.setup import InstalledRuntimes
from edgenas.devices.ssh.testing import Sshd
from edgenas.devices.worker_device import WorkerDevice
from edgenas.errors import DeviceError, FormatError, UsageError
from edgenas.files import sha256_hex
from edgenas.pipeline.device_setup import set_up_device

Mounted = Callable[[str], AbstractContextManager[DeviceProfile]]
Make = Callable[..., Path]
HERE = os.uname().machine
PYTHON = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'


@pytest.fixture
def make_userland(tmp_path: Path) -> Make:
    """Make a packed userland whose Python is this one; ``changed`` files differ from what its manifest says."""

    def make(
        machine: str = os.uname().machine, runtimes: tuple[str, ...] = ("onnxruntime",), changed: str = ""
    ) -> Path:
        root = tmp_path / "root"
        (root / "bin").mkdir(parents=True, exist_ok=True)
        (root / "bin/python").write_text(PYTHON)
        (root / "bin/python").chmod(0o755)
        (root / "lib").mkdir(exist_ok=True)
        (root / "lib/note").write_text("content")
        (root / MANIFEST).unlink(missing_ok=True)
        files = {name: sha256_hex((root / name).read_bytes()) for name in ("bin/python", "lib/note")}
        if changed:
            files[changed] = "0" * 64
        path = tmp_path / f"{machine}.tar.gz"
        path.write_bytes(_pack(root, UserlandManifest(machine, ("here",), runtimes, {}, files)))
        return path

    return make


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured here: who measures on this machine meanwhile is not waited for."""
    program, lock = link._build_worker_program, f"{tmp_path}/edgenas.lock".encode()
    monkeypatch.setattr(link, "_build_worker_program", lambda *of: program(*of).replace(b"/tmp/edgenas.lock", lock))


@pytest.fixture
def profile(sshd: Sshd, tmp_path: Path) -> DeviceProfile:
    """The server on loopback, whose Python setup brings along."""
    runtimes: dict[str, Any] = {"runtimes": {"onnxruntime": {}}, "default": {"runtime": "onnxruntime"}}
    return sshd.profile(python=None, work_dir=str(tmp_path / "board"), **runtimes)


@pytest.fixture
def device(profile: DeviceProfile) -> Iterator[WorkerDevice]:
    with connect_device(profile) as device:
        assert isinstance(device, WorkerDevice)
        yield device


def install(device: WorkerDevice, profile: DeviceProfile, userland: Path, **options: Any) -> InstalledRuntimes:
    return install_userland(device, profile, Deadline(120), userland=userland, **options)


def test_a_userland_is_installed_and_used(profile: DeviceProfile, make_userland: Make, tmp_path: Path) -> None:
    """Its Python becomes the device's, its runtimes say their versions, and nothing else is left there."""
    said: list[str] = []
    installed = set_up_device(profile, userland=make_userland(), say=said.append)
    assert installed.python == str(tmp_path / "board/venv/bin/python")
    assert installed.versions == {"onnxruntime": importlib.metadata.version("onnxruntime")}
    assert installed.how == "self-contained"
    assert said == [f"loopback: sending Python and runtimes, {said[0].rpartition(', ')[2]}"]
    assert [path.name for path in (tmp_path / "board").glob("venv*")] == ["venv"]
    with connect_device(profile) as device:
        assert device.python == installed.python


def test_it_is_sent_once(device: WorkerDevice, profile: DeviceProfile, make_userland: Make) -> None:
    """A second call finds it and sends nothing."""
    said: list[str] = []
    install(device, profile, make_userland())
    assert install(device, profile, make_userland(), say=said.append).how == "self-contained, already installed"
    assert said == []


def break_python(venv: Path) -> None:
    (venv / "bin/python").write_text("#!/bin/false\n")


def empty_note(venv: Path) -> None:
    (venv / "userland.sha256").write_text("")


def spoil_note(venv: Path) -> None:
    (venv / "userland.sha256").write_text("two\nlines\n")


@pytest.mark.parametrize("damage", [break_python, empty_note, spoil_note])
def test_what_is_damaged_is_sent_again(
    profile: DeviceProfile, make_userland: Make, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """A Python that does not start, and a note that a reset has spoilt, are as good as none."""
    set_up_device(profile, userland=make_userland())
    damage(tmp_path / "board/venv")
    assert set_up_device(profile, userland=make_userland()).how == "self-contained"
    assert set_up_device(profile, userland=make_userland()).how == "self-contained, already installed"


def test_a_runtime_that_cannot_be_imported_is_sent_again(
    profile: DeviceProfile, make_userland: Make, tmp_path: Path
) -> None:
    """Its Python starts and the note is intact, but a library is damaged."""
    set_up_device(profile, userland=make_userland())
    python = tmp_path / "board/venv/bin/python"
    refusing = 'case "$*" in *onnxruntime*) echo damaged >&2; exit 1;; esac\nexec'
    python.write_text(PYTHON.replace("exec", refusing, 1))
    said: list[str] = []
    assert set_up_device(profile, userland=make_userland(), say=said.append).how == "self-contained"
    assert said[0] == "loopback: what is installed there is damaged"
    assert python.read_text() == PYTHON


def test_what_was_there_comes_back(
    device: WorkerDevice, profile: DeviceProfile, make_userland: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the new one cannot take its place, the earlier one still works and nothing else is left."""
    install(device, profile, make_userland())
    assert "mv $n venv" in installing._UNPACK
    monkeypatch.setattr(installing, "_UNPACK", installing._UNPACK.replace("mv $n venv", "mv no-such-folder venv"))
    with pytest.raises(DeviceError, match=r"cannot be installed in .*no-such-folder"):
        install(device, profile, make_userland(runtimes=("onnxruntime", "litert")))
    assert [path.name for path in (tmp_path / "board").glob("venv*")] == ["venv"]
    assert has_python(device, f"{tmp_path}/board/venv/bin/python", Deadline(30))


def test_what_is_half_made_goes_unless_its_process_lives(
    device: WorkerDevice, profile: DeviceProfile, make_userland: Make, tmp_path: Path
) -> None:
    """What another set-up unpacks now stays; what a reset or an earlier version left is removed."""
    board, living = tmp_path / "board", f"venv.new.{os.getpid()}"
    for name in ("venv.new", "venv.new.4999999", "venv.old.4999999", living):
        (board / name).mkdir(parents=True)
    install(device, profile, make_userland())
    assert sorted(path.name for path in board.glob("venv*")) == ["venv", living]


def test_a_device_whose_shell_locks_is_locked(
    device: WorkerDevice, profile: DeviceProfile, make_userland: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phone may measure without Python, so the first set-up waits for it."""
    monkeypatch.setattr(device, "locks_without_python", lambda deadline: True)
    monkeypatch.setattr(installing, "_LOCK_SECONDS", 0.5)
    monkeypatch.setattr(device, "_take_lock_or_get_holder", lambda us: "another")
    with pytest.raises(DeviceError, match="loopback: is taken by another"):
        install(device, profile, make_userland())


def test_another_userland_takes_its_place(device: WorkerDevice, profile: DeviceProfile, make_userland: Make) -> None:
    """What differs by anything is sent, and replaces what was there."""
    install(device, profile, make_userland())
    newer = install(device, profile, make_userland(runtimes=("onnxruntime", "litert")))
    assert newer.how == "self-contained"


def test_a_file_that_arrived_changed_is_refused(
    device: WorkerDevice, profile: DeviceProfile, make_userland: Make, tmp_path: Path
) -> None:
    """Files are checked where they lie; what worked before still does, and nothing half-made is left."""
    install(device, profile, make_userland())
    with pytest.raises(DeviceError, match=r"cannot be installed in .*board \(lib/note arrived changed\); free space"):
        install(device, profile, make_userland(changed="lib/note"))
    assert [path.name for path in (tmp_path / "board").glob("venv*")] == ["venv"]
    assert has_python(device, f"{tmp_path}/board/venv/bin/python", Deadline(30))


def test_a_device_without_tar_says_so(
    device: WorkerDevice, profile: DeviceProfile, make_userland: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that ends before it has read the megabytes that are sent to it gives its reason."""
    monkeypatch.setattr(installing, "_UNPACK", installing._UNPACK.replace("tar xzf", "no-tar xzf"))
    path = make_userland()
    padded = gzip.decompress(path.read_bytes()) + os.urandom(8 << 20)
    path.write_bytes(gzip.compress(padded, 1))
    with pytest.raises(DeviceError, match=r"cannot be installed in .*no-tar: (command )?not found"):
        install(device, profile, path)


def test_a_folder_that_cannot_be_made_is_named(sshd: Sshd, make_userland: Make, tmp_path: Path) -> None:
    """A work_dir below a file is refused before anything is sent."""
    (tmp_path / "file").write_text("")
    profile = sshd.profile(python=None, work_dir=str(tmp_path / "file/board"))
    with connect_device(profile) as device:
        assert isinstance(device, WorkerDevice)
        with pytest.raises(DeviceError, match=r"file/board cannot be made there \(.*\); set work_dir in the profile"):
            install(device, profile, make_userland())


def test_a_disk_mounted_noexec_is_refused(mounted: Mounted, make_userland: Make) -> None:
    """Nothing can be started from such a disk: the message says so."""
    with mounted("noexec") as mounted_profile, connect_device(mounted_profile) as device:
        assert isinstance(device, WorkerDevice)
        with pytest.raises(DeviceError, match=r"ermission denied\); .* not mounted noexec"):
            install(device, mounted_profile, make_userland())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"machine": "riscv64"}, r"riscv64.tar.gz: is for riscv64, and loopback is \w+; give another"),
        ({"runtimes": ("litert",)}, r"has litert, and loopback needs onnxruntime; give another"),
    ],
)
def test_a_userland_that_does_not_fit_is_refused(
    device: WorkerDevice, profile: DeviceProfile, make_userland: Make, options: dict[str, Any], problem: str
) -> None:
    """One for another processor, and one without the default runtime, are refused before anything is sent."""
    with pytest.raises(UsageError, match=problem):
        install(device, profile, make_userland(**options))


def _archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no gzipped tar archive"),
        (b"hello", "is no gzipped tar archive"),
        (_archive("other"), "is no userland; make one by edgenas device setup on a Debian machine"),
        (_archive(MANIFEST), "is damaged"),
    ],
    ids=["empty", "text", "another archive", "empty manifest"],
)
def test_a_file_that_is_no_userland_is_refused(
    device: WorkerDevice, profile: DeviceProfile, tmp_path: Path, content: bytes, problem: str
) -> None:
    """A file of another kind is named, and nothing is sent."""
    path = tmp_path / "file.tar.gz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=problem):
        install(device, profile, path)


def test_a_processor_without_packages_is_refused(
    device: WorkerDevice, profile: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 32-bit board is told what there is."""
    monkeypatch.setattr(installing, "_LOOK", installing._LOOK.replace("uname -m", "echo armv7l"))
    with pytest.raises(DeviceError, match=r"its processor is armv7l, and there are .* for aarch64 and x86_64 only"):
        install_userland(device, profile, Deadline(60))


def test_a_silent_device_is_given_up(
    device: WorkerDevice, profile: DeviceProfile, make_userland: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What unpacks for ever ends with the deadline."""
    monkeypatch.setattr(installing, "_UNPACK", installing._UNPACK.replace("tar xzf -", "sleep 600;"))
    started = time.monotonic()
    with pytest.raises(DeviceError, match="did not end within 3 s"):
        install_userland(device, profile, Deadline(3), userland=make_userland())
    assert time.monotonic() - started < 30


def test_python_that_is_absent_is_noticed(device: WorkerDevice) -> None:
    """Only what starts and runs counts as Python."""
    assert has_python(device, sys.executable, Deadline(30))
    assert not has_python(device, "/bin/false", Deadline(30))
    assert not has_python(device, "no-such-python", Deadline(30))
