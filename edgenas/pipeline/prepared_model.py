"""A subnet made ready for export: its float32 file, and the images that every file made from it is proven on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.accuracy.evaluate import compute_logits, extract_subnet
from edgenas.errors import UsageError
from edgenas.export import ExportFormat, build_onnx, check_onnx
from edgenas.export.quantize.calibration import METHODS, Calibration
from edgenas.export.quantize.quantize import is_below, kept_layers, layers_of
from edgenas.files import suggest_nearest
from edgenas.pipeline.calibration_images import Prepared, folder_images, split_folder, training_images
from edgenas.pipeline.export_formats import build_file
from edgenas.space import Architecture

if TYPE_CHECKING:
    from edgenas.ofa import Subnet
    from edgenas.pipeline.run import Run

_MOST_BATCH = 1024
_RANDOM_IMAGES = 32
_ONNX_INT8 = ExportFormat("onnx", "int8")
# What the official checkpoints were trained with: the middle of the image, 0.875 of its shorter side.
_IMAGENET = {
    "channels": 3,
    "scale": 1 / 255,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop": 0.875,
    "antialias": True,
}

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ExportSettings:
    """How files are made: images and method of calibration, layers kept in float32, and the batch.

    ``calibration`` is a folder of images instead of the run's own; ``batch``
    None takes any number of images; ``symmetric`` int8 activations are what
    TensorRT wants. Raises UsageError.
    """

    calibration: Path | None = None
    method: str = METHODS[0]
    keep_float: tuple[str, ...] = ()
    symmetric: bool = False
    batch: int | None = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"unknown calibration method {self.method!r}{suggest_nearest(self.method, list(METHODS))}")
        if self.batch is not None and not 1 <= self.batch <= _MOST_BATCH:
            raise UsageError(f"batch must be dynamic or from 1 to {_MOST_BATCH}, but got {self.batch}")

    def name(self, kind: ExportFormat) -> str:
        """What a bundle of this kind is called."""
        return f"{kind}-tensorrt" if self.symmetric and kind == _ONNX_INT8 else str(kind)

    def check(self, kinds: Sequence[ExportFormat], *, has_data: bool) -> None:
        """Raise UsageError when a setting has no effect on any of these kinds, of a run that has data or was imported.

        A folder of images calibrates the batch norm of imported weights in every kind.
        """
        if "int8" not in {kind.precision for kind in kinds}:
            if self.method != METHODS[0]:
                raise UsageError("calibration-method is for int8; give --precision int8 or leave it out")
            if self.calibration is not None and has_data:
                raise UsageError("calibration is for int8 where a run has data; give --precision int8 or leave it out")
        if self.keep_float and {kind.precision for kind in kinds} <= {"fp32"}:
            raise UsageError("keep-float has no effect on float32; give another precision, for example int8")
        if self.symmetric and _ONNX_INT8 not in kinds:
            raise UsageError("target tensorrt is for int8 ONNX; give --format onnx --precision int8")


@dataclass(frozen=True, eq=False)
class ParityReference:
    """Inputs (N, C, r, r) and PyTorch's logits of them (N, classes).

    ``source`` says what the inputs are, ``real`` whether they are images;
    ``labels`` are known of a data set's.
    """

    inputs: Floats
    expected: Floats
    source: str
    real: bool
    labels: Labels | None = None


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """An architecture of a run with its own weights, as a float32 ONNX file, and what its files are proven on."""

    run: Run
    architecture: Architecture
    onnx: bytes
    preprocessing: dict[str, Any]
    labels: tuple[str, ...]
    sample: npt.NDArray[np.uint8]
    parity_reference: ParityReference
    batch_norm: str
    settings: ExportSettings
    shown: Prepared | None = None  # the images of batch norm, for integers too

    @cached_property
    def calibration(self) -> Calibration:
        """What integers are calibrated on. Raises UsageError when the run has no images and no folder was given."""
        folder = self.settings.calibration
        if self.shown is not None:
            images = self.shown
        elif folder is not None:
            images = folder_images(folder, self.preprocessing)
        elif self.run.has_data:
            images = training_images(self.run, self.architecture.resolution)
        else:
            raise UsageError(
                f"{self.run.layout.root}: was imported and has no images, and int8 needs some: --calibration FOLDER"
            )
        return Calibration(images.inputs, self.settings.method, images.seed, images.source)

    def keep_float(self, kind: ExportFormat) -> tuple[str, ...]:
        """The layers that a file of this kind keeps in float32 by name, of those that its format has."""
        if not self.settings.keep_float or kind.precision == "fp32":
            return ()
        layers = self._layers(kind)
        return tuple(place for place in self.settings.keep_float if any(is_below(layer, place) for layer in layers))

    def _layers(self, kind: ExportFormat) -> list[str]:
        base, _ = build_file(self.onnx, ExportFormat(kind.format))
        return list(layers_of(base, kind))

    def check(self, kinds: Sequence[ExportFormat]) -> None:
        """Raise UsageError when integers have no images, or no kind a layer that is to be kept in float."""
        fewer = [kind for kind in kinds if kind.precision != "fp32"]
        if self.settings.keep_float:
            kept_layers([layer for kind in fewer for layer in self._layers(kind)], self.settings.keep_float)
        if any(kind.precision == "int8" for kind in kinds):
            _ = self.calibration

    @property
    def _normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel, of pixels as they are in the image."""
        scale = self.preprocessing["scale"]
        mean, std = ([value / scale for value in self.preprocessing[name]] for name in ("mean", "std"))
        return mean, std

    def is_for_tensorrt(self, kind: ExportFormat) -> bool:
        """Whether a file of this kind has the integers that TensorRT wants."""
        return self.settings.symmetric and kind == _ONNX_INT8

    def build(self, kind: ExportFormat, also_float: Sequence[str] = ()) -> tuple[bytes, bytes]:
        """A file of a kind, and the float32 file of its format; the same network gives the same bytes.

        ``also_float`` are layers to keep in float beside those of the settings.
        """
        return build_file(
            self.onnx,
            kind,
            self.calibration if kind.precision == "int8" else None,
            labels=self.labels,
            normalisation=self._normalisation,
            keep_float=[*self.keep_float(kind), *also_float],
            symmetric=self.is_for_tensorrt(kind),
        )


