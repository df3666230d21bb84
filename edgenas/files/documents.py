"""JSON documents with a header and a checksum.

Every edgenas file begins with ``{"format": "edgenas.<kind>", "version": n}``
and carries a checksum of its body. A damaged or foreign file is refused, and
the message says what to do.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgenas.errors import FormatError, UsageError
from edgenas.files.digests import canonical_json_bytes, sha256_hex
from edgenas.files.disk import read_bytes, write_bytes
from edgenas.files.plain_data import parse_json
from edgenas.files.typed import T, parse_dataclass

Upgrade = Callable[[Mapping[str, Any]], dict[str, Any]]  # a body of one schema version to that of the next
MAX_DOCUMENT_BYTES = 1 << 26  # of JSON
REMEDY = "move it away and run the command that made it again"


@dataclass(frozen=True, eq=False)
class Schema:
    """The schema of one kind of document.

    Args:
        kind: The format, without ``edgenas.``.
        version: The version that is written.
        upgrades: For each older version that is still read, the function that makes the next version's body.
    """

    kind: str
    version: int
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)

    def read(self, path: Path) -> dict[str, Any]:
        """Return the body of a document in today's version; raise FormatError as ``read_document``."""
        return read_document(path, self.kind, self.version, self.upgrades)

    def read_as(self, cls: type[T], path: Path) -> T:
        """Return the body of a document as a dataclass; raise FormatError where it is none, although it is intact."""
        try:
            return parse_dataclass(cls, dict(self.read(path)), str(path))
        except FormatError:
            raise
        except UsageError as error:
            raise FormatError(f"{error}; {REMEDY}") from None

    def write(self, path: Path, body: Mapping[str, Any]) -> None:
        """Write a document."""
        write_document(path, self.kind, self.version, body)


def write_document(path: Path, kind: str, version: int, body: Mapping[str, Any]) -> None:
    """Write a JSON document with header and checksum. Bodies of equal content and order give equal bytes."""
    header = {"format": f"edgenas.{kind}", "version": version, "sha256": sha256_hex(canonical_json_bytes(body))}
    write_bytes(path, (json.dumps({**header, **body}, indent=1, allow_nan=False) + "\n").encode())


def read_document(path: Path, kind: str, version: int, upgrades: Mapping[int, Upgrade] | None = None) -> dict[str, Any]:
    """Read what ``write_document`` wrote, without its header.

    Args:
        path: The file.
        kind: Its format, without ``edgenas.``.
        version: The schema version of the body that is returned.
        upgrades: For an older version, the function that makes the body of the next version from its body.

    Raises:
        FormatError: The file is damaged, of another kind, newer, or of an older version without an upgrade.
    """
    upgrades = upgrades or {}
    try:
        document = parse_json(read_bytes(path, MAX_DOCUMENT_BYTES), str(path))
    except (ValueError, RecursionError):
        raise FormatError(f"{path}: is damaged (not JSON); {REMEDY}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{path}: is not an edgenas file; {REMEDY}")
    found = parse_header_version(document, path, kind, version, oldest_version(version, upgrades))
    body = Body(path, {key: value for key, value in document.items() if key not in ("format", "version", "sha256")})
    try:
        intact = document.get("sha256") == sha256_hex(canonical_json_bytes(body))
    except ValueError:
        intact = False
    if not intact:
        raise FormatError(f"{path}: is damaged or was edited (its checksum does not match); {REMEDY}")
    for older in range(found, version):
        try:
            body = Body(path, upgrades[older](body))
        except (AttributeError, LookupError, TypeError, ValueError):
            raise FormatError(f"{path}: lacks what version {older} of edgenas.{kind} has; {REMEDY}") from None
    return body


class Body(dict[str, Any]):
    """The body of a file. A missing key raises FormatError, for it is the file's fault."""

    def __init__(self, path: Path, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise FormatError(f"{self._path}: has no {key!r}, another edgenas wrote it; {REMEDY}")


def parse_header_version(
    header: Mapping[str, Any], path: Path, kind: str, version: int, oldest: int | None = None
) -> int:
    """Return the schema version of a file's header.

    Raises:
        FormatError: The file is of another kind, newer than ``version``, or older than ``oldest``
            (by default ``version``).
    """
    if header.get("format") != f"edgenas.{kind}":
        given = reprlib.repr(header.get("format"))
        raise FormatError(f"{path}: expected format edgenas.{kind}, but it says {given}; {REMEDY}")
    found = header.get("version")
    if type(found) is not int or found > version:  # true is an int, too
        raise FormatError(
            f"{path}: has schema version {reprlib.repr(found)}, this edgenas reads up to {version};"
            " upgrade edgenas (pip install -U edgenas)"
        )
    if found < (version if oldest is None else oldest):
        raise FormatError(f"{path}: has schema version {found}, this edgenas reads {version}; {REMEDY}")
    return found


def oldest_version(version: int, upgrades: Mapping[int, Upgrade]) -> int:
    """Return the oldest version that upgrades lead from to ``version``."""
    while version - 1 in upgrades:
        version -= 1
    return version


def rename_keys(value: Any, names: Mapping[str, str]) -> Any:
    """Return plain data with keys renamed at any depth."""
    if isinstance(value, Mapping):
        return {names.get(key, key): rename_keys(part, names) for key, part in value.items()}
    return [rename_keys(part, names) for part in value] if isinstance(value, list) else value
