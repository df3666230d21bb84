"""The guides' commands, run as they are written."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from edgenas.bundle import Bundle
from edgenas.devices.ssh.testing import Sshd
from edgenas.export import build_onnx, random_weights
from edgenas.ofa import SCHEDULES
from edgenas.pipeline import Run
from edgenas.pipeline.measurement_log import MeasurementLog
from edgenas.pipeline.progress import Silent
from edgenas.space import MobileNetV3

GUIDES = Path(__file__).parents[1] / "docs" / "guides"
Type = Callable[..., subprocess.CompletedProcess[str]]


def blocks(guide: str, language: str = "sh") -> list[list[str]]:
    """The lines of each block in a language, by default of commands, in a guide."""
    text = (GUIDES / guide).read_text()
    return [block.partition("```")[0].splitlines() for block in text.split(f"```{language}\n")[1:]]


@pytest.fixture
def board(loopback: Sshd, tmp_path: Path) -> Iterator[Sshd]:
    """A machine whose python3 has no packages at all, not even pip, and whose home folder is empty."""
    home = tmp_path / "home"
    home.mkdir()
    venv.create(home / "system", with_pip=False)
    server = Sshd(tmp_path / "sshd")
    path = f"{home}/system/bin:/usr/bin:/bin"
    config = server.folder / "sshd_config"
    config.write_text(config.read_text().replace("SetEnv ", f"SetEnv HOME={home} PATH={path} "))  # one line only counts
    with server:
        yield server


@pytest.fixture
def person(board: Sshd, tmp_path: Path) -> Type:
    """Somebody who can log in to it as ``board``, and never has: runs commands in a folder with a model file."""
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("no ssh client is installed here; install openssh-client")
    folder, config = tmp_path / "work", tmp_path / "ssh_config"
    (tmp_path / "bin").mkdir()
    folder.mkdir()
    config.write_text(
        f"Host board\n HostName 127.0.0.1\n Port {board.port}\n IdentityAgent none\n"
        f" IdentityFile {board.folder}/client_key\n UserKnownHostsFile {tmp_path}/known_hosts\n"
    )
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(ssh)} -F {shlex.quote(str(config))} "$@"\n')
    wrapper.chmod(0o755)
    smallest = MobileNetV3(width=0.1, resolutions=(32,), classes=4).smallest
    (folder / "model.onnx").write_bytes(build_onnx(smallest, random_weights(smallest)))
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    def run(command: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(command.replace("pi@", f"{board.user}@"))
        assert program == "edgenas"
        return subprocess.run(
            [sys.executable, "-m", "edgenas", *arguments],
            cwd=folder, env=environment, input=answer, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_a_new_board_is_measured_in_four_commands(person: Type, tmp_path: Path) -> None:
    """From ssh to a measurement with its validity: new, setup, check, measure, on a board with nothing installed."""
    (new, setup, check, measure), *others = blocks("profile_a_device.md")
    done = person(new, answer="y\n")
    assert done.returncode == 0, done.stderr
    assert "shows the ssh-ed25519 key SHA256:" in done.stdout
    before = person(check)
    assert (before.returncode, "FAILED" in before.stdout) == (1, True), before.stdout + before.stderr
    assert "edgenas device setup my-board" in before.stdout
    done = person(setup)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / ".cache" / "edgenas" / "venv" / "bin" / "python").exists()
    done = person(check)
    assert done.returncode == 0, done.stdout
    assert "next: edgenas measure MODEL --device my-board" in done.stdout
    done = person(measure)
    assert done.returncode == 0, done.stderr
    assert "validity" in done.stdout
    again = [line for block in others for line in block if line.endswith(("trust my-board", "--offline"))]
    assert [person(line).returncode for line in again] == [0, 0]


def _run_here(line: str, folder: Path) -> str:
    """Run a command of a guide in a folder, short, and return its output."""
    done = subprocess.run(_shorten(line), cwd=folder, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout


def _shorten(line: str) -> list[str]:
    steps = ["--max-steps", "150"]
    short = {"train": steps, "finetune": steps, "evaluate": ["--subnets", "12"], "profile": ["--minutes", "0.02"]}
    program, command, *arguments = shlex.split(line)
    assert program == "edgenas"
    return [sys.executable, "-m", "edgenas", command, *arguments, *short.get(command, [])]


def _kill_in_the_middle(line: str, folder: Path, metrics: str) -> None:
    """Begin a training of a guide and kill it when its metrics have three epochs."""
    with subprocess.Popen(_shorten(line), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 600
        while running.poll() is None and time.monotonic() < deadline:
            if sum(len(path.read_bytes().splitlines()) for path in folder.glob(metrics)) > 3:
                break
            time.sleep(0.1)
        running.kill()
    assert running.returncode == -signal.SIGKILL


def _extract_photos(data_folder: Path, folder: Path, classes: Sequence[str], count: int) -> None:
    """Make a folder with so many real photos of each class."""
    with zipfile.ZipFile(data_folder / "cifar10-jpeg.zip") as archive:
        for name in classes:
            (folder / name).mkdir(parents=True)
            members = [each for each in archive.namelist() if f"train/{name}/" in each and each.endswith(".jpg")]
            for member in members[:count]:
                (folder / name / Path(member).name).write_bytes(archive.read(member))


def _write_digits(folder: Path) -> None:
    """Make a folder with the 1,797 scanned digits as images: told apart easily, so that int8 keeps their classes."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype(np.uint8)).resize((32, 32)).save(path)


