"""The MobileNetV3 search space of Once-for-All (arXiv 1908.09791), at any width and with any stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgenas.space.base import Slot
from edgenas.space.blocks.plain import ConvPart, LinearPart
from edgenas.space.inverted_residual import InvertedResidualSpace, Stage
from edgenas.space.rules import check_width

_STAGES = (
    Stage(24, 2, "relu", False),
    Stage(40, 2, "relu", True),
    Stage(80, 2, "hswish", False),
    Stage(112, 1, "hswish", True),
    Stage(160, 2, "hswish", True),
)


@dataclass(frozen=True, repr=False)
class MobileNetV3(InvertedResidualSpace):
    """The search space of MobileNetV3: inverted residual blocks with squeeze-excite and h-swish.

    The defaults are the space that Once-for-All published (arXiv 1908.09791).

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
        head: The widths of the final expansion and of the feature mix.

    Raises:
        SpaceError: A choice is empty, repeated or impossible.

    Example:
        >>> from edgenas import MobileNetV3
        >>> space = MobileNetV3(width=0.5, resolutions=(160, 192, 224))
        >>> space
        MobileNetV3(width 0.5, 1000 classes, 160 to 224 pixels, 1x2f7t)
        >>> f"{space.size:.1e}"
        '6.5e+19'
        >>> space.params(space.encode([space.smallest, space.largest])).tolist()
        [1187448.0, 2411840.0]
    """

    family: ClassVar[str] = "mobilenet_v3"
    _activation: ClassVar[str] = "hswish"
    _first_activation: ClassVar[str] = "relu"
    _first_shortcut: ClassVar[bool] = True
    _bn_eps: ClassVar[float] = 1e-5

    width: float = 1.0
    resolutions: tuple[int, ...] = tuple(range(128, 225, 4))
    classes: int = 1000
    kernel_sizes: tuple[int, ...] = (3, 5, 7)
    expand_ratios: tuple[int, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    stem: int = 16
    stem_stride: int = 2
    stages: tuple[Stage, ...] = _STAGES
    head: tuple[int, int] = (960, 1280)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "head", tuple(self.head))
        for width in self.head:
            check_width("head", width)

    @property
    def _first_width(self) -> int:
        return self.stem

    def _head(self, entry: int) -> tuple[Slot, ...]:
        final, mix = (self._channels(width) for width in self.head)
        end = len(self.stages)
        return (
            self._fixed_slot("final_expand", lambda size: self._conv_part(self._size_after(size, end), entry, final)),
            self._fixed_slot("pool", lambda size: self._pool(size, final)),
            self._fixed_slot(
                "feature_mix", lambda _: ConvPart((final, 1, 1), mix, activation="hswish", batch_norm=False)
            ),
            self._fixed_slot("classifier", lambda _: LinearPart((mix, 1, 1), self.classes)),
        )
