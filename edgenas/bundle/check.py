"""Checks that a bundle is complete and reproduces its recorded sample; nothing that the bundle says is trusted."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from edgenas.bundle.archive import read_npz_arrays
from edgenas.bundle.texts import bundle_scripts
from edgenas.data import to_image_size
from edgenas.data.preprocess import preprocess
from edgenas.errors import FormatError, ModelError, UsageError, VerificationError
from edgenas.export.parity import PARITY_LIMITS, compare_logits
from edgenas.files import Schema, format_value, parse_dataclass, read_bytes, read_document, rename_keys, sha256_hex
from edgenas.runtimes import ExportFormat, ModelInterface, Runtime, file_formats, runtime_of_format
from edgenas.version import __version__

_KEYS_RENAMED_IN_3 = {"made_from": "inputs_digest", "verdict": "validity"}
CARD_SCHEMA = Schema("bundle", 3, {2: lambda card: {**rename_keys(card, _KEYS_RENAMED_IN_3)}})
CHECKSUMS_FILE = "SHA256SUMS"
_INPUT_TOLERANCE = 1e-4  # another processor adds float32 numbers in another order
_MAX_RESOLUTION = 4096
_MAX_CHANNELS = 64
_MAX_IMAGE_SIDE = 16384
_MAX_RESIZE_WEIGHTS = 2**26  # in the matrix that resizes one side
_MAX_NUMBERS = 2**28  # in an image and in a preprocessed image

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class PreprocessingSettings:
    """The contents of a bundle's preprocessing.json, which are the ``settings`` of ``edgenas.data.preprocess``.

    It is complete: one network's resolution, layout and crop, and the pixel
    scaling of its data set (``edgenas.data.DataSetPreprocessing``).

    Args:
        size: height and width of the network's input, in pixels; one number for both.
        channels: channels of the network's input; a grey image is repeated.
        scale: factor of every pixel value.
        mean: subtracted from each channel after scaling.
        std: divisor of each channel, above 0.
        layout: ``NCHW`` or ``NHWC``.
        crop: share of the shorter side that the middle square takes; None resizes the whole image.
        antialias: average over the pixels that become one, as Pillow does.

    Raises:
        UsageError: when a number is impossible.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    VERSION: ClassVar[int] = 2

    size: int | tuple[int, int]
    channels: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    crop: float | None = None
    antialias: bool = False

    def __post_init__(self) -> None:
        height, width = to_image_size(self.size)
        sizes_fit = all(1 <= side <= _MAX_RESOLUTION for side in (height, width))
        if not sizes_fit or not 1 <= self.channels <= _MAX_CHANNELS:
            raise UsageError(
                f"preprocessing: size must be from 1 to {_MAX_RESOLUTION} and channels to {_MAX_CHANNELS},"
                f" but got {self.size}, {self.channels}"
            )
        if self.channels * height * width > _MAX_NUMBERS:
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
    """The sample of a bundle.

    Attributes:
        image: uint8 (H, W) or (H, W, C).
        images: the preprocessed image, (1, C, H, W) for models of any layout.
        expected: logits (1, classes) of the model file.
        reference: logits (1, classes) of the network in float32.
    """

    image: Array
    images: npt.NDArray[np.float32]
    expected: npt.NDArray[np.float32]
    reference: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VerifiedBundle:
    """The result of verifying a bundle that is complete and reproduces its sample.

    Attributes:
        export_format: format and precision, read from the model file.
        label: class of the sample.
        max_difference: largest difference between the recorded logits and those computed now.
        allowed: largest difference that this precision may have here.
        sample: the sample.
        interface: input and output of the model file.
        foreign_scripts: version of edgenas on the card, if it is another one and its scripts differ from this
            one's; else None.
    """

    export_format: ExportFormat
    label: str
    max_difference: float
    allowed: float
    sample: Sample
    interface: ModelInterface
    foreign_scripts: str | None = None

    def __repr__(self) -> str:
        return f"VerifiedBundle({self.export_format}, logits as recorded to {self.max_difference:.1e})"


def bundle_file_names(file_format: str) -> tuple[str, ...]:
    """Return the names of a bundle's files in the order of its archive; the checksums of the others come last."""
    return (
        "README.md",
        "card.json",
        "labels.txt",
        f"model.{file_format}",
        "preprocess.py",
        "preprocessing.json",
        "run.py",
        "sample.npz",
        CHECKSUMS_FILE,
    )


