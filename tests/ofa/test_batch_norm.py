"""Calibration of batch norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgenas.ofa import calibrate_batch_norm

_BATCHES = [torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([0.0, 10.0]).view(2, 1, 1, 1)]


@pytest.fixture
def double() -> nn.Conv2d:
    """A convolution that doubles its input."""
    conv = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(conv.weight, 2.0)
    return conv


@pytest.fixture
def norm() -> nn.BatchNorm2d:
    """A batch norm."""
    return nn.BatchNorm2d(1)


@pytest.fixture
def net(double: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Sequential:
    """The convolution and the batch norm after it, which has seen other inputs."""
    net = nn.Sequential(double, norm).train()
    net(torch.tensor([500.0, 900.0]).view(2, 1, 1, 1))
    return net


def _statistics(norm: nn.BatchNorm2d) -> tuple[list[float], list[float]]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean.tolist(), norm.running_var.tolist()


def test_statistics_are_the_mean_over_batches(net: nn.Module, norm: nn.BatchNorm2d) -> None:
    """Mean and unbiased variance of the doubled batches, averaged: (4 + 10) / 2 and (8 + 200) / 2."""
    calibrate_batch_norm(net, _BATCHES)
    assert _statistics(norm) == ([7.0], [104.0])


def test_a_second_calibration_changes_nothing(net: nn.Module, norm: nn.BatchNorm2d) -> None:
    """Calibration does not depend on the statistics before it."""
    calibrate_batch_norm(net, _BATCHES)
    calibrate_batch_norm(net, _BATCHES)
    assert _statistics(norm) == ([7.0], [104.0])


def test_calibration_leaves_eval_mode_and_its_settings_behind(net: nn.Module, norm: nn.BatchNorm2d) -> None:
    """Afterwards every module is in eval mode, momentum is as before, and no weight has a gradient."""
    calibrate_batch_norm(net, _BATCHES)
    assert not any(module.training for module in net.modules())
    assert norm.momentum == 0.1
    assert all(parameter.grad is None for parameter in net.parameters())


def test_dropout_stays_off(net: nn.Module, norm: nn.BatchNorm2d) -> None:
    """Only batch norms are put in training mode: with dropout before them the statistics are the same."""
    calibrate_batch_norm(nn.Sequential(nn.Dropout(0.9), net), _BATCHES)
    assert _statistics(norm) == ([7.0], [104.0])


def test_a_calibrated_network_can_still_be_trained(net: nn.Module, double: nn.Conv2d) -> None:
    """Statistics and weights remain ordinary tensors that autograd may use."""
    calibrate_batch_norm(net, _BATCHES)
    net(_BATCHES[0]).sum().backward()
    assert double.weight.grad is not None
