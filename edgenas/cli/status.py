"""``edgenas status``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from edgenas.cli.common import JsonOption, RunOption, print_json, print_lines
from edgenas.shell import format_command

if TYPE_CHECKING:
    from edgenas.pipeline.status import TrainingStatus
    from edgenas.pipeline.training_metrics import TrainingMetrics

EXAMPLE = "Example: edgenas status --run runs/digits"


def command(run: RunOption, json: JsonOption = False) -> None:
    """Show how far a run's training is, and fine-tuning of its subnets."""
    from edgenas.pipeline import Run

    opened = Run(run)
    status, finetunings = opened.status(), opened.finetuning_statuses()
    if json:
        finetuned = {name: asdict(each) for name, each in finetunings.items()}
        print_json({"run": str(run), **asdict(status), "finetuned": finetuned})
        return
    print_lines(f"{run}: imported" if status.state == "imported" else f"{run}: training {_STATES[status.state]}")
    if status.latest is not None:
        print_lines(*_progress_lines(status.latest, is_running=status.state == "running"))
    if status.evaluated is not None:
        smallest, largest, images = status.evaluated.smallest, status.evaluated.largest, status.evaluated.images
        print_lines(f"accuracy  smallest {smallest:.1%}, largest {largest:.1%} on validation, at {images:,} images")
    if status.state in ("finished", "imported"):
        if not opened.folder.evaluated.exists():
            needs_data = status.state == "imported" and not opened.folder.data_source.exists()
            print_lines(f"next: {format_command('evaluate', '--run', run)}{' --data FOLDER' if needs_data else ''}")
    elif status.state == "interrupted":
        print_lines("the edgenas train command that began it resumes it")
    for name, each in finetunings.items():
        print_lines("", *_finetuning_lines(name, each))


_STATES = {
    "not begun": "has not begun",
    "running": "is running",
    "interrupted": "was interrupted",
    "finished": "has ended",
}


def _finetuning_lines(name: str, status: TrainingStatus) -> list[str]:
    if status.state == "damaged":
        return [f"{name}: fine-tuning is damaged: {status.problem}"]
    lines = [f"{name}: fine-tuning {_STATES[status.state]}"]
    if status.latest is not None:
        lines += _progress_lines(status.latest, is_running=status.state == "running")
    if status.evaluated is not None:
        lines.append(f"accuracy  {status.evaluated.subnet:.1%} on validation, at {status.evaluated.images:,} images")
    if status.state == "interrupted":
        begun_again = "it has no checkpoint yet; the same edgenas finetune command begins it again"
        lines.append(f"resume it with: {status.resumed_by}" if status.resumed_by else begun_again)
    return lines


def _progress_lines(latest: TrainingMetrics, *, is_running: bool) -> list[str]:
    speed = f", {latest.images_per_second:.0f} images/s, {format_seconds(latest.seconds_left)} left"
    return [
        f"phase     {latest.phase}, {latest.share:.0%} of the work",
        f"images    {latest.images:,} of {latest.total_images:,}{speed if is_running else ''}",
        f"loss      {latest.loss:.3f}, accuracy {latest.accuracy:.1%} on the latest augmented batch",
    ]


def format_seconds(seconds: float) -> str:
    """Return a time as people say it: 40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
