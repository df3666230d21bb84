"""Spaces that the tests of this package share."""

import pytest

from edgenas.space import MobileNetV3, Stage


@pytest.fixture(scope="session")
def digits() -> MobileNetV3:
    """Once-for-All's stages, thin, for small images."""
    return MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)


@pytest.fixture(scope="session")
def tiny() -> MobileNetV3:
    """A space so small that all of it can be listed."""
    return MobileNetV3(
        width=0.5,
        resolutions=(16, 20),
        classes=4,
        kernel_sizes=(3, 5),
        expand_ratios=(3, 4),
        depths=(1, 2),
        stem=8,
        stem_stride=1,
        stages=(Stage(16, 2, "relu", True), Stage(24, 1, "hswish", False, depths=(1,))),
        head=(32, 64),
    )
