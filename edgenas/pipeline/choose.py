"""The step that chooses a subnet for a budget and measures its file on the target."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgenas.costs import Budget, Vector
from edgenas.devices import Target, check_present
from edgenas.errors import FormatError, NoChoiceError, RunError, SpaceError, UsageError
from edgenas.export import top1_accuracy
from edgenas.files import Amount, Count, Fraction, Milliseconds, ShortText, read_bytes, sha256_hex
from edgenas.pipeline.documents import CHOICE
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.finetuned import add_gains, digest_weights, find_best_version
from edgenas.pipeline.inputs_digests import choice_inputs_digest
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.prepared_model import prepare
from edgenas.pipeline.workspace import Workspace
from edgenas.search import Candidates, Front
from edgenas.shell import format_command
from edgenas.space import Architecture, SearchSpace
from edgenas.units import format_bytes, format_ms, format_ms_interval

_MOST_TRIES = 20  # each try is another chance to pass by luck
_FAR_OFF = 1.25  # measured over predicted: from here on the table may not fit the device any more,
_MOST_STDS = 3.0  # unless the prediction is no surer than that
_UNKNOWN_MEMORY_ERROR = 0.1  # where the device does not report peak memory
_STD_BY_MEAN_ERROR = 1.2533  # of a normal distribution: standard deviation by mean absolute deviation


@dataclass(frozen=True)
class Prediction:
    """The front's prediction: accuracy in 0..1, median latency in ms, peak memory of the process in bytes."""

    accuracy: Fraction
    latency_ms: Amount
    peak_bytes: Amount

    def __repr__(self) -> str:
        return f"Prediction({self.accuracy:.2%}, {format_ms(self.latency_ms)}, {format_bytes(self.peak_bytes)})"


@dataclass(frozen=True)
class MeasuredSubnet:
    """A candidate as it was measured: validation accuracy of the subnet and of its file, latency, memory.

    Latency is the median over six processes, with its 95% interval; ``peak_bytes``
    is None where the device does not say.
    """

    subnet_accuracy: Fraction
    accuracy: Fraction
    latency_ms: Milliseconds
    interval_ms: tuple[Amount, Amount]
    peak_bytes: Count | None
    validity: ShortText
    synthetic: bool

    def __repr__(self) -> str:
        memory = "memory unknown" if self.peak_bytes is None else format_bytes(self.peak_bytes)
        interval = f"95% interval {format_ms_interval(self.interval_ms)}"
        return f"MeasuredSubnet({self.accuracy:.2%}, {format_ms(self.latency_ms)}, {interval}, {memory})"


@dataclass(frozen=True)
class RejectedCandidate:
    """A candidate that was tried before the chosen one, and the reason that it was not kept."""

    architecture: ShortText
    reason: ShortText


@dataclass(frozen=True)
class _ChoiceData:
    """The keys of a choice's file; of the architecture's description only the id is read."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    inputs_digest: ShortText
    target: ShortText
    budget: Budget
    architecture: dict[str, Any]
    predicted: Prediction
    measured: MeasuredSubnet
    rejected: tuple[RejectedCandidate, ...]


@dataclass(frozen=True)
class Choice:
    """An architecture for a budget on a target, with what was predicted and what was measured there."""

    arch: Architecture
    target: str
    budget: Budget
    predicted: Prediction
    measured: MeasuredSubnet
    rejected: tuple[RejectedCandidate, ...]
    inputs_digest: str

    def __repr__(self) -> str:
        measured = f"{self.measured.accuracy:.2%}, {format_ms(self.measured.latency_ms)}"
        return f"Choice({self.arch.id}, {measured}, {self.budget} on {self.target})"

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as plain data."""
        return {
            "inputs_digest": self.inputs_digest,
            "target": self.target,
            "budget": asdict(self.budget),
            "architecture": self.arch.to_dict(),
            "predicted": asdict(self.predicted),
            "measured": asdict(self.measured),
            "rejected": [asdict(candidate) for candidate in self.rejected],
        }

    def save(self, path: str | Path) -> None:
        """Write the choice as a JSON document."""
        CHOICE.write(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path, space: SearchSpace) -> Choice:
        """Read a choice of ``space``; raise FormatError when it is damaged."""
        data = CHOICE.read_as(_ChoiceData, Path(path))
        try:
            architecture = space.from_id(str(data.architecture.get("id")))
        except SpaceError as error:
            raise FormatError(f"{path}: {error}; choose again") from None
        return cls(
            architecture, data.target, data.budget, data.predicted, data.measured, data.rejected, data.inputs_digest
        )


