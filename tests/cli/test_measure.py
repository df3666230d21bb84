"""``edgenas measure``: tables, documents, ranking, and models that fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgenas.cli.measurement_output import format_conditions, print_outcomes
from edgenas.devices import Target, load_profile
from edgenas.errors import DeviceError
from edgenas.profilers import Measurement, MeasurementResult, MeasuringRounds, MeasuringSession, rank_results
from edgenas.profilers.measure.validity import Validity

Call = Callable[..., tuple[int, str, str]]

FAKE = """
name: board
connection: {kind: fake}
runtimes: {onnxruntime: {}, litert: {}}
default: {runtime: onnxruntime}
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The profile of a device that makes its answers up: a model's time grows with the size of its file."""
    path = tmp_path / "board.yaml"
    path.write_text(FAKE)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str, int], Path]:
    """A file of so many bytes, which only the made-up device runs."""

    def file(name: str, size: int) -> Path:
        (tmp_path / name).write_bytes(b"m" * size)
        return tmp_path / name

    return file


Make = Callable[[str, int], Path]


@pytest.fixture
def conv(tmp_path: Path) -> Path:
    """A real ONNX file of one convolution: 2 x 3 x 3 x 3 weights at each of 14 x 14 places."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 14, 14]),
    ]
    weights = numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "net", ends[:1], ends[1:], [weights])
    path = tmp_path / "conv.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_every_model_has_a_line(call: Call, board: Path, make: Make) -> None:
    """Files of both kinds in one call, each with its median, its range and the validity; made-up ones say so."""
    code, out, _ = call("measure", make("a.onnx", 1000), make("b.tflite", 3000), "--device", board)
    assert code == 0
    lines = out.splitlines()
    assert "board-onnxruntime-fp32-1t, board-litert-fp32-1t SYNTHETIC" in lines[0]
    for line, name in zip(lines[2:4], ("a.onnx", "b.tflite"), strict=True):
        assert name in line
        assert line.endswith("unverified")
    assert any(line.startswith("validity: unverified (the device does not give ") for line in lines)


def test_the_document_has_every_sample(call: Call, board: Path, make: Make) -> None:
    """JSON has, for each model, what was derived and the raw measurements."""
    code, out, _ = call("measure", make("a.onnx", 1000), make("b.onnx", 3000), "--device", board, "--json")
    assert code == 0
    first, second = json.loads(out)["models"]
    assert first["median_ms"] < second["median_ms"]
    assert len([Measurement.from_dict(each) for each in second["measurements"]]) == second["processes"] == 6
    assert first["validity"]["status"] == "unverified"
    assert (first["synthetic"], first["file_bytes"]) == (True, 1000)


def test_a_real_file_has_its_graph_counted(call: Call, conv: Path) -> None:
    """On this machine: a median within its interval, and 2 x 27 x 196 multiply-accumulates."""
    code, out, _ = call("measure", conv, "--json")
    assert code == 0
    (model,) = json.loads(out)["models"]
    low, high = model["interval_95_ms"]
    assert 0 < low <= model["median_ms"] <= high
    assert model["graph"]["macs"] == 2 * 27 * 196
    assert not model["synthetic"]


def test_a_bad_model_has_its_line_and_the_others_are_measured(call: Call, conv: Path, make: Make) -> None:
    """The table comes first, then what is wrong, and exit code 2."""
    bad = make("bad.onnx", 100)
    code, out, err = call("measure", bad, conv)
    assert code == 2
    assert [line.split()[-1] for line in out.splitlines()[2:3]] == ["failed"]
    assert str(conv) in out
    assert out.count(f"failed: {bad}: is refused by onnxruntime") == 1
    assert err.splitlines()[-1] == "edgenas: 1 of 2 models failed; see above"


def test_several_bad_models_are_each_explained_once(call: Call, make: Make) -> None:
    """Also where none is left to measure."""
    files = [make("bad.onnx", 100), make("worse.onnx", 50)]
    code, out, err = call("measure", *files)
    assert code == 2
    assert [out.count(f"{path}: is refused by onnxruntime") for path in files] == [1, 1]
    assert err.splitlines()[-1] == "edgenas: 2 of 2 models failed; see above"


def test_a_single_bad_model_is_explained(call: Call, make: Make) -> None:
    """There is no table of nothing."""
    bad = make("bad.onnx", 100)
    code, out, err = call("measure", bad)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"edgenas: {bad}: is refused by onnxruntime")


@pytest.mark.parametrize("count", [1, 2])
def test_the_document_is_printed_when_all_models_failed(call: Call, make: Make, count: int) -> None:
    """JSON says why for each."""
    files = [make("bad.onnx", 100), make("worse.onnx", 50)][:count]
    code, out, _ = call("measure", *files, "--json")
    assert code == 2
    models = json.loads(out)["models"]
    assert [model["model"] for model in models] == list(map(str, files))
    assert all(": is refused by onnxruntime" in model["error"] for model in models)


def test_the_document_is_printed_when_nothing_can_be_measured(call: Call, make: Make, board: Path) -> None:
    """Files that are no models are found before anything is measured; all are named, and once."""
    empty, pointer = make("empty.onnx", 0), make("pointer.tflite", 0)
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    code, out, err = call("measure", empty, pointer, make("good.onnx", 100), "--device", board, "--json")
    assert code == 2
    problems = [
        f"{empty}: is empty; export the model again",
        f"{pointer}: is a pointer of Git LFS, not the model; run git lfs pull",
    ]
    assert json.loads(out) == {"models": [], "errors": problems}
    assert err == f"edgenas: nothing was measured: {'. '.join(problems)}\n"


def test_a_precision_that_is_not_the_files_is_named_with_other_problems(call: Call, make: Make, conv: Path) -> None:
    """A file in float32 is not measured as int8."""
    empty = make("empty.onnx", 0)
    code, _, err = call("measure", conv, empty, "--precision", "int8")
    assert code == 2
    assert f"{empty}: is empty; export the model again. {conv}: is a file in fp32, not int8; leave out the" in err


def test_shapes_that_were_filled_in_are_told(call: Call, make_conv: Callable[..., Path]) -> None:
    """In the table and in JSON; the MACs are those of the shapes: 8 x 27 multiply-accumulates at each of 256 places."""
    model = make_conv("open.onnx", ("batch", 3, 16, 16))
    code, out, _ = call("measure", model)
    assert code == 0
    assert f"{model}: inputs of open shape were run as image 1x3x16x16" in out.splitlines()
    code, out, _ = call("measure", model, "--shape", "image=2x3x16x16", "--json")
    (measured,) = json.loads(out)["models"]
    assert (code, measured["filled_shapes"]) == (0, {"image": [2, 3, 16, 16]})
    assert measured["measurements"][0]["filled_shapes"] == {"image": [2, 3, 16, 16]}
    assert measured["graph"]["macs"] == 2 * 8 * 27 * 256


def test_given_inputs_are_checked_against_the_model(call: Call, conv: Path, tmp_path: Path) -> None:
    """The archive is read here, its arrays are compared on the device."""
    import numpy as np

    np.savez(tmp_path / "inputs.npz", image=np.ones((1, 3, 16, 16), np.float32))
    code, _, err = call("measure", conv, "--inputs", tmp_path / "inputs.npz")
    assert (code, err.splitlines()[-1]) == (2, f"edgenas: {conv}: it has no input 'image', only 'x'; correct the name")
    code, _, err = call("measure", conv, "--inputs", conv)
    assert (code, err.count("conv.onnx: must hold arrays of numbers or text; write it with numpy.savez")) == (2, 1)
    code, _, err = call("measure", conv, "--shape", "x")
    assert (code, err) == (2, "edgenas: --shape must be like image=1x3x224x224, but got 'x'\n")


@pytest.fixture
def stop_at_tflite(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let the measuring of TFLite files end with an error."""

    def install(error: BaseException) -> None:
        measure = MeasuringSession.measure

        def run(session: MeasuringSession, rounds: MeasuringRounds) -> None:
            if rounds.files[0].path.suffix == ".tflite":
                raise error
            measure(session, rounds)

        monkeypatch.setattr(MeasuringSession, "measure", run)

    return install


