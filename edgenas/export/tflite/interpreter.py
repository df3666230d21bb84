"""TFLite models in LiteRT's interpreter, on one CPU thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import MissingExtraError, ModelError, UsageError, one_line
from edgenas.export.onnx.session import model_label

Floats = npt.NDArray[np.float32]
_STANDARD_ERROR = 2
_STANDARD_ERROR_LOCK = threading.Lock()


def run_tflite(model: Path | bytes, images: Floats) -> Floats:
    """Run a TFLite model in LiteRT on one CPU thread.

    Args:
        model: the file, or its bytes. A model of fixed batch b runs b images at a time, one of open batch all.
        images: preprocessed images (N, C, H, W). They are transposed for a model that takes (N, H, W, C), and
            quantized for one that takes integers.

    Returns:
        Logits (N, classes), dequantized for a model that gives integers.

    Raises:
        ModelError: when the runtime refuses the model.
        UsageError: when the images do not fit the model.
        MissingExtraError: when LiteRT is not installed.
    """
    return run_interpreter(open_interpreter(model), images, model_label(model))


def run_interpreter(interpreter: Any, images: Floats, label: str = "the model") -> Floats:
    """Run an interpreter of a TFLite model, as ``run_tflite`` does; ``label`` names the model in messages."""
    if images.dtype != np.float32:
        raise UsageError(f"images must be float32, prepared as the model wants them, but are {images.dtype}")
    try:
        source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        inputs = quantize_values(_to_layout(source, images), source)
        declared = int(source["shape_signature"][0])
        batch = len(inputs) if declared == -1 else declared
        if len(inputs) % batch:
            raise UsageError(f"the model takes {batch} images at a time, which {len(inputs)} is no multiple of")
        shape = [batch, *inputs.shape[1:]]
        if list(source["shape"]) != shape:
            interpreter.resize_tensor_input(source["index"], shape)
        with without_standard_error():
            interpreter.allocate_tensors()
        outputs = []
        for start in range(0, len(inputs), batch):
            interpreter.set_tensor(source["index"], inputs[start : start + batch])
            interpreter.invoke()
            outputs.append(dequantize_values(interpreter.get_tensor(result["index"]), result))
        return np.concatenate(outputs)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{label}: LiteRT cannot run it ({one_line(error)})") from None


def open_interpreter(model: Path | bytes, *, observed: bool = False) -> Any:
    """Open LiteRT's interpreter of a model with one input, on one CPU thread.

    Args:
        model: the file, or its bytes.
        observed: keep every tensor readable: LiteRT's own kernels compute each operator, and XNNPACK none.

    Raises:
        ModelError: when the runtime refuses the model, or it has several inputs.
        MissingExtraError: when LiteRT is not installed.
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
        raise ModelError(f"{model_label(model)}: LiteRT refuses it ({one_line(error)})") from None
    inputs = interpreter.get_input_details()
    if len(inputs) != 1:
        names = ", ".join(repr(tensor["name"]) for tensor in inputs)
        raise ModelError(f"{model_label(model)}: must have one input, the images, but has {names or 'none'}")
    return interpreter


@contextmanager
def without_standard_error() -> Iterator[None]:
    """Silence standard error, where XNNPACK's compiled code prints; LiteRT's errors arrive as exceptions."""
    with _STANDARD_ERROR_LOCK:
        original, null = os.dup(_STANDARD_ERROR), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, _STANDARD_ERROR)
            yield
        finally:
            os.dup2(original, _STANDARD_ERROR)
            os.close(original)
            os.close(null)


def _to_layout(tensor: Any, images: Floats) -> Floats:
    """Return the images (N, C, H, W) as they are or as (N, H, W, C), as the input tensor needs them."""
    shape = [int(size) for size in tensor["shape_signature"]][1:]
    if len(images) and images.ndim == len(shape) + 1:
        for candidate in (np.moveaxis(images, 1, -1), images):
            if all(size in (-1, actual) for size, actual in zip(shape, candidate.shape[1:], strict=True)):
                return candidate
    if len(shape) == 3 and shape[-1] < shape[0]:
        shape = [shape[-1], *shape[:-1]]
    raise UsageError(f"images must have shape (N, {', '.join(map(str, shape))}), N above 0, but have {images.shape}")


def quantize_values(values: Floats, tensor: Any) -> npt.NDArray[Any]:
    """Return the nearest values that a tensor can hold, in its type; ``tensor`` is described as by LiteRT."""
    dtype = tensor["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype, copy=False)
    scale, zero_point = tensor["quantization"]
    limits = np.iinfo(dtype)
    integers: npt.NDArray[Any] = np.rint(values / np.float32(scale)) + zero_point
    return integers.clip(limits.min, limits.max).astype(dtype)


def dequantize_values(values: npt.NDArray[Any], tensor: Any) -> Floats:
    """Return the float32 numbers that a tensor's values stand for; ``tensor`` is described as by LiteRT."""
    scale, zero_point = tensor["quantization"]
    if np.issubdtype(values.dtype, np.integer) and scale:
        return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    return values.astype(np.float32, copy=False)
