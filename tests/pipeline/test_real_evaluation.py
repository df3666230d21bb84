"""Searches that measure what they evaluate, in a copy of a small real run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgenas.accuracy import Evaluator
from edgenas.errors import RunError, UsageError
from edgenas.pipeline import Run
from edgenas.pipeline.progress import Silent
from edgenas.space import Architecture


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    """A run of digits whose every step was done."""
    shutil.copytree(finished, tmp_path / "run")
    return Run(tmp_path / "run", progress=Silent())


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The architectures that are evaluated on images, in their order."""
    found: list[str] = []
    evaluate = Evaluator.__call__

    def counting(self: Evaluator, architecture: Architecture) -> float:
        found.append(architecture.id)
        return evaluate(self, architecture)

    monkeypatch.setattr(Evaluator, "__call__", counting)
    return found


def test_accuracies_are_measured_once(run: Run, evaluated: list[str]) -> None:
    """A search measures what was never evaluated, another one only what that did not; the front has these numbers."""
    target = run.target("localhost")
    known = set(json.loads(run.folder.evaluated.read_text())["accuracy"])
    front = run.search([target], strategy="random", measured=["accuracy"], evaluations=20)
    assert len(evaluated) == len(set(evaluated)) > 0
    assert not known & set(evaluated)
    assert (front.measured, "accuracy_std" in front.values) == (("accuracy",), False)
    first = front.architectures()[-1]
    assert front.accuracy[-1] == run.workspace.evaluator(first)
    del evaluated[:]
    again = Run(run.folder.root, progress=Silent()).search([target], 1, "random", measured=["accuracy"], evaluations=20)
    assert len(evaluated) < 20
    assert again.evaluations == 20
    lines = next(run.folder.target(target.name).glob("evaluations-*.jsonl")).read_text().splitlines()
    assert len(set(lines)) == len(lines)


def test_an_interrupted_search_resumes(run: Run, evaluated: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended in its eighth evaluation and begun again, a search gives the front of one that was not interrupted."""
    target, options = run.target("localhost"), {"strategy": "predictor_guided", "evaluations": 18}
    counting = Evaluator.__call__

    def dying(self: Evaluator, architecture: Architecture) -> float:
        if len(evaluated) == 7:
            raise KeyboardInterrupt
        return counting(self, architecture)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", dying)
        with pytest.raises(KeyboardInterrupt):
            run.search([target], measured=["accuracy"], **options)  # type: ignore[arg-type]
    resumed = run.search([target], measured=["accuracy"], **options)  # type: ignore[arg-type]
    assert len(set(evaluated)) == len(evaluated)
    for path in run.folder.target(target.name).glob("evaluations-*.jsonl"):
        path.unlink()
    run.folder.front(target.name).unlink()
    whole = run.search([target], measured=["accuracy"], **options)  # type: ignore[arg-type]
    assert np.array_equal(whole.genes, resumed.genes)
    assert np.array_equal(whole.accuracy, resumed.accuracy)


@pytest.mark.slow
def test_latency_and_memory_are_measured_on_the_device(run: Run) -> None:
    """The front has the medians and peaks of its files, from the run's log of measurements."""
    target = run.target("localhost")
    front = run.search([target], strategy="random", measured=["latency", "memory"], evaluations=10)
    assert front.measured == ("latency_ms", "peak_bytes")
    assert (front.latency_ms > 0).all()
    assert (np.diff(front.latency_ms) >= 0).all()
    before = run.folder.measurements(target.name).read_bytes()
    run.search([target], 1, "random", measured=["latency"], evaluations=9)  # of which some are new
    assert run.folder.measurements(target.name).read_bytes().startswith(before)


def test_what_cannot_be_measured_is_refused(run: Run) -> None:
    """MACs are counted, and a run without weights has nothing to measure."""
    target = run.target("localhost")
    with pytest.raises(UsageError, match="macs is counted exactly and needs no measuring"):
        run.search([target], measured=["macs"])
    run.folder.checkpoint.unlink()
    with pytest.raises(RunError, match="has no trained supernet yet"):
        run.search([target], measured=["accuracy"])
