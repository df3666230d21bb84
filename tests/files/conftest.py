"""What the tests of files share."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

BODY: dict[str, Any] = {"name": "café", "count": 3, "rows": [[1, 2.5], []], "nested": {"none": None, "yes": True}}
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property test."""
    return tmp_path_factory.mktemp("files")


def flip(data: bytes, position: int, mask: int) -> bytes:
    damaged = bytearray(data)
    damaged[position % len(data)] ^= mask
    return bytes(damaged)


def assert_one_line(error: Exception) -> None:
    assert "\n" not in str(error)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value
