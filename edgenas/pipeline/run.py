"""The facade of a run: its steps as methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.costs import Budget
from edgenas.devices import Target
from edgenas.errors import RunError, UsageError
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.run_folder import RunFolder
from edgenas.pipeline.workspace import Workspace
from edgenas.registry import DEFAULT_STRATEGY
from edgenas.space import Architecture, SearchSpace

if TYPE_CHECKING:
    from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
    from edgenas.bundle import Bundle
    from edgenas.data import DataSet
    from edgenas.ofa import InitialWeights, Schedule, Supernet
    from edgenas.pipeline.check_table import TableCheck
    from edgenas.pipeline.choice import Choice
    from edgenas.pipeline.explain import Explanation
    from edgenas.pipeline.export import ExportedBundle
    from edgenas.pipeline.finetuned import FinetunedSubnet
    from edgenas.pipeline.prepared_model import ExportSettings
    from edgenas.pipeline.status import TrainingStatus
    from edgenas.profilers import LatencyTable
    from edgenas.runtimes import ExportFormat
    from edgenas.search import Front


class Run:
    """A search space in a folder: training, accuracy, latency tables, fronts, choices and bundles.

    Every step skips what is already there, resumes where it was interrupted,
    and takes the run's lock, so that one process writes at a time.

    Example:
        >>> import tempfile
        >>> from edgenas import MobileNetV3, Run
        >>> run = Run(tempfile.mkdtemp(), MobileNetV3(width=0.35, resolutions=(24, 32), classes=10))
        >>> run.space.family
        'mobilenet_v3'
    """

    def __init__(
        self, folder: str | Path, space: SearchSpace | None = None, *, progress: Progress | None = None
    ) -> None:
        """Open the run in a folder, or create it.

        Args:
            folder: The run folder.
            space: The search space; needed to create a run.
            progress: Receives progress; by default it is printed on standard error.

        Raises:
            UsageError: ``folder`` is empty.
            RunError: The folder is a run of another space, or no run and no space is given.
        """
        if folder == "":
            raise UsageError("the run folder must not be empty; '.' is the current folder")
        self.workspace = Workspace(Path(folder), space, Progress() if progress is None else progress)

    def __repr__(self) -> str:
        return f"Run({str(self.folder.root)!r}, {self.space.family} {self.space.short_hash})"

    @property
    def space(self) -> SearchSpace:
        """The search space."""
        return self.workspace.space

    @property
    def folder(self) -> RunFolder:
        """The paths of the run folder."""
        return self.workspace.folder

    @property
    def supernet(self) -> Supernet:
        """The trained supernet; RunError before training ended."""
        return self.workspace.supernet

    # -- steps ----------------------------------------------------------------------

    def train(
        self,
        data: str | Mapping[str, Any] | DataSet = "digits",
        schedule: str | Mapping[str, Any] | Schedule = "sandwich-small",
        seed: int = 0,
        device: str = "auto",
        tensorboard: bool = False,
        initial: str | Path | InitialWeights | None = None,
    ) -> None:
        """Train the supernet to the end of a schedule.

        Started by torchrun, the processes train together: each on its part of every batch.

        Args:
            data: The name of a data set, or what else ``edgenas.data.load_data`` takes or returns.
            schedule: The name of a schedule, its phases as plain data, or a Schedule.
            seed: Seed of everything random.
            device: ``cpu``, ``cuda``, or ``auto`` for CUDA where torch finds a GPU.
            tensorboard: Also write TensorBoard's files.
            initial: A run folder, or a file of a released checkpoint, whose weights training begins with. Its space
                may have other classes: the classifier is then made anew.

        Raises:
            RunError: The run was trained from other values.
            TrainingError: The loss is not finite, or another process of the training ended.
        """
        from edgenas.pipeline.train import train

        train(self.workspace, data, schedule, seed, device, tensorboard, initial)

    def status(self) -> TrainingStatus:
        """Return how far the training of the supernet is."""
        from edgenas.pipeline.status import read_training_status

        return read_training_status(self.folder.training)

    def finetune(
        self,
        architecture: Architecture,
        epochs: int = 10,
        max_steps: int | None = None,
        learning_rate: float | None = None,
        from_scratch: bool = False,
        device: str = "auto",
    ) -> FinetunedSubnet:
        """Train one subnet alone, taught by the supernet's largest network, and evaluate it on the validation images.

        Its weights get a name, which follows from everything that decides them: the same call finds them again, or
        resumes where it was interrupted. ``choose`` tries them beside the inherited ones where they are as
        accurate or more.

        Args:
            architecture: The architecture, with the weights that it inherits.
            epochs: How often each training image is seen.
            max_steps: At most so many steps.
            learning_rate: The highest rate, which falls to zero as a cosine; by default 0.05, from scratch 0.1.
            from_scratch: Begin with random weights instead of inherited ones, for comparison.
            device: ``cpu``, ``cuda``, or ``auto`` for CUDA where torch finds a GPU.

        Returns:
            How it was trained, and its validation accuracy beside that of the inherited weights.

        Raises:
            RunError: The supernet is not trained, or the run has no data set.
            UsageError: A value is out of range, or the architecture is fine-tuned already.
            TrainingError: The loss is not finite, or another process of the training ended.
        """
        from edgenas.pipeline.finetune import finetune

        return finetune(self.workspace, architecture, epochs, max_steps, learning_rate, from_scratch, device)

    def finetuning_statuses(self) -> dict[str, TrainingStatus]:
        """Return how far the fine-tuning of each subnet is that has begun, by id."""
        from edgenas.pipeline.status import read_finetuning_statuses

        return read_finetuning_statuses(self.folder)

    def finetuned(self) -> list[FinetunedSubnet]:
        """Return the subnets that were fine-tuned from the present weights, by id."""
        from edgenas.pipeline.finetuned import list_finetuned

        return list_finetuned(self.workspace)

    def evaluate(
        self,
        subnets: int = 200,
        device: str = "auto",
        data: str | Mapping[str, Any] | DataSet | None = None,
    ) -> AccuracyPredictor:
        """Evaluate random subnets on the validation split and fit an accuracy predictor to them.

        Started by torchrun, the processes divide the subnets among themselves.

        Args:
            subnets: How many subnets to evaluate at least, those of earlier calls included.
            device: ``cpu``, ``cuda``, or ``auto`` for CUDA where torch finds a GPU.
            data: A data set of the same classes, in their order, for imported weights; it stays the run's.

        Returns:
            The predictor, with its cross-validated error.

        Raises:
            RunError: The supernet is not trained, or the run has no data set.
        """
        from edgenas.pipeline.evaluate import evaluate

        return evaluate(self.workspace, subnets, device, data)

    def profile(
        self,
        target: Target,
        minutes: float = 10.0,
        target_error: float | None = None,
        source_tables: Sequence[str | Path | LatencyTable] = (),
    ) -> LatencyTable:
        """Measure subnets on a target and fit its latency table.

        The subnets have random weights: latency does not depend on their values.
        Four fifths of each batch are chosen by what the table knows least; one
        fifth is uniformly random and held out. Measuring ends after ``minutes``
        and at least 40 subnets (10 with ``source_tables``), or when the 95%
        interval of the error on at least 20 held-out subnets ends below
        ``target_error``. Subnets are planned and recorded, so that a call that
        was interrupted resumes and measures nothing twice.

        Args:
            target: The target to measure on.
            minutes: Device time to use, in minutes; more of it extends a table.
            target_error: Mean absolute percentage error at which to stop early, as a fraction (0.03 is 3%).
            source_tables: Tables of other targets to start from, by target name in this run, path, or value.

        Raises:
            UsageError: A value is out of range, or a source table is of another space.
            DeviceError: The device cannot be reached, or changed its speed for good.
        """
        from edgenas.pipeline.profile import profile

        return profile(self.workspace, target, minutes, target_error, source_tables)

    def explain(self, target: Target, architecture: Architecture) -> Explanation:
        """Divide the predicted latency of an architecture on a target among its parts.

        Raises:
            RunError: The target has no latency table yet.
        """
        from edgenas.pipeline.explain import explain

        return explain(self.workspace.table(target), architecture)

    def check_table(self, target: Target, subnets: int = 20) -> TableCheck:
        """Compare a latency table with fresh random subnets that are measured now.

        Args:
            target: The target whose table is checked.
            subnets: How many subnets to measure, 10 to 1000.

        Raises:
            RunError: There is no table, or too few subnets are left that were never measured.
            UsageError: The table is a published one, or ``subnets`` is out of range.
            DeviceError: The device cannot be reached, or changed its speed for good.
        """
        from edgenas.pipeline.check_table import check_table

        return check_table(self.workspace, target, subnets)

    def search(
        self,
        targets: Sequence[Target],
        seed: int = 0,
        strategy: str = DEFAULT_STRATEGY,
        *,
        objectives: Sequence[str] = ("accuracy", "latency", "memory"),
        limits: Mapping[str, str] | None = None,
        evaluations: int | None = None,
        measured: Sequence[str] = (),
    ) -> Front:
        """Search the front of a target, or of several together.

        Args:
            targets: One target or several, which are searched for at once: latency and memory of each are objectives.
                Every one gets the front, and the first one's is returned; costs on other targets end with their names.
            seed: Seed of the search.
            strategy: The search strategy: ``nsga2``, another of edgenas's, or one that an installed package adds.
            objectives: One or more of ``accuracy``, ``latency``, ``memory``, ``size``, ``macs`` and ``params``. Fewer
                give a better front of these in equal time.
            limits: Limits that each architecture of the front keeps, such as ``{"latency": "15ms"}``.
            evaluations: The number of architectures that may be evaluated; by default 70,000, with ``measured`` 200.
            measured: Any of ``accuracy``, ``latency`` and ``memory``: what to measure of each evaluated architecture,
                on the validation images and on the device, instead of predicting it. Every measurement is kept: a
                search that was interrupted resumes, and others use it.

        Raises:
            RunError: The accuracy predictor or the latency table is missing.
            BudgetError: No architecture is predicted to keep the limits; the message has the nearest value of each.
            UsageError: ``targets`` is empty or names one twice, another name is unknown, or the strategy breaks its
                contract.
        """
        from edgenas.pipeline.search import SearchOptions, search

        options = SearchOptions(seed, strategy, tuple(objectives), dict(limits or {}), evaluations, tuple(measured))
        if not targets or len(set(targets)) < len(targets):
            raise UsageError(f"search needs one or several different targets, but got {list(targets)}")
        return search(self.workspace, targets, options)

    def choose(self, budgets: Mapping[Target, Budget], max_drop: float = 0.01, *, measure: bool = True) -> Choice:
        """Choose the most accurate subnet whose exported file keeps its budget when it is measured.

        Targets of one device are ways to deploy: the one whose file is the most accurate is part of the choice. Of
        several devices all budgets must be kept by one subnet. The best candidates' files are first run on the
        validation images, then measured one by one. The file's accuracy on the test images is reported and decides
        nothing.

        Args:
            budgets: The targets with their budgets, one budget a device: ``{target: budget}``, or
                ``dict.fromkeys(run.targets("raspberry-pi-5"), budget)``.
            max_drop: Accuracy that the file may lose against the subnet, as a fraction (0.01 is one point).
            measure: False chooses by predictions alone, without images and device. No choice is written then.

        Raises:
            BudgetError: No subnet is predicted to fit.
            NoChoiceError: No candidate kept the budget when it was measured.
            RunError: A table is missing, or weights or images are, which measuring needs.
            UsageError: ``budgets`` is empty or has two budgets for a device, or ``max_drop`` is out of range.
            DeviceError: The device cannot be reached.
        """
        from edgenas.pipeline.choose import choose

        return choose(self.workspace, budgets, max_drop, measure)

    def export(
        self, architecture: Architecture, target: Target, out: str | Path, *, export_format: ExportFormat | None = None
    ) -> Bundle:
        """Export an architecture as a bundle, its file verified against PyTorch.

        Args:
            architecture: The architecture to export.
            target: The target, which decides the file format and is named in the bundle.
            out: The folder of the bundle.
            export_format: Another file format than the target's.

        Raises:
            VerificationError: The file loses more than its format may.
            UsageError: ``out`` holds something else than a bundle, or the architecture is of another space.
            RunError: The supernet is not trained.
        """
        from edgenas.pipeline.export import export

        return export(self.workspace, architecture, target, Path(out), export_format)

    def export_all(
        self,
        architecture: Architecture,
        target: Target,
        out: str | Path,
        formats: Sequence[ExportFormat],
        settings: ExportSettings | None = None,
    ) -> list[ExportedBundle]:
        """Export an architecture in several file formats: a bundle ``out/FORMAT`` and ``out/FORMAT.zip`` of each.

        Args:
            architecture: The architecture to export.
            target: The target whose measurements are named in the bundles.
            out: The folder for the bundles.
            formats: The file formats.
            settings: Calibration, layers kept in float and batch size.

        Raises:
            FailedExportError: Files lose more than their format may; raised after the others were written.
            UsageError: A setting cannot be, or something else lies in ``out``.
        """
        from edgenas.pipeline.export import export_all
        from edgenas.pipeline.prepared_model import ExportSettings

        return export_all(self.workspace, architecture, target, Path(out), formats, settings or ExportSettings())

    # -- results and names --------------------------------------------------------------

    def predictor(self) -> AccuracyPredictor | ReleasedPredictor:
        """Return the accuracy predictor of the evaluated subnets, else the imported one; RunError without either."""
        from edgenas.pipeline.evaluate import load_predictor

        return load_predictor(self.workspace)

    def table(self, target: Target) -> LatencyTable:
        """Return the latency table of a target; RunError before it was profiled."""
        return self.workspace.table(target)

    def front(self, target: Target) -> Front:
        """Return the front of a target; RunError before it was searched."""
        return self.workspace.front(target)

    def choices(self, target: Target) -> list[Choice]:
        """Return what was chosen for a target, alone or with others, by budget; RunError before anything was."""
        from edgenas.pipeline.choice import load_choices

        return load_choices(self.workspace, target)

    def chosen(
        self,
        device: str | Path,
        runtime: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> tuple[Architecture, Target]:
        """Return the architecture that was chosen for a device, and the target that was chosen with it.

        The arguments are those of ``targets``.

        Raises:
            RunError: Nothing was chosen, or different ones for different budgets.
            UsageError: A name is unknown.
        """
        from edgenas.pipeline.choice import find_chosen

        asked = (device, runtime, threads, precision)
        try:
            targets = self.targets(*asked)
        except RunError:  # then nothing was chosen, which is what to say
            targets = [self.target(*asked)]
        return find_chosen(self.workspace, targets)

    def target_of_choice(self, architecture: Architecture, targets: Sequence[Target]) -> Target | None:
        """Return the only one of some targets that an architecture was chosen for; None for none and for several."""
        from edgenas.pipeline.choice import find_target_of_choice

        return find_target_of_choice(self.workspace, targets, architecture)

    def targets(
        self,
        device: str | Path,
        runtime: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> list[Target]:
        """Return the targets of a device that have a latency table; what is given leaves those that agree.

        Args:
            device: The name of a profile, the path of one, or the device of imported tables.
            runtime: ``onnxruntime`` or ``litert``.
            threads: Number of threads.
            precision: ``fp32``, ``fp16``, ``dynamic`` or ``int8``.

        Raises:
            RunError: No such target has a table; the message lists those that have one.
            UsageError: A name is unknown, or the runtime's files do not have this precision.
        """
        from edgenas.pipeline.names import resolve_targets

        return resolve_targets(self.folder, device, runtime, threads, precision)

    def target(
        self,
        device: str | Path,
        runtime: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ) -> Target:
        """Return a target by the name of its device, which may be that of imported tables.

        Args:
            device: The name of a profile, the path of one, or the device of imported tables.
            runtime: ``onnxruntime`` or ``litert``; by default the profile's.
            threads: Number of threads; by default the profile's.
            precision: ``fp32``, ``fp16``, ``dynamic`` or ``int8``; by default the profile's.

        Raises:
            UsageError: A name is unknown, or the runtime's files do not have this precision.
        """
        from edgenas.pipeline.names import resolve_target

        return resolve_target(self.folder, device, runtime, threads, precision)

    def architecture(self, name: str) -> Architecture:
        """Return an architecture by ``min``, ``max``, ``chosen``, its id, or the path of a JSON file.

        Raises:
            UsageError: The name is none of these.
            RunError: Nothing was chosen, or several architectures, or there is no such fine-tuned subnet.
        """
        from edgenas.pipeline.names import resolve_architecture

        return resolve_architecture(self.workspace, name)
