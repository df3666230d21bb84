"""What was chosen for a budget: the document, and what else was tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen

from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.errors import FormatError, RunError, SpaceError
from edgenas.files import Amount, Count, Fraction, Milliseconds, Number, ShortText
from edgenas.pipeline.documents import CHOICE
from edgenas.pipeline.workspace import Workspace
from edgenas.shell import format_command
from edgenas.space import Architecture, SearchSpace
from edgenas.units import format_bytes, format_ms, format_ms_interval


@dataclass(frozen=True)
class Prediction:
    """The prediction for a subnet: accuracy in 0..1, latency in ms, peak memory of the process in bytes.

    The latency is that of the percentile that the budget limits, by default the median. ``accuracy_std`` is the
    standard deviation of the accuracy, 0 where it is unknown.
    """

    accuracy: Fraction
    latency_ms: Amount
    peak_bytes: Amount
    accuracy_std: Fraction = 0.0

    def __repr__(self) -> str:
        return f"Prediction({self.accuracy:.2%}, {format_ms(self.latency_ms)}, {format_bytes(self.peak_bytes)})"


@dataclass(frozen=True)
class MeasuredSubnet:
    """A candidate as it was measured: validation accuracy of the subnet and of its file, latency, memory.

    Latency is the median over six processes, with its 95% interval. Where the budget limits another percentile,
    ``tail_ms`` is that of all runs, and ``tail_interval_ms`` the 95% interval over the processes. ``peak_bytes``
    is None where the device does not say.
    """

    subnet_accuracy: Fraction
    accuracy: Fraction
    latency_ms: Milliseconds
    interval_ms: tuple[Amount, Amount]
    peak_bytes: Count | None
    validity: ShortText
    synthetic: bool
    tail_ms: Milliseconds | None = None
    tail_interval_ms: tuple[Amount, Amount] | None = None

    @property
    def limited_ms(self) -> float:
        """The latency of the percentile that the budget limits."""
        return self.latency_ms if self.tail_ms is None else self.tail_ms

    @property
    def limited_upper_ms(self) -> float:
        """The upper end of its 95% interval, which must keep the budget."""
        return (self.interval_ms if self.tail_interval_ms is None else self.tail_interval_ms)[1]

    def __repr__(self) -> str:
        memory = "memory unknown" if self.peak_bytes is None else format_bytes(self.peak_bytes)
        interval = f"95% interval {format_ms_interval(self.interval_ms)}"
        return f"MeasuredSubnet({self.accuracy:.2%}, {format_ms(self.latency_ms)}, {interval}, {memory})"


@dataclass(frozen=True)
class Deployment:
    """How a chosen subnet runs on one device: the target, and what it takes there.

    ``measured`` is None where nothing was measured, and ``test_accuracy`` of its file on the test images, which never
    decide a choice, where the file was not made.
    """

    target: ShortText
    budget: Budget
    predicted: Prediction
    measured: MeasuredSubnet | None
    test_accuracy: Fraction | None = None

    def __repr__(self) -> str:
        found = f"{self.predicted} predicted only" if self.measured is None else repr(self.measured)
        return f"Deployment({self.target}, {self.budget}, {found})"


@dataclass(frozen=True)
class RejectedCandidate:
    """A candidate that was measured or evaluated before the chosen one, and the reason that it was not kept."""

    architecture: ShortText
    reason: ShortText
    target: ShortText = ""


@dataclass(frozen=True)
class EvaluatedFile:
    """A file that was run on the validation images: predicted accuracy, that of the PyTorch subnet, its own."""

    architecture: ShortText
    format: ShortText
    predicted_accuracy: Fraction
    subnet_accuracy: Fraction
    accuracy: Fraction


@dataclass(frozen=True)
class TargetOutcome:
    """The best that a target could do within the budget, and why it was chosen or not.

    ``architecture`` is None where nothing is likely to fit. ``accuracy`` is that of the file where ``is_evaluated``,
    else predicted; ``latency_ms`` is measured where ``is_measured``, else predicted.
    """

    target: ShortText
    outcome: ShortText
    architecture: ShortText | None = None
    accuracy: Fraction | None = None
    is_evaluated: bool = False
    latency_ms: Amount | None = None
    is_measured: bool = False


@dataclass(frozen=True)
class Regret:
    """What one subnet costs on one device: the best one for ``best_on`` alone, or with ``""`` the one chosen for all.

    ``latency_ms`` is measured where ``is_measured``, else predicted. ``lost`` is its accuracy below that of the best
    subnet for ``device`` alone; None where it breaks the budget, or its file loses too much.
    """

    best_on: ShortText
    architecture: ShortText
    device: ShortText
    target: ShortText
    accuracy: Fraction
    latency_ms: Amount
    is_measured: bool
    lost: Number | None


@dataclass(frozen=True)
class _ChoiceData:
    """The keys of a choice's file; of the architecture's description only the id is read."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    inputs_digest: ShortText
    architecture: dict[str, Any]
    deployments: Annotated[tuple[Deployment, ...], MinLen(1)]
    considered: tuple[TargetOutcome, ...]
    evaluated: tuple[EvaluatedFile, ...]
    rejected: tuple[RejectedCandidate, ...]
    regret: tuple[Regret, ...]


