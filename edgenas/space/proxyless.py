"""The ProxylessNAS search space of Once-for-All (arXiv 1812.00332, 1908.09791), at any width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgenas.space.base import Slot
from edgenas.space.blocks.plain import LinearPart
from edgenas.space.inverted_residual import InvertedResidualSpace, Stage
from edgenas.space.rules import check_width

_STAGES = (
    Stage(24, 2, "relu6", False),
    Stage(40, 2, "relu6", False),
    Stage(80, 2, "relu6", False),
    Stage(96, 1, "relu6", False),
    Stage(192, 2, "relu6", False),
    Stage(320, 1, "relu6", False, depths=(1,)),
)


@dataclass(frozen=True, repr=False)
class ProxylessNAS(InvertedResidualSpace):
    """The search space of ProxylessNAS: inverted residual blocks with ReLU6 and without squeeze-excite.

    The defaults are the space that Once-for-All published (arXiv 1812.00332,
    1908.09791). Its last stage has one block.

    Args:
        width: The multiplier of all widths.
        resolutions: The heights and widths of the input to choose from, in pixels.
        classes: The number of classes.
        kernel_sizes: The kernel sizes of a block's depthwise convolution.
        expand_ratios: The ratios of a block's inner to its incoming channels.
        depths: The numbers of blocks of a stage.
        stem: The width of the first convolution.
        stem_stride: The stride of the first convolution.
        stages: The stages.
        first: The width of the fixed block after the stem.
        head: The width of the feature mix.

    Raises:
        SpaceError: A choice is empty, repeated or impossible.

    Example:
        >>> from edgenas import ProxylessNAS
        >>> space = ProxylessNAS(width=1.3, resolutions=(160, 192, 224))
        >>> space
        ProxylessNAS(width 1.3, 1000 classes, 160 to 224 pixels, 1hqmcm)
        >>> space.params(space.encode([space.smallest, space.largest])).tolist()
        [3718832.0, 7942056.0]
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
        check_width("first", self.first)
        check_width("head", self.head)

    @property
    def _first_width(self) -> int:
        return self.first

    def _head(self, entry: int) -> tuple[Slot, ...]:
        mix, end = self._channels(self.head), len(self.stages)
        return (
            self._fixed_slot("feature_mix", lambda size: self._conv_part(self._size_after(size, end), entry, mix)),
            self._fixed_slot("pool", lambda size: self._pool(size, mix)),
            self._fixed_slot("classifier", lambda _: LinearPart((mix, 1, 1), self.classes)),
        )
