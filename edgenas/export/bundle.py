"""A bundle: the folder that is deployed, with everything needed to run the model and to prove it."""

from __future__ import annotations

import inspect
import io
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgenas.errors import EdgeNASError, FormatError, UsageError, VerificationError
from edgenas.export import preprocess as preprocess_module
from edgenas.export.bundle_texts import RUN_SCRIPT, model_card
from edgenas.export.preprocess import preprocess
from edgenas.export.verify import check_onnx, compare, run_onnx
from edgenas.files import canonical_json, digest, parse, read_bytes, read_document, write_bytes, write_document

_VERSION = 1
_SUMS = "SHA256SUMS"
_FILES = (
    "README.md",
    "card.json",
    "labels.txt",
    "model.onnx",
    "preprocess.py",
    "preprocessing.json",
    "run.py",
    "sample.npz",
)
# Float32 sums in another order, on another processor.
_INPUT_TOLERANCE = 1e-4
_LOGIT_TOLERANCE = 1e-4

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Preprocessing:
    """What preprocessing.json says. Raises UsageError when a number is impossible."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    size: int
    channels: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.size < 1 or self.channels < 1:
            raise UsageError(f"preprocessing: size and channels must be above 0, but got {self.size}, {self.channels}")
        if not np.isfinite([self.scale, *self.mean, *self.std]).all():
            raise UsageError("preprocessing: scale, mean and std must be finite numbers")
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise UsageError(
                f"preprocessing: mean and std need {self.channels} numbers, std above 0,"
                f" but got {list(self.mean)} and {list(self.std)}"
            )


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder. Nothing is read before it is asked for."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def model(self) -> Path:
        """The model file."""
        return self.path / "model.onnx"

    @property
    def card(self) -> dict[str, Any]:
        """The model card's facts. Raises FormatError when the file is damaged."""
        return read_document(self.path / "card.json", "bundle", _VERSION)

    def verify(self) -> None:
        """Prove that the bundle is whole and does what it did when it was made.

        Every file has its recorded SHA-256 and none is missing, extra or a
        link; the model passes onnx's checker; the sample image gives the
        recorded input and, through the model, the recorded logits. Raises
        VerificationError naming the file and the rule.
        """
        _check_names(self.path)
        _check_sums(self.path)
        try:
            _check_contents(self.path)
        except FormatError as error:
            raise VerificationError(str(error)) from None
        except (UsageError, VerificationError) as error:
            raise VerificationError(f"{self.path}: {error}; export it again") from None


def write_bundle(
    folder: Path,
    *,
    model: bytes,
    preprocessing: Mapping[str, Any],
    labels: Sequence[str],
    sample_image: npt.NDArray[np.uint8],
    sample_input: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    card: Mapping[str, Any],
) -> Bundle:
    """Write a bundle, verify it, and only then put it in place; equal arguments give equal bytes.

    ``sample_image`` is (H, W) or (H, W, C), ``sample_input`` (1, C, r, r) what
    preprocessing makes of it, ``expected`` (1, classes) the network's logits.
    A bundle that lies at ``folder`` is replaced. Raises UsageError when
    something else does or labels or preprocessing are impossible, and
    VerificationError when the model disagrees with the sample.
    """
    target = folder.resolve()
    _check_replaceable(target)
    if any(set(label) & {"\n", "\r"} for label in labels):
        raise UsageError("a label must be one line: labels.txt has one a line")
    settings = parse(Preprocessing, dict(preprocessing), "preprocessing")
    _check_json(card)
    temporary = target.with_name(f".{target.name}.edgenas-new")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        write_document(temporary / "card.json", "bundle", _VERSION, card)
        write_document(temporary / "preprocessing.json", "preprocessing", _VERSION, asdict(settings))
        write_bytes(temporary / "model.onnx", model)
        write_bytes(temporary / "labels.txt", "".join(f"{label}\n" for label in labels).encode())
        write_bytes(temporary / "preprocess.py", inspect.getsource(preprocess_module).encode())
        write_bytes(temporary / "run.py", RUN_SCRIPT.encode())
        write_bytes(temporary / "README.md", model_card(card, asdict(settings), labels).encode())
        write_bytes(temporary / "sample.npz", _npz(image=sample_image, input=sample_input, expected=expected))
        write_bytes(temporary / _SUMS, _sums(temporary))
        _check_contents(temporary)
        _put_in_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(folder)


