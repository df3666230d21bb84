"""A model's process, forked by the agent: it loads the model, runs it and times it. Sent beside agent.py.

Python 3.8, standard library, numpy and a runtime only; never imports edgenas.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SEED = 0
CPU = "CPUExecutionProvider"
PAGE = 4096
MAX_OPERATORS_BYTES = 900_000  # the host reads an answer of 1 MiB
# Bytes; a library as large as TensorFlow would push everything else out of a small board's memory.
MAX_LIBRARY_BYTES = 1 << 26
# A read-only or executable mapping of a file: first address, last address, file.
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ \d+ +(/.*)")
OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "cannot allocate memory")


class FailedError(Exception):
    """A model that cannot be run, with the answer's reason. Any other error is the agent's own fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def run_model_and_exit(
    runtime: Any, request: dict[str, Any], model: dict[str, Any], parent: int, result: int, errors: int
) -> None:
    """Live the whole life of a model's process: measure, write one JSON object to ``result``, end."""
    end_with_parent(parent)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    try:
        if request.get("affinity"):
            os.sched_setaffinity(0, request["affinity"])
        modes = {"outputs": run_and_store_outputs, "operators": profile_model}
        answer = modes.get(request.get("mode", ""), measure_model)(runtime, request, model)
    except MemoryError as error:
        answer = {"reason": "out of memory", "detail": str(error) or "MemoryError"}
    except FailedError as error:
        answer = {"reason": error.reason, "detail": str(error)}
    except Exception as error:
        answer = {"reason": "agent", "detail": f"{type(error).__name__}: {error}"}
    if "detail" in answer:
        answer["detail"] = answer["detail"].replace(model["path"], Path(model["path"]).name)
    with open(result, "w") as file:
        json.dump(answer, file)
    os._exit(0)


def end_with_parent(parent: int) -> None:
    """End this process when the agent ends, also when the agent is killed."""
    try:
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def calling(runtime: Any, reason: str) -> Iterator[None]:
    """Raise what a runtime raises as FailedError, with this reason where its message tells no other."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        message = str(error) or type(error).__name__
        raise FailedError(classify_error(runtime, message) or reason, message) from error


def classify_error(runtime: Any, message: str) -> str | None:
    """Return the reason of a failure by the runtime's message; None where it tells none."""
    lower = message.lower()
    if any(words in lower for words in OUT_OF_MEMORY):
        return "out of memory"
    return "too old" if any(words in lower for words in getattr(runtime, "TOO_OLD", ())) else None


# -- measuring ---------------------------------------------------------------------


