"""Measure how often the latency gate is wrong, through SSH on this machine's loopback.

python -m benchmarks.regression_gate OUT.jsonl [--ms 10] [--unchanged 200] [--slower-4 100] [--slower-8 100]
    [--slower-10 100] [--rounds 240] [--core 1] [--busy] [--report]

Needs OpenSSH's server. A network of about so many milliseconds is made, and
slower ones by a convolution of the first rows of its input beside it. Their number
is tuned by measurements of 120 rounds side by side, and the result measured in 240
(``--rounds``); what these show is stored. Then checks at +5% of all kinds alternate, within 30 s, those
of 8% within 60 s: what was decided after 30 s is counted apart.

Every line of OUT is one model or one check, written as soon as it is known.
Called again, with larger numbers or after an interruption, only what is
missing is run. ``--report`` only prints what OUT holds. Models run on the given
core; ``--busy`` keeps another one busy.

The same processes give what three other methods would have said, each by the
new model's processes of a check against the baseline model's of the check
before, which stands for the session of another day:

- ratio of means: an alarm above 1.05 (github-action-benchmark, with its threshold at 105%);
- Mann-Whitney: an alarm where the medians differ by more than 5% and the test says so at 5% (Google benchmark, asv);
- t-test: likewise by means and Welch's test (Bencher).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import busy_core
from edgenas.devices import Target
from edgenas.devices.ssh.testing import Sshd
from edgenas.export import build_onnx, random_weights
from edgenas.profilers import MeasuringSession, measure_model
from edgenas.profilers.measure.statistics import median_of_medians_with_interval
from edgenas.regression import check_model, record_baseline
from edgenas.regression.baseline import SETTINGS
from edgenas.regression.rounds import iter_rounds
from edgenas.space import MobileNetV3

LIMIT = 1.05
KINDS = {"unchanged": 1.0, "slower 4%": 1.04, "slower 8%": 1.08, "slower 10%": 1.10}
SECONDS = {"slower 8%": 60.0}
OTHERS = ("ratio of means", "Mann-Whitney", "t-test")
RESOLUTIONS = tuple(range(64, 801, 32))
CHANNELS = 64  # of the convolution that makes a network slower
TUNING_ROUNDS, TUNINGS, CLOSE = 120, 3, 0.005
ROWS_PER_CHANGE = 6.5  # the part of its input's rows that makes a network twice as slow, as seen: a first guess
Line = dict[str, Any]


def write_base(path: Path, resolution: int) -> None:
    """Write the network at a resolution."""
    network = MobileNetV3(width=0.35, resolutions=(resolution,), classes=10).largest
    path.write_bytes(build_onnx(network, random_weights(network)))


def write_slower(base: Path, path: Path, rows: int) -> None:
    """Write the network with a convolution of so many rows of its input, whose largest value joins the output.

    Time grows evenly with rows; with channels it does in steps, because a kernel computes several at once.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(base)
    graph = model.graph
    weights = np.random.default_rng(0).standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32) / 9
    output = graph.output[0].name
    for node in graph.node:
        node.output[:] = ["before" if name == output else name for name in node.output]
    bounds = {name: np.array([value]) for name, value in (("first", 0), ("end", rows), ("axis", 2))}
    arrays = {"more_weights": weights, **bounds}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    graph.node.extend(
        [
            helper.make_node("Slice", [graph.input[0].name, "first", "end", "axis"], ["rows"]),
            helper.make_node("Conv", ["rows", "more_weights"], ["more"], strides=[2, 2]),
            helper.make_node("ReduceMax", ["more"], ["most"], keepdims=0),
            helper.make_node("Sum", ["before", "most"], [output]),
        ]
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)


def measure_ratio(slower: Path, base: Path, target: Target, number: int) -> tuple[float, float, float]:
    """Return how many times as long one model takes as the other in so many rounds, and its 95% interval."""
    with (
        MeasuringSession(target) as session,
        contextlib.closing(iter_rounds(session, [slower, base], SETTINGS, None, 3600)) as rounds,
    ):
        found = list(itertools.islice(rounds, number))
    logs = [math.log(each.new.median_ms / each.other.median_ms) for each in found if each.other is not None]
    median, low, high = map(math.exp, median_of_medians_with_interval(logs))
    return median, low, high


