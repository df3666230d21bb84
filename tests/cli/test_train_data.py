"""``edgenas train`` on images of one's own, and the steps that read them later."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from edgenas.data import DataSet
from edgenas.data.image_folder import load_image_folder

Call = Callable[..., tuple[int, str, str]]

SPACE: dict[str, Any] = {
    "family": "mobilenet_v3", "width": 0.25, "resolutions": [12, 16], "classes": 2, "kernel_sizes": [3, 5],
    "expand_ratios": [2, 3], "depths": [1, 2], "stem_stride": 1, "head": [32, 32],
    "stages": [{"width": 32, "stride": 2, "activation": "relu", "se": False}],
}  # fmt: skip
PHASE: dict[str, Any] = {"name": "full", "epochs": 1, "learning_rate": 0.05, "distill": False}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of 40 images each, bright and dark, in a folder of the working directory; synthetic."""
    rng = np.random.default_rng(0)
    for label, low in (("bright", 128), ("dark", 0)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(low, low + 128, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number:02}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


@pytest.fixture
def train(call: Call, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Train a tiny supernet in the run folder ``run`` on what ``data`` says."""

    def run(data: Any, *options: str, batch_size: int = 16) -> tuple[int, str, str]:
        schedule = {"name": "tiny", "batch_size": batch_size, "phases": [PHASE]}
        config = {"space": SPACE, "data": data, "schedule": schedule}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
        return call("train", tmp_path / "config.yaml", "--run", "run", *options)

    return run


def test_a_folder_of_images_is_trained_on_and_evaluated(call: Call, photos: Path, train: Call) -> None:
    """With an augmentation that the config chooses; the recipe holds both, and the digest of the images."""
    augmentation = {"crop": [0.5, 1.0], "flip": True, "randaugment": {"count": 1}, "mixup": 0.2, "erasing": 0.25}
    code, out, err = train({"name": "photos", "augmentation": augmentation}, "--json")
    assert code == 0, err
    recipe = json.loads(out)["data"]
    assert (recipe["name"], recipe["augmentation"]["crop"]) == (str(photos), [0.5, 1.0])
    assert len(recipe["sha256"]) == 64
    code, out, err = call("evaluate", "--run", "run", "--subnets", 10)
    assert code == 0, err


def test_bad_images_are_refused_without_the_flag(photos: Path, train: Call, tmp_path: Path) -> None:
    """One line says which, and how to leave them out; no run folder is made."""
    (photos / "dark/03.png").write_text("no image")
    code, out, err = train("photos")
    assert (code, out) == (2, "")
    assert err.startswith("edgenas: data photos: 1 of 80 images cannot be read: dark/03.png (")
    assert err.endswith("remove or replace them, or leave them out with --skip-bad\n")
    assert not (tmp_path / "run").exists()


def test_weights_to_begin_with_come_before_the_images(photos: Path, train: Call) -> None:
    """A mistyped --from is said before every image of a folder is read."""
    (photos / "dark/03.png").write_text("no image")
    code, _, err = train("photos", "--from", "runs/mistyped")
    assert code == 2
    assert err.startswith("edgenas: runs/mistyped: does not exist; ")


def test_bad_images_are_left_out_with_the_flag(call: Call, photos: Path, train: Call) -> None:
    """A line names them; later steps see the same images, and none once the image was repaired."""
    whole = (photos / "dark/03.png").read_bytes()
    (photos / "dark/03.png").write_text("no image")
    code, _, err = train("photos", "--skip-bad")
    assert code == 0, err
    assert "train     1 of 80 images cannot be read: dark/03.png (" in err
    assert "; they are left out\n" in err
    assert train("photos", "--skip-bad")[0] == 0
    code, _, err = call("evaluate", "--run", "run", "--subnets", 10)
    assert code == 0, err
    (photos / "dark/03.png").write_bytes(whole)
    code, _, err = call("evaluate", "--run", "run", "--subnets", 11)
    assert code == 2
    assert err.endswith(
        "its images or their split are not those of before; put them back as they were, or train in a new run folder\n"
    )


def test_the_data_set_is_loaded_once(photos: Path, train: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all of ``edgenas train``: reading a large folder takes long."""
    loaded: list[Path] = []

    def load(folder: Path, skip_bad: bool) -> DataSet:
        loaded.append(folder)
        return load_image_folder(folder, skip_bad)

    monkeypatch.setattr("edgenas.data.loading.load_image_folder", load)
    assert train("photos")[0] == 0
    assert loaded == [Path("photos")]


def test_a_batch_of_more_images_than_there_are(photos: Path, train: Call, tmp_path: Path) -> None:
    """Is refused before a run folder is made."""
    code, _, err = train("photos", batch_size=128)
    assert (code, err.count("\n")) == (2, 1)
    assert "batch_size must be at most the 64 training images of" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"name": "photos", "augmentation": {"mixupp": 0.2}}, "data: unknown key 'augmentation.mixupp'; did you mean"),
        ({"name": "photos", "augmentation": {"mixup": -1}}, "augmentation: mixup must be from 0 to 10, but got -1"),
        ({"name": "photos", "augmentation": {"turn": 10}}, "files of images need an augmentation with a crop"),
        ({"names": "photos"}, "config.yaml: data: unknown key 'names'; did you mean 'name'"),
        (3, "config.yaml: data"),
        ("photo:load", "data 'photo:load': cannot be imported from"),
    ],
)
def test_a_wrong_value_of_data(photos: Path, train: Call, tmp_path: Path, data: Any, problem: str) -> None:
    """Is one line that names the key, and makes no run folder."""
    code, out, err = train(data)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert problem in err
    assert not (tmp_path / "run").exists()


