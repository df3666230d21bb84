"""Progressive training of a supernet. Interrupted training resumes and gives the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgenas.data import DataSet, ImageSize
from edgenas.errors import RunError, TrainingError, UsageError
from edgenas.ofa.checkpoint import Checkpoint, Position, load_checkpoint, save_checkpoint
from edgenas.ofa.layers import to_channels_last
from edgenas.ofa.schedule import Phase, Schedule
from edgenas.ofa.supernet import Supernet
from edgenas.ofa.threads import cores_but_one, torch_threads
from edgenas.space import SearchSpace

CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True)
class TrainingStep:
    """The progress after one step: images done and in total, and the mean loss and accuracy of the step's subnets."""

    phase: str
    done: int
    total: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class TrainingFiles:
    """The files of training: the current checkpoint and the teacher that the first phase leaves."""

    checkpoint: Path
    teacher: Path


def check_recipe(space: SearchSpace, data: DataSet, schedule: Schedule, seed: int) -> None:
    """Raise UsageError unless the space can be trained on the data by the schedule."""
    if data.class_count != space.classes:
        raise UsageError(f"data {data.name} has {data.class_count} classes, the space {space.classes}; they must agree")
    channels = space.largest.input_shape[0]
    if data.preprocessing.channels != channels:
        raise UsageError(f"data {data.name} has {data.preprocessing.channels} channels, the space {channels}")
    if len(data.train) < schedule.batch_size:
        raise UsageError(
            f"schedule {schedule.name}: batch_size must be at most the {len(data.train)} training images of"
            f" {data.name}, but got {schedule.batch_size}"
        )
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed must be from 0 to 2**63 - 1, but got {seed}")


