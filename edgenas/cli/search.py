"""``edgenas search``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgenas.cli.common import (
    DevicesOption,
    JsonOption,
    PrecisionOption,
    RunOption,
    RuntimeOption,
    ThreadsOption,
    print_json,
    print_lines,
    print_table,
    read_devices,
)
from edgenas.errors import UsageError
from edgenas.registry import DEFAULT_STRATEGY
from edgenas.shell import format_command
from edgenas.units import format_latency_budget

if TYPE_CHECKING:
    from edgenas.devices import Target
    from edgenas.pipeline import Run
    from edgenas.search import Front

EXAMPLE = "Example: edgenas search --run runs/digits --device localhost --objectives accuracy,latency"
_SHOWN = 12
_SHARES = (0.9, 0.99)  # of the final hypervolume


def command(
    run: RunOption,
    device: DevicesOption = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    objectives: Annotated[
        str, typer.Option(help="What to optimise, with commas between: accuracy, latency, memory, size, macs, params.")
    ] = "accuracy,latency,memory",
    limit: Annotated[
        list[str] | None, typer.Option(help="A limit that the whole front keeps, such as latency=15ms; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Everything random follows from it.")] = 0,
    strategy: Annotated[
        str,
        typer.Option(
            help="nsga2, random, regularized_evolution, reinforce, predictor_guided, bayesian, or one that a package"
            " adds."
        ),
    ] = DEFAULT_STRATEGY,
    evaluations: Annotated[
        int | None,
        typer.Option(help="How many architectures may be evaluated.", show_default="70,000, or 200 with --measure"),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="What to measure of each architecture instead of predicting it: accuracy, latency, memory. Slow: give"
            " few --evaluations, and --strategy predictor_guided. All measurements are kept."
        ),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the front as a PNG.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the front as a CSV file.")] = None,
    json: JsonOption = False,
) -> None:
    """Search a device's front of accuracy, latency and other costs; of several devices, one search for all."""
    from edgenas.pipeline import Run

    opened = Run(run)
    targets = [opened.target(name, runtime, threads, precision) for name in read_devices(device)]
    target = targets[0]
    front = opened.search(
        targets, seed, strategy,
        objectives=_split(objectives), limits=_parse_limits(limit or []), evaluations=evaluations,
        measured=[] if measure is None else _split(measure),
    )  # fmt: skip
    if csv is not None:
        front.save_csv(csv)
    if picture is not None:
        _draw_front(opened, target, front, picture)
    if json:
        others = {"others": [other.to_dict() for other in targets[1:]]} if len(targets) > 1 else {}
        print_json({"run": str(run), "target": target.to_dict(), **others, **_front_to_dict(front)})
        return
    _print_front(front)
    print_lines(f"all {len(front)}: {', '.join(str(opened.folder.front(each.name)) for each in targets)}")
    _print_next(run, targets, front)


def _print_next(run: Path, targets: Sequence[Target], front: Front) -> None:
    from edgenas.devices import is_absent

    middle = len(front) // 2
    options = []
    for place, target in enumerate(targets):
        latency_ms = front[f"latency_ms@{target.name}" if place else "latency_ms"][middle]
        options.append(f"--device {target.cli_name} --latency {format_latency_budget(latency_ms)}")
    absent = [target.profile.name for target in targets if is_absent(target.profile)]
    if absent:
        print_lines(f"nothing can be measured on {absent[0]}: all of it stays predicted")
        options.append("--no-measure")
    print_lines(f"next: {format_command('choose', '--run', run)} {' '.join(options)}")


def _draw_front(run: Run, target: Target, front: Front, path: Path) -> None:
    from edgenas.pipeline.search import reference_front
    from edgenas.report import write_front_plot

    references = reference_front(run.workspace, target)
    write_front_plot(front, path, references=references, synthetic=run.table(target).synthetic)


def _front_to_dict(front: Front) -> dict[str, Any]:
    return {
        "source": front.source,
        "strategy": front.strategy,
        "objectives": list(front.objectives),
        "limits": dict(front.limits),
        "evaluations": front.evaluations,
        "hypervolume": [list(point) for point in front.history],
        "front": [
            {"architecture": architecture.id, **{_name(front, name): value for name, value in costs.items()}}
            for architecture, costs in zip(front.architectures(), front.rows(), strict=True)
        ],
    }


def _name(front: Front, cost: str) -> str:
    """Return the key of a cost in the JSON document, which says where its numbers are from."""
    return f"measured_{cost}" if cost in front.measured else f"predicted_{cost}"


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",")]


def _parse_limits(texts: Sequence[str]) -> dict[str, str]:
    limits: dict[str, str] = {}
    for text in texts:
        word, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--limit must be a cost and its limit, such as latency=15ms, but got {text!r}")
        if word in limits:
            raise UsageError(f"--limit {word} is given twice, {limits[word]} and {value}; give one")
        limits[word] = value
    return limits


def _print_front(front: Front) -> None:
    """Print a dozen architectures, evenly from one end of the front to the other, and how the search went."""
    from edgenas.search.quantities import format_cost, noun_of

    rows, architectures = front.rows(), front.architectures()
    chosen = sorted({round(number * (len(rows) - 1) / (_SHOWN - 1)) for number in range(_SHOWN)})
    names = list(dict.fromkeys((*front.objectives, "accuracy", "latency_ms", "peak_bytes")))
    lines = []
    for index in chosen:
        cells = [format_cost(name, rows[index][name]) for name in names]
        if "accuracy_std" in rows[index]:
            place = names.index("accuracy")
            cells[place] += f" ± {1.96 * rows[index]['accuracy_std']:.2%}"
        lines.append((architectures[index].id, *cells))
    limits = f", within {front.format_limits()}" if front.limits else ""
    measured = f", but measured: {', '.join(map(noun_of, front.measured))}" if front.measured else ""
    title = f"{len(chosen)} of {len(rows)} architectures on the front of {front.target}, predicted{measured}{limits}"
    print_table(("architecture", *map(noun_of, names)), lines, title)
    if front.history:
        reached = [
            f"{share:.0%} after {next(count for count, value in front.history if value >= share):,}"
            for share in _SHARES
        ]
        print_lines(f"hypervolume: {', '.join(reached)} of {front.evaluations:,} evaluations")
