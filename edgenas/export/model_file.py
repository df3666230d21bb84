"""A model file in memory that is read once."""

from __future__ import annotations

from functools import cached_property
from typing import Self


class ModelFile(bytes):
    """The bytes of a model file, which keep what was read of them: a parsed graph, a session; abstract.

    A subclass reads ``plain`` in cached properties, so that whoever is handed
    the file reads nothing twice. All share what it keeps, and nobody changes it;
    one thread at a time, because sessions are kept too.
    A file of a file is itself, as ``bytes`` of bytes are.
    """

    def __new__(cls, model: bytes) -> Self:
        return model if isinstance(model, cls) else super().__new__(cls, model)

    def __reduce__(self) -> tuple[type[Self], tuple[bytes]]:
        """Send another process the bytes alone."""
        return type(self), (self.plain,)

    @cached_property
    def plain(self) -> bytes:
        """A copy without what is kept: sessions hold the bytes that they were made of, and a cycle is freed late."""
        return bytes(self)
