"""The history: its file, and the places where the level of a series changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.errors import FormatError, UsageError
from edgenas.locks import take_lock
from edgenas.regression.checks import CheckReport, CheckRequest
from edgenas.regression.history import (
    HistoryEntry,
    append_history,
    check_history,
    make_entry,
    read_history,
)
from edgenas.regression.picture import draw_distributions, draw_line
from edgenas.regression.series import Series, find_change_points, make_series

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
    first, second = read_history(tmp_path / "history")
    assert replace(first, time="") == replace(second, time="")
    assert (first.name, first.outcome, first.ratio, first.file_bytes) == ("kws.onnx on board", "ok", None, 1_000_000)
    assert first.now_ms == pytest.approx(1, rel=0.01)


def test_a_line_that_was_cut_off_is_replaced(report: CheckReport, tmp_path: Path) -> None:
    """A check that was killed while it wrote loses itself only."""
    append_history(tmp_path, [report])
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"file_bytes":10')
    assert len(read_history(tmp_path)) == 1
    append_history(tmp_path, [report])
    assert len(read_history(tmp_path)) == 2


def test_a_check_waits_for_another_that_writes_its_line(report: CheckReport, tmp_path: Path) -> None:
    """From reading the file's end to writing there it is locked, so neither line is lost."""
    append_history(tmp_path, [report])
    (path,) = tmp_path.glob("*.jsonl")
    with ThreadPoolExecutor(1) as thread, path.open("rb+") as other:
        assert take_lock(other.fileno())
        line = other.readlines()[1]
        waiting = thread.submit(append_history, tmp_path, [report])
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        other.write(line)
        other.close()
        waiting.result(timeout=60)
    assert len(read_history(tmp_path)) == 3


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


def test_a_history_that_cannot_take_a_check_is_refused_before(report: CheckReport, tmp_path: Path) -> None:
    """A file of another kind, a link, a folder that is a file, a name that is too long; an absent one is made."""
    check_history(tmp_path / "new" / "history", [report.request])
    assert list((tmp_path / "new" / "history").iterdir()) == []
    (tmp_path / "kws.onnx-on-board.jsonl").write_text("my notes\n")
    with pytest.raises(FormatError, match=r"expected format edgenas\.history"):
        check_history(tmp_path, [report.request])
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "kws.onnx-on-board.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(UsageError, match="is a link or no regular file"):
        check_history(tmp_path / "links", [report.request])
    with pytest.raises(UsageError, match=r"cannot be written \(File exists\)"):
        check_history(tmp_path / "kws.onnx", [report.request])
    with pytest.raises(UsageError, match=r"cannot be written \(File name too long\)"):
        check_history(tmp_path / "new", [replace(report.request, name="x" * 300)])


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


def entries(level_ms: float, model: str, days: range, **fields: Any) -> list[HistoryEntry]:
    """A check a day on one level, with a little noise."""
    return [
        replace(ENTRY, now_ms=level_ms + 0.01 * (day % 3), time=f"2026-11-{day:02}T00:00:00Z", model_sha256=model * 64,
                **fields)
        for day in days
    ]  # fmt: skip


def one_series(*parts: list[HistoryEntry]) -> Series:
    (series,) = make_series([entry for part in parts for entry in part])
    return series


def test_a_series_names_the_model_and_the_day_of_its_change() -> None:
    """The first entry of the new level, and by how much."""
    series = one_series(entries(10.0, "a", range(1, 11)), entries(12.0, "b", range(11, 21)))
    assert series.changes == (10,)
    assert series.lines()[2] == "  from 2026-11-11T00:00:00Z on, model bbbbbbbbbbbb: 10.0 ms became 12.0 ms (+20.0%)"
    levels = series.to_dict()["levels"]
    assert [level["median_ms"] for level in levels] == [pytest.approx(10.01), pytest.approx(12.01)]
    assert [level["same_model"] for level in levels] == [None, False]


def test_a_change_of_the_same_model_is_the_boards() -> None:
    """No model is blamed that did not change."""
    series = one_series(entries(10.0, "a", range(1, 11)), entries(12.0, "a", range(11, 21)))
    assert series.lines()[2] == (
        "  from 2026-11-11T00:00:00Z on, the same model, so the board or its load changed:"
        " 10.0 ms became 12.0 ms (+20.0%)"
    )
    assert [level["same_model"] for level in series.to_dict()["levels"]] == [None, True]


@pytest.mark.parametrize("first", [9, 10, 12, 13])
def test_a_new_model_beside_a_change_is_named(first: int) -> None:
    """Noise moves a change point by up to two checks; the new model is named, not the one before it."""
    models = ["a"] * (first - 1) + ["b"] * (20 - first + 1)
    levels = [10.0] * 10 + [12.0] * 10
    parts = [entries(level, model, range(day, day + 1)) for day, (level, model) in enumerate(zip(levels, models), 1)]  # noqa: B905
    series = one_series(*parts)
    assert series.changes == (10,)
    assert series.new_model_at(10) == "b" * 64


@pytest.mark.parametrize("field", ["fingerprint", "target", "name"])
def test_another_fingerprint_target_or_name_is_another_series(field: str) -> None:
    """Ten times the latency on another board is no change of the first one's level, also where they take turns."""
    fast = entries(1.0, "a", range(1, 21))
    slow = entries(10.0, "a", range(1, 21), **{field: "another"})
    found = make_series(sorted([*fast, *slow], key=lambda entry: entry.time))
    assert [len(series.entries) for series in found] == [20, 20]
    assert [series.changes for series in found] == [(), ()]
    assert [getattr(series.entries[0], field) for series in found] == [getattr(ENTRY, field), "another"]
    assert found[0].lines()[0].endswith("(board-onnxruntime-fp32-1t, fingerprint 000000000000)")


def test_incomparable_entries_are_no_part_of_a_series() -> None:
    """Their one round is of another board than the baseline's."""
    series = one_series(entries(10.0, "a", range(1, 9)), entries(90.0, "a", range(9, 13), outcome="incomparable"))
    assert len(series.entries) == 8


def test_entries_without_a_latency_are_no_part_of_a_series() -> None:
    """Where nothing else is left of a name, that is said."""
    series = one_series([replace(ENTRY, now_ms=None, outcome="incomparable")])
    assert series.lines() == ["kws on board: nothing was measured"]


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
    """Equal entries give equal bytes; a series in which nothing was measured is left out."""
    from edgenas.report.history_plot import write_history_plot

    series = make_series([ENTRY] * 8 + [replace(ENTRY, name="vww")] * 3)
    nothing = make_series([replace(ENTRY, name="asr", now_ms=None)])
    write_history_plot(series, tmp_path / "a.png")
    write_history_plot(nothing + series, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_history_without_a_latency_cannot_be_drawn(tmp_path: Path) -> None:
    """It is said, instead of an empty picture."""
    from edgenas.report.history_plot import write_history_plot

    nothing = make_series([replace(ENTRY, now_ms=None)])
    with pytest.raises(UsageError, match="nothing was measured, so there is nothing to draw"):
        write_history_plot(nothing, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