class Log:
    """The lines of OUT."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text() if path.exists() else ""
        complete = text[: text.rfind("\n") + 1]  # without a line that was cut off
        if complete != text:
            path.write_text(complete)
        self.lines: list[Line] = [json.loads(line) for line in complete.splitlines()]

    def add(self, line: Line) -> Line:
        """Append a line to the file."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.lines.append(line)
        return line

    def checks(self, kind: str) -> list[Line]:
        """Return the checks of a kind."""
        return [line for line in self.lines if line.get("check") == kind]

    def model(self, name: str) -> Line | None:
        """Return the line of a model."""
        return next((line for line in self.lines if line.get("model") == name), None)


def make_models(folder: Path, log: Log, target: Target, wanted_ms: float, rounds: int) -> dict[str, Path]:
    """Write the model of each kind; those that OUT does not have are tuned and added to it."""
    base = folder / "unchanged.onnx"
    known = log.model("unchanged")
    if known is None:
        known = log.add({"model": "unchanged", "ms": wanted_ms, **choose_resolution(folder, target, wanted_ms)})
    if known["ms"] != wanted_ms:
        raise SystemExit(f"{log.path} is of a network of {known['ms']} ms; give another file for {wanted_ms} ms")
    write_base(base, known["resolution"])
    paths = {"unchanged": base}
    for kind, ratio in list(KINDS.items())[1:]:
        paths[kind] = folder / f"{kind.replace(' ', '-').rstrip('%')}.onnx"
        line = log.model(kind)
        if line is None:
            rows = tune_rows(base, paths[kind], target, ratio, known["resolution"])
            write_slower(base, paths[kind], rows)
            measured, low, high = measure_ratio(paths[kind], base, target, rounds)
            line = log.add({"model": kind, "rows": rows, "ratio": measured, "low": low, "high": high})
        write_slower(base, paths[kind], line["rows"])
        print(f"{kind}: {line['rows']} rows, {line['ratio']:.4f} ({line['low']:.4f} to {line['high']:.4f})")
    return paths


def choose_resolution(folder: Path, target: Target, wanted_ms: float) -> Line:
    """Return the resolution whose latency is the next to the wanted one, in the ratio of the two."""
    found: dict[int, float] = {}
    for resolution in RESOLUTIONS:
        write_base(folder / "probe.onnx", resolution)
        found[resolution] = measure_model(folder / "probe.onnx", target, SETTINGS).median_ms
        if found[resolution] > wanted_ms:
            break
    best = min(found, key=lambda resolution: abs(math.log(found[resolution] / wanted_ms)))
    return {"resolution": best, "measured_ms": found[best]}


def tune_rows(base: Path, path: Path, target: Target, wanted: float, resolution: int) -> int:
    """Return the rows with which a network is about as much slower as wanted."""
    rows, best = round(ROWS_PER_CHANGE * (wanted - 1) * resolution), (math.inf, 0)
    for _ in range(TUNINGS):
        write_slower(base, path, rows)
        ratio = measure_ratio(path, base, target, TUNING_ROUNDS)[0]
        best = min(best, (abs(ratio - wanted), rows))
        if best[0] < CLOSE:
            break
        rows = min(resolution, max(8, round(rows * min(3.0, max(1 / 3, (wanted - 1) / max(1e-3, ratio - 1))))))
    return best[1]


def run_check(kind: str, model: Path, baseline: Path, target: Target) -> Line:
    """Run one check and return its line."""
    check = check_model(model, target, baseline, latency="+5%", seconds=SECONDS.get(kind, 30.0))
    then, now = check.costs_ms()
    finding = check.findings[0].to_dict() if check.findings else {}
    return {
        "check": kind,
        "outcome": check.outcome,
        "seconds": check.seconds,
        "rounds": len(check.rounds),
        "ratio": finding.get("ratio"),
        "interval_95": finding.get("interval_95"),
        "then_ms": [round(ms, 6) for ms in then],
        "now_ms": [round(ms, 6) for ms in now],
        "reasons": list(check.reasons),
    }


