"""The runtimes of the agent on the device: libraries, providers, inputs, affinity, energy."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import edgenas.on_device
from edgenas.devices import DeviceProfile, Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.on_device import model_process, runtime_litert, runtime_onnxruntime
from edgenas.profilers import Measurement, MeasureSettings, MeasuringSession

FOLDER = Path(edgenas.on_device.__file__).parent
QUICK = MeasureSettings(max_runs=20, min_seconds=0, max_seconds=0.2, warmup_seconds=0.1)
CPU, CUDA, AZURE = "CPUExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider"
TENSORRT, XNNPACK = "TensorrtExecutionProvider", "XnnpackExecutionProvider"

BOUND = """
import os

def import_runtime(request):
    return "1.0"

def make_empty_session(request):
    return None

def load_session(path, request):
    raise RuntimeError(f"bound to {sorted(os.sched_getaffinity(0))}")
"""
# Every run draws twice the current for 20 ms.
HUNGRY = """
import pathlib, time

def import_runtime(request):
    return "1.0"

def make_empty_session(request):
    return None

def load_session(path, request):
    return pathlib.Path(request["sysroot"], "sys/class/hwmon/hwmon0/curr1_input")

def describe_inputs(current):
    return []

def prepare_run(current, inputs):
    def run():
        current.write_text("2000")
        time.sleep(0.02)
    return run
"""


def ask(models: Sequence[Path], *, path: Path = FOLDER, python: Sequence[str] = (), **changes: Any) -> list[Any]:
    """All that the agent answers when it is asked to measure these models."""
    request = {
        "runtime": "onnxruntime",
        "providers": [CPU],
        "provider_options": {},
        "precision": "fp32",
        "threads": 1,
        "affinity": None,
        "settings": QUICK.to_dict(),
        "models": [{"id": number, "path": str(model)} for number, model in enumerate(models)],
    }
    pipe = subprocess.PIPE
    command = [sys.executable, *python, str(path / "agent.py")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**request, **changes}).encode() + b"\n")
        process.stdin.flush()
        return [json.loads(line) for line in process.stdout]


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    """A .tflite file of one operator."""
    path = tmp_path / "relu.tflite"
    path.write_bytes(runtime_litert.EMPTY)
    return path


@pytest.fixture
def toy_folder(toy_agent: Path) -> Path:
    """The agent's files beside runtimes made for these tests."""
    (toy_agent.parent / "runtime_bound.py").write_text(BOUND)
    (toy_agent.parent / "runtime_hungry.py").write_text(HUNGRY)
    return toy_agent.parent


# -- TensorFlow Lite ---------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {CPU: {"xnnpack": True}}, {CPU: {"xnnpack": False}}])
def test_litert_runs_a_file_and_says_which_library(relu: Path, options: dict[str, Any]) -> None:
    """A .tflite file is measured, with the default delegate or without; the version names the library."""
    hello, result, end = ask([relu], runtime="litert", provider_options=options)
    assert hello["versions"]["litert"].split()[0] in runtime_litert.LIBRARIES
    assert hello["versions"]["litert"].split()[1][0].isdigit()
    assert (result["kind"], end["count"]) == ("result", 1)
    assert result["peak_bytes"] >= 0
    assert "placement" not in result


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"providers": [CUDA]}, f"litert here has no {CUDA}; it has {CPU}"),
        ({"provider_options": {CPU: {"xnpack": True}}}, "litert has no option xnpack; it has xnnpack"),
    ],
)
def test_litert_refuses_what_it_has_not(relu: Path, changes: dict[str, Any], said: str) -> None:
    """Another provider and a misspelt option are answered with what there is."""
    (answer,) = ask([relu], runtime="litert", **changes)
    assert (answer["kind"], answer["detail"]) == ("unable", said)


@pytest.mark.parametrize(
    ("runtime", "said"),
    [("litert", "no ai_edge_litert, no tflite_runtime, no tensorflow"), ("onnxruntime", "No module named")],
)
def test_a_device_without_the_runtime_says_so(relu: Path, runtime: str, said: str) -> None:
    """A Python without any library answers which are missing."""
    (answer,) = ask([relu], runtime=runtime, python=["-S"])
    assert answer["kind"] == "unable"
    assert answer["detail"].startswith(said)