class Trainer:
    """The training of one supernet by progressive shrinking (Once-for-All, arXiv 1908.09791).

    Training may be killed at any moment. A new Trainer with the same arguments
    continues from the last checkpoint and ends with the same bits.

    Args:
        space: The search space.
        data: The data set.
        schedule: The phases and their settings.
        seed: Decides everything that is random.
        files: The files that training reads and writes.

    Raises:
        UsageError: The space cannot be trained on the data by the schedule.
    """

    def __init__(self, space: SearchSpace, data: DataSet, schedule: Schedule, seed: int, files: TrainingFiles) -> None:
        check_recipe(space, data, schedule, seed)
        self._space, self._data, self._schedule, self._seed, self._files = space, data, schedule, seed, files
        self._steps_per_epoch = len(data.train) // schedule.batch_size
        self._recipe = {"data": data.recipe, "schedule": schedule.to_dict(), "seed": seed}

    @property
    def finished(self) -> bool:
        """True when the checkpoint is at the end of the schedule. Raises RunError when it has other arguments."""
        return self._files.checkpoint.exists() and self._load_or_start().position.phase == len(self._schedule.phases)

    def run(self, on_step: Callable[[TrainingStep], None]) -> Supernet:
        """Train to the end of the schedule and return the supernet in eval mode.

        Resumed training uses as many threads as before.

        Args:
            on_step: Called after every step.

        Raises:
            RunError: The checkpoint has other arguments.
            TrainingError: The loss diverged.
        """
        start = self._load_or_start()
        supernet, position = start.supernet, start.position
        with torch_threads(start.threads):
            for number in range(position.phase, len(self._schedule.phases)):
                first_step = position.step if number == position.phase else 0
                self._train_phase(supernet, number, first_step, start.momenta if first_step else {}, on_step)
                if number == 0:
                    self._save(self._files.teacher, supernet, Position(1, 0), {})
                self._save(self._files.checkpoint, supernet, Position(number + 1, 0), {})
        return supernet.eval()

    def _load_or_start(self) -> Checkpoint:
        """Return the last checkpoint, or that of a new supernet. Raises RunError when it has other arguments."""
        path = self._files.checkpoint
        if not path.exists():
            supernet = Supernet(self._space, self._seed)
            return Checkpoint(supernet, Position(0, 0), {}, self._recipe, cores_but_one())
        checkpoint = load_checkpoint(path)
        if checkpoint.supernet.space != self._space:
            raise RunError(f"{path}: is of another space; use another run folder")
        if checkpoint.recipe != self._recipe:
            changed = [key for key in self._recipe if checkpoint.recipe.get(key) != self._recipe[key]]
            raise RunError(
                f"{path}: was trained with another {' and '.join(changed)}; use another run folder or the same values"
            )
        return checkpoint

    def _save(self, path: Path, supernet: Supernet, position: Position, momenta: dict[str, Tensor]) -> None:
        save_checkpoint(path, Checkpoint(supernet, position, momenta, self._recipe, torch.get_num_threads()))

    def _train_phase(
        self,
        supernet: Supernet,
        number: int,
        first_step: int,
        momenta: dict[str, Tensor],
        on_step: Callable[[TrainingStep], None],
    ) -> None:
        phase = self._schedule.phases[number]
        to_channels_last(supernet)
        supernet.train()
        teacher = self._load_teacher() if phase.distill else None
        optimizer = self._make_optimizer(supernet, momenta)
        saved = time.monotonic()
        for step in range(first_step, phase.epochs * self._steps_per_epoch):
            for group in optimizer.param_groups:
                group["lr"] = phase.rate(step, self._steps_per_epoch)
            on_step(self._train_step(supernet, teacher, optimizer, number, step))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _require_finite(supernet, phase, step)
                self._save(
                    self._files.checkpoint, supernet, Position(number, step + 1), _read_momenta(supernet, optimizer)
                )
                saved = time.monotonic()
        _require_finite(supernet, phase, phase.epochs * self._steps_per_epoch - 1)

    def _load_teacher(self) -> Supernet:
        teacher = load_checkpoint(self._files.teacher).supernet
        to_channels_last(teacher)
        return teacher.train()  # batch norm uses the statistics of the batch, as in the authors' implementation

    def _make_optimizer(self, supernet: Supernet, momenta: dict[str, Tensor]) -> torch.optim.SGD:
        """Return SGD with Nesterov momentum, without weight decay on batch norms and biases."""
        named = dict(supernet.named_parameters())
        decayed = {name for name in named if name.endswith(("weight", "_matrix")) and ".bn." not in name}
        optimizer = torch.optim.SGD(
            [
                {"params": [p for n, p in named.items() if n in decayed], "weight_decay": self._schedule.weight_decay},
                {"params": [p for n, p in named.items() if n not in decayed], "weight_decay": 0.0},
            ],
            lr=0.0,
            momentum=self._schedule.momentum,
            nesterov=True,
        )
        for name, buffer in momenta.items():
            layout = torch.channels_last if buffer.dim() == 4 else torch.contiguous_format
            optimizer.state[named[name]]["momentum_buffer"] = buffer.clone(memory_format=layout)
        return optimizer

    def _train_step(
        self, supernet: Supernet, teacher: Supernet | None, optimizer: torch.optim.SGD, number: int, step: int
    ) -> TrainingStep:
        phase = self._schedule.phases[number]
        rng = np.random.default_rng([self._seed, number, step])
        subnets = self._space.decode(phase.sample(self._space, rng))
        batch, targets = self._make_batch(number, step, subnets[0].image_size, rng)
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        soft_labels = None if teacher is None else self._soft_labels(teacher, batch, subnets[0].resolution)
        optimizer.zero_grad(set_to_none=True)
        loss_sum, correct = 0.0, 0
        for subnet in subnets:
            logits = supernet(batch, subnet)
            loss = functional.cross_entropy(logits, targets, label_smoothing=self._schedule.label_smoothing)
            if soft_labels is not None:
                loss = loss + functional.cross_entropy(logits, soft_labels)
            loss.backward()
            loss_sum += loss.item()
            correct += int((logits.argmax(1) == labels).sum())
        optimizer.step()
        loss_mean = loss_sum / len(subnets)
        if not np.isfinite(loss_mean):
            raise _diverged(phase, step, f"the loss is {loss_mean}")
        return TrainingStep(
            phase.name,
            self._count_images(number, step + 1),
            self._count_images(len(self._schedule.phases), 0),
            loss_mean,
            correct / len(subnets) / len(labels),
        )

    def _soft_labels(self, teacher: Supernet, batch: Tensor, resolution: int) -> Tensor:
        """Return the class probabilities (N, classes) that the teacher's largest network gives a batch."""
        with torch.no_grad():
            return functional.softmax(teacher(batch, self._space.largest.at_resolution(resolution)), dim=1)

    def _count_images(self, phases: int, steps: int) -> int:
        """Count the images of the first phases and of some steps after them."""
        epochs = sum(phase.epochs for phase in self._schedule.phases[:phases])
        return (epochs * self._steps_per_epoch + steps) * self._schedule.batch_size

    def _make_batch(self, number: int, step: int, size: ImageSize, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return a step's ``DataSet.to_training_batch``. Each epoch is a new permutation."""
        epoch, epoch_step = divmod(step, self._steps_per_epoch)
        order = np.random.default_rng([self._seed, number, epoch, 1]).permutation(len(self._data.train))
        count = self._schedule.batch_size
        chosen = order[epoch_step * count : (epoch_step + 1) * count]
        images, targets = self._data.to_training_batch(chosen, size, rng)
        return images.contiguous(memory_format=torch.channels_last), targets


def _diverged(phase: Phase, step: int, problem: str) -> TrainingError:
    return TrainingError(
        f"phase {phase.name}, step {step}: {problem}; lower the learning rate ({phase.learning_rate})"
        " and train in a new run folder"
    )


def _require_finite(supernet: nn.Module, phase: Phase, step: int) -> None:
    """Raise TrainingError when the last step made a weight infinite, which its loss did not show yet."""
    for name, tensor in supernet.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise _diverged(phase, step, f"{name} is no longer finite")


def _read_momenta(supernet: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """Return the momentum buffer of each parameter that has one, by the parameter's name."""
    state: dict[Any, Any] = optimizer.state
    buffers = {name: state.get(p, {}).get("momentum_buffer") for name, p in supernet.named_parameters()}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}