def _check_replaceable(target: Path) -> None:
    """Only an empty folder or a bundle may be written over: nothing of the user's is ever deleted."""
    if not target.exists():
        return
    names = {entry.name for entry in target.iterdir()} if target.is_dir() else {target.name}
    foreign = sorted(names - {*_FILES, _SUMS, "__pycache__"})
    remedy = "move it away or choose another folder"
    if foreign:
        raise UsageError(f"{target}: holds {foreign[0]!r}, which is no part of a bundle; {remedy}")
    if names:
        try:
            Bundle(target).card  # noqa: B018 - read to be checked
        except UsageError:
            raise UsageError(f"{target}: is neither empty nor a bundle that edgenas made; {remedy}") from None


def _check_json(card: Mapping[str, Any]) -> None:
    try:
        canonical_json(dict(card))
    except (TypeError, ValueError) as error:
        raise UsageError(f"card: must be plain JSON data ({error})") from None


def _put_in_place(temporary: Path, target: Path) -> None:
    """Two renames: at any moment the old bundle or the new one lies whole at its place or beside it."""
    old = target.with_name(f".{target.name}.edgenas-old")
    shutil.rmtree(old, ignore_errors=True)
    try:
        if target.exists():
            target.replace(old)
        temporary.replace(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.replace(target)
        raise EdgeNASError(f"{target}: cannot be written ({error.strerror}); choose another folder") from None
    shutil.rmtree(old, ignore_errors=True)


def _npz(**arrays: Array) -> bytes:
    """An .npz whose bytes depend on the arrays alone, not on the clock as numpy's may."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue())
    return buffer.getvalue()


def _sums(folder: Path) -> bytes:
    return "".join(f"{digest(read_bytes(folder / name))}  {name}\n" for name in _FILES).encode()


def _check_names(folder: Path) -> None:
    if not folder.is_dir():
        raise VerificationError(f"{folder}: is no folder; export the bundle again")
    found = {entry.name: entry for entry in folder.iterdir()}
    for name in (*_FILES, _SUMS):
        if name not in found:
            raise VerificationError(f"{folder / name}: is missing; export the bundle again")
        if found[name].is_symlink() or not found[name].is_file():
            raise VerificationError(f"{folder / name}: is a link or no file; export the bundle again")
    extra = sorted(set(found) - {*_FILES, _SUMS})
    if extra:
        raise VerificationError(f"{folder / extra[0]}: is no part of the bundle; delete it")


def _check_sums(folder: Path) -> None:
    recorded = read_bytes(folder / _SUMS)
    expected = _sums(folder)
    if recorded == expected:
        return
    lines = recorded.splitlines(keepends=True)
    for name, line in zip(_FILES, expected.splitlines(keepends=True), strict=True):
        if line not in lines:
            raise VerificationError(f"{folder / name}: its SHA-256 is not the one in {_SUMS}; export the bundle again")
    raise VerificationError(f"{folder / _SUMS}: must list each file of the bundle once; export the bundle again")


def _check_contents(folder: Path) -> None:
    """That the files mean what they should; messages name the file without its folder."""
    read_document(folder / "card.json", "bundle", _VERSION)
    plain = read_document(folder / "preprocessing.json", "preprocessing", _VERSION)
    settings = parse(Preprocessing, plain, "preprocessing.json")
    model = read_bytes(folder / "model.onnx")
    check_onnx(model)
    image, entry, expected = _read_sample(folder / "sample.npz")
    labels = read_bytes(folder / "labels.txt").count(b"\n")
    if expected.shape != (1, labels):
        raise VerificationError(f"labels.txt: has {labels} labels, but sample.npz has logits of shape {expected.shape}")
    try:
        made = preprocess(image, asdict(settings))
    except ValueError as error:
        raise VerificationError(f"sample.npz: image: {error}") from None
    if made.shape != entry.shape or not np.allclose(made, entry, rtol=_INPUT_TOLERANCE, atol=_INPUT_TOLERANCE):
        raise VerificationError("sample.npz: preprocessing its image does not give its input")
    try:
        compare(expected, run_onnx(model, made), _LOGIT_TOLERANCE)
    except VerificationError as error:
        raise VerificationError(f"model.onnx: does not give the logits of sample.npz ({error})") from None


def _read_sample(path: Path) -> tuple[Array, Array, Array]:
    try:
        with np.load(path, allow_pickle=False) as sample:
            return sample["image"], sample["input"].astype(np.float32), sample["expected"].astype(np.float32)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        raise VerificationError("sample.npz: must hold image, input and expected") from None
