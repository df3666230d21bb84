"""``edgenas verify``: bundles that are whole, and all others."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.pipeline import Run
from edgenas.pipeline.progress import Silent
from edgenas.runtimes import ExportFormat

Call = Callable[..., tuple[int, str, str]]
KINDS = ("onnx-fp32", "onnx-int8", "tflite-int8")


@pytest.fixture(scope="module")
def shipped(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of three kinds and their archives. Do not write to it."""
    out = tmp_path_factory.mktemp("ship")
    run = Run(trained, progress=Silent())
    run.export_all(run.space.smallest, run.target("localhost"), out, [ExportFormat(*kind.split("-")) for kind in KINDS])
    return out


@pytest.fixture
def refused(call: Call) -> Callable[[Path], str]:
    """The one line that a bundle is refused with."""

    def verify(path: Path) -> str:
        code, out, err = call("verify", path)
        assert (code, out, err.count("\n")) == (1, "", 1), err
        return err

    return verify


@pytest.fixture
def mistaken(call: Call) -> Callable[[Path], str]:
    """The one line that wrong use is refused with."""

    def verify(path: Path) -> str:
        code, out, err = call("verify", path)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        return err

    return verify


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_whole_bundle(call: Call, shipped: Path, kind: str, suffix: str) -> None:
    """A folder and a zip verify, and say the label and how near the logits are."""
    code, out, _ = call("verify", shipped / f"{kind}{suffix}")
    assert code == 0
    assert f"intact, {kind}; its sample is" in out
    assert "here: logits as recorded to" in out


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_device(call: Call, shipped: Path, kind: str) -> None:
    """--device runs the sample there too, in the runtime of the file."""
    code, out, err = call("verify", shipped / f"{kind}.zip", "--device", "localhost", "--json")
    assert code == 0, err
    document = json.loads(out)
    runtime = "litert" if kind.startswith("tflite") else "onnxruntime"
    assert document["format"] == kind
    assert document["device"]["target"] == f"localhost-{runtime}-{kind.split('-')[1]}-1t"
    assert document["device"]["max_difference"] <= document["allowed"]


def test_device_without_the_runtime(call: Call, shipped: Path, tmp_path: Path) -> None:
    """A board whose profile has no runtime for the file is one line."""
    profile = tmp_path / "board.yaml"
    profile.write_text(
        "name: board\nconnection: {kind: local}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"
    )
    code, out, err = call("verify", shipped / "tflite-int8", "--device", profile)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "board: its profile has no runtime for tflite files" in err


