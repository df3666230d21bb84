"""Whether a bundle is whole and does what it did: the checks, none of which believes what the bundle says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edgenas.bundle.archive import unpack_arrays
from edgenas.bundle.model_file import Interface, read_interface, run_model
from edgenas.bundle.texts import scripts
from edgenas.data.preprocess import preprocess
from edgenas.errors import FormatError, ModelError, UsageError, VerificationError
from edgenas.export.formats import ExportFormat
from edgenas.export.parity import LIMITS, check_onnx, compare
from edgenas.export.tflite.metadata import has_other_labels
from edgenas.files import digest, parse_dataclass, read_bytes, read_document
from edgenas.version import __version__

CARD = ("bundle", 2)
SUMS = "SHA256SUMS"
# Float32 sums in another order, on another processor.
_INPUT_TOLERANCE = 1e-4
_MOST_PIXELS = 4096
_MOST_CHANNELS = 64
_MOST_SIDE = 16384
_MOST_WEIGHTS = 2**26  # of the matrix that resizes one side
_MOST_NUMBERS = 2**28  # of an image, and of what preprocessing makes of it

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredPreprocessing:
    """What preprocessing.json says, as ``preprocess`` takes it. Raises UsageError when a number is impossible."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    VERSION: ClassVar[int] = 2

    size: int
    channels: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    crop: float | None = None
    antialias: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= _MOST_PIXELS or not 1 <= self.channels <= _MOST_CHANNELS:
            raise UsageError(
                f"preprocessing: size must be from 1 to {_MOST_PIXELS} and channels to {_MOST_CHANNELS},"
                f" but got {self.size}, {self.channels}"
            )
        if self.channels * self.size**2 > _MOST_NUMBERS:
            raise UsageError(f"preprocessing: {self.channels} channels of size {self.size} are too many numbers")
        if not np.isfinite([self.scale, *self.mean, *self.std]).all():
            raise UsageError("preprocessing: scale, mean and std must be finite numbers")
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise UsageError(
                f"preprocessing: mean and std need {self.channels} numbers, std above 0,"
                f" but got {list(self.mean)} and {list(self.std)}"
            )
        if self.crop is not None and not 0 < self.crop <= 1:
            raise UsageError(f"preprocessing: crop must be above 0 and at most 1, but got {self.crop:g}")


@dataclass(frozen=True, eq=False)
class Sample:
    """A bundle's sample: the image, its input as images (1, C, H, W), and the logits of the file and of the network."""

    image: Array
    images: npt.NDArray[np.float32]
    expected: npt.NDArray[np.float32]
    reference: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Verified:
    """A bundle that passed: its kind, the label of its sample, and how near the recorded logits the file came.

    ``allowed`` is the largest difference that its kind may have here.
    ``foreign_scripts`` is the edgenas that its card names, where that is
    another and its scripts differ from this one's; else None.
    """

    kind: ExportFormat
    label: str
    max_difference: float
    allowed: float
    sample: Sample
    interface: Interface
    foreign_scripts: str | None = None


def files_of(file_format: str) -> tuple[str, ...]:
    """The names of a bundle's files, in order, without its checksums."""
    model = f"model.{file_format}"
    return (
        "README.md",
        "card.json",
        "labels.txt",
        model,
        "preprocess.py",
        "preprocessing.json",
        "run.py",
        "sample.npz",
    )


def checksums(folder: Path, file_format: str) -> bytes:
    """SHA256SUMS, as sha256sum writes it."""
    return "".join(f"{digest(read_bytes(folder / name))}  {name}\n" for name in files_of(file_format)).encode()


def check_bundle(folder: Path) -> Verified:
    """The proof of ``Bundle.verify``."""
    file_format = "tflite" if (folder / "model.tflite").exists() else "onnx"
    _check_names(folder, file_format)
    _check_sums(folder, file_format)
    try:
        return check_contents(folder, file_format)
    except FormatError as error:
        raise VerificationError(str(error)) from None
    except (UsageError, VerificationError) as error:
        raise VerificationError(f"{folder}: {error}; export it again") from None
    except MemoryError:
        raise VerificationError(f"{folder}: checking it takes more memory than there is; do not use it") from None


