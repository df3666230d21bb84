"""The agent as a process, with a runtime whose models misbehave on purpose."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenas.on_device import agent
from edgenas.profilers import MeasureSettings

QUICK = MeasureSettings(max_runs=20, min_seconds=0, max_seconds=0.2, warmup_seconds=0.1, model_timeout_seconds=60)
IMPATIENT = replace(QUICK, model_timeout_seconds=5)


def request(folder: Path, models: list[str], **changes: Any) -> bytes:
    """A request line for model files with these words in them."""
    paths = []
    for number, words in enumerate(models):
        path = folder / f"{number}.toy"
        path.write_text(words)
        paths.append({"id": number, "path": str(path)})
    fields = {"runtime": "toy", "providers": [], "threads": 1, "settings": QUICK.to_dict(), "models": paths}
    return json.dumps({**fields, **changes}).encode() + b"\n"


@contextmanager
def started(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, str(path)], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def answers(path: Path, data: bytes) -> list[dict[str, Any]]:
    """All that the agent answers while its standard input stays open."""
    with started(path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(data)
        process.stdin.flush()
        return [json.loads(line) for line in process.stdout]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def only_child(pid: int) -> int:
    """The one process that the agent has begun, as soon as it is there."""
    for _ in range(6000):
        if found := children(pid):
            (child,) = found
            return child
        time.sleep(0.01)
    raise AssertionError("the agent began no process within a minute")


def is_gone(pid: int) -> bool:
    """Return whether the process ends within a minute; a zombie that nobody reaps has ended."""
    for _ in range(6000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_a_batch_is_answered_in_order(toy_agent: Path) -> None:
    """Hello, a result for each model, and the count; what the runtime prints does not mix with it."""
    got = answers(toy_agent, request(toy_agent.parent, ["run", "run 0.001"]))
    assert [answer["kind"] for answer in got] == ["hello", "result", "result", "end"]
    assert got[0]["versions"]["toy"] == "1.0"
    assert [answer["id"] for answer in got[1:3]] == [0, 1]
    assert got[3]["count"] == 2
    assert all(sample >= 1.0 for sample in got[2]["samples_ms"])
    assert got[2]["running_s"] >= 0.001 * len(got[2]["samples_ms"])
    assert got[1]["conditions_before"]["time"] <= got[1]["conditions_after"]["time"]


@pytest.mark.parametrize(
    ("words", "reason", "detail"),
    [
        ("abort", "crashed", "its process was killed by SIGABRT: the reason why"),
        ("exit 3", "crashed", "its process ended with status 3"),
        ("memory", "out of memory", "MemoryError"),
        ("bad_alloc", "out of memory", "std::bad_alloc"),
        ("refuse", "refused", "no such operator"),
        ("refuse_run", "failed run", "invalid literal for int() with base 10: 'not these'"),
        ("run 600", "timeout", "did not end within 5 s"),
    ],
)
def test_a_bad_model_costs_one_answer(toy_agent: Path, words: str, reason: str, detail: str) -> None:
    """A model that goes wrong, in any way, is answered with the reason, and the next one is measured."""
    settings = (IMPATIENT if reason == "timeout" else QUICK).to_dict()
    got = answers(toy_agent, request(toy_agent.parent, [words, "run"], settings=settings))
    assert (got[1]["kind"], got[1]["reason"], got[1]["detail"]) == ("failed", reason, detail)
    assert [answer["kind"] for answer in got[2:]] == ["result", "end"]


def test_a_fault_of_the_agent_is_told_from_the_runtimes(toy_agent: Path) -> None:
    """Arrays that are not where they were sent are no fault of the model."""
    data = request(toy_agent.parent, ["run"], inputs={"arrays": str(toy_agent.parent / "absent.npz")})
    failed = answers(toy_agent, data)[1]
    assert (failed["kind"], failed["reason"]) == ("failed", "agent")
    assert failed["detail"].startswith("FileNotFoundError: ")


def test_a_runtime_that_runs_nothing_is_told_from_a_bad_model(toy_agent: Path) -> None:
    """Where not even the empty session can be made, the model is not the reason."""
    failed = answers(toy_agent, request(toy_agent.parent, ["run"], providers=["broken"]))[1]
    assert (failed["kind"], failed["reason"], failed["detail"]) == ("failed", "broken runtime", "no such device")


@pytest.mark.parametrize(
    ("providers", "threads", "share"), [(["CPUExecutionProvider"], 1, 1.0), (["CPUExecutionProvider"], 2, 0.0)]
)
def test_waiting_is_an_interruption_where_one_thread_computes(
    toy_agent: Path, providers: list[str], threads: int, share: float
) -> None:
    """Runs that only sleep have lost all their time; where others may compute, waiting is no loss."""
    settings = replace(QUICK, min_runs=2, max_runs=2, warmup_runs=1, warmup_seconds=0).to_dict()
    data = request(toy_agent.parent, ["run 0.3"], providers=providers, threads=threads, settings=settings)
    assert answers(toy_agent, data)[1]["conditions_after"]["interrupted_share"] == share


def test_a_flood_of_noise_does_not_block(toy_agent: Path) -> None:
    """5 MB on a model's standard error are drained."""
    got = answers(toy_agent, request(toy_agent.parent, ["flood"]))
    assert [answer["kind"] for answer in got] == ["hello", "result", "end"]


