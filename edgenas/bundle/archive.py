"""Zips whose bytes depend on their content alone, and reading them with suspicion: a bundle's, and its sample's."""

from __future__ import annotations

import io
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import EdgeNASError, UsageError, VerificationError
from edgenas.files import read_bytes, write_bytes

Array = npt.NDArray[Any]
_MOST_BYTES = 2**29
_ENCRYPTED = 1


def pack(files: Mapping[str, bytes]) -> bytes:
    """A zip of files by name, stored as they are: another zlib would give other bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def unpack(data: bytes, *choices: Sequence[str]) -> dict[str, bytes]:
    """The files of a zip that ``pack`` made, which must have exactly the names of one of the choices.

    Nothing is unpacked before the list of members is as it must be, and no
    byte may differ from what ``pack`` writes. Raises VerificationError with
    the rule.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, _nearest(choices, members), len(data))
            files = {member.filename: archive.read(member) for member in members}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError, LookupError):
        raise VerificationError("is damaged or no zip") from None
    if pack(files) != data:
        raise VerificationError("was changed or packed by another program; unpack it and verify the folder")
    return files


def _nearest(choices: Sequence[Sequence[str]], members: Sequence[zipfile.ZipInfo]) -> Sequence[str]:
    found = {member.filename for member in members}
    return max(choices, key=lambda names: len(found.intersection(names)))


def _check_members(members: Sequence[zipfile.ZipInfo], names: Sequence[str], size: int) -> None:
    """The members are the files of these names, once each, and no larger than the archive."""
    if members and members[0].header_offset:
        # A cut archive ends in the list of an archive that it holds.
        raise VerificationError("is damaged or no zip")
    for member in members:
        _check_place(member)
    found = [member.filename for member in members]
    for member in members:
        if member.filename not in names:
            raise VerificationError(f"holds {member.filename!r}, which is no part of the bundle")
        if found.count(member.filename) > 1:
            raise VerificationError(f"holds {member.filename!r} more than once")
        _check_stored(member)
    missing = [name for name in names if name not in found]
    if missing:
        raise VerificationError(f"lacks {missing[0]!r}")
    if sum(member.file_size for member in members) > size:
        raise VerificationError("holds files that overlap")


def _check_place(member: zipfile.ZipInfo) -> None:
    name = member.filename
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
        raise VerificationError(f"holds {name!r}, which leads out of the folder")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise VerificationError(f"holds {name!r}, which is a link")


def _check_stored(member: zipfile.ZipInfo) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise VerificationError(f"holds {member.filename!r} encrypted")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise VerificationError(
            f"holds {member.filename!r} compressed, {member.file_size} bytes from {member.compress_size};"
            " edgenas stores files as they are: unpack it and verify the folder"
        )


def pack_arrays(**arrays: Array) -> bytes:
    """An .npz whose bytes depend on the arrays alone, not on the clock as numpy's may."""
    files = {}
    for name, array in arrays.items():
        data = io.BytesIO()
        np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
        files[f"{name}.npy"] = data.getvalue()
    return pack(files)


def unpack_arrays(path: Path, names: Sequence[str]) -> list[Array]:
    """The arrays of an .npz that ``pack_arrays`` made. Raises VerificationError; never unpickles."""
    try:
        files = unpack(read_bytes(path), [f"{name}.npy" for name in names])
        return [np.lib.format.read_array(io.BytesIO(data), allow_pickle=False) for data in files.values()]
    except (EOFError, ValueError, MemoryError, VerificationError):
        raise VerificationError(f"{path.name}: must hold {', '.join(names)}, as edgenas packs them") from None


def write_archive(folder: Path, path: Path, names: Sequence[str]) -> None:
    """Pack the files of a folder; equal files give equal bytes.

    Raises UsageError when something lies at ``path`` that is no archive of these files.
    """
    packed = pack({name: read_bytes(folder / name) for name in names})
    if path.exists():
        found = read_bytes(path)
        if found == packed:
            return
        try:
            unpack(found, names)
        except VerificationError as error:
            raise UsageError(f"{path}: {error}; move it away or choose another folder") from None
    write_bytes(path, packed)


@contextmanager
def unpacked(path: Path, *choices: Sequence[str]) -> Iterator[Path]:
    """A temporary folder with the files of an archive. Raises VerificationError as ``unpack``, naming the archive."""
    if path.stat().st_size > _MOST_BYTES:
        raise VerificationError(f"{path}: is over {_MOST_BYTES} bytes, which no bundle has")
    try:
        files = unpack(read_bytes(path), *choices)
    except VerificationError as error:
        raise VerificationError(f"{path}: {error}; do not use it") from None
    except MemoryError:
        raise VerificationError(f"{path}: reading it takes more memory than there is; do not use it") from None
    with tempfile.TemporaryDirectory(prefix="edgenas-bundle-") as folder:
        try:
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
        except OSError as error:
            raise EdgeNASError(
                f"{folder}: cannot be written ({error.strerror}); set TMPDIR to another folder"
            ) from None
        yield Path(folder)
