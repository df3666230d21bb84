"""Which candidate is kept, on which targets, and what is said of the others. All numbers here are made up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

import edgenas as en
from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.errors import DeviceError, ModelError, NoChoiceError, RunError, UsageError, VerificationError
from edgenas.files import write_document
from edgenas.pipeline import choose as choosing
from edgenas.pipeline.choice import Choice, MeasuredSubnet, find_chosen
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.subnet_pool import SubnetPool
from edgenas.pipeline.workspace import Workspace
from edgenas.search import AccuracyEstimates, TargetPredictions
from edgenas.space import Architecture

FITS = MeasuredSubnet(0.95, 0.95, 0.9, (0.8, 1.0), 1_000_000, "unverified", synthetic=True)
TOO_SLOW = dataclasses.replace(FITS, latency_ms=0.99, interval_ms=(0.95, 1.01))
TOO_BIG = dataclasses.replace(FITS, peak_bytes=3_000_000)
PROFILE = (
    "{{name: {name}, connection: {{kind: {kind}}}, runtimes: {{{runtime}: {{}}}}, default: {{runtime: {runtime}}}}}"
)
BUDGET = Budget(latency="1ms", memory="2MB")
SPACE = en.MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
ARCHITECTURES = SPACE.decode(SPACE.sample(4, np.random.default_rng(0)))
ACCURACIES = (0.90, 0.92, 0.94, 0.96)  # predicted
LATENCIES = (0.6, 0.7, 0.8, 0.9)

Evaluate = Callable[[Architecture, Target], tuple[float, float]]


class Told(Progress):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class Files:
    """Stands for the files of candidates: measured with these results, in their order; accuracies as told."""

    def __init__(self, results: Sequence[MeasuredSubnet], evaluate: Evaluate) -> None:
        self._results, self._evaluate = iter(results), evaluate
        self.evaluated: list[tuple[str, str]] = []
        self.measured: list[tuple[str, str]] = []

    def __call__(self, workspace: Workspace) -> Files:
        return self

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def evaluate(self, architecture: Architecture, target: Target) -> tuple[float, float]:
        self.evaluated.append((architecture.id, target.name))
        return self._evaluate(architecture, target)

    def measure(
        self, architecture: Architecture, target: Target, budget: Budget, accuracies: tuple[float, float]
    ) -> MeasuredSubnet:
        self.measured.append((architecture.id, target.name))
        return dataclasses.replace(next(self._results), subnet_accuracy=accuracies[0], accuracy=accuracies[1])

    def test_accuracy(self, architecture: Architecture, target: Target) -> float:
        return 0.5


def as_predicted(architecture: Architecture, target: Target) -> tuple[float, float]:
    accuracy = ACCURACIES[ARCHITECTURES.index(architecture)]
    return accuracy, accuracy


def target(**options: object) -> Target:
    return Target("localhost", **options)  # type: ignore[arg-type]


Choose = Callable[..., Choice]


class World:
    """A run with four subnets, the most accurate first to try, and a checkpoint's stand-in."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self._patch, self.told = patch, Told()
        self.run = en.Run(root, SPACE, progress=self.told)
        for path in (self.run.folder.checkpoint, self.run.folder.evaluated):
            path.parent.mkdir()
            path.write_bytes(b"only its digest is read")
        self.files = Files([], as_predicted)

    def choose(
        self,
        results: Sequence[MeasuredSubnet],
        budgets: Mapping[Target, Budget] | None = None,
        *,
        latencies: Mapping[str, Sequence[float]] | None = None,
        errors: float = 0.05,
        std: float = 0.0,
        evaluate: Evaluate = as_predicted,
        max_drop: float = 0.01,
        measure: bool = True,
    ) -> Choice:
        """Choose where candidates are measured with ``results``; ``latencies`` are predicted, by target."""
        budgets = {target(): BUDGET} if budgets is None else budgets
        predicted = latencies or {}

        def make_pool(
            workspace: Workspace, devices: Mapping[str, Sequence[Target]], of: Mapping[Target, Budget], optimism: float
        ) -> SubnetPool:
            def predict(each: Target) -> TargetPredictions:
                latency_ms = np.array(predicted.get(each.name, LATENCIES))
                return TargetPredictions(
                    each.name, f"{each.runtime}-{each.precision}", of[each], latency_ms, np.full(4, errors),
                    np.full(4, 1e6), 0.1,
                )  # fmt: skip

            return SubnetPool(
                SPACE,
                SPACE.encode(ARCHITECTURES),
                AccuracyEstimates(np.array(ACCURACIES), np.full(4, std), optimism),
                tuple(devices),
                tuple(tuple(map(predict, group)) for group in devices.values()),
            )

        self.files = Files(results, evaluate)
        self._patch.setattr(choosing, "make_pool", make_pool)
        self._patch.setattr(choosing, "CandidateFiles", self.files)
        for each in budgets:
            for path in (self.run.folder.front(each.name), self.run.folder.table(each.name)):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"only its digest is read")
        return choosing.choose(self.run.workspace, budgets, max_drop, measure)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "run", monkeypatch)


