"""A run of version 1 opens, is upgraded, and loses nothing. The run in the zip was made on a real machine."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgenas.pipeline.profile
from edgenas.bundle import Bundle
from edgenas.devices import Device
from edgenas.errors import EdgeNASError, FormatError, RunError
from edgenas.files import canonical_json_bytes, read_document, sha256_hex, write_document
from edgenas.pipeline import Run
from edgenas.pipeline.measurement_log import MeasurementLog
from edgenas.pipeline.profile import SETTINGS
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.run_folder import RunFolder
from edgenas.profilers import Measurement
from edgenas.regression.baseline import Baseline

ZIP = Path(__file__).with_name("run_of_version_1.zip")
TARGET = "localhost-onnxruntime-fp32-1t"
CHECK = f"tables/{TARGET}.check-1.json"
DOTTED = "board-onnxruntime-fp32-2t-cpu0.2"


class Recorder(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def about(self, path: Path) -> str:
        """The only line that names a file."""
        (line,) = (line for line in self.said if f" {path} " in line)
        return line


class KilledError(BaseException):
    """What stops an upgrade as a kill would: nothing catches it."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of version 1. Do not write to it."""
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(folder)
    return folder / "run"


@pytest.fixture
def old(original: Path, tmp_path: Path) -> Path:
    """A copy of the run of version 1."""
    return Path(shutil.copytree(original, tmp_path / "run"))


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a device may be used, nor a file made to measure."""

    def fail(*arguments: object) -> Device:
        raise AssertionError("nothing was to be done")

    monkeypatch.setattr("edgenas.profilers.measure.session.connect_device", fail)
    monkeypatch.setattr(edgenas.pipeline.profile, "write_random_file", fail)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def old_measurements(folder: Path) -> list[dict[str, Any]]:
    """Plain data of the files of version 3, without those of the reference model, in the order of measuring."""
    found = [json.loads(path.read_text()) for path in (folder / "measurements" / TARGET).glob("*.json")]
    return sorted(found, key=lambda each: float(each["taken_s"]))


def as_of_version_3(measurement: Measurement) -> dict[str, Any]:
    """A measurement in the words of version 3, written independently of the upgrade."""
    body = json.loads(json.dumps(measurement.to_dict()))
    assert body.pop("filled_shapes") == {}
    body["verdict"] = body.pop("validity")
    body["verdict"]["status"] = {"valid": "trusted", "rejected": "refused"}.get(
        body["verdict"]["status"], body["verdict"]["status"]
    )
    body["pace_ms"] = body.pop("probe_ms")
    after = body["conditions_after"]
    for new, earlier in (("baseline_probe_ms", "usual_pace_ms"), ("reference_probe_ms", "base_pace_ms")):
        if new in after:
            after[earlier] = after.pop(new)
    found: dict[str, Any] = body
    return found


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a document's body, whatever its version, and write its checksum anew."""
    document = json.loads(path.read_text())
    body = {key: value for key, value in document.items() if key not in ("format", "version", "sha256")}
    change(body)
    write_document(path, document["format"].removeprefix("edgenas."), document["version"], body)


def rename_target(folder: Path, name: str) -> None:
    """Give the run's only target another name, as version 1 had it in the names of its files and folders."""
    for path in sorted(folder.rglob(f"{TARGET}*"), reverse=True):
        path.rename(path.with_name(path.name.replace(TARGET, name)))


# -- what comes through --------------------------------------------------------------


def test_it_opens_and_says_so_once(old: Path) -> None:
    """Opening upgrades the run in one line, after one for its check; opened again there is nothing to do."""
    heard = Recorder()
    run = Run(old, progress=heard)
    check, line = heard.said
    assert check.startswith(f"upgrade   skipped {old / CHECK} (")
    assert line == (f"upgrade   {old}: to the layout of this edgenas, 76 measurements in 1 log; no measurement is lost")
    before = contents(old)
    assert json.loads(before["run.json"])["version"] == 2
    assert Run(old, progress=heard).space == run.space
    assert heard.said == [check, line]
    assert contents(old) == before


