"""What the tests of export share: a small space, lively weights, and a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from edgenas.export import Bundle, Kind, build_onnx, random_weights, run_onnx, write_bundle
from edgenas.export.preprocess import preprocess
from edgenas.space import Architecture, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace

Weights = dict[str, np.ndarray]

_SPACES: dict[str, SearchSpace] = {
    "mobilenet_v3": MobileNetV3(width=0.35, resolutions=(1, 24, 31, 45), classes=10),
    "proxyless": ProxylessNAS(width=0.35, resolutions=(1, 32, 45, 67), classes=10),
    "resnet50d": ResNet50D(resolutions=(1, 2, 5, 31, 33, 45, 64, 67), classes=10, width_mults=(0.1, 0.15, 0.3)),
}


@pytest.fixture(params=_SPACES.values(), ids=list(_SPACES))
def space(request: pytest.FixtureRequest) -> SearchSpace:
    """A space of each family, with resolutions that give even and odd feature maps."""
    made: SearchSpace = request.param
    return made


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread: on a busy machine two threads wait for each other longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def torch_logits() -> Callable[[Architecture, Weights, np.ndarray], np.ndarray]:
    """The logits that PyTorch gives."""
    import torch

    from edgenas.ofa import Subnet

    def run(architecture: Architecture, weights: Weights, images: np.ndarray) -> np.ndarray:
        subnet = Subnet(architecture).eval()
        subnet.load_weights({name: torch.from_numpy(array) for name, array in weights.items()})
        with torch.no_grad():
            return np.asarray(subnet(torch.from_numpy(images)).numpy())

    return run


@pytest.fixture(scope="session")
def small_space() -> MobileNetV3:
    """The space of the digits."""
    return MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)


@pytest.fixture(scope="session")
def lively_weights() -> Callable[[Architecture, int], Weights]:
    """Random weights whose batch norms and biases do something."""

    def make(architecture: Architecture, seed: int) -> Weights:
        rng = np.random.default_rng(seed)
        weights = random_weights(architecture, seed)
        for name, array in weights.items():
            if name.endswith("running_var"):
                weights[name] = rng.uniform(0.5, 2.0, array.shape).astype(np.float32)
            elif array.ndim == 1:
                weights[name] = (array + rng.normal(0, 0.2, array.shape)).astype(np.float32)
        return weights

    return make


@pytest.fixture(scope="session")
def small_graph() -> Callable[..., bytes]:
    """An ONNX file of a few nodes: their first reads ``x`` of a shape, their last writes ``y``."""

    def make(
        shape: tuple[int | str, ...], *nodes: tuple[str, str, dict[str, Any]], **constants: npt.ArrayLike
    ) -> bytes:
        """Nodes are (operator, ``inputs -> output``, attributes); constants without a type are float32."""
        written = []
        for operator, wiring, attributes in nodes:
            inputs, output = wiring.split(" -> ")
            written.append(onnx.helper.make_node(operator, inputs.split(), [output], f"{output}_node", **attributes))
        arrays = {
            name: values if isinstance(values, np.ndarray) else np.array(values, np.float32)
            for name, values in constants.items()
        }
        graph = onnx.helper.make_graph(
            written,
            "small",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
        )
        opsets = [onnx.helper.make_opsetid("", 17)]
        return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())

    return make


@pytest.fixture(scope="session")
def operators_of() -> Callable[[bytes], list[str]]:
    """The operators of a TFLite file in the order they run, as ``KIND name``, with the name of the output tensor."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = {code: kind for kind, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}

    def read(model: bytes) -> list[str]:
        file = schema.Model.GetRootAs(model)
        graph = file.Subgraphs(0)
        operators = [graph.Operators(number) for number in range(graph.OperatorsLength())]
        return [
            f"{kinds[file.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]}"
            f" {graph.Tensors(operator.Outputs(0)).Name().decode()}"
            for operator in operators
        ]

    return read


@pytest.fixture(scope="session")
def bundle_arguments(small_space: MobileNetV3) -> dict[str, Any]:
    """Arguments of write_bundle for the smallest network and one grey image."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 17, (8, 8), dtype=np.uint8)
    settings = {"size": 24, "channels": 3, "scale": 1 / 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    architecture = small_space.smallest
    model = build_onnx(architecture, random_weights(architecture))
    entry = preprocess(image, settings)
    return {
        "kind": Kind(),
        "model": model,
        "preprocessing": settings,
        "labels": [f"digit {number}" for number in range(10)],
        "sample_image": image,
        "sample_input": entry,
        "expected": run_onnx(model, entry),
        "reference": run_onnx(model, entry),
        "card": {"architecture": architecture.id, "accuracy": 0.97, "metrics": {"macs": 12}},
    }


@pytest.fixture
def bundle(tmp_path: Path, bundle_arguments: dict[str, Any]) -> Bundle:
    """A fresh bundle in a folder with a space in its name."""
    return write_bundle(tmp_path / "to ship", **bundle_arguments)