def test_the_most_accurate_candidate_is_kept_when_it_fits(world: World) -> None:
    """An interval that ends at the budget fits, and nothing else is tried."""
    choice = world.choose([FITS])
    assert choice.arch == ARCHITECTURES[3]
    assert choice.rejected == ()
    (deployment,) = choice.deployments
    assert deployment.measured is not None
    assert (deployment.predicted.latency_ms, deployment.measured.latency_ms) == (0.9, 0.9)
    assert deployment.test_accuracy == 0.5


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (TOO_SLOW, "its median latency is 0.990 ms, at 95% up to 1.01 ms, over the budget of 1.00 ms"),
        (TOO_BIG, "its peak memory is 3.00 MB, over the budget of 2.00 MB"),
        (dataclasses.replace(FITS, peak_bytes=None), "the device does not say how much memory it took"),
    ],
)
def test_a_candidate_that_falls_short_makes_room_for_the_next(
    world: World, measured: MeasuredSubnet, reason: str
) -> None:
    """The next one is taken, and both the choice and the progress say why the first was not."""
    choice = world.choose([measured, FITS], errors=0.2)
    assert choice.arch != ARCHITECTURES[3]
    (rejected,) = choice.rejected
    assert (rejected.architecture, rejected.target) == (ARCHITECTURES[3].id, target().name)
    assert reason in rejected.reason
    assert any("trying the next candidate" in line for line in world.told.lines)


def test_a_file_that_loses_too_much_is_not_measured(world: World) -> None:
    """A file 1.5 points below its subnet is rejected before the device is asked, unless that is allowed."""

    def lossy(architecture: Architecture, _: Target) -> tuple[float, float]:
        accuracy = as_predicted(architecture, _)[0]
        return accuracy, accuracy - 0.015 * (architecture == ARCHITECTURES[3])

    choice = world.choose([FITS], evaluate=lossy)
    assert choice.arch == ARCHITECTURES[2]
    assert choice.rejected[0].reason == "its file has accuracy 94.50%, the subnet 96.00%, over 1 points less"
    assert world.files.measured == [(ARCHITECTURES[2].id, target().name)]
    assert world.choose([FITS], evaluate=lossy, max_drop=0.02).arch == ARCHITECTURES[3]


@pytest.mark.parametrize("error", [VerificationError("90.0% of 40 images keep their class"), ModelError("is refused")])
def test_a_file_that_cannot_be_shipped_makes_room_for_the_next(world: World, error: Exception) -> None:
    """A file that export would refuse, or the runtime, is rejected with the reason, and is no end of the choice."""

    def evaluate(architecture: Architecture, target: Target) -> tuple[float, float]:
        if architecture == ARCHITECTURES[3]:
            raise error
        return as_predicted(architecture, target)

    choice = world.choose([FITS], evaluate=evaluate)
    assert choice.arch == ARCHITECTURES[2]
    assert [(each.architecture, each.reason) for each in choice.rejected] == [(ARCHITECTURES[3].id, str(error))]


def test_no_file_that_is_good_enough_is_no_question_of_the_budget(world: World) -> None:
    """Where all files lose too much nothing was measured, and the message names what helps."""
    with pytest.raises(NoChoiceError, match=r"good enough as a file .* choose another precision, or .* --max-drop$"):
        world.choose([], evaluate=lambda *_: (0.95, 0.9))


def test_a_larger_loss_is_no_remedy_for_files_that_cannot_be_shipped(world: World) -> None:
    """Where no file was rejected for its loss, the message does not name --max-drop."""

    def refuse(*_: object) -> tuple[float, float]:
        raise VerificationError("60% of 40 images keep their class")

    with pytest.raises(NoChoiceError, match=r"keep their class; choose another precision, or train longer$"):
        world.choose([], evaluate=refuse)


