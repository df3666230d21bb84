"""A model file in memory that is read once."""

from __future__ import annotations

from typing import Self


class ModelFile(bytes):
    """The bytes of a model file, which keep what was read of them: a parsed graph, a session; abstract.

    A subclass reads it in cached properties, so that whoever is handed the file
    reads nothing twice. All of them share what it keeps, and none changes it. A
    file of a file is itself, as ``bytes`` of bytes are.
    """

    def __new__(cls, model: bytes) -> Self:
        return model if isinstance(model, cls) else super().__new__(cls, model)
