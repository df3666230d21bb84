"""Building a latency table: what is planned, when it ends, and that nothing is lost or measured twice."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgenas.pipeline.profile
from edgenas.devices import Device, DeviceProfile, Target
from edgenas.devices.fake import FakeDevice, Reply, Request, simulate_agent
from edgenas.devices.profile_files import profile_from_dict
from edgenas.devices.ssh.testing import Sshd
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.files import digest_of_inputs, read_document, write_document
from edgenas.pipeline import Run
from edgenas.pipeline.measurement_log import MeasurementLog
from edgenas.pipeline.profile import SETTINGS
from edgenas.pipeline.progress import Bar, Progress, Silent
from edgenas.profilers import LatencyTable, Measurement
from tests.small_run import SPACE

CONNECT = "edgenas.profilers.measure.session.connect_device"
# A process of the fake device takes 0.3 s, so a batch of 20 takes 0.1 minutes: these are two and three batches.
BRIEFLY, LONGER = 0.19, 0.28
KILLED = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from edgenas.devices import Target, load_profile
from edgenas.pipeline import Run
from edgenas.pipeline.progress import Silent

class Deadly(Silent):
    @contextmanager
    def step(self, name, total):
        left = int(sys.argv[3])
        def bar(done, note="", /):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        yield bar

Run(sys.argv[1], progress=Deadly()).profile(Target(load_profile(sys.argv[2])), minutes=0.3)
"""
BOARD = "name: {name}\nconnection: {{kind: fake}}\nruntimes: {{onnxruntime: {{}}}}\ndefault: {{runtime: onnxruntime}}\n"


class Recorder(Silent):
    """Keeps what was said, and calls ``on_bar`` at each sign of progress with how many there were."""

    def __init__(self, on_bar: Callable[[int], None] = lambda count: None) -> None:
        self.said: list[str] = []
        self.notes: list[str] = []
        self._on_bar = on_bar

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Bar]:
        def bar(done: float, note: str = "", /) -> None:
            assert 0 <= done <= total
            self.notes.append(note)
            self._on_bar(len(self.notes))

        yield bar


def board(name: str = "board") -> Target:
    """A device that makes its answers up."""
    profile = {
        "name": name,
        "connection": {"kind": "fake"},
        "runtimes": {"onnxruntime": {}},
        "default": {"runtime": "onnxruntime"},
    }
    return Target(profile_from_dict(profile, "test"))


def open_run(folder: Path, progress: Progress | None = None) -> Run:
    return Run(folder, SPACE, progress=progress or Silent())


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(pattern) if path.is_file()}


def measured(run: Run, name: str | None = None) -> list[bytes]:
    """What the log holds, line by line."""
    return [entry.content for entry in MeasurementLog(run.folder.measurements(name or board().name)).entries]


def batches(run: Run, name: str = "board") -> list[dict[str, list[str]]]:
    body = read_document(run.folder.plan(board(name).name), "profile_plan", 2)
    found: list[dict[str, list[str]]] = body["batches"]
    return found


def count(table: LatencyTable) -> int:
    assert table.holdout is not None
    return table.holdout.fitted + table.holdout.held_out


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a table from two batches. Do not write to it."""
    folder = tmp_path_factory.mktemp("runs") / "profiled"
    open_run(folder).profile(board(), BRIEFLY)
    return folder


@pytest.fixture
def run(profiled: Path, tmp_path: Path) -> Run:
    """A copy of the run with a table."""
    shutil.copytree(profiled, tmp_path / "run")
    return open_run(tmp_path / "run", Recorder())


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a device may be used, nor a file made."""

    def fail(*arguments: object) -> Device:
        raise AssertionError("nothing was to be done")

    monkeypatch.setattr(CONNECT, fail)
    monkeypatch.setattr(edgenas.pipeline.profile, "write_random_file", fail)


# -- what is measured ----------------------------------------------------------------


