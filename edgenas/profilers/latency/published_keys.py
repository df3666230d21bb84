"""The keys of Once-for-All's published latency tables, made from parts.

The newer form is MobileNetV3's: ``expand`` is the number of middle channels,
``se`` and ``hs`` say whether there is squeeze-excite and h-swish. The older
form is ProxylessNAS's: ``expand`` is the ratio, ``se`` and ``hs`` are left out,
and ``Logits`` counts the pooling before it. (mit-han-lab/once-for-all,
arXiv 1908.09791; mit-han-lab/proxylessnas, arXiv 1812.00332.)
"""

from __future__ import annotations

import re

from edgenas.errors import UsageError
from edgenas.space import MobileNetV3, Part, ProxylessNAS, SearchSpace

_NUMBER = r"[1-9]\d*"
_SHAPE = rf"{_NUMBER}x{_NUMBER}x{_NUMBER}"
_KEY = re.compile(
    rf"(?:Conv|Conv_1|Conv_2|AvgPool2D)-input:{_SHAPE}-output:{_SHAPE}"
    rf"|Logits-input:{_SHAPE}-output:{_NUMBER}"
    rf"|expanded_conv-input:{_SHAPE}-output:{_SHAPE}-expand:{_NUMBER}-kernel:{_NUMBER}-stride:{_NUMBER}-idskip:[01]"
    r"(?:-se:[01]-hs:[01])?"
)
_NAMES = {"stem": "Conv", "final_expand": "Conv_1", "pool": "AvgPool2D", "feature_mix": "Conv_2"}
_OLDER_NAMES = {"stem": "Conv", "feature_mix": "Conv_1"}


def is_published_key(text: str) -> bool:
    """Whether ``text`` has the form of a published table's key, newer or older."""
    return _KEY.fullmatch(text) is not None


def published_key(place: str, part: Part, last_size: int, *, older: bool = False) -> str | None:
    """The key of the part at a place (``stem``, ``stage1.block1``, ``classifier``); None where ``Logits`` counts it.

    ``last_size`` is the size in pixels of the feature map before the pooling.
    """
    shapes = f"input:{_shape(part.in_size, part.in_channels)}-output:{_shape(part.out_size, part.out_channels)}"
    if part.operator == "mbconv":
        return f"expanded_conv-{shapes}-{_block_words(part, older)}"
    if part.operator == "linear":
        entry = _shape(last_size if older else 1, part.in_channels)
        return f"Logits-input:{entry}-output:{part.out_channels}"
    if older and part.operator == "pool":
        return None
    return f"{(_OLDER_NAMES if older else _NAMES)[place]}-{shapes}"


def published_keys(space: SearchSpace) -> list[dict[str, str | None]]:
    """For each resolution of a space, from its parts' own keys to the published ones.

    Raises UsageError for a family that there are no published keys for.
    """
    if not isinstance(space, MobileNetV3 | ProxylessNAS):
        raise UsageError(
            f"published latency tables are of the families {MobileNetV3.family} and {ProxylessNAS.family},"
            f" but the space is of {space.family}; profile a device instead"
        )
    older, count = isinstance(space, ProxylessNAS), len(space.resolutions)
    pools = next(slot.parts for slot in space.slots if slot.name == "pool")
    last_sizes = [part.in_size for part in pools if part is not None]
    found: list[dict[str, str | None]] = [{} for _ in space.resolutions]
    for slot in space.slots:
        each = len(slot.parts) // count  # the resolution is the first gene of every place and varies slowest
        for index, part in enumerate(slot.parts):
            if part is not None:
                number = index // each
                found[number][part.key] = published_key(slot.name, part, last_sizes[number], older=older)
    return found


def _shape(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"


def _block_words(part: Part, older: bool) -> str:
    expand = part.mid_channels // part.in_channels if older else part.mid_channels
    words = f"expand:{expand}-kernel:{part.kernel}-stride:{part.stride}-idskip:{part.shortcut:d}"
    return words if older else f"{words}-se:{part.se_channels > 0:d}-hs:{part.activation == 'hswish':d}"
