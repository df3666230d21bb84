"""What an ONNX file costs, as far as the file tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgenas.graph.memory import peak_memory
from edgenas.graph.model import Graph, Node, read_graph
from edgenas.graph.operators import macs


@dataclass(frozen=True)
class GraphSummary:
    """The static costs of one inference with batch 1.

    ``operators`` and ``unsupported`` count nodes by operator; the MACs of the
    unsupported ones are unknown and not in ``macs``. ``params`` and
    ``weight_bytes`` are of the tensors stored in the file, without single
    numbers such as the bounds of a Clip.
    ``activation_bytes`` is the peak of activation memory, reached at the node
    ``peak_at``; ``unsized`` counts activations of unknown size, which it lacks.
    """

    operators: dict[str, int]
    unsupported: dict[str, int]
    macs: int
    params: int
    weight_bytes: int
    activation_bytes: int
    peak_at: str
    unsized: int
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...] | None]


def summarise_model(model: Path | bytes) -> GraphSummary:
    """Count operators, MACs, weights and peak activation memory of an ONNX file or its bytes.

    Shapes of outputs are None where they depend on the data. Raises ModelError
    like ``read_graph``.
    """
    graph = read_graph(model)
    counts = [(node.operator, _node_macs(graph, node)) for node in graph.nodes]
    activation_bytes, peak_at = peak_memory(graph)
    weights = [tensor for tensor in graph.constants.values() if tensor.shape]
    made = [name for node in graph.nodes for name in node.outputs if name]
    return GraphSummary(
        operators=_tally(operator for operator, _ in counts),
        unsupported=_tally(operator for operator, count in counts if count is None),
        macs=sum(count or 0 for _, count in counts),
        params=sum(tensor.size for tensor in weights),
        weight_bytes=sum(tensor.nbytes for tensor in weights),
        activation_bytes=activation_bytes,
        peak_at=peak_at,
        unsized=sum(name not in graph.tensors for name in made),
        inputs={name: graph.tensors[name].shape for name in graph.inputs},
        outputs={name: _shape(graph, name) for name in graph.outputs},
    )


def _tally(operators: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(operators).items()))


def _node_macs(graph: Graph, node: Node) -> int | None:
    known = graph.tensors.get
    return macs(node, [known(name) for name in node.inputs], [known(name) for name in node.outputs])


def _shape(graph: Graph, name: str) -> tuple[int, ...] | None:
    tensor = graph.tensors.get(name)
    return tensor.shape if tensor else None