@pytest.mark.slow
def test_a_folder_of_images_becomes_a_verified_int8_bundle(data_folder: Path, tmp_path: Path) -> None:
    """The guide's commands in its order, on three classes of photos, from training to an intact bundle."""
    _extract_photos(data_folder, tmp_path / "photos", ("cat", "frog", "ship"), 300)
    example = GUIDES.parents[1] / "examples" / "image_folder.yaml"
    config = yaml.safe_load(example.read_text())
    config["space"] |= {"width": 0.35, "resolutions": [32]}  # the example's, smaller
    (tmp_path / "photos.yaml").write_text(yaml.safe_dump(config))
    lines = [line for block in blocks("train_on_your_images.md") for line in block]
    outputs = [_run_here(line, tmp_path) for line in lines]
    assert [line.split()[1] for line in lines[-2:]] == ["export", "verify"]
    assert "intact" in outputs[-1]
    assert "int8" in outputs[-1]


@pytest.mark.slow
def test_fashion_mnist_is_trained_as_its_example_says(data_folder: Path, tmp_path: Path) -> None:
    """A few steps of each phase on the real images, from a local copy in the cache."""
    raw = tmp_path / "cache" / "edgenas" / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (data_folder / "FashionMNIST" / "raw").glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    example = GUIDES.parents[1] / "examples" / "fashion_mnist.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "edgenas", "train", example, "--run", "runs/fm", "--max-steps", "3"],
        cwd=tmp_path, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trained on fashion_mnist" in done.stdout


@pytest.mark.slow
def test_what_became_slower_is_found(tmp_path: Path) -> None:
    """The guide's networks, commands, profile and Python lines: 7x7 kernels are blamed, and two devices compared."""
    guide = "find_what_became_slower.md"
    make, in_python = ("\n".join(block) for block in blocks(guide, "python"))
    (profile,) = ("\n".join(block) for block in blocks(guide, "yaml"))
    (two_models,), (two_devices,) = blocks(guide)
    (tmp_path / "device_profiles").mkdir()
    path = tmp_path / "device_profiles" / "new-runtime.yaml"
    path.write_text(profile.replace("~/venvs/new/bin/python", sys.executable))

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-c", make)
    out = run("-m", *shlex.split(two_models))
    assert "shapes: 48x1x3x3 -> 48x1x7x7" in out
    assert "placement: no operator moved" in out
    assert "new-runtime (onnxruntime" in run("-m", *shlex.split(two_devices))
    *changes, left = run("-c", in_python).splitlines()
    assert (len(changes), left) == (3, "False")
    assert "'shapes'" in changes[0]


