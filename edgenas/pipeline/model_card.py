"""The facts of a bundle's model card, found by running or counting."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgenas.devices import Target
from edgenas.export import PARITY_LIMITS, ParityResult, top1_accuracy
from edgenas.export.quantize.calibration import Calibration
from edgenas.export.quantize.layer_errors import LayerError
from edgenas.files import digest_of_inputs, sha256_hex
from edgenas.pipeline.file_accuracy import accuracy_on_test_images
from edgenas.pipeline.finetuned import FinetunedSubnet
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.prepared_model import Floats, PreparedModel
from edgenas.runtimes import ExportFormat, ModelInterface

_WORST = 10
_NOT_MEASURED = "not measured"


@dataclass(frozen=True, eq=False)
class VerifiedFile:
    """A model file that agrees with PyTorch, and what was found in it.

    ``logits`` (N, classes) are of the inputs of the parity reference.
    ``float_layers`` compute in float although the file is int8; None where
    the provider that it is made for, TensorRT, will choose them. ``layer_errors``: what each layer loses against
    float32, those that add most first.
    """

    export_format: ExportFormat
    model: bytes
    logits: Floats
    agreement: ParityResult
    interface: ModelInterface
    float_layers: tuple[str, ...] | None
    layer_errors: tuple[LayerError, ...]


def bundle_digest(prepared: PreparedModel, export_format: ExportFormat, target: Target | None) -> str:
    """Return a digest of a bundle's inputs, except for what was measured of its file."""
    return digest_of_inputs(
        sha256_hex(prepared.source.onnx),
        sha256_hex(prepared.parity_reference.expected.tobytes()),
        str(export_format.stored),
        [
            prepared.settings.method,
            list(prepared.float_places(export_format)),
            export_format.details.made_for is not None,
        ],
        sha256_hex(prepared.calibration.images.tobytes()) if export_format.is_calibrated else None,
        prepared.preprocessing,
        list(prepared.source.labels),
        [prepared.batch_norm, prepared.parity_reference.source],
        None if target is None else target.to_dict(),
        _list_versions(export_format),
        *([] if prepared.finetuned is None else [asdict(prepared.finetuned)]),
        *([] if (origin := _describe_origin(prepared.workspace.recipe)) is None else [origin]),
    )


def describe_bundle(
    prepared: PreparedModel, file: VerifiedFile, target: Target | None, inputs_digest: str
) -> dict[str, Any]:
    """Return the card of a bundle with this file."""
    workspace, genes = prepared.workspace, prepared.workspace.space.encode([prepared.architecture])
    return {
        "for": file.export_format.details.made_for,
        "architecture": prepared.architecture.to_dict(),
        "inputs_digest": inputs_digest,
        "model_sha256": sha256_hex(file.model),
        "model_bytes": len(file.model),
        "params": int(workspace.space.params(genes)[0]),
        "macs": int(workspace.space.macs(genes)[0]),
        "activation_bytes": prepared.graph.activation_bytes,
        "activation_peak_at": prepared.graph.peak_at,
        "activation_of": "the float32 graph, its nodes in file order",
        "input": file.interface.input.to_dict(),
        "output": file.interface.output.to_dict(),
        "origin": _describe_origin(workspace.recipe),
        **_describe_accuracy(prepared, file),
        "finetuned": None if prepared.finetuned is None else _describe_finetuning(prepared.finetuned),
        "agreement_with_pytorch": _describe_agreement(prepared, file),
        "calibration": _describe_calibration(prepared.calibration) if file.export_format.is_calibrated else None,
        "batch_norm": prepared.batch_norm,
        "keep_float": list(prepared.float_places(file.export_format)),
        "float_layers": None if file.float_layers is None else list(file.float_layers),
        "layer_errors": [asdict(each) for each in file.layer_errors[:_WORST]],
        "target": None if target is None else target.to_dict(),
        "measured": describe_measurement(prepared, file.model, target),
        "seed": workspace.recipe.get("seed"),
        "versions": _list_versions(file.export_format),
    }


def _describe_origin(recipe: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the weights that were imported, or that training began with; None for random ones."""
    if "imported" in recipe:
        return {"imported": recipe["imported"], "sha256": recipe["sha256"]}
    initial = recipe.get("initial")
    return None if initial is None else {"initial": initial["name"], "sha256": initial["sha256"]}


def _describe_accuracy(prepared: PreparedModel, file: VerifiedFile) -> dict[str, Any]:
    """Return the run's data set, if it has one, and the accuracy of the file itself."""
    workspace, labels = prepared.workspace, prepared.parity_reference.labels
    if labels is None:
        return {"data": f"imported from {workspace.recipe['imported']}", "images": {}, "accuracy": _NOT_MEASURED}
    data = workspace.data
    return {
        "data": data.name,
        "images": {"train": len(data.train), "validation": len(labels), "test": len(data.test)},
        "accuracy": {
            "validation": top1_accuracy(file.logits, labels),
            "test": accuracy_on_test_images(prepared, file.export_format, file.model),
            "validation_in_pytorch": top1_accuracy(prepared.parity_reference.expected, labels),
        },
    }


def _describe_finetuning(finetuned: FinetunedSubnet) -> dict[str, Any]:
    """Return how the weights were trained, and the validation accuracy before (inherited weights) and after."""
    described = asdict(finetuned)
    return {key: value for key, value in described.items() if key not in ("architecture", "data")}


def _describe_agreement(prepared: PreparedModel, file: VerifiedFile) -> dict[str, Any]:
    return {
        "images": len(file.logits),
        "on": prepared.parity_reference.source,
        "max_difference": file.agreement.max_difference,
        "mean_difference": file.agreement.mean_difference,
        "relative_error": file.agreement.relative_error,
        "top1": file.agreement.top1_agreement,
        "limits": asdict(PARITY_LIMITS[file.export_format.parity_precision]),
    }


def _describe_calibration(calibration: Calibration) -> dict[str, Any]:
    return {
        "images": len(calibration.images),
        "source": calibration.source,
        "method": calibration.method,
        "seed": calibration.seed,
    }


def _list_versions(export_format: ExportFormat) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in export_format.runtime.card_packages:
        with suppress(PackageNotFoundError):  # not every format needs all of them
            found[package] = version(package)
    return found


def describe_measurement(prepared: PreparedModel, model: bytes, target: Target | None) -> dict[str, Any] | None:
    """Return what the run recorded of a file on a target, with its conditions; None where it was not measured."""
    if target is None:
        return None
    log = prepared.workspace.measurement_log(target)
    result = MeasurementStore(log, target, SETTINGS).reliable_result(model)
    if result is None:
        return None
    first, last = result.measurements[0], result.measurements[-1]
    return {
        "median_ms": result.median_ms,
        "interval_95_ms": list(result.interval_ms),
        "processes": len(result.measurements),
        "runs": sum(len(each.samples_ms) for each in result.measurements),
        "peak_bytes": result.peak_bytes,
        "device": dict(first.facts),
        "runtime": dict(first.versions),
        "conditions_before": dict(first.conditions_before),
        "conditions_after": dict(last.conditions_after),
        "validity": str(result.validity),
        "synthetic": result.synthetic,
    }