def test_the_first_library_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ai_edge_litert comes tflite_runtime, and one that cannot be imported is passed over with its reason."""
    old = ModuleType("tflite_runtime")
    old.__dict__["__version__"] = "2.14.0"
    interpreter = ModuleType("tflite_runtime.interpreter")
    for name, module in [("tflite_runtime", old), ("tflite_runtime.interpreter", interpreter)]:
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("ai_edge_litert", "ai_edge_litert.interpreter", "tensorflow", "tensorflow.lite"):
        monkeypatch.setitem(sys.modules, name, None)
    assert runtime_litert.import_library() == ("tflite_runtime", interpreter)
    assert runtime_litert.library_version("tflite_runtime") == "2.14.0"
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(ImportError, match=r"ai_edge_litert cannot be imported .*tflite_runtime cannot be imported"):
        runtime_litert.import_library()


def test_delegated_operators_lie_between_a_delegates_inputs_and_outputs() -> None:
    """Of a chain of five with a branch, one delegate took the second and third, another the last; 9 is a weight."""

    def operator(index: int, inputs: list[int], outputs: list[int], name: str = "ADD") -> dict[str, Any]:
        return {"index": index, "op_name": name, "inputs": inputs, "outputs": outputs}

    own = [
        operator(0, [10], [11]),
        operator(1, [11, 9], [12]),
        operator(2, [12, 11, -1], [13]),
        operator(3, [13, 11], [14]),
        operator(4, [14], [15]),
    ]
    delegates = [operator(5, [11, 9], [13], "DELEGATE"), operator(6, [14], [15], "DELEGATE")]
    assert runtime_litert.find_delegated_operators([*own, *delegates]) == {1, 2, 4}
    assert runtime_litert.find_delegated_operators(own) == set()


# -- onnxruntime -------------------------------------------------------------------


def test_a_fallback_is_seen(conv: Path) -> None:
    """A provider that is built in but runs no node: every node is counted where it really ran."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has no second provider")
    _, result, second, _ = ask([conv, conv], providers=[AZURE, CPU])
    assert set(result["placement"]) == {CPU}
    assert result["placement"] == second["placement"]
    assert result["peak_bytes"] > 0
    (_, alone, _) = ask([conv])
    assert "placement" not in alone


def test_a_fallback_reaches_the_validity(conv: Path, profile: DeviceProfile) -> None:
    """A measurement that ran elsewhere than the profile says is refused, and keeps what ran where."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has no second provider")
    runtimes = {"onnxruntime": {"providers": [AZURE, CPU]}}
    target = Target(profile_from_dict({**profile.to_dict(), "runtimes": runtimes}, "test"))
    with MeasuringSession(target) as session:
        (found,) = session.iter_measurements([conv], QUICK)
    assert isinstance(found, Measurement)
    assert found.placement is not None
    assert set(found.placement) == {CPU}
    assert found.validity.status == "rejected"
    assert "nodes ran on CPUExecutionProvider instead" in str(found.validity)


def test_memory_that_the_process_does_not_show_is_not_measured() -> None:
    """The CPU's memory is the process's own; an accelerator's is not, and the answer says why."""
    assert model_process.unmeasured_memory_fields(runtime_onnxruntime, {CPU: 3, XNNPACK: 2}) == {}
    assert model_process.unmeasured_memory_fields(runtime_onnxruntime, {CPU: 3, CUDA: 2}) == {
        "peak_bytes": None,
        "memory_reason": f"not measured: VmHWM does not see the memory of {CUDA}",
    }


def test_a_runtime_that_cannot_count_nodes_costs_no_measurement() -> None:
    """What ran where is then not known, and neither is the memory; the samples stand."""

    class Runtime:
        def count_provider_nodes(self, path: str, wanted: dict[str, Any], inputs: dict[str, Any]) -> dict[str, int]:
            raise RuntimeError("profiling is not built in")

    assert model_process.try_count_provider_nodes(Runtime(), {}, "a.onnx", {}) == {}
    assert model_process.try_count_provider_nodes(object(), {}, "a.onnx", {}) is None
    assert model_process.unmeasured_memory_fields(runtime_onnxruntime, {})["peak_bytes"] is None