def test_needs_neither_torch_nor_a_run(shipped: Path, tmp_path: Path) -> None:
    """Alone in a folder, where torch cannot be imported, a bundle verifies."""
    archive = shutil.copy(shipped / "tflite-int8.zip", tmp_path)
    code = (
        'import sys; sys.modules["torch"] = None; sys.argv = ["edgenas", "verify", sys.argv[1]]\n'
        "from edgenas.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(archive)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "intact, tflite-int8" in done.stdout


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "sample.npz", "SHA256SUMS"])
def test_changed_byte_in_a_folder(refused: Callable[[Path], str], shipped: Path, tmp_path: Path, name: str) -> None:
    """One changed byte of a file is found by the file's name."""
    folder = Path(shutil.copytree(shipped / "onnx-fp32", tmp_path / "copy"))
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    assert "SHA" in refused(folder)


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_changed_byte_in_a_zip(refused: Callable[[Path], str], shipped: Path, tmp_path: Path, place: float) -> None:
    """One changed byte of the archive is found, wherever it is."""
    data = bytearray((shipped / "onnx-fp32.zip").read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path = tmp_path / "changed.zip"
    path.write_bytes(data)
    assert str(path) in refused(path)


def test_zip_that_leads_out_of_the_folder(refused: Callable[[Path], str], shipped: Path, tmp_path: Path) -> None:
    """A bundle with ../ in it is refused, and nothing is written anywhere."""
    path = Path(shutil.copy(shipped / "onnx-fp32.zip", tmp_path / "evil.zip"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil.py", "print('mine')")
    assert "'../evil.py', which leads out of the folder" in refused(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.zip"]


def test_zip_bomb(refused: Callable[[Path], str], shipped: Path, tmp_path: Path) -> None:
    """A small zip of a huge file is refused before it is unpacked."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(shipped / "onnx-fp32.zip") as whole, zipfile.ZipFile(path, "w") as bomb:
        for member in whole.infolist():
            is_model = member.filename == "model.onnx"
            content = bytes(100_000_000) if is_model else whole.read(member)
            bomb.writestr(member.filename, content, zipfile.ZIP_DEFLATED if is_model else zipfile.ZIP_STORED)
    assert "100000000 bytes from" in refused(path)


@pytest.mark.parametrize("content", [b"", b"no zip"])
def test_what_is_no_zip(refused: Callable[[Path], str], tmp_path: Path, content: bytes) -> None:
    """A file that is no zip is one line."""
    path = tmp_path / "ship.zip"
    path.write_bytes(content)
    assert "is damaged or no zip" in refused(path)


def test_nothing_there(mistaken: Callable[[Path], str], tmp_path: Path) -> None:
    """A path without a bundle is named."""
    assert "gone: does not exist; give a bundle's folder or its .zip" in mistaken(tmp_path / "gone")


def test_folder_that_is_no_bundle(mistaken: Callable[[Path], str], tmp_path: Path) -> None:
    """A folder of something else is called that."""
    (tmp_path / "README.md").write_text("mine")
    assert "is no bundle and holds none; give a bundle's folder or its .zip" in mistaken(tmp_path)


def test_folder_around_bundles(mistaken: Callable[[Path], str], shipped: Path, tmp_path: Path) -> None:
    """A folder that holds bundles, or holds such a folder, says how many, and the command for the first of them."""
    ship = shutil.copytree(shipped, tmp_path / "ship")
    first = f"is no bundle but holds 3; verify one of them, for example: edgenas verify {ship / 'onnx-fp32'}\n"
    assert mistaken(ship).endswith(first)
    assert mistaken(tmp_path).endswith(first)


def test_model_file(mistaken: Callable[[Path], str], shipped: Path, tmp_path: Path) -> None:
    """A model file is called that, with the command that measures it, or verifies the bundle around it."""
    inside = shipped / "onnx-fp32" / "model.onnx"
    assert f"is a model file; verify the bundle that it is of: edgenas verify {inside.parent}" in mistaken(inside)
    bare = Path(shutil.copy(inside, tmp_path / "my model.onnx"))
    assert f"is a model file, which says nothing to verify it by; measure it: edgenas measure '{bare}'" in mistaken(
        bare
    )


def test_file_of_something_else(mistaken: Callable[[Path], str], tmp_path: Path) -> None:
    """A file that is neither a zip nor a model is no bundle."""
    (tmp_path / "notes.txt").write_text("mine")
    assert "notes.txt: is no bundle; give a bundle's folder or its .zip" in mistaken(tmp_path / "notes.txt")


def test_older_bundle(refused: Callable[[Path], str], shipped: Path, tmp_path: Path) -> None:
    """A bundle of an older edgenas says so."""
    from edgenas.bundle.check import compute_sha256sums
    from edgenas.files import write_document

    folder = Path(shutil.copytree(shipped / "onnx-fp32", tmp_path / "old"))
    write_document(folder / "card.json", "bundle", 1, {})
    (folder / "SHA256SUMS").write_bytes(compute_sha256sums(folder, "onnx"))
    assert "has schema version 1, this edgenas reads 3" in refused(folder)


def test_scripts_of_another_edgenas(call: Call, shipped: Path, tmp_path: Path) -> None:
    """Scripts of another edgenas cannot be compared, and one line says so."""
    from edgenas.bundle import Bundle
    from edgenas.bundle.check import compute_sha256sums
    from edgenas.files import write_document

    folder = Path(shutil.copytree(shipped / "onnx-fp32", tmp_path / "other"))
    write_document(folder / "card.json", "bundle", 3, {**Bundle(folder).card, "versions": {"edgenas": "0.0.1"}})
    (folder / "run.py").write_text("print(7)\n")
    (folder / "SHA256SUMS").write_bytes(compute_sha256sums(folder, "onnx"))
    code, out, err = call("verify", folder)
    assert code == 0, err
    assert "its scripts are of edgenas '0.0.1' and were not compared" in out


def test_help_shows_an_example(call: Call) -> None:
    """--help shows an example."""
    code, out, _ = call("verify", "--help")
    assert code == 0
    assert "Example: edgenas verify" in out
