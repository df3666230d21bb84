"""The value of ``data`` in a training config and in a run's recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgenas.data.augmentation import Augmentation
from edgenas.files import ShortText, parse_dataclass


@dataclass(frozen=True)
class DataSource:
    """A data set by name, and what is not as its name says.

    Attributes:
        name: A data set's name, the path of a folder of images, or ``module:function``.
        augmentation: How training images are changed; None for the data set's own.
        skip_bad: Whether images of a folder that cannot be read are left out.
        sha256: The digest of images that may change under their name; others are refused. Empty for any.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: ShortText
    augmentation: Augmentation | None = None
    skip_bad: bool = False
    sha256: ShortText = ""

    @classmethod
    def parse(cls, value: str | Mapping[str, Any], where: str = "data") -> DataSource:
        """Return a source from plain data: a name, or a mapping with one.

        Raises UsageError, naming ``where``, for other data.
        """
        return parse_dataclass(cls, {"name": value} if isinstance(value, str) else value, where)

    @property
    def is_code(self) -> bool:
        """True for ``module:function``; a name with a slash is a folder."""
        return ":" in self.name and "/" not in self.name

    def to_plain(self) -> str | dict[str, Any]:
        """Return what ``parse`` reads, as plain data that JSON gives back equal: the name alone where it says all."""
        plain: dict[str, Any] = {"name": self.name}
        if self.augmentation is not None:
            plain["augmentation"] = self.augmentation.to_dict()
        if self.skip_bad:
            plain["skip_bad"] = True
        if self.sha256:
            plain["sha256"] = self.sha256
        return plain if len(plain) > 1 else self.name
