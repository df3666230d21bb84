"""Compare our model files with those of litert-torch and torch.onnx: seconds to write, latency, operators.

    python3.11 -m venv .venv/litert-torch
    .venv/litert-torch/bin/python -m pip install -c constraints-litert-torch.txt '.[litert-torch]'
    python benchmarks/export.py --litert-torch-python .venv/litert-torch/bin/python

The same random subnets of MobileNetV3 w1.0, with the same random weights, go
through every writer; imports are not counted. Each latency is the median over
processes, measured alternately, of the median of a process's runs on one thread.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import math
import os
import random
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from ai_edge_litert import schema_py_generated as schema
from safetensors.numpy import save_file

import edgenas as en
from edgenas.errors import ModelError
from edgenas.export import build_onnx, random_weights
from edgenas.export.tflite.writer import build_tflite
from edgenas.ofa import Subnet, Supernet
from edgenas.profilers import MeasuringSession
from edgenas.profilers.measure.measurement import Measurement

ROOT = Path(__file__).parents[1]
SIZE = 224
BATCH = 20
TARGETS = {"tflite": "litert", "onnx": "onnxruntime"}
AGAIN = "ours, repeated"
Seconds = dict[str, list[float]]


def make_subnet(architecture: en.Architecture, seed: int) -> Subnet:
    """Return a subnet in eval mode with random batch norms and biases; equal tensors would be stored only once."""
    rng = np.random.default_rng(seed)
    weights = random_weights(architecture, seed)
    for name, values in weights.items():
        if name.endswith(("bn.weight", "running_var")):
            weights[name] = rng.uniform(0.5, 1.5, values.shape).astype(np.float32)
        elif values.ndim == 1:
            weights[name] = rng.normal(0, 0.1, values.shape).astype(np.float32)
    subnet = Subnet(architecture).eval()
    subnet.load_weights({name: torch.from_numpy(values) for name, values in weights.items()})
    return subnet


def file_of(folder: Path, architecture: en.Architecture, writer: str, kind: str) -> Path:
    """Return the path of a writer's file of an architecture."""
    return folder / f"{architecture.id}.{writer.replace(' ', '_').replace('-', '_')}.{kind}"


def write_onnx(path: Path, architecture: en.Architecture, subnet: Subnet) -> None:
    path.write_bytes(build_onnx(architecture, subnet.weights()))


def write_tflite(path: Path, architecture: en.Architecture, subnet: Subnet) -> None:
    path.write_bytes(build_tflite(build_onnx(architecture, subnet.weights())))


def write_by_torch(path: Path, subnet: Subnet, dynamo: bool) -> None:
    """Write a subnet with one of torch.onnx's exporters; hide its output and warnings."""
    sample = torch.zeros(1, 3, SIZE, SIZE)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(subnet, (sample,), path, dynamo=dynamo, external_data=False)


