"""onnxruntime on the device. Sent beside agent.py, which says what each function is for.

Python 3.8, standard library, numpy and onnxruntime only; never imports edgenas.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

# y = Identity(x) of one float: ONNX IR 4, opset 9, which every onnxruntime since 1.0 reads.
_EMPTY = (
    b'\x08\x04:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01e'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"B\x04\n\x00\x10\t"
)

_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
}


def start(providers: Sequence[str]) -> str:
    """Import the runtime and return its version; raises ValueError for a provider that it was not built with."""
    # Since 1.29 the Linux builds report every session to their maker, from a thread of their own.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    built = onnxruntime.get_available_providers()
    absent = [provider for provider in providers if provider not in built]
    if absent:
        raise ValueError(f"onnxruntime here has no {', '.join(absent)}; it has {', '.join(built)}")
    if list(providers) == ["CPUExecutionProvider"]:
        # The first session builds tables that forked processes share: 15 ms less for each model. One on the CPU
        # with one thread starts no other thread, which would not live on in them; other providers may.
        empty(providers)
    return str(onnxruntime.__version__)


def empty(providers: Sequence[str]) -> Any:
    """A session that does next to nothing, run once."""
    session = _session(_EMPTY, 1, providers)
    prepare(session, 0)()
    return session


def load(path: str, threads: int, providers: Sequence[str]) -> Any:
    """A session of a model file; raises what the runtime raises."""
    return _session(path, threads, providers)


def prepare(session: Any, seed: int) -> Callable[[], Any]:
    """A function without arguments that runs the session once, on the same random inputs each time."""
    import numpy as np

    generator = np.random.default_rng(seed)
    feeds = {}
    for declared in session.get_inputs():
        kind = _TYPES.get(declared.type)
        if kind is None:
            raise ValueError(f"input {declared.name!r} is a {declared.type}, which cannot be made up")
        values = generator.random(_shape(declared), dtype=np.float32)
        # Whole numbers may be indices, and 0 and 1 are within the bounds of nearly all.
        feeds[declared.name] = (values if kind.startswith("float") else values > 0.5).astype(kind, copy=False)
    return lambda: session.run(None, feeds)


def _session(model: str | bytes, threads: int, providers: Sequence[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=list(providers))


def _shape(declared: Any) -> list[int]:
    """The declared shape, with 1 for a symbolic batch; raises ValueError for any other symbolic dimension."""
    shape = list(declared.shape)
    if shape and not isinstance(shape[0], int):
        shape[0] = 1
    for place, size in enumerate(shape):
        if not isinstance(size, int):
            name = "an unnamed dynamic dimension" if size is None else f"the symbolic dimension {size!r}"
            raise ValueError(
                f"input {declared.name!r} has {name} at place {place} of {declared.shape}; export it with a fixed size"
            )
    return shape
