"""What ``edgenas profile --explain`` and ``--check`` print."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.cli.table_output import format_bar, print_check, print_explanation
from edgenas.pipeline import Run
from edgenas.pipeline.check_table import TableCheck
from edgenas.pipeline.explain import Explanation, PartLatency
from edgenas.profilers import LatencyTable
from edgenas.profilers.latency.conditions import ConditionsSummary
from edgenas.profilers.latency.holdout import HoldoutReport
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.space import MobileNetV3
from edgenas.space.parts import macs

Call = Callable[..., tuple[int, str, str]]

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_ROWS = (
    PartLatency("stem", "stem", "conv 3x3 /2", "16x16x8", 0.25, 0.125),
    PartLatency("stem", "block0", "mbconv 3x3, 16 inside", "16x16x8", 0.5, 0.25),
    PartLatency("stage1", "stage1.block1", "mbconv 7x7, 48 inside", "8x8x8", 1.0, 0.5),
    PartLatency("overhead", "overhead", "of one inference", "", 0.25, 0.125),
)
_EXPLANATION = Explanation("abc-1", "board-onnxruntime-fp32-1t", 2.0, (1.9, 2.1), _ROWS, False)
_HOLDOUT = HoldoutReport(
    mape=0.021,
    p95=0.05,
    within_5_percent=0.95,
    within_10_percent=1.0,
    within_interval=0.94,
    noise=0.01,
    drift=0.02,
    bias=0.002,
    kendall_tau=0.93,
    kendall_tau_within=0.85,
    compared_pairs=40,
    memory_mape=0.02,
    errors=(0.01, -0.03),
    fitted=8,
    held_out=2,
    device_s=60.0,
    conditions=ConditionsSummary(),
    validity_counts={"valid": 10},
    fastest="abc-1",
    fastest_ms=1.0,
    slowest="abc-2",
    slowest_ms=2.0,
    synthetic=False,
)
_FRESH = replace(
    _HOLDOUT,
    mape=0.02,
    p95=0.04,
    within_interval=0.95,
    bias=-0.001,
    kendall_tau=0.91,
    kendall_tau_within=None,
    held_out=20,
    device_s=18.0,
    validity_counts={"valid": 57, "unverified": 3},
)
_CHECK = TableCheck(
    number=3,
    target="board-onnxruntime-fp32-1t",
    then=_HOLDOUT,
    now=_FRESH,
    architectures=("abc-1", "abc-2"),
    device_s=12.0,
    p_value=0.6,
    corrected_mape=0.02,
    corrected_p_value=0.6,
    anchors=("abc-3", "abc-4"),
    anchors_then_ms=(1.0, 2.0),
    anchors_now_ms=(1.01, 2.02),
    remedy="move it away",
)
_SLOWER = replace(_CHECK, now=replace(_FRESH, mape=0.2), p_value=0.0001, anchors_now_ms=(1.2, 2.4))


def test_parts_stand_below_their_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """A stage's time stands above its parts, a stage of one part is one line; times have equal decimals."""
    print_explanation(_EXPLANATION)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "abc-1 on board-onnxruntime-fp32-1t: 2.00 ms predicted, 95% interval 1.90 ms to 2.10 ms"
    assert [line.split()[0] for line in lines[1:]] == ["part", "stem", "stem", "block0", "stage1.block1", "overhead"]
    assert [line.startswith("  ") for line in lines[2:]] == [False, True, True, False, False]
    assert lines[2].split() == ["stem", "0.750", "ms", "37.5%"]
    assert lines[4].endswith("0.500 ms  25.0%")
    bars = [line.count("█") for line in lines[3:]]
    assert bars == [8, 17, 35, 8]


def test_a_part_of_no_time_is_called_unresolved(capsys: pytest.CaptureFixture[str]) -> None:
    """A part whose time rounds to nothing has words instead of zeros."""
    rows = (*_ROWS[:-1], replace(_ROWS[-1], ms=0.0004, share=0.0002))
    print_explanation(replace(_EXPLANATION, rows=rows))
    out = capsys.readouterr().out
    assert out.splitlines()[-1].split(maxsplit=4)[4].strip() == "below what can be resolved"
    assert "0.000 ms" not in out


