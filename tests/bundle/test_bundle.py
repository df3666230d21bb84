"""Bundles: whole, self-sufficient, verified, and never written over something else."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgenas.bundle import Bundle, write_bundle
from edgenas.bundle.archive import pack_npz_bytes, pack_zip_bytes, read_npz_arrays
from edgenas.errors import EdgeNASError, FormatError, UsageError, VerificationError
from edgenas.export import build_onnx, random_weights
from edgenas.export.tflite.writer import build_tflite
from edgenas.files import sha256_hex, write_document
from edgenas.runtimes import ExportFormat, runtime_of_format
from edgenas.space import MobileNetV3
from edgenas.version import __version__

FILES = {
    "README.md",
    "SHA256SUMS",
    "card.json",
    "labels.txt",
    "model.onnx",
    "preprocess.py",
    "preprocessing.json",
    "run.py",
    "sample.npz",
}


def _seal(bundle: Bundle) -> None:
    """Record the checksums again, like a person who edits a bundle on purpose."""
    names = sorted(FILES - {"SHA256SUMS", "model.onnx"} | {bundle.model_path.name})
    lines = [f"{sha256_hex((bundle.path / name).read_bytes())}  {name}\n" for name in names]
    (bundle.path / "SHA256SUMS").write_text("".join(lines))


def _refused(bundle: Bundle) -> str:
    with pytest.raises(VerificationError) as caught:
        bundle.verify()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundle_has_exactly_its_files_and_verifies(bundle: Bundle) -> None:
    """Nine files, no leftovers beside them, and it passes verification."""
    assert {entry.name for entry in bundle.path.iterdir()} == FILES
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]
    bundle.verify()


def test_a_bundle_gives_its_model_and_card(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """The model file holds the bytes given, the card the facts given."""
    assert bundle.model_path.read_bytes() == bundle_arguments["model"]
    assert bundle.card == {"kind": "onnx-fp32", **bundle_arguments["card"]}


def test_equal_arguments_give_equal_files(bundle: Bundle, tmp_path: Path, bundle_arguments: dict[str, Any]) -> None:
    """Every file of two bundles of the same arguments has the same bytes."""
    other = write_bundle(tmp_path / "other", **bundle_arguments)
    for name in FILES:
        assert (other.path / name).read_bytes() == (bundle.path / name).read_bytes(), name


def test_the_model_card_says_what_matters(bundle: Bundle) -> None:
    """The README has the facts, the input and the labels."""
    text = (bundle.path / "README.md").read_text()
    assert "| accuracy | 0.97 |" in text
    assert '| metrics | {"macs": 12} |' in text
    assert "float32 (1, 3, 24, 24)" in text
    assert "digit 0, digit 1" in text


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_sha256sum_accepts_the_checksums(bundle: Bundle) -> None:
    """The standard tool finds every file in order."""
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    result = subprocess.run(command, cwd=bundle.path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(": OK") == 8


_ISOLATED = """
import sys
sys.modules["edgenas"] = None  # any import of it fails
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import numpy as np
from preprocess import preprocess
image = np.load(sys.argv[2], allow_pickle=False)
np.save(sys.argv[3], preprocess(image))
"""


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (31, 17, 3), (40, 64), (1, 1), (24, 24, 3)])
def test_preprocess_needs_no_edgenas_and_equals_torch(bundle: Bundle, tmp_path: Path, shape: tuple[int, ...]) -> None:
    """In an isolated process without edgenas, preprocess.py gives what torch's interpolation gives."""
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "image.npy", image)
    arguments = [str(bundle.path), str(tmp_path / "image.npy"), str(tmp_path / "output.npy")]
    subprocess.run([sys.executable, "-I", "-c", _ISOLATED, *arguments], check=True)
    actual = np.load(tmp_path / "output.npy")

    planes = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)[None].float() / 16
    resized = torch.nn.functional.interpolate(planes, size=(24, 24), mode="bilinear", align_corners=False)
    expected = ((resized.expand(1, 3, 24, 24) - 0.5) / 0.25).numpy()
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


