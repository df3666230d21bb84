"""When a candidate is kept, and what happens when it is not. The measurements here are made up."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

import edgenas as en
from edgenas.devices import Target
from edgenas.errors import NoChoiceError, UsageError
from edgenas.pipeline import choose as choosing
from edgenas.pipeline.choose import MeasuredSubnet
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.pipeline.progress import Progress
from edgenas.space import Architecture

FITS = MeasuredSubnet(0.95, 0.95, 0.9, (0.8, 1.0), 1_000_000, "unverified", synthetic=True)
TOO_SLOW = dataclasses.replace(FITS, latency_ms=0.99, interval_ms=(0.95, 1.01))
TOO_BIG = dataclasses.replace(FITS, peak_bytes=3_000_000)
TOO_WRONG = dataclasses.replace(FITS, accuracy=0.935)
BUDGET = en.Budget(latency="1ms", memory="2MB")

SetMeasured = Callable[[Iterable[MeasuredSubnet]], None]


class Told(Progress):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def run(tmp_path: Path) -> en.Run:
    """A run with a front of four, the most accurate first to try, and a checkpoint's stand-in."""
    space = en.MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
    run = en.Run(tmp_path / "run", space, progress=Told())
    genes = space.sample(4, np.random.default_rng(0))
    accuracy, latency = np.array([0.9, 0.92, 0.94, 0.96]), np.array([0.6, 0.7, 0.8, 0.9])
    values = {"accuracy": accuracy, "latency_ms": latency, "peak_bytes": np.full(4, 1e6)}
    front = en.Front(space, "localhost", genes, values, tuple(values), 4, "a test")
    front.save(run.folder.front(target().name))
    run.folder.checkpoint.parent.mkdir()
    run.folder.checkpoint.write_bytes(b"only its digest is read")
    return run


def target() -> Target:
    return Target(en.load_profile("localhost"))


@pytest.fixture
def set_measured(monkeypatch: pytest.MonkeyPatch) -> SetMeasured:
    """Let candidates be measured with these results, one after the other."""

    def script(results: Iterable[MeasuredSubnet]) -> None:
        answers: Iterator[MeasuredSubnet] = iter(results)

        def answer(
            run: en.Run, architecture: Architecture, target: Target, measurer: MeasurementStore
        ) -> MeasuredSubnet:
            return next(answers)

        monkeypatch.setattr(choosing, "_measure_candidate", answer)

    return script


