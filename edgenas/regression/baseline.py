"""Baselines: what a model costs on its target, with the model itself beside the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from edgenas.devices import DeviceProfile, Target
from edgenas.errors import MeasurementError, ModelError, UsageError
from edgenas.files import Schema, ShortText, parse_dataclass
from edgenas.on_device.work_folder import WorkFolder
from edgenas.profilers import (
    MIN_PROCESSES,
    Measurement,
    MeasurementResult,
    MeasureSettings,
    MeasuringRounds,
    MeasuringSession,
    ModelInputs,
    Operator,
    OperatorProfile,
)
from edgenas.profilers.measure.measurement import upgrade_baseline_from_3
from edgenas.profilers.measure.model_files import list_files, read_model_files
from edgenas.profilers.measure.models import target_of_file
from edgenas.regression.anchor import write_anchor
from edgenas.regression.listing import list_placed_operators
from edgenas.regression.model import ModelFacts, OpenedModel, opened_model

PROCESSES = 12
# A process settles at a speed of its own, and a machine's speed changes within seconds: many short processes tell more
# than few long ones.
SETTINGS = MeasureSettings(
    min_runs=5, min_seconds=0.1, max_seconds=0.15, warmup_seconds=0.2, processes=PROCESSES, max_processes=PROCESSES
)


def _upgrade_from_5(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of version 5, which knew nothing of its model but the hash, in version 6."""
    return {**body, "model": None, "kept": None, "anchor": []}


_SCHEMA = Schema("baseline", 6, {3: upgrade_baseline_from_3, 4: dict, 5: _upgrade_from_5})


@dataclass(frozen=True)
class Baseline:
    """Measurements of one model file on one target, each from its own process, to compare later files with.

    Attributes:
        measurements: of the model.
        model: what is known of the model; None in files of earlier versions.
        kept: the name of the model's copy beside the baseline's file; None where there is none.
        anchor: measurements of the anchor in the same rounds; empty where the target cannot run it.
        operators: the model's operators and where each ran, without times; None where the runtime does not list them,
            and in files of earlier versions.

    Raises:
        UsageError: for fewer than six measurements, or measurements of different files or targets.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    measurements: tuple[Measurement, ...]
    model: ModelFacts | None = None
    kept: ShortText | None = None
    anchor: tuple[Measurement, ...] = ()
    operators: tuple[Operator, ...] | None = None

    def __post_init__(self) -> None:
        number = len(self.measurements)
        if number < MIN_PROCESSES:
            raise UsageError(
                f"a baseline must have at least {MIN_PROCESSES} measurements, but got {number}; record it again"
            )
        for what, values in (
            ("model", [measurement.model_sha256 for measurement in self.measurements]),
            ("model", [measurement.model_sha256 for measurement in self.anchor]),
            ("target", [dict(measurement.target) for measurement in (*self.measurements, *self.anchor)]),
        ):
            other = next((value for value in values if value != values[0]), None)
            if other is not None:
                raise UsageError(f"a baseline must be of one {what}, but got {values[0]} and {other}; record it again")
        if self.kept is not None and (Path(self.kept).name != self.kept or self.kept in ("", "..")):
            raise UsageError(f"a baseline must keep its model beside itself, but names {self.kept!r}; record it again")

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the model file."""
        return self.measurements[0].model_sha256

    @property
    def target(self) -> Mapping[str, Any]:
        """Device, runtime, providers, precision and threads that it was measured on."""
        return self.measurements[0].target

    @property
    def synthetic(self) -> bool:
        """True where the numbers are made up, by a fake device."""
        return self.result.synthetic

    @cached_property
    def result(self) -> MeasurementResult:
        """The result of all measurements: median, interval and validity."""
        return MeasurementResult(self.measurements)

    @property
    def profile(self) -> OperatorProfile | None:
        """Its operators and where they ran, as a profile without times; None where that is not known."""
        if self.operators is None:
            return None
        name, one = self.kept or "", self.measurements[0]
        return OperatorProfile(name, one.model_sha256, one.target, one.versions, self.operators, one.synthetic)

    def __repr__(self) -> str:
        return f"Baseline({self.result.summary})"

    def list_kept_files(self, path: Path | str) -> list[Path]:
        """Return the copy of the model beside the baseline's file, and the files with weights that belong to it."""
        return [] if self.kept is None else list_files(Path(path).with_name(self.kept))

    def save(self, path: Path | str) -> None:
        """Write an ``edgenas.baseline`` file; the model's copy is not written again."""
        _SCHEMA.write(Path(path), asdict(self))

    @classmethod
    def load(cls, path: Path | str) -> Baseline:
        """Read what ``save`` wrote; raise FormatError when the file is damaged or of another kind."""
        return parse_dataclass(cls, _SCHEMA.read(Path(path)), str(path))


