"""Arrays with a JSON body, as safetensors files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.errors import FormatError
from edgenas.files.digests import canonical_json_bytes
from edgenas.files.disk import read_bytes, write_bytes
from edgenas.files.documents import MAX_DOCUMENT_BYTES, REMEDY, Body, parse_header_version
from edgenas.files.plain_data import parse_json

if TYPE_CHECKING:
    import numpy as np


def write_tensors(
    path: Path, kind: str, version: int, tensors: Mapping[str, np.ndarray], body: Mapping[str, Any]
) -> None:
    """Write arrays and a JSON body as one safetensors file. Equal content gives equal bytes."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(tensors.items())}
    header = {
        "format": f"edgenas.{kind}",
        "version": version,
        "sha256": _digest_tensors(arrays, body),
        "body": dict(body),
    }
    # A single metadata key, because safetensors writes several in random order.
    write_bytes(path, save(arrays, metadata={"edgenas": canonical_json_bytes(header).decode()}))


def read_tensors_and_body(path: Path, kind: str, version: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the body that ``write_tensors`` wrote.

    Raises FormatError when the file is damaged, of another kind, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = read_bytes(path)
    try:
        size = int.from_bytes(data[:8], "little")
        names = parse_json(data[8 : 8 + min(size, MAX_DOCUMENT_BYTES)], str(path))
        header = dict(parse_json(names["__metadata__"]["edgenas"].encode(), str(path)))
        arrays, body = load(data), dict(header["body"])
        digest = _digest_tensors(arrays, body)
    except (SafetensorError, AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError):
        raise FormatError(f"{path}: is damaged or no edgenas file (its header cannot be read); {REMEDY}") from None
    parse_header_version(header, path, kind, version)
    if header.get("sha256") != digest:
        raise FormatError(f"{path}: is damaged (its checksum does not match); {REMEDY}")
    return arrays, Body(path, body)


def _digest_tensors(arrays: Mapping[str, np.ndarray], body: Mapping[str, Any]) -> str:
    hasher = hashlib.sha256(canonical_json_bytes(body))
    for name, array in sorted(arrays.items()):
        hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(array.tobytes())
    return hasher.hexdigest()
