"""Measure latency tables and other prediction methods in one session, through SSH on this machine's loopback.

EDGENAS_DATA=FOLDER python -m benchmarks.predicting OUT [--seconds 240] [--times 3] [--core 1] [--targets NAME...]
python -m benchmarks.predictors OUT

Needs OpenSSH's server. Writes a file per target with a line per process, and
resumes. The methods alternate, so that all meet the same machine, until
``--seconds`` of device time are spent on each:

- subnets: what a latency table is fitted to, selected as by ``edgenas profile``;
- parts: every part of the space as a model of its own, to be summed up
  (Once-for-All's method, arXiv 1908.09791);
- kernels: what a runtime fuses, each as a model of its own, for random forests
  on their features (nn-Meter's method, L. Zhang et al., MobiSys 2021); all parts
  and kernels are measured once, even if that takes longer;
- operators: onnxruntime's own profiler on whole subnets, for its float32 only.

In between, 200 held-out subnets, half uniformly random, half near the front of a
search, are measured several times. Freed from the machine's drift, they are the
ground truth of ``predictors``; their first and last measurements are the noise
floor. With two threads only subnets are measured, and the held-out ones once, to
evaluate source tables of other targets (``transferring``).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgenas.accuracy.released import ReleasedPredictor
from edgenas.costs import Genes, Vector
from edgenas.devices import Target
from edgenas.devices.ssh.testing import Sshd
from edgenas.export import build_onnx, random_weights
from edgenas.export.onnx.session import OnnxFile
from edgenas.export.quantize.calibration import Calibration
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.profile import SETTINGS
from edgenas.profilers import Measurement, MeasuringRounds, MeasuringSession
from edgenas.profilers.latency.acquisition import select_subnets
from edgenas.profilers.latency.drift import Moments
from edgenas.profilers.latency.fit import fit_part_costs
from edgenas.runtimes import ExportFormat, SourceModel
from edgenas.runtimes.building import quantize
from edgenas.search import nondominated_mask
from edgenas.space import Architecture, MobileNetV3, Part
from edgenas.space.blocks.inverted_residual import InvertedResidual

SPACE = MobileNetV3(width=1.0, resolutions=(128, 160, 192, 224), classes=1000)
TARGETS = {
    "onnxruntime-fp32": ("onnxruntime", "fp32", 1),
    "onnxruntime-int8": ("onnxruntime", "int8", 1),
    "litert-fp32": ("litert", "fp32", 1),
    "onnxruntime-fp32-2-threads": ("onnxruntime", "fp32", 2),
}
HELD_OUT = 200
MOST = 60  # of a way in a turn
SUBNETS, HELD_OUT_OF_TURN = 16, 4  # of a turn; the latter are held out by the table itself


# -- what is measured --------------------------------------------------------------


def subnet_onnx(architecture: Architecture) -> bytes:
    return build_onnx(architecture, random_weights(architecture))


def held_out_subnets(checkpoint: Path) -> Genes:
    """Return as many genes per resolution; half uniformly random, half mutations of a front of accuracy and MACs."""
    rng = np.random.default_rng(11)
    predictor = ReleasedPredictor.load_checkpoint(checkpoint, SPACE)

    def front(genes: Genes) -> Genes:
        return genes[nondominated_mask(np.column_stack([-predictor(genes), SPACE.macs(genes)]))]

    best = front(SPACE.sample(20000, rng))
    for _ in range(30):
        best = front(np.unique(np.concatenate([best, mutated(np.repeat(best, 20, axis=0), 0.06, rng)]), axis=0))
    near = np.unique(mutated(np.repeat(best, 20, axis=0), 0.05, rng), axis=0)
    uniform = SPACE.sample_distinct(4000, rng)
    return np.concatenate([balanced(each, HELD_OUT // 2, rng) for each in (uniform, near)])


def mutated(genes: Genes, rate: float, rng: np.random.Generator) -> Genes:
    changed = rng.random(genes.shape) < rate
    return SPACE.canonical(np.where(changed, rng.integers(0, SPACE.radices, genes.shape), genes))


def balanced(genes: Genes, count: int, rng: np.random.Generator) -> Genes:
    each = [rng.permutation(genes[genes[:, 0] == row])[: count // 4] for row in range(len(SPACE.resolutions))]
    return np.concatenate(each)


@dataclass(frozen=True)
class Fragment:
    """A part or a kernel of a network: its name and its nodes."""

    name: str
    architecture: Architecture
    nodes: re.Pattern[str]

    def onnx(self) -> bytes:
        """Return the fragment as a model of its own."""
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(subnet_onnx(self.architecture)))
        inside = [node for node in model.graph.node if self.nodes.match(node.name)]
        weights = {tensor.name for tensor in model.graph.initializer}
        made = {name for node in inside for name in node.output}
        read = {name: None for node in inside for name in node.input if name not in made | weights}
        return bytes(onnx.utils.Extractor(model).extract_model([*read], [inside[-1].output[0]]).SerializeToString())


def architectures_by_part() -> dict[Part, tuple[str, Architecture]]:
    """Return for every part of the space its place in some architecture."""
    found: dict[Part, tuple[str, Architecture]] = {}
    rng = np.random.default_rng(0)
    while len(found) < len(SPACE.distinct_parts):
        for architecture in SPACE.decode(SPACE.sample(200, rng)):
            for place, part in architecture.parts.items():
                found.setdefault(part, (place, architecture))
    return {part: found[part] for part in SPACE.distinct_parts}


def kernel_keys(part: Part) -> dict[str, tuple[Any, ...]]:
    """Return the kernels of a part: by name, the key that identifies each."""
    entry, size, _ = part.in_shape
    out, after, _ = part.out_shape
    if not isinstance(part, InvertedResidual):
        kernel, activation = getattr(part, "kernel", 1), getattr(part, "activation", "none")
        return {"all": (part.operator, size, entry, out, kernel, getattr(part, "stride", 1), activation)}
    middle = part.mid_channels
    keys: dict[str, tuple[Any, ...]] = {}
    if part.expand:
        keys["expand"] = ("expand", size, entry, middle, 1, 1, part.activation)
    keys["depthwise"] = ("depthwise", size, middle, middle, part.kernel, part.stride, part.activation)
    if part.se_channels:
        keys["se"] = ("se", after, middle, part.se_channels, 1, 1, "")
    keys["project"] = ("project", after, middle, out, 1, 1, "add" if part.shortcut else "")
    return keys


def fragments(adds: bool = True) -> tuple[list[Fragment], list[Fragment]]:
    """Return all parts of the space and all kernels of its parts; ``adds``: the shortcut belongs to the projection."""
    parts: list[Fragment] = []
    kernels: dict[str, Fragment] = {}
    for part, (place, architecture) in architectures_by_part().items():
        inside = re.escape(place) + r"(\.|$)"
        parts.append(Fragment(part.key, architecture, re.compile(inside)))
        for piece, key in kernel_keys(part).items():
            project = r"\.(project\.|add$)" if adds else r"\.project\."
            ending = {"all": r"(\.|$)", "project": project}.get(piece, rf"\.{piece}\.")
            pattern = re.compile(re.escape(place) + ending)
            kernels.setdefault(json.dumps(key), Fragment(json.dumps(key), architecture, pattern))
    return parts, [*kernels.values()]


# -- measuring ---------------------------------------------------------------------


def column(rows: Sequence[dict[str, Any]], name: str) -> Vector:
    """Return a value of processes as a vector."""
    return np.array([row[name] for row in rows], dtype=np.float64)


def moments(rows: Sequence[dict[str, Any]]) -> Moments:
    """Return when processes ran, and how slow the CPU was then."""
    return Moments(column(rows, "taken_s"), column(rows, "probe_ms"))


def device_s(rows: Sequence[dict[str, Any]]) -> float:
    """Return the device time of processes, seconds."""
    return float(sum(row["device_s"] for row in rows))


class Record:
    """A file of JSON lines, one per process: ``way`` (the method), ``name``, ``turn`` and the results; or gzipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
            self.rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def of(self, way: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["way"] == way]

    def spent(self, way: str) -> float:
        return device_s(self.of(way))


