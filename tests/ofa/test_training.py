"""Training on real digits: it learns, resumes with equal bits, and refuses a checkpoint of other arguments."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgenas.data import DataSet
from edgenas.errors import FormatError, RunError, TrainingError, UsageError
from edgenas.ofa import (
    Phase,
    Schedule,
    Supernet,
    Trainer,
    TrainingFiles,
    TrainingStep,
    load_checkpoint,
    save_checkpoint,
)
from edgenas.ofa import training as training_module
from edgenas.ofa.training_step import Batch, compute_gradients
from edgenas.space import MobileNetV3

Train = Callable[..., list[TrainingStep]]

# Trains as its arguments say and dies by SIGKILL in the given step, before that step reaches a checkpoint.
_DYING = """
import json, os, signal, sys
from pathlib import Path
import torch
from edgenas.data import load_data
from edgenas.ofa import Trainer, TrainingFiles, load_schedule, training
from edgenas.space import space_from_dict
torch.set_num_threads(1)
training.CHECKPOINT_SECONDS = 0.0
space, schedule, folder, last = json.loads(sys.argv[1])
steps = 0
def on_step(step):
    global steps
    steps += 1
    if steps == last:
        os.kill(os.getpid(), signal.SIGKILL)
files = TrainingFiles(Path(folder, "checkpoint"), Path(folder, "teacher"))
Trainer(space_from_dict(space, "test"), load_data("digits"), load_schedule(schedule), 0, files).run(on_step)
"""


def _files(folder: Path) -> TrainingFiles:
    return TrainingFiles(folder / "checkpoint", folder / "teacher")


@pytest.fixture(scope="module")
def train(tiny: MobileNetV3, digits: DataSet, brief: Schedule) -> Train:
    """Train in a folder and return what each step showed; by default the brief schedule with seed 0."""

    def run(
        folder: Path,
        schedule: Schedule = brief,
        seed: int = 0,
        on_step: Callable[[TrainingStep], None] = lambda step: None,
    ) -> list[TrainingStep]:
        steps: list[TrainingStep] = []

        def record(step: TrainingStep) -> None:
            steps.append(step)
            on_step(step)

        Trainer(tiny, digits, schedule, seed, _files(folder)).run(record)
        return steps

    return run


@pytest.fixture(scope="module")
def unbroken(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nobody killed."""
    folder = tmp_path_factory.mktemp("unbroken")
    train(folder)
    return folder


def _bytes(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "checkpoint").read_bytes(), (folder / "teacher").read_bytes()


def test_training_learns_the_digits(digits: DataSet, tmp_path: Path) -> None:
    """In seconds the loss of the full net falls, and it reads most training digits rightly; chance is 10%."""
    space = MobileNetV3(
        width=0.5, resolutions=(8,), classes=10, kernel_sizes=(3,), expand_ratios=(3,), depths=(1,),
        stem=32, stem_stride=1, stages=MobileNetV3().stages[:1], head=(128, 128),
    )  # fmt: skip
    schedule = Schedule("learn", (Phase("full", 12, 0.2, warmup_epochs=1, distill=False),), batch_size=64)
    steps: list[TrainingStep] = []
    supernet = Trainer(space, digits, schedule, 0, _files(tmp_path)).run(steps.append)
    losses, accuracies = [step.loss for step in steps], [step.accuracy for step in steps]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert np.mean(accuracies[-10:]) > 0.7
    assert not supernet.training


def test_steps_count_images_to_the_total(train: Train, tmp_path: Path) -> None:
    """Four steps of 256 images an epoch: ``done`` rises by a batch a step and ends at ``total``."""
    steps = train(tmp_path)
    assert [step.done for step in steps] == [256 * number for number in range(1, 9)]
    assert {step.total for step in steps} == {2048}
    assert [step.phase for step in steps] == ["full"] * 4 + ["all"] * 4


def test_equal_seeds_give_equal_bits(train: Train, unbroken: Path, tmp_path: Path) -> None:
    """A second training with the same arguments writes the same bytes."""
    np.random.seed(99)  # the global generators have no say
    torch.manual_seed(99)
    train(tmp_path)
    assert _bytes(tmp_path) == _bytes(unbroken)


def test_other_seeds_give_other_bits(train: Train, unbroken: Path, tmp_path: Path) -> None:
    """Another seed gives another network."""
    train(tmp_path, seed=1)
    weights = [load_checkpoint(folder / "checkpoint").supernet.state_dict() for folder in (tmp_path, unbroken)]
    assert not torch.equal(weights[0]["classifier.linear.weight"], weights[1]["classifier.linear.weight"])


