"""Measuring model files with the real agent and the real runtime."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import CompletedCommand, Deadline, Device, DeviceProfile, Target, connect_device
from edgenas.devices.fake import FakeDevice, Reply, Request, simulate_agent
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.profilers import Batch, Measurement, MeasureSettings, iter_measurements, measure_model

QUICK = MeasureSettings(max_seconds=0.3, min_seconds=0, max_runs=50, warmup_seconds=0.05)
LONG = MeasureSettings(relative_half_width=1e-9, max_runs=10**9, max_seconds=60)


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
def other(make_conv: Callable[..., Path]) -> Path:
    """A second file, for one that is being measured when the first is done."""
    return make_conv("other.onnx", (1, 3, 24, 24))


@pytest.fixture
def device(profile: DeviceProfile) -> Iterator[Device]:
    with connect_device(profile) as device:
        yield device


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


def test_peak_memory_grows_with_the_model(make_conv: Callable[..., Path], target: Target, device: Device) -> None:
    """A map of 8 x 1024 x 1024 floats takes at least its 33.5 MB and 12.6 MB of input, a small one less than 8 MB."""
    files = [make_conv("small.onnx"), make_conv("large.onnx", (1, 3, 1024, 1024))]
    small, large = iter_measurements(files, target, device=device, settings=QUICK)
    assert isinstance(small, Measurement)
    assert isinstance(large, Measurement)
    assert small.peak_bytes is not None
    assert large.peak_bytes is not None
    assert small.peak_bytes < 8e6
    assert 44e6 < large.peak_bytes < 200e6


def test_bad_models_cost_nothing_but_themselves(conv: Path, garbage: Path, target: Target, device: Device) -> None:
    """A file that the runtime refuses is yielded as ModelError in its place, and the others are measured."""
    first, second, third = iter_measurements([conv, garbage, conv], target, device=device, settings=QUICK)
    assert isinstance(first, Measurement)
    assert isinstance(third, Measurement)
    assert isinstance(second, ModelError)
    text = message(second)
    assert text.startswith(f"{garbage}: is refused by onnxruntime ")
    assert "Load model from garbage.onnx failed" in text
    assert "onnx.checker" in text


def test_a_symbolic_batch_is_one(make_conv: Callable[..., Path], target: Target) -> None:
    """A model with a free batch runs with a batch of one."""
    assert measure_model(make_conv(shape=("batch", 3, 16, 16)), target, QUICK).median_ms > 0


@pytest.mark.parametrize(
    ("size", "named"), [("height", "the symbolic dimension 'height'"), (None, "an unnamed dynamic dimension")]
)
def test_any_other_symbolic_dimension_is_named(
    make_conv: Callable[..., Path], target: Target, size: str | None, named: str
) -> None:
    """A free height is refused with its name and the remedy."""
    with pytest.raises(ModelError, match="export it with a fixed size") as error:
        measure_model(make_conv(shape=(1, 3, size, 16)), target, QUICK)
    assert f"input 'image' has {named} at place 2" in message(error.value)


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


def test_no_models_need_no_device(target: Target) -> None:
    """An empty batch is empty."""
    assert list(iter_measurements([], target, device=FakeDevice())) == []


def test_real_models_are_measured(real_models: Path, target: Target, device: Device) -> None:
    """Two published detectors run, until the interval meets the requested 5% or time or runs are used up."""
    settings = MeasureSettings(relative_half_width=0.05, max_seconds=5)
    files = [real_models / "yunet_n_320_320.onnx", real_models / "FastestDet.onnx"]
    for got in iter_measurements(files, target, device=device, settings=settings):
        assert isinstance(got, Measurement)
        precise = got.interval_ms[1] - got.median_ms <= 0.05 * got.median_ms
        used_up = got.running_s >= settings.max_seconds or len(got.samples_ms) == settings.max_runs
        assert precise or used_up
        assert got.peak_bytes is not None
        assert got.peak_bytes > 5e6


def test_a_killed_agent_keeps_what_was_measured(
    conv: Path, other: Path, target: Target, device: Device, work: Path
) -> None:
    """Results that came before the agent was killed are there; then a DeviceError says how far it got."""
    results = iter_measurements([conv, other], target, device=device, settings=QUICK, exceptions={other: LONG})
    assert isinstance(next(results), Measurement)
    os.kill(processes_of(work)[0], signal.SIGKILL)
    with pytest.raises(DeviceError, match="localhost, after 1 of 2 processes: the agent ended too early"):
        next(results)
    assert wait_for(lambda: not processes_of(work))


def test_the_agent_forks_from_a_single_thread(
    conv: Path, other: Path, target: Target, device: Device, work: Path
) -> None:
    """No thread of the runtime runs in the agent: a forked process would inherit its locks, but not the thread."""
    results = iter_measurements([conv, other], target, device=device, settings=QUICK, exceptions={other: LONG})
    next(results)
    assert len(list(Path(f"/proc/{processes_of(work)[0]}/task").iterdir())) == 1
    del results


def test_closing_the_iterator_ends_the_agent(
    conv: Path, other: Path, target: Target, device: Device, work: Path
) -> None:
    """A caller who stops early leaves no agent running, and can go on with the device."""
    results = iter_measurements([conv, other], target, device=device, settings=QUICK, exceptions={other: LONG})
    next(results)
    assert processes_of(work)
    del results
    assert wait_for(lambda: not processes_of(work), 30)
    assert len(list(iter_measurements([conv], target, device=device, settings=QUICK))) == 1


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
    (got,) = iter_measurements([conv], target, device=FakeDevice())
    assert isinstance(got, Measurement)
    assert got.synthetic
    assert got.validity.status == "unverified"


def scripted(change: Callable[[list[str]], str], **ends: bool) -> FakeDevice:
    """A fake device whose answer to a measuring request is changed line by line."""

    def handler(request: Request) -> Reply:
        return Reply(change(simulate_agent(request).stdout.splitlines(keepends=True)), stderr="last words\n", **ends)

    return FakeDevice(handler)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: "".join(lines[:2]), r"after 1 of 2 processes: the agent ended too early \(last words\)"),
        (lambda lines: "".join(lines[:-1]), "after 2 of 2 processes: the agent ended too early"),
        (lambda lines: "".join([*lines[:2], "Segmentation fault\n"]), "answered nonsense \\('Segmentation fault': "),
        (lambda lines: "".join([lines[0], lines[2]]), "where result or failed was due"),
        (lambda lines: "".join([*lines[:2], lines[3]]), "where result or failed was due"),
        (
            lambda lines: "".join([lines[0], lines[1].replace('"load_ms"', '"x_ms"')]),
            r"answered nonsense \(.*: result.load_ms: Field required\)",
        ),
        (lambda lines: '{"kind": "unable", "detail": "No module named x"}\n', "-m pip install onnxruntime"),
        (lambda lines: "[]\n", "answered nonsense"),
        (lambda lines: "", "after 0 of 2 processes: the agent ended too early"),
    ],
)
def test_a_broken_answer_is_a_device_error(
    conv: Path, target: Target, change: Callable[[list[str]], str], problem: str
) -> None:
    """A cut, shuffled or garbled answer raises DeviceError that says how far it got."""
    with pytest.raises(DeviceError, match=problem) as error:
        list(iter_measurements([conv, conv], target, device=scripted(change)))
    message(error.value)


def test_cpus_that_cannot_be_had_are_no_matter_of_installing(conv: Path, target: Target) -> None:
    """What is wrong with the affinity is mended in the profile or by who owns the device."""
    said = json.dumps({"kind": "unable", "reason": "affinity", "detail": "CPU 1 of the affinity cannot be used here"})
    with pytest.raises(DeviceError) as error:
        list(iter_measurements([conv], target, device=scripted(lambda lines: said)))
    assert message(error.value) == (
        "localhost, after 0 of 1 processes: CPU 1 of the affinity cannot be used here;"
        " correct the CPUs of the profile's clusters, or let this user have those CPUs there"
    )


def test_more_threads_than_cores_are_refused(conv: Path, device: Device) -> None:
    """The profile of this machine gives no cores; the machine itself does."""
    with pytest.raises(UsageError, match=r"^threads must be at most localhost's \d+ cores, but got 256$"):
        list(iter_measurements([conv], Target("localhost", threads=256), device=device))


def test_a_file_that_was_changed_since_it_was_checked_is_refused(conv: Path, target: Target, device: Device) -> None:
    """A batch measures what it has checked, or nothing: no other content is taken for it."""
    batch = Batch([conv], target, QUICK)
    conv.write_bytes(b"another model")
    with pytest.raises(UsageError, match=r"conv.onnx: has changed since its digest was taken"):
        batch.measure_missing(device)


def edited(number: int, **fields: Any) -> Callable[[list[str]], str]:
    """A change of one line's fields."""

    def change(lines: list[str]) -> str:
        lines[number] = json.dumps(json.loads(lines[number]) | fields) + "\n"
        return "".join(lines)

    return change


