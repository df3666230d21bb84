"""The step that trains one subnet alone."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace

from edgenas.accuracy import Evaluator
from edgenas.errors import UsageError
from edgenas.files import read_bytes, sha256_hex
from edgenas.ofa import (
    InitialWeights,
    Ranks,
    Schedule,
    SingleSubnet,
    Trainer,
    TrainingFiles,
    join_ranks,
    load_checkpoint,
    load_schedule,
    make_finetuning_schedule,
    make_recipe,
)
from edgenas.pipeline.documents import FINETUNED
from edgenas.pipeline.finetuned import FinetunedSubnet, load_finetuned
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.training_progress import Watched, run_trainer
from edgenas.pipeline.workspace import Workspace
from edgenas.space import Architecture
from edgenas.space.base import short_name

_IMPORTED_SCHEDULE = "adapt-small"  # whose settings imported weights are fine-tuned with
_RATE, _RATE_FROM_SCRATCH = 0.05, 0.1


def finetune(
    workspace: Workspace,
    architecture: Architecture,
    epochs: int,
    max_steps: int | None = None,
    learning_rate: float | None = None,
    from_scratch: bool = False,
    accelerator: str = "auto",
) -> FinetunedSubnet:
    """Train a subnet alone and evaluate it, as ``Run.finetune`` describes."""
    if architecture.space != workspace.space:
        raise UsageError(f"{architecture} is no architecture of this run's space ({workspace.space.short_hash})")
    if architecture.weights:
        raise UsageError(f"{architecture} is fine-tuned already; fine-tuning begins with {architecture.inherited}")
    workspace.require_data()
    supernet = InitialWeights(workspace.supernet, str(workspace.folder.root), workspace.weights_digest)
    subnet = SingleSubnet(architecture, supernet, from_scratch)
    schedule = _make_schedule(workspace, epochs, max_steps, learning_rate, from_scratch)
    recipe = make_recipe(subnet, workspace.data, schedule, workspace.seed)
    named = replace(architecture, weights=short_name(recipe))
    place = workspace.folder.finetuned(named.id)
    with join_ranks(accelerator) as ranks, workspace.folder.writing() if ranks.is_first else nullcontext():
        ranks.wait()  # the first has the lock and has removed what a killed process left
        progress = workspace.progress if ranks.is_first else Silent()
        files = TrainingFiles(place.checkpoint, workspace.folder.checkpoint)
        trainer = Trainer(workspace.space, workspace.data, schedule, workspace.seed, files, ranks, subnet=subnet)
        is_trained, is_evaluated = trainer.finished, place.result.exists()
        ranks.wait()  # all have looked before the first writes
        if is_trained and is_evaluated:
            progress.say(f"finetune  already done ({named})")
            return load_finetuned(workspace, named)
        if not is_trained:
            watched = Watched("finetune", place, {"subnet": architecture}, workspace.data, workspace.seed)
            run_trainer(trainer, watched, ranks, progress)
        if ranks.is_first:
            with place.running():
                record = _evaluate(workspace, subnet, named, schedule, trainer.images_total, ranks)
                FINETUNED.write(place.result, asdict(record))
        ranks.wait()  # the others read the result
        return load_finetuned(workspace, named)


def _make_schedule(
    workspace: Workspace, epochs: int, max_steps: int | None, learning_rate: float | None, from_scratch: bool
) -> Schedule:
    """Return a phase with the settings that the supernet was trained with; its batches fit small data sets, too."""
    base = load_schedule(workspace.recipe.get("schedule", _IMPORTED_SCHEDULE), str(workspace.folder.checkpoint))
    if learning_rate is None:
        learning_rate = _RATE_FROM_SCRATCH if from_scratch else _RATE
    batch_size = min(base.batch_size, len(workspace.data.train))
    return replace(make_finetuning_schedule(base, epochs, learning_rate, max_steps), batch_size=batch_size)


def _evaluate(
    workspace: Workspace, subnet: SingleSubnet, named: Architecture, schedule: Schedule, images: int, ranks: Ranks
) -> FinetunedSubnet:
    """Evaluate a subnet on the validation split with inherited weights and with its own."""
    architecture, data = subnet.architecture, workspace.data
    checkpoint = workspace.folder.finetuned(named.id).checkpoint
    trained = load_checkpoint(checkpoint).supernet
    inherited, own = (
        Evaluator(network, data, workspace.seed, workspace.trained.threads, ranks.accelerator)(architecture)
        for network in (workspace.supernet, trained)
    )
    return FinetunedSubnet(
        architecture=named.id,
        weights_sha256=sha256_hex(read_bytes(checkpoint)),
        supernet_sha256=subnet.supernet.sha256,
        began_with=subnet.began_with,
        teacher=workspace.space.largest.at_resolution(architecture.resolution).id,
        data=data.name,
        epochs=round(images / (len(data.train) // schedule.batch_size * schedule.batch_size), 3),
        images=images,
        learning_rate=schedule.phases[0].learning_rate,
        validation_images=len(data.validation),
        accuracy_inherited=inherited,
        accuracy_finetuned=own,
    )
