"""Splitting large depthwise convolutions into sums of smaller ones, before TFLite is written.

XNNPACK's depthwise kernels have up to 25 taps. A layer with more, such as 7x7,
takes some twenty times as long as one of 5x5, in float32 and in int8. Its rows
are divided into groups of at most 25 taps, centred as the kernel is: the middle
rows, then each pair of rows around them as a kernel of two rows with a
dilation. Each group is a convolution, and their sum is the whole up to float32
rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from edgenas.export.tflite.graph import Array, Node, OnnxGraph

_MAX_TAPS = 25


def split_depthwise(graph: OnnxGraph) -> OnnxGraph:
    """Split each depthwise convolution of more than 25 taps, where its shape allows it.

    The parts of ``{name}`` are called ``{name}/rows0`` and so on; their sum has
    the name and the output of the whole.
    """
    constants = dict(graph.constants)
    nodes = tuple(part for node in graph.nodes for part in _split_node(node, constants))
    return replace(graph, nodes=nodes, constants=constants)


def _split_node(node: Node, constants: dict[str, Array]) -> Iterator[Node]:
    """Yield the parts of a node and the sums of them, or the node itself where there is nothing to split."""
    groups = _group_rows(node, constants)
    if len(groups) < 2:
        yield node
        return
    total = ""
    for number, rows in enumerate(groups):
        part = _convolve_rows(node, constants, number, rows)
        yield part
        if number:
            suffix = "" if rows is groups[-1] else f"/sum{number}"
            part = Node(f"{node.name}{suffix}", "Add", (total, part.output), f"{node.output}{suffix}", {})
            yield part
        total = part.output


def _convolve_rows(node: Node, constants: dict[str, Array], number: int, rows: tuple[int, ...]) -> Node:
    """Return the convolution by some rows of the kernel; the first part adds the bias."""
    kernel, suffix = constants[node.inputs[1]], f"/rows{number}"
    weights = f"{node.inputs[1]}{suffix}"
    constants[weights] = kernel[:, :, list(rows)]
    inputs = (node.inputs[0], weights, *(() if number else node.inputs[2:]))
    top, left, bottom, right = node.attributes["pads"]
    attributes = {
        "pads": [top - rows[0], left, bottom - (kernel.shape[2] - 1 - rows[-1]), right],
        "dilations": [rows[1] - rows[0] if len(rows) > 1 else 1, 1],
    }
    return Node(f"{node.name}{suffix}", "Conv", inputs, f"{node.output}{suffix}", {**node.attributes, **attributes})


def _group_rows(node: Node, constants: Mapping[str, Array]) -> list[tuple[int, ...]]:
    """Return the kernel rows of each part; none where there is nothing to split."""
    kernel = constants.get(node.inputs[1]) if node.operator == "Conv" else None
    if kernel is None or kernel.ndim != 4 or kernel.shape[1] != 1 or node.attributes.get("group", 1) == 1:
        return []
    height, width = kernel.shape[2:]
    centre, max_rows = height // 2, _MAX_TAPS // width
    reach = (max_rows - 1) // 2
    if height * width <= _MAX_TAPS or height % 2 == 0 or max_rows < 2 or not _has_pads(node, centre - reach):
        return []
    outer = [(centre - away, centre + away) for away in range(reach + 1, centre + 1)]
    return [tuple(range(centre - reach, centre + reach + 1)), *outer]


def _has_pads(node: Node, rows: int) -> bool:
    """Return True for a convolution without dilations whose pads above and below are ``rows`` or more.

    A part that starts some rows below the whole has as many pads less.
    """
    pads, dilations = node.attributes.get("pads", [0] * 4), node.attributes.get("dilations", [1, 1])
    explicit = node.attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and len(pads) == 4
    return explicit and list(dilations) == [1, 1] and min(pads[0], pads[2]) >= rows
