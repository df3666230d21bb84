"""Reading onnxruntime's profile: the operators that it ran, where, and for how long. Sent beside agent.py.

A profile is a trace in Chrome's format: a list of events with microseconds. The names are those that onnxruntime has
written since 1.4. Python 3.8 and standard library only; never imports edgenas.
"""

from __future__ import annotations

import bisect
import json
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KERNEL = "_kernel_time"  # the end of the name of a node's event
TOKEN = re.compile(r"_token_\d+$")  # behind a name that the runtime gave several times; another in each session
MAX_PROFILE_BYTES = 1 << 26  # about 700 for each node and run
MAX_OPERATORS, MAX_NAME_LENGTH, MAX_RANK, MAX_SHAPES = 4000, 390, 32, 256


class ProfileError(ValueError):
    """A profile that is not what it is known to be."""


def read_operators(file: Path, skipped_runs: int) -> list[dict[str, Any]]:
    """Return the operators of a file; see ``list_operators``."""
    size = file.stat().st_size
    if size > MAX_PROFILE_BYTES:
        raise ProfileError(f"its profile has {size} bytes, more than {MAX_PROFILE_BYTES}")
    return list_operators(file.read_text(encoding="utf-8"), skipped_runs)


def list_operators(text: str, skipped_runs: int = 0) -> list[dict[str, Any]]:
    """Return the operators of a profile, in the order of their first run, each with its median time in a run.

    Operators inside of others (of a loop's body) are left out: the outer ones' time has theirs.

    Args:
        text: the JSON text that the runtime wrote.
        skipped_runs: runs at the beginning that do not count.
    """
    runs, nodes = parse_profile(text)
    starts = [start for start, _ in runs]
    operators: dict[tuple[str, str], dict[str, Any]] = {}
    end = 0
    for start, spent, details in nodes:
        number = bisect.bisect_right(starts, start) - 1
        if start < end or number < 0 or start > runs[number][1]:
            continue
        end = start + spent
        key = details["index"], details["type"]
        operator = operators.setdefault(key, {**details, "spent": [0] * len(runs)})
        operator["spent"][number] += spent
    if not operators or len(runs) <= skipped_runs:
        raise ProfileError("its profile has no run of a node")
    if len(operators) > MAX_OPERATORS:
        raise ProfileError(f"its profile has {len(operators)} operators, more than {MAX_OPERATORS}")
    for operator in operators.values():
        operator["us"] = float(statistics.median(operator.pop("spent")[skipped_runs:]))
        del operator["index"]
    return list(operators.values())


def parse_profile(text: str) -> tuple[list[tuple[int, int]], list[tuple[int, int, dict[str, Any]]]]:
    """Return begin and end of the model's runs, and of its nodes' begin, time and details, in order, in microseconds.

    Raises:
        ProfileError: The text is no profile, or lacks what a run's or a node's event must have.
    """
    try:
        events = json.loads(text, parse_int=parse_short_int)
    except (ValueError, RecursionError):
        raise ProfileError("its profile is no JSON") from None
    if not isinstance(events, list):
        raise ProfileError("its profile is no list of events")
    runs, nodes = [], []
    for event in events:
        name = event.get("name") if isinstance(event, dict) else None
        if not isinstance(name, str):
            continue
        if event.get("cat") == "Node" and name.endswith(KERNEL):
            details = read_node(name[: -len(KERNEL)], event.get("args"))
            nodes.append((take_count(event, "ts"), take_count(event, "dur"), details))
        elif event.get("cat") == "Session" and name == "model_run":
            start = take_count(event, "ts")
            runs.append((start, start + take_count(event, "dur")))
    return sorted(runs), sorted(nodes, key=lambda node: (node[0], -node[1]))


def parse_short_int(text: str) -> int:
    """Return an integer; raise ValueError for one that no clock counts, whose conversion may take minutes."""
    if len(text) > 20:
        raise ValueError("too many digits")
    return int(text)


def take_count(event: Mapping[str, Any], key: str) -> int:
    """Return a number of an event; raise ProfileError where it is none, or out of range."""
    value = event.get(key)
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ProfileError(f"its profile has no number {key!r} in an event")
    return value


def read_node(name: str, details: Any) -> dict[str, Any]:
    """Return what is known of a node, by the details of its event."""
    index, kind, provider = (
        details.get(key) if isinstance(details, dict) else None for key in ("node_index", "op_name", "provider")
    )
    if not (isinstance(index, str) and isinstance(kind, str) and isinstance(provider, str) and provider):
        raise ProfileError(f"its profile names no index, type or provider of node {name[:100]!r}")
    return {
        "index": index,
        "name": TOKEN.sub("", name)[:MAX_NAME_LENGTH],
        "type": kind[:MAX_NAME_LENGTH],
        "provider": provider[:MAX_NAME_LENGTH],
        "inputs": read_shapes(details.get("input_type_shape")),
        "outputs": read_shapes(details.get("output_type_shape")),
    }


def read_shapes(values: Any) -> list[list[int]]:
    """Return the shapes of a node's inputs or outputs; none where the profile does not say them."""
    shapes = []
    for value in values if isinstance(values, list) else []:
        for shape in value.values() if isinstance(value, dict) else []:
            if not isinstance(shape, list) or len(shape) > MAX_RANK:
                raise ProfileError("its profile has a shape that is none")
            shapes.append([take_count({"size": size}, "size") for size in shape])
    if len(shapes) > MAX_SHAPES:
        raise ProfileError(f"its profile has a node of {len(shapes)} inputs or outputs")
    return shapes
