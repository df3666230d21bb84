"""Fine-tuned subnets of a run: their ids and files, what uses them, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.errors import FormatError, RunError, UsageError
from edgenas.files import sha256_hex
from edgenas.pipeline import Run
from edgenas.pipeline.choice import Choice, Deployment, MeasuredSubnet, Prediction
from edgenas.pipeline.documents import FINETUNED
from edgenas.pipeline.finetuned import (
    FinetunedSubnet,
    digest_weights,
    find_best_versions,
    load_evaluator,
)
from edgenas.pipeline.import_weights import import_weights
from edgenas.pipeline.prepared_model import prepare
from edgenas.pipeline.progress import Bar, Silent
from edgenas.pipeline.training_metrics import read_metrics
from edgenas.runtimes import ExportFormat
from edgenas.space import Architecture
from tests.small_run import BUDGET, SCHEDULE, SPACE

Write = Callable[..., Path]
STEPS = 30
TUNING: dict[str, Any] = {"max_steps": STEPS, "learning_rate": 0.1}


class Interrupted(Silent):
    """Progress that raises KeyboardInterrupt at the fourth step of training."""

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Bar]:
        left = 4

        def bar(done: float, note: str = "") -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt

        yield bar


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that was trained on digits for a few steps, and has a choice, which is made up. Do not write to it."""
    run = Run(tmp_path_factory.mktemp("runs") / "plain", SPACE, progress=Silent())
    run.train(schedule={**SCHEDULE, "max_steps": 15})
    (architecture,) = SPACE.decode(SPACE.sample(1, np.random.default_rng(0)))
    measured = MeasuredSubnet(0.5, 0.5, 0.1, (0.1, 0.1), None, "unverified", synthetic=True)
    target = run.target("localhost").name
    deployment = Deployment(target, BUDGET, Prediction(0.5, 0.1, 1e6, 0.0), measured, 0.5)
    choice = Choice(architecture, (deployment,), (), (), (), (), "0" * 16)
    choice.save(run.folder.choice(target, "latency-50ms"))
    return run


