"""Printing measured models: a table, a ranking, a JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.cli.common import format_peak_bytes, print_lines, print_table
from edgenas.errors import ModelError
from edgenas.profilers import Measurement, MeasurementResult, rank_results
from edgenas.profilers.measure.cpu_speed import speed_variation
from edgenas.profilers.measure.measurement import MAX_PROBE_DEVIATION, format_shape
from edgenas.profilers.measure.model_files import count_file_bytes
from edgenas.units import format_bytes, format_ms, format_ms_interval

if TYPE_CHECKING:
    from edgenas.devices import Target
    from edgenas.graph import GraphSummary
    from edgenas.profilers import RankedModel
    from edgenas.profilers.measure.models import Outcome

_COLUMNS = ("model", "median", "95% range", "p90", "processes", "peak memory", "file", "MACs", "validity")


def build_document(outcomes: Mapping[Path, Outcome], targets: Mapping[Path, Target], compare: bool) -> dict[str, Any]:
    """Return the command's JSON document."""
    models = [_read_model_dict(path, outcome, targets[path]) for path, outcome in outcomes.items()]
    if not compare:
        return {"models": models}
    return {"models": models, "ranking": [asdict(row) for row in rank_results(_select_results(outcomes))]}


def _read_model_dict(path: Path, outcome: Outcome, target: Target) -> dict[str, Any]:
    common: dict[str, Any] = {"model": str(path), "target": target.name, "file_bytes": count_file_bytes(path)}
    if not isinstance(outcome, MeasurementResult):
        return {**common, "error": "interrupted before it" if outcome is None else str(outcome)}
    graph = _try_read_graph_summary(path, outcome)
    if graph is not None:
        counts = {"macs": graph.macs, "params": graph.params, "activation_bytes": graph.activation_bytes}
        common["graph"] = {**counts, "operators_without_macs": graph.unsupported}
    return {**common, **outcome.to_dict()}


def print_outcomes(outcomes: Mapping[Path, Outcome], targets: Mapping[Path, Target], compare: bool) -> None:
    """Print a line for each model, validity, the conditions and, if wanted, the ranking."""
    results = _select_results(outcomes)
    names = ", ".join(dict.fromkeys(target.name for target in targets.values()))
    made_up = " SYNTHETIC" if any(result.synthetic for result in results.values()) else ""
    print_table(_COLUMNS, [_read_row_cells(path, outcome) for path, outcome in outcomes.items()], f"{names}{made_up}")
    # A rejection names its model; missing facts are the same for all models of a device.
    for line in dict.fromkeys(
        f"{path if result.validity.status == 'rejected' else 'validity'}: {result.validity}"
        for path, result in results.items()
    ):
        print_lines(line)
    for path, result in results.items():
        if result.filled_shapes:
            shapes = ", ".join(f"{name} {format_shape(shape)}" for name, shape in result.filled_shapes.items())
            print_lines(f"{path}: inputs of open shape were run as {shapes}")
        if result.modes:
            speeds = " and ".join(f"{format_ms(median)} in {count} processes" for median, count in result.modes)
            print_lines(f"{path}: runs at two speeds, {speeds}: compare models in one call")
    if results:
        print_lines(f"conditions: {format_conditions(list(results.values()))}")
    for outcome in outcomes.values():
        if isinstance(outcome, ModelError):
            print_lines(f"failed: {outcome}")
    if compare:
        _print_ranking(rank_results(results))
        for path, result in results.items():
            if result.rejection_reasons:
                print_lines(f"{path}: is rejected, so it has no rank")


def _read_row_cells(path: Path, outcome: Outcome) -> list[str]:
    if not isinstance(outcome, MeasurementResult):
        return [str(path), *[""] * (len(_COLUMNS) - 2), "failed" if isinstance(outcome, ModelError) else "not measured"]
    return [
        str(path),
        format_ms(outcome.median_ms),
        format_ms_interval(outcome.range_ms) if outcome.has_interval else "-",
        format_ms(outcome.p90_ms),
        str(len(outcome.measurements)),
        format_peak_bytes(outcome.peak_bytes),
        format_bytes(count_file_bytes(path)),
        _read_macs_text(path, outcome),
        outcome.validity.status,
    ]


def _read_macs_text(path: Path, result: MeasurementResult) -> str:
    graph = _try_read_graph_summary(path, result)
    if graph is None:
        return ""
    return f"{graph.macs / 1e6:.1f} M" + (" + unknown" if graph.unsupported else "")


def _try_read_graph_summary(path: Path, result: MeasurementResult) -> GraphSummary | None:
    """Return the costs of a file by its graph, at the shapes that it was run with; None where it cannot be read."""
    from edgenas.runtimes import runtime_of_suffix

    runtime = runtime_of_suffix(path.suffix.lower())
    return None if runtime is None else runtime.summarise_graph(path, result.filled_shapes)


def format_conditions(results: Sequence[MeasurementResult]) -> str:
    """Return the state of the device during the measurements, as far as it is known, as text."""
    states = [
        state
        for result in results
        for measurement in (*result.measurements, *result.rejected)
        for state in (measurement.conditions_before, measurement.conditions_after)
    ]
    parts = [
        _format_range("governor", [state.get("governor") for state in states]),
        _format_range("kHz", [state.get("frequency_khz") for state in states]),
        _format_range("°C", [state.get("temperature_c") for state in states]),
        _format_range("power mode", [state.get("power_mode") for state in states]),
    ]
    rejected = sum(len(result.rejected) for result in results)
    parts += [_format_speed([measurement for result in results for measurement in result.measurements])]
    parts += [f"{rejected} rejected process{'es' * (rejected > 1)}"] if rejected else []
    return ", ".join(part for part in parts if part)


def _format_speed(measurements: Sequence[Measurement]) -> str:
    """Return how steady the CPU was."""
    variation, disturbed = speed_variation(measurements), sum(one.is_disturbed for one in measurements)
    if variation is None:
        return "speed not probed"
    text = f"the CPU's speed varied by {variation:.1%} between runs"
    off = f" and was over {MAX_PROBE_DEVIATION:.0%} off in {disturbed} of {len(measurements)} processes"
    return text + off if disturbed else text


def _format_range(name: str, values: Sequence[Any]) -> str:
    """Return a quantity's only value, or its least and greatest; empty where none is known."""
    known = sorted({value for value in values if value is not None})
    if not known:
        return ""
    return f"{name} {known[0]}" if len(known) == 1 else f"{name} {known[0]} to {known[-1]}"


def _print_ranking(rows: Sequence[RankedModel]) -> None:
    words = {True: "slower", False: "no significant difference", None: "not comparable"}
    table = []
    for row in rows:
        ratio, interval = row.ratio, row.interval_95
        text = "" if ratio is None or interval is None else f"{ratio:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
        paired = "" if row.paired_ms is None else " : ".join(map(format_ms, row.paired_ms))
        conclusion = words[row.slower] if row.rank > 1 else "fastest"
        table.append([str(row.rank), row.model, format_ms(row.median_ms), paired, text, conclusion])
    columns = ("rank", "model", "median", "with the previous, by round", "ratio, 95% interval", "")
    print_table(columns, table)


def _select_results(outcomes: Mapping[Path, Outcome]) -> dict[Path, MeasurementResult]:
    return {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, MeasurementResult)}
