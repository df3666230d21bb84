"""The step that exports a subnet as a verified bundle."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.devices import Target
from edgenas.errors import FormatError, UsageError, VerificationError
from edgenas.export import Agreement, Bundle, accuracy, build_onnx, check_onnx, compare, run_onnx, write_bundle
from edgenas.files import digest
from edgenas.ofa import Subnet
from edgenas.pipeline.measurements import SETTINGS, Measurer
from edgenas.profilers import Rounds
from edgenas.space import Architecture

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

# Float32 sums in another order; the largest difference, relative to max(1, the largest logit).
TOLERANCE = 1e-4
_PACKAGES = ("edgenas", "torch", "onnx", "onnxruntime", "numpy")


def build_model(architecture: Architecture, subnet: Subnet) -> bytes:
    """The ONNX file of a calibrated subnet; the same subnet gives the same bytes."""
    return build_onnx(architecture, subnet.weights())


def export(run: Run, architecture: Architecture, target: Target, out: Path) -> Bundle:
    """Build the file, check it against PyTorch on all validation images, count its test accuracy, write the bundle.

    Does nothing when ``out`` already holds this bundle. Raises UsageError for
    an architecture of another space and VerificationError when a check fails.
    """
    if architecture.space != run.space:
        raise UsageError(f"{architecture} is no architecture of this run's space ({run.space.short_hash})")
    subnet = run.evaluator.subnet(architecture)
    model = build_model(architecture, subnet)
    check_onnx(model)
    validation = run.data.inputs(run.data.validation.images, architecture.resolution)
    expected = run.evaluator.logits(subnet, run.data.validation.images, architecture.resolution)
    agreement = compare(expected, run_onnx(model, validation), TOLERANCE)
    measurer = Measurer(run.layout.measurements(target.name), target, SETTINGS)
    card = _card(run, architecture, target, model, agreement, measurer.recorded(model))
    if _is_there(out, card):
        run.progress.say(f"export    already done ({out})")
        return Bundle(out)
    with run.layout.writing():
        bundle = write_bundle(
            out,
            model=model,
            preprocessing=run.data.preprocessing.to_dict(architecture.resolution),
            labels=run.data.labels,
            sample_image=run.data.validation.images[0],
            sample_input=validation[:1],
            expected=expected[:1],
            card=card,
        )
    run.progress.say(f"export    {out}")
    return bundle


def _is_there(out: Path, card: dict[str, Any]) -> bool:
    """Whether a whole bundle with this card lies at ``out``."""
    bundle = Bundle(out)
    try:
        if not (out / "card.json").exists() or bundle.card != card:
            return False
        bundle.verify()
    except (FormatError, VerificationError):
        return False  # damaged: written anew
    return True


def _card(
    run: Run,
    architecture: Architecture,
    target: Target,
    model: bytes,
    agreement: Agreement,
    rounds: Rounds | None,
) -> dict[str, Any]:
    """The facts of the model card, all of them found by running or counting."""
    genes = run.space.encode([architecture])
    splits = {"validation": run.data.validation, "test": run.data.test}
    logits = {
        name: run_onnx(model, run.data.inputs(split.images, architecture.resolution)) for name, split in splits.items()
    }
    return {
        "architecture": architecture.to_dict(),
        "model_sha256": digest(model),
        "model_bytes": len(model),
        "params": int(run.space.params(genes)[0]),
        "macs": int(run.space.macs(genes)[0]),
        "activation_bytes": int(run.space.activation_bytes(genes)[0]),
        "data": run.data.name,
        "images": {name: len(split) for name, split in {"train": run.data.train, **splits}.items()},
        "accuracy": {name: accuracy(logits[name], split.labels) for name, split in splits.items()},
        "agreement_with_pytorch": {
            "images": len(run.data.validation),
            "max_difference": agreement.max_difference,
            "mean_difference": agreement.mean_difference,
            "top1": agreement.top1_agreement,
        },
        "target": target.to_dict(),
        "measured": None if rounds is None else _measured(rounds),
        "seed": run.recipe["seed"],
        "versions": {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}},
    }


def _measured(rounds: Rounds) -> dict[str, Any]:
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
        "verdict": rounds.verdict,
        "synthetic": rounds.synthetic,
    }