def load_choices(workspace: Workspace, target: Target) -> list[Choice]:
    """Return what was chosen for a target, by budget; RunError before anything was."""
    root, paths = workspace.folder.root, workspace.folder.choices(target.name)
    if not paths:
        raise RunError(
            f"{root}: has no choice for {target.name} yet;"
            f" run: {format_command('choose', '--run', root)} --device {target.cli_name} --latency 5ms"
        )
    return [Choice.load(path, workspace.space) for path in paths]


def find_chosen(workspace: Workspace, target: Target) -> Architecture:
    """Return the architecture that was chosen for a target; RunError for none, and for several different ones."""
    choices = load_choices(workspace, target)
    if len({choice.arch.id for choice in choices}) > 1:
        listed = ", ".join(f"{choice.arch.id} ({choice.budget})" for choice in choices)
        raise RunError(f"{target.name} has several choices: {listed}; name one with --arch")
    return choices[0].arch


def choose(workspace: Workspace, target: Target, budget: Budget, max_drop: float) -> Choice:
    """Try the front's candidates until one keeps the budget on the device, in the order of ``Candidates``."""
    folder, progress = workspace.folder, workspace.progress
    if not folder.front(target.name).exists():
        workspace.require_data()  # without images no front can be made
    check_present(target.profile)
    if not 0 <= max_drop <= 1:
        raise UsageError(f"max_drop must be from 0 to 1 (100 points), but got {max_drop:g}")
    path = folder.choice(target.name, _budget_file_name(budget))
    with folder.writing():  # from here on, so that front and weights stay those of the digest
        front = workspace.front(target)
        front_sha256 = sha256_hex(read_bytes(folder.front(target.name)))
        weights_digest = digest_weights(workspace)
        inputs_digest = choice_inputs_digest(front_sha256, weights_digest, target.to_dict(), budget, max_drop)
        if path.exists():
            choice = Choice.load(path, workspace.space)
            if choice.inputs_digest == inputs_digest:
                progress.say(f"choose    already done ({choice.arch})")
                return choice
        latency_errors, memory_error = _prediction_errors(workspace, target, front)
        candidates = Candidates(add_gains(workspace, front), budget, latency_errors, memory_error)
        most = min(len(candidates), _MOST_TRIES)
        rejected: list[RejectedCandidate] = []
        is_warned = False
        with (
            MeasurementStore(workspace.measurement_log(target), target, SETTINGS) as store,
            progress.step("choose", most) as bar,
        ):
            while len(rejected) < most and (index := candidates.take()) is not None:
                architecture = find_best_version(workspace, workspace.space.decode(front.genes[index : index + 1])[0])
                predicted = _read_prediction(front, index)
                bar(len(rejected), f"trying {architecture}")
                measured = _measure_candidate(workspace, architecture, target, store)
                candidates.learn(index, measured.interval_ms[1], measured.peak_bytes)
                if not is_warned and _is_far_off(predicted.latency_ms, measured.latency_ms, latency_errors[index]):
                    is_warned = True
                    _warn_of_misfit(workspace, target, predicted, measured)
                reason = find_shortfall(measured, budget, max_drop)
                if reason is None:
                    found = (predicted, measured, tuple(rejected), inputs_digest)
                    choice = Choice(architecture, target.name, budget, *found)
                    choice.save(path)
                    return choice
                rejected.append(RejectedCandidate(architecture.id, reason))
                progress.say(f"choose    {architecture} rejected: {reason}; trying the next candidate")
    raise NoChoiceError(
        f"none of the {len(rejected)} best candidates kept the budget ({budget}) on {target.name} when measured; the"
        f" last, {rejected[-1].architecture}: {rejected[-1].reason}; raise the budget or profile longer"
    )