def say_of_others(then: Sequence[float], now: Sequence[float]) -> dict[str, bool]:
    """Return which other methods would raise an alarm for the processes of two sessions."""
    from scipy.stats import mannwhitneyu, ttest_ind

    mean, median = (f(now) / f(then) for f in (statistics.fmean, statistics.median))
    ranks = mannwhitneyu(now, then, alternative="greater").pvalue
    means = ttest_ind(now, then, equal_var=False, alternative="greater").pvalue
    said = (mean > LIMIT, median > LIMIT and ranks < 0.05, mean > LIMIT and means < 0.05)
    return dict(zip(OTHERS, map(bool, said), strict=True))


def iter_missing(log: Log, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield the kinds of the checks that are missing, in turn."""
    for number in range(max(counts.values())):
        yield from (kind for kind, count in counts.items() if len(log.checks(kind)) <= number < count)


def count_alarms_of_others(log: Log) -> dict[str, dict[str, int]]:
    """Return the alarms of the other methods by kind; each check is compared with the session of the one before."""
    alarms = {kind: dict.fromkeys(OTHERS, 0) for kind in KINDS}
    checks = [line for line in log.lines if "check" in line and len(line["then_ms"]) > 1 and len(line["now_ms"]) > 1]
    for before, line in itertools.pairwise(checks):
        for method, alarm in say_of_others(before["then_ms"], line["now_ms"]).items():
            alarms[line["check"]][method] += alarm
    return alarms


def report(log: Log) -> None:
    """Print the outcomes by kind, the seconds of a check, and the alarms of the other methods."""
    others = count_alarms_of_others(log)
    print(f"{'':12}{'checks':>7}{'regressed':>10}{'in 30 s':>8}{'ok':>5}{'undecided':>10}{'median s':>9}{'most s':>7}"
          + "".join(f"{method:>16}" for method in OTHERS))  # fmt: skip
    for kind in KINDS:
        lines = log.checks(kind)
        if not lines:
            continue
        regressed = [line for line in lines if line["outcome"] == "regressed"]
        outcomes = [line["outcome"] for line in lines]
        undecided = len(lines) - outcomes.count("ok") - len(regressed)
        seconds = [line["seconds"] for line in lines]
        print(
            f"{kind:12}{len(lines):7}{len(regressed):10}{sum(line['seconds'] <= 30 for line in regressed):8}"
            f"{outcomes.count('ok'):5}{undecided:10}{statistics.median(seconds):9.1f}{max(seconds):7.1f}"
            + "".join(f"{others[kind][method]:16}" for method in OTHERS)
        )


def main() -> None:
    """Parse, tune, check, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ms", type=float, default=10.0)
    for kind in KINDS:
        name = kind.replace(" ", "-").rstrip("%")
        parser.add_argument(f"--{name}", dest=kind, type=int, default=200 if kind == "unchanged" else 100)
    parser.add_argument("--rounds", type=int, default=240)
    parser.add_argument("--core", type=int)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    log = Log(arguments.out)
    if not arguments.report:
        counts = {kind: getattr(arguments, kind) for kind in KINDS}
        with tempfile.TemporaryDirectory() as name, Sshd(Path(name) / "sshd") as server:
            affinity = None if arguments.core is None else [arguments.core]
            target = Target(server.profile(), affinity=affinity)
            with busy_core(arguments.busy, arguments.core):
                models = make_models(Path(name), log, target, arguments.ms, arguments.rounds)
                baseline = Path(name) / "baseline.json"
                record_baseline(models["unchanged"], target, baseline)
                for kind in iter_missing(log, counts):
                    line = log.add(run_check(kind, models[kind], baseline, target))
                    print(f"{kind}: {line['outcome']}, {line['rounds']} rounds in {line['seconds']:.1f} s", flush=True)
    report(log)


if __name__ == "__main__":
    main()
