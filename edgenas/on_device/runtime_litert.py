"""TensorFlow Lite on the device, by any of its package names. Sent beside agent.py, which documents the functions.

Python 3.8, standard library, numpy and one of ai_edge_litert, tflite_runtime
and tensorflow only, the first that can be imported; never imports edgenas.
Its one provider is the CPU. The provider's option ``xnnpack``, true by default,
is the delegate that the library applies by itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CPU = "CPUExecutionProvider"
TOO_OLD = ("old tflite binary",)  # in messages about a newer operator
DELEGATE = "XNNPACK"  # the one that the library applies by itself
MAX_NAME_LENGTH = 390
LIBRARIES = {
    "ai_edge_litert": "ai_edge_litert.interpreter",
    "tflite_runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow.lite",
}
# y = Relu(x) of one float: schema 3 and version 1 of the operator, which every TensorFlow Lite reads.
EMPTY = bytes.fromhex(
    "1800000054464c3300000e00140010000c000800000004000e000000100000001c000000d000000003000000010000000800"
    "0000040004000400000001000000100000000c00140010000c00080004000c000000100000003c0000004000000044000000"
    "010000001000000000000a000c000000080004000a000000080000000c000000010000000100000001000000000000000100"
    "0000010000000100000000000000020000003000000004000000e4ffffff080000000c000000010000007900000001000000"
    "010000000c000c0008000000000004000c000000080000000c00000001000000780000000100000001000000010000001000"
    "00000c000c000b000000000004000c0000001300000000000013"
)


def import_runtime(request: Mapping[str, Any]) -> str:
    """Import the library and return its name and version; raise ValueError for an unknown provider or option."""
    absent = [provider for provider in request["providers"] if provider != CPU]
    if absent:
        raise ValueError(f"litert here has no {', '.join(absent)}; it has {CPU}")
    unknown = sorted(set(cpu_options(request)) - {"xnnpack"})
    if unknown:
        raise ValueError(f"litert has no option {', '.join(unknown)}; it has xnnpack")
    name, _ = import_library()
    # The first session builds tables that forked processes share; with one thread it starts no other.
    make_empty_session(request)
    return f"{name} {library_version(name)}"


def library_folder() -> str:
    """Return the folder of the library."""
    name, _ = import_library()
    return str(Path(str(importlib.import_module(name).__file__)).parent)


def make_empty_session(request: Mapping[str, Any]) -> Any:
    """Return a session of a model of one operator, run once."""
    import numpy as np

    session = new_interpreter(request, threads=1, model_content=EMPTY)
    prepare_run(session, {name: np.zeros(shape, dtype) for name, dtype, shape in describe_inputs(session)})()
    return session


def load_session(path: str, request: Mapping[str, Any]) -> Any:
    """Return a session of a model file; raise what the library raises."""
    return new_interpreter(request, threads=request["threads"], model_path=path)


def describe_inputs(session: Any) -> list[tuple[str, str, list[Any]]]:
    """Return name, numpy type and shape of each input; an open dimension is None."""
    import numpy as np

    described = []
    for one in session.get_input_details():
        dtype = np.dtype(one["dtype"])
        shape = [None if size < 0 else int(size) for size in shape_signature(one)]
        described.append((one["name"], "text" if dtype.kind == "S" else str(dtype), shape))
    return described


def shape_signature(declared: Mapping[str, Any]) -> Sequence[int]:
    """Return an input's shape with -1 for open dimensions, which the interpreter takes as 1; old ones lack it."""
    signature: Sequence[int] = declared.get("shape_signature", ())
    return signature if len(signature) else declared["shape"]


def is_open(declared: Mapping[str, Any]) -> bool:
    """Return whether the file leaves a dimension open, or says none: then the rank may be open."""
    return min(shape_signature(declared), default=-1) < 0


def prepare_run(session: Any, inputs: Mapping[str, Any]) -> Callable[[], Any]:
    """Return a function without arguments that runs the session once on these inputs."""
    set_inputs(session, [inputs[one["name"]] for one in session.get_input_details()])
    run: Callable[[], Any] = session.invoke
    return run


