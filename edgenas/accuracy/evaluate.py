"""The accuracy of subnets, each with batch-norm statistics of its own."""

from __future__ import annotations

import numpy as np
import torch

from edgenas.data.data_set import DataSet, Images, Inputs, Split
from edgenas.ofa import Subnet, Supernet, calibrate_batch_norm, to_channels_last, torch_threads
from edgenas.space import Architecture

CALIBRATION_IMAGES = 512
_BATCH = 128


class Evaluator:
    """Extracts, calibrates and evaluates subnets of one supernet on one data set.

    Batch norm is calibrated on the same ``CALIBRATION_IMAGES`` training images
    for every subnet, drawn from ``seed``: an architecture always gives the
    same weights and the same accuracy, with as many threads the same bits.
    """

    def __init__(self, supernet: Supernet, data: DataSet, seed: int = 0, threads: int = 1) -> None:
        self._supernet = supernet
        self._threads = threads
        self._data = data
        order = np.random.default_rng([seed, 1]).permutation(len(data.train))
        self._calibration = data.train.images[order[:CALIBRATION_IMAGES]]

    def subnet(self, architecture: Architecture) -> Subnet:
        """The stand-alone, calibrated module of an architecture, in eval mode."""
        inputs = self._data.inputs(self._calibration, architecture.resolution)
        return extract_subnet(self._supernet, architecture, inputs, self._threads)

    def logits(self, subnet: Subnet, images: Images, resolution: int) -> np.ndarray:
        """Logits (N, classes) of images (N, H, W) at a resolution."""
        return compute_logits(subnet, self._data.inputs(images, resolution), self._threads)

    def accuracy(self, subnet: Subnet, split: Split, resolution: int) -> float:
        """The share of a split's images that are classified rightly, from 0 to 1."""
        return float((self.logits(subnet, split.images, resolution).argmax(1) == split.labels).mean())

    def __call__(self, architecture: Architecture) -> float:
        """The accuracy of an architecture on the validation split, from 0 to 1."""
        return self.accuracy(self.subnet(architecture), self._data.validation, architecture.resolution)


def extract_subnet(supernet: Supernet, architecture: Architecture, inputs: Inputs | None, threads: int = 1) -> Subnet:
    """The stand-alone module of an architecture, in eval mode, its batch norm calibrated on inputs (N, C, r, r).

    Without inputs it keeps the supernet's statistics, which are not its own.
    """
    subnet = supernet.extract(architecture)
    to_channels_last(subnet)
    if inputs is None:
        subnet.eval()
        return subnet
    with torch_threads(threads):
        calibrate_batch_norm(subnet, _batches(inputs))
    return subnet


def compute_logits(subnet: Subnet, inputs: Inputs, threads: int = 1) -> np.ndarray:
    """Logits (N, classes) of prepared inputs (N, C, r, r)."""
    with torch.inference_mode(), torch_threads(threads):
        return torch.cat([subnet(batch) for batch in _batches(inputs)]).numpy()


def _batches(inputs: Inputs) -> list[torch.Tensor]:
    return list(torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last).split(_BATCH))
