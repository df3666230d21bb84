"""Parity: a model file computes what the network computes, within the limits of its precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import ModelError, UsageError, VerificationError, one_line
from edgenas.export.onnx.session import check_shape, images_input, model_label, open_session, runtime_errors

if TYPE_CHECKING:
    import onnxruntime

Floats = npt.NDArray[np.float32]
Logits = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ParityResult:
    """The differences between two sets of logits (N, classes).

    Attributes:
        max_difference: largest absolute difference.
        mean_difference: mean absolute difference.
        top1_agreement: fraction of rows with the same largest entry.
        relative_error: root mean square of the differences over that of the expected logits.
    """

    max_difference: float
    mean_difference: float
    top1_agreement: float
    relative_error: float


@dataclass(frozen=True)
class ParityLimits:
    """The loss that a precision is allowed. Differences are relative to max(1, the largest expected logit).

    Attributes:
        largest: largest difference to the network in float32.
        relative_error: largest root mean square of the differences.
        top1: smallest share of real images that must keep their class.
        again: largest difference of the same file to itself on another processor.
    """

    largest: float
    relative_error: float
    top1: float
    again: float


# On four networks of the digits float16 lost up to 0.0018 (largest) and 0.0015 (relative error), dynamic 0.04 and 0.03,
# int8 0.11 and 0.055. Another runtime's kernels gave up to 0.026 (dynamic) and 0.07 (int8) for the same file. The share
# of equal classes decides; the limits on logits only tell a network that lost precision from a broken one. In int8,
# images near a boundary change their class at equal accuracy: files of a network that is right for 92% kept 94% to 98%.
# So its limit only tells a broken file, too; choosing bounds the accuracy that a file may lose.
PARITY_LIMITS = {
    "fp32": ParityLimits(largest=1e-4, relative_error=1e-4, top1=0.98, again=1e-4),
    "fp16": ParityLimits(largest=0.05, relative_error=0.05, top1=0.98, again=0.01),
    "dynamic": ParityLimits(largest=0.3, relative_error=0.1, top1=0.98, again=0.1),
    "int8": ParityLimits(largest=0.5, relative_error=0.25, top1=0.9, again=0.15),
}


def run_onnx(model: Path | bytes, images: Floats) -> Floats:
    """Run an ONNX model in onnxruntime on one CPU thread.

    Args:
        model: the file, or its bytes. A model of fixed batch b runs b images at a time, one of open batch all.
        images: preprocessed images (N, C, H, W).

    Returns:
        Logits (N, classes).

    Raises:
        ModelError: when the runtime refuses the model.
        UsageError: when the images do not fit the model.
    """
    return run_session(open_session(model), images, model_label(model))


def run_session(session: onnxruntime.InferenceSession, images: Floats, label: str = "the model") -> Floats:
    """Run a session of an ONNX model, as ``run_onnx`` does; ``label`` names the model in messages."""
    info = images_input(session, label)
    if images.dtype != np.float32:
        raise UsageError(f"images must be float32, prepared as the model wants them, but are {images.dtype}")
    check_shape(images, info.shape)
    batch = info.shape[0] if isinstance(info.shape[0], int) else len(images)
    if len(images) % batch:
        raise UsageError(f"the model takes {batch} images at a time, which {len(images)} is no multiple of")
    parts = (images[start : start + batch] for start in range(0, len(images), batch))
    try:
        return np.concatenate([session.run(None, {info.name: part})[0] for part in parts])
    except runtime_errors() as error:
        raise ModelError(f"{label}: onnxruntime cannot run it ({one_line(error)})") from None


def check_onnx(model: bytes) -> None:
    """Check a model, shapes included, by onnx's own checker. Raise VerificationError with its reason."""
    import onnx

    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise VerificationError(f"onnx's checker refuses the model: {one_line(error)}") from None


def compare_logits(expected: Logits, actual: Logits, tolerance: float) -> ParityResult:
    """Compare two sets of logits (N, classes).

    Args:
        expected: logits of the reference.
        actual: logits under test.
        tolerance: largest allowed difference, relative to max(1, the largest expected logit).

    Raises:
        VerificationError: when shapes differ, a value is not finite or a difference is too large.
    """
    if expected.shape != actual.shape or expected.ndim != 2 or not expected.size:
        raise VerificationError(
            f"logits must have the same shape (N, classes), but got {expected.shape} and {actual.shape}"
        )
    for name, logits in (("expected", expected), ("found", actual)):
        if not np.isfinite(logits).all():
            raise VerificationError(f"the {name} logits hold NaN or infinity")
    difference = np.abs(expected.astype(np.float64) - actual)
    limit = tolerance * max(1.0, float(np.abs(expected).max()))
    if difference.max() > limit:
        raise VerificationError(f"logits differ by up to {difference.max():.3g}, but at most {limit:.3g} is allowed")
    same_class = expected.argmax(axis=1) == actual.argmax(axis=1)
    magnitude = float(np.sqrt((expected.astype(np.float64) ** 2).mean()))
    error = float(np.sqrt((difference**2).mean()))
    return ParityResult(
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        top1_agreement=float(same_class.mean()),
        relative_error=error / magnitude if magnitude else error,
    )


def check_parity(expected: Logits, actual: Logits, precision: str, *, real: bool = True) -> ParityResult:
    """Compare logits (N, classes) of a file and of the network in float32 by ``PARITY_LIMITS``.

    Args:
        expected: logits of the network.
        actual: logits of the file.
        precision: precision of the file.
        real: True for logits of real images. On noise a network is undecided, and its class is not compared.

    Raises:
        VerificationError: naming the limit that is exceeded.
    """
    limits = PARITY_LIMITS[precision]
    parity = compare_logits(expected, actual, limits.largest)
    if parity.relative_error > limits.relative_error:
        raise VerificationError(
            f"logits are off by {parity.relative_error:.1%} on average, but {precision} may lose at most"
            f" {limits.relative_error:.1%}"
        )
    if real and parity.top1_agreement < limits.top1:
        raise VerificationError(
            f"{parity.top1_agreement:.1%} of {len(expected)} images keep their class,"
            f" but at least {limits.top1:.0%} must"
        )
    return parity


def top1_accuracy(logits: Logits, labels: npt.NDArray[np.integer[Any]]) -> float:
    """Return the fraction of rows of ``logits`` (N, classes) whose largest entry is at the label (N,).

    Raises:
        UsageError: when there are no rows, or not one label for each.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise UsageError(f"logits (N, classes) need labels (N,), but got {logits.shape} and {labels.shape}")
    return float((logits.argmax(axis=1) == labels).mean())
