"""Selection of subnets: spread out, then the least certain; random ones are held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.costs import Genes
from edgenas.profilers.latency.acquisition import sample_spread_out, sample_unmeasured, select_subnets
from edgenas.profilers.latency.fit import fit_part_costs, part_count_matrix
from edgenas.space import MobileNetV3, Stage
from edgenas.space.parts import macs

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
# One stage of one block: 2 resolutions, 2 kernels, 3 ratios are 12 networks.
_SMALL = MobileNetV3(
    width=0.25,
    resolutions=(8, 16),
    classes=10,
    kernel_sizes=(3, 5),
    expand_ratios=(2, 3, 4),
    depths=(1,),
    stem_stride=1,
    stages=(Stage(32, 2, "relu", False),),
    head=(96, 128),
)
_NOTHING = np.empty((0, len(_SPACE.genes)), dtype=np.int64)


def _rows(genes: Genes) -> set[bytes]:
    return {row.tobytes() for row in genes}


@given(st.integers(0, 1000), st.integers(1, 60))
def test_selected_subnets_are_distinct_and_new(seed: int, count: int) -> None:
    """Without a fit: as many as asked for, distinct, none of the measured ones, all canonical."""
    measured = _SPACE.sample_distinct(30, np.random.default_rng(seed))
    chosen = select_subnets(_SPACE, None, measured, count, np.random.default_rng(seed + 1))
    assert len(_rows(chosen)) == len(chosen) == count
    assert not _rows(chosen) & _rows(measured)
    assert np.array_equal(_SPACE.canonical(chosen), chosen)


def test_spread_out_samples_reach_the_ends() -> None:
    """The range of MACs of 64, without the four at each end, exceeds that of 64 uniform ones."""
    work = _SPACE.part_costs(macs)
    rng = np.random.default_rng(0)
    spread = _SPACE.sum_over_parts(sample_spread_out(_SPACE, 64, rng), work)
    uniform = _SPACE.sum_over_parts(_SPACE.sample(64, rng), work)
    assert np.ptp(np.sort(spread)[4:-4]) > 1.3 * np.ptp(np.sort(uniform)[4:-4])


def test_the_least_certain_subnets_are_selected() -> None:
    """After measurements of one resolution, subnets of the others are selected."""
    genes = _SPACE.sample_distinct(90, np.random.default_rng(0))
    known = genes[genes[:, 0] == 0]
    latency = 0.05 + _SPACE.sum_over_parts(known, 0.01 + _SPACE.part_costs(macs) / 1e7)
    process = fit_part_costs(_SPACE, known, latency)
    chosen = select_subnets(_SPACE, process, known, 8, np.random.default_rng(1))
    candidates = _SPACE.sample(200, np.random.default_rng(2))
    assert process.predict_std(part_count_matrix(_SPACE, chosen[:1]))[0] > np.median(
        process.predict_std(part_count_matrix(_SPACE, candidates))
    )
    assert (chosen[:, 0] > 0).mean() > 0.7


def test_held_out_subnets_are_uniform() -> None:
    """They are the space's own random draws, in their order, without the measured ones."""
    drawn = _SPACE.sample(64, np.random.default_rng(5))
    held_out = sample_unmeasured(_SPACE, drawn[1:2], 4, np.random.default_rng(5))
    assert np.array_equal(held_out, drawn[[0, 2, 3, 4]])
    assert np.array_equal(sample_unmeasured(_SPACE, _NOTHING, 64, np.random.default_rng(5)), drawn)


@pytest.mark.parametrize("known", [4, 12])
def test_a_used_up_space_gives_the_rest(known: int) -> None:
    """All networks that are left of 12 are returned, without an endless search."""
    assert _SMALL.size == 12
    every = _SMALL.sample_distinct(12, np.random.default_rng(0))
    for found in (
        sample_unmeasured(_SMALL, every[:known], 20, np.random.default_rng(1)),
        select_subnets(_SMALL, None, every[:known], 20, np.random.default_rng(1)),
    ):
        assert _rows(found) == _rows(every[known:])
