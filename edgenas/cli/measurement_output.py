"""How measured models are printed: a table, a ranking, a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.cli.common import print_table
from edgenas.errors import DeviceError, ModelError
from edgenas.profilers import Measurement, MeasurementResult, compare_results
from edgenas.units import format_bytes, format_ms

if TYPE_CHECKING:
    from edgenas.devices import Target
    from edgenas.graph import GraphSummary

# DeviceError: why the device had not begun with the model; None: that was interrupted before it did.
Outcome = MeasurementResult | ModelError | DeviceError | None

_STILL = 0.0005  # of a latency
_COLUMNS = ("model", "median", "95% interval", "p90", "processes", "peak memory", "file", "MACs", "validity")


def document(outcomes: Mapping[Path, Outcome], targets: Mapping[Path, Target], compare: bool) -> dict[str, Any]:
    """The command's JSON document."""
    models = [_model(path, outcome, targets[path]) for path, outcome in outcomes.items()]
    return {"models": models, **({"ranking": ranking(outcomes)} if compare else {})}


def _model(path: Path, outcome: Outcome, target: Target) -> dict[str, Any]:
    shared: dict[str, Any] = {"model": str(path), "target": target.name, "file_bytes": path.stat().st_size}
    if not isinstance(outcome, MeasurementResult):
        return {**shared, "error": "interrupted before it" if outcome is None else str(outcome)}
    summary = _summary(path)
    if summary is not None:
        counts = {"macs": summary.macs, "params": summary.params, "activation_bytes": summary.activation_bytes}
        shared["graph"] = {**counts, "operators_without_macs": summary.unsupported}
    return {**shared, **outcome.to_dict()}


def print_outcomes(outcomes: Mapping[Path, Outcome], targets: Mapping[Path, Target], compare: bool) -> None:
    """A line for each model, what the validity_counts mean, the conditions and, if wanted, the ranking."""
    names = ", ".join(dict.fromkeys(target.name for target in targets.values()))
    print_table(_COLUMNS, [_row(path, outcome) for path, outcome in outcomes.items()], f"{names}{_made_up(outcomes)}")
    measured = {path: outcome for path, outcome in outcomes.items() if isinstance(outcome, MeasurementResult)}
    for line in dict.fromkeys(_verdict(path, rounds) for path, rounds in measured.items()):
        print(line)
    print(f"conditions: {conditions(list(measured.values()))}")
    for outcome in outcomes.values():
        if isinstance(outcome, ModelError):
            print(f"failed: {outcome}")
    if compare:
        _print_ranking(ranking(outcomes))


def _verdict(path: Path, rounds: MeasurementResult) -> str:
    """A refusal names its model; what the device withholds it withholds from all."""
    return f"{path if rounds.validity.status == 'rejected' else 'verdict'}: {rounds.validity}"


def _made_up(outcomes: Mapping[Path, Outcome]) -> str:
    synthetic = any(isinstance(outcome, MeasurementResult) and outcome.synthetic for outcome in outcomes.values())
    return " SYNTHETIC" if synthetic else ""


def _row(path: Path, outcome: Outcome) -> list[str]:
    if not isinstance(outcome, MeasurementResult):
        return [str(path), *[""] * (len(_COLUMNS) - 2), "failed" if isinstance(outcome, ModelError) else "not measured"]
    low, high = outcome.interval_ms
    return [
        str(path),
        format_ms(outcome.median_ms),
        f"{format_ms(low)} to {format_ms(high)}" if outcome.has_interval else "-",
        format_ms(outcome.p90_ms),
        str(len(outcome.measurements)),
        "not measured" if outcome.peak_bytes is None else format_bytes(outcome.peak_bytes),
        format_bytes(path.stat().st_size),
        _macs(path),
        outcome.validity.status,
    ]


def _macs(path: Path) -> str:
    summary = _summary(path)
    if summary is None:
        return ""
    return f"{summary.macs / 1e6:.1f} M" + (" + unknown" if summary.unsupported else "")


def _summary(path: Path) -> GraphSummary | None:
    """What an ONNX file costs as far as the graph tells; None for another kind, or one that cannot be read."""
    from edgenas.graph import summarise_model

    if path.suffix != ".onnx":
        return None
    try:
        return summarise_model(path)
    except ModelError:
        return None


def conditions(measured: Sequence[MeasurementResult]) -> str:
    """The state of the device meanwhile, as far as it says."""
    states = [
        state
        for rounds in measured
        for each in (*rounds.measurements, *rounds.rejected)
        for state in (each.conditions_before, each.conditions_after)
    ]
    parts = [
        _spread("governor", [state.get("governor") for state in states]),
        _spread("kHz", [state.get("frequency_khz") for state in states]),
        _spread("°C", [state.get("temperature_c") for state in states]),
        _spread("power mode", [state.get("power_mode") for state in states]),
    ]
    rejected = sum(len(rounds.rejected) for rounds in measured)
    parts += [_speed([each for rounds in measured for each in rounds.measurements])]
    parts += [f"{rejected} disturbed processes left out"] if rejected else []
    return ", ".join(part for part in parts if part)


def _speed(measured: Sequence[Measurement]) -> str:
    """How far from its usual speed the device was, and so how far measurements were corrected."""
    known = [each for each in measured if each.probe_ms or each.drift is not None]
    if not known:
        return "speed not watched"
    most = max((each.slower for each in known), key=abs)
    if abs(most) < _STILL:
        return "at its usual speed"
    return f"up to {abs(most):.1%} {'slower' if most > 0 else 'faster'} than usual, which is divided away"


def _spread(name: str, values: Sequence[Any]) -> str:
    """A quantity's only value, or its least and greatest; nothing where nobody gives it."""
    known = sorted({value for value in values if value is not None})
    if not known:
        return ""
    return f"{name} {known[0]}" if len(known) == 1 else f"{name} {known[0]} to {known[-1]}"


def ranking(outcomes: Mapping[Path, Outcome]) -> list[dict[str, Any]]:
    """The measured models, the fastest first, each beside the one before it.

    ``slower``: whether the whole 95% interval of the ratio lies above 1; None
    where one of the two has fewer than six processes.
    """
    measured = [(path, outcome) for path, outcome in outcomes.items() if isinstance(outcome, MeasurementResult)]
    measured.sort(key=lambda pair: pair[1].median_ms)
    rows: list[dict[str, Any]] = []
    for place, (path, rounds) in enumerate(measured):
        row: dict[str, Any] = {"model": str(path), "rank": place + 1, "median_ms": rounds.median_ms}
        if place:
            found = compare_results(rounds, measured[place - 1][1])
            row |= {
                "ratio": None if found is None else found[0],
                "interval_95": None if found is None else list(found[1:]),
                "slower": None if found is None else found[1] > 1,
            }
        rows.append(row)
    return rows


def _print_ranking(rows: Sequence[Mapping[str, Any]]) -> None:
    words = {True: "slower", False: "not told apart", None: "not comparable"}
    table = []
    for row in rows:
        ratio, interval = row.get("ratio"), row.get("interval_95")
        text = "" if ratio is None or interval is None else f"{ratio:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
        found = words[row["slower"]] if "slower" in row else "fastest"
        table.append([str(row["rank"]), row["model"], format_ms(row["median_ms"]), text, found])
    print_table(("rank", "model", "median", "times the one before, 95% interval", ""), table)
