"""Peak activation memory, by the lifetimes of tensors over the nodes in file order."""

from __future__ import annotations

from edgenas.graph.model import Graph, Node
from edgenas.graph.operators import ALIASES, ELEMENTWISE


def peak_memory_and_node(graph: Graph) -> tuple[int, str]:
    """Return the most bytes of activations alive at once, and the name of the first node that reaches it.

    A tensor lives from the node that writes it to the last node that reads it.
    The graph's inputs live from the start, its outputs to the end. An
    elementwise operator overwrites an equally large input that is read for the
    last time. Reshapes cost nothing. Tensors that depend on constants alone
    are constants. Tensors of unknown size count as nothing.
    """
    buffers = _assign_buffers(graph)
    last_read = _last_reads(graph, buffers)
    live = {buffers[name]: _nbytes_or_zero(graph, name) for name in graph.inputs}
    peak, peak_at = sum(live.values()), graph.nodes[0].name
    for index, node in enumerate(graph.nodes):
        freed = {buffer: size for buffer, size in live.items() if last_read.get(buffer, -1) <= index}
        written = {buffers[name]: _nbytes_or_zero(graph, name) for name in node.outputs if buffers.get(name) == name}
        needed = sum(live.values()) + sum(written.values()) - _overwritten_bytes(node, written, freed, buffers)
        if needed > peak:
            peak, peak_at = needed, node.name
        for buffer in freed:
            del live[buffer]
        live.update({buffer: size for buffer, size in written.items() if last_read.get(buffer, -1) > index})
    return peak, peak_at


def _nbytes_or_zero(graph: Graph, name: str) -> int:
    tensor = graph.tensors.get(name)
    return tensor.nbytes if tensor else 0


def _assign_buffers(graph: Graph) -> dict[str, str]:
    """Return the buffer of each activation, named after its first tensor; constants have none."""
    buffers = {name: name for name in graph.inputs}
    for node in graph.nodes:
        sources = [buffers[name] for name in (*node.inputs, *node.captured) if name in buffers]
        if node.operator == "Constant" or (node.inputs and not sources):
            continue  # the runtime folds what constants alone determine
        buffers.update({name: name for name in node.outputs if name})
        if node.operator in ALIASES and node.inputs and node.inputs[0] in buffers:
            buffers[node.outputs[0]] = buffers[node.inputs[0]]
    return buffers


def _last_reads(graph: Graph, buffers: dict[str, str]) -> dict[str, int]:
    """Return the index of the last node that reads each buffer; past the end for the graph's outputs."""
    last_read = {}
    for index, node in enumerate(graph.nodes):
        for name in (*node.inputs, *node.captured):
            if name in buffers:
                last_read[buffers[name]] = index
    last_read.update({buffers[name]: len(graph.nodes) for name in graph.outputs if name in buffers})
    return last_read


def _overwritten_bytes(node: Node, written: dict[str, int], freed: dict[str, int], buffers: dict[str, str]) -> int:
    """Return the bytes that the node's first output saves by overwriting an input."""
    if node.operator not in ELEMENTWISE or node.outputs[0] not in written:
        return 0
    size = written[node.outputs[0]]
    return size if any(freed.get(buffers.get(name, "")) == size for name in node.inputs) else 0
