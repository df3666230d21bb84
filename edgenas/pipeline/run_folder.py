"""What lies where in a run folder, and its lock."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgenas.errors import EdgeNASError, RunError
from edgenas.files import TEMPORARY_SUFFIX


@dataclass(frozen=True)
class Layout:
    """The paths of a run folder. Targets and architectures are named by strings that are safe in file names."""

    root: Path

    @property
    def run(self) -> Path:
        """What the run is of: its space."""
        return self.root / "run.json"

    @property
    def data(self) -> Path:
        """Which images are for training, validation and test."""
        return self.root / "data.json"

    @property
    def checkpoint(self) -> Path:
        """The supernet: in training, with momenta; afterwards the trained weights."""
        return self.root / "training" / "checkpoint.safetensors"

    @property
    def teacher(self) -> Path:
        """The supernet after the first phase."""
        return self.root / "training" / "teacher.safetensors"

    @property
    def evaluated(self) -> Path:
        """Evaluated subnets: genes and accuracy."""
        return self.root / "accuracy" / "evaluated.json"

    @property
    def released_predictor(self) -> Path:
        """An accuracy predictor that was imported."""
        return self.root / "accuracy" / "predictor.safetensors"

    def device(self, name: str) -> Path:
        """The profile of a device that is known from imported latency tables only."""
        return self.root / "devices" / f"{name}.yaml"

    def measurements(self, target: str) -> Path:
        """The folder of a target's raw measurements."""
        return self.root / "measurements" / target

    def table(self, target: str) -> Path:
        """A target's latency table."""
        return self.root / "tables" / f"{target}.json"

    def plan(self, target: str) -> Path:
        """Which subnets a target's table is made from, decided batch by batch."""
        return self.root / "tables" / f"{target}.plan.json"

    def check(self, target: str, number: int) -> Path:
        """A check of a target's latency table."""
        return self.root / "tables" / f"{target}.check-{number}.json"

    def check_plan(self, target: str, number: int) -> Path:
        """Which subnets a check that has not ended measures."""
        return self.root / "tables" / f"{target}.check-{number}.plan.json"

    def front(self, target: str) -> Path:
        """A target's front."""
        return self.root / "fronts" / f"{target}.json"

    def choices(self, target: str) -> Path:
        """The folder of a target's choices."""
        return self.root / "choices" / target

    def choice(self, target: str, budget: str) -> Path:
        """A target's choice for a budget."""
        return self.choices(target) / f"{budget}.json"

    def bundle(self, target: str, architecture: str) -> Path:
        """An architecture's bundle for a target, or of a kind of file."""
        return self.root / "bundles" / target / architecture

    def picture(self, target: str) -> Path:
        """The front as a picture."""
        return self.root / "fronts" / f"{target}.png"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run's lock: one writer at a time. A killed holder lets go of it by dying.

        Raises RunError when another process holds it.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("w")
        except OSError as error:
            raise EdgeNASError(
                f"{self.root}: cannot be written ({error.strerror}); choose another run folder"
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.root}: another edgenas command is writing this run; wait for it to end"
                ) from None
            for remains in self.root.rglob(f".*{TEMPORARY_SUFFIX}"):
                # Of a writer that was killed: the lock is ours, so nobody is writing it.
                shutil.rmtree(remains) if remains.is_dir() else remains.unlink()
            yield
