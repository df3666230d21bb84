"""Searching a run with the strategy of an installed package."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from edgenas.errors import UsageError
from edgenas.pipeline import Run
from edgenas.pipeline.progress import Progress
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
    done = ["already done" in line for line in heard.getvalue().splitlines() if line.startswith("search")]
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
