"""The official Once-for-All checkpoints (arXiv 1908.09791) as supernets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgenas.errors import FormatError
from edgenas.ofa.released_file import Released, read_released_file
from edgenas.ofa.released_keys import is_matrix, released_names
from edgenas.ofa.released_space import find_space
from edgenas.ofa.supernet import Supernet
from edgenas.space import SearchSpace


def load_released(path: str | Path, choices: Mapping[str, Any] | None = None) -> Supernet:
    """The supernet of an official checkpoint, in eval mode, its batch-norm statistics as they are in the file.

    Family, width, classes, deepest and widest sizes are found from the tensors.
    What tensors do not hold comes from ``choices`` (any of ``kernel_sizes``,
    ``expand_ratios``, ``depths``, ``width_mults``, ``resolutions``) and is by
    default what was published for the family, up to the checkpoint's largest;
    resolutions, which weights do not depend on, are every fourth from 32 to 256. A
    file without kernel matrices, as of a network whose kernels never shrank,
    gets the identity. Raises UsageError for wrong choices, and FormatError for
    a file that is no checkpoint of tensors or whose tensors do not fit, naming
    the tensor and both shapes.
    """
    released = read_released_file(Path(path))
    supernet = Supernet(find_space(released, choices or {}))
    weights = supernet.state_dict()
    supernet.load_state_dict(weights | _fitting(released, supernet.space, weights))
    return supernet.eval()


def _fitting(released: Released, space: SearchSpace, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors by our names. Raises FormatError unless they are exactly those of ``wanted``."""
    names = released_names(space, wanted)
    has_matrices = any(is_matrix(name) for name in released.tensors)
    weights = {}
    for theirs, ours in names.items():
        if theirs in released.tensors:
            weights[ours] = released.tensors[theirs]
            if weights[ours].shape != wanted[ours].shape:
                raise _misfit(released, theirs, f"{_shape(weights[ours])}, but must be {_shape(wanted[ours])}", space)
        elif has_matrices or not is_matrix(theirs):
            raise _misfit(released, theirs, f"absent, but must be {_shape(wanted[ours])}", space)
    for theirs, tensor in released.tensors.items():
        if theirs not in names:
            raise _misfit(released, theirs, f"{_shape(tensor)}, but must be absent", space)
    return weights


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _misfit(released: Released, name: str, what: str, space: SearchSpace) -> FormatError:
    fields = ("width", "width_mults", "kernel_sizes", "expand_ratios", "depths")
    given = ", ".join(f"{field} {getattr(space, field)}" for field in fields if hasattr(space, field))
    return FormatError(
        f"{released.where}: {released.keys.get(name, name)} is {what} in a {space.family} with {given};"
        " name the choices it was trained with, or download it again"
    )