@dataclass
class Measuring:
    """The measurements of one target: in each turn a few models of each method, mixed."""

    target: Target
    session: MeasuringSession
    makers: ProcessPoolExecutor
    record: Record
    held_out: Genes
    seconds: float
    times: int
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)

    @cached_property
    def _fragments(self) -> tuple[list[Fragment], list[Fragment]]:
        # TFLite files, and calibration, have one input only.
        return fragments(adds=format_of(self.target) == ExportFormat("onnx", "fp32"))

    def run(self) -> None:
        """Measure until every method has spent its time."""
        turn = 1 + max((row["turn"] for row in self.record.rows), default=-1)
        while self.record.spent("subnets") < self.seconds or self._left():
            rng = np.random.default_rng(turn)
            items = [item for way in self._ways() for item in way]
            items = [items[place] for place in rng.permutation(len(items))]
            self._measure(items, turn)
            if format_of(self.target) == ExportFormat("onnx", "fp32") and not self._brief:
                self._profile_operators(turn)
            spent = {way: round(self.record.spent(way)) for way in ("subnets", "parts", "kernels", "held out")}
            print(self.target.name, "turn", turn, spent, flush=True)
            turn += 1

    def _ways(self) -> Iterator[list[tuple[str, str, bytes]]]:
        share = min(1.0, self.record.spent("subnets") / self.seconds)
        if share < 1:
            yield [("subnets", each.id, subnet_onnx(each)) for each in SPACE.decode(self._chosen())]
            done = len(self.record.of("judging"))
            uniform = SPACE.sample_distinct(4000, np.random.default_rng(0))[done : done + HELD_OUT_OF_TURN]
            yield [("judging", each.id, subnet_onnx(each)) for each in SPACE.decode(uniform)]
        for way, all_of_them in self._singly().items():
            rows = self.record.of(way)
            each = device_s(rows) / len(rows) if rows else 0.3
            distinct = len({row["name"] for row in rows})
            due = share + 0.05
            wanted = int(max(due * self.seconds / each - len(rows), due * len(all_of_them) - distinct))
            times = Counter(row["name"] for row in rows)
            least = sorted(all_of_them, key=lambda one: times[one.name])[: max(0, min(MOST, wanted))]
            yield [(way, one.name, one.onnx()) for one in least]
        due_held = int(min(1, share + 0.05) * self._times * HELD_OUT) - len(self.record.of("held out"))
        first = len(self.record.of("held out"))
        order = np.concatenate([np.random.default_rng(k).permutation(HELD_OUT) for k in range(self._times)])
        numbers = order[first : first + max(0, min(MOST, due_held))]
        yield [("held out", each.id, subnet_onnx(each)) for each in SPACE.decode(self.held_out[numbers])]

    def _chosen(self) -> Genes:
        rows = self.record.of("subnets")
        rng = np.random.default_rng(len(rows))
        genes = SPACE.encode([SPACE.from_id(row["name"]) for row in rows])
        known = None
        if len(rows) >= 2 * SUBNETS:
            known = fit_part_costs(SPACE, genes, column(rows, "median_ms"), moments(rows))
        return select_subnets(SPACE, known, genes if len(rows) else np.empty((0, len(SPACE.genes)), int), SUBNETS, rng)

    def _left(self) -> bool:
        """Return True while a part, a kernel or a held-out subnet lacks a measurement."""
        missing = [
            len({row["name"] for row in self.record.of(way)}) < len(all_of_them)
            for way, all_of_them in self._singly().items()
        ]
        return len(self.record.of("held out")) < self._times * HELD_OUT or any(missing)

    def _singly(self) -> dict[str, list[Fragment]]:
        return {} if self._brief else dict(zip(("parts", "kernels"), self._fragments, strict=True))

    @property
    def _brief(self) -> bool:
        """True if only subnets are measured, to evaluate source tables of other targets."""
        return self.target.threads > 1

    @property
    def _times(self) -> int:
        return 1 if self._brief else self.times

    def _measure(self, items: Sequence[tuple[str, str, bytes]], turn: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}.{format_of(self.target).format}" for number in range(len(items))]
            for path, file in zip(paths, self._files(items), strict=True):
                path.write_bytes(file)

            def keep(number: int, found: Measurement) -> None:
                self.record.add(
                    way=items[number][0], name=items[number][1], turn=turn, median_ms=found.median_ms,
                    device_s=found.device_s, taken_s=found.taken_s, peak_bytes=found.peak_bytes,
                    validity=found.validity.status,
                    probe_ms=found.median_probe_ms, runs=len(found.samples_ms),
                )  # fmt: skip

            rounds = MeasuringRounds(paths, self.target, SETTINGS, on_process=keep)
            self.session.measure(rounds)
            for item, result in zip(items, rounds.outcomes(), strict=True):
                if isinstance(result, Exception):
                    self.record.add(way="failed", name=item[1], of=item[0], turn=turn, error=str(result), device_s=0.0)

    def _files(self, items: Sequence[tuple[str, str, bytes]]) -> list[bytes]:
        """Return the models in the target's format; held-out files are kept for the next turn."""
        missing = [item for item in items if item[:2] not in self.files]
        fresh = self.makers.map(partial(file_of, format_of(self.target)), [model for _, _, model in missing])
        made = {**self.files, **{item[:2]: file for item, file in zip(missing, fresh, strict=True)}}
        self.files.update({key: file for key, file in made.items() if key[0] == "held out"})
        return [made[item[:2]] for item in items]

    def _profile_operators(self, turn: int) -> None:
        """Profile uniformly random subnets with onnxruntime's profiler, on the same core."""
        done = len(self.record.of("operators"))
        if self.record.spent("operators") >= self.record.spent("subnets"):
            return
        drawn = SPACE.decode(SPACE.sample_distinct(4000, np.random.default_rng(5))[done : done + SUBNETS])
        with tempfile.TemporaryDirectory() as folder:
            for architecture in drawn:
                (Path(folder) / f"{architecture.id}.onnx").write_bytes(subnet_onnx(architecture))
            command = [sys.executable, __file__, "operators", folder, *map(str, self.target.affinity or ())]
            ended = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 - this interpreter and file
        for line in ended.stdout.splitlines():
            self.record.add(way="operators", turn=turn, **json.loads(line))


