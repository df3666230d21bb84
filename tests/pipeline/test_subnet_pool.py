"""The subnets that compete for a budget, from fronts and tables of devices that are made up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import edgenas as en
from edgenas.accuracy import AccuracyPredictor
from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.errors import BudgetError, RunError, UsageError
from edgenas.files import digest_of_inputs
from edgenas.pipeline.documents import EVALUATED
from edgenas.pipeline.finetuned import FinetunedSubnet
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.search import SearchOptions, search
from edgenas.pipeline.subnet_pool import SubnetPool, find_tail_ratio, make_pool
from edgenas.profilers import LatencyTable
from edgenas.profilers.latency.memory import MemoryModel

SPACE = en.MobileNetV3(width=0.35, resolutions=(24, 32), classes=10)
PROFILE = "connection: {kind: fake}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"


@pytest.fixture
def run(tmp_path: Path) -> en.Run:
    """A run of evaluated subnets: the more parameters, the more accurate."""
    run = en.Run(tmp_path / "run", SPACE, progress=Silent())
    genes = SPACE.sample_distinct(40, np.random.default_rng(0))
    params = SPACE.params(genes)
    accuracy = 0.8 + 0.1 * (params - params.min()) / np.ptp(params)
    ids = [architecture.id for architecture in SPACE.decode(genes)]
    EVALUATED.write(
        run.folder.evaluated,
        {"inputs_digest": digest_of_inputs(""), "accuracy": dict(zip(ids, accuracy.tolist(), strict=True))},
    )
    return run


def add_target(run: en.Run, tmp_path: Path, name: str, part_ms: dict[int, float], **options: object) -> Target:
    """Profile a made-up device whose parts take so long by their kernel size, 0.1 ms for the others."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"name: {name}\n{PROFILE}")
    target = Target(path, **options)  # type: ignore[arg-type]
    costs = np.array([part_ms.get(getattr(part, "kernel", 0), 0.1) for part in SPACE.distinct_parts])
    memory = MemoryModel.with_unit_costs(SPACE)
    LatencyTable(SPACE, target.name, 0.5, costs, memory, None, "made up").save(run.folder.table(target.name))
    search(run.workspace, [target], SearchOptions(evaluations=300))
    return target


def pool_of(run: en.Run, budgets: dict[Target, Budget]) -> SubnetPool:
    devices: dict[str, list[Target]] = {}
    for target in budgets:
        devices.setdefault(target.profile.name, []).append(target)
    return make_pool(run.workspace, devices, budgets, optimism=1.0)


def test_the_subnets_of_all_fronts_are_predicted_for_every_target(run: en.Run, tmp_path: Path) -> None:
    """Each subnet of either front is there once, with the latency that each table says."""
    one = add_target(run, tmp_path, "board", {})
    four = add_target(run, tmp_path, "board", {7: 0.2}, threads=4)
    pool = pool_of(run, dict.fromkeys((one, four), Budget(latency="1s")))
    fronts = [run.front(target) for target in (one, four)]
    ids = [each.id for each in SPACE.decode(pool.genes)]
    assert set(ids) == {each.id for front in fronts for each in front.architectures()}
    assert len(set(ids)) == len(ids)
    genes = pool.genes
    for target, predictions in zip((one, four), pool.predictions[0], strict=True):
        assert (predictions.latency_ms == run.table(target).latency_ms(genes)).all()
    predictor = run.predictor()
    assert isinstance(predictor, AccuracyPredictor)
    assert pool.estimates.predicted == pytest.approx(predictor(genes))
    assert pool.estimates.std == pytest.approx(predictor.accuracy_std(genes))


def test_a_measured_accuracy_replaces_a_predicted_one(run: en.Run, tmp_path: Path) -> None:
    """A front that was searched with measured accuracies has no deviation, and its values count."""
    one = add_target(run, tmp_path, "board", {})
    four = add_target(run, tmp_path, "board", {7: 0.2}, threads=4)
    front = run.front(one)
    values = {name: column for name, column in front.values.items() if name != "accuracy_std"}
    values["accuracy"] = np.full(len(front), 0.5)
    dataclasses.replace(front, values=values, measured=("accuracy",)).save(run.folder.front(one.name))
    pool = pool_of(run, dict.fromkeys((one, four), Budget(latency="1s")))
    measured = {each.id for each in front.architectures()}
    rows = [place for place, each in enumerate(SPACE.decode(pool.genes)) if each.id in measured]
    assert (pool.estimates.predicted[rows] == 0.5).all()
    assert (pool.estimates.std[rows] == 0).all()


