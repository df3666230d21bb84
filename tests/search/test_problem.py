"""Problems: objectives, limits with units, and cost models that are wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgenas.costs import Genes, Vector
from edgenas.errors import BudgetError, UsageError
from edgenas.search import Problem, search_front
from edgenas.search.feasibility import check_limits
from edgenas.search.quantities import format_cost, noun_of, parse_limit
from edgenas.space import MobileNetV3


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("latency_ms", "15ms", 15.0),
        ("latency_ms@pi-onnxruntime-fp32-1t", "0.5s", 500.0),
        ("peak_bytes", "64MB", 64e6),
        ("accuracy", "75%", 0.75),
        ("macs", "200M", 2e8),
        ("params", "1.5M", 1.5e6),
        ("cifar10_top1", "90", 90.0),
    ],
)
def test_a_limit_has_the_unit_of_its_cost(name: str, text: str, value: float) -> None:
    """The cost's name says which unit its limit has, with a target behind it too."""
    assert parse_limit(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("latency_ms", "15", "latency limit '15' has no unit"),
        ("latency_ms@pi", "15MB", "latency on pi limit '15MB' has unknown unit"),
        ("peak_bytes", "64", "memory limit '64' has no unit"),
        ("accuracy", "0.75", "accuracy limit must be a percentage"),
        ("macs", "200 million", "macs limit '200 million' has unknown unit 'million'; the units are k, M, G"),
        ("params", "-3M", "params limit must be a positive number"),
    ],
)
def test_a_limit_of_another_unit_is_refused(name: str, text: str, message: str) -> None:
    """A limit without its unit or with that of another quantity is refused, naming the cost."""
    with pytest.raises(UsageError, match=message):
        parse_limit(name, text)


def test_costs_are_printed_with_their_units() -> None:
    """Each cost has its own unit; a target is part of its noun."""
    assert [format_cost(name, 0.8) for name in ("accuracy", "latency_ms")] == ["80.00%", "0.800 ms"]
    assert [format_cost(name, 2.5e6) for name in ("peak_bytes", "macs")] == ["2.50 MB", "2.50M"]
    assert (noun_of("peak_bytes"), noun_of("latency_ms@pi"), noun_of("top1")) == ("memory", "latency on pi", "top1")


def test_objectives_are_minimised_and_violations_are_relative(problem: Problem, every: Genes) -> None:
    """Accuracy has its sign reversed; an excess of half a limit, and a shortfall of a fifth, add to 0.7."""
    limited = dataclasses.replace(problem, limits={"latency_ms": 2.0, "accuracy": "50%"})
    costs = limited.costs_of(np.array([[0.4, 3.0, 7.0], [0.6, 1.0, 8.0]]))
    assert costs.objectives.tolist() == [[-0.4, 3.0, 7.0], [-0.6, 1.0, 8.0]]
    np.testing.assert_allclose(costs.violation, [0.5 + 0.2, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ()}, "a search needs an objective, one or more of: accuracy, latency_ms, peak_bytes"),
        ({"objectives": ("latency",)}, "'latency' is no cost of this problem; did you mean 'latency_ms'?"),
        ({"objectives": ("accuracy", "accuracy")}, "objective 'accuracy' is given twice"),
        ({"limits": {"energy_mj": "3"}}, "limit of 'energy_mj' is no cost of this problem"),
        ({"limits": {"latency_ms": 0.0}}, "the limit of latency must be above zero and finite, but got 0.0"),
        ({"limits": {"latency_ms": float("nan")}}, "the limit of latency must be above zero and finite"),
        ({"real": ["energy_mj"]}, "real cost 'energy_mj' is no cost of this problem"),
    ],
)
def test_a_wrong_problem_is_refused(problem: Problem, change: dict[str, Any], message: str) -> None:
    """Unknown and repeated names, no objective, and limits that cannot be kept end in one line."""
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(problem, **change)