def set_inputs(session: Any, inputs: Sequence[Any]) -> None:
    """Set the inputs in the order of the file, and open shapes to theirs."""
    declared = session.get_input_details()
    pairs = list(zip(declared, inputs))  # noqa: B905 - Python 3.8 knows no strict
    for one, values in pairs:
        if is_open(one) and list(one["shape"]) != list(values.shape):
            session.resize_tensor_input(one["index"], list(values.shape))
    if any(map(is_open, declared)):
        session.allocate_tensors()
    for one, values in pairs:
        session.set_tensor(one["index"], values)


def compute_outputs(session: Any, inputs: Sequence[Any]) -> list[Any]:
    """Return the model's outputs for these inputs, one array for each output that it declares."""
    declared = session.get_input_details()
    if len(declared) != len(inputs):
        raise ValueError(f"it takes {len(declared)} inputs, but got {len(inputs)}")
    set_inputs(session, inputs)
    session.invoke()
    return [session.get_tensor(one["index"]) for one in session.get_output_details()]


def profile_operators(
    path: str, request: Mapping[str, Any], inputs: Mapping[str, Any], runs: int, warmup_runs: int, graph: str = ""
) -> list[dict[str, Any]]:
    """Return the operators of a model file; no times, because the library's Python interface has no profiler.

    An operator is named by its first output, and runs in the delegate or as a kernel of the library. What a delegate
    makes of its operators, and what it fuses, it does not say.
    """
    session = load_session(path, request)
    prepare_run(session, inputs)()
    details = {one["index"]: one for one in session.get_tensor_details()}
    operators = session._get_ops_details()
    delegated = find_delegated_operators(operators)
    return [
        {
            "name": str(details[operator["outputs"][0]]["name"])[:MAX_NAME_LENGTH],
            "type": str(operator["op_name"]),
            "provider": DELEGATE if operator["index"] in delegated else CPU,
            "us": None,
            "inputs": list_shapes(details, operator["inputs"]),
            "outputs": list_shapes(details, operator["outputs"]),
        }
        for operator in operators
        if operator["op_name"] != "DELEGATE" and len(operator["outputs"])
    ]


def find_delegated_operators(operators: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return the numbers of the operators that a delegate took over: those between its inputs and its outputs."""
    producers = {
        tensor: operator
        for operator in operators
        if operator["op_name"] != "DELEGATE"
        for tensor in operator["outputs"]
    }
    found: set[int] = set()
    for delegate in operators:
        if delegate["op_name"] == "DELEGATE":
            ends, waiting = set(delegate["inputs"]), list(delegate["outputs"])
            while waiting:
                operator = producers.get(waiting.pop())
                if operator is not None and operator["index"] not in found:
                    found.add(operator["index"])
                    waiting += [tensor for tensor in operator["inputs"] if tensor not in ends]
    return found


def list_shapes(details: Mapping[int, Mapping[str, Any]], tensors: Sequence[int]) -> list[list[int]]:
    """Return the shapes of tensors; -1 stands for an input that is left out."""
    return [[int(size) for size in details[tensor]["shape"]] for tensor in tensors if tensor in details]


def import_library() -> tuple[str, Any]:
    """Import the first library that is installed; return its name and the module of its Interpreter."""
    reasons = []
    for name, module in LIBRARIES.items():
        try:
            return name, importlib.import_module(module)
        except ImportError as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == name
            reasons.append(f"no {name}" if missing else f"{name} cannot be imported ({error})")
    raise ImportError(", ".join(reasons))


def library_version(name: str) -> str:
    """Return the version of the library."""
    version = getattr(importlib.import_module(name), "__version__", None)
    if version is None:
        from importlib import metadata

        version = metadata.version(name.replace("_", "-"))
    return str(version)


def cpu_options(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of the CPU."""
    options: Mapping[str, Any] = request.get("provider_options", {}).get(CPU, {})
    return options


def new_interpreter(request: Mapping[str, Any], threads: int, **model: Any) -> Any:
    """Return an interpreter that is ready to run, or whose open shapes must be set before."""
    _, module = import_library()
    resolver = "AUTO" if cpu_options(request).get("xnnpack", True) else "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    if resolver != "AUTO":
        resolvers = getattr(module, "OpResolverType", None) or module.experimental.OpResolverType
        model["experimental_op_resolver_type"] = getattr(resolvers, resolver)
    session = module.Interpreter(num_threads=threads, **model)
    try:
        session.allocate_tensors()
    except RuntimeError:
        # The network may not fit the sizes that are taken for open ones.
        if not any(map(is_open, session.get_input_details())):
            raise
    return session
