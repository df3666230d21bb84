"""What `pip install edgenas` gives: the wheel with its base dependencies, in an environment without torch."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, freshly built."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def base_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment that has the wheel and its base dependencies only."""
    folder = tmp_path_factory.mktemp("base environment")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "-c", ROOT / "constraints.txt", wheel)
    return python


def write_model(path: Path) -> None:
    """A model of two operators: the sum over an 8x8 image's channels, then ReLU."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceSum", ["image", "axes"], ["sum"], keepdims=1),
        helper.make_node("Relu", ["sum"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def test_wheel_ships_the_device_profiles(wheel: Path) -> None:
    """Every device profile of the repository lies in the wheel, and no test does."""
    names = zipfile.ZipFile(wheel).namelist()
    for profile in (ROOT / "edgenas" / "device_profiles").glob("*.yaml"):
        assert f"edgenas/device_profiles/{profile.name}" in names
    assert not [name for name in names if "test" in name.split("/")[0]]


def test_base_environment_has_no_torch(base_python: Path) -> None:
    """The base dependencies bring no torch, directly or by another library."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    run(base_python, "-I", "-c", code)


def test_space_works_without_torch(base_python: Path, tmp_path: Path) -> None:
    """A space samples, counts and names its architectures in a base install."""
    code = (
        "import edgenas, numpy\n"
        "space = edgenas.MobileNetV3(resolutions=(224,))\n"
        "genes = space.sample(5, numpy.random.default_rng(0))\n"
        "assert space.encode([space.from_id(a.id) for a in space.decode(genes)]).tolist() == genes.tolist()\n"
        "print(int(space.macs(space.encode([space.largest]))[0]))"
    )
    assert run(base_python, "-I", "-c", code, cwd=tmp_path).strip() == "566170656"


def test_command_line_explains_itself_without_torch(base_python: Path, tmp_path: Path) -> None:
    """`edgenas --help` works in a base install and lists the commands."""
    text = run(base_python.with_name("edgenas"), "--help", cwd=tmp_path)
    for command in ("demo", "train", "evaluate", "profile", "search", "choose", "export", "measure"):
        assert command in text


def test_model_is_measured_without_torch(base_python: Path, tmp_path: Path) -> None:
    """`edgenas measure` measures an ONNX file on this machine in a base install and answers with one JSON document."""
    write_model(tmp_path / "tiny.onnx")
    command = (base_python.with_name("edgenas"), "measure", "tiny.onnx", "--device", "localhost", "--json")
    assert isinstance(json.loads(run(*command, cwd=tmp_path)), dict)


def test_a_model_is_guarded_without_torch(base_python: Path, tmp_path: Path) -> None:
    """The gate records, checks and shows its history in a base install; a busy machine may leave a check undecided."""
    write_model(tmp_path / "tiny.onnx")
    gate = (str(base_python.with_name("edgenas")), "regress")
    run(*gate, "record", "tiny.onnx", "-o", "b.json", cwd=tmp_path)
    check = (*gate, "check", "tiny.onnx", "--baseline", "b.json", "--latency", "+900%", "--history", "history")
    done = subprocess.run(check, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in (0, 5), done.stderr
    assert "tiny.onnx on localhost: 1 check from" in run(*gate, "history", "history", "-o", "h.png", cwd=tmp_path)
