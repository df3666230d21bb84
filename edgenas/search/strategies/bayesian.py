"""Bayesian optimisation by Optuna: the tree-structured Parzen estimator for several objectives.

J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl, Algorithms for hyper-parameter optimization, NeurIPS 2011; for several
objectives Y. Ozaki et al., Journal of Artificial Intelligence Research 73 (2022) 1209. Optuna is an extra:
``pip install 'edgenas[bayesian]'``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgenas.errors import MissingExtraError
from edgenas.search.problem import Problem
from edgenas.search.strategies.contract import Evaluate

if TYPE_CHECKING:
    import optuna

_VIOLATION = "violation"


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
    space = problem.space
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = _make_study(problem, seed)
            choices = {
                gene.name: optuna.distributions.CategoricalDistribution(list(range(len(gene.values))))
                for gene in space.genes
            }
            for row, objectives in zip(evaluate.genes.tolist(), evaluate.costs.objectives.tolist(), strict=True):
                params = dict(zip(choices, row, strict=True))
                attributes = {_VIOLATION: float(evaluate.costs.violation[0])}
                study.add_trial(
                    optuna.trial.create_trial(
                        params=params, distributions=choices, values=objectives, system_attrs={}, user_attrs=attributes
                    )
                )
            for number in range(budget):
                trial = study.ask(choices)
                genes = space.canonical(np.array([[trial.params[name] for name in choices]], dtype=np.int64))
                costs = evaluate(genes)
                trial.set_user_attr(_VIOLATION, float(costs.violation[0]))
                study.tell(trial, costs.objectives[0].tolist())
                progress(number + 1, budget)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _make_study(problem: Problem, seed: int) -> optuna.Study:
    import optuna

    constraints = (lambda trial: [trial.user_attrs[_VIOLATION]]) if problem.limits else None
    sampler = optuna.samplers.TPESampler(seed=seed, constraints_func=constraints)
    return optuna.create_study(directions=["minimize"] * len(problem.objectives), sampler=sampler)
