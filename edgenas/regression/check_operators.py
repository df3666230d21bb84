"""What a check says of operators: which make a model slower, and which left their provider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgenas.errors import EdgeNASError
from edgenas.profilers import OperatorProfile
from edgenas.regression.baseline import Baseline
from edgenas.regression.blame import compare_operators
from edgenas.regression.listing import PROCESSES
from edgenas.regression.model_check import ModelCheck
from edgenas.regression.placement import MovedOperator, can_leave, compare_placements

# Profiles model files, each in so many processes; raises as ``profile_operators`` does.
Profile = Callable[[Sequence[Path], int], list[OperatorProfile]]
_NAMED = 3  # of the operators that left


def with_operators(check: ModelCheck, model: Path, baseline: Baseline, profile: Profile) -> ModelCheck:
    """Return a check with what its operators say; the device is asked only where they can say something."""
    return _with_placement(_with_blame(check, model, profile), model, baseline, profile)


def _with_blame(check: ModelCheck, model: Path, profile: Profile) -> ModelCheck:
    """Return a check with the operators of both models side by side, where the baseline's is at hand and faster."""
    is_slower = any(one.limit.quantity == "latency" and one.outcome == "regressed" for one in check.findings)
    if not (check.kept and check.outcome == "regressed" and is_slower):
        return check
    try:
        before, after = profile([Path(check.kept), model], PROCESSES)
    except EdgeNASError as error:
        return _with_warning(check, f"the operators could not be listed: {error}")
    return replace(check, operators=compare_operators(before, after))


def _with_placement(check: ModelCheck, model: Path, baseline: Baseline, profile: Profile) -> ModelCheck:
    """Return a check with where the operators ran, in the baseline and now; regressed where some left their provider.

    That is known exactly, from one process. So it decides also where the limits could not be told.
    """
    then = baseline.profile
    if then is None:
        return _with_warning(
            check, "the baseline does not say where operators ran, so that was not compared; record it again"
        )
    if not can_leave(then.operators):
        return check
    try:
        now = check.operators.after if check.operators else profile([model], 1)[0]
    except EdgeNASError as error:
        problem = f"where the operators ran is not known: {error}"
        if check.outcome == "ok":
            return replace(check, outcome="not measurable", reasons=(problem,))
        return _with_warning(check, problem)
    check = replace(check, placement=compare_placements(then, now))
    assert check.placement is not None
    if not check.placement.is_regression:
        return check
    reason = f"placement: {check.placement.moves} ({_name_moved(check.placement.left)})"
    if check.outcome == "regressed":
        return replace(check, reasons=(*check.reasons, reason))
    return replace(check, outcome="regressed", reasons=(reason,), warnings=(*check.reasons, *check.warnings))


def _with_warning(check: ModelCheck, warning: str) -> ModelCheck:
    return replace(check, warnings=(*check.warnings, warning))


def _name_moved(moved: Sequence[MovedOperator]) -> str:
    named = [f"{one.name}: {one.before or 'new'} -> {one.after}" for one in moved[:_NAMED]]
    more = [f"{len(moved) - _NAMED} more"] if len(moved) > _NAMED else []
    return ", ".join([*named, *more])