def conditions(**facts: Any) -> Callable[[list[str]], str]:
    """A change of the conditions after the first model."""
    return edited(1, conditions_after={"governor": "performance", **facts})


HOSTILE: dict[str, Callable[[list[str]], str]] = {
    "nested without end": lambda lines: lines[0] + "[" * 200_000 + "\n",
    "a kind that is a list": lambda lines: '{"kind": []}\n',
    "a kind that is a number": lambda lines: '{"kind": 3}\n',
    "a list of facts": edited(0, facts=[1]),
    "facts that are the device's": edited(0, facts={"synthetic": False}),
    "versions that are none": edited(0, versions=None),
    "a version of two lines": edited(0, versions={"onnxruntime": "1\n2"}),
    "unable without a word": lambda lines: '{"kind": "unable"}\n',
    "failed without a word": lambda lines: lines[0] + '{"kind": "failed", "id": 0, "reason": "refused"}\n',
    "failed for an odd reason": lambda lines: lines[0] + '{"kind": "failed", "id": 0, "reason": "z", "detail": "x"}\n',
    "a list of conditions": edited(1, conditions_after=[1]),
    "no conditions": edited(1, conditions_before=None),
    "a governor that is a number": conditions(governor=3),
    "a frequency in words": conditions(lowest_frequency_khz="x"),
    "a drift of its own": conditions(drift=-0.05),
    "a temperature that is no number": conditions(temperature_c=math.nan),
    "device time that is infinite": edited(1, device_s=math.inf),
    "device time below zero": edited(1, device_s=-5),
    "memory below zero": edited(1, peak_bytes=-5),
    "placement in words": edited(1, placement={"CPUExecutionProvider": "x"}),
    "samples without a size": edited(1, samples_ms=[1e308] * 12),
    "samples of no time": edited(1, samples_ms=[1e-320] * 12),
    "interrupted runs that there are not": edited(1, interrupted=[10**9]),
    "a validity of its own": edited(1, validity={"status": "valid"}),
    "an id that is true": edited(1, id=False),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_the_agent_never_says_is_a_device_error(
    conv: Path, target: Target, change: Callable[[list[str]], str]
) -> None:
    """Fields that are missing, unknown, of another type or out of range are refused on one line."""
    with pytest.raises(DeviceError, match="after 0 of 2 processes: answered nonsense") as error:
        list(iter_measurements([conv, conv], target, device=scripted(change)))
    message(error.value)


def test_a_runtimes_words_may_hold_anything(conv: Path, target: Target) -> None:
    """Colours and line feeds in what a runtime says of a model are taken out of the message."""
    words = json.dumps({"kind": "failed", "id": 0, "reason": "refused", "detail": "\x1b[31mno such\noperator"})
    (got,) = iter_measurements([conv], target, device=scripted(lambda lines: f"{lines[0]}{words}\n{lines[2]}"))
    assert isinstance(got, ModelError)
    assert "([31mno such operator)" in message(got)


class Talker(FakeDevice):
    """Answers the first model, and then says a million lines that nobody waits for."""

    said = 0

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> CompletedCommand:
        assert on_line is not None
        for line in simulate_agent(Request(tuple(command), stdin, dict(self._files))).stdout.splitlines()[:2]:
            on_line(line)
        for self.said in range(1_000_000):
            on_line("again")
        return CompletedCommand(0, "", "")


def test_a_device_that_goes_on_talking_is_stopped(conv: Path, target: Target) -> None:
    """What nobody waits for does not fill the memory here: no more is kept than the answers that are due."""
    device = Talker()
    results = iter_measurements([conv, conv], target, device=device)
    assert isinstance(next(results), Measurement)
    with pytest.raises(DeviceError, match="answered nonsense \\('again'"):
        next(results)
    assert device.said < 10


def test_a_lost_connection_keeps_what_came(conv: Path, target: Target) -> None:
    """The results before the loss are yielded first."""
    results = iter_measurements([conv, conv], target, device=scripted(lambda lines: "".join(lines[:2]), vanishes=True))
    assert isinstance(next(results), Measurement)
    with pytest.raises(DeviceError, match="after 1 of 2 processes: fake: the connection was lost"):
        next(results)


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
        ({"min_runs": 1}, "2 <= min_runs <= max_runs must hold"),
        ({"min_runs": 9, "max_runs": 8}, r"but got \(9, 8\)"),
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
