"""A space and settings that the tests of accuracy share."""

from __future__ import annotations

import pytest

from edgenas.space import MobileNetV3, Stage


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Run torch on one thread in all tests of this folder."""


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
