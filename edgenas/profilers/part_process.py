"""A Gaussian process over the costs of parts that is only seen through sums of them.

The cost of part p is ``base[p] * (1 + deviation[p])``; the deviations are jointly
normal with mean zero, and alike parts deviate alike. A measured value is the
overhead plus its parts' costs, times 1 + drift + noise, where drift is a slow
process in time that all parts share: a machine that others use as well is now
faster, now slower. Sums of normals are normal, so the posterior of the part
costs is exact (C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for
Machine Learning, 2006, chapters 2 and 5), and its mean is a table that is added
up. How strong each term is follows from marginal likelihood; single values that
fit nowhere lose weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # it says nothing of its types

from edgenas.costs import Vector

_DRIFT_S = (5.0, 40.0)
_USUAL = 2.5  # standard deviations from which on a value counts less
_ROUNDS = 4  # of reweighting
_LEAST_NOISE = 0.002
_MOST_HOLDS, _HOLD_NOISE, _HOLD_TOLERANCE = 20, 1e-6, 1e-3
_LEAST_SHARE = 0.02  # of the mean base cost: no part is certain to be free
_MOST_FOR_STRENGTHS = 400  # values that strengths are estimated from; more add time, not knowledge
# Guesses of the variances; a factor of 7 off is one standard deviation off.
_GUESSES = {"overhead": 1e-4, "drift": 1e-2, "noise": 1e-3}
_DEVIATION_GUESS, _SPREAD = 6e-3, 2.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """Values that were measured: ``counts`` (N, P) of parts in each, ``values`` (N,), and when, seconds (N,).

    ``weights`` (N,) are at most 1, lower for values that fit nowhere.
    """

    counts: Vector
    values: Vector
    at_s: Vector
    weights: Vector


@dataclass(frozen=True, eq=False)
class PartBasis:
    """What is known before measuring.

    ``mean``: features (P, F) >= 0 that base costs are weighted sums of.
    ``detail``: features (P, E) >= 0 that deviations are linear in.
    ``similarities``: covariances (P, P) of the remaining deviations.
    ``overheads``: what each mean feature says of the overhead, (F,); without, a
    constant is fitted.
    """

    mean: Vector
    detail: Vector
    similarities: Mapping[str, Vector]
    overheads: Vector | None = None


@dataclass(frozen=True, eq=False)
class PartProcess:
    """The posterior of part costs. ``strengths``: the variance of each term by name, relative to base costs."""

    basis: PartBasis
    evidence: Evidence
    strengths: Mapping[str, float]

    @cached_property
    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def _prior(self) -> _Prior:
        return _Prior.of(self.basis, self.evidence)

    @cached_property
    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def _covariance(self) -> Vector:
        """Of the relative deviations of parts, before anything was measured, (P, P)."""
        prior, strengths = self._prior, self.strengths
        total = strengths["detail"] * prior.detail @ prior.detail.T
        for name, similarity in self.basis.similarities.items():
            total = total + strengths[name] * similarity
        return np.asarray(total)

    @cached_property
    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def _inverse(self) -> Vector:
        total = _total(self._prior.terms(self.evidence), self.strengths, self.evidence.weights)
        return np.asarray(np.linalg.inv(total), dtype=np.float64)

    @cached_property
    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def _pull(self) -> Vector:
        return np.asarray(self._inverse @ self._prior.residual)

    @cached_property
    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def _moved(self) -> Vector:
        """The posterior mean of each part's relative deviation and of the overhead's, in base units, (P + 1,).

        Parts that would cost less than nothing are held at nothing, which moves
        those that were measured together with them.
        """
        prior, known = self._prior, self.strengths["overhead"]
        count = len(prior.base)
        cross = np.vstack([self._covariance @ prior.shares.T, known * prior.overhead_share])
        mean = np.asarray(cross @ self._pull)
        before = np.zeros((count + 1, count + 1))
        before[:count, :count], before[count, count] = self._covariance, known
        spread = before - cross @ self._inverse @ cross.T
        least = np.append(-np.ones(count), -prior.overhead / prior.unit)
        held = np.zeros(count + 1, dtype=bool)
        for _ in range(_MOST_HOLDS):
            low = mean < least - _HOLD_TOLERANCE
            if not low.any():
                break
            held |= low
            block = spread[np.ix_(held, held)] + _HOLD_NOISE * np.eye(int(held.sum()))
            free = np.asarray(cross @ self._pull)
            mean = free + spread[:, held] @ np.linalg.solve(block, least[held] - free[held])
        return np.asarray(np.maximum(mean, least), dtype=np.float64)

    @cached_property
    def costs(self) -> Vector:
        """The posterior mean of each part's cost (P,), never negative."""
        costs: Vector = self._prior.base * (1 + self._moved[:-1])
        return costs

    @cached_property
    def overhead(self) -> float:
        """The posterior mean of what a value has beside its parts, never negative."""
        return float(self._prior.overhead + self._prior.unit * self._moved[-1])

    @property
    def noise(self) -> float:
        """The standard deviation of one measured value around drift and true value, relative."""
        return float(np.sqrt(self.strengths["noise"]))

    def spread(self, counts: Vector) -> Vector:
        """The posterior standard deviation (M,) of sums (M, P), in the unit of values, without noise."""
        base, seen, shares, cross, overhead = self._views(counts)
        before = np.einsum("ij,ij->i", seen, shares) + self.strengths["overhead"] * overhead**2
        after = before - np.einsum("ij,ij->i", cross @ self._inverse, cross)
        deviation: Vector = base * np.sqrt(np.maximum(after, 1e-12))
        return deviation

    @threadpool_limits.wrap(1)  # type: ignore[untyped-decorator]
    def most_telling(self, counts: Vector, number: int) -> list[int]:
        """Rows of sums (M, P) to measure next, one after the other the least certain once those before are measured."""
        _, seen, shares, cross, overhead = self._views(counts)
        known = seen @ shares.T + self.strengths["overhead"] * np.outer(overhead, overhead)
        covariance = known - cross @ self._inverse @ cross.T
        rows: list[int] = []
        for _ in range(min(number, len(counts))):
            variance = np.diag(covariance).copy()
            variance[rows] = -np.inf
            row = int(variance.argmax())
            told = covariance[:, row]
            covariance = covariance - np.outer(told, told) / (variance[row] + self.noise**2 + _LEAST_NOISE**2)
            rows.append(row)
        return rows

    def _views(self, counts: Vector) -> tuple[Vector, Vector, Vector, Vector, Vector]:
        """Of sums (M, P): base (M,), covariance with parts (M, P), shares (M, P), covariance with values (M, N),
        and the share of the overhead (M,)."""
        prior = self._prior
        base = prior.overhead + counts @ prior.base
        shares, overhead = counts * prior.base / base[:, None], prior.unit / base
        seen = shares @ self._covariance
        cross = seen @ prior.shares.T + self.strengths["overhead"] * np.outer(overhead, prior.overhead_share)
        return base, seen, shares, cross, overhead


