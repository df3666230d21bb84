"""Checkpoints of training: weights, momenta and the position in the schedule."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgenas.errors import FormatError
from edgenas.files import read_tensors_and_body, write_tensors
from edgenas.ofa.supernet import Supernet
from edgenas.space import space_from_dict

_KIND, _VERSION = "checkpoint", 1


@dataclass(frozen=True)
class Position:
    """The next training step: ``step`` of phase number ``phase``, which is past the last one after training."""

    phase: int
    step: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A supernet in training.

    Random states are not part of it: they follow from the seed and the position.

    Args:
        supernet: The weights.
        position: The next step.
        momenta: The optimizer's momentum buffers by parameter name.
        recipe: Data, schedule and seed as plain data.
        threads: The number of threads that computed it, because sums in another order are other bits.
    """

    supernet: Supernet
    position: Position
    momenta: dict[str, Tensor]
    recipe: dict[str, Any]
    threads: int


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, its space included, as one safetensors file."""
    tensors = {f"weights/{name}": tensor for name, tensor in checkpoint.supernet.state_dict().items()}
    tensors |= {f"momenta/{name}": tensor for name, tensor in checkpoint.momenta.items()}
    body = {
        "space": checkpoint.supernet.space.to_dict(),
        "position": asdict(checkpoint.position),
        "recipe": checkpoint.recipe,
        "threads": checkpoint.threads,
    }
    arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}
    write_tensors(path, _KIND, _VERSION, arrays, body)


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint that ``save_checkpoint`` wrote. Raises FormatError when it is damaged."""
    arrays, body = read_tensors_and_body(path, _KIND, _VERSION)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    supernet = Supernet(space_from_dict(body["space"], str(path)))
    weights, momenta = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in ("weights/", "momenta/")
    )
    try:
        supernet.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FormatError(
            f"{path}: its weights do not fit its space ({reason}); train again in a new run folder"
        ) from None
    return Checkpoint(supernet, Position(**body["position"]), momenta, body["recipe"], body["threads"])
