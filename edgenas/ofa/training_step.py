"""One training step: a batch, and the gradients that a step's subnets give on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from edgenas.ofa.schedule import Phase
from edgenas.ofa.supernet import Supernet
from edgenas.space import Architecture


@dataclass(frozen=True, eq=False)
class Batch:
    """The subnets of a step, images (N, C, H, W) and targets: classes (N,), or probabilities (N, classes)."""

    subnets: Sequence[Architecture]
    images: Tensor
    targets: Tensor

    def to(self, accelerator: torch.device) -> Batch:
        """Return the batch on an accelerator, channels last, without waiting for the transfer."""
        if accelerator.type == "cpu":
            return Batch(self.subnets, self.images.contiguous(memory_format=torch.channels_last), self.targets)
        images, targets = (tensor.pin_memory() for tensor in (self.images, self.targets))
        placed = images.to(accelerator, non_blocking=True, memory_format=torch.channels_last)
        return Batch(self.subnets, placed, targets.to(accelerator, non_blocking=True))


def compute_gradients(
    supernet: Supernet, teacher: Supernet | None, phase: Phase, label_smoothing: float, batch: Batch
) -> Tensor:
    """Add the gradients of a step's subnets to those of the supernet's parameters.

    On a GPU the forward passes compute in bfloat16.

    Args:
        supernet: The supernet in training mode.
        teacher: The teacher of the first phase, where the phase has one.
        phase: The phase, which decides what the subnets learn from.
        label_smoothing: The share of a label that goes to all classes.
        batch: Subnets, images and targets.

    Returns:
        The sums over the subnets of their mean loss and accuracy on the batch, (2,).
    """
    images, targets = batch.images, batch.targets
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    sums = torch.zeros(2, device=images.device)
    soft_labels: Tensor | None = None
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
        if teacher is not None:
            largest = supernet.space.largest.at_resolution(batch.subnets[0].resolution)
            with torch.no_grad():
                soft_labels = functional.softmax(teacher(images, largest).float(), dim=1)
        for subnet in batch.subnets:
            logits = supernet(images, subnet).float()
            if phase.distill == "in-place" and soft_labels is not None:
                loss = functional.cross_entropy(logits, soft_labels)
            else:
                loss = functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
                if soft_labels is not None:
                    loss = loss + functional.cross_entropy(logits, soft_labels)
            if phase.distill == "in-place" and soft_labels is None:  # the sandwich's first subnet is the largest
                soft_labels = functional.softmax(logits.detach(), dim=1)
            loss.backward()
            sums += torch.stack([loss.detach(), (logits.argmax(1) == labels).float().mean()])
    return sums