def test_a_missing_runtime_is_said(toy_agent: Path) -> None:
    """A runtime that cannot be imported is answered, not a traceback."""
    got = answers(toy_agent, request(toy_agent.parent, ["run"], runtime="absent"))
    assert [answer["kind"] for answer in got] == ["unable"]
    assert "runtime_absent" in got[0]["detail"]


def test_a_provider_that_was_not_built_is_refused(toy_agent: Path) -> None:
    """The runtime would fall back to the CPU in silence; the agent says which providers there are."""
    data = request(toy_agent.parent, ["run"], runtime="onnxruntime", providers=["NoSuchProvider"])
    got = answers(toy_agent, data)
    assert got[0]["kind"] == "unable"
    assert got[0]["detail"].startswith("onnxruntime here has no NoSuchProvider; it has ")


def test_the_agent_ends_when_its_input_does(toy_agent: Path) -> None:
    """When the other side goes away in mid-run, neither the agent nor the model's process stays."""
    with started(toy_agent) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request(toy_agent.parent, ["run 50"]))
        process.stdin.flush()
        process.stdout.readline()
        child = only_child(process.pid)
        process.stdin.close()
        assert process.wait(60) == 1
    assert is_gone(child)


def test_a_killed_agent_takes_its_child_along(toy_agent: Path) -> None:
    """SIGKILL of the agent leaves no model running."""
    with started(toy_agent) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request(toy_agent.parent, ["run 50"]))
        process.stdin.flush()
        process.stdout.readline()
        child = only_child(process.pid)
        process.send_signal(signal.SIGKILL)
        assert is_gone(child)


def test_no_request_ends_it(toy_agent: Path) -> None:
    """An input that ends before a request came ends the agent without an answer."""
    done = subprocess.run([sys.executable, str(toy_agent)], input=b"", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_it_is_standalone_python_3_8() -> None:
    """What is sent to a device parses as Python 3.8 and imports nothing of edgenas."""
    folder = Path(agent.__file__).parent
    sources = sorted(set(folder.glob("*.py")) - {folder / "worker.py"})  # it is sent together with its modules
    assert len(sources) >= 9
    for source in sources:
        tree = ast.parse(source.read_text(), feature_version=(3, 8))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [name for name in names if name.startswith("edgenas")]


def test_a_model_may_occur_several_times(toy_agent: Path) -> None:
    """The same file twice is measured in two processes; one that failed is not run again, but answered the same."""
    data = json.loads(request(toy_agent.parent, ["run", "abort"]))
    good, bad = (model["path"] for model in data["models"])
    data["models"] = [{"id": number, "path": path} for number, path in enumerate([good, bad, good, bad])]
    started = time.monotonic()
    got = answers(toy_agent, json.dumps(data).encode() + b"\n")
    assert [answer["kind"] for answer in got] == ["hello", "result", "failed", "result", "failed", "end"]
    assert [answer["id"] for answer in got[1:5]] == [0, 1, 2, 3]
    assert got[1]["samples_ms"] != got[3]["samples_ms"]
    assert got[2]["conditions_before"] == got[4]["conditions_before"]
    assert time.monotonic() - started < 60


def test_a_kill_without_a_memory_kill_is_a_crash() -> None:
    """SIGKILL counts as want of memory only when the kernel says that it killed for it."""
    status = int(signal.SIGKILL)
    assert os.WIFSIGNALED(status)
    kills = agent.read_memory_kill_count()
    assert agent.interpret_process_result(b"", "", status, False, 1, kills)["reason"] == "crashed"
    assert agent.interpret_process_result(b"", "", status, False, 1, kills - 1)["reason"] == "out of memory"
