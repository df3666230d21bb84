"""Runs models on a device and answers with raw samples. Sent there as a file, beside one file per runtime.

Python 3.8, standard library, numpy and a runtime only; never imports edgenas.
Standard input: one JSON line ``{"runtime", "providers", "threads", "settings",
"models": [{"id", "path"}]}``, and then nothing: its end is the sign that the
other side is gone, upon which everything here ends. Standard output: JSON
lines, each sent at once: ``hello``, for each model in order ``result`` or
``failed``, then ``end`` with the count. ``unable`` stands for a device that
cannot measure at all. A process per model, forked after the runtime was
imported, so that a model that aborts costs one answer and no start-up.

A runtime is a file ``agent_<name>.py`` with ``start(providers)`` -> version,
``empty(providers)`` -> a session to measure memory above,
``load(path, threads, providers)`` -> session, ``prepare(session, seed)`` -> a
function that runs it once.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import platform
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

SEED = 0
TAIL = 4096
WARM_SECONDS = 0.03
BLOCKS = 10
# 97.5% quantiles of Student's t with 1 to 9 degrees of freedom.
STUDENT_T = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)
OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "failed to allocate memory", "cannot allocate memory")


class HostGoneError(Exception):
    """Standard input ended: nobody waits for answers any more."""


# -- sampling, in the model's own process ------------------------------------------


def half_width(samples: list[int]) -> float:
    """Half the 95% interval of the median, relative to it, by sectioning: see edgenas.profilers.statistics."""
    import numpy as np

    blocks = min(BLOCKS, len(samples))
    median = float(np.median(samples))
    parts = [float(np.median(part)) for part in np.array_split(samples, blocks)]
    variance = sum((part - median) ** 2 for part in parts) / (blocks - 1)
    return STUDENT_T[blocks - 2] * math.sqrt(variance / blocks) / median


def warm_up(run: Callable[[], Any], settings: dict[str, Any]) -> int:
    """Run until five runs are no longer faster than the five before, within bounds; nanoseconds of a run then."""
    spent: list[int] = []
    started = time.perf_counter()
    while True:
        before = time.perf_counter_ns()
        run()
        spent.append(time.perf_counter_ns() - before)
        seconds = time.perf_counter() - started
        if len(spent) < settings["warmup_runs"] or seconds < min(WARM_SECONDS, settings["warmup_seconds"]):
            continue
        latest = sorted(spent[-5:])[len(spent[-5:]) // 2]
        stable = len(spent) >= 10 and latest >= 0.98 * sorted(spent[-10:-5])[2]
        if stable or seconds >= settings["warmup_seconds"]:
            return latest


def sample(run: Callable[[], Any], expected_ns: int, settings: dict[str, Any]) -> tuple[list[int], int]:
    """Nanoseconds of single runs, until their median is known well enough or time or runs are used up; and all runs.

    Where max_runs would not span min_seconds, runs that are not kept lie between those that are.
    """
    skipped = int(settings["min_seconds"] * 1e9 / max(1, settings["max_runs"] * expected_ns))
    clock = time.perf_counter_ns
    samples: list[int] = []
    check, started = settings["min_runs"], clock()
    while len(samples) < settings["max_runs"]:
        for _ in range(skipped):
            run()
        before = clock()
        run()
        after = clock()
        samples.append(after - before)
        seconds = (after - started) / 1e9
        if len(samples) < settings["min_runs"]:
            continue
        if seconds >= settings["max_seconds"]:
            break
        if len(samples) >= check:
            if seconds >= settings["min_seconds"] and half_width(samples) <= settings["relative_half_width"]:
                break
            check = len(samples) + 1 + len(samples) // 5
    return samples, len(samples) * (1 + skipped)


def memory(key: str) -> int | None:
    """A line of /proc/self/status in bytes, None where there is none."""
    for line in (text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def measure(runtime: Any, request: dict[str, Any], path: str) -> dict[str, Any]:
    """Load and run one model; memory is the peak above a process with an empty session."""
    settings = request["settings"]
    session = runtime.empty(request["providers"])
    reset_peak_memory()
    base = memory("VmHWM")
    before = time.perf_counter_ns()
    model = runtime.load(path, request["threads"], request["providers"])
    load_ns = time.perf_counter_ns() - before
    run = runtime.prepare(model, SEED)
    gc.collect()
    gc.disable()
    expected_ns, before = warm_up(run, settings), interruptions()
    samples, runs = sample(run, expected_ns, settings)
    interrupted = interruptions() - before
    peak = memory("VmHWM")
    del session
    return {
        "samples_ms": [round(ns / 1e6, 6) for ns in samples],
        "peak_bytes": None if base is None or peak is None else max(0, peak - base),
        "load_ms": round(load_ns / 1e6, 6),
        "interrupted_share": round(min(1.0, interrupted / runs), 4),
    }


def interruptions() -> int:
    """How often this process had to leave its CPU to another."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def reset_peak_memory() -> None:
    """Let VmHWM begin anew at what the process holds now (Linux, proc(5): clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def die_with(parent: int) -> None:
    """End this process when the agent does, also when it is killed."""
    try:
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        os._exit(1)


def child(runtime: Any, request: dict[str, Any], path: str, parent: int, result: int, errors: int) -> None:
    """The whole life of a model's process: it writes one JSON object and ends."""
    die_with(parent)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    try:
        answer = measure(runtime, request, path)
    except MemoryError as error:
        answer = {"reason": "out of memory", "detail": one_line(error) or "MemoryError"}
    except Exception as error:
        detail = one_line(error) or type(error).__name__
        short = any(word in detail.lower() for word in OUT_OF_MEMORY)
        answer = {"reason": "out of memory" if short else "refused", "detail": detail}
    with open(result, "w") as file:
        json.dump(answer, file)
    os._exit(0)


