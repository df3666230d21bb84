"""Digests of bytes and of JSON values."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


def canonical_json_bytes(value: Any) -> bytes:
    """Return a JSON value as bytes that depend on its content alone: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of_inputs(*inputs: Any) -> str:
    """Return a digest of a step's inputs (JSON values): its result is current while this stays equal."""
    return sha256_hex(canonical_json_bytes(list(inputs)))[:16]
