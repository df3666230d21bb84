"""ONNX files in memory, and in onnxruntime, silent and on one CPU thread: sessions, and the values of inner tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import ModelError, UsageError, one_line
from edgenas.export.model_file import ModelFile

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Floats = npt.NDArray[np.float32]
_FATAL_ONLY = 4  # onnxruntime raises its messages as exceptions and need not print them too


class OnnxFile(ModelFile):
    """An ONNX file; final. Copy ``proto`` before changing it."""

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The parsed model, with each nameless node named after its first output.

        Raises:
            ModelError: when the bytes are no ONNX file, or an empty one.
        """
        import onnx
        from google.protobuf.message import DecodeError

        try:
            proto = onnx.load_model_from_string(self)
        except (DecodeError, ValueError):
            proto = onnx.ModelProto()
        if not proto.graph.node or not proto.graph.input:
            raise ModelError("the model is damaged or no ONNX file; export it again")
        for node in proto.graph.node:
            node.name = node.name or node.output[0]
        return proto

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The session that computes its logits. Raises what ``open_session`` raises."""
        return open_session(self.plain)


def load_runtime() -> Any:
    """Return the module onnxruntime with telemetry switched off: builds since 1.29 have it on by default."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def open_session(
    model: Path | bytes, *, optimise: bool = True, save_optimised: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open a session of a model on one CPU thread.

    Args:
        model: the file, or its bytes.
        optimise: False keeps every node as it is.
        save_optimised: path that the optimised model is written to. Convolutions then keep their layout and stay
            apart from activations, so that nodes keep their names.

    Raises:
        ModelError: when the runtime refuses the model.
    """
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    disabled = []
    if save_optimised is not None:
        options.optimized_model_filepath = str(save_optimised)
        disabled = ["NchwcTransformer", "NhwcTransformer", "ConvActivationFusion", "ConvAddActivationFusion"]
    source = model if isinstance(model, bytes) else str(model)
    try:
        return runtime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
    except runtime_errors() as error:
        raise ModelError(f"{model_label(model)}: onnxruntime refuses it ({one_line(error)})") from None


def model_label(model: Path | bytes) -> str:
    """Return the name of a model in messages: its path, if it has one."""
    return "the model" if isinstance(model, bytes) else str(model)


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return all exceptions of onnxruntime, which have no common base and differ from version to version."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [item for item in vars(state).values() if isinstance(item, type) and issubclass(item, Exception)]
    return (*own, ValueError, RuntimeError)


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model, which may be changed."""
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def input_shape(model: onnx.ModelProto) -> list[int | str]:
    """Return the shape of a model's only input; open sizes are names. Raise ModelError when it has several inputs."""
    stored = {tensor.name for tensor in model.graph.initializer}
    info = _only_input([info for info in model.graph.input if info.name not in stored], "the model")
    return [size.dim_value or size.dim_param for size in info.type.tensor_type.shape.dim]


def images_input(session: onnxruntime.InferenceSession, label: str) -> Any:
    """Return the description of a session's only input. Raise ModelError, naming the model, when it has several."""
    return _only_input(session.get_inputs(), label)


def _only_input(inputs: Sequence[Any], label: str) -> Any:
    if len(inputs) != 1:
        names = ", ".join(repr(info.name) for info in inputs)
        raise ModelError(f"{label}: must have one input, the images, but has {names or 'none'}")
    return inputs[0]


def observe_onnx(
    model: onnx.ModelProto, tensors: Iterable[str], images: Floats, *, optimise: bool = False
) -> Iterator[dict[str, Floats]]:
    """Yield the float values of the input and of ``tensors``, batch by batch.

    Args:
        model: the model, which stays as it is.
        tensors: names of the tensors to observe.
        images: (N, C, H, W), run as ``split_batches`` divides them.
        optimise: let the runtime fuse nodes around the other tensors.

    Raises:
        UsageError: when the images do not fit the model.
        ModelError: when the runtime refuses the model.
    """
    import onnx

    observed = copy_model(model)
    own = {output.name for output in observed.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in own)
    session = open_session(observed.SerializeToString(), optimise=optimise)
    info = images_input(session, "the model")
    names = [output.name for output in session.get_outputs()]
    for batch in split_batches(images, info.shape):
        try:
            values = session.run(None, {info.name: batch})
        except runtime_errors() as error:
            raise ModelError(f"the model: onnxruntime cannot run it ({one_line(error)})") from None
        yield {info.name: batch} | {
            name: value.astype(np.float32, copy=False)
            for name, value in zip(names, values, strict=True)
            if value.dtype.kind == "f"
        }


def split_batches(images: Floats, shape: Sequence[Any]) -> list[Floats]:
    """Split images (N, C, H, W) into batches of the size that an input of ``shape`` has, or 1 where it is open.

    The last batch is filled up with the first images.

    Raises:
        UsageError: when the images do not fit the shape.
    """
    check_shape(images, shape)
    size = shape[0] if isinstance(shape[0], int) else 1
    indices = np.arange(-(-len(images) // size) * size) % len(images)
    return [images[part] for part in indices.reshape(-1, size)]


def check_shape(images: Floats, shape: Sequence[Any]) -> None:
    """Raise UsageError unless there are images and they fit an input of ``shape``, whose open sizes are names."""
    fits = len(shape) == images.ndim and all(
        not isinstance(size, int) or size == actual for size, actual in zip(shape[1:], images.shape[1:], strict=True)
    )
    if not fits or not len(images):
        raise UsageError(
            f"images must have shape (N, {', '.join(map(str, shape[1:]))}), N above 0, but have {images.shape}"
        )
