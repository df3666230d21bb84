"""Opening ONNX models in onnxruntime, in silence and on one CPU thread; what is inside them, tensor by tensor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import ModelError, UsageError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Floats = npt.NDArray[np.float32]
_FATAL_ONLY = 4  # onnxruntime's messages arrive as exceptions; it must not print them too


def load_runtime() -> Any:
    """The module onnxruntime, which must not report what it runs: its builds since 1.29 do so by default."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def open_session(
    model: Path | bytes, *, optimise: bool = True, saved: Path | None = None
) -> onnxruntime.InferenceSession:
    """A session of a model on one CPU thread.

    ``optimise=False`` keeps every node as it is. ``saved`` gets the optimised
    model, its convolutions in their usual layout and activations beside them,
    so that names stay. Raises ModelError when the runtime refuses the model.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    rejected = []
    if saved is not None:
        options.optimized_model_filepath = str(saved)
        rejected = ["NchwcTransformer", "NhwcTransformer", "ConvActivationFusion", "ConvAddActivationFusion"]
    source = model if isinstance(model, bytes) else str(model)
    try:
        return runtime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=rejected
        )
    except runtime_errors() as error:
        raise ModelError(f"{where(model)}: onnxruntime refuses it ({one_line(error)})") from None


def where(model: Path | bytes) -> str:
    """How messages call a model: by its path, if it has one."""
    return "the model" if isinstance(model, bytes) else str(model)


def runtime_errors() -> tuple[type[Exception], ...]:
    """onnxruntime's exceptions have no root of their own, and their number varies with its version."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, ValueError, RuntimeError)


def one_line(error: Exception) -> str:
    """An exception's message, shortened, without line breaks."""
    return " ".join(str(error).split())[:200]


def parse_onnx(model: bytes) -> onnx.ModelProto:
    """The model of a file whose every node has a name, one's own or that of its first output.

    Raises ModelError when the bytes are no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        parsed = onnx.load_from_string(model)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"the model: is no ONNX file ({one_line(error)})") from None
    if not parsed.graph.node or not parsed.graph.input:
        raise ModelError("the model: is no ONNX file, or an empty one")
    for node in parsed.graph.node:
        node.name = node.name or node.output[0]
    return parsed


def images_input(session: onnxruntime.InferenceSession, model: Path | bytes) -> Any:
    """The only input of a model's session. Raises ModelError when there are several."""
    entries = session.get_inputs()
    if len(entries) != 1:
        names = ", ".join(repr(entry.name) for entry in entries)
        raise ModelError(f"{where(model)}: must have one input, the images, but has {names or 'none'}")
    return entries[0]


def observe(
    model: onnx.ModelProto, tensors: Iterable[str], images: Floats, *, optimise: bool = False
) -> Iterator[dict[str, Floats]]:
    """The float values of ``tensors`` and of the input, batch by batch; ``optimise`` lets the runtime fuse the others.

    ``images`` (N, C, r, r) go in as many at a time as the model takes, one
    where it takes any number; the last batch is filled up with the first
    images. Raises UsageError when the images do not fit the model.
    """
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {output.name for output in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in known)
    data = watched.SerializeToString()
    session = open_session(data, optimise=optimise)
    entry = images_input(session, data)
    names = [output.name for output in session.get_outputs()]
    for batch in batches(images, entry.shape):
        try:
            values = session.run(None, {entry.name: batch})
        except runtime_errors() as error:
            raise ModelError(f"the model: onnxruntime cannot run it ({one_line(error)})") from None
        yield {entry.name: batch} | {
            name: value.astype(np.float32, copy=False)
            for name, value in zip(names, values, strict=True)
            if value.dtype.kind == "f"
        }


def batches(images: Floats, shape: list[Any]) -> list[Floats]:
    """Images (N, C, r, r) in batches that an input of ``shape`` takes, one image each where any number will do.

    Raises UsageError when they do not fit it.
    """
    fits = len(shape) == images.ndim and all(
        not isinstance(want, int) or want == have for want, have in zip(shape[1:], images.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape[1:]))
        raise UsageError(f"images must have shape (N, {wanted}) for this model, but have {images.shape}")
    size = shape[0] if isinstance(shape[0], int) else 1
    indices = np.arange(-(-len(images) // size) * size) % len(images)
    return [images[part] for part in indices.reshape(-1, size)]
