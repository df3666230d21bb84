"""REINFORCE with MnasNet's reward.

The controller draws architectures and is trained by policy gradient (B. Zoph, Q. V. Le, arXiv 1611.01578); here it
holds one softmax for each gene instead of a recurrent network, as in ProxylessNAS (arXiv 1812.00332). The reward is
that of MnasNet (M. Tan et al., arXiv 1807.11626) with hard targets, the product of the accuracy and, for each other
cost that is over its target, (cost / target)^-1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.search.problem import Costs, Problem
from edgenas.search.strategies.contract import Evaluate

_CONTROLLERS = 5  # each with targets of its own, for a place of the front
_RATE, _MOMENTUM = 0.3, 0.9  # of the policy gradient, and of the mean reward that is its baseline
_ENTROPY = 0.01
_PATIENCE = 20  # batches without an architecture that is new: a controller that is sure of one
_LEAST = 1e-4  # probability of a value: none is ruled out for good


def search(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> None:
    """Train a controller for each of five places of the front, with equal shares of the budget.

    The first objective is MnasNet's accuracy. The targets of the others lie evenly between the extremes of what was
    evaluated first.
    """
    rng = np.random.default_rng(seed)
    first = problem.space.sample(min(50, max(1, budget // 10)), rng)
    first = first[evaluate.is_new(first)]
    if len(first):
        evaluate(first)
    spent = len(first)
    others = evaluate.costs.objectives[:, 1:]
    low, high = others.min(axis=0), others.max(axis=0)
    for number in range(_CONTROLLERS):
        targets = low + (high - low) * (number + 0.5) / _CONTROLLERS
        end = budget - (budget - len(first)) * (_CONTROLLERS - 1 - number) // _CONTROLLERS
        batch, idle = int(np.clip((end - spent) // 20, 1, 50)), 0
        controller = _Controller(problem.space.radices)
        while spent < end and idle < _PATIENCE:
            drawn = controller.draw(min(batch, end - spent), rng)
            genes = problem.space.canonical(drawn)
            new = int(evaluate.is_new(genes).sum())
            controller.learn(drawn, log_rewards(evaluate(genes), targets))
            idle = 0 if new else idle + 1
            spent += new
            progress(spent, budget)


def log_rewards(costs: Costs, targets: Vector) -> Vector:
    """Return the logarithm (N,) of MnasNet's reward; broken limits reduce it like costs over their targets.

    Costs that are not positive, as accuracies with their sign reversed, count by their magnitude.
    """
    first = costs.objectives[:, 0]
    quality = np.where(first < 0, 1.0, -1.0) * np.log(np.maximum(np.abs(first), 1e-12))
    over = np.abs(costs.objectives[:, 1:]) / np.maximum(np.abs(targets), 1e-12)
    is_over = costs.objectives[:, 1:] > targets
    penalty = np.where(is_over, np.abs(np.log(np.maximum(over, 1e-12))), 0.0).sum(axis=1)
    rewards: Vector = quality - penalty - np.log1p(costs.violation)
    return rewards


class _Controller:
    """A softmax over the values of each gene, and its training."""

    def __init__(self, radices: Genes) -> None:
        self._logits = [np.zeros(radix) for radix in radices.tolist()]
        self._baseline: float | None = None

    def draw(self, count: int, rng: np.random.Generator) -> Genes:
        """Return genes (count, G), not canonical."""
        columns = [rng.choice(len(each), size=count, p=_softmax(each)) for each in self._logits]
        return np.column_stack(columns).astype(np.int64)

    def learn(self, genes: Genes, rewards: Vector) -> None:
        """Follow the policy gradient of genes (N, G) that it drew, with their rewards (N,)."""
        mean = float(rewards.mean())
        self._baseline = mean if self._baseline is None else _MOMENTUM * self._baseline + (1 - _MOMENTUM) * mean
        advantages = (rewards - self._baseline) / max(float(rewards.std()), 1e-6)
        for column, logits in enumerate(self._logits):
            probabilities = _softmax(logits)
            drawn = genes[:, column, None] == np.arange(len(logits))
            gradient = (advantages[:, None] * (drawn - probabilities)).mean(axis=0)
            entropy = -(probabilities * np.log(probabilities)).sum()
            flatter = -probabilities * (np.log(probabilities) + entropy)
            logits += _RATE * (gradient + _ENTROPY * flatter)


def _softmax(logits: Vector) -> Vector:
    powers = np.exp(logits - logits.max())
    shares = np.maximum(powers / powers.sum(), _LEAST)
    probabilities: Vector = shares / shares.sum()
    return probabilities
