"""The agent: runs models on a device, each in a process of its own, and answers with raw samples.

It is sent to the device as a file, beside others that it imports and one for each runtime. Python 3.8, standard
library, numpy and a runtime only; never imports edgenas.

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
- ``profile_operators(path, request, inputs, runs, warmup_runs, graph)`` returns the operators in the order they ran,
  each with name, type, provider, shapes of inputs and outputs, and us, its median time in a run or None. It may store
  the graph that really ran in the file ``graph``. Without it models of the runtime cannot be compared by operators.

and these names, where they differ from the defaults:

- ``IN_PROCESS``: providers whose memory is the process's own and that run on the CPU; by default the CPU's.
- ``TOO_OLD``: words, in lower case, of messages that say that a model needs a newer version; by default none.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import platform
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

STDERR_KEPT = 4096


class HostGoneError(Exception):
    """Standard input ended: the host is gone."""


# -- a model's process, seen from outside -------------------------------------------


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
            process = importlib.import_module("model_process")
            process.run_model_and_exit(runtime, request, model, parent, result_end, errors_end)
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
    except ValueError:
        code = os.WEXITSTATUS(status)
        return {"reason": "crashed", "detail": f"its process ended with status {code}" + (f": {last}" if last else "")}
    return {**parsed, "detail": shorten(parsed["detail"])} if "detail" in parsed else parsed


def read_memory_kill_count() -> int:
    """Return how many processes the kernel has killed for want of memory."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


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

    forget_addresses()
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
    # Before the forks, which share what these load.
    importlib.import_module("model_process").warm_up_inputs()
    importlib.import_module("sampling").relative_half_width([1.0, 2.0])
    gc.freeze()
    failed: dict[str, dict[str, Any]] = {}
    for model in request["models"]:
        answer = failed.get(model["path"]) or measure_in_child_process(runtime, request, model, board)
        if answer["kind"] == "failed":
            failed[model["path"]] = answer
        send(**{**answer, "id": model["id"]})
    send(kind="end", count=len(request["models"]))
    return 0


def forget_addresses() -> None:
    """Forget the addresses of proxies and of pip's indexes, which may hold passwords: a model file may be hostile."""
    for name in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        del os.environ[name]


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
