"""Whether a step's result still belongs to its inputs."""

from __future__ import annotations

from typing import Any

from edgenas.files import canonical_json, digest


def digest_of_inputs(*inputs: Any) -> str:
    """A digest of a step's inputs (JSON values): its result is current while this is equal."""
    return digest(canonical_json(list(inputs)))[:16]
