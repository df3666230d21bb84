"""``edgenas export``."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgenas.cli.common import JsonOption, RunOption, RuntimeOption, ThreadsOption, print_json, print_lines, print_table
from edgenas.errors import RunError, UsageError
from edgenas.shell import format_command, quote
from edgenas.units import format_bytes

if TYPE_CHECKING:
    from edgenas.devices import Target
    from edgenas.pipeline import Run
    from edgenas.pipeline.export import ExportedBundle
    from edgenas.runtimes import ExportFormat
    from edgenas.space import Architecture

EXAMPLE = "Example: edgenas export --run runs/digits --arch max --format tflite --precision int8 --out ship"
_DYNAMIC = "dynamic"


def command(
    run: RunOption,
    out: Annotated[Path, typer.Option(help="The folder for the bundles.", show_default=False)],
    arch: Annotated[
        str | None, typer.Option(help="An id, chosen, min, max, or a JSON file.", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="A device profile: what was chosen for it.", show_default=False)
    ] = None,
    runtime: RuntimeOption = None,
    threads: ThreadsOption = None,
    format: Annotated[
        list[str] | None,
        typer.Option(help="onnx or tflite; may be repeated. By default what was chosen, or onnx.", show_default=False),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="fp32, fp16, dynamic or int8; may be repeated. By default what was chosen, or fp32.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A folder of images for int8; by default training images.", show_default=False)
    ] = None,
    calibration_method: Annotated[str, typer.Option(help="percentile or minmax.")] = "percentile",
    keep_float: Annotated[
        list[str] | None, typer.Option(help="A layer to leave in float; may be repeated.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="tensorrt: int8 ONNX with symmetric activations.", show_default=False)
    ] = None,
    batch: Annotated[str, typer.Option(help="Images that the file takes at a time, or dynamic.")] = "1",
    json: JsonOption = False,
) -> None:
    """Export a subnet as bundles, each verified against PyTorch in its own runtime."""
    from edgenas.pipeline import Run
    from edgenas.pipeline.export import FailedExportError
    from edgenas.pipeline.export_formats import combine_formats, make_for
    from edgenas.pipeline.prepared_model import ExportSettings

    settings = ExportSettings(
        calibration=calibration,
        method=calibration_method,
        keep_float=tuple(keep_float or ()),
        batch=_parse_batch(batch),
    )
    opened = Run(run)
    only_precision = precision[0] if precision and len(precision) == 1 else None
    architecture, measured_on, usual = _find_subnet(opened, arch, device, (runtime, threads, only_precision))
    formats, skipped = combine_formats(format or [usual.format], precision or [usual.precision])
    if target is not None:
        formats = make_for(target, formats)
    for line in skipped:
        opened.workspace.progress.say(f"export    {line}")
    described: dict[str, Any] = {"run": str(run), "architecture": architecture.id, "skipped": skipped}
    try:
        done = opened.export_all(architecture, measured_on, out, formats, settings)
    except FailedExportError as error:
        if json:
            print_json({**described, "bundles": [_bundle_to_dict(each) for each in error.done], "failed": error.failed})
        raise
    if json:
        print_json({**described, "bundles": [_bundle_to_dict(each) for each in done], "failed": {}})
        return
    _print_bundles(done, device)


def _find_subnet(
    run: Run, arch: str | None, device: str | None, asked: tuple[str | None, int | None, str | None]
) -> tuple[Architecture, Target, ExportFormat]:
    """Return the subnet to export, the target on whose latency the card reports, and the usual format there.

    ``asked`` are the runtime, the threads and the precision of the target.
    """
    from edgenas.pipeline.export_formats import format_of
    from edgenas.runtimes import ExportFormat

    if arch in (None, "chosen"):
        if device is None:
            raise UsageError("export needs --device PROFILE for what was chosen there, or --arch ID, min or max")
        architecture, target = run.chosen(device, *asked)
        return architecture, target, format_of(target)
    architecture = run.architecture(arch)
    chosen_on = None
    if device is not None:
        with contextlib.suppress(RunError):  # without a latency table, nothing was chosen for the device
            chosen_on = run.target_of_choice(architecture, run.targets(device, *asked))
    if chosen_on is not None:
        return architecture, chosen_on, format_of(chosen_on)
    return architecture, run.target(device or "localhost", *asked), ExportFormat()


def _parse_batch(text: str) -> int | None:
    if text == _DYNAMIC:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UsageError(f"batch must be dynamic or a whole number, but got {text!r}")
    return int(text)


def _bundle_to_dict(exported: ExportedBundle) -> dict[str, Any]:
    return {
        "format": exported.card["kind"],
        "for": exported.card["for"],
        "bundle": str(exported.bundle.path),
        "model": str(exported.bundle.model_path),
        "archive": None if exported.archive is None else str(exported.archive),
        "card": exported.card,
    }


def _print_bundles(done: Sequence[ExportedBundle], device: str | None) -> None:
    columns = ("file", "size", "test accuracy", "same class", "largest difference", "average")
    print_table(columns, [_bundle_cells(each) for each in done])
    card = done[0].card
    print_lines("", f"compared with PyTorch on {card['agreement_with_pytorch']['on']}; batch norm {card['batch_norm']}")
    print_lines(
        f"{card['params']:,} parameters, {card['macs']:,} MACs;"
        f" activations of the float32 graph, in file order,"
        f" peak at {format_bytes(card['activation_bytes'])}, at {card['activation_peak_at']}"
    )
    for each in done:
        if each.card["float_layers"]:
            print_lines(f"{each.export_format} computes in float: {', '.join(each.card['float_layers'])}")
    print_lines(f"archives: {', '.join(str(each.archive) for each in done)}")
    here = next((each for each in done if each.card["for"] is None), None)
    measure = format_command("measure", (here or done[0]).bundle.model_path)
    if here is None and device is None:
        print_lines(f"next, on a board with TensorRT: {measure} --device PROFILE")
    else:
        print_lines(f"next: {measure} --device {quote(device or 'localhost')}")


def _bundle_cells(exported: ExportedBundle) -> tuple[str, ...]:
    card, accuracy = exported.card, exported.card["accuracy"]
    agreement = card["agreement_with_pytorch"]
    return (
        str(exported.bundle.model_path),
        format_bytes(card["model_bytes"]),
        accuracy if isinstance(accuracy, str) else f"{accuracy['test']:.2%}",
        f"{agreement['top1']:.2%}",
        f"{agreement['max_difference']:.1e}",
        f"{agreement['relative_error']:.2%}",
    )
