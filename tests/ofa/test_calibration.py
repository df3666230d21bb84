"""Batch-norm statistics of a subnet's own."""

from __future__ import annotations

import torch
from torch import nn

from edgenas.ofa import calibrate


def _net() -> nn.Sequential:
    """A convolution that doubles its input, and a batch norm with foreign statistics."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    with torch.no_grad():
        net[0].weight.fill_(2.0)
        net[1].running_mean.fill_(99.0)
        net[1].running_var.fill_(99.0)
    return net


_BATCHES = [torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([0.0, 10.0]).view(2, 1, 1, 1)]


def test_statistics_are_the_mean_over_batches() -> None:
    """Mean and unbiased variance of the doubled batches, averaged: (4 + 10) / 2 and (8 + 200) / 2."""
    net = _net()
    calibrate(net, _BATCHES)
    assert net[1].running_mean.tolist() == [7.0]
    assert net[1].running_var.tolist() == [104.0]


def test_calibration_does_not_depend_on_what_was_there() -> None:
    """A second calibration gives the same statistics, for the foreign ones are forgotten."""
    net = _net()
    calibrate(net, _BATCHES)
    first = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    calibrate(net, _BATCHES)
    assert all(torch.equal(tensor, first[name]) for name, tensor in net.state_dict().items())


def test_calibration_leaves_eval_mode_and_its_settings_behind() -> None:
    """Afterwards every module is in eval mode, momentum is as before, and weights have no gradient."""
    net = _net().train()
    calibrate(net, _BATCHES)
    assert not any(module.training for module in net.modules())
    assert net[1].momentum == 0.1
    assert all(parameter.grad is None for parameter in net.parameters())


def test_dropout_stays_off() -> None:
    """Only batch norms are put in training mode: with dropout before it the statistics are the same."""
    net = _net()
    calibrate(nn.Sequential(nn.Dropout(0.9), net), _BATCHES)
    assert net[1].running_mean.tolist() == [7.0]


def test_a_calibrated_network_can_still_be_trained() -> None:
    """Statistics and weights remain ordinary tensors that autograd may use."""
    net = _net()
    calibrate(net, _BATCHES)
    net(_BATCHES[0]).sum().backward()
    assert net[0].weight.grad is not None
