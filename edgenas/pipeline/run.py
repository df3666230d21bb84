"""A run: the folder that holds all of one search space, and the steps on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.costs import Budget
from edgenas.devices import Target, check_present, load_profile
from edgenas.errors import RunError, UsageError
from edgenas.files import digest, read_bytes, read_document, write_document
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.run_folder import RunFolder
from edgenas.pipeline.upgrade import upgrade_run
from edgenas.space import Architecture, SearchSpace, space_from_dict

if TYPE_CHECKING:
    from edgenas.accuracy import AccuracyPredictor, Evaluator, ReleasedPredictor
    from edgenas.bundle import Bundle
    from edgenas.data import DataSet
    from edgenas.export import ExportFormat
    from edgenas.ofa import Checkpoint, Schedule, Supernet
    from edgenas.pipeline.check_table import TableCheck
    from edgenas.pipeline.choose import Choice
    from edgenas.pipeline.explain import Explanation
    from edgenas.pipeline.export import Exported
    from edgenas.pipeline.prepared_model import ExportSettings
    from edgenas.profilers import LatencyTable
    from edgenas.search import Front

_KIND, _VERSION = "run", 2


class Run:
    """All of one search space in a folder: training, accuracy, tables, fronts, choices, bundles.

    Opens the folder, or creates it for ``space``. Every step skips what is
    already there, goes on where it was killed, and takes the run's lock, so
    that one process writes at a time. Raises RunError when the folder is of
    another space, or is none and no space is given.
    """

    def __init__(
        self, folder: str | Path, space: SearchSpace | None = None, *, progress: Progress | None = None
    ) -> None:
        self.layout = RunFolder(Path(folder))
        self.progress = Progress() if progress is None else progress
        self.space = self._open(space)

    def _open(self, space: SearchSpace | None) -> SearchSpace:
        path = self.layout.run
        if not path.exists():
            if space is None:
                raise RunError(f"{path.parent}: is no run folder; make one with: edgenas train --run {path.parent}")
            with self.layout.writing():
                write_document(path, _KIND, _VERSION, {"space": space.to_dict()})
            return space
        upgrade_run(self.layout, self.progress.say)
        found = space_from_dict(read_document(path, _KIND, _VERSION)["space"], str(path))
        if space is not None and space != found:
            raise RunError(
                f"{path.parent}: is a run of space {found.short_hash}, not of {space.short_hash}"
                f" ({_difference(found, space)}); use another run folder"
            )
        return found

    # -- steps ----------------------------------------------------------------------

    def train(
        self, data: str = "digits", schedule: str | Mapping[str, Any] | Schedule = "shrink-small", seed: int = 0
    ) -> None:
        """Train the supernet. Raises RunError when the run was trained from other values."""
        from edgenas.pipeline.train import train

        train(self, data, schedule, seed)

    def evaluate(self, subnets: int = 200) -> AccuracyPredictor:
        """Evaluate subnets on the validation split, at least ``subnets`` in all, and fit a predictor to them."""
        from edgenas.pipeline.evaluate import evaluate

        self._require_data()
        return evaluate(self, subnets)

    def profile(
        self,
        target: Target,
        minutes: float = 10.0,
        target_error: float | None = None,
        others: Sequence[str | Path | LatencyTable] = (),
    ) -> LatencyTable:
        """The latency table of a target from ``minutes`` of device time, and at least 40 subnets; 10 with ``others``.

        ``others``: tables of other targets to begin with, by the targets' names
        in this run, as files, or themselves. It stops early when unseen subnets
        are predicted to ``target_error`` (0.03 is 3%) with 95% confidence.
        """
        from edgenas.pipeline.profile import profile

        check_present(target.profile)
        return profile(self, target, minutes, target_error, others)

    def explain(self, target: Target, architecture: Architecture) -> Explanation:
        """Where the predicted time of an architecture goes on a target, part by part."""
        from edgenas.pipeline.explain import explain

        return explain(self, target, architecture)

    def check_table(self, target: Target, subnets: int = 20) -> TableCheck:
        """Measure fresh random subnets on a target and hold its table's certificate against them."""
        from edgenas.pipeline.check_table import check_table

        return check_table(self, target, subnets)

    def search(self, targets: Sequence[Target], seed: int = 0) -> Front:
        """The front of a target; so far of one target at a time (UsageError otherwise)."""
        from edgenas.pipeline.search import search

        return search(self, _only(targets, "search"), seed)

    def choose(self, budgets: Mapping[Target, Budget], max_drop: float = 0.01) -> Choice:
        """The most accurate subnet that keeps the budget when its file is measured on the target.

        ``max_drop`` is how much accuracy (0.01 is one point) the file may lose
        against the subnet. Raises BudgetError when no subnet is predicted to
        fit and NoChoiceError when none proved to.
        """
        from edgenas.pipeline.choose import choose

        target = _only(list(budgets), "choose")
        if not self.layout.front(target.name).exists():
            self._require_data()  # without it there is nothing to make a front from
        check_present(target.profile)
        return choose(self, target, budgets[target], max_drop)

    def export(
        self, architecture: Architecture, target: Target, out: str | Path, *, kind: ExportFormat | None = None
    ) -> Bundle:
        """A bundle of an architecture in the folder ``out``, its file verified against PyTorch.

        The file is of the kind that the target runs, or of ``kind``.
        """
        from edgenas.pipeline.export import export

        return export(self, architecture, target, Path(out), kind)

    def export_all(
        self,
        architecture: Architecture,
        target: Target,
        out: str | Path,
        kinds: Sequence[ExportFormat],
        settings: ExportSettings | None = None,
    ) -> list[Exported]:
        """A verified bundle ``out/KIND`` of each kind, and ``out/KIND.zip`` beside it.

        Raises FailedError, a VerificationError, when the others are written,
        for a file that loses more than its kind may.
        """
        from edgenas.pipeline.export import export_all
        from edgenas.pipeline.prepared_model import ExportSettings

        return export_all(self, architecture, target, Path(out), kinds, settings or ExportSettings())

    def chosen(self, target: Target) -> list[Choice]:
        """What was chosen for a target, by budget. Raises RunError when nothing was."""
        from edgenas.pipeline.choose import Choice

        paths = self.layout.choices(target.name)
        if not paths:
            root = self.layout.root
            raise RunError(
                f"{root}: has no choice for {target.name} yet;"
                f" run: edgenas choose --run {root} --device {target.cli_name} --latency 5ms"
            )
        return [Choice.load(path, self.space) for path in paths]

    def target(
        self,
        device: str | Path,
        runtime: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> Target:
        """A target by its device's name: that of imported tables if the run has any, else as ``load_profile`` finds it.

        Raises UsageError, listing what exists, for a name, runtime or precision
        that there is not, and for a precision that the runtime's files do not have.
        """
        from edgenas.pipeline.export_formats import RUNTIMES, format_of

        imported = self.layout.device(str(device))
        profile = load_profile(
            imported if Path(device).name == str(device) and imported.exists() else device, str(device)
        )
        target = Target(profile, runtime, precision, threads)
        if target.runtime in RUNTIMES.values():
            format_of(target)
        return target

    # -- what steps share -------------------------------------------------------------

    @property
    def recipe(self) -> dict[str, Any]:
        """What the supernet came from: data, schedule and seed of its training, or the file that was imported.

        Raises RunError before training has ended.
        """
        return self._trained.recipe

    @property
    def has_data(self) -> bool:
        """Whether there is a data set: a run whose weights were imported has none. Raises RunError before training."""
        return "imported" not in self.recipe

    @property
    def supernet(self) -> Supernet:
        """The trained supernet. Raises RunError before training has ended."""
        return self._trained.supernet

    def _require_data(self) -> None:
        """Raise RunError when the weights were imported: such a run has no data set."""
        if self.layout.checkpoint.exists() and not self.has_data:
            root, name = self.layout.root, self.recipe["imported"]
            raise RunError(
                f"{root}: was imported from {name} and has no data set, which this step needs;"
                f" profile it (edgenas profile --run {root}), or train a run of your own (edgenas train)"
            )

    @cached_property
    def data(self) -> DataSet:
        """The data set that the supernet was trained on. Raises RunError when the run was imported."""
        from edgenas.data import load_data

        self._require_data()
        return load_data(self.recipe["data"])

    @cached_property
    def evaluator(self) -> Evaluator:
        """Subnets of the trained supernet and their accuracy."""
        from edgenas.accuracy import Evaluator

        return Evaluator(self._trained.supernet, self.data, self.recipe["seed"], self._trained.threads)

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the trained checkpoint: what evaluated accuracies belong to."""
        return digest(read_bytes(self.layout.checkpoint))

    @cached_property
    def _trained(self) -> Checkpoint:
        from edgenas.ofa import load_checkpoint

        path = self.layout.checkpoint
        if not path.exists():
            raise RunError(
                f"{self.layout.root}: has no trained supernet yet; run: edgenas train --run {self.layout.root}"
            )
        trained = load_checkpoint(path)
        if trained.supernet.space != self.space:
            raise RunError(f"{path}: is of another space than its run; train again in a new run folder")
        phases = trained.recipe["schedule"]["phases"] if "schedule" in trained.recipe else ()
        if trained.position.phase < len(phases):
            raise RunError(f"{self.layout.root}: training has not ended; run: edgenas train --run {self.layout.root}")
        return trained

    def predictor(self) -> AccuracyPredictor | ReleasedPredictor:
        """The accuracy predictor of the evaluated subnets, else an imported one. Raises RunError when there is none."""
        from edgenas.pipeline.evaluate import load_predictor

        return load_predictor(self)

    def table(self, target: Target) -> LatencyTable:
        """The latency table of a target. Raises RunError when there is none yet."""
        from edgenas.profilers import LatencyTable

        path = self.layout.table(target.name)
        self._require(path, "latency table", "profile", target)
        return LatencyTable.load(path, self.space)

    def front(self, target: Target) -> Front:
        """The front of a target. Raises RunError when there is none yet."""
        from edgenas.search import Front

        path = self.layout.front(target.name)
        self._require(path, "front", "search", target)
        return Front.load(path, self.space)

    def _require(self, path: Path, what: str, step: str, target: Target) -> None:
        """Raise RunError naming the step when a target's ``what`` is not there yet."""
        if not path.exists():
            root = self.layout.root
            raise RunError(
                f"{root}: has no {what} of {target.name} yet;"
                f" run: edgenas {step} --run {root} --device {target.cli_name}"
            )


def _difference(found: SearchSpace, wanted: SearchSpace) -> str:
    """The fields in which two spaces differ, with both values."""
    here, there = found.to_dict(), wanted.to_dict()
    fields = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return "; ".join(f"{name} is {here.get(name)}, not {there.get(name)}" for name in fields)


def _only(targets: Sequence[Target], step: str) -> Target:
    if len(targets) != 1:
        raise UsageError(f"{step} takes one target at a time, but got {len(targets)}")
    return targets[0]
