"""Safe reading of released PyTorch checkpoints: tensors by canonical name, and no other objects."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgenas.errors import FormatError, UsageError
from edgenas.ofa.released_keys import canonical_name

# Where training programs keep a state_dict, averaged weights (EMA) first: these are what they evaluate.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_STATES = (*_AVERAGED, "state_dict", "model_state_dict", "model", "net", "module")
_COUNTERS = ("num_batches_tracked", "n_averaged")  # of batch norm and of AveragedModel


@dataclass(frozen=True, eq=False)
class ReleasedCheckpoint:
    """The tensors of a checkpoint by canonical name, float32 and finite.

    ``keys`` are their names in the file by canonical name. ``where`` is the
    file, for messages, with the place in it; ``others`` are other places in the
    file that may have weights.
    """

    where: str
    tensors: Mapping[str, Tensor]
    keys: Mapping[str, str]
    others: tuple[str, ...] = ()

    def size(self, name: str, axis: int = 0) -> int:
        """Return a tensor's length along an axis; 0 where the checkpoint has no such tensor or axis."""
        tensor = self.tensors.get(name)
        return 0 if tensor is None or not -tensor.dim() <= axis < tensor.dim() else tensor.shape[axis]


def read_released_file(path: Path) -> ReleasedCheckpoint:
    """Return the tensors of a file that holds a state_dict, bare or under a usual key.

    Where the file has several, averaged weights go before others.

    Raises:
        UsageError: The file cannot be read.
        FormatError: It is no PyTorch file of tensors alone, or a tensor is repeated, incomplete or not finite.
    """
    saved = _load_with_torch(path)
    if not isinstance(saved, Mapping):
        raise FormatError(f"{path}: must hold a state_dict, but holds {type(saved).__name__}; save one with torch")
    (place, state), *others = _find_states(saved).items() or [("", saved)]
    where = f"{path}: {place}" if place else str(path)
    tensors: dict[str, Tensor] = {}
    keys: dict[str, str] = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise FormatError(f"{where}: {key!r} is no name of a tensor; save the state_dict alone")
        if not isinstance(value, Tensor):
            raise FormatError(
                f"{where}: {key!r} is of type {type(value).__name__}, not a tensor; save the state_dict alone"
            )
        if key.endswith(_COUNTERS):
            continue
        name = canonical_name(key)
        if name in keys:
            raise FormatError(f"{where}: {keys[name]} and {key} are names of the same tensor; remove one")
        tensors[name], keys[name] = _check_tensor(value, f"{where}: {key}"), key
    return ReleasedCheckpoint(where, tensors, keys, tuple(place for place, _ in others))


def _find_states(saved: Mapping[Any, Any], nested: bool = True) -> dict[str, Mapping[Any, Any]]:
    """Return the mappings of tensors under usual keys, by their place in the file, such as ``ema.module``."""
    found: dict[str, Mapping[Any, Any]] = {}
    for key in _STATES:
        value = saved.get(key)
        if not isinstance(value, Mapping):
            continue
        inner = _find_states(value, nested=False) if nested else {}
        if inner:
            found |= {f"{key}.{place}": state for place, state in inner.items()}
        elif any(isinstance(each, Tensor) for each in value.values()):
            found[key] = value
    return found


def _load_with_torch(path: Path) -> Any:
    """Return what ``torch.load`` reads; it unpickles nothing but tensors and plain containers."""
    try:
        if zipfile.is_zipfile(path):  # torch does not check the checksums in it
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise FormatError(f"{path}: is damaged in {damaged}; download it again")
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about a file before it refuses it
            return torch.load(file, map_location="cpu", weights_only=True)
    except FormatError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # torch raises many types for damaged files
        object_type = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = (
            f"it holds {object_type[1]}, and only tensors are ever loaded"
            if object_type
            else "it is another file or damaged"
        )
        raise FormatError(
            f"{path}: is no PyTorch checkpoint of tensors ({reason}); download it again or save its state_dict alone"
        ) from None


def _check_tensor(tensor: Tensor, where: str) -> Tensor:
    """Return the tensor as float32. Raises FormatError unless it is dense, complete and finite."""
    shape = tuple(tensor.shape)
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not dense or not tensor.is_floating_point():
        raise FormatError(f"{where}: must be a plain tensor of floats, but is {tensor.dtype} of shape {shape}")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise FormatError(f"{where}: has fewer numbers than its shape {shape} wants; save it again")
    result = tensor.detach().float()
    if not torch.isfinite(result).all():
        raise FormatError(f"{where}: of shape {shape} has numbers that are not finite; give a file without")
    if where.endswith("running_var") and result.numel() and result.min() < 0:
        raise FormatError(f"{where}: of shape {shape} has a negative variance; give a file without")
    return result
