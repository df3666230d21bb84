"""``train`` and ``status``: a config in a few steps, a training that is watched, killed and resumed, and torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edgenas.pipeline.training_metrics import read_metrics
from tests.small_run import SCHEDULE, SPACE

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The small run's space and schedule on digits."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"space": SPACE.to_dict(), "schedule": SCHEDULE}))
    return path


def test_a_few_steps_go_through_all_phases(call: Call, config: Path, tmp_path: Path) -> None:
    """With --max-steps 2 both phases end, and evaluate works on the result."""
    code, out, _ = call("train", config, "--run", tmp_path / "run", "--max-steps", 2, "--json")
    assert code == 0
    assert json.loads(out)["schedule"]["max_steps"] == 2
    assert [each.phase for each in read_metrics(tmp_path / "run" / "training" / "metrics.jsonl")] == ["full", "all"]
    assert call("evaluate", "--run", tmp_path / "run", "--subnets", 10)[0] == 0


def test_the_whole_schedule_after_a_few_steps_needs_another_run(call: Call, config: Path, tmp_path: Path) -> None:
    """What was cut short is not taken for the whole: one line says what differs."""
    call("train", config, "--run", tmp_path / "run", "--max-steps", 1)
    code, _, err = call("train", config, "--run", tmp_path / "run")
    assert code == 2
    assert "was trained with another --max-steps (1 then, none now); use another run folder or the same values" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-steps", 0], "max_steps must be from 1"),
        (["--device", "tpu"], "device must be one of auto, cpu, cuda, but got 'tpu'"),
    ],
)
def test_wrong_options_are_refused(
    options: list[object], message: str, call: Call, config: Path, tmp_path: Path
) -> None:
    """Wrong use, with what is allowed."""
    code, _, err = call("train", config, "--run", tmp_path / "run", *options)
    assert code == 2
    assert message in err


def test_status_of_a_finished_run(call: Call, finished: Path) -> None:
    """The phase, all images, and the accuracy of the extremes, for people and for machines."""
    code, out, _ = call("status", "--run", finished)
    assert code == 0
    for words in ("training has ended", "all, 100% of the work", "accuracy  smallest "):
        assert words in out
    document = json.loads(call("status", "--run", finished, "--json")[1])
    assert document["state"] == "finished"
    assert document["latest"]["images"] == document["latest"]["total_images"]
    assert 0 < document["evaluated"]["smallest"] <= 1


def test_status_follows_a_training_that_is_killed_and_resumed(call: Call, config: Path, tmp_path: Path) -> None:
    """Running, then interrupted, then finished, and the metrics never go back."""
    run = tmp_path / "run"
    long = {**SCHEDULE, "phases": [{**SCHEDULE["phases"][0], "epochs": 400}]}  # type: ignore[index]
    config.write_text(yaml.safe_dump({"space": SPACE.to_dict(), "schedule": long}))
    command = [sys.executable, "-m", "edgenas", "train", str(config), "--run", str(run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as training:
        deadline = time.monotonic() + 60
        metrics = run / "training" / "metrics.jsonl"
        while not (metrics.exists() and len(read_metrics(metrics)) > 1) and time.monotonic() < deadline:
            time.sleep(0.1)
        running = json.loads(call("status", "--run", run, "--json")[1])
        text = call("status", "--run", run)[1]
        training.send_signal(signal.SIGKILL)
    assert running["state"] == "running"
    assert running["latest"]["seconds_left"] > 0
    assert "images/s" in text
    code, out, _ = call("status", "--run", run)
    assert code == 0
    assert "was interrupted" in out
    assert "resumes it" in out


def test_status_before_training(call: Call, tmp_path: Path) -> None:
    """A folder that is no run is wrong use."""
    code, _, err = call("status", "--run", tmp_path)
    assert code == 2
    assert "is no run folder" in err


def test_tensorboard_files_hold_the_metrics(call: Call, config: Path, tmp_path: Path) -> None:
    """TensorBoard's own reader finds the loss of each epoch and the accuracy of the largest subnet."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    code, _, err = call("train", config, "--run", tmp_path / "run", "--max-steps", 2, "--tensorboard")
    assert code == 0, err
    events = reader.EventAccumulator(str(tmp_path / "run" / "training" / "tensorboard")).Reload()
    images = [event.step for event in events.Scalars("loss")]
    assert images == [each.images for each in read_metrics(tmp_path / "run" / "training" / "metrics.jsonl")]
    assert events.Scalars("largest")


@pytest.mark.slow
def test_torchrun_trains_and_evaluates_with_two_processes(config: Path, tmp_path: Path) -> None:
    """Both processes create the run together; the output is that of one; a second call finds it done."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*torchrun, "-m", "--", "edgenas", *arguments, "--run", str(tmp_path / "run")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("train", str(config)).count("trained on digits") == 1
    assert run("train", str(config)).count("trained on digits") == 1
    assert run("evaluate", "--subnets", "11").count("next: ") == 1
    evaluated = json.loads((tmp_path / "run" / "accuracy" / "evaluated_subnets.json").read_text())
    assert len(evaluated["accuracy"]) == 11


def test_evaluate_says_where_the_predictor_hardly_ranks(
    call: Call, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the least Kendall tau, here one that no predictor has, a line says of how many images the noise is."""
    monkeypatch.setattr("edgenas.cli.evaluate._LEAST_TAU", 2.0)
    code, out, _ = call("evaluate", "--run", finished, "--subnets", 12)
    assert code == 0
    assert "hardly ranks these subnets" in out
    assert "the noise of 360 validation images" in out
