"""Which subnets are measured next: spread out, then telling ones; random ones to judge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.costs import Genes
from edgenas.profilers.latency.acquisition import random_subnets, select_subnets, spread_out
from edgenas.profilers.latency.fit import count_parts, fit_parts
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
def test_chosen_subnets_are_distinct_and_new(seed: int, count: int) -> None:
    """While nothing is known as well: so many, none twice, none that was measured, all canonical."""
    measured = _SPACE.sample_distinct(30, np.random.default_rng(seed))
    chosen = select_subnets(_SPACE, None, measured, count, np.random.default_rng(seed + 1))
    assert len(_rows(chosen)) == len(chosen) == count
    assert not _rows(chosen) & _rows(measured)
    assert np.array_equal(_SPACE.canonical(chosen), chosen)


def test_spread_out_reaches_the_ends() -> None:
    """Of 64 the smallest and the largest work differ by more than of 64 uniform ones, beside the two extremes."""
    work = _SPACE.part_costs(macs)
    rng = np.random.default_rng(0)
    spread = _SPACE.sum_over_parts(spread_out(_SPACE, 64, rng), work)
    uniform = _SPACE.sum_over_parts(_SPACE.sample(64, rng), work)
    assert np.ptp(np.sort(spread)[4:-4]) > 1.3 * np.ptp(np.sort(uniform)[4:-4])


def test_the_least_certain_is_chosen() -> None:
    """With the measurements of one resolution known, what is measured next is of the others."""
    genes = _SPACE.sample_distinct(90, np.random.default_rng(0))
    known = genes[genes[:, 0] == 0]
    latency = 0.05 + _SPACE.sum_over_parts(known, 0.01 + _SPACE.part_costs(macs) / 1e7)
    process = fit_parts(_SPACE, known, latency)
    chosen = select_subnets(_SPACE, process, known, 8, np.random.default_rng(1))
    candidates = _SPACE.sample(200, np.random.default_rng(2))
    assert process.spread(count_parts(_SPACE, chosen[:1]))[0] > np.median(
        process.spread(count_parts(_SPACE, candidates))
    )
    assert (chosen[:, 0] > 0).mean() > 0.7


def test_judges_are_uniform() -> None:
    """They are the space's own random draws, in their order, without those that were measured."""
    drawn = _SPACE.sample(64, np.random.default_rng(5))
    judges = random_subnets(_SPACE, drawn[1:2], 4, np.random.default_rng(5))
    assert np.array_equal(judges, drawn[[0, 2, 3, 4]])
    assert np.array_equal(random_subnets(_SPACE, _NOTHING, 64, np.random.default_rng(5)), drawn)


@pytest.mark.parametrize("known", [4, 12])
def test_a_space_that_is_used_up_gives_what_is_left(known: int) -> None:
    """Of 12 networks, all that are left and nothing more; no search without end."""
    assert _SMALL.size == 12
    every = _SMALL.sample_distinct(12, np.random.default_rng(0))
    for found in (
        random_subnets(_SMALL, every[:known], 20, np.random.default_rng(1)),
        select_subnets(_SMALL, None, every[:known], 20, np.random.default_rng(1)),
    ):
        assert _rows(found) == _rows(every[known:])
