"""The static costs of an ONNX file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgenas.graph.memory import peak_memory_and_node
from edgenas.graph.model import Graph, Node, read_graph
from edgenas.graph.operators import count_macs

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class GraphSummary:
    """The static costs of one inference, with batch 1 where the shapes of inputs were not given.

    Attributes:
        operators: number of nodes by operator.
        unsupported: number of nodes by operator of unknown MACs.
        macs: multiply-accumulates without those of unsupported operators.
        params: numbers in the stored tensors; single numbers, such as the bounds of a Clip, do not count.
        weight_bytes: bytes of the same tensors.
        activation_bytes: peak activation memory.
        peak_at: name of the node that reaches it.
        unsized: number of activations of unknown size, which the peak lacks.
        inputs: shape of each input.
        outputs: shape of each output; None where it depends on the data.
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


def summarise_model(
    model: Path | bytes | onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None
) -> GraphSummary:
    """Count operators, MACs, weights and peak activation memory of an ONNX file, its bytes, or a parsed model.

    Args:
        model: as for ``read_graph``.
        shapes: as for ``read_graph``.

    Raises:
        ModelError: as ``read_graph``.
    """
    graph = read_graph(model, shapes)
    macs = [(node.operator, _node_macs(graph, node)) for node in graph.nodes]
    activation_bytes, peak_at = peak_memory_and_node(graph)
    weights = [tensor for tensor in graph.constants.values() if tensor.shape]
    written = [name for node in graph.nodes for name in node.outputs if name]
    return GraphSummary(
        operators=_count_by_operator(operator for operator, _ in macs),
        unsupported=_count_by_operator(operator for operator, count in macs if count is None),
        macs=sum(count or 0 for _, count in macs),
        params=sum(tensor.size for tensor in weights),
        weight_bytes=sum(tensor.nbytes for tensor in weights),
        activation_bytes=activation_bytes,
        peak_at=peak_at,
        unsized=sum(name not in graph.tensors for name in written),
        inputs={name: graph.tensors[name].shape for name in graph.inputs},
        outputs={name: tensor.shape if (tensor := graph.tensors.get(name)) else None for name in graph.outputs},
    )


def _count_by_operator(operators: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(operators).items()))


def _node_macs(graph: Graph, node: Node) -> int | None:
    inputs, outputs = ([graph.tensors.get(name) for name in names] for names in (node.inputs, node.outputs))
    return count_macs(node, inputs, outputs)
