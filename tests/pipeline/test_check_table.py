"""Comparing the holdout report of a latency table with fresh subnets, on a fake board."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgenas.pipeline.measurement_log
import edgenas.pipeline.measurement_store
from edgenas.devices import Device, Target
from edgenas.devices.fake import FakeDevice, Reply, Request, simulate_agent
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import ModelError, RunError, UsageError
from edgenas.files import read_document, sha256_hex
from edgenas.pipeline import Run
from edgenas.pipeline.export_formats import format_of
from edgenas.pipeline.measurement_store import MeasurementStore
from edgenas.pipeline.profile import SETTINGS
from edgenas.pipeline.progress import Silent
from edgenas.profilers import LatencyTable, Measurement
from edgenas.profilers.latency.drift import DRIFTS
from edgenas.profilers.latency.memory import MemoryModel
from edgenas.profilers.latency.table import TABLE_SCHEMA
from edgenas.profilers.measure.reference_model import try_build_reference_model
from edgenas.runtimes import load_runtime
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
_SUBNETS = 60


@dataclass
class Board:
    """Its models take the time that their size says, with ``noise``; ``slower``: all of them by a factor; ``added_ms``:
    that much longer. ``left``: how many lines it answers before it is gone.
    ``crashing``: the shares of models, by their bytes, whose process crashes.
    ``probe_ms``: the time of its CPU's speed probe, where it has one.
    """

    slower: float = 1.0
    added_ms: float = 0.0
    noise: float = _NOISE
    left: int = 10_000
    crashing: float = 0.0
    probe_ms: float | None = None
    measured: int = 0

    def answer(self, request: Request) -> Reply:
        said = simulate_agent(request).stdout.splitlines()
        lines = [self._scaled(json.loads(line), request) for line in said[: self.left]]
        self.left -= len(lines)
        return Reply("".join(json.dumps(line) + "\n" for line in lines), vanishes=len(lines) < len(said))

    def _scaled(self, answer: dict[str, Any], request: Request) -> dict[str, Any]:
        if answer["kind"] != "result":
            return answer
        paths = {model["id"]: model["path"] for model in json.loads(request.stdin)["models"]}
        data = request.files[Path(paths[answer["id"]]).name]
        factor = self.slower
        is_reference = data == try_build_reference_model(load_runtime("onnxruntime"))
        if not is_reference and int(sha256_hex(data)[:4], 16) < self.crashing * 0x10000:
            kept = {key: answer[key] for key in answer if key not in ("samples_ms", "peak_bytes", "load_ms")}
            return {**kept, "kind": "failed", "reason": "crashed", "detail": "its process was killed by SIGSEGV"}
        if not is_reference:
            self.measured += 1
            noise = np.random.default_rng(int(sha256_hex(data)[:8], 16)).normal(0, self.noise)
            factor *= 1 + noise
        samples = [sample * factor + self.added_ms for sample in answer["samples_ms"]]
        probed = {} if self.probe_ms is None else {"probe_ms": [self.probe_ms] * len(samples)}
        return {**answer, "samples_ms": samples, **probed}


def _connecting(monkeypatch: pytest.MonkeyPatch, board: Board) -> None:
    def connect(profile: object) -> Device:
        return FakeDevice(board.answer, name="board")

    monkeypatch.setattr(edgenas.pipeline.measurement_store, "connect_device", connect)


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
        genes = _SPACE.sample_distinct(_SUBNETS, np.random.default_rng(0))
        files = [write_random_file(architecture, format_of(_TARGET)) for architecture in _SPACE.decode(genes)]
        with MeasurementStore(run.workspace.measurement_log(_TARGET), _TARGET, SETTINGS) as measurer:
            taken = measurer.with_drift([_measured(measurer.measure_first([file])) for file in files])
            held_out = np.arange(_SUBNETS) % 3 == 2
            reference = measurer.reference_measurements()
        taken = [replace(each, taken_s=1e9 + 10 * place) for place, each in enumerate(taken)]  # as on a real board
        table = LatencyTable.fit(_SPACE, _TARGET.name, genes, taken, held_out, "test", reference=reference)
        table.save(run.folder.table(_TARGET.name))
        yield run.folder.root


@pytest.fixture
def run(profiled: Path, tmp_path: Path) -> Run:
    """A copy of the profiled run."""
    shutil.copytree(profiled, tmp_path / "run")
    return Run(tmp_path / "run", progress=Silent())


def test_a_device_as_it_was_agrees(run: Run, board: Board) -> None:
    """On the board that the table was made on, fresh subnets have errors like those of the holdout report."""
    check = run.check_table(_TARGET)
    assert check.agrees, check.conclusion
    assert check.conclusion.startswith("agrees: MAPE is ")
    assert (check.number, check.synthetic, len(check.architectures)) == (1, True, 20)
    assert check.reference_now_ms == pytest.approx(check.reference_then_ms)
    ratios = np.array(check.measured_ms) / np.array(check.predicted_ms)
    assert 1 + check.slower == pytest.approx(float(np.median(ratios)), abs=0.01)
    assert check.found.mape == pytest.approx(np.abs(check.found.errors).mean())
    np.testing.assert_allclose(check.found.errors, 1 / ratios - 1)


def test_a_table_of_scaled_latencies_is_made_anew_first(run: Run, board: Board) -> None:
    """A table of an earlier version has no digest; checking it would compare scaled with raw latencies."""
    path = run.folder.table(_TARGET.name)
    document = TABLE_SCHEMA.read(path)
    TABLE_SCHEMA.write(path, {**document, "inputs_digest": ""})
    with pytest.raises(UsageError, match=r"run edgenas profile --run .* first: it uses what is recorded"):
        run.check_table(_TARGET)


def test_every_check_takes_subnets_that_were_never_measured(run: Run, board: Board) -> None:
    """Neither subnets of the table, held out or not, nor those of an earlier check are used again."""
    known = {each.id for each in _SPACE.decode(_SPACE.sample_distinct(_SUBNETS, np.random.default_rng(0)))}
    for number in (1, 2):
        check = run.check_table(_TARGET)
        assert check.number == number
        assert not known & set(check.architectures)
        known |= set(check.architectures)
    assert board.measured == 2 * 20 * 3


def test_a_slower_device_is_told_from_a_worse_table(run: Run, board: Board) -> None:
    """Where all subnets became slower alike, the message says by how much, what is usual, and both figures."""
    board.slower = 1.2
    check = run.check_table(_TARGET)
    assert not check.agrees
    assert check.drift_corrected.agrees_with_holdout
    assert check.slower == pytest.approx(0.2, abs=0.03)
    slower = f"{check.slower:.1%} slower than when it was profiled"
    drifted = f"its drift then was up to {check.tolerance:.1%}"
    assert check.conclusion.startswith(f"disagrees: the device is {slower}, and {drifted}; corrected for that, MAPE")
    assert f"MAPE is {check.drift_corrected.mape:.1%}; cool the device" in check.conclusion


def test_a_faster_device_is_told_too(run: Run, board: Board) -> None:
    """A board that was mended since is faster."""
    board.slower = 0.8
    assert "% faster than when it was profiled" in run.check_table(_TARGET).conclusion


def _change_holdout(run: Run, **changes: Any) -> None:
    """Change values of the table's holdout report."""
    table = run.table(_TARGET)
    assert table.holdout is not None
    replace(table, holdout=replace(table.holdout, **changes)).save(run.folder.table(_TARGET.name))


