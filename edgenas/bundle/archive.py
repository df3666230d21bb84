"""Reproducible zips of bundles and samples, and strict reading of zips that may be damaged or hostile."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import EdgeNASError, UsageError, VerificationError
from edgenas.files import read_bytes, write_bytes
from edgenas.on_device.work_folder import WorkFolder

Array = npt.NDArray[Any]
_MAX_ARCHIVE_BYTES = 2**29
_ENCRYPTED = 1  # bit of a member's flags


def pack_zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return an uncompressed zip of files by name; equal files give equal bytes with any version of zlib."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def unpack_zip_bytes(data: bytes, *allowed_names: Sequence[str]) -> dict[str, bytes]:
    """Return the files of a zip that ``pack_zip_bytes`` made.

    The list of members is checked before any member is read.

    Args:
        data: the zip.
        allowed_names: lists of file names; the zip must have exactly the names of one of them.

    Raises:
        VerificationError: naming the broken rule, also when one byte differs from what ``pack_zip_bytes`` writes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            present = {member.filename for member in members}
            _check_members(members, max(allowed_names, key=lambda names: len(present.intersection(names))), len(data))
            files = {member.filename: archive.read(member) for member in members}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, LookupError):
        raise VerificationError("is damaged or no zip") from None
    if pack_zip_bytes(files) != data:
        raise VerificationError("was changed or packed by another program; unpack it and verify the folder")
    return files


def _check_members(members: Sequence[zipfile.ZipInfo], names: Sequence[str], size: int) -> None:
    """Raise VerificationError unless the members are these files, once each, and no larger than the archive."""
    if members and members[0].header_offset:
        # A truncated archive may end in the member list of an archive inside it.
        raise VerificationError("is damaged or no zip")
    for member in members:
        _check_member_path(member)
    present = [member.filename for member in members]
    for member in members:
        if member.filename not in names:
            raise VerificationError(f"holds {member.filename!r}, which is no part of the bundle")
        if present.count(member.filename) > 1:
            raise VerificationError(f"holds {member.filename!r} more than once")
        _check_stored_as_is(member)
    missing = [name for name in names if name not in present]
    if missing:
        raise VerificationError(f"lacks {missing[0]!r}")
    if sum(member.file_size for member in members) > size:
        raise VerificationError("holds files that overlap")


def _check_member_path(member: zipfile.ZipInfo) -> None:
    """Raise VerificationError for a link and for a path outside of the archive's folder."""
    name = member.filename
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
        raise VerificationError(f"holds {name!r}, which leads out of the folder")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise VerificationError(f"holds {name!r}, which is a link")


def _check_stored_as_is(member: zipfile.ZipInfo) -> None:
    """Raise VerificationError for an encrypted or compressed member."""
    if member.flag_bits & _ENCRYPTED:
        raise VerificationError(f"holds {member.filename!r} encrypted")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise VerificationError(
            f"holds {member.filename!r} compressed, {member.file_size} bytes from {member.compress_size};"
            " edgenas stores files as they are: unpack it and verify the folder"
        )


def pack_npz_bytes(**arrays: Array) -> bytes:
    """Return an .npz whose bytes depend on the arrays alone; numpy's own may contain the time."""
    files = {}
    for name, array in arrays.items():
        data = io.BytesIO()
        np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
        files[f"{name}.npy"] = data.getvalue()
    return pack_zip_bytes(files)


def read_npz_arrays(path: Path, names: Sequence[str]) -> list[Array]:
    """Return the arrays of an .npz that ``pack_npz_bytes`` made. Raise VerificationError for any other file."""
    try:
        files = unpack_zip_bytes(read_bytes(path), [f"{name}.npy" for name in names])
        return [np.lib.format.read_array(io.BytesIO(data), allow_pickle=False) for data in files.values()]
    except (EOFError, ValueError, MemoryError, VerificationError):
        raise VerificationError(f"{path.name}: must hold {', '.join(names)}, as edgenas packs them") from None


def write_archive(folder: Path, path: Path, names: Sequence[str]) -> None:
    """Pack files of a folder into a zip at ``path``; equal files give equal bytes.

    Raises:
        UsageError: when ``path`` exists and is not an archive of files with these names.
    """
    packed = pack_zip_bytes({name: read_bytes(folder / name) for name in names})
    if path.exists():
        existing = read_bytes(path)
        if existing == packed:
            return
        try:
            unpack_zip_bytes(existing, names)
        except VerificationError as error:
            raise UsageError(f"{path}: {error}; move it away or choose another folder") from None
    write_bytes(path, packed)


@contextmanager
def open_unpacked_archive(path: Path, *allowed_names: Sequence[str]) -> Iterator[Path]:
    """Unpack an archive into a temporary folder that exists until the context ends.

    Raises:
        VerificationError: as ``unpack_zip_bytes``, naming the archive.
    """
    if path.stat().st_size > _MAX_ARCHIVE_BYTES:
        raise VerificationError(f"{path}: is over {_MAX_ARCHIVE_BYTES} bytes, which no bundle has")
    try:
        files = unpack_zip_bytes(read_bytes(path), *allowed_names)
    except VerificationError as error:
        raise VerificationError(f"{path}: {error}; do not use it") from None
    except MemoryError:
        raise VerificationError(f"{path}: reading it takes more memory than there is; do not use it") from None
    with WorkFolder() as parent:
        folder = parent / "bundle"  # apart from the lock of the work folder
        try:
            folder.mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
        except OSError as error:
            raise EdgeNASError(
                f"{folder}: cannot be written ({error.strerror}); set TMPDIR to another folder"
            ) from None
        yield folder
