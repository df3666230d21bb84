"""The command line on a run of published latency tables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(call: Call, data_folder: Path, tmp_path: Path) -> Path:
    """A run of the Note10's tables and the released predictor, made by the command."""
    tables, predictor = data_folder / "ofa" / "note10", data_folder / "ofa" / "acc_predictor.pth"
    of_tables = ("--tables", tables, "--predictor", predictor, "--device", "note10")
    code, _, err = call("import", *of_tables, "--space", "mobilenet_v3", "--width", 1.2, "--run", tmp_path / "run")
    assert code == 0, err
    assert "10 entries vary by more than 10%" in err
    return tmp_path / "run"


def test_imported_tables_are_searched(call: Call, run: Path) -> None:
    """search finds the device by the name it was imported under, and proposes to choose by predictions."""
    code, out, err = call("search", "--run", run, "--device", "note10")
    assert code == 0, err
    assert "on the front of note10-published-fp32-1t, predicted" in out
    assert "nothing can be measured on note10: all of it stays predicted" in out
    assert re.search(
        r"^next: edgenas choose --run \S+ --device note10 --latency \S+ms --no-measure$", out, re.MULTILINE
    )
    code, out, _ = call("search", "--run", run, "--device", "note10", "--json")
    front = json.loads(out)["front"]
    assert all(9.89 <= subnet["predicted_latency_ms"] <= 92.40 for subnet in front)


def test_a_choice_from_imported_tables_is_marked_as_predicted(call: Call, run: Path) -> None:
    """--no-measure picks from the front, which it searches where there is none; text and JSON say what it is."""
    choose = ("choose", "--run", run, "--device", "note10", "--latency", "20ms", "--no-measure")
    code, out, err = call(*choose)
    assert code == 0, err
    assert "PREDICTED only" in out
    assert "next:" not in out  # there are no weights to export
    code, out, _ = call(*choose, "--json")
    document = json.loads(out)
    (deployment,) = document["deployments"]
    assert (code, document["predicted_only"], deployment["measured"]) == (0, True, None)
    assert deployment["predicted"]["latency_ms"] <= 20
    assert deployment["predicted"]["accuracy"] >= 0.80  # the authors' predictor, as in benchmarks/search.md


def test_a_tail_of_published_means_is_not_known(call: Call, run: Path) -> None:
    """Published tables hold means, so nothing is said about percentiles."""
    tail = ("--latency", "20ms", "--percentile", 90, "--no-measure")
    code, out, err = call("choose", "--run", run, "--device", "note10", *tail)
    assert (code, out) == (2, "")
    assert "nothing is known about percentile 90" in err.splitlines()[-1]


@pytest.mark.parametrize("command", [("choose", "--latency", "30ms"), ("profile",)])
def test_what_must_measure_fails_in_one_line(call: Call, run: Path, command: tuple[str, ...]) -> None:
    """choose and profile on a device that is not there say so, with exit code 1."""
    code, out, err = call(*command, "--run", run, "--device", "note10")
    assert (code, out) == (1, "")
    assert "there is no device to measure on" in err.splitlines()[-1]


def test_a_table_of_other_choices_is_imported(call: Call, data_folder: Path, tmp_path: Path) -> None:
    """--choices names the choices of a table; its latencies are shown, and what a search still needs is said."""
    choices = tmp_path / "choices.json"
    choices.write_text('{"expand_ratios": [3, 6], "resolutions": [224]}')
    table = data_folder / "ofa" / "proxyless_pixel" / "pixel_trim.yaml"
    of_tables = ("--tables", table, "--device", "pixel1", "--space", "proxyless", "--choices", choices)
    code, out, err = call("import", *of_tables, "--run", tmp_path / "run")
    assert code == 0, err
    assert f"next: edgenas profile --run {tmp_path / 'run'} --device pixel1 --explain max\nto search it" in out
    code, out, _ = call("profile", "--run", tmp_path / "run", "--device", "pixel1", "--explain", "max", "--json")
    assert code == 0
    (classifier,) = (row["ms"] for row in json.loads(out)["rows"] if row["name"] == "classifier")
    assert classifier == pytest.approx(0.9348, abs=0.0001)
