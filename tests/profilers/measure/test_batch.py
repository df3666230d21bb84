"""Processes in rounds: how many each model gets, in which order, and what is kept. The device is a scripted one."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Target
from edgenas.devices.fake import FakeDevice, Reply, Request
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.profilers import Batch, Measurement, MeasurementResult, MeasureSettings
from edgenas.profilers.measure.reference_model import SETTINGS, DriftMonitor

Speed = Callable[[str, int], float]
REFUSES = -1.0
DISTURBED = 1000.0


class Board:
    """A device whose processes take what ``speed`` says, in ms, by the model's text and how often it ran before.

    Above 1000 ms the process was disturbed, below 0 the model is refused. It
    vanishes after ``vanishes_after`` answers. ``ran`` has all models in order,
    the reference as "reference", and ``settings`` what each ran by. Its CPU's speed probe takes what
    ``probe`` says; without it there is none.
    """

    def __init__(self, speed: Speed, vanishes_after: int | None = None, probe: Speed | None = None) -> None:
        self.speed, self.vanishes_after, self.probe = speed, vanishes_after, probe
        self.ran: list[str] = []
        self.settings: list[dict[str, Any]] = []
        self.requests = 0
        self.device = FakeDevice(self.handle)

    def handle(self, request: Request) -> Reply:
        self.requests += 1
        asked = json.loads(request.stdin)
        answers: list[dict[str, Any]] = [{"kind": "hello", "versions": {"onnxruntime": "1"}, "facts": {}}]
        for model in asked["models"]:
            if self.vanishes_after is not None and len(self.ran) >= self.vanishes_after:
                return Reply(lines(answers), vanishes=True)
            data = request.files[Path(model["path"]).name]
            name = data.decode() if len(data) < 100 else "reference"
            self.settings.append(model.get("settings", asked["settings"]))
            answers.append(self.answer(model["id"], name))
        return Reply(lines([*answers, {"kind": "end", "count": len(asked["models"])}]))

    def answer(self, number: int, name: str) -> dict[str, Any]:
        before = self.ran.count(name)
        median = self.speed(name, before)
        self.ran.append(name)
        if median < 0:
            return {"kind": "failed", "id": number, "reason": "refused", "detail": "no"}
        after = {"interrupted_share": 0.9 if median >= DISTURBED else 0.0}
        return {
            "kind": "result", "id": number, "samples_ms": [median] * 5, "peak_bytes": 1, "load_ms": 1.0,
            "device_s": 0.1, "conditions_before": {}, "conditions_after": after,
            "probe_ms": [self.probe(name, before)] * 5 if self.probe else [],
        }  # fmt: skip


def lines(answers: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(answer) + "\n" for answer in answers)


@pytest.fixture
def models(tmp_path: Path) -> Callable[[str], list[Path]]:
    """Files with one letter each."""

    def make(letters: str) -> list[Path]:
        paths = [tmp_path / f"{letter}.onnx" for letter in letters]
        for path in paths:
            path.write_text(path.stem)
        return paths

    return make


Make = Callable[[str], list[Path]]
Many = Callable[[int], list[Path]]


@pytest.fixture
def make_many(tmp_path: Path) -> Many:
    """This many different files."""

    def make(number: int) -> list[Path]:
        paths = [tmp_path / f"model{place}.onnx" for place in range(number)]
        for path in paths:
            path.write_text(path.stem)
        return paths

    return make


def found(batch: Batch, number: int = 0) -> MeasurementResult:
    result = batch.outcomes()[number]
    assert isinstance(result, MeasurementResult)
    return result


def test_models_are_measured_round_by_round(models: Make, target: Target) -> None:
    """In each of six rounds every model gets a process, in one run of the agent."""
    board = Board(lambda name, before: 1.0)
    batch = Batch(models("ab"), target)
    batch.measure_missing(board.device)
    assert board.ran == ["a", "b"] * 6
    assert board.requests == 1
    assert [each.round for each in found(batch, 1).measurements] == [0, 1, 2, 3, 4, 5]


ONCE = MeasureSettings(processes=1, max_processes=1)


def changing(slower: float, after: int) -> Board:
    """A board that becomes so many times as slow after so many processes; each differs by up to half a percent."""
    board = Board(lambda name, before: 0.0)
    board.speed = lambda name, before: (
        (1 + 0.001 * (len(board.ran) * 7 % 11 - 5)) * (slower if len(board.ran) > after else 1)
    )
    return board


def test_a_large_batch_has_the_reference_in_it(make_many: Many, target: Target) -> None:
    """Of 91 processes the reference runs before the first and after every tenth, ten times, by its own settings."""
    board = Board(lambda name, before: 1.0)
    taken: list[int | None] = []
    batch = Batch(make_many(91), target, ONCE, on_process=lambda number, measurement: taken.append(number))
    batch.measure_missing(board.device)
    assert [place for place, name in enumerate(board.ran) if name == "reference"] == list(range(0, 101, 11))
    assert taken.count(None) == 10
    assert [place for place, settings in enumerate(board.settings) if settings == SETTINGS.to_dict()] == list(
        range(0, 101, 11)
    )
    assert found(batch).measurements[0].drift == 0.0


def test_a_batch_of_fewer_has_none(make_many: Many, target: Target) -> None:
    """Of 90 processes nine of the reference would say nothing."""
    board = Board(lambda name, before: 1.0)
    batch = Batch(make_many(90), target, ONCE)
    batch.measure_missing(board.device)
    assert "reference" not in board.ran
    assert found(batch).measurements[0].drift is None


def test_a_series_always_has_it(models: Make, target: Target) -> None:
    """A batch of a longer series runs the reference, and adds it to the monitor of the series."""
    monitor = DriftMonitor()
    Batch(models("a"), target, ONCE, monitor=monitor).measure_missing(Board(lambda name, before: 1.0).device)
    assert len(monitor) == 1


def test_drift_is_known_after_the_batch_and_corrects_nothing(make_many: Many, target: Target) -> None:
    """Of 40 equal models on a device that becomes 8% slower half-way, drift is told and medians are raw."""
    kept: list[Measurement] = []
    batch = Batch(
        make_many(40),
        target,
        MeasureSettings(max_processes=6),
        on_process=lambda number, measurement: kept.append(measurement),
    )
    batch.measure_missing(changing(1.08, 130).device)
    taken = [each for number in range(40) for each in found(batch, number).measurements]
    assert {each.drift for each in taken} > {0.0}
    assert all(each.median_ms == statistics.median(each.samples_ms) for each in taken)
    assert all(each.drift is None for each in kept)


def test_a_process_on_a_slower_cpu_is_disturbed_and_counts(models: Make, target: Target) -> None:
    """The probe is a fifth slower in the third process of the second model: of twelve only that is off the median."""
    kept: list[Measurement] = []
    board = Board(lambda name, before: 1.0, probe=lambda name, before: 0.0036 if (name, before) == ("b", 2) else 0.003)
    batch = Batch(models("ab"), target, on_process=lambda number, measurement: kept.append(measurement))
    batch.measure_missing(board.device)
    assert [found(batch, number).disturbed_count for number in (0, 1)] == [0, 1]
    assert [each.is_disturbed for each in found(batch, 1).measurements] == [False, False, True, False, False, False]
    assert found(batch, 1).measurements[2].conditions_after["probe_deviation"] == pytest.approx(0.2)
    assert (len(board.ran), found(batch, 1).rejected) == (12, ())
    assert not any("probe_deviation" in each.conditions_after for each in kept)


def test_the_batch_decides_what_is_usual(models: Make, target: Target) -> None:
    """Of one process of each of five models, the one on a faster CPU is disturbed."""
    board = Board(lambda name, before: 1.0, probe=lambda name, before: 0.002 if name == "c" else 0.003)
    batch = Batch(models("abcde"), target, ONCE)
    batch.measure_missing(board.device)
    assert [found(batch, number).disturbed_count for number in range(5)] == [0, 0, 1, 0, 0]


def test_a_device_that_becomes_slower_for_good_is_not_hidden(make_many: Many, target: Target) -> None:
    """Twice as slow from a quarter on: it ends there, and each validity has the reason."""
    kept: list[int | None] = []
    batch = Batch(make_many(40), target, on_process=lambda number, measurement: kept.append(number))
    with pytest.raises(DeviceError, match=r"localhost: the device slowed down by .* measure everything again"):
        batch.measure_missing(changing(2.0, 60).device)
    assert len(kept) < 60 + 11 * 11
    for number in range(40):
        assert found(batch, number).validity.status == "rejected"
        assert "the device slowed down" in found(batch, number).validity.reasons[0]


def test_what_was_taken_while_it_was_slow_is_taken_again(make_many: Many, target: Target) -> None:
    """Half as fast for 80 of some 270 processes: those are rejected and replaced, and the others stand."""
    board = changing(1.0, 0)
    even = board.speed
    board.speed = lambda name, before: even(name, before) * (2.0 if 100 <= len(board.ran) < 188 else 1.0)
    batch = Batch(make_many(40), target)
    batch.measure_missing(board.device)
    results = [found(batch, number) for number in range(40)]
    assert sum(len(result.rejected) for result in results) >= 30
    assert all(0.98 < result.median_ms < 1.02 and not result.rejection_reasons for result in results)


def test_a_noisy_model_gets_more_processes_than_a_steady_one(models: Make, target: Target) -> None:
    """Medians 5% apart need more than six processes, equal ones do not; it ends at the most that is allowed."""
    board = Board(lambda name, before: 1.0 + 0.1 * (before % 2) * (name == "a"))
    batch = Batch(models("ab"), target, MeasureSettings(max_processes=14))
    batch.measure_missing(board.device)
    assert (board.ran.count("a"), board.ran.count("b")) == (14, 6)


def test_time_is_bounded(models: Make, target: Target) -> None:
    """A process takes 0.1 s here: after six, a total of 0.8 s leaves room for no more than three."""
    board = Board(lambda name, before: 1.0 + 0.1 * (before % 2))
    Batch(models("a"), target, MeasureSettings(total_seconds=0.8)).measure_missing(board.device)
    assert len(board.ran) == 9


def test_time_bounds_tries_too(models: Make, target: Target) -> None:
    """One of two models is always disturbed: with 0.5 s, five processes of 0.1 s, it is not tried again."""
    board = Board(lambda name, before: DISTURBED if name == "a" else 1.0)
    Batch(models("ab"), target, MeasureSettings(total_seconds=0.5)).measure_missing(board.device)
    assert (board.ran.count("a"), board.ran.count("b")) == (6, 6)


def test_a_disturbed_process_is_tried_again(models: Make, target: Target) -> None:
    """Two of the first six were interrupted: two more are measured, and the disturbed are kept apart."""
    board = Board(lambda name, before: DISTURBED if before in (1, 4) else 1.0)
    batch = Batch(models("a"), target)
    batch.measure_missing(board.device)
    assert len(board.ran) == 8
    assert len(found(batch).measurements) == 6
    assert len(found(batch).rejected) == 2
    assert found(batch).validity.status != "rejected"


def test_a_disturbed_model_is_given_up_in_the_end(models: Make, target: Target) -> None:
    """One of two models is always disturbed: after three times as many processes as wanted it is rejected."""
    board = Board(lambda name, before: DISTURBED if name == "a" else 1.0)
    batch = Batch(models("ab"), target, MeasureSettings(processes=2, max_processes=2))
    batch.measure_missing(board.device)
    assert (board.ran.count("a"), board.ran.count("b")) == (6, 2)
    assert found(batch, 0).validity.status == "rejected"
    assert found(batch, 1).validity.status != "rejected"


def test_where_all_are_rejected_it_ends_at_once(models: Make, target: Target) -> None:
    """When all first processes of all models were rejected, so will the next ones be."""
    board = Board(lambda name, before: DISTURBED)
    Batch(models("ab"), target, MeasureSettings(processes=2, max_processes=2)).measure_missing(board.device)
    assert len(board.ran) == 4


def test_a_bad_model_costs_only_itself(models: Make, target: Target) -> None:
    """A model that is refused has its error in its place; the others are measured."""
    board = Board(lambda name, before: REFUSES if name == "b" else 1.0)
    batch = Batch(models("abc"), target)
    batch.measure_missing(board.device)
    assert isinstance(batch.outcomes()[1], ModelError)
    assert (found(batch, 0).median_ms, found(batch, 2).median_ms) == (1.0, 1.0)
    assert batch.missing_processes_by_model() == {}


def test_a_model_that_fails_later_fails_and_says_after_how_many(models: Make, target: Target) -> None:
    """A model that crashes in its fourth process is a failure, and the message says that it ran before."""
    kept: list[int | None] = []
    board = Board(lambda name, before: REFUSES if (name, before) == ("b", 3) else 1.0)
    batch = Batch(models("ab"), target, on_process=lambda number, measurement: kept.append(number))
    batch.measure_missing(board.device)
    assert str(batch.outcomes()[1]).endswith("; it failed after 3 processes in which it ran")
    assert len(found(batch, 0).measurements) == kept.count(0) == 6
    assert batch.missing_processes_by_model() == {}


def test_a_reference_that_cannot_run_is_done_without(make_many: Many, target: Target) -> None:
    """Where the runtime refuses the reference, models are measured and nobody knows the drift."""
    board = Board(lambda name, before: REFUSES if name == "reference" else 1.0)
    batch = Batch(make_many(91), target, ONCE)
    batch.measure_missing(board.device)
    assert board.ran.count("reference") == 10
    assert found(batch, 90).measurements[0].drift is None


def test_a_lost_device_keeps_what_came_and_goes_on_there(models: Make, target: Target) -> None:
    """Seven processes came before the loss; the next run takes only what is missing."""
    board = Board(lambda name, before: 1.0, vanishes_after=7)
    batch = Batch(models("ab"), target)
    with pytest.raises(DeviceError):
        batch.measure_missing(board.device)
    assert [len(found(batch, number).measurements) for number in (0, 1)] == [4, 3]
    again = Board(lambda name, before: 1.0)
    batch.measure_missing(again.device)
    assert again.ran == ["a", "b", "a", "b", "b"]


def test_what_was_taken_before_is_not_taken_again(models: Make, target: Target) -> None:
    """Recorded processes count: a batch that was complete asks for nothing."""
    first = Batch(models("a"), target)
    first.measure_missing(Board(lambda name, before: 1.0).device)
    taken = found(first).measurements
    assert Batch(models("a"), target, recorded=[taken]).missing_processes_by_model() == {}
    assert Batch(models("a"), target, recorded=[taken[:3]]).missing_processes_by_model() == {0: 3}


def test_what_was_rejected_before_does_not_count(models: Make, target: Target) -> None:
    """After eighteen disturbed processes and a remedy, a new batch measures six, which are not rejected."""
    first = Batch(models("a"), target, MeasureSettings(processes=18, max_processes=18))
    first.measure_missing(Board(lambda name, before: DISTURBED).device)
    batch = Batch(models("a"), target, recorded=[found(first).measurements])
    board = Board(lambda name, before: 1.0)
    batch.measure_missing(board.device)
    assert len(board.ran) == 6
    assert not found(batch).rejection_reasons


def test_the_device_is_kept_between_passes(models: Make, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disturbed process makes a second run of the agent; the lock is taken once."""
    board = Board(lambda name, before: DISTURBED if before == 1 else 1.0)
    taken: list[str] = []
    monkeypatch.setattr(board.device, "_take_lock_or_get_holder", taken.append)
    Batch(models("a"), target).measure_missing(board.device)
    assert board.requests == 2
    assert len(taken) == 1