def test_a_fifth_of_each_batch_is_held_out_and_never_fitted(profiled: Path) -> None:
    """Four of twenty are held out, mixed among the others; the table was fitted to the other sixteen."""
    run = open_run(profiled)
    table = run.table(board())
    assert table.fitted_genes is not None
    fitted = {architecture.id for architecture in SPACE.decode(table.fitted_genes)}
    held_out: set[str] = set()
    for batch in batches(run):
        assert (len(batch["architectures"]), sum(map(bool, batch["held_out"]))) == (20, 4)
        assert batch["held_out"] != sorted(batch["held_out"])
        held_out |= {each for each, out in zip(batch["architectures"], batch["held_out"], strict=True) if out}
    assert (len(fitted), len(held_out)) == (32, 8)
    assert not fitted & held_out


def test_held_out_subnets_are_uniformly_random(profiled: Path) -> None:
    """They are what the space draws at random, whatever else was chosen: the holdout report is about random subnets."""
    drawn = [architecture.id for architecture in SPACE.decode(SPACE.sample(64, np.random.default_rng([1, 0])))]
    (first, _) = batches(open_run(profiled))
    held_out = {each for each, out in zip(first["architectures"], first["held_out"], strict=True) if out}
    assert held_out == set(list(dict.fromkeys(drawn))[:4])


def test_the_holdout_report_has_all_device_time(profiled: Path) -> None:
    """40 subnets, at 0.3 s each."""
    holdout = open_run(profiled).table(board()).holdout
    assert holdout is not None
    assert holdout.device_s == pytest.approx(40 * 0.3)
    assert holdout.synthetic


# -- when it ends --------------------------------------------------------------------


@pytest.mark.usefixtures("no_work")
def test_a_table_that_is_there_is_not_made_again(run: Run) -> None:
    """With the same or fewer minutes the table stays, and progress says from what it is."""
    path = run.folder.table(board().name)
    before = path.read_bytes()
    run.profile(board(), BRIEFLY)
    run.profile(board(), 0.01)
    assert path.read_bytes() == before
    assert isinstance(run.workspace.progress, Recorder)
    assert (
        run.workspace.progress.said[1]
        == f"profile   already done ({board().name}, 40 subnets in 0.2 minutes of device time)"
    )


def test_more_minutes_extend_a_table(run: Run) -> None:
    """A third batch is measured; the first two stay as they were planned and measured."""
    kept, planned = measured(run), batches(run)
    table = run.profile(board(), LONGER)
    assert count(table) == 60
    assert batches(run)[:2] == planned
    assert len(batches(run)) == 3
    after = measured(run)
    assert after[: len(kept)] == kept
    assert len(after) == 60