def test_it_has_the_layout_of_a_new_run(old: Path) -> None:
    """Every file lies where a new run has it, and the old folders are gone."""
    Run(old, progress=Silent())
    files = {name for name in contents(old) if "/bundles/" not in name}
    assert files == {
        "run.json",
        "data.json",
        "training/checkpoint.safetensors",
        "accuracy/evaluated_subnets.json",
        f"targets/{TARGET}/measurements.jsonl",
        f"targets/{TARGET}/latency_table.json",
        f"targets/{TARGET}/profile_plan.json",
        f"not_upgraded/{CHECK}",
        f"targets/{TARGET}/front.json",
        f"targets/{TARGET}/choices/latency-50ms.json",
    }
    folders = sorted(path.name for path in old.iterdir() if path.is_dir())
    assert folders == ["accuracy", "not_upgraded", "targets", "training"]


def test_the_measurements_are_equal_one_by_one(original: Path, old: Path) -> None:
    """Each process of version 3 is in the log with every number, in the order of measuring, in its series."""
    run = Run(old, progress=Silent())
    entries = MeasurementLog(run.folder.measurements(TARGET)).entries
    before = old_measurements(original)
    assert len(entries) == len(before) == 76
    for entry, document in zip(entries, before, strict=True):
        expected = {key: value for key, value in document.items() if key not in ("format", "version", "sha256")}
        assert as_of_version_3(entry.measurement) == expected
    models = {path.name[:33] for path in (original / "measurements" / TARGET).glob("*.json")}
    assert {f"{each.model_sha256[:24]}-{each.series}" for each in entries} == models


def test_the_reference_model_is_left_out(original: Path, old: Path) -> None:
    """Seven processes of it were measured between the others; they serve nothing now, and their files are removed."""
    references = list((original / "measurements" / TARGET / "reference").glob("*.json"))
    assert len(references) == 7
    run = Run(old, progress=Silent())
    models = {json.loads(path.read_text())["model_sha256"] for path in references}
    assert not models & {each.model_sha256 for each in MeasurementLog(run.folder.measurements(TARGET)).entries}
    assert not (old / "measurements").exists()


def test_a_target_of_which_only_the_reference_model_was_measured_has_no_log(old: Path) -> None:
    """Its first model failed, for example: nothing of it is left."""
    shutil.copytree(old / "measurements" / TARGET / "reference", old / "measurements" / DOTTED / "reference")
    heard = Recorder()
    run = Run(old, progress=heard)
    assert "76 measurements in 1 log;" in heard.said[-1]
    assert not run.folder.target(DOTTED).exists()
    assert not (old / "measurements").exists()


@pytest.mark.usefixtures("no_work")
def test_nothing_is_measured_again(old: Path) -> None:
    """Profiling fits the recorded measurements again, once; evaluating as before is already done."""
    heard = Recorder()
    run = Run(old, progress=heard)
    for _ in range(2):
        run.profile(run.target("localhost"), minutes=0.01)
    run.evaluate(12)
    assert [line.partition(" (")[0] for line in heard.said[2:]] == [
        "profile   already done",
        "evaluate  already done",
    ]


@pytest.mark.usefixtures("no_work")
def test_a_table_is_fitted_again_without_the_device(original: Path, old: Path) -> None:
    """Without its table the run has the same one again, from the upgraded plan and measurements."""
    run = Run(old, progress=Silent())
    target = run.target("localhost")
    fitted = run.profile(target, minutes=0.01)
    run.folder.table(TARGET).unlink()
    again = run.profile(target, minutes=0.01)
    assert np.array_equal(again.part_ms, fitted.part_ms)
    assert again.holdout == fitted.holdout
    assert again.holdout is not None
    plan = read_document(run.folder.plan(TARGET), "profile_plan", 2)
    profiled = {model for batch in plan["batches"] for model in batch["models"]}
    spent_s = [each["device_s"] for each in old_measurements(original) if each["model_sha256"] in profiled]
    assert again.holdout.device_s == pytest.approx(sum(spent_s))


