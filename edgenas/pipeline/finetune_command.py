"""The command that a fine-tuning was begun with, from its checkpoint: the same one resumes it."""

from __future__ import annotations

from pathlib import Path

from edgenas.errors import FormatError
from edgenas.ofa import load_checkpoint, load_schedule
from edgenas.ofa.checkpoint import has_ended_training
from edgenas.shell import format_command


def format_finetune_command(run: Path, path: Path) -> str:
    """Return the command that resumes a fine-tuning of a run, with all options that decide its weights.

    Raises FormatError where ``path`` is no checkpoint of a subnet that is trained alone.
    """
    checkpoint = load_checkpoint(path)
    has_ended_training(checkpoint, str(path))  # raises for a recipe that no training has
    architecture, finetuned = checkpoint.supernet.only, checkpoint.recipe.get("finetuned")
    if architecture is None or finetuned is None:
        raise FormatError(f"{path}: is of a whole supernet; move its folder away and fine-tune again")
    schedule = load_schedule(checkpoint.recipe["schedule"], str(path))
    phase = schedule.phases[0]
    words: list[object] = ["--epochs", phase.epochs, "--learning-rate", phase.learning_rate]
    if schedule.max_steps is not None:
        words += ["--max-steps", schedule.max_steps]
    if finetuned["began_with"] == "random weights":
        words.append("--from-scratch")
    return format_command("finetune", "--run", run, "--arch", architecture, *words)