def fit_part_process(basis: PartBasis, counts: Vector, values: Vector, at_s: Vector | None = None) -> PartProcess:
    """The process given values (N,) of sums (N, P), and when each was measured; without times, no drift.

    With one thread: matrices are small, several threads that wait for each
    other on busy cores took 40 times as long, and their number changes bits.
    """
    drifts = at_s is not None
    times = np.zeros(len(values)) if at_s is None else at_s
    evidence = Evidence(counts, values, times, np.ones(len(values)))
    with threadpool_limits(1):
        return _fit(basis, evidence, drifts)


def _fit(basis: PartBasis, evidence: Evidence, drifts: bool) -> PartProcess:
    values = evidence.values
    prior = _Prior.of(basis, evidence)
    terms = prior.terms(evidence)
    if not drifts:
        terms = {name: term for name, term in terms.items() if not name.startswith("drift")}
    weights = evidence.weights
    strengths = {name: _guess(name) for name in [*terms, "noise"]}
    chosen = np.unique(np.linspace(0, len(values) - 1, _MOST_FOR_STRENGTHS).astype(int))
    part = {name: term[np.ix_(chosen, chosen)] for name, term in terms.items()}
    for _ in range(_ROUNDS):
        strengths = _strengths(part, prior.residual[chosen], weights[chosen], strengths)
        inverse = np.linalg.inv(_total(terms, strengths, weights))
        error = (inverse @ prior.residual) / np.diag(inverse)  # of each value as all others predict it
        expected = 1 / np.diag(inverse) - strengths["noise"] * (1 / weights - 1)  # its variance at a weight of one
        weights = np.minimum(1.0, _USUAL**2 * expected / error**2)
    absent = {name: 0.0 for name in prior.terms(evidence) if name not in terms}
    return PartProcess(basis, replace(evidence, weights=weights), {**strengths, **absent})


