"""Candidates that are tried: first their files on images here, then the best of them on the devices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.errors import ModelError, VerificationError
from edgenas.pipeline.candidate_files import CandidateFiles
from edgenas.pipeline.choice import Deployment, EvaluatedFile, MeasuredSubnet, Prediction, RejectedCandidate
from edgenas.pipeline.progress import Bar
from edgenas.pipeline.subnet_pool import SubnetPool
from edgenas.pipeline.workspace import Workspace
from edgenas.search import Candidate, Candidates, TargetPredictions
from edgenas.shell import format_command
from edgenas.units import format_bytes, format_ms

_MOST_TRIES = 20  # each try is another chance to pass by luck
_MOST_EVALUATED = 12  # before the best of them is measured: each takes seconds
USUAL_WORK = 2 * _MOST_EVALUATED  # files that are evaluated or measured; rarely more
_FAR_OFF = 1.25  # measured over predicted: from here on the table may not fit the device any more,
_MOST_STDS = 3.0  # unless the prediction is no surer than that


class Trials:
    """Evaluates and measures candidates of a pool, and keeps what was found of each.

    Args:
        workspace: The run, whose lock is held.
        pool: The subnets, with their predictions, which learn from what is found.
        targets: The targets by their names.
        max_drop: The accuracy that a file may lose against its subnet, as a fraction.
        files: What evaluates and measures; None where everything stays predicted.
        bar: Shows the progress.
    """

    def __init__(
        self,
        workspace: Workspace,
        pool: SubnetPool,
        targets: Mapping[str, Target],
        max_drop: float,
        files: CandidateFiles | None,
        bar: Bar,
    ) -> None:
        self._workspace, self._pool, self._targets = workspace, pool, targets
        self._max_drop, self._files, self._bar = max_drop, files, bar
        self._accuracies: dict[tuple[int, str], tuple[float, float]] = {}  # of subnet and file
        self._broken: set[tuple[int, str]] = set()  # files that cannot be evaluated
        self._is_warned = False
        self.loses_too_much = False  # a file, against its subnet
        self.measured: dict[tuple[int, str], MeasuredSubnet] = {}
        self.evaluated: list[EvaluatedFile] = []
        self.rejected: list[RejectedCandidate] = []

    def evaluate_best_of_each_target(self) -> None:
        """Evaluate the best candidate of each target, so that each format is judged by a file of its own."""
        for target in (target for targets in self._pool.predictions for target in targets):
            best = Candidates(self._pool.estimates, [[target]]).best()
            if best is not None and best.is_likely:
                self.accuracy(best.index, target)

    def settle(self, candidates: Candidates) -> Candidate | None:
        """Return the best candidate whose files are evaluated; None when none is worth a try.

        Files are evaluated until no other one may be better, or a dozen of them were.
        """
        left = _MOST_EVALUATED
        while len(self.rejected) < _MOST_TRIES:
            candidate = (candidates.best(only_known=True) if left <= 0 else None) or candidates.best()
            if candidate is None or self._files is None:
                return candidate
            missing = [target for target in candidate.targets if not self._is_tried(candidate.index, target)]
            if not missing:
                return candidate
            for target in missing:
                self._evaluate(self._files, candidate.index, target)
            left -= 1
        return None

    def is_evaluated(self, index: int, target: TargetPredictions) -> bool:
        """Return whether the file of a subnet for a target was evaluated."""
        return (index, target.file_format) in self._accuracies

    def _is_tried(self, index: int, target: TargetPredictions) -> bool:
        """Return whether the file was evaluated, or cannot be."""
        return self.is_evaluated(index, target) or (index, target.file_format) in self._broken

    def accuracy(self, index: int, target: TargetPredictions) -> float:
        """Return the accuracy of a subnet's file for a target; where there is no such file, the prediction."""
        if self._files is None:
            return float(self._pool.estimates.predicted[index])
        if not self._is_tried(index, target):
            self._evaluate(self._files, index, target)
        if not self.is_evaluated(index, target):
            return self._pool.estimates.expected(index, target.file_format)
        return self._accuracies[index, target.file_format][1]

    def prove(self, candidates: Candidates, candidate: Candidate) -> tuple[Deployment, ...] | None:
        """Return a candidate's deployments, measured on each device; None where it falls short on one."""
        deployments = []
        for target in candidate.targets:
            predicted, measured = self._pool.predict(candidate.index, target), None
            if self._files is not None:
                measured = self._measure(self._files, candidate.index, target, predicted)
                reason = find_shortfall(measured, target.budget)
                if reason is not None:
                    candidates.reject(candidate, target)
                    self._record_rejection(candidate.index, target, reason)
                    return None
            deployments.append(Deployment(target.target, target.budget, predicted, measured))
        return tuple(deployments)

    def add_test_accuracy(self, index: int, deployment: Deployment) -> Deployment:
        """Return a deployment with the accuracy of its file on the test images."""
        if self._files is None:
            return deployment
        architecture, target = self._pool.architecture(index), self._targets[deployment.target]
        return replace(deployment, test_accuracy=self._files.test_accuracy(architecture, target))

    def _evaluate(self, files: CandidateFiles, index: int, target: TargetPredictions) -> None:
        """Evaluate a file; reject it, on every target that runs it, where it loses too much against its subnet."""
        architecture, estimates = self._pool.architecture(index), self._pool.estimates
        self._show(f"evaluating {architecture} as {target.file_format}")
        try:
            subnet, accuracy = files.evaluate(architecture, self._targets[target.target])
        except (ModelError, VerificationError) as error:
            self._broken.add((index, target.file_format))
            self._reject_file(index, target, str(error))
            return
        self._accuracies[index, target.file_format] = subnet, accuracy
        predicted = float(estimates.predicted[index])
        self.evaluated.append(EvaluatedFile(architecture.id, target.file_format, predicted, subnet, accuracy))
        estimates.learn(index, target.file_format, accuracy)
        if subnet - accuracy > self._max_drop + 1e-9:  # 1e-9: the difference of two shares rounds
            self.loses_too_much = True
            drop = f"over {100 * self._max_drop:g} points less"
            self._reject_file(index, target, f"its file has accuracy {accuracy:.2%}, the subnet {subnet:.2%}, {drop}")

    def _reject_file(self, index: int, target: TargetPredictions, reason: str) -> None:
        """Reject a subnet on every target that runs its file of this format."""
        for other in (other for targets in self._pool.predictions for other in targets):
            if other.file_format == target.file_format:
                other.reject(index)
        self._record_rejection(index, target, reason)

    def _measure(
        self, files: CandidateFiles, index: int, target: TargetPredictions, predicted: Prediction
    ) -> MeasuredSubnet:
        architecture = self._pool.architecture(index)
        self._show(f"measuring {architecture} on {target.target}")
        accuracies = self._accuracies[index, target.file_format]
        measured = files.measure(architecture, self._targets[target.target], target.budget, accuracies)
        self.measured[index, target.target] = measured
        target.learn(index, measured.limited_upper_ms, measured.peak_bytes)
        error = float(target.latency_errors[index])
        if not self._is_warned and _is_far_off(predicted.latency_ms, measured.limited_ms, error):
            self._is_warned = True
            self._warn_of_misfit(target, predicted, measured)
        return measured

    def _show(self, note: str) -> None:
        self._bar(min(len(self.evaluated) + len(self.measured), USUAL_WORK - 1), note)

    def _record_rejection(self, index: int, target: TargetPredictions, reason: str) -> None:
        architecture = self._pool.architecture(index)
        self.rejected.append(RejectedCandidate(architecture.id, reason, target.target))
        self._workspace.progress.say(
            f"choose    {architecture} rejected on {target.target}: {reason}; trying the next candidate"
        )

    def _warn_of_misfit(self, target: TargetPredictions, predicted: Prediction, measured: MeasuredSubnet) -> None:
        """Tell the user that the table may be off, because then better candidates may not have been tried."""
        compared = f"measured {format_ms(measured.limited_ms)}, predicted {format_ms(predicted.latency_ms)}"
        device = self._targets[target.target].cli_name
        check = f"{format_command('profile', '--run', self._workspace.folder.root)} --device {device} --check"
        self._workspace.progress.say(
            f"choose    {compared}: the latency table may not fit this device any more; check it with: {check}"
        )


def find_shortfall(measured: MeasuredSubnet, budget: Budget) -> str | None:
    """Return the reason to reject a measured candidate; None when it keeps the budget."""
    if measured.limited_upper_ms > budget.latency_ms:
        what = f"latency at percentile {budget.percentile}" if budget.is_of_tail else "median latency"
        return (
            f"its {what} is {format_ms(measured.limited_ms)}, at 95% up to {format_ms(measured.limited_upper_ms)},"
            f" over the budget of {format_ms(budget.latency_ms)}"
        )
    if budget.memory is not None and measured.peak_bytes is None:
        return "the device does not say how much memory it took; give a budget without memory"
    if measured.peak_bytes is not None and measured.peak_bytes > budget.memory_bytes:
        peak, limit = format_bytes(measured.peak_bytes), format_bytes(budget.memory_bytes)
        return f"its peak memory is {peak}, over the budget of {limit}"
    return None


def _is_far_off(predicted_ms: float, measured_ms: float, error: float) -> bool:
    """Return whether a prediction is off by more than a quarter, and by more than its error explains."""
    return abs(math.log(measured_ms / predicted_ms)) > max(math.log(_FAR_OFF), _MOST_STDS * error)
