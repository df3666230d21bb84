"""What the tests of the pipeline share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgenas.ofa import Supernet
from edgenas.ofa.released_keys import released_names
from edgenas.space import MobileNetV3

Write = Callable[..., Path]


@pytest.fixture
def released(tmp_path: Path) -> Write:
    """Write a checkpoint in the released format, of a thin network whose weights come from ``seed``."""

    def write(name: str = "net.pth", seed: int = 0, classes: int = 4) -> Path:
        supernet = Supernet(MobileNetV3(width=0.1, classes=classes), seed)
        tensors = supernet.state_dict()
        weights = {theirs: tensors[ours] for theirs, ours in released_names(supernet.space, tensors).items()}
        torch.save({"state_dict": weights}, tmp_path / name)
        return tmp_path / name

    return write
