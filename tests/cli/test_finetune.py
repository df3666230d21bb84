"""``finetune``: what it prints, where its subnet is accepted, how it is watched, and wrong input."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.pipeline import Run
from edgenas.pipeline.progress import Silent
from edgenas.pipeline.training_metrics import read_metrics
from tests.small_run import SCHEDULE, SPACE

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained for a few steps. Do not write to it."""
    run = Run(tmp_path_factory.mktemp("runs") / "plain", SPACE, progress=Silent())
    run.train(schedule={**SCHEDULE, "max_steps": 5})
    return run.folder.root


@pytest.fixture
def plain(shared: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(shared, tmp_path / "run"))


def test_where_something_was_chosen_the_next_command_chooses_again(call: Call, plain: Path) -> None:
    """An export before that would ship what was never measured."""
    choice = Run(plain, progress=Silent()).folder.choice("board", "latency-5ms")
    choice.parent.mkdir(parents=True)
    choice.write_text("only its name is read")
    code, out, _ = call("finetune", "--run", plain, "--arch", "min", "--max-steps", 3)
    assert code == 0
    assert out.splitlines()[-1].startswith("next, with the device and the budget of the choice: ")
    assert f"choose --run {plain} ..." in out


def test_a_subnet_is_fine_tuned_shown_and_exported(call: Call, plain: Path, tmp_path: Path) -> None:
    """The id that it prints is that of show and export; status says that it has ended; the second call finds it."""
    code, out, _ = call("finetune", "--run", plain, "--arch", "min", "--max-steps", 3, "--json")
    assert code == 0
    subnet = json.loads(out)
    assert (subnet["began_with"], subnet["images"]) == ("inherited weights", 96)
    code, out, err = call("finetune", "--run", plain, "--arch", "min", "--max-steps", 3)
    assert (code, "already done" in err) == (0, True)
    first, how, following = out.splitlines()
    assert first.startswith(f"{subnet['architecture']}: accuracy {subnet['accuracy_finetuned']:.2%}, with inherited")
    assert how.startswith("trained alone on 96 images (0.091 epochs), from inherited weights, taught by ")
    assert following.endswith(f"export --run {plain} --arch {subnet['architecture']} --out ship")
    line = (
        f"{subnet['architecture']}: accuracy {subnet['accuracy_finetuned']:.2%}, evaluated; fine-tuned from inherited"
    )
    assert line in call("show", subnet["architecture"], "--run", plain)[1]
    assert line in call("show", "min", "--run", plain)[1]
    assert f"{subnet['architecture']}: fine-tuning has ended" in call("status", "--run", plain)[1]
    arguments = ("--run", plain, "--arch", subnet["architecture"], "--out", tmp_path / "ship", "--json")
    code, out, _ = call("export", *arguments)
    assert code == 0
    assert json.loads(out)["architecture"] == subnet["architecture"]
    (checkpoint,) = plain.glob("finetuned/*/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-9])
    code, out, _ = call("status", "--run", plain)
    assert code == 0
    assert f"{subnet['architecture']}: fine-tuning is damaged: {checkpoint}: " in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arch", "chosen"], "has no choice yet; run: "),
        (["--arch", "nonsense"], "'nonsense' is no architecture of this space: its ids begin with "),
        (["--arch", f"{SPACE.smallest.id}+abc"], "'abc' is no name of weights: behind the plus sign, an id has 6"),
        (["--arch", f"{SPACE.smallest.id}+abcdef"], f"has no fine-tuned subnet {SPACE.smallest.id}+abcdef; make one"),
        (["--arch", "min", "--max-steps", 0], "max_steps must be from 1"),
        (["--arch", "min", "--epochs", -1], "epochs must be above 0"),
        (["--arch", "min", "--learning-rate", "nan"], "learning_rate must be above 0"),
        (["--arch", "min", "--device", "tpu"], "device must be one of auto, cpu, cuda, but got 'tpu'"),
        ([], "Missing option '--arch'"),
    ],
)
def test_wrong_use_is_refused_on_one_line(options: list[object], message: str, call: Call, shared: Path) -> None:
    """Exit code 2, what is wrong, and nothing is made."""
    code, out, err = call("finetune", "--run", shared, *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (shared / "finetuned").exists()


def test_status_follows_a_fine_tuning_that_is_killed(call: Call, plain: Path) -> None:
    """Running, then interrupted, with the line that says how it goes on."""
    command = [sys.executable, "-m", "edgenas", "finetune", "--run", str(plain), "--arch", "max", "--epochs", "400"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as training:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            files = list(plain.glob("finetuned/*/metrics.jsonl"))
            if files and len(read_metrics(files[0])) > 1:
                break
            time.sleep(0.1)
        running = json.loads(call("status", "--run", plain, "--json")[1])["finetuned"]
        text = call("status", "--run", plain)[1]
        training.send_signal(signal.SIGKILL)
    (name,) = running
    assert running[name]["state"] == "running"
    assert running[name]["evaluated"]["subnet"] > 0
    assert f"{name}: fine-tuning is running" in text
    out = call("status", "--run", plain)[1]
    assert f"{name}: fine-tuning was interrupted" in out
    options = "--epochs 400 --learning-rate 0.05"
    resumed = f"resume it with: edgenas finetune --run {plain} --arch {name.partition('+')[0]} {options}\n"
    assert resumed in out or "it has no checkpoint yet; the same edgenas finetune command begins it again\n" in out


# Fine-tunes a run with files of at most so many bytes from its fourth step on.
_ON_A_FULL_DISK = """
import resource, signal, sys
import edgenas.ofa.training
from edgenas.errors import EdgeNASError
from edgenas.ofa import Trainer
from edgenas.pipeline import Run
edgenas.ofa.training.CHECKPOINT_SECONDS = 0.0
step = Trainer._train_step
def full(*arguments):
    if arguments[5] == 3:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    return step(*arguments)
Trainer._train_step = full
run = Run(sys.argv[1])
try:
    run.finetune(run.space.smallest, max_steps=8)
except EdgeNASError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_keeps_the_last_checkpoint(call: Call, plain: Path, tmp_path: Path) -> None:
    """One line says so, and the same command ends with the bits of an unbroken fine-tuning."""
    whole = Path(shutil.copytree(plain, tmp_path / "whole"))
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_FULL_DISK, str(plain)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the last checkpoint, at 96 images, is intact, and the same command resumes from it" in done.stderr
    found = []
    for run in (plain, whole):
        assert call("finetune", "--run", run, "--arch", "min", "--max-steps", 8)[0] == 0
        (checkpoint,) = run.glob("finetuned/*/checkpoint.safetensors")
        found.append(checkpoint.read_bytes())
    assert found[0] == found[1]
