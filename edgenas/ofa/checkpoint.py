"""Checkpoints: weights, momenta and the position in the schedule; never generator states."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgenas.errors import FormatError
from edgenas.files import read_tensors, write_tensors
from edgenas.ofa.supernet import Supernet
from edgenas.space import space_from_dict

_KIND, _VERSION = "checkpoint", 1


@dataclass(frozen=True)
class Position:
    """The next step to do: ``step`` of phase number ``phase``; past the last phase when training is done."""

    phase: int
    step: int


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A supernet in training: where in the schedule, with which momenta, from which recipe (data, schedule, seed).

    ``threads`` is how many computed it: sums in another order are other bits.
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
    """What ``save_checkpoint`` wrote. Raises FormatError when it is damaged."""
    arrays, body = read_tensors(path, _KIND, _VERSION)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    supernet = Supernet(space_from_dict(body["space"], str(path)))
    weights = {name.removeprefix("weights/"): tensor for name, tensor in tensors.items() if name.startswith("weights/")}
    momenta = {name.removeprefix("momenta/"): tensor for name, tensor in tensors.items() if name.startswith("momenta/")}
    try:
        supernet.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FormatError(
            f"{path}: its weights do not fit its space ({reason}); train again in a new run folder"
        ) from None
    return Checkpoint(supernet, Position(**body["position"]), momenta, body["recipe"], body["threads"])
