"""Evaluation of subnets, each with its own batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from edgenas.data.data_set import DataSet
from edgenas.data.images import ImageFiles, Images, ImageSize, Inputs, Split
from edgenas.ofa import Subnet, Supernet, calibrate_batch_norm, to_channels_last, torch_threads
from edgenas.space import Architecture

CALIBRATION_IMAGES = 512
_BATCH = 128
_FLOAT_BYTES = 4
_KEPT_BYTES = 2 * 10**9  # 3,300 images of 224 x 224 pixels
_CPU = torch.device("cpu")


class Evaluator:
    """Extraction, calibration and evaluation of the subnets of one supernet on one data set.

    Batch norm is calibrated on the same ``CALIBRATION_IMAGES`` training images
    for every subnet. So an architecture always gives the same weights and the
    same accuracy, to the bit where ``threads`` is the same.

    Args:
        supernet: The trained supernet.
        data: Its data set.
        seed: Decides which training images calibrate.
        threads: The number of threads that torch computes with.
        accelerator: What torch computes on.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: DataSet,
        seed: int = 0,
        threads: int = 1,
        accelerator: torch.device = _CPU,
    ) -> None:
        self._supernet, self._accelerator = supernet, accelerator
        self._threads = threads
        self._data = data
        order = np.random.default_rng([seed, 1]).permutation(len(data.train))
        self._calibration = PreparedImages(data, data.train.images[order[:CALIBRATION_IMAGES]])
        self._validation = PreparedImages(data, data.validation.images)

    def calibrated_subnet(self, architecture: Architecture) -> Subnet:
        """Return the stand-alone, calibrated module of an architecture, in eval mode."""
        inputs = np.concatenate(list(self._calibration.to_batches(architecture.image_size)))
        return extract_subnet(self._supernet, architecture, inputs, self._threads, self._accelerator)

    def logits(self, subnet: Subnet, images: Images | ImageFiles, size: ImageSize) -> np.ndarray:
        """Return the logits (N, classes) of N images, resized to ``size``."""
        return self._logits_of_batches(subnet, self._data.to_batches(images, size))

    def _logits_of_batches(self, subnet: Subnet, batches: Iterable[Inputs]) -> np.ndarray:
        return np.concatenate([compute_logits(subnet, batch, self._threads) for batch in batches])

    def accuracy(self, subnet: Subnet, split: Split, size: ImageSize) -> float:
        """Return the share of a split's images, resized to ``size``, that the subnet classifies correctly, 0 to 1."""
        return _share_right(self.logits(subnet, split.images, size), split)

    def __call__(self, architecture: Architecture) -> float:
        """Return the accuracy of an architecture on the validation split, 0 to 1."""
        batches = self._validation.to_batches(architecture.image_size)
        logits = self._logits_of_batches(self.calibrated_subnet(architecture), batches)
        return _share_right(logits, self._data.validation)


class PreparedImages:
    """The same images as network inputs for one subnet after the other.

    Those of files are kept in memory, as far as they fit: reading them takes longer than running a small subnet.

    Args:
        data: The data set, which says how they are prepared.
        images: The images.
    """

    def __init__(self, data: DataSet, images: Images | ImageFiles) -> None:
        self._data, self._images = data, images
        self._kept: dict[ImageSize, list[Inputs]] = {}

    def to_batches(self, size: ImageSize) -> Iterable[Inputs]:
        """Return the inputs for this height and width, in batches."""
        if size in self._kept:
            return self._kept[size]
        batches = self._data.to_batches(self._images, size)
        if not isinstance(self._images, ImageFiles) or sum(map(self._count_bytes, [*self._kept, size])) > _KEPT_BYTES:
            return batches
        self._kept[size] = list(batches)
        return self._kept[size]

    def _count_bytes(self, size: ImageSize) -> int:
        height, width = size
        return len(self._images) * self._data.preprocessing.channels * height * width * _FLOAT_BYTES


def _share_right(logits: np.ndarray, split: Split) -> float:
    """Return the share of images whose largest logit is that of their label."""
    return float((logits.argmax(1) == split.labels).mean())


def extract_subnet(
    supernet: Supernet,
    architecture: Architecture,
    inputs: Inputs | None,
    threads: int = 1,
    accelerator: torch.device = _CPU,
) -> Subnet:
    """Return the stand-alone module of an architecture, in eval mode and channels last.

    Args:
        supernet: The supernet that holds the weights.
        architecture: The architecture to extract.
        inputs: Prepared images (N, C, H, W) that batch norm is calibrated on. With None the subnet keeps the
            supernet's statistics, which do not fit it.
        threads: The number of threads that torch computes with.
        accelerator: What torch computes on, and where the subnet is.
    """
    subnet = supernet.extract(architecture).to(accelerator)
    to_channels_last(subnet)
    if inputs is not None:
        with torch_threads(threads):
            calibrate_batch_norm(subnet, _split_batches(inputs, accelerator))
    return subnet


def compute_logits(subnet: Subnet, inputs: Inputs, threads: int = 1) -> np.ndarray:
    """Return the logits (N, classes) of prepared inputs (N, C, H, W)."""
    accelerator = next(subnet.parameters()).device
    with torch.inference_mode(), torch_threads(threads):
        return torch.cat([subnet(batch).cpu() for batch in _split_batches(inputs, accelerator)]).numpy()


def _split_batches(inputs: Inputs, accelerator: torch.device) -> Iterator[torch.Tensor]:
    for batch in torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last).split(_BATCH):
        yield batch.to(accelerator)
