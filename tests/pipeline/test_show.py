"""What a run knows of one architecture."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgenas.errors import RunError, SpaceError
from edgenas.pipeline import Run
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.show import show
from edgenas.space import MobileNetV3


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a latency table, evaluated subnets and a front."""
    with zipfile.ZipFile(Path(__file__).with_name("run_of_version_1.zip")) as archive:
        archive.extractall(tmp_path)
    return Run(tmp_path / "run", progress=Silent())


def test_the_costs_of_the_blocks_add_up(run: Run) -> None:
    """MACs and parameters of the blocks are those of the network; parts and overhead are its latency."""
    shown = show(run, "max")
    assert sum(block.macs for block in shown.blocks) == shown.macs
    assert sum(block.params for block in shown.blocks) == shown.params
    (latency,) = shown.latencies
    assert latency.overhead_ms + sum(latency.part_ms.values()) == pytest.approx(latency.latency_ms)
    assert list(latency.part_ms) == [block.name for block in shown.blocks]


def test_choices_are_those_of_the_architecture(run: Run) -> None:
    """Kernel sizes and expand ratios of the largest network are the largest of the space, in every stage's block."""
    assert isinstance(run.space, MobileNetV3)
    shown = show(run, run.space.largest.id)
    blocks = [block for block in shown.blocks if block.name.startswith("stage")]
    assert {block.kernel for block in blocks} == {run.space.kernel_sizes[-1]}
    ratios = {round(block.expand_ratio or 0) for block in blocks}
    assert ratios == {run.space.expand_ratios[-1]}
    assert shown.resolution == run.space.resolutions[-1]


def test_accuracy_has_its_uncertainty(run: Run) -> None:
    """With evaluated subnets the accuracy is predicted with a standard deviation; without, there is none."""
    shown = show(run, "min")
    assert shown.accuracy is not None
    assert shown.accuracy_std is not None
    assert 0 < shown.accuracy < 1
    assert shown.accuracy_std > 0
    empty = Run(run.folder.root.parent / "new", run.space, progress=Silent())
    shown = show(empty, "min")
    assert (shown.accuracy, shown.accuracy_std, shown.latencies) == (None, None, ())


def test_a_device_without_table_and_an_unknown_architecture_are_refused(run: Run) -> None:
    """A device that was named must have a table; an architecture must be of the space."""
    with pytest.raises(RunError, match="has no latency table of raspberry-pi-5"):
        show(run, "min", ["raspberry-pi-5"])
    with pytest.raises(SpaceError, match="is no architecture of this space"):
        show(run, "abc-000")
