"""Listing the operators of a model on a device, with real runtimes and with answers that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import DeviceProfile, Target, load_profile
from edgenas.devices.fake import FakeDevice, Handler, Reply, Request
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, MeasurementError, ModelError, UsageError
from edgenas.files import parse_dataclass
from edgenas.on_device import runtime_litert
from edgenas.profilers import MeasuringSession, ModelInputs, OperatorProfile, profile_operators
from edgenas.profilers.measure import operators

CPU, AZURE = "CPUExecutionProvider", "AzureExecutionProvider"
HELLO = {"kind": "hello", "versions": {"onnxruntime": "1.20"}, "facts": {}}
OPERATOR = {"name": "conv", "type": "Conv", "provider": CPU, "us": 1.5, "inputs": [[1, 3]], "outputs": [[1, 8]]}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """An ONNX file: a convolution with its activation, and an average."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((16, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weights"], ["map"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["map"], ["active"], "relu"),
            helper.make_node("GlobalAveragePool", ["active"], ["out"], "pool"),
        ],
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 16, 1, 1])],
        [numpy_helper.from_array(weights, "weights")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def litert(profile: DeviceProfile) -> Target:
    changes = {"runtimes": {"litert": {}}, "default": {"runtime": "litert"}}
    return Target(profile_from_dict({**profile.to_dict(), **changes}, "test"))


def test_operators_have_times_places_and_what_they_compute(net: Path, target: Target) -> None:
    """The convolution computes its activation, each operator has a time in each process, and all ran on the CPU."""
    ended: list[None] = []
    (profile,) = profile_operators([net], target, processes=3, on_process=lambda: ended.append(None))
    assert len(ended) == 3
    convolution, pool = (next(each for each in profile.operators if name in each.sources) for name in ("conv", "pool"))
    assert (convolution.type.removeprefix("Fused"), convolution.sources) == ("Conv", ("conv", "relu"))
    assert (pool.sources, pool.output_shapes) == (("pool",), ((1, 16, 1, 1),))
    assert convolution.input_shapes[0] == (1, 3, 32, 32)
    assert {each.provider for each in profile.operators} == {CPU}
    assert all(len(each.times_us) == 3 for each in profile.operators)
    assert convolution.time_us is not None
    assert convolution.time_us > 0
    assert profile.time_us == sum(each.time_us or 0.0 for each in profile.operators)
    assert profile.runtime.startswith("onnxruntime 1.")
    assert (profile.model, profile.synthetic, profile.target) == (str(net), False, target.to_dict())


def test_models_run_in_turn_and_stay_apart(net: Path, conv: Path, target: Target) -> None:
    """Two files in one call: each profile has its own operators."""
    first, second = profile_operators([net, conv], target, processes=2)
    assert len(first.operators) > len([each for each in second.operators if each.sources]) == 1
    assert first.model_sha256 != second.model_sha256


def test_litert_tells_places_and_no_times(target: Target, data_folder: Path) -> None:
    """Its Python interface has no profiler: the file is run once, and every operator says where it ran."""
    ended: list[None] = []
    model = data_folder / "models" / "mlperf_tiny_resnet8_float.tflite"
    (profile,) = profile_operators([model], litert(target.profile), on_process=lambda: ended.append(None))
    assert (len(ended), len(profile.operators), profile.time_us) == (1, 16, None)
    assert {each.provider for each in profile.operators} == {runtime_litert.DELEGATE}
    first = profile.operators[0]
    assert (first.type, first.output_shapes) == ("CONV_2D", ((1, 32, 32, 16),))
    assert "model/conv2d/BiasAdd" in first.sources


def test_operators_are_listed_over_ssh(net: Path, ssh_profile: DeviceProfile) -> None:
    """The graph that the runtime made comes back, too."""
    (profile,) = profile_operators([net], Target(ssh_profile), processes=2)
    assert ("conv", "relu") in [each.sources for each in profile.operators]


def test_a_provider_that_runs_nothing_is_seen(net: Path, target: Target) -> None:
    """Where the first provider takes no node, each operator says so."""
    onnxruntime = pytest.importorskip("onnxruntime")
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has no second provider")
    changes = {"runtimes": {"onnxruntime": {"providers": [AZURE, CPU]}}}
    changed = Target(profile_from_dict({**target.profile.to_dict(), **changes}, "test"))
    (profile,) = profile_operators([net], changed, processes=1)
    assert {each.provider for each in profile.operators} == {CPU}


def test_open_shapes_are_those_that_are_given(net: Path, target: Target) -> None:
    """The batch of the inputs is that of the operators."""
    given = ModelInputs({"image": (4, 3, 32, 32)})
    (profile,) = profile_operators([net], target, given, processes=1)
    assert (4, 16, 1, 1) in [shape for each in profile.operators for shape in each.output_shapes]


def test_a_broken_file_is_the_files_fault(garbage: Path, target: Target) -> None:
    """What the runtime refuses is named with its reason."""
    with pytest.raises(ModelError, match=r"garbage\.onnx: is refused by onnxruntime"):
        profile_operators([garbage], target)


def test_a_file_of_another_runtime_is_refused(target: Target, tmp_path: Path) -> None:
    """Nothing is sent."""
    (tmp_path / "m.tflite").write_bytes(runtime_litert.EMPTY)
    with pytest.raises(UsageError, match=r"m\.tflite: onnxruntime runs files ending in \.onnx"):
        profile_operators([tmp_path / "m.tflite"], target)


# -- answers of devices --------------------------------------------------------------


@pytest.fixture
def listing(conv: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Handler], Any]:
    """List the operators of a file on a device that answers like this."""

    def list_on(handler: Handler) -> Any:
        target = Target(load_profile("localhost"))
        monkeypatch.setattr(operators, "MeasuringSession", lambda given: MeasuringSession(given, FakeDevice(handler)))
        return profile_operators([conv], target, processes=2)

    return list_on