@dataclass(frozen=True)
class Choice:
    """An architecture for a budget on one or several devices, with what was predicted, measured and tried.

    Attributes:
        arch: The architecture.
        deployments: The target that it runs on of each device, in the order of the devices.
        considered: What each target could do.
        evaluated: The files that were run on the validation images.
        rejected: The candidates that were tried before and not kept.
        regret: For several devices, what the best subnet of each costs on the others.
        inputs_digest: The digest of everything that the choice depends on.
    """

    arch: Architecture
    deployments: tuple[Deployment, ...]
    considered: tuple[TargetOutcome, ...] = ()
    evaluated: tuple[EvaluatedFile, ...] = ()
    rejected: tuple[RejectedCandidate, ...] = ()
    regret: tuple[Regret, ...] = ()
    inputs_digest: str = ""

    def __repr__(self) -> str:
        places = "; ".join(f"{each.budget} on {each.target}" for each in self.deployments)
        return f"Choice({self.arch.id}, {places}{'' if self.is_measured else ', predicted only'})"

    @property
    def is_measured(self) -> bool:
        """Whether it was proven on every device; else it is only predicted to keep the budgets."""
        return all(each.measured is not None for each in self.deployments)

    def on(self, target: Target) -> Deployment | None:
        """Return its deployment on a target; None where it was not chosen for that."""
        return next((each for each in self.deployments if each.target == target.name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as plain data."""
        return {
            "inputs_digest": self.inputs_digest,
            "architecture": self.arch.to_dict(),
            "deployments": [asdict(each) for each in self.deployments],
            "considered": [asdict(each) for each in self.considered],
            "evaluated": [asdict(each) for each in self.evaluated],
            "rejected": [asdict(each) for each in self.rejected],
            "regret": [asdict(each) for each in self.regret],
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
            raise FormatError(f"{path}: {error}; delete it and choose again") from None
        return cls(
            architecture, data.deployments, data.considered, data.evaluated, data.rejected, data.regret,
            data.inputs_digest,
        )  # fmt: skip


def load_choices(workspace: Workspace, target: Target) -> list[Choice]:
    """Return what was chosen for a target, alone or with others, by budget; RunError before anything was."""
    choices = _load_all(workspace, [target])
    if not choices:
        root = workspace.folder.root
        raise RunError(
            f"{root}: has no choice for {target.name} yet;"
            f" run: {format_command('choose', '--run', root)} --device {target.cli_name} --latency 5ms"
        )
    return choices


def find_chosen(workspace: Workspace, targets: Sequence[Target]) -> tuple[Architecture, Target]:
    """Return the architecture that was chosen for one of a device's targets, and that target.

    Raises RunError for none, and for several different ones.
    """
    choices = _load_all(workspace, targets) or load_choices(workspace, targets[0])
    found = {(choice.arch.id, target): choice.arch for choice in choices for target in targets if choice.on(target)}
    if len(found) > 1:
        listed = ", ".join(f"{choice.arch.id} ({_describe_places(choice)})" for choice in choices)
        raise RunError(f"{targets[0].profile.name} has several choices: {listed}; name one with --arch")
    ((_, target), architecture) = next(iter(found.items()))
    return architecture, target


def find_target_of_choice(workspace: Workspace, targets: Sequence[Target], architecture: Architecture) -> Target | None:
    """Return the only one of some targets that an architecture was chosen for; None for none and for several."""
    choices = [choice for choice in _load_all(workspace, targets) if choice.arch == architecture]
    found = {target for choice in choices for target in targets if choice.on(target)}
    return found.pop() if len(found) == 1 else None


def find_only_choice(workspace: Workspace) -> Architecture:
    """Return what was chosen, for whatever targets; RunError for nothing, and for several different architectures."""
    folder = workspace.folder
    choices = [Choice.load(path, workspace.space) for path in folder.choices()]
    chosen = {choice.arch.id: choice for choice in choices}
    if len(chosen) == 1:
        return choices[0].arch
    if not chosen:
        command = format_command("choose", "--run", folder.root, "--latency", "5ms")
        raise RunError(f"{folder.root}: has no choice yet; run: {command}")
    listed = ", ".join(f"{each} ({_describe_places(choice)})" for each, choice in chosen.items())
    raise RunError(f"{folder.root}: has several choices: {listed}; name one with --arch")


def _load_all(workspace: Workspace, targets: Sequence[Target]) -> list[Choice]:
    """Return the choices for any of some targets."""
    choices = [Choice.load(path, workspace.space) for path in workspace.folder.choices()]
    return [choice for choice in choices if any(choice.on(target) for target in targets)]


def _describe_places(choice: Choice) -> str:
    return ", ".join(f"{each.budget} on {each.target}" for each in choice.deployments)
