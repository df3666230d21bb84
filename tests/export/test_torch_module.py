"""Any torch module as a model file: torchvision's networks by both routes, and what is refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgenas.data.torchvision_import import import_torchvision
from edgenas.errors import MissingExtraError, UsageError, VerificationError
from edgenas.export.parity import check_onnx, compare_logits, run_onnx
from edgenas.export.tflite.interpreter import run_tflite
from edgenas.export.tflite.writer import build_tflite
from edgenas.export.torch_module import onnx_from_module, tflite_from_module

_REPOSITORY = Path(__file__).parents[2]
_NETWORKS = [("mobilenet_v3_large", 65), ("resnet50", 64)]
_HAS_LITERT_TORCH = importlib.util.find_spec("litert_torch") is not None
Case = tuple[nn.Module, torch.Tensor, np.ndarray]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def torchvision_models() -> Any:
    """torchvision.models."""
    return import_torchvision("this test").models


def _lively(make: Callable[..., nn.Module]) -> nn.Module:
    """A random network whose batch norms and biases do something, and keep the logits at a natural size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make(weights=None)
    generator = torch.Generator().manual_seed(0)
    for name, values in network.state_dict().items():
        if name.endswith("running_var"):
            values.uniform_(0.5, 2, generator=generator)
        elif name.endswith("bn3.weight"):
            values.uniform_(0.1, 0.3, generator=generator)
        elif values.ndim == 1 and not name.endswith("weight"):
            values.normal_(0, 0.3, generator=generator)
    return network


@pytest.fixture(scope="module", params=_NETWORKS, ids=lambda param: param[0])
def case(request: pytest.FixtureRequest, torchvision_models: Any) -> Case:
    """A network of torchvision, three images, and its logits for them."""
    name, size = request.param
    network = _lively(getattr(torchvision_models, name)).eval()
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network(images).numpy()
    assert 0.1 < np.abs(logits).max() < 100
    return network, images, logits


@pytest.fixture(scope="module")
def exported(case: Case) -> bytes:
    """The network as an ONNX file for one image."""
    return onnx_from_module(case[0], case[1][:1])


def test_onnx_of_a_torchvision_network_gives_its_logits(case: Case, exported: bytes) -> None:
    """The file of torch.onnx passes the checker and gives PyTorch's logits in onnxruntime."""
    check_onnx(exported)
    compare_logits(case[2], run_onnx(exported, case[1].numpy()), 1e-4)


def test_tflite_of_a_torchvision_network_gives_its_logits(case: Case, exported: bytes) -> None:
    """The TFLite file that is written from that ONNX file gives PyTorch's logits in LiteRT."""
    compare_logits(case[2], run_tflite(build_tflite(exported), case[1].numpy()), 1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not _HAS_LITERT_TORCH, reason="litert-torch is not installed here; the test below makes it a place")
def test_litert_torch_gives_the_logits_of_a_torchvision_network(case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    """The file of litert-torch takes images with channels last, gives PyTorch's logits, and nothing is printed."""
    network, images, logits = case
    modes = [part.training for part in network.train().modules()]
    model = tflite_from_module(network, images[:1])
    assert [part.training for part in network.modules()] == modes
    assert capfd.readouterr().out == ""
    compare_logits(logits, run_tflite(model, images.numpy()), 1e-4)


@pytest.fixture
def other_python() -> Iterator[Path]:
    """The interpreter of EDGENAS_LITERT_TORCH_PYTHON, or one with litert-torch that is installed for this test."""
    if named := os.environ.get("EDGENAS_LITERT_TORCH_PYTHON"):
        yield Path(named)
        return
    with tempfile.TemporaryDirectory() as folder:  # two gigabytes: pytest's own folders stay too long
        python = Path(folder) / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        wanted = [f"{_REPOSITORY}[litert-torch]", "torchvision", "pytest", "hypothesis"]
        install = [str(python), "-m", "pip", "install", "--quiet", "-c", "constraints-litert-torch.txt", *wanted]
        done = subprocess.run(install, cwd=_REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"litert-torch cannot be installed: {done.stderr[-300:]}")
        yield python


@pytest.mark.slow
@pytest.mark.skipif(_HAS_LITERT_TORCH, reason="litert-torch is installed here")
def test_litert_torch_works_in_an_environment_of_its_own(other_python: Path) -> None:
    """With the pinned litert-torch, its test above passes for every network."""
    chosen = ["-k", "test_litert_torch_gives", "-p", "no:cacheprovider", "-q", __file__]
    command = [str(other_python), "-m", "pytest", *chosen]
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=False)
    assert f"{len(_NETWORKS)} passed" in done.stdout, done.stdout + done.stderr