def _prediction_errors(workspace: Workspace, target: Target, front: Front) -> tuple[Vector, float]:
    """Return the relative standard deviations of the front's predictions: of each latency (N,), and of memory."""
    table = workspace.table(target)
    assert table.holdout is not None  # only a device that is present has a front to choose from
    latency = np.hypot(table.latency_std_ms(front.genes) / front.latency_ms, table.holdout.drift)
    mape = table.holdout.memory_mape
    return latency, _UNKNOWN_MEMORY_ERROR if mape is None else _STD_BY_MEAN_ERROR * mape


def _read_prediction(front: Front, index: int) -> Prediction:
    return Prediction(float(front.accuracy[index]), float(front.latency_ms[index]), float(front.peak_bytes[index]))


def _measure_candidate(
    workspace: Workspace, architecture: Architecture, target: Target, store: MeasurementStore
) -> MeasuredSubnet:
    """Make a candidate's file, run it on the validation images here, and measure it on the device."""
    prepared, export_format = prepare(workspace, architecture), format_of(target)
    labels = workspace.data.validation.labels
    model = prepared.build(export_format)
    file_accuracy = top1_accuracy(export_format.runtime.run(model, prepared.parity_reference.inputs), labels)
    result = store.measure_reliably(model)
    return MeasuredSubnet(
        subnet_accuracy=top1_accuracy(prepared.parity_reference.expected, labels),
        accuracy=file_accuracy,
        latency_ms=result.median_ms,
        interval_ms=result.interval_ms,
        peak_bytes=result.peak_bytes,
        validity=str(result.validity),
        synthetic=result.synthetic,
    )


def _is_far_off(predicted_ms: float, measured_ms: float, error: float) -> bool:
    """Return whether a prediction is off by more than a quarter, and by more than its error explains."""
    return abs(math.log(measured_ms / predicted_ms)) > max(math.log(_FAR_OFF), _MOST_STDS * error)


def _warn_of_misfit(workspace: Workspace, target: Target, predicted: Prediction, measured: MeasuredSubnet) -> None:
    """Tell the user that the table may be off, because then better candidates may not have been tried."""
    compared = f"measured {format_ms(measured.latency_ms)}, predicted {format_ms(predicted.latency_ms)}"
    check = f"{format_command('profile', '--run', workspace.folder.root)} --device {target.cli_name} --check"
    workspace.progress.say(
        f"choose    {compared}: the latency table may not fit this device any more; check it with: {check}"
    )


def find_shortfall(measured: MeasuredSubnet, budget: Budget, max_drop: float) -> str | None:
    """Return the reason to reject a candidate; None when it keeps the budget and its accuracy."""
    upper = measured.interval_ms[1]
    if upper > budget.latency_ms:
        return (
            f"its median latency is {format_ms(measured.latency_ms)}, at 95% up to {format_ms(upper)},"
            f" over the budget of {format_ms(budget.latency_ms)}"
        )
    if budget.memory is not None and measured.peak_bytes is None:
        return "the device does not say how much memory it took; give a budget without memory"
    if measured.peak_bytes is not None and measured.peak_bytes > budget.memory_bytes:
        peak, limit = format_bytes(measured.peak_bytes), format_bytes(budget.memory_bytes)
        return f"its peak memory is {peak}, over the budget of {limit}"
    if measured.subnet_accuracy - measured.accuracy > max_drop + 1e-9:  # 1e-9: the difference of two shares rounds
        return (
            f"its file has accuracy {measured.accuracy:.2%}, the subnet {measured.subnet_accuracy:.2%},"
            f" over {100 * max_drop:g} points less"
        )
    return None


def _budget_file_name(budget: Budget) -> str:
    limits = []
    if budget.latency is not None:
        limits.append(f"latency-{budget.latency_ms:g}ms")
    if budget.memory is not None:
        limits.append(f"memory-{budget.memory_bytes:.0f}B")
    return "_".join(limits)
