"""Zips that are the same everywhere, and hostile ones."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.bundle import Bundle, open_bundle
from edgenas.bundle.archive import pack_npz_bytes, pack_zip_bytes, read_npz_arrays, unpack_zip_bytes
from edgenas.errors import UsageError, VerificationError

FILES = {"a.txt": b"first\n", "b.bin": bytes(range(256)), "empty": b""}
NAMES = tuple(FILES)
Zip = Callable[[zipfile.ZipFile], None]


def _made(write: Zip) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        write(archive)
    return buffer.getvalue()


def _with(name: str, data: bytes = b"", mode: int = 0, **options: int) -> bytes:
    """The right files and one more member."""

    def write(archive: zipfile.ZipFile) -> None:
        for each, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(each), content)
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, data, **options)

    return _made(write)


def _refused(data: bytes) -> str:
    with pytest.raises(VerificationError) as caught:
        unpack_zip_bytes(data, NAMES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_packing_is_undone() -> None:
    """Packed files come out with the same names and bytes."""
    assert unpack_zip_bytes(pack_zip_bytes(FILES), ("other",), NAMES) == FILES


def test_packing_depends_on_nothing_but_the_files() -> None:
    """The archive's bytes are known beforehand: stored, dated 1980, one after the other."""
    data = pack_zip_bytes({"a": b"x"})
    assert data[:4] == b"PK\x03\x04"
    assert struct.unpack("<HHH", data[8:14]) == (0, 0, 0x21)  # stored; midnight, the first of January 1980
    assert pack_zip_bytes(dict(FILES)) == pack_zip_bytes(FILES)


@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    """One byte that differs, in contents or in the archive's own tables, is refused."""
    archive = bytearray(pack_zip_bytes(FILES))
    place = data.draw(st.integers(0, len(archive) - 1))
    archive[place] ^= data.draw(st.integers(1, 255))
    _refused(bytes(archive))


@given(st.integers(0, len(pack_zip_bytes(FILES)) - 1))
def test_a_cut_archive_is_refused(length: int) -> None:
    """An archive that was not copied to its end is refused."""
    _refused(pack_zip_bytes(FILES)[:length])


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", "C:\\x", "\\x"])
def test_a_member_outside_the_folder_is_refused(name: str) -> None:
    """A name that leads out of the folder is refused by name."""
    message = _refused(_with(name, b"mine"))
    assert "leads out of the folder" in message
    assert repr(zipfile.ZipInfo(name).filename) in message


def test_a_link_is_refused() -> None:
    """A symbolic link is refused, wherever it points."""
    assert "'link', which is a link" in _refused(_with("link", b"/etc/passwd", stat.S_IFLNK | 0o777))


