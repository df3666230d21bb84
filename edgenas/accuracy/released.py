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

from edgenas.costs import Genes, Vector, apply_in_chunks
from edgenas.errors import FormatError, MissingExtraError, UsageError
from edgenas.files import read_tensors_and_body, write_tensors
from edgenas.space import MobileNetV3, SearchSpace

_KIND, _VERSION = "accuracy_predictor", 1
_KERNEL_SIZES, _EXPAND_RATIOS, _MIN_RESOLUTION, _MAX_RESOLUTION = (3, 5, 7), (3, 4, 6), 128, 224
_STAGES, _STAGE_BLOCKS = 5, 4
# Columns of the features: the kernel sizes of 20 blocks, their expand ratios, the resolutions from 112 in steps of 16.
_FIRST_EXPAND_RATIO, _FIRST_RESOLUTION, _FEATURES = 60, 120, 128
_LAYERS = ("0", "2", "4", "6")  # the numbers between are ReLUs
_SHAPES: dict[str, tuple[int, ...]] = {
    f"{layer}.{name}": shape
    for layer, (outputs, inputs) in zip(_LAYERS, ((400, 128), (400, 400), (400, 400), (1, 400)), strict=True)
    for name, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
}
_CHUNK_ROWS = 8192  # enough to be fast, few enough to need little memory

