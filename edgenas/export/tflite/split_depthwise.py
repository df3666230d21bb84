"""Large depthwise convolutions as sums of smaller ones, before TFLite is written.

XNNPACK's depthwise kernels have up to 25 taps. A layer of more, such as 7x7,
takes some twenty times as long as one of 5x5, in float32 and in int8. Its rows,
taken in groups of at most 25 taps that are centred as it is, are convolutions
of their own: the middle rows, then each pair of rows around them, as a kernel of
two rows and a dilation. Their sum is the whole, up to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from edgenas.export.tflite.graph import Array, Node, OnnxGraph

_MOST_TAPS = 25


def split_depthwise(graph: OnnxGraph) -> OnnxGraph:
    """The graph with each depthwise convolution of more than 25 taps in parts, where its shape allows.

    The parts are named ``{name}/rows0`` and so on; their sum has the name and
    the output of the whole.
    """
    constants = dict(graph.constants)
    nodes = tuple(part for node in graph.nodes for part in _parts(node, constants))
    return replace(graph, nodes=nodes, constants=constants)


def _parts(node: Node, constants: dict[str, Array]) -> Iterator[Node]:
    groups = _rows(node, constants)
    if len(groups) < 2:
        yield node
        return
    total = ""
    for number, rows in enumerate(groups):
        part = _part(node, constants, number, rows)
        yield part
        if number:
            suffix = "" if rows is groups[-1] else f"/sum{number}"
            part = Node(f"{node.name}{suffix}", "Add", (total, part.output), f"{node.output}{suffix}", {})
            yield part
        total = part.output


def _part(node: Node, constants: dict[str, Array], number: int, rows: tuple[int, ...]) -> Node:
    """The convolution by some rows of the kernel; the first part adds the bias."""
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


def _rows(node: Node, constants: Mapping[str, Array]) -> list[tuple[int, ...]]:
    """The rows of each part; one part or none where there is nothing to split."""
    kernel = constants.get(node.inputs[1]) if node.operator == "Conv" else None
    if kernel is None or kernel.ndim != 4 or kernel.shape[1] != 1 or node.attributes.get("group", 1) == 1:
        return []
    height, width = kernel.shape[2:]
    size = _MOST_TAPS // width
    reach = (size - 1) // 2
    if height * width <= _MOST_TAPS or height % 2 == 0 or size < 2 or not _is_plain(node, height // 2 - reach):
        return []
    middle = height // 2
    return [tuple(range(middle - reach, middle + reach + 1))] + [
        (middle - away, middle + away) for away in range(reach + 1, middle + 1)
    ]


def _is_plain(node: Node, away: int) -> bool:
    """Whether there are pads for a part to give up, which starts ``away`` rows below the whole, and no dilations."""
    pads, dilations = node.attributes.get("pads", [0] * 4), node.attributes.get("dilations", [1, 1])
    written_out = node.attributes.get("auto_pad", b"NOTSET") == b"NOTSET" and len(pads) == 4
    return written_out and list(dilations) == [1, 1] and min(pads[0], pads[2]) >= away
