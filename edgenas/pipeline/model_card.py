"""The facts of a model card, all of them found by running or counting."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgenas.bundle import Interface, run_model
from edgenas.devices import Target
from edgenas.export import LIMITS, Agreement, ExportFormat, accuracy
from edgenas.export.quantize.calibration import Calibration
from edgenas.export.quantize.layer_errors import LayerError
from edgenas.files import digest
from edgenas.graph import summarise
from edgenas.pipeline.inputs import digest_of_inputs
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.prepared_model import Floats, PreparedModel

_PACKAGES = {
    "onnx": ("edgenas", "torch", "onnx", "onnxruntime", "numpy"),
    "tflite": ("edgenas", "torch", "onnx", "ai-edge-litert", "ai-edge-quantizer", "numpy"),
}
_WORST = 10
_NOT_MEASURED = "not measured"


@dataclass(frozen=True, eq=False)
class File:
    """A model file that was proven: its logits (N, classes) of the proof's images, and what was found in it.

    ``float_layers`` compute in float though the file is int8, None where
    TensorRT will choose; ``layer_errors`` are layers and what they lose against
    float32, those that add most first.
    """

    kind: ExportFormat
    model: bytes
    logits: Floats
    agreement: Agreement
    interface: Interface
    float_layers: tuple[str, ...] | None
    layer_errors: tuple[LayerError, ...]


def inputs_of(prepared: PreparedModel, kind: ExportFormat, target: Target | None) -> str:
    """A digest of everything that a bundle is made from, but for what was measured of its file."""
    return digest_of_inputs(
        digest(prepared.onnx),
        digest(prepared.parity_reference.expected.tobytes()),
        str(kind),
        [prepared.settings.method, list(prepared.keep_float(kind)), prepared.is_for_tensorrt(kind)],
        digest(prepared.calibration.images.tobytes()) if kind.precision == "int8" else None,
        prepared.preprocessing,
        list(prepared.labels),
        [prepared.batch_norm, prepared.parity_reference.source],
        None if target is None else target.to_dict(),
        _versions(kind),
    )


def facts(prepared: PreparedModel, file: File, target: Target | None, current: str) -> dict[str, Any]:
    """The card of a bundle with this file; ``current`` is what it was made from."""
    run, genes = prepared.run, prepared.run.space.encode([prepared.architecture])
    summary = summarise(prepared.onnx)
    return {
        "for": "tensorrt" if prepared.is_for_tensorrt(file.kind) else None,
        "architecture": prepared.architecture.to_dict(),
        "inputs_digest": current,
        "model_sha256": digest(file.model),
        "model_bytes": len(file.model),
        "params": int(run.space.params(genes)[0]),
        "macs": int(run.space.macs(genes)[0]),
        "activation_bytes": summary.activation_bytes,
        "activation_peak_at": summary.peak_at,
        "activation_of": "the float32 graph, its nodes in file order",
        "input": file.interface.input.to_dict(),
        "output": file.interface.output.to_dict(),
        **_of_data(prepared, file),
        "agreement_with_pytorch": _agreement(prepared, file),
        "calibration": _calibration(prepared.calibration) if file.kind.precision == "int8" else None,
        "batch_norm": prepared.batch_norm,
        "keep_float": list(prepared.keep_float(file.kind)),
        "float_layers": None if file.float_layers is None else list(file.float_layers),
        "layer_errors": [asdict(each) for each in file.layer_errors[:_WORST]],
        "target": None if target is None else target.to_dict(),
        "measured": measured(prepared, file.model, target),
        "seed": run.recipe.get("seed"),
        "versions": _versions(file.kind),
    }


def _of_data(prepared: PreparedModel, file: File) -> dict[str, Any]:
    """What the network was trained on, and the share of images that the file itself gets right."""
    run, labels = prepared.run, prepared.parity_reference.labels
    if labels is None:
        return {"data": f"imported from {run.recipe['imported']}", "images": {}, "accuracy": _NOT_MEASURED}
    test = run.data.test
    inputs = run.data.inputs(test.images, prepared.architecture.resolution)
    return {
        "data": run.data.name,
        "images": {"train": len(run.data.train), "validation": len(labels), "test": len(test)},
        "accuracy": {
            "validation": accuracy(file.logits, labels),
            "test": accuracy(run_model(file.model, file.kind.format, inputs), test.labels),
            "validation_in_pytorch": accuracy(prepared.parity_reference.expected, labels),
        },
    }


def _agreement(prepared: PreparedModel, file: File) -> dict[str, Any]:
    return {
        "images": len(file.logits),
        "on": prepared.parity_reference.source,
        "max_difference": file.agreement.max_difference,
        "mean_difference": file.agreement.mean_difference,
        "relative_error": file.agreement.relative_error,
        "top1": file.agreement.top1_agreement,
        "limits": asdict(LIMITS[file.kind.precision]),
    }


def _calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "images": len(calibration.images),
        "source": calibration.source,
        "method": calibration.method,
        "seed": calibration.seed,
    }


def _versions(kind: ExportFormat) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES[kind.format]:
        with suppress(PackageNotFoundError):  # not every kind needs them all
            found[package] = version(package)
    return found


def measured(prepared: PreparedModel, model: bytes, target: Target | None) -> dict[str, Any] | None:
    """What the run has recorded of a file on a target, with its conditions; None where it was not measured."""
    if target is None:
        return None
    store = MeasurementStore(prepared.run.layout.measurements(target.name), target, SETTINGS)
    rounds = store.reliable_result(model)
    if rounds is None:
        return None
    first, last = rounds.measurements[0], rounds.measurements[-1]
    return {
        "median_ms": rounds.median_ms,
        "interval_95_ms": list(rounds.interval_ms),
        "processes": len(rounds.measurements),
        "runs": sum(len(each.samples_ms) for each in rounds.measurements),
        "peak_bytes": rounds.peak_bytes,
        "device": dict(first.facts),
        "runtime": dict(first.versions),
        "conditions_before": dict(first.conditions_before),
        "conditions_after": dict(last.conditions_after),
        "validity": str(rounds.validity),
        "synthetic": rounds.synthetic,
    }