# -- the agent, which never touches a model itself ---------------------------------


def fork(runtime: Any, request: dict[str, Any], path: str) -> tuple[int, int, int]:
    """Start a model's process: its number and the pipes of its answer and of its noise."""
    result, result_end = os.pipe()
    errors, errors_end = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            child(runtime, request, path, parent, result_end, errors_end)
        finally:
            os._exit(70)
    os.close(result_end)
    os.close(errors_end)
    return pid, result, errors


def supervise(pid: int, result: int, errors: int, seconds: float) -> tuple[bytes, str, int, bool]:
    """Wait for a process: its answer, the end of its noise, its wait status, and whether it ran out of time."""
    end = time.monotonic() + seconds
    kept = {result: b"", errors: b""}
    waiting = [0, result, errors]
    try:
        while len(waiting) > 1 and time.monotonic() < end:
            for pipe in select.select(waiting, [], [], max(0.0, end - time.monotonic()))[0]:
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


def judge(answer: bytes, noise: str, status: int, late: bool, seconds: float, memory_kills: int) -> dict[str, Any]:
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


def examine(runtime: Any, request: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Measure one model in a process of its own and say what became of it."""
    seconds, started = request["settings"]["model_timeout_seconds"], time.monotonic()
    before, kills = conditions(), count_memory_kills()
    pid, result, errors = fork(runtime, request, model["path"])
    found = judge(*supervise(pid, result, errors, seconds), seconds, kills)
    after = {**conditions(), "interrupted_share": found.pop("interrupted_share", None)}
    answer = {"kind": "failed" if "reason" in found else "result", "id": model["id"]}
    answer.update(found, device_s=round(time.monotonic() - started, 6))
    answer.update(conditions_before=before, conditions_after=after)
    return answer


# -- what the device says about itself ---------------------------------------------


def conditions(root: Path = Path("/")) -> dict[str, Any]:
    """What changes from minute to minute, None where the device does not say."""
    cpus, zones = root / "sys/devices/system/cpu", root / "sys/class/thermal"
    governors = sorted(set(texts(cpus, "cpu[0-9]*/cpufreq/scaling_governor")))
    heat = [value / 1000 for value in numbers(zones, "thermal_zone*/temp")]
    throttled = numbers(cpus, "cpu[0-9]*/thermal_throttle/core_throttle_count")
    load = (text(root / "proc/loadavg") or "").split()
    return {
        "time": round(time.time(), 3),
        "governor": ",".join(governors) or None,
        "frequency_khz": max(numbers(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq"), default=None),
        "temperature_c": max((value for value in heat if -40 < value < 150), default=None),
        "throttle_count": sum(throttled) if throttled else None,
        "load_average": float(load[0]) if load else None,
    }


def count_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory."""
    for line in (text(Path("/proc/vmstat")) or "").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def text(path: Path) -> str | None:
    """A small file's text, None when it cannot be read."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return None


def texts(folder: Path, pattern: str) -> list[str]:
    """The texts, without blanks around them, of all files of a pattern that can be read."""
    found = [text(path) for path in sorted(folder.glob(pattern))]
    return [one.strip() for one in found if one and one.strip()]


def numbers(folder: Path, pattern: str) -> list[int]:
    """The whole numbers in the files of a pattern."""
    return [int(one) for one in texts(folder, pattern) if one.lstrip("-").isdigit()]


def one_line(value: object) -> str:
    """Text on one line, shortened."""
    return " ".join(str(value).split())[:400]


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


def serve(answers: TextIO) -> int:
    """Answer one request; returns the exit status."""

    def send(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    request = receive()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        runtime = importlib.import_module("agent_" + request["runtime"])
        version = runtime.start(request["providers"])
    except Exception as error:
        send(kind="unable", detail=one_line(error))
        return 1
    versions = {"python": platform.python_version(), request["runtime"]: version}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    send(kind="hello", versions=versions, facts={"usable_cores": usable})
    gc.freeze()
    for model in request["models"]:
        send(**examine(runtime, request, model))
    send(kind="end", count=len(request["models"]))
    return 0


def main() -> int:
    try:
        return serve(open_answers())
    except (HostGoneError, BrokenPipeError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
