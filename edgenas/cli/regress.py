"""The commands of ``edgenas regress``: the latency gate."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from edgenas.cli import regress_compare
from edgenas.cli.common import (
    DeviceOption,
    InputsOption,
    JsonOption,
    PrecisionOption,
    RuntimeOption,
    ShapeOption,
    ThreadsOption,
    print_json,
    print_lines,
    print_table,
)
from edgenas.errors import EdgeNASError, InterruptedByUserError, UsageError
from edgenas.shell import format_command

if TYPE_CHECKING:
    from edgenas.regression.checks import CheckReport, CheckRequest
    from edgenas.regression.report_files import ReportFiles


class _NothingDoneError(Exception):
    """All checks failed."""


app = typer.Typer(help="Guard a model's latency, memory and size in CI.", no_args_is_help=True)

_SAMPLES = ("measurements", "rejected")


@app.command("record", epilog="Example: edgenas regress record kws.onnx --device my-board -o baselines/kws.json")
def record(
    model: Annotated[Path, typer.Argument(help="An ONNX or TFLite file, or a bundle.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The baseline's file.", show_default=False)],
    device: DeviceOption = "localhost",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    inputs: InputsOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a model and write the baseline of later checks, with a copy of the model beside it."""
    from edgenas.devices import load_profile
    from edgenas.pipeline.progress import Progress
    from edgenas.profilers import ModelInputs
    from edgenas.regression import record_baseline

    given = ModelInputs.parse(shape or [], inputs)
    with Progress().step("record", 1) as bar:
        baseline = record_baseline(
            model,
            load_profile(device),
            out,
            runtime=runtime,
            precision=precision,
            threads=threads,
            inputs=given,
            on_process=lambda done, total: bar(done / total),
        )
    kept, *weights = baseline.list_kept_files(out)
    options = {"--device": device, "--runtime": runtime, "--precision": precision, "--threads": threads}
    words = [word for option, value in options.items() if value is not None for word in (option, value)]
    check = format_command("regress", "check", model, "--baseline", out, *words, *given.cli_words)
    if json:
        result = {key: value for key, value in baseline.result.to_dict().items() if key not in _SAMPLES}
        print_json({"baseline": str(out), "model": str(kept), "target": dict(baseline.target), **result})
        return
    print_lines(
        f"{out}: {baseline.result.summary}",
        f"{kept}: the model, which checks measure again beside the new one; commit {'all' if weights else 'both'}",
        *(f"{each}: weights of the model" for each in weights),
        *([] if baseline.anchor else ["no anchor was measured, so checks need that copy of the model"]),
        *([] if baseline.operators is not None else ["the runtime lists no operators, so checks do not compare them"]),
        f"next: {check}",
    )


