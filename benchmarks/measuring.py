"""Measure how well a measurement repeats and the overhead per model, through SSH on this machine's loopback.

python benchmarks/measuring.py [--repetitions 20] [--blocks 3] [--models 100] [--core 1] [--ways NAME...]

Needs OpenSSH's server. Models run on the given core, everything else on the
others. First the same model is measured many times:

- 10 + 50: ten warm-up runs and the mean of 50 runs in one process, nn-Meter's
  method (L. Zhang et al., nn-Meter, MobiSys 2021);
- one process: the median of the uninterrupted runs, after three warm-up runs,
  in the same device time: edgenas's method for the subnets of a table;
- two processes, four processes: the median of their medians in the same time;
  rejected processes are not repeated;
- default: ``edgenas measure`` of a single model, with its default settings.

All but the last alternate, then the last alternates with the first, each with
its own agent, so that all methods of a table meet the same machine. The spread
is the standard deviation divided by the mean: the median over blocks, and of
all results. The mean of all methods, in several times the time and of many
processes, still contains the state of the machine. Intervals that cover: how
many intervals of measurements that were not rejected contain the median of all
results of their method; nn-Meter has none. Last, all repetitions are measured
within one batch of rounds. They share the state of the machine in each round,
so their spread only shows how well edgenas compares models.

Then many small models are measured once each. The seconds not spent on their
runs are divided by the number of models. This is skipped if ``--ways`` lacks
the default.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenas.devices import Target
from edgenas.devices.ssh.testing import Sshd
from edgenas.export import build_onnx, random_weights
from edgenas.profilers import Measurement, MeasurementResult, MeasureSettings, MeasuringRounds, MeasuringSession
from edgenas.space import MobileNetV3

# Warm-up ends after exactly ten runs where it may take no time.
NN_METER = MeasureSettings(
    processes=1, max_processes=1, warmup_runs=10, warmup_seconds=0, min_runs=50, max_runs=50, min_seconds=0
)
PROCESSES = 4
FIXED, DEFAULT, TOGETHER, WITHIN = "10 + 50", "default", "mean of all methods", "within one batch"
WAYS = (FIXED, "four processes", "two processes", "one process", DEFAULT)
LEAST_MACS, MOST_MACS = 170e6, 340e6


@dataclass(frozen=True)
class Found:
    """One measurement: ms, its interval unless rejected, device seconds, processes and rejected ones."""

    value: float
    interval: tuple[float, float] | None
    device_s: float
    processes: int
    rejected: int


def spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) / statistics.fmean(values)


def make_models(folder: Path, count: int, seed: int) -> list[Path]:
    """Write random subnets of 1 to 3 MB that take 4 to 8 ms on this kind of machine."""
    space = MobileNetV3(width=0.35, resolutions=(320, 352, 384), classes=10)
    genes = space.sample_distinct(20 * count, np.random.default_rng(seed))
    fitting = genes[(space.macs(genes) > LEAST_MACS) & (space.macs(genes) < MOST_MACS)][:count]
    paths = []
    for number, architecture in enumerate(space.decode(fitting)):
        paths.append(folder / f"{seed}-{number:03}.onnx")
        paths[-1].write_bytes(build_onnx(architecture, random_weights(architecture)))
    return paths


@contextlib.contextmanager
def busy_core(wanted: bool, measured: int | None) -> Iterator[None]:
    """Keep the last core busy that models are not pinned to."""
    if not wanted:
        yield
        return
    code = f"import os; os.sched_setaffinity(0, {{{max(os.sched_getaffinity(0) - {measured})}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:  # noqa: S603 - this interpreter, code from here
        time.sleep(0.5)
        try:
            yield
        finally:
            process.kill()


def processes(model: Path, session: MeasuringSession, settings: MeasureSettings, count: int) -> MeasurementResult:
    """So many processes of a file by one agent, with none tried again."""
    found = session.iter_measurements([model] * count, settings)
    return MeasurementResult(tuple(each for each in found if isinstance(each, Measurement)))


def of_rounds(rounds: MeasurementResult) -> Found:
    """Return edgenas's result of a file."""
    taken = (*rounds.measurements, *rounds.rejected)
    refused = sum(each.validity.status == "rejected" for each in taken)
    interval = None if rounds.validity.status == "rejected" else rounds.interval_ms
    return Found(rounds.median_ms, interval, rounds.device_s, len(taken), refused)


def fixed(model: Path, session: MeasuringSession) -> Found:
    """Measure the mean of 50 runs in one process."""
    (one,) = processes(model, session, NN_METER, 1).measurements
    mean = statistics.fmean(one.samples_ms)
    return Found(mean, None, one.device_s, 1, int(one.validity.status == "rejected"))


def rounds_of(
    models: Sequence[Path], target: Target, session: MeasuringSession, settings: MeasureSettings
) -> list[Found]:
    """Measure files together in rounds, as edgenas does."""
    together = MeasuringRounds(models, target, settings)
    session.measure(together)
    return [of_rounds(each) for each in together.outcomes() if isinstance(each, MeasurementResult)]


def equal_time(model: Path, session: MeasuringSession, count: int) -> MeasureSettings:
    """Return settings with which ``count`` processes take as long together as one process of 10 + 50 runs."""
    seconds = statistics.fmean(fixed(model, session).device_s for _ in range(5))
    brief = MeasureSettings(warmup_runs=3, warmup_seconds=0, min_runs=2, max_runs=2, min_seconds=0)
    start = processes(model, session, brief, 5).device_s / 5
    sampling = max(0.005, seconds / count - start)
    return MeasureSettings(
        processes=count, max_processes=count, warmup_runs=3, warmup_seconds=0, min_runs=3,
        min_seconds=sampling, max_seconds=sampling, total_seconds=0,
    )  # fmt: skip


