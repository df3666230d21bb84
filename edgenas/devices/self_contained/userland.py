"""Userlands: Python and runtimes for a processor as one packed file, put together here and kept by what is in it."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgenas.devices.contract import Deadline
from edgenas.devices.profile import DeviceProfile
from edgenas.devices.self_contained import layout
from edgenas.devices.self_contained.debian import fetch_packages, unpack_packages
from edgenas.devices.wheels import Interpreter, RuntimePackages, download_wheels, runtime_packages
from edgenas.errors import EdgeNASError, FormatError, UsageError
from edgenas.files import Schema, ShortText, cache_folder, digest_of_inputs, read_bytes, sha256_hex, write_bytes
from edgenas.on_device.work_folder import WorkFolder

MANIFEST = "userland.json"
MAX_PACKED_BYTES = 512 << 20
_MAX_MANIFEST_BYTES = 4 << 20
_SCHEMA = Schema("userland", 1)


@dataclass(frozen=True)
class UserlandManifest:
    """What is in a userland.

    Attributes:
        machine: The processor, as ``uname -m`` prints it.
        packages: The files of Debian's packages and wheels that it is made of.
        runtimes: The names of its runtimes.
        skipped: The reason for each runtime that it should have and has not.
        files: The SHA-256 of each file, by its path.
    """

    machine: ShortText
    packages: tuple[ShortText, ...]
    runtimes: tuple[ShortText, ...]
    skipped: Mapping[ShortText, str]
    files: Mapping[str, ShortText]


@dataclass(frozen=True)
class Userland:
    """A packed userland.

    Attributes:
        path: The file, a gzipped tar archive.
        packed: Its content.
        sha256: Its digest.
        manifest: What is in it.
        manifest_sha256: The digest of the file that says so.
    """

    path: Path
    packed: bytes
    sha256: str
    manifest: UserlandManifest
    manifest_sha256: str


def read_userland(path: Path) -> Userland:
    """Read a packed userland.

    Raises:
        UsageError: The file cannot be read.
        FormatError: It is none, or damaged where it says what is in it.
    """
    packed = read_bytes(path, MAX_PACKED_BYTES)
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST or not first.isreg() or first.size > _MAX_MANIFEST_BYTES:
                raise FormatError(f"{path}: is no userland; make one by edgenas device setup on a Debian machine")
            stream = archive.extractfile(first)
            assert stream is not None
            text = stream.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise FormatError(f"{path}: is no gzipped tar archive ({error}); give a userland's file") from None
    with WorkFolder() as folder:
        write_bytes(folder / MANIFEST, text)
        manifest = _SCHEMA.read_as(UserlandManifest, folder / MANIFEST)
    return Userland(path, packed, sha256_hex(packed), manifest, sha256_hex(text))


def prepare_userland(
    profile: DeviceProfile,
    machine: str,
    deadline: Deadline,
    *,
    wheels: Sequence[Path] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Userland:
    """Return the userland with a profile's runtimes; put it together where no earlier call has done so.

    Args:
        profile: Its default runtime must be had, others may be skipped.
        machine: The device's processor, a key of ``layout.MACHINES``.
        deadline: The time for all of it.
        wheels: Wheel files to use instead of the index's.
        say: Called with a line about each longer step.

    Raises:
        UsageError: This machine has no apt with a mirror of Debian, or a wheel is wrong.
        EdgeNASError: Packages or wheels cannot be fetched.
    """
    runtimes = [_without_numpy(each, profile) for each in runtime_packages(profile, wheels)]
    recipe = digest_of_inputs(
        sha256_hex(Path(layout.__file__).read_bytes()),
        [[each.runtime.name, *each.fingerprint, *each.runtime.needed_files] for each in runtimes],
    )
    path = cache_folder("userlands") / f"{machine}-{recipe}.tar.gz"
    if path.exists() and not (kept := read_userland(path)).manifest.skipped:
        return kept
    names = ", ".join(each.runtime.name for each in runtimes)
    say(f"{profile.name}: putting Python {layout.PYTHON}, {names} for {machine} together from Debian's packages")
    with WorkFolder() as folder:
        manifest = _build(folder, profile, machine, runtimes, deadline)
        write_bytes(path, _pack(folder / "root", manifest))
    say(f"{profile.name}: kept in {path}; a machine without Debian takes it by --userland FILE")
    return read_userland(path)


def _without_numpy(runtime: RuntimePackages, profile: DeviceProfile) -> RuntimePackages:
    """Leave out numpy, which is Debian's here: a tenth of the size of the wheel's, which brings OpenBLAS."""
    given = [str(path) for path in runtime.wheels if path.name.startswith("numpy-")]
    if given:
        raise UsageError(f"{given[0]}: {profile.name} gets Debian's numpy in a self-contained runtime; leave it out")
    return replace(runtime, packages=tuple(each for each in runtime.packages if each != "numpy"))


def _build(
    folder: Path, profile: DeviceProfile, machine: str, runtimes: Sequence[RuntimePackages], deadline: Deadline
) -> UserlandManifest:
    """Put a userland together in the folder ``root`` of a temporary folder."""
    root, made = folder / "root", layout.MACHINES[machine]
    (folder / "apt").mkdir()
    packages = fetch_packages(
        layout.PACKAGES, suite=layout.SUITE, architecture=made.architecture, folder=folder / "apt", deadline=deadline
    )
    unpack_packages(packages, folder / "unpacked", deadline)
    layout.lay_out_python(folder / "unpacked", root, made)
    interpreter, skipped = Interpreter(layout.PYTHON, machine, layout.GLIBC), {}
    for each in runtimes:
        name = each.runtime.name
        try:
            wheels = download_wheels(each, interpreter, folder / f"wheels-{name}", deadline)
        except EdgeNASError as error:
            if name == profile.default.runtime:
                raise EdgeNASError(f"{profile.name}: {error}") from None
            skipped[name] = str(error)
            continue
        packages += wheels
        for wheel in wheels:
            _unpack_wheel(wheel, folder / "wheels" / wheel.stem)
            layout.copy_needed_files(folder / "wheels" / wheel.stem, root, each.runtime.needed_files)
    layout.compile_modules(root)
    return UserlandManifest(
        machine=machine,
        packages=tuple(path.name for path in packages),
        runtimes=tuple(each.runtime.name for each in runtimes if each.runtime.name not in skipped),
        skipped=skipped,
        files={name: sha256_hex(path.read_bytes()) for name, path in _files(root)},
    )


def _unpack_wheel(wheel: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)  # noqa: S202 - of zipfile, which leaves out .. and leading slashes
    except (zipfile.BadZipFile, OSError) as error:
        raise UsageError(f"{wheel}: cannot be unpacked ({error}); give an intact wheel file") from None


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path


def _pack(root: Path, manifest: UserlandManifest) -> bytes:
    """Pack a userland, its manifest first; equal content gives equal bytes."""
    body = {name: getattr(manifest, name) for name in UserlandManifest.__dataclass_fields__}
    _SCHEMA.write(root / MANIFEST, body)
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=6, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, path in [(MANIFEST, root / MANIFEST), *(item for item in _files(root) if item[0] != MANIFEST)]:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = path.stat().st_size, path.stat().st_mode & 0o755 | 0o600
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return buffer.getvalue()
