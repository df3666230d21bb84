"""Training of a supernet or of a single subnet by a schedule. Interrupted training resumes and gives the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgenas.data import DataSet
from edgenas.errors import EdgeNASError, RunError, TrainingError
from edgenas.ofa.channel_sorting import sort_channels
from edgenas.ofa.checkpoint import Checkpoint, Position, load_checkpoint, save_checkpoint
from edgenas.ofa.initial_weights import InitialWeights, check_initial_weights
from edgenas.ofa.layers import to_channels_last
from edgenas.ofa.ranks import ALONE, Ranks
from edgenas.ofa.recipe import check_recipe, describe_change, keep_initial_name, make_recipe
from edgenas.ofa.schedule import Phase, Schedule, load_schedule
from edgenas.ofa.supernet import Supernet
from edgenas.ofa.threads import cores_but_one, torch_threads
from edgenas.ofa.trainees import SingleSubnet, WholeSupernet
from edgenas.ofa.training_step import Batch, compute_gradients
from edgenas.space import SearchSpace

CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True)
class TrainingStep:
    """The progress after one step.

    Attributes:
        phase: The phase's name.
        done: Images so far, and ``total`` of the schedule.
        total: Images of the schedule.
        share: The share of the schedule's work that is done, where a step of four subnets is four times one of one.
        loss: The mean loss of the step's subnets over the batch.
        accuracy: The same of their accuracy on the batch, 0 to 1.
        learning_rate: The step's learning rate.
        ends_epoch: Whether it is the last step of an epoch, or of its phase.
    """

    phase: str
    done: int
    total: int
    share: float
    loss: float
    accuracy: float
    learning_rate: float
    ends_epoch: bool


@dataclass(frozen=True)
class TrainingFiles:
    """The files of training: the current checkpoint, and the teacher.

    The first phase of a supernet's training writes the teacher; that of a single subnet is there before.
    """

    checkpoint: Path
    teacher: Path


class Trainer:
    """The training of one supernet, or of one subnet alone, by a schedule.

    Training may be killed at any moment. A new Trainer with the same arguments
    continues from the last checkpoint and ends with the same bits, on the CPU of
    the same machine with as many processes.

    Of several processes each trains on its part of every batch; their gradients
    are averaged in one all-reduce a step, and the first one writes the files.

    Args:
        space: The search space.
        data: The data set.
        schedule: The phases and their settings.
        seed: Decides everything that is random.
        files: The files that training reads and writes.
        ranks: This process among those that train together.
        initial: Trained weights to begin with, of the same space except for classes and resolutions.
        subnet: The subnet of the space that is trained alone, in place of the supernet; it knows what it begins with.

    Raises:
        UsageError: The space cannot be trained on the data by the schedule.
    """

    def __init__(
        self,
        space: SearchSpace,
        data: DataSet,
        schedule: Schedule,
        seed: int,
        files: TrainingFiles,
        ranks: Ranks = ALONE,
        initial: InitialWeights | None = None,
        subnet: SingleSubnet | None = None,
    ) -> None:
        self._trainee = subnet or WholeSupernet(space, initial)
        check_recipe(space, data, schedule, seed, ranks, has_teacher=self._trainee.has_teacher)
        if initial is not None:
            check_initial_weights(space, initial)
        self._space, self._data, self._schedule, self._seed, self._files = space, data, schedule, seed, files
        self._ranks, self._accelerator = ranks, ranks.accelerator
        self._steps_per_epoch = len(data.train) // schedule.batch_size
        self._steps = [schedule.count_steps(phase, self._steps_per_epoch) for phase in schedule.phases]
        self._recipe = make_recipe(self._trainee, data, schedule, seed)

    @property
    def finished(self) -> bool:
        """True when the checkpoint is at the end of the schedule. Raises RunError when it has other arguments."""
        return self._start.position.phase == len(self._schedule.phases)

    @property
    def images_done(self) -> int:
        """The images that training has seen up to the last checkpoint, from which it goes on."""
        position = self._start.position
        return self._count_images(position.phase, position.step)

    @property
    def images_total(self) -> int:
        """The images of the whole schedule."""
        return self._count_images(len(self._schedule.phases), 0)

    def run(
        self,
        on_step: Callable[[TrainingStep], None],
        on_epoch: Callable[[TrainingStep, Supernet], None] = lambda step, supernet: None,
    ) -> Supernet:
        """Train to the end of the schedule and return the network in eval mode.

        Resumed training uses as many threads as before.

        Args:
            on_step: Called after every step.
            on_epoch: Called after every epoch with its last step and the supernet, of averaged weights where the
                phase has them. It must not change it.

        Raises:
            RunError: The checkpoint has other arguments.
            TrainingError: The loss diverged, or another process of the training ended.
        """
        start = self._start
        del self._start  # it changes from here on
        supernet, position = start.supernet, start.position
        with torch_threads(self._ranks.limit_threads(start.threads)):
            for number in range(position.phase, len(self._schedule.phases)):
                resumed = start if number == position.phase and position.step else None
                averages = self._train_phase(supernet, number, resumed, on_step, on_epoch)
                if averages is not None:
                    supernet.load_state_dict(averages.module.state_dict())
                if number == 0 and not self._trainee.has_teacher:
                    self._save(self._files.teacher, supernet, Position(1, 0))
                self._save(self._files.checkpoint, supernet, Position(number + 1, 0))
                self._ranks.wait()  # the others read the teacher
        return supernet.eval()

    @cached_property
    def _start(self) -> Checkpoint:
        """The last checkpoint, or that of a new supernet. Raises RunError when it has other arguments."""
        path = self._files.checkpoint
        if not path.exists():
            supernet = self._trainee.make_network(self._seed)
            return Checkpoint(supernet, Position(0, 0), {}, self._recipe, self._ranks.limit_threads(cores_but_one()))
        checkpoint = load_checkpoint(path)
        if checkpoint.supernet.space != self._space:
            raise RunError(f"{path}: is of another space; use another run folder")
        found = checkpoint.recipe
        if "schedule" in found:  # one of an older version lacks the settings that were added since
            found = {**found, "schedule": load_schedule(found["schedule"], str(path)).to_dict()}
        self._recipe = keep_initial_name(self._recipe, found)
        if found != self._recipe:
            described = (
                describe_change(key, found.get(key), self._recipe.get(key)) for key in {**self._recipe, **found}
            )
            changed = filter(None, described)
            raise RunError(
                f"{path}: was trained with another {' and '.join(changed)}; use another run folder or the same values"
            )
        return checkpoint

    def _save(
        self,
        path: Path,
        supernet: Supernet,
        position: Position,
        momenta: dict[str, Tensor] | None = None,
        averages: AveragedModel | None = None,
    ) -> None:
        if not self._ranks.is_first:
            return
        averaged = {} if averages is None else averages.module.state_dict()
        checkpoint = Checkpoint(supernet, position, momenta or {}, self._recipe, torch.get_num_threads(), averaged)
        try:
            save_checkpoint(path, checkpoint)
        except EdgeNASError as error:
            if not self._files.checkpoint.exists():
                raise
            kept = load_checkpoint(self._files.checkpoint).position
            images = self._count_images(kept.phase, kept.step)
            raise TrainingError(
                f"{error}; the last checkpoint, at {images} images, is intact, and the same command resumes from it"
            ) from None

    def _train_phase(
        self,
        supernet: Supernet,
        number: int,
        resumed: Checkpoint | None,
        on_step: Callable[[TrainingStep], None],
        on_epoch: Callable[[TrainingStep, Supernet], None],
    ) -> AveragedModel | None:
        """Train a phase, from a checkpoint within it or from its beginning, and return the weights' averages."""
        phase = self._schedule.phases[number]
        if resumed is None and number and phase.opens_widths_after(self._schedule.phases[number - 1]):
            sort_channels(supernet, self._schedule.phases[number - 1].open_parts(self._space))
        supernet.to(self._accelerator)
        to_channels_last(supernet)
        supernet.train()
        teacher = self._load_teacher() if phase.distill is True else None
        optimizer = self._make_optimizer(supernet, resumed.momenta if resumed else {})
        averages = self._make_averages(supernet, number, resumed)
        saved = time.monotonic()
        first = resumed.position.step if resumed else 0
        with closing(self._batches(number, first)) as batches:
            for step, batch in batches:
                for group in optimizer.param_groups:
                    group["lr"] = phase.rate(step, self._steps[number])
                shown = self._train_step(supernet, teacher, optimizer, number, step, batch)
                if averages is not None:
                    averages.update_parameters(supernet)
                on_step(shown)
                if self._ranks.is_first and time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._require_finite(supernet, phase, step)
                    momenta = _read_momenta(supernet, optimizer)
                    self._save(self._files.checkpoint, supernet, Position(number, step + 1), momenta, averages)
                    saved = time.monotonic()
                if shown.ends_epoch:  # after saving, because it may take long
                    on_epoch(shown, supernet if averages is None else cast("Supernet", averages.module))
        self._require_finite(supernet, phase, self._steps[number] - 1)
        return averages

    def _load_teacher(self) -> Supernet:
        teacher = load_checkpoint(self._files.teacher).supernet.to(self._accelerator)
        to_channels_last(teacher)
        return teacher.train()  # batch norm uses the statistics of the batch, as in the authors' implementation

    def _make_averages(self, supernet: Supernet, number: int, resumed: Checkpoint | None) -> AveragedModel | None:
        """Return the moving average of the weights, which the last phase has where the schedule asks for it."""
        if self._schedule.ema_decay is None or number + 1 < len(self._schedule.phases):
            return None
        averages = AveragedModel(supernet, multi_avg_fn=get_ema_multi_avg_fn(self._schedule.ema_decay))
        if resumed is not None:
            averages.module.load_state_dict(resumed.averages)
            averages.n_averaged.fill_(resumed.position.step)
        return averages

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
            placed = buffer.to(self._accelerator).clone(memory_format=layout)
            optimizer.state[named[name]]["momentum_buffer"] = placed
        return optimizer

    def _train_step(
        self,
        supernet: Supernet,
        teacher: Supernet | None,
        optimizer: torch.optim.SGD,
        number: int,
        step: int,
        batch: Batch,
    ) -> TrainingStep:
        phase = self._schedule.phases[number]
        optimizer.zero_grad(set_to_none=True)
        sums = compute_gradients(supernet, teacher, phase, self._schedule.label_smoothing, batch)
        parameters = [parameter for parameter in supernet.parameters() if parameter.grad is not None]
        self._ranks.average([*(p.grad for p in parameters if p.grad is not None), sums])
        if self._schedule.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self._schedule.clip_norm)
        loss, accuracy = (sums / len(batch.subnets)).tolist()
        if not np.isfinite(loss):
            raise self._diverged(phase, step, f"the loss is {loss}")
        optimizer.step()
        return TrainingStep(
            phase.name,
            self._count_images(number, step + 1),
            self.images_total,
            self._count_work(number, step + 1) / self._count_work(len(self._schedule.phases), 0),
            loss,
            accuracy,
            optimizer.param_groups[0]["lr"],
            self._ends_epoch(number, step),
        )

    def _count_images(self, phases: int, steps: int) -> int:
        """Count the images of the first phases and of some steps after them."""
        return (sum(self._steps[:phases]) + steps) * self._schedule.batch_size

    def _count_work(self, phases: int, steps: int) -> float:
        """Return the work of the first phases and of some steps after them, relative to steps of one subnet."""
        costs = [phase.cost for phase in self._schedule.phases]
        whole = sum(cost * count for cost, count in zip(costs[:phases], self._steps[:phases], strict=True))
        return whole + (costs[phases] * steps if steps else 0.0)

    def _ends_epoch(self, number: int, step: int) -> bool:
        return (step + 1) % self._steps_per_epoch == 0 or step + 1 == self._steps[number]

    def _batches(self, number: int, first: int) -> Generator[tuple[int, Batch]]:
        """Yield the steps of a phase with their batches; the next is made while the one before it is trained on.

        None is made while subnets are evaluated after an epoch, because both use torch's only generator.
        """
        coming = None
        with ThreadPoolExecutor(1, "batches") as maker:
            for step in range(first, self._steps[number]):
                batch = self._make_batch(number, step) if coming is None else coming.result()
                ends = self._ends_epoch(number, step)
                coming = None if ends else maker.submit(self._make_batch, number, step + 1)
                yield step, batch.to(self._accelerator)

    def _make_batch(self, number: int, step: int) -> Batch:
        """Return a step's subnets, the same on every rank, and this rank's part of its ``DataSet.to_training_batch``.

        Each epoch is a new permutation of the images.
        """
        phase, count = self._schedule.phases[number], self._schedule.batch_size
        subnets = self._trainee.sample(phase, np.random.default_rng([self._seed, number, step]))
        epoch, epoch_step = divmod(step, self._steps_per_epoch)
        order = np.random.default_rng([self._seed, number, epoch, 1]).permutation(len(self._data.train))
        chosen = self._ranks.share(order[epoch_step * count : (epoch_step + 1) * count])
        rng = np.random.default_rng([self._seed, number, step, self._ranks.rank, 2])
        return Batch(subnets, *self._data.to_training_batch(chosen, subnets[0].image_size, rng))

    def _diverged(self, phase: Phase, step: int, problem: str) -> TrainingError:
        path = self._files.checkpoint
        kept = f"; {path} has the last good weights" if path.exists() else ""
        return TrainingError(
            f"phase {phase.name}, step {step}: {problem}{kept}; lower the learning rate ({phase.learning_rate})"
            f" and {self._trainee.begin_anew}"
        )

    def _require_finite(self, supernet: nn.Module, phase: Phase, step: int) -> None:
        """Raise TrainingError when the last step made a weight infinite, which its loss did not show yet."""
        for name, tensor in supernet.state_dict().items():
            if not torch.isfinite(tensor).all():
                raise self._diverged(phase, step, f"{name} is no longer finite")


def _read_momenta(supernet: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """Return the momentum buffer of each parameter that has one, by the parameter's name."""
    state: dict[Any, Any] = optimizer.state
    buffers = {name: state.get(p, {}).get("momentum_buffer") for name, p in supernet.named_parameters()}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}