def test_an_extra_member_is_refused() -> None:
    """A file that no one vouches for is refused by name."""
    assert "'sitecustomize.py', which is no part of the bundle" in _refused(_with("sitecustomize.py"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_refused() -> None:
    """Of two files with one name, programs take the one or the other."""
    assert "'a.txt' more than once" in _refused(_with("a.txt", b"second"))


def test_a_missing_member_is_named() -> None:
    """An archive without one of its files is refused by that file's name."""
    assert "lacks 'b.bin'" in _refused(pack_zip_bytes({"a.txt": b"", "empty": b""}))


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred megabytes of zeros in a hundred kilobytes are refused by what the list of members says."""

    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr("a.txt", bytes(100_000_000), zipfile.ZIP_DEFLATED)

    bomb = _made(write)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *arguments: pytest.fail("unpacked"))
    assert len(bomb) < 200_000
    assert "compressed, 100000000 bytes from" in _refused(bomb)


def test_members_that_overlap_are_refused() -> None:
    """A bomb whose members share their bytes is refused: together they cannot be larger than the archive."""
    data = bytearray(pack_zip_bytes({"a.txt": b"", "b.bin": bytes(100), "empty": b""}))
    central = data.index(b"PK\x01\x02")
    for _ in NAMES:  # each claims the hundred bytes, and more
        data[central + 20 : central + 28] = struct.pack("<II", 5000, 5000)
        central = data.find(b"PK\x01\x02", central + 4)
    assert "overlap" in _refused(bytes(data))


def test_a_lie_about_a_size_is_refused() -> None:
    """A member that is larger than the list says is not believed."""
    data = bytearray(pack_zip_bytes(FILES))
    central = data.index(b"PK\x01\x02")
    data[central + 20 : central + 28] = struct.pack("<II", 2, 2)
    _refused(bytes(data))


def test_an_encrypted_member_is_refused() -> None:
    """A member that wants a password is refused by name."""
    data = bytearray(pack_zip_bytes(FILES))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "'a.txt' encrypted" in _refused(bytes(data))


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    """Nothing, something else and an empty archive are refused."""
    _refused(data)


def test_arrays_come_back(tmp_path: Path) -> None:
    """Arrays are packed and unpacked by name, and numpy reads them too."""
    path = tmp_path / "arrays.npz"
    path.write_bytes(pack_npz_bytes(one=np.arange(3), two=np.eye(2, dtype=np.float32)))
    one, two = read_npz_arrays(path, ("one", "two"))
    assert one.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(two, np.eye(2))
    with np.load(path) as arrays:
        assert sorted(arrays) == ["one", "two"]


def test_an_array_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    """A header that announces a billion billion numbers is refused in one line."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**9)})
    path = tmp_path / "arrays.npz"
    path.write_bytes(pack_zip_bytes({"one.npy": buffer.getvalue()}))
    with pytest.raises(VerificationError, match="must hold one"):
        read_npz_arrays(path, ("one",))


def test_a_bundle_is_packed_and_verified(bundle: Bundle) -> None:
    """The archive lies beside the folder, equal bundles give equal bytes, and it verifies like the folder."""
    archive = bundle.write_archive()
    assert archive == bundle.path.with_name("to ship.zip")
    first = archive.read_bytes()
    assert bundle.write_archive().read_bytes() == first
    with open_bundle(archive) as opened:
        opened.verify()
        folder = opened.path
    assert not folder.exists()


def test_a_resealed_archive_is_refused_by_its_own_name(bundle: Bundle, tmp_path: Path) -> None:
    """An error inside names the archive, not the temporary folder."""
    files = {entry.name: entry.read_bytes() for entry in bundle.path.iterdir()}
    path = tmp_path / "changed.zip"
    path.write_bytes(
        pack_zip_bytes({name: files[name] for name in unpacked_names(bundle)} | {"labels.txt": b"other\n"})
    )
    with pytest.raises(VerificationError, match=r"changed\.zip/labels\.txt: its SHA-256"), open_bundle(path) as opened:
        opened.verify()


def unpacked_names(bundle: Bundle) -> list[str]:
    with zipfile.ZipFile(bundle.write_archive()) as archive:
        return archive.namelist()


def test_nothing_of_a_bad_archive_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile archive leaves no file anywhere, not even in the temporary folder."""
    monkeypatch.setattr("tempfile.TemporaryDirectory", lambda **options: pytest.fail("unpacked"))
    path = tmp_path / "evil.zip"
    path.write_bytes(_with("../../evil"))
    with pytest.raises(VerificationError, match=r"evil\.zip: holds '\.\./\.\./evil'"), open_bundle(path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.zip"]


def test_an_archive_that_ends_within_a_file_is_damaged(bundle: Bundle) -> None:
    """Cut behind its sample, an archive ends in the list of the sample's own zip, which is not taken for its own."""
    data, sample = bundle.write_archive().read_bytes(), (bundle.path / "sample.npz").read_bytes()
    cut = data[: data.index(sample) + len(sample)]
    with pytest.raises(VerificationError, match=r"^is damaged or no zip$"):
        unpack_zip_bytes(cut, unpacked_names(bundle))


def test_an_archive_larger_than_any_bundle_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than half a gigabyte is refused by its size alone."""
    monkeypatch.setattr("edgenas.bundle.archive.read_bytes", lambda path: pytest.fail("read"))
    path = tmp_path / "large.zip"
    with path.open("wb") as file:
        file.truncate(2**29 + 1)
    with pytest.raises(VerificationError, match=r"large\.zip: is over 536870912 bytes"), open_bundle(path):
        pass


def test_something_else_with_the_archives_name_is_left_alone(bundle: Bundle) -> None:
    """A file of the user's where the archive would go is refused and untouched."""
    mine = bundle.path.with_name("to ship.zip")
    mine.write_bytes(pack_zip_bytes({"thesis.txt": b"years"}))
    with pytest.raises(UsageError, match="move it away"):
        bundle.write_archive()
    assert unpack_zip_bytes(mine.read_bytes(), ("thesis.txt",)) == {"thesis.txt": b"years"}
