"""What holds for every strategy that edgenas brings, and what is particular to each."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from edgenas.costs import CostModel, Genes, Vector
from edgenas.errors import MissingExtraError
from edgenas.registry import STRATEGIES
from edgenas.search import Costs, Problem, hypervolume, nondominated_mask, search_front
from edgenas.search.evaluator import Evaluator
from edgenas.search.strategies.neighbours import all_neighbours, draw_neighbours, mutate
from edgenas.search.strategies.reinforce import log_rewards
from edgenas.search.strategies.scalar import weighted_costs
from edgenas.search.strategies.surrogate import Surrogate
from edgenas.space import MobileNetV3

Models = tuple[CostModel, CostModel, CostModel]
NAMES = ("nsga2", "random", "regularized_evolution", "reinforce", "predictor_guided", "bayesian")
SMALL = {"bayesian": 40}  # evaluations; its own time is seconds for hundreds


@pytest.fixture(scope="module")
def two(problem: Problem) -> Problem:
    """Accuracy against latency, of which the accuracy has to be measured."""
    return dataclasses.replace(problem, objectives=("accuracy", "latency_ms"), real=["accuracy"])


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    """A test of Bayesian optimisation is skipped where its library is not installed."""
    if "bayesian" in request.node.name:
        pytest.importorskip("optuna", reason="the extra bayesian is not installed")


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_keeps_to_its_budget_and_repeats_itself(two: Problem, name: str) -> None:
    """It evaluates at most what it may, each architecture once, and the same ones for the same seed."""
    count, seen = SMALL.get(name, 80), []
    for _ in range(2):
        evaluate = Evaluator(two, count, name)
        evaluate(two.first_genes)
        reported: list[int] = []
        progress = lambda done, total, reported=reported: reported.append(done)  # noqa: E731
        STRATEGIES.load(name)(two, evaluate, budget=evaluate.left, seed=3, progress=progress)
        seen.append(evaluate.genes.copy())
        assert reported == sorted(reported)
        assert 0 < reported[-1] <= count - 2
    assert 20 < len(seen[0]) <= count
    assert len(np.unique(seen[0], axis=0)) == len(seen[0])
    assert np.array_equal(seen[0], seen[1])


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_evaluates_others(two: Problem, name: str) -> None:
    """The seed decides what is evaluated; numpy's global generator has no say and is left alone."""
    np.random.seed(5)
    before = np.random.get_state(legacy=False)["state"]["key"]
    genes = []
    for seed in (0, 1):
        evaluate = Evaluator(two, SMALL.get(name, 60), name)
        STRATEGIES.load(name)(two, evaluate, budget=evaluate.left, seed=seed, progress=lambda done, total: None)
        genes.append({tuple(row) for row in evaluate.genes.tolist()})
    assert genes[0] != genes[1]
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_is_kept(two: Problem, every: Genes, name: str) -> None:
    """Within a limit of latency every strategy finds architectures, and none that breaks it is on the front."""
    limit = float(np.median(two.evaluate(every)[:, 1]))
    limited = dataclasses.replace(two, limits={"latency_ms": limit})
    front = search_front(limited, strategy=name, evaluations=SMALL.get(name, 80))
    assert len(front) > 1
    assert front.latency_ms.max() <= limit


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=pytest.mark.slow) if each in SMALL else each for each in NAMES if each != "random"],
)
def test_it_beats_random_search(name: str) -> None:
    """In a space of 10^19 networks each comes nearer to the front than random search with as many evaluations."""
    space = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
    weights = np.random.default_rng(1).uniform(0, 0.02, len(space.genes))

    def accuracy(genes: Genes) -> Vector:
        quality: Vector = (genes / np.maximum(space.radices - 1, 1)) @ weights
        return 0.4 + quality

    problem = Problem(
        space, {"accuracy": accuracy, "latency_ms": space.macs}, ("accuracy", "latency_ms"), real=["accuracy"]
    )
    ends = problem.costs_of(problem.evaluate(problem.first_genes)).objectives
    shares = {}
    for strategy in (name, "random"):
        evaluate = Evaluator(problem, 150, strategy)
        evaluate(problem.first_genes)
        STRATEGIES.load(strategy)(problem, evaluate, budget=148, seed=0, progress=lambda done, total: None)
        shares[strategy] = hypervolume(evaluate.costs.objectives, ends.min(axis=0), ends.max(axis=0))
    assert shares[name] > shares["random"]


def test_predictors_halve_the_evaluations() -> None:
    """With half of the evaluations, predictor-guided iteration has more hypervolume than NSGA-II."""
    space = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
    weights = np.random.default_rng(2).uniform(0, 0.02, len(space.genes))

    def accuracy(genes: Genes) -> Vector:
        quality: Vector = np.sqrt(genes / np.maximum(space.radices - 1, 1)) @ weights
        return 0.4 + quality

    costs = {"accuracy": accuracy, "latency_ms": space.macs}
    problem = Problem(space, costs, tuple(costs), real=tuple(costs))
    ends = problem.costs_of(problem.evaluate(problem.first_genes)).objectives
    shares = []
    for strategy, count in (("predictor_guided", 100), ("nsga2", 200)):
        evaluate = Evaluator(problem, count, strategy)
        evaluate(problem.first_genes)
        STRATEGIES.load(strategy)(problem, evaluate, budget=count - 2, seed=0, progress=lambda done, total: None)
        shares.append(hypervolume(evaluate.costs.objectives, ends.min(axis=0), ends.max(axis=0)))
    assert shares[0] > shares[1]


