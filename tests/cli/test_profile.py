"""``edgenas profile``: what it prints, and which options go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import edgenas as en
from edgenas.pipeline.progress import Silent
from tests.small_run import SPACE

Call = Callable[..., tuple[int, str, str]]
FAKE = "name: board\nconnection: {kind: fake}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """``profile`` of a run on a board that makes its answers up."""
    folder = tmp_path_factory.mktemp("profile")
    (folder / "board.yaml").write_text(FAKE)
    en.Run(folder / "run", SPACE, progress=Silent())
    return ["profile", "--run", str(folder / "run"), "--device", str(folder / "board.yaml")]


def test_the_holdout_report_is_listed_with_the_next_command(call: Call, arguments: list[str]) -> None:
    """A line for each figure, that the numbers are made up, and the command that comes next with the same device."""
    code, out, err = call(*arguments, "--minutes", 0.1)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "board-onnxruntime-fp32-1t"
    assert lines[1].startswith("SYNTHETIC")
    names = [line.split("  ")[0] for line in lines]
    for name in ("MAPE", "p95 of errors", "within 10%", "bias", "Kendall tau", "device time", "conditions"):
        assert name in names
    assert lines[-1].startswith("next: edgenas search --run ")
    assert lines[-1].endswith(f"--device {arguments[-1]}")


def test_the_transfer_weight_of_source_tables_is_shown(call: Call, arguments: list[str]) -> None:
    """With --from, in a line of its own and as JSON; without, neither."""
    call(*arguments, "--minutes", 0.1)
    begun = (*arguments, "--threads", 2, "--minutes", 0.01, "--from", "board-onnxruntime-fp32-1t")
    code, out, err = call(*begun)
    assert code == 0, err
    (line,) = (line for line in out.splitlines() if line.startswith("transfer weight of the source tables: "))
    transfer_weight = json.loads(call(*begun, "--json")[1])["transfer_weight"]
    assert f": {transfer_weight:.0%}" in line
    code, out, err = call(*arguments, "--minutes", 0.1)
    assert "transfer weight" not in out
    assert json.loads(call(*arguments, "--minutes", 0.1, "--json")[1])["transfer_weight"] is None


def test_the_holdout_report_is_complete_as_json(call: Call, arguments: list[str]) -> None:
    """One document with every figure, the errors of all held-out subnets among them."""
    code, out, err = call(*arguments, "--minutes", 0.1, "--json")
    assert code == 0, err
    holdout = json.loads(out)["holdout"]
    assert len(holdout["errors"]) == holdout["held_out"] == 8
    # Of 8 subnets at two resolutions, 4 and 4 make the fewest pairs, 8 and 0 the most.
    assert 2 * 6 <= holdout["compared_pairs"] <= 28
    assert -1 <= holdout["kendall_tau_within"] <= 1
    assert holdout["synthetic"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--check", "--minutes", 1], "--check is about an existing table, --minutes builds one; leave one out"),
        (["--check", "--minutes", 0], "--check is about an existing table, --minutes builds one; leave one out"),
        (["--explain", "min", "--from", "x"], "--explain is about an existing table, --from builds one; leave one out"),
        (["--check", "--explain", "min"], "--check and --explain exclude each other; give one of them"),
        (["--picture", "x.png"], "--picture draws what --explain ARCH shows; give both"),
        (["--target-error", "3"], "--target-error must be a percentage, but got '3'"),
        (["--minutes", 0], "minutes must be above 0 and at most 1440, but got 0"),
        (["--from", "absent"], "absent: is neither a table's JSON file nor a target that"),
        (["--precision", "int7"], "int7"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    call: Call, arguments: list[str], options: list[object], message: str
) -> None:
    """One line that says which, and exit code 2."""
    code, out, err = call(*arguments, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_time_is_explained_by_stage(call: Call, arguments: list[str], tmp_path: Path) -> None:
    """--explain shows where the time of an architecture goes; --picture draws it."""
    call(*arguments, "--minutes", 0.1)
    code, out, err = call(*arguments, "--explain", "min", "--picture", tmp_path / "min.png")
    assert code == 0, err
    assert "stem" in out
    assert (tmp_path / "min.png").read_bytes().startswith(b"\x89PNG")


def test_a_check_that_agrees_exits_with_0(call: Call, arguments: list[str]) -> None:
    """The fake board answers as it did when it was profiled; with --json the document says that it agrees."""
    call(*arguments, "--minutes", 0.1)
    code, out, err = call(*arguments, "--check", "--json")
    assert code == 0, err
    assert json.loads(out)["agrees"] is True
