"""TFLite files written from an ONNX graph, without TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.errors import UncoveredOperatorError, UsageError
from edgenas.export.onnx.session import OnnxFile
from edgenas.export.tflite.converter import Converter, NotCoveredError
from edgenas.export.tflite.file import write_file
from edgenas.export.tflite.graph import Node, OnnxGraph, read_onnx_graph
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
    """Convert an ONNX file of a float32 image network to TFLite; equal arguments give equal bytes.

    An operator's output tensor has the names of the nodes whose work it does,
    joined by ``;`` (``stem.conv;stem.act``). The input, the output and weights
    keep their names, and an open batch stays open.

    Args:
        model: from ``build_onnx`` or torch.onnx.
        labels: name of each class, written behind the file (see ``with_labels``) and into its metadata.
        normalisation: mean and standard deviation of each channel of pixels from 0 to 255, for the metadata.

    Returns:
        The file, with the input (N, H, W, C).

    Raises:
        UncoveredOperatorError: naming all nodes that this writer does not cover.
        ModelError: when the model is damaged or has not one input and one output.
        UsageError: for an impossible input or label.
        VerificationError: when a weight is not finite.
        MissingExtraError: when LiteRT is not installed.
    """
    graph = split_depthwise(read_onnx_graph(OnnxFile(model).proto))
    converter = _convert_graph(graph)
    result = converter.finish_output()
    _check_labels(labels, converter.tensors[result].shape)
    names, metadata = (graph.input, graph.output), {}
    if labels or normalisation:
        metadata[METADATA_NAME] = classifier_metadata(names, bool(labels), normalisation)
    source = converter.raw_value(graph.input).index
    file = write_file(converter.tensors, converter.operators, source, result, metadata)
    return with_labels(file, labels) if labels else file


def _convert_graph(graph: OnnxGraph) -> Converter:
    """Convert all nodes. Raise UncoveredOperatorError for all that cannot be converted at once."""
    converter = Converter(graph)
    reasons: dict[tuple[str, str], list[str]] = {}  # names of refused nodes by operator and reason
    lost: set[str] = set()
    for node in graph.nodes:
        if lost & set(node.inputs) and node.operator in OPERATORS:
            lost.add(node.output)  # only a node before it is at fault
        elif not converter.has_value(node.output):
            try:
                _convert_node(converter, node)
            except NotCoveredError as error:
                reasons.setdefault((node.operator, str(error)), []).append(repr(node.name))
                lost.add(node.output)
    if reasons:
        refused = "; ".join(f"{operator} {', '.join(names)} {why}" for (operator, why), names in reasons.items())
        raise UncoveredOperatorError(f"TFLite cannot be written: {refused}; {_REMEDY}")
    return converter


def _convert_node(converter: Converter, node: Node) -> None:
    if node.operator not in OPERATORS:
        raise NotCoveredError("is not covered")
    OPERATORS[node.operator](converter, node)


def _check_labels(labels: Sequence[str], shape: tuple[int, ...]) -> None:
    if labels and len(labels) != shape[-1]:
        raise UsageError(f"labels must be one a class, but there are {len(labels)} for {shape[-1]} classes")
    if any(set(label) & {"\n", "\r"} for label in labels):
        raise UsageError("a label must be one line: labels.txt has one a line")