@dataclass(frozen=True, eq=False)
class _Prior:
    """The base costs (P,), how each value divides among parts (N, P), and what they leave unexplained (N,)."""

    base: Vector
    overhead: float
    unit: float
    detail: Vector
    similarities: Mapping[str, Vector]
    shares: Vector
    overhead_share: Vector
    residual: Vector

    @classmethod
    def of(cls, basis: PartBasis, evidence: Evidence) -> _Prior:
        counts, values = evidence.counts, evidence.values
        overhead, weights = _fit_base(basis, evidence)
        base = basis.mean @ weights
        base = np.maximum(base, max(_LEAST_SHARE * float(base.mean()), 1e-12))
        expected = overhead + counts @ base
        typical = (counts @ basis.detail).mean(axis=0)
        used = typical > 0
        # Each feature as a share of the base cost, as if it alone made up all of it.
        detail = basis.detail[:, used] / typical[used] * float((counts @ base).mean()) / base[:, None]
        unit = float(np.median(expected))
        shares = counts * base / expected[:, None]
        residual = values / expected - 1
        return cls(base, overhead, unit, detail, basis.similarities, shares, unit / expected, residual)

    def terms(self, evidence: Evidence) -> dict[str, Vector]:
        """The covariance (N, N) of values by each term, at a strength of one."""
        terms = {name: self.shares @ each @ self.shares.T for name, each in self.similarities.items()}
        linear = self.shares @ self.detail
        terms["detail"] = linear @ linear.T
        terms["overhead"] = np.outer(self.overhead_share, self.overhead_share)
        apart = np.abs(evidence.at_s[:, None] - evidence.at_s)
        return terms | {f"drift {seconds:g} s": np.exp(-apart / seconds) for seconds in _DRIFT_S}


def _fit_base(basis: PartBasis, evidence: Evidence) -> tuple[float, Vector]:
    """The overhead, and the weight of each mean feature, without much regard to values that fit nowhere."""
    columns, values = evidence.counts @ basis.mean, evidence.values
    if basis.overheads is None:
        columns = np.column_stack([columns, np.ones(len(columns))])
    else:
        columns = columns + basis.overheads
    trust = np.ones(len(values))
    for _ in range(_ROUNDS):
        weights = fit_non_negative(columns, values, trust)
        error = columns @ weights / values - 1
        scale = max(1.4826 * float(np.median(np.abs(error))), _LEAST_NOISE)
        trust = np.minimum(1.0, (_USUAL * scale / np.maximum(np.abs(error), scale)) ** 2)
    if basis.overheads is None:
        return float(weights[-1]), weights[:-1]
    return float(basis.overheads @ weights), weights


def fit_non_negative(columns: Vector, values: Vector, trust: Vector | None = None) -> Vector:
    """Weights >= 0 of ``columns`` (N, K) that reach ``values`` (N,) with the least squared relative error.

    ``trust`` (N,) says how much each squared error counts.
    """
    from scipy.optimize import nnls

    root = np.ones(len(values)) if trust is None else np.sqrt(trust)
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-12)
    weights: Vector = nnls(columns / scale * (root / values)[:, None], root)[0] / scale
    return weights


def _guess(name: str) -> float:
    return _GUESSES.get(name.partition(" ")[0], _DEVIATION_GUESS)


def _total(terms: Mapping[str, Vector], strengths: Mapping[str, float], weights: Vector) -> Vector:
    total = np.diag(strengths["noise"] / weights + _LEAST_NOISE**2)
    for name, term in terms.items():
        if strengths[name] > 0:
            total += strengths[name] * term
    return total


def _strengths(
    terms: Mapping[str, Vector], residual: Vector, weights: Vector, start: Mapping[str, float]
) -> dict[str, float]:
    """The variances that make the residuals most likely, with a weak prior around the guesses."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.optimize import minimize

    names = [*terms, "noise"]
    guesses = np.log([_guess(name) for name in names])
    noise = 1 / weights

    def loss(logs: Vector) -> tuple[float, Vector]:
        strengths = dict(zip(names, np.exp(logs).tolist(), strict=True))
        factor = cho_factor(_total(terms, strengths, weights), lower=True, check_finite=False)
        inverse = cho_solve(factor, np.eye(len(residual)), check_finite=False)
        pull = inverse @ residual
        slopes = [strengths[name] * (np.vdot(inverse, term) - pull @ term @ pull) / 2 for name, term in terms.items()]
        slopes.append(strengths["noise"] * float(np.diag(inverse) @ noise - pull**2 @ noise) / 2)
        away = (logs - guesses) / _SPREAD
        value = residual @ pull / 2 + np.log(np.diag(factor[0])).sum() + away @ away / 2
        return float(value), np.array(slopes) + away / _SPREAD

    bounds = [(-16.0, 3.0)] * len(names)
    first = np.log([start[name] for name in names])
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    return dict(zip(names, np.exp(found.x).tolist(), strict=True))
