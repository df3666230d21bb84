"""Every command on a finished run: what it prints for people and for machines."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]


def test_every_command_has_help_with_an_example(call: Call) -> None:
    """--help of each command shows an example that begins with its name."""
    for command in ("demo", "train", "evaluate", "profile", "search", "choose", "export", "measure"):
        code, out, _ = call(command, "--help")
        assert code == 0
        assert f"Example: edgenas {command}" in out


def test_version(call: Call) -> None:
    """--version prints the version."""
    assert call("--version") == (0, "edgenas 0.2.0\n", "")


def test_json_is_the_only_thing_on_standard_output(call: Call, finished: Path) -> None:
    """With --json, standard output is one JSON document and progress goes to standard error."""
    code, out, err = call("evaluate", "--run", finished, "--subnets", 12, "--json")
    assert code == 0
    assert json.loads(out)["subnets"] == 12
    assert "already done" in err


def test_search_shows_a_dozen_of_the_front(call: Call, finished: Path) -> None:
    """search prints subnets from the fastest to the slowest, and where the whole front lies."""
    code, out, _ = call("search", "--run", finished)
    assert code == 0
    assert "on the front of localhost-onnxruntime-fp32-1t, predicted" in out
    assert str(next(finished.glob("targets/*/front.json"))) in out.replace("\n", "")


def test_choose_shows_predicted_beside_measured(call: Call, finished: Path) -> None:
    """choose prints what was predicted beside what was measured, with the validity and the next command."""
    code, out, _ = call("choose", "--run", finished, "--latency", "50ms")
    assert code == 0
    for word in ("predicted", "measured", "95% interval", "validity:", "next: edgenas export"):
        assert word in out


@pytest.mark.parametrize("name", ["min", "max"])
def test_export_by_name_then_measure(call: Call, finished: Path, tmp_path: Path, name: str) -> None:
    """An architecture named min or max is exported as a bundle whose file can be measured."""
    code, out, _ = call("export", "--run", finished, "--arch", name, "--out", tmp_path / "ship", "--json")
    assert code == 0
    document = json.loads(out)
    (exported,) = document["bundles"]
    assert exported["card"]["agreement_with_pytorch"]["top1"] == 1.0
    code, out, _ = call("measure", exported["model"], "--json")
    assert code == 0
    assert json.loads(out)["models"][0]["median_ms"] > 0


def test_architecture_from_a_file(call: Call, finished: Path, tmp_path: Path) -> None:
    """Once-for-All's form of a JSON file names the same architecture as edgenas's own form."""
    ofa = tmp_path / "ofa.json"
    ofa.write_text(json.dumps({"ks": [3, 5, 5, 3], "e": [2, 3, 3, 2], "d": [2, 1], "r": 8}))
    own = tmp_path / "own.json"
    stages = [{"kernel_sizes": [3, 5], "expand_ratios": [2, 3]}, {"kernel_sizes": [5], "expand_ratios": [3]}]
    own.write_text(json.dumps({"resolution": 8, "stages": stages}))
    ids = []
    for path in (ofa, own):
        code, out, err = call("export", "--run", finished, "--arch", path, "--out", tmp_path / "ship", "--json")
        assert code == 0, err
        ids.append(json.loads(out)["architecture"])
    assert ids[0] == ids[1]


def test_device_from_a_file(call: Call, finished: Path, tmp_path: Path) -> None:
    """A profile of one's own is named by its path, and its target by the profile's name."""
    profile = tmp_path / "board.yaml"
    profile.write_text(
        "name: board\nconnection: {kind: local}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"
    )
    code, _, err = call("search", "--run", finished, "--device", profile)
    assert code == 2
    assert "has no latency table of board-onnxruntime-fp32-1t yet; run: edgenas profile" in err
