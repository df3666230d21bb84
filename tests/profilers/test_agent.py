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
from pathlib import Path
from typing import Any

import pytest

from edgenas.profilers import MeasureSettings, agent
from edgenas.profilers.statistics import median_interval

QUICK = MeasureSettings(max_runs=20, min_seconds=0, max_seconds=0.2, warmup_seconds=0.1, model_timeout_seconds=1)


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


def is_gone(pid: int) -> bool:
    """Whether the process ends within five seconds; a zombie that nobody reaps has ended."""
    for _ in range(500):
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
    assert all(1.0 <= sample < 100 for sample in got[2]["samples_ms"])
    assert got[1]["conditions_before"]["time"] <= got[1]["conditions_after"]["time"]


@pytest.mark.parametrize(
    ("words", "reason", "detail"),
    [
        ("abort", "crashed", "its process was killed by SIGABRT: the reason why"),
        ("exit 3", "crashed", "its process ended with status 3"),
        ("memory", "out of memory", "MemoryError"),
        ("bad_alloc", "out of memory", "std::bad_alloc"),
        ("refuse", "refused", "no such operator"),
        ("run 5", "timeout", "did not end within 1 s"),
    ],
)
def test_a_bad_model_costs_one_answer(toy_agent: Path, words: str, reason: str, detail: str) -> None:
    """A model that goes wrong, in any way, is answered with the reason, and the next one is measured."""
    got = answers(toy_agent, request(toy_agent.parent, [words, "run"]))
    assert (got[1]["kind"], got[1]["reason"], got[1]["detail"]) == ("failed", reason, detail)
    assert [answer["kind"] for answer in got[2:]] == ["result", "end"]


def test_a_flood_of_noise_does_not_block(toy_agent: Path) -> None:
    """5 MB on a model's standard error are drained."""
    got = answers(toy_agent, request(toy_agent.parent, ["flood"]))
    assert [answer["kind"] for answer in got] == ["hello", "result", "end"]


def test_a_missing_runtime_is_said(toy_agent: Path) -> None:
    """A runtime that cannot be imported is answered, not a traceback."""
    got = answers(toy_agent, request(toy_agent.parent, ["run"], runtime="absent"))
    assert [answer["kind"] for answer in got] == ["unable"]
    assert "agent_absent" in got[0]["detail"]


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
        process.stdin.write(request(toy_agent.parent, ["run 0.9"]))
        process.stdin.flush()
        process.stdout.readline()
        time.sleep(0.2)
        (child,) = children(process.pid)
        process.stdin.close()
        assert process.wait(5) == 1
    assert is_gone(child)


def test_a_killed_agent_takes_its_child_along(toy_agent: Path) -> None:
    """SIGKILL of the agent leaves no model running."""
    with started(toy_agent) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request(toy_agent.parent, ["run 0.9"]))
        process.stdin.flush()
        process.stdout.readline()
        time.sleep(0.2)
        (child,) = children(process.pid)
        process.send_signal(signal.SIGKILL)
        assert is_gone(child)


def test_no_request_ends_it(toy_agent: Path) -> None:
    """An input that ends before a request came ends the agent without an answer."""
    done = subprocess.run([sys.executable, str(toy_agent)], input=b"", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_it_is_standalone_python_3_8() -> None:
    """What is sent to a device parses as Python 3.8 and imports nothing of edgenas."""
    folder = Path(agent.__file__).parent
    sources = sorted(folder.glob("agent*.py"))
    assert len(sources) >= 2
    for source in sources:
        tree = ast.parse(source.read_text(), feature_version=(3, 8))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [name for name in names if name.startswith("edgenas")]


def test_it_stops_by_the_rule_that_the_host_reports() -> None:
    """The agent's half-width is that of the published interval."""
    samples = [1000 + 37 * (number * 7 % 13) for number in range(53)]
    median, low, _ = median_interval([float(sample) for sample in samples])
    assert agent.half_width(samples) == pytest.approx((median - low) / median, rel=1e-12)


def test_sampling_respects_its_bounds() -> None:
    """At least min_runs although time is up; at most max_runs although nothing is known."""
    slow = {**QUICK.to_dict(), "min_runs": 4, "max_seconds": 0.001, "min_seconds": 0.0}
    assert len(agent.sample(lambda: time.sleep(0.002), 2_000_000, slow)[0]) == 4
    fast = {**QUICK.to_dict(), "relative_half_width": 1e-9, "max_runs": 25, "max_seconds": 10}
    assert len(agent.sample(lambda: None, 100, fast)[0]) == 25


def test_fast_runs_are_spread_over_the_least_time() -> None:
    """Ten samples of 1 ms that must span 50 ms are every sixth run: five lie between them."""
    runs: list[None] = []
    settings = {**QUICK.to_dict(), "min_seconds": 0.05, "max_seconds": 10, "max_runs": 10, "min_runs": 10}
    assert len(agent.sample(lambda: runs.append(None), 1_000_000, settings)[0]) == 10
    assert len(runs) == 60


def test_warm_up_goes_on_while_it_gets_faster() -> None:
    """Runs that still get faster are not counted; it ends when five are no faster than the five before."""
    sleeps = [0.02] * 5 + [0.01] * 5 + [0.005] * 100
    left = iter(sleeps)
    agent.warm_up(lambda: time.sleep(next(left)), {"warmup_runs": 3, "warmup_seconds": 30})
    assert 100 - 12 <= len(list(left)) <= 100 - 5


def test_conditions_come_from_the_system(tmp_path: Path) -> None:
    """Governor, highest frequency, hottest zone, throttling of all cores, and load, from a recorded tree."""
    tree = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1800000\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "2\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "3\n",
        "sys/class/thermal/thermal_zone0/temp": "48312\n",
        "sys/class/thermal/thermal_zone1/temp": "-274000\n",
        "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
    }
    for name, content in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = agent.conditions(tmp_path)
    del found["time"]
    assert found == {
        "governor": "ondemand,performance",
        "frequency_khz": 1_800_000,
        "temperature_c": 48.312,
        "throttle_count": 5,
        "load_average": 0.52,
    }


def test_a_silent_system_gives_none(tmp_path: Path) -> None:
    """What a machine does not say is None, never a guess."""
    found = agent.conditions(tmp_path)
    assert [key for key, value in found.items() if value is not None] == ["time"]


def test_a_kill_without_a_memory_kill_is_a_crash() -> None:
    """SIGKILL counts as want of memory only when the kernel says that it killed for it."""
    status = int(signal.SIGKILL)
    assert os.WIFSIGNALED(status)
    kills = agent.count_memory_kills()
    assert agent.judge(b"", "", status, False, 1, kills)["reason"] == "crashed"
    assert agent.judge(b"", "", status, False, 1, kills - 1)["reason"] == "out of memory"
