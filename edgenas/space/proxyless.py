"""The ProxylessNAS space of Once-for-All (arXiv 1812.00332, 1908.09791), at any width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgenas.space.base import Slot
from edgenas.space.inverted_residual import InvertedResidualSpace, Stage
from edgenas.space.parts import Part
from edgenas.space.rules import require

_STAGES = (
    Stage(24, 2, "relu6", False),
    Stage(40, 2, "relu6", False),
    Stage(80, 2, "relu6", False),
    Stage(96, 1, "relu6", False),
    Stage(192, 2, "relu6", False),
    Stage(320, 1, "relu6", False, depths=(1,)),
)


@dataclass(frozen=True)
class ProxylessNAS(InvertedResidualSpace):
    """Elastic MobileNetV2-like network of ProxylessNAS: ReLU6, no squeeze-excite, a last stage of one block.

    ``first`` and ``head`` are the widths of the fixed block after the stem and
    of the feature mix.
    """

    family: ClassVar[str] = "proxyless"
    _activation: ClassVar[str] = "relu6"
    _first_activation: ClassVar[str] = "relu6"
    _first_shortcut: ClassVar[bool] = False
    _bn_eps: ClassVar[float] = 1e-3

    width: float = 1.0
    resolutions: tuple[int, ...] = tuple(range(128, 225, 4))
    classes: int = 1000
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expand_ratios: tuple[int, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    stem: int = 32
    stem_stride: int = 2
    stages: tuple[Stage, ...] = _STAGES
    first: int = 16
    head: int = 1280

    def __post_init__(self) -> None:
        super().__post_init__()
        require(min(self.first, self.head) > 0, f"first and head must be above 0, but got {self.first} and {self.head}")

    @property
    def _first_width(self) -> int:
        return self.first

    def _head(self, entry: int) -> tuple[Slot, ...]:
        mix, end = self._channels(self.head), len(self.stages)
        return (
            self._fixed("feature_mix", lambda size: self._conv(self._reduced(size, end), entry, mix)),
            self._fixed("pool", lambda size: Part("pool", self._reduced(size, end), mix, 1, mix)),
            self._fixed("classifier", lambda _: Part("linear", 1, mix, 1, self.classes, bias=True)),
        )
