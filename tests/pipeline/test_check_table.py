"""Comparing a latency table with fresh subnets, and the device's speed then and now, on a fake board."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from math import comb, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgenas.pipeline.measurement_log
from edgenas.devices import Device, Target
from edgenas.devices.fake import FakeDevice, Reply, Request, simulate_agent
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ModelError, RunError, UsageError
from edgenas.files import read_document, sha256_hex, write_document
from edgenas.pipeline import Run
from edgenas.pipeline.check_table import TableCheck, permutation_p_value
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.pipeline.profile import SETTINGS
from edgenas.pipeline.progress import Silent
from edgenas.profilers import LatencyTable, Measurement
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.profilers.latency.table import TABLE_SCHEMA
from edgenas.runtimes.building import write_random_file
from edgenas.space import MobileNetV3, Stage

_SPACE = MobileNetV3(
    width=0.25,
    resolutions=(8, 12),
    classes=10,
    kernel_sizes=(3, 5),
    expand_ratios=(2, 3),
    depths=(1, 2),
    stages=(Stage(32, 2, "relu", False), Stage(64, 2, "hswish", True)),
    head=(96, 128),
)
_TARGET = Target(
    profile_from_dict(
        {
            "name": "board",
            "connection": {"kind": "fake"},
            "runtimes": {"onnxruntime": {}},
            "default": {"runtime": "onnxruntime"},
        },
        "test",
    )
)
_NOISE = 0.02
_SUBNETS, _FRESH, _ANCHORS, _PROCESSES = 60, 20, 10, 3
_ERRORS = st.lists(st.floats(-0.5, 0.5, allow_subnormal=False), min_size=2, max_size=12)


@cache
def _profiled_files() -> tuple[bytes, ...]:
    """The files of the subnets that the table is made from, held out or not, in the order of measuring."""
    genes = _SPACE.sample_distinct(_SUBNETS, np.random.default_rng(0))
    return tuple(write_random_file(architecture, format_of(_TARGET)) for architecture in _SPACE.decode(genes))


@cache
def _profiled() -> frozenset[str]:
    return frozenset(map(sha256_hex, _profiled_files()))


@dataclass
class Board:
    """A board whose models take the time that their size says, each off by a deviation of its own.

    Attributes:
        slower: The factor by which all models take longer.
        noise: The standard deviation of the deviations.
        noise_of_fresh: That of models that were not profiled.
        left: The number of lines that it answers before it is gone.
        crashing: The share of models, by their bytes, whose process crashes.
        crashing_profiled: True if the processes of all models that were profiled crash.
        governor: The governor of its CPU, if it says.
        measured: The SHA-256 of the model of each process that ended well.
    """

    slower: float = 1.0
    noise: float = _NOISE
    noise_of_fresh: float = _NOISE
    left: int = 10_000
    crashing: float = 0.0
    crashing_profiled: bool = False
    governor: str | None = None
    measured: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> Reply:
        said = simulate_agent(request).stdout.splitlines()
        lines = [self._changed(json.loads(line), request) for line in said[: self.left]]
        self.left -= len(lines)
        return Reply("".join(json.dumps(line) + "\n" for line in lines), vanishes=len(lines) < len(said))

    def _changed(self, answer: dict[str, Any], request: Request) -> dict[str, Any]:
        if answer["kind"] != "result":
            return answer
        paths = {model["id"]: model["path"] for model in json.loads(request.stdin)["models"]}
        model = sha256_hex(request.files[Path(paths[answer["id"]]).name])
        was_profiled = model in _profiled()
        if int(model[:4], 16) < self.crashing * 0x10000 or (was_profiled and self.crashing_profiled):
            kept = {key: answer[key] for key in answer if key not in ("samples_ms", "peak_bytes", "load_ms")}
            return {**kept, "kind": "failed", "reason": "crashed", "detail": "its process was killed by SIGSEGV"}
        self.measured.append(model)
        noise = np.random.default_rng(int(model[:8], 16)).normal(0, self.noise if was_profiled else self.noise_of_fresh)
        conditions = {**answer["conditions_after"], "governor": self.governor}
        return {
            **answer,
            "samples_ms": [sample * self.slower * (1 + noise) for sample in answer["samples_ms"]],
            "conditions_before": conditions,
            "conditions_after": conditions,
        }


def _connecting(monkeypatch: pytest.MonkeyPatch, board: Board) -> None:
    def connect(profile: object) -> Device:
        return FakeDevice(board.answer, name="board")

    monkeypatch.setattr("edgenas.profilers.measure.session.connect_device", connect)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """The board that is connected to."""
    found = Board()
    _connecting(monkeypatch, found)
    return found


def _measured(found: list[Measurement | ModelError]) -> Measurement:
    (measurement,) = found
    assert isinstance(measurement, Measurement)
    return measurement


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run with a table from 60 subnets, of which 20 are held out. Do not write to it."""
    with pytest.MonkeyPatch.context() as patch:
        _connecting(patch, Board())
        run = Run(tmp_path_factory.mktemp("runs") / "profiled", _SPACE, progress=Silent())
        with MeasurementStore(run.workspace.measurement_log(_TARGET), _TARGET, SETTINGS) as store:
            taken = [_measured(store.measure_first([file])) for file in _profiled_files()]
        held_out = np.arange(_SUBNETS) % 3 == 2
        taken = [replace(each, taken_s=1e9 + 10 * place) for place, each in enumerate(taken)]  # as on a real board
        genes = _SPACE.sample_distinct(_SUBNETS, np.random.default_rng(0))
        LatencyTable.fit(_SPACE, _TARGET.name, genes, taken, held_out, "test").save(run.folder.table(_TARGET.name))
        yield run.folder.root


