"""Runs models on a device and answers with raw samples. Sent there as a file, beside one file per runtime.

Python 3.8, standard library, numpy and a runtime only; never imports edgenas.
Standard input: one JSON line ``{"runtime", "providers", "threads", "settings",
"remember_in", "models": [{"id", "path"}]}``, and then nothing: its end is the sign that the
other side is gone, upon which everything here ends. Standard output: JSON
lines, each sent at once: ``hello``, for each model in order ``result`` or
``failed``, then ``end`` with the count. ``unable`` stands for a device that
cannot measure at all. A process per model, forked after the runtime was
imported, so that a model that aborts costs one answer and no start-up. A path
may occur several times, to be measured in as many processes; one that failed
is not run again, but answered the same.

A runtime is a file ``runtime_<name>.py`` with ``start(wanted)`` -> version,
``empty(wanted)`` -> a session to measure memory above, ``load(path, wanted)``
-> session, ``prepare(session, seed)`` -> a function that runs it once,
``outputs(session, inputs)`` -> what it makes of given arrays, ``folder()`` of
its library and, where more than one provider can run a model's nodes,
``placement(path, wanted)`` -> how many each runs. ``wanted`` is the request:
runtime, providers, provider_options, threads, precision and affinity (numbers
of CPUs, or null).
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
from pathlib import Path
from typing import Any, TextIO

SEED = 0
TAIL = 4096
CPU = "CPUExecutionProvider"
PAGE = 4096
# Bytes; a library as large as TensorFlow would push out what else a small board has in memory.
MOST_CODE = 1 << 26
# A file's area of memory that is only read or run: first and last address, and the file.
MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r-[x-]p [0-9a-f]+ \S+ \d+ +(/.*)")
# Providers whose memory is the process's own.
IN_PROCESS = (CPU, "XnnpackExecutionProvider")
# What onnxruntime says of a newer IR or operator set, TensorFlow Lite of a newer operator.
TOO_OLD = ("max supported ir version", "is under development and support", "old tflite binary")
OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "cannot allocate memory")


class HostGoneError(Exception):
    """Standard input ended: nobody waits for answers any more."""


# -- measuring, in the model's own process ------------------------------------------


def memory(key: str) -> int | None:
    """A line of /proc/self/status in bytes, None where there is none."""
    for line in read(Path("/proc/self/status")).splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def measure(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Load and run one model; memory is the peak above a process with an empty session and the runtime's code."""
    settings, path = model.get("settings") or request["settings"], model["path"]
    sampling = importlib.import_module("sampling")
    session = runtime.empty(request)
    if hasattr(runtime, "folder"):
        bring_in_code(runtime.folder())
    sampling.half_width([1.0, 2.0])  # once before, since a megabyte of numpy comes with it
    probe = importlib.import_module("speed_probe")
    pacer = probe.SpeedProbe() if probed(request) else None
    reset_peak_memory()
    base = memory("VmHWM")
    before = time.perf_counter_ns()
    loaded = runtime.load(path, request)
    load_ns = time.perf_counter_ns() - before
    run = runtime.prepare(loaded, SEED)
    gc.collect()
    gc.disable()
    begun = time.monotonic()
    expected_ns = sampling.warm_up(run, settings)
    started = time.monotonic()
    single = request["threads"] == 1 and request["providers"] == [CPU]
    probe_samples = probe.ProbeSamples(pacer) if pacer else None
    timed = sampling.sample(run, expected_ns, settings, single, probe_samples)
    window = [started, time.monotonic()]
    peak = memory("VmHWM")
    # Taken apart by nobody: the process ends sooner without.
    request["kept"] = session, loaded, run
    answer: dict[str, Any] = {"peak_bytes": None if base is None or peak is None else max(0, peak - base)}
    placed = request["placed"].get(path) or place(runtime, request, path)
    return {
        **answer,
        **({} if placed is None else {"placement": placed, **unseen_memory(placed)}),
        "window": window,
        "runs": timed.count,
        "probed_s": round(probe_samples.taken_ns / 1e9, 6) if probe_samples else 0.0,
        "samples_ms": [round(ns / 1e6, 6) for ns in timed.samples],
        "probe_ms": [round(ns / 1e6, 7) for ns in timed.probe_times],
        "load_ms": round(load_ns / 1e6, 6),
        "running_s": round(window[1] - begun, 6),
        "interrupted": timed.interrupted,
        "interrupted_share": round(len(timed.interrupted) / len(timed.samples), 4),
    }


def probed(request: dict[str, Any]) -> bool:
    """Whether models run on the CPU alone, whose pace can be told."""
    return all(provider in IN_PROCESS for provider in request["providers"])


