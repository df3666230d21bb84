"""The agent: runs models on a device, each in a process of its own, and answers with raw samples.

It is sent to the device as a file, beside one file for each runtime. Python 3.8, standard library,
numpy and a runtime only; never imports edgenas.

Standard input: one JSON line, made by ``encode_request`` in edgenas/profilers/measure/protocol.py,
then nothing. When it ends, the host is gone, and the agent and its processes end. Standard output: JSON
lines, each sent at once: ``hello``, for each model in order ``result`` or
``failed``, then ``end`` with the count; or ``unable`` for a device that
cannot measure at all. Each model's process is forked after the runtime was
imported, so that a model that aborts costs one answer and no start-up. A path
may occur several times, to be measured in as many processes; a model that failed
is not run again, but answered with the same failure.

A runtime is a file ``runtime_<name>.py`` with these functions, where ``request`` has
runtime, providers, provider_options, threads, precision and affinity (numbers of CPUs, or null):

- ``import_runtime(request)`` imports the runtime and returns its version.
- ``make_empty_session(request)`` returns a session that memory is measured above.
- ``load_session(path, request)`` returns a session of a model file.
- ``describe_inputs(session)`` returns name, numpy type and shape of each input. ``text`` is the type of strings; an
  open dimension is a name or None.
- ``prepare_run(session, inputs)`` returns a function that runs the session once on arrays, given by name.
- ``compute_outputs(session, inputs)`` returns the model's outputs for given arrays.
- ``library_folder()`` returns the folder of the runtime's library.
- ``count_provider_nodes(path, request, inputs)`` returns how many nodes each provider runs; only where there is a
  choice.

and these names, where they differ from the defaults:

- ``IN_PROCESS``: providers whose memory is the process's own and that run on the CPU; by default the CPU's.
- ``TOO_OLD``: words, in lower case, of messages that say that a model needs a newer version; by default none.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import platform
import re
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

SEED = 0
STDERR_KEPT = 4096
CPU = "CPUExecutionProvider"
PAGE = 4096
# Bytes; a library as large as TensorFlow would push everything else out of a small board's memory.
MAX_LIBRARY_BYTES = 1 << 26
# A read-only or executable mapping of a file: first address, last address, file.
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ \d+ +(/.*)")
OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "cannot allocate memory")


class HostGoneError(Exception):
    """Standard input ended: the host is gone."""


class RefusedError(Exception):
    """What a runtime raised about a model. All else is no fault of the model."""


@contextlib.contextmanager
def runtime_refusals() -> Iterator[None]:
    """Raise what a runtime raises as RefusedError."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise RefusedError(str(error) or type(error).__name__) from error


# -- measuring, in the model's own process ------------------------------------------


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
        answer = (run_and_store_outputs if request.get("mode") == "outputs" else measure_model)(runtime, request, model)
    except MemoryError as error:
        answer = {"reason": "out of memory", "detail": shorten(error) or "MemoryError"}
    except RefusedError as error:
        answer = {"reason": classify_error(runtime, str(error)), "detail": shorten(hide_folder(error, model))}
    except importlib.import_module("inputs").InputError as error:
        answer = {"reason": "inputs", "detail": shorten(error)}
    except Exception as error:
        answer = {"reason": "agent", "detail": shorten(f"{type(error).__name__}: {hide_folder(error, model)}")}
    with open(result, "w") as file:
        json.dump(answer, file)
    os._exit(0)


def hide_folder(error: Exception, model: dict[str, Any]) -> str:
    """Return an error's message with the model's name instead of its path here."""
    return str(error).replace(model["path"], Path(model["path"]).name)


def end_with_parent(parent: int) -> None:
    """End this process when the agent ends, also when the agent is killed."""
    try:
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        os._exit(1)


def classify_error(runtime: Any, message: str) -> str:
    """Return the reason of a failure, by the runtime's message."""
    lower = message.lower()
    if any(words in lower for words in OUT_OF_MEMORY):
        return "out of memory"
    return "too old" if any(words in lower for words in getattr(runtime, "TOO_OLD", ())) else "refused"


