"""A subnet that is trained alone: what it begins with, what teaches it, and that it resumes to the bit."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgenas.data import DataSet
from edgenas.errors import FormatError, RunError, SpaceError, TrainingError, UsageError
from edgenas.ofa import (
    Checkpoint,
    InitialWeights,
    Phase,
    Position,
    Schedule,
    SingleSubnet,
    Supernet,
    Trainer,
    TrainingFiles,
    TrainingStep,
    load_checkpoint,
    make_finetuning_schedule,
    save_checkpoint,
)
from edgenas.ofa import training as training_module
from edgenas.ofa.training_step import Batch, compute_gradients
from edgenas.space import Architecture, MobileNetV3, SearchSpace

Lively = Callable[[SearchSpace], Supernet]
Train = Callable[..., list[TrainingStep]]

# Fine-tunes as its arguments say and dies by SIGKILL in the given step, before that step reaches a checkpoint.
_DYING = """
import json, os, signal, sys
from pathlib import Path
import torch
from edgenas.data import load_data
from edgenas.ofa import InitialWeights, SingleSubnet, Trainer, TrainingFiles, load_checkpoint, load_schedule, training
torch.set_num_threads(1)
training.CHECKPOINT_SECONDS = 0.0
schedule, folder, teacher, arch, from_scratch, last = json.loads(sys.argv[1])
steps = 0
def on_step(step):
    global steps
    steps += 1
    if steps == last:
        os.kill(os.getpid(), signal.SIGKILL)
supernet = load_checkpoint(Path(teacher)).supernet
subnet = SingleSubnet(supernet.space.from_id(arch), InitialWeights(supernet, "run", "digest"), from_scratch)
files = TrainingFiles(Path(folder, "checkpoint"), Path(teacher))
Trainer(supernet.space, load_data("digits"), load_schedule(schedule), 0, files, subnet=subnet).run(on_step)
"""


@pytest.fixture(scope="module")
def schedule(brief: Schedule) -> Schedule:
    """Eight steps with the settings of the brief schedule."""
    return make_finetuning_schedule(brief, 2, 0.02, None)


@pytest.fixture(scope="module")
def middle(tiny: MobileNetV3) -> Architecture:
    """A subnet with smaller kernels, depths and expand ratios than the largest."""
    (architecture,) = tiny.decode(tiny.sample(1, np.random.default_rng(3)))
    assert architecture not in (tiny.smallest, tiny.largest)
    return architecture


@pytest.fixture(scope="module")
def teacher(tiny: MobileNetV3, lively: Lively, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a supernet whose training has ended."""
    path = tmp_path_factory.mktemp("teacher") / "checkpoint"
    save_checkpoint(path, Checkpoint(lively(tiny), Position(1, 0), {}, {}, 1))
    return path


@pytest.fixture(scope="module")
def train(tiny: MobileNetV3, digits: DataSet, schedule: Schedule, middle: Architecture, teacher: Path) -> Train:
    """Train the middle subnet alone in a folder and return what each step showed."""

    def run(folder: Path, schedule: Schedule = schedule, from_scratch: bool = False) -> list[TrainingStep]:
        steps: list[TrainingStep] = []
        supernet = InitialWeights(load_checkpoint(teacher).supernet, "run", "digest")
        subnet = SingleSubnet(middle, supernet, from_scratch)
        files = TrainingFiles(folder / "checkpoint", teacher)
        Trainer(tiny, digits, schedule, 0, files, subnet=subnet).run(steps.append)
        return steps

    return run


def _subnet(supernet: Supernet, architecture: Architecture, from_scratch: bool = False) -> SingleSubnet:
    return SingleSubnet(architecture, InitialWeights(supernet, "run", "digest"), from_scratch)


def test_it_begins_with_what_it_inherits(tiny: MobileNetV3, lively: Lively, middle: Architecture) -> None:
    """Its network gives the logits of the extracted subnet, to the bit, and has as many weights."""
    supernet = lively(tiny)
    network, extracted = _subnet(supernet, middle).make_network(0).eval(), supernet.extract(middle)
    images = torch.rand(4, 3, *middle.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(images, middle), extracted(images))
        assert torch.equal(network.extract(middle)(images), extracted(images))
    parameters = sum(each.numel() for each in network.parameters())
    assert parameters == tiny.params(tiny.encode([middle]))[0]


