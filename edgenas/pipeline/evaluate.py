"""The step that evaluates subnets and fits the accuracy predictor."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.errors import FormatError, RunError, SpaceError, UsageError
from edgenas.files import digest_of_inputs, write_document
from edgenas.pipeline.documents import DATA_SOURCE, EVALUATED, EvaluatedSubnets
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.workspace import Workspace
from edgenas.shell import format_command

if TYPE_CHECKING:
    from edgenas.data import DataSet

_LEAST_SUBNETS = 10
_STREAM = 2  # of the run's seed; training, calibration and batch norm have others


def evaluate(
    workspace: Workspace,
    subnets: int,
    accelerator: str = "auto",
    data: str | Mapping[str, Any] | DataSet | None = None,
) -> AccuracyPredictor:
    """Evaluate subnets, each recorded at once, and fit the predictor, as ``Run.evaluate`` describes."""
    from edgenas.accuracy import Evaluator  # here, because a search of imported tables needs no torch
    from edgenas.ofa import join_ranks, select_accelerator

    if subnets < _LEAST_SUBNETS:
        raise UsageError(f"subnets must be at least {_LEAST_SUBNETS}, but got {subnets}")
    select_accelerator(accelerator)
    if data is not None:  # last, because a command that is refused must not bind it to the run
        _give_data(workspace, data)
    workspace.require_data()
    space, path = workspace.space, workspace.folder.evaluated
    with join_ranks(accelerator) as ranks, workspace.folder.writing() if ranks.is_first else nullcontext():
        progress = workspace.progress if ranks.is_first else Silent()
        inputs_digest = digest_of_inputs(workspace.weights_digest)
        accuracy: dict[str, float] = {}
        if path.exists():
            recorded = EVALUATED.read_as(EvaluatedSubnets, path)
            accuracy = recorded.accuracy if recorded.inputs_digest == inputs_digest else {}
        genes = space.sample_distinct(subnets, np.random.default_rng([workspace.seed, _STREAM]))
        missing = [architecture for architecture in space.decode(genes) if architecture.id not in accuracy]
        if not missing:
            progress.say(f"evaluate  already done ({len(accuracy)} subnets)")
            return _fit_predictor(workspace, accuracy)
        trained = workspace.trained
        threads = ranks.limit_threads(trained.threads)
        evaluator = Evaluator(trained.supernet, workspace.data, workspace.seed, threads, ranks.accelerator)
        with progress.step("evaluate", len(genes)) as bar:
            for first in range(0, len(missing), ranks.count):
                together = missing[first : first + ranks.count]
                found = ranks.gather([evaluator(architecture) for architecture in ranks.share(together)])
                accuracy |= {each.id: value for each, (value,) in zip(together, found, strict=False)}
                if ranks.is_first:
                    EVALUATED.write(path, {"inputs_digest": inputs_digest, "accuracy": accuracy})
                bar(len(accuracy), f"{together[0]}  accuracy {accuracy[together[0].id]:.1%}")
    return _fit_predictor(workspace, accuracy)


def _give_data(workspace: Workspace, data: str | Mapping[str, Any] | DataSet) -> None:
    """Give imported weights a data set of the same classes, which then stays the run's."""
    from edgenas.data import load_data
    from edgenas.ofa import check_channels, is_first_rank

    root, folder = workspace.folder.root, workspace.folder
    if "imported" not in workspace.recipe:
        raise UsageError(f"{root}: was trained on its own data set; --data is for imported weights")
    loaded = load_data(data)
    if loaded.class_count != workspace.space.classes:
        raise UsageError(
            f"data {loaded.name} has {loaded.class_count} classes, the weights have {workspace.space.classes}; give"
            " images of the same classes, or train on yours"
            f" ({format_command('train', 'CONFIG.yaml', '--from', root, '--run', 'NEW')})"
        )
    check_channels(workspace.space, loaded)
    for warning in loaded.warnings if is_first_rank() else ():
        workspace.progress.say(f"evaluate  {warning}")
    body = {"data": loaded.recipe}
    with folder.writing(wait_s=10.0):  # processes that torchrun starts do the same together
        if folder.data_source.exists() and DATA_SOURCE.read(folder.data_source) != body:
            raise RunError(f"{root}: has another data set already; import the weights into another run folder")
        DATA_SOURCE.write(folder.data_source, body)
        write_document(folder.data, "data", 1, loaded.summary())


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
