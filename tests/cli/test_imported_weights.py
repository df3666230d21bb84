"""Imported weights on the command line: what status says, and the data set that they are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.pipeline.import_weights import import_weights
from edgenas.pipeline.progress import Silent

Call = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def run(released: Write, tmp_path: Path) -> Path:
    """A run of a checkpoint of four classes, at a single small resolution."""
    return import_weights(tmp_path / "run", str(released()), {"resolutions": [32]}, progress=Silent()).folder.root


def test_status_asks_for_a_data_set(call: Call, run: Path) -> None:
    """Nothing was trained, and evaluate is refused without images."""
    assert call("status", "--run", run)[1] == f"{run}: imported\nnext: edgenas evaluate --run {run} --data FOLDER\n"
    assert json.loads(call("status", "--run", run, "--json")[1])["state"] == "imported"


def test_bad_images_are_left_out_with_the_flag(call: Call, run: Path, photos: Path) -> None:
    """Without it they are refused and nothing is bound; with it a line names them, and status asks for no more.

    Random weights guess, which the last line but one says.
    """
    (photos / "a" / "03.png").write_text("no image")
    command = ("evaluate", "--run", run, "--subnets", 10)
    code, _, err = call(*command, "--data", photos)
    assert code == 2
    assert err.endswith("remove or replace them, or leave them out with --skip-bad\n")
    assert call(*command, "--skip-bad") == (2, "", "edgenas: --skip-bad is for --data FOLDER; give both\n")
    code, out, err = call(*command, "--data", photos, "--skip-bad")
    assert code == 0, err
    assert "no better than guessing (25.0%): are the folders, sorted by name, in the order of the weights'" in out
    assert "longer training" not in out
    assert "evaluate  1 of 120 images cannot be read: a/03.png (" in err
    assert call("status", "--run", run)[1] == f"{run}: imported\n"
