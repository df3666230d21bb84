"""Bundles: whole, self-sufficient, verified, and never written over something else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.errors import EdgeNASError, FormatError, UsageError, VerificationError
from edgenas.export import Bundle, build_onnx, random_weights, write_bundle
from edgenas.files import digest, write_document
from edgenas.space import MobileNetV3

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
    """Record the checksums anew, as one would who edits a bundle knowingly."""
    names = sorted(FILES - {"SHA256SUMS"})
    lines = [f"{digest((bundle.path / name).read_bytes())}  {name}\n" for name in names]
    (bundle.path / "SHA256SUMS").write_text("".join(lines))


def _refused(bundle: Bundle) -> str:
    with pytest.raises(VerificationError) as caught:
        bundle.verify()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundle_has_exactly_its_files_and_verifies(bundle: Bundle) -> None:
    """Nine files, no leftovers beside them, and the proof passes."""
    assert {entry.name for entry in bundle.path.iterdir()} == FILES
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]
    bundle.verify()


def test_a_bundle_gives_its_model_and_card(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """The model file holds the bytes given, the card the facts given."""
    assert bundle.model.read_bytes() == bundle_arguments["model"]
    assert bundle.card == bundle_arguments["card"]


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
    found = np.load(tmp_path / "output.npy")

    planes = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)[None].float() / 16
    resized = torch.nn.functional.interpolate(planes, size=(24, 24), mode="bilinear", align_corners=False)
    expected = ((resized.expand(1, 3, 24, 24) - 0.5) / 0.25).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


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
    outside = bundle.model.rename(tmp_path / "elsewhere.onnx")
    bundle.model.symlink_to(outside)
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
    bundle.model.write_bytes(build_onnx(small_space.smallest, random_weights(small_space.smallest, seed=9)))
    _seal(bundle)
    assert "model.onnx: does not give the logits of sample.npz" in _refused(bundle)


def test_a_model_that_the_checker_refuses_is_found_though_its_checksum_is_right(bundle: Bundle) -> None:
    """A damaged model is refused by onnx's checker."""
    bundle.model.write_bytes(b"no model")
    _seal(bundle)
    assert "checker" in _refused(bundle)


def test_other_preprocessing_is_refused_though_its_checksum_is_right(
    bundle: Bundle, bundle_arguments: dict[str, Any]
) -> None:
    """Preprocessing that does not give the recorded input is refused."""
    changed = {**bundle_arguments["preprocessing"], "scale": 1 / 255}
    write_document(bundle.path / "preprocessing.json", "preprocessing", 1, changed)
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
    np.savez(bundle.path / "sample.npz", image=np.array([{}]), input=np.zeros(1), expected=np.zeros(1))
    _seal(bundle)
    assert "sample.npz: must hold" in _refused(bundle)


def test_a_card_of_a_newer_edgenas_is_refused_with_the_remedy(bundle: Bundle) -> None:
    """A newer schema asks for an upgrade."""
    write_document(bundle.path / "card.json", "bundle", 2, {})
    _seal(bundle)
    assert "upgrade edgenas" in _refused(bundle)
    with pytest.raises(FormatError):
        bundle.card  # noqa: B018 - reading it raises


def test_an_older_bundle_is_replaced(bundle: Bundle, bundle_arguments: dict[str, Any]) -> None:
    """Writing to the same folder again leaves the new bundle alone there, compiled Python included."""
    (bundle.path / "__pycache__").mkdir()
    write_bundle(bundle.path, **{**bundle_arguments, "card": {"note": "second"}})
    assert bundle.card == {"note": "second"}
    bundle.verify()
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]


def test_a_failed_write_leaves_the_older_bundle(
    bundle: Bundle, bundle_arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk fills up in the middle, the bundle that was there stays, and nothing lies beside it."""

    def full(path: Path, data: bytes) -> None:
        raise EdgeNASError(f"{path}: cannot be written (No space left on device)")

    monkeypatch.setattr("edgenas.export.bundle.write_bytes", full)
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
    """What a killed write left beside the bundle is gone after the next one."""
    for suffix in ("new", "old"):
        leftover = bundle.path.with_name(f".to ship.edgenas-{suffix}")
        leftover.mkdir()
        (leftover / "model.onnx").write_bytes(b"half")
    write_bundle(bundle.path, **bundle_arguments).verify()
    assert [entry.name for entry in bundle.path.parent.iterdir()] == ["to ship"]


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
        ({"expected": np.full((1, 10), 7, np.float32)}, VerificationError, "model.onnx"),
        ({"sample_input": np.zeros((1, 3, 24, 24), np.float32)}, VerificationError, "does not give its input"),
        ({"sample_image": np.zeros((8, 8), np.float32)}, VerificationError, "uint8"),
        ({"sample_image": np.zeros((8, 8, 2), np.uint8)}, VerificationError, "(H, W, 3)"),
        ({"preprocessing": {"size": 24}}, UsageError, "'channels' is missing"),
        ({"card": {"accuracy": float("nan")}}, UsageError, "JSON"),
        ({"card": {"accuracy": np.float32(1)}}, UsageError, "JSON"),
        ({"model": b"no model"}, VerificationError, "checker"),
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
