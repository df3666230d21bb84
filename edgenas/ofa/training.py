"""Progressive training of a supernet, resumable to the bit."""

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

from edgenas.data import DataSet
from edgenas.errors import RunError, TrainingError, UsageError
from edgenas.ofa.checkpoint import Checkpoint, Position, load_checkpoint, save_checkpoint
from edgenas.ofa.layers import to_channels_last
from edgenas.ofa.schedule import Phase, Schedule
from edgenas.ofa.supernet import Supernet
from edgenas.ofa.threads import spare_threads, torch_threads
from edgenas.space import SearchSpace

CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True)
class TrainingStep:
    """What one step of training showed: mean over its subnets; ``done`` and ``total`` count images."""

    phase: str
    done: int
    total: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class TrainingFiles:
    """Where training keeps its state: the running checkpoint and the frozen teacher."""

    checkpoint: Path
    teacher: Path


def check_recipe(space: SearchSpace, data: DataSet, schedule: Schedule, seed: int) -> None:
    """Raise UsageError unless this space can be trained on this data by this schedule."""
    if data.classes != space.classes:
        raise UsageError(f"data {data.name} has {data.classes} classes, the space {space.classes}; they must agree")
    if len(data.train) < schedule.batch_size:
        raise UsageError(
            f"schedule {schedule.name}: batch_size must be at most the {len(data.train)} training images of"
            f" {data.name}, but got {schedule.batch_size}"
        )
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed must be from 0 to 2**63 - 1, but got {seed}")


