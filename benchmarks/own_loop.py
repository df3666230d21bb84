"""Compare ``edgenas measure`` with a loop of one's own, and its range with later calls.

python -m benchmarks.own_loop [--pairs 20] [--calls 40] [--core 1]

For onnxruntime and LiteRT, one thread: ``measure_model`` and a plain loop (one
process, 10 warm-up runs, the median of 200) of the same file alternate. The
ratio of each pair is printed as median, least and greatest. Then the same file
is measured many times: how many of the later medians lie within the first
call's 95% range and within its 95% interval, and how far all medians spread;
with the other core idle and busy.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import busy_core, spread
from edgenas.devices import Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.profilers import measure_model
from edgenas.runtimes import ExportFormat
from edgenas.runtimes.building import write_random_file
from edgenas.space import MobileNetV3

FORMATS = {"onnxruntime": "onnx", "litert": "tflite"}
LOOPS = {
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = {each.name: np.random.default_rng(0).random(each.shape, dtype=np.float32) for each in session.get_inputs()}
run = lambda: session.run(None, feeds)
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
session = Interpreter(model_path=sys.argv[1], num_threads=1)
session.allocate_tensors()
for each in session.get_input_details():
    session.set_tensor(each["index"], np.random.default_rng(0).random(each["shape"], dtype=np.float32))
run = session.invoke
""",
}
LOOP = """
import os, statistics, sys, time
import numpy as np
core = int(sys.argv[2])
if core >= 0:
    os.sched_setaffinity(0, [core])
{setup}
for _ in range(10):
    run()
times = []
for _ in range(200):
    began = time.perf_counter()
    run()
    times.append(time.perf_counter() - began)
print(1000 * statistics.median(times))
"""


def loop_ms(runtime: str, model: Path, core: int | None) -> float:
    """Return the median latency by a loop of one's own in a new process, ms."""
    code = LOOP.format(setup=LOOPS[runtime])
    command = [sys.executable, "-c", code, str(model), str(-1 if core is None else core)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603 - this interpreter


def make_target(runtime: str, core: int | None) -> Target:
    """Return this machine with a runtime, one thread, bound to a core if there is one."""
    clusters = {} if core is None else {"clusters": {"measured": [core]}}
    data = {"name": "here", "connection": {"kind": "local"}, "runtimes": {runtime: {}}, "default": {"runtime": runtime}}
    return Target(profile_from_dict({**data, **clusters}, "here"), affinity=None if core is None else "measured")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    architecture = MobileNetV3(width=0.35, resolutions=(320,), classes=10).largest
    with tempfile.TemporaryDirectory() as folder:
        models = {runtime: Path(folder) / f"model.{suffix}" for runtime, suffix in FORMATS.items()}
        for runtime, path in models.items():
            path.write_bytes(write_random_file(architecture, ExportFormat(FORMATS[runtime])))
        print("| runtime | loop, ms | edgenas / loop, median | least | greatest |\n|---|---|---|---|---|")
        for runtime, path in models.items():
            target, loops, ratios = make_target(runtime, options.core), [], []
            for _ in range(options.pairs):
                loops.append(loop_ms(runtime, path, options.core))
                ratios.append(measure_model(path, target).median_ms / loops[-1])
            numbers = (statistics.median(loops), statistics.median(ratios), min(ratios), max(ratios))
            cells = " | ".join(f"{each:.3f}" for each in numbers)
            print(f"| {runtime} | {cells} |", flush=True)
        columns = ("runtime", "other core", "first call, ms", "its range", "later medians within", "its interval",
                   "within", "spread")  # fmt: skip
        print(f"\n| {' | '.join(columns)} |")
        print("|---|---|---|---|---|---|---|---|")
        for runtime, path in models.items():
            for busy in (False, True):
                with busy_core(busy, options.core):
                    target = make_target(runtime, options.core)
                    first, *later = [measure_model(path, target) for _ in range(options.calls + 1)]
                medians = [each.median_ms for each in later]
                counts = [
                    f"{low:.3f} to {high:.3f} | {sum(low <= each <= high for each in medians)} of {len(medians)}"
                    for low, high in (first.range_ms, first.interval_ms)
                ]
                kind = "busy" if busy else "idle"
                row = (runtime, kind, f"{first.median_ms:.3f}", *counts, f"{spread(medians):.1%}")
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
