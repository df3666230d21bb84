"""What a device may answer while models run on it, and what it may not. The device is a scripted one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import CompletedCommand, Deadline, Device, Target
from edgenas.devices.fake import FakeDevice, Reply, Request, simulate_agent
from edgenas.errors import DeviceError, ModelError
from edgenas.profilers import Measurement, MeasuringSession
from edgenas.profilers.measure.settings import MAX_RUNS


def measure(models: Sequence[Path], target: Target, device: Device) -> list[Measurement | ModelError]:
    """Measure each file in one process."""
    with MeasuringSession(target, device) as session:
        return list(session.iter_measurements(models))


def message(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    return text


def scripted(change: Callable[[list[str]], str], **ends: bool) -> FakeDevice:
    """A fake device whose answer to a measuring request is changed line by line."""

    def handler(request: Request) -> Reply:
        return Reply(change(simulate_agent(request).stdout.splitlines(keepends=True)), stderr="last words\n", **ends)

    return FakeDevice(handler)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda lines: "".join(lines[:2]),
            r"^localhost, after 1 of 2 processes: the agent ended too early \(last words\)",
        ),
        (lambda lines: "".join(lines[:-1]), "^localhost, after 2 of 2 processes: the agent ended too early"),
        (lambda lines: "".join([*lines[:2], "Segmentation fault\n"]), "answered nonsense \\('Segmentation fault': "),
        (lambda lines: "".join([lines[0], lines[2]]), "where result or failed was due"),
        (lambda lines: "".join([*lines[:2], lines[3]]), "where result or failed was due"),
        (
            lambda lines: "".join([lines[0], lines[1].replace('"load_ms"', '"x_ms"')]),
            r"answered nonsense \(.*: result.load_ms: Field required\)",
        ),
        (lambda lines: '{"kind": "unable", "detail": "No module named x"}\n', "-m pip install onnxruntime"),
        (lambda lines: "[]\n", "answered nonsense"),
        (lambda lines: "", "^localhost: the agent ended too early"),
    ],
)
def test_a_broken_answer_is_a_device_error(
    conv: Path, target: Target, change: Callable[[list[str]], str], problem: str
) -> None:
    """A cut, shuffled or garbled answer raises DeviceError that says how far it got, if it got anywhere."""
    with pytest.raises(DeviceError, match=problem) as error:
        measure([conv, conv], target, scripted(change))
    message(error.value)


def test_cpus_that_cannot_be_had_are_no_matter_of_installing(conv: Path, target: Target) -> None:
    """What is wrong with the affinity is mended in the profile or by who owns the device."""
    said = json.dumps({"kind": "unable", "reason": "affinity", "detail": "CPU 1 of the affinity cannot be used here"})
    with pytest.raises(DeviceError) as error:
        measure([conv], target, scripted(lambda lines: said))
    assert message(error.value) == (
        "localhost: CPU 1 of the affinity cannot be used here;"
        " correct the CPUs of the profile's clusters, or let this user have those CPUs there"
    )


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
    "a line of 2 MiB": lambda lines: lines[0] + " " * (2 << 20) + lines[1],
    "bytes that are no text": lambda lines: lines[0] + lines[1].replace("result", "\N{REPLACEMENT CHARACTER}"),
    "more runs than there may be": edited(1, samples_ms=[1] * (MAX_RUNS + 1)),
    "a million of wrong samples": edited(1, samples_ms=[0] * 300_000),
    "versions of everything": edited(0, versions={str(number): "1" for number in range(2000)}),
    "control characters in a provider": edited(1, placement={"\x1b[2J": 1}),
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
    "a deviation of its own": conditions(probe_deviation=-0.05),
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
    """Fields that are missing, unknown, of another type, out of range or huge are refused on one printable line."""
    with pytest.raises(DeviceError, match=r"^localhost: answered nonsense") as error:
        measure([conv, conv], target, scripted(change))
    assert message(error.value).isprintable()


def test_a_runtimes_words_may_hold_anything(conv: Path, target: Target) -> None:
    """Colours and line feeds in what a runtime says of a model are taken out of the message."""
    words = json.dumps({"kind": "failed", "id": 0, "reason": "refused", "detail": "\x1b[31mno such\noperator"})
    (got,) = measure([conv], target, scripted(lambda lines: f"{lines[0]}{words}\n{lines[2]}"))
    assert isinstance(got, ModelError)
    assert "([31mno such operator)" in message(got)


class Talker(FakeDevice):
    """Answers the first model, and then says a million lines that nobody waits for."""

    said = 0
    line = "again"

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
            on_line(self.line)
        return CompletedCommand(0, "", "")


def test_a_device_that_goes_on_talking_is_stopped(conv: Path, target: Target) -> None:
    """What nobody waits for does not fill the memory here: no more is kept than the answers that are due."""
    device = Talker()
    with MeasuringSession(target, device) as session:
        results = session.iter_measurements([conv, conv])
        assert isinstance(next(results), Measurement)
        with pytest.raises(DeviceError, match="answered nonsense \\('again'"):
            next(results)
    assert device.said < 10


def test_what_waits_to_be_read_is_bounded_in_bytes(conv: Path, target: Target) -> None:
    """Of long lines fewer wait here than there are models."""
    device = Talker()
    device.line = " " * (1 << 20)
    with MeasuringSession(target, device) as session:
        results = session.iter_measurements([conv] * 100)
        assert isinstance(next(results), Measurement)
        with pytest.raises(DeviceError, match="answered nonsense"):
            next(results)
    assert device.said < 20


def test_a_lost_connection_keeps_what_came(conv: Path, target: Target) -> None:
    """The results before the loss are yielded first."""
    with MeasuringSession(target, scripted(lambda lines: "".join(lines[:2]), vanishes=True)) as session:
        results = session.iter_measurements([conv, conv])
        assert isinstance(next(results), Measurement)
        with pytest.raises(DeviceError, match="after 1 of 2 processes: fake: the connection was lost"):
            next(results)


class Mute(FakeDevice):
    """Says nothing until its time is over."""

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> CompletedCommand:
        while deadline.seconds_left > 0:
            time.sleep(0.01)
        raise DeviceError("it did not end in time")


def test_a_device_that_says_nothing_is_given_up(conv: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the time that was waited, and the device's command is ended."""
    monkeypatch.setattr("edgenas.profilers.measure.agent_run._START_SECONDS", 0.1)
    with pytest.raises(DeviceError, match=r"^localhost: said nothing for 0\.1 s; check the device and try again$"):
        measure([conv], target, Mute())