def find_file_format(folder: Path) -> str:
    """Return the format of a bundle's model file; where there is none or several, the one that messages name."""
    formats = file_formats()
    return next((each for each in reversed(formats) if (folder / f"model.{each}").exists()), formats[0])


def compute_sha256sums(folder: Path, file_format: str) -> bytes:
    """Return the content of SHA256SUMS for a bundle's other files, as sha256sum writes it."""
    names = bundle_file_names(file_format)[:-1]
    return "".join(f"{sha256_hex(read_bytes(folder / name))}  {name}\n" for name in names).encode()


def verify_bundle_folder(folder: Path) -> VerifiedBundle:
    """Verify a bundle: its list of files, its checksums and its contents.

    Raises:
        VerificationError: naming the file and the rule.
    """
    file_format = find_file_format(folder)
    _check_files_present(folder, file_format)
    _check_sha256sums(folder, file_format)
    try:
        return verify_contents(folder, file_format)
    except FormatError as error:
        raise VerificationError(str(error)) from None
    except (UsageError, VerificationError) as error:
        raise VerificationError(f"{folder}: {error}; export it again") from None
    except MemoryError:
        raise VerificationError(f"{folder}: checking it takes more memory than there is; do not use it") from None


def verify_contents(folder: Path, file_format: str) -> VerifiedBundle:
    """Check that a bundle's files fit together and that the model reproduces the sample.

    Raises:
        VerificationError: naming the file without its folder.
    """
    card = CARD_SCHEMA.read(folder / "card.json")
    document = read_document(folder / "preprocessing.json", "preprocessing", PreprocessingSettings.VERSION)
    settings = asdict(parse_dataclass(PreprocessingSettings, document, "preprocessing.json"))
    runtime = runtime_of_format(file_format)
    model = runtime.load(read_bytes(folder / f"model.{file_format}"))
    interface = _read_checked_interface(model, runtime, card)
    foreign_scripts = _find_foreign_scripts_version(folder, file_format, card)
    sample = _read_checked_sample(folder / "sample.npz", settings)
    labels = _read_checked_labels(folder / "labels.txt", sample, model, runtime)
    export_format = ExportFormat(file_format, interface.precision)
    limits = PARITY_LIMITS[export_format.parity_precision]
    try:
        compare_logits(sample.reference, sample.expected, limits.largest)
    except VerificationError as error:
        raise VerificationError(f"sample.npz: is not what a network in float32 gives ({error})") from None
    try:
        parity = compare_logits(sample.expected, runtime.run(model, sample.images), limits.again)
    except ModelError as error:
        raise VerificationError(f"model.{file_format}: {error}") from None
    except VerificationError as error:
        raise VerificationError(f"model.{file_format}: does not give the logits of sample.npz ({error})") from None
    allowed = limits.again * max(1.0, float(np.abs(sample.expected).max()))
    label = labels[int(sample.expected.argmax())]
    return VerifiedBundle(export_format, label, parity.max_difference, allowed, sample, interface, foreign_scripts)


def _read_checked_interface(model: bytes, runtime: Runtime, card: Mapping[str, Any]) -> ModelInterface:
    """Return the model's interface, read from the file and not from the card, which must agree with it."""
    name = f"model{runtime.suffix}"
    try:
        interface = runtime.read_interface(model)
    except ModelError as error:
        raise VerificationError(f"{name}: {error}") from None
    runtime.check_file(model)
    kind = str(ExportFormat(runtime.file_format, interface.precision))
    if card["kind"] != kind:
        raise VerificationError(f"card.json: says {reprlib.repr(card['kind'])}, but {name} is {kind}")
    actual = {
        "model_sha256": sha256_hex(model),
        "model_bytes": len(model),
        "input": interface.input.to_dict(),
        "output": interface.output.to_dict(),
    }
    for fact, value in actual.items():
        if fact in card and card[fact] != value:
            raise VerificationError(f"card.json: its {fact!r} is not that of {name}, which is {value}")
    return interface