@pytest.mark.parametrize("last", [1, 3, 5, 6])
def test_a_killed_training_ends_with_the_same_bits(
    last: int, train: Train, unbroken: Path, tmp_path: Path, tiny: MobileNetV3, brief: Schedule
) -> None:
    """Killed by SIGKILL in any phase and run again: checkpoint and teacher are those of an unbroken run."""
    request = json.dumps([tiny.to_dict(), brief.to_dict(), str(tmp_path), last])
    died = subprocess.run([sys.executable, "-c", _DYING, request], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    again = train(tmp_path)
    # The step in which it died was not saved, each step before it was.
    assert len(again) == 8 - (last - 1)
    assert _bytes(tmp_path) == _bytes(unbroken)


def test_distillation_adds_the_teachers_opinion_to_the_loss(train: Train, brief: Schedule, tmp_path: Path) -> None:
    """On equal weights and images the loss is the label loss plus a cross-entropy with the teacher."""
    plain = dataclasses.replace(brief.phases[1], distill=False)
    with_teacher = train(tmp_path / "with")[4]
    without = train(tmp_path / "without", dataclasses.replace(brief, phases=(brief.phases[0], plain)))[4]
    assert with_teacher.accuracy == without.accuracy
    # The entropy of ten equally likely classes is 2.3; a teacher of four steps is nearly as undecided.
    assert with_teacher.loss - without.loss == pytest.approx(np.log(10), abs=0.3)


def test_a_finished_training_is_not_repeated(
    train: Train, unbroken: Path, tiny: MobileNetV3, digits: DataSet, brief: Schedule
) -> None:
    """Running a finished training again takes no step and changes no byte."""
    before = _bytes(unbroken)
    assert Trainer(tiny, digits, brief, 0, _files(unbroken)).finished
    assert train(unbroken) == []
    assert _bytes(unbroken) == before


def test_a_training_that_never_began_is_not_finished(
    tiny: MobileNetV3, digits: DataSet, brief: Schedule, tmp_path: Path
) -> None:
    """Without a checkpoint nothing is finished, and asking writes nothing."""
    assert not Trainer(tiny, digits, brief, 0, _files(tmp_path)).finished
    assert list(tmp_path.iterdir()) == []


def test_another_recipe_is_refused_by_name(unbroken: Path, tiny: MobileNetV3, digits: DataSet, brief: Schedule) -> None:
    """A run with another seed, schedule or data set does not go on from this checkpoint, and says which differs."""
    files = _files(unbroken)
    longer = dataclasses.replace(brief, weight_decay=0.0)
    renamed = dataclasses.replace(digits, name="other")
    for trainer, changed in (
        (Trainer(tiny, digits, brief, 1, files), "another seed;"),
        (Trainer(tiny, digits, longer, 0, files), "another schedule;"),
        (Trainer(tiny, renamed, brief, 0, files), "another data;"),
        (Trainer(tiny, renamed, brief, 1, files), "another data and seed;"),
    ):
        with pytest.raises(RunError, match=changed):
            trainer.run(lambda step: None)


def test_another_space_is_refused(unbroken: Path, digits: DataSet, brief: Schedule, tiny: MobileNetV3) -> None:
    """A checkpoint of another space is refused."""
    wider = dataclasses.replace(tiny, width=1.0)
    with pytest.raises(RunError, match="another space"):
        Trainer(wider, digits, brief, 0, _files(unbroken)).run(lambda step: None)


def test_a_damaged_checkpoint_is_refused(train: Train, unbroken: Path, tmp_path: Path) -> None:
    """Training does not go on from a checkpoint with a flipped byte."""
    checkpoint, _ = _bytes(unbroken)
    (tmp_path / "checkpoint").write_bytes(checkpoint[:-1] + bytes([checkpoint[-1] ^ 1]))
    with pytest.raises(FormatError, match="is damaged"):
        train(tmp_path)


def test_divergence_keeps_the_last_good_checkpoint(
    train: Train, brief: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the loss blows up, the message says where and what to do, and the checkpoint is still finite."""
    monkeypatch.setattr(training_module, "CHECKPOINT_SECONDS", 0.0)
    wild = dataclasses.replace(brief.phases[1], learning_rate=100.0)
    with pytest.raises(
        TrainingError,
        match=r"phase all, step \d: .*checkpoint has the last good weights; lower the learning rate \(100\.0\)",
    ):
        train(tmp_path, dataclasses.replace(brief, phases=(brief.phases[0], wild)))
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    assert checkpoint.position.phase == 1
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.supernet.state_dict().values())


_SANDWICH = Phase("all", 2, 0.02, 2, 2, 2, subnets=3, sandwich=True, distill="in-place")


def test_in_place_distillation_teaches_the_others_by_the_largest(tiny: MobileNetV3, digits: DataSet) -> None:
    """The gradients are those of the largest on labels and of the others on its detached softmax, written out."""
    rng = np.random.default_rng(0)
    subnets = tiny.decode(_SANDWICH.sample(tiny, rng))
    images = digits.to_augmented_inputs(digits.train.images[:32], subnets[0].image_size, rng)
    labels = torch.from_numpy(digits.train.labels[:32])
    ours, plain = Supernet(tiny).train(), Supernet(tiny).train()
    sums = compute_gradients(ours, None, _SANDWICH, 0.1, Batch(subnets, images, labels))
    logits = [plain(images, subnet) for subnet in subnets]
    losses = [functional.cross_entropy(logits[0], labels, label_smoothing=0.1)]
    losses += [functional.cross_entropy(each, functional.softmax(logits[0].detach(), 1)) for each in logits[1:]]
    sum(losses[1:], losses[0]).backward()
    for (name, one), (_, other) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert float(sums[0]) == pytest.approx(sum(float(loss.detach()) for loss in losses), rel=1e-5)


def test_clipping_bounds_the_step(train: Train, brief: Schedule, tmp_path: Path) -> None:
    """With a learning rate of 1, no momentum worth the name and a norm of 0.01, a step moves the weights by 0.01."""
    phase = dataclasses.replace(brief.phases[0], learning_rate=1.0)
    schedule = Schedule("clip", (phase,), 256, momentum=1e-9, weight_decay=0.0, clip_norm=0.01, max_steps=1)
    train(tmp_path, schedule)
    before = dict(Supernet(load_checkpoint(tmp_path / "checkpoint").supernet.space, 0).named_parameters())
    after = dict(load_checkpoint(tmp_path / "checkpoint").supernet.named_parameters())
    moved = sum(float((after[name] - before[name]).detach().square().sum()) for name in before) ** 0.5
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_the_averages_are_those_of_the_steps_weights(
    tiny: MobileNetV3, digits: DataSet, brief: Schedule, tmp_path: Path
) -> None:
    """By the recursion written out: the first step's weights, then a tenth of each later step's."""
    schedule = dataclasses.replace(brief, phases=brief.phases[:1], ema_decay=0.9)
    weights: list[torch.Tensor] = []

    class Recording(Trainer):
        def _train_step(self, supernet: Supernet, *rest: Any) -> TrainingStep:
            step = super()._train_step(supernet, *rest)
            weights.append(supernet.get_parameter("classifier.linear.weight").detach().clone())
            return step

    trainer = Recording(tiny, digits, schedule, 0, _files(tmp_path))
    averaged = trainer.run(lambda step: None).get_parameter("classifier.linear.weight")
    expected = weights[0]
    for later in weights[1:]:
        expected = 0.9 * expected + 0.1 * later
    torch.testing.assert_close(averaged, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("last", [2, 6])
def test_a_killed_sandwich_with_averages_ends_with_the_same_bits(
    last: int, train: Train, tmp_path: Path, tiny: MobileNetV3
) -> None:
    """The moving averages resume, too."""
    schedule = Schedule("sandwich", (_SANDWICH,), 256, clip_norm=1.0, ema_decay=0.9)
    request = json.dumps([tiny.to_dict(), schedule.to_dict(), str(tmp_path / "killed"), last])
    (tmp_path / "killed").mkdir()
    died = subprocess.run([sys.executable, "-c", _DYING, request], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert len(train(tmp_path / "killed", schedule)) == 8 - (last - 1)
    train(tmp_path / "whole", schedule)
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")


def test_a_checkpoint_of_an_older_version_resumes(train: Train, brief: Schedule, tmp_path: Path) -> None:
    """Settings of a schedule that its recipe does not have yet are their defaults."""
    train(tmp_path)
    path = tmp_path / "checkpoint"
    kept = load_checkpoint(path)
    schedule = {key: value for key, value in kept.recipe["schedule"].items() if key not in ("ema_decay", "max_steps")}
    schedule["phases"] = [{k: v for k, v in phase.items() if k != "sandwich"} for phase in schedule["phases"]]
    save_checkpoint(path, dataclasses.replace(kept, recipe={**kept.recipe, "schedule": schedule}))
    assert train(tmp_path) == []


# Trains as its arguments say, with files of at most so many bytes.
_ON_A_FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
from edgenas.data import load_data
from edgenas.errors import EdgeNASError
from edgenas.ofa import Trainer, TrainingFiles, load_schedule, training
from edgenas.space import space_from_dict
training.CHECKPOINT_SECONDS = 0.0
space, schedule, folder = json.loads(sys.argv[1])
def on_step(step):
    if step.done == 512:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
files = TrainingFiles(Path(folder, "checkpoint"), Path(folder, "teacher"))
try:
    Trainer(space_from_dict(space, "test"), load_data("digits"), load_schedule(schedule), 0, files).run(on_step)
except EdgeNASError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(
    train: Train, unbroken: Path, tmp_path: Path, tiny: MobileNetV3, brief: Schedule
) -> None:
    """A checkpoint that cannot be written ends training on one line; later it goes on to the same bits."""
    request = json.dumps([tiny.to_dict(), brief.to_dict(), str(tmp_path)])
    full = subprocess.run([sys.executable, "-c", _ON_A_FULL_DISK, request], capture_output=True, text=True, check=False)
    assert full.returncode == 1
    (line,) = full.stderr.splitlines()
    assert "cannot be written (File too large)" in line
    assert "the last checkpoint, at 256 images, is intact" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]
    assert len(train(tmp_path)) == 7
    assert _bytes(tmp_path) == _bytes(unbroken)


def test_weight_decay_spares_batch_norms_and_biases(tiny: MobileNetV3, digits: DataSet, tmp_path: Path) -> None:
    """After one step from equal weights a decay has changed every convolution and matrix product, and nothing else."""
    trained = []
    for decay in (0.0, 1.0):
        schedule = Schedule("decay", (Phase("full", 1, 0.1, distill=False),), batch_size=1024, weight_decay=decay)
        files = _files(tmp_path / str(decay))
        trained.append(dict(Trainer(tiny, digits, schedule, 0, files).run(lambda step: None).named_parameters()))
    without, decayed = trained
    equal = {name for name, parameter in decayed.items() if torch.equal(parameter, without[name])}
    # Kernel matrices had no part in the step: what has no gradient is not decayed either.
    spared = {name for name in decayed if name.endswith("bias") or ".bn." in name or name.endswith("_matrix")}
    assert equal == spared


def test_the_teacher_is_what_the_first_phase_left(
    train: Train, unbroken: Path, brief: Schedule, tmp_path: Path
) -> None:
    """Later phases learn from the network at the end of the first, frozen in its own file."""
    train(tmp_path, dataclasses.replace(brief, phases=brief.phases[:1]))
    alone, teacher = (load_checkpoint(path).supernet for path in (tmp_path / "checkpoint", unbroken / "teacher"))
    torch.testing.assert_close(teacher.state_dict(), alone.state_dict(), rtol=0, atol=0)


def test_training_goes_on_with_the_threads_it_began_with(
    train: Train, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed under another number of threads ends with the same bits, and leaves the number alone."""
    monkeypatch.setattr(training_module, "CHECKPOINT_SECONDS", 0.0)

    def stop(step: TrainingStep) -> None:
        if 2 * step.done > step.total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_step=stop)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        train(tmp_path)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert _bytes(tmp_path) == _bytes(unbroken)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 4}, "data digits has 10 classes, the space 4; they must agree"),
        ({"batch_size": 2000}, "batch_size must be at most the 1078 training images of digits, but got 2000"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    change: dict[str, int], message: str, tiny: MobileNetV3, digits: DataSet, brief: Schedule, tmp_path: Path
) -> None:
    """Classes that disagree, batches larger than the data and seeds that are none are refused before any work."""
    space = dataclasses.replace(tiny, classes=change.get("classes", 10))
    schedule = dataclasses.replace(brief, batch_size=change.get("batch_size", 256))
    with pytest.raises(UsageError, match=message):
        Trainer(space, digits, schedule, change.get("seed", 0), _files(tmp_path))
