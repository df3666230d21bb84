"""Choices of a published space where they are not the published ones, as ``edgenas import --choices`` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from edgenas.errors import UsageError
from edgenas.files import parse_dataclass, read_yaml
from edgenas.space.rules import FORBID_UNKNOWN


@dataclass(frozen=True)
class _Choices:
    """The choices of all families; None for those published for the family."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_UNKNOWN

    kernel_sizes: tuple[int, ...] | None = None
    expand_ratios: tuple[int | float, ...] | None = None  # whole ones stay integers
    depths: tuple[int, ...] | None = None
    width_mults: tuple[float, ...] | None = None
    resolutions: tuple[int, ...] | None = None


CHOICE_FIELDS = tuple(field.name for field in fields(_Choices))


def parse_choices(data: Any, where: str) -> dict[str, Any]:
    """Return the choices that plain data names, as fields of a space.

    Args:
        data: A mapping with any of ``kernel_sizes``, ``expand_ratios``, ``depths``, ``width_mults``, ``resolutions``.
        where: The file or argument that messages name.

    Raises:
        UsageError: The data is no mapping, a key is unknown, or a value has a wrong type.
    """
    if not isinstance(data, Mapping):
        raise UsageError(f'{where}: choices must be a mapping, for example {{"depths": [2, 3, 4]}}')
    parsed = asdict(parse_dataclass(_Choices, dict(data), where))
    return {name: values for name, values in parsed.items() if values is not None}


def read_choices(path: Path) -> dict[str, Any]:
    """Return the choices in a JSON or YAML file; raise UsageError, naming it, as ``parse_choices``."""
    return parse_choices(read_yaml(path), str(path))
