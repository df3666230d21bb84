"""What architectures cost: the names of costs, their units, and which of them are to be large.

A cost's name says its unit, as in ``latency_ms``. Behind an ``@`` stands the target that it belongs to where there are
several: ``latency_ms@raspberry-pi-5-onnxruntime-fp32-4t``. The command line has shorter words.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgenas.errors import UsageError
from edgenas.files import format_suggestion, format_value
from edgenas.units import format_bytes, format_count, format_ms, parse_bytes, parse_count, parse_ms, parse_percent

ACCURACY, LATENCY, MEMORY = "accuracy", "latency_ms", "peak_bytes"
WORDS = {
    "accuracy": ACCURACY,
    "latency": LATENCY,
    "memory": MEMORY,
    "size": "weight_bytes",
    "macs": "macs",
    "params": "params",
}


def name_of_word(word: str) -> str:
    """Return the name of a cost by its word on the command line; UsageError, listing them, for another."""
    if word not in WORDS:
        raise UsageError(f"unknown cost {format_value(word)!r}{format_suggestion(word, list(WORDS))}")
    return WORDS[word]


def noun_of(name: str) -> str:
    """Return a cost's name as messages have it: ``latency`` for ``latency_ms``, with its target where it has one."""
    stem, _, target = name.partition("@")
    noun = next((word for word, known in WORDS.items() if known == stem), stem)
    return f"{noun} on {target}" if target else noun


def parse_limit(name: str, text: str) -> float:
    """Return a limit of a cost from text with its unit, as in ``15ms``; UsageError for another unit or none."""
    stem, what = name.partition("@")[0], f"{noun_of(name)} limit"
    if stem == ACCURACY:
        return parse_percent(text, what)
    if stem.endswith("_ms"):
        return parse_ms(text, what)
    return float(parse_bytes(text, what)) if stem.endswith("_bytes") else parse_count(text, what)


def format_cost(name: str, value: float) -> str:
    """Return a cost as text with its unit."""
    stem = name.partition("@")[0]
    if stem == ACCURACY:
        return f"{value:.2%}"
    if stem.endswith("_ms"):
        return format_ms(value)
    return format_bytes(value) if stem.endswith("_bytes") else format_count(value)


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise UsageError for a name that is not known or occurs twice."""
    listed, options = list(names), list(known)
    for place, name in enumerate(listed):
        if name not in options:
            raise UsageError(
                f"{what} {format_value(name)!r} is no cost of this problem{format_suggestion(name, options)}"
            )
        if name in listed[:place]:
            raise UsageError(f"{what} {name!r} is given twice; give it once")
