"""Running TFLite files by LiteRT's interpreter."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import MissingExtraError, ModelError, UsageError

Floats = npt.NDArray[np.float32]
_STANDARD_ERROR = 2
_STANDARD_ERROR_LOCK = threading.Lock()


def run_tflite(model: Path | bytes, images: Floats) -> Floats:
    """Logits (N, classes) of prepared images (N, C, H, W), by LiteRT on one CPU thread.

    The images are transposed for a model that wants (N, H, W, C), quantised
    for one that takes integers, and its integers become numbers again. A model
    of fixed batch b is run b images at a time, one of any batch once. Raises
    ModelError when the runtime refuses the model, UsageError when the images
    do not fit it, and MissingExtraError where LiteRT is not installed.
    """
    if images.dtype != np.float32:
        raise UsageError(f"images must be float32, prepared as the model wants them, but are {images.dtype}")
    interpreter = open_interpreter(model)
    try:
        entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        fitted = quantize_values(_in_layout_of(entry, images), entry)
        batch = _batch(entry, fitted)
        shape = [batch, *fitted.shape[1:]]
        if list(entry["shape"]) != shape:
            interpreter.resize_tensor_input(entry["index"], shape)
        _allocate(interpreter)
        batches = (fitted[start : start + batch] for start in range(0, len(fitted), batch))
        return np.concatenate([_run(interpreter, entry, result, part) for part in batches])
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{_where(model)}: LiteRT cannot run it ({_one_line(error)})") from None


def open_interpreter(model: Path | bytes, *, observed: bool = False) -> Any:
    """LiteRT's interpreter of a model with one input, on one CPU thread.

    ``observed`` keeps every tensor readable, computed operator by operator and
    not by XNNPACK. Raises as ``run_tflite`` does.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise MissingExtraError(
            f"TFLite files need LiteRT, which cannot be imported ({error}); pip install 'edgenas[litert]'"
        ) from None
    options: dict[str, Any] = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    if observed:
        options["experimental_preserve_all_tensors"] = True
        options["experimental_op_resolver_type"] = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = Interpreter(num_threads=1, **options)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{_where(model)}: LiteRT refuses it ({_one_line(error)})") from None
    entries = interpreter.get_input_details()
    if len(entries) != 1:
        names = ", ".join(repr(entry["name"]) for entry in entries)
        raise ModelError(f"{_where(model)}: must have one input, the images, but has {names or 'none'}")
    return interpreter


def _allocate(interpreter: Any) -> None:
    with without_standard_error():
        interpreter.allocate_tensors()


@contextmanager
def without_standard_error() -> Iterator[None]:
    """XNNPACK greets there from compiled code; LiteRT's errors arrive as exceptions."""
    with _STANDARD_ERROR_LOCK:
        kept, null = os.dup(_STANDARD_ERROR), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, _STANDARD_ERROR)
            yield
        finally:
            os.dup2(kept, _STANDARD_ERROR)
            os.close(kept)
            os.close(null)


def _in_layout_of(entry: Any, images: Floats) -> Floats:
    """The images (N, C, H, W), or the same as (N, H, W, C), whichever the model's input wants."""
    wanted = [int(size) for size in entry["shape_signature"]][1:]
    if len(images) and images.ndim == len(wanted) + 1:
        for fitted in (np.moveaxis(images, 1, -1), images):
            if all(want in (-1, have) for want, have in zip(wanted, fitted.shape[1:], strict=True)):
                return fitted
    if len(wanted) == 3 and wanted[-1] < wanted[0]:
        wanted = [wanted[-1], *wanted[:-1]]
    raise UsageError(f"images must have shape (N, {', '.join(map(str, wanted))}), N above 0, but have {images.shape}")


def _batch(entry: Any, images: npt.NDArray[Any]) -> int:
    declared = int(entry["shape_signature"][0])
    batch = len(images) if declared == -1 else declared
    if len(images) % batch:
        raise UsageError(f"the model takes {batch} images at a time, which {len(images)} is no multiple of")
    return batch


def quantize_values(values: Floats, tensor: Any) -> npt.NDArray[Any]:
    """Integers that stand for the values in an integer tensor, the nearest that it can hold."""
    kind = tensor["dtype"]
    if not np.issubdtype(kind, np.integer):
        return values.astype(kind, copy=False)
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(kind)
    steps: npt.NDArray[Any] = np.rint(values / np.float32(scale)) + zero_point
    return steps.clip(limits.min, limits.max).astype(kind)


def _run(interpreter: Any, entry: Any, result: Any, images: npt.NDArray[Any]) -> Floats:
    interpreter.set_tensor(entry["index"], images)
    interpreter.invoke()
    return dequantize_values(interpreter.get_tensor(result["index"]), result)


def dequantize_values(values: npt.NDArray[Any], tensor: Any) -> Floats:
    """What the values of a tensor stand for."""
    scale, zero_point = tensor["quantization"]
    if np.issubdtype(values.dtype, np.integer) and scale:
        return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    return values.astype(np.float32, copy=False)


def _where(model: Path | bytes) -> str:
    return "the model" if isinstance(model, bytes) else str(model)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