def test_code_of_ones_own_is_not_taken_from_a_run_folder(
    call: Call, photos: Path, train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function of the working directory is called by every step, but not where somebody else may have put it."""
    (tmp_path / "trained_on.py").write_text(
        "from edgenas.data import DataSet, load_data\n\ndef load() -> DataSet:\n    return load_data('photos')\n"
    )
    code, out, err = train("trained_on:load")
    assert code == 0, err
    assert out.startswith("run: trained on trained_on:load\n")
    code, _, err = call("evaluate", "--run", "run", "--subnets", 10)
    assert code == 0, err
    monkeypatch.chdir(tmp_path / "run")
    code, _, err = call("evaluate", "--run", ".", "--subnets", 11)
    assert (code, err.count("\n")) == (2, 1)
    assert "its data is code, trained_on:load, which is not taken from a run folder" in err


@pytest.mark.slow
def test_from_a_folder_of_photos_to_a_verified_int8_bundle(
    call: Call, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real photos of three classes, one of them damaged: trained, exported as int8, verified, better than chance."""
    monkeypatch.chdir(tmp_path)
    classes, counts = ("airplane", "automobile", "frog"), {"train": 1000, "test": 300}
    with zipfile.ZipFile(data_folder / "cifar10-jpeg.zip") as photos:
        for part, count in counts.items():
            for label in classes:
                names = sorted(name for name in photos.namelist() if f"{part}/{label}/" in f"/{name}")
                for name in [name for name in names if name.endswith(".jpg")][:count]:
                    path = tmp_path / "photos" / part / label / Path(name).name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(photos.read(name))
    path.write_bytes(path.read_bytes()[:200])
    space = {
        **SPACE, "resolutions": [32], "classes": 3, "kernel_sizes": [3], "expand_ratios": [3], "depths": [1],
        "stages": [*SPACE["stages"], {"width": 64, "stride": 2, "activation": "hswish", "se": True}], "head": [96, 128],
    }  # fmt: skip
    phase = {**PHASE, "epochs": 12, "learning_rate": 0.1, "warmup_epochs": 1}
    schedule = {"name": "brief", "batch_size": 32, "phases": [phase]}
    (tmp_path / "photos.yaml").write_text(yaml.safe_dump({"space": space, "data": "photos", "schedule": schedule}))
    code, _, err = call("train", "photos.yaml", "--run", "run", "--skip-bad")
    assert code == 0, err
    assert "1 of 3900 images cannot be read" in err
    code, out, err = call("export", "--run", "run", "--arch", "max", "--precision", "int8", "--out", "ship", "--json")
    assert code == 0, err
    (exported,) = json.loads(out)["bundles"]
    assert exported["card"]["accuracy"]["test"] > 0.7
    code, out, err = call("verify", "ship/onnx-int8.zip")
    assert code == 0, err
