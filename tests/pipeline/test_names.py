"""Architectures by the names that users give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgenas.errors import UsageError
from edgenas.pipeline.names import read_architecture
from edgenas.space import MobileNetV3

_SPACE = MobileNetV3(width=0.25, resolutions=(128, 160))
_LISTS = {"ks": [5] * 20, "e": [4] * 20, "d": [3] * 5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file that a test writes an architecture to."""
    return tmp_path / "arch.json"


@pytest.mark.parametrize("resolution", [{"image_size": 128}, {"image_size": [128]}, {"r": [128]}])
def test_a_file_of_printed_lists(path: Path, resolution: dict[str, object]) -> None:
    """A file of what Once-for-All's implementation prints names an architecture."""
    path.write_text(str({**_LISTS, **resolution}))
    assert read_architecture(_SPACE, str(path)) == _SPACE.from_ofa(_LISTS, 128)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{'ks': [3], 'd': [2], 'image_size': 128}", "key 'e' is missing; known: d, e, image_size, ks, r"),
        ("{'ks': [3], 'image_size': 128}", "is missing; known: d, e, image_size, ks, r"),
        ("{'kernels': [3], 'e': [3], 'd': [2]}", "unknown key 'kernels'; known: d, e, image_size, ks, r"),
        ("{'stages': []}", "key 'resolution' is missing; known: id, resolution, stages"),
        ("{'resolution': 128, 'stage': []}", "unknown key 'stage'; did you mean 'stages'? known: id, resolution, sta"),
        ("[3, 5]", "'ks', 'e', 'd' (ResNet: 'd', 'e', 'w') and 'image_size' or 'r'"),
    ],
)
def test_keys_that_do_not_fit(path: Path, text: str, message: str) -> None:
    """Unknown and missing keys are answered with all keys of the form that the file has."""
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_architecture(_SPACE, str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