def test_an_optimistic_prediction_is_found_out_before_it_is_measured(world: World) -> None:
    """The first is predicted at 96% and evaluated at 91%; the second, not far behind, is the one that is measured."""

    def evaluate(architecture: Architecture, _: Target) -> tuple[float, float]:
        accuracy = 0.91 if architecture == ARCHITECTURES[3] else 0.93
        return accuracy, accuracy

    choice = world.choose([FITS], evaluate=evaluate, std=0.02)
    assert choice.arch == ARCHITECTURES[2]
    assert [each.architecture for each in choice.evaluated[:2]] == [ARCHITECTURES[3].id, ARCHITECTURES[2].id]
    assert [each[0] for each in world.files.measured] == [ARCHITECTURES[2].id]
    assert (choice.evaluated[0].predicted_accuracy, choice.evaluated[0].accuracy) == (0.96, 0.91)


@pytest.mark.parametrize(("std", "evaluated"), [(0.0, 1), (0.025, 2), (0.1, 4)])
def test_the_uncertainty_decides_how_many_are_evaluated(world: World, std: float, evaluated: int) -> None:
    """Predictions 2, 4 and 6 points behind are worth an evaluation where they are within a standard deviation."""
    assert len(world.choose([FITS], std=std).evaluated) == evaluated


def test_no_candidate_left(world: World) -> None:
    """When all fall short, the error names the last and no choice is written."""
    with pytest.raises(NoChoiceError, match=r"none of the \d best candidates kept the budget .* 0.990 ms"):
        world.choose([TOO_SLOW] * 4)
    assert world.run.folder.choices() == []


def test_a_table_that_is_far_off_is_named(world: World) -> None:
    """A candidate measured at a third of its prediction is kept, and what checks the table is named, once."""
    world.choose([dataclasses.replace(FITS, latency_ms=0.3, interval_ms=(0.29, 0.31))])
    (line,) = (line for line in world.told.lines if "may not fit this device any more" in line)
    assert line.endswith(f"check it with: edgenas profile --run {world.run.folder.root} --device localhost --check")


def test_a_table_is_not_doubted_for_what_its_errors_explain(world: World) -> None:
    """Where predictions are off by 15%, a candidate that is faster by 30% is no surprise."""
    world.choose([dataclasses.replace(FITS, latency_ms=0.63, interval_ms=(0.62, 0.64))], errors=0.15)
    assert not any("may not fit" in line for line in world.told.lines)


@pytest.mark.parametrize("max_drop", [-0.5, 1.5, float("nan"), float("inf")])
def test_a_senseless_loss_raises(world: World, max_drop: float) -> None:
    """The loss that is allowed lies from 0 to 100 points."""
    with pytest.raises(UsageError, match="max_drop must be from 0 to 1"):
        world.choose([FITS], max_drop=max_drop)


def test_a_choice_is_made_once(world: World) -> None:
    """While everything is the same, the choice is read; after the weights have changed it is made again."""
    first = world.choose([FITS])
    assert world.choose([]) == first
    assert world.files.evaluated == []
    world.run.folder.checkpoint.write_bytes(b"other weights")
    assert len(world.choose([TOO_SLOW, FITS]).rejected) == 1


# -- several targets of a device -------------------------------------------------------------

INT8, FOUR = target(precision="int8"), target(runtime="litert")


def test_int8_loses_where_its_files_lose_accuracy(world: World) -> None:
    """int8 alone runs the largest subnet in time, but loses five points: a smaller one in float32 wins."""
    latencies = {INT8.name: (0.3, 0.4, 0.5, 0.6), target().name: (0.6, 0.8, 1.5, 2.0)}

    def evaluate(architecture: Architecture, on: Target) -> tuple[float, float]:
        accuracy = as_predicted(architecture, on)[0]
        return accuracy, accuracy - 0.05 * (on == INT8)

    choice = world.choose(
        [FITS], {target(): BUDGET, INT8: BUDGET}, latencies=latencies, evaluate=evaluate, max_drop=0.1
    )
    assert (choice.arch, choice.deployments[0].target) == (ARCHITECTURES[1], target().name)
    chosen, other = choice.considered
    assert (chosen.outcome, chosen.is_measured) == ("chosen", True)
    assert (other.target, other.architecture) == (INT8.name, ARCHITECTURES[3].id)
    assert other.accuracy == pytest.approx(0.91)
    assert other.is_evaluated
    assert other.outcome == "1.00 points less accurate"