def _drifting(run: Run, **variances: float) -> None:
    """Let the table's process say that the device usually drifts by these variances, and by no others."""
    table = run.table(_TARGET)
    assert table.process is not None
    process = replace(table.process, variances={**table.process.variances, **dict.fromkeys(DRIFTS, 1e-7), **variances})
    replace(table, process=process).save(run.folder.table(_TARGET.name))


def test_a_moment_of_a_device_that_drifts_agrees(run: Run, board: Board) -> None:
    """Fresh subnets are of one moment: where the device drifts as much, nothing is amiss; where it does not, it is."""
    _drifting(run, **{"drift": 0.04**2})
    board.slower = 1.06
    check = run.check_table(_TARGET)
    assert not check.found.agrees_with_holdout
    assert check.agrees
    assert 1.96 * 0.04 <= check.tolerance <= 0.1
    moment = f"the device is {check.slower:.1%} slower than when it was profiled"
    assert f"{moment}, within its drift then (up to {check.tolerance:.1%})" in check.conclusion
    _drifting(run)
    assert not run.check_table(_TARGET).agrees


def test_a_moment_may_add_to_all(run: Run, board: Board) -> None:
    """What is a large share of small subnets and a small one of large ones is no fault of the table, if it is usual."""
    _drifting(run, **{"drift added": 0.05**2})
    genes = _SPACE.sample(100, np.random.default_rng(1))
    board.added_ms = 0.07 * float(np.median(run.table(_TARGET).latency_ms(genes)))
    check = run.check_table(_TARGET)
    assert not check.found.agrees_with_holdout
    assert check.drift_corrected.agrees_with_holdout
    assert check.agrees, check.conclusion


