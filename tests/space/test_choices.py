"""Choices of a published space from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgenas.errors import UsageError
from edgenas.space.choices import parse_choices, read_choices


def test_the_choices_that_are_named(tmp_path: Path) -> None:
    """A file gives the choices that it names, and none of the others."""
    path = tmp_path / "choices.yaml"
    path.write_text("expand_ratios: [3, 6]\nresolutions: [224]\ndepths: null\n")
    assert read_choices(path) == {"expand_ratios": (3, 6), "resolutions": (224,)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[3, 4]", "choices must be a mapping"),
        (
            "{expand_ratio: [3]}",
            "unknown key 'expand_ratio'; did you mean 'expand_ratios'?"
            " known: depths, expand_ratios, kernel_sizes, resolutions, width_mults",
        ),
        ("{depths: deep}", "depths: input should be a valid tuple"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    """A list, an unknown key and a wrong type are refused, naming the file."""
    path = tmp_path / "choices.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_choices(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_choices_that_are_no_mapping() -> None:
    """Choices given in Python are refused by the name of the argument."""
    with pytest.raises(UsageError, match="choices: choices must be a mapping"):
        parse_choices([3], "choices")
