"""Which nodes of an ONNX file became one operator, by the graph that onnxruntime made of the file.

onnxruntime keeps the name of a value or of a node where it can, but not always. In its blocked layout for CPUs
(NCHWc) values get new names, and an operator is called after its output, with ``_nchwc`` behind; sums and activations
that its convolutions take in later do not change that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_BLOCKED = "_nchwc"
_CONV, _TO_BLOCKED, _FROM_BLOCKED = "Conv", "ReorderInput", "ReorderOutput"


def find_sources(model: bytes, optimised: bytes) -> dict[str, tuple[str, ...]]:
    """Return the names of the file's nodes that each operator of the optimised graph computes.

    An operator's nodes are those between its inputs and its output in the file. It is left out where these are not
    known for certain, and where it is none of the file's, as a change of layout.

    Args:
        model: the ONNX file.
        optimised: the graph that onnxruntime stored for it; its weights may lie elsewhere.

    Returns:
        By the name of the operator, names of nodes in the file's order; a node without a name is called as its output.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        source, ran = (onnx.load_model_from_string(each).graph for each in (model, optimised))
    except DecodeError:
        return {}
    return _Matching(source, ran).sources


class _Matching:
    """The operators of an optimised graph, matched with the nodes of its source."""

    def __init__(self, source: onnx.GraphProto, ran: onnx.GraphProto) -> None:
        self._nodes = list(source.node)
        self._producers = {str(value): (place, node) for place, node in enumerate(source.node) for value in node.output}
        self._names = {str(node.name): node for node in source.node if node.name}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in source.node:
            for value in node.input:
                self._consumers.setdefault(str(value), []).append(node)
        self._ends = {str(value.name) for value in source.output}
        self._constants = _find_constants(source)
        self._left = {str(node.name) for node in ran.node} | {str(value) for node in ran.node for value in node.output}
        # By a value of the optimised graph, the value of the source that it stands for.
        self._values = {str(value.name): str(value.name) for value in source.input}
        self._values |= {
            str(node.input[0]): str(node.output[0])
            for node in ran.node
            if _is_change_back(node) and node.input and node.output
        }
        self.sources: dict[str, tuple[str, ...]] = {}
        constants = _find_constants(ran)
        for node in ran.node:
            self._match(node, [str(value) for value in node.input if value and value not in constants])

    def _match(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        """Match one operator, whose inputs were matched before."""
        outputs = [str(value) for value in node.output if value]
        if node.op_type == _TO_BLOCKED or _is_change_back(node) or not outputs:
            known = self._values.get(inputs[0]) if node.op_type == _TO_BLOCKED and inputs else None
            for value in outputs:
                self._values.setdefault(value, known or value)
            return
        starts = {self._values.get(value, "") for value in inputs}
        kept = [self._values.get(value, value) for value in outputs]
        if all(value in self._producers for value in kept):
            places = self._walk(kept, starts)
        else:
            kept = self._find_renamed_output(str(node.name))
            places = self._walk(kept, starts) if kept else None
            while node.op_type == _CONV and kept and (following := self._find_vanished_follower(kept[0])):
                if (more := self._walk([following], starts)) is None:
                    break
                kept, places = [following], more
        self._values |= dict(zip(outputs, kept, strict=False))
        if places and node.op_type != _FROM_BLOCKED:
            nodes = [self._nodes[place] for place in sorted(places)]
            self.sources[str(node.name)] = tuple(str(each.name or each.output[0]) for each in nodes)

    def _find_renamed_output(self, name: str) -> list[str]:
        """Return the output in the source that an operator whose output has a new name is called after."""
        base = name[: -len(_BLOCKED)] if name.endswith(_BLOCKED) else name
        if base in self._producers:
            return [base]
        return [str(value) for value in self._names[base].output[:1]] if base in self._names else []

    def _find_vanished_follower(self, value: str) -> str | None:
        """Return the output of the only node that reads a value, if the optimised graph has that node no more."""
        readers = self._consumers.get(value, [])
        if len(readers) != 1 or value in self._ends or len(readers[0].output) != 1 or readers[0].op_type == _CONV:
            return None
        output = str(readers[0].output[0])
        names = {output, output + _BLOCKED, str(readers[0].name), str(readers[0].name) + _BLOCKED}
        return None if names & self._left else output

    def _walk(self, ends: Iterable[str], starts: set[str]) -> set[int] | None:
        """Return the places of the nodes between values; None where other values are needed, or not all of these."""
        places: set[int] = set()
        reached: set[str] = set()
        waiting = list(ends)
        while waiting:
            value = waiting.pop()
            if value in starts and value not in ends:
                reached.add(value)
            elif value in self._producers:
                place, node = self._producers[value]
                if place not in places:
                    places.add(place)
                    waiting += [str(each) for each in node.input if each and each not in self._constants]
            elif value:
                return None
        return places if reached == starts else None


def _is_change_back(node: onnx.NodeProto) -> bool:
    """Return whether an operator undoes the blocked layout and nothing else; it may also take in a Transpose."""
    is_transposing = any(attribute.name == "channels_last" and attribute.i for attribute in node.attribute)
    return node.op_type == _FROM_BLOCKED and not is_transposing


def _find_constants(graph: onnx.GraphProto) -> set[str]:
    """Return the values that depend on no input: stored ones, and what nodes make of those alone."""
    constants = {str(tensor.name) for tensor in graph.initializer}
    for node in graph.node:
        if all(not value or value in constants for value in node.input):
            constants.update(map(str, node.output))
    return constants
