"""The subnets that may keep a budget on each device, and the one that is worth the next try."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from edgenas.costs import Budget, Vector

_FITS = math.log(0.5) - 1e-9  # of a prediction at its limit
_LIKELY = math.log(0.4)  # of two predictions near their limits
_MOST_UNLIKELY = 3


class TargetPredictions:
    """What N subnets are predicted to take on one target, corrected by what was measured there.

    Args:
        target: The target's name.
        file_format: The format of the file that it runs: targets of one format run the same file.
        budget: The limits there.
        latency_ms: The predicted latencies (N,), of the percentile that the budget limits.
        latency_errors: Their relative standard deviations (N,).
        peak_bytes: The predicted peak memories (N,).
        memory_error: Their relative standard deviation.
    """

    def __init__(
        self,
        target: str,
        file_format: str,
        budget: Budget,
        latency_ms: Vector,
        latency_errors: Vector,
        peak_bytes: Vector,
        memory_error: float,
    ) -> None:
        self.target, self.file_format, self.budget = target, file_format, budget
        self.latency_ms, self.peak_bytes = latency_ms, peak_bytes
        self.latency_errors = latency_errors
        self._latency = _Quantity(budget.latency_ms, latency_ms, latency_errors)
        self._memory = _Quantity(budget.memory_bytes, peak_bytes, np.full(len(peak_bytes), memory_error))
        self._is_rejected = np.zeros(len(latency_ms), dtype=bool)

    def __len__(self) -> int:
        return len(self.latency_ms)

    @property
    def excess(self) -> Vector:
        """The larger share (N,) of its two limits that each subnet is predicted to take: at most 1 where it fits."""
        return np.maximum(self.latency_ms / self.budget.latency_ms, self.peak_bytes / self.budget.memory_bytes)

    def learn(self, index: int, latency_ms: float, peak_bytes: float | None) -> None:
        """Correct the predictions by what a subnet was measured at: the latency that counts, and peak memory.

        Predictions for one device are off by nearly the same factor, so one subnet tells of the others.
        """
        self._latency.learn(index, latency_ms)
        if peak_bytes:
            self._memory.learn(index, peak_bytes)

    def reject(self, index: int) -> None:
        """Leave a subnet out from now on."""
        self._is_rejected[index] = True

    def log_chances(self) -> Vector:
        """Return the logarithms (2, N) of the chances that the subnets keep either limit; -inf for rejected ones."""
        chances = np.array([self._latency.log_chances(), self._memory.log_chances()])
        chances[:, self._is_rejected] = -np.inf
        return chances

    def likely(self) -> Vector:
        """Return the mask (N,) of the subnets that are likely to keep both limits."""
        chances = self.log_chances()
        mask: Vector = (chances >= _FITS).all(axis=0) & (chances.sum(axis=0) >= _LIKELY)
        return mask


class _Quantity:
    """A limit, and the predictions (N,) for it, which are corrected by the measured ones."""

    def __init__(self, limit: float, predicted: Vector, errors: Vector) -> None:
        self._limit, self._predicted, self._errors = limit, predicted, errors
        self._log_ratios: list[float] = []  # of measured to predicted

    def learn(self, index: int, measured: float) -> None:
        if self._predicted[index] > 0:
            self._log_ratios.append(math.log(measured / self._predicted[index]))

    def log_chances(self) -> Vector:
        from scipy.special import log_ndtr

        if math.isinf(self._limit):
            return np.zeros(len(self._predicted))
        shift = median(self._log_ratios) if self._log_ratios else 0.0
        margins = np.log(self._limit / np.maximum(self._predicted, 1e-12)) - shift
        chances: Vector = log_ndtr(margins * (1 + len(self._log_ratios)) / np.maximum(self._errors, 1e-6))
        return chances


class AccuracyEstimates:
    """The accuracies of N subnets' files by their format: predicted, until they are evaluated.

    A search prefers subnets whose accuracy is predicted too high, and a format may lose some. So each file that was
    evaluated corrects the predictions for the others of its format. What is not evaluated counts by the upper end of
    its prediction, a standard deviation above it: it is worth an evaluation as long as it may be the best.

    Args:
        predicted: The predicted accuracies (N,), 0 to 1.
        std: Their standard deviations (N,).
        optimism: The number of standard deviations; 0 where nothing is evaluated.
    """

    def __init__(self, predicted: Vector, std: Vector, optimism: float = 1.0) -> None:
        self.predicted, self.std, self._optimism = predicted, std, optimism
        self._known: dict[str, dict[int, float]] = {}

    def learn(self, index: int, file_format: str, accuracy: float) -> None:
        """Take the accuracy that a file was evaluated at."""
        self._known.setdefault(file_format, {})[index] = accuracy

    def known(self, index: int, file_format: str) -> float | None:
        """Return the accuracy that a file was evaluated at; None before it was."""
        return self._known.get(file_format, {}).get(index)

    def expected(self, index: int, file_format: str) -> float:
        """Return the accuracy that a file was evaluated at, or else its corrected prediction."""
        known = self.known(index, file_format)
        if known is not None:
            return known
        return min(1.0, max(0.0, float(self.predicted[index]) + self._bias(file_format)))

    def upper(self, file_format: str, only_known: bool = False) -> Vector:
        """Return the accuracies (N,) of files of a format: evaluated, or else the upper ends of their predictions.

        With ``only_known``, -inf for files that were not evaluated.
        """
        known = self._known.get(file_format, {})
        hoped = self.predicted + self._bias(file_format) + self._optimism * self.std
        found = np.full(len(hoped), -np.inf) if only_known else hoped
        found[list(known)] = list(known.values())
        return found

    def _bias(self, file_format: str) -> float:
        """Return how much more accurate than predicted the evaluated files of a format are, in the median."""
        known = self._known.get(file_format, {})
        return float(median(accuracy - self.predicted[row] for row, accuracy in known.items())) if known else 0.0


@dataclass(frozen=True)
class Candidate:
    """A subnet by its index, with the target that it is to run on of each device, and whether it is likely to fit."""

    index: int
    targets: tuple[TargetPredictions, ...]
    is_likely: bool = True


class Candidates:
    """The subnets for one or several devices, each of which has one or several targets to run them on.

    The best candidate is the most accurate one that is likely to keep the budgets of all devices. On each device it
    runs on the target whose file is the most accurate, and of equals on the fastest. Where only unlikely ones are
    left, the likeliest comes next, and three of them at most: when these fail, the others would, too.

    Args:
        estimates: The accuracies of N subnets.
        devices: The predictions for the targets of each device.
    """

    def __init__(self, estimates: AccuracyEstimates, devices: Sequence[Sequence[TargetPredictions]]) -> None:
        self._estimates, self._devices = estimates, devices
        self._unlikely = 0

    def best(self, only_known: bool = False) -> Candidate | None:
        """Return the candidate that is worth the next try; None when none is.

        With ``only_known``, the best of those whose files are all evaluated.
        """
        accuracies, costs, picks = [], [], []  # for each device, of the target that each subnet would run on
        for targets in self._devices:
            found = np.array([self._estimates.upper(each.file_format, only_known) for each in targets])
            found[~np.array([each.likely() for each in targets])] = -np.inf
            excess = np.array([each.excess for each in targets])
            accuracies.append(found.max(axis=0))
            picks.append(np.where(found == accuracies[-1], excess, np.inf).argmin(axis=0))
            costs.append(np.take_along_axis(excess, picks[-1][None], axis=0)[0])
        accuracy, cost = np.min(accuracies, axis=0), np.max(costs, axis=0)
        index = int(np.lexsort((cost, -accuracy))[0])
        if np.isfinite(accuracy[index]):
            return self._candidate(index, [int(pick[index]) for pick in picks])
        return None if only_known else self._best_unlikely()

    def reject(self, candidate: Candidate, target: TargetPredictions) -> None:
        """Leave a candidate out on the target where it failed."""
        target.reject(candidate.index)
        self._unlikely += not candidate.is_likely

    def _best_unlikely(self) -> Candidate | None:
        if self._unlikely >= _MOST_UNLIKELY:
            return None
        chances = [np.array([each.log_chances().sum(axis=0) for each in targets]) for targets in self._devices]
        joint = np.sum([each.max(axis=0) for each in chances], axis=0).round(3)
        if not np.isfinite(joint.max()):
            return None
        # Chances that differ by less than a thousandth are equal: then the order of accuracy counts.
        rows = np.flatnonzero(joint == joint.max())
        index = int(rows[np.argmax(self._estimates.predicted[rows])])
        return self._candidate(index, [int(each[:, index].argmax()) for each in chances], is_likely=False)

    def _candidate(self, index: int, picks: Sequence[int], is_likely: bool = True) -> Candidate:
        chosen = zip(self._devices, picks, strict=True)
        return Candidate(index, tuple(targets[pick] for targets, pick in chosen), is_likely)
