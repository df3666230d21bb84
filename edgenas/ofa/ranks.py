"""The processes that train one supernet together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from edgenas.errors import TrainingError, UsageError
from edgenas.ofa.threads import cores_but_one

ACCELERATORS = ("auto", "cpu", "cuda")
_T = TypeVar("_T")
# A rank waits so long for the others: as long as the slowest start, or the writing of a checkpoint, may take.
_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; one process alone is rank 0 of 1.

    Attributes:
        rank: The number of this process, from 0. The first one writes files and shows progress.
        count: The number of processes.
        accelerator: What this process computes on.
    """

    rank: int = 0
    count: int = 1
    accelerator: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def share(self, values: Any) -> Any:
        """Return this rank's part of an array or list; the parts of all ranks make the whole."""
        return values[self.rank :: self.count]

    def limit_threads(self, threads: int) -> int:
        """Return how many of these threads this process may use: together the ranks of a machine fill its cores."""
        return threads if self.count == 1 else min(threads, max(1, cores_but_one() // self.count))

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.count > 1:
            self._together(distributed.barrier)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their means over all ranks, in place and in one all-reduce.

        All ranks give tensors of the same shapes in the same order.
        """
        if self.count == 1:
            return
        parts = list(tensors)
        flat = torch.cat([part.reshape(-1).float() for part in parts])
        self._together(lambda: distributed.all_reduce(flat))
        flat /= self.count
        for part, mean in zip(parts, flat.split([part.numel() for part in parts]), strict=True):
            part.copy_(mean.view(part.shape))

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all ranks, in their order."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        self._together(lambda: distributed.all_gather_object(values, value))
        return values

    def _together(self, operation: Callable[[], Any]) -> None:
        """Run a collective operation; raise TrainingError when another process is gone."""
        try:
            operation()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise TrainingError(
                f"rank {self.rank}: another process of this training has ended or does not answer"
                f" ({str(error).splitlines()[0][:200]}); its own message says why; the same command resumes"
            ) from None


ALONE = Ranks()


def is_first_rank() -> bool:
    """Return whether this process prints and writes: torchrun numbers its processes, others are alone."""
    return os.environ.get("RANK", "0") == "0"


def count_ranks() -> int:
    """Return the number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join_ranks(accelerator: str = "auto") -> Iterator[Ranks]:
    """Join the processes that torchrun started, on gloo for CPUs and on NCCL for GPUs, until the context ends.

    Args:
        accelerator: ``cpu``, ``cuda``, or ``auto``: CUDA where torch finds a GPU.

    Raises:
        UsageError: The accelerator is unknown or missing, or torchrun's variables are incomplete.
    """
    device = select_accelerator(accelerator)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
    if count_ranks() == 1:
        yield Ranks(accelerator=device)
        return
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"the processes of torchrun cannot join ({str(error).splitlines()[0][:200]}); start them all with:"
            " torchrun --nproc-per-node=N -m -- edgenas"
        ) from None
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()


def select_accelerator(name: str) -> torch.device:
    """Return what torch computes on; with several processes on a machine, each has the GPU of its number.

    Raises UsageError for an unknown name, or a GPU that torch does not find.
    """
    if name not in ACCELERATORS:
        raise UsageError(f"device must be one of {', '.join(ACCELERATORS)}, but got {name!r}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= found:
        raise UsageError(
            f"device cuda: torch {torch.__version__} finds {found} GPUs, and process {number} needs one of its own;"
            " install a CUDA build of torch, start fewer processes, or take --device cpu"
        )
    return torch.device("cuda", number)
