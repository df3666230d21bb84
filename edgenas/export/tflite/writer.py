"""TFLite written straight from an ONNX graph; no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.errors import UncoveredOperatorError, UsageError
from edgenas.export.tflite.converter import Converter, NotCoveredError
from edgenas.export.tflite.file import write_file
from edgenas.export.tflite.graph import Node, OnnxGraph, read_graph
from edgenas.export.tflite.metadata import METADATA_NAME, classifier_metadata, with_labels
from edgenas.export.tflite.operators import OPERATORS
from edgenas.export.tflite.split_depthwise import split_depthwise

_REMEDY = "take the route through litert-torch: pip install 'edgenas[litert-torch]', edgenas.export.tflite_from_module"


def build_tflite(
    model: bytes,
    *,
    labels: Sequence[str] = (),
    normalisation: tuple[Sequence[float], Sequence[float]] | None = None,
) -> bytes:
    """An ONNX file of a float32 image network as a TFLite file: input (N, H, W, C), names as in ONNX.

    ``model`` comes from ``build_onnx`` or from torch.onnx. An operator's output
    tensor has the names of the nodes whose work it does, joined by ``;``
    (``stem.conv;stem.act``), the graph's output its own; weights keep theirs.
    An open batch stays open. Equal arguments give equal bytes.

    ``labels``, one a class, and ``normalisation``, mean and standard deviation of
    each channel of pixels from 0 to 255, are written as TFLite Metadata, with
    labels.txt behind the file (see ``with_labels``).

    Raises UncoveredOperatorError naming all nodes that this writer cannot
    write, ModelError when the model is damaged or has not one input and one
    output, UsageError for an impossible input or label, VerificationError
    when a weight is not finite, and MissingExtraError without LiteRT.
    """
    graph = split_depthwise(read_graph(model))
    converter = _converted(graph)
    result = converter.finish()
    _check_labels(labels, converter.tensors[result].shape)
    names, metadata = (graph.input, graph.output), {}
    if labels or normalisation:
        metadata[METADATA_NAME] = classifier_metadata(names, bool(labels), normalisation)
    entry = converter.raw(graph.input).index
    file = write_file(converter.tensors, converter.operators, entry, result, metadata)
    return with_labels(file, labels) if labels else file


def _converted(graph: OnnxGraph) -> Converter:
    converter = Converter(graph)
    refused: list[tuple[Node, str]] = []
    lost: set[str] = set()
    for node in graph.nodes:
        if lost & set(node.inputs) and node.operator in OPERATORS:
            lost.add(node.output)  # nothing is known of it, but nothing is wrong with it
        elif not converter.knows(node.output):
            try:
                _convert(converter, node)
            except NotCoveredError as error:
                refused.append((node, str(error)))
                lost.add(node.output)
    if refused:
        raise UncoveredOperatorError(f"TFLite cannot be written: {_list(refused)}; {_REMEDY}")
    return converter


def _convert(converter: Converter, node: Node) -> None:
    operator = OPERATORS.get(node.operator)
    if operator is None:
        raise NotCoveredError("is not covered")
    operator(converter, node)


def _list(refused: Sequence[tuple[Node, str]]) -> str:
    """Each operator once for each reason, with the names of its nodes."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, why in refused:
        groups.setdefault((node.operator, why), []).append(repr(node.name))
    return "; ".join(f"{operator} {', '.join(names)} {why}" for (operator, why), names in groups.items())


def _check_labels(labels: Sequence[str], shape: tuple[int, ...]) -> None:
    if labels and len(labels) != shape[-1]:
        raise UsageError(f"labels must be one a class, but there are {len(labels)} for {shape[-1]} classes")
    if any(set(label) & {"\n", "\r"} for label in labels):
        raise UsageError("a label must be one line: labels.txt has one a line")
