"""onnxruntime on the device. Sent beside agent.py, which documents the functions.

Python 3.8, standard library, numpy and onnxruntime only; never imports edgenas.
"""

from __future__ import annotations

import functools
import importlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CPU = "CPUExecutionProvider"
XNNPACK = "XnnpackExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
# Providers whose memory is the process's own.
IN_PROCESS = (CPU, XNNPACK)
# Messages about a newer IR or operator set.
TOO_OLD = ("max supported ir version", "is under development and support")

# y = Identity(x) of one float: ONNX IR 4, opset 9, which every onnxruntime since 1.0 reads.
_EMPTY = (
    b'\x08\x04:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01e'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"B\x04\n\x00\x10\t"
)

_TYPES = {
    "tensor(string)": "text",
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


def import_runtime(request: Mapping[str, Any]) -> str:
    """Import the runtime and return its version; raise ValueError for a provider that it was not built with."""
    # Since 1.29 the Linux builds report every session to their maker, from a thread of their own.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    providers = list(request["providers"])
    built = onnxruntime.get_available_providers()
    absent = [provider for provider in providers if provider not in built]
    if absent:
        raise ValueError(f"onnxruntime here has no {', '.join(absent)}; it has {', '.join(built)}")
    if {CUDA, TENSORRT} & set(providers) and hasattr(onnxruntime, "preload_dlls"):
        # Those of pip's nvidia packages lie where the loader does not look; a board's own are found anyway.
        onnxruntime.preload_dlls()
    if providers == [CPU]:
        # The first session builds tables that forked processes share: 15 ms less for each model. One on the CPU
        # with one thread starts no other thread, which would not live on in them; other providers may.
        make_empty_session(request)
    return str(onnxruntime.__version__)


def library_folder() -> str:
    """Return the folder of the library."""
    import onnxruntime

    return str(Path(onnxruntime.__file__).parent)


def make_empty_session(request: Mapping[str, Any]) -> Any:
    """Return a session of a model of one operator, run once."""
    import numpy as np

    session = new_session(_EMPTY, request, threads=1)
    prepare_run(session, {"x": np.zeros(1, np.float32)})()
    return session


def load_session(path: str, request: Mapping[str, Any]) -> Any:
    """Return a session of a model file; raise what the runtime raises."""
    return new_session(path, request, threads=request["threads"])


def describe_inputs(session: Any) -> list[tuple[str, str, list[Any]]]:
    """Return name, numpy type and shape of each input; an open dimension is a name or None."""
    return [(one.name, _TYPES.get(one.type, one.type), list(one.shape)) for one in session.get_inputs()]


def prepare_run(session: Any, inputs: Mapping[str, Any]) -> Callable[[], Any]:
    """Return a function without arguments that runs the session once on these inputs."""
    return lambda: session.run(None, inputs)


def compute_outputs(session: Any, inputs: Sequence[Any]) -> list[Any]:
    """Return the model's outputs for these inputs, one array for each output that it declares."""
    declared = [one.name for one in session.get_inputs()]
    if len(declared) != len(inputs):
        raise ValueError(f"it takes {len(declared)} inputs, but got {len(inputs)}")
    computed: list[Any] = session.run(None, dict(zip(declared, inputs)))  # noqa: B905 - Python 3.8 knows no strict
    return computed


def count_provider_nodes(path: str, request: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, int] | None:
    """Return how many nodes each provider runs, by the runtime's own profile of one run; None for the CPU alone.

    Nodes are counted after the runtime's optimisation: a part of a graph that a
    provider compiles as a whole is one node.
    """
    if list(request["providers"]) == [CPU]:
        return None
    return dict(Counter(operator["provider"] for operator in profile_operators(path, request, inputs, 1, 0)))


def profile_operators(
    path: str, request: Mapping[str, Any], inputs: Mapping[str, Any], runs: int, warmup_runs: int, graph: str = ""
) -> list[dict[str, Any]]:
    """Return the operators of the optimised graph with their median time in a run, by the runtime's own profile.

    The time is None where the provider has a device of its own: the runtime times the start of its work only. With
    ``graph`` the optimised graph is stored in that file, its weights beside it; not where a provider compiled a part.
    """
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:  # the work folder, which is removed in any case
        make_session = functools.partial(
            new_session, path, request, threads=request["threads"], profile=str(Path(folder, "profile"))
        )
        try:
            session = make_session(graph=graph)
        except Exception:
            if not graph:
                raise
            session = make_session()
        run = prepare_run(session, inputs)
        for _ in range(warmup_runs + runs):
            run()
        profile = importlib.import_module("onnxruntime_profile")
        operators: list[dict[str, Any]] = profile.read_operators(Path(session.end_profiling()), warmup_runs)
    for operator in operators:
        if operator["provider"] not in IN_PROCESS:
            operator["us"] = None
    return operators


def new_session(
    model: str | bytes, request: Mapping[str, Any], threads: int, profile: str = "", graph: str = ""
) -> Any:
    """Return a session on the requested providers, with their options.

    With ``profile`` it writes a profile there, with ``graph`` its optimised graph, with the weights in a file beside.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if request["providers"][0] == XNNPACK:
        # It has threads of its own, which the session's would compete with.
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    if graph:
        options.log_severity_level = 3  # it would warn that the graph suits this machine only
        options.optimized_model_filepath = graph
        weights = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(weights + "file_name", Path(graph).name + ".data")
        options.add_session_config_entry(weights + "min_size_in_bytes", "64")
    return onnxruntime.InferenceSession(
        model, options, providers=[(name, prepare_provider_options(name, request)) for name in request["providers"]]
    )


def prepare_provider_options(provider: str, request: Mapping[str, Any]) -> dict[str, str]:
    """Return a provider's options as text, for TensorRT with the precision and a cache beside the models."""
    options: dict[str, Any] = dict(request.get("provider_options", {}).get(provider, {}))
    for key, value in options.items():
        if str(value).startswith("~/"):
            options[key] = path = Path(value).expanduser()
            if key.endswith(("_path", "_dir")) or "cache" in key:
                path.mkdir(parents=True, exist_ok=True)
    if provider == TENSORRT:
        if request.get("precision") == "fp16":
            options.setdefault("trt_fp16_enable", True)
        if request.get("precision") == "int8":
            options.setdefault("trt_int8_enable", True)
        # Building an engine takes minutes: once for the process that is timed and the one that counts nodes.
        options.setdefault("trt_engine_cache_enable", True)
        options.setdefault("trt_engine_cache_path", str(Path.cwd()))
    if provider == XNNPACK:
        options.setdefault("intra_op_num_threads", request["threads"])
    return {key: str(value) for key, value in options.items()}