def test_a_faster_target_makes_room_for_a_larger_subnet(world: World) -> None:
    """The same file is faster on another runtime, so that the most accurate subnet is within the budget there."""
    latencies = {target().name: (0.6, 0.8, 1.5, 2.0), FOUR.name: (0.5, 0.6, 0.7, 0.8)}
    choice = world.choose([FITS], {target(): BUDGET, FOUR: BUDGET}, latencies=latencies)
    assert (choice.arch, choice.deployments[0].target) == (ARCHITECTURES[3], FOUR.name)
    assert choice.considered[0].outcome == "4.00 points less accurate"
    assert world.run.folder.choice(FOUR.name, "latency-1ms_memory-2000000B").exists()


def test_a_target_that_nothing_fits_says_how_fast_it_is(world: World) -> None:
    """A target with no candidate at all is listed with its fastest subnet."""
    latencies = {target().name: (3.0, 4.0, 5.0, 6.0)}
    choice = world.choose([FITS], {target(): BUDGET, FOUR: BUDGET}, latencies=latencies)
    outcome = choice.considered[0]
    assert outcome.architecture is None
    assert outcome.outcome == f"nothing fits: the fastest, {ARCHITECTURES[0].id}, takes 3.00 ms"


def test_an_answer_replaces_the_older_one_on_another_target(world: World) -> None:
    """Asked the same again with other weights, the answer is on another target, and the older one is gone."""
    both = {target(): BUDGET, FOUR: BUDGET}
    world.choose([FITS], both, latencies={target().name: (0.1, 0.1, 0.1, 0.1)})
    assert len(world.run.folder.choices(target().name)) == 1
    world.run.folder.checkpoint.write_bytes(b"other weights")
    world.choose([FITS], both, latencies={FOUR.name: (0.1, 0.1, 0.1, 0.1)})
    assert [path.parts[-3] for path in world.run.folder.choices()] == [FOUR.name]


def test_an_answer_replaces_the_one_from_before_there_was_another_target(world: World) -> None:
    """The same question with one more table; the answer to the narrower question is not kept beside it."""
    world.choose([FITS])
    world.choose([FITS], {target(): BUDGET, FOUR: BUDGET}, latencies={FOUR.name: (0.1, 0.1, 0.1, 0.1)})
    assert [path.parts[-3] for path in world.run.folder.choices()] == [FOUR.name]


def test_an_architecture_finds_the_target_that_it_was_chosen_for(world: World) -> None:
    """With the target its format is known; None for what was not chosen."""
    both = [target(), FOUR]
    world.choose([FITS], dict.fromkeys(both, BUDGET), latencies={FOUR.name: (0.1, 0.1, 0.1, 0.1)})
    assert world.run.target_of_choice(ARCHITECTURES[3], both) == FOUR
    assert world.run.target_of_choice(ARCHITECTURES[0], both) is None


def test_one_device_has_one_budget(world: World) -> None:
    """Two budgets for the targets of one device are refused."""
    with pytest.raises(UsageError, match="the targets of localhost must have one budget"):
        world.choose([FITS], {target(): BUDGET, FOUR: Budget(latency="2ms")})


# -- several devices -----------------------------------------------------------------------------


@pytest.fixture
def other(tmp_path: Path) -> Target:
    """A second device."""
    path = tmp_path / "board.yaml"
    path.write_text(
        "name: board\nconnection: {kind: fake}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"
    )
    return Target(path)


def test_one_subnet_keeps_the_budgets_of_all_devices(world: World, other: Target) -> None:
    """The best subnet of either device breaks the other's budget; the one for both costs each two or four points."""
    latencies = {target().name: (0.6, 0.7, 0.8, 5.0), other.name: (0.6, 0.7, 5.0, 0.5)}
    as_fast_as_predicted = dataclasses.replace(FITS, latency_ms=0.7, interval_ms=(0.69, 0.7))
    choice = world.choose([as_fast_as_predicted] * 2, {target(): BUDGET, other: BUDGET}, latencies=latencies)
    assert choice.arch == ARCHITECTURES[1]
    assert world.files.measured == [(choice.arch.id, target().name), (choice.arch.id, other.name)]
    rows = {(row.best_on, row.device): row for row in choice.regret}
    assert rows["localhost", "localhost"].architecture == ARCHITECTURES[2].id
    assert rows["board", "board"].architecture == ARCHITECTURES[3].id
    assert rows["localhost", "board"].lost is None
    assert rows["board", "localhost"].lost is None
    assert rows["", "localhost"].lost == pytest.approx(0.02)
    assert rows["", "board"].lost == pytest.approx(0.04)
    assert rows["", "board"].is_measured
    assert not rows["localhost", "board"].is_measured


