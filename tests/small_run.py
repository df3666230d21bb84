"""Does a run's steps in a process of its own: a small real run on digits, which may kill itself on the way.

    python small_run.py FOLDER [STEP:N]

With STEP:N it dies by SIGKILL at the N-th sign of progress of a step, or, for
``replace``, when it is about to rename its N-th file, or, for ``append``, when
it has written half of the N-th line that is appended to a log.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import edgenas as en
import edgenas.ofa.training
from edgenas.pipeline.progress import Bar, Progress
from edgenas.space import Stage

SPACE = en.MobileNetV3(
    width=0.25,
    resolutions=(8, 12),
    classes=10,
    kernel_sizes=(3, 5),
    expand_ratios=(2, 3),
    depths=(1, 2),
    stem_stride=1,
    stages=(Stage(32, 2, "relu", False), Stage(64, 2, "hswish", True)),
    head=(96, 128),
)
SCHEDULE = {
    "name": "tiny",
    "batch_size": 32,
    "phases": [
        {"name": "full", "epochs": 3, "learning_rate": 0.1, "distill": False},
        {"name": "all", "epochs": 1, "learning_rate": 0.05, "kernel_sizes": 2, "depths": 2, "expand_ratios": 2},
    ],
}
BUDGET = en.Budget(latency="50ms")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(Progress):
    """Counts the signs of progress of one step and dies at the given one."""

    def __init__(self, step: str, at: int) -> None:
        super().__init__()
        self._deadly, self._left = step, at

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Bar]:
        with super().step(name, total) as bar:

            def counting(done: float, note: str = "") -> None:
                bar(done, note)
                if name == self._deadly:
                    self._left -= 1
                    if self._left == 0:
                        die()

            yield counting


def die_at_rename(at: int) -> None:
    """Die when the ``at``-th file has been written under its temporary name, before it gets its own."""
    left, rename = at, os.replace

    def replace(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()
        rename(*arguments)

    setattr(os, "replace", replace)  # noqa: B010 - plain assignment does not fit the stub


def die_at_append(at: int) -> None:
    """Die when half of the ``at``-th line of a log of measurements has been written."""
    left, write = at, os.write

    def write_half(descriptor: int, data: Any) -> int:
        nonlocal left
        left -= bytes(data[:9]) == b'{"sha256"'
        if left == 0:
            write(descriptor, data[: len(data) // 2])
            die()
        return write(descriptor, data)

    setattr(os, "write", write_half)  # noqa: B010 - plain assignment does not fit the stub


def main() -> None:
    edgenas.ofa.training.CHECKPOINT_SECONDS = 0.3
    folder = sys.argv[1]
    step, _, at = (sys.argv[2] if len(sys.argv) > 2 else "none:0").partition(":")
    if step == "replace":
        die_at_rename(int(at))
    if step == "append":
        die_at_append(int(at))
    run = en.Run(folder, SPACE, progress=Deadly(step, int(at)))
    run.train(schedule=SCHEDULE)
    run.evaluate(12)
    target = en.Target(en.load_profile("localhost"))
    run.profile(target, minutes=0.01)
    run.search([target])
    choice = run.choose({target: BUDGET})
    run.export(choice.arch, target, run.folder.bundle(target.name, choice.arch.id))


if __name__ == "__main__":
    main()
