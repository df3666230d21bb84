"""The step that evaluates subnets and fits the accuracy predictor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.errors import RunError, UsageError
from edgenas.files import read_document, write_document
from edgenas.pipeline.inputs import digest_of_inputs

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

_KIND, _VERSION = "evaluated", 1


def evaluate(run: Run, subnets: int) -> AccuracyPredictor:
    """Evaluate at least ``subnets`` subnets in all, each stored at once, and fit the predictor."""
    if subnets < 10:
        raise UsageError(f"subnets must be at least 10, but got {subnets}")
    with run.layout.writing():
        seed = run.recipe["seed"]
        current = digest_of_inputs(run.weights_digest)
        accuracy = _load(run, current)
        genes = run.space.sample_distinct(subnets, np.random.default_rng([seed, 2]))
        missing = [architecture for architecture in run.space.decode(genes) if architecture.id not in accuracy]
        if not missing:
            run.progress.say(f"evaluate  already done ({len(accuracy)} subnets)")
            return _predictor(run, accuracy)
        with run.progress.step("evaluate", len(genes)) as bar:
            for architecture in missing:
                accuracy[architecture.id] = run.evaluator(architecture)
                body = {"inputs_digest": current, "accuracy": accuracy}
                write_document(run.layout.evaluated, _KIND, _VERSION, body)
                bar(len(accuracy), f"{architecture}  accuracy {accuracy[architecture.id]:.1%}")
    return _predictor(run, accuracy)


def predictor_file(run: Run) -> Path:
    """What the run's predictor is made from: evaluated subnets, else an imported one. Raises RunError for neither."""
    for path in (run.layout.evaluated, run.layout.released_predictor):
        if path.exists():
            return path
    root = run.layout.root
    raise RunError(
        f"{root}: has no evaluated subnets yet; run: edgenas evaluate --run {root}"
        " (a run of imported tables: edgenas import --tables again, with --predictor)"
    )


def load_predictor(run: Run) -> AccuracyPredictor | ReleasedPredictor:
    """The predictor of the subnets that were evaluated, else the imported one. Raises RunError when there is none."""
    path = predictor_file(run)
    if path == run.layout.released_predictor:
        return ReleasedPredictor.load(path, run.space)
    body = read_document(path, _KIND, _VERSION)
    if run.layout.checkpoint.exists() and body["inputs_digest"] != digest_of_inputs(run.weights_digest):
        raise RunError(f"{path}: is of other weights; run: edgenas evaluate --run {run.layout.root}")
    return _predictor(run, body["accuracy"])


def _load(run: Run, current: str) -> dict[str, float]:
    if not run.layout.evaluated.exists():
        return {}
    body = read_document(run.layout.evaluated, _KIND, _VERSION)
    accuracy: dict[str, float] = body["accuracy"] if body["inputs_digest"] == current else {}
    return accuracy


def _predictor(run: Run, accuracy: dict[str, float]) -> AccuracyPredictor:
    genes = run.space.encode([run.space.from_id(text) for text in accuracy])
    return AccuracyPredictor(run.space, genes, np.array(list(accuracy.values())))
