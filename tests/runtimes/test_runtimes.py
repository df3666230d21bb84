"""Runtimes: what each must have, and one that an installed package adds."""

from __future__ import annotations

import importlib.metadata
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.bundle import open_bundle, write_bundle
from edgenas.devices import DeviceProfile, Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import ModelError, UsageError
from edgenas.export import build_onnx, random_weights
from edgenas.export.model_file import ModelFile
from edgenas.pipeline.export_formats import combine_formats, format_of, make_for, target_for
from edgenas.profilers import MeasureSettings, MeasuringSession, measure_model, measure_models
from edgenas.runtimes import (
    FLOAT32,
    ExportFormat,
    Runtime,
    SourceModel,
    all_formats,
    all_runtimes,
    load_runtime,
    runtime_of_format,
    runtime_of_suffix,
)
from edgenas.runtimes.building import quantize, write_random_file
from edgenas.space import MobileNetV3
from tests.fixtures.installed_package import install_package

every_runtime = pytest.mark.parametrize("runtime", all_runtimes(), ids=lambda runtime: runtime.name)
AVERAGES = """
import io
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.runtimes import ModelInterface, Precision, Runtime, TensorSpec


class Averages(Runtime):
    name = "averages"
    file_format = "npz"
    file_start = b"PK"
    precisions = (Precision("fp32"), Precision("int4", True, parity="int8"))
    package = "numpy"
    version_program = "import numpy; print(numpy.__version__)"
    card_packages = ("edgenas", "numpy")
    script_import = "import numpy"
    script_body = 'logits = (preprocess(image).mean((2, 3)) * np.load(HERE / "model.npz")["factor"])[0]'

    @property
    def device_module(self):
        return Path(__file__).with_name("averages_on_device.py")

    def make_float_file(self, source):
        file = io.BytesIO()
        np.savez(file, factor=np.float32(len(source.onnx)), size=np.int64(24))
        return file.getvalue()

    def convert(self, model, precision, calibration, kept):
        return model + b" of integers"

    def parse_interface(self, model):
        shape = TensorSpec("x", (None, 3, 24, 24), "float32", "NCHW")
        return ModelInterface("fp32", shape, TensorSpec("y", (None, 3), "float32", "NC"))

    def run_batches(self, model, images):
        with np.load(io.BytesIO(model)) as file:
            return images.mean((2, 3)) * file["factor"]
"""
ON_DEVICE = """
import numpy as np


def import_runtime(request):
    return np.__version__


def make_empty_session(request):
    return np.zeros(1)


def load_session(path, request):
    with np.load(path) as file:
        return file["factor"], int(file["size"])


def describe_inputs(session):
    return [("x", "float32", ["batch", 3, session[1], session[1]])]


def prepare_run(session, inputs):
    return lambda: inputs["x"].mean((2, 3)) * session[0]


def compute_outputs(session, inputs):
    return [inputs[0].mean((2, 3)) * session[0]]
"""


@pytest.fixture
def averages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """A runtime of an installed package, whose model computes the mean of each channel."""
    (tmp_path / "averages_on_device.py").write_text(ON_DEVICE)
    points = {"edgenas.runtimes": {"averages": "averages_runtime:Averages"}}
    monkeypatch.delitem(sys.modules, "averages_runtime", raising=False)
    install_package(tmp_path, monkeypatch, "averages-runtime", AVERAGES, points)
    return load_runtime("averages")


@pytest.fixture
def profile() -> DeviceProfile:
    runtimes: dict[str, object] = {"onnxruntime": {}, "averages": {}}
    data = {"name": "here", "connection": {"kind": "local"}, "runtimes": runtimes, "default": {"runtime": "averages"}}
    return profile_from_dict(data, "here.yaml")


