"""Searching a run with the strategy of an installed package."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.accuracy import AccuracyPredictor
from edgenas.errors import BudgetError, UsageError
from edgenas.pipeline import Run
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.search import make_problem, reference_genes
from tests.fixtures.installed_package import install_package

SOURCE = """
import numpy as np

def search_randomly(problem, evaluate, *, budget, seed, progress):
    evaluate(problem.space.sample(200, np.random.default_rng(seed)))
    progress(1, 1)
"""


@pytest.fixture
def heard() -> io.StringIO:
    """What the run says."""
    return io.StringIO()


@pytest.fixture
def run(tmp_path: Path, heard: io.StringIO) -> Run:
    """A run with a front that NSGA-II made before there were strategies."""
    with zipfile.ZipFile(Path(__file__).with_name("run_of_version_1.zip")) as archive:
        archive.extractall(tmp_path)
    return Run(tmp_path / "run", progress=Progress(heard))


def test_a_strategy_is_part_of_what_is_done(
    run: Run, heard: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another strategy searches again, once; its front has its name, from its file too."""
    points = {"edgenas.strategies": {"uniform": "strategy_of_a_run:search_randomly"}}
    install_package(tmp_path, monkeypatch, "strategy-of-a-run", SOURCE, points)
    target = run.target("localhost")
    fronts = [run.search([target], strategy=name) for name in ("nsga2", "uniform", "uniform")]
    assert [front.strategy for front in fronts] == ["nsga2", "uniform", "uniform"]
    done = [
        "already done" in line
        for line in heard.getvalue().splitlines()
        if line.startswith("search") and "replaces" not in line
    ]
    assert done == [True, False, True]
    assert fronts[1].evaluations <= 202


def test_an_unknown_strategy_leaves_the_front(run: Run) -> None:
    """It is refused, and the front that is there stays byte for byte."""
    target = run.target("localhost")
    path = run.folder.front(target.name)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="unknown search strategy 'nsga3'; did you mean 'nsga2'"):
        run.search([target], strategy="nsga3")
    assert path.read_bytes() == before


def test_a_front_has_what_was_asked_for(run: Run) -> None:
    """Objectives and limits are kept in the front, with the uncertainty of its accuracies; asked again it is there."""
    target = run.target("localhost")
    asked = {"objectives": ("accuracy", "latency"), "limits": {"latency": "50ms"}, "evaluations": 500}
    front = run.search([target], **asked)  # type: ignore[arg-type]
    assert (front.objectives, dict(front.limits)) == (("accuracy", "latency_ms"), {"latency_ms": 50.0})
    assert front.latency_ms.max() <= 50
    assert front.evaluations <= 500
    assert (front["accuracy_std"] > 0).all()
    assert (np.diff(front.accuracy) > 0).all()  # of two objectives, by ascending latency
    assert np.array_equal(run.front(target)["accuracy_std"], front["accuracy_std"])


def test_other_options_search_again(run: Run, heard: io.StringIO) -> None:
    """Each other option makes the front outdated; the same ones do not, however a limit is written."""
    target = run.target("localhost")
    for limits in ({}, {}, {"latency": "90ms"}, {"latency": "0.09s"}):
        run.search([target], evaluations=300, limits=limits)
    done = [
        "already done" in line
        for line in heard.getvalue().splitlines()
        if line.startswith("search") and "replaces" not in line
    ]
    assert done == [False, True, False, True]


def test_a_search_begins_with_reference_and_evaluated_subnets(run: Run) -> None:
    """The smallest and the largest network at each resolution, and the best that were evaluated, come first."""
    table, predictor = run.table(run.target("localhost")), run.predictor()
    problem = make_problem(predictor, {"": table})
    first = {tuple(row) for row in problem.first_genes.tolist()}
    references = reference_genes(run.space)
    assert len(references) == 2 * len(run.space.resolutions)
    assert {tuple(row) for row in references.tolist()} <= first
    assert isinstance(predictor, AccuracyPredictor)
    best = predictor.genes[np.argmax(predictor.accuracy)]
    assert tuple(best.tolist()) in first


def test_a_problem_of_two_targets_has_the_costs_of_each(run: Run) -> None:
    """With two tables, latency and memory stand for both targets, in objectives and limits."""
    table = run.table(run.target("localhost"))
    problem = make_problem(run.predictor(), {"a": table, "b": table}, ("accuracy", "latency"), {"memory": "64MB"})
    assert problem.objectives == ["accuracy", "latency_ms@a", "latency_ms@b"]
    assert dict(problem.limits) == {"peak_bytes@a": 64e6, "peak_bytes@b": 64e6}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"objectives": ("accuracy", "speed")}, UsageError, "unknown cost 'speed'"),
        ({"objectives": ("latency", "latency")}, UsageError, "objective 'latency_ms' is given twice"),
        ({"objectives": ()}, UsageError, "a search needs an objective"),
        ({"limits": {"latency": "15"}}, UsageError, "latency limit '15' has no unit"),
        ({"limits": {"power": "15W"}}, UsageError, "unknown cost 'power'"),
        (
            {"limits": {"latency": "0.001ms"}},
            BudgetError,
            "no architecture keeps latency at most 0.0010 ms; the nearest",
        ),
        ({"evaluations": 2}, UsageError, "evaluations must be at least"),
        ({"seed": -1}, UsageError, "seed must be 0 or more"),
    ],
)
def test_wrong_options_leave_the_front(
    run: Run, options: dict[str, Any], error: type[UsageError], message: str
) -> None:
    """What cannot be searched ends in one line, and the front that is there stays byte for byte."""
    target = run.target("localhost")
    path = run.folder.front(target.name)
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        run.search([target], **options)
    assert path.read_bytes() == before