def test_fewer_minutes_than_are_recorded_use_everything(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the table is gone but three batches are recorded, all three are used without a device, and it says so."""
    longer = run.profile(board(), LONGER)
    run.folder.table(board().name).unlink()
    monkeypatch.setattr(CONNECT, None)
    table = run.profile(board(), BRIEFLY)
    assert np.array_equal(table.part_ms, longer.part_ms)
    assert isinstance(run.workspace.progress, Recorder)
    assert "profile   uses all 60 subnets that are recorded" in run.workspace.progress.said


def test_a_target_error_ends_it_early(tmp_path: Path) -> None:
    """20 held-out subnets are the least that can say so: at 100 in all it ends, long before its minutes."""
    run = open_run(tmp_path / "run", Recorder())
    table = run.profile(board(), 10, target_error=0.5)
    assert count(table) == 100
    assert table.holdout is not None
    assert table.holdout.mape_upper_bound <= 0.5
    assert isinstance(run.workspace.progress, Recorder)
    assert "held-out error 0." in run.workspace.progress.notes[-1]


def test_a_target_error_that_is_not_reached_does_not_matter(run: Run) -> None:
    """The minutes end it then."""
    assert count(run.profile(board(), LONGER, target_error=1e-6)) == 60


@pytest.mark.parametrize("minutes", [0, -1, 1441, float("nan")])
def test_impossible_minutes_are_refused(run: Run, minutes: float) -> None:
    """None, less than none, more than a day."""
    with pytest.raises(UsageError, match="minutes must be above 0 and at most 1440"):
        run.profile(board(), minutes)


@pytest.mark.parametrize("error", [0, 1, -0.1, float("nan")])
def test_an_impossible_target_error_is_refused(run: Run, error: float) -> None:
    """A fraction between none and all."""
    with pytest.raises(UsageError, match=r"target_error must be above 0 and below 1 \(0\.03 is 3%\)"):
        run.profile(board(), 1, target_error=error)


def test_a_space_that_is_too_small_is_refused(tmp_path: Path) -> None:
    """Of a space of 8 networks there is no table, and no device is asked."""
    space = replace(SPACE, kernel_sizes=(3,), expand_ratios=(2,))
    assert space.size == 8
    with pytest.raises(UsageError, match="needs at least 40 networks, but the space has 8"):
        Run(tmp_path / "run", space, progress=Silent()).profile(board(), 1)


def test_a_space_that_is_used_up_ends_it(tmp_path: Path) -> None:
    """All 72 networks are measured once, and that is the table, whatever time is left."""
    space = replace(SPACE, expand_ratios=(2,))
    assert space.size == 72
    run = Run(tmp_path / "run", space, progress=Silent())
    assert count(run.profile(board(), 10)) == 72
    assert len(measured(run)) == 72


# -- nothing is lost, nothing is done twice ------------------------------------------


def test_a_killed_profile_ends_as_if_it_had_never_been(profiled: Path, tmp_path: Path) -> None:
    """Killed in its second batch by SIGKILL: planned, measured and fitted after it are as without, byte for byte."""
    folder, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    profile = tmp_path / "board.yaml"
    profile.write_text(BOARD.format(name="board"))
    open_run(folder)
    command = [sys.executable, "-W", "error", "-c", KILLED, str(folder), str(profile), "28"]
    died = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    run = open_run(folder)
    kept, planned = measured(run), batches(run)
    assert 20 < len(kept) < 40
    table = run.profile(board(), LONGER)
    assert count(table) == 60
    after = measured(run)
    assert after[: len(kept)] == kept
    assert len(after) == 60  # every planned subnet once
    assert batches(run)[: len(planned)] == planned
    again = open_run(unbroken)
    again.folder.target(board().name).mkdir(parents=True)
    shutil.copy(run.folder.measurements(board().name), again.folder.measurements(board().name))
    again.profile(board(), LONGER)
    assert contents(unbroken, "targets/**/*") == contents(folder, "targets/**/*")
    assert len(contents(unbroken, "targets/**/*")) == 3  # the table, its plan, and the log


@pytest.mark.usefixtures("no_work")
def test_a_table_of_scaled_medians_is_made_again_from_what_is_recorded(run: Run) -> None:
    """A table whose digest is from before medians were raw is not kept, and nothing is measured for the new one."""
    table = run.table(board())
    plan = digest_of_inputs(run.space.short_hash, board().to_dict(), SETTINGS.to_dict())
    replace(table, inputs_digest=digest_of_inputs(plan, [])).save(run.folder.table(board().name))
    assert run.profile(board(), BRIEFLY).inputs_digest == table.inputs_digest


@pytest.mark.usefixtures("no_work")
def test_what_is_recorded_needs_neither_device_nor_files(run: Run) -> None:
    """Where only the table is gone it is fitted again from what is planned and recorded, to the same bytes."""
    path = run.folder.table(board().name)
    before = path.read_bytes()
    path.unlink()
    run.profile(board(), BRIEFLY)
    assert path.read_bytes() == before


def test_a_device_that_dies_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It vanishes after seven subnets: they are kept, and the next call measures the other thirteen of the batch."""
    asked: list[int] = []

    def handler(request: Request) -> Reply:
        reply = simulate_agent(request)
        asked.append(reply.stdout.count('"result"'))
        if len(asked) > 1:
            return reply
        lines = reply.stdout.splitlines(keepends=True)
        return Reply("".join(lines[:8]), vanishes=True)  # hello, seven subnets

    monkeypatch.setattr(CONNECT, lambda profile: FakeDevice(handler))
    run = open_run(tmp_path / "run")
    with pytest.raises(DeviceError, match="the connection was lost"):
        run.profile(board(), BRIEFLY)
    kept = measured(run)
    assert len(kept) == 7
    assert len(batches(run)) == 1
    assert count(run.profile(board(), BRIEFLY)) == 40
    after = measured(run)
    assert after[: len(kept)] == kept
    assert len(after) == 40
    assert asked == [20, 13, 20]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": []}, "as many models and held_out as architectures, but has 0 and 20 for 20; move the file away"),
        ({"models": 3}, r"batches\.1\.models: input should be a valid tuple, but got 3"),
        ({"kept": []}, "unknown key 'batches.1.kept'"),
    ],
)
@pytest.mark.usefixtures("no_work")
def test_a_plan_that_makes_no_sense_is_refused(run: Run, change: dict[str, object], message: str) -> None:
    """Of a plan that another program wrote the key and the rule are named, before anything is measured."""
    path = run.folder.plan(board().name)
    body = read_document(path, "profile_plan", 2)
    first, second = body["batches"]
    write_document(path, "profile_plan", 2, {**body, "batches": [first, {**second, **change}]})
    with pytest.raises(UsageError, match=rf"plan\.json: .*{message}"):
        run.profile(board(), LONGER)