def test_the_other_files_say_what_they_said(original: Path, old: Path) -> None:
    """Table, front, choice and accuracies have their numbers; the bundle is byte for byte what it was."""
    run = Run(old, progress=Silent())
    target = run.target("localhost")

    def before(path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((original / path).read_text())
        return found

    table, holdout = before(f"tables/{TARGET}.json"), run.table(target).holdout
    assert holdout is not None
    assert (holdout.mape, list(holdout.errors)) == (table["certificate"]["mape"], table["certificate"]["errors"])
    assert holdout.validity_counts == {"unverified": 40}
    assert run.table(target).overhead_ms == pytest.approx(table["overhead_ms"], abs=1e-4)
    assert run.front(target).latency_ms.tolist() == before(f"fronts/{TARGET}.json")["latency_ms"]
    (choice,) = run.choices(target)
    chosen = before(f"choices/{TARGET}/latency-50ms.json")["measured"]
    measured = choice.deployments[0].measured
    assert measured is not None
    assert (measured.latency_ms, measured.validity) == (chosen["latency_ms"], chosen["verdict"])
    evaluated = read_document(run.folder.evaluated, "evaluated", 2)
    assert evaluated["accuracy"] == before("accuracy/evaluated.json")["accuracy"]
    bundle = run.folder.bundle(TARGET, choice.arch.id)
    assert contents(bundle) == contents(original / "bundles" / TARGET / choice.arch.id)
    Bundle(bundle).verify()


def test_the_schema_of_tables_is_the_current_one(old: Path) -> None:
    """The upgrade writes the version of latency tables that is read."""
    run = Run(old, progress=Silent())
    document = json.loads(run.folder.table(TARGET).read_text())
    run.table(run.target("localhost")).save(run.folder.table(TARGET))
    saved = json.loads(run.folder.table(TARGET).read_text())
    assert (document["version"], document.keys()) == (saved["version"], saved.keys())


def test_words_of_the_validity_are_translated(old: Path) -> None:
    """What was trusted is valid now, and what was refused rejected, in measurements and in a choice."""
    first, second, *_ = sorted((old / "measurements" / TARGET).glob("*.json"))
    edit(first, lambda body: body["verdict"].update(status="trusted", reasons=[]))
    edit(second, lambda body: body["verdict"].update(status="refused", reasons=["busy: wait"]))
    edit(old / "choices" / TARGET / "latency-50ms.json", lambda body: body["measured"].update(verdict="trusted (x)"))
    run = Run(old, progress=Silent())
    entries = MeasurementLog(run.folder.measurements(TARGET)).entries
    statuses = [entry.measurement.validity.status for entry in entries]
    assert (statuses.count("valid"), statuses.count("rejected")) == (1, 1)
    measured = run.choices(run.target("localhost"))[0].deployments[0].measured
    assert measured is not None
    assert measured.validity == "valid (x)"


def test_a_target_with_dots_in_its_name(old: Path) -> None:
    """Dots in a target's name, as those of CPU numbers, are not taken for a suffix."""
    rename_target(old, DOTTED)
    checks = [f"tables/{DOTTED}.check-{number}.json" for number in (1, 12)]
    shutil.copy(old / checks[0], old / checks[1])
    run = Run(old, progress=Silent())
    assert run.folder.targets_with_table() == [DOTTED]
    assert set(contents(old / "not_upgraded")) == set(checks)
    assert run.folder.plan(DOTTED).exists()
    assert len(MeasurementLog(run.folder.measurements(DOTTED)).entries) == 76
    assert [path.name for path in run.folder.choices(DOTTED)] == ["latency-50ms.json"]
    assert not (old / "tables").exists()


def test_a_check_is_kept_aside(old: Path) -> None:
    """What a check of version 1 compared is not what one compares now: a line says so, with how to repeat it."""
    before = (old / CHECK).read_bytes()
    heard = Recorder()
    run = Run(old, progress=heard)
    assert heard.about(old / CHECK) == (
        f"upgrade   skipped {old / CHECK} (has schema version 3, this edgenas reads 5): kept in not_upgraded;"
        " repeat it with: edgenas profile --check"
    )
    assert contents(old / "not_upgraded") == {CHECK: before}
    assert run.folder.check_numbers(TARGET) == []


def test_a_check_that_was_interrupted_is_kept_aside(old: Path) -> None:
    """Its plan has no anchors, so that it cannot go on; the next check begins anew."""
    place = f"tables/{TARGET}.check-2.plan.json"
    table = old / "tables" / f"{TARGET}.json"
    plan = {"table_sha256": sha256_hex(table.read_bytes()), "begun_s": 1.5, "architectures": ["a", "b"]}
    write_document(old / place, "table_check_plan", 2, plan)
    before = (old / place).read_bytes()
    heard = Recorder()
    run = Run(old, progress=heard)
    assert heard.about(old / place) == (
        f"upgrade   skipped {old / place} (has schema version 2, this edgenas reads 3): kept in not_upgraded;"
        " repeat it with: edgenas profile --check"
    )
    assert contents(old / "not_upgraded")[place] == before
    assert not run.folder.check_plan(TARGET, 2).exists()


def test_bundles_of_a_file_format_stay(old: Path) -> None:
    """Only bundles of targets move."""
    shutil.copytree(old / "bundles" / TARGET, old / "bundles" / "tflite-int8")
    before = contents(old / "bundles" / "tflite-int8")
    run = Run(old, progress=Silent())
    assert contents(old / "bundles") == {f"tflite-int8/{name}": data for name, data in before.items()}
    assert run.folder.bundle(TARGET, "19w5sk-0n0").is_dir()


def test_what_the_user_exported_beside_bundles_stays(old: Path) -> None:
    """Only folders of architectures of this space with a card are bundles of a target; all else keeps its place."""
    bundles = old / "bundles"
    bundle = bundles / TARGET / "19w5sk-0n0"
    for place in (
        "onnx-int8-tensorrt",  # edgenas export --out RUN/bundles
        "my/onnx-fp32",
        "onnx-int8-tensorrt/19w5sk-0n0",
        f"{TARGET}/best",
        f"{TARGET}/aaaaaa-0n0",  # of another space
    ):
        shutil.copytree(bundle, bundles / place, dirs_exist_ok=True)
    (bundles / TARGET / "19w5sk-0n1").mkdir()
    (bundles / TARGET / "19w5sk-0n1" / "model.onnx").write_bytes(b"no card")
    (bundles / "notes.txt").write_text("mine")
    (bundles / "my" / "notes.txt").write_text("mine")
    before = contents(bundles)
    run = Run(old, progress=Silent())
    moved = f"{TARGET}/19w5sk-0n0/"
    assert contents(bundles) == {name: data for name, data in before.items() if not name.startswith(moved)}
    assert [path.name for path in (run.folder.target(TARGET) / "bundles").iterdir()] == ["19w5sk-0n0"]


@pytest.mark.usefixtures("no_work")
def test_search_is_already_done(old: Path) -> None:
    """A front that was current is current after the upgrade."""
    heard = Recorder()
    run = Run(old, progress=heard)
    run.search([run.target("localhost")])
    assert [line.partition(" (")[0] for line in heard.said[2:]] == ["search    already done"]


def test_a_choice_is_read_and_made_again_when_it_is_asked_for(old: Path) -> None:
    """What was chosen without evaluating files first stays to be exported, and is not taken for current."""
    run = Run(old, progress=Silent())
    assert [choice.inputs_digest for choice in run.choices(run.target("localhost"))] == [""]


@pytest.mark.parametrize("name", ["measurements/other", "targets"])
def test_a_link_is_not_followed(old: Path, tmp_path: Path, name: str) -> None:
    """A link among the folders is refused before anything is changed."""
    (tmp_path / "elsewhere").mkdir()
    (old / name).symlink_to(tmp_path / "elsewhere")
    before = contents(old)
    with pytest.raises(RunError, match=f"{name}: is a link, which a run folder may not hold"):
        Run(old, progress=Silent())
    assert contents(old) == before


def test_results_that_were_not_current_stay_so(old: Path) -> None:
    """A front with another digest keeps it."""
    edit(old / f"fronts/{TARGET}.json", lambda body: body.update(made_from="0123456789abcdef"))
    run = Run(old, progress=Silent())
    target = run.target("localhost")
    assert run.front(target).inputs_digest == "0123456789abcdef"


def test_a_picture_moves(old: Path) -> None:
    """The picture of a front lies beside it."""
    (old / "fronts" / f"{TARGET}.png").write_bytes(b"a picture")
    assert Run(old, progress=Silent()).folder.picture(TARGET).read_bytes() == b"a picture"
    assert not (old / "fronts").exists()


def test_what_is_no_part_of_a_run_stays(old: Path) -> None:
    """A file of the user's in an old folder is neither moved nor removed."""
    notes = [old / "measurements" / TARGET / "notes.txt", old / "tables" / "notes.txt"]
    for path in notes:
        path.write_text("mine")
    Run(old, progress=Silent())
    assert [path.read_text() for path in notes] == ["mine", "mine"]
    assert not list((old / "measurements").rglob("*.json"))


def test_a_run_that_measured_nothing_yet(old: Path) -> None:
    """A run with its training alone is upgraded, too."""
    for name in ("measurements", "tables", "fronts", "choices", "bundles", "accuracy"):
        shutil.rmtree(old / name)
    heard = Recorder()
    Run(old, progress=heard)
    assert "0 measurements in 0 logs" in heard.said[0]
    assert set(contents(old)) == {"run.json", "data.json", "training/checkpoint.safetensors"}


# -- what goes wrong -----------------------------------------------------------------


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], bool]:
    """Open a run and stop it before its N-th change of a file; says whether it came so far."""

    def opening(folder: Path, number: int) -> bool:
        left = number
        with monkeypatch.context() as patch:

            def counting(name: str) -> None:
                change = getattr(Path, name)

                def counted(path: Path, *arguments: Any, **options: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left == 0:
                        raise KilledError
                    return change(path, *arguments, **options)

                patch.setattr(Path, name, counted)

            for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
                counting(name)
            try:
                Run(folder, progress=Silent())
            except KilledError:
                return True
            return False

    return opening


def test_a_killed_upgrade_is_completed(original: Path, tmp_path: Path, killed: Callable[[Path, int], bool]) -> None:
    """Killed at any change of a file, and again at the next, it comes to the same bytes as one that was not."""
    whole = Path(shutil.copytree(original, tmp_path / "whole"))
    Run(whole, progress=Silent())
    expected = contents(whole)
    number, points = 1, 0
    while True:
        folder = Path(shutil.copytree(original, tmp_path / f"killed-{number}"))
        if not killed(folder, number):
            break
        killed(folder, 2 + number // 2)
        Run(folder, progress=Silent())
        assert contents(folder) == expected, number
        assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
        shutil.rmtree(folder)
        points += 1
        number += 1 if number < 40 else 7
    assert points > 45


def test_temporary_files_of_a_killed_upgrade_are_removed(old: Path) -> None:
    """What was converted before a kill is removed, and a file that was being written in there, too."""
    temporary = old / ".upgrade-x.edgenas-tmp" / "targets" / TARGET
    temporary.mkdir(parents=True)
    (temporary / ".measurements.jsonl.1.edgenas-tmp").write_bytes(b"half")
    (temporary / "front.json").write_bytes(b"{}")
    Run(old, progress=Silent())
    assert not list(old.rglob("*.edgenas-tmp"))


def test_an_upgraded_log_is_not_written_again(old: Path, killed: Callable[[Path, int], bool]) -> None:
    """Killed while old files are removed, the next opening removes the rest and leaves the logs as they are."""
    assert killed(old, 70)
    run_document = json.loads((old / "run.json").read_text())
    assert (run_document["version"], run_document["upgrade"]) == (2, "remove")
    left = len(list((old / "measurements").rglob("*.json")))
    assert 0 < left < 83
    log = old / "targets" / TARGET / "measurements.jsonl"
    before = log.read_bytes()
    Run(old, progress=Silent())
    assert log.read_bytes() == before
    assert len(MeasurementLog(log).entries) == 76


def test_a_damaged_measurement_is_named(old: Path) -> None:
    """Nothing is changed, and without the file that is named the run opens with all others."""
    path = next((old / "measurements" / TARGET).glob("*.json"))
    path.write_bytes(path.read_bytes()[:-100])
    before = contents(old)
    for _ in range(2):
        with pytest.raises(FormatError) as caught:
            Run(old, progress=Silent())
        assert str(caught.value) == (
            f"{path}: is damaged (not JSON); move it away and open the run again"
            f" (if others of {path.parent} are like it, move that folder away)"
        )
        assert contents(old) == before
    path.unlink()
    run = Run(old, progress=Silent())
    assert len(MeasurementLog(run.folder.measurements(TARGET)).entries) == 75


def test_a_measurement_of_version_2_is_named(old: Path) -> None:
    """There is no upgrade from there: it is refused with its version."""
    path = next((old / "measurements" / TARGET).glob("*.json"))
    path.write_text(path.read_text().replace('"version": 3', '"version": 2'))
    message = rf"{path.name}: has schema version 2, this edgenas reads 5.*if others of {path.parent} are like it, move"
    with pytest.raises(FormatError, match=message):
        Run(old, progress=Silent())


@pytest.mark.parametrize(
    ("place", "step"),
    [
        (f"fronts/{TARGET}.json", "edgenas search"),
        (f"choices/{TARGET}/latency-50ms.json", "edgenas choose"),
        (CHECK, "edgenas profile --check"),
        (f"tables/{TARGET}.json", "edgenas profile"),
    ],
)
def test_what_can_be_made_again_is_skipped(old: Path, place: str, step: str) -> None:
    """A damaged front, choice, check or table is kept in not_upgraded; a line names the command that makes it again."""
    (old / place).write_text("{")
    heard = Recorder()
    run = Run(old, progress=heard)
    assert heard.about(old / place) == (
        f"upgrade   skipped {old / place} (is damaged (not JSON)): kept in not_upgraded; repeat it with: {step}"
    )
    assert heard.said[-1].endswith("76 measurements in 1 log; no measurement is lost")
    assert not (old / place).exists()
    kept = contents(old / "not_upgraded")
    assert (set(kept), kept[place]) == ({place, CHECK}, b"{")
    assert run.folder.targets_with_table() == ([] if place == f"tables/{TARGET}.json" else [TARGET])


def test_a_published_table_that_cannot_be_used_is_kept(old: Path) -> None:
    """Without measurements a table can only be imported again; its file may be the only copy."""
    shutil.copy(old / "tables" / f"{TARGET}.json", old / "tables" / "phone.json")
    edit(old / "tables" / "phone.json", lambda body: body.update(space="other"))
    before = (old / "tables" / "phone.json").read_bytes()
    heard = Recorder()
    Run(old, progress=heard)
    line = heard.about(old / "tables" / "phone.json")
    assert "tables/phone.json (is of space other, not of " in line
    assert line.endswith("): kept in not_upgraded; repeat it with: edgenas import --tables")
    assert (old / "not_upgraded" / "tables" / "phone.json").read_bytes() == before
    assert not (old / "targets" / "phone").exists()


@pytest.mark.parametrize(
    ("place", "change", "reason"),
    [
        (f"choices/{TARGET}/latency-50ms.json", lambda body: body["measured"].pop("verdict"), "lacks what version 1"),
        (f"choices/{TARGET}/latency-50ms.json", lambda body: body.pop("budget"), "has no 'budget'"),
        (f"choices/{TARGET}/latency-50ms.json", lambda body: body.update(measured=7), "lacks what version 1"),
        (f"fronts/{TARGET}.json", lambda body: body.pop("made_from"), "has no 'inputs_digest'"),
        (
            f"fronts/{TARGET}.json",
            lambda body: body.update(accuracy=["x"]),
            "values.accuracy.0: input should be a valid num",
        ),
        (f"tables/{TARGET}.json", lambda body: body.pop("certificate"), "has no 'holdout'"),
    ],
)
def test_a_document_without_a_key_is_skipped(
    old: Path, place: str, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    """A document with a checksum and nonsense is skipped as a damaged one."""
    edit(old / place, change)
    heard = Recorder()
    Run(old, progress=heard)
    assert heard.about(old / place).startswith(f"upgrade   skipped {old / place} ({reason}")
    assert (old / "not_upgraded" / place).exists()


@pytest.mark.parametrize(("body", "message"), [({}, "has no 'space'"), ({"space": [1]}, "must be a mapping")])
def test_a_run_without_a_space_is_refused(old: Path, body: dict[str, Any], message: str) -> None:
    """A run.json without its key, or with something else there, is refused in one line, and nothing is changed."""
    write_document(old / "run.json", "run", 1, body)
    before = contents(old)
    with pytest.raises(FormatError, match=rf"run\.json: .*{message}"):
        Run(old, progress=Silent())
    assert contents(old) == before


@pytest.mark.parametrize("place", [f"tables/{TARGET}.plan.json", "accuracy/evaluated.json", "run.json"])
def test_what_costs_work_is_named_and_stays(old: Path, place: str) -> None:
    """A damaged plan or evaluation is refused by name, and nothing is changed."""
    (old / place).write_text("{")
    before = contents(old)
    with pytest.raises(FormatError, match=r"is damaged \(not JSON\); move it away"):
        Run(old, progress=Silent())
    assert contents(old) == before


def test_a_killed_upgrade_leaves_no_log_of_a_folder_that_is_gone(
    old: Path, killed: Callable[[Path, int], bool]
) -> None:
    """What a killed conversion wrote is removed by the next, also where its old files were moved away since."""
    number = 1
    while not list(old.glob("targets/*/measurements.jsonl")):
        assert killed(old, number)
        number += 1
    assert json.loads((old / "run.json").read_text())["version"] == 1
    notes = old / "targets" / "notes.txt"
    notes.write_text("mine")
    for name in ("measurements", "tables", "fronts", "choices", "bundles"):
        shutil.rmtree(old / name)
    Run(old, progress=Silent())
    assert set(contents(old)) == {
        "run.json",
        "data.json",
        "training/checkpoint.safetensors",
        "accuracy/evaluated_subnets.json",
        "targets/notes.txt",
    }


@pytest.mark.usefixtures("no_work")
def test_a_table_that_cannot_be_used_is_fitted_again(old: Path) -> None:
    """A table that this edgenas cannot read is skipped, and made again from its measurements."""
    edit(old / "tables" / f"{TARGET}.json", lambda body: body["inferred"]["latency_ms"].pop())
    heard = Recorder()
    run = Run(old, progress=heard)
    line = heard.about(old / "tables" / f"{TARGET}.json")
    assert ".json (posterior: latency_ms must have a number for each" in line
    assert line.endswith("kept in not_upgraded; repeat it with: edgenas profile")
    assert run.folder.targets_with_table() == []
    assert run.profile(run.target("localhost"), minutes=0.01).holdout is not None


def test_while_another_process_writes_it_waits(old: Path) -> None:
    """Under another's lock nothing is upgraded."""
    before = contents(old)
    with RunFolder(old).writing(), pytest.raises(RunError, match="another edgenas command is writing this run"):
        Run(old, progress=Silent())
    assert contents(old) == before


def test_a_folder_that_cannot_be_written_is_one_line(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be removed ends the upgrade with one line; the next opening completes it."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(EdgeNASError, match=r"cannot be upgraded \(Permission denied\); make it writable") as caught:
            Run(old, progress=Silent())
    assert "\n" not in str(caught.value)
    assert len(MeasurementLog(Run(old, progress=Silent()).folder.measurements(TARGET)).entries) == 76


# -- documents of an older version -----------------------------------------------------


def test_a_baseline_of_version_3_loads(original: Path) -> None:
    """A baseline that an older edgenas recorded has its measurements, with every number."""
    path = original.with_name("baseline.json")
    before = json.loads(path.read_text())["measurements"]
    baseline = Baseline.load(path)
    assert [as_of_version_3(each) for each in baseline.measurements] == before
    assert len(before) == 12


def test_a_measurement_of_version_3_loads(original: Path) -> None:
    """A measurement's file of an older edgenas loads as it was."""
    path = next((original / "measurements" / TARGET).glob("*.json"))
    document = json.loads(path.read_text())
    assert as_of_version_3(Measurement.load(path))["samples_ms"] == document["samples_ms"]


def test_an_upgrade_goes_step_by_step(tmp_path: Path) -> None:
    """From version 1 to 3 by two functions; a version without one is refused, and so is a newer one."""
    path = tmp_path / "x.json"
    upgrades = {
        1: lambda body: {"b": body["a"] + 1},
        2: lambda body: {"c": body["b"] * 10},
    }
    write_document(path, "x", 1, {"a": 1})
    assert read_document(path, "x", 3, upgrades) == {"c": 20}
    write_document(path, "x", 2, {"b": 1})
    assert read_document(path, "x", 3, upgrades) == {"c": 10}
    write_document(path, "x", 3, {"c": 1})
    assert read_document(path, "x", 3, upgrades) == {"c": 1}
    for version, message in ((0, "has schema version 0, this edgenas reads 3"), (4, "upgrade edgenas")):
        write_document(path, "x", version, {"a": 1})
        with pytest.raises(FormatError, match=message):
            read_document(path, "x", 3, upgrades)
    write_document(path, "x", 1, {"a": 1})
    with pytest.raises(FormatError, match="has schema version 1, this edgenas reads 3"):
        read_document(path, "x", 3, {1: upgrades[1]})
    with pytest.raises(FormatError, match="has schema version 1, this edgenas reads 3"):
        read_document(path, "x", 3)


def test_an_upgrade_of_another_body_is_refused(tmp_path: Path) -> None:
    """A file with a checksum that lacks what its version has is refused by name."""
    path = tmp_path / "x.json"
    bodies: list[dict[str, Any]] = [{}, {"a": {}}, {"a": []}]
    for body in bodies:
        write_document(path, "x", 1, body)
        with pytest.raises(FormatError, match=r"x\.json: (has no 'a'|lacks what version 1 of edgenas\.x has)"):
            read_document(path, "x", 2, {1: lambda body: {"b": body["a"]["b"]}})


def test_an_upgraded_document_was_checked_first(tmp_path: Path) -> None:
    """The checksum of an older version is held against its own body."""
    path = tmp_path / "x.json"
    write_document(path, "x", 1, {"a": 1})
    path.write_text(path.read_text().replace('"a": 1', '"a": 2'))
    with pytest.raises(FormatError, match="its checksum does not match"):
        read_document(path, "x", 2, {1: dict})


def test_the_key_of_a_series_is_what_it_was(original: Path, old: Path) -> None:
    """The key that names a series is made from what version 1 made it from, so that its measurements are found."""
    target = Run(old, progress=Silent()).target("localhost")
    described = [target.to_dict(), target.profile.connection.kind, target.profile.python, SETTINGS.to_dict()]
    key = sha256_hex(canonical_json_bytes(described))[:8]
    assert len(list((original / "measurements" / TARGET).glob(f"*-{key}-*.json"))) == 40
