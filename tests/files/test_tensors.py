"""Arrays with a JSON body."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas import files
from edgenas.errors import FormatError
from tests.files.conftest import BODY, flip

TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
    "counts": np.array([1, -2, 3], dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float64),
}


@pytest.fixture(scope="session")
def tensor_file(folder: Path) -> bytes:
    """The bytes of a tensor file."""
    files.write_tensors(folder / "whole.safetensors", "test", 2, TENSORS, BODY)
    return (folder / "whole.safetensors").read_bytes()


@pytest.mark.usefixtures("tensor_file")
def test_tensors_round_trip(folder: Path) -> None:
    """Arrays come back with value, type and shape, and the body with them."""
    arrays, body = files.read_tensors_and_body(folder / "whole.safetensors", "test", 2)
    assert body == BODY
    assert arrays.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


@given(position=st.integers(0, 10_000), mask=st.integers(1, 255))
def test_flipped_byte_of_tensors_is_never_believed(folder: Path, tensor_file: bytes, position: int, mask: int) -> None:
    """A tensor file with one byte changed, in header, body or data, is refused or still says the very same."""
    (folder / "flipped").write_bytes(flip(tensor_file, position, mask))
    try:
        arrays, body = files.read_tensors_and_body(folder / "flipped", "test", 2)
    except FormatError:
        return
    assert body == BODY
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(arrays[name], array, strict=True)


@given(length=st.integers(0, 10_000))
def test_truncated_tensors_are_refused(folder: Path, tensor_file: bytes, length: int) -> None:
    """A tensor file that lacks its end is refused."""
    (folder / "cut").write_bytes(tensor_file[: length % len(tensor_file)])
    with pytest.raises(FormatError, match="is damaged"):
        files.read_tensors_and_body(folder / "cut", "test", 2)


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    """Weights that something else wrote are refused."""
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(FormatError, match="no edgenas file"):
        files.read_tensors_and_body(tmp_path / "foreign.safetensors", "test", 1)


def test_newer_tensors_ask_for_an_upgrade(tmp_path: Path) -> None:
    """Tensors of a newer schema are refused like documents."""
    files.write_tensors(tmp_path / "new", "test", 3, TENSORS, {})
    with pytest.raises(FormatError, match="this edgenas reads up to 2; upgrade"):
        files.read_tensors_and_body(tmp_path / "new", "test", 2)


def test_equal_tensors_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    """The same content gives the same file whatever the hash seed and the order of insertion."""
    code = (
        "import sys, pathlib, numpy as np\nfrom edgenas import files\n"
        "names = sys.argv[2].split(',')\n"
        "tensors = {name: np.arange(ord(name), dtype=np.float32) for name in names}\n"
        "files.write_tensors(pathlib.Path(sys.argv[1]), 'test', 1, tensors, {name: 1 for name in names})"
    )
    for seed, names in (("1", "a,b,c"), ("2", "c,b,a")):
        command = [sys.executable, "-c", code, str(tmp_path / seed), names]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