def measure_model(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Load and run one model. Its memory is the peak above a process with an empty session and the runtime's code."""
    settings, path = request["settings"], model["path"]
    sampling = importlib.import_module("sampling")
    session = runtime.make_empty_session(request)
    if hasattr(runtime, "library_folder"):
        load_library_pages(runtime.library_folder())
    # Once before, since megabytes of numpy come with these.
    sampling.relative_half_width([1.0, 2.0])
    make_model_inputs(runtime, {}, session)
    arrays = load_given_arrays(request)
    speed_probe = importlib.import_module("speed_probe")
    probe = speed_probe.SpeedProbe() if is_cpu_only(runtime, request) else None
    reset_peak_memory()
    base = read_process_memory("VmHWM")
    before = time.perf_counter_ns()
    with runtime_refusals():
        loaded = runtime.load_session(path, request)
    load_ns = time.perf_counter_ns() - before
    inputs, filled_shapes = make_model_inputs(runtime, request, loaded, arrays)
    with runtime_refusals():
        run = runtime.prepare_run(loaded, inputs)
        run()
    gc.collect()
    gc.disable()
    begun = time.monotonic()
    expected_ns = sampling.warm_up_and_time(run, settings)
    started = time.monotonic()
    single = request["threads"] == 1 and request["providers"] == [CPU]
    probe_samples = speed_probe.ProbeSamples(probe) if probe else None
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


def load_given_arrays(request: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arrays that the user gives for the inputs, by name; None where they are made up."""
    path = request.get("inputs", {}).get("arrays")
    if path is None:
        return None
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def make_model_inputs(
    runtime: Any, request: dict[str, Any], session: Any, arrays: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's inputs by name, and the shapes of those whose file leaves a dimension open."""
    module = importlib.import_module("inputs")
    with runtime_refusals():
        declared = [module.DeclaredInput(*one) for one in runtime.describe_inputs(session)]
    shapes = request.get("inputs", {}).get("shapes", {})
    made: tuple[dict[str, Any], dict[str, Any]] = module.make_inputs(declared, shapes, arrays, SEED)
    return made


def run_and_store_outputs(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Run one model once on the arrays of a file and store its outputs in another."""
    import numpy as np

    with np.load(model["inputs"], allow_pickle=False) as archive:
        inputs = [archive[f"arr_{number}"] for number in range(len(archive.files))]
    with runtime_refusals():
        outputs = runtime.compute_outputs(runtime.load_session(model["path"], request), inputs)
    np.savez(model["outputs"], *outputs)
    return {"outputs": len(outputs)}


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


# -- the agent, which never touches a model itself ---------------------------------


def measure_in_child_process(
    runtime: Any, request: dict[str, Any], model: dict[str, Any], board: Any
) -> dict[str, Any]:
    """Measure one model in a process of its own; return its answer, or its failure."""
    seconds, started = request["settings"]["model_timeout_seconds"], time.monotonic()
    before, kills = board.read_conditions(), read_memory_kill_count()
    pid, result, errors = fork_model_process(runtime, request, model)
    answer = interpret_process_result(*collect_process_output(pid, result, errors, seconds, board), seconds, kills)
    after = {**board.read_conditions(), "interrupted_share": answer.pop("interrupted_share", None)}
    if "window" in answer:
        window, runs, probed_s = (answer.pop(key) for key in ("window", "runs", "probed_s"))
        after["lowest_frequency_khz"] = board.lowest_frequency_khz(window)
        answer.update(board.energy_fields(window, runs, probed_s))
    if "placement" in answer:
        request["placed"][model["path"]] = answer["placement"]
    return {
        "kind": "failed" if "reason" in answer else "result",
        "id": model["id"],
        **answer,
        "device_s": round(time.monotonic() - started, 6),
        "conditions_before": before,
        "conditions_after": after,
    }


def fork_model_process(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> tuple[int, int, int]:
    """Start a model's process; return its number and the pipes of its answer and its errors."""
    result, result_end = os.pipe()
    errors, errors_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            run_model_and_exit(runtime, request, model, parent, result_end, errors_end)
        finally:
            os._exit(70)
    os.close(result_end)
    os.close(errors_end)
    return pid, result, errors


def collect_process_output(
    pid: int, result: int, errors: int, seconds: float, board: Any
) -> tuple[bytes, str, int, bool]:
    """Wait for a model's process; return its answer, the end of its errors, its wait status, and whether it is late."""
    end = time.monotonic() + seconds
    board.clear_readings()
    received = {result: b"", errors: b""}
    waiting = [0, result, errors]
    try:
        while len(waiting) > 1 and time.monotonic() < end:
            board.take_reading()
            timeout = max(0.0, min(board.reading_interval_s, end - time.monotonic()))
            for pipe in select.select(waiting, [], [], timeout)[0]:
                data = os.read(pipe, 65536)
                if pipe == 0 and not data:
                    raise HostGoneError
                if pipe and not data:
                    waiting.remove(pipe)
                elif pipe:
                    received[pipe] += data
            received[errors] = received[errors][-STDERR_KEPT:]
        late = len(waiting) > 1
    finally:
        if len(waiting) > 1:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        os.close(result)
        os.close(errors)
    return received[result], received[errors].decode(errors="replace"), status, late


def interpret_process_result(
    answer: bytes, errors: str, status: int, late: bool, seconds: float, memory_kills: int
) -> dict[str, Any]:
    """Return the answer of a model's process, or the reason why it has none."""
    last = shorten(errors.strip().rpartition("\n")[2])
    if late:
        return {"reason": "timeout", "detail": f"did not end within {seconds:g} s"}
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        if name == "SIGKILL" and memory_kills < read_memory_kill_count():
            return {"reason": "out of memory", "detail": "the kernel killed it for want of memory"}
        return {"reason": "crashed", "detail": f"its process was killed by {name}" + (f": {last}" if last else "")}
    try:
        parsed: dict[str, Any] = json.loads(answer)
        return parsed
    except ValueError:
        code = os.WEXITSTATUS(status)
        return {"reason": "crashed", "detail": f"its process ended with status {code}" + (f": {last}" if last else "")}


def read_memory_kill_count() -> int:
    """Return how many processes the kernel has killed for want of memory."""
    for line in read_text_or_empty(Path("/proc/vmstat")).splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def read_text_or_empty(path: Path) -> str:
    """Return a small file's text, empty when it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def shorten(value: object) -> str:
    """Return text on one line; of a long one the beginning and the end, where libraries say what is wrong."""
    line = " ".join(str(value).split())
    return line if len(line) <= 400 else f"{line[:160]} ... {line[-235:]}"


# -- the protocol ------------------------------------------------------------------


def answer_request(answers: TextIO) -> int:
    """Read one request and answer it; return the exit status."""

    def send(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    request = read_request()
    cpus = request.get("affinity") or []
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    request["placed"] = {}
    problem = describe_unusable_cpus(cpus)
    if problem:
        send(kind="unable", reason="affinity", detail=problem)
        return 1
    try:
        runtime = importlib.import_module("runtime_" + request["runtime"])
        version = runtime.import_runtime(request)
    except Exception as error:
        send(kind="unable", detail=shorten(error))
        return 1
    versions = {"python": platform.python_version(), request["runtime"]: version}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    send(kind="hello", versions=versions, facts={"usable_cores": usable})
    board = importlib.import_module("board").BoardMonitor(Path(request.get("sysroot", "/")), request.get("affinity"))
    board.measure_idle_power()
    move_off_cpus(cpus)
    importlib.import_module("sampling").relative_half_width([1.0, 2.0])  # before the forks, which share what that loads
    gc.freeze()
    failed: dict[str, dict[str, Any]] = {}
    for model in request["models"]:
        answer = failed.get(model["path"]) or measure_in_child_process(runtime, request, model, board)
        if answer["kind"] == "failed":
            failed[model["path"]] = answer
        send(**{**answer, "id": model["id"]})
    send(kind="end", count=len(request["models"]))
    return 0


def read_request() -> dict[str, Any]:
    """Read the request: everything up to the first line feed of standard input."""
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(0, 65536)
        if not more:
            raise HostGoneError
        data += more
    request: dict[str, Any] = json.loads(data)
    return request


def take_over_stdout() -> TextIO:
    """Return a private copy of standard output; what a runtime prints goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def describe_unusable_cpus(cpus: list[int]) -> str | None:
    """Return what is wrong with CPUs that are absent or that this process may not use; None if all are usable."""
    usable = os.sched_getaffinity(0) if cpus else set()
    absent = sorted(set(cpus) - usable)
    if not absent:
        return None
    return f"CPU {', '.join(map(str, absent))} of the affinity cannot be used here, only {sorted(usable)}"


def move_off_cpus(cpus: list[int]) -> None:
    """Move this process off the CPUs of the models, where there are others."""
    others = os.sched_getaffinity(0) - set(cpus) if cpus else set()
    if others:
        os.sched_setaffinity(0, others)


def main() -> int:
    """Answer the request on standard input; return the exit status."""
    try:
        return answer_request(take_over_stdout())
    except (HostGoneError, BrokenPipeError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
