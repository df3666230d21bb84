"""Reading stored outputs: what numpy writes is read, and nothing that a device might write instead fills the memory."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.errors import DeviceError
from edgenas.profilers.measure.outputs import read_outputs

Members = dict[str, bytes]


def stored(folder: Path, *arrays: Any) -> Path:
    """The file that a device makes of its outputs."""
    np.savez(folder / "outputs.npz", *arrays)
    return folder / "outputs.npz"


def archive(folder: Path, members: Members, compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip file of these members."""
    with zipfile.ZipFile(folder / "outputs.npz", "w", compression) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return folder / "outputs.npz"


def claim(shape: str = "(1,)", descr: str = "'<f4'", data: bytes = bytes(4), header: str = "") -> Members:
    """An array whose header says this."""
    text = header or f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    length = struct.pack("<H", len(text) + 1)
    return {"arr_0.npy": b"\x93NUMPY\x01\x00" + length + text.encode() + b"\n" + data}


def pickled() -> Members:
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    return {"arr_0.npy": file.getvalue()}


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int8).reshape(2, 3)),
        np.zeros((0, 3), np.float16),
        np.array(True),
        np.arange(3, dtype=">i8"),
    ],
    ids=["floats", "by columns", "empty", "no dimension", "big-endian"],
)
def test_what_numpy_stores_is_read(tmp_path: Path, array: Any) -> None:
    """Arrays of numbers of any shape and order come back as they were, and can be written to."""
    other, found = read_outputs(stored(tmp_path, np.zeros(2), array), 2, "board")
    assert (found.dtype, found.shape, found.flags.writeable) == (array.dtype, array.shape, True)
    np.testing.assert_array_equal(found, array)
    np.testing.assert_array_equal(other, np.zeros(2))


def test_no_outputs_are_no_arrays(tmp_path: Path) -> None:
    """A model without outputs has an empty archive."""
    assert read_outputs(stored(tmp_path), 0, "board") == []


HOSTILE: dict[str, tuple[Members, str]] = {
    "another name": ({"arr_1.npy": b""}, "arr_0.npy"),
    "many arrays": ({f"arr_{number}.npy": b"" for number in range(5000)}, "5000 arrays, but there must be 1"),
    "a shape of 8 EiB": (claim("(1073741824, 1073741824, 2)"), "no array of numbers of shape"),
    "a shape below zero": (claim("(-1, -1)"), "no array of numbers of shape"),
    "elements without a size": (claim("(1000000000000,)", "'<U0'", b""), "no array of numbers of shape"),
    "too many dimensions": (claim(f"({'1,' * 100})"), "maximum supported dimension"),
    "a record": (claim(descr="[('a', '<f4')]"), "no array of numbers"),
    "a pickle": (pickled(), "no array of numbers"),
    "a header that is nested": (claim(header="-" * 9000 + "1"), ""),
    "a header that is no text": (claim(header="{'''"), ""),
    "a header of another version": ({"arr_0.npy": b"\x93NUMPY\x09\x00"}, r"format \(9, 0\)"),
}


@pytest.mark.filterwarnings("default")  # numpy warns of headers that Python 2 wrote
@pytest.mark.parametrize(("members", "problem"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_numpy_does_not_store_is_a_device_error(tmp_path: Path, members: Members, problem: str) -> None:
    """Claims are compared with what is there before any room is made for them."""
    path = archive(tmp_path, members)
    tracemalloc.start()
    try:
        with pytest.raises(DeviceError, match=rf"^board: the stored outputs cannot be read \(.*{problem}") as error:
            read_outputs(path, 1, "board")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
    assert str(error.value).isprintable()


def test_a_compressed_array_is_refused(tmp_path: Path) -> None:
    """A kilobyte that would unpack to a gigabyte is not unpacked."""
    path = archive(tmp_path, {"arr_0.npy": bytes(1000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(DeviceError, match=r"arr_0\.npy is packed"):
        read_outputs(path, 1, "board")


def test_arrays_in_each_others_place_are_refused(tmp_path: Path) -> None:
    """A megabyte that a thousand entries point to is not read a thousand times."""
    path = archive(tmp_path, {f"arr_{number}.npy": bytes(1000 * (1 - number)) for number in range(2)})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\x01\x02")  # its entry gets size and place of the first
    data[second + 20 : second + 28] = struct.pack("<2L", 1000, 1000)
    data[second + 42 : second + 46] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(DeviceError, match="arrays that overlap"):
        read_outputs(path, 2, "board")


def test_a_large_sparse_file_is_not_read(tmp_path: Path) -> None:
    """A file of more than the limit is refused by its size."""
    path = tmp_path / "outputs.npz"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DeviceError, match="a file of 1099511627776 bytes"):
        read_outputs(path, 1, "board")


@pytest.mark.filterwarnings("default")
def test_a_flipped_or_cut_file_is_read_or_refused(tmp_path: Path) -> None:
    """Whatever byte is another, there is an array or one line."""
    good = stored(tmp_path, np.arange(4, dtype=np.float32)).read_bytes()
    spoiled = tmp_path / "spoiled.npz"
    for place in range(len(good)):
        for data in (good[:place], good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :]):
            spoiled.write_bytes(data)
            with contextlib.suppress(DeviceError):
                (found,) = read_outputs(spoiled, 1, "board")
                assert found.nbytes <= 16