def place(runtime: Any, request: dict[str, Any], path: str) -> dict[str, int] | None:
    """How many nodes each provider runs; None where there is but one, empty where the runtime does not say.

    Done after the timing, which it would disturb.
    """
    try:
        found: dict[str, int] | None = runtime.placement(path, request) if hasattr(runtime, "placement") else None
    except Exception:
        return {}
    return found


def unseen_memory(placed: dict[str, int]) -> dict[str, Any]:
    """That the peak is not known where a provider has memory that the process's peak leaves out."""
    others = sorted(set(placed) - set(IN_PROCESS)) if placed else ["providers that are not known"]
    if not others:
        return {}
    return {"peak_bytes": None, "memory_reason": f"not measured: VmHWM does not see the memory of {', '.join(others)}"}


def outputs(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Run one model once on the arrays of a file and store what it makes of them in another."""
    import numpy as np

    with np.load(model["inputs"], allow_pickle=False) as given:
        inputs = [given[f"arr_{number}"] for number in range(len(given.files))]
    found = runtime.outputs(runtime.load(model["path"], request), inputs)
    np.savez(model["outputs"], *found)
    return {"outputs": len(found)}


def reset_peak_memory() -> None:
    """Let VmHWM begin anew at what the process holds now (Linux, proc(5): clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def bring_in_code(folder: str) -> None:
    """Have the code of a library in memory, so that it counts for no model, whichever of it that runs.

    What comes with a page that is touched depends on how the kernel cached the
    file just then, by megabytes. The kernel names files without links.
    """
    inside = os.path.realpath(folder) + "/"
    for line in read(Path("/proc/self/maps")).splitlines():
        area = MAPPED.match(line)
        if area and area.group(3).startswith(inside):
            first, last = (int(address, 16) for address in area.group(1, 2))
            if last - first <= MOST_CODE:
                code = (ctypes.c_char * (last - first)).from_address(first)
                memoryview(code)[::PAGE].tobytes()


def die_with(parent: int) -> None:
    """End this process when the agent does, also when it is killed."""
    try:
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        os._exit(1)


def child(runtime: Any, request: dict[str, Any], model: dict[str, Any], parent: int, result: int, errors: int) -> None:
    """The whole life of a model's process: it writes one JSON object and ends."""
    die_with(parent)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    try:
        if request.get("affinity"):
            os.sched_setaffinity(0, request["affinity"])
        answer = (outputs if request.get("mode") == "outputs" else measure)(runtime, request, model)
    except MemoryError as error:
        answer = {"reason": "out of memory", "detail": one_line(error) or "MemoryError"}
    except Exception as error:
        said = str(error).replace(model["path"], Path(model["path"]).name)
        detail = one_line(said) or type(error).__name__
        answer = {"reason": reason_of(str(error)), "detail": detail}
    with open(result, "w") as file:
        json.dump(answer, file)
    os._exit(0)


def reason_of(detail: str) -> str:
    """What a runtime's complaint is about."""
    said = detail.lower()
    if any(words in said for words in OUT_OF_MEMORY):
        return "out of memory"
    return "too old" if any(words in said for words in TOO_OLD) else "refused"


# -- the agent, which never touches a model itself ---------------------------------


def fork(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> tuple[int, int, int]:
    """Start a model's process: its number and the pipes of its answer and of its noise."""
    result, result_end = os.pipe()
    errors, errors_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            child(runtime, request, model, parent, result_end, errors_end)
        finally:
            os._exit(70)
    os.close(result_end)
    os.close(errors_end)
    return pid, result, errors


def supervise(pid: int, result: int, errors: int, seconds: float, watch: Any) -> tuple[bytes, str, int, bool]:
    """Wait for a process: its answer, the end of its noise, its wait status, and whether it ran out of time."""
    end = time.monotonic() + seconds
    watch.begin()
    kept = {result: b"", errors: b""}
    waiting = [0, result, errors]
    try:
        while len(waiting) > 1 and time.monotonic() < end:
            watch.read()
            for pipe in select.select(waiting, [], [], max(0.0, min(watch.seconds, end - time.monotonic())))[0]:
                data = os.read(pipe, 65536)
                if pipe == 0 and not data:
                    raise HostGoneError
                if pipe and not data:
                    waiting.remove(pipe)
                elif pipe:
                    kept[pipe] = (kept[pipe] + data)[-TAIL:] if pipe == errors else kept[pipe] + data
        late = len(waiting) > 1
    finally:
        if len(waiting) > 1:
            os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        os.close(result)
        os.close(errors)
    return kept[result], kept[errors].decode(errors="replace"), status, late


def failure_of(answer: bytes, noise: str, status: int, late: bool, seconds: float, memory_kills: int) -> dict[str, Any]:
    """What became of a model, from how its process ended."""
    last = one_line(noise.strip().rpartition("\n")[2])
    if late:
        return {"reason": "timeout", "detail": f"did not end within {seconds:g} s"}
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        if name == "SIGKILL" and memory_kills < count_memory_kills():
            return {"reason": "out of memory", "detail": "the kernel killed it for want of memory"}
        return {"reason": "crashed", "detail": f"its process was killed by {name}" + (f": {last}" if last else "")}
    try:
        found: dict[str, Any] = json.loads(answer)
        return found
    except ValueError:
        code = os.WEXITSTATUS(status)
        return {"reason": "crashed", "detail": f"its process ended with status {code}" + (f": {last}" if last else "")}


def examine(
    runtime: Any, request: dict[str, Any], model: dict[str, Any], watch: Any, baseline_probe_ms: float | None
) -> dict[str, Any]:
    """Measure one model in a process of its own and say what became of it."""
    seconds, started = request["settings"]["model_timeout_seconds"], time.monotonic()
    before, kills = watch.conditions(), count_memory_kills()
    pid, result, errors = fork(runtime, request, model)
    found = failure_of(*supervise(pid, result, errors, seconds, watch), seconds, kills)
    after = {**watch.conditions(), "interrupted_share": found.pop("interrupted_share", None)}
    if "window" in found:
        window, runs, probed_s = (found.pop(key) for key in ("window", "runs", "probed_s"))
        after["lowest_frequency_khz"] = watch.lowest_frequency(window)
        after["baseline_probe_ms"] = baseline_probe_ms if found["probe_ms"] else None
        found.update(watch.energy(window, runs, probed_s))
    if "placement" in found:
        request["placed"][model["path"]] = found["placement"]
    answer = {"kind": "failed" if "reason" in found else "result", "id": model["id"]}
    answer.update(found, device_s=round(time.monotonic() - started, 6))
    answer.update(conditions_before=before, conditions_after=after)
    return answer


def count_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory."""
    for line in read(Path("/proc/vmstat")).splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def read(path: Path) -> str:
    """A small file's text, empty when it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def one_line(value: object) -> str:
    """Text on one line; of a long one the beginning and the end, where one library or the other says what is wrong."""
    line = " ".join(str(value).split())
    return line if len(line) <= 400 else f"{line[:160]} ... {line[-235:]}"


# -- the protocol ------------------------------------------------------------------


def receive() -> dict[str, Any]:
    """The request: everything up to the first line feed of standard input."""
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(0, 65536)
        if not more:
            raise HostGoneError
        data += more
    request: dict[str, Any] = json.loads(data)
    return request


def open_answers() -> TextIO:
    """A private way to standard output; whatever a runtime prints goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def unusable(cores: list[int]) -> str | None:
    """What is wrong with CPUs that are not there, or that this process may not use; None where nothing is."""
    usable = os.sched_getaffinity(0) if cores else set()
    absent = sorted(set(cores) - usable)
    if not absent:
        return None
    return f"CPU {', '.join(map(str, absent))} of the affinity cannot be used here, only {sorted(usable)}"


def keep_off(cores: list[int]) -> None:
    """Leave the CPUs of the models to them, where there are others."""
    others = os.sched_getaffinity(0) - set(cores) if cores else set()
    if others:
        os.sched_setaffinity(0, others)


def serve(answers: TextIO) -> int:
    """Answer one request; returns the exit status."""

    def send(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    request = receive()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    request["placed"] = {}
    problem = unusable(request.get("affinity") or [])
    if problem:
        send(kind="unable", reason="affinity", detail=problem)
        return 1
    try:
        runtime = importlib.import_module("runtime_" + request["runtime"])
        version = runtime.start(request)
    except Exception as error:
        send(kind="unable", detail=one_line(error))
        return 1
    versions = {"python": platform.python_version(), request["runtime"]: version}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    send(kind="hello", versions=versions, facts={"usable_cores": usable})
    watch = importlib.import_module("board").BoardMonitor(Path(request.get("sysroot", "/")), request.get("affinity"))
    watch.settle()
    keep_off(request.get("affinity") or [])
    importlib.import_module("sampling").half_width([1.0, 2.0])  # before the forks, which share what that loads
    probe_times = importlib.import_module("speed_probe").BaselineSpeeds(request, version)
    usual_ms = probe_times.usual_ms
    gc.freeze()
    failed: dict[str, dict[str, Any]] = {}
    try:
        for model in request["models"]:
            answer = failed.get(model["path"]) or examine(runtime, request, model, watch, usual_ms)
            if answer["kind"] == "failed":
                failed[model["path"]] = answer
            send(**{**answer, "id": model["id"]})
            probe_times.add(answer.get("probe_ms"))
    finally:
        probe_times.write()
    send(kind="end", count=len(request["models"]))
    return 0


def main() -> int:
    try:
        return serve(open_answers())
    except (HostGoneError, BrokenPipeError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