def file_of(kind: ExportFormat, model: bytes) -> bytes:
    """Return an ONNX model as a file of a format."""
    base = SourceModel(OnnxFile(model)).float_file(kind.runtime)
    return quantize(base, kind, calibration(model) if kind.is_calibrated else None)


def calibration(model: bytes) -> Calibration:
    """Return random calibration inputs of a model; latency does not depend on them."""
    graph = onnx.load_from_string(model).graph
    (given,) = graph.input
    shape = [axis.dim_value for axis in given.type.tensor_type.shape.dim]
    return Calibration(np.random.default_rng(0).standard_normal(shape, np.float32), "minmax")


def profile_operators(folder: Path, cores: Sequence[int]) -> None:
    """Print, for each model, the median microseconds of each node by onnxruntime's profiler, and the seconds spent."""
    import onnxruntime

    if cores:
        os.sched_setaffinity(0, cores)
    for path in sorted(folder.glob("*.onnx")):
        began = time.perf_counter()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / path.stem)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        given = {each.name: np.zeros(each.shape, np.float32) for each in session.get_inputs()}
        begun = time.perf_counter()
        while time.perf_counter() - begun < SETTINGS.max_seconds:
            session.run(None, given)
        spent = time.perf_counter() - began
        events = json.loads(Path(session.end_profiling()).read_text())
        nodes: dict[str, list[float]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                nodes.setdefault(event["name"].removesuffix("_kernel_time"), []).append(event["dur"])
        medians = {name: float(np.median(each)) for name, each in nodes.items()}
        print(json.dumps({"name": path.stem, "nodes_us": medians, "device_s": spent}))


def measure(out: Path, seconds: float, times: int, core: int | None, names: Sequence[str]) -> None:
    """Measure the targets in order."""
    out.mkdir(parents=True, exist_ok=True)
    held_out = held_out_subnets(Path(os.environ["EDGENAS_DATA"]) / "ofa" / "acc_predictor.pth")
    with tempfile.TemporaryDirectory() as folder, Sshd(Path(folder) / "sshd") as sshd:
        clusters = {} if core is None else {"clusters": {"measured": [core]}}
        profile = sshd.profile(**clusters)
        for name in names:
            runtime, precision, threads = TARGETS[name]
            pinned = core is not None and threads == 1
            target = Target(profile, runtime, precision, threads, affinity="measured" if pinned else None)
            with MeasuringSession(target) as session, ProcessPoolExecutor(2, get_context("spawn")) as makers:
                Measuring(target, session, makers, Record(out / f"{name}.jsonl"), held_out, seconds, times).run()


def main() -> None:
    """Measure all methods."""
    if sys.argv[1:2] == ["operators"]:
        profile_operators(Path(sys.argv[2]), [int(core) for core in sys.argv[3:]])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--times", type=int, default=3, help="measurements of each held-out subnet")
    parser.add_argument("--core", type=int)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = parser.parse_args()
    measure(options.out, options.seconds, options.times, options.core, options.targets)


if __name__ == "__main__":
    main()
