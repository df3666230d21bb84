"""Count how often the comparison of operators blames the right one, and how often one where nothing changed.

python benchmarks/operators.py [--pairs 12] [--device localhost]

A network of some milliseconds is compared with itself, and with itself plus one
convolution, in turn. ``difference`` is the median over the pairs of the
difference between the sums of operators, as a share of the first sum. ``found``
counts the pairs whose difference is called more than noise. ``named`` counts
operators, of those of all pairs, that are called slower or faster although they
are the same in both files. ``first`` counts the pairs in which the added layer
makes the largest difference, and is called added.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgenas import MobileNetV3, OperatorComparison, Target, compare_operators, profile_operators
from edgenas.export import build_onnx, random_weights

LAYER, VALUE = "added", "block0.add"  # the new layer, and the value behind which it is added
COLUMNS = ("pair", "pairs", "difference", "found", "named", "first")


def add_layer(model: Path, slower: Path) -> None:
    """Write the model with one more 3x3 convolution, of as many channels as the value has."""
    proto = onnx.load(model)
    graph = proto.graph
    place = next(number for number, node in enumerate(graph.node) if VALUE in node.output)
    bias = graph.node[place - 1].input[2]
    channels = next(tensor.dims[0] for tensor in graph.initializer if tensor.name == bias)
    weights = np.random.default_rng(0).standard_normal((channels, channels, 3, 3)).astype(np.float32) / 9
    graph.initializer.append(numpy_helper.from_array(weights, f"{LAYER}.weight"))
    for node in graph.node:
        node.input[:] = [LAYER if value == VALUE else value for value in node.input]
    layer = helper.make_node("Conv", [VALUE, f"{LAYER}.weight"], [LAYER], LAYER, pads=[1, 1, 1, 1])
    graph.node.insert(place + 1, layer)
    onnx.checker.check_model(proto)
    onnx.save(proto, slower)


def make_row(name: str, comparisons: list[OperatorComparison]) -> tuple[str, ...]:
    """Return the cells of a table's row."""
    shares = [(one.difference_us or 0.0) / (one.before.time_us or 1.0) for one in comparisons]
    changes = [change for one in comparisons for change in one.changes if LAYER not in change.operator.sources]
    named = sum("slower" in change.changes or "faster" in change.changes for change in changes)
    largest = [one.by_difference[0] for one in comparisons]
    first = sum(LAYER in change.operator.sources and change.changes == ("added",) for change in largest)
    return (
        name,
        str(len(comparisons)),
        f"{statistics.median(shares):+.1%}",
        str(sum(one.differs for one in comparisons)),
        f"{named} of {len(changes)}",
        str(first),
    )


def main() -> None:
    """Compare the pairs and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--device", default="localhost")
    arguments = parser.parse_args()
    target = Target(arguments.device)
    subnet = MobileNetV3(width=1.0, resolutions=(128,), classes=10).smallest
    with tempfile.TemporaryDirectory() as folder:
        model, copy, slower = (Path(folder, f"{name}.onnx") for name in ("model", "copy", "slower"))
        for path in (model, copy):
            path.write_bytes(build_onnx(subnet, random_weights(subnet)))
        add_layer(model, slower)
        found: dict[str, list[OperatorComparison]] = {"the same twice": [], "one layer more": []}
        for _ in range(arguments.pairs):
            for name, other in zip(found, (copy, slower), strict=True):
                found[name].append(compare_operators(*profile_operators([model, other], target)))
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for name, comparisons in found.items():
        print("| " + " | ".join(make_row(name, comparisons)) + " |", flush=True)


if __name__ == "__main__":
    main()