@pytest.fixture
def run(profiled: Path, tmp_path: Path) -> Run:
    """A copy of the profiled run."""
    shutil.copytree(profiled, tmp_path / "run")
    return Run(tmp_path / "run", progress=Silent())


@pytest.fixture
def said(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the run says."""
    lines: list[str] = []
    monkeypatch.setattr(run.workspace.progress, "say", lines.append)
    return lines


def _change_holdout(run: Run, **changes: Any) -> None:
    """Change values of the table's holdout report."""
    table = run.table(_TARGET)
    assert table.holdout is not None
    replace(table, holdout=replace(table.holdout, **changes)).save(run.folder.table(_TARGET.name))


def _ids(files: list[str]) -> set[str]:
    """The ids of profiled subnets, by the SHA-256 of their files."""
    genes = _SPACE.sample_distinct(_SUBNETS, np.random.default_rng(0))
    names = [architecture.id for architecture in _SPACE.decode(genes)]
    by_file = dict(zip(map(sha256_hex, _profiled_files()), names, strict=True))
    return {by_file[file] for file in files}


# -- what is measured ----------------------------------------------------------------


def test_anchors_are_subnets_of_the_table(run: Run, board: Board) -> None:
    """Ten of the 40 fitted subnets are measured again, evenly over the time of profiling."""
    check = run.check_table(_TARGET)
    table = run.table(_TARGET)
    assert table.fitted_genes is not None
    rows = [0, 4, 9, 13, 17, 22, 26, 30, 35, 39]  # 0, 39 / 9, 2 * 39 / 9, ..., 39, rounded
    assert check.anchors == tuple(each.id for each in _SPACE.decode(table.fitted_genes[rows]))
    assert _ids([model for model in board.measured if model in _profiled()]) == set(check.anchors)


def test_anchors_have_the_latencies_that_the_table_was_made_from(run: Run, board: Board) -> None:
    """Then is the median of the only process of profiling, now is that of three processes."""
    board.slower = 1.5
    check = run.check_table(_TARGET)
    store = MeasurementStore(run.workspace.measurement_log(_TARGET), _TARGET, SETTINGS)
    files = [write_random_file(_SPACE.from_id(name), format_of(_TARGET)) for name in check.anchors]
    then = [store.first_accepted(sha256_hex(file)) for file in files]
    assert check.anchors_then_ms == pytest.approx([each.median_ms for each in then if each])
    assert check.anchors_now_ms == pytest.approx([1.5 * each for each in check.anchors_then_ms])


def test_anchors_are_measured_again_by_every_check(run: Run, board: Board) -> None:
    """What an earlier check recorded of them says nothing of the device now."""
    first = run.check_table(_TARGET)
    board.measured.clear()
    second = run.check_table(_TARGET)
    assert second.anchors == first.anchors
    again = Counter(model for model in board.measured if model in _profiled())
    assert list(again.values()) == [_PROCESSES] * _ANCHORS


def test_every_check_takes_subnets_that_were_never_measured(run: Run, board: Board) -> None:
    """Neither subnets of the table, held out or not, nor those of an earlier check are used again."""
    known = set(_profiled())
    for number in (1, 2):
        board.measured.clear()
        check = run.check_table(_TARGET)
        fresh = set(board.measured) - known
        assert (check.number, check.now.held_out, len(fresh)) == (number, _FRESH, _FRESH)
        known |= fresh


def test_fresh_subnets_and_anchors_share_rounds(run: Run, board: Board) -> None:
    """One process of each of the 30 is in each of three rounds, so that a change of speed affects all alike."""
    run.check_table(_TARGET)
    count = _FRESH + _ANCHORS
    rounds = [board.measured[begin : begin + count] for begin in range(0, _PROCESSES * count, count)]
    assert len(board.measured) == _PROCESSES * count
    assert [set(each) for each in rounds] == [set(board.measured)] * _PROCESSES


# -- what is concluded ---------------------------------------------------------------


def test_a_device_as_it_was_agrees(run: Run, board: Board) -> None:
    """On the board that the table was made on, fresh subnets have errors like those of the holdout report."""
    check = run.check_table(_TARGET)
    assert check.agrees, check.conclusion
    assert check.conclusion.startswith(
        f"agrees: MAPE is {check.now.mape:.1%}, {check.then.mape:.1%} in the holdout report; the device is as fast as"
    )
    assert check.slower_with_interval == pytest.approx((0, 0, 0), abs=1e-9)
    assert check.now.synthetic
    assert check.then == run.table(_TARGET).holdout
    assert repr(check) == f"TableCheck(1 of {_TARGET.name}, agrees, MAPE {check.now.mape:.1%})"


def test_a_slower_device_is_told_from_a_worse_table(run: Run, board: Board) -> None:
    """Where all subnets became 8% slower alike, the message says so, and the corrected errors are those of then."""
    board.slower = 1.08
    check = run.check_table(_TARGET)
    assert not check.agrees
    assert check.slower_with_interval == pytest.approx((0.08, 0.08, 0.08), abs=1e-6)
    assert check.corrected_mape == pytest.approx(check.then.mape, abs=0.01)
    assert check.now.mape > check.corrected_mape + 0.04
    assert check.conclusion.startswith("disagrees: the device is 8.0% slower than when it was profiled (by 10 subnets")
    assert f", and its drift then was up to {check.tolerance:.1%}; MAPE is {check.now.mape:.1%}, " in check.conclusion
    assert f"; corrected for that, MAPE is {check.corrected_mape:.1%}; cool the device" in check.conclusion


def test_a_faster_device_is_told_too(run: Run, board: Board) -> None:
    """A board that was mended since is faster."""
    board.slower = 0.8
    assert "the device is 20.0% faster than when it was profiled" in run.check_table(_TARGET).conclusion


def test_a_moment_of_a_device_that_drifts_agrees(run: Run, board: Board) -> None:
    """Fresh subnets are of one moment: where the device drifted as much when it was profiled, nothing is amiss."""
    _change_holdout(run, drift=0.04)
    board.slower = 1.06
    check = run.check_table(_TARGET)
    assert check.p_value < 0.05
    assert check.agrees
    assert "the device is 6.0% slower than when it was profiled" in check.conclusion
    # 1.96 * 4%
    assert f", within its drift then (up to 7.8%); corrected for that, MAPE is {check.corrected_mape:.1%}" in (
        check.conclusion
    )


def test_a_moment_of_a_device_that_never_drifted_disagrees(run: Run, board: Board) -> None:
    """The same change of speed is amiss where the device was steady when it was profiled."""
    _change_holdout(run, drift=0.01)
    board.slower = 1.06
    check = run.check_table(_TARGET)
    assert not check.agrees
    assert "and its drift then was up to 2.0%" in check.conclusion


def test_a_table_that_is_wrong_for_fresh_subnets_disagrees(run: Run, board: Board) -> None:
    """Where fresh subnets are off each by itself, and anchors are as fast as ever, speed is not to blame."""
    board.noise_of_fresh = 0.15
    check = run.check_table(_TARGET)
    assert not check.agrees
    assert check.slower_with_interval[0] == pytest.approx(0, abs=1e-9)
    assert check.corrected_mape == pytest.approx(check.now.mape)
    assert check.conclusion.startswith(f"disagrees: MAPE is {check.now.mape:.1%}, {check.then.mape:.1%} in the")
    assert check.conclusion.endswith(", which does not explain the difference; profile again")


# -- what goes wrong -----------------------------------------------------------------


def test_a_table_of_scaled_latencies_is_made_anew_first(run: Run, board: Board) -> None:
    """A table of an earlier version has no digest; checking it would compare scaled with raw latencies."""
    path = run.folder.table(_TARGET.name)
    document = TABLE_SCHEMA.read(path)
    TABLE_SCHEMA.write(path, {**document, "inputs_digest": ""})
    with pytest.raises(UsageError, match=r"make it again, from what is recorded: edgenas profile --run"):
        run.check_table(_TARGET)


def test_subnets_that_the_device_cannot_run_are_left_out(run: Run, board: Board, said: list[str]) -> None:
    """As in profiling, they are named, and the others are compared."""
    board.crashing = 0.25
    check = run.check_table(_TARGET)
    assert 0 < len(said) < 15
    assert all(line.startswith("check     skips ") and ": crashes onnxruntime" in line for line in said)
    assert check.now.held_out + len(check.anchors) == _FRESH + _ANCHORS - len(said)
    assert len(check.anchors) == len(check.anchors_then_ms) == len(check.anchors_now_ms)
    assert not any(name in line for name in check.anchors for line in said)


def test_a_device_that_can_run_hardly_any_subnet_is_an_error(run: Run, board: Board) -> None:
    """Where most fail the runtime is the problem, and its words are the message."""
    board.crashing = 1.0
    with pytest.raises(ModelError, match="crashes onnxruntime"):
        run.check_table(_TARGET)


def test_without_anchors_there_is_no_comparison(run: Run, board: Board, said: list[str]) -> None:
    """Where the device cannot run any subnet of the table now, each is named, and the check ends."""
    board.crashing_profiled = True
    with pytest.raises(
        RunError, match="board-onnxruntime-fp32-1t: cannot run enough of the subnets to check its table"
    ):
        run.check_table(_TARGET)
    assert len(said) == _ANCHORS


def test_rejected_subnets_are_reported(run: Run, board: Board, said: list[str]) -> None:
    """A governor that spoils the measurements is named with its remedy."""
    board.governor = "powersave"
    check = run.check_table(_TARGET)
    (line,) = said
    assert line.startswith("check     30 of 30 subnets are rejected: governor is powersave: run sudo cpupower")
    assert check.now.validity_counts == {"rejected": _PROCESSES * _FRESH}


def _interrupt(run: Run, board: Board) -> dict[str, Any]:
    """Let a check be cut off in its second round; return its plan."""
    board.left = 40  # hello, 30 processes of the first round, 9 of the second
    with pytest.raises(DeviceError, match="the connection was lost"):
        run.check_table(_TARGET)
    board.left = 10_000
    (plan,) = run.folder.check_plan(_TARGET.name, 1).parent.glob("*.plan.json")
    return read_document(plan, "table_check_plan", 3)


def test_an_interrupted_check_goes_on(run: Run, board: Board) -> None:
    """A device that vanishes in the middle loses nothing: the same 30 are measured, three times each."""
    plan = _interrupt(run, board)
    names = [*plan["architectures"], *plan["anchors"]]
    planned = {sha256_hex(write_random_file(_SPACE.from_id(name), format_of(_TARGET))) for name in names}
    assert len(board.measured) == 39
    check = run.check_table(_TARGET)
    assert Counter(board.measured) == dict.fromkeys(planned, _PROCESSES)
    assert (check.number, list(check.anchors), check.now.held_out) == (1, plan["anchors"], _FRESH)
    assert not run.folder.check_plan(_TARGET.name, 1).exists()


def test_an_interrupted_second_check_measures_no_process_twice(run: Run, board: Board) -> None:
    """Anchors that the first check recorded are measured three more times, whenever the second is interrupted."""
    run.check_table(_TARGET)
    board.measured.clear()
    _interrupt(run, board)
    assert run.check_table(_TARGET).number == 2
    assert list(Counter(board.measured).values()) == [_PROCESSES] * (_FRESH + _ANCHORS)


def test_a_plan_for_another_table_is_left(run: Run, board: Board) -> None:
    """A check that was begun before the table was made anew begins again, with subnets that are still fresh."""
    _interrupt(run, board)
    fresh_before = set(board.measured) - _profiled()
    replace(run.table(_TARGET), inputs_digest="anew").save(run.folder.table(_TARGET.name))
    board.measured.clear()
    run.check_table(_TARGET)
    assert len(board.measured) == _PROCESSES * (_FRESH + _ANCHORS)
    assert not set(board.measured) & fresh_before


def test_a_plan_of_an_earlier_edgenas_is_made_anew(run: Run, board: Board) -> None:
    """An interrupted check without anchors cannot go on; it begins again."""
    path = run.folder.check_plan(_TARGET.name, 1)
    write_document(path, "table_check_plan", 2, {"table_sha256": "", "begun_s": 1.5, "architectures": []})
    check = run.check_table(_TARGET)
    assert (check.number, len(check.architectures), len(check.anchors)) == (1, _FRESH, _ANCHORS)


def test_the_file_holds_what_was_found(run: Run, board: Board) -> None:
    """The check's document has its conclusion, its figures and the checked holdout report, but no path of this run."""
    board.slower = 1.08
    check = run.check_table(_TARGET)
    body = read_document(run.folder.check(_TARGET.name, 1), "table_check", 5)
    assert body == json.loads(json.dumps(check.to_dict()))
    assert (body["agrees"], body["conclusion"], body["tolerance"]) == (False, check.conclusion, check.tolerance)
    assert [body["slower"], *body["slower_interval_95"]] == pytest.approx([0.08, 0.08, 0.08])
    assert (body["then"]["errors"], body["now"]["errors"]) == (list(check.then.errors), list(check.now.errors))
    assert str(run.folder.root) not in json.dumps(body)


def test_the_remedy_moves_what_is_recorded_away(run: Run, board: Board) -> None:
    """Recorded measurements are never repeated, so a new table needs them and the old table gone."""
    check = run.check_table(_TARGET)
    for path in (run.folder.measurements(_TARGET.name), run.folder.table(_TARGET.name)):
        assert str(path) in check.remedy
    assert check.remedy.endswith(f"edgenas profile --run {run.folder.root} --device board")


def test_without_a_table_there_is_nothing_to_check(tmp_path: Path) -> None:
    """A target that was never profiled raises an error with the command that profiles it."""
    run = Run(tmp_path / "run", _SPACE, progress=Silent())
    with pytest.raises(RunError, match=r"has no latency table of board-onnxruntime-fp32-1t yet; run: edgenas profile"):
        run.check_table(_TARGET)


def test_the_log_is_read_once(run: Run, board: Board, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning, measuring and comparing share one log: a line that was cut off is said once, also by the next check."""
    log = run.folder.measurements(_TARGET.name)
    log.write_bytes(log.read_bytes()[:-40])
    read_file, read = edgenas.pipeline.measurement_log._read_file, list[Path]()

    def counting(path: Path) -> bytes:
        read.append(path)
        return read_file(path)

    monkeypatch.setattr(edgenas.pipeline.measurement_log, "_read_file", counting)
    run.check_table(_TARGET)
    assert read == [log]
    run.check_table(_TARGET)
    assert read == [log]
    assert said == [f"measure   {log}: ignores its last line, which was cut off while it was written"]


def test_a_published_table_is_not_checked(run: Run) -> None:
    """Of a table that was not measured here nothing can be said."""
    published = replace(run.table(_TARGET), holdout=None, process=None, fitted_genes=None, source="somebody's tables")
    published.save(run.folder.table(_TARGET.name))
    with pytest.raises(UsageError, match=r"is published \(somebody's tables\), not measured here"):
        run.check_table(_TARGET)


@pytest.mark.parametrize("subnets", [9, 1001])
def test_the_number_of_subnets_is_bounded(run: Run, subnets: int) -> None:
    """Fewer than ten say nothing, more than a thousand are another profile."""
    with pytest.raises(UsageError, match=f"subnets must be from 10 to 1000, but got {subnets}"):
        run.check_table(_TARGET, subnets)


def test_a_space_without_fresh_subnets_is_refused(tmp_path: Path, profiled: Path, board: Board) -> None:
    """Where too few subnets are left that were never measured, the message counts them."""
    space = replace(_SPACE, kernel_sizes=(3,), expand_ratios=(3,), depths=(1,))
    run = Run(tmp_path / "run", space, progress=Silent())
    table = Run(profiled, progress=Silent()).table(_TARGET)
    costs, memory = np.ones(len(space.distinct_parts)), MemoryModel.with_unit_costs(space)
    small = replace(table, space=space, part_ms=costs, memory=memory, process=None, fitted_genes=None)
    small.save(run.folder.table(_TARGET.name))
    with pytest.raises(RunError, match=r"needs 20 subnets that were never measured, and 2 were found in a space of 2"):
        run.check_table(_TARGET)


@pytest.fixture
def checking(run: Run) -> Callable[[], int]:
    """How many checks there are."""
    return lambda: len(list(run.folder.check(_TARGET.name, 1).parent.iterdir()))


def test_each_check_has_a_file(run: Run, board: Board, checking: Callable[[], int]) -> None:
    """Checks are kept one beside the other, without their plans."""
    for number in (1, 2):
        run.check_table(_TARGET, 10)
        assert checking() == number


# -- by hand -------------------------------------------------------------------------


def _check(run: Run, **changes: Any) -> TableCheck:
    """A check that agrees, with these values."""
    then = run.table(_TARGET).holdout
    assert then is not None
    values: dict[str, Any] = {
        "number": 1,
        "target": _TARGET.name,
        "then": then,
        "now": then,
        "architectures": ("abc-2",) * 20,
        "device_s": 10.0,
        "p_value": 1.0,
        "corrected_mape": then.mape,
        "corrected_p_value": 1.0,
        "anchors": ("abc-1",) * 10,
        "anchors_then_ms": (1.0,) * 10,
        "anchors_now_ms": (1.0,) * 10,
        "remedy": "move it away",
    }
    return TableCheck(**{**values, **changes})


def test_an_unchanged_speed_is_not_called_faster(run: Run) -> None:
    """What would be printed as 0.0% is no change."""
    check = _check(run, anchors_now_ms=(0.9999,) * 10)
    assert "; the device is as fast as when it was profiled (by 10 subnets" in check.conclusion


def test_the_change_of_speed_by_hand(run: Run) -> None:
    """Of ten ratios of 1.01 to 1.10 the interval ends at the second smallest and the second largest."""
    now = tuple(2 * (1 + percent / 100) for percent in (7, 3, 10, 1, 9, 2, 5, 8, 4, 6))
    check = _check(run, anchors_then_ms=(2.0,) * 10, anchors_now_ms=now)
    # The median of logarithms is the geometric mean of the middle two.
    assert check.slower_with_interval == pytest.approx((sqrt(1.05 * 1.06) - 1, 0.02, 0.09))
    assert (
        "the device is 5.5% slower than when it was profiled (by 10 subnets measured then and now;"
        " 95% interval +2.0% to +9.0%)"
    ) in check.conclusion


@pytest.mark.parametrize(("drift", "tolerance"), [(0.03, 1.959964 * 0.03), (0.2, 0.1)])
def test_the_tolerance_by_hand(run: Run, drift: float, tolerance: float) -> None:
    """A change of speed may be as large as the drift of 95% of moments, but never more than a tenth."""
    then = replace(_check(run).then, drift=drift)
    assert _check(run, then=then).tolerance == pytest.approx(tolerance)


@pytest.mark.parametrize(
    ("p_value", "corrected_p_value", "slower", "agrees"),
    [
        (0.05, 0.001, 0.5, True),  # the errors are those of then, whatever the speed
        (0.049, 0.05, 0.039, True),  # the speed explains them
        (0.049, 0.05, -0.039, True),
        (0.049, 0.05, 0.04, False),  # but it changed too much: 1.96 * 2%
        (0.049, 0.05, -0.04, False),
        (0.049, 0.049, 0.0, False),  # it does not
    ],
)
def test_agreement_by_hand(run: Run, p_value: float, corrected_p_value: float, slower: float, agrees: bool) -> None:
    """The errors are unlikely below 5%, and the speed explains them within the tolerance alone."""
    then = replace(_check(run).then, drift=0.02)
    check = _check(
        run, then=then, p_value=p_value, corrected_p_value=corrected_p_value, anchors_now_ms=(1 + slower,) * 10
    )
    assert check.agrees is agrees
    assert check.conclusion.startswith("agrees: " if agrees else "disagrees: ")


def test_an_unsteady_device_is_not_held_against_the_table(run: Run) -> None:
    """Where the same subnets run at half and double their speed, the check says to repeat it, not to profile."""
    now = tuple(1.5 if number % 2 else 0.9 for number in range(10))
    check = _check(run, p_value=0.001, corrected_p_value=0.001, anchors_then_ms=(1.0,) * 10, anchors_now_ms=now)
    assert check.conclusion.endswith("too unsteady to judge the table: end other programs, check again")


def test_equal_errors_have_a_p_value_of_one() -> None:
    """If all errors are equally large, every division is like the actual one."""
    assert permutation_p_value(np.full(10, -0.03), np.full(10, 0.03)) == 1.0


def test_the_p_value_by_hand() -> None:
    """Three fresh errors above all three known ones: one division in 20 is as bad."""
    found = permutation_p_value(np.array([0.1, -0.2, 0.3]), np.array([0.01, -0.02, 0.03]))
    assert found == pytest.approx(1 / comb(6, 3), abs=0.01)  # the standard deviation is 0.002


def test_only_larger_errors_disagree() -> None:
    """Fresh errors that are smaller than the known ones are no reason to reject them."""
    assert permutation_p_value(np.full(20, 0.01), np.linspace(0.05, 0.1, 40)) == 1.0


def test_errors_of_one_distribution_disagree_as_rarely_as_the_level_says() -> None:
    """Of 100 checks of errors from one distribution about a twentieth has a p-value below 0.05."""
    rng = np.random.default_rng(1)
    draws = rng.normal(0, 0.03, (100, 60))
    below = sum(permutation_p_value(draw[:20], draw[20:]) < 0.05 for draw in draws)
    assert below <= 12  # 5 expected; more than 12 has a probability of 0.1%


@given(fresh=_ERRORS, known=_ERRORS)
def test_the_p_value_is_a_probability_and_reproducible(fresh: list[float], known: list[float]) -> None:
    """It is above 0 and at most 1, the same each time, and does not depend on signs."""
    found = permutation_p_value(np.array(fresh), np.array(known))
    assert 0 < found <= 1
    assert found == permutation_p_value(-np.array(fresh), np.array(known))
