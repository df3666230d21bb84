"""Time a training step beside the reference implementation of Once-for-All, and say where the time goes.

    python -m venv ofa-env && ofa-env/bin/pip install torch torchvision ofa
    python -m benchmarks.train_step --peer ofa-env/bin/python [--threads 2] [--pairs 6]
    python -m benchmarks.train_step --profile
    python -m benchmarks.train_step --loading

A step is four random subnets of MobileNetV3 w0.5 on one batch of 64 images of 32x32 pixels, with label smoothing and
SGD. Processes of both take turns; the ratio is the median over the pairs. ``--loading`` compares the time to make a
batch with the time to train on it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from edgenas.data import load_data
from edgenas.ofa import SCHEDULES, Phase, Supernet, Trainer, TrainingFiles, to_channels_last
from edgenas.ofa.training_step import Batch, compute_gradients
from edgenas.space import MobileNetV3

SPACE = MobileNetV3(width=0.5, resolutions=(32,), classes=10)
PHASE = Phase("all", 1, 0.01, 3, 3, 3, subnets=4, distill=False)
BATCH, WARM_UP, STEPS = 64, 5, 25

# The loop of the reference (its elastic_nn/training/progressive_shrinking.py), without a teacher.
PEER = """
import random, sys, time, torch
try:
    import torchvision
except RuntimeError:  # its compiled operators do not fit a build of torch for the CPU alone
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
from ofa.utils import cross_entropy_loss_with_soft_target, cross_entropy_with_label_smoothing
threads, batch, warm_up, steps = map(int, sys.argv[1:])
torch.set_num_threads(threads)
random.seed(0)
torch.manual_seed(0)
net = OFAMobileNetV3(n_classes=10, dropout_rate=0, width_mult=0.5, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6],
                     depth_list=[2, 3, 4]).train()
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=3e-5)
images, labels = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
for step in range(warm_up + steps):
    if step == warm_up:
        began = time.perf_counter()
    optimizer.zero_grad()
    for _ in range(4):
        net.sample_active_subnet()
        cross_entropy_with_label_smoothing(net(images), labels, 0.1).backward()
    optimizer.step()
print(batch * steps / (time.perf_counter() - began))
"""


def _train(steps: int) -> float:
    """Return the images per second of our step over so many steps, after a few to warm up."""
    supernet = Supernet(SPACE).train()
    to_channels_last(supernet)
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=3e-5)
    rng = np.random.default_rng(0)
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,))
    began = 0.0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        compute_gradients(supernet, None, PHASE, 0.1, Batch(SPACE.decode(PHASE.sample(SPACE, rng)), images, labels))
        optimizer.step()
    return BATCH * steps / (time.perf_counter() - began)


def _compare(peer: str, threads: int, pairs: int) -> None:
    ours = [sys.executable, "-m", "benchmarks.train_step", "--threads", str(threads), "--alone"]
    theirs = [peer, "-c", PEER, *map(str, (threads, BATCH, WARM_UP, STEPS))]
    ratios = []
    print("| pair | edgenas, images/s | ofa, images/s | ratio |\n|---|---|---|---|")
    for pair in range(pairs):
        order = (ours, theirs) if pair % 2 == 0 else (theirs, ours)
        found = {id(each): _images_per_second(each) for each in order}
        ratios.append(found[id(ours)] / found[id(theirs)])
        print(f"| {pair + 1} | {found[id(ours)]:.0f} | {found[id(theirs)]:.0f} | {ratios[-1]:.2f} |", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}, {threads} threads, torch {torch.__version__}")


def _images_per_second(command: list[str]) -> float:
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own commands
    return float(done.stdout.split()[-1])


def _profile() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        _train(10)
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print("| operator | share of the time | calls |\n|---|---|---|")
    for event in events[:12]:
        print(f"| {event.key} | {event.self_cpu_time_total / total:.1%} | {event.count} |")


def _loading() -> None:
    print("| data set | a batch is made in, ms | and trained on in, ms | share |\n|---|---|---|---|")
    for name in ("digits", "fashion_mnist"):
        data = load_data(name)
        trainer = Trainer(SPACE, data, SCHEDULES["sandwich-small"], 0, TrainingFiles(Path("none"), Path("none")))
        made = _median_ms(lambda step, trainer=trainer: trainer._make_batch(0, step))
        trained = BATCH / _train(STEPS) * 1000
        print(f"| {name} | {made:.1f} | {trained:.1f} | {made / trained:.1%} |")


def _median_ms(function: object) -> float:
    assert callable(function)
    times = []
    for step in range(STEPS):
        began = time.perf_counter()
        function(step)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def main() -> None:
    """Compare, profile, or compare loading with training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python of an environment with ofa")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--loading", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.alone:
        print(_train(STEPS))
    elif options.profile:
        _profile()
    elif options.loading:
        _loading()
    else:
        _compare(options.peer, options.threads, options.pairs)


if __name__ == "__main__":
    main()
