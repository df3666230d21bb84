"""The paths in a run folder, and its lock."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgenas.errors import EdgeNASError, RunError
from edgenas.files import TEMPORARY_SUFFIX, opened_without_links
from edgenas.locks import take_lock

_PROBE_S = 1.0  # whoever asks whether a training runs holds the lock for a moment


@dataclass(frozen=True)
class TrainingFolder:
    """The paths of one training, of a supernet or of a single subnet, and the lock that shows that it runs."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        """The network: in training, with momenta; afterwards the trained weights."""
        return self.root / "checkpoint.safetensors"

    @property
    def teacher(self) -> Path:
        """The supernet after the first phase."""
        return self.root / "teacher.safetensors"

    @property
    def metrics(self) -> Path:
        """The metrics of training, as JSON lines."""
        return self.root / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's files."""
        return self.root / "tensorboard"

    @property
    def result(self) -> Path:
        """How a subnet was fine-tuned, and what came out; there when it has ended."""
        return self.root / "result.json"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show others that this training runs, until the context or the process ends."""
        with opened_without_links(self._lock, os.O_RDWR | os.O_CREAT) as lock:
            take_lock(lock, _PROBE_S)
            yield

    def is_running(self) -> bool:
        """Return whether a process trains now."""
        try:
            with opened_without_links(self._lock, os.O_RDONLY) as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    @property
    def _lock(self) -> Path:
        return self.root / ".lock"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run folder, and the names of its targets, checks and choices.

    Names of targets and ids of architectures are strings that are safe in file
    names. Only ``writing`` makes, changes or removes files.
    """

    root: Path

    @property
    def run(self) -> Path:
        """The run's search space and layout version."""
        return self.root / "run.json"

    @property
    def data(self) -> Path:
        """Which images are for training, validation and test."""
        return self.root / "data.json"

    @property
    def data_source(self) -> Path:
        """The data set that was given to imported weights."""
        return self.root / "data_source.json"

    @property
    def checkpoint(self) -> Path:
        """The supernet: in training, with momenta; afterwards the trained weights."""
        return self.training.checkpoint

    @property
    def training(self) -> TrainingFolder:
        """The training of the supernet."""
        return TrainingFolder(self.root / "training")

    def finetuned(self, architecture: str) -> TrainingFolder:
        """Return the training of a subnet that was fine-tuned, by its id."""
        return TrainingFolder(self.root / "finetuned" / architecture)

    def finetuned_ids(self) -> list[str]:
        """Return the ids of the subnets whose fine-tuning has begun, sorted."""
        return sorted(path.name for path in self.root.glob("finetuned/*") if path.is_dir())

    @property
    def evaluated(self) -> Path:
        """Accuracies of evaluated subnets, by id."""
        return self.root / "accuracy" / "evaluated_subnets.json"

    @property
    def released_predictor(self) -> Path:
        """An accuracy predictor that was imported."""
        return self.root / "accuracy" / "predictor.safetensors"

    def device(self, name: str) -> Path:
        """Return the profile of a device that is known from imported latency tables only."""
        return self.root / "devices" / f"{name}.yaml"

    @property
    def not_upgraded(self) -> Path:
        """The files of an older layout that the upgrade skipped, under their old paths."""
        return self.root / "not_upgraded"

    @property
    def targets(self) -> Path:
        """The parent of the targets' folders."""
        return self.root / "targets"

    def target(self, target: str) -> Path:
        """Return the folder of all that belongs to a target."""
        return self.targets / target

    def measurements(self, target: str) -> Path:
        """Return the log of a target's raw measurements."""
        return self.target(target) / "measurements.jsonl"

    def table(self, target: str) -> Path:
        """Return a target's latency table."""
        return self.target(target) / "latency_table.json"

    def plan(self, target: str) -> Path:
        """Return the plan of which subnets a target's table is made from, decided batch by batch."""
        return self.target(target) / "profile_plan.json"

    def check(self, target: str, number: int) -> Path:
        """Return a check of a target's latency table."""
        return self.target(target) / "checks" / f"{number}.json"

    def check_plan(self, target: str, number: int) -> Path:
        """Return the plan of which subnets a check that has not ended measures."""
        return self.target(target) / "checks" / f"{number}.plan.json"

    def front(self, target: str) -> Path:
        """Return a target's front."""
        return self.target(target) / "front.json"

    def evaluations(self, target: str, inputs_digest: str) -> Path:
        """Return the measured costs of a search, of these weights and settings."""
        return self.target(target) / f"evaluations-{inputs_digest}.jsonl"

    def picture(self, target: str) -> Path:
        """Return the picture of a target's front."""
        return self.target(target) / "front.png"

    def choice(self, target: str, budget: str) -> Path:
        """Return a target's choice for a budget."""
        return self.target(target) / "choices" / f"{budget}.json"

    def bundle(self, target: str, architecture: str) -> Path:
        """Return the folder of an architecture's bundle for a target."""
        return self.target(target) / "bundles" / architecture

    def format_bundle(self, file_format: str, architecture: str) -> Path:
        """Return the folder of an architecture's bundle of a file format, which belongs to no target."""
        return self.root / "bundles" / file_format / architecture

    def targets_with_table(self) -> list[str]:
        """Return the names of the targets that have a latency table, sorted."""
        return [path.parent.name for path in sorted(self.targets.glob("*/latency_table.json"))]

    def profiled_targets(self, device: str) -> list[str]:
        """Return the names of a device's targets that have a latency table or the plan of one, sorted."""
        files = {*self.targets.glob("*/latency_table.json"), *self.targets.glob("*/profile_plan.json")}
        return sorted({path.parent.name for path in files if path.parent.name.startswith(f"{device}-")})

    def check_numbers(self, target: str) -> list[int]:
        """Return the numbers of the checks of a target's table that have ended, sorted."""
        found = (re.fullmatch(r"(\d+)\.json", path.name) for path in self.target(target).glob("checks/*.json"))
        return sorted(int(match[1]) for match in found if match)

    def choices(self, target: str = "*") -> list[Path]:
        """Return a target's choices, or those of all, sorted."""
        return sorted(self.targets.glob(f"{target}/choices/*.json"))

    def check_no_links(self) -> None:
        """Raise RunError for a link in the folder: what edgenas writes or removes would be elsewhere.

        A run folder may have been given by somebody else, and needs none.
        """
        for folder, folders, files in os.walk(self.root):
            for name in (*folders, *files):
                path = Path(folder, name)
                if path.is_symlink():
                    raise RunError(f"{path}: is a link, which a run folder may not hold; put what it leads to there")

    @contextmanager
    def writing(self, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the run's lock: one process writes at a time. The lock of a killed process is released.

        Temporary files that a killed process left are removed.

        Args:
            wait_s: How long to wait for another process, in seconds.

        Raises:
            RunError: Another process holds it, or the folder holds a link.
            EdgeNASError: The folder cannot be made or written.
        """
        with ExitStack() as stack:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(opened_without_links(self.root / ".lock", os.O_RDWR | os.O_CREAT))
            except OSError as error:
                raise EdgeNASError(
                    f"{self.root}: cannot be written ({error.strerror}); choose another run folder"
                ) from None
            if not take_lock(lock, wait_s):
                raise RunError(f"{self.root}: another edgenas command is writing this run; wait for it to end")
            self.check_no_links()
            for remains in list(self.root.rglob(f".*{TEMPORARY_SUFFIX}")):
                # The lock is held, so nobody is writing them.
                shutil.rmtree(remains) if remains.is_dir() else remains.unlink(missing_ok=True)
            yield
