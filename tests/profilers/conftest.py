"""Small model files, and the agent with a runtime made for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import edgenas.profilers
from edgenas.devices import DeviceProfile, Target, load_profile
from edgenas.devices.profile import profile_from_dict

Shape = Sequence[int | str | None]

TOY = '''
"""A runtime whose model files say in words what happens to whoever loads or runs them."""
import os, sys, time

def start(wanted):
    print("noise on standard output")
    return "1.0"

def empty(wanted):
    return None

def load(path, wanted):
    with open(path) as file:
        what, _, value = file.read().strip().partition(" ")
    if what == "abort":
        os.write(2, b"first line\\nthe reason why\\n")
        os.abort()
    if what == "exit":
        os._exit(int(value))
    if what == "memory":
        raise MemoryError
    if what == "bad_alloc":
        raise RuntimeError("std::bad_alloc")
    if what == "refuse":
        raise RuntimeError("no such\\n  operator")
    if what == "flood":
        sys.stderr.write("e" * 5_000_000)
    return float(value or 0)

def prepare(session, seed):
    return lambda: time.sleep(session)
'''


def _model(path: Path, shape: Shape) -> Path:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights"], ["out"], pads=[1, 1, 1, 1])],
        "conv",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [shape[0], 8, *shape[2:]])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    return path


@pytest.fixture
def make_conv(tmp_path: Path) -> Callable[..., Path]:
    """Make an ONNX file of one convolution, by the shape of its input."""

    def make(name: str = "conv.onnx", shape: Shape = (1, 3, 16, 16)) -> Path:
        return _model(tmp_path / name, shape)

    return make


@pytest.fixture
def conv(make_conv: Callable[..., Path]) -> Path:
    """An ONNX file of one small convolution."""
    return make_conv()


@pytest.fixture
def garbage(tmp_path: Path) -> Path:
    """A file that ends in .onnx and is none."""
    path = tmp_path / "garbage.onnx"
    path.write_bytes(b"this is no model" * 10)
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that devices make their work folders in."""
    return tmp_path / "work"


@pytest.fixture
def profile(work: Path) -> DeviceProfile:
    """This machine, with its work folders in ``work``."""
    return profile_from_dict({**load_profile("localhost").to_dict(), "work_dir": str(work)}, "test")


@pytest.fixture
def target(profile: DeviceProfile) -> Target:
    """This machine's default target."""
    return Target(profile)


@pytest.fixture
def toy_agent(tmp_path: Path) -> Path:
    """The agent, beside a runtime called ``toy`` that does what its model files say."""
    folder = tmp_path / "agent"
    folder.mkdir()
    for source in Path(edgenas.profilers.__file__).parent.glob("agent*.py"):
        shutil.copy(source, folder)
    (folder / "agent_toy.py").write_text(TOY)
    return folder / "agent.py"


@pytest.fixture
def real_models() -> Path:
    """The folder of real model files; skips where it is not given."""
    data = os.environ.get("EDGENAS_DATA")
    if not data:
        pytest.skip("EDGENAS_DATA does not name the folder of real data")
    return Path(data) / "models"
