"""Static analysis of ONNX files: operators, MACs and peak activation memory."""

from __future__ import annotations

from edgenas.graph.model import Graph, Node, Tensor, read_graph
from edgenas.graph.summary import GraphSummary, summarise_model

__all__ = ["Graph", "GraphSummary", "Node", "Tensor", "read_graph", "summarise_model"]
