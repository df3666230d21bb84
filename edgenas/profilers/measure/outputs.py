"""Reading the file that a device stored a model's outputs in. Nothing in it is trusted."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.devices.answers import MAX_FILE_BYTES
from edgenas.errors import DeviceError, one_line

Array = npt.NDArray[Any]

_KINDS = "biufc"  # of numpy: truth values and numbers
_END = struct.Struct("<4s4H2LH")  # of a zip file without a comment: PKZIP's APPNOTE, 4.3.16
_END_SIGNATURE, _END64_SIGNATURE = b"PK\x05\x06", b"PK\x06\x07"
_END64_BYTES = 20
_ENTRY_BYTES = 200  # at most, of one array in the archive's list


def read_outputs(path: Path, count: int, where: str) -> list[Array]:
    """Return the arrays that ``numpy.savez`` stored in order.

    Args:
        path: The file.
        count: How many there must be.
        where: The beginning of the error's message.

    Raises:
        DeviceError: The file is damaged, holds something else, or claims more than it has.
    """
    try:
        with path.open("rb") as file:
            size = _check_end(file, count)
            with zipfile.ZipFile(file) as archive:
                members = [archive.getinfo(f"arr_{number}.npy") for number in range(count)]
                _check_members(members, size)
                return [_read_array(archive.read(member)) for member in members]
    except Exception as error:  # what zipfile, and numpy's parsing of headers, raise is no closed list
        raise DeviceError(f"{where}: the stored outputs cannot be read ({one_line(error)}); try again") from None


def _check_end(file: io.BufferedReader, count: int) -> int:
    """Return the size of the file; check it, and the size of the archive's list, which zipfile reads as a whole."""
    size = file.seek(0, io.SEEK_END)
    if not _END.size <= size <= MAX_FILE_BYTES:
        raise ValueError(f"a file of {size} bytes")
    file.seek(max(0, size - _END.size - _END64_BYTES))
    end = file.read()
    signature, *_, entries, list_bytes, _, comment_bytes = _END.unpack(end[-_END.size :])
    if signature != _END_SIGNATURE or comment_bytes or end.startswith(_END64_SIGNATURE):
        raise ValueError("no archive of arrays")
    if entries != count or list_bytes > count * _ENTRY_BYTES:
        raise ValueError(f"{entries} arrays, but there must be {count}")
    return size


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Check that what is read from the archive is not more than the file itself."""
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits:
            raise ValueError(f"{member.filename} is packed")
    if sum(member.file_size for member in members) > size:
        raise ValueError("arrays that overlap")


def _read_array(content: bytes) -> Array:
    data = io.BytesIO(content)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(data)
    if version not in readers:
        raise ValueError(f"an array in format {version}")
    shape, fortran_order, dtype = readers[version](data)
    left = data.getbuffer()[data.tell() :]
    # The shape is a claim, too: numpy would make room for it before it reads.
    if dtype.kind not in _KINDS or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(left):
        raise ValueError(f"no array of numbers of shape {shape}")
    return np.frombuffer(left, dtype).reshape(shape, order="F" if fortran_order else "C").copy(order="K")