def _broken(tiny: MobileNetV3, kind: str) -> Callable[[Genes], Vector]:
    def model(genes: Genes) -> Vector:
        if kind == "raises":
            raise ZeroDivisionError("of the model")
        values: Vector = tiny.macs(genes)
        values[(genes == tiny.largest.genes).all(axis=1)] = {"nan": np.nan, "infinity": np.inf}.get(kind, 1.0)
        return values[:1] if kind == "short" else values

    return model


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "the cost model of macs gives nan for architecture {largest}, and 1 of 2 are no finite numbers"),
        ("infinity", "the cost model of macs gives inf for architecture {largest}"),
        ("short", r"the cost model of macs must return one number for each of 2 architectures, but got shape \(1,\)"),
        ("raises", r"the cost model of macs failed \(ZeroDivisionError: of the model\)"),
    ],
)
def test_a_wrong_cost_model_is_named_with_the_architecture(tiny: MobileNetV3, kind: str, message: str) -> None:
    """What is no number ends the search with the cost's name and the architecture."""
    problem = Problem(tiny, {"params": tiny.params, "macs": _broken(tiny, kind)}, ("macs", "params"))
    with pytest.raises(UsageError, match=message.format(largest=tiny.largest.id)) as caught:
        search_front(problem)
    assert "\n" not in str(caught.value)


def test_limits_that_some_architecture_keeps_pass(problem: Problem, every: Genes) -> None:
    """The limits of any single architecture are kept by it, so they are never refused."""
    values = problem.evaluate(every)
    for row in (0, 100, 319):
        limits = dict(zip(problem.costs, values[row].tolist(), strict=True))
        check_limits(dataclasses.replace(problem, limits=limits))


def test_a_limit_that_none_keeps_is_refused_with_the_nearest_value(problem: Problem, every: Genes) -> None:
    """The message has the least latency of the whole space."""
    least = problem.evaluate(every)[:, 1].min()
    with pytest.raises(BudgetError) as caught:
        search_front(dataclasses.replace(problem, limits={"latency_ms": "0.01ms"}))
    assert f"nearest values that one keeps: latency {format_cost('latency_ms', least)} (" in str(caught.value)
    assert "no architecture keeps latency at most 0.0100 ms" in str(caught.value)


def test_contradicting_limits_have_the_nearest_value_of_each(problem: Problem, every: Genes) -> None:
    """Where two limits contradict each other, each has its best value among all that keep the other."""
    accuracy, latency, _ = problem.evaluate(every).T
    limits = {"accuracy": float(accuracy.max()), "latency_ms": float(latency.min())}
    with pytest.raises(BudgetError) as caught:
        check_limits(dataclasses.replace(problem, limits=limits))
    best_within = accuracy[latency <= latency.min()].max()
    fastest_of_best = latency[accuracy >= accuracy.max()].min()
    assert f"accuracy {best_within:.2%} (" in str(caught.value)
    assert f"latency {format_cost('latency_ms', fastest_of_best)} (" in str(caught.value)
    assert str(caught.value).count("with the other limits kept") == 2


def test_limits_that_are_all_impossible_have_the_best_value_alone(problem: Problem, every: Genes) -> None:
    """Where no limit can be kept, each has the best value of its cost, whatever the others are."""
    least = problem.evaluate(every).min(axis=0)
    with pytest.raises(BudgetError) as caught:
        check_limits(dataclasses.replace(problem, limits={"latency_ms": "0.01ms", "peak_bytes": "10B"}))
    assert f"latency {format_cost('latency_ms', least[1])} (" in str(caught.value)
    assert str(caught.value).count("without the other limits") == 2


def test_the_limit_of_a_measured_cost_is_told_after_the_search(problem: Problem) -> None:
    """A limit of what has to be measured is not checked before; the search ends with the nearest that it found."""
    limited = dataclasses.replace(problem, limits={"latency_ms": "0.01ms"}, real=["latency_ms"])
    check_limits(limited)
    with pytest.raises(BudgetError, match=r"none of 50 evaluated architectures keeps latency at most 0\.0100 ms; the"):
        search_front(limited, strategy="random", evaluations=50)


def test_first_come_extremes_and_known_architectures(tiny: MobileNetV3, problem: Problem, every: Genes) -> None:
    """Every search begins with the smallest, the largest and the known architectures, each once."""
    known = np.concatenate([every[5:7], tiny.encode([tiny.largest])])
    first = dataclasses.replace(problem, known=known).first_genes
    assert first.tolist() == [list(tiny.smallest.genes), list(tiny.largest.genes), *every[5:7].tolist()]


def test_too_few_evaluations_are_refused(problem: Problem) -> None:
    """A search needs an evaluation for each of its first architectures."""
    with pytest.raises(UsageError, match="evaluations must be at least 2, the smallest, the largest and the known"):
        search_front(problem, evaluations=1)