def test_a_providers_options_are_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the profile says goes first; TensorRT gets the precision and a place for its engines."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    given = {TENSORRT: {"trt_max_workspace_size": 1024, "trt_engine_cache_path": "~/engines", "trt_fp16_enable": False}}
    wanted = {"precision": "fp16", "threads": 2, "provider_options": given}
    assert runtime_onnxruntime.prepare_provider_options(TENSORRT, wanted) == {
        "trt_max_workspace_size": "1024",
        "trt_engine_cache_path": str(tmp_path / "engines"),
        "trt_fp16_enable": "False",
        "trt_engine_cache_enable": "True",
    }
    assert (tmp_path / "engines").is_dir()
    plain = runtime_onnxruntime.prepare_provider_options(TENSORRT, {"precision": "int8"})
    assert (plain["trt_int8_enable"], plain["trt_engine_cache_path"]) == ("True", str(tmp_path))
    assert runtime_onnxruntime.prepare_provider_options(XNNPACK, wanted) == {"intra_op_num_threads": "2"}
    assert runtime_onnxruntime.prepare_provider_options(CPU, wanted) == {}


def test_only_places_for_caches_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below the home folder is made where the option is for a folder or a cache; others are resolved only."""
    monkeypatch.setenv("HOME", str(tmp_path))
    options = {"cache_dir": "~/dir", "trt_timing_cache": "~/timing", "config": "~/file.json"}
    given = runtime_onnxruntime.prepare_provider_options("Any", {"provider_options": {"Any": options}})
    assert given == {key: value.replace("~", str(tmp_path)) for key, value in options.items()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dir", "timing"]


def test_xnnpack_has_its_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """With it first, the session keeps to one thread that does not spin, and XNNPACK gets the rest."""
    made: dict[str, Any] = {}

    class Options(SimpleNamespace):
        def add_session_config_entry(self, key: str, value: str) -> None:
            made[key] = value

    def open_session(model: str, options: Options, providers: Any) -> None:
        made.update(threads=options.intra_op_num_threads, providers=providers)

    module = ModuleType("onnxruntime")
    module.__dict__.update(SessionOptions=Options, InferenceSession=open_session)
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    runtime_onnxruntime.load_session("a.onnx", {"providers": [XNNPACK, CPU], "threads": 4})
    assert made == {
        "session.intra_op.allow_spinning": "0",
        "threads": 1,
        "providers": [(XNNPACK, {"intra_op_num_threads": "4"}), (CPU, {})],
    }
    runtime_onnxruntime.load_session("a.onnx", {"providers": [CPU], "threads": 4})
    assert (made["threads"], made["providers"]) == (4, [(CPU, {})])


def test_cudas_libraries_are_looked_for_where_pip_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a session on CUDA or TensorRT, where this onnxruntime can; never for the processor alone."""
    made: list[str] = []
    module = ModuleType("onnxruntime")
    module.__dict__.update(
        __version__="1.0",
        get_available_providers=lambda: [TENSORRT, CUDA, AZURE, CPU],
        preload_dlls=lambda: made.append("preloaded"),
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    runtime_onnxruntime.import_runtime({"providers": [AZURE, CPU]})
    assert not made
    assert runtime_onnxruntime.import_runtime({"providers": [CUDA, CPU]}) == "1.0"
    assert runtime_onnxruntime.import_runtime({"providers": [TENSORRT, CPU]}) == "1.0"
    assert made == ["preloaded", "preloaded"]
    del module.__dict__["preload_dlls"]
    assert runtime_onnxruntime.import_runtime({"providers": [CUDA, CPU]}) == "1.0"


# -- the agent around them ---------------------------------------------------------


def test_a_model_runs_on_the_cpus_of_its_affinity(toy_folder: Path, conv: Path) -> None:
    """The model's process is bound to the CPUs that are wanted, to all where none are."""
    usable = sorted(os.sched_getaffinity(0))
    for affinity, bound in [([usable[-1]], [usable[-1]]), (None, usable)]:
        _, failed, _ = ask([conv], path=toy_folder, runtime="bound", affinity=affinity)
        assert failed["detail"] == f"bound to {bound}"


def test_cpus_that_are_not_there_are_named(toy_folder: Path, conv: Path) -> None:
    """An affinity that the device cannot give is refused before anything runs."""
    (answer,) = ask([conv], path=toy_folder, runtime="bound", affinity=[0, 4000])
    assert (answer["kind"], answer["reason"]) == ("unable", "affinity")
    assert answer["detail"].startswith("CPU 4000 of the affinity cannot be used here, only [")


def test_energy_is_measured_while_a_model_runs(toy_folder: Path, tmp_path: Path, conv: Path) -> None:
    """A board that draws 5 V times 1 A more for 20 ms a run: 100 mJ, more only where the machine stalls."""
    sensor = tmp_path / "board/sys/class/hwmon/hwmon0"
    sensor.mkdir(parents=True)
    for name, content in [("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1000")]:
        (sensor / name).write_text(f"{content}\n")
    settings = {**QUICK.to_dict(), "max_seconds": 0.5, "min_runs": 20}
    _, result, _ = ask([conv], path=toy_folder, runtime="hungry", sysroot=str(tmp_path / "board"), settings=settings)
    assert result["energy_rail"] == "VDD_IN"
    assert 90 <= result["energy_mj"] < 1000
    assert result["samples_ms"][0] >= 20


@pytest.mark.parametrize(("ir_version", "opset"), [(99, 13), (8, 99)])
def test_a_runtime_too_old_for_a_model_is_told_from_a_bad_model(tmp_path: Path, ir_version: int, opset: int) -> None:
    """A newer form or operator set of ONNX is no fault of the file."""
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "new", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    path = tmp_path / "new.onnx"
    path.write_bytes(model.SerializeToString())
    onnx.load(path)
    _, failed, _ = ask([path])
    assert (failed["kind"], failed["reason"]) == ("failed", "too old")


def test_a_newer_operator_of_tensorflow_lite_is_told_too(tmp_path: Path) -> None:
    """Version 99 of an operator asks for a newer library."""
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(runtime_litert.EMPTY, 0)
    model.operatorCodes[0].version = 99
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "new.tflite"
    path.write_bytes(bytes(builder.Output()))
    _, failed, _ = ask([path], runtime="litert")
    assert (failed["kind"], failed["reason"]) == ("failed", "too old")


def test_real_models_run_and_broken_ones_cost_one_answer(real_models: Path) -> None:
    """Float, int8 and uint8 files of others are measured; three that are broken are answered and do no harm."""
    broken, good = sorted(real_models.glob("broken/*.tflite")), sorted(real_models.glob("*.tflite"))
    assert (len(broken), len(good)) == (3, 6)
    mixed = [model for pair in zip(broken, good[:3], strict=True) for model in pair] + good[3:]
    answers = ask(mixed, runtime="litert")
    kinds = {mixed[answer["id"]]: answer for answer in answers[1:-1]}
    assert answers[-1] == {"kind": "end", "count": 9}
    assert all(kinds[model]["reason"] in ("refused", "crashed") for model in broken)
    assert all(kinds[model]["kind"] == "result" and kinds[model]["peak_bytes"] > 0 for model in good)


def test_nothing_in_them_is_newer_than_python_3_8() -> None:
    """Beyond the grammar: no method or argument that Python 3.8 has not, no union of types outside annotations."""
    for source in sorted(FOLDER.glob("[a-z]*.py")):
        tree = ast.parse(source.read_text(), feature_version=(3, 8))
        nodes = list(ast.walk(tree))
        assert "from __future__ import annotations" in source.read_text()
        attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not attributes & {"removeprefix", "removesuffix", "pairwise", "bit_count", "is_relative_to", "readlink"}
        arguments = {word.arg for node in nodes if isinstance(node, ast.Call) for word in node.keywords}
        assert not arguments & {"strict", "slots", "kw_only", "process_group", "encoding_errors"}
        unions = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        assert not [
            call
            for call in unions
            if call.func.id == "isinstance" and isinstance(call.args[1], ast.BinOp)  # type: ignore[attr-defined]
        ]
