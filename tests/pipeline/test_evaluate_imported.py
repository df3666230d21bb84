"""Imported weights that are given a data set: evaluated, searched and exported without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.data import load_data
from edgenas.errors import RunError, UsageError
from edgenas.pipeline import Run
from edgenas.pipeline.import_weights import import_weights
from edgenas.pipeline.progress import Silent
from edgenas.runtimes import ExportFormat

Write = Callable[..., Path]


@pytest.fixture
def imported(released: Write, tmp_path: Path) -> Run:
    """A run of a checkpoint of four classes, at a single small resolution."""
    return import_weights(tmp_path / "run", str(released()), {"resolutions": [32]}, progress=Silent())


def test_a_folder_of_its_classes_makes_it_a_run_with_data(imported: Run, photos: Path, tmp_path: Path) -> None:
    """Subnets are evaluated; a later process has the same images; int8 is calibrated and tested on them."""
    with pytest.raises(RunError, match=r"give it one \(.*evaluate --run .* --data FOLDER\)"):
        imported.evaluate(10)
    assert len(imported.evaluate(10, data=str(photos)).genes) == 10
    again = Run(imported.folder.root, progress=Silent())
    assert again.workspace.has_data
    assert again.workspace.data.labels == ("a", "b", "c", "d")
    (bundle,) = again.export_all(
        again.space.smallest, again.target("localhost"), tmp_path / "ship", [ExportFormat("onnx", "fp32")]
    )
    recipe = again.workspace.recipe
    assert bundle.card["origin"] == {"imported": "net.pth", "sha256": recipe["sha256"]}
    assert f'| origin | {{"imported": "net.pth", "sha256": "{recipe["sha256"]}"}} |' in (
        (bundle.bundle.path / "README.md").read_text()
    )
    assert bundle.card["images"] == {"train": 96, "validation": 12, "test": 12}
    assert 0 <= bundle.card["accuracy"]["test"] <= 1
    assert json.loads((imported.folder.root / "data.json").read_text())["labels"] == ["a", "b", "c", "d"]


def test_a_subnet_of_it_is_fine_tuned_with_the_data(imported: Run, photos: Path) -> None:
    """Its largest network teaches, in batches of 64 as imported weights have no schedule of their own."""
    imported.evaluate(10, data=str(photos))
    subnet = imported.finetune(imported.space.smallest, max_steps=2)
    assert (subnet.images, subnet.validation_images) == (128, 12)
    assert subnet.teacher == imported.space.largest.id
    assert imported.finetuned() == [subnet]


@pytest.mark.parametrize(("subnets", "device"), [(9, "cpu"), (10, "tpu")])
def test_a_call_that_is_refused_gives_no_data_set(subnets: int, device: str, imported: Run, photos: Path) -> None:
    """A wrong number of subnets or device leaves the run free for another data set."""
    with pytest.raises(UsageError, match="must be"):
        imported.evaluate(subnets, device, str(photos))
    assert not imported.workspace.has_data
    assert not imported.folder.data.exists()


def test_what_cannot_be_given(imported: Run, photos: Path, finished: Path) -> None:
    """Other classes than the weights', another data set than before, and any to a run that was trained here."""
    with pytest.raises(UsageError, match=r"has 10 classes, the weights have 4; .*--from \S+ --run NEW\)"):
        imported.evaluate(10, data=load_data("digits"))
    imported.evaluate(10, data=str(photos))
    (photos / "a" / "00.png").unlink()
    with pytest.raises(RunError, match="has another data set already"):
        imported.evaluate(10, data=str(photos))
    with pytest.raises(UsageError, match="was trained on its own data set"):
        Run(finished, progress=Silent()).evaluate(10, data=str(photos))