class Trainer:
    """Trains a supernet of ``space`` on ``data`` by ``schedule``; everything random follows from ``seed``.

    Kill it at any moment: a new Trainer with the same arguments goes on from
    the last checkpoint and ends with the same bits. Raises RunError when the
    checkpoint belongs to other arguments, TrainingError when the loss diverges.
    """

    def __init__(self, space: SearchSpace, data: DataSet, schedule: Schedule, seed: int, files: TrainingFiles) -> None:
        check_recipe(space, data, schedule, seed)
        self._space, self._data, self._schedule, self._seed, self._files = space, data, schedule, seed, files
        self._steps_per_epoch = len(data.train) // schedule.batch_size
        self._recipe = {"data": data.name, "schedule": schedule.to_dict(), "seed": seed}

    @property
    def finished(self) -> bool:
        """Whether the checkpoint is at the end of the schedule. Raises RunError when it belongs to other arguments."""
        return self._files.checkpoint.exists() and self._restore().position.phase == len(self._schedule.phases)

    def run(self, on_step: Callable[[TrainingStep], None]) -> Supernet:
        """Train to the end of the schedule and return the supernet in eval mode.

        Training that goes on uses as many threads as the one that began.
        """
        begun = self._restore()
        with torch_threads(begun.threads):
            self._train_from(begun, on_step)
        return begun.supernet.eval()

    def _train_from(self, begun: Checkpoint, on_step: Callable[[TrainingStep], None]) -> None:
        supernet, position = begun.supernet, begun.position
        for number in range(position.phase, len(self._schedule.phases)):
            first = position.step if number == position.phase else 0
            self._train_phase(supernet, number, first, begun.momenta if first else {}, on_step)
            if number == 0:
                self._save(self._files.teacher, supernet, Position(1, 0), {})
            self._save(self._files.checkpoint, supernet, Position(number + 1, 0), {})

    def _restore(self) -> Checkpoint:
        path = self._files.checkpoint
        if not path.exists():
            supernet = Supernet(self._space, self._seed)
            return Checkpoint(supernet, Position(0, 0), {}, self._recipe, spare_threads())
        begun = load_checkpoint(path)
        if begun.supernet.space != self._space:
            raise RunError(f"{path}: is of another space; use another run folder")
        if begun.recipe != self._recipe:
            changed = [key for key in self._recipe if begun.recipe.get(key) != self._recipe[key]]
            raise RunError(
                f"{path}: was trained with another {' and '.join(changed)}; use another run folder or the same values"
            )
        return begun

    def _save(self, path: Path, supernet: Supernet, position: Position, momenta: dict[str, Tensor]) -> None:
        save_checkpoint(path, Checkpoint(supernet, position, momenta, self._recipe, torch.get_num_threads()))

    def _train_phase(
        self,
        supernet: Supernet,
        number: int,
        first: int,
        momenta: dict[str, Tensor],
        on_step: Callable[[TrainingStep], None],
    ) -> None:
        phase = self._schedule.phases[number]
        to_channels_last(supernet)
        supernet.train()
        teacher = self._teacher() if phase.distill else None
        optimizer = self._optimizer(supernet, momenta)
        saved = time.monotonic()
        for step in range(first, phase.epochs * self._steps_per_epoch):
            for group in optimizer.param_groups:
                group["lr"] = phase.rate(step, self._steps_per_epoch)
            on_step(self._train_step(supernet, teacher, optimizer, number, step))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                _require_finite(supernet, phase, step)
                self._save(self._files.checkpoint, supernet, Position(number, step + 1), _momenta(supernet, optimizer))
                saved = time.monotonic()
        _require_finite(supernet, phase, phase.epochs * self._steps_per_epoch - 1)

    def _teacher(self) -> Supernet:
        teacher = load_checkpoint(self._files.teacher).supernet
        to_channels_last(teacher)
        return teacher.train()  # its batch norms use the batch's statistics, as in the reference

    def _optimizer(self, supernet: Supernet, momenta: dict[str, Tensor]) -> torch.optim.SGD:
        """SGD with Nesterov momentum; no weight decay on batch norms and biases."""
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
        batch, labels = self._batch(number, step, subnets[0].resolution, rng)
        soft = None
        if teacher is not None:
            largest = self._space.largest.at_resolution(subnets[0].resolution)
            with torch.no_grad():
                soft = functional.softmax(teacher(batch, largest), dim=1)
        optimizer.zero_grad(set_to_none=True)
        loss_sum, correct = 0.0, 0
        for subnet in subnets:
            logits = supernet(batch, subnet)
            loss = self._loss(logits, labels, soft)
            loss.backward()
            loss_sum += loss.item()
            correct += int((logits.argmax(1) == labels).sum())
        optimizer.step()
        return self._report(phase, number, step, loss_sum / len(subnets), correct / len(subnets) / len(labels))

    def _batch(self, number: int, step: int, resolution: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The step's augmented images and labels; each epoch is a new permutation."""
        epoch, place = divmod(step, self._steps_per_epoch)
        order = np.random.default_rng([self._seed, number, epoch, 1]).permutation(len(self._data.train))
        size = self._schedule.batch_size
        chosen = order[place * size : (place + 1) * size]
        images = self._data.augmented(self._data.train.images[chosen], resolution, rng)
        return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(self._data.train.labels[chosen])

    def _loss(self, logits: Tensor, labels: Tensor, soft: Tensor | None) -> Tensor:
        loss = functional.cross_entropy(logits, labels, label_smoothing=self._schedule.label_smoothing)
        return loss if soft is None else loss + functional.cross_entropy(logits, soft)

    def _report(self, phase: Phase, number: int, step: int, loss: float, accuracy: float) -> TrainingStep:
        if not np.isfinite(loss):
            raise _diverged(phase, step, f"the loss is {loss}")
        epochs = [each.epochs for each in self._schedule.phases]
        images = self._steps_per_epoch * self._schedule.batch_size
        done = sum(epochs[:number]) * images + (step + 1) * self._schedule.batch_size
        return TrainingStep(phase.name, done, sum(epochs) * images, loss, accuracy)


def _diverged(phase: Phase, step: int, what: str) -> TrainingError:
    return TrainingError(
        f"phase {phase.name}, step {step}: {what}; lower the learning rate ({phase.learning_rate}) and train in a new"
        " run folder"
    )


def _require_finite(supernet: nn.Module, phase: Phase, step: int) -> None:
    """Keep a network out of the checkpoint that blew up in its last step, after its loss was known."""
    for name, tensor in supernet.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise _diverged(phase, step, f"{name} is no longer finite")


def _momenta(supernet: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """The momentum buffer of each parameter that has one, by the parameter's name."""
    state: dict[Any, Any] = optimizer.state
    named = supernet.named_parameters()
    return {
        name: state[p]["momentum_buffer"] for name, p in named if state.get(p, {}).get("momentum_buffer") is not None
    }
