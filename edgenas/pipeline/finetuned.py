"""The fine-tuned subnets of a run: what each was trained from and how, and its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgenas.costs import Vector
from edgenas.errors import FormatError, RunError, SpaceError
from edgenas.files import Amount, Count, Fraction, ShortText, digest_of_inputs, read_bytes, sha256_hex
from edgenas.pipeline.documents import FINETUNED
from edgenas.pipeline.workspace import Workspace
from edgenas.shell import format_command
from edgenas.space import Architecture

if TYPE_CHECKING:
    from edgenas.accuracy import Evaluator


@dataclass(frozen=True)
class FinetunedSubnet:
    """A subnet that was trained alone.

    Attributes:
        architecture: Its id, which ends with the name of its weights.
        weights_sha256: SHA-256 of its checkpoint, whose weights were evaluated.
        supernet_sha256: SHA-256 of the checkpoint that it was made from.
        began_with: ``inherited weights`` or ``random weights``.
        teacher: The id of the supernet's network that taught it.
        data: The name of the data set.
        epochs: How often each training image was seen.
        images: Training images seen.
        learning_rate: The highest learning rate.
        validation_images: The number of images that the accuracies are of.
        accuracy_inherited: The validation accuracy of the same architecture with the supernet's weights, 0 to 1.
        accuracy_finetuned: Its validation accuracy, 0 to 1.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    architecture: ShortText
    weights_sha256: ShortText
    supernet_sha256: ShortText
    began_with: ShortText
    teacher: ShortText
    data: ShortText
    epochs: Amount
    images: Count
    learning_rate: Amount
    validation_images: Count
    accuracy_inherited: Fraction
    accuracy_finetuned: Fraction


def list_finetuned(workspace: Workspace) -> list[FinetunedSubnet]:
    """Return the subnets that were fine-tuned from the run's present weights to the end, by id."""
    folder = workspace.folder
    ended = [name for name in folder.finetuned_ids() if folder.finetuned(name).result.exists()]
    if not ended:
        return []
    found, digest = [_read(workspace, name) for name in ended], workspace.weights_digest
    return [each for each in found if each.supernet_sha256 == digest]


def load_finetuned(workspace: Workspace, architecture: Architecture) -> FinetunedSubnet:
    """Return how an architecture with weights of its own got them; RunError, listing those there are, for others."""
    known = {each.architecture: each for each in list_finetuned(workspace)}
    if architecture.id not in known:
        root, place = workspace.folder.root, workspace.folder.finetuned(architecture.id)
        if place.checkpoint.exists() and not place.result.exists():
            from edgenas.pipeline.finetune_command import format_finetune_command

            resuming = format_finetune_command(root, place.checkpoint)
            raise RunError(
                f"{root}: fine-tuning of {architecture.id} has not ended; if interrupted, resume it with: {resuming}"
            )
        command = format_command("finetune", "--run", root, "--arch", architecture.inherited)
        listed = f" it has {', '.join(known)};" if known else ""
        raise RunError(f"{root}: has no fine-tuned subnet {architecture.id};{listed} make one with: {command}")
    return known[architecture.id]


def load_evaluator(workspace: Workspace, architecture: Architecture) -> Evaluator:
    """Return the evaluator of an architecture: of the supernet, or of the network that has its own weights alone."""
    if not architecture.weights:
        return workspace.evaluator
    from edgenas.accuracy import Evaluator
    from edgenas.ofa import load_checkpoint

    record, path = load_finetuned(workspace, architecture), workspace.folder.finetuned(architecture.id).checkpoint
    remedy = "move its folder away and fine-tune again"
    if not path.exists():
        raise FormatError(f"{path}: is missing, so the weights that were evaluated are lost; {remedy}")
    if sha256_hex(read_bytes(path)) != record.weights_sha256:
        raise FormatError(f"{path}: has other weights than those that were evaluated; {remedy}")
    network = load_checkpoint(path).supernet
    return Evaluator(network, workspace.data, workspace.seed, workspace.trained.threads)


def find_best_versions(workspace: Workspace) -> tuple[list[Architecture], Vector]:
    """Return the N architectures with weights of their own that are no worse than inherited ones, and their gains (N,).

    Of several of an architecture, the most accurate. Equal accuracy is enough: they were trained for it alone.
    The gain, from real accuracy to real accuracy, is to be added to the prediction: the real accuracy in its place
    would compare an evaluated subnet with predictions, which are too high where a search ends.
    """
    best = _list_best(workspace).values()
    gains = np.array([each.accuracy_finetuned - each.accuracy_inherited for each in best])
    return [workspace.space.from_id(each.architecture) for each in best], gains


def digest_weights(workspace: Workspace) -> str:
    """Return a digest of all weights that candidates may have: the supernet's, and fine-tuned ones."""
    finetuned = [asdict(each) for each in list_finetuned(workspace)]
    return digest_of_inputs(workspace.weights_digest, finetuned) if finetuned else workspace.weights_digest


def _list_best(workspace: Workspace) -> dict[str, FinetunedSubnet]:
    """Return the fine-tuned subnets of the highest accuracy, by the ids of their architectures."""
    best: dict[str, FinetunedSubnet] = {}
    for each in list_finetuned(workspace):
        name = workspace.space.from_id(each.architecture).inherited.id
        least = best[name].accuracy_finetuned if name in best else each.accuracy_inherited
        if each.accuracy_finetuned >= least:
            best[name] = each
    return best


def _read(workspace: Workspace, name: str) -> FinetunedSubnet:
    path = workspace.folder.finetuned(name).result
    record = FINETUNED.read_as(FinetunedSubnet, path)
    try:
        architecture = workspace.space.from_id(record.architecture)
    except SpaceError as error:
        raise FormatError(f"{path}: {error}; move its folder away") from None
    if record.architecture != name or not architecture.weights:
        raise FormatError(f"{path}: is of {record.architecture}; move its folder away and fine-tune again")
    return record
