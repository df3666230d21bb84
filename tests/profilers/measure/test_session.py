"""Measuring sessions: with the real agent and the real runtime, and what they connect to, lock and close."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile, Target
from edgenas.devices.fake import FakeBoard, FakeDevice, Reply, Request, simulate_agent
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.profilers import (
    Measurement,
    MeasurementResult,
    MeasureSettings,
    MeasuringRounds,
    MeasuringSession,
    measure_model,
)

QUICK = MeasureSettings(max_seconds=0.3, min_seconds=0, max_runs=50, warmup_seconds=0.05)
# Every process takes 2 s, or a minute, however precise it is before.
SECONDS = MeasureSettings(relative_half_width=1e-9, min_seconds=2, max_seconds=2)
LONG = MeasureSettings(relative_half_width=1e-9, min_seconds=60, max_seconds=60)


def processes_of(folder: Path) -> list[int]:
    """The processes that run a file in this folder, the agent first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if f"{folder}/" in command and "agent.py" in command:
                found.append(int(entry.name))
    return sorted(found)


def folders(work: Path) -> list[Path]:
    """Work folders that are left; the lock's file stays."""
    return [path for path in work.iterdir() if path.is_dir()]


def wait_for(check: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def message(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


@pytest.fixture
def session(target: Target) -> Iterator[MeasuringSession]:
    """A session on this machine."""
    with MeasuringSession(target) as session:
        yield session


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[FakeDevice]:
    """The fake devices that sessions have connected to."""
    devices: list[FakeDevice] = []

    def connect(profile: DeviceProfile) -> FakeDevice:
        devices.append(FakeDevice())
        return devices[-1]

    monkeypatch.setattr("edgenas.profilers.measure.session.connect_device", connect)
    return devices


def test_a_model_is_measured(conv: Path, target: Target, work: Path) -> None:
    """A measurement says which file ran where, how long single runs took, and leaves nothing behind."""
    got = measure_model(conv, target, QUICK)
    assert got.model_sha256 == hashlib.sha256(conv.read_bytes()).hexdigest()
    assert got.target == target.to_dict()
    assert [each.round for each in got.measurements] == list(range(len(got.measurements)))
    for each in got.measurements:
        assert 10 <= len(each.samples_ms) <= 50
        assert min(each.runs_ms) <= each.median_ms <= each.p90_ms <= max(each.runs_ms)
        assert each.facts["usable_cores"] == len(os.sched_getaffinity(0))
        assert each.versions["onnxruntime"]
        assert each.settings == QUICK.to_dict()
    assert got.interval_ms[0] <= got.median_ms <= got.interval_ms[1]
    assert not got.synthetic
    assert folders(work) == []


def test_peak_memory_grows_with_the_model(make_conv: Callable[..., Path], session: MeasuringSession) -> None:
    """A map of 8 x 1024 x 1024 floats takes at least its 33.5 MB and 12.6 MB of input, a small one less than 8 MB."""
    files = [make_conv("small.onnx"), make_conv("large.onnx", (1, 3, 1024, 1024))]
    small, large = session.iter_measurements(files, QUICK)
    assert isinstance(small, Measurement)
    assert isinstance(large, Measurement)
    assert small.peak_bytes is not None
    assert large.peak_bytes is not None
    assert small.peak_bytes < 8e6
    assert 44e6 < large.peak_bytes < 200e6


def test_bad_models_cost_nothing_but_themselves(conv: Path, garbage: Path, session: MeasuringSession) -> None:
    """A file that the runtime refuses is yielded as ModelError in its place, and the others are measured."""
    first, second, third = session.iter_measurements([conv, garbage, conv], QUICK)
    assert isinstance(first, Measurement)
    assert isinstance(third, Measurement)
    assert isinstance(second, ModelError)
    text = message(second)
    assert text.startswith(f"{garbage}: is refused by onnxruntime ")
    assert "Load model from garbage.onnx failed" in text
    assert "onnx.checker" in text


def test_another_kind_of_file_is_refused(tmp_path: Path, target: Target) -> None:
    """A file that this runtime does not run is refused with the endings that it does."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"x")
    with pytest.raises(UsageError, match=r"onnxruntime runs files ending in \.onnx"):
        measure_model(path, target)


@pytest.mark.parametrize(("content", "problem"), [(None, "cannot be read"), (b"", "is empty")])
def test_an_unreadable_file_is_named(tmp_path: Path, target: Target, content: bytes | None, problem: str) -> None:
    """A missing or empty file is refused before a device is asked."""
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"model.onnx: {problem}"):
        measure_model(path, target)


def test_no_models_need_no_device(target: Target, connected: list[FakeDevice]) -> None:
    """Of no files there are no measurements, and nothing is connected."""
    with MeasuringSession(target) as session:
        assert list(session.iter_measurements([])) == []
    assert connected == []


def test_nothing_is_connected_when_all_is_recorded(conv: Path, target: Target, connected: list[FakeDevice]) -> None:
    """MeasuringRounds that lack nothing are done without a device."""
    with MeasuringSession(target, FakeDevice()) as session:
        session.measure(rounds := MeasuringRounds([conv], target))
    (result,) = rounds.outcomes()
    assert isinstance(result, MeasurementResult)
    with MeasuringSession(target) as session:
        session.measure(MeasuringRounds([conv], target, recorded=[result.measurements]))
    assert connected == []


def test_a_session_connects_once_and_closes(conv: Path, target: Target, connected: list[FakeDevice]) -> None:
    """Two calls use one connection, which is closed on leaving."""
    with MeasuringSession(target) as session:
        session.measure(MeasuringRounds([conv], target))
        session.measure(MeasuringRounds([conv], target))
        (device,) = connected
        assert device.facts()["synthetic"]
    with pytest.raises(DeviceError, match="the device was closed"):
        device.facts()


def test_a_given_device_stays_open(conv: Path, target: Target) -> None:
    """Whoever has connected to the device goes on with it after the session."""
    device = FakeDevice()
    with MeasuringSession(target, device) as session:
        session.measure(MeasuringRounds([conv], target))
    assert device.facts()["synthetic"]


def test_the_lock_is_held_from_the_first_model_to_the_end(
    conv: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken once for several calls and released on leaving, and nobody waits for it before."""
    board = FakeBoard()
    device = FakeDevice(board=board)
    take, taken, held = device._take_lock_or_get_holder, [], []

    def count(holder: str) -> str | None:
        taken.append(holder)
        return take(holder)

    monkeypatch.setattr(device, "_take_lock_or_get_holder", count)
    with MeasuringSession(target, device) as session:
        held.append(board.holder is not None)
        for _ in range(2):
            session.measure(MeasuringRounds([conv], target))
            held.append(board.holder is not None)
    assert held == [False, True, True]
    assert len(taken) == 1
    assert board.holder is None


def test_a_device_that_cannot_be_used_is_free_again(
    conv: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the device turns out to have too few cores, nobody waits until the session is left."""
    board = FakeBoard()
    device = FakeDevice(board=board)
    facts = {**device.facts(), "cores": 2}
    monkeypatch.setattr(device, "facts", lambda: facts)
    with MeasuringSession(Target("localhost", threads=4), device) as session:
        with pytest.raises(UsageError, match="at most localhost's 2 cores"):
            session.measure(MeasuringRounds([conv], target))
        assert board.holder is None


def test_a_session_goes_on_after_an_error(conv: Path, target: Target) -> None:
    """The agent ended after two of six processes: called again, the session measures the other four."""
    asked: list[int] = []

    def handler(request: Request) -> Reply:
        asked.append(len(json.loads(request.stdin)["models"]))
        lines = simulate_agent(request).stdout.splitlines(keepends=True)
        return Reply("".join(lines[:3] if len(asked) == 1 else lines))

    with MeasuringSession(target, FakeDevice(handler)) as session:
        rounds = MeasuringRounds([conv], target)
        with pytest.raises(DeviceError, match="after 2 of 6 processes: the agent ended too early"):
            session.measure(rounds)
        session.measure(rounds)
    assert asked == [6, 4]
    assert rounds.missing_processes_by_model() == {}


def test_real_models_are_measured(real_models: Path, session: MeasuringSession) -> None:
    """Two published detectors run, until the interval meets the requested 5% or time or runs are used up."""
    settings = MeasureSettings(relative_half_width=0.05, max_seconds=5)
    files = [real_models / "yunet_n_320_320.onnx", real_models / "FastestDet.onnx"]
    for got in session.iter_measurements(files, settings):
        assert isinstance(got, Measurement)
        precise = got.interval_ms[1] - got.median_ms <= 0.05 * got.median_ms
        used_up = got.running_s >= settings.max_seconds or len(got.samples_ms) == settings.max_runs
        assert precise or used_up
        assert got.peak_bytes is not None
        assert got.peak_bytes > 5e6


def test_a_killed_agent_keeps_what_was_measured(conv: Path, session: MeasuringSession, work: Path) -> None:
    """Results that came before the agent was killed are there; then a DeviceError says how far it got."""
    results = session.iter_measurements([conv, conv], SECONDS)
    assert isinstance(next(results), Measurement)
    os.kill(processes_of(work)[0], signal.SIGKILL)
    with pytest.raises(
        DeviceError, match="localhost, after 1 of 2 processes: the agent was killed by SIGKILL, most likely"
    ):
        next(results)
    assert wait_for(lambda: not processes_of(work))


def test_the_agent_forks_from_a_single_thread(conv: Path, session: MeasuringSession, work: Path) -> None:
    """No thread of the runtime runs in the agent: a forked process would inherit its locks, but not the thread."""
    results = session.iter_measurements([conv, conv], SECONDS)
    next(results)
    assert len(list(Path(f"/proc/{processes_of(work)[0]}/task").iterdir())) == 1
    del results


def test_closing_the_iterator_ends_the_agent(conv: Path, session: MeasuringSession, work: Path) -> None:
    """A caller who stops early leaves no agent running, and can go on with the session."""
    results = session.iter_measurements([conv, conv], SECONDS)
    next(results)
    assert processes_of(work)
    del results
    assert wait_for(lambda: not processes_of(work), 30)
    assert len(list(session.iter_measurements([conv], QUICK))) == 1


def test_a_killed_host_leaves_no_agent(conv: Path, work: Path) -> None:
    """When the measuring process itself is killed, the agent and its child end by themselves."""
    code = f"""
from pathlib import Path
from edgenas.devices import Target, load_profile
from edgenas.devices.profile_files import profile_from_dict
from edgenas.profilers import MeasureSettings, measure_model
profile = profile_from_dict({{**load_profile("localhost").to_dict(), "work_dir": {str(work)!r}}}, "test")
measure_model(Path({str(conv)!r}), Target(profile), MeasureSettings(**{LONG.to_dict()!r}))
"""
    with subprocess.Popen([sys.executable, "-c", code]) as host:
        assert wait_for(lambda: len(processes_of(work)) == 2)
        host.kill()
    assert wait_for(lambda: not processes_of(work), 30)


def test_ctrl_c_ends_the_agent_and_cleans_up(conv: Path, work: Path) -> None:
    """An interrupt while measuring passes through at once, and leaves neither agent nor work folder."""
    code = f"""
import signal
from pathlib import Path
from edgenas.devices import Target, load_profile
from edgenas.devices.profile_files import profile_from_dict
from edgenas.profilers import MeasureSettings, measure_model
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
profile = profile_from_dict({{**load_profile("localhost").to_dict(), "work_dir": {str(work)!r}}}, "test")
try:
    measure_model(Path({str(conv)!r}), Target(profile), MeasureSettings(**{LONG.to_dict()!r}))
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as host:
        assert wait_for(lambda: len(processes_of(work)) == 2)
        host.send_signal(signal.SIGINT)
        assert host.communicate(timeout=30)[0] == b"interrupted\n"
    assert processes_of(work) == []
    assert folders(work) == []


def test_a_fake_devices_measurements_are_synthetic(conv: Path, target: Target) -> None:
    """What a fake device answers is marked as made up."""
    with MeasuringSession(target, FakeDevice()) as session:
        (got,) = session.iter_measurements([conv])
    assert isinstance(got, Measurement)
    assert got.synthetic
    assert got.validity.status == "unverified"


def test_more_threads_than_cores_are_refused(conv: Path) -> None:
    """The profile of this machine gives no cores; the machine itself does."""
    with pytest.raises(UsageError, match=r"^threads must be at most localhost's \d+ cores, but got 256$"):
        measure_model(conv, Target("localhost", threads=256), QUICK)


def test_a_file_that_was_changed_since_it_was_checked_is_refused(
    conv: Path, target: Target, session: MeasuringSession
) -> None:
    """What was checked is measured, or nothing: no other content is taken for it."""
    rounds = MeasuringRounds([conv], target, QUICK)
    conv.write_bytes(b"another model")
    with pytest.raises(UsageError, match=r"conv.onnx: has changed since its digest was taken"):
        session.measure(rounds)


def test_an_agent_that_is_missing_its_runtime_says_so(conv: Path, profile: DeviceProfile) -> None:
    """A profile whose provider this runtime was not built with is refused with what there is."""
    data = json.loads(json.dumps(profile.to_dict()))
    data["runtimes"]["onnxruntime"]["providers"] = ["NoSuchProvider"]
    with pytest.raises(DeviceError, match=r"onnxruntime here has no NoSuchProvider; it has .*CPUExecutionProvider"):
        measure_model(conv, Target(profile_from_dict(data, "test")), QUICK)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"relative_half_width": 0.0}, "0 < relative_half_width < 1 must hold, but got 0.0"),
        ({"min_runs": 1}, "2 <= min_runs <= max_runs <= 20000 must hold"),
        ({"min_runs": 9, "max_runs": 8}, r"but got \(9, 8\)"),
        ({"max_runs": 10**9}, r"but got \(10, 1000000000\)"),
        ({"min_seconds": 5.0}, "0 <= min_seconds <= max_seconds must hold"),
        ({"warmup_runs": 0}, "warmup_runs >= 1 must hold"),
        ({"warmup_seconds": -1.0}, "warmup_seconds >= 0 must hold"),
        ({"model_timeout_seconds": 0.0}, "model_timeout_seconds > 0 must hold"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, float], rule: str) -> None:
    """Settings that cannot be met are refused with the rule and the values."""
    with pytest.raises(UsageError, match=rule):
        MeasureSettings(**fields)  # type: ignore[arg-type] # one dict for fields of several types
