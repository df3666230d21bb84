"""Small spaces, weights without zeros, and a schedule of seconds that the tests of supernets share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from edgenas.data import DataSet, load_data
from edgenas.ofa import Phase, Schedule, Supernet
from edgenas.space import MobileNetV3, SearchSpace, Stage


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Run torch on one thread in all tests of this folder."""


@pytest.fixture(scope="session")
def tiny() -> MobileNetV3:
    """Two thin stages with depths of their own, kernels 3 and 7, and a stem that does not reduce."""
    return MobileNetV3(
        width=0.5,
        resolutions=(6, 8),
        classes=10,
        kernel_sizes=(3, 7),
        expand_ratios=(3, 4),
        depths=(1, 2),
        stem=16,
        stem_stride=1,
        stages=(Stage(32, 2, "relu", True), Stage(32, 1, "hswish", False, depths=(1, 3))),
        head=(64, 64),
    )


@pytest.fixture(scope="session")
def published() -> MobileNetV3:
    """Once-for-All's five stages, thin, with small images."""
    return MobileNetV3(width=0.35, resolutions=(24, 32), classes=10)


@pytest.fixture(scope="session")
def lively() -> Callable[[SearchSpace], Supernet]:
    """Make a supernet in eval mode in which every batch norm, bias and kernel matrix does something."""

    def make(space: SearchSpace) -> Supernet:
        supernet = Supernet(space)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, tensor in supernet.state_dict().items():
                noise = torch.rand(tensor.shape, generator=generator)
                if name.endswith("running_var"):
                    tensor.copy_(0.5 + noise)
                elif name.endswith("_matrix"):
                    tensor += 0.2 * (noise - 0.5)
                elif tensor.dim() == 1:
                    tensor += noise - 0.5
        return supernet.eval()

    return make


@pytest.fixture(scope="session")
def digits() -> DataSet:
    """The real digits."""
    return load_data("digits")


@pytest.fixture(scope="session")
def brief() -> Schedule:
    """Two phases of eight steps in all."""
    phases = (Phase("full", 1, 0.05, distill=False), Phase("all", 1, 0.02, 2, 2, 2, subnets=2))
    return Schedule("brief", phases, batch_size=256)
