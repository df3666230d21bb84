"""Running a model once on a device: what comes back is what the runtime makes of the inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.devices import Device, DeviceProfile, Target, load_profile
from edgenas.devices.fake import FakeDevice, Handler, Reply, Request
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.on_device import runtime_litert
from edgenas.profilers import MeasureSettings, MeasuringRounds, MeasuringSession

LITERT = {"runtimes": {"litert": {}}, "default": {"runtime": "litert"}}
HELLO = {"kind": "hello", "versions": {"litert": "tflite_runtime 2.14.0"}, "facts": {}}
STORED = {"kind": "result", "id": 0, "outputs": 1}


def lines(*answers: dict[str, Any]) -> str:
    return "".join(json.dumps(answer) + "\n" for answer in answers)


def compute(model: Path, inputs: Sequence[Any], target: Target, device: Device | None = None) -> list[Any]:
    """The outputs of a model, in a session of its own."""
    with MeasuringSession(target, device) as session:
        return session.compute_outputs(model, inputs)


@pytest.fixture
def image() -> Any:
    """An input for the convolution."""
    return np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def litert(work: Path) -> Target:
    """This machine's TensorFlow Lite."""
    return Target(profile_from_dict({**load_profile("localhost").to_dict(), **LITERT, "work_dir": str(work)}, "test"))


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    """A .tflite file of y = Relu(x), one float."""
    path = tmp_path / "relu.tflite"
    path.write_bytes(runtime_litert.EMPTY)
    return path


def test_outputs_are_the_runtimes(conv: Path, target: Target, image: Any) -> None:
    """An ONNX file gives on the device what onnxruntime gives here."""
    import onnxruntime

    (expected,) = onnxruntime.InferenceSession(str(conv)).run(None, {"image": image})
    (found,) = compute(conv, [image], target)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_tensorflow_lite_answers_too(relu: Path, litert: Target) -> None:
    """Relu of -1.5 is 0 and of 2.5 is 2.5, in one session."""
    with MeasuringSession(litert) as session:
        for value, expected in [(-1.5, 0.0), (2.5, 2.5)]:
            (found,) = session.compute_outputs(relu, [np.array([value], np.float32)])
            assert found.tolist() == [expected]


def test_a_model_is_measured_and_run_in_one_session(relu: Path, litert: Target) -> None:
    """The session goes from one to the other and back."""
    brief = MeasureSettings(processes=1, max_processes=1, max_runs=10, min_seconds=0, max_seconds=0.1)
    with MeasuringSession(litert) as session:
        for value in (1.5, 2.5):
            session.measure(rounds := MeasuringRounds([relu], litert, brief))
            assert rounds.missing_processes_by_model() == {}
            (found,) = session.compute_outputs(relu, [np.array([value], np.float32)])
            assert found.tolist() == [value]


def test_outputs_come_over_ssh(relu: Path, ssh_profile: DeviceProfile) -> None:
    """The files lie where the device keeps them; each call's inputs are its own."""
    profile = profile_from_dict({**ssh_profile.to_dict(), **LITERT}, "test")
    with MeasuringSession(Target(profile)) as session:
        for value, expected in [(-1.5, 0.0), (2.5, 2.5)]:
            (found,) = session.compute_outputs(relu, [np.array([value], np.float32)])
            assert found.tolist() == [expected]


@pytest.mark.parametrize("count", [0, 2])
def test_a_wrong_number_of_inputs_is_refused(conv: Path, target: Target, image: Any, count: int) -> None:
    """The message says how many the file takes."""
    with pytest.raises(ModelError, match=rf"conv\.onnx: .*it takes 1 inputs, but got {count}"):
        compute(conv, [image] * count, target)


def test_inputs_of_another_type_or_shape_are_refused(relu: Path, litert: Target) -> None:
    """Nothing is converted in silence."""
    with pytest.raises(ModelError, match=r"relu\.tflite"):
        compute(relu, [np.array([1], np.int8)], litert)
    with pytest.raises(ModelError, match=r"relu\.tflite"):
        compute(relu, [np.zeros((2, 2), np.float32)], litert)


def test_a_file_for_another_runtime_is_refused(conv: Path, litert: Target) -> None:
    """TensorFlow Lite runs no ONNX; nothing is sent."""
    with pytest.raises(UsageError, match=r"conv\.onnx: litert runs files ending in \.tflite"):
        compute(conv, [], litert)


def test_a_device_without_the_runtime_is_told_how_to_get_it(relu: Path, litert: Target) -> None:
    """One line; on this machine the way is pip, as edgenas device setup is for boards."""

    def handler(request: Request) -> Reply:
        return Reply(json.dumps({"kind": "unable", "detail": "no ai_edge_litert"}) + "\n", exit_status=1)

    with pytest.raises(DeviceError) as raised:
        compute(relu, [], litert, FakeDevice(handler))
    assert str(raised.value) == (
        "localhost: no ai_edge_litert; install it: python3 -m pip install ai-edge-litert, or correct the profile"
    )


def test_a_runtime_too_old_is_told_how_to_get_a_newer(relu: Path, litert: Target) -> None:
    """The file is not blamed."""
    failed = {"kind": "failed", "id": 0, "reason": "too old", "detail": "Are you using an old TFLite binary?"}
    reply = Reply(lines(HELLO, failed, {"kind": "end", "count": 1}))
    with pytest.raises(ModelError) as raised:
        compute(relu, [], litert, FakeDevice(lambda _: reply))
    assert "needs a newer version of litert tflite_runtime 2.14.0 (Are you" in str(raised.value)
    assert "; install it: python3 -m pip install -U ai-edge-litert" in str(raised.value)


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (lambda _: Reply("Segmentation fault\n"), "answered nonsense"),
        (lambda _: Reply("7\n"), "answered nonsense"),
        (lambda _: Reply("", stderr="first\nkilled\n"), r"the agent ended too early \(killed\)"),
        (lambda _: Reply(lines(HELLO, STORED)), "the agent ended too early"),
        (lambda _: Reply(lines(STORED)), "where hello was due"),
        (lambda _: Reply(vanishes=True), "connection was lost"),
    ],
)
def test_a_device_that_answers_nonsense_is_an_error(relu: Path, litert: Target, handler: Handler, said: str) -> None:
    """Whatever else comes back is the device's fault, on one line."""
    with pytest.raises(DeviceError, match=said):
        compute(relu, [], litert, FakeDevice(handler))


@pytest.fixture
def spoiled() -> Callable[[bytes], Device]:
    """A device whose answer is fine and whose file of outputs holds these bytes."""

    def make(content: bytes) -> Device:
        class Spoiled(FakeDevice):
            def pull(self, remote: str, local: str | Path) -> None:
                Path(local).write_bytes(content)

        return Spoiled(lambda _: Reply(lines(HELLO, STORED, {"kind": "end", "count": 1})))

    return make


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x04N."])
def test_outputs_that_cannot_be_read_are_an_error(
    relu: Path, litert: Target, spoiled: Callable[[bytes], Device], content: bytes
) -> None:
    """A damaged file, and a pickle, are refused."""
    with pytest.raises(DeviceError, match="the stored outputs cannot be read"):
        compute(relu, [], litert, spoiled(content))
