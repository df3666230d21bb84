"""Measuring one model file, or several on the runtimes of one device."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgenas.devices import DeviceProfile, Target
from edgenas.errors import DeviceError, ModelError, UnusableModelsError, UsageError
from edgenas.files import read_bytes
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.model_files import ModelInputs
from edgenas.profilers.measure.result import MeasurementResult, compare_results, pair_medians
from edgenas.profilers.measure.rounds import MeasuringRounds
from edgenas.profilers.measure.session import MeasuringSession
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.runtimes import is_runtime, load_runtime

Outcome = MeasurementResult | ModelError | DeviceError | None


def measure_model(
    model: Path | str, target: Target, settings: MeasureSettings | None = None, inputs: ModelInputs | None = None
) -> MeasurementResult:
    """Measure one model file on its target's device, in six processes or more.

    Args:
        model: an ONNX or TFLite file.
        target: the device and how the model is run there.
        settings: how long and how often the model is run.
        inputs: what the model is given; by default what can be made up.

    Returns:
        The median latency with its 95% interval, peak memory, validity and all samples.

    Raises:
        UsageError: for a file that cannot be read or is of an unknown kind.
        ModelError: when the runtime refuses the file, or the file kills its process.
        DeviceError: when the device cannot be reached or vanishes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import Target, load_profile, measure_model
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> _ = (folder / "model.onnx").write_bytes(bytes(320_000))
        >>> measure_model(folder / "model.onnx", Target(load_profile(folder / "toy.yaml")))
        MeasurementResult(0.321 ms, 95% interval 0.321 to 0.321 ms, 6 processes, synthetic, unverified)
    """
    rounds = MeasuringRounds([Path(model)], target, settings, inputs=inputs)
    with MeasuringSession(target) as session:
        session.measure(rounds)
    (outcome,) = rounds.outcomes()
    if isinstance(outcome, ModelError):
        raise outcome
    assert outcome is not None  # a device that vanished has raised
    return outcome


@dataclass(frozen=True)
class MeasuredModels:
    """Outcomes of ``measure_models``, by model file in the order given.

    Attributes:
        outcomes: a MeasurementResult; the ModelError of a file that the runtime cannot run; the
            DeviceError that ended the measuring before the file's turn; None after an interrupt.
        targets: the target of each file.
        stopped_by: the DeviceError or KeyboardInterrupt that ended the measuring early; None where all were measured.
    """

    outcomes: Mapping[Path, Outcome]
    targets: Mapping[Path, Target]
    stopped_by: DeviceError | KeyboardInterrupt | None = None

    @property
    def results(self) -> dict[Path, MeasurementResult]:
        """The results of the files that were measured."""
        return {path: one for path, one in self.outcomes.items() if isinstance(one, MeasurementResult)}

    @property
    def errors(self) -> dict[Path, ModelError]:
        """The errors of the files that the runtime cannot run."""
        return {path: one for path, one in self.outcomes.items() if isinstance(one, ModelError)}

    def rank(self) -> list[RankedModel]:
        """Return the measured models, the fastest first, each compared with the previous one."""
        return rank_results(self.results)

    def __repr__(self) -> str:
        return f"MeasuredModels({len(self.results)} of {len(self.outcomes)} measured)"

    def raise_for_errors(self) -> None:
        """Raise what ended the measuring early, or else a ModelError if a file could not be run."""
        if self.stopped_by is not None:
            raise self.stopped_by
        errors = list(self.errors.values())
        if len(errors) > 1:
            raise ModelError(f"{len(errors)} of {len(self.outcomes)} models failed; the first: {errors[0]}")
        if errors:
            raise errors[0]


@dataclass(frozen=True)
class RankedModel:
    """A measured model beside the next faster one.

    Attributes:
        model: the file.
        rank: 1 for the fastest.
        median_ms: its median latency.
        paired_ms: the median latencies of this model and of the next faster one in the rounds that both ran in; None
            for the fastest, and where they have fewer than six such rounds.
        ratio: its latency as a multiple of the next faster model's, the median over these rounds, or else the ratio
            of their medians; None for the fastest, and where one of the two has fewer than six processes.
        interval_95: the 95% interval of the ratio.
        slower: whether the whole interval lies above 1; None without a ratio.
    """

    model: str
    rank: int
    median_ms: float
    paired_ms: tuple[float, float] | None = None
    ratio: float | None = None
    interval_95: tuple[float, float] | None = None
    slower: bool | None = None


def rank_results(results: Mapping[Path, MeasurementResult]) -> list[RankedModel]:
    """Return measured models, the fastest first, each compared with the previous one by ``compare_results``.

    Rejected results have no rank.
    """
    accepted = [(path, result) for path, result in results.items() if not result.rejection_reasons]
    ordered = sorted(accepted, key=lambda item: item[1].median_ms)
    rows: list[RankedModel] = []
    for place, (path, result) in enumerate(ordered):
        row = RankedModel(str(path), place + 1, result.median_ms)
        comparison = compare_results(result, ordered[place - 1][1]) if place else None
        if comparison is not None:
            ratio, low, high = comparison
            row = replace(row, ratio=ratio, interval_95=(low, high), slower=low > 1)
            if pairs := pair_medians(result, ordered[place - 1][1]):
                own, faster = zip(*pairs, strict=True)
                row = replace(row, paired_ms=(statistics.median(own), statistics.median(faster)))
        rows.append(row)
    return rows


def measure_models(
    models: Sequence[Path | str],
    device: DeviceProfile | Target,
    settings: MeasureSettings | None = None,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    inputs: ModelInputs | None = None,
    on_start: Callable[[int], None] = lambda processes: None,
    on_process: Callable[[Path, Measurement], None] = lambda model, measurement: None,
) -> MeasuredModels:
    """Measure several model files on one device, side by side.

    Files of one target are measured together, one process of each in turn, so that ``compare_results`` can compare
    them. When the device vanishes, or on Ctrl-C, the outcomes so far are returned with ``stopped_by``; call
    ``raise_for_errors`` to raise instead.

    Args:
        models: ONNX or TFLite files.
        device: a profile, whose default runtime or else first fitting one measures a file; or a target for all.
        settings: how long and how often each model is run.
        runtime: the runtime for all files, instead of the profile's choice.
        precision: instead of that of a file, or of the profile where the file does not show it.
        threads: instead of the profile's default.
        inputs: what the models are given; by default what can be made up.
        on_start: called with the number of planned processes when all files are checked; noisy files get more.
        on_process: called with the file and its new measurement after each process.

    Returns:
        The outcome and the target of each file.

    Raises:
        UnusableModelsError: before anything is measured, for files that cannot be read, that no runtime of the
            profile runs or that are of another precision.
        UsageError: for options that the profile does not have, and for options beside a target.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import load_profile, measure_models
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> _ = (folder / "model.onnx").write_bytes(bytes(320_000))
        >>> measured = measure_models([folder / "model.onnx"], load_profile(folder / "toy.yaml"))
        >>> [f"{path.name}: {result.median_ms:.1f} ms" for path, result in measured.results.items()]
        ['model.onnx: 0.3 ms']
    """
    paths = list(dict.fromkeys(map(Path, models)))
    targets = {path: _choose_target(path, device, runtime, precision, threads) for path in paths}
    groups = {target: [path for path in paths if targets[path] == target] for target in targets.values()}
    problems: list[str] = []  # of all files, before the first is measured
    rounds: dict[Target, MeasuringRounds] = {}
    for target, group in groups.items():
        try:
            rounds[target] = _make_rounds(group, target, settings, inputs, on_process)
        except UnusableModelsError as error:
            problems += error.problems
    if not isinstance(device, Target):
        for path, target in targets.items():
            try:
                targets[path] = _with_precision_of_file(path, target, precision)
            except UsageError as error:
                problems.append(str(error))
    if problems:
        raise UnusableModelsError(problems)
    on_start(sum(len(each.next_turns()) for each in rounds.values()))
    stopped_by = _measure_until_error(rounds)
    outcomes: dict[Path, Outcome] = dict.fromkeys(paths)
    for target, each in rounds.items():
        outcomes.update(zip(groups[target], each.outcomes(), strict=True))
    outcomes = {path: _with_target(outcome, targets[path]) for path, outcome in outcomes.items()}
    if isinstance(stopped_by, DeviceError):
        outcomes = {path: stopped_by if outcome is None else outcome for path, outcome in outcomes.items()}
    return MeasuredModels(outcomes, targets, stopped_by)


def _with_target(outcome: Outcome, target: Target) -> Outcome:
    """Return an outcome whose measurements name this target: files of several precisions are measured together."""
    if not isinstance(outcome, MeasurementResult) or outcome.target == target.to_dict():
        return outcome
    measurements, rejected = (
        tuple(replace(one, target=target.to_dict()) for one in each)
        for each in (outcome.measurements, outcome.rejected)
    )
    return MeasurementResult(measurements, rejected)


def _measure_until_error(rounds: Mapping[Target, MeasuringRounds]) -> DeviceError | KeyboardInterrupt | None:
    """Measure each target's rounds in a session; return what ended that early."""
    try:
        for target, each in rounds.items():
            with MeasuringSession(target) as session:
                session.measure(each)
    except (DeviceError, KeyboardInterrupt) as error:
        return error
    return None


