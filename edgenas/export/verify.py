"""Proof that a model file computes what the network computes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import ModelError, UsageError, VerificationError

if TYPE_CHECKING:
    import onnxruntime

Logits = npt.NDArray[np.floating[Any]]
_FATAL_ONLY = 4  # onnxruntime's messages arrive as exceptions; it must not print them too


@dataclass(frozen=True)
class Agreement:
    """How near two sets of logits are: absolute differences, and the fraction of rows with the same largest entry."""

    max_difference: float
    mean_difference: float
    top1_agreement: float


def run_onnx(model: Path | bytes, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits (N, classes) of prepared images (N, C, H, W), by onnxruntime on one CPU thread.

    A model of fixed batch b is run b images at a time, one of symbolic batch
    once. Raises ModelError when the runtime refuses the model, UsageError when
    the images do not fit it.
    """
    session = _session(model)
    entry = session.get_inputs()[0]
    if images.dtype != np.float32:
        raise UsageError(f"images must be float32, prepared as the model wants them, but are {images.dtype}")
    batch = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else max(1, len(images))
    _check_fit(entry, images, batch)
    batches = (images[start : start + batch] for start in range(0, len(images), batch))
    try:
        return np.concatenate([session.run(None, {entry.name: part})[0] for part in batches])
    except _runtime_errors() as error:
        raise ModelError(f"{_where(model)}: onnxruntime cannot run it ({_one_line(error)})") from None


def _session(model: Path | bytes) -> onnxruntime.InferenceSession:
    # Since 1.29 the Linux builds report every session to their maker; the network is not ours to use.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except _runtime_errors() as error:
        raise ModelError(f"{_where(model)}: onnxruntime refuses it ({_one_line(error)})") from None
    if len(session.get_inputs()) != 1:
        names = ", ".join(repr(entry.name) for entry in session.get_inputs())
        raise ModelError(f"{_where(model)}: must have one input, the images, but has {names or 'none'}")
    return session


def _runtime_errors() -> tuple[type[Exception], ...]:
    """onnxruntime's exceptions have no root of their own, and their number varies with its version."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, ValueError, RuntimeError)


def _where(model: Path | bytes) -> str:
    return "the model" if isinstance(model, bytes) else str(model)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


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
        raise VerificationError(f"onnx's checker refuses the model: {_one_line(error)}") from None


def compare(expected: Logits, found: Logits, tolerance: float) -> Agreement:
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
    return Agreement(float(difference.max()), float(difference.mean()), float(same.mean()))


def accuracy(logits: Logits, labels: npt.NDArray[np.integer[Any]]) -> float:
    """Fraction of rows of ``logits`` (N, classes) whose largest entry is at the label (N,). Raises UsageError."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise UsageError(f"logits (N, classes) need labels (N,), but got {logits.shape} and {labels.shape}")
    return float((logits.argmax(axis=1) == labels).mean())
