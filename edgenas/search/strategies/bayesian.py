"""Bayesian optimisation by Optuna: the tree-structured Parzen estimator for several objectives.

J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl, Algorithms for hyper-parameter optimization, NeurIPS 2011; for several
objectives Y. Ozaki et al., Journal of Artificial Intelligence Research 73 (2022) 1209. Optuna is an extra:
``pip install 'edgenas[bayesian]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgenas.errors import MissingExtraError
from edgenas.search.problem import Problem
from edgenas.search.strategies.contract import Evaluate

if TYPE_CHECKING:
    import optuna

_LIMITS = "limits"  # the name of their violation


def search(
    problem: Problem, evaluate: Evaluate, *, budget: int, seed: int, progress: Callable[[int, int], None]
) -> None:
    """Let Optuna propose one architecture after the other; what was evaluated before is told to it first."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingExtraError(
            "search strategy 'bayesian' needs Optuna, which is not installed; run: pip install 'edgenas[bayesian]'"
        ) from None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        sampler = optuna.samplers.TPESampler(seed=seed)
        study = optuna.create_study(directions=["minimize"] * len(problem.objectives), sampler=sampler)
        _propose_and_evaluate(study, problem, evaluate, budget, progress)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _propose_and_evaluate(
    study: optuna.Study, problem: Problem, evaluate: Evaluate, budget: int, progress: Callable[[int, int], None]
) -> None:
    import optuna

    space = problem.space
    choices: dict[str, optuna.distributions.BaseDistribution] = {
        gene.name: optuna.distributions.CategoricalDistribution(list(range(len(gene.values)))) for gene in space.genes
    }
    for genes, objectives, violation in zip(
        evaluate.genes.tolist(), evaluate.costs.objectives.tolist(), evaluate.costs.violation.tolist(), strict=True
    ):
        params = dict(zip(choices, genes, strict=True))
        constraints = {_LIMITS: violation} if problem.limits else None
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=choices, values=objectives, constraints=constraints)
        )
    for number in range(budget):
        trial = study.ask(choices)
        costs = evaluate(space.canonical(np.array([[trial.params[name] for name in choices]], dtype=np.int64)))
        if problem.limits:
            trial.set_constraint(_LIMITS, float(costs.violation[0]))
        study.tell(trial, costs.objectives[0].tolist())
        progress(number + 1, budget)