def prepare(run: Run, architecture: Architecture, settings: ExportSettings | None = None) -> PreparedModel:
    """Extract a subnet, calibrate its batch norm, write its file and run it in PyTorch on the images to prove it on.

    The folder in the settings has the images of a run that was imported;
    without them its subnet keeps the supernet's batch norm and is proven on
    noise. Raises UsageError for an architecture of another space and
    VerificationError for weights that are not finite.
    """
    if architecture.space != run.space:
        raise UsageError(f"{architecture} is no architecture of this run's space ({run.space.short_hash})")
    make = _of_data if run.has_data else _of_imported
    return make(run, architecture, settings or ExportSettings())


def _of_data(run: Run, architecture: Architecture, settings: ExportSettings) -> PreparedModel:
    subnet = run.evaluator.subnet(architecture)
    onnx = _file(architecture, subnet, settings.batch)
    split, resolution = run.data.validation, architecture.resolution
    expected = run.evaluator.logits(subnet, split.images, resolution)
    source = f"{len(split)} validation images of {run.data.name}"
    parity_reference = ParityReference(run.data.inputs(split.images, resolution), expected, source, True, split.labels)
    return PreparedModel(
        run,
        architecture,
        onnx,
        run.data.preprocessing.to_dict(resolution),
        run.data.labels,
        split.images[0],
        parity_reference,
        f"calibrated on training images of {run.data.name}",
        settings,
    )


def _of_imported(run: Run, architecture: Architecture, settings: ExportSettings) -> PreparedModel:
    folder, preprocessing = settings.calibration, {"size": architecture.resolution, **_IMAGENET}
    if folder is None:
        shown, held = None, _noise(preprocessing)
        batch_norm = "the supernet's, not this subnet's own, which costs accuracy; --calibration FOLDER calibrates it"
    else:
        shown, held = split_folder(folder, preprocessing)
        batch_norm = f"calibrated on {shown.source}"
    subnet = extract_subnet(run.supernet, architecture, None if shown is None else shown.inputs)
    onnx = _file(architecture, subnet, settings.batch)
    parity_reference = ParityReference(
        held.inputs, compute_logits(subnet, held.inputs), held.source, real=shown is not None
    )
    labels = tuple(f"class {number}" for number in range(run.space.classes))
    return PreparedModel(
        run, architecture, onnx, preprocessing, labels, held.sample, parity_reference, batch_norm, settings, shown
    )


def _file(architecture: Architecture, subnet: Subnet, batch: int | None) -> bytes:
    onnx = build_onnx(architecture, subnet.weights(), batch=batch)
    check_onnx(onnx)
    return onnx


def _noise(settings: dict[str, Any]) -> Prepared:
    from edgenas.data.preprocess import preprocess

    size = settings["size"]
    images = np.random.default_rng(0).integers(0, 256, (_RANDOM_IMAGES, size, size, 3), dtype=np.uint8)
    inputs = np.concatenate([preprocess(image, settings) for image in images])
    return Prepared(inputs, images[0], f"{_RANDOM_IMAGES} images of noise", 0)