@pytest.mark.slow
def test_released_weights_become_a_verified_bundle(data_folder: Path, tmp_path: Path) -> None:
    """The guide's commands on a checkpoint in the reference's format: adapted, searched, one subnet fine-tuned.

    Fine-tuning is killed once. The bundle has the better of the subnet's weights in int8, measured. On the checkpoint's
    own classes nothing is trained.
    """
    reference = data_folder / "ofa" / "reference" / "mbv3_w0.35.pth"
    arguments = json.loads(reference.with_suffix(".json").read_text())["args"]
    _write_digits(tmp_path / "photos")
    same_classes, others, alone = blocks("use_released_weights.md")
    (config,) = blocks("use_released_weights.md", "yaml")
    settings = yaml.safe_load("\n".join(config))
    settings["space"] |= {"width": arguments["width_mult"], "resolutions": [32], "classes": 10}
    settings["data"] = {"name": settings["data"], "augmentation": {"crop": [0.9, 1.0]}}
    # The checkpoint was hardly trained, so that the few steps of this test need a higher rate than the guide's.
    phase = dataclasses.replace(SCHEDULES["adapt-small"].phases[0], epochs=20, learning_rate=0.1)
    settings["schedule"] = dataclasses.replace(SCHEDULES["adapt-small"], name="longer", phases=(phase,)).to_dict()
    (tmp_path / "adapted.yaml").write_text(yaml.safe_dump(settings))
    outputs = [_run_here(line.replace("FILE", str(reference)), tmp_path) for line in others]
    assert "trained on" in outputs[0]
    finetune = next(line for line in alone if line.startswith("edgenas finetune"))
    for line in alone:
        if line == finetune:
            _kill_in_the_middle(line, tmp_path, "runs/adapted/finetuned/*/metrics.jsonl")
        outputs.append(_run_here(line, tmp_path))
    assert "intact" in outputs[-1]
    run = Run(tmp_path / "runs" / "adapted", progress=Silent())
    (subnet,), card = run.finetuned(), Bundle(tmp_path / "ship" / "onnx-int8").card
    chosen = run.architecture("chosen")
    assert card["architecture"]["id"] == chosen.id
    # Which of its weights are chosen is decided by the accuracies of the int8 files.
    assert (card["finetuned"] is not None) == (chosen.id == subnet.architecture)
    assert subnet.images == 150 * 64
    assert card["measured"]["processes"] >= 6
    log = MeasurementLog(next(run.folder.targets.glob("*int8*")) / "measurements.jsonl")
    assert {entry.measurement.model_sha256 for entry in log.entries[-6:]} == {card["model_sha256"]}
    # Images in as many folders as the reference has classes stand for those that it was trained on.
    folder, photos = tmp_path / "same classes", sorted((tmp_path / "photos").rglob("*.png"))[::5]
    for number, path in enumerate(photos):
        label = folder / "photos" / f"{number % arguments['n_classes']:02}"
        label.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, label / f"{number}.png")
    outputs = [_run_here(line.replace("FILE", str(reference)), folder) for line in same_classes]
    assert "Kendall tau" in outputs[-1]


@pytest.mark.slow
def test_a_network_is_picked_in_a_run(finished: Path, tmp_path: Path) -> None:
    """The commands of the guide run as they are written, where the demo's run is a small one and the board is here."""
    shutil.copytree(finished, tmp_path / "runs" / "demo")
    (tmp_path / "device_profiles").mkdir()
    (tmp_path / "device_profiles" / "my-board.yaml").write_text(
        "name: my-board\nconnection: {kind: local}\nruntimes: {onnxruntime: {}}\ndefault: {runtime: onnxruntime}\n"
    )
    lines = [line for block in blocks("pick_for_a_budget.md") for line in block if "runs/demo" in line]
    outputs = {line: _run_here(line, tmp_path) for line in lines}
    assert (tmp_path / "front.csv").exists()
    assert (tmp_path / "front.png").exists()
    choices = [out for line, out in outputs.items() if " choose " in line]
    several_targets, only_int8, two_devices, predicted = choices
    assert "the best of each target within the budget" in several_targets
    assert "on localhost-onnxruntime-int8-1t\n" in only_int8
    assert "regret: the best subnet of each device used on the others" in two_devices
    assert "PREDICTED only" in predicted
    for out in (several_targets, two_devices):
        for line in re.findall("^next: (?:.* -m )?(edgenas .*)$", out, re.MULTILINE):
            assert "/model." in _run_here(line, tmp_path)


def test_a_network_is_picked_from_imported_tables(data_folder: Path, tmp_path: Path) -> None:
    """The guide's command for imported tables runs as it is written, after those of the guide that imports them."""
    files = data_folder / "ofa"
    tables = f"--tables {files / 'note10'} --predictor {files / 'acc_predictor.pth'} --device note10"
    _run_here(f"edgenas import {tables} --space mobilenet_v3 --width 1.2 --run runs/phone", tmp_path)
    (line,) = [line for block in blocks("pick_for_a_budget.md") for line in block if "runs/phone" in line]
    out = _run_here(line, tmp_path)
    assert "for latency 20.0 ms on note10-published-fp32-1t, PREDICTED only" in out


def test_the_problem_of_the_guide_is_searched() -> None:
    """The first Python example of the guide runs as it is written."""
    text = (GUIDES / "pick_for_a_budget.md").read_text().split("```python\n")[1].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "'params': " in done.stdout
