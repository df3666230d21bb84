"""What bad input gets: one clear line, exit code 2, no traceback, nothing changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edgenas.units import format_ms

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def refused(call: Call) -> Callable[..., str]:
    """Run ``edgenas`` with wrong arguments and return the one line that it answers with."""

    def edgenas(*arguments: object) -> str:
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("edgenas: ")
        assert err.count("\n") == 1
        return err

    return edgenas


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_unknown_key_in_a_config(refused: Callable[..., str], tmp_path: Path) -> None:
    """A misspelt key is named with the nearest valid one."""
    config = tmp_path / "config.yaml"
    config.write_text("space: {width: 0.35}\nshedule: shrink-small\n")
    assert "unknown key 'shedule'; did you mean 'schedule'?" in refused("train", config, "--run", tmp_path)


def test_unknown_key_in_a_space(refused: Callable[..., str], tmp_path: Path) -> None:
    """A misspelt key of the space is named with the nearest valid one."""
    config = tmp_path / "config.yaml"
    config.write_text("space: {widht: 0.35}\n")
    assert "did you mean 'width'?" in refused("train", config, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("space: {familiy: mobilenet_v3, width: 0.35}", "space: unknown key 'familiy'; did you mean 'family'?"),
        ("space: {familiy: resnet50d}", "space: unknown key 'familiy'; did you mean 'family'?"),
        ("space: {stages: [{widht: 32, stride: 2}]}", "unknown key 'stages.0.widht'; did you mean 'width'?"),
        ("space: {}\nschedule: {batchsize: 3}", "schedule: unknown key 'batchsize'; did you mean 'batch_size'?"),
        (
            "space: {}\nschedule: {name: a, batch_size: 32, phases: [{epoch: 3}]}",
            "schedule: unknown key 'phases.0.epoch'; did you mean 'epochs'?",
        ),
    ],
)
def test_misspelt_keys_of_a_config(refused: Callable[..., str], tmp_path: Path, text: str, suggestion: str) -> None:
    """A misspelt key anywhere in a config is named with the nearest valid one."""
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert suggestion in refused("train", config, "--run", tmp_path / "run")


@pytest.mark.parametrize(
    ("correct", "misspelt"),
    [("connection:", "conection:"), ("runtimes:", "runtime:"), ("default:", "defaults:"), ("{runtime:", "{runtmie:")],
)
def test_misspelt_keys_of_a_profile(
    refused: Callable[..., str], finished: Path, tmp_path: Path, correct: str, misspelt: str
) -> None:
    """A misspelt key that a profile needs is named with the valid one."""
    text = "name: board\nconnection: {kind: local}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"
    profile = tmp_path / "board.yaml"
    profile.write_text(text.replace(correct, misspelt))
    assert f"did you mean '{correct.strip('{:')}'?" in refused("search", "--run", finished, "--device", profile)


def test_unknown_key_in_a_profile(refused: Callable[..., str], finished: Path, tmp_path: Path) -> None:
    """A misspelt key of a device profile is named with the nearest valid one."""
    profile = tmp_path / "board.yaml"
    text = "name: board\nconnection: {kind: local}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"
    profile.write_text(text + "corse: 4\n")
    answer = refused("profile", "--run", finished, "--device", profile)
    assert "unknown key 'corse'; did you mean 'cores'?" in answer


def test_unknown_device(refused: Callable[..., str], finished: Path) -> None:
    """An unknown device's name is answered with those that exist."""
    assert "localhost" in refused("profile", "--run", finished, "--device", "locahost")


@pytest.mark.parametrize(("flag", "value"), [("--latency", "15"), ("--memory", "64")])
def test_budget_without_a_unit(refused: Callable[..., str], finished: Path, flag: str, value: str) -> None:
    """A budget without a unit is refused with the units that there are."""
    assert "has no unit; the units are" in refused("choose", "--run", finished, flag, value)


def test_budget_below_the_fastest(refused: Callable[..., str], finished: Path) -> None:
    """A budget below the fastest subnet says which is the fastest and how fast."""
    front = json.loads(next(finished.glob("targets/*/front.json")).read_text())
    answer = refused("choose", "--run", finished, "--latency", "1us")
    assert f"the fastest is {front['architectures'][0]} with {format_ms(front['values']['latency_ms'][0])}" in answer