def test_made_up_and_published_tables_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A synthetic table is marked; a published one has no interval."""
    print_explanation(replace(_EXPLANATION, synthetic=True, interval_ms=None))
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "abc-1 on board-onnxruntime-fp32-1t SYNTHETIC: 2.00 ms predicted, by a published table"


@given(share=st.floats(0, 1), room=st.integers(1, 60))
def test_a_bar_is_as_long_as_its_share(share: float, room: int) -> None:
    """To an eighth of a column, and never longer than its room."""
    drawn = format_bar(share, room)
    eighths = 8 * drawn.count("█") + sum(" ▏▎▍▌▋▊▉".index(letter) for letter in drawn.strip("█"))
    assert abs(eighths - 8 * room * share) <= 0.5
    assert len(drawn) <= room


def test_explain_on_a_run(call: Call, tmp_path: Path) -> None:
    """profile --explain prints one architecture, writes the picture, and with --json a document whose parts add up."""
    run = Run(tmp_path / "run", _SPACE)
    target = run.target("localhost")
    costs = 0.01 + _SPACE.part_costs(macs) / 1e7
    memory = MemoryModel.with_unit_costs(_SPACE)
    LatencyTable(_SPACE, target.name, 0.05, costs, memory, None, "", "a test").save(run.folder.table(target.name))
    picture = tmp_path / "parts.png"
    explain = ("profile", "--run", run.folder.root, "--explain", "max")
    code, out, err = call(*explain, "--picture", picture)
    assert code == 0, err
    assert out.startswith(f"{_SPACE.largest.id} on localhost-onnxruntime-fp32-1t: ")
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, out, err = call(*explain, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert sum(row["ms"] for row in document["rows"]) == pytest.approx(document["latency_ms"])
    assert sum(document["stages_ms"].values()) == pytest.approx(document["latency_ms"])


def test_a_check_stands_beside_the_holdout_report(capsys: pytest.CaptureFixture[str]) -> None:
    """Both columns, what was measured and the conclusion; no remedy where they agree."""
    print_check(_CHECK)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "check 3 of board-onnxruntime-fp32-1t"
    assert lines[1].split() == ["holdout", "fresh", "subnets"]
    rows = {line[:24].strip(): line[24:].split() for line in lines[2:10]}
    assert rows == {
        "subnets": ["2", "20"],
        "MAPE": ["2.1%", "2.0%"],
        "p95 of errors": ["5.0%", "4.0%"],
        "within 10%": ["100%", "100%"],
        "95% interval coverage": ["94%", "95%"],
        "bias": ["+0.2%", "-0.1%"],
        "Kendall tau": ["0.93", "0.91"],
        "tau at equal resolution": ["0.85", "-"],
    }
    assert lines[10:] == [
        "measured: 57 valid, 3 unverified, 12 s of device time",
        "agrees: MAPE is 2.0%, 2.1% in the holdout report; the device is 1.0% slower than when it was profiled"
        " (by 2 subnets measured then and now; 95% interval +1.0% to +1.0%)",
    ]


def test_made_up_measurements_of_a_check_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    """The title of a check on a fake device is marked."""
    print_check(replace(_CHECK, now=replace(_FRESH, synthetic=True)))
    assert capsys.readouterr().out.splitlines()[0] == "check 3 of board-onnxruntime-fp32-1t SYNTHETIC"


def test_a_disagreement_has_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    """After the conclusion it says how to profile again."""
    print_check(_SLOWER)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("disagrees: the device is 20.0% slower than when it was profiled")
    assert lines[-1] == "to profile again: move it away"


def test_a_check_of_a_too_coarse_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Tau of 0.2 means that 6 of 10 pairs are in order; that the errors agree does not make the table useful."""
    print_check(replace(_CHECK, then=replace(_HOLDOUT, kendall_tau_within=0.2)))
    assert capsys.readouterr().out.splitlines()[-1] == (
        "too coarse: orders 60% of 40 pairs at equal resolution: profile with more --minutes"
    )


def test_the_exit_code_says_whether_it_agrees(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """profile --check exits with 0 where the table agrees, with 1 where it does not; --json says why."""
    run = Run(tmp_path / "run", _SPACE)
    monkeypatch.setattr(Run, "check_table", lambda self, target: _CHECK)
    assert call("profile", "--run", run.folder.root, "--check")[0] == 0
    monkeypatch.setattr(Run, "check_table", lambda self, target: _SLOWER)
    code, out, _ = call("profile", "--run", run.folder.root, "--check", "--json")
    assert code == 1
    document = json.loads(out)
    assert (document["agrees"], document["slower"]) == (False, pytest.approx(0.2))
