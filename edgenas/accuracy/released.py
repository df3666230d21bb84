"""The accuracy predictor that Once-for-All released: an MLP on one-hot choices (arXiv 1908.09791)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector
from edgenas.errors import FormatError, MissingExtraError, UsageError
from edgenas.files import read_tensors, write_tensors
from edgenas.space import MobileNetV3, SearchSpace

_KIND, _VERSION = "accuracy_predictor", 1
_KERNEL_SIZES, _EXPAND_RATIOS, _SMALLEST, _LARGEST = (3, 5, 7), (3, 4, 6), 128, 224
_STAGES, _BLOCKS = 5, 4
_RESOLUTIONS_FROM, _FEATURES = 120, 128  # after 20 blocks' three kernel sizes and three expand ratios
_LAYERS = ("0", "2", "4", "6")  # the numbers between are ReLUs
_SHAPES: dict[str, tuple[int, ...]] = {
    f"{layer}.{name}": shape
    for layer, (out, entry) in zip(_LAYERS, ((400, 128), (400, 400), (400, 400), (1, 400)), strict=True)
    for name, shape in (("weight", (out, entry)), ("bias", (out,)))
}
_AT_ONCE = 8192  # rows: enough to be fast, few enough to need little memory

Tensors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class ReleasedPredictor:
    """Once-for-All's MLP 128-400-400-400-1 for a MobileNetV3 space; ``tensors`` are its weights by their own names.

    Its features are one-hot: the kernel size and the expand ratio of each of
    20 blocks, zeros where a block is skipped, and the resolution in steps of 16
    pixels from 112. It was trained on the space of width 1.2 and ImageNet: for
    other widths only the order of its answers counts. Raises UsageError for a
    space with choices that it does not know, FormatError for tensors of other
    names or shapes.
    """

    space: SearchSpace
    tensors: Tensors

    def __post_init__(self) -> None:
        _check_space(self.space)
        _check_tensors(self.tensors)

    def __call__(self, genes: Genes) -> Vector:
        """Predicted top-1 accuracy (N,) of genes (N, G), a fraction."""
        accuracy = np.empty(len(genes))
        for first in range(0, len(genes), _AT_ONCE):
            chunk = slice(first, first + _AT_ONCE)
            accuracy[chunk] = self._forward(self.features(genes[chunk]))
        return accuracy

    def features(self, genes: Genes) -> npt.NDArray[np.float32]:
        """What the network reads, (N, 128): one-hot kernel sizes, expand ratios, resolution."""
        features = np.zeros((len(genes), _FEATURES), dtype=np.float32)
        live, rows = ~self.space.dead_genes(genes), np.arange(len(genes))
        for gene, columns in self._columns.items():
            shown = live[:, gene]
            features[rows[shown], columns[genes[shown, gene]]] = 1
        return features

    @cached_property
    def _columns(self) -> dict[int, npt.NDArray[np.int64]]:
        """For each gene that is a feature, the feature's column by the gene's value."""
        columns = {}
        for number, gene in enumerate(self.space.genes):
            if gene.kind == "resolution":
                columns[number] = np.array([_RESOLUTIONS_FROM + (int(size) - 112) // 16 for size in gene.values])
            elif gene.kind in ("kernel_size", "expand_ratio"):
                known = _KERNEL_SIZES if gene.kind == "kernel_size" else _EXPAND_RATIOS
                first = 3 * _place(gene.name) + (0 if gene.kind == "kernel_size" else _RESOLUTIONS_FROM // 2)
                columns[number] = np.array([first + known.index(int(value)) for value in gene.values])
        return columns

    def _forward(self, hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        for layer in _LAYERS[:-1]:
            hidden = np.maximum(hidden @ self.tensors[f"{layer}.weight"].T + self.tensors[f"{layer}.bias"], 0)
        return (hidden @ self.tensors[f"{_LAYERS[-1]}.weight"].T + self.tensors[f"{_LAYERS[-1]}.bias"])[:, 0]

    @classmethod
    def from_checkpoint(cls, path: Path, space: SearchSpace) -> Self:
        """Read the released ``acc_predictor.pth``, which takes torch.

        Raises MissingExtraError without torch, and FormatError naming the
        tensor and both shapes where the file does not fit.
        """
        return cls._of_file(path, space, _read_checkpoint(path))

    def save(self, path: Path) -> None:
        """Write the weights as a safetensors file, which needs no torch."""
        write_tensors(path, _KIND, _VERSION, self.tensors, {})

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> Self:
        """What ``save`` wrote. Raises FormatError when it is damaged."""
        return cls._of_file(path, space, read_tensors(path, _KIND, _VERSION)[0])

    @classmethod
    def _of_file(cls, path: Path, space: SearchSpace, tensors: Tensors) -> Self:
        try:
            return cls(space, tensors)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None


def _read_checkpoint(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors of a PyTorch file by their own names, without running any code that the file may hold."""
    try:
        from edgenas.ofa.released_file import read_released_file
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"{path}: is read with torch, which is not installed; run: pip install 'edgenas[train]'"
        ) from None
    released = read_released_file(path)
    return {released.keys[name]: tensor.numpy() for name, tensor in released.tensors.items()}


def _check_tensors(tensors: Tensors) -> None:
    for name in sorted({*_SHAPES, *tensors}):
        expected = _shape(_SHAPES[name]) if name in _SHAPES else "absent"
        found = _shape(tensors[name].shape) if name in tensors else "absent"
        if found != expected:
            raise FormatError(
                f"tensor {name!r} of Once-for-All's accuracy predictor must be {expected}, but is {found};"
                " give the released acc_predictor.pth"
            )
        if not np.isfinite(tensors[name]).all():
            raise FormatError(f"tensor {name!r} holds numbers that are not finite; download the file again")


def _check_space(space: SearchSpace) -> None:
    known = {"kernel_size": _KERNEL_SIZES, "expand_ratio": _EXPAND_RATIOS}
    wrong = None
    if not isinstance(space, MobileNetV3):
        wrong = f"family {space.family}"
    elif len(space.stages) != _STAGES:
        wrong = f"{len(space.stages)} stages"
    else:
        for gene in space.genes:
            foreign = [value for value in gene.values if not _knows(gene.kind, value, known.get(gene.kind, ()))]
            if foreign:
                wrong = f"{gene.name} {foreign[0]:g}"
    if wrong is not None:
        raise UsageError(
            "the released accuracy predictor knows mobilenet_v3 with 5 stages of up to 4 blocks, kernel sizes 3, 5, 7,"
            f" expand ratios 3, 4, 6 and resolutions 128 to 224, but the space has {wrong}; search without it"
        )


def _knows(kind: str, value: float, choices: tuple[int, ...]) -> bool:
    if kind == "resolution":
        return _SMALLEST <= value <= _LARGEST
    return value <= _BLOCKS if kind == "depth" else value in choices


def _place(gene: str) -> int:
    """The number from 0 to 19 of the block that a gene such as ``stage2.block1.kernel_size`` belongs to."""
    stage, block = map(int, re.findall(r"\d+", gene))
    return _BLOCKS * (stage - 1) + block - 1


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