def print_spread(
    models: Sequence[Path], target: Target, session: MeasuringSession, blocks: int, busy: bool, wanted: Sequence[str]
) -> None:
    """Measure with all methods, and print a row for each."""
    with busy_core(busy, None if target.affinity is None else target.affinity[0]):
        equal = {count: equal_time(models[0], session, count) for count in (1, 2, PROCESSES)}

        def median_of(count: int) -> Callable[[Path], Found]:
            return lambda model: of_rounds(processes(model, session, equal[count], count))

        ways: dict[str, Callable[[Path], Found]] = {
            FIXED: lambda model: fixed(model, session),
            "four processes": median_of(PROCESSES),
            "two processes": median_of(2),
            "one process": median_of(1),
        }
        print_ways({name: way for name, way in ways.items() if name in wanted}, models, blocks, busy)
        if DEFAULT not in wanted:
            return
        default = {DEFAULT: lambda model: rounds_of([model], target, session, MeasureSettings())[0]}
        print_ways({FIXED: ways[FIXED], **default}, models, blocks, busy)
        print_rows({WITHIN: [rounds_of(models, target, session, equal[PROCESSES]) for _ in range(blocks)]}, busy)


def print_ways(ways: dict[str, Callable[[Path], Found]], models: Sequence[Path], blocks: int, busy: bool) -> None:
    """Measure with some methods alternately, and print a row for each."""
    found: dict[str, list[list[Found]]] = {name: [] for name in (*ways, TOGETHER)}
    for _ in range(blocks):
        turns = [{name: way(model) for name, way in ways.items()} for model in models]
        for name in ways:
            found[name].append([turn[name] for turn in turns])
        usual = {name: statistics.fmean(turn[name].value for turn in turns) for name in ways}
        found[TOGETHER].append([mean_of(turn, usual) for turn in turns])
    print_rows(found, busy)


def mean_of(turn: dict[str, Found], usual: dict[str, float]) -> Found:
    """Return the mean of the results of a turn, each relative to its method's mean."""
    value = statistics.fmean(each.value / usual[name] for name, each in turn.items())
    seconds = sum(each.device_s for each in turn.values())
    processes, refused = (sum(getattr(each, name) for each in turn.values()) for name in ("processes", "rejected"))
    return Found(value, None, seconds, processes, refused)


def print_rows(found: dict[str, list[list[Found]]], busy: bool) -> None:
    theirs = statistics.median(spread([each.value for each in block]) for block in next(iter(found.values())))
    for name, results in found.items():
        print(f"| {'busy' if busy else 'idle'} | {name} | {' | '.join(row(name, results, theirs))} |", flush=True)


def row(name: str, blocks: Sequence[Sequence[Found]], theirs: float) -> tuple[str, ...]:
    """Return the cells of a method's row; ``theirs`` is the spread of 10 + 50."""
    each = [spread([one.value for one in block]) for block in blocks]
    results = [one for block in blocks for one in block]
    values = [one.value for one in results]
    middle = statistics.median(values)
    claimed = [one.interval for one in results if one.interval is not None]
    covered = sum(low <= middle <= high for low, high in claimed)
    return (
        f"{statistics.fmean(values):.3f}",
        f"{statistics.median(each):.2%}",
        "" if name == WITHIN else f"{statistics.median(each) / theirs:.2f}",
        " ".join(f"{one:.2%}" for one in each),
        f"{spread(values):.2%}",
        f"{covered} of {len(claimed)}" if claimed else "",
        f"{sum(one.device_s for one in results) / len(results):.2f}",
        f"{sum(one.rejected for one in results)} of {sum(one.processes for one in results)}",
    )


def print_overhead(models: list[Path], target: Target, session: MeasuringSession) -> None:
    """Measure every model in one process, and print the overhead per model."""
    running = 0.0
    medians = []

    def keep(number: int, measurement: Measurement) -> None:
        nonlocal running
        running += measurement.running_s
        medians.append(measurement.median_ms)

    settings = MeasureSettings(processes=1, max_processes=1)
    together = MeasuringRounds(models, target, settings, on_process=keep)
    began = time.monotonic()
    session.measure(together)
    seconds = time.monotonic() - began
    row = (
        f"{min(medians):.1f} to {max(medians):.1f}", f"{seconds:.1f}", f"{running:.1f}",
        f"{1000 * (seconds - running) / len(models):.1f}",
    )  # fmt: skip
    print(f"| {len(models)} | {' | '.join(row)} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--core", type=int)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Sshd(Path(folder) / "sshd") as sshd:
        clusters = {} if options.core is None else {"clusters": {"measured": [options.core]}}
        target = Target(sshd.profile(**clusters), affinity=None if options.core is None else "measured")
        with MeasuringSession(target) as session:
            (model,) = make_models(Path(folder), 1, seed=1)
            copies = [Path(shutil.copy(model, Path(folder) / f"copy{n}.onnx")) for n in range(options.repetitions)]
            print(
                "| other core | method | mean, ms | spread | ratio to 10 + 50 | per block | overall"
                " | intervals that cover | device s each | rejected processes |"
            )
            print("|---|---|---|---|---|---|---|---|---|---|")
            for busy in (False, True):
                print_spread(copies, target, session, options.blocks, busy, options.ways)
            if DEFAULT not in options.ways:
                return
            print("\n| models | median, ms | total, s | running, s | overhead per model, ms |\n|---|---|---|---|---|")
            print_overhead(make_models(Path(folder), options.models, seed=2), target, session)


if __name__ == "__main__":
    main()
