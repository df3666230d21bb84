"""NSGA-II on spaces that are small enough to list."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgenas.costs import CostModel, Genes, Vector
from edgenas.search import Front, Problem, nondominated_mask, search_front
from edgenas.search.evaluator import Evaluator
from edgenas.search.strategies import Strategy, nsga2
from edgenas.space import MobileNetV3

Models = tuple[CostModel, CostModel, CostModel]


@pytest.fixture(scope="module")
def front(problem: Problem) -> Front:
    """The front of the tiny space."""
    return search_front(problem, evaluations=5000)


def _costs(genes: Genes, models: Models) -> Vector:
    accuracy, latency_ms, peak_bytes = models
    return np.column_stack([-accuracy(genes), latency_ms(genes), peak_bytes(genes)])


def test_the_front_of_a_small_space_is_the_true_one(front: Front, every: Genes, models: Models) -> None:
    """All nondominated networks of the space are found, and nothing else."""
    expected = every[nondominated_mask(_costs(every, models))]
    assert {tuple(row) for row in front.genes.tolist()} == {tuple(row) for row in expected.tolist()}
    assert 10 < len(front) < len(every)


def test_values_are_those_of_the_models(front: Front, models: Models) -> None:
    """Each row's accuracy, latency and memory are what the models say of its genes."""
    np.testing.assert_array_equal(
        np.column_stack([-front.accuracy, front.latency_ms, front.peak_bytes]), _costs(front.genes, models)
    )


def test_rows_are_canonical_distinct_and_by_latency(front: Front, tiny: MobileNetV3) -> None:
    """No network occurs twice, no gene is dead and set, latency ascends."""
    assert np.array_equal(tiny.canonical(front.genes), front.genes)
    assert len(np.unique(front.genes, axis=0)) == len(front)
    assert (np.diff(front.latency_ms) >= 0).all()
    assert front.evaluations <= tiny.size


def test_a_search_in_a_large_space_is_sound() -> None:
    """In a space of 10^19 networks no row of the front is dominated, and the extremes of the space are in reach."""
    space = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)

    def accuracy(genes: Genes) -> Vector:
        return np.log(space.macs(genes))

    costs = {"accuracy": accuracy, "latency_ms": space.params, "peak_bytes": space.activation_bytes}
    front = search_front(Problem(space, costs, tuple(costs)), evaluations=10_000)
    assert nondominated_mask(np.column_stack([-front.accuracy, front.latency_ms, front.peak_bytes])).all()
    assert np.array_equal(space.canonical(front.genes), front.genes)
    smallest = space.encode([space.smallest])
    assert front.latency_ms.min() == space.params(smallest)[0]


def test_a_seed_gives_one_front(front: Front, problem: Problem) -> None:
    """The same seed gives the same bits; numpy's global generator has no say and is left alone."""
    np.random.seed(7)
    before = np.random.get_state(legacy=False)["state"]["key"]
    again = search_front(problem, evaluations=5000)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)
    assert np.array_equal(again.genes, front.genes)
    assert np.array_equal(again.accuracy, front.accuracy)
    assert again.evaluations == front.evaluations


def test_progress_reaches_its_end() -> None:
    """Evaluations are reported as they grow, the last as the last of all."""
    seen: list[tuple[int, int]] = []
    space = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
    problem = Problem(space, {"macs": space.macs, "params": space.params}, ("macs", "params"), maximised=["macs"])
    search_front(problem, evaluations=1000, on_progress=lambda done, total: seen.append((done, total)))
    done = [count for count, _ in seen]
    assert done == sorted(set(done))
    assert seen[-1] == (998, 998)  # the smallest and the largest came before


@pytest.mark.parametrize("resolutions", [(16,), (16, 20)])
def test_a_space_smaller_than_the_population_is_searched_whole(
    resolutions: tuple[int, ...], tiny: MobileNetV3, models: Models
) -> None:
    """A space with fewer networks than a population holds is evaluated completely, and the search ends."""
    space = dataclasses.replace(
        tiny, resolutions=resolutions, kernel_sizes=(3,), expand_ratios=(3,), depths=(1,), stages=tiny.stages[:1]
    )

    def accuracy(genes: Genes) -> Vector:
        return space.macs(genes)

    costs = {"accuracy": accuracy, "latency_ms": space.macs, "peak_bytes": space.activation_bytes}
    front = search_front(Problem(space, costs, tuple(costs)))
    assert front.evaluations == space.size == len(resolutions)
    assert len(front) == len(resolutions)


def test_it_evaluates_at_most_its_budget(problem: Problem) -> None:
    """With a budget of 150 it asks for no more rows, and for each of them once."""
    evaluate = Evaluator(problem, 150, "nsga2")
    search: Strategy = nsga2.search
    search(problem, evaluate, budget=150, seed=0, progress=lambda done, total: None)
    assert len(evaluate.genes) == 150
    assert evaluate.left == 0


def test_limits_are_kept_and_the_front_within_them_is_the_true_one(
    problem: Problem, every: Genes, models: Models
) -> None:
    """With limits of latency and accuracy the front is that of the networks that keep both."""
    costs = _costs(every, models)
    kept = (costs[:, 1] <= 0.25) & (-costs[:, 0] >= 0.79)
    expected = every[kept][nondominated_mask(costs[kept])]
    limited = dataclasses.replace(problem, limits={"latency_ms": "0.25ms", "accuracy": "79%"})
    front = search_front(limited, evaluations=5000)
    assert {tuple(row) for row in front.genes.tolist()} == {tuple(row) for row in expected.tolist()}
    assert 0 < kept.sum() < len(every)
