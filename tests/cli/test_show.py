"""``edgenas show`` and the outputs of ``edgenas search``."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgenas.pipeline.show import ShownArchitecture, show

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with a latency table and evaluated subnets."""
    with zipfile.ZipFile(Path(__file__).parents[1] / "pipeline" / "run_of_version_1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "run"


def test_an_architecture_is_shown_block_by_block(call: Call, run: Path) -> None:
    """A line for each part with its time on each profiled target, and the sums below."""
    code, out, _ = call("show", "min", "--run", run)
    assert code == 0
    for word in ("kernel", "expand", "width", "MACs", "params", "stage1.block1", "localhost-onnxruntime-fp32-1t", "±"):
        assert word in out


@pytest.mark.parametrize(("overhead_ms", "is_shown"), [(0.00001, False), (0.25, True)])
def test_an_overhead_of_nothing_is_left_out(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch, overhead_ms: float, is_shown: bool
) -> None:
    """What would be written as 0.0000 ms is not worth a word."""

    def shown(*arguments: Any) -> ShownArchitecture:
        found = show(*arguments)
        latencies = tuple(replace(each, latency_ms=1.0, overhead_ms=overhead_ms) for each in found.latencies)
        return replace(found, latencies=latencies)

    monkeypatch.setattr("edgenas.pipeline.show.show", shown)
    code, out, _ = call("show", "min", "--run", run)
    assert code == 0
    assert ("0.250 ms of it outside of the parts" in out) == is_shown
    assert ("outside of the parts" in out) == is_shown


def test_the_same_as_json(call: Call, run: Path) -> None:
    """--json prints one document with the blocks and their times."""
    code, out, _ = call("show", "max", "--run", run, "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document["latencies"][0]["part_ms"]) == {block["name"] for block in document["blocks"]}


def test_a_search_writes_csv_json_and_picture(call: Call, run: Path, tmp_path: Path) -> None:
    """The CSV file and the JSON document have the same architectures and costs; the picture is a PNG."""
    files = tmp_path / "front.csv", tmp_path / "front.png"
    code, out, _ = call(
        "search", "--run", run, "--objectives", "accuracy, latency", "--limit", "latency=50ms", "--limit", "memory=1GB",
        "--evaluations", 300, "--csv", files[0], "--picture", files[1], "--json",
    )  # fmt: skip
    document = json.loads(out)
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0
    assert [row["architecture"] for row in rows] == [row["architecture"] for row in document["front"]]
    assert [float(row["latency_ms"]) for row in rows] == [row["predicted_latency_ms"] for row in document["front"]]
    assert document["limits"] == {"latency_ms": 50.0, "peak_bytes": 1e9}
    assert document["hypervolume"][-1][1] == pytest.approx(1.0)
    assert {"resolution", "stage1.depth", "accuracy_std"} <= set(rows[0])
    assert files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--limit", "latency"), "--limit must be a cost and its limit, such as latency=15ms, but got 'latency'"),
        (("--limit", "latency=9ms", "--limit", "latency=5ms"), "--limit latency is given twice, 9ms and 5ms; give one"),
        (("--objectives", "accuracy,speed"), "unknown cost 'speed'"),
        (("--limit", "latency=0.0001ms"), "no architecture keeps latency"),
        (("--strategy", "nsga3"), "unknown search strategy 'nsga3'; did you mean 'nsga2'"),
    ],
)
def test_wrong_use_is_one_line(call: Call, run: Path, arguments: tuple[str, ...], message: str) -> None:
    """Wrong options exit with 2 and one line."""
    code, _, err = call("search", "--run", run, *arguments)
    assert code == 2
    assert message in err.splitlines()[-1]
