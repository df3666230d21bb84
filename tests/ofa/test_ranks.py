"""Training by several processes: real gloo processes, started as torchrun starts them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from edgenas.data import DataSet
from edgenas.errors import UsageError
from edgenas.ofa import Phase, Ranks, Schedule, Supernet, Trainer, TrainingFiles, load_checkpoint
from edgenas.ofa.ranks import select_accelerator
from edgenas.ofa.training_step import compute_gradients
from edgenas.space import MobileNetV3

# Trains a schedule as one rank; with a last step, the second rank dies by SIGKILL before it.
_RANK = """
import json, os, signal, sys
from pathlib import Path
from edgenas.data import load_data
from edgenas.errors import EdgeNASError
from edgenas.ofa import Trainer, TrainingFiles, join_ranks, load_schedule
from edgenas.space import space_from_dict
space, schedule, folder, last = json.loads(sys.argv[1])
steps = 0
def on_step(step):
    global steps
    steps += 1
    if steps == last and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
files = TrainingFiles(Path(folder, "checkpoint"), Path(folder, "teacher"))
with join_ranks("cpu") as ranks:
    try:
        arguments = space_from_dict(space, "test"), load_data("digits"), load_schedule(schedule), 0, files, ranks
        Trainer(*arguments).run(on_step)
    except EdgeNASError as error:
        sys.exit(str(error))
"""


def _start_ranks(request: str, count: int) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, request],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def _finish(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    try:
        return [(process.wait(300), process.communicate()[1]) for process in processes]
    finally:
        for process in processes:
            process.kill()


class _Halves(Trainer):
    """One process that averages the gradients of both halves of each batch, as two ranks would have them."""

    def gradients_of(self, supernet: Supernet, phase: Phase, step: int) -> None:
        for rank in (0, 1):
            self._ranks = Ranks(rank, 2)
            compute_gradients(supernet, None, phase, self._schedule.label_smoothing, self._make_batch(0, step))
        for parameter in supernet.parameters():
            if parameter.grad is not None:
                parameter.grad /= 2


def test_two_ranks_equal_one_process_that_averages_two_half_batches(
    tiny: MobileNetV3, digits: DataSet, tmp_path: Path
) -> None:
    """After three steps all weights agree to 1e-6."""
    schedule = Schedule(
        "three", (Phase("all", 1, 0.05, 2, 2, 2, subnets=2, distill=False),), batch_size=64, max_steps=3
    )
    ranks = _start_ranks(json.dumps([tiny.to_dict(), schedule.to_dict(), str(tmp_path), 0]), 2)
    supernet = Supernet(tiny).train()
    trainer = _Halves(tiny, digits, schedule, 0, TrainingFiles(tmp_path / "none", tmp_path / "none"))
    optimizer = trainer._make_optimizer(supernet, {})
    for step in range(3):
        optimizer.zero_grad(set_to_none=True)
        trainer.gradients_of(supernet, schedule.phases[0], step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.phases[0].rate(step, 3)
        optimizer.step()
    assert _finish(ranks) == [(0, ""), (0, "")]
    together = dict(load_checkpoint(tmp_path / "checkpoint").supernet.named_parameters())
    for name, parameter in supernet.named_parameters():
        torch.testing.assert_close(together[name], parameter, rtol=0, atol=1e-6, msg=name)


def test_the_death_of_a_rank_ends_the_others_with_one_line(tiny: MobileNetV3, tmp_path: Path, brief: Schedule) -> None:
    """Killed by SIGKILL in the middle: the other rank says so within seconds, and what to do."""
    ranks = _start_ranks(json.dumps([tiny.to_dict(), brief.to_dict(), str(tmp_path), 2]), 2)
    ranks[1].wait(300)
    died = time.monotonic()
    (code, message), (killed, _) = _finish(ranks)
    assert killed == -signal.SIGKILL
    assert code == 1
    assert "rank 0: another process of this training has ended" in message
    assert "the same command resumes" in message
    assert time.monotonic() - died < 60


def test_shares_of_all_ranks_make_the_whole() -> None:
    """Seven values among three ranks, each in one share."""
    shares = [Ranks(rank, 3).share(list(range(7))) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("batch_size", "fits"), [(64, True), (63, False), (2, False)], ids=["even", "odd", "one image each"]
)
def test_a_batch_is_divided_evenly(
    batch_size: int, fits: bool, tiny: MobileNetV3, digits: DataSet, tmp_path: Path
) -> None:
    """Each of two processes needs an equal part, of two images at least, because batch norm needs two."""
    schedule = Schedule("any", (Phase("full", 1, 0.05, distill=False),), batch_size)
    make: Callable[[], Trainer] = lambda: Trainer(  # noqa: E731
        tiny, digits, schedule, 0, TrainingFiles(tmp_path / "c", tmp_path / "t"), Ranks(0, 2)
    )
    if fits:
        make()
    else:
        with pytest.raises(UsageError, match=r"batch_size \(\d+\) is divided among 2 processes"):
            make()


def test_an_unknown_accelerator_lists_the_known() -> None:
    """A wrong name is refused on one line."""
    with pytest.raises(UsageError, match="device must be one of auto, cpu, cuda, but got 'gpu'"):
        select_accelerator("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_cuda_without_a_gpu_says_what_to_do() -> None:
    """Asked for by name where there is none, it is wrong use; auto takes the CPU."""
    with pytest.raises(UsageError, match=r"finds 0 GPUs.* --device cpu"):
        select_accelerator("cuda")
    assert select_accelerator("auto").type == "cpu"
