"""An accuracy predictor that is fitted to a few hundred evaluated subnets."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.costs import Genes, Vector, apply_in_chunks
from edgenas.errors import UsageError
from edgenas.space import SearchSpace

_FOLDS = 5
_CHUNK_ROWS = 1024
_DISTANCE_GROUPS = 3
_MARGIN = 1e-3  # because accuracies of 0 and 1 have no finite log-odds


@dataclass(frozen=True)
class DistanceError:
    """The error of predictions at a distance from the nearest evaluated subnet.

    Attributes:
        least: The least number of choices in which they differ from it.
        most: The greatest number.
        subnets: The number of predictions.
        rmse: Their root mean square error, as a fraction.
    """

    least: int
    most: int
    subnets: int
    rmse: float


@dataclass(frozen=True, eq=False, repr=False)
class AccuracyPredictor:
    """A Gaussian process on one-hot genes, fitted to evaluated subnets; a cost model of accuracy.

    With hundreds of samples of the published ImageNet accuracies of
    Once-for-All, Gaussian processes predict better than MLPs, forests and ridge
    regression. The fit is to log-odds, because a fit to accuracies predicts
    more than 100% near 100%, where small data sets saturate.

    Args:
        space: The space of the subnets.
        genes: The evaluated subnets, (N, G).
        accuracy: Their accuracies, (N,), 0 to 1.

    Raises:
        UsageError: There are fewer than ten subnets.
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
        """Return the predicted accuracy (M,), 0 to 1, of genes (M, G)."""
        return apply_in_chunks(
            lambda rows: _predict_accuracy(self._fitted_model, self._one_hot_features(rows)), genes, _CHUNK_ROWS
        )

    def accuracy_std(self, genes: Genes) -> Vector:
        """Return the standard deviation (M,) of the predicted accuracy of genes (M, G), as a fraction.

        It is that of the Gaussian process, noise of an evaluation included, carried over from log-odds. It grows with
        the distance from the evaluated subnets.
        """
        return apply_in_chunks(self._predict_std, genes, _CHUNK_ROWS)

    def _predict_std(self, genes: Genes) -> Vector:
        log_odds, std = self._fitted_model.predict(self._one_hot_features(genes), return_std=True)
        accuracy = 1 / (1 + np.exp(-log_odds))
        deviations: Vector = std * accuracy * (1 - accuracy)  # the derivative of accuracy by log-odds
        return deviations

    def distances(self, genes: Genes) -> npt.NDArray[np.int64]:
        """Return the number (M,) of choices in which genes (M, G) differ from the nearest evaluated subnet."""
        nearest = apply_in_chunks(lambda rows: _least_differences(rows, self.genes), genes, _CHUNK_ROWS)
        return nearest.astype(np.int64)

    @cached_property
    def errors_by_distance(self) -> tuple[DistanceError, ...]:
        """The cross-validated errors by the distance from the rows of the fit, in thirds of the subnets.

        A search ends far from what was evaluated: where the errors rise with the distance, evaluate subnets of its
        front.
        """
        distances = np.empty(len(self.genes), dtype=np.int64)
        for number in range(_FOLDS):
            fitted = self._folds != number
            distances[~fitted] = _least_differences(self.genes[~fitted], self.genes[fitted])
        errors = self._held_out_predictions - self.accuracy
        found = []
        for rows in np.array_split(np.argsort(distances, kind="stable"), _DISTANCE_GROUPS):
            rmse = float(np.sqrt(np.mean(errors[rows] ** 2)))
            found.append(DistanceError(int(distances[rows].min()), int(distances[rows].max()), len(rows), rmse))
        return tuple(found)

    @property
    def rmse(self) -> float:
        """Cross-validated root mean square error, as a fraction: 0.01 is one percentage point."""
        return float(np.sqrt(np.mean((self._held_out_predictions - self.accuracy) ** 2)))

    @property
    def kendall_tau(self) -> float:
        """Cross-validated rank correlation, -1 to 1; 0 where all accuracies are equal."""
        from scipy.stats import kendalltau

        tau = float(kendalltau(self._held_out_predictions, self.accuracy).statistic)
        return 0.0 if np.isnan(tau) else tau

    def __repr__(self) -> str:
        return f"AccuracyPredictor({len(self.genes)} evaluated subnets, {self.space!r})"

    def __str__(self) -> str:
        return (
            f"{len(self.genes)} evaluated subnets, accuracy {self.accuracy.min():.1%} to {self.accuracy.max():.1%};"
            f" {_FOLDS}-fold cross-validation: RMSE {100 * self.rmse:.2f} points, Kendall tau {self.kendall_tau:.2f}"
        )

    @cached_property
    def _folds(self) -> npt.NDArray[np.int64]:
        """The fold of each subnet, (N,)."""
        folds: npt.NDArray[np.int64] = np.random.default_rng(0).permutation(len(self.genes)) % _FOLDS
        return folds

    @cached_property
    def _held_out_predictions(self) -> Vector:
        """The accuracy of each subnet, predicted by a model fitted without its fold, (N,)."""
        predicted = np.empty(len(self.genes))
        features = self._one_hot_features(self.genes)
        for number in range(_FOLDS):
            fitted = self._folds != number
            predicted[~fitted] = _predict_accuracy(
                _fit_gaussian_process(features[fitted], self.accuracy[fitted]), features[~fitted]
            )
        return predicted

    @cached_property
    def _fitted_model(self) -> Any:
        return _fit_gaussian_process(self._one_hot_features(self.genes), self.accuracy)

    def _one_hot_features(self, genes: Genes) -> Vector:
        """Return the one-hot genes, (M, F): one column for each value of each gene, zeros for dead genes."""
        dead = self.space.dead_genes(genes)
        columns = []
        for column, gene in enumerate(self.space.genes):
            one_hot = genes[:, column, None] == np.arange(len(gene.values))
            columns.append(one_hot & ~dead[:, column, None])
        return np.concatenate(columns, axis=1).astype(np.float64)


def _fit_gaussian_process(features: Vector, accuracy: Vector) -> Any:
    """Fit a Gaussian process to log-odds of accuracy (N,) with features (N, F)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    scale = np.sqrt(features.shape[1])
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(scale, (0.1 * scale, 100 * scale)) + WhiteKernel(0.3, (1e-4, 1e1))
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    bounded = np.clip(accuracy, _MARGIN, 1 - _MARGIN)
    with warnings.catch_warnings():
        # A hyperparameter at its bound is a result here (all noise, or none), not a fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features, np.log(bounded / (1 - bounded)))


def _least_differences(genes: Genes, others: Genes) -> Vector:
    """Return the number (M,) of choices in which genes (M, G) differ from the nearest of others (N, G)."""
    least: Vector = np.min([(genes != row).sum(axis=1) for row in others], axis=0).astype(np.float64)
    return least


def _predict_accuracy(model: Any, features: Vector) -> Vector:
    accuracy: Vector = 1 / (1 + np.exp(-model.predict(features)))
    return accuracy
