"""The step that evaluates subnets and fits the accuracy predictor."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.errors import FormatError, RunError, SpaceError, UsageError
from edgenas.files import digest_of_inputs
from edgenas.pipeline.documents import EVALUATED, EvaluatedSubnets
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.workspace import Workspace
from edgenas.shell import format_command

_LEAST_SUBNETS = 10
_STREAM = 2  # of the run's seed; training, calibration and batch norm have others


def evaluate(workspace: Workspace, subnets: int, accelerator: str = "auto") -> AccuracyPredictor:
    """Evaluate subnets, each recorded at once, and fit the predictor, as ``Run.evaluate`` describes."""
    from edgenas.accuracy import Evaluator  # here, because a search of imported tables needs no torch
    from edgenas.ofa import join_ranks

    workspace.require_data()
    if subnets < _LEAST_SUBNETS:
        raise UsageError(f"subnets must be at least {_LEAST_SUBNETS}, but got {subnets}")
    space, path = workspace.space, workspace.folder.evaluated
    with join_ranks(accelerator) as ranks, workspace.folder.writing() if ranks.is_first else nullcontext():
        progress = workspace.progress if ranks.is_first else Silent()
        inputs_digest = digest_of_inputs(workspace.weights_digest)
        accuracy: dict[str, float] = {}
        if path.exists():
            recorded = EVALUATED.read_as(EvaluatedSubnets, path)
            accuracy = recorded.accuracy if recorded.inputs_digest == inputs_digest else {}
        genes = space.sample_distinct(subnets, np.random.default_rng([workspace.recipe["seed"], _STREAM]))
        missing = [architecture for architecture in space.decode(genes) if architecture.id not in accuracy]
        if not missing:
            progress.say(f"evaluate  already done ({len(accuracy)} subnets)")
            return _fit_predictor(workspace, accuracy)
        trained = workspace.trained
        seed = workspace.recipe["seed"]
        evaluator = Evaluator(trained.supernet, workspace.data, seed, trained.threads, ranks.accelerator)
        with progress.step("evaluate", len(genes)) as bar:
            for first in range(0, len(missing), ranks.count):
                together = missing[first : first + ranks.count]
                found = ranks.gather([evaluator(architecture) for architecture in ranks.share(together)])
                accuracy |= {each.id: value for each, (value,) in zip(together, found, strict=False)}
                if ranks.is_first:
                    EVALUATED.write(path, {"inputs_digest": inputs_digest, "accuracy": accuracy})
                bar(len(accuracy), f"{together[0]}  accuracy {accuracy[together[0].id]:.1%}")
    return _fit_predictor(workspace, accuracy)


def find_predictor_file(workspace: Workspace) -> Path:
    """Return the file of evaluated subnets, else of an imported predictor; RunError without either."""
    folder = workspace.folder
    for path in (folder.evaluated, folder.released_predictor):
        if path.exists():
            return path
    raise RunError(
        f"{folder.root}: has no evaluated subnets yet; run: {format_command('evaluate', '--run', folder.root)}"
        " (a run of imported tables: edgenas import --tables again, with --predictor)"
    )


def load_predictor(workspace: Workspace) -> AccuracyPredictor | ReleasedPredictor:
    """Return the predictor of the evaluated subnets, else the imported one; RunError without either."""
    folder, path = workspace.folder, find_predictor_file(workspace)
    if path == folder.released_predictor:
        return ReleasedPredictor.load(path, workspace.space)
    recorded = EVALUATED.read_as(EvaluatedSubnets, path)
    is_imported = not folder.checkpoint.exists()
    if not is_imported and recorded.inputs_digest != digest_of_inputs(workspace.weights_digest):
        raise RunError(f"{path}: is of other weights; run: {format_command('evaluate', '--run', folder.root)}")
    return _fit_predictor(workspace, recorded.accuracy)


def _fit_predictor(workspace: Workspace, accuracy: dict[str, float]) -> AccuracyPredictor:
    """Return a predictor fitted to accuracies by architecture id."""
    space = workspace.space
    try:
        genes = space.encode([space.from_id(text) for text in accuracy])
    except SpaceError as error:
        raise FormatError(f"{workspace.folder.evaluated}: {error}; move it away and evaluate again") from None
    return AccuracyPredictor(space, genes, np.array(list(accuracy.values())))
