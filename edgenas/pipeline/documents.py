"""The schemas of a run's documents, with the upgrades from older versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgenas.errors import FormatError
from edgenas.files import Fraction, Schema, ShortText, rename_keys
from edgenas.space import SearchSpace, space_from_dict

# The key of run.json that says which step of an upgrade from version 1 is next.
UPGRADE_STEP = "upgrade"


def _begin_upgrade(body: Mapping[str, Any]) -> dict[str, Any]:
    return {**body, UPGRADE_STEP: "convert"}


def _rename_digest(body: Mapping[str, Any]) -> dict[str, Any]:
    return {**rename_keys(body, {"made_from": "inputs_digest"})}


def _upgrade_choice_from_1(body: Mapping[str, Any]) -> dict[str, Any]:
    upgraded = {**rename_keys(body, {"made_from": "inputs_digest", "verdict": "validity"})}
    validity = upgraded["measured"]["validity"]
    for status, word in (("trusted", "valid"), ("refused", "rejected")):
        validity = re.sub(rf"^{status}\b", word, validity)
    return {**upgraded, "measured": {**upgraded["measured"], "validity": validity}}


def _upgrade_choice_from_2(body: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what was measured of the one target. Without its digest the next ``edgenas choose`` chooses again, because
    candidates are evaluated first since then; what was measured is not measured again."""
    target = body["target"]
    deployment = {name: body[name] for name in ("target", "budget", "predicted", "measured")}
    return {
        "inputs_digest": "",
        "architecture": body["architecture"],
        "deployments": [deployment],
        "considered": [],
        "evaluated": [],
        "rejected": [{**candidate, "target": target} for candidate in body["rejected"]],
        "regret": [],
    }


@dataclass(frozen=True)
class EvaluatedSubnets:
    """The accuracies of evaluated subnets by id, and the digest of the weights that they belong to."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    inputs_digest: ShortText
    accuracy: dict[str, Fraction]


DATA_SOURCE = Schema("data_source", 1)
RUN = Schema("run", 2, {1: _begin_upgrade})
EVALUATED = Schema("evaluated", 2, {1: _rename_digest})
FINETUNED = Schema("finetuned", 2)
PROFILE_PLAN = Schema("profile_plan", 2, {1: _rename_digest})
TABLE_CHECK = Schema("table_check", 5)
TABLE_CHECK_PLAN = Schema("table_check_plan", 3)
CHOICE = Schema("choice", 3, {1: _upgrade_choice_from_1, 2: _upgrade_choice_from_2})


def read_space(run: Path) -> SearchSpace:
    """Return the search space of a ``run.json``; raise FormatError or UsageError when it has none."""
    space = RUN.read(run)["space"]
    if not isinstance(space, Mapping):
        raise FormatError(
            f"{run}: its space must be a mapping with keys, but is a {type(space).__name__}; restore it from a copy"
        )
    return space_from_dict(space, str(run))