def _find_foreign_scripts_version(folder: Path, file_format: str, card: Mapping[str, Any]) -> str | None:
    """Return the version of edgenas on the card if the scripts are not this version's, else None.

    Raises VerificationError when the card names this version, whose scripts are known.
    """
    versions = card.get("versions")
    version = versions.get("edgenas") if isinstance(versions, Mapping) else None
    for name, script in bundle_scripts(file_format).items():
        if read_bytes(folder / name) == script:
            continue
        if version == __version__:
            raise VerificationError(f"{name}: is not the script that edgenas {version} writes; do not run it")
        return "unknown" if version is None else format_value(version)
    return None


def _read_checked_labels(path: Path, sample: Sample, model: bytes, runtime: Runtime) -> list[str]:
    """Return the labels, one for each logit of the sample and the same as in a model file that stores them."""
    try:
        labels = read_bytes(path).decode().split("\n")[:-1]
    except UnicodeDecodeError:
        raise VerificationError("labels.txt: must be UTF-8 text") from None
    if sample.expected.shape != (1, len(labels)):
        raise VerificationError(
            f"labels.txt: has {len(labels)} labels, but sample.npz has logits of shape {sample.expected.shape}"
        )
    if runtime.has_other_labels(model, labels):
        raise VerificationError(f"labels.txt: differs from the labels behind model{runtime.suffix}")
    return labels


def _read_checked_sample(path: Path, settings: dict[str, Any]) -> Sample:
    """Return the sample, whose image must give its input."""
    arrays = read_npz_arrays(path, ("image", "input", "expected", "reference"))
    image, recorded_input, expected, reference = arrays
    if image.dtype != np.uint8 or any(array.dtype != np.float32 for array in arrays[1:]):
        raise VerificationError("sample.npz: image must be uint8 and input, expected and reference float32")
    side = max(image.shape[:2], default=0)
    resize_weights = side * max(to_image_size(settings["size"]))
    if side > _MAX_IMAGE_SIDE or resize_weights > _MAX_RESIZE_WEIGHTS or image.size > _MAX_NUMBERS:
        raise VerificationError(f"sample.npz: its image {image.shape} is too large to be prepared")
    try:
        prepared = preprocess(image, settings)
    except ValueError as error:
        raise VerificationError(f"sample.npz: image: {error}") from None
    if prepared.shape != recorded_input.shape or not np.allclose(
        prepared, recorded_input, rtol=_INPUT_TOLERANCE, atol=_INPUT_TOLERANCE
    ):
        raise VerificationError("sample.npz: preprocessing its image does not give its input")
    images = preprocess(image, {**settings, "layout": "NCHW"})
    return Sample(image, images, expected, reference)


def _check_files_present(folder: Path, file_format: str) -> None:
    """Raise VerificationError unless the folder holds exactly the files of a bundle and no links."""
    if not folder.is_dir():
        raise VerificationError(f"{folder}: is no folder; export the bundle again")
    names = bundle_file_names(file_format)
    entries = {entry.name: entry for entry in folder.iterdir()}
    if not set(names) & set(entries):
        raise VerificationError(f"{folder}: is no bundle; give the folder or the zip of a bundle")
    for name in names:
        if name not in entries:
            raise VerificationError(f"{folder / name}: is missing; export the bundle again")
        if entries[name].is_symlink() or not entries[name].is_file():
            raise VerificationError(f"{folder / name}: is a link or no file; export the bundle again")
    extra = sorted(set(entries) - set(names))
    if extra:
        raise VerificationError(f"{folder / extra[0]}: is no part of the bundle; delete it")


def _check_sha256sums(folder: Path, file_format: str) -> None:
    """Raise VerificationError naming the first file whose SHA-256 is not the recorded one."""
    recorded = read_bytes(folder / CHECKSUMS_FILE)
    computed = compute_sha256sums(folder, file_format)
    if recorded == computed:
        return
    lines = recorded.splitlines(keepends=True)
    for name, line in zip(bundle_file_names(file_format)[:-1], computed.splitlines(keepends=True), strict=True):
        if line not in lines:
            raise VerificationError(
                f"{folder / name}: its SHA-256 is not the one in {CHECKSUMS_FILE}; export the bundle again"
            )
    raise VerificationError(
        f"{folder / CHECKSUMS_FILE}: must list each file of the bundle once; export the bundle again"
    )
