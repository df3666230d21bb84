"""Processes in rounds: how many each model gets, in which order, and what is kept. The device is a scripted one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Target
from edgenas.devices.fake import FakeDevice, Reply, Request
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.profilers import Measurement, MeasurementResult, MeasureSettings, MeasuringRounds, MeasuringSession

Speed = Callable[[str, int], float]
REFUSES = -1.0
DISTURBED = 1000.0
ONCE = MeasureSettings(processes=1, max_processes=1)


class Board:
    """A device whose processes take what ``speed`` says, in ms, by the model's text and how often it ran before.

    Above 1000 ms the process was disturbed, below 0 the model is refused. It
    vanishes after ``vanishes_after`` answers. ``ran`` has all models in order.
    Its CPU's speed probe takes what ``probe`` says; without it there is none.
    """

    def __init__(self, speed: Speed, vanishes_after: int | None = None, probe: Speed | None = None) -> None:
        self.speed, self.vanishes_after, self.probe = speed, vanishes_after, probe
        self.ran: list[str] = []
        self.requests = 0
        self.device = FakeDevice(self.handle)

    def handle(self, request: Request) -> Reply:
        self.requests += 1
        asked = json.loads(request.stdin)
        answers: list[dict[str, Any]] = [{"kind": "hello", "versions": {"onnxruntime": "1"}, "facts": {}}]
        for model in asked["models"]:
            if self.vanishes_after is not None and len(self.ran) >= self.vanishes_after:
                return Reply(lines(answers), vanishes=True)
            answers.append(self.answer(model["id"], request.files[Path(model["path"]).name].decode()))
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


def measure(rounds: MeasuringRounds, board: Board, target: Target) -> None:
    """Measure what is missing on a board."""
    with MeasuringSession(target, board.device) as session:
        session.measure(rounds)


def found(rounds: MeasuringRounds, number: int = 0) -> MeasurementResult:
    result = rounds.outcomes()[number]
    assert isinstance(result, MeasurementResult)
    return result


def test_models_are_measured_round_by_round(models: Make, target: Target) -> None:
    """In each of six rounds every model gets a process, in one run of the agent."""
    board = Board(lambda name, before: 1.0)
    rounds = MeasuringRounds(models("ab"), target)
    measure(rounds, board, target)
    assert board.ran == ["a", "b"] * 6
    assert board.requests == 1
    assert [each.round for each in found(rounds, 1).measurements] == [0, 1, 2, 3, 4, 5]


def test_a_process_on_a_slower_cpu_is_disturbed_and_counts(models: Make, target: Target) -> None:
    """The probe is a fifth slower in the third process of the second model: of twelve only that is off the median."""
    kept: list[Measurement] = []
    board = Board(lambda name, before: 1.0, probe=lambda name, before: 0.0036 if (name, before) == ("b", 2) else 0.003)
    rounds = MeasuringRounds(models("ab"), target, on_process=lambda number, measurement: kept.append(measurement))
    measure(rounds, board, target)
    assert [found(rounds, number).disturbed_count for number in (0, 1)] == [0, 1]
    assert [each.is_disturbed for each in found(rounds, 1).measurements] == [False, False, True, False, False, False]
    assert found(rounds, 1).measurements[2].conditions_after["probe_deviation"] == pytest.approx(0.2)
    assert (len(board.ran), found(rounds, 1).rejected) == (12, ())
    assert not any("probe_deviation" in each.conditions_after for each in kept)


def test_all_processes_decide_what_is_usual(models: Make, target: Target) -> None:
    """Of one process of each of five models, the one on a faster CPU is disturbed."""
    board = Board(lambda name, before: 1.0, probe=lambda name, before: 0.002 if name == "c" else 0.003)
    rounds = MeasuringRounds(models("abcde"), target, ONCE)
    measure(rounds, board, target)
    assert [found(rounds, number).disturbed_count for number in range(5)] == [0, 0, 1, 0, 0]


def test_a_noisy_model_gets_more_processes_than_a_steady_one(models: Make, target: Target) -> None:
    """Medians 5% apart need more than six processes, equal ones do not; it ends at the most that is allowed."""
    board = Board(lambda name, before: 1.0 + 0.1 * (before % 2) * (name == "a"))
    rounds = MeasuringRounds(models("ab"), target, MeasureSettings(max_processes=14))
    measure(rounds, board, target)
    assert (board.ran.count("a"), board.ran.count("b")) == (14, 6)


def test_time_is_bounded(models: Make, target: Target) -> None:
    """A process takes 0.1 s here: after six, a total of 0.8 s leaves room for no more than three."""
    board = Board(lambda name, before: 1.0 + 0.1 * (before % 2))
    measure(MeasuringRounds(models("a"), target, MeasureSettings(total_seconds=0.8)), board, target)
    assert len(board.ran) == 9


def test_time_bounds_tries_too(models: Make, target: Target) -> None:
    """One of two models is always disturbed: with 0.5 s, five processes of 0.1 s, it is not tried again."""
    board = Board(lambda name, before: DISTURBED if name == "a" else 1.0)
    measure(MeasuringRounds(models("ab"), target, MeasureSettings(total_seconds=0.5)), board, target)
    assert (board.ran.count("a"), board.ran.count("b")) == (6, 6)


def test_a_disturbed_process_is_tried_again(models: Make, target: Target) -> None:
    """Two of the first six were interrupted: two more are measured, and the disturbed are kept apart."""
    board = Board(lambda name, before: DISTURBED if before in (1, 4) else 1.0)
    rounds = MeasuringRounds(models("a"), target)
    measure(rounds, board, target)
    assert len(board.ran) == 8
    assert len(found(rounds).measurements) == 6
    assert len(found(rounds).rejected) == 2
    assert found(rounds).validity.status != "rejected"


def test_a_disturbed_model_is_given_up_in_the_end(models: Make, target: Target) -> None:
    """One of two models is always disturbed: after three times as many processes as wanted it is rejected."""
    board = Board(lambda name, before: DISTURBED if name == "a" else 1.0)
    rounds = MeasuringRounds(models("ab"), target, MeasureSettings(processes=2, max_processes=2))
    measure(rounds, board, target)
    assert (board.ran.count("a"), board.ran.count("b")) == (6, 2)
    assert found(rounds, 0).validity.status == "rejected"
    assert found(rounds, 1).validity.status != "rejected"


def test_where_all_are_rejected_it_ends_at_once(models: Make, target: Target) -> None:
    """When all first processes of all models were rejected, so will the next ones be."""
    board = Board(lambda name, before: DISTURBED)
    measure(MeasuringRounds(models("ab"), target, MeasureSettings(processes=2, max_processes=2)), board, target)
    assert len(board.ran) == 4


def test_a_bad_model_costs_only_itself(models: Make, target: Target) -> None:
    """A model that is refused has its error in its place; the others are measured."""
    board = Board(lambda name, before: REFUSES if name == "b" else 1.0)
    rounds = MeasuringRounds(models("abc"), target)
    measure(rounds, board, target)
    assert isinstance(rounds.outcomes()[1], ModelError)
    assert (found(rounds, 0).median_ms, found(rounds, 2).median_ms) == (1.0, 1.0)
    assert rounds.missing_processes_by_model() == {}


def test_a_model_that_fails_later_fails_and_says_after_how_many(models: Make, target: Target) -> None:
    """A model that crashes in its fourth process is a failure, and the message says that it ran before."""
    kept: list[int] = []
    board = Board(lambda name, before: REFUSES if (name, before) == ("b", 3) else 1.0)
    rounds = MeasuringRounds(models("ab"), target, on_process=lambda number, measurement: kept.append(number))
    measure(rounds, board, target)
    assert str(rounds.outcomes()[1]).endswith("; it failed after 3 processes in which it ran")
    assert len(found(rounds, 0).measurements) == kept.count(0) == 6
    assert rounds.missing_processes_by_model() == {}


def test_a_lost_device_keeps_what_came_and_goes_on_there(models: Make, target: Target) -> None:
    """Seven processes came before the loss; the next run takes only what is missing."""
    board = Board(lambda name, before: 1.0, vanishes_after=7)
    rounds = MeasuringRounds(models("ab"), target)
    with pytest.raises(DeviceError):
        measure(rounds, board, target)
    assert [len(found(rounds, number).measurements) for number in (0, 1)] == [4, 3]
    again = Board(lambda name, before: 1.0)
    measure(rounds, again, target)
    assert again.ran == ["a", "b", "a", "b", "b"]


def test_what_was_taken_before_is_not_taken_again(models: Make, target: Target) -> None:
    """Recorded processes count: rounds that were complete ask for nothing."""
    first = MeasuringRounds(models("a"), target)
    measure(first, Board(lambda name, before: 1.0), target)
    taken = found(first).measurements
    assert MeasuringRounds(models("a"), target, recorded=[taken]).missing_processes_by_model() == {}
    assert MeasuringRounds(models("a"), target, recorded=[taken[:3]]).missing_processes_by_model() == {0: 3}


def test_turns_go_round_by_round_after_what_was_taken_before(models: Make, target: Target) -> None:
    """The first model has three of six processes, in rounds 0 to 2, the second none: they go on in round 3."""
    first = MeasuringRounds(models("a"), target, MeasureSettings(processes=3, max_processes=3))
    measure(first, Board(lambda name, before: 1.0), target)
    rounds = MeasuringRounds(models("ab"), target, recorded=[found(first).measurements, []])
    assert rounds.next_turns() == [(0, 3), (1, 3), (0, 4), (1, 4), (0, 5), (1, 5), (1, 6), (1, 7), (1, 8)]


def test_what_was_rejected_before_does_not_count(models: Make, target: Target) -> None:
    """After eighteen disturbed processes and a remedy, six more are measured, in later rounds, and are not rejected."""
    first = MeasuringRounds(models("a"), target, MeasureSettings(processes=18, max_processes=18))
    measure(first, Board(lambda name, before: DISTURBED), target)
    rounds = MeasuringRounds(models("a"), target, recorded=[found(first).measurements])
    board = Board(lambda name, before: 1.0)
    measure(rounds, board, target)
    assert len(board.ran) == 6
    assert [each.round for each in found(rounds).measurements] == [18, 19, 20, 21, 22, 23]
    assert not found(rounds).rejection_reasons


def test_the_agent_ends_when_a_result_cannot_be_kept(models: Make, target: Target) -> None:
    """When the caller's disk is full, say, the device is free again before the error is out."""

    def fail(number: int, measurement: Measurement) -> None:
        raise UsageError("no space left")

    board = Board(lambda name, before: 1.0)
    with pytest.raises(UsageError) as error:
        measure(MeasuringRounds(models("ab"), target, on_process=fail), board, target)
    assert error.tb is not None  # which holds on to the generator
    assert board.device._locks_held == 0


def test_every_process_is_handed_on_at_once(models: Make, target: Target) -> None:
    """What was handed on before the device vanished is all that was measured."""
    kept: list[Measurement] = []
    board = Board(lambda name, before: 1.0, vanishes_after=5)
    rounds = MeasuringRounds(models("ab"), target, on_process=lambda number, measurement: kept.append(measurement))
    with pytest.raises(DeviceError):
        measure(rounds, board, target)
    assert len(kept) == 5


def test_a_file_of_the_wrong_kind_is_refused_before_a_device_is_asked(tmp_path: Path, target: Target) -> None:
    """The files are checked when the rounds are made."""
    path = tmp_path / "model.tflite"
    path.write_text("x")
    with pytest.raises(UsageError, match="runs files ending in"):
        MeasuringRounds([path], target)
