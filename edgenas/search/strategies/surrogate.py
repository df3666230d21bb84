"""A Gaussian process on one-hot genes that is fitted in milliseconds, for strategies that predict."""

from __future__ import annotations

import numpy as np

from edgenas.costs import Genes, Vector, apply_in_chunks

_LENGTHS = (0.3, 1.0, 3.0, 10.0)  # of the kernel, in units of the root of the number of genes
_MOST_DEVIATIONS = 8.0  # from the median, in median absolute deviations
_NOISES = (1e-6, 1e-4, 1e-3, 1e-2, 0.1, 1.0)  # variances, as shares of the signal's


class Surrogate:
    """A cost model that is fitted to evaluated architectures.

    The kernel is squared exponential. Its length and the noise are those of a grid with the greatest marginal
    likelihood, for which one eigendecomposition a length is enough (C. E. Rasmussen, C. K. I. Williams, Gaussian
    Processes for Machine Learning, 2006, equation 5.8, with the signal's variance at its optimum).

    Args:
        radices: The number of values of each gene, (G,).
        genes: The evaluated architectures, (N, G).
        values: Their costs, (N,).
    """

    def __init__(self, radices: Genes, genes: Genes, values: Vector) -> None:
        self._radices = radices
        self._features = self._one_hot(genes)
        values = _clip_outliers(values)
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        target = (values - self._mean) / self._scale
        squared = _squared_distances(self._features, self._features)
        best = -np.inf
        for length in _LENGTHS:
            power = -0.5 / (length**2 * len(radices))
            eigenvalues, vectors = np.linalg.eigh(np.exp(power * squared))
            projected = vectors.T @ target
            for noise in _NOISES:
                spectrum = np.maximum(eigenvalues, 0) + noise
                variance = float((projected**2 / spectrum).mean())
                likelihood = -len(target) * np.log(max(variance, 1e-300)) - float(np.log(spectrum).sum())
                if likelihood > best:
                    best, self._power = likelihood, power
                    self._weights: Vector = vectors @ (projected / spectrum)

    def __call__(self, genes: Genes) -> Vector:
        """Return the predicted costs (M,) of genes (M, G)."""
        return apply_in_chunks(self._predict, genes)

    def _predict(self, genes: Genes) -> Vector:
        kernel = np.exp(self._power * _squared_distances(self._one_hot(genes), self._features))
        predicted: Vector = self._mean + self._scale * (kernel @ self._weights)
        return predicted

    def _one_hot(self, genes: Genes) -> Vector:
        columns = [genes[:, column, None] == np.arange(radix) for column, radix in enumerate(self._radices.tolist())]
        return np.concatenate(columns, axis=1).astype(np.float64)


def _clip_outliers(values: Vector) -> Vector:
    """Return values (N,) with those far from the median moved nearer: networks that learn nothing hide the others."""
    median = np.median(values)
    spread = _MOST_DEVIATIONS * float(np.median(np.abs(values - median)))
    return np.clip(values, median - spread, median + spread) if spread else values


def _squared_distances(one: Vector, other: Vector) -> Vector:
    """Return the squared distances (N, M) between rows (N, F) and (M, F)."""
    products = one @ other.T
    distances: Vector = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * products
    return distances