def test_from_scratch_it_begins_with_random_weights(tiny: MobileNetV3, lively: Lively, middle: Architecture) -> None:
    """They follow the seed, and residual branches begin at zero."""
    subnet = _subnet(lively(tiny), middle, from_scratch=True)
    one, again, other = (subnet.make_network(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["classifier.linear.weight"], other["classifier.linear.weight"])
    zero = [f"{name}.{norm.name}.weight" for name, part in middle.parts.items() for norm in part.graph.branch_norms]
    assert zero
    assert all(not one[name].any() for name in zero)


def test_its_network_has_no_other_subnet(tiny: MobileNetV3, lively: Lively, middle: Architecture) -> None:
    """Another architecture is refused instead of being computed with weights that are not there."""
    network = _subnet(lively(tiny), middle).make_network(0)
    with pytest.raises(SpaceError, match=f"is not in this network, which only has the weights of {middle.id}"):
        network.extract(tiny.smallest)


def test_the_largest_network_teaches_it(
    tiny: MobileNetV3, digits: DataSet, lively: Lively, middle: Architecture, schedule: Schedule
) -> None:
    """The loss is the smoothed labels' and the cross-entropy with the teacher's softmax, written out on its subnet."""
    supernet = lively(tiny)
    network, plain = _subnet(supernet, middle).make_network(0).train(), supernet.extract(middle).train()
    images = digits.to_inputs(digits.train.images[:32], middle.image_size)
    batch = Batch([middle], torch.from_numpy(images), torch.from_numpy(digits.train.labels[:32]))
    teacher = lively(tiny).train()
    loss, _ = compute_gradients(network, teacher, schedule.phases[0], 0.1, batch).tolist()
    with torch.no_grad():
        soft = functional.softmax(lively(tiny).train()(batch.images, tiny.largest.at_resolution(middle.resolution)), 1)
        logits = plain(batch.images)
        expected = functional.cross_entropy(logits, batch.targets, label_smoothing=0.1)
        expected += functional.cross_entropy(logits, soft)
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("last", "from_scratch"), [(5, False), (6, True)])
def test_killed_it_ends_with_the_same_bits(
    last: int,
    from_scratch: bool,
    train: Train,
    schedule: Schedule,
    middle: Architecture,
    teacher: Path,
    tmp_path: Path,
) -> None:
    """Killed by SIGKILL at a step and trained again: the bits of an unbroken training; the teacher is only read."""
    before = teacher.read_bytes()
    (tmp_path / "killed").mkdir()
    request = json.dumps([schedule.to_dict(), str(tmp_path / "killed"), str(teacher), middle.id, from_scratch, last])
    died = subprocess.run([sys.executable, "-c", _DYING, request], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert len(train(tmp_path / "killed", from_scratch=from_scratch)) == 8 - (last - 1)
    assert len(train(tmp_path / "whole", from_scratch=from_scratch)) == 8
    killed, whole = ((tmp_path / name / "checkpoint").read_bytes() for name in ("killed", "whole"))
    assert killed == whole
    assert teacher.read_bytes() == before
    assert train(tmp_path / "whole", from_scratch=from_scratch) == []


def test_another_beginning_does_not_resume(train: Train, tmp_path: Path) -> None:
    """A training from scratch is not taken for one from inherited weights."""
    train(tmp_path)
    with pytest.raises(RunError, match="was trained with another finetuned"):
        train(tmp_path, from_scratch=True)


def test_divergence_keeps_the_last_good_checkpoint(
    train: Train, schedule: Schedule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what to do, and the checkpoint is finite."""
    monkeypatch.setattr(training_module, "CHECKPOINT_SECONDS", 0.0)
    wild = dataclasses.replace(schedule, phases=(dataclasses.replace(schedule.phases[0], learning_rate=100.0),))
    with pytest.raises(TrainingError, match=r"last good weights; lower the learning rate \(100\.0\) and fine-tune ag"):
        train(tmp_path, wild)
    weights = load_checkpoint(tmp_path / "checkpoint").supernet.state_dict().values()
    assert all(torch.isfinite(tensor).all() for tensor in weights)


def test_only_a_single_subnet_has_a_teacher_from_the_beginning(
    tiny: MobileNetV3, digits: DataSet, schedule: Schedule, tmp_path: Path
) -> None:
    """A supernet is not trained by a schedule whose first phase already learns from the teacher."""
    with pytest.raises(UsageError, match="schedule finetune: the first phase must not distill, because it trains the"):
        Trainer(tiny, digits, schedule, 0, TrainingFiles(tmp_path / "checkpoint", tmp_path / "teacher"))


def test_the_schedule_has_one_phase_and_the_settings_of_the_supernets(brief: Schedule) -> None:
    """Batches, momentum and the rest stay; the first of three epochs warms up, a single one does not."""
    base = dataclasses.replace(brief, ema_decay=0.9, clip_norm=1.0)
    schedule = make_finetuning_schedule(base, 3, 0.5, 7)
    assert schedule.phases == (Phase("finetune", 3, 0.5, warmup_epochs=1),)
    assert dataclasses.replace(schedule, name=base.name, phases=base.phases, max_steps=None) == base
    assert make_finetuning_schedule(base, 1, 0.5, None).phases[0].warmup_epochs == 0
    with pytest.raises(UsageError, match="epochs must be above 0"):
        make_finetuning_schedule(base, 0, 0.5, None)


def test_a_checkpoint_says_which_subnet_it_holds(
    tiny: MobileNetV3, lively: Lively, middle: Architecture, tmp_path: Path
) -> None:
    """It is read as the network of this subnet alone; a name of none is refused on one line."""
    network = _subnet(lively(tiny), middle).make_network(0)
    path = tmp_path / "checkpoint"
    save_checkpoint(path, Checkpoint(network, Position(0, 3), {}, {}, 1))
    loaded = load_checkpoint(path).supernet
    assert loaded.only == middle
    state = network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    network.only = tiny.largest
    save_checkpoint(path, Checkpoint(network, Position(0, 3), {}, {}, 1))
    with pytest.raises(FormatError, match="its weights do not fit its space"):
        load_checkpoint(path)
