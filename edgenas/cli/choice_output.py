"""What ``edgenas choose`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgenas.cli.common import format_peak_bytes, print_lines, print_table
from edgenas.shell import format_command
from edgenas.units import format_bytes, format_ms, format_ms_interval

if TYPE_CHECKING:
    from edgenas.devices import Target
    from edgenas.pipeline import Run
    from edgenas.pipeline.choice import Choice, Deployment, Regret


def print_choice(run: Run, choice: Choice, targets: Mapping[str, Target]) -> None:
    """Print a choice: what it takes on each device, what was tried, the other targets, and what to do next."""
    _print_deployments(choice)
    for deployment in choice.deployments:
        if deployment.measured is not None:
            where = f" on {deployment.target}" if len(choice.deployments) > 1 else ""
            print_lines(f"validity{where}: {deployment.measured.validity}")
    if not choice.is_measured:
        print_lines(
            "PREDICTED: nothing was evaluated or measured. Accuracy is the subnet's in float32, and the best of many"
            " predictions is optimistic; a file of lower precision may lose some."
        )
    else:
        print_lines(
            f"tried: {len(choice.evaluated)} files run on the validation images, {len(choice.rejected)} candidates"
            " rejected before"
        )
    for rejected in choice.rejected:
        print_lines(f"  {rejected.architecture} on {rejected.target}: {rejected.reason}")
    if len(choice.considered) > len(choice.deployments):
        _print_targets(choice)
    if choice.regret:
        _print_regret(choice)
    _print_next(run, choice, targets)


def _print_deployments(choice: Choice) -> None:
    rows = []
    for each in choice.deployments:
        predicted, measured = each.predicted, each.measured
        between = f" ± {1.96 * predicted.accuracy_std:.2%}" if predicted.accuracy_std else ""
        accuracy, latency_ms = f"{predicted.accuracy:.2%}{between}", format_ms(predicted.latency_ms)
        rows.append((each.target, "predicted", accuracy, "", latency_ms, "", format_bytes(predicted.peak_bytes)))
        if measured is not None:
            test = "" if each.test_accuracy is None else f"{each.test_accuracy:.2%}"
            memory = format_peak_bytes(measured.peak_bytes)
            interval = format_ms_interval(measured.interval_ms)
            rows.append(
                ("", "measured", f"{measured.accuracy:.2%}", test, format_ms(measured.latency_ms), interval, memory)
            )
            if measured.tail_ms is not None and measured.tail_interval_ms is not None:
                interval = format_ms_interval(measured.tail_interval_ms)
                rows.append(("", f"p{each.budget.percentile}", "", "", format_ms(measured.tail_ms), interval, ""))
    made_up = " SYNTHETIC" if any(each.measured and each.measured.synthetic for each in choice.deployments) else ""
    columns = ("target", "", "validation accuracy", "test accuracy", "latency", "95% interval", "peak memory")
    places = " and ".join(f"{each.budget} on {each.target}" for each in choice.deployments)
    predicted_only = "" if choice.is_measured else ", PREDICTED only"
    print_table(columns, rows, f"{choice.arch} for {places}{made_up}{predicted_only}", texts=2)


def _print_targets(choice: Choice) -> None:
    rows = [
        (
            each.target,
            each.architecture or "",
            "" if each.accuracy is None else f"{each.accuracy:.2%} {'file' if each.is_evaluated else 'predicted'}",
            "" if each.latency_ms is None else _format_latency(each.latency_ms, each.is_measured),
            each.outcome,
        )
        for each in choice.considered
    ]
    print_lines("")
    columns = ("target", "its best", "validation accuracy", "latency", "outcome")
    print_table(columns, rows, "the best of each target within the budget", texts=2)


def _format_latency(latency_ms: float, is_measured: bool) -> str:
    return f"{format_ms(latency_ms)} {'measured' if is_measured else 'predicted'}"


def _print_regret(choice: Choice) -> None:
    rows = [
        (
            each.best_on or "all: chosen",
            each.architecture,
            each.device,
            each.target,
            f"{each.accuracy:.2%}",
            _format_latency(each.latency_ms, each.is_measured),
            _describe_regret(each),
        )
        for each in choice.regret
    ]
    print_lines("")
    columns = ("best for", "subnet", "used on", "target", "accuracy", "latency", "regret")
    print_table(columns, rows, "regret: the best subnet of each device used on the others", texts=4)


def _describe_regret(regret: Regret) -> str:
    return "breaks the budget" if regret.lost is None else f"{100 * regret.lost:.2f} points lost"


def _print_next(run: Run, choice: Choice, targets: Mapping[str, Target]) -> None:
    from edgenas.runtimes import is_runtime

    if not choice.is_measured and not run.folder.checkpoint.exists():
        return  # imported tables have no weights to export
    for deployment in choice.deployments:
        target = targets[deployment.target]
        if not is_runtime(target.runtime):
            continue  # a device of imported tables, for which edgenas writes no files
        options = f"--device {target.cli_name}{_format_export_options(target)} --out {_out(choice, deployment)}"
        command = format_command("export", "--run", run.folder.root, "--arch", choice.arch)
        print_lines(f"next: {command} {options}")


def _out(choice: Choice, deployment: Deployment) -> str:
    return "ship" if len(choice.deployments) == 1 else f"ship/{deployment.target}"


def _format_export_options(target: Target) -> str:
    """Return the options of export that name the target's file format, where they are not the defaults."""
    from edgenas.pipeline.export_formats import format_of
    from edgenas.runtimes import ExportFormat

    export_format = format_of(target)
    options = f" --format {export_format.format}" if export_format.format != ExportFormat().format else ""
    named = (
        export_format.precision == ExportFormat().precision
        or export_format.precision != target.profile.default.precision
    )
    return options if named else f"{options} --precision {export_format.precision}"