def timed(write: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.monotonic()
    write()
    return time.monotonic() - began


def write_files(folder: Path, architectures: Sequence[en.Architecture]) -> tuple[Seconds, Seconds]:
    """Write every file that this process can write; return the seconds by writer, for TFLite and for ONNX."""
    tflite, graphs = collections.defaultdict(list), collections.defaultdict(list)
    subnets = {architecture: make_subnet(architecture, seed) for seed, architecture in enumerate(architectures)}
    for architecture, subnet in subnets.items():
        save_file(subnet.weights(), folder / f"{architecture.id}.safetensors")
    # A writer makes all its files before the next begins, as litert-torch does: none meets what another left in memory.
    for architecture, subnet in subnets.items():
        path = file_of(folder, architecture, "ours", "tflite")
        tflite["ours"].append(timed(lambda: write_tflite(path, architecture, subnet)))  # noqa: B023 - called at once
    for architecture, subnet in subnets.items():
        path = file_of(folder, architecture, "ours", "onnx")
        graphs["ours"].append(timed(lambda: write_onnx(path, architecture, subnet)))  # noqa: B023 - called at once
    for dynamo in (False, True):
        writer = f"torch.onnx dynamo={dynamo}"
        for architecture, subnet in subnets.items():
            path = file_of(folder, architecture, writer, "onnx")
            graphs[writer].append(timed(lambda: write_by_torch(path, subnet, dynamo)))  # noqa: B023 - called at once
    return tflite, graphs


def write_by_litert_torch(python: Path, folder: Path, architectures: Sequence[en.Architecture]) -> list[float]:
    """Write litert-torch's file of every architecture in its own environment; return the seconds."""
    command = [str(python), str(Path(__file__).with_name("export_litert_torch.py")), str(folder), str(SIZE)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - a list
    if done.returncode:
        raise SystemExit(f"litert-torch's side failed:\n{done.stderr[-2000:]}")
    seconds = json.loads(done.stdout)
    return [seconds[architecture.id] for architecture in architectures]


def measured(paths: Iterable[Path], kind: str) -> list[Measurement]:
    """Measure each file once, in its own process, on one thread of this machine."""
    target = en.Target(en.load_profile("localhost"), runtime=TARGETS[kind])
    found = []
    with MeasuringSession(target) as session:
        for answer in session.iter_measurements(list(paths)):
            if isinstance(answer, ModelError):
                raise answer
            found.append(answer)
    return found


def latencies(files: Sequence[Path], kind: str, rounds: int) -> tuple[list[float], str]:
    """Return the median ms of each file and a note; every round measures all files in another order."""
    medians: list[list[float]] = [[] for _ in files]
    refused, order = 0, list(range(len(files)))
    shuffler = random.Random(0)  # noqa: S311 - an order is no secret
    for _ in range(rounds):
        shuffler.shuffle(order)
        for number, found in zip(order, measured((files[number] for number in order), kind), strict=True):
            medians[number].append(found.median_ms)
            refused += found.validity.status == "rejected"
    note = f"{rounds} processes a file; {refused} of {rounds * len(files)} were disturbed by other programs."
    return [statistics.median(each) for each in medians], note


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def print_seconds(kind: str, seconds: Seconds) -> None:
    """Print the seconds per file of each writer."""
    ours = statistics.median(seconds["ours"])
    rows = []
    for writer, each in seconds.items():
        cells = [f"{value:.3f}" for value in (statistics.median(each), min(each), max(each))]
        rows.append([kind, writer, *cells, f"{statistics.median(each) / ours:.0f}"])
    print_table(["format", "writer", "median s", "min", "max", "ratio to ours"], rows)


def print_latencies(
    folder: Path, architectures: Sequence[en.Architecture], kind: str, writers: Sequence[str], rounds: int
) -> None:
    """Print the latency of every file, and ours relative to ours repeated and to the others."""
    columns = ["ours", "ours", *(writer for writer in writers if writer != "ours")]
    names = ["ours", AGAIN, *columns[2:]]
    files = [file_of(folder, each, writer, kind) for each in architectures for writer in columns]
    values, note = latencies(files, kind, rounds)
    rows, ratios = [], []
    for number, architecture in enumerate(architectures):
        each = values[number * len(columns) :][: len(columns)]
        ratios.append([each[0] / other for other in each[1:]])
        cells = [f"{value:.2f}" for value in each]
        rows.append([architecture.id.partition("-")[2], *cells, *(f"{ratio:.3f}" for ratio in ratios[-1])])
    means = [f"{math.exp(statistics.fmean(map(math.log, column))):.3f}" for column in zip(*ratios, strict=True)]
    rows.append(["geometric mean", *([""] * len(columns)), *means])
    print_table(["subnet", *(f"{name} ms" for name in names), *(f"ours / {name}" for name in names[1:])], rows)
    print(f"\n{note}")


def operators_of_tflite(path: Path) -> list[str]:
    """Return the operators of a file, with their fused activations."""
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    fused = {value: name for name, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    found = []
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        activation = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        name = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
        found.append(f"{name} + {fused[activation]}" if activation else name)
    return found


def operators_of_onnx(path: Path) -> list[str]:
    """Return the operators of a file."""
    return [node.op_type for node in onnx.load_model_from_string(path.read_bytes()).graph.node]


def print_operators(folder: Path, architectures: Sequence[en.Architecture], kind: str, writers: Sequence[str]) -> None:
    """Print the count of each operator over all files of a writer."""
    read = {"tflite": operators_of_tflite, "onnx": operators_of_onnx}[kind]
    counts = {
        writer: collections.Counter(
            name for each in architectures for name in read(file_of(folder, each, writer, kind))
        )
        for writer in writers
    }
    names = sorted(set().union(*counts.values()))
    rows: list[list[Any]] = [[name, *(counts[writer][name] for writer in writers)] for name in names]
    rows.append(["all", *(counts[writer].total() for writer in writers)])
    print_table([f"{kind} operators", *writers], rows)


def print_many(folder: Path, count: int) -> None:
    """Print the seconds to write TFLite files of random subnets of all resolutions, and to measure them."""
    space = en.MobileNetV3()
    supernet = Supernet(space)
    architectures = space.decode(space.sample(count, np.random.default_rng(1)))
    writing = measuring = 0.0
    for start in range(0, count, BATCH):
        paths = [folder / f"{number}.tflite" for number in range(min(BATCH, count - start))]
        for path, architecture in zip(paths, architectures[start:], strict=False):
            writing += timed(lambda: write_tflite(path, architecture, supernet.extract(architecture)))  # noqa: B023 - called at once
        measuring += sum(found.device_s for found in measured(paths, "tflite"))
    print_table(
        ["random subnets", "extracting and writing s", "measuring s"], [[count, f"{writing:.1f}", f"{measuring:.1f}"]]
    )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litert-torch-python", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--subnets", type=int, default=10, help="that go through every way")
    parser.add_argument("--rounds", type=int, default=7, help="processes that measure each file")
    parser.add_argument("--many", type=int, default=200, help="subnets that are written and measured by us alone")
    options = parser.parse_args()
    space = en.MobileNetV3(resolutions=(SIZE,))
    architectures = space.decode(space.sample(options.subnets, np.random.default_rng(0)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tflite, graphs = write_files(folder, architectures)
        tflite["litert-torch"] = write_by_litert_torch(options.litert_torch_python, folder, architectures)
        for kind, seconds in (("tflite", tflite), ("onnx", graphs)):
            print_seconds(kind, seconds)
            print_operators(folder, architectures, kind, list(seconds))
            print_latencies(folder, architectures, kind, list(seconds), options.rounds)
        print_many(folder, options.many)


if __name__ == "__main__":
    main()
