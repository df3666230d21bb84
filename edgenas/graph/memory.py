"""The peak of activation memory: a walk over the nodes in file order that knows which tensor dies where."""

from __future__ import annotations

from edgenas.graph.model import Graph, Node
from edgenas.graph.operators import ALIASES, ELEMENTWISE


def peak_memory(graph: Graph) -> tuple[int, str]:
    """Most bytes of activations alive at once, and the name of the first node where they are.

    A tensor lives from the node that makes it to the last that reads it; the
    graph's inputs live from the start, its outputs to the end. Elementwise
    operators take over the buffer of an equally large input that dies there,
    reshapes cost nothing, and what is computed from constants alone counts as
    a constant. Tensors of unknown size count as nothing.
    """
    buffers = _buffers(graph)
    last_read = _last_reads(graph, buffers)
    live = {buffers[name]: _nbytes(graph, name) for name in graph.inputs}
    peak, peak_at = sum(live.values()), graph.nodes[0].name
    for index, node in enumerate(graph.nodes):
        dying = [buffer for buffer in live if last_read.get(buffer, -1) <= index]
        made = {buffers[name]: _nbytes(graph, name) for name in node.outputs if buffers.get(name) == name}
        taken = _taken_over(node, made, {buffer: live[buffer] for buffer in dying}, buffers)
        now = sum(live.values()) + sum(made.values()) - taken
        if now > peak:
            peak, peak_at = now, node.name
        for buffer in dying:
            del live[buffer]
        live.update({buffer: size for buffer, size in made.items() if last_read.get(buffer, -1) > index})
    return peak, peak_at


def _nbytes(graph: Graph, name: str) -> int:
    tensor = graph.tensors.get(name)
    return tensor.nbytes if tensor else 0


def _buffers(graph: Graph) -> dict[str, str]:
    """The buffer of each activation, named after the tensor that it was made for; constants have none."""
    buffers = {name: name for name in graph.inputs}
    for node in graph.nodes:
        sources = [buffers[name] for name in (*node.inputs, *node.captured) if name in buffers]
        if not sources and node.inputs:
            continue  # computed from constants alone: the runtime folds it
        if node.operator == "Constant":
            continue
        buffers.update({name: name for name in node.outputs if name})
        if node.operator in ALIASES and node.inputs and node.inputs[0] in buffers:
            buffers[node.outputs[0]] = buffers[node.inputs[0]]
    return buffers


def _last_reads(graph: Graph, buffers: dict[str, str]) -> dict[str, int]:
    """Index of the last node that reads each buffer; past the end for the graph's outputs."""
    last = {}
    for index, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.captured):
            if name in buffers:
                last[buffers[name]] = index
    last.update({buffers[name]: len(graph.nodes) for name in graph.outputs if name in buffers})
    return last


def _taken_over(node: Node, made: dict[str, int], dying: dict[str, int], buffers: dict[str, str]) -> int:
    """Bytes that the node's first output needs not, because it is written over an input."""
    if node.operator not in ELEMENTWISE or node.outputs[0] not in made:
        return 0
    size = made[node.outputs[0]]
    return size if any(dying.get(buffers.get(name, "")) == size for name in node.inputs) else 0
