"""``edgenas import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgenas.cli.common import JsonOption, RunOption, print_json, print_lines
from edgenas.errors import UsageError
from edgenas.shell import format_command

if TYPE_CHECKING:
    from edgenas.pipeline import Run
    from edgenas.space import SearchSpace

EXAMPLE = (
    "Example: edgenas import ofa_mbv3_d234_e346_k357_w1.0 --run runs/ofa, or with published latency tables:"
    " edgenas import --tables note10 --device note10 --space mobilenet_v3 --width 1.2 --run runs/note10"
)


def command(
    run: RunOption,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="A released Once-for-All checkpoint, or the name of an official one to download.",
            show_default=False,
        ),
    ] = None,
    choices: Annotated[
        Path | None,
        typer.Option(
            help="JSON with kernel_sizes, expand_ratios, depths, width_mults, resolutions, where not as published."
        ),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(help="Address to download from; by default EDGENAS_MIRROR, else the authors'.")
    ] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Published latency tables instead of FILE: a YAML or JSON file, or a folder.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="With --tables: the name of their device.")] = None,
    space: Annotated[str | None, typer.Option(help="With --tables: the family of their space.")] = None,
    width: Annotated[float | None, typer.Option(help="With --tables: the width multiplier of their space.")] = None,
    predictor: Annotated[Path | None, typer.Option(help="With --tables: a published accuracy predictor.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a run of released weights or published tables."""
    of_weights = {"FILE": source, "--mirror": mirror}
    of_tables = {"--tables": tables, "--device": device, "--space": space, "--width": width, "--predictor": predictor}
    if tables is not None:
        _check_options_absent(of_weights, "--tables")
        opened = _import_tables(run, tables, device, space, width, choices, predictor)
        following = [format_command("search", "--run", run, "--device", device)]
        if not opened.folder.released_predictor.exists():
            following = [
                format_command("profile", "--run", run, "--device", device, "--explain", "max"),
                "to search it, import it again with --predictor FILE (of mobilenet_v3 only),"
                " or train and evaluate its supernet",
            ]
    elif source is not None:
        _check_options_absent(of_tables, "a checkpoint")
        opened = _import_weights(run, source, choices, mirror)
        following = [
            f"{format_command('evaluate', '--run', run)} --data FOLDER",
            f"without images: {format_command('profile', '--run', run, '--device', 'localhost')}",
        ]
    else:
        raise UsageError(f"import needs a FILE or --tables; see: {format_command('import', '--help')}")
    if json:
        print_json({"run": str(run), "space": opened.space.to_dict()})
    else:
        found = opened.space
        made = f"{run}: {found.family} of {found.classes} classes, {found.size:.1e} networks"
        print_lines(made, f"next: {following[0]}", *following[1:])


def _check_options_absent(options: dict[str, Any], beside: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{' and '.join(given)} cannot be given together with {beside}; import one after the other")


def _import_weights(run: Path, source: str, choices: Path | None, mirror: str | None) -> Run:
    from edgenas.pipeline.import_weights import import_weights
    from edgenas.space.choices import read_choices

    return import_weights(run, source, None if choices is None else read_choices(choices), mirror=mirror)


def _import_tables(
    run: Path,
    tables: Path,
    device: str | None,
    space: str | None,
    width: float | None,
    choices: Path | None,
    predictor: Path | None,
) -> Run:
    from edgenas.pipeline.import_tables import import_tables

    if device is None or space is None:
        raise UsageError("--tables needs --device NAME and --space FAMILY, for example --space mobilenet_v3")
    return import_tables(run, tables, device, _make_space(space, width, choices), predictor)


def _make_space(family: str, width: float | None, choices: Path | None) -> SearchSpace:
    from edgenas.space import space_from_dict
    from edgenas.space.choices import read_choices

    fields: dict[str, Any] = {"family": family} | ({} if width is None else {"width": width})
    if choices is None:
        return space_from_dict(fields, "--space")
    return space_from_dict(fields | read_choices(choices), f"--space and {choices}")
