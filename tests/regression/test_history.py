"""The history: its file, and the places where the level of a series changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgenas.errors import FormatError, UsageError
from edgenas.regression.checks import CheckReport, CheckRequest
from edgenas.regression.history import (
    HistoryEntry,
    append_history,
    find_change_points,
    make_entry,
    read_history,
    summarise_series,
)
from edgenas.regression.picture import draw_distributions, draw_line

ENTRY = HistoryEntry(
    "2026-11-30T01:20:00Z", "kws on board", "ok", "a" * 64, "board-onnxruntime-fp32-1t", "0" * 12, 10.0, 9.9, 1.01,
    (1.0, 1.02), 8, 1000,
)  # fmt: skip


@pytest.fixture
def report(tmp_path: Path) -> CheckReport:
    """The report of a check on a made-up device."""
    (tmp_path / "board.yaml").write_text(
        "{name: board, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
    )
    (tmp_path / "kws.onnx").write_bytes(bytes(1_000_000))
    request = CheckRequest(str(tmp_path / "kws.onnx"), str(tmp_path / "board.yaml"), latency=("15ms",))
    return CheckReport(request, request.run())


def test_an_entry_is_read_as_it_was_written(report: CheckReport, tmp_path: Path) -> None:
    """Name, outcome and latency; a budget has no ratio to a baseline."""
    append_history(tmp_path / "history", [report, report])
    first, second = read_history(tmp_path / "history")["kws.onnx on board"]
    assert replace(first, time="") == replace(second, time="")
    assert (first.outcome, first.ratio, first.file_bytes) == ("ok", None, 1_000_000)
    assert first.now_ms == pytest.approx(1, rel=0.01)


def test_a_line_that_was_cut_off_is_replaced(report: CheckReport, tmp_path: Path) -> None:
    """A check that was killed while it wrote loses itself only."""
    append_history(tmp_path, [report])
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"file_bytes":10')
    assert len(read_history(tmp_path)["kws.onnx on board"]) == 1
    append_history(tmp_path, [report])
    assert len(read_history(tmp_path)["kws.onnx on board"]) == 2


@pytest.mark.parametrize("line", ["{", "[]", '{"name": "x"}', '{"now_ms": true}'])
def test_a_damaged_line_is_refused_by_its_number(report: CheckReport, tmp_path: Path, line: str) -> None:
    """With the remedy; nothing is guessed."""
    append_history(tmp_path, [report])
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(FormatError, match=r"jsonl, line 3.*; remove that line"):
        read_history(tmp_path)


def test_a_foreign_file_is_not_written_to(report: CheckReport, tmp_path: Path) -> None:
    """A file of that name that is no history stays as it is."""
    (tmp_path / "kws.onnx-on-board.jsonl").write_text("my notes\n")
    with pytest.raises(FormatError, match=r"expected format edgenas\.history"):
        append_history(tmp_path, [report])
    assert (tmp_path / "kws.onnx-on-board.jsonl").read_text() == "my notes\n"


def test_a_failed_check_is_not_in_the_history(report: CheckReport) -> None:
    """It says nothing about the model."""
    assert make_entry(CheckReport(report.request, error=UsageError("no"))) is None


def noise(count: int, seed: int) -> np.ndarray:
    return 0.02 * np.random.default_rng(seed).standard_t(3, count)


def test_a_level_that_rises_is_found_where_it_does() -> None:
    """8% from the thirtieth check on, in heavy-tailed noise of 2%; within two checks in 45 of 50 histories."""
    step = np.r_[np.zeros(30), np.full(20, 0.08)]
    found = [find_change_points(np.exp(step + noise(50, seed)).tolist()) for seed in range(50)]
    assert sum(len(places) == 1 and abs(places[0] - 30) <= 2 for places in found) >= 45


def test_noise_is_no_change() -> None:
    """In at most two of 50 histories of 60 checks."""
    found = [find_change_points(np.exp(noise(60, seed)).tolist()) for seed in range(50)]
    assert sum(bool(places) for places in found) <= 2


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 1.0, 2.0, 1.0], [3.0] * 40])
def test_few_or_equal_values_have_no_change(values: list[float]) -> None:
    """Below six there is nothing to compare."""
    assert find_change_points(values) == []


def test_a_series_names_the_model_and_the_day_of_its_change() -> None:
    """The first entry of the new level, and by how much."""
    entries = [
        replace(ENTRY, now_ms=10.0 + 0.01 * (day % 3), time=f"2026-11-{day:02}T00:00:00Z", model_sha256="a" * 64)
        for day in range(1, 11)
    ] + [
        replace(ENTRY, now_ms=12.0 + 0.01 * (day % 3), time=f"2026-11-{day:02}T00:00:00Z", model_sha256="b" * 64)
        for day in range(11, 21)
    ]
    series = summarise_series("kws on board", entries)
    assert series.changes == (10,)
    assert series.lines()[2] == "  from 2026-11-11T00:00:00Z on, model bbbbbbbbbbbb: 10.0 ms became 12.0 ms (+20.0%)"
    assert [level["median_ms"] for level in series.to_dict()["levels"]] == [pytest.approx(10.01), pytest.approx(12.01)]


def test_entries_without_a_latency_are_no_part_of_a_series() -> None:
    """A check that was incomparable measured nothing, and a series without any says so."""
    series = summarise_series("kws", [replace(ENTRY, now_ms=None, outcome="incomparable")])
    assert series.lines() == ["kws: nothing was measured"]


def test_a_picture_shows_both_distributions_above_one_axis() -> None:
    """The slower model's bars lie farther right, and an outlier does not squeeze the others."""
    then, now = [10.0 + 0.01 * step for step in range(20)], [11.0 + 0.01 * step for step in range(19)] + [90.0]
    was, new, axis = draw_distributions(then, now)
    assert was.startswith("was │")
    assert max(was.rfind(sign) for sign in "▁▂▃▄▅▆▇█") < min(new.find(sign) for sign in "▁▂▃▄▅▆▇█" if sign in new)
    assert was.endswith("│ median 10.1 ms")
    assert axis.split() == ["9.96", "ms", "11.2", "ms"]


def test_a_picture_of_one_value_is_drawn() -> None:
    """On a device without noise; without a baseline there is one row."""
    assert len(draw_distributions([], [1.0] * 8)) == 2
    assert draw_distributions([], []) == []
    assert draw_line([1.0, 2.0, 1.0]) == "▁█▁"


def test_the_history_of_a_target_is_drawn_the_same_again(tmp_path: Path) -> None:
    """Equal entries give equal bytes."""
    from edgenas.report.history_plot import write_history_plot

    series = [summarise_series("kws", [ENTRY] * 8), summarise_series("vww", [ENTRY] * 3)]
    for name in ("a.png", "b.png"):
        write_history_plot(series, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