def measure_model(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Load and run one model. Its memory is the peak above a process with an empty session and the runtime's code."""
    settings, path = request["settings"], model["path"]
    sampling = importlib.import_module("sampling")
    with calling(runtime, "broken runtime"):
        session = runtime.make_empty_session(request)
    if hasattr(runtime, "library_folder"):
        load_library_pages(runtime.library_folder())
    # Once before, since megabytes of numpy come with these.
    sampling.relative_half_width([1.0, 2.0])
    warm_up_inputs()
    arrays = load_given_arrays(request)
    speed_probe = importlib.import_module("speed_probe")
    probe = speed_probe.SpeedProbe() if is_cpu_only(runtime, request) else None
    reset_peak_memory()
    base = read_process_memory("VmHWM")
    before = time.perf_counter_ns()
    with calling(runtime, "refused"):
        loaded = runtime.load_session(path, request)
    load_ns = time.perf_counter_ns() - before
    inputs, filled_shapes = make_model_inputs(runtime, request, model, loaded, arrays)
    with calling(runtime, "refused"):
        run = runtime.prepare_run(loaded, inputs)
    with calling(runtime, "failed run"):
        run()
    gc.collect()
    gc.disable()
    single = request["threads"] == 1 and request["providers"] == [CPU]
    probe_samples = speed_probe.ProbeSamples(probe) if probe else None
    with calling(runtime, "failed run"):
        begun = time.monotonic()
        expected_ns = sampling.warm_up_and_time(run, settings)
        started = time.monotonic()
        runs = sampling.sample_runs(run, expected_ns, settings, single, probe_samples)
    window = [started, time.monotonic()]
    peak = read_process_memory("VmHWM")
    # Kept alive: the process ends sooner when nothing is destroyed.
    request["kept"] = session, loaded, run
    answer: dict[str, Any] = {"peak_bytes": None if base is None or peak is None else max(0, peak - base)}
    nodes = request["placed"].get(path) or try_count_provider_nodes(runtime, request, path, inputs)
    return {
        **answer,
        **({} if nodes is None else {"placement": nodes, **unmeasured_memory_fields(runtime, nodes)}),
        "filled_shapes": filled_shapes,
        "window": window,
        "runs": runs.count,
        "probed_s": round(probe_samples.spent_ns / 1e9, 6) if probe_samples else 0.0,
        "samples_ms": [round(ns / 1e6, 6) for ns in runs.samples],
        "probe_ms": [round(ns / 1e6, 7) for ns in runs.probe_times],
        "load_ms": round(load_ns / 1e6, 6),
        "running_s": round(window[1] - begun, 6),
        "interrupted": runs.interrupted,
        "interrupted_share": round(len(runs.interrupted) / len(runs.samples), 4),
    }


def run_and_store_outputs(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Run one model once on the arrays of a file and store its outputs in another."""
    import numpy as np

    with np.load(model["inputs"], allow_pickle=False) as archive:
        inputs = [archive[f"arr_{number}"] for number in range(len(archive.files))]
    with calling(runtime, "refused"):
        session = runtime.load_session(model["path"], request)
    with calling(runtime, "failed run"):
        outputs = runtime.compute_outputs(session, inputs)
    np.savez(model["outputs"], *outputs)
    return {"outputs": len(outputs)}


def profile_model(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Run one model under its runtime's profiler; return its operators, and store its optimised graph as PATH.graph."""
    settings, path, graph = request["settings"], model["path"], model["path"] + ".graph"
    sampling = importlib.import_module("sampling")
    if not hasattr(runtime, "profile_operators"):
        raise FailedError("no profile", "it has no profiler")
    with calling(runtime, "refused"):
        session = runtime.load_session(path, request)
    inputs, filled_shapes = make_model_inputs(runtime, request, model, session, load_given_arrays(request))
    with calling(runtime, "failed run"):
        expected_ns = sampling.warm_up_and_time(runtime.prepare_run(session, inputs), settings)
    runs = int(settings["max_seconds"] * 1e9 / expected_ns)
    runs = min(max(runs, settings["min_runs"]), settings["max_runs"])
    with calling(runtime, "no profile"):
        operators = runtime.profile_operators(path, request, inputs, runs, settings["warmup_runs"], graph)
    if len(json.dumps(operators)) > MAX_OPERATORS_BYTES:
        raise FailedError("no profile", f"its {len(operators)} operators do not fit into an answer")
    return {"operators": operators, "filled_shapes": filled_shapes, "has_graph": Path(graph).exists()}


# -- inputs ------------------------------------------------------------------------


def warm_up_inputs() -> None:
    """Make one number of each type, so that what numpy loads for that counts for no model."""
    inputs = importlib.import_module("inputs")
    inputs.make_inputs([inputs.DeclaredInput(dtype, dtype, [1]) for dtype in inputs.NUMBERS], {}, None, SEED)


def load_given_arrays(request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arrays that the user gives for the inputs, by name; None where they are made up."""
    path = request.get("inputs", {}).get("arrays")
    if path is None:
        return None
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def make_model_inputs(
    runtime: Any, request: dict[str, Any], model: dict[str, Any], session: Any, arrays: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's inputs by name, and the shapes of those whose file leaves dimensions open."""
    inputs = importlib.import_module("inputs")
    with calling(runtime, "refused"):
        described = runtime.describe_inputs(session)
    declared = [
        inputs.DeclaredInput(name, dtype, None if name in model.get("unranked", ()) else shape)
        for name, dtype, shape in described
    ]
    try:
        made: tuple[dict[str, Any], dict[str, Any]] = inputs.make_inputs(
            declared, request.get("inputs", {}).get("shapes", {}), arrays, SEED
        )
    except inputs.InputError as error:
        raise FailedError("inputs", str(error)) from None
    return made


# -- providers ---------------------------------------------------------------------


def is_cpu_only(runtime: Any, request: dict[str, Any]) -> bool:
    """Return whether models run on the CPU alone, whose speed can be probed."""
    return set(request["providers"]) <= set(in_process_providers(runtime))


def in_process_providers(runtime: Any) -> Sequence[str]:
    """Return the providers whose memory is the process's own."""
    providers: Sequence[str] = getattr(runtime, "IN_PROCESS", (CPU,))
    return providers


def try_count_provider_nodes(
    runtime: Any, request: dict[str, Any], path: str, inputs: dict[str, Any]
) -> dict[str, int] | None:
    """Return how many nodes each provider runs; None without a choice of providers, empty where counting failed.

    Done after the timing, which it would disturb.
    """
    try:
        nodes: dict[str, int] | None = (
            runtime.count_provider_nodes(path, request, inputs) if hasattr(runtime, "count_provider_nodes") else None
        )
    except Exception:
        return {}
    return nodes


def unmeasured_memory_fields(runtime: Any, nodes: dict[str, int]) -> dict[str, Any]:
    """Return an unknown peak with the reason, where a provider has memory outside of the process; else nothing."""
    others = sorted(set(nodes) - set(in_process_providers(runtime))) if nodes else ["providers that are not known"]
    if not others:
        return {}
    return {"peak_bytes": None, "memory_reason": f"not measured: VmHWM does not see the memory of {', '.join(others)}"}


# -- memory -----------------------------------------------------------------------


def read_process_memory(key: str) -> int | None:
    """Return a line of /proc/self/status in bytes; None where it is absent."""
    for line in read_text_or_empty(Path("/proc/self/status")).splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def reset_peak_memory() -> None:
    """Reset VmHWM to the memory that the process holds now (Linux, proc(5): clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def load_library_pages(folder: str) -> None:
    """Touch all code of a library, so that it counts for no model, whichever part of it the model runs.

    How much comes into memory with a touched page depends on how the kernel cached the
    file at the time, by megabytes. The kernel names files without links.
    """
    inside = os.path.realpath(folder) + "/"
    for line in read_text_or_empty(Path("/proc/self/maps")).splitlines():
        mapping = MAPPING.match(line)
        if mapping and mapping.group(3).startswith(inside):
            first, last = (int(address, 16) for address in mapping.group(1, 2))
            if last - first <= MAX_LIBRARY_BYTES:
                code = (ctypes.c_char * (last - first)).from_address(first)
                memoryview(code)[::PAGE].tobytes()


def read_text_or_empty(path: Path) -> str:
    """Return a small file's text, empty when it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