def test_run_of_another_space(refused: Callable[..., str], finished: Path, tmp_path: Path) -> None:
    """A run folder of another space is refused, naming both."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"space": {"width": 0.5, "classes": 10, "resolutions": [24]}}))
    answer = refused("train", config, "--run", finished)
    assert "is a run of space" in answer
    assert "use another run folder" in answer


def test_run_of_a_newer_schema(refused: Callable[..., str], copy: Path) -> None:
    """A run folder that a newer edgenas wrote asks for an upgrade."""
    document = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**document, "version": 99}))
    assert "upgrade edgenas" in refused("evaluate", "--run", copy)


def test_no_run_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    """A folder that is no run is answered with the command that makes one."""
    assert "make one with: edgenas train CONFIG.yaml" in refused("evaluate", "--run", tmp_path / "nowhere")


def test_blanks_in_a_path_are_kept(refused: Callable[..., str], tmp_path: Path) -> None:
    """The command that a message shows names the folder as it is called, with all of its blanks."""
    folder = tmp_path / "my  runs"
    assert f"make one with: edgenas train CONFIG.yaml --run '{folder}'" in refused("evaluate", "--run", folder)


@pytest.mark.parametrize(
    ("pattern", "command"),
    [
        ("training/checkpoint.safetensors", ("evaluate", "--subnets", 30)),
        ("accuracy/evaluated_subnets.json", ("search",)),
        ("targets/*/latency_table.json", ("search",)),
        ("targets/*/front.json", ("choose", "--latency", "50ms")),
        ("targets/*/choices/*.json", ("choose", "--latency", "50ms")),
        ("run.json", ("search",)),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_file(
    refused: Callable[..., str], copy: Path, pattern: str, command: tuple[object, ...], damage: str
) -> None:
    """A file of the run that is cut or has one flipped byte is named, with what to do."""
    path = next(copy.glob(pattern))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    else:
        # A letter: the last digit of a number may change without changing the number.
        data[next(place for place in range(len(data) * 2 // 3, len(data)) if chr(data[place]).isalpha())] ^= 1
    path.write_bytes(data)
    answer = refused(command[0], "--run", copy, *command[1:])
    assert str(path) in answer
    assert "damaged" in answer


def test_model_that_the_runtime_refuses(refused: Callable[..., str], tmp_path: Path) -> None:
    """A file that is no model is refused in the runtime's words."""
    model = tmp_path / "broken.onnx"
    model.write_bytes(b"no model at all")
    assert str(model) in refused("measure", model)


@pytest.mark.parametrize(
    "name", ["person_detect.tflite", "mobilenet_v1_0.25_128_quant_edgetpu.tflite", "person_detect_vela.tflite"]
)
def test_published_broken_models(refused: Callable[..., str], data_folder: Path, tmp_path: Path, name: str) -> None:
    """Published models that no CPU runtime can run are refused, also under an .onnx name."""
    source = data_folder / "models" / "broken" / name
    assert str(source) in refused("measure", source)
    disguised = tmp_path / "model.onnx"
    disguised.write_bytes(source.read_bytes())
    assert str(disguised) in refused("measure", disguised)


def test_wrong_flags(refused: Callable[..., str]) -> None:
    """An unknown flag or a missing one is one line too."""
    assert "--runn" in refused("evaluate", "--runn", "x")
    assert "--run" in refused("evaluate")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--latency", "5ms", "--latency", "6ms"), "--latency must be given once, for localhost, but got 2: 5ms, 6ms"),
        (
            ("--device", "localhost", "--device", "rock-5b", *("--latency", "5ms") * 3),
            "--latency must be given once for all, or 2 times in their order, for localhost, rock-5b, but got 3",
        ),
        (("--device", "localhost", "--device", "localhost", "--latency", "5ms"), "--device localhost is given twice"),
        (("--device", "locahost", "--latency", "5ms"), "did you mean 'localhost'?"),
        (("--device", "rock-5b", "--latency", "5ms"), "has no latency table of rock-5b-onnxruntime-fp32-4t"),
        (("--precision", "int8", "--latency", "5ms"), "int8-1t yet, only of localhost-onnxruntime-fp32-1t; run: "),
        (("--latency", "5ms", "--percentile", "100"), "percentile must be from 50 (the median) to 99, but got 100"),
        (("--latency", "5ms", "--percentile", "0"), "percentile must be from 50 (the median) to 99, but got 0"),
        (("--memory", "5MB", "--percentile", "90"), "percentile 90 is of latencies: give a latency, for example 15ms"),
        (
            ("--latency", "5ms", "--max-drop", "2", "--no-measure"),
            "--max-drop is of files, which --no-measure does not",
        ),
        (("--latency", "5ms", "--max-drop", "200"), "max_drop must be from 0 to 1 (100 points), but got 2"),
    ],
)
def test_a_choice_that_cannot_be_asked_for(
    refused: Callable[..., str], finished: Path, given: tuple[str, ...], message: str
) -> None:
    """Devices without a table, numbers of options that do not match, and options that contradict are one line each."""
    assert message in refused("choose", "--run", finished, *given)


def test_choose_without_a_budget(refused: Callable[..., str], finished: Path) -> None:
    """choose without a limit says how to give one, as options that can be typed."""
    answer = refused("choose", "--run", finished)
    assert f"for example: edgenas choose --run {finished} --latency 15ms" in answer


@pytest.mark.parametrize("name", ["nothing", "zzzzzz-000", "min.json"])
def test_unknown_architecture(refused: Callable[..., str], finished: Path, tmp_path: Path, name: str) -> None:
    """An architecture that is no id, no name and no file is refused."""
    assert name in refused("export", "--run", finished, "--arch", name, "--out", tmp_path / "ship")
    assert not (tmp_path / "ship").exists()