def test_a_device_that_hides_its_memory_has_a_table_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an accelerator holds nobody sees: latency is measured, memory counted, and the holdout report says so."""

    def handler(request: Request) -> Reply:
        return Reply(re.sub(r'"peak_bytes": \d+', '"peak_bytes": null', simulate_agent(request).stdout))

    monkeypatch.setattr(CONNECT, lambda profile: FakeDevice(handler))
    run = open_run(tmp_path / "run")
    run.profile(board(), BRIEFLY)
    table = run.table(board())
    assert table.holdout is not None
    assert table.holdout.memory_mape is None
    assert "memory MAPE" in str(table.holdout)
    genes = SPACE.sample(9, np.random.default_rng(0))
    counted = SPACE.activation_bytes(genes) + SPACE.weight_bytes(genes)
    np.testing.assert_allclose(table.peak_bytes(genes), counted)


def failing(which: Callable[[int], bool]) -> Callable[[object], Device]:
    """Connect to a device on which some models crash, by their number in the request."""

    def handler(request: Request) -> Reply:
        answers = [json.loads(line) for line in simulate_agent(request).stdout.splitlines()]
        for answer in answers:
            if answer["kind"] == "result" and which(answer["id"]):
                answer.update(kind="failed", reason="crashed", detail="its process was killed by SIGSEGV")
                del answer["samples_ms"], answer["peak_bytes"], answer["load_ms"]
        return Reply("".join(json.dumps(answer) + "\n" for answer in answers))

    return lambda profile: FakeDevice(handler)


def test_a_subnet_that_the_device_cannot_run_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress names it, the plan notes it, the table is made from the others, and it is not tried again."""
    monkeypatch.setattr(CONNECT, failing(lambda number: number == 3))
    run = open_run(tmp_path / "run", Recorder())
    table = run.profile(board(), BRIEFLY)
    assert isinstance(run.workspace.progress, Recorder)
    failed = [batch["failed"] for batch in batches(run)]
    assert [len(each) for each in failed] == [1, 1, 1]
    assert run.workspace.progress.said[0].startswith(f"profile   skips {failed[0][0]}: crashes onnxruntime")
    assert count(table) == 57
    run.folder.table(board().name).unlink()
    monkeypatch.setattr(CONNECT, None)
    assert np.array_equal(run.profile(board(), BRIEFLY).part_ms, table.part_ms)


