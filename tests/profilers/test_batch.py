"""Rounds of processes: how many each model gets, in which order, and what is kept. The device is a scripted one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Target
from edgenas.devices.fake import FakeDevice, Reply, Request
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.profilers import Batch, Measurement, MeasureSettings, Rounds
from edgenas.profilers.reference import SETTINGS

Speed = Callable[[str, int], float]
REFUSES = -1.0
DISTURBED = 1000.0


class Board:
    """A device whose processes take what ``speed`` says, in ms, by the model's text and how often it ran before.

    Above 1000 ms the process was disturbed, below 0 the model is refused. It
    vanishes after ``vanishes_after`` answers. ``ran`` has all models in order,
    the reference as "reference", and ``settings`` what each ran by.
    """

    def __init__(self, speed: Speed, vanishes_after: int | None = None) -> None:
        self.speed, self.vanishes_after = speed, vanishes_after
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
        median = self.speed(name, self.ran.count(name))
        self.ran.append(name)
        if median < 0:
            return {"kind": "failed", "id": number, "reason": "refused", "detail": "no"}
        after = {"interrupted_share": 0.9 if median >= DISTURBED else 0.0}
        return {
            "kind": "result", "id": number, "samples_ms": [median] * 5, "peak_bytes": 1, "load_ms": 1.0,
            "device_s": 0.1, "conditions_before": {}, "conditions_after": after,
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


def found(batch: Batch, number: int = 0) -> Rounds:
    rounds = batch.results()[number]
    assert isinstance(rounds, Rounds)
    return rounds


def test_models_are_measured_round_by_round(models: Make, target: Target) -> None:
    """In each of six rounds every model gets a process, in one run of the agent."""
    board = Board(lambda name, before: 1.0)
    batch = Batch(models("ab"), target)
    batch.run(board.device)
    assert board.ran == ["a", "b"] * 6
    assert board.requests == 1
    assert [each.round for each in found(batch, 1).measurements] == [0, 1, 2, 3, 4, 5]


def test_a_large_batch_has_the_reference_in_it(models: Make, target: Target) -> None:
    """Three models are eighteen processes: the reference runs before the first and after the tenth."""
    board = Board(lambda name, before: 1.0)
    taken: list[int | None] = []
    Batch(models("abc"), target, on_process=lambda number, measurement: taken.append(number)).run(board.device)
    assert [place for place, name in enumerate(board.ran) if name == "reference"] == [0, 11]
    assert taken.count(None) == 2
    assert [place for place, settings in enumerate(board.settings) if settings == SETTINGS.to_dict()] == [0, 11]


def test_drift_is_corrected(models: Make, target: Target) -> None:
    """Where the reference and the model both become 8% slower, the processes after that are divided by 1.08."""
    board = Board(lambda name, before: 1.08)
    usual = [1.0, 1.005, 0.995] * 10 + [1.08] * 4
    batch = Batch(models("a"), target, references=usual)
    batch.run(board.device)
    assert board.ran[0] == "reference"
    assert found(batch).median_ms == pytest.approx(1.0, rel=0.01)
    assert found(batch).measurements[0].samples_ms == (1.08,) * 5


def test_a_device_that_drifted_too_far_is_measured_again(models: Make, target: Target) -> None:
    """With the reference 30% slower than usual nothing can be trusted, and the verdict says why."""
    board = Board(lambda name, before: 1.3)
    batch = Batch(models("a"), target, references=[1.0, 1.005, 0.995] * 10 + [1.3] * 4)
    batch.run(board.device)
    assert found(batch).verdict.status == "refused"
    assert "slowed down by 30%" in found(batch).verdict.reasons[0]


def test_a_noisy_model_gets_more_processes_than_a_steady_one(models: Make, target: Target) -> None:
    """Medians 5% apart need more than six processes, equal ones do not; it ends at the most that is allowed."""
    board = Board(lambda name, before: 1.0 + 0.1 * (before % 2) * (name == "a"))
    batch = Batch(models("ab"), target, MeasureSettings(max_processes=14))
    batch.run(board.device)
    assert (board.ran.count("a"), board.ran.count("b")) == (14, 6)


def test_time_is_bounded(models: Make, target: Target) -> None:
    """A process takes 0.1 s here: after six, a total of 0.8 s leaves room for no more than three."""
    board = Board(lambda name, before: 1.0 + 0.1 * (before % 2))
    Batch(models("a"), target, MeasureSettings(total_seconds=0.8)).run(board.device)
    assert len(board.ran) == 9


def test_a_disturbed_process_is_tried_again(models: Make, target: Target) -> None:
    """Two of the first six were interrupted: two more are measured, and the disturbed are kept apart."""
    board = Board(lambda name, before: DISTURBED if before in (1, 4) else 1.0)
    batch = Batch(models("a"), target)
    batch.run(board.device)
    assert len(board.ran) == 8
    assert len(found(batch).measurements) == 6
    assert len(found(batch).left_out) == 2
    assert found(batch).verdict.status != "refused"


def test_a_disturbed_model_is_given_up_in_the_end(models: Make, target: Target) -> None:
    """One of two models is always disturbed: after three times as many processes as wanted it is refused."""
    board = Board(lambda name, before: DISTURBED if name == "a" else 1.0)
    batch = Batch(models("ab"), target, MeasureSettings(processes=2, max_processes=2))
    batch.run(board.device)
    assert (board.ran.count("a"), board.ran.count("b")) == (6, 2)
    assert found(batch, 0).verdict.status == "refused"
    assert found(batch, 1).verdict.status != "refused"


def test_where_nothing_can_be_trusted_it_ends_at_once(models: Make, target: Target) -> None:
    """When all first processes of all models were refused, so will the next ones be."""
    board = Board(lambda name, before: DISTURBED)
    Batch(models("ab"), target, MeasureSettings(processes=2, max_processes=2)).run(board.device)
    assert len(board.ran) == 4


def test_a_bad_model_costs_only_itself(models: Make, target: Target) -> None:
    """A model that is refused has its error in its place; the others are measured."""
    board = Board(lambda name, before: REFUSES if name == "b" else 1.0)
    batch = Batch(models("abc"), target)
    batch.run(board.device)
    assert isinstance(batch.results()[1], ModelError)
    assert (found(batch, 0).median_ms, found(batch, 2).median_ms) == (1.0, 1.0)
    assert batch.wanted() == {}


def test_a_reference_that_cannot_run_is_done_without(models: Make, target: Target) -> None:
    """Where the runtime refuses the reference, models are measured and nobody knows the drift."""
    board = Board(lambda name, before: REFUSES if name == "reference" else 1.0)
    batch = Batch(models("abc"), target)
    batch.run(board.device)
    assert len(found(batch).measurements) == 6
    assert "drift" not in found(batch).measurements[0].conditions_after


def test_a_lost_device_keeps_what_came_and_goes_on_there(models: Make, target: Target) -> None:
    """Seven processes came before the loss; the next run takes only what is missing."""
    board = Board(lambda name, before: 1.0, vanishes_after=7)
    batch = Batch(models("ab"), target)
    with pytest.raises(DeviceError):
        batch.run(board.device)
    assert [len(found(batch, number).measurements) for number in (0, 1)] == [4, 3]
    again = Board(lambda name, before: 1.0)
    batch.run(again.device)
    assert again.ran == ["a", "b", "a", "b", "b"]


def test_what_was_taken_before_is_not_taken_again(models: Make, target: Target) -> None:
    """Recorded processes count, and their refused ones too: a batch that was complete asks for nothing."""
    first = Batch(models("a"), target)
    first.run(Board(lambda name, before: DISTURBED if before == 2 else 1.0).device)
    taken = (*found(first).measurements, *found(first).left_out)
    assert Batch(models("a"), target, taken=[taken]).wanted() == {}
    assert Batch(models("a"), target, taken=[taken[:3]]).wanted() == {0: 3}


def test_every_process_is_handed_on_at_once(models: Make, target: Target) -> None:
    """What was handed on before the device vanished is all that was measured."""
    kept: list[Measurement] = []
    board = Board(lambda name, before: 1.0, vanishes_after=5)
    batch = Batch(models("ab"), target, on_process=lambda number, measurement: kept.append(measurement))
    with pytest.raises(DeviceError):
        batch.run(board.device)
    assert len(kept) == 5


def test_a_file_of_the_wrong_kind_is_refused_before_a_device_is_asked(tmp_path: Path, target: Target) -> None:
    """The batch is checked when it is made."""
    path = tmp_path / "model.tflite"
    path.write_text("x")
    with pytest.raises(UsageError, match="runs files ending in"):
        Batch([path], target)