@app.command("check", epilog="Example: edgenas regress check kws.onnx --baseline baselines/kws.json --device my-board")
def check(
    model: Annotated[
        Path, typer.Argument(help="An ONNX or TFLite file, a bundle, or a YAML file of checks.", show_default=False)
    ],
    baseline: Annotated[Path | None, typer.Option(help="The baseline's file.", show_default=False)] = None,
    device: Annotated[
        str | None, typer.Option(help="A device profile: its name or a YAML file.  [default: localhost]")
    ] = None,
    latency: Annotated[
        list[str] | None, typer.Option(help="The most latency: +5%, 15ms; repeatable.  [default: +5%]")
    ] = None,
    memory: Annotated[list[str] | None, typer.Option(help="The most peak memory: +2%, 64MB; repeatable.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="The largest file: +0%, 4MB; repeatable.")] = None,
    seconds: Annotated[float | None, typer.Option(help="The most time for the measurements.  [default: 30]")] = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    shape: ShapeOption = None,
    inputs: InputsOption = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML there.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown for a pull request.")] = None,
    history: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Append to the history there.")] = None,
    json: JsonOption = False,
) -> None:
    """Check the latency, memory and size of a model against a baseline or budgets.

    Exit codes: 0 ok, 3 regressed, 4 incomparable, 5 not measurable; 1 and 2 as everywhere.
    """
    from edgenas.regression.report_files import ReportFiles

    options = {
        "device": device,
        "baseline": None if baseline is None else str(baseline),
        "latency": latency,
        "memory": memory,
        "size": size,
        "seconds": seconds,
        "runtime": runtime,
        "precision": precision,
        "threads": threads,
        "shape": shape,
        "inputs": None if inputs is None else str(inputs),
    }
    requests = _read_requests(model, {name: value for name, value in options.items() if value not in (None, [])})
    files = ReportFiles(junit, markdown, history)
    files.prepare(requests)
    _run_and_report(requests, files, json)


app.command("compare", epilog=regress_compare.EXAMPLE)(regress_compare.command)


@app.command("history", epilog="Example: edgenas regress history history -o latency.png")
def show_history(
    folder: Annotated[Path, typer.Argument(help="The folder of --history.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Draw it there, as a PNG.")] = None,
    json: JsonOption = False,
) -> None:
    """Show the latencies of past checks, and where their level changed."""
    from edgenas.regression.history import read_history
    from edgenas.regression.series import make_series

    series = make_series(read_history(folder))
    if out is not None:
        from edgenas.report.history_plot import write_history_plot

        write_history_plot(series, out)
    if json:
        print_json({"series": [one.to_dict() for one in series]})
        return
    for one in series:
        print_lines(*one.lines())
    if out is not None:
        print_lines(f"{out}: the picture")


def _read_requests(model: Path, options: Mapping[str, Any]) -> tuple[CheckRequest, ...]:
    """Return the checks of a YAML file, or the one of a model and the options that were given."""
    from edgenas.files import parse_dataclass
    from edgenas.regression.checks import CheckRequest, load_checks

    if model.suffix.lower() not in (".yaml", ".yml"):
        return (parse_dataclass(CheckRequest, {"model": str(model), **options}, "edgenas regress check"),)
    if options:
        raise UsageError(f"{model}: is a file of checks, so --{next(iter(options))} stands in it; leave it out here")
    return load_checks(model)


def _run_and_report(requests: Sequence[CheckRequest], files: ReportFiles, json: bool) -> NoReturn:
    """Run checks, write and print what comes of them, and end with their exit code."""
    from edgenas.regression.checks import add_unfinished, exit_code_of

    finished: list[CheckReport] = []
    errors: list[EdgeNASError] = []
    try:
        for report in _run_with_progress(requests):
            finished.append(report)
            errors += files.write(finished, requests)
    except KeyboardInterrupt:
        if not finished:
            raise
    reports = add_unfinished(finished, requests)
    if json:
        from edgenas.regression.reports import build_json

        print_json(build_json(reports))
    elif len(reports) > 1 or reports[0].check is not None:
        _print_reports(reports)
    print_lines(*dict.fromkeys(f"edgenas: {error}" for error in errors), file=sys.stderr)
    if len(finished) < len(requests):
        raise InterruptedByUserError("interrupted; what was checked until then is shown, the same command begins anew")
    if len(reports) == 1 and reports[0].error is not None:
        raise reports[0].error
    raise typer.Exit(exit_code_of(reports, errors))


def _run_with_progress(requests: Sequence[CheckRequest]) -> Iterator[CheckReport]:
    """Run checks with progress in seconds: nobody knows how many rounds a check takes."""
    from edgenas.pipeline.progress import Progress
    from edgenas.regression.checks import run_checks

    total = sum(request.seconds for request in requests)
    before = {id(request): sum(one.seconds for one in requests[:place]) for place, request in enumerate(requests)}
    is_any_done = False
    with contextlib.suppress(_NothingDoneError), Progress().step("check", total) as bar:
        for report in run_checks(requests, lambda request, seconds: bar(before[id(request)] + seconds, request.label)):
            is_any_done |= report.check is not None
            yield report
        if not is_any_done:
            raise _NothingDoneError  # through the progress, or else it would say that checking is done


def _print_reports(reports: Sequence[CheckReport]) -> None:
    """Print a headline, a table and lines for each check, and the operators that make a model slower."""
    from edgenas.regression.text import COLUMNS, MAX_OPERATORS, format_headline, format_notes, format_rows

    for report in reports:
        headline, rows = format_headline(report), format_rows(report)
        if rows:
            print_table(COLUMNS, rows, headline)
        else:
            print_lines(headline)
        print_lines(*format_notes(report))
        if report.check is not None and report.check.operators is not None:
            regress_compare.print_operators(report.check.operators, MAX_OPERATORS)