def test_the_agent_ends_when_a_result_cannot_be_kept(models: Make, target: Target) -> None:
    """When the caller's disk is full, say, the device is free again before the error is out."""

    def fail(number: int | None, measurement: Measurement) -> None:
        raise UsageError("no space left")

    board = Board(lambda name, before: 1.0)
    with pytest.raises(UsageError) as error:
        Batch(models("ab"), target, on_process=fail).measure_missing(board.device)
    assert error.tb is not None  # which holds on to the generator
    assert board.device._locks_held == 0


def test_every_process_is_handed_on_at_once(models: Make, target: Target) -> None:
    """What was handed on before the device vanished is all that was measured."""
    kept: list[Measurement] = []
    board = Board(lambda name, before: 1.0, vanishes_after=5)
    batch = Batch(models("ab"), target, on_process=lambda number, measurement: kept.append(measurement))
    with pytest.raises(DeviceError):
        batch.measure_missing(board.device)
    assert len(kept) == 5


def test_a_file_of_the_wrong_kind_is_refused_before_a_device_is_asked(tmp_path: Path, target: Target) -> None:
    """The batch is checked when it is made."""
    path = tmp_path / "model.tflite"
    path.write_text("x")
    with pytest.raises(UsageError, match="runs files ending in"):
        Batch([path], target)
