"""Verifying a bundle: here, in its file's own runtime, and on a device. Needs neither torch nor a run."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.bundle import Bundle, VerifiedBundle, open_bundle
from edgenas.devices import Target, check_present
from edgenas.errors import DeviceError, UsageError, VerificationError
from edgenas.export import PARITY_LIMITS, compare_logits
from edgenas.export.tflite.interpreter import dequantize_values, quantize_values
from edgenas.pipeline.export_formats import target_for
from edgenas.profilers import MeasuringSession
from edgenas.runtimes import ModelInterface, TensorSpec, runtime_of_suffix
from edgenas.shell import format_command

_MARKS = ("card.json", "SHA256SUMS")  # only bundles have them
_BUNDLE = "a bundle's folder or its .zip"


@dataclass(frozen=True)
class VerificationReport:
    """What was verified of a bundle; differences are the largest between logits.

    ``device_difference`` is that on the device, None where no target was given.
    ``foreign_scripts`` is the edgenas that the bundle says it is of, where its
    scripts differ from this one's and so were not compared.
    """

    bundle: Path
    export_format: str
    label: str
    max_difference: float
    allowed: float
    target: str | None
    device_difference: float | None
    foreign_scripts: str | None

    def __repr__(self) -> str:
        where = "here" if self.target is None else f"here and on {self.target}"
        return f"VerificationReport({self.export_format}, verified {where}, {str(self.bundle)!r})"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        device = {"target": self.target, "max_difference": self.device_difference}
        return {
            "bundle": str(self.bundle),
            "format": self.export_format,
            "label": self.label,
            "max_difference": self.max_difference,
            "allowed": self.allowed,
            "foreign_scripts": self.foreign_scripts,
            "device": None if self.target is None else device,
        }


def verify_bundle(path: str | Path, target: Target | None = None) -> VerificationReport:
    """Check that a bundle is intact and computes what it did when it was made.

    Args:
        path: The bundle's folder or .zip.
        target: A device to run the sample on as well, and the number of threads; the runtime is that of the file.

    Raises:
        UsageError: The path is no bundle's; the message says what it is and what to run.
        VerificationError: The bundle breaks a rule; the message names the file and the rule.
        DeviceError: The device cannot be reached.
    """
    path = Path(path)
    _check_is_bundle(path)
    with open_bundle(path) as bundle:
        verified = bundle.verify()
        file_target, device_difference = None, None
        if target is not None:
            check_present(target.profile)
            file_target = target_for(target, verified.export_format)
            if file_target is None:
                name, file_format = target.profile.name, verified.export_format.format
                raise VerificationError(f"{name}: its profile has no runtime for {file_format} files")
            device_difference = _compare_on_device(bundle, verified, file_target)
    return VerificationReport(
        path,
        str(verified.export_format),
        verified.label,
        verified.max_difference,
        verified.allowed,
        None if file_target is None else file_target.name,
        device_difference,
        verified.foreign_scripts,
    )


def _check_is_bundle(path: Path) -> None:
    """Raise UsageError, with what to run, for a path that is no bundle's."""
    if path.is_dir():
        if any((path / name).exists() for name in _MARKS):
            return
        inside = sorted({card.parent for pattern in ("*/card.json", "*/*/card.json") for card in path.glob(pattern)})
        if inside:
            verify = format_command("verify", inside[0])
            raise UsageError(f"{path}: is no bundle but holds {len(inside)}; verify one of them, for example: {verify}")
        raise UsageError(f"{path}: is no bundle and holds none; give {_BUNDLE}, as edgenas export writes it")
    if not path.exists():
        raise UsageError(f"{path}: does not exist; give {_BUNDLE}")
    if runtime_of_suffix(path.suffix.lower()) is not None:
        if (path.parent / "card.json").exists():
            verify = format_command("verify", path.parent)
            raise UsageError(f"{path}: is a model file; verify the bundle that it is of: {verify}")
        measure = format_command("measure", path)
        raise UsageError(f"{path}: is a model file, which says nothing to verify it by; measure it: {measure}")
    if path.suffix != ".zip" and not zipfile.is_zipfile(path):
        raise UsageError(f"{path}: is no bundle; give {_BUNDLE}")


def _compare_on_device(bundle: Bundle, verified: VerifiedBundle, target: Target) -> float:
    """Run the sample on a device; return the largest difference to the recorded logits."""
    interface = verified.interface
    with MeasuringSession(target) as session:
        outputs = session.compute_outputs(bundle.model_path, [to_model_input(interface, verified.sample.images)])
    shape, dtype = (interface.batch or 1, *interface.output.shape[1:]), np.dtype(interface.output.dtype)
    if [(output.shape, output.dtype) for output in outputs] != [(shape, dtype)]:
        raise DeviceError(
            f"{target.profile.name}: answered nonsense (outputs: {bundle.model_path} gives one {dtype} array of"
            f" {'x'.join(map(str, shape))}); try again"
        )
    logits = to_logits(interface, outputs[0])[:1]
    limits = PARITY_LIMITS[verified.export_format.parity_precision]
    try:
        return compare_logits(verified.sample.expected, logits, limits.again).max_difference
    except VerificationError as error:
        raise VerificationError(
            f"{bundle.model_path}: does not give the logits of sample.npz on {target.name} ({error})"
        ) from None


def to_model_input(interface: ModelInterface, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Return images (1, C, H, W) in the batch size, layout and type of the model's input."""
    entry = interface.input
    batch = np.repeat(images, interface.batch or 1, axis=0)
    laid_out = np.ascontiguousarray(np.moveaxis(batch, 1, -1)) if entry.layout == "NHWC" else batch
    return quantize_values(laid_out, _describe_tensor(entry))


def to_logits(interface: ModelInterface, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the model's output as logits (N, classes)."""
    return dequantize_values(values, _describe_tensor(interface.output))


def _describe_tensor(port: TensorSpec) -> dict[str, Any]:
    """Return a port in the form of LiteRT's tensor details."""
    return {"dtype": np.dtype(port.dtype), "quantization": (port.scale or 0.0, port.zero_point or 0)}
