"""The metrics of a training: JSON lines in the run folder, one every few seconds and one for each epoch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from edgenas.appending import append_at
from edgenas.errors import EdgeNASError, FormatError, UsageError
from edgenas.files import (
    ShortText,
    canonical_json_bytes,
    parse_dataclass,
    parse_header_version,
    parse_json,
    read_bytes,
    write_bytes,
)

_KIND, _VERSION = "training_metrics", 1
_REMEDY = "move the file away; training does not need it"


@dataclass(frozen=True)
class TrainingMetrics:
    """The state of a training at one moment.

    Attributes:
        time: Seconds since 1970.
        phase: The schedule's phase.
        images: Training images seen, of ``total_images``.
        total_images: Training images of the whole schedule.
        share: The share of the schedule's work that is done, 0 to 1.
        loss: The mean loss of the latest step.
        accuracy: The accuracy of the latest step's subnets on its augmented images, 0 to 1.
        learning_rate: The latest learning rate.
        images_per_second: The speed since the command began.
        seconds_left: The time to the end of the schedule at the speed so far.
        smallest: The validation accuracy of the smallest subnet, 0 to 1; None between evaluations.
        largest: The same of the largest.
        subnet: The same of a subnet that is trained alone.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    time: float
    phase: ShortText
    images: int
    total_images: int
    share: float
    loss: float
    accuracy: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    smallest: float | None = None
    largest: float | None = None
    subnet: float | None = None


def begin_metrics(path: Path, images: int) -> None:
    """Make the file, or remove what it says of images after the first ``images``, which are trained on again.

    A damaged file is begun anew: training does not need it.
    """
    try:
        kept = [each for each in read_metrics(path) if each.images <= images]
    except FormatError:
        kept = []
    header = canonical_json_bytes({"format": f"edgenas.{_KIND}", "version": _VERSION}) + b"\n"
    write_bytes(path, header + b"".join(map(_to_line, kept)))


def append_metrics(path: Path, metrics: TrainingMetrics) -> None:
    """Append a line. Raises EdgeNASError when the disk is full."""
    try:
        append_at(path, path.stat().st_size, _to_line(metrics))
    except OSError as error:
        raise EdgeNASError(
            f"{path}: cannot be written ({error.strerror}); free space: the last checkpoint is intact, and the same"
            " command resumes from it"
        ) from None


def read_metrics(path: Path) -> list[TrainingMetrics]:
    """Return the lines, none where there is no file; a last line that a killed process left unfinished is left out.

    Raises FormatError for a file of another kind or version, and for a damaged line.
    """
    if not path.exists():
        return []
    header, *lines = read_bytes(path).split(b"\n")
    _check_header(header, path)
    return [_parse_line(line, f"{path}, line {number}") for number, line in enumerate(lines[:-1], 2)]


def _check_header(line: bytes, path: Path) -> None:
    try:
        header = dict(parse_json(line, str(path)))
    except (TypeError, ValueError, RecursionError):
        raise FormatError(f"{path}, line 1: is damaged (no header); {_REMEDY}") from None
    parse_header_version(header, path, _KIND, _VERSION)


def _parse_line(line: bytes, where: str) -> TrainingMetrics:
    try:
        return parse_dataclass(TrainingMetrics, parse_json(line, where), where)
    except UsageError as error:
        raise FormatError(f"{error}; {_REMEDY}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: is damaged ({error}); {_REMEDY}") from None


def _to_line(metrics: TrainingMetrics) -> bytes:
    return json.dumps(asdict(metrics)).encode() + b"\n"