def test_a_lost_device_shows_what_was_measured(
    call: Call, board: Path, make: Make, stop_at_tflite: Callable[[BaseException], None]
) -> None:
    """When the device vanishes between two runtimes' models, the first are shown, and the error has exit code 1."""
    stop_at_tflite(DeviceError("board: the connection was lost"))
    code, out, err = call("measure", make("a.onnx", 1000), make("b.tflite", 1000), "--device", board)
    assert code == 1
    assert [line.rpartition("  ")[2] for line in out.splitlines()[2:4]] == ["unverified", "not measured"]
    assert err.splitlines()[-1] == "edgenas: board: the connection was lost"
    out = call("measure", make("a.onnx", 1000), make("b.tflite", 1000), "--device", board, "--json")[1]
    assert json.loads(out)["models"][1]["error"] == "board: the connection was lost"


def test_a_file_that_cannot_be_measured_is_refused_first(
    call: Call, board: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second runtime's file that is not there costs no measurement of the first's."""
    monkeypatch.setattr(MeasuringSession, "measure", lambda session, rounds: pytest.fail("measured"))
    code, out, err = call("measure", make("a.onnx", 1000), board.with_name("absent.tflite"), "--device", board)
    assert (code, out) == (2, "")
    assert "absent.tflite: cannot be read" in err


def test_an_interrupt_shows_what_was_measured(
    call: Call, board: Path, make: Make, stop_at_tflite: Callable[[BaseException], None]
) -> None:
    """What there is until Ctrl-C is printed; the exit code is 130, and nobody is told that the rest can go on."""
    stop_at_tflite(KeyboardInterrupt())
    code, out, err = call("measure", make("a.onnx", 1000), make("b.tflite", 1000), "--device", board)
    assert code == 130
    assert [line.rpartition("  ")[2] for line in out.splitlines()[2:4]] == ["unverified", "not measured"]
    assert err.splitlines()[-1] == (
        "edgenas: interrupted; what was measured until then is shown, the same command begins anew"
    )


def test_compare_ranks_by_median(call: Call, board: Path, make: Make) -> None:
    """The made-up device takes 1 µs and 1 ms a megabyte: 5 µs are 2.5 times 2 µs, without doubt."""
    files = [make("big.onnx", 4000), make("small.onnx", 1000)]
    code, out, _ = call("measure", *files, "--device", board, "--compare", "--json")
    assert code == 0
    first, second = json.loads(out)["ranking"]
    assert (first["model"], second["model"]) == (str(files[1]), str(files[0]))
    assert second["ratio"] == pytest.approx(2.5, rel=0.02)
    assert second["slower"] is True
    table = call("measure", *files, "--device", board, "--compare")[1].splitlines()
    assert [table[-2].split()[-1], table[-1].split()[-1]] == ["fastest", "slower"]


def test_compare_shows_the_medians_of_common_rounds(
    board: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ratio of 1.1 is that of the medians in the rounds of both, 1.1 and 1.0 ms; the median of all is 1.05 ms."""
    paths = [make("a.onnx", 1000), make("b.onnx", 1000)]
    results = dict(zip(paths, (result_of([1.0] * 6 + [2.0] * 6), result_of([1.1] * 6)), strict=True))
    ranked = {row.model: row for row in rank_results(results)}
    assert ranked[str(paths[0])].paired_ms == (1.0, 1.1)
    print_outcomes(results, dict.fromkeys(paths, Target(load_profile(board))), compare=True)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "1.00 ms : 1.10 ms" in last


@pytest.fixture
def reject(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the conditions of every device reject its measurements."""
    rejected = Validity("rejected", ("governor is powersave: change it",))
    monkeypatch.setattr("edgenas.profilers.measure.session.assess_validity", lambda *args, **fields: rejected)


def test_rejected_results_have_an_exit_code(call: Call, board: Path, make: Make, reject: None) -> None:
    """The number is shown with the reason, and no script takes it for one."""
    model = make("a.onnx", 1000)
    code, out, _ = call("measure", model, "--device", board)
    assert code == 5
    assert f"{model}: rejected (governor is powersave: change it)" in out.splitlines()
    code, out, _ = call("measure", model, "--device", board, "--json")
    assert (code, json.loads(out)["models"][0]["validity"]["status"]) == (5, "rejected")


def test_a_failed_model_beside_rejected_ones_is_the_error(call: Call, conv: Path, make: Make, reject: None) -> None:
    """What the user can correct comes first."""
    assert call("measure", conv, make("bad.onnx", 100))[0] == 2


def test_rejected_results_are_not_ranked(board: Path, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """The fastest of three is rejected: it has no rank, and says so."""
    paths = [make(name, 1000) for name in ("a.onnx", "b.onnx", "c.onnx")]
    rejected = result_of([0.5] * 6, validity=Validity("rejected", ("it runs on battery",)))
    results = dict(zip(paths, (result_of([1.0] * 6), rejected, result_of([2.0] * 6)), strict=True))
    assert [row.model for row in rank_results(results)] == [str(paths[0]), str(paths[2])]
    print_outcomes(results, dict.fromkeys(paths, Target(load_profile(board))), compare=True)
    assert f"{paths[1]}: is rejected, so it has no rank" in capsys.readouterr().out.splitlines()


def test_an_unknown_ending_is_refused_with_those_that_run(call: Call, board: Path, make: Make) -> None:
    """A PyTorch file is named, with the endings of the profile's runtime."""
    code, _, err = call("measure", make("net.pth", 10), "--device", board)
    assert code == 2
    assert "net.pth: onnxruntime runs files ending in .onnx" in err


def result_of(medians: Sequence[float], **fields: Any) -> MeasurementResult:
    one = {
        "model_sha256": "0" * 64, "target": {}, "peak_bytes": 1, "load_ms": 1.0, "device_s": 1.0, "facts": {},
        "versions": {}, "conditions_before": {}, "conditions_after": {}, "validity": Validity("valid"),
        "synthetic": True, "settings": {}, **fields,
    }  # fmt: skip
    return MeasurementResult(
        tuple(Measurement(samples_ms=(each,) * 5, round=place, **one) for place, each in enumerate(medians))
    )


@pytest.fixture
def show(board: Path, make: Make, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Print the table of one file with these medians, ms; return the file and the lines."""

    def printed(medians: Sequence[float]) -> list[str]:
        path = make("a.onnx", 1000)
        print_outcomes({path: result_of(medians)}, {path: Target(load_profile(board))}, compare=False)
        return [str(path), *capsys.readouterr().out.splitlines()]

    return printed


def test_the_table_has_the_range_of_a_later_call(show: Callable[..., list[str]]) -> None:
    """Of six processes of five equal runs each, places 0.725 and 28.275 of the 30 are 1.00 and 1.05 ms."""
    _, _, columns, row, *_ = show([1.0, 1.01, 1.02, 1.03, 1.04, 1.05])
    assert "  95% range  " in columns
    assert "  1.00 ms to 1.05 ms  " in row


def test_two_speeds_are_told(show: Callable[..., list[str]]) -> None:
    """A file that settles at one of two speeds has a line with the median and the processes of each."""
    path, *lines = show([1.0, 1.2, 1.01, 1.0, 1.21, 1.2])
    told = "runs at two speeds, 1.00 ms in 3 processes and 1.20 ms in 3 processes: compare models in one call"
    assert f"{path}: {told}" in lines


def test_one_speed_is_not_told(show: Callable[..., list[str]]) -> None:
    """Processes that differ by up to 5%, evenly, have no such line."""
    assert not any("two speeds" in line for line in show([1.0, 1.01, 1.02, 1.03, 1.04, 1.05]))


def test_models_within_the_noise_are_not_significantly_different() -> None:
    """Medians that lie now above, now below each other are no ranking; too few processes are no comparison."""
    noisy, steady, brief = result_of([1.0, 1.2] * 3), result_of([1.11] * 6), result_of([2.0] * 2)
    found = rank_results({Path("a"): steady, Path("b"): noisy, Path("c"): brief})
    assert [row.model for row in found] == ["b", "a", "c"]
    assert [row.slower for row in found] == [None, False, None]


def test_a_speed_that_was_not_probed_is_told() -> None:
    """Without the speed probe nobody knows how steady the CPU was between runs."""
    assert format_conditions([result_of([1.0] * 6)]) == "speed not probed"


def test_the_variation_of_the_speed_is_told() -> None:
    """Of five runs in each process, the 10th and 90th percentile of the probe's times are 100 and 107.2."""
    found = result_of([1.0] * 6, probe_ms=(0.001, 0.001, 0.00105, 0.001072, 0.001072))
    assert format_conditions([found]) == "the CPU's speed varied by 7.2% between runs"
    assert found.to_dict()["speed_variation"] == pytest.approx(0.072)


def test_disturbed_processes_are_counted() -> None:
    """Two of six on a slower CPU; they count, and the JSON document says how many they are."""
    steady = result_of([1.0] * 4, probe_ms=(0.001,) * 5, conditions_after={"probe_deviation": 0.02})
    slow = result_of([1.1] * 2, probe_ms=(0.0012,) * 5, conditions_after={"probe_deviation": 0.2})
    found = MeasurementResult(steady.measurements + slow.measurements)
    assert format_conditions([found]) == (
        "the CPU's speed varied by 20.0% between runs and was over 10% off in 2 of 6 processes"
    )
    assert (found.to_dict()["disturbed"], found.validity) == (2, Validity("valid"))
