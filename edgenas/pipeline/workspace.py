"""The state of a run that its steps work on: folder, space, trained weights, data set, and the results so far."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.devices import Target
from edgenas.errors import RunError
from edgenas.files import read_bytes, sha256_hex
from edgenas.pipeline.documents import DATA_SOURCE, RUN, read_space
from edgenas.pipeline.measurement_log import MeasurementLog
from edgenas.pipeline.progress import Progress
from edgenas.pipeline.run_folder import RunFolder
from edgenas.pipeline.upgrade import upgrade_run
from edgenas.shell import format_command
from edgenas.space import SearchSpace, check_space

if TYPE_CHECKING:
    from edgenas.accuracy import Evaluator
    from edgenas.data import DataSet
    from edgenas.ofa import Checkpoint, Supernet
    from edgenas.profilers import LatencyTable
    from edgenas.search import Front

_CREATION_S = 10.0  # processes that torchrun starts may create a run together


class Workspace:
    """A run folder that is open, and what the steps share of it.

    Steps take a workspace as their first argument. They read earlier results
    from it, write their own under ``folder.writing()``, and say how far they
    are through ``progress``.
    """

    def __init__(self, folder: Path, space: SearchSpace | None, progress: Progress) -> None:
        """Open the run in ``folder``, or create it for ``space``.

        Raises:
            RunError: The folder is a run of another space, or no run and no space is given.
        """
        self.folder, self.progress = RunFolder(folder), progress
        self._logs: dict[str, MeasurementLog] = {}
        self.folder.check_no_links()
        path = self.folder.run
        if not path.exists():
            if space is None:
                command = format_command("train", "CONFIG.yaml", "--run", folder)
                raise RunError(f"{folder}: is no run folder; make one with: {command}")
            check_space(space)
            with self.folder.writing(wait_s=_CREATION_S):
                if not path.exists():  # another process may have created the run meanwhile
                    RUN.write(path, {"space": space.to_dict()})
        upgrade_run(self.folder, progress.say)
        self.space = read_space(path)
        if space is not None and space != self.space:
            raise RunError(
                f"{folder}: is a run of space {self.space.short_hash}, not of {space.short_hash}"
                f" ({_describe_differences(self.space, space)}); use another run folder"
            )

    def __repr__(self) -> str:
        return f"Workspace({str(self.folder.root)!r}, {self.space.short_hash})"

    @cached_property
    def trained(self) -> Checkpoint:
        """The supernet after its training ended, with its recipe; RunError before."""
        from edgenas.ofa import load_checkpoint
        from edgenas.ofa.checkpoint import has_ended_training

        root, path = self.folder.root, self.folder.checkpoint
        if not path.exists():
            raise RunError(
                f"{root}: has no trained supernet yet; run: {format_command('train', 'CONFIG.yaml', '--run', root)}"
            )
        trained = load_checkpoint(path)
        if trained.supernet.space != self.space:
            raise RunError(f"{path}: is of another space than its run; train again in a new run folder")
        if not has_ended_training(trained, str(path)):
            raise RunError(f"{root}: training has not ended; run the same edgenas train command again")
        return trained

    @property
    def supernet(self) -> Supernet:
        """The trained supernet; RunError before training ended."""
        return self.trained.supernet

    @property
    def recipe(self) -> dict[str, Any]:
        """The origin of the weights: data, schedule and seed of training, or the imported file; RunError before."""
        return self.trained.recipe

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the trained checkpoint, to which evaluated accuracies belong."""
        return sha256_hex(read_bytes(self.folder.checkpoint))

    @property
    def has_data(self) -> bool:
        """True for a run that was trained here, or was given a data set. RunError before training ended."""
        return "imported" not in self.recipe or self.folder.data_source.exists()

    @property
    def seed(self) -> int:
        """The seed of the training; 0 for imported weights."""
        return int(self.recipe.get("seed", 0))

    def require_data(self) -> None:
        """Raise RunError when the weights were imported, because such a run has no data set."""
        if self.folder.checkpoint.exists() and not self.has_data:
            root, name = self.folder.root, self.recipe["imported"]
            raise RunError(
                f"{root}: was imported from {name} and has no data set, which this step needs; give it one"
                f" ({format_command('evaluate', '--run', root)} --data FOLDER), or profile it"
                f" ({format_command('profile', '--run', root)})"
            )

    @cached_property
    def data(self) -> DataSet:
        """The data set of the training, or the one given to imported weights; RunError without one."""
        from edgenas.data import DataSource, load_data

        self.require_data()
        recipe, path, root = self.recipe, self.folder.checkpoint, self.folder.root
        if "data" not in recipe:
            recipe, path = DATA_SOURCE.read(self.folder.data_source), self.folder.data_source
        source = DataSource.parse(recipe["data"], f"{path}: data")
        if source.is_code and Path.cwd().is_relative_to(root.resolve()):
            raise RunError(
                f"{root}: its data is code, {source.name}, which is not taken from a run folder; call edgenas from the"
                " folder of your code"
            )
        return load_data(source)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The evaluator of subnets of the trained supernet on the run's images."""
        from edgenas.accuracy import Evaluator

        return Evaluator(self.supernet, self.data, self.seed, self.trained.threads)

    def measurement_log(self, target: Target) -> MeasurementLog:
        """Return the log of a target's measurements, one object that all steps share."""
        path = self.folder.measurements(target.name)
        return self._logs.setdefault(target.name, MeasurementLog(path, self.progress.say))

    def table(self, target: Target) -> LatencyTable:
        """Load the latency table of a target; RunError before it was profiled."""
        from edgenas.profilers import LatencyTable

        path = self._require(self.folder.table(target.name), "latency table", "profile", target)
        return LatencyTable.load(path, self.space)

    def front(self, target: Target) -> Front:
        """Load the front of a target; RunError before it was searched."""
        from edgenas.search import Front

        return Front.load(self._require(self.folder.front(target.name), "front", "search", target), self.space)

    def _require(self, path: Path, what: str, step: str, target: Target) -> Path:
        """Return ``path``; raise RunError naming the step that makes it when it is missing."""
        if not path.exists():
            root = self.folder.root
            raise RunError(
                f"{root}: has no {what} of {target.name} yet;"
                f" run: {format_command(step, '--run', root)} --device {target.cli_name}"
            )
        return path


def _describe_differences(found: SearchSpace, wanted: SearchSpace) -> str:
    """Return the fields in which two spaces differ, with both values."""
    here, there = found.to_dict(), wanted.to_dict()
    fields = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return "; ".join(f"{name} is {here.get(name)}, not {there.get(name)}" for name in fields)