def test_a_candidate_that_fails_on_one_device_is_not_kept(world: World, other: Target) -> None:
    """It kept the budget on the first device, and not on the second: the next one is measured on both."""
    choice = world.choose([FITS, TOO_SLOW, FITS, FITS], {target(): BUDGET, other: BUDGET}, errors=0.2)
    assert choice.arch != ARCHITECTURES[3]
    assert [each.target for each in choice.deployments] == [target().name, other.name]
    assert choice.rejected[0].target == other.name


def test_a_choice_for_several_devices_is_found_for_each(world: World, other: Target) -> None:
    """Written once, it is what was chosen for either target."""
    chosen = world.choose([FITS, FITS], {target(): BUDGET, other: BUDGET})
    assert len(world.run.folder.choices()) == 1
    assert find_chosen(world.run.workspace, [other]) == (chosen.arch, other)
    assert world.run.choices(target()) == [chosen]


def test_different_choices_for_a_device_are_listed(world: World) -> None:
    """Where two budgets have different subnets, neither is taken."""
    world.choose([FITS])
    world.choose([dataclasses.replace(FITS, interval_ms=(0.6, 0.7))], {target(): Budget(latency="0.75ms")})
    with pytest.raises(RunError, match=r"localhost has several choices: .* name one with --arch"):
        find_chosen(world.run.workspace, [target()])


# -- predictions alone, tails, absent devices ---------------------------------------------------


def test_without_measuring_nothing_is_evaluated_or_written(world: World) -> None:
    """The best prediction is returned, marked as predicted; neither files nor device are asked."""
    choice = world.choose([], std=0.1, measure=False)
    assert choice.arch == ARCHITECTURES[3]
    assert not choice.is_measured
    assert "predicted only" in repr(choice)
    assert choice.deployments[0].predicted.accuracy_std == 0.1
    assert choice.deployments[0].test_accuracy is None
    assert (world.files.evaluated, world.run.folder.choices()) == ([], [])


def test_a_tail_must_keep_the_budget(world: World) -> None:
    """A median of 0.9 ms keeps 1 ms; its 90th percentile of up to 1.2 ms does not."""
    slow_tail = dataclasses.replace(FITS, tail_ms=1.1, tail_interval_ms=(1.05, 1.2))
    fine = dataclasses.replace(FITS, tail_ms=0.8, tail_interval_ms=(0.75, 0.85))
    choice = world.choose([slow_tail, fine], {target(): Budget(latency="1ms", percentile=90)}, errors=0.3)
    reason = "its latency at percentile 90 is 1.10 ms, at 95% up to 1.20 ms, over the budget of 1.00 ms"
    assert choice.rejected[0].reason == reason
    assert world.run.folder.choice(target().name, "latency-p90-1ms").exists()


def test_an_absent_device_is_chosen_for_by_predictions(world: World, tmp_path: Path) -> None:
    """Measuring on a device of imported tables is refused, and the option that does without is named."""
    path = tmp_path / "note.yaml"
    path.write_text(
        "name: note\nconnection: {kind: absent}\nruntimes: {published: {}}\ndefault: {runtime: published}\n"
    )
    absent = Target(path)
    with pytest.raises(DeviceError, match="there is no device to measure on; --no-measure"):
        world.choose([], {absent: BUDGET})
    assert world.choose([], {absent: BUDGET}, measure=False).deployments[0].target == absent.name


def test_a_choice_of_the_version_before_is_read(world: World) -> None:
    """What was measured then is kept, and without its digest it is chosen again."""
    world.choose([FITS])
    (path,) = world.run.folder.choices()
    body = json.loads(path.read_text())
    (deployment,) = body["deployments"]
    del deployment["test_accuracy"], deployment["predicted"]["accuracy_std"], deployment["budget"]["percentile"]
    del deployment["measured"]["tail_ms"], deployment["measured"]["tail_interval_ms"]
    rejected = [{"architecture": ARCHITECTURES[3].id, "reason": "it was slow"}]
    old = {"inputs_digest": "a", "architecture": body["architecture"], "rejected": rejected, **deployment}
    write_document(path, "choice", 2, old)
    read = Choice.load(path, SPACE)
    assert read.deployments[0].measured is not None
    assert read.deployments[0].measured.latency_ms == 0.9
    assert (read.rejected[0].target, read.rejected[0].reason) == (target().name, "it was slow")
    assert read.inputs_digest == ""
