"""Checkpoints: weights, momenta and the position in the schedule; never generator states."""

from __future__ import annotations

from dataclasses import dataclass
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


def save_checkpoint(
    path: Path, supernet: Supernet, position: Position, momenta: dict[str, Tensor], recipe: dict[str, Any]
) -> None:
    """Write weights, momenta, position, recipe (data, schedule, seed) and the space as one safetensors file."""
    tensors = {f"weights/{name}": tensor for name, tensor in supernet.state_dict().items()}
    tensors |= {f"momenta/{name}": tensor for name, tensor in momenta.items()}
    body = {
        "space": supernet.space.to_dict(),
        "position": {"phase": position.phase, "step": position.step},
        "recipe": recipe,
    }
    arrays = {name: tensor.detach().contiguous().numpy() for name, tensor in tensors.items()}
    write_tensors(path, _KIND, _VERSION, arrays, body)


def load_checkpoint(path: Path) -> tuple[Supernet, Position, dict[str, Tensor], dict[str, Any]]:
    """What ``save_checkpoint`` wrote: supernet, position, momenta, recipe. Raises FormatError when it is damaged."""
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
    return supernet, Position(**body["position"]), momenta, body["recipe"]
