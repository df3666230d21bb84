"""Batch-norm statistics of a subnet, re-estimated on training images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def calibrate_batch_norm(subnet: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set every batch norm's running statistics to their mean over ``batches`` of inputs (N, C, r, r).

    Shared weights are trained with the statistics of many subnets; a subnet is
    evaluated with its own (Once-for-All, section 3.3; about 2,000 images
    suffice). Leaves the subnet in eval mode.
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