def check_contents(folder: Path, file_format: str) -> Verified:
    """That the files mean what they should; messages name the file without its folder."""
    card = read_document(folder / "card.json", *CARD)
    plain = read_document(folder / "preprocessing.json", "preprocessing", StoredPreprocessing.VERSION)
    settings = asdict(parse_dataclass(StoredPreprocessing, plain, "preprocessing.json"))
    model = read_bytes(folder / f"model.{file_format}")
    interface = _checked_model(model, file_format, card)
    foreign = _foreign_scripts(folder, file_format, card)
    sample = _checked_sample(folder / "sample.npz", settings)
    labels = _labels(folder / "labels.txt")
    if sample.expected.shape != (1, len(labels)):
        raise VerificationError(
            f"labels.txt: has {len(labels)} labels, but sample.npz has logits of shape {sample.expected.shape}"
        )
    if file_format == "tflite" and has_other_labels(model, labels):
        raise VerificationError("labels.txt: differs from the labels behind model.tflite")
    limits = LIMITS[interface.kind.precision]
    try:
        compare(sample.reference, sample.expected, limits.largest)
    except VerificationError as error:
        raise VerificationError(f"sample.npz: is not what a network in float32 gives ({error})") from None
    try:
        found = compare(sample.expected, run_model(model, file_format, sample.images), limits.again)
    except ModelError as error:
        raise VerificationError(f"model.{file_format}: {error}") from None
    except VerificationError as error:
        raise VerificationError(f"model.{file_format}: does not give the logits of sample.npz ({error})") from None
    allowed = limits.again * max(1.0, float(np.abs(sample.expected).max()))
    label = labels[int(sample.expected.argmax())]
    return Verified(interface.kind, label, found.max_difference, allowed, sample, interface, foreign)


def _checked_model(model: bytes, file_format: str, card: Mapping[str, Any]) -> Interface:
    """The model's interface. What kind it is, and so what it may lose, is read from the file."""
    try:
        interface = read_interface(model, file_format)
    except ModelError as error:
        raise VerificationError(f"model.{file_format}: {error}") from None
    if file_format == "onnx":
        check_onnx(model)
    if card["kind"] != str(interface.kind):
        raise VerificationError(f"card.json: says {card['kind']!r}, but model.{file_format} is {interface.kind}")
    true = {
        "model_sha256": digest(model),
        "model_bytes": len(model),
        "input": interface.input.to_dict(),
        "output": interface.output.to_dict(),
    }
    for name, value in true.items():
        if name in card and card[name] != value:
            raise VerificationError(f"card.json: its {name!r} is not that of model.{file_format}, which is {value}")
    return interface


def _foreign_scripts(folder: Path, file_format: str, card: Mapping[str, Any]) -> str | None:
    """The edgenas that a card names, where it is not this one, which would write other scripts."""
    versions = card.get("versions")
    said = versions.get("edgenas") if isinstance(versions, Mapping) else None
    for name, script in scripts(file_format).items():
        if read_bytes(folder / name) == script:
            continue
        if said == __version__:
            raise VerificationError(f"{name}: is not the script that edgenas {said} writes; do not run it")
        return "unknown" if said is None else str(said)
    return None


def _labels(path: Path) -> list[str]:
    try:
        return read_bytes(path).decode().split("\n")[:-1]
    except UnicodeDecodeError:
        raise VerificationError("labels.txt: must be UTF-8 text") from None


def _checked_sample(path: Path, settings: dict[str, Any]) -> Sample:
    arrays = unpack_arrays(path, ("image", "input", "expected", "reference"))
    image, entry, expected, reference = arrays
    if image.dtype != np.uint8 or any(array.dtype != np.float32 for array in arrays[1:]):
        raise VerificationError("sample.npz: image must be uint8 and input, expected and reference float32")
    side = max(image.shape[:2], default=0)
    if side > _MOST_SIDE or side * settings["size"] > _MOST_WEIGHTS or image.size > _MOST_NUMBERS:
        raise VerificationError(f"sample.npz: its image {image.shape} is too large to be prepared")
    try:
        made = preprocess(image, settings)
    except ValueError as error:
        raise VerificationError(f"sample.npz: image: {error}") from None
    if made.shape != entry.shape or not np.allclose(made, entry, rtol=_INPUT_TOLERANCE, atol=_INPUT_TOLERANCE):
        raise VerificationError("sample.npz: preprocessing its image does not give its input")
    images = preprocess(image, {**settings, "layout": "NCHW"})
    return Sample(image, images, expected, reference)


def _check_names(folder: Path, file_format: str) -> None:
    if not folder.is_dir():
        raise VerificationError(f"{folder}: is no folder; export the bundle again")
    names = (*files_of(file_format), SUMS)
    found = {entry.name: entry for entry in folder.iterdir()}
    for name in names:
        if name not in found:
            raise VerificationError(f"{folder / name}: is missing; export the bundle again")
        if found[name].is_symlink() or not found[name].is_file():
            raise VerificationError(f"{folder / name}: is a link or no file; export the bundle again")
    extra = sorted(set(found) - set(names))
    if extra:
        raise VerificationError(f"{folder / extra[0]}: is no part of the bundle; delete it")


def _check_sums(folder: Path, file_format: str) -> None:
    recorded = read_bytes(folder / SUMS)
    expected = checksums(folder, file_format)
    if recorded == expected:
        return
    lines = recorded.splitlines(keepends=True)
    for name, line in zip(files_of(file_format), expected.splitlines(keepends=True), strict=True):
        if line not in lines:
            raise VerificationError(f"{folder / name}: its SHA-256 is not the one in {SUMS}; export the bundle again")
    raise VerificationError(f"{folder / SUMS}: must list each file of the bundle once; export the bundle again")
