"""Calibration of a subnet's batch norm on training images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def calibrate_batch_norm(subnet: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of every batch norm to their means over batches of inputs.

    Leaves the network in eval mode. The running statistics of a supernet mix
    those of many subnets. A subnet is evaluated with its own (Once-for-All,
    section 3.3).

    Args:
        subnet: The network to calibrate, in place.
        batches: Inputs (N, C, H, W); about 2,000 images suffice.
    """
    subnet.eval()
    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the cumulative mean
        norm.train()
    with torch.inference_mode():
        for batch in batches:
            subnet(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
