"""A subnet prepared for export: its float32 model and the reference outputs that its files are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.accuracy.evaluate import compute_logits, extract_subnet
from edgenas.data.preprocess import preprocess
from edgenas.errors import UsageError
from edgenas.export import build_onnx, check_onnx
from edgenas.export.quantize.calibration import METHODS, Calibration
from edgenas.export.quantize.layer_selection import belongs_to, select_layers
from edgenas.files import format_suggestion
from edgenas.graph import GraphSummary, summarise_model
from edgenas.pipeline.calibration_images import CalibrationImages, draw_training_images, read_folder, split_folder
from edgenas.pipeline.finetuned import FinetunedSubnet, load_evaluator, load_finetuned
from edgenas.pipeline.workspace import Workspace
from edgenas.runtimes import FLOAT32, ExportFormat, SourceModel
from edgenas.runtimes.building import quantize
from edgenas.space import Architecture

if TYPE_CHECKING:
    from edgenas.ofa import Subnet

_MOST_BATCH = 1024
_RANDOM_IMAGES = 32
_MOST_COMPARED = 2000  # validation images that a file is compared on; all of them are in memory
_STREAM = 4  # of the run's seed; training, evaluation, calibration and batch norm have others
# Preprocessing of the official checkpoints: the centre of the image, 0.875 of its shorter side.
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
    """Settings of export: calibration, layers kept in float32, and the batch size.

    Args:
        calibration: A folder of images to calibrate on, instead of the run's training images.
        method: ``percentile`` or ``minmax``: how ranges of activations are chosen.
        keep_float: Names of layers, blocks or stages to keep in float32.
        batch: Images that a file takes at a time; None for any number.

    Raises:
        UsageError: The method is unknown, or the batch is out of range.
    """

    calibration: str | Path | None = None
    method: str = METHODS[0]
    keep_float: tuple[str, ...] = ()
    batch: int | None = 1

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(
                f"unknown calibration method {self.method!r}{format_suggestion(self.method, list(METHODS))}"
            )
        if self.batch is not None and not 1 <= self.batch <= _MOST_BATCH:
            raise UsageError(f"batch must be dynamic or from 1 to {_MOST_BATCH}, but got {self.batch}")

    def check_effective(self, formats: Sequence[ExportFormat], *, has_data: bool) -> None:
        """Raise UsageError when a setting has no effect on any of these formats.

        ``has_data`` is False for imported weights: there a folder of images
        calibrates the batch norm in every format.
        """
        if not any(export_format.is_calibrated for export_format in formats):
            if self.method != METHODS[0]:
                raise UsageError("calibration-method is for int8; give --precision int8 or leave it out")
            if self.calibration is not None and has_data:
                raise UsageError("calibration is for int8 where a run has data; give --precision int8 or leave it out")
        if self.keep_float and all(export_format.precision == FLOAT32 for export_format in formats):
            raise UsageError("keep-float has no effect on float32; give another precision, for example int8")


@dataclass(frozen=True, eq=False)
class ParityReference:
    """Inputs (N, C, H, W) and the logits (N, classes) that PyTorch computes from them.

    ``source`` describes the inputs; ``real`` is True for images and False for
    noise; ``labels`` are those of a data set, None for other inputs.
    """

    inputs: Floats
    expected: Floats
    source: str
    real: bool
    labels: Labels | None = None


@dataclass(frozen=True, eq=False)
class PreparedModel:
    """An architecture with its own weights in float32, and what its files are compared with."""

    workspace: Workspace
    architecture: Architecture
    source: SourceModel
    preprocessing: dict[str, Any]
    sample: npt.NDArray[np.uint8]
    parity_reference: ParityReference
    batch_norm: str
    settings: ExportSettings
    batch_norm_images: CalibrationImages | None = None  # of imported weights; integers are calibrated on them too

    @cached_property
    def finetuned(self) -> FinetunedSubnet | None:
        """How its weights were trained where they are its own; None for those inherited from the supernet."""
        return load_finetuned(self.workspace, self.architecture) if self.architecture.weights else None

    @cached_property
    def graph(self) -> GraphSummary:
        """What its float32 graph costs."""
        return summarise_model(self.source.onnx.proto)

    @cached_property
    def calibration(self) -> Calibration:
        """The images that integers are calibrated on; UsageError when the run has none and no folder was given."""
        folder = self.settings.calibration
        if self.batch_norm_images is not None:
            images = self.batch_norm_images
        elif folder is not None:
            images = read_folder(Path(folder), self.preprocessing)
        elif self.workspace.has_data:
            images = draw_training_images(self.workspace, self.architecture.image_size)
        else:
            root = self.workspace.folder.root
            raise UsageError(f"{root}: was imported and has no images, and int8 needs some: --calibration FOLDER")
        return Calibration(images.inputs, self.settings.method, images.seed, images.source)

    def float_places(self, export_format: ExportFormat) -> tuple[str, ...]:
        """Return the places that a file of this format keeps in float32, of those that its format has."""
        if not self.settings.keep_float or export_format.precision == FLOAT32:
            return ()
        layers = self._list_layers(export_format)
        return tuple(place for place in self.settings.keep_float if any(belongs_to(layer, place) for layer in layers))

    def _list_layers(self, export_format: ExportFormat) -> list[str]:
        return list(export_format.runtime.quantizable_layers(self.source.float_file(export_format.runtime)))

    def check_settings(self, formats: Sequence[ExportFormat]) -> None:
        """Raise UsageError when int8 has no images, or no format has a layer that is to be kept in float."""
        if self.settings.keep_float:
            reduced = [export_format for export_format in formats if export_format.precision != FLOAT32]
            layers = [layer for export_format in reduced for layer in self._list_layers(export_format)]
            select_layers(layers, self.settings.keep_float)
        if any(export_format.is_calibrated for export_format in formats):
            _ = self.calibration

    def build(self, export_format: ExportFormat, also_float: Sequence[str] = ()) -> bytes:
        """Return a file of a format, loaded by its runtime; equal models give equal bytes.

        ``also_float`` are places to keep in float beside those of the settings.
        """
        calibration = self.calibration if export_format.is_calibrated else None
        keep_float = [*self.float_places(export_format), *also_float]
        base = self.source.float_file(export_format.runtime)
        return quantize(base, export_format, calibration, keep_float=keep_float)


def prepare(workspace: Workspace, architecture: Architecture, settings: ExportSettings | None = None) -> PreparedModel:
    """Extract a subnet, calibrate its batch norm, write its ONNX file and compute PyTorch's reference outputs.

    An architecture that names weights of its own has those.

    Imported weights have no images: a folder in the settings provides them.
    Without one the subnet keeps the supernet's batch norm, and noise is the
    reference input. Raises UsageError for an architecture of another space and
    VerificationError for weights that are not finite.
    """
    if architecture.space != workspace.space:
        raise UsageError(f"{architecture} is no architecture of this run's space ({workspace.space.short_hash})")
    prepare_origin = _prepare_trained if workspace.has_data else _prepare_imported
    return prepare_origin(workspace, architecture, settings or ExportSettings())


def _prepare_trained(workspace: Workspace, architecture: Architecture, settings: ExportSettings) -> PreparedModel:
    """Prepare a subnet of weights that were trained here, with the run's data set."""
    data, split, size = workspace.data, workspace.data.validation, architecture.image_size
    if len(split) > _MOST_COMPARED:
        order = np.random.default_rng([workspace.seed, _STREAM]).permutation(len(split))
        split = split.select(np.sort(order[:_MOST_COMPARED]))
    evaluator = load_evaluator(workspace, architecture)
    subnet = evaluator.calibrated_subnet(architecture)
    expected = evaluator.logits(subnet, split.images, size)
    source = f"{len(split)} validation images of {data.name}"
    preprocessing = data.preprocessing.to_settings(size)
    return PreparedModel(
        workspace,
        architecture,
        _make_source(architecture, subnet, settings.batch, data.labels, preprocessing),
        preprocessing,
        split.images[0],
        ParityReference(data.to_inputs(split.images, size), expected, source, True, split.labels),
        f"calibrated on training images of {data.name}",
        settings,
    )