def test_a_device_of_another_speed_is_slower(run: Run, board: Board) -> None:
    """A CPU whose models are a fifth slower for good is not the one that was profiled, and its speed probe says so."""
    _change_holdout(run, probe_ms=0.003)
    board.slower, board.probe_ms = 1.2, 0.0042
    check = run.check_table(_TARGET)
    assert not check.agrees
    assert check.probe_then_ms == 0.003
    assert check.probe_now_ms == pytest.approx(0.0042)
    assert "% slower than when it was profiled" in check.conclusion


def test_a_table_that_predicts_worse_disagrees(run: Run, board: Board) -> None:
    """Where the subnets are off each by itself, the device's speed is not to blame."""
    board.noise = 0.15
    check = run.check_table(_TARGET)
    assert not check.agrees
    assert not check.drift_corrected.agrees_with_holdout
    assert "and the device's speed does not explain the difference" in check.conclusion
    assert check.conclusion.endswith("profile again")


def test_subnets_that_the_device_cannot_run_are_left_out(
    run: Run, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in profiling: they are named, and the others are compared."""
    board.crashing = 0.25
    said: list[str] = []
    monkeypatch.setattr(run.workspace.progress, "say", said.append)
    check = run.check_table(_TARGET)
    assert 0 < len(said) < 10
    assert all(line.startswith("check     skips ") and ": crashes onnxruntime" in line for line in said)
    assert len(check.architectures) == len(check.measured_ms) == len(check.found.errors) == 20 - len(said)
    assert not any(name in line for name in check.architectures for line in said)


def test_a_device_that_can_run_hardly_any_subnet_is_an_error(run: Run, board: Board) -> None:
    """Where most fail the runtime is the problem, and its words are the message."""
    board.crashing = 1.0
    with pytest.raises(ModelError, match="crashes onnxruntime"):
        run.check_table(_TARGET)


def test_an_interrupted_check_goes_on(run: Run, board: Board) -> None:
    """A device that vanishes in the middle loses nothing: the same subnets are measured, three times each."""
    board.left = 30
    with pytest.raises(Exception, match="the connection was lost"):
        run.check_table(_TARGET)
    plan = run.folder.check_plan(_TARGET.name, 1)
    planned = read_document(plan, "table_check_plan", 2)["architectures"]
    before = board.measured
    assert 20 < before < 30
    board.left = 100
    check = run.check_table(_TARGET)
    assert (check.number, list(check.architectures), board.measured) == (1, planned, 60)
    assert check.reference_now_ms is not None
    assert not plan.exists()


def test_a_plan_for_another_table_is_left(run: Run, board: Board) -> None:
    """A check that was begun before the table was made anew begins again, with subnets that are still fresh."""
    board.left = 30
    with pytest.raises(Exception, match="the connection was lost"):
        run.check_table(_TARGET)
    planned = read_document(run.folder.check_plan(_TARGET.name, 1), "table_check_plan", 2)["architectures"]
    replace(run.table(_TARGET), inputs_digest="anew").save(run.folder.table(_TARGET.name))
    board.left, board.measured = 100, 0
    check = run.check_table(_TARGET)
    assert board.measured == 60
    assert not set(check.architectures) & set(planned)


def test_the_file_holds_what_was_found(run: Run, board: Board) -> None:
    """The check's document has its conclusion, its figures and the checked holdout report, but no path of this run."""
    check = run.check_table(_TARGET)
    body = read_document(run.folder.check(_TARGET.name, 1), "table_check", 4)
    assert body == json.loads(json.dumps(check.to_dict()))
    assert body["agrees"] is True
    assert body["holdout"]["errors"] == list(check.holdout.errors)
    assert str(run.folder.root) not in json.dumps(body)
    assert str(run.folder.measurements(_TARGET.name)) in check.remedy


def test_without_a_table_there_is_nothing_to_check(tmp_path: Path) -> None:
    """A target that was never profiled raises an error with the command that profiles it."""
    run = Run(tmp_path / "run", _SPACE, progress=Silent())
    with pytest.raises(RunError, match=r"has no latency table of board-onnxruntime-fp32-1t yet; run: edgenas profile"):
        run.check_table(_TARGET)


def test_the_log_is_read_once(run: Run, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning, measuring and comparing share one log: a line that was cut off is said once, also by the next check."""
    log = run.folder.measurements(_TARGET.name)
    log.write_bytes(log.read_bytes()[:-40])
    read_file, read, said = edgenas.pipeline.measurement_log._read_file, list[Path](), list[str]()

    def counting(path: Path) -> bytes:
        read.append(path)
        return read_file(path)

    monkeypatch.setattr(edgenas.pipeline.measurement_log, "_read_file", counting)
    monkeypatch.setattr(run.workspace.progress, "say", said.append)
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