def test_the_sample_script_prints_the_label_and_leaves_no_trace(
    bundle: Bundle, tmp_path: Path, bundle_arguments: dict[str, Any]
) -> None:
    """run.py, started from elsewhere without edgenas, prints the sample's label; the bundle still verifies."""
    command = 'import runpy, sys; sys.modules["edgenas"] = None; runpy.run_path(sys.argv[1])'
    result = subprocess.run(
        [sys.executable, "-I", "-c", command, str(bundle.path / "run.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == f"digit {bundle_arguments['expected'].argmax()}\n"
    bundle.verify()


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_changed_byte_is_found(bundle: Bundle, name: str, place: float) -> None:
    """One flipped bit in any file, its checksums included, is refused by name."""
    path = bundle.path / name
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    message = _refused(bundle)
    assert "SHA" in message
    assert name in message or name == "SHA256SUMS"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file_is_named(bundle: Bundle, name: str) -> None:
    """A bundle without one of its files is refused by that file's name."""
    (bundle.path / name).unlink()
    assert f"{name}: is missing" in _refused(bundle)


def test_an_extra_file_is_named(bundle: Bundle) -> None:
    """A file that no one vouches for is refused, for example compiled Python that would run instead of the source."""
    (bundle.path / "__pycache__").mkdir()
    assert "__pycache__: is no part of the bundle" in _refused(bundle)


def test_a_link_out_of_the_folder_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """A file that lies elsewhere is refused though its checksum is right."""
    outside = bundle.model_path.rename(tmp_path / "elsewhere.onnx")
    bundle.model_path.symlink_to(outside)
    assert "model.onnx: is a link" in _refused(bundle)


def test_no_bundle_at_all_is_refused(tmp_path: Path) -> None:
    """A folder that is not there is named."""
    assert "is no folder" in _refused(Bundle(tmp_path / "gone"))


def test_a_checksum_line_for_a_foreign_file_is_refused(bundle: Bundle) -> None:
    """SHA256SUMS lists the bundle's files and nothing outside."""
    with (bundle.path / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../elsewhere\n")
    assert "SHA256SUMS" in _refused(bundle)


def test_another_model_is_refused_though_its_checksum_is_right(bundle: Bundle, small_space: MobileNetV3) -> None:
    """A model that disagrees with the recorded logits is refused."""
    bundle.model_path.write_bytes(build_onnx(small_space.smallest, random_weights(small_space.smallest, seed=9)))
    _seal(bundle)
    assert "model.onnx: does not give the logits of sample.npz" in _refused(bundle)


def test_a_model_that_the_checker_refuses_is_found_though_its_checksum_is_right(bundle: Bundle) -> None:
    """A model with an operator that there is not is refused by onnx's checker."""
    model = onnx.load(bundle.model_path)
    model.graph.node[0].op_type = "Unheard"
    onnx.save(model, bundle.model_path)
    _seal(bundle)
    assert "checker" in _refused(bundle)


def test_a_model_that_reads_another_file_is_refused(bundle: Bundle) -> None:
    """Weights that lie in a file of this machine are never read, wherever in the model they are mentioned."""
    model = onnx.load(bundle.model_path)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/passwd")
    model.graph.initializer[0].ClearField("raw_data")
    bundle.model_path.write_bytes(model.SerializeToString())
    _seal(bundle)
    assert "keeps weights in another file" in _refused(bundle)


def test_other_preprocessing_is_refused_though_its_checksum_is_right(
    bundle: Bundle, bundle_arguments: dict[str, Any]
) -> None:
    """Preprocessing that does not give the recorded input is refused."""
    changed = {**bundle_arguments["preprocessing"], "scale": 1 / 255}
    write_document(bundle.path / "preprocessing.json", "preprocessing", 2, changed)
    _seal(bundle)
    assert "does not give its input" in _refused(bundle)


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_a_damaged_sample_is_refused_though_its_checksum_is_right(bundle: Bundle, content: bytes) -> None:
    """A sample that numpy cannot read is refused by name."""
    (bundle.path / "sample.npz").write_bytes(content)
    _seal(bundle)
    assert "sample.npz: must hold" in _refused(bundle)


def test_a_pickled_sample_is_never_loaded(bundle: Bundle) -> None:
    """Objects in the sample are refused, not unpickled."""
    arrays = {"image": np.array([{}]), "input": np.zeros(1), "expected": np.zeros(1), "reference": np.zeros(1)}
    buffers = {f"{name}.npy": io.BytesIO() for name in arrays}
    for buffer, array in zip(buffers.values(), arrays.values(), strict=True):
        np.save(buffer, array)
    (bundle.path / "sample.npz").write_bytes(
        pack_zip_bytes({name: buffer.getvalue() for name, buffer in buffers.items()})
    )
    _seal(bundle)
    assert "sample.npz: must hold" in _refused(bundle)


def test_a_card_of_a_newer_edgenas_is_refused_with_the_remedy(bundle: Bundle) -> None:
    """A newer schema asks for an upgrade."""
    write_document(bundle.path / "card.json", "bundle", 99, {})
    _seal(bundle)
    assert "upgrade edgenas" in _refused(bundle)
    with pytest.raises(FormatError):
        bundle.card  # noqa: B018 - reading it raises


def test_an_older_bundle_is_replaced(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """Writing to the same folder again leaves the new bundle alone there, compiled Python included."""
    (bundle.path / "__pycache__").mkdir()
    write_bundle(bundle.path, **{**bundle_arguments, "card": {"note": "second"}})
    assert bundle.card["note"] == "second"
    bundle.verify()
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]


def test_a_failed_write_leaves_the_older_bundle(
    bundle: Bundle, bundle_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk fills up in the middle, the bundle that was there stays, and nothing lies beside it."""

    def full(path: Path, data: bytes) -> None:
        raise EdgeNASError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("edgenas.bundle.bundle.write_bytes", full)
    with pytest.raises(EdgeNASError, match="No space left"):
        write_bundle(bundle.path, **bundle_arguments)
    bundle.verify()
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]


def test_a_failed_rename_puts_the_older_bundle_back(
    bundle: Bundle, bundle_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the new bundle cannot take the place, the old one has it again."""
    rename = Path.replace

    def fail_for_new(path: Path, target: Path) -> Path:
        if path.name.endswith("-new"):
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", fail_for_new)
    with pytest.raises(EdgeNASError, match="Input/output error"):
        write_bundle(bundle.path, **bundle_arguments)
    bundle.verify()
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]


def test_leftovers_of_a_killed_write_are_cleared(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """The leftovers of a killed write are gone after the next one."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    _leave(bundle, dead.pid)
    write_bundle(bundle.path, **bundle_arguments).verify()
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]


def test_what_a_living_process_writes_is_left_for_a_day(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """Another export of the same bundle is not disturbed; after a day its number is somebody else's."""
    leftovers = _leave(bundle, os.getppid())
    write_bundle(bundle.path, **bundle_arguments)
    assert all(leftover.exists() for leftover in leftovers)
    for leftover in leftovers:
        os.utime(leftover, (0, 0))
    write_bundle(bundle.path, **bundle_arguments)
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]


def _leave(bundle: Bundle, process: int) -> list[Path]:
    """Create what a process that was killed while writing leaves behind."""
    folders = [bundle.path.with_name(f".to ship.{process}.edgenas-{suffix}") for suffix in ("new", "old")]
    for folder in folders:
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"half")
    archive = bundle.path.with_name(f".to ship.zip.{process}.edgenas-tmp")
    archive.write_bytes(b"half")
    return [*folders, archive]


def test_an_empty_folder_is_filled(tmp_path: Path, bundle_arguments: dict[str, Any]) -> None:
    """A folder made beforehand is no obstacle."""
    (tmp_path / "ship").mkdir()
    write_bundle(tmp_path / "ship", **bundle_arguments).verify()


@pytest.mark.parametrize("name", ["thesis.txt", "model.onnx"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, bundle_arguments: dict[str, Any], name: str) -> None:
    """A folder with files that no bundle vouches for is refused and untouched."""
    precious = tmp_path / "ship" / name
    precious.parent.mkdir()
    precious.write_text("years of work")
    with pytest.raises(UsageError, match="move it away"):
        write_bundle(tmp_path / "ship", **bundle_arguments)
    assert precious.read_text() == "years of work"


def test_a_bundle_with_a_users_file_is_left_alone(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """A file that the user put into a bundle is not deleted with it."""
    (bundle.path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        write_bundle(bundle.path, **bundle_arguments)
    assert (bundle.path / "notes.txt").read_text() == "mine"


def test_a_file_in_the_way_is_left_alone(tmp_path: Path, bundle_arguments: dict[str, Any]) -> None:
    """A file where the folder should be is refused and untouched."""
    (tmp_path / "ship").write_text("mine")
    with pytest.raises(UsageError, match="move it away"):
        write_bundle(tmp_path / "ship", **bundle_arguments)
    assert (tmp_path / "ship").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "error", "rule"),
    [
        ({"labels": ["one", "two"]}, VerificationError, "2 labels"),
        ({"labels": ["a\nb"] * 10}, UsageError, "one line"),
        ({"expected": np.full((1, 10), 7, np.float32)}, VerificationError, "sample.npz"),
        ({"reference": np.full((1, 10), 7, np.float32)}, VerificationError, "network in float32"),
        ({"export_format": ExportFormat("onnx", "int8")}, VerificationError, "model.onnx is onnx-fp32"),
        ({"export_format": ExportFormat("tflite", "fp32")}, VerificationError, "no TFLite file"),
        ({"sample_input": np.zeros((1, 3, 24, 24), np.float32)}, VerificationError, "does not give its input"),
        ({"sample_image": np.zeros((8, 8), np.float32)}, VerificationError, "uint8"),
        ({"sample_image": np.zeros((8, 8, 2), np.uint8)}, VerificationError, "(H, W, 3)"),
        ({"preprocessing": {"size": 24}}, UsageError, "'channels' is missing"),
        ({"card": {"accuracy": float("nan")}}, UsageError, "JSON"),
        ({"card": {"accuracy": np.float32(1)}}, UsageError, "JSON"),
        ({"model": b"no model"}, VerificationError, "no ONNX file"),
    ],
)
def test_what_contradicts_itself_is_never_put_in_place(
    tmp_path: Path, bundle_arguments: dict[str, Any], change: dict[str, Any], error: type[Exception], rule: str
) -> None:
    """A bundle that would not verify is refused with the rule, and nothing is left behind."""
    with pytest.raises(error) as caught:
        write_bundle(tmp_path / "ship", **{**bundle_arguments, **change})
    assert rule in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"mean": [0.5]},
        {"std": [0.25, 0.25, 0.0]},
        {"channels": 0, "mean": [], "std": []},
        {"crop": 3},
        {"scale": float("nan")},
        {"crop": 1.5},
        {"size": 1_000_000},
        {"size": 4096, "channels": 64, "mean": [0.5] * 64, "std": [0.25] * 64},
    ],
)
def test_impossible_preprocessing_is_refused(
    tmp_path: Path, bundle_arguments: dict[str, Any], change: dict[str, Any]
) -> None:
    """Sizes, means and deviations that cannot be are refused on one line."""
    settings = {**bundle_arguments["preprocessing"], **change}
    with pytest.raises(UsageError, match="preprocessing") as caught:
        write_bundle(tmp_path / "ship", **{**bundle_arguments, "preprocessing": settings})
    assert "\n" not in str(caught.value)


def test_preprocessing_json_holds_the_settings_in_plain_sight(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """Any language can read the settings at the top level of the file."""
    document = json.loads((bundle.path / "preprocessing.json").read_text())
    assert {key: document[key] for key in bundle_arguments["preprocessing"]} == bundle_arguments["preprocessing"]


@pytest.fixture
def make(tmp_path: Path, bundle_arguments: dict[str, Any], small_space: MobileNetV3) -> Callable[..., Bundle]:
    """A bundle of another format or batch."""

    def bundle(file_format: str, batch: int | None = 1) -> Bundle:
        network = small_space.smallest
        model: bytes = build_onnx(network, random_weights(network), batch=batch)
        entry = bundle_arguments["sample_input"]
        reference = runtime_of_format("onnx").run(model, entry)
        if file_format == "tflite":
            model = build_tflite(model, labels=bundle_arguments["labels"])
        changed = {"export_format": ExportFormat(file_format), "model": model, "reference": reference}
        changed["expected"] = runtime_of_format(file_format).run(model, entry)
        if file_format == "tflite":
            changed["preprocessing"] = {**bundle_arguments["preprocessing"], "layout": "NHWC"}
            changed["sample_input"] = np.moveaxis(entry, 1, -1)
        return write_bundle(tmp_path / "ship", **{**bundle_arguments, **changed})

    return bundle


@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
@pytest.mark.parametrize("batch", [1, 3, None])
def test_any_format_and_batch_verifies_and_runs(
    make: Callable[..., Bundle], file_format: str, batch: int | None, bundle_arguments: dict[str, Any]
) -> None:
    """A bundle of either format, of fixed or open batch, verifies, and its script prints the sample's label."""
    bundle = make(file_format, batch)
    verified = bundle.verify()
    assert verified.interface.batch == batch
    assert verified.interface.input.layout == ("NHWC" if file_format == "tflite" else "NCHW")
    assert verified.interface.input.name == "input"
    result = subprocess.run(
        [sys.executable, "-I", str(bundle.path / "run.py")], capture_output=True, text=True, check=True
    )
    assert result.stdout == f"{verified.label}\n"
    assert verified.label == f"digit {bundle_arguments['expected'].argmax()}"
    bundle.verify()


def test_labels_of_a_tflite_file_lie_in_it(make: Callable[..., Bundle], bundle_arguments: dict[str, Any]) -> None:
    """Programs that read TFLite metadata find the class labels in the model file itself."""
    with zipfile.ZipFile(make("tflite").model_path) as model:
        assert model.read("labels.txt").decode().splitlines() == bundle_arguments["labels"]


def test_a_card_cannot_widen_what_its_file_may_lose(bundle: Bundle) -> None:
    """A float32 file whose card says int8, with its looser limits, is refused: kinds are read from the file."""
    card = {**bundle.card, "kind": "onnx-int8"}
    write_document(bundle.path / "card.json", "bundle", 3, card)
    _seal(bundle)
    assert "card.json: says 'onnx-int8', but model.onnx is onnx-fp32" in _refused(bundle)


@pytest.mark.parametrize(
    ("name", "value"), [("model_sha256", "0" * 64), ("model_bytes", 1), ("input", {"shape": [9]}), ("output", None)]
)
def test_a_card_that_describes_another_file_is_refused(bundle: Bundle, name: str, value: Any) -> None:
    """A card that describes another model file is refused."""
    write_document(bundle.path / "card.json", "bundle", 3, {**bundle.card, name: value})
    _seal(bundle)
    assert f"card.json: its '{name}' is not that of model.onnx" in _refused(bundle)


def test_labels_that_differ_from_those_in_a_tflite_file_are_refused(make: Callable[..., Bundle]) -> None:
    """labels.txt and the copy behind the model are the same, or one of them names the classes wrongly."""
    bundle = make("tflite")
    path = bundle.path / "labels.txt"
    path.write_text("".join(f"{label}\n" for label in reversed(path.read_text().splitlines())))
    _seal(bundle)
    assert "labels.txt: differs from the labels behind model.tflite" in _refused(bundle)


@pytest.mark.parametrize("name", ["run.py", "preprocess.py"])
@pytest.mark.parametrize(("said", "foreign"), [("0.0.1", "0.0.1"), (None, "unknown")])
def test_scripts_are_those_that_edgenas_writes(bundle: Bundle, name: str, said: str | None, foreign: str) -> None:
    """Another script is refused in a bundle of this edgenas, and reported in one of another."""
    assert bundle.verify().foreign_scripts is None
    with (bundle.path / name).open("a") as script:
        script.write("import os\n")
    write_document(bundle.path / "card.json", "bundle", 3, {**bundle.card, "versions": {"edgenas": said}})
    _seal(bundle)
    assert bundle.verify().foreign_scripts == foreign
    write_document(bundle.path / "card.json", "bundle", 3, {**bundle.card, "versions": {"edgenas": __version__}})
    _seal(bundle)
    assert f"{name}: is not the script that edgenas {__version__} writes" in _refused(bundle)


def _change_entry(bundle: Bundle, change: Callable[[onnx.TypeProto], None]) -> None:
    """Change the type of a model's input."""
    model = onnx.load(bundle.model_path)
    change(model.graph.input[0].type)
    bundle.model_path.write_bytes(model.SerializeToString())
    _seal(bundle)


@pytest.mark.parametrize(("place", "size"), [(0, 100_000), (0, 2**33), (0, -3), (2, 2**28)])
def test_a_model_that_takes_too_much_at_once_is_refused(bundle: Bundle, place: int, size: int) -> None:
    """A batch or an image that would fill the memory is refused before it is made."""
    _change_entry(bundle, lambda entry: setattr(entry.tensor_type.shape.dim[place], "dim_value", size))
    assert "model.onnx: the model's input must be of 1 to 1024 images" in _refused(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: setattr(entry.tensor_type, "elem_type", 999),
        lambda entry: setattr(entry.tensor_type, "elem_type", 0),
        lambda entry: entry.sequence_type.elem_type.tensor_type.SetInParent(),
    ],
)
def test_a_model_whose_input_is_no_tensor_of_numbers_is_refused(
    bundle: Bundle, change: Callable[[onnx.TypeProto], None]
) -> None:
    """A type that there is not, none, and a sequence are refused by the input's name."""
    _change_entry(bundle, change)
    assert "model.onnx: the model's 'input' must be a tensor of numbers" in _refused(bundle)


def _change_sample(bundle: Bundle, **changed: np.ndarray) -> None:
    names = ("image", "input", "expected", "reference")
    path = bundle.path / "sample.npz"
    arrays = dict(zip(names, read_npz_arrays(path, names), strict=True))
    path.write_bytes(pack_npz_bytes(**{**arrays, **changed}))
    _seal(bundle)


@pytest.mark.parametrize("shape", [(1, 4_000_000), (20_000, 1)])
def test_an_image_that_would_fill_the_memory_is_refused(bundle: Bundle, shape: tuple[int, ...]) -> None:
    """A sample may be a few megabytes and need a hundred gigabytes to be prepared."""
    image = np.broadcast_to(np.uint8(0), shape)
    settings = {**json.loads((bundle.path / "preprocessing.json").read_text()), "size": 4096}
    plain = {key: settings[key] for key in settings if key not in ("format", "version", "sha256")}
    write_document(bundle.path / "preprocessing.json", "preprocessing", 2, plain)
    _change_sample(bundle, image=image)
    assert "is too large to be prepared" in _refused(bundle)


@pytest.mark.parametrize("name", ["image", "input", "expected", "reference"])
@pytest.mark.parametrize("kind", ["<U1", "datetime64[s]", "complex64", "V4", "float64"])
def test_a_sample_of_another_type_is_refused(bundle: Bundle, name: str, kind: str) -> None:
    """Arrays of text, time or anything else that is no picture and no number are refused."""
    _change_sample(bundle, **{name: np.zeros((1, 10), kind)})
    assert "sample.npz: image must be uint8 and input, expected and reference float32" in _refused(bundle)


def test_memory_that_does_not_suffice_is_one_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that runs out of memory refuses the bundle."""

    def full(*arguments: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("edgenas.runtimes.Runtime.run", full)
    assert "takes more memory than there is" in _refused(bundle)


def test_a_bundle_of_an_older_edgenas_may_be_replaced(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """A bundle that this edgenas cannot read is still one, and may be written over."""
    write_document(bundle.path / "card.json", "bundle", 1, {})
    write_bundle(bundle.path, **bundle_arguments).verify()


_FULL = """
import json, resource, signal, sys
from pathlib import Path
import numpy as np
from edgenas.errors import EdgeNASError
from edgenas.bundle import Bundle, write_bundle
from edgenas.runtimes import ExportFormat

old = Bundle(Path(sys.argv[1]))
settings = json.loads((old.path / "preprocessing.json").read_text())
names = {"image": "sample_image", "input": "sample_input", "expected": "expected", "reference": "reference"}
with np.load(old.path / "sample.npz") as sample:
    arrays = {ours: sample[name] for name, ours in names.items()}
labels = (old.path / "labels.txt").read_text().splitlines()
settings = {key: settings[key] for key in ("size", "channels", "scale", "mean", "std")}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bundle(
        Path(sys.argv[2]), export_format=ExportFormat(), model=old.model_path.read_bytes(), preprocessing=settings,
        labels=labels, card={}, **arrays,
    )
except EdgeNASError as error:
    print(error)
"""


def test_a_disk_that_is_full_leaves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    """If no file may grow over four kilobytes, one line says so and nothing is left behind."""
    out = tmp_path / "out" / "ship"
    out.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(bundle.path), str(out)], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert "cannot be written (File too large)" in done.stdout
    assert not list(out.parent.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, bundle_arguments: dict[str, Any]) -> None:
    """A folder without the right to write is answered in one line."""
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(EdgeNASError, match="Permission denied"):
        write_bundle(tmp_path / "closed" / "ship", **bundle_arguments)


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path, bundle_arguments: dict[str, Any]) -> None:
    """An output folder below a file is answered in one line."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EdgeNASError, match="Not a directory"):
        write_bundle(tmp_path / "file" / "ship", **bundle_arguments)
