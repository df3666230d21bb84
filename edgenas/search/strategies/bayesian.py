"""Bayesian optimisation by Optuna: the tree-structured Parzen estimator for several objectives.

J. Bergstra, R. Bardenet, Y. Bengio, B. Kegl, Algorithms for hyper-parameter optimization, NeurIPS 2011; for several
objectives Y. Ozaki et al., Journal of Artificial Intelligence Research 73 (2022) 1209. Optuna is an extra:
``pip install 'edgenas[bayesian]'``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgenas.costs import Genes
from edgenas.errors import MissingExtraError
from edgenas.search.problem import Costs, Problem
from edgenas.search.strategies.contract import Evaluate
from edgenas.search.strategies.neighbours import mutate

if TYPE_CHECKING:
    import optuna

_MUTATIONS = 100
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
        _propose_and_evaluate(study, problem, evaluate, budget, seed, progress)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _propose_and_evaluate(
    study: optuna.Study,
    problem: Problem,
    evaluate: Evaluate,
    budget: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    import optuna

    space, rng = problem.space, np.random.default_rng(seed)
    choices: dict[str, optuna.distributions.BaseDistribution] = {
        gene.name: optuna.distributions.CategoricalDistribution(list(range(len(gene.values)))) for gene in space.genes
    }

    def tell(genes: Genes, costs: Costs) -> None:
        for row, objectives, violation in zip(
            genes.tolist(), costs.objectives.tolist(), costs.violation.tolist(), strict=True
        ):
            params, constraints = dict(zip(choices, row, strict=True)), {_LIMITS: violation} if problem.limits else None
            study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=choices, values=objectives, constraints=constraints
                )
            )

    tell(evaluate.genes, evaluate.costs)
    for number in range(budget):
        trial = study.ask(choices)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)  # what is evaluated is told as a trial of its own
        proposed = np.array([[trial.params[name] for name in choices]], dtype=np.int64)
        genes = _find_new(problem, evaluate, space.canonical(proposed), rng)
        if not len(genes):
            return
        tell(genes, evaluate(genes))
        progress(number + 1, budget)


def _find_new(problem: Problem, evaluate: Evaluate, genes: Genes, rng: np.random.Generator) -> Genes:
    """Return proposed genes (1, G), or where they are known, as they often are, a mutation of them that is not."""
    mutations = mutate(problem.space, np.repeat(genes, _MUTATIONS, axis=0), 1.0, rng)
    candidates = np.concatenate([genes, mutations])
    return candidates[evaluate.is_new(candidates)][:1]
