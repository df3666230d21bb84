"""The check of a model: against a baseline, a budget, or both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgenas.devices import DeviceProfile, Target
from edgenas.errors import DeviceError, UsageError
from edgenas.on_device.work_folder import WorkFolder
from edgenas.profilers import MeasureSettings, MeasuringSession, ModelInputs, OperatorProfile
from edgenas.profilers.measure.model_files import read_model_files
from edgenas.profilers.measure.models import target_of_file
from edgenas.regression.anchor import write_anchor
from edgenas.regression.baseline import PROCESSES, SETTINGS, Baseline, find_kept_model
from edgenas.regression.check_operators import with_operators
from edgenas.regression.findings import find_in_rounds, find_sizes
from edgenas.regression.fingerprint import (
    SYSTEM,
    Difference,
    compare_fields,
    compare_signatures,
    read_fingerprint,
    read_target_fields,
)
from edgenas.regression.limits import Limit, Quantity, as_texts, parse_limits
from edgenas.regression.listing import profile_in_session
from edgenas.regression.model import OpenedModel, opened_model
from edgenas.regression.model_check import ModelCheck
from edgenas.regression.outcome import Finding, Method, Outcome, worst_outcome
from edgenas.regression.reasons import (
    describe_conditions,
    describe_findings,
    describe_lost_rounds,
    describe_unmeasured_memory,
)
from edgenas.regression.rounds import SECONDS, Round, TakenRounds, check_seconds, iter_rounds
from edgenas.regression.stored import compare_with_stored_samples
from edgenas.shell import format_command

_HOPELESS_ROUNDS = 6  # where all of the first are rejected, the next would be, too


def check_model(
    model: Path | str,
    device: DeviceProfile | Target,
    baseline: Path | str | None = None,
    *,
    latency: str | Sequence[str] | None = None,
    memory: str | Sequence[str] | None = None,
    size: str | Sequence[str] | None = None,
    seconds: float = SECONDS,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    inputs: ModelInputs | None = None,
    settings: MeasureSettings | None = None,
    on_round: Callable[[float], None] = lambda seconds: None,
) -> ModelCheck:
    """Check that a model costs no more than a baseline, or a budget, allows.

    The baseline's model and the new one are measured side by side: a process of each in turn, in one session, for as
    many rounds as the decision takes, within ``seconds``. A limit is decided by the 95% interval of the median ratio
    of the rounds, which stays valid however often it is looked at (``sequential_median_interval``):

    - "regressed": for one limit, the whole interval lies above it.
    - "ok": for all limits, the whole interval lies within.
    - "not measurable": the time was over before; or the device was lost, or its conditions rejected the rounds.
    - "incomparable": the baseline is of another target or board, or of a model with other inputs or outputs.

    A model whose operators left the provider or delegate that they ran on when the baseline was recorded is regressed,
    too, however fast it is. Where the latency regressed, the operators of both models are profiled: ``operators`` of
    the result says where.

    Where the copy of the baseline's model is not beside it, its stored samples are compared, if the whole fingerprint
    is equal and the anchor runs as fast as it did then.

    Args:
        model: an ONNX or TFLite file, or a bundle, which is verified.
        device: a profile, or a target.
        baseline: the file that ``record_baseline`` wrote; None for budgets alone.
        latency: limits of the latency: ``+5%`` of the baseline, which is the default, or ``15ms``, or both.
        memory: limits of the peak memory: ``+2%``, ``64MB``.
        size: limits of the file's size: ``+0%``, ``4MB``.
        seconds: the most time that the measurements may take, from the first process on.
        runtime: instead of the profile's choice.
        precision: that the file must have; for providers that compute in another one, that one.
        threads: instead of the profile's default.
        inputs: what the models are given, as for the baseline.
        settings: how long a model is run in each process.
        on_round: called after each round with the seconds since the first.

    Raises:
        UsageError: for a malformed limit, a baseline that is not there, or a file that cannot be read.
        ModelError: when the runtime refuses one of the two models, or it kills its process.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import check_model, load_profile, record_baseline
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> toy = load_profile(folder / "toy.yaml")
        >>> for name, size in (("old", 320_000), ("new", 384_000)):
        ...     _ = (folder / f"{name}.onnx").write_bytes(bytes(size))
        >>> baseline = record_baseline(folder / "old.onnx", toy, folder / "baseline.json")
        >>> check_model(folder / "new.onnx", toy, folder / "baseline.json", latency="+5%")
        ModelCheck(regressed (synthetic): latency +19.8%)
        >>> check_model(folder / "new.onnx", toy, latency="15ms").outcome
        'ok'
    """
    check_seconds(seconds)
    texts: dict[Quantity, tuple[str, ...]]
    texts = {"latency": as_texts(latency), "memory": as_texts(memory), "size": as_texts(size)}
    limits = parse_limits(texts, baseline is not None)
    recorded = None if baseline is None else _load_baseline(Path(baseline), Path(model), device, inputs)
    if recorded is not None and recorded.model is None and any(limit.needs_size_before for limit in limits):
        raise UsageError(
            f"{baseline}: does not say how large its model is, an earlier edgenas wrote it; record it again"
        )
    with opened_model(Path(model)) as opened, WorkFolder() as folder:
        target = target_of_file(opened.path, device, runtime, precision, threads)
        with MeasuringSession(target) as session:
            settings = settings or SETTINGS
            request = _Request(opened, target, limits, seconds, inputs, settings, on_round, recorded, session)
            if recorded is None or baseline is None:
                return _check_by_rounds(request, None, "budget only")
            check = _check_against(request, recorded, Path(baseline), folder)
    update = _format_record_command(Path(model), Path(baseline), target, inputs)
    return replace(check, then=recorded.model, update_command=update)


def _load_baseline(path: Path, model: Path, device: DeviceProfile | Target, inputs: ModelInputs | None) -> Baseline:
    """Return the baseline in a file; raise UsageError with the command that records one where there is none."""
    if not path.exists():
        record = _format_record_command(model, path, device, inputs)
        raise UsageError(f"{path}: there is no baseline; record one of the model to compare with: {record}")
    return Baseline.load(path)


def _format_record_command(model: Path, path: Path, device: DeviceProfile | Target, inputs: ModelInputs | None) -> str:
    """Return the command that records a baseline of a model, which is given these inputs."""
    words = ("regress", "record", model, "-o", path, *(inputs.cli_words if inputs else ()))
    return f"{format_command(*words)} --device {device.cli_name}"


@dataclass(frozen=True)
class _Request:
    """What a check was asked for."""

    opened: OpenedModel
    target: Target
    limits: tuple[Limit, ...]
    seconds: float
    inputs: ModelInputs | None
    settings: MeasureSettings
    on_round: Callable[[float], None]
    baseline: Baseline | None
    session: MeasuringSession

    @property
    def measured_limits(self) -> tuple[Limit, ...]:
        """The limits that take measurements."""
        return tuple(limit for limit in self.limits if limit.quantity != "size")

    def profile(self, models: Sequence[Path], processes: int) -> list[OperatorProfile]:
        """Profile model files, each in so many processes."""
        return profile_in_session(self.session, self.target, models, self.inputs, processes)


def _check_against(request: _Request, baseline: Baseline, place: Path, folder: Path) -> ModelCheck:
    """Return the check against a baseline, whose file is in this place; ``folder`` takes the anchor."""
    now = read_target_fields(request.target.to_dict())
    differences = compare_fields(read_target_fields(baseline.target), now, now)
    if baseline.model is not None:
        differences += compare_signatures(baseline.model, request.opened.facts)
    if differences:
        return _conclude(request, "side by side", TakenRounds(), differences=differences)
    if not any(limit.is_relative for limit in request.measured_limits):
        return _check_by_rounds(request, None, "budget only")
    kept, problem = find_kept_model(baseline, place, request.target)
    if kept is not None:
        return _check_by_rounds(request, kept, "side by side")
    return _check_by_stored_samples(request, baseline, problem, folder)


def _check_by_rounds(request: _Request, other: Path | None, method: Method) -> ModelCheck:
    """Measure until the outcome is known, which one regressed limit decides, or the time is up."""

    def find(counted: Sequence[Round]) -> list[Finding]:
        measured = [one for each in counted for one in each.measurements]
        return [find_in_rounds(limit, counted) for limit in request.measured_limits if limit.is_known_in(measured)]

    def is_decided(counted: Sequence[Round]) -> bool:
        outcomes = [finding.outcome for finding in find(counted)]
        return "regressed" in outcomes or "not measurable" not in outcomes

    models = [request.opened.path, *([other] if other else [])]
    if request.measured_limits:
        taken = _measure(request, method, models, is_decided)
    else:
        read_model_files([request.opened.path], request.target)  # measuring would refuse what is no model
        taken = TakenRounds()
    return _conclude(request, method, taken, find(taken.counted) if taken.counted else [], kept=other)


def _check_by_stored_samples(request: _Request, baseline: Baseline, problem: str, folder: Path) -> ModelCheck:
    """Measure the model and the anchor as often as a baseline is, and compare with its stored samples."""
    anchor = write_anchor(request.target, folder) if baseline.anchor else None
    models = [request.opened.path, *([anchor] if anchor else [])]
    method: Method = "stored samples"
    taken = _measure(request, method, models, lambda counted: len(counted) >= PROCESSES)
    measured = [*baseline.measurements, *(one for each in taken.counted for one in each.measurements)]
    limits = [limit for limit in request.measured_limits if limit.is_known_in(measured)]
    stored = compare_with_stored_samples(limits, taken.counted, baseline)
    check = _conclude(request, method, taken, stored.findings, stored.reasons, [problem, *stored.warnings])
    return replace(check, stored=baseline.measurements)


def _measure(
    request: _Request, method: Method, models: Sequence[Path], is_enough: Callable[[Sequence[Round]], bool]
) -> TakenRounds:
    """Measure rounds until there are enough, the time is up, or more would not help."""
    rounds: list[Round] = []
    try:
        found = iter_rounds(request.session, models, request.settings, request.inputs, request.seconds)
        with contextlib.closing(found):
            for each in found:
                rounds.append(each)
                request.on_round(each.seconds)
                counted = TakenRounds(tuple(rounds)).counted
                is_hopeless = not counted and len(rounds) >= _HOPELESS_ROUNDS
                if is_hopeless or _find_differences(request, method, rounds) or (counted and is_enough(counted)):
                    break
    except DeviceError as error:
        return TakenRounds(tuple(rounds), str(error))
    return TakenRounds(tuple(rounds))


def _find_differences(request: _Request, method: Method, rounds: Sequence[Round]) -> tuple[Difference, ...]:
    """Return what makes the baseline incomparable, as the first round shows."""
    if request.baseline is None or not rounds:
        return ()
    then, now = (read_fingerprint(one) for one in (request.baseline.measurements[0], rounds[0].new))
    ignored = () if method == "stored samples" else SYSTEM
    return compare_fields(then, now, [name for name in now if name not in ignored])


def _conclude(
    request: _Request,
    method: Method,
    taken: TakenRounds,
    findings: Sequence[Finding] = (),
    reasons: Sequence[str] = (),
    warnings: Sequence[str] = (),
    differences: Sequence[Difference] = (),
    kept: Path | None = None,
) -> ModelCheck:
    """Return the check of what was found; ``reasons`` are those why nothing can be told."""
    differences = [*differences, *_find_differences(request, method, taken.rounds)]
    outcome: Outcome
    if differences:
        outcome, findings = "incomparable", ()
        reasons = [f"{each}; record a new baseline here" for each in differences]
    else:
        then = request.baseline.model if request.baseline else None
        lost = describe_lost_rounds(taken.rounds, taken.lost, request.measured_limits)
        if lost:  # what is left of the rounds tells nothing, however clear it seems
            findings = [replace(one, outcome="not measurable") for one in findings]
        findings = [*findings, *find_sizes(request.limits, request.opened.facts, then)]
        problems = [*reasons, *lost, *([] if lost else describe_unmeasured_memory(taken.rounds, request.limits))]
        outcomes = [one.outcome for one in findings]
        outcome = worst_outcome([*outcomes, "not measurable"] if problems else outcomes)
        if outcome == "regressed":
            warnings = [*problems, *warnings]
        reasons = problems if problems and outcome != "regressed" else describe_findings(findings, taken.rounds)
    check = ModelCheck(
        outcome,
        request.opened.facts,
        request.target.name,
        method,
        tuple(findings),
        tuple(reasons),
        (*warnings, *describe_conditions(taken.rounds, request.baseline if method == "side by side" else None)),
        taken.rounds,
        kept=str(kept or ""),
        fingerprint=read_fingerprint(taken.rounds[0].new) if taken.rounds else {},
        seconds=taken.rounds[-1].seconds if taken.rounds else 0.0,
    )
    if request.baseline is None or differences or taken.lost or not taken.rounds:
        return check
    return with_operators(check, request.opened.path, request.baseline, request.profile)
