"""The contract of a runtime: everything that edgenas must know of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, final

from edgenas import on_device
from edgenas.errors import ModelError
from edgenas.runtimes.interface import ModelInterface, ModelSignature

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgenas.export.onnx.session import OnnxFile
    from edgenas.export.quantize.calibration import Calibration
    from edgenas.export.quantize.layer_errors import LayerError
    from edgenas.graph import GraphSummary

    Floats = npt.NDArray[np.float32]

Options = Mapping[str, Mapping[str, bool | int | float | str]]
FLOAT32 = "fp32"
_MAX_BATCH = 1024
_MAX_INPUT_NUMBERS = 2**28  # a gigabyte in float32


@dataclass(frozen=True)
class Precision:
    """A precision of a runtime's files.

    Attributes:
        name: its name, on the command line and in names of bundles.
        calibrated: its activations are integers, whose ranges come from images.
        variant_of: for a variant, the precision that its element types show and that a target names; else None.
        made_for: what a variant is made for, as the command line calls it: ``tensorrt``.
        provider: the execution provider that a variant is meant for; elsewhere it is not measured.
        parity: the precision (fp32, fp16, dynamic or int8) whose limits a file's difference to PyTorch must keep;
            needed where the name, or that of ``variant_of``, is none of these.
    """

    name: str
    calibrated: bool = False
    variant_of: str | None = None
    made_for: str | None = None
    provider: str | None = None
    parity: str | None = None


@dataclass(frozen=True)
class ModelParts:
    """What belongs to a model file.

    Attributes:
        locations: the files that it names and that hold a part of it, by the names that it has for them.
        with_locations: returns its bytes with other names for these files.
        unranked: names of inputs whose rank it does not say.
    """

    locations: Mapping[str, Path] = field(default_factory=dict)
    with_locations: Callable[[Mapping[str, str]], bytes] = lambda names: b""
    unranked: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A subnet in float32 that the files of all runtimes are made from.

    Attributes:
        onnx: the bytes of its float32 ONNX file, batch norm folded. ``onnx.proto`` is the parsed model: read only.
        labels: the name of each class, for formats that store them.
        normalisation: mean and deviation of each channel's pixels, for formats that store them.
    """

    onnx: OnnxFile
    labels: tuple[str, ...] = ()
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None
    _float_files: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)

    def float_file(self, runtime: Runtime) -> bytes:
        """Return the float32 file for a runtime; it is made and loaded once."""
        if runtime.name not in self._float_files:
            self._float_files[runtime.name] = runtime.load(runtime.make_float_file(self))
        return self._float_files[runtime.name]