@pytest.fixture(autouse=True)
def errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predicted latencies are off by 5%, predicted memory by 10%; no table is needed to say so."""
    errors = (np.full(4, 0.05), 0.1)
    monkeypatch.setattr(choosing, "_prediction_errors", lambda workspace, target, front: errors)


def choose(run: en.Run, max_drop: float = 0.01) -> choosing.Choice:
    return choosing.choose(run.workspace, target(), BUDGET, max_drop)


def test_the_most_accurate_candidate_is_kept_when_it_fits(run: en.Run, set_measured: SetMeasured) -> None:
    """An interval that ends at the budget fits, and nothing else is tried."""
    set_measured([FITS])
    choice = choose(run)
    assert choice.arch == run.front(target()).architectures()[3]
    assert choice.rejected == ()


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (TOO_SLOW, "its median latency is 0.990 ms, at 95% up to 1.01 ms, over the budget of 1.00 ms"),
        (TOO_BIG, "its peak memory is 3.00 MB, over the budget of 2.00 MB"),
        (dataclasses.replace(FITS, peak_bytes=None), "the device does not say how much memory it took"),
        (TOO_WRONG, "its file has accuracy 93.50%, the subnet 95.00%, over 1 points less"),
    ],
)
def test_a_candidate_that_falls_short_makes_room_for_the_next(
    run: en.Run, set_measured: SetMeasured, measured: MeasuredSubnet, reason: str
) -> None:
    """The next one is taken, and both the choice and the progress say why the first was not."""
    set_measured([measured, FITS])
    choice = choose(run)
    front = run.front(target()).architectures()
    assert choice.arch == front[2]
    assert [rejection.architecture for rejection in choice.rejected] == [front[3].id]
    assert reason in choice.rejected[0].reason
    assert isinstance(run.workspace.progress, Told)
    assert any("trying the next candidate" in line for line in run.workspace.progress.lines)


def test_memory_that_is_predicted_too_low_is_learned_from_the_first_candidate(
    run: en.Run, set_measured: SetMeasured
) -> None:
    """Of predictions of 1.98, 1.96, 1.9 and 1.5 MB for a budget of 2 MB, the first proves 3% low: 1.9 is next."""
    front = run.front(target())
    peaks = np.array([1.5e6, 1.9e6, 1.96e6, 1.98e6])
    dataclasses.replace(front, values={**front.values, "peak_bytes": peaks}).save(run.folder.front(target().name))
    set_measured([dataclasses.replace(FITS, peak_bytes=2_039_400), FITS])
    choice = choose(run)
    assert choice.arch == front.architectures()[1]
    assert [each.architecture for each in choice.rejected] == [front.architectures()[3].id]


def test_a_larger_loss_of_accuracy_can_be_allowed(run: en.Run, set_measured: SetMeasured) -> None:
    """With two points allowed, a file that loses one and a half is kept."""
    set_measured([TOO_WRONG])
    assert choose(run, max_drop=0.02).measured == TOO_WRONG


def test_no_candidate_left(run: en.Run, set_measured: SetMeasured) -> None:
    """When all fall short, the error names the last and no choice is written."""
    set_measured([TOO_SLOW] * 4)
    with pytest.raises(NoChoiceError, match=r"none of the 4 best candidates kept the budget .* 0.990 ms"):
        choose(run)
    assert run.folder.choices(target().name) == []


def test_a_table_that_is_far_off_is_named(run: en.Run, set_measured: SetMeasured) -> None:
    """A candidate measured at a third of its prediction is kept, and what checks the table is named, once."""
    fast = dataclasses.replace(FITS, latency_ms=0.3, interval_ms=(0.29, 0.31))
    set_measured([dataclasses.replace(fast, accuracy=0.9), fast])
    choose(run)
    assert isinstance(run.workspace.progress, Told)
    (line,) = (line for line in run.workspace.progress.lines if "may not fit this device any more" in line)
    assert line.endswith(f"check it with: edgenas profile --run {run.folder.root} --device localhost --check")


def test_a_table_is_not_doubted_for_what_its_errors_explain(
    run: en.Run, set_measured: SetMeasured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where predictions are off by 15%, a candidate that is faster by 30% is no surprise."""
    errors = (np.full(4, 0.15), 0.1)
    monkeypatch.setattr(choosing, "_prediction_errors", lambda workspace, target, front: errors)
    set_measured([dataclasses.replace(FITS, latency_ms=0.63, interval_ms=(0.62, 0.64))])
    choose(run)
    assert isinstance(run.workspace.progress, Told)
    assert not any("may not fit" in line for line in run.workspace.progress.lines)


@pytest.mark.parametrize("max_drop", [-0.5, 1.5, float("nan"), float("inf")])
def test_a_senseless_loss_raises(run: en.Run, max_drop: float) -> None:
    """The loss that is allowed lies from 0 to 100 points."""
    with pytest.raises(UsageError, match="max_drop must be from 0 to 1"):
        choose(run, max_drop)


def test_a_choice_of_other_weights_is_not_current(run: en.Run, set_measured: SetMeasured) -> None:
    """After the weights have changed the candidates are tried again."""
    set_measured([FITS])
    choose(run)
    run.folder.checkpoint.write_bytes(b"other weights")
    set_measured([TOO_SLOW, FITS])
    assert len(choose(run).rejected) == 1
