"""What Android says of a phone, by the text of ``getprop``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PROPERTY = re.compile(r"\[([^\]]+)\]: \[(.*)\]")


def parse_properties(listing: str) -> dict[str, str]:
    """Return the system properties in the text of ``getprop``, by name. Empty ones, and what is none, are left out."""
    matches = (_PROPERTY.fullmatch(line.strip()) for line in listing.splitlines())
    return {match[1]: match[2] for match in matches if match and match[2]}


def android_facts(properties: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts that only Android's properties tell: model, board, SoC and version; none on another system.

    Sources of their names: Android Compatibility Definition (android.os.Build), ``ro.soc.model`` since Android 12.
    """
    release = properties.get("ro.build.version.release")
    if release is None:
        return {}
    facts = {
        "model": _join(properties, "ro.product.manufacturer", "ro.product.model"),
        "os": " ".join(filter(None, ["Android", release, properties.get("ro.build.id")])),
        "board": properties.get("ro.product.board") or properties.get("ro.board.platform"),
        "soc": _join(properties, "ro.soc.manufacturer", "ro.soc.model"),
    }
    return {name: value for name, value in facts.items() if value}


def _join(properties: Mapping[str, str], maker: str, model: str) -> str | None:
    """Return a model's name with its maker's before it, once."""
    name, makers = properties.get(model), properties.get(maker)
    if name is None or makers is None or name.lower().startswith(makers.lower()):
        return name
    return f"{makers} {name}"
