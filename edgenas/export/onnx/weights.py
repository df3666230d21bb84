"""The weights of an architecture by name: their shapes, checks, random values, and batch-norm folding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError, VerificationError
from edgenas.files import format_suggestion
from edgenas.space import Architecture
from edgenas.space.parts import weight_shapes

Weights = Mapping[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float32]


def expected_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return name (``stage1.block2.depthwise.conv.weight``) and shape of every tensor, in network order."""
    return {
        f"{place}.{name}": shape
        for place, part in architecture.parts.items()
        for name, shape in weight_shapes(part).items()
    }


def check_weights(architecture: Architecture, weights: Weights) -> dict[str, Floats]:
    """Return the weights as float32, in network order.

    Raises:
        UsageError: when a tensor is missing, left over, no float or of another shape.
        VerificationError: when a tensor holds NaN, infinity or a negative variance.
    """
    shapes = expected_shapes(architecture)
    for name in weights:
        if name not in shapes:
            raise UsageError(
                f"weight {name!r} belongs to no part of {architecture.id}{_nearest_names(name, list(shapes))}"
            )
    return {name: _check_weight(name, weights.get(name), shape, architecture) for name, shape in shapes.items()}


def _nearest_names(name: str, names: list[str]) -> str:
    """Return the remedy for an unknown name: the nearest tensors of the same place, of the hundreds in a network."""
    place = name.rsplit(".", 1)[0]
    same_place = [known for known in names if known.startswith(place)]
    return format_suggestion(name, same_place) if same_place else "; extract the weights from the same architecture"


def _check_weight(
    name: str, array: npt.NDArray[Any] | None, shape: tuple[int, ...], architecture: Architecture
) -> Floats:
    if array is None:
        raise UsageError(f"weight {name!r} of {architecture.id} is missing; it must have shape {shape}")
    if array.shape != shape:
        raise UsageError(f"weight {name!r} of {architecture.id} must have shape {shape}, but has {array.shape}")
    if array.dtype.kind != "f":
        raise UsageError(f"weight {name!r} of {architecture.id} must hold floats, but holds {array.dtype}")
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32, copy=False)
    if not np.isfinite(floats).all():
        raise VerificationError(f"weight {name!r} of shape {shape} holds NaN or infinity; train or extract it again")
    if name.endswith("running_var") and floats.min() < 0:
        raise VerificationError(f"weight {name!r} of shape {shape} holds a negative variance; extract it again")
    return floats


def random_weights(architecture: Architecture, seed: int = 0) -> dict[str, Floats]:
    """Return random weights that keep the scale of signals, for measuring latency without training.

    Kernels are normal with variance 2 / fan-in (arXiv 1502.01852), batch norms
    change nothing and biases are 0. Equal seeds give equal weights.
    """
    rng = np.random.default_rng(seed)
    return {name: _random_weight(name, shape, rng) for name, shape in expected_shapes(architecture).items()}


def _random_weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    if name.endswith(("bn.weight", "running_var")):
        return np.ones(shape, np.float32)
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(1 / math.sqrt(math.prod(shape[1:]) / 2))
    return values


def fold_batch_norm(kernel: Floats, norm: Mapping[str, Floats], eps: float) -> tuple[Floats, Floats]:
    """Fold a batch norm into the convolution without bias before it.

    Args:
        kernel: (M, C, k, k).
        norm: weight, bias, running_mean and running_var, each (M,).
        eps: added to the variance.

    Returns:
        Kernel and bias of the equal convolution in eval mode; they may be infinite.
    """
    scale = norm["weight"] / np.sqrt(norm["running_var"].astype(np.float64) + eps)
    bias = norm["bias"] - norm["running_mean"] * scale
    with np.errstate(over="ignore", invalid="ignore"):  # the writer refuses what is not finite
        return kernel * scale.astype(np.float32)[:, None, None, None], bias.astype(np.float32)