def _prepare_imported(workspace: Workspace, architecture: Architecture, settings: ExportSettings) -> PreparedModel:
    """Prepare a subnet of imported weights, with the images of a folder or with noise."""
    folder, preprocessing = settings.calibration, {"size": architecture.resolution, **_IMAGENET}
    if folder is None:
        calibrating, held_out = None, _draw_noise(preprocessing)
        batch_norm = "the supernet's, not this subnet's own, which costs accuracy; --calibration FOLDER calibrates it"
    else:
        calibrating, held_out = split_folder(Path(folder), preprocessing)
        batch_norm = f"calibrated on {calibrating.source}"
    subnet = extract_subnet(workspace.supernet, architecture, None if calibrating is None else calibrating.inputs)
    expected = compute_logits(subnet, held_out.inputs)
    labels = tuple(f"class {number}" for number in range(workspace.space.classes))
    return PreparedModel(
        workspace,
        architecture,
        _make_source(architecture, subnet, settings.batch, labels, preprocessing),
        preprocessing,
        held_out.sample,
        ParityReference(held_out.inputs, expected, held_out.source, real=calibrating is not None),
        batch_norm,
        settings,
        calibrating,
    )


def _make_source(
    architecture: Architecture,
    subnet: Subnet,
    batch: int | None,
    labels: tuple[str, ...],
    preprocessing: dict[str, Any],
) -> SourceModel:
    """Write the subnet's ONNX file and check it."""
    onnx = build_onnx(architecture, subnet.weights(), batch=batch)
    check_onnx(onnx)
    scale = preprocessing["scale"]
    mean, std = ([value / scale for value in preprocessing[name]] for name in ("mean", "std"))
    return SourceModel(onnx, labels, (mean, std))  # of pixels as they are in the image


def _draw_noise(settings: dict[str, Any]) -> CalibrationImages:
    size = settings["size"]
    images = np.random.default_rng(0).integers(0, 256, (_RANDOM_IMAGES, size, size, 3), dtype=np.uint8)
    inputs = np.concatenate([preprocess(image, settings) for image in images])
    return CalibrationImages(inputs, images[0], f"{_RANDOM_IMAGES} images of noise", 0)
