"""Fingerprints: what a latency depends on besides the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgenas.files import format_value
from edgenas.profilers import Measurement
from edgenas.profilers.measure.measurement import format_shape
from edgenas.regression.model import ModelFacts

_TARGET = ("device", "runtime", "providers", "options", "precision", "threads", "affinity", "power_mode")
_BOARD = ("model", "cpu", "arch", "cores", "usable_cores")
# What may change between two sessions without making the board another one. It touches stored samples only: models
# that are measured side by side have it in common.
SYSTEM = ("kernel", "runtime version", "governor")


@dataclass(frozen=True)
class Difference:
    """A field that differs: its name, its value in the baseline and now."""

    field: str
    then: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.field} was {_format_field(self.then)} in the baseline, is {_format_field(self.now)} now"


def _format_field(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value)) or "none"
    return "unknown" if value is None else format_value(value)


def read_target_fields(target: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a fingerprint that are known before anything is measured."""
    return {name: target.get(name) for name in _TARGET}


def read_fingerprint(measurement: Measurement) -> dict[str, Any]:
    """Return the fingerprint of a measurement, None for what the device does not say."""
    runtime = str(measurement.target.get("runtime"))
    shapes = {f"shape of input {name}": format_shape(shape) for name, shape in measurement.filled_shapes.items()}
    return {
        **read_target_fields(measurement.target),
        "synthetic": measurement.synthetic,
        **{f"board's {name}": measurement.facts.get(name) for name in _BOARD},
        "kernel": measurement.facts.get("kernel"),
        "runtime version": measurement.versions.get(runtime),
        "governor": measurement.conditions_before.get("governor"),
        **shapes,
    }


def compare_fields(then: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> tuple[Difference, ...]:
    """Return the fields of these names that differ; an input that only one of the two models has is not compared."""
    return tuple(Difference(name, then[name], now[name]) for name in names if name in then and then[name] != now[name])


def compare_signatures(then: ModelFacts, now: ModelFacts) -> tuple[Difference, ...]:
    """Return inputs and outputs that differ; names do not count, since exporters rename."""
    if then.signature is None or now.signature is None:
        return ()
    pairs = (
        ("input of the model", then.signature.inputs, now.signature.inputs),
        ("output of the model", then.signature.outputs, now.signature.outputs),
    )
    return tuple(
        Difference(name, " and ".join(before), " and ".join(after)) for name, before, after in pairs if before != after
    )
