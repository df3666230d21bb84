"""Where the predicted time of a subnet goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.devices import Target, load_profile
from edgenas.errors import RunError
from edgenas.pipeline import Run
from edgenas.pipeline.explain import OVERHEAD, explain
from edgenas.pipeline.progress import Silent
from edgenas.profilers import LatencyTable
from edgenas.profilers.latency.fit import fit_part_costs
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace
from edgenas.space.parts import macs

_SMALL = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_SPACES = (_SMALL, ProxylessNAS(resolutions=(32, 64)), ResNet50D(resolutions=(64,)))


def _published(space: SearchSpace, *, by_resolution: bool = False) -> LatencyTable:
    """A table that nobody measured: a part costs 10 µs and its work; at each resolution of its own by a tenth more."""
    costs = 0.01 + space.part_costs(macs) / 1e7
    if by_resolution:
        costs = costs * (1 + 0.1 * np.arange(len(space.resolutions)))[:, None]
    return LatencyTable(space, "made-up", 0.05, costs, MemoryModel.with_unit_costs(space), None, "", "a test")


@pytest.mark.parametrize("space", _SPACES, ids=lambda space: space.family)
@given(seed=st.integers(0, 10_000), by_resolution=st.booleans())
def test_parts_add_up_to_the_prediction(space: SearchSpace, seed: int, by_resolution: bool) -> None:
    """Of any subnet the rows' times, and their stages', make the table's latency, and the shares make 1."""
    table = _published(space, by_resolution=by_resolution)
    (architecture,) = space.decode(space.sample(1, np.random.default_rng(seed)))
    found = explain(table, architecture)
    expected = float(table.latency_ms(space.encode([architecture]))[0])
    assert found.latency_ms == expected
    assert sum(row.ms for row in found.rows) == pytest.approx(expected, rel=1e-12)
    assert sum(found.stages.values()) == pytest.approx(expected, rel=1e-12)
    assert sum(row.share for row in found.rows) == pytest.approx(1, rel=1e-12)
    assert [row.name for row in found.rows] == [*architecture.parts, OVERHEAD]


def test_stages_lie_between_stem_and_head() -> None:
    """What comes before the first stage is the stem, what comes after the last the head, overhead stands alone."""
    found = explain(_published(_SMALL), _SMALL.smallest)
    assert list(found.stages) == ["stem", *(f"stage{number}" for number in range(1, 6)), "head", OVERHEAD]
    stages = {row.name: row.stage for row in found.rows}
    assert (stages["stem"], stages["block0"], stages["stage2.block1"]) == ("stem", "stem", "stage2")
    assert (stages["final_expand"], stages["classifier"], stages[OVERHEAD]) == ("head", "head", OVERHEAD)


def test_rows_say_what_a_part_is() -> None:
    """Operator, kernel, stride, inner channels and gate, and the size of the output."""
    rows = {row.name: row for row in explain(_published(_SMALL), _SMALL.largest).rows}
    assert (rows["stem"].what, rows["stem"].out) == ("conv 3x3 /2", "16x16x8")
    assert rows["stage2.block1"].what == "mbconv 7x7 /2, 48 inside, SE"
    assert (rows["pool"].what, rows["pool"].out) == ("average pool", "1x1x336")
    assert (rows["classifier"].what, rows["classifier"].out) == ("linear", "1x1x10")
    rows = {row.name: row for row in explain(_published(_SPACES[2]), _SPACES[2].largest).rows}
    assert rows["stem.pool"].what == "max pool 3x3 /2"
    assert rows["stage1.block1"].what == "bottleneck 3x3, 88 inside"


def test_a_measured_table_has_an_interval() -> None:
    """The interval of the whole is the table's; a published table has none."""
    genes = _SMALL.sample_distinct(30, np.random.default_rng(0))
    latency = _published(_SMALL).latency_ms(genes)
    process = fit_part_costs(_SMALL, genes, latency)
    table = dataclasses.replace(_published(_SMALL), process=process, fitted_genes=genes)
    found = explain(table, _SMALL.smallest)
    assert found.interval_ms == tuple(table.interval_ms(_SMALL.encode([_SMALL.smallest]))[0])
    assert explain(_published(_SMALL), _SMALL.smallest).interval_ms is None


def test_a_run_explains_by_its_table(tmp_path: Path) -> None:
    """Run.explain takes the target's table, and says how to make one where there is none."""
    run = Run(tmp_path / "run", _SMALL, progress=Silent())
    target = Target(load_profile("localhost"), precision="int8")
    with pytest.raises(RunError, match=r"edgenas profile --run .* --device localhost --precision int8"):
        run.explain(target, _SMALL.smallest)
    _published(_SMALL).save(run.folder.table(target.name))
    assert run.explain(target, _SMALL.smallest) == explain(run.table(target), _SMALL.smallest)
