"""The step that evaluates subnets and fits the accuracy predictor."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.errors import FormatError, RunError, SpaceError, UsageError
from edgenas.files import digest_of_inputs
from edgenas.pipeline.documents import EVALUATED, EvaluatedSubnets
from edgenas.pipeline.workspace import Workspace
from edgenas.shell import format_command

_LEAST_SUBNETS = 10
_STREAM = 2  # of the run's seed; training, calibration and batch norm have others


def evaluate(workspace: Workspace, subnets: int) -> AccuracyPredictor:
    """Evaluate subnets, each recorded at once, and fit the predictor, as ``Run.evaluate`` describes."""
    workspace.require_data()
    if subnets < _LEAST_SUBNETS:
        raise UsageError(f"subnets must be at least {_LEAST_SUBNETS}, but got {subnets}")
    space, path = workspace.space, workspace.folder.evaluated
    with workspace.folder.writing():
        inputs_digest = digest_of_inputs(workspace.weights_digest)
        accuracy: dict[str, float] = {}
        if path.exists():
            recorded = EVALUATED.read_as(EvaluatedSubnets, path)
            accuracy = recorded.accuracy if recorded.inputs_digest == inputs_digest else {}
        genes = space.sample_distinct(subnets, np.random.default_rng([workspace.recipe["seed"], _STREAM]))
        missing = [architecture for architecture in space.decode(genes) if architecture.id not in accuracy]
        if not missing:
            workspace.progress.say(f"evaluate  already done ({len(accuracy)} subnets)")
            return _fit_predictor(workspace, accuracy)
        with workspace.progress.step("evaluate", len(genes)) as bar:
            for architecture in missing:
                accuracy[architecture.id] = workspace.evaluator(architecture)
                EVALUATED.write(path, {"inputs_digest": inputs_digest, "accuracy": accuracy})
                bar(len(accuracy), f"{architecture}  accuracy {accuracy[architecture.id]:.1%}")
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
