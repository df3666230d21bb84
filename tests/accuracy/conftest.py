"""A space and settings that the tests of accuracy share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from edgenas.space import MobileNetV3, Stage


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch on one thread: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> MobileNetV3:
    """One stage and small images."""
    return MobileNetV3(
        width=0.5,
        resolutions=(6, 8),
        classes=10,
        kernel_sizes=(3, 5),
        expand_ratios=(3, 4),
        depths=(1, 2),
        stem_stride=1,
        stages=(Stage(32, 2, "relu", True),),
        head=(64, 64),
    )