def test_a_fine_tuned_subnet_competes_with_the_inherited_one(
    run: en.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes before all others, also where it is on no front, and is predicted to be better by what it gained."""
    target = add_target(run, tmp_path, "board", {})
    plain = pool_of(run, {target: Budget(latency="1s")})
    on_no_front = next(each for each in SPACE.decode(SPACE.sample(20, np.random.default_rng(1))) if not (
        plain.genes == np.array(each.genes)).all(axis=1).any())  # fmt: skip
    own = [dataclasses.replace(each, weights="000000") for each in (plain.architecture(1), on_no_front)]
    records = [
        FinetunedSubnet(
            each.id, "1" * 64, "0" * 64, "inherited weights", "max", "digits", 1, 100, 0.02, 10, 0.5, 0.5625
        )
        for each in own
    ]
    monkeypatch.setattr("edgenas.pipeline.finetuned.list_finetuned", lambda workspace: records)
    pool = pool_of(run, {target: Budget(latency="1s")})
    assert [pool.architecture(row) for row in range(2)] == own
    assert len(pool.genes) == len(plain.genes) + 3
    predicted = run.predictor()(SPACE.encode([each.inherited for each in own])) + 0.0625
    assert pool.estimates.predicted[:2] == pytest.approx(np.minimum(predicted, 1.0))
    rows = [(pool.genes[2:] == genes).all(axis=1).argmax() + 2 for genes in plain.genes]
    assert pool.estimates.predicted[rows] == pytest.approx(plain.estimates.predicted)


def test_a_compromise_between_devices_is_searched(run: en.Run, tmp_path: Path) -> None:
    """One board is slow with kernels of 3, the other with those of 7: some subnet keeps the budgets of both."""
    first = add_target(run, tmp_path, "first", {3: 0.5})
    second = add_target(run, tmp_path, "second", {7: 0.5})
    budget = Budget(latency="3.5ms")
    pool = pool_of(run, dict.fromkeys((first, second), budget))
    both = np.max([targets[0].excess for targets in pool.predictions], axis=0) <= 1
    assert both.any()
    assert pool.devices == ("first", "second")


def test_budgets_that_exclude_each_other_are_named(run: en.Run, tmp_path: Path) -> None:
    """Where no subnet keeps both, the message has the nearest value of each."""
    first = add_target(run, tmp_path, "first", {3: 5.0})
    second = add_target(run, tmp_path, "second", {5: 5.0, 7: 5.0})
    with pytest.raises(BudgetError, match=r"no architecture keeps latency on first at most 3.00 ms.*the nearest"):
        pool_of(run, dict.fromkeys((first, second), Budget(latency="3ms")))


def test_a_tail_needs_measurements(run: en.Run, tmp_path: Path) -> None:
    """Nothing is known about the tail of a table without measurements."""
    target = add_target(run, tmp_path, "board", {})
    with pytest.raises(UsageError, match="nothing is known about percentile 90"):
        find_tail_ratio(run.workspace, target, 90)


def test_several_targets_are_searched_at_once(run: en.Run, tmp_path: Path) -> None:
    """Each gets the one front, by its own latency, with its costs under plain names; asked again it is there."""
    first = add_target(run, tmp_path, "first", {3: 0.5})
    second = add_target(run, tmp_path, "second", {7: 0.5})
    options = SearchOptions(evaluations=500, objectives=("accuracy", "latency"))
    here = search(run.workspace, [first, second], options)
    there = run.front(second)
    assert (here.target, there.target) == (first.name, second.name)
    assert here.objectives == ("accuracy", "latency_ms", f"latency_ms@{second.name}")
    assert there.objectives == ("accuracy", "latency_ms", f"latency_ms@{first.name}")
    assert (np.diff(here.latency_ms) >= 0).all()
    assert (np.diff(there.latency_ms) >= 0).all()
    ids = [each.id for each in there.architectures()]
    rows = [ids.index(each.id) for each in here.architectures()]
    assert (there.latency_ms[rows] == here[f"latency_ms@{second.name}"]).all()
    assert (there[f"latency_ms@{first.name}"][rows] == here.latency_ms).all()
    assert (there.latency_ms == run.table(second).latency_ms(there.genes)).all()
    before = run.folder.front(second.name).read_bytes()
    assert repr(search(run.workspace, [first, second], options)) == repr(here)
    assert run.folder.front(second.name).read_bytes() == before
    assert run.search([first]).inputs_digest != here.inputs_digest


def test_devices_are_measured_one_at_a_time(run: en.Run, tmp_path: Path) -> None:
    """A search for several targets that is to measure latencies is refused, as are none and one twice."""
    first, second = (add_target(run, tmp_path, name, {}) for name in ("first", "second"))
    with pytest.raises(UsageError, match="can be measured on one device at a time"):
        run.search([first, second], measured=("latency",))
    for targets in ([], [first, first]):
        with pytest.raises(UsageError, match="one or several different targets"):
            run.search(targets)


def test_the_targets_of_a_device_are_those_with_a_table(run: en.Run, tmp_path: Path) -> None:
    """What is given leaves those that agree; another device's name may begin alike."""
    one = add_target(run, tmp_path, "board", {})
    eight = add_target(run, tmp_path, "board", {}, precision="int8", threads=4)
    add_target(run, tmp_path, "board-onnxruntime", {})
    path = tmp_path / "board.yaml"
    assert run.targets(path) == [one, eight]
    assert run.targets(path, threads=4) == [eight]
    assert run.targets(path, "onnxruntime", 1, "fp32") == [one]
    with pytest.raises(RunError, match=f"no latency table of board-onnxruntime-fp32-2t yet, only of {one.name}, "):
        run.targets(path, threads=2)
