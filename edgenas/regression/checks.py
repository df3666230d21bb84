"""Several checks in one call: what is asked for, as options or as a YAML file, and what came of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from edgenas.devices import load_profile
from edgenas.errors import EdgeNASError, ExitCode, InterruptedByUserError, UsageError
from edgenas.files import ShortText, check_keys, parse_dataclass, read_yaml
from edgenas.profilers import ModelInputs
from edgenas.regression.check import check_model
from edgenas.regression.limits import parse_limits
from edgenas.regression.model_check import ModelCheck
from edgenas.regression.outcome import Outcome
from edgenas.regression.rounds import SECONDS, check_seconds

_LISTS = ("latency", "memory", "size", "shape")  # keys that may also have a single text
# The exit code of several checks is the first of these that one of them has.
_SEVERITY = (
    ExitCode.INTERRUPTED,
    ExitCode.REGRESSED,
    ExitCode.FAILED,
    ExitCode.WRONG_USE,
    ExitCode.INCOMPARABLE,
    ExitCode.NOT_MEASURABLE,
    ExitCode.OK,
)


@dataclass(frozen=True)
class CheckRequest:
    """One check as it is asked for; the keys of an entry of a YAML file, and the options of ``edgenas regress check``.

    Attributes:
        model: an ONNX or TFLite file, or a bundle. Paths are relative to the working folder.
        device: a device profile: its name or a YAML file.
        baseline: the file of a baseline.
        name: the name in reports and of the history; by default those of model and device.
        latency: limits of the latency, as ``+5%`` and ``15ms``; memory and size likewise.
        seconds: the most time for the measurements.
        shape: shapes of open inputs, as ``image=1x3x224x224``.
        inputs: an .npz file with the inputs.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: ShortText
    device: ShortText = "localhost"
    baseline: ShortText | None = None
    name: ShortText = ""
    latency: tuple[ShortText, ...] = ()
    memory: tuple[ShortText, ...] = ()
    size: tuple[ShortText, ...] = ()
    seconds: float = SECONDS
    runtime: ShortText | None = None
    precision: ShortText | None = None
    threads: int | None = None
    shape: tuple[ShortText, ...] = ()
    inputs: ShortText | None = None

    @property
    def label(self) -> str:
        """The name, or else those of model and device."""
        return self.name or f"{Path(self.model).name} on {Path(self.device).stem}"

    def validate(self) -> None:
        """Raise UsageError for a limit or a time that is none, before anything is measured."""
        parse_limits({"latency": self.latency, "memory": self.memory, "size": self.size}, self.baseline is not None)
        check_seconds(self.seconds)

    def run(self, on_round: Callable[[float], None] = lambda seconds: None) -> ModelCheck:
        """Run the check; raise as ``check_model`` does."""
        return check_model(
            self.model,
            load_profile(self.device),
            self.baseline,
            latency=self.latency,
            memory=self.memory,
            size=self.size,
            seconds=self.seconds,
            runtime=self.runtime,
            precision=self.precision,
            threads=self.threads,
            inputs=ModelInputs.parse(self.shape, self.inputs),
            on_round=on_round,
        )


@dataclass(frozen=True)
class CheckReport:
    """What came of one check: its result, or the error that ended it."""

    request: CheckRequest
    check: ModelCheck | None = None
    error: EdgeNASError | None = None

    @property
    def outcome(self) -> Outcome | Literal["failed"]:
        """The outcome; a check that an error ended has failed."""
        return "failed" if self.check is None else self.check.outcome

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command with this check alone."""
        if self.check is not None:
            return self.check.exit_code
        return ExitCode.FAILED if self.error is None else ExitCode(self.error.exit_code)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        common = {"name": self.request.label, "device": self.request.device, "baseline": self.request.baseline}
        if self.check is None:
            return {**common, "outcome": "failed", "exit_code": int(self.exit_code), "error": str(self.error)}
        return {**common, **self.check.to_dict()}


def load_checks(path: Path) -> tuple[CheckRequest, ...]:
    """Read the checks of a YAML file: ``checks:``, a list of the keys of a ``CheckRequest``.

    Raises:
        UsageError: the file is malformed, a key is unknown, or two checks have one name.
    """
    document = read_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("checks"), list) or not document["checks"]:
        raise UsageError(f"{path}: must have the key 'checks' with a list of checks; examples/checks.yaml shows one")
    check_keys(document, ["checks"], str(path))
    checks = tuple(_parse_check(entry, f"{path}, check {number}") for number, entry in enumerate(document["checks"], 1))
    label, times = Counter(check.label for check in checks).most_common(1)[0]
    if times > 1:
        raise UsageError(f"{path}: {times} checks are called {label!r}; give each a name of its own")
    return checks


def _parse_check(entry: Any, where: str) -> CheckRequest:
    check = parse_dataclass(CheckRequest, _with_lists(entry), where)
    try:
        check.validate()
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return check


def _with_lists(entry: Any) -> Any:
    """Return an entry of a file of checks with lists for single texts; a number there is a text without its unit."""
    if not isinstance(entry, dict):
        return entry
    return {key: _as_list(value) if key in _LISTS else value for key, value in entry.items()}


def _as_list(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [str(each) if isinstance(each, (int, float)) else each for each in values]


def run_checks(
    requests: Iterable[CheckRequest], on_round: Callable[[CheckRequest, float], None] = lambda request, seconds: None
) -> Iterator[CheckReport]:
    """Run checks one after the other, and yield what came of each when it ends; one that fails stops no other."""
    for request in requests:
        try:
            check = request.run(lambda seconds, request=request: on_round(request, seconds))  # type: ignore[misc]
        except EdgeNASError as error:
            yield CheckReport(request, error=error)
        else:
            yield CheckReport(request, check)


def add_unfinished(reports: Sequence[CheckReport], requests: Sequence[CheckRequest]) -> list[CheckReport]:
    """Return a report of each request: those of the first ones, which are given, and that the others did not end."""
    error = InterruptedByUserError("the command ended before this check did")
    return [*reports, *(CheckReport(request, error=error) for request in requests[len(reports) :])]


def exit_code_of(reports: Iterable[CheckReport], errors: Iterable[EdgeNASError] = ()) -> ExitCode:
    """Return the exit code of several checks, and of what else failed: a proven regression counts before failures."""
    codes = [*(report.exit_code for report in reports), *(ExitCode(error.exit_code) for error in errors)]
    return min(codes, key=_SEVERITY.index, default=ExitCode.OK)
