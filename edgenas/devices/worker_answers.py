"""The answers of the remote worker, by request; edgenas/on_device/worker.py gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from edgenas.devices.answers import MAX_FILE_BYTES, STRICT, FreeText, PathText
from edgenas.files import ShortText

ExitStatus = Annotated[int, Interval(ge=-255, le=255)]


@dataclass(frozen=True)
class Refusal:
    """To any request: why it cannot be fulfilled, and the file that this is about."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    error: FreeText
    path: FreeText | None


@dataclass(frozen=True)
class WorkFolderMade:
    """At the start: the path of the work folder."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    folder: PathText


@dataclass(frozen=True)
class Done:
    """To ``run`` when the command has started, and to ``unlock``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT


@dataclass(frozen=True)
class PushAnswer:
    """To ``push``: the path of the stored file; None where its content must be sent, after which comes another."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    path: PathText | None


@dataclass(frozen=True)
class PullAnswer:
    """To ``pull``: what the file is, whose content follows."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    sha256: ShortText
    size: Annotated[int, Interval(ge=0, le=MAX_FILE_BYTES)]


@dataclass(frozen=True)
class LockAnswer:
    """To ``lock``: its other holder, None where it was taken."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    held_by: FreeText | None
