"""Schedules: sampling of open choices, learning rates, and refused values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import UsageError
from edgenas.ofa import SCHEDULES, Phase, Schedule, load_schedule
from edgenas.space import MobileNetV3, ResNet50D

_FULL = {"name": "full", "epochs": 4, "learning_rate": 0.1, "distill": False}
_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)


@given(
    kernel_sizes=st.integers(1, 3),
    depths=st.integers(1, 3),
    expand_ratios=st.integers(1, 4),
    subnets=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_a_phase_samples_only_what_is_open(
    kernel_sizes: int, depths: int, expand_ratios: int, subnets: int, seed: int
) -> None:
    """Live genes have one of the open largest values; rows are canonical and share a resolution."""
    phase = Phase("any", 1, 0.1, kernel_sizes, depths, expand_ratios, subnets=subnets)
    genes = phase.sample(_SPACE, np.random.default_rng(seed))
    opened = {"kernel_size": kernel_sizes, "depth": depths, "expand_ratio": expand_ratios, "resolution": 3}
    lowest = np.array([max(0, len(gene.values) - opened[gene.kind]) for gene in _SPACE.genes])
    assert genes.shape == (subnets, len(_SPACE.genes))
    assert (genes < _SPACE.radices).all()
    assert (_SPACE.dead_genes(genes) | (genes >= lowest)).all()
    assert np.array_equal(_SPACE.canonical(genes), genes)
    assert len(set(genes[:, 0].tolist())) == 1


def test_a_phase_reaches_all_that_is_open() -> None:
    """Over many samples every open value of every gene occurs, and every resolution."""
    phase = Phase("all", 1, 0.1, 2, 2, 2, subnets=4)
    rng = np.random.default_rng(0)
    genes = np.concatenate([phase.sample(_SPACE, rng) for _ in range(100)])
    live = ~_SPACE.dead_genes(genes)
    for column, gene in enumerate(_SPACE.genes):
        expected = {0, 1, 2} if gene.kind == "resolution" else {1, 2}
        assert set(genes[live[:, column], column].tolist()) == expected, gene.name


def test_the_first_phase_trains_the_largest_network() -> None:
    """With nothing open every gene but the resolution is at its largest."""
    genes = Phase("full", 1, 0.1, distill=False).sample(_SPACE, np.random.default_rng(0))
    assert np.array_equal(genes[0, 1:], np.array(_SPACE.largest.genes[1:]))


def test_a_sandwich_begins_with_the_largest_and_the_smallest_that_are_open() -> None:
    """With the two largest kernels open, the smallest has the middle one everywhere; two random ones follow."""
    phase = Phase("all", 1, 0.1, 2, 3, 3, subnets=4, sandwich=True, distill="in-place")
    rng = np.random.default_rng(0)
    steps = [phase.sample(_SPACE, rng) for _ in range(20)]
    smallest = _SPACE.canonical(phase.lowest_genes(_SPACE)[None])[0]
    for genes in steps:
        assert np.array_equal(genes[0, 1:], np.array(_SPACE.largest.genes[1:]))
        assert np.array_equal(genes[1, 1:], smallest[1:])
        assert len(set(genes[:, 0].tolist())) == 1
    kernels = [column for column, gene in enumerate(_SPACE.genes) if gene.kind == "kernel_size"]
    live = ~_SPACE.dead_genes(steps[0][1:2])[0, kernels]
    assert (smallest[kernels][live] == 1).all()
    assert len({tuple(genes[2].tolist()) for genes in steps}) > 15


def test_open_parts_are_those_of_the_open_choices() -> None:
    """With the two largest expand ratios open, a block has 4 or 6 times its input's channels inside, never 3."""
    opened = Phase("any", 1, 0.1, 1, 1, 2).open_parts(_SPACE)
    widths = {part.graph.layers[0].shape[0] for part in opened["stage1.block2"]}
    channels = opened["stage1.block2"][0].in_shape[0]
    assert widths == {4 * channels, 6 * channels}


def test_the_most_steps_cut_each_phase() -> None:
    """Three epochs of ten steps are 30, or at most as many as the schedule allows; short phases stay whole."""
    phase = Phase("full", 3, 0.1, distill=False)
    counts = [Schedule("s", (phase,), max_steps=most).count_steps(phase, 10) for most in (None, 7, 100)]
    assert counts == [30, 7, 30]


def test_the_cost_of_an_image_counts_subnets_and_the_teacher() -> None:
    """Four subnets cost four; a teacher, which is run forwards only, a third more; in-place distillation nothing."""
    assert Phase("a", 1, 0.1, subnets=4, distill=False).cost == 4
    assert Phase("a", 1, 0.1, subnets=4).cost == pytest.approx(4 + 1 / 3)
    assert Phase("a", 1, 0.1, subnets=4, sandwich=True, distill="in-place").cost == 4


def test_rates_warm_up_and_fall_to_zero_as_a_cosine() -> None:
    """One warm-up epoch of four: 1/2, then full, 3/4 of the way down the cosine in six steps."""
    phase = Phase("full", 4, 0.8, warmup_epochs=1, distill=False)
    rates = [phase.rate(step, total=8) for step in range(8)]
    # warm-up 0.8 * 1/2 and 0.8 * 2/2; then 0.4 * (1 + cos(pi k / 6)), k = 0 to 5
    assert rates == pytest.approx([0.4, 0.8, 0.8, 0.746410, 0.6, 0.4, 0.2, 0.053590], abs=1e-6)