@pytest.fixture(scope="module")
def tuned(plain: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of it whose choice was fine-tuned for a few steps. Do not write to it."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    shutil.copytree(plain.folder.root, folder)
    run = Run(folder, progress=Silent())
    run.finetune(run.architecture("chosen"), **TUNING)
    return run


@pytest.fixture
def copied(tuned: Run, tmp_path: Path) -> Run:
    """A copy of it that a test may change."""
    shutil.copytree(tuned.folder.root, tmp_path / "run")
    return Run(tmp_path / "run", progress=Silent())


def only(run: Run) -> FinetunedSubnet:
    (subnet,) = run.finetuned()
    return subnet


def own(run: Run) -> Architecture:
    return run.architecture(only(run).architecture)


def test_it_has_an_id_of_its_own_and_says_how_it_was_trained(tuned: Run) -> None:
    """Behind its architecture's id; images, epochs, teacher, and the accuracies of both weights."""
    subnet, inherited = only(tuned), tuned.architecture("chosen")
    assert subnet.architecture.partition("+")[0] == inherited.id
    assert subnet.teacher == tuned.space.largest.at_resolution(inherited.resolution).id
    assert subnet.supernet_sha256 == tuned.workspace.weights_digest
    assert (subnet.began_with, subnet.images, subnet.epochs) == ("inherited weights", STEPS * 32, 0.909)
    assert subnet.accuracy_inherited == tuned.workspace.evaluator(inherited)
    architecture = own(tuned)
    assert subnet.accuracy_finetuned == load_evaluator(tuned.workspace, architecture)(architecture)
    assert subnet.accuracy_finetuned != subnet.accuracy_inherited
    last = read_metrics(tuned.folder.finetuned(subnet.architecture).metrics)[-1]
    assert (last.subnet, last.largest) == (subnet.accuracy_finetuned, None)


def test_the_same_call_finds_it_and_another_makes_another(copied: Run) -> None:
    """Nothing is trained twice; other steps, rates and beginnings have names of their own, all of one architecture."""
    before = {path: path.stat().st_mtime_ns for path in copied.folder.root.rglob("finetuned/*/*")}
    inherited = copied.architecture("chosen")
    assert copied.finetune(inherited, **TUNING) == only(copied)
    assert {path: path.stat().st_mtime_ns for path in copied.folder.root.rglob("finetuned/*/*")} == before
    copied.finetune(inherited, max_steps=1)
    copied.finetune(inherited, max_steps=1, learning_rate=0.5)
    scratch = copied.finetune(inherited, max_steps=1, from_scratch=True)
    assert scratch.began_with == "random weights"
    assert len({each.architecture for each in copied.finetuned()}) == 4
    assert {each.architecture.partition("+")[0] for each in copied.finetuned()} == {inherited.id}


def test_interrupted_it_goes_on_to_the_same_bits(copied: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are those of an unbroken fine-tuning; before, it is no subnet, and the message says how to resume."""
    monkeypatch.setattr("edgenas.ofa.training.CHECKPOINT_SECONDS", 0.0)
    subnet = only(copied)
    folder, name = copied.folder.finetuned(subnet.architecture), subnet.architecture
    expected = {path.name: path.read_bytes() for path in (folder.checkpoint, folder.result)}
    shutil.rmtree(folder.root)
    with pytest.raises(KeyboardInterrupt):
        Run(copied.folder.root, progress=Interrupted()).finetune(copied.architecture("chosen"), **TUNING)
    assert copied.finetuned() == []
    status = copied.finetuning_statuses()[name]
    command = f"--arch {name.partition('+')[0]} --epochs 10 --learning-rate 0.1 --max-steps {STEPS}"
    assert (status.state, status.resumed_by.partition("--arch")[2]) == ("interrupted", command.removeprefix("--arch"))
    with pytest.raises(RunError, match=rf"if interrupted, resume it with: .* finetune --run \S+ {command}$"):
        copied.architecture(name)
    copied.finetune(copied.architecture("chosen"), **TUNING)
    assert {path.name: path.read_bytes() for path in (folder.checkpoint, folder.result)} == expected
    assert copied.finetuning_statuses()[name].state == "finished"


def test_a_damaged_checkpoint_hides_no_other(copied: Run) -> None:
    """Its state says so with the file, and those of the others are told: also where it is no fine-tuning's."""
    subnet = only(copied)
    other = _record(copied, 0.0, "000000")
    path = copied.folder.finetuned(other.architecture).checkpoint
    for data in (path.read_bytes()[:-9], copied.folder.checkpoint.read_bytes()):
        path.write_bytes(data)
        copied.folder.finetuned(other.architecture).result.unlink(missing_ok=True)
        statuses = copied.finetuning_statuses()
        assert (statuses[other.architecture].state, statuses[subnet.architecture].state) == ("damaged", "finished")
        assert statuses[other.architecture].problem.startswith(f"{path}: ")


def test_killed_before_it_was_evaluated_it_is_evaluated(copied: Run) -> None:
    """The trained weights stay as they are, and the result is made again."""
    subnet = only(copied)
    folder = copied.folder.finetuned(subnet.architecture)
    weights = folder.checkpoint.stat().st_mtime_ns
    folder.result.unlink()
    assert copied.finetuning_statuses()[subnet.architecture].state == "interrupted"
    assert copied.finetune(copied.architecture("chosen"), **TUNING) == subnet
    assert folder.checkpoint.stat().st_mtime_ns == weights


def test_its_file_is_another_one(tuned: Run) -> None:
    """Measurements are recorded by a file's digest, so those of the inherited subnet's file prove nothing of it."""
    inherited, finetuned = (
        prepare(tuned.workspace, architecture).build(ExportFormat())
        for architecture in (tuned.architecture("chosen"), own(tuned))
    )
    assert sha256_hex(inherited) != sha256_hex(finetuned)


def test_its_bundle_says_how_it_was_trained(tuned: Run, tmp_path: Path) -> None:
    """The card and its text name the id, how it was trained and both accuracies; the bundle verifies."""
    architecture, subnet, target = own(tuned), only(tuned), tuned.target("localhost")
    bundle = tuned.export(architecture, target, tmp_path / "ship")
    bundle.verify()
    assert bundle.card["architecture"]["id"] == architecture.id
    assert bundle.card["measured"] is None
    described = {
        name: value for name, value in dataclasses.asdict(subnet).items() if name not in ("architecture", "data")
    }
    assert bundle.card["finetuned"] == described
    assert bundle.card["accuracy"]["validation_in_pytorch"] == subnet.accuracy_finetuned
    text = (tmp_path / "ship" / "README.md").read_text()
    assert f'"supernet_sha256": "{subnet.supernet_sha256}", "began_with": "inherited weights"' in text
    plain = tuned.export(architecture.inherited, target, tmp_path / "plain")
    assert plain.card["finetuned"] is None
    assert plain.card["accuracy"]["validation_in_pytorch"] == subnet.accuracy_inherited


@pytest.mark.slow
def test_it_is_chosen_measured_and_shipped(plain: Run, tmp_path: Path) -> None:
    """Where it is far better than all others, choose takes its weights, and the bundle has them and says so."""
    shutil.copytree(plain.folder.root, tmp_path / "run")
    run = Run(tmp_path / "run", progress=Silent())
    (tmp_path / "board.yaml").write_text(
        "{name: board, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
    )
    target = run.target(tmp_path / "board.yaml")
    run.evaluate(12)
    run.profile(target, 0.01)
    run.search([target])
    subnet = run.finetune(SPACE.smallest, epochs=15, learning_rate=0.1)
    assert subnet.accuracy_finetuned > subnet.accuracy_inherited + 0.3
    choice = run.choose({target: BUDGET})
    assert choice.arch.id == subnet.architecture
    (deployment,) = choice.deployments
    assert deployment.measured is not None
    assert deployment.measured.subnet_accuracy == subnet.accuracy_finetuned
    card = run.export(*run.chosen(tmp_path / "board.yaml"), tmp_path / "ship").card
    assert card["architecture"]["id"] == subnet.architecture
    assert card["finetuned"]["weights_sha256"] == subnet.weights_sha256
    assert card["measured"] is not None


def _record(run: Run, gain: float, weights: str = "") -> FinetunedSubnet:
    """Change what the fine-tuning of the choice gained, or make up another one beside it, with a name of weights."""
    real = run.finetuned()[-1]
    name = f"{real.architecture.partition('+')[0]}+{weights}" if weights else real.architecture
    if weights:
        shutil.copytree(run.folder.finetuned(real.architecture).root, run.folder.finetuned(name).root)
    record = dataclasses.replace(real, architecture=name, accuracy_finetuned=real.accuracy_inherited + gain)
    FINETUNED.write(run.folder.finetuned(name).result, dataclasses.asdict(record))
    return record


def test_the_best_version_of_an_architecture_counts(copied: Run) -> None:
    """An architecture has its most accurate own weights where they are no worse, and what they gain."""

    def found() -> tuple[list[str], list[float]]:
        versions, gains = find_best_versions(copied.workspace)
        return [version.id for version in versions], gains.tolist()

    worse = _record(copied, -0.01)
    assert found() == ([], [])
    equal = _record(copied, 0.0)
    assert equal.architecture == worse.architecture
    assert found() == ([equal.architecture], [0.0])
    best = _record(copied, 0.25, "000000")
    _record(copied, 0.125, "111111")
    assert found() == ([best.architecture], [0.25])


def test_a_choice_is_outdated_by_a_new_fine_tuned_subnet(copied: Run, plain: Run) -> None:
    """The digest of all weights is the supernet's as long as there are no others, and changes with each."""
    assert digest_weights(plain.workspace) == plain.workspace.weights_digest
    before = digest_weights(copied.workspace)
    assert before != plain.workspace.weights_digest
    _record(copied, 0.1, "000000")
    assert digest_weights(copied.workspace) != before


def test_subnets_of_other_weights_do_not_count(copied: Run) -> None:
    """After another training of the supernet they are none of the run's."""
    real = only(copied)
    changed = dataclasses.replace(real, supernet_sha256="0" * 64)
    FINETUNED.write(copied.folder.finetuned(real.architecture).result, dataclasses.asdict(changed))
    assert copied.finetuned() == []
    with pytest.raises(RunError, match="has no fine-tuned subnet"):
        copied.architecture(real.architecture)


def test_a_result_of_something_else_is_refused(copied: Run) -> None:
    """One line names the file: of another id, of no id of the space, not intact."""
    real, inherited = only(copied), copied.architecture("chosen")
    folder = copied.folder.finetuned(real.architecture)
    for wrong in (inherited.id, "nonsense"):
        FINETUNED.write(folder.result, dataclasses.asdict(dataclasses.replace(real, architecture=wrong)))
        with pytest.raises(FormatError, match=r"result\.json: .*; move its folder away"):
            copied.finetuned()
    folder.result.write_bytes(folder.result.read_bytes().replace(b"inherited", b"Inherited"))
    with pytest.raises(FormatError, match="is damaged or was edited"):
        copied.finetuned()


def test_only_the_weights_that_were_evaluated_are_used(copied: Run) -> None:
    """Others, of the same architecture too, and a checkpoint that is lost, have neither evaluator nor file."""
    subnet = own(copied)
    checkpoint = copied.folder.finetuned(subnet.id).checkpoint
    other = copied.finetune(copied.architecture("chosen"), **{**TUNING, "learning_rate": 0.05})
    shutil.copy(copied.folder.finetuned(other.architecture).checkpoint, checkpoint)
    with pytest.raises(FormatError, match="has other weights than those that were evaluated"):
        prepare(copied.workspace, subnet)
    checkpoint.unlink()
    with pytest.raises(FormatError, match=r"checkpoint\.safetensors: is missing, .* move its folder away"):
        load_evaluator(copied.workspace, subnet)


def test_what_cannot_be_fine_tuned(tuned: Run, released: Write, tmp_path: Path) -> None:
    """A fine-tuned subnet, an id of another space, no epochs, and a run that has no trained supernet or no images."""
    with pytest.raises(UsageError, match=r"is fine-tuned already; fine-tuning begins with \S+$"):
        tuned.finetune(own(tuned))
    with pytest.raises(UsageError, match="epochs must be above 0"):
        tuned.finetune(tuned.space.smallest, epochs=0)
    with pytest.raises(UsageError, match="learning_rate must be above 0"):
        tuned.finetune(tuned.space.smallest, learning_rate=0.0)
    new = Run(tmp_path / "new", tuned.space, progress=Silent())
    with pytest.raises(RunError, match="has no trained supernet yet"):
        new.finetune(new.space.smallest)
    with pytest.raises(RunError, match=r"has no choice yet; run: .* choose --run"):
        new.architecture("chosen")
    imported = import_weights(tmp_path / "imported", str(released()), {"resolutions": [32]}, progress=Silent())
    with pytest.raises(UsageError, match="is no architecture of this run's space"):
        imported.finetune(tuned.space.smallest)
    with pytest.raises(RunError, match=r"has no data set, which this step needs; give it one \(.*evaluate --run"):
        imported.finetune(imported.space.smallest)
    assert not (imported.folder.root / "finetuned").exists()


def test_several_choices_are_listed(copied: Run) -> None:
    """``chosen`` is the only choice of the run."""
    (path,) = copied.folder.choices(copied.target("localhost").name)
    choice = Choice.load(path, copied.space)
    second = next(each for each in (copied.space.smallest, copied.space.largest) if each != choice.arch)
    dataclasses.replace(choice, arch=second).save(path.with_name("another.json"))
    with pytest.raises(RunError, match=r"has several choices: .*; name one with --arch"):
        copied.architecture("chosen")
