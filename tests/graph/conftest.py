"""Small models made by hand, with costs that can be counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int | str]
MakeModel = Callable[..., bytes]


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """A function from nodes, input shapes, outputs and initialisers to the bytes of a model."""

    def make(
        nodes: Sequence[NodeProto],
        inputs: Mapping[str, Shape],
        outputs: Sequence[str],
        weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
        domains: Sequence[str] = (),
    ) -> bytes:
        graph = helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
        )
        imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
        return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())

    return make