def _choose_target(
    model: Path, device: DeviceProfile | Target, runtime: str | None, precision: str | None, threads: int | None
) -> Target:
    """Return the given runtime's target, or else the profile's default one, or else the first that runs the file."""
    if isinstance(device, Target):
        if (runtime, precision, threads) != (None, None, None):
            raise UsageError(
                f"{device.name}: has its runtime, precision and threads; give the target's profile instead"
            )
        return device
    target = Target(device, runtime, precision, threads)
    suffix = model.suffix.lower()
    fitting = [name for name in device.runtimes if is_runtime(name) and load_runtime(name).suffix == suffix]
    if runtime is None and fitting and target.runtime not in fitting:
        target = Target(device, fitting[0], precision, threads)
    return target


def _with_precision_of_file(model: Path, target: Target, asked: str | None) -> Target:
    """Return the target with the file's precision; raise UsageError where another one was asked for."""
    runtime = load_runtime(target.runtime) if is_runtime(target.runtime) else None
    if runtime is None or runtime.suffix != model.suffix.lower():
        return target  # refused later
    if target.providers[0] in runtime.precision_providers:
        return target
    found = runtime.read_precision(read_bytes(model))
    if asked is not None and found not in (None, asked):
        remedy = f"leave out the precision, or export it in {asked}"
        raise UsageError(f"{model}: is a file in {found}, not {asked}; {remedy}")
    if found is None:
        return target
    return Target(target.profile, target.runtime, found, target.threads, target.affinity or "all")


def target_of_file(
    model: Path,
    device: DeviceProfile | Target,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> Target:
    """Return the target that measures a model file on a device: its runtime by the profile, its precision by the file.

    Raises:
        UsageError: for options that the profile does not have, options beside a target, and a file that is of another
            precision than ``precision``.
    """
    return _with_precision_of_file(model, _choose_target(model, device, runtime, precision, threads), precision)


def _make_rounds(
    models: Sequence[Path],
    target: Target,
    settings: MeasureSettings | None,
    inputs: ModelInputs | None,
    on_process: Callable[[Path, Measurement], None],
) -> MeasuringRounds:
    def report_process(number: int, measurement: Measurement) -> None:
        on_process(models[number], measurement)

    return MeasuringRounds(models, target, settings, inputs=inputs, on_process=report_process)
