"""Proving a bundle again: here, in its file's own runtime, and on a device. Needs neither torch nor a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.bundle import Bundle, ModelInterface, TensorSpec, VerifiedBundle, open_bundle
from edgenas.devices import Target, check_present
from edgenas.errors import VerificationError
from edgenas.export import PARITY_LIMITS, compare_logits
from edgenas.export.tflite.interpreter import dequantize_values, quantize_values
from edgenas.pipeline.export_formats import target_for
from edgenas.profilers.measure.outputs import run_on_device


@dataclass(frozen=True)
class Report:
    """What was proven of a bundle. ``on_device`` is the largest difference found there, None where not asked for.

    ``foreign_scripts`` is the edgenas that the bundle says to be of, where its
    scripts differ from this one's and so were not proven.
    """

    bundle: Path
    kind: str
    label: str
    max_difference: float
    allowed: float
    target: str | None
    on_device: float | None
    foreign_scripts: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "bundle": str(self.bundle),
            "kind": self.kind,
            "label": self.label,
            "max_difference": self.max_difference,
            "allowed": self.allowed,
            "foreign_scripts": self.foreign_scripts,
            "device": None if self.target is None else {"target": self.target, "max_difference": self.on_device},
        }


def verify(path: Path, target: Target | None = None) -> Report:
    """Check a bundle, a folder or a .zip, and run its sample here and on the target's device.

    The target says which device and how many threads; the runtime is that of
    the bundle's file. Raises VerificationError, naming the file and the rule,
    and what ``run_on_device`` raises.
    """
    if not path.exists():
        raise VerificationError(f"{path}: does not exist; give a bundle's folder or .zip")
    with open_bundle(path) as bundle:
        found = bundle.verify()
        there, difference = None, None
        if target is not None:
            check_present(target.profile)
            there = _target_for(found, target)
            difference = _on_device(bundle, found, there)
    return Report(
        path,
        str(found.export_format),
        found.label,
        found.max_difference,
        found.allowed,
        None if there is None else there.name,
        difference,
        found.foreign_scripts,
    )


def _target_for(found: VerifiedBundle, target: Target) -> Target:
    there = target_for(target, found.export_format)
    if there is None:
        raise VerificationError(
            f"{target.profile.name}: its profile has no runtime for {found.export_format.format} files"
        )
    return there


def _on_device(bundle: Bundle, found: VerifiedBundle, target: Target) -> float:
    """The largest difference between the sample's logits and those that the device gives."""
    outputs = run_on_device(bundle.model, [model_input(found.interface, found.sample.images)], target)
    logits = model_output(found.interface, outputs[0])[:1]
    limits = PARITY_LIMITS[found.export_format.precision]
    try:
        return compare_logits(found.sample.expected, logits, limits.again).max_difference
    except VerificationError as error:
        raise VerificationError(
            f"{bundle.model}: does not give the logits of sample.npz on {target.name} ({error})"
        ) from None


def model_input(interface: ModelInterface, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Images (1, C, H, W) as the model takes them: its batch, its layout, its type."""
    entry = interface.input
    batch = np.repeat(images, interface.batch or 1, axis=0)
    laid = np.ascontiguousarray(np.moveaxis(batch, 1, -1)) if entry.layout == "NHWC" else batch
    return quantize_values(laid, _tensor(entry))


def model_output(interface: ModelInterface, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """What the model gives as logits (N, classes)."""
    return dequantize_values(values, _tensor(interface.output))


def _tensor(port: TensorSpec) -> dict[str, Any]:
    """A port as LiteRT describes it."""
    return {"dtype": np.dtype(port.dtype), "quantization": (port.scale or 0.0, port.zero_point or 0)}