def test_a_device_that_can_run_hardly_any_subnet_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most of a batch fails the runtime is the problem, and its words are the message."""
    monkeypatch.setattr(CONNECT, failing(lambda number: number > 5))
    with pytest.raises(ModelError, match="crashes onnxruntime"):
        open_run(tmp_path / "run").profile(board(), BRIEFLY)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill_sessions", "freeze"])
def test_a_connection_that_breaks_costs_nothing(
    fault: str, tmp_path: Path, sshd: Sshd, ssh_profile: DeviceProfile
) -> None:
    """On a real server, cut or frozen in the second batch: what was measured stays, the rest follows, nothing twice."""
    target = Target(ssh_profile)

    def hit(number: int) -> None:
        if number == 26:
            getattr(sshd, fault)()

    run = open_run(tmp_path / "run", Recorder(hit))
    with pytest.raises(DeviceError) as caught:
        run.profile(target, BRIEFLY)
    assert "\n" not in str(caught.value)
    sshd.thaw()
    kept = measured(run, target.name)
    assert 20 < len(kept) < 40
    again = open_run(tmp_path / "run")
    table = again.profile(target, BRIEFLY)
    after = measured(run, target.name)
    assert after[: len(kept)] == kept
    taken = [Measurement.from_dict(json.loads(line)["measurement"]) for line in after]
    assert (
        len({each.model_sha256 for each in taken if not each.is_rejected})
        == count(table)
        == 20 * len(read_document(again.folder.plan(target.name), "profile_plan", 2)["batches"])
    )
    assert len([each for each in taken if not each.is_rejected]) == count(table)


def test_rejected_measurements_are_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first batch, not after ten minutes, a governor that spoils all of them is named with its remedy."""

    def handler(request: Request) -> Reply:
        return Reply(simulate_agent(request).stdout.replace('"governor": null', '"governor": "powersave"'))

    monkeypatch.setattr(CONNECT, lambda profile: FakeDevice(handler))
    run = open_run(tmp_path / "run", Recorder())
    run.profile(board(), BRIEFLY)
    assert isinstance(run.workspace.progress, Recorder)
    (line,) = run.workspace.progress.said
    assert line.startswith(
        "profile   20 of the first 20 measurements are rejected: governor is powersave: run sudo cpupower"
    )


# -- from other targets --------------------------------------------------------------


def test_another_table_makes_ten_subnets_enough(run: Run) -> None:
    """Begun with the board's table, another board's is there after eight fitted and two held out."""
    table = run.profile(board("other"), 0.01, source_tables=[board().name])
    assert table.holdout is not None
    assert (table.holdout.fitted, table.holdout.held_out) == (8, 2)
    assert len(table.source_costs) == 1
    loaded = run.table(board("other"))
    assert np.array_equal(
        loaded.interval_ms(SPACE.sample(9, np.random.default_rng(0))) > 0, np.ones((9, 2), dtype=bool)
    )


def test_another_table_is_named_by_its_file_too(run: Run, profiled: Path) -> None:
    """A table's JSON file of any run of the space does as well as the name of a target in this run."""
    path = open_run(profiled).folder.table(board().name)
    by_name = run.profile(board("other"), 0.01, source_tables=[board().name])
    run.folder.table(board("other").name).unlink()
    assert np.array_equal(run.profile(board("other"), 0.01, source_tables=[path]).part_ms, by_name.part_ms)


def test_a_table_with_and_one_without_another_are_two(run: Run) -> None:
    """What was measured for the one is used for the other, which is fitted anew and measures what it lacks."""
    run.profile(board("other"), 0.01, source_tables=[board().name])
    table = run.profile(board("other"), 0.01)
    assert table.source_costs == ()
    assert count(table) == 50


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bord-onnxruntime-fp32-1t", r"bord-.* is neither .*; did you mean 'board-onnxruntime-fp32-1t'\?"),
        ("no.json", "no.json: is neither a table's JSON file nor a target that .* has a table of"),
        ("other-onnxruntime-fp32-1t", "cannot start from itself; give another target's|is neither"),
    ],
)
def test_an_unknown_table_lists_what_there_is(run: Run, name: str, message: str) -> None:
    """A name without a table, a file that is none, the target's own."""
    with pytest.raises(UsageError, match=message):
        run.profile(board("other"), 0.01, source_tables=[name])


def test_a_target_cannot_begin_with_itself(run: Run) -> None:
    """Its own table would say twice what was measured once."""
    with pytest.raises(UsageError, match="cannot start from itself; give another target's"):
        run.profile(board(), 0.01, source_tables=[board().name])


def test_a_table_of_another_space_is_refused(run: Run, tmp_path: Path) -> None:
    """It is named with both spaces, before anything is measured."""
    other = Run(tmp_path / "another", replace(SPACE, classes=11), progress=Silent())
    other.profile(board(), BRIEFLY)
    with pytest.raises(UsageError, match=r"is of space \w+, not of \w+; give tables of the same space"):
        run.profile(board("other"), 0.01, source_tables=[other.folder.table(board().name)])
