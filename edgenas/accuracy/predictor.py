"""Accuracy of any architecture, predicted from a few hundred evaluated ones."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgenas.costs import Genes, Vector
from edgenas.errors import UsageError
from edgenas.space import SearchSpace

_FOLDS = 5
_MARGIN = 1e-3  # accuracies of 0 and 1 have no finite log-odds


@dataclass(frozen=True, eq=False)
class AccuracyPredictor:
    """A Gaussian process on one-hot genes, fitted to evaluated subnets: ``genes`` (N, G), ``accuracy`` (N,) in 0..1.

    On the published ImageNet accuracies of Once-for-All, Gaussian processes
    beat MLPs, forests and ridge at hundreds of samples. It is fitted to
    log-odds: near 100%, where small sets saturate, a plain fit promises more
    than 100%. Raises UsageError for fewer than ten subnets.
    """

    space: SearchSpace
    genes: Genes
    accuracy: Vector

    def __post_init__(self) -> None:
        if len(self.genes) < 2 * _FOLDS:
            raise UsageError(
                f"an accuracy predictor needs at least {2 * _FOLDS} evaluated subnets, but got {len(self.genes)}"
            )

    def __call__(self, genes: Genes) -> Vector:
        """Predicted accuracy (M,) of genes (M, G)."""
        return _predict(self._model, self._features(genes))

    @property
    def rmse(self) -> float:
        """Cross-validated root mean square error, in units of accuracy (0.01 is one point)."""
        return float(np.sqrt(np.mean((self._held_out - self.accuracy) ** 2)))

    @property
    def kendall_tau(self) -> float:
        """Cross-validated rank correlation, from -1 to 1; 0 where all accuracies are equal."""
        from scipy.stats import kendalltau

        tau = float(kendalltau(self._held_out, self.accuracy).statistic)
        return 0.0 if np.isnan(tau) else tau

    def __str__(self) -> str:
        return (
            f"{len(self.genes)} evaluated subnets, accuracy {self.accuracy.min():.1%} to {self.accuracy.max():.1%};"
            f" {_FOLDS}-fold cross-validation: RMSE {100 * self.rmse:.2f} points, Kendall tau {self.kendall_tau:.2f}"
        )

    @cached_property
    def _held_out(self) -> Vector:
        """Each subnet's accuracy as predicted by a model that has not seen it, (N,)."""
        fold = np.random.default_rng(0).permutation(len(self.genes)) % _FOLDS
        predicted = np.empty(len(self.genes))
        features = self._features(self.genes)
        for number in range(_FOLDS):
            seen = fold != number
            predicted[~seen] = _predict(_fit(features[seen], self.accuracy[seen]), features[~seen])
        return predicted

    @cached_property
    def _model(self) -> Any:
        return _fit(self._features(self.genes), self.accuracy)

    def _features(self, genes: Genes) -> Vector:
        """One column for each value of each gene, all zero for dead genes; shape (M, F)."""
        dead = self.space.dead_genes(genes)
        columns = []
        for gene, values in enumerate(self.space.genes):
            hot = genes[:, gene, None] == np.arange(len(values.values))
            columns.append(hot & ~dead[:, gene, None])
        return np.concatenate(columns, axis=1).astype(np.float64)


def _fit(features: Vector, accuracy: Vector) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    scale = np.sqrt(features.shape[1])
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(scale, (0.1 * scale, 100 * scale)) + WhiteKernel(0.3, (1e-4, 1e1))
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    bounded = np.clip(accuracy, _MARGIN, 1 - _MARGIN)
    with warnings.catch_warnings():
        # A hyperparameter at its bound is an answer here (all noise, or no noise), not a fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, np.log(bounded / (1 - bounded)))


def _predict(model: Any, features: Vector) -> Vector:
    accuracy: Vector = 1 / (1 + np.exp(-model.predict(features)))
    return accuracy