Tensors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, eq=False, repr=False)
class ReleasedPredictor:
    """Once-for-All's MLP 128-400-400-400-1 for a MobileNetV3 space; a cost model of accuracy.

    Its inputs are one-hot: the kernel size and the expand ratio of each of 20
    blocks, zeros for a skipped block, and the resolution in steps of 16 pixels
    from 112. It was trained on ImageNet and the space of width 1.2. For other
    widths only the order of its predictions means something.

    Args:
        space: The space whose architectures are predicted.
        tensors: The weights by their names in the released file.

    Raises:
        UsageError: The space has choices that the predictor was not trained on.
        FormatError: A tensor is missing, unknown, not finite or of another shape.
    """

    space: SearchSpace
    tensors: Tensors

    def __post_init__(self) -> None:
        _check_space(self.space)
        _check_tensors(self.tensors)

    def __repr__(self) -> str:
        return f"ReleasedPredictor({self.space!r})"

    def __call__(self, genes: Genes) -> Vector:
        """Return the predicted top-1 accuracy (N,), 0 to 1, of genes (N, G)."""
        return apply_in_chunks(lambda rows: self._forward(self.one_hot_features(rows)), genes, _CHUNK_ROWS)

    def one_hot_features(self, genes: Genes) -> npt.NDArray[np.float32]:
        """Return the network's inputs, (N, 128): one-hot kernel sizes, expand ratios and resolution."""
        features = np.zeros((len(genes), _FEATURES), dtype=np.float32)
        live, rows = ~self.space.dead_genes(genes), np.arange(len(genes))
        for gene, columns in self._feature_columns.items():
            live_rows = live[:, gene]
            features[rows[live_rows], columns[genes[live_rows, gene]]] = 1
        return features

    @cached_property
    def _feature_columns(self) -> dict[int, npt.NDArray[np.int64]]:
        """For each gene that the network reads, by the gene's column: the feature of each of its values."""
        columns = {}
        for number, gene in enumerate(self.space.genes):
            if gene.kind == "resolution":
                columns[number] = np.array([_FIRST_RESOLUTION + (int(size) - 112) // 16 for size in gene.values])
            elif gene.kind == "kernel_size":
                first = 3 * _block_number(gene.name)
                columns[number] = np.array([first + _KERNEL_SIZES.index(int(value)) for value in gene.values])
            elif gene.kind == "expand_ratio":
                first = _FIRST_EXPAND_RATIO + 3 * _block_number(gene.name)
                columns[number] = np.array([first + _EXPAND_RATIOS.index(int(value)) for value in gene.values])
        return columns

    def _forward(self, hidden: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        for layer in _LAYERS[:-1]:
            hidden = np.maximum(hidden @ self.tensors[f"{layer}.weight"].T + self.tensors[f"{layer}.bias"], 0)
        return (hidden @ self.tensors[f"{_LAYERS[-1]}.weight"].T + self.tensors[f"{_LAYERS[-1]}.bias"])[:, 0]

    @classmethod
    def load_checkpoint(cls, path: str | Path, space: SearchSpace) -> Self:
        """Return the predictor in the released ``acc_predictor.pth``.

        Reading it takes torch, but runs no code that the file may hold.

        Raises:
            MissingExtraError: torch is not installed.
            FormatError: The file is damaged, or a tensor has another name or shape.
        """
        try:
            from edgenas.ofa.released_file import read_released_file
        except ModuleNotFoundError:
            raise MissingExtraError(
                f"{path}: is read with torch, which is not installed; run: pip install 'edgenas[train]'"
            ) from None
        released = read_released_file(Path(path))
        return cls._from_tensors(path, space, {name: tensor.numpy() for name, tensor in released.tensors.items()})

    def save(self, path: str | Path) -> None:
        """Write the weights as a safetensors file, which is read without torch."""
        write_tensors(Path(path), _KIND, _VERSION, self.tensors, {})

    @classmethod
    def load(cls, path: str | Path, space: SearchSpace) -> Self:
        """Return the predictor that ``save`` wrote. Raises FormatError when the file is damaged."""
        return cls._from_tensors(path, space, read_tensors_and_body(Path(path), _KIND, _VERSION)[0])

    @classmethod
    def _from_tensors(cls, path: str | Path, space: SearchSpace, tensors: Tensors) -> Self:
        """Return the predictor with these weights; a FormatError names the file they are from."""
        try:
            return cls(space, tensors)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None


def _check_tensors(tensors: Tensors) -> None:
    for name in sorted({*_SHAPES, *tensors}):
        expected = _format_shape(_SHAPES[name]) if name in _SHAPES else "absent"
        actual = _format_shape(tensors[name].shape) if name in tensors else "absent"
        if actual != expected:
            raise FormatError(
                f"tensor {name!r} of Once-for-All's accuracy predictor must be {expected}, but is {actual};"
                " give the released acc_predictor.pth"
            )
        if not np.isfinite(tensors[name]).all():
            raise FormatError(f"tensor {name!r} holds numbers that are not finite; download the file again")


def _check_space(space: SearchSpace) -> None:
    """Raise UsageError for a space with choices that the predictor was not trained on."""
    wrong = None
    if not isinstance(space, MobileNetV3):
        wrong = f"family {space.family}"
    elif len(space.stages) != _STAGES:
        wrong = f"{len(space.stages)} stages"
    else:
        for gene in space.genes:
            unknown = [value for value in gene.values if not _is_known_choice(gene.kind, value)]
            if unknown:
                wrong = f"{gene.name} {unknown[0]:g}"
    if wrong is not None:
        raise UsageError(
            "the released accuracy predictor knows mobilenet_v3 with 5 stages of up to 4 blocks, kernel sizes 3, 5, 7,"
            f" expand ratios 3, 4, 6 and resolutions 128 to 224, but the space has {wrong};"
            " leave it out: edgenas train and edgenas evaluate give accuracies of any space"
        )


def _is_known_choice(kind: str, value: float) -> bool:
    if kind == "resolution":
        return _MIN_RESOLUTION <= value <= _MAX_RESOLUTION
    if kind == "depth":
        return value <= _STAGE_BLOCKS
    return value in (_KERNEL_SIZES if kind == "kernel_size" else _EXPAND_RATIOS)


def _block_number(gene: str) -> int:
    """Return the number, 0 to 19, of the block that a gene such as ``stage2.block1.kernel_size`` belongs to."""
    stage, block = map(int, re.findall(r"\d+", gene))
    return _STAGE_BLOCKS * (stage - 1) + block - 1


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
