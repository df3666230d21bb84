"""Checkpoints of training: weights, momenta and the position in the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Interval
from torch import Tensor

from edgenas.errors import FormatError, UsageError, one_line
from edgenas.files import Count, ShortText, parse_dataclass, read_tensors_and_body, write_tensors
from edgenas.ofa.schedule import Schedule
from edgenas.ofa.supernet import Supernet
from edgenas.space import space_from_dict

_KIND, _VERSION = "checkpoint", 1
_MAX_THREADS = 1024


@dataclass(frozen=True)
class Position:
    """The next training step: ``step`` of phase number ``phase``, which is past the last one after training."""

    phase: Count
    step: Count


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A supernet in training.

    Random states are not part of it: they follow from the seed and the position.

    Args:
        supernet: The weights.
        position: The next step.
        momenta: The optimizer's momentum buffers by parameter name.
        recipe: Data, schedule and seed as plain data, and what training began with.
        threads: The number of threads that computed it, because sums in another order are other bits.
        averages: The moving averages of the weights by name; empty where the phase has none.
    """

    supernet: Supernet
    position: Position
    momenta: dict[str, Tensor]
    recipe: dict[str, Any]
    threads: int
    averages: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, its space included, as one safetensors file."""
    tensors = {f"weights/{name}": tensor for name, tensor in checkpoint.supernet.state_dict().items()}
    tensors |= {f"momenta/{name}": tensor for name, tensor in checkpoint.momenta.items()}
    tensors |= {f"averages/{name}": tensor for name, tensor in checkpoint.averages.items()}
    body = {
        "space": checkpoint.supernet.space.to_dict(),
        "position": asdict(checkpoint.position),
        "recipe": checkpoint.recipe,
        "threads": checkpoint.threads,
    }
    if checkpoint.supernet.only is not None:
        body["only"] = checkpoint.supernet.only.id
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    write_tensors(path, _KIND, _VERSION, arrays, body)


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint that ``save_checkpoint`` wrote. Raises FormatError when it is damaged."""
    arrays, body = read_tensors_and_body(path, _KIND, _VERSION)
    try:
        header = parse_dataclass(_Header, dict(body), str(path))
        space = space_from_dict(header.space, str(path))
        supernet = Supernet(space, only=None if header.only is None else space.from_id(header.only))
        weights, momenta, averages = (
            _select_tensors(arrays, prefix) for prefix in ("weights/", "momenta/", "averages/")
        )
        if averages:  # checked here: they are loaded when training goes on
            supernet.load_state_dict(averages)
        supernet.load_state_dict(weights)
        _check_momenta(momenta, supernet)
    except (RuntimeError, TypeError) as error:
        raise FormatError(
            f"{path}: its weights do not fit its space ({one_line(error)}); train again in a new run folder"
        ) from None
    except UsageError as error:
        raise FormatError(f"{error}; train again in a new run folder") from None
    return Checkpoint(supernet, header.position, momenta, header.recipe, header.threads, averages)


@dataclass(frozen=True)
class _Header:
    """The header of a checkpoint's file."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    space: dict[str, Any]
    position: Position
    recipe: dict[str, Any]
    threads: Annotated[int, Interval(ge=1, le=_MAX_THREADS)]
    only: ShortText | None = None


@dataclass(frozen=True)
class _ImportedRecipe:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    imported: ShortText
    sha256: ShortText


@dataclass(frozen=True)
class _Initial:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: ShortText
    sha256: ShortText


@dataclass(frozen=True)
class _Finetuned:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    architecture: ShortText
    supernet: ShortText
    began_with: ShortText


@dataclass(frozen=True)
class _TrainedRecipe:
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    data: ShortText | dict[str, Any]
    schedule: Schedule
    seed: Count
    initial: _Initial | None = None
    finetuned: _Finetuned | None = None


def has_ended_training(checkpoint: Checkpoint, where: str) -> bool:
    """Return whether a checkpoint of a run is the end of its schedule; imported weights are.

    Raises FormatError, naming ``where``, for a recipe that no run has, or a position that the recipe does not have.
    """
    try:
        if "imported" in checkpoint.recipe:
            parse_dataclass(_ImportedRecipe, checkpoint.recipe, f"{where}: recipe")
            return True
        phases = len(parse_dataclass(_TrainedRecipe, checkpoint.recipe, f"{where}: recipe").schedule.phases)
    except UsageError as error:
        raise FormatError(f"{error}; train again in a new run folder") from None
    if checkpoint.position.phase > phases:
        raise FormatError(f"{where}: its training has {phases} phases, but it is at phase {checkpoint.position.phase}")
    return checkpoint.position.phase == phases


def _select_tensors(arrays: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin so, without that; raise RuntimeError where one is not finite."""
    tensors = {
        name.removeprefix(prefix): torch.from_numpy(array) for name, array in arrays.items() if name.startswith(prefix)
    }
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise RuntimeError(f"{name} is not finite")
    return tensors


def _check_momenta(momenta: Mapping[str, Tensor], supernet: Supernet) -> None:
    """Raise RuntimeError for momenta that belong to no parameter."""
    parameters = dict(supernet.named_parameters())
    for name, tensor in momenta.items():
        if name not in parameters or (tensor.shape, tensor.dtype) != (parameters[name].shape, parameters[name].dtype):
            raise RuntimeError(f"momentum {name} is that of no parameter")
