"""Architectures as Once-for-All's implementation prints them: its lists, and the resolution beside them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from edgenas.files import parse_dataclass
from edgenas.space.rules import FORBID_UNKNOWN, require


@dataclass(frozen=True, kw_only=True)
class OfaLists:
    """What the lists of all families have in common: the resolution; the families' subclasses add their lists.

    Args:
        image_size: The resolution in pixels, a number or a list of one, as the current implementation prints it.
        r: The same, as its tutorial prints it.

    Raises:
        SpaceError: One of them is something else, or they contradict each other.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    image_size: Any = None
    r: Any = None

    def __post_init__(self) -> None:
        for name in ("image_size", "r"):
            value = getattr(self, name)
            size = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
            require(
                size is None or type(size) is int,
                f"{name!r} must be the resolution in pixels or a list of it, but got {reprlib.repr(value)}",
            )
            object.__setattr__(self, name, size)
        require(
            None in (self.image_size, self.r) or self.image_size == self.r,
            f"'image_size' and 'r' must be the same resolution, but got {self.image_size} and {self.r}",
        )


Lists = TypeVar("Lists", bound=OfaLists)


def parse_ofa_lists(
    cls: type[Lists], config: Mapping[str, Any], resolution: int | None, default: int, where: str
) -> tuple[Lists, int]:
    """Return the lists of a family, and the resolution in pixels.

    Args:
        cls: The family's lists.
        config: What Once-for-All's implementation gives; keys whose value is None have no effect.
        resolution: The resolution, whatever ``config`` says; None for that of ``config``.
        default: The resolution if neither has one.
        where: The file or argument that messages name.

    Raises:
        UsageError: A key is unknown or missing, or a value has a wrong type.
    """
    # The text None is what YAML makes of a printed Python dictionary, as the tutorial's {'wid': None, ...}.
    lists = parse_dataclass(cls, {key: value for key, value in config.items() if str(value) != "None"}, where)
    found = (resolution, lists.image_size, lists.r, default)
    return lists, next(size for size in found if size is not None)
