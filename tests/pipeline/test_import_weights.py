"""Runs of released checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgenas.costs import Budget
from edgenas.devices import Target, load_profile
from edgenas.errors import EdgeNASError, FormatError, RunError, UsageError
from edgenas.ofa import Checkpoint, Position, Supernet, load_checkpoint, load_released, save_checkpoint
from edgenas.pipeline import Run, downloads
from edgenas.pipeline.import_weights import import_weights
from edgenas.pipeline.progress import Silent
from edgenas.space import MobileNetV3
from edgenas.space.choices import read_choices

Write = Callable[..., Path]


class Lines(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's run is."""
    return tmp_path / "run"


def import_from(path: Path, folder: Path, **options: Any) -> Run:
    return import_weights(folder, str(path), progress=Silent(), **options)


def test_run_has_the_checkpoints_space_and_weights(released: Write, folder: Path) -> None:
    """The run is of the space that was found, and its supernet has every bit of the file's weights."""
    path = released()
    import_from(path, folder)
    assert Run(folder).space == MobileNetV3(width=0.1, classes=4)
    ours, theirs = (
        load_checkpoint(Run(folder).folder.checkpoint).supernet.state_dict(),
        load_released(path).state_dict(),
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_recipe_says_where_the_weights_come_from(released: Write, folder: Path) -> None:
    """An imported run's recipe is the file's name and checksum, and its training has ended."""
    path = released("some_net.pth")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    assert import_from(path, folder).workspace.recipe == {"imported": "some_net.pth", "sha256": checksum}


def test_which_weights_were_taken_is_said(released: Write, folder: Path) -> None:
    """Of a file with averaged and other weights the import says which it took, and what else there is."""
    path, progress = released(), Lines()
    weights = torch.load(path, weights_only=True)["state_dict"]
    torch.save({"state_dict": weights, "state_dict_ema": weights}, path)
    import_weights(folder, str(path), progress=progress)
    assert progress.said == [f"import    the weights are {path}: state_dict_ema; it also has state_dict"]


def test_importing_again_does_nothing(released: Write, folder: Path) -> None:
    """The same file is not imported twice, whatever it is called by then."""
    path = released()
    import_from(path, folder)
    before = Run(folder).folder.checkpoint.stat().st_mtime_ns
    progress = Lines()
    import_weights(folder, str(path.rename(path.with_name("other.pth"))), progress=progress)
    assert progress.said == ["import    already done (other.pth)"]
    assert Run(folder).folder.checkpoint.stat().st_mtime_ns == before


def test_another_file_is_refused(released: Write, folder: Path) -> None:
    """A run that has weights takes no others of the same space."""
    import_from(released(), folder)
    with pytest.raises(RunError, match=r"already has a supernet, imported from net\.pth, not other\.pth"):
        import_from(released("other.pth", seed=1), folder)


def test_file_of_another_space_is_refused(released: Write, folder: Path) -> None:
    """A run takes no checkpoint of another space."""
    import_from(released(), folder)
    with pytest.raises(RunError, match="is a run of space"):
        import_from(released("other.pth", classes=5), folder)


def test_trained_run_is_refused(released: Write, folder: Path) -> None:
    """A run that was trained is never overwritten."""
    run = Run(folder, MobileNetV3(width=0.1, classes=4))
    trained = Checkpoint(Supernet(run.space), Position(0, 0), {}, {"data": "digits"}, threads=1)
    save_checkpoint(run.folder.checkpoint, trained)
    with pytest.raises(RunError, match=r"already has a supernet, trained, not net\.pth"):
        import_from(released(), folder)


def test_import_goes_on_after_a_kill(released: Write, folder: Path) -> None:
    """A run that has its space but not its weights yet gets them."""
    Run(folder, MobileNetV3(width=0.1, classes=4))
    assert import_from(released(), folder).workspace.recipe["imported"] == "net.pth"


def test_refused_file_makes_no_run(folder: Path, tmp_path: Path) -> None:
    """A file that is no checkpoint leaves no run folder behind."""
    (tmp_path / "net.pth").write_bytes(b"no checkpoint")
    with pytest.raises(FormatError):
        import_from(tmp_path / "net.pth", folder)
    assert not folder.exists()


def test_choices_come_from_a_file(released: Write, folder: Path, tmp_path: Path) -> None:
    """Choices of a JSON file are those of the run's space."""
    choices = tmp_path / "choices.json"
    choices.write_text('{"depths": [3, 4], "resolutions": [96]}')
    space = import_from(released(), folder, choices=read_choices(choices)).space
    assert space == MobileNetV3(width=0.1, classes=4, depths=(3, 4), resolutions=(96,))


def test_misspelt_name(folder: Path) -> None:
    """A name that is neither a file nor official is answered with the nearest official one."""
    with pytest.raises(UsageError, match="did you mean 'ofa_resnet50'"):
        import_weights(folder, "ofa_resnet", progress=Silent())


def test_official_name_is_downloaded(
    released: Write, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An official name is looked for in the cache, and its file imported."""
    name = "ofa_mbv3_d234_e346_k357_w1.0"
    cache = tmp_path / "edgenas" / "checkpoints"
    cache.mkdir(parents=True)
    released().rename(cache / name)
    (cache / f"{name}.sha256").write_text(hashlib.sha256((cache / name).read_bytes()).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert import_weights(folder, name, progress=Silent()).workspace.recipe["imported"] == name


def test_file_goes_before_an_official_name(
    released: Write, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has an official name is imported as it is."""
    released("ofa_resnet50")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "BASE", "http://127.0.0.1:1/")
    assert import_weights(folder, "ofa_resnet50", progress=Silent()).space.family == "mobilenet_v3"


@pytest.mark.parametrize("step", ["evaluate", "choose"])
def test_steps_that_need_images_are_refused(step: str, released: Write, folder: Path) -> None:
    """What needs a data set says that the run was imported and has none."""
    import_from(released(), folder)
    run, target = Run(folder, progress=Silent()), Target(load_profile("localhost"))
    steps: dict[str, Callable[[], object]] = {
        "evaluate": run.evaluate,
        "choose": lambda: run.choose({target: Budget(latency="5ms")}),
    }
    with pytest.raises(RunError, match=r"was imported from net\.pth and has no data set"):
        steps[step]()


def test_training_an_imported_run_is_refused(released: Write, folder: Path) -> None:
    """Imported weights are not trained over."""
    from edgenas.pipeline.train import train

    import_from(released("net.pth", classes=10), folder)
    with pytest.raises(EdgeNASError, match="use another run folder"):
        train(Run(folder, progress=Silent()).workspace, "digits", "shrink-small", 0)


@pytest.mark.slow
def test_imported_run_is_profiled(released: Write, folder: Path) -> None:
    """A latency table needs no data set: an imported run can be profiled."""
    run = import_from(released(), folder, choices={"resolutions": [32]})
    table = run.profile(Target(load_profile("localhost")), minutes=0.01)
    assert (table.latency_ms(run.space.sample(3, np.random.default_rng(0))) > 0).all()


def test_download_that_is_no_checkpoint_is_forgotten(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error page that came in place of a checkpoint leaves neither a file nor a checksum in the cache."""
    page = tmp_path / "ofa_resnet50.pth"
    page.write_text("<html>log in</html>")
    record = tmp_path / ".ofa_resnet50.pth.sha256"
    record.write_text("0")
    monkeypatch.setattr("edgenas.pipeline.import_weights.fetch", lambda name, mirror, progress: page)
    monkeypatch.setattr("edgenas.pipeline.downloads._beside", lambda path, kind: record)
    with pytest.raises(FormatError, match="is no PyTorch checkpoint"):
        import_weights(folder, "ofa_resnet50")
    assert not page.exists()
    assert not record.exists()
