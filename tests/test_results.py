"""Public results as a user meets them: one line each in a notebook, and files named by plain text."""

from pathlib import Path
from typing import Any

import pytest

import edgenas as en
from edgenas.pipeline.progress import Silent

FAKE = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"


@pytest.fixture(scope="module")
def results(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the steps of a small run and of measurements on a made-up device return, by the name of the type."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "toy.yaml").write_text(FAKE)
    (folder / "model.onnx").write_bytes(bytes(320_000))
    run, here, toy = en.Run(finished, progress=Silent()), en.Target("localhost"), en.Target(str(folder / "toy.yaml"))
    table, (choice,) = run.table(here), run.choices(here)
    (place,) = choice.deployments
    exported = run.export_all(run.space.largest, here, str(folder / "ship"), [en.ExportFormat()])[0]
    explanation = run.explain(here, choice.arch)
    measured = en.measure_models([str(folder / "model.onnx")], toy)
    (result,) = measured.results.values()
    baseline = en.record_baseline(str(folder / "model.onnx"), toy, str(folder / "b.json"))
    found = [
        run, here, here.profile, run.space, choice.arch, run.supernet, run.predictor(), table, table.holdout,
        run.front(here), choice, place, place.predicted, place.measured, place.budget, explanation, explanation.rows[0],
        exported, exported.bundle, exported.bundle.verify(), en.verify_bundle(str(exported.bundle.path)),
        measured, result, result.measurements[0], result.validity, measured.rank()[0], baseline,
        en.check_model(str(folder / "model.onnx"), toy, str(folder / "b.json")), en.check_device(toy)[0],
    ]  # fmt: skip
    return {type(each).__name__: each for each in found}


def test_a_result_is_one_line(results: dict[str, Any]) -> None:
    """No public result fills more than a line of a notebook."""
    assert [text for text in map(repr, results.values()) if "\n" in text or len(text) > 250] == []


@pytest.mark.parametrize("name", ["Front", "LatencyTable", "Choice"])
def test_files_of_a_run_are_named_by_text(results: dict[str, Any], tmp_path: Path, name: str) -> None:
    """What a run holds is saved and read by a path that is text."""
    result = results[name]
    result.save(str(tmp_path / "saved.json"))
    assert repr(type(result).load(str(tmp_path / "saved.json"), results["Run"].space)) == repr(result)


def test_a_baseline_is_named_by_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline is recorded and checked against by a name in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(FAKE)
    (tmp_path / "model.onnx").write_bytes(bytes(320_000))
    en.record_baseline("model.onnx", en.Target("./toy.yaml"), "b.json")
    assert en.check_model("model.onnx", en.Target("./toy.yaml"), "b.json").outcome == "ok"


def test_model_files_are_named_by_text(tmp_path: Path) -> None:
    """Rounds and sessions take the texts of paths."""
    (tmp_path / "toy.yaml").write_text(FAKE)
    (tmp_path / "model.onnx").write_bytes(bytes(320_000))
    target, model = en.Target(tmp_path / "toy.yaml"), str(tmp_path / "model.onnx")
    rounds = en.MeasuringRounds([model], target)
    with en.MeasuringSession(target) as session:
        session.measure(rounds)
        assert len(list(session.iter_measurements([model]))) == 1
    assert isinstance(rounds.outcomes()[0], en.MeasurementResult)