def test_a_phase_may_be_all_warm_up() -> None:
    """With as many warm-up epochs as epochs the rate only rises."""
    phase = Phase("full", 1, 1.0, warmup_epochs=1, distill=False)
    assert [phase.rate(step, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_named_schedule_opens_the_whole_space_step_by_step(name: str) -> None:
    """Each phase opens at least what the one before it did, and the last opens everything."""
    schedule = load_schedule(name)
    opened = [(phase.kernel_sizes, phase.depths, phase.expand_ratios) for phase in schedule.phases]
    assert opened[0] == ((1, 1, 1) if name.startswith("shrink") else (3, 3, 3))
    assert opened[-1] == (3, 3, 3)
    assert (np.diff(np.array(opened), axis=0) >= 0).all()


def test_a_schedule_is_equal_after_a_way_through_json() -> None:
    """Plain data of a schedule, through JSON, makes the same schedule and the same plain data."""
    schedule = SCHEDULES["shrink-small"]
    data = json.loads(json.dumps(schedule.to_dict()))
    assert load_schedule(data) == schedule
    assert data == schedule.to_dict()


def test_an_unknown_schedule_lists_the_known() -> None:
    """An unknown name is refused, naming the nearest known one."""
    with pytest.raises(UsageError, match=r"unknown schedule 'shrink-smal'; did you mean 'shrink-small'\?"):
        load_schedule("shrink-smal")


def _config(**changes: Any) -> dict[str, Any]:
    return {"name": "own", "phases": [_FULL], **changes}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_config(batchsize=32), "unknown key 'batchsize'; did you mean 'batch_size'?"),
        (_config(phases=[{**_FULL, "kernel_size": 2}]), "kernel_size'; did you mean 'kernel_sizes'?"),
        (_config(phases=[{**_FULL, "learning_rate": 1e300}]), "must be above 0 and at most 100, but got 1e+300"),
        (_config(phases=[{**_FULL, "epochs": True}]), "epochs: input should be a valid integer, but got True"),
        (_config(phases=[]), "schedule own: must have a phase"),
        (_config(phases=[{**_FULL, "epochs": 0}]), "phase full: epochs must be above 0 and at most 100000, but got 0"),
        (_config(phases=[{**_FULL, "learning_rate": float("nan")}]), "learning_rate must be above 0 and at most 100"),
        (_config(phases=[{**_FULL, "learning_rate": float("inf")}]), "learning_rate must be above 0 and at most 100"),
        (_config(phases=[{**_FULL, "subnets": -1}]), "subnets must be above 0 and at most 1000, but got -1"),
        (_config(phases=[{**_FULL, "warmup_epochs": 5}]), "0 <= warmup_epochs <= epochs must hold, but got 5 and 4"),
        (_config(phases=[{**_FULL, "epochs": "many"}]), "phases.0.epochs"),
        (_config(batch_size=1), "batch_size must be at least 2 and at most 100000, but got 1"),
        (_config(momentum=0), "0 < momentum < 1 must hold, but got 0"),
        (_config(weight_decay=-1e-5), "weight_decay must be from 0 to 1, but got -1e-05"),
        (_config(label_smoothing=1), "0 <= label_smoothing < 1 must hold, but got 1"),
        (_config(clip_norm=0), "clip_norm must be above 0, but got 0"),
        (_config(ema_decay=1), "0 < ema_decay < 1 must hold, but got 1"),
        (_config(max_steps=0), "max_steps must be from 1 to 1000000000, but got 0"),
        (_config(phases=[{**_FULL, "sandwich": True}]), "with sandwich, subnets must be at least 2, but got 1"),
        (_config(phases=[{**_FULL, "distill": "in-place"}]), "distill: in-place needs sandwich: true"),
        (_config(phases=[{**_FULL, "distill": "inplace"}]), "phases.0.distill"),
    ],
)
def test_a_wrong_schedule_is_refused_on_one_line(config: dict[str, Any], message: str) -> None:
    """Unknown keys and impossible values are named, with the file they stand in."""
    with pytest.raises(UsageError) as caught:
        load_schedule(config, "train.yaml")
    assert str(caught.value).startswith("train.yaml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_widths_stay_closed_until_a_phase_opens_them() -> None:
    """A space with widths to choose from trains the widest alone, and all of them when a phase says so."""
    space = ResNet50D(resolutions=(32,), classes=10, width_mults=(0.1, 0.5, 1.0))
    widths = [column for column, gene in enumerate(space.genes) if gene.kind == "width"]
    rng = np.random.default_rng(0)
    closed = Phase("full", 1, 0.1, subnets=50, distill=False).sample(space, rng)[:, widths]
    opened = Phase("all", 1, 0.1, widths=3, subnets=50).sample(space, rng)[:, widths]
    assert (closed == space.radices[widths] - 1).all()
    assert set(opened[:, -1].tolist()) == {0, 1, 2}
