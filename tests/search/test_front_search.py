"""What is common to all search strategies, with strategies of an installed package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgenas.costs import CostModel, Genes, Vector
from edgenas.errors import EdgeNASError, SpaceError, UsageError
from edgenas.search import Front, Problem, nondominated_mask, search_front
from edgenas.space import MobileNetV3
from tests.fixtures.installed_package import install_package

Models = tuple[CostModel, CostModel, CostModel]
Search = Callable[..., Front]

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "extend_edgenas.md"


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Problem) -> Search:
    """Search with a strategy of an installed package, whose function has this body."""

    def search_with(name: str, body: str, seed: int = 0, **options: object) -> Front:
        source = f"import numpy as np\ndef search(problem, evaluate, *, budget, seed, progress):\n{body}"
        points = {"edgenas.strategies": {name: f"strategy_{name}:search"}}
        install_package(tmp_path, monkeypatch, f"strategy-{name}", source, points)
        return search_front(problem, target="t", seed=seed, strategy=name, **options)  # type: ignore[arg-type]

    return search_with


def test_a_strategy_of_a_package_searches(search: Search, tiny: MobileNetV3, every: Genes, models: Models) -> None:
    """The strategy that the guide shows meets all 320 networks, finds the true front, and is named in it."""
    body = GUIDE.read_text().partition("def search_randomly(problem, evaluate, *, budget, seed, progress):\n")[2]
    seen: list[tuple[int, int]] = []
    options = {"evaluations": 10_002, "on_progress": lambda done, total: seen.append((done, total))}
    front = search("uniform", body.partition("```")[0], **options)
    accuracy, latency_ms, peak_bytes = models
    costs: Vector = np.column_stack([-accuracy(every), latency_ms(every), peak_bytes(every)])
    expected = every[nondominated_mask(costs)]
    assert {tuple(row) for row in front.genes.tolist()} == {tuple(row) for row in expected.tolist()}
    assert (np.diff(front.latency_ms) >= 0).all()
    assert (front.evaluations, front.strategy) == (tiny.size, "uniform")
    assert seen == [(done, 10_000) for done in range(100, 10_001, 100)]


def test_the_extremes_of_the_space_are_always_evaluated(search: Search, tiny: MobileNetV3) -> None:
    """A strategy that evaluates nothing leaves the smallest and the largest network."""
    front = search("idle", "    pass\n")
    assert front.evaluations == 2
    assert front.architectures() == [tiny.smallest, tiny.largest]


def test_a_network_counts_once(search: Search) -> None:
    """The same network twice, and again with the extremes, is one of two evaluations."""
    front = search("stubborn", "    evaluate(problem.space.encode([problem.space.smallest] * 3))\n")
    assert front.evaluations == 2
    assert len(np.unique(front.genes, axis=0)) == len(front)


def test_what_a_strategy_changes_afterwards_has_no_effect(search: Search, tiny: MobileNetV3) -> None:
    """Genes and costs that are overwritten after their evaluation are on record as they were."""
    body = "    genes = problem.first_genes\n    evaluate(genes).objectives[:] = 0\n    genes[:] = 0\n"
    front = search("overwriting", body)
    assert front.architectures() == [tiny.smallest, tiny.largest]
    assert front.latency_ms.min() > 0


@pytest.mark.parametrize(
    ("name", "genes", "broken_rule"),
    [
        ("one_row", "space.smallest.genes", r"genes must be integers of shape \(N, 9\) .* got int64 of shape \(9,\)"),
        ("narrow", "np.zeros((3, 2), int)", r"genes must be integers of shape \(N, 9\) .* got int64 of shape \(3, 2\)"),
        ("empty", "np.zeros((0, 9), int)", r"N of 1 or more, but got int64 of shape \(0, 9\)"),
        ("real", "np.zeros((1, 9))", r"genes must be integers .* got float64 of shape \(1, 9\)"),
        ("large", "space.encode([space.largest]) + 1", "gene resolution must be from 0 to 3, but got 4 in row 0"),
        ("negative", "-space.encode([space.largest])", "gene resolution must be from 0 to 3, but got -3 in row 0"),
        (
            "dead",
            "np.array([space.smallest.genes, [0, 0, 0, 0, 1, 0, 0, 0, 0]])",  # a kernel size of the skipped block
            "gene stage1.block2.kernel_size has no effect in row 1 and must be 0, but got 1; call space.canonical",
        ),
    ],
)
def test_genes_that_are_no_architecture_are_refused(search: Search, name: str, genes: str, broken_rule: str) -> None:
    """Genes of a wrong shape or type, out of range or not canonical end the search with one line."""
    with pytest.raises(SpaceError, match=f"search strategy '{name}': .*{broken_rule}") as caught:
        search(name, f"    space = problem.space\n    evaluate({genes})\n", evaluations=10)
    assert "\n" not in str(caught.value)


def test_a_strategy_must_keep_to_its_budget(search: Search) -> None:
    """More architectures than are left are refused."""
    body = "    evaluate(problem.space.sample_distinct(40, np.random.default_rng(0)))\n"
    message = "search strategy 'greedy': has 28 of 30 evaluations left, but asked for 38; it must keep to its budget"
    with pytest.raises(UsageError, match=message):
        search("greedy", body, evaluations=30)


def test_a_strategy_that_learns_nothing_ends(search: Search) -> None:
    """A strategy that asks for what it knows again and again is ended, with the number of its questions."""
    body = "    while True:\n        evaluate(problem.first_genes)\n"
    with pytest.raises(UsageError, match="'endless': asked for 1002 architectures, most of them evaluated before"):
        search("endless", body, evaluations=10)


def test_an_unexpected_error_of_a_strategy_names_it(search: Search) -> None:
    """What a strategy raises ends the search with a line that names the strategy; the cause is kept."""
    with pytest.raises(UsageError, match=r"search strategy .* failed \(ZeroDivisionError") as caught:
        search("failing", "    1 / 0\n")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_unknown_strategy_is_answered_with_those_there_are(problem: Problem) -> None:
    """A wrong name is refused on one line, with the nearest one."""
    with pytest.raises(EdgeNASError) as caught:
        search_front(problem, strategy="nsga")
    assert str(caught.value) == (
        "unknown search strategy 'nsga'; did you mean 'nsga2'? known: bayesian, nsga2, predictor_guided, random,"
        " regularized_evolution, reinforce"
    )


def test_a_negative_seed_is_refused(problem: Problem) -> None:
    """A seed that no generator takes is refused on one line."""
    with pytest.raises(UsageError, match="seed must be"):
        search_front(problem, seed=-1)