def _network() -> nn.Sequential:
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
    return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 4))


def _sample() -> torch.Tensor:
    return torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(2))


def test_the_file_is_named_and_shaped_like_ours() -> None:
    """Input, output, operator set and format version are those of the writer from parts."""
    model = onnx.load_model_from_string(onnx_from_module(_network(), _sample()))
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"input": [2, 3, 9, 11], "logits": [2, 4]}
    assert (model.ir_version, model.opset_import[0].version) == (8, 17)


def test_operators_are_those_that_int8_knows() -> None:
    """The mean over height and width is a GlobalAveragePool, batch norm is folded, dropout is gone."""
    model = onnx.load_model_from_string(onnx_from_module(_network(), _sample()))
    operators = [node.op_type for node in model.graph.node]
    assert operators == ["Conv", "HardSwish", "GlobalAveragePool", "Flatten", "Gemm"]


def test_the_callers_module_is_left_as_it_was() -> None:
    """Weights, statistics and the mode of each submodule, a frozen batch norm included, are those of before."""
    network = _network().train()
    network.get_submodule("0.1").eval()
    modes = [part.training for part in network.modules()]
    before = {name: values.clone() for name, values in network.state_dict().items()}
    onnx_from_module(network, _sample())
    assert [part.training for part in network.modules()] == modes
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], values) for name, values in before.items())
    assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())


def test_the_mode_comes_back_after_an_error() -> None:
    """A module that cannot be exported is in training mode again."""
    network = _network().train()
    with pytest.raises(UsageError):
        onnx_from_module(network, torch.zeros(1, 5, 9, 9))
    assert all(part.training for part in network.modules())


class _Returning(nn.Module):
    """A module that returns any value."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: torch.Tensor) -> Any:
        return self.act(x)


@pytest.mark.parametrize(
    ("network", "sample", "words"),
    [
        (_network(), torch.zeros(1, 5, 9, 9), ["PyTorch", "Sequential", "5 channels"]),
        (_network(), torch.zeros(1, 3, 9, 9, dtype=torch.float64), ["float32", "float64"]),
        (_network(), torch.zeros(3), ["(N, ...)", "(3,)"]),
        (_Returning(lambda x: (x, x)), torch.zeros(1, 2), ["one tensor", "tuple", "wrap it"]),
        (_Returning(torch.linalg.eigvals), torch.eye(3)[None], ["torch.onnx", "_Returning", "linalg_eigvals"]),
    ],
    ids=["channels", "double", "no batch", "two outputs", "operator"],
)
def test_what_cannot_be_exported_is_said_on_one_line(
    network: nn.Module, sample: torch.Tensor, words: list[str]
) -> None:
    """A sample or a module that does not fit is refused, naming what is wrong."""
    with pytest.raises(UsageError) as caught:
        onnx_from_module(network, sample)
    assert "\n" not in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_weight_that_is_not_finite_is_named() -> None:
    """NaN among the weights is refused with the tensor's name."""
    network = _network()
    with torch.no_grad():
        network.get_parameter("4.weight")[1, 2] = torch.nan
    with pytest.raises(VerificationError, match=r"'4\.weight' of shape \(4, 8\)"):
        onnx_from_module(network, _sample())


def test_a_file_that_computes_something_else_is_refused() -> None:
    """A trace that has frozen what changes from call to call is found by running the file."""
    calls: list[int] = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return x + len(calls)

    with pytest.raises(VerificationError, match="logits differ"):
        onnx_from_module(_Returning(counted), torch.zeros(1, 2))


def test_a_missing_litert_torch_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without litert-torch the second route says what to install."""
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgenas\[litert-torch\]'"):
        tflite_from_module(_network(), _sample())
