"""The step that chooses a subnet for a budget and proves it on the target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.bundle import run_model
from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.errors import NoChoiceError, UsageError
from edgenas.export import accuracy
from edgenas.files import digest, parse, read_bytes, read_document, write_document
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.inputs import digest_of_inputs
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.prepared_model import prepare
from edgenas.search import Front, candidates
from edgenas.space import Architecture, SearchSpace
from edgenas.units import format_bytes, format_ms

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

_KIND, _VERSION = "choice", 1
_MOST_TRIES = 20  # each try is another chance to pass by luck
_FAR_OFF = 1.25


@dataclass(frozen=True)
class Predicted:
    """What the front said: accuracy in 0..1, median latency in ms, peak memory of the process in bytes."""

    accuracy: float
    latency_ms: float
    peak_bytes: float


@dataclass(frozen=True)
class MeasuredSubnet:
    """What was found by running the file: validation accuracy of the subnet and of the file, latency and memory.

    Latency is the median over six processes, with its 95% interval.
    """

    subnet_accuracy: float
    accuracy: float
    latency_ms: float
    interval_ms: tuple[float, float]
    peak_bytes: int | None
    validity: str
    synthetic: bool


@dataclass(frozen=True)
class Rejection:
    """A candidate that was tried first, and why it was not kept."""

    architecture: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """An architecture for a budget on a target, with what was predicted and what was measured there."""

    arch: Architecture
    target: str
    budget: Budget
    predicted: Predicted
    measured: MeasuredSubnet
    rejected: tuple[Rejection, ...]
    inputs_digest: str

    def to_dict(self) -> dict[str, Any]:
        """The choice as plain data."""
        return {
            "inputs_digest": self.inputs_digest,
            "target": self.target,
            "budget": asdict(self.budget),
            "architecture": self.arch.to_dict(),
            "predicted": asdict(self.predicted),
            "measured": asdict(self.measured),
            "rejected": [asdict(rejection) for rejection in self.rejected],
        }

    def save(self, path: Path) -> None:
        """Write the choice as a JSON document."""
        write_document(path, _KIND, _VERSION, self.to_dict())

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> Choice:
        """Read a choice of ``space``. Raises FormatError when it is damaged."""
        body = read_document(path, _KIND, _VERSION)
        return cls(
            space.from_id(body["architecture"]["id"]),
            body["target"],
            parse(Budget, body["budget"], str(path)),
            parse(Predicted, body["predicted"], str(path)),
            parse(MeasuredSubnet, body["measured"], str(path)),
            tuple(parse(Rejection, rejection, str(path)) for rejection in body["rejected"]),
            body["inputs_digest"],
        )


def choose(run: Run, target: Target, budget: Budget, max_drop: float) -> Choice:
    """Try the front's candidates, the most accurate first, until one keeps the budget on the device."""
    front = run.front(target)
    if not 0 <= max_drop <= 1:
        raise UsageError(f"max_drop must be from 0 to 1 (100 points), but got {max_drop:g}")
    order = candidates(front, budget)[:_MOST_TRIES]
    inputs = (digest(read_bytes(run.layout.front(target.name))), run.weights_digest, target.to_dict())
    current = digest_of_inputs(*inputs, str(budget), max_drop, SETTINGS.to_dict())
    path = run.layout.choice(target.name, _file_name(budget))
    with run.layout.writing():
        if path.exists():
            choice = Choice.load(path, run.space)
            if choice.inputs_digest == current:
                run.progress.say(f"choose    already done ({choice.arch})")
                return choice
        choice = _try_candidates(run, target, budget, max_drop, front, order.tolist(), current)
        choice.save(path)
    return choice


def _try_candidates(
    run: Run, target: Target, budget: Budget, max_drop: float, front: Front, order: list[int], current: str
) -> Choice:
    rejected: list[Rejection] = []
    with (
        MeasurementStore(run.layout.measurements(target.name), target, SETTINGS, say=run.progress.say) as measurer,
        run.progress.step("choose", len(order)) as bar,
    ):
        for index in order:
            architecture = run.space.decode(front.genes[index : index + 1])[0]
            bar(len(rejected), f"trying {architecture}")
            measured = _prove(run, architecture, target, measurer)
            _compare(run, float(front.latency_ms[index]), measured)
            reason = _shortfall(measured, budget, max_drop)
            if reason is None:
                predicted = Predicted(
                    float(front.accuracy[index]), float(front.latency_ms[index]), float(front.peak_bytes[index])
                )
                return Choice(architecture, target.name, budget, predicted, measured, tuple(rejected), current)
            rejected.append(Rejection(architecture.id, reason))
            run.progress.say(f"choose    {architecture} not kept: {reason}; taking the next one")
    raise NoChoiceError(
        f"none of the {len(rejected)} best candidates kept the budget ({budget}) on {target.name} when measured; the"
        f" last, {rejected[-1].architecture}: {rejected[-1].reason}; raise the budget or profile longer"
    )


def _prove(run: Run, architecture: Architecture, target: Target, measurer: MeasurementStore) -> MeasuredSubnet:
    """Make a candidate's file as the target runs it, run it on the validation images here and measure it there."""
    prepared, kind = prepare(run, architecture), format_of(target)
    split = run.data.validation
    model, _ = prepared.build(kind)
    found = accuracy(run_model(model, kind.format, prepared.parity_reference.inputs), split.labels)
    rounds = measurer.measure_reliably(model)
    return MeasuredSubnet(
        subnet_accuracy=accuracy(prepared.parity_reference.expected, split.labels),
        accuracy=found,
        latency_ms=rounds.median_ms,
        interval_ms=rounds.interval_ms,
        peak_bytes=rounds.peak_bytes,
        validity=str(rounds.validity),
        synthetic=rounds.synthetic,
    )


def _compare(run: Run, predicted_ms: float, measured: MeasuredSubnet) -> None:
    """Say so when the table is far off: then better candidates may have been left out, or worse ones tried."""
    off = measured.latency_ms / predicted_ms
    if not 1 / _FAR_OFF < off < _FAR_OFF:
        run.progress.say(
            f"choose    measured {format_ms(measured.latency_ms)} where {format_ms(predicted_ms)} was predicted:"
            " the latency table does not fit this device any more, profile it again"
        )


def _shortfall(measured: MeasuredSubnet, budget: Budget, max_drop: float) -> str | None:
    """Why a candidate is not kept; None when it is."""
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


def _file_name(budget: Budget) -> str:
    limits = []
    if budget.latency is not None:
        limits.append(f"latency-{budget.latency_ms:g}ms")
    if budget.memory is not None:
        limits.append(f"memory-{budget.memory_bytes:.0f}B")
    return "_".join(limits)