def answering(*results: dict[str, Any], **changes: Any) -> Handler:
    """A device that lists these operators for every model, or answers with other keys."""

    def handler(request: Request) -> Reply:
        models = json.loads(request.stdin)["models"]
        answer = {"kind": "result", "operators": list(results), "has_graph": False, **changes}
        answers = [HELLO, *({"id": model["id"], **answer} for model in models), {"kind": "end", "count": len(models)}]
        return Reply("".join(json.dumps(each) + "\n" for each in answers))

    return handler


def test_an_answer_becomes_a_profile(listing: Callable[[Handler], Any]) -> None:
    """What the device says is kept, and is synthetic on a fake one."""
    (profile,) = listing(answering(OPERATOR))
    (operator,) = profile.operators
    assert (operator.name, operator.type, operator.provider, operator.times_us) == ("conv", "Conv", CPU, (1.5, 1.5))
    assert (operator.input_shapes, operator.output_shapes, operator.sources) == (((1, 3),), ((1, 8),), ())
    assert profile.synthetic


def test_a_profile_survives_a_file(listing: Callable[[Handler], Any]) -> None:
    """Plain data gives the same profile again, and none that was changed."""
    (profile,) = listing(answering(OPERATOR))
    data = json.loads(json.dumps(profile.to_dict()))
    assert parse_dataclass(OperatorProfile, data, "profile") == profile
    data["operators"][0]["times_us"] = [-1.0]
    with pytest.raises(UsageError, match=r"profile: operators\.0\.times_us\.0"):
        parse_dataclass(OperatorProfile, data, "profile")


@pytest.mark.parametrize(
    "wrong",
    [
        {"us": "1.5"}, {"us": -1.0}, {"us": 1e300}, {"us": True}, {"name": None}, {"name": 3}, {"type": []},
        {"provider": {}}, {"inputs": [[-1]]}, {"inputs": [[1.5]]}, {"inputs": [[1] * 33]}, {"inputs": [[1]] * 257},
        {"outputs": None}, {"more": 1},
    ],
)  # fmt: skip
def test_operators_that_are_none_are_refused(listing: Callable[[Handler], Any], wrong: dict[str, Any]) -> None:
    """Another type, a number out of range, too many sizes, an unknown key: one line that names the device."""
    with pytest.raises(DeviceError, match=r"localhost: answered nonsense \("):
        listing(answering({**OPERATOR, **wrong}))


@pytest.mark.parametrize("key", list(OPERATOR))
def test_operators_without_a_key_are_refused(listing: Callable[[Handler], Any], key: str) -> None:
    """The message names what is missing."""
    with pytest.raises(DeviceError, match=rf"operators\.0\.{key}: Field required"):
        listing(answering({name: value for name, value in OPERATOR.items() if name != key}))


def test_too_many_operators_are_refused(listing: Callable[[Handler], Any]) -> None:
    """No device can fill the memory here, and none at all are no list."""
    small = {**OPERATOR, "inputs": [], "outputs": []}
    with pytest.raises(DeviceError, match="answered nonsense"):
        listing(answering(*[small] * 4001))
    with pytest.raises(DeviceError, match="answered nonsense"):
        listing(answering())


def test_names_become_printable(listing: Callable[[Handler], Any]) -> None:
    """A model file may call its nodes anything."""
    (profile,) = listing(answering({**OPERATOR, "name": "\x1b[2J\nstem\u202e"}))
    assert profile.operators[0].name == "[2J stem"


def test_a_graph_that_the_device_does_not_have_is_an_error(listing: Callable[[Handler], Any]) -> None:
    """It said that it stored one."""
    with pytest.raises(DeviceError, match="no such file"):
        listing(answering(OPERATOR, has_graph=True))


def test_operators_that_change_from_process_to_process_cannot_be_told(listing: Callable[[Handler], Any]) -> None:
    """The second process ran another one: times of different things are not mixed."""
    kinds = iter(["Conv", "Gemm"])

    def handler(request: Request) -> Reply:
        return answering({**OPERATOR, "type": next(kinds)})(request)

    with pytest.raises(MeasurementError, match=r"conv\.onnx: ran as other operators in each process"):
        listing(handler)


def test_numbers_and_order_may_change_from_process_to_process(listing: Callable[[Handler], Any]) -> None:
    """onnxruntime runs branches in another order and numbers what it adds anew; each keeps its own times."""
    left, right = ({**OPERATOR, "name": f"Add_{number}", "outputs": [[number]]} for number in (7, 8))
    orders = iter([[left, {**right, "us": 9.0}], [{**right, "name": "Add_3", "us": 9.0}, {**left, "name": "Add_4"}]])

    def handler(request: Request) -> Reply:
        return answering(*next(orders))(request)

    (profile,) = listing(handler)
    assert [(each.name, each.times_us) for each in profile.operators] == [("Add_7", (1.5, 1.5)), ("Add_8", (9.0, 9.0))]


def test_a_runtime_without_a_profiler_says_so(listing: Callable[[Handler], Any]) -> None:
    """The message names the file, the runtime and what to do."""

    def handler(request: Request) -> Reply:
        failed = {"kind": "failed", "id": 0, "reason": "no profile", "detail": "it has no profiler"}
        return Reply("".join(json.dumps(each) + "\n" for each in (HELLO, failed, {"kind": "end", "count": 1})))

    with pytest.raises(ModelError, match=r"conv\.onnx: runs, but its operators cannot be listed by onnxruntime 1\.20"):
        listing(handler)