def test_bayesian_optimisation_names_its_package(two: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Optuna, one line says what to install."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"needs Optuna, .*pip install 'edgenas\[bayesian\]'"):
        search_front(two, strategy="bayesian", evaluations=10)


@pytest.mark.parametrize("name", ["predictor_guided", "bayesian"])
def test_no_strategy_needs_torch(name: str) -> None:
    """Strategies with predictors run where torch is not installed."""
    source = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgenas.search import Problem, search_front\n"
        "from edgenas.space import MobileNetV3\n"
        "space = MobileNetV3(width=0.5)\n"
        "problem = Problem(space, {'macs': space.macs, 'params': space.params}, ('macs', 'params'), real=['macs'])\n"
        f"print(len(search_front(problem, strategy={name!r}, evaluations=15)))\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1


def test_rewards_are_those_of_mnasnet() -> None:
    """Within its target an accuracy is its own reward, at twice the target half of it; a cost's is its inverse."""
    objectives = np.array([[-0.8, 10.0], [-0.8, 20.0], [-0.4, 5.0]])
    rewards = np.exp(log_rewards(Costs(objectives, np.zeros(3)), np.array([10.0])))
    np.testing.assert_allclose(rewards, [0.8, 0.4, 0.4])
    broken = np.exp(log_rewards(Costs(objectives[:1], np.array([1.0])), np.array([10.0])))
    np.testing.assert_allclose(broken, [0.4])
    np.testing.assert_allclose(np.exp(log_rewards(Costs(np.array([[2.0]]), np.zeros(1)), np.empty(0))), [0.5])


def test_weights_ask_for_places_of_the_front() -> None:
    """Weight on one objective prefers the best by it; a broken limit costs more than all objectives."""
    costs = Costs(np.array([[0.0, 1.0], [1.0, 0.0], [0.4, 0.4]]), np.zeros(3))
    ideal, nadir = np.zeros(2), np.ones(2)
    best = [
        int(np.argmin(weighted_costs(costs, np.array(weights), ideal, nadir)))
        for weights in ((0.9, 0.1), (0.1, 0.9), (0.5, 0.5))
    ]
    assert best == [0, 1, 2]
    broken = Costs(costs.objectives, np.array([0.0, 0.0, 0.2]))
    assert int(np.argmax(weighted_costs(broken, np.array([0.5, 0.5]), ideal, nadir))) == 2


def test_neighbours_differ_in_one_choice(tiny: MobileNetV3) -> None:
    """All networks that one changed gene gives, each once: the other values of every gene.

    The largest network has every block, so each change gives another network.
    """
    largest = tiny.encode([tiny.largest])
    neighbours = all_neighbours(tiny, largest)
    others = sum(radix - 1 for radix in tiny.radices.tolist())
    assert len(neighbours) == others
    assert np.array_equal(tiny.canonical(neighbours), neighbours)


def test_drawn_neighbours_are_some_of_all(tiny: MobileNetV3) -> None:
    """As many as asked for, or all there are, with the parents themselves where a value stays."""
    parents = tiny.encode([tiny.largest, tiny.smallest])
    known = {tuple(row) for row in [*all_neighbours(tiny, parents).tolist(), *parents.tolist()]}
    some = draw_neighbours(tiny, parents, 5, np.random.default_rng(0))
    every = draw_neighbours(tiny, parents, 10_000, np.random.default_rng(0))
    assert len(some) == 5
    assert {tuple(row) for row in some.tolist()} <= known
    assert {tuple(row) for row in every.tolist()} == known


def test_a_mutation_draws_the_given_number_of_genes() -> None:
    """With a rate of 3, on average three genes are drawn again, a third of which get the value that they had."""
    space = MobileNetV3(width=0.5)
    parents = np.repeat(space.encode([space.largest]), 4000, axis=0)
    changed = (mutate(space, parents, 3.0, np.random.default_rng(0))[:, :1] != parents[:, :1]).mean()
    radix = int(space.radices[0])
    assert changed == pytest.approx(3.0 / len(space.genes) * (1 - 1 / radix), rel=0.25)


def test_a_surrogate_learns_what_is_additive(tiny: MobileNetV3, every: Genes) -> None:
    """From 80 of 320 networks it predicts the logarithm of the others' MACs to a tenth; one outlier costs little."""
    order = np.random.default_rng(0).permutation(len(every))
    values = np.log(tiny.macs(every))
    fitted = values.copy()
    fitted[order[0]] = 1000.0
    surrogate = Surrogate(tiny.radices, every[order[:80]], fitted[order[:80]])
    errors = surrogate(every[order[80:]]) - values[order[80:]]
    assert np.sqrt(np.mean(errors**2)) < 0.5 * values.std()
    clean = Surrogate(tiny.radices, every[order[:80]], values[order[:80]])
    assert np.abs(clean(every[order[80:]]) - values[order[80:]]).max() < 0.1


def test_a_surrogate_of_equal_values_predicts_them(tiny: MobileNetV3, every: Genes) -> None:
    """Where all costs are equal, so are the predictions."""
    assert Surrogate(tiny.radices, every[:5], np.full(5, 3.0))(every[5:9]).tolist() == [3.0] * 4


def test_the_history_ends_with_the_whole_front(problem: Problem) -> None:
    """Hypervolume never falls over the evaluations, and ends at one with all of them."""
    front = search_front(problem, evaluations=200, strategy="random")
    counts, shares = zip(*front.history, strict=True)
    assert counts[-1] == front.evaluations
    assert shares[-1] == pytest.approx(1.0)
    assert list(shares) == sorted(shares)
    assert nondominated_mask(np.column_stack([-front.accuracy, front.latency_ms, front.peak_bytes])).all()
