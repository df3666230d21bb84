"""Proof that a model file computes what the network computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import ModelError, UsageError, VerificationError
from edgenas.export.onnx.session import images_input, one_line, open_session, runtime_errors, where

Logits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ParityResult:
    """How near two sets of logits are: absolute differences, and the fraction of rows with the same largest entry.

    ``relative_error`` is the root mean square of the differences over that of the expected logits.
    """

    max_difference: float
    mean_difference: float
    top1_agreement: float
    relative_error: float


@dataclass(frozen=True)
class ParityLimits:
    """What a precision may lose. Differences of logits are relative to max(1, the largest logit).

    ``largest`` bounds the largest difference to the network in float32,
    ``relative_error`` the root mean square, ``top1`` is the least share of real
    images with the same class; ``again`` bounds how far the same file may be
    from itself on another processor.
    """

    largest: float
    relative_error: float
    top1: float
    again: float


# On four digit networks float16 lost up to 0.0018 and 0.0015 (largest, on average), dynamic 0.04 and 0.03, int8 0.11
# and 0.055; another runtime's kernels gave up to 0.026 (dynamic) and 0.07 (int8) for the same file. The top-1 agreement
# decides; the limits on logits only tell a network that lost precision from one that is broken.
PARITY_LIMITS = {
    "fp32": ParityLimits(largest=1e-4, relative_error=1e-4, top1=0.98, again=1e-4),
    "fp16": ParityLimits(largest=0.05, relative_error=0.05, top1=0.98, again=0.01),
    "dynamic": ParityLimits(largest=0.3, relative_error=0.1, top1=0.98, again=0.1),
    "int8": ParityLimits(largest=0.5, relative_error=0.25, top1=0.98, again=0.15),
}


def run_onnx(model: Path | bytes, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits (N, classes) of prepared images (N, C, H, W), by onnxruntime on one CPU thread.

    A model of fixed batch b is run b images at a time, one of symbolic batch
    once. Raises ModelError when the runtime refuses the model, UsageError when
    the images do not fit it.
    """
    session = open_session(model)
    entry = images_input(session, model)
    if images.dtype != np.float32:
        raise UsageError(f"images must be float32, prepared as the model wants them, but are {images.dtype}")
    batch = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else max(1, len(images))
    _check_fit(entry, images, batch)
    batches = (images[start : start + batch] for start in range(0, len(images), batch))
    try:
        return np.concatenate([session.run(None, {entry.name: part})[0] for part in batches])
    except runtime_errors() as error:
        raise ModelError(f"{where(model)}: onnxruntime cannot run it ({one_line(error)})") from None


def _check_fit(entry: Any, images: npt.NDArray[np.float32], batch: int) -> None:
    wanted = entry.shape[1:]
    fits = len(images.shape) == len(entry.shape) and all(
        not isinstance(want, int) or want == have for want, have in zip(wanted, images.shape[1:], strict=True)
    )
    if not fits or not len(images):
        raise UsageError(
            f"images must have shape (N, {', '.join(map(str, wanted))}), N above 0, but have {images.shape}"
        )
    if len(images) % batch:
        raise UsageError(f"the model takes {batch} images at a time, which {len(images)} is no multiple of")


def check_onnx(model: bytes) -> None:
    """Full check by onnx's own checker, shapes included. Raises VerificationError with its reason."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise VerificationError(f"onnx's checker refuses the model: {one_line(error)}") from None


def compare_logits(expected: Logits, found: Logits, tolerance: float) -> ParityResult:
    """How near the logits ``found`` are to those ``expected``, both (N, classes).

    Raises VerificationError when shapes differ, a value is not finite, or the
    largest difference is above ``tolerance`` times the largest expected
    magnitude (at least 1).
    """
    if expected.shape != found.shape or expected.ndim != 2 or not expected.size:
        raise VerificationError(
            f"logits must have the same shape (N, classes), but got {expected.shape} and {found.shape}"
        )
    for name, logits in (("expected", expected), ("found", found)):
        if not np.isfinite(logits).all():
            raise VerificationError(f"the {name} logits hold NaN or infinity")
    difference = np.abs(expected.astype(np.float64) - found)
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    if difference.max() > limit:
        raise VerificationError(f"logits differ by up to {difference.max():.3g}, but at most {limit:.3g} is allowed")
    same = expected.argmax(axis=1) == found.argmax(axis=1)
    size = float(np.sqrt((expected.astype(np.float64) ** 2).mean()))
    error = float(np.sqrt((difference**2).mean()))
    return ParityResult(
        float(difference.max()), float(difference.mean()), float(same.mean()), error / size if size else error
    )


def check_parity(expected: Logits, found: Logits, precision: str, *, real: bool = True) -> ParityResult:
    """As ``compare_logits``, with everything that ``PARITY_LIMITS`` asks of a precision.

    ``real`` says that the logits are of real images; on noise a network is
    undecided, and its class is not compared. Raises VerificationError.
    """
    limits = PARITY_LIMITS[precision]
    agreement = compare_logits(expected, found, limits.largest)
    if agreement.relative_error > limits.relative_error:
        raise VerificationError(
            f"logits are off by {agreement.relative_error:.1%} on average, but {precision} may lose at most"
            f" {limits.relative_error:.1%}"
        )
    if real and agreement.top1_agreement < limits.top1:
        raise VerificationError(
            f"{agreement.top1_agreement:.1%} of {len(expected)} images keep their class,"
            f" but at least {limits.top1:.0%} must"
        )
    return agreement


def top1_accuracy(logits: Logits, labels: npt.NDArray[np.integer[Any]]) -> float:
    """Fraction of rows of ``logits`` (N, classes) whose largest entry is at the label (N,). Raises UsageError."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise UsageError(f"logits (N, classes) need labels (N,), but got {logits.shape} and {labels.shape}")
    return float((logits.argmax(axis=1) == labels).mean())