def record_baseline(
    model: Path | str,
    device: DeviceProfile | Target,
    path: Path | str,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    inputs: ModelInputs | None = None,
    settings: MeasureSettings | None = None,
    on_process: Callable[[int, int], None] = lambda done, total: None,
) -> Baseline:
    """Measure a model in twelve processes and write the baseline of later checks, with a copy of the model beside it.

    The copy has the baseline's name and the beginning of the model's hash: ``kws-3f2a90c41b7e.onnx`` beside
    ``kws.json``. Checks measure it again, side by side with the new model. Without it they have the stored samples
    only. Weights in files of their own are copied, too, under names that are their hashes: several baselines in one
    folder may share them. Of an earlier baseline in this place, the copy of the model is removed when the new one is
    complete.

    Args:
        model: an ONNX or TFLite file, or a bundle, which is verified.
        device: a profile, or a target.
        path: the baseline's file, by convention ``NAME.json``.
        runtime: instead of the profile's choice.
        precision: that the file must have; for providers that compute in another one, that one.
        threads: instead of the profile's default.
        inputs: what the model is given; by default what can be made up. Checks must give the same.
        settings: how long the model is run in each process; the number of processes is fixed.
        on_process: called with the number of processes that are done, and that of all.

    Returns:
        The baseline, without rejected processes; those are repeated.

    Raises:
        UsageError: for a file that cannot be read, or another file than a baseline in its place.
        ModelError: when the runtime refuses the file, or the file kills its process.
        DeviceError: when the device cannot be reached.
        MeasurementError: when the device's conditions reject too many processes.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import load_profile, record_baseline
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> _ = (folder / "model.onnx").write_bytes(bytes(320_000))
        >>> record_baseline(folder / "model.onnx", load_profile(folder / "toy.yaml"), folder / "baseline.json")
        Baseline(0.321 ms, 95% interval 0.321 to 0.321 ms, 12 processes, synthetic, unverified)
        >>> sorted(path.name for path in folder.glob("baseline*"))
        ['baseline-ac2878215ad3.onnx', 'baseline.json']
    """
    path = Path(path)
    earlier = _load_earlier(path)
    with opened_model(Path(model)) as opened, WorkFolder() as folder:
        target = target_of_file(opened.path, device, runtime, precision, threads)
        rounds = _rounds_with_anchor(opened, target, folder, inputs, settings or SETTINGS, on_process)
        with MeasuringSession(target) as session:
            session.measure(rounds)
            result, anchor = _split_results(rounds)
            operators = list_placed_operators(session, target, opened.path, inputs)
        if result.rejection_reasons:
            raise MeasurementError(
                f"{model}: no baseline can be recorded on {target.name}: {'; '.join(result.rejection_reasons)}"
            )
        (file,) = read_model_files([opened.path], target)
        kept = f"{_name_copy(path, file.sha256)}{opened.path.suffix.lower()}"
        file.copy_to(path.with_name(kept))
    baseline = Baseline(result.measurements, opened.facts, kept, anchor, operators)
    baseline.save(path)
    before = None if earlier is None else earlier.kept
    # A baseline from elsewhere could name any file beside it.
    if (
        earlier is not None
        and before not in (None, kept)
        and Path(str(before)).stem == _name_copy(path, earlier.model_sha256)
    ):
        path.with_name(str(before)).unlink(missing_ok=True)
    return baseline


def _load_earlier(path: Path) -> Baseline | None:
    """Return the baseline in this place, if there is one; raise UsageError for another file, which is not replaced."""
    if not path.exists():
        return None
    try:
        return Baseline.load(path)
    except UsageError:
        problem = "is there already and is no baseline that can be read, so it is not replaced"
        raise UsageError(f"{path}: {problem}; choose another name, or move it away") from None


def _name_copy(path: Path, sha256: str) -> str:
    """Return the name, without suffix, of the copy of a model beside its baseline."""
    return f"{path.stem}-{sha256[:12]}"


def _rounds_with_anchor(
    opened: OpenedModel,
    target: Target,
    folder: Path,
    inputs: ModelInputs | None,
    settings: MeasureSettings,
    on_process: Callable[[int, int], None],
) -> MeasuringRounds:
    """Return the rounds of a model and, where the target can run it, of the anchor; nothing is measured yet."""
    anchor = write_anchor(target, folder) if inputs in (None, ModelInputs()) else None
    models = [opened.path, *([anchor] if anchor else [])]
    done = 0

    def count_process(number: int, measurement: Measurement) -> None:
        nonlocal done
        done += 1
        on_process(min(done, len(models) * PROCESSES), len(models) * PROCESSES)

    return MeasuringRounds(models, target, settings, inputs=inputs, on_process=count_process)


def _split_results(rounds: MeasuringRounds) -> tuple[MeasurementResult, tuple[Measurement, ...]]:
    """Return the model's result and the anchor's measurements; raise ModelError where the model cannot be run."""
    result, *others = rounds.outcomes()
    if isinstance(result, ModelError):
        raise result
    assert result is not None  # a device that vanished has raised
    usable = [one for one in others if isinstance(one, MeasurementResult) and not one.rejection_reasons]
    everything = (*result.measurements, *result.rejected)
    return MeasurementResult.from_measurements(everything, MIN_PROCESSES), usable[0].measurements if usable else ()


def find_kept_model(baseline: Baseline, path: Path, target: Target) -> tuple[Path | None, str]:
    """Return the copy of the baseline's model beside its file, or None and why there is none."""
    if baseline.kept is None:
        return None, f"{path}: keeps no copy of its model, since an earlier edgenas recorded it; record it again"
    kept = path.with_name(baseline.kept)
    try:
        (file,) = read_model_files([kept], target)
    except UsageError as error:
        return None, f"the baseline's model is not there ({error})"
    if file.sha256 != baseline.model_sha256:
        return None, f"{kept}: is not the model that was recorded, its SHA-256 is another; copy that one there"
    return kept, ""
