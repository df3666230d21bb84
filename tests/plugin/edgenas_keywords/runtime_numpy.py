"""The interpreter. Sent beside agent.py, which documents the functions. Python 3.8, standard library and numpy only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Session = Any  # the program of a file, and its weights by name


def import_runtime(request: Mapping[str, Any]) -> str:
    """Return the version of numpy."""
    return "numpy " + np.__version__


def library_folder() -> str:
    """Return the folder of numpy."""
    return str(np.__path__[0])


def make_empty_session(request: Mapping[str, Any]) -> None:
    """Return nothing: numpy is loaded, and a session is the arrays of a file."""


def load_session(path: Any, request: Mapping[str, Any]) -> Session:
    """Return the program and the weights of a file."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(str(arrays.pop("program"))), arrays


def describe_inputs(session: Session) -> list[tuple[str, str, list[int]]]:
    """Return name, numpy type and shape of the one input."""
    return [("input", "float32", session[0]["shape"])]


def prepare_run(session: Session, inputs: Mapping[str, Any]) -> Callable[[], Any]:
    """Return a function that runs the session once on this input."""
    return lambda: compute_outputs(session, [inputs["input"]])


def compute_outputs(session: Session, inputs: Sequence[Any]) -> list[Any]:
    """Return the logits of images."""
    program, weights = session
    values = dict(weights, input=np.asarray(inputs[0], np.float32))
    for node in program["nodes"]:
        arguments = [values[name] for name in node["inputs"]]
        values[node["output"]] = COMPUTE[node["operator"]](node, *arguments)
    return [values["logits"]]


def convolve(node: Mapping[str, Any], x: Any, kernel: Any, bias: Any = 0.0) -> Any:
    """Return a convolution, plain or depthwise, padded by half its kernel."""
    reach, stride = kernel.shape[2] // 2, node["strides"][0]
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    if node["group"] == 1:
        y = np.tensordot(windows, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    else:
        y = np.einsum("nchwij,cij->nchw", windows, kernel[:, 0])
    return np.ascontiguousarray(y + np.reshape(bias, (1, -1, 1, 1)), np.float32)


COMPUTE: Mapping[str, Callable[..., Any]] = {
    "Conv": convolve,
    "Relu": lambda node, x: np.maximum(x, 0),
    "GlobalAveragePool": lambda node, x: x.mean((2, 3), keepdims=True),
    "Flatten": lambda node, x: x.reshape(len(x), -1),
    "Gemm": lambda node, x, weight, bias: x @ weight.T + bias,
}