class Runtime(ABC):
    """A program that runs model files of one format on devices; abstract.

    A subclass is one file, has no state, and imports libraries inside its
    methods only, because every command knows all runtimes. It is found by its
    entry point in group ``edgenas.runtimes``, whose name is its ``name``.
    A second file, ``device_module``, is sent to the device;
    ``edgenas/on_device/agent.py`` describes its functions.

    Methods raise ModelError for a file that is damaged or that the runtime
    refuses, and MissingExtraError, with the pip command, where a library is not
    installed. Equal arguments give equal bytes. Images are float32 of shape
    (N, C, H, W), logits float32 of shape (N, classes).

    Attributes:
        name: its name in profiles and targets.
        file_format: the format of its files and their suffix without the dot; no other runtime has it.
        precisions: those of its files; the first is ``fp32``.
        package: what pip installs on a device.
        provider_packages: by execution provider, the build of ``package`` that has it.
        accelerators: execution providers that a new profile gets if the board has them, with options, best first.
        precision_providers: execution providers that compute a float32 file in the target's precision.
        gpu_providers: execution providers that run on a GPU, whose clock should be fixed.
        version_program: a Python program for the device that imports the runtime and prints its version, then the
            names of its providers.
        needed_files: patterns of the files in its wheel that running models needs; the others are left out of a
            self-contained runtime.
        card_packages: the packages that decide what is in a file; a model card gives their versions.
        script_import: the line of a bundle's script that imports the runtime.
        script_body: the lines that set ``logits`` from ``image``, by the model file below the path ``HERE``.
        leaves_layers_in_float: an integer file may have layers in float that nobody named.
        file_start: the first bytes of its files, where these are those of an archive, as of zip; else empty.
        benchmark_program: the name of its makers' own program that measures its files; empty where edgenas knows none.
        checker: words for messages that name a program which checks a file, such as `` with onnx.checker``.
    """

    name: ClassVar[str]
    file_format: ClassVar[str]
    precisions: ClassVar[tuple[Precision, ...]]
    package: ClassVar[str]
    provider_packages: ClassVar[Mapping[str, str]] = {}
    accelerators: ClassVar[Options] = {}
    precision_providers: ClassVar[frozenset[str]] = frozenset()
    gpu_providers: ClassVar[frozenset[str]] = frozenset()
    version_program: ClassVar[str]
    needed_files: ClassVar[tuple[str, ...]] = ("*",)
    card_packages: ClassVar[tuple[str, ...]]
    script_import: ClassVar[str]
    script_body: ClassVar[str]
    leaves_layers_in_float: ClassVar[bool] = False
    file_start: ClassVar[bytes] = b""
    benchmark_program: ClassVar[str] = ""
    checker: ClassVar[str] = ""

    def __repr__(self) -> str:
        return f"<runtime {self.name}>"

    @property
    @final
    def suffix(self) -> str:
        """The suffix of its files, with the dot."""
        return f".{self.file_format}"

    @cached_property
    @final
    def precisions_by_name(self) -> dict[str, Precision]:
        """Its precisions by their names."""
        return {precision.name: precision for precision in self.precisions}

    @property
    @final
    def target_precisions(self) -> list[str]:
        """The precisions that a target may have and that messages list: those that are no variants."""
        return [precision.name for precision in self.precisions if precision.variant_of is None]

    @property
    def device_module(self) -> Path:
        """The file that is sent to a device as ``runtime_<name>.py``."""
        return Path(on_device.__file__).with_name(f"runtime_{self.name}.py")

    def load(self, model: bytes) -> bytes:
        """Return a file as bytes that keep what the methods read of it; by default as it is.

        A runtime whose files take long to parse or to open returns its subclass
        of ``edgenas.export.model_file.ModelFile``. Export loads each file once
        and calls all methods with it. A method that is called with plain bytes
        loads them itself.
        """
        return model

    # -- making files ----------------------------------------------------------------

    @abstractmethod
    def make_float_file(self, source: SourceModel) -> bytes:
        """Return a subnet's float32 file. Raises ModelError for an operator that the runtime does not have."""

    def convert(self, model: bytes, precision: str, calibration: Calibration | None, kept: frozenset[str]) -> bytes:
        """Return a float32 file in another of the precisions. Needed with more than one.

        Args:
            model: the float32 file.
            precision: one of ``precisions``, not ``fp32``.
            calibration: images for the ranges of activations; never None for a calibrated precision.
            kept: values of ``quantizable_layers`` whose layers stay in float32.

        Raises:
            VerificationError: for a weight that the precision cannot hold.
        """
        raise NotImplementedError(f"{self.name} converts no files")

    def quantizable_layers(self, model: bytes) -> dict[str, str]:
        """Return the layers of a float32 file, each with the name by which ``convert`` knows it."""
        return {}

    def float_layers(self, model: bytes) -> tuple[str, ...]:
        """Return the layers of an integer file that compute in float, in order; merged ones joined by ``;``."""
        return ()

    def layer_errors(self, reference: bytes, quantized: bytes, images: Floats) -> tuple[LayerError, ...]:
        """Return the error of each layer against the float32 file, the largest added error first."""
        return ()

    # -- reading and running files, on this machine ----------------------------------

    @abstractmethod
    def parse_interface(self, model: bytes) -> ModelInterface:
        """Return a file's precision, of those that are no variant, and its one input and one output."""

    @abstractmethod
    def run_batches(self, model: bytes, images: Floats) -> Floats:
        """Return the logits of images, a multiple of the file's batch, computed on one CPU thread."""

    def check_file(self, model: bytes) -> None:  # noqa: B027 - most formats have no rules beyond what running checks
        """Raise VerificationError for a file that breaks a rule of its format."""

    def has_other_labels(self, model: bytes, labels: Sequence[str]) -> bool:
        """Return True for a file that stores labels, and other ones than these."""
        return False

    def read_parts(self, path: Path, model: bytes) -> ModelParts:
        """Return the other files that a model file names, and inputs whose rank only the file can tell.

        A damaged file has none: the runtime on the device refuses it.

        Raises:
            UsageError: for a file that is missing or outside of the model's folder.
        """
        return ModelParts()

    def read_precision(self, model: bytes) -> str | None:
        """Return the precision of a file, of those that are no variant; None where edgenas cannot tell."""
        return None

    def read_signature(self, model: bytes) -> ModelSignature | None:
        """Return types and shapes of a file's inputs and outputs; None where edgenas cannot tell."""
        return None

    def summarise_graph(self, path: Path, shapes: Mapping[str, Sequence[int]]) -> GraphSummary | None:
        """Return a file's operators, MACs and memory by its graph; None where edgenas cannot read it.

        Args:
            path: the file.
            shapes: those of inputs whose file leaves dimensions open.
        """
        return None

    def find_sources(self, model: bytes, operators: Sequence[str], graph: bytes | None) -> dict[str, tuple[str, ...]]:
        """Return the names of the file's nodes that operators compute, by the operator's name, where it is known.

        Args:
            model: the file.
            operators: names of operators that a device ran. They are not trusted, and neither is the graph.
            graph: what the runtime's module on the device stored of the graph that ran; None where it stored none.
        """
        return {}

    @final
    def read_interface(self, model: bytes) -> ModelInterface:
        """Read the input, the output and the precision of a model file.

        Raises:
            ModelError: when the file is damaged, has not one input and one output, or has a larger input than any
                network here: callers allocate it.
        """
        interface = self.parse_interface(model)
        sizes = [1 if size is None else size for size in interface.input.shape]
        if min(sizes, default=0) < 1 or sizes[0] > _MAX_BATCH or math.prod(sizes) > _MAX_INPUT_NUMBERS:
            raise ModelError(
                f"the model's input must be of 1 to {_MAX_BATCH} images and at most {_MAX_INPUT_NUMBERS} numbers,"
                f" but has shape {interface.input.shape}"
            )
        return interface

    @final
    def run(self, model: bytes, images: Floats) -> Floats:
        """Return the logits of any number of images, computed on one CPU thread.

        Raises:
            ModelError: when the runtime refuses the file.
            UsageError: when the images do not fit the file.
        """
        import numpy as np

        model = self.load(model)
        batch = self.read_interface(model).batch or 1
        missing = -len(images) % batch
        padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        return self.run_batches(model, padded)[: len(images)]