@every_runtime
def test_a_runtime_is_complete(runtime: Runtime) -> None:
    """It is found by its name, its format and its suffix, begins with float32, and has its module for the device."""
    assert load_runtime(runtime.name) is runtime
    assert runtime_of_format(runtime.file_format) is runtime
    assert runtime_of_suffix(runtime.suffix) is runtime
    assert runtime.precisions[0].name == FLOAT32
    assert runtime.device_module.is_file()
    functions = runtime.device_module.read_text()
    required = "import_runtime make_empty_session load_session describe_inputs prepare_run compute_outputs"
    assert all(f"def {name}(" in functions for name in required.split())


@every_runtime
def test_the_version_program_prints_the_version_first(runtime: Runtime) -> None:
    """The program that shows on a device that a runtime can be imported prints its version."""
    version = importlib.metadata.version(runtime.package)
    done = subprocess.run([sys.executable, "-c", runtime.version_program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == version


def test_only_the_integers_of_onnx_are_made_for_tensorrt() -> None:
    """Its file shows the element types of int8, and needs TensorRT's provider to be measured."""
    (variant,) = (each for each in all_formats() if each.details.made_for)
    assert (str(variant), str(variant.stored)) == ("onnx-int8-tensorrt", "onnx-int8")
    assert variant.details.provider == "TensorrtExecutionProvider"
    assert variant.is_calibrated


def test_a_file_for_tensorrt_is_measured_where_tensorrt_is(profile: DeviceProfile) -> None:
    """With TensorRT's provider in the profile its target has precision int8, without it there is none."""
    variant, data = ExportFormat("onnx", "int8-tensorrt"), profile.to_dict()
    assert target_for(Target(profile), variant) is None
    providers = ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    there = Target(
        profile_from_dict({**data, "runtimes": {**data["runtimes"], "onnxruntime": {"providers": providers}}}, "x")
    )
    found = target_for(there, variant)
    assert found is not None
    assert (found.runtime, found.precision) == ("onnxruntime", "int8")


def test_a_target_has_no_variant_as_its_precision() -> None:
    """TensorRT's integers are int8 for a target: its provider decides."""
    with pytest.raises(UsageError, match="unknown precision 'int8-tensorrt'; known: fp32, fp16, dynamic, int8"):
        Target("localhost", precision="int8-tensorrt")


def test_the_float_file_of_a_runtime_is_made_once(monkeypatch: pytest.MonkeyPatch, small_space: MobileNetV3) -> None:
    """All files of a subnet for one runtime follow from one float32 file."""
    pytest.importorskip("ai_edge_litert")
    litert, made = load_runtime("litert"), []
    make = type(litert).make_float_file

    def count(self: Runtime, source: SourceModel) -> bytes:
        made.append(source)
        return make(self, source)

    monkeypatch.setattr(type(litert), "make_float_file", count)
    source = SourceModel(build_onnx(small_space.smallest, random_weights(small_space.smallest)))
    for _ in range(3):
        quantize(source.float_file(litert), ExportFormat("tflite"))
    assert made == [source]


@every_runtime
def test_a_loaded_file_is_loaded(runtime: Runtime) -> None:
    """Loading keeps the bytes, and a loaded file is not loaded again."""
    file = runtime.load(b"bytes")
    assert file == b"bytes"
    assert runtime.load(file) is file


def test_an_added_runtime_may_read_a_file_once(
    averages: Runtime, monkeypatch: pytest.MonkeyPatch, small_space: MobileNetV3
) -> None:
    """It loads files as its own subclass of bytes, and its methods get that, for each run of a file of a subnet."""
    seen = []

    class Averaging(ModelFile):
        pass

    def run_batches(self: Runtime, model: bytes, images: np.ndarray) -> np.ndarray:
        seen.append(model)
        means: np.ndarray = images.mean((2, 3))
        return means

    monkeypatch.setattr(type(averages), "load", lambda self, model: Averaging(model))
    monkeypatch.setattr(type(averages), "run_batches", run_batches)
    model = write_random_file(small_space.smallest, ExportFormat("npz"))
    for _ in range(2):
        averages.run(model, np.zeros((1, 3, 24, 24), np.float32))
    assert isinstance(model, Averaging)
    assert all(each is model for each in seen)
    assert len(seen) == 2


def test_an_added_runtime_writes_its_format(averages: Runtime, small_space: MobileNetV3) -> None:
    """Its format and precisions are known beside ours, and its files are made by it."""
    assert [str(each) for each in all_formats()][-2:] == ["npz-fp32", "npz-int4"]
    assert combine_formats(["npz", "onnx"], ["int4"]) == (
        [ExportFormat("npz", "int4")],
        ["onnx has no precision int4, it has fp32, fp16, int8: skipped"],
    )
    assert write_random_file(small_space.smallest, ExportFormat("npz", "int4")).endswith(b" of integers")
    assert ExportFormat("npz", "int4").parity_precision == "int8"
    with pytest.raises(UsageError, match="npz has no precision 'int8'; it has fp32, int4"):
        ExportFormat("npz", "int8")
    with pytest.raises(UsageError, match="unknown target 'npz'; known: tensorrt"):
        make_for("npz", [ExportFormat("npz")])


def test_an_added_runtime_is_measured(
    averages: Runtime, profile: DeviceProfile, small_space: MobileNetV3, tmp_path: Path
) -> None:
    """Its module runs on the device: it is measured there, and computes there what it computes here."""
    target, path = Target(profile), tmp_path / "model.npz"
    assert format_of(target) == ExportFormat("npz")
    path.write_bytes(write_random_file(small_space.smallest, format_of(target)))
    quick = MeasureSettings(processes=2, max_processes=2, min_seconds=0, max_seconds=0.05)
    result = measure_model(path, target, quick)
    assert result.median_ms > 0
    assert result.filled_shapes == {"x": (1, 3, 24, 24)}
    assert result.measurements[0].versions["averages"] == np.__version__
    images = np.random.default_rng(0).random((2, 3, 24, 24), dtype=np.float32)
    with MeasuringSession(target) as session:
        (there,) = session.compute_outputs(path, [images])
    np.testing.assert_array_equal(there, averages.run(path.read_bytes(), images))


def test_an_added_runtimes_bundle_is_complete(
    averages: Runtime, bundle_arguments: dict[str, Any], small_space: MobileNetV3, tmp_path: Path
) -> None:
    """A bundle of its format is written, verified and archived, and its script runs."""
    model, entry = write_random_file(small_space.smallest, ExportFormat("npz")), bundle_arguments["sample_input"]
    logits = averages.run(model, entry)
    facts: dict[str, Any] = {"labels": ["red", "green", "blue"], "expected": logits, "reference": logits}
    bundle = write_bundle(
        tmp_path / "ship", **{**bundle_arguments, **facts, "export_format": ExportFormat("npz"), "model": model}
    )
    assert bundle.model_path.name == "model.npz"
    assert bundle.verify().export_format == ExportFormat("npz")
    command = [sys.executable, str(bundle.path / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == bundle.verify().label
    with open_bundle(bundle.write_archive()) as opened:
        assert opened.verify().label == bundle.verify().label


def test_the_suffix_of_an_added_runtime_finds_it(averages: Runtime, profile: DeviceProfile, tmp_path: Path) -> None:
    """Of a profile's runtimes the one measures a file that runs its format; another file is refused."""
    assert runtime_of_suffix(".npz") is averages
    (tmp_path / "model.tflite").write_bytes(b"model")
    with pytest.raises(UsageError, match=r"averages runs files ending in \.npz; export the model as one"):
        measure_models([tmp_path / "model.tflite"], profile)


def test_an_added_runtimes_file_is_checked_by_the_common_rules(
    averages: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input that is too large is refused for every runtime, before anyone allocates it."""
    interface = averages.parse_interface(b"")
    huge = type(interface)(
        "fp32", type(interface.input)("x", (1, 3, 2**20, 2**20), "float32", "NCHW"), interface.output
    )
    monkeypatch.setattr(type(averages), "parse_interface", lambda self, model: huge)
    with pytest.raises(ModelError, match="at most 268435456 numbers"):
        averages.read_interface(io.BytesIO().getvalue())
