"""Building the arm64 machines that stand in for boards: a kernel, one initrd and a Debian, from Debian's packages.

The initrd's root has busybox, drivers, and a server with its libraries in a folder of
their own: no Python, no C library elsewhere, no /tmp. A machine stays there, or goes on
to Debian, which has Python and OpenSSH, on a disk. What is built is kept between test
sessions, by a digest of everything that it is built from.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgenas.devices.contract import Deadline
from edgenas.devices.self_contained.debian import fetch_packages, unpack_packages

TOOLS = ("apt-get", "dpkg-deb", "cpio", "mkfs.ext4", "qemu-system-aarch64")
# Read when this module is loaded: tests get a cache folder of their own.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_GUEST = Path(__file__).parent / "guest"
_SECONDS = 600.0
_LIBRARIES = "usr/lib/aarch64-linux-gnu"
_LOADER = "ld-linux-aarch64.so.1"
_DRIVERS = (
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio-rng",
)
_EMPTY_FOLDERS = ("data", "debian", "dev", "proc", "sys")
_ESSENTIAL = (
    "apt",
    "base-files",
    "bash",
    "coreutils",
    "dash",
    "grep",
    "gzip",
    "mount",
    "procps",
    "sed",
    "tar",
    "util-linux",
)
_DEBIAN_BYTES = 512 << 20  # sparse


@dataclass(frozen=True)
class Image:
    """What a machine boots from: files. ``debian`` is a disk."""

    kernel: Path
    initrd: Path
    debian: Path


def missing_tools() -> list[str]:
    """Return the programs that building and starting a machine needs and that are not installed here."""
    return [tool for tool in TOOLS if shutil.which(tool, path=_PATH) is None]


def build_image() -> Image:
    """Return the image with adbd, dropbear and Debian; it is built where no earlier session has done so."""
    folder = _CACHE / "edgenas-stand-ins" / _recipe_digest()
    image = Image(folder / "vmlinuz", folder / "initrd.gz", folder / "debian")
    if folder.is_dir():
        return image
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        _build_into(made, Path(temporary))
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another session was faster
                raise
    return image


def _recipe_digest() -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(path for path in _GUEST.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(_GUEST)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _build_into(made: Path, temporary: Path) -> None:
    board = _unpack(["busybox-static", "linux-image-cloud-arm64"], "bookworm", temporary / "board")
    server = _unpack(["adbd", "dropbear-bin"], "trixie", temporary / "server")
    (kernel,) = (board / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, made / "vmlinuz")
    root = temporary / "root"
    _lay_out_root(root, board, server)
    archive = _pack(root)
    (made / "initrd.gz").write_bytes(gzip.compress(archive, 1, mtime=0))
    debian = _unpack([*_ESSENTIAL, "openssh-server", "python3"], "bookworm", temporary / "debian")
    for name in ("passwd", "group"):
        shutil.copy(_GUEST / name, debian / "etc")
    _copy_executables([_GUEST / "debian_init"], debian)
    (debian / "data").mkdir()
    make_disk(made / "debian", debian, _DEBIAN_BYTES)


def make_disk(disk: Path, content: Path, size: int) -> None:
    """Write a disk image of some bytes, sparse, with the content of a folder. Its label is the file's name."""
    with disk.open("wb") as file:
        file.truncate(size)
    program = shutil.which("mkfs.ext4", path=_PATH) or "mkfs.ext4"
    command = [program, "-q", "-F", "-L", disk.name, "-d", str(content), str(disk)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _unpack(names: list[str], suite: str, folder: Path) -> Path:
    """Fetch packages for arm64 and return the folder that they are unpacked in."""
    deadline, root = Deadline(_SECONDS), folder / "root"
    folder.mkdir()
    packages = fetch_packages(names, suite=suite, architecture="arm64", folder=folder, deadline=deadline)
    unpack_packages(packages, root, deadline)
    return root


def _lay_out_root(root: Path, board: Path, server: Path) -> None:
    binaries, settings = root / "system/bin", root / "system/etc"
    modules, apex = root / "system/lib/modules", root / "apex/server"
    for folder in (binaries, settings, modules, apex / "bin", *(root / name for name in _EMPTY_FOLDERS)):
        folder.mkdir(parents=True)
    (root / "bin").symlink_to("system/bin")
    (root / "etc").symlink_to("system/etc")
    shutil.copy(board / "bin/busybox", binaries)
    (binaries / "sh").symlink_to("busybox")
    _copy_executables([_GUEST / "getprop", _GUEST / "dumpsys"], binaries)
    _copy_executables([_GUEST / "init"], root)
    for name in ("passwd", "group"):
        shutil.copy(_GUEST / name, settings)
    shutil.copytree(_GUEST / "answers", settings / "answers")
    for driver in _DRIVERS:
        (module,) = (board / "lib/modules").rglob(f"{driver}.ko")
        shutil.copy(module, modules)
    shutil.copytree(server / _LIBRARIES, apex / "lib64", ignore=shutil.ignore_patterns("gconv", "android"))
    shutil.copytree(server / _LIBRARIES / "android", apex / "lib64", dirs_exist_ok=True)
    _copy_executables([*(server / "usr/sbin").iterdir(), server / "usr/bin/dropbearkey"], apex / "bin")
    (apex / "lib64" / _LOADER).chmod(0o755)


def _copy_executables(files: Iterable[Path], folder: Path) -> None:
    for file in files:
        shutil.copy(file, folder)
        (folder / file.name).chmod(0o755)


def _pack(root: Path) -> bytes:
    """Return a folder as the cpio archive that a kernel unpacks, owned by root."""
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    command = ["cpio", "--create", "--format=newc", "--owner=0:0", "--reproducible", "--quiet"]
    return subprocess.run(command, cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout
