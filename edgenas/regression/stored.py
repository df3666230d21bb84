"""Comparison with the stored samples of a baseline, where its model cannot be measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgenas.profilers import MIN_PROCESSES
from edgenas.regression.anchor import ANCHOR_TOLERANCE, compare_anchor
from edgenas.regression.baseline import Baseline
from edgenas.regression.findings import find_by_stored_samples, find_in_rounds
from edgenas.regression.limits import Limit
from edgenas.regression.outcome import Finding
from edgenas.regression.reasons import count_rounds
from edgenas.regression.rounds import Round

_REMEDY = "put the baseline's model beside it, or record a new baseline"


@dataclass(frozen=True)
class StoredComparison:
    """What the stored samples say; ``reasons`` are those why they say nothing."""

    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def compare_with_stored_samples(
    limits: Sequence[Limit], rounds: Sequence[Round], baseline: Baseline
) -> StoredComparison:
    """Return the findings of rounds of the new model beside the anchor; rejected rounds are not among them.

    Nothing is corrected: the anchor must run within 2% of its stored latency, and what it is off widens the interval.
    """
    absolute = tuple(find_in_rounds(limit, rounds) for limit in limits if not limit.is_relative and rounds)
    if not rounds:
        return StoredComparison()
    anchors = [each.other for each in rounds if each.other is not None]
    if not anchors or anchors[0].model_sha256 != baseline.anchor[0].model_sha256:
        why = "the stored samples cannot be used, because nothing tells whether the device is as fast as it was"
        return StoredComparison(absolute, (f"{why}; {_REMEDY}",))
    if len(rounds) < MIN_PROCESSES:
        why = f"{count_rounds(len(rounds))} cannot be compared with the stored samples, it takes {MIN_PROCESSES}"
        return StoredComparison(absolute, (f"{why}; allow more time with --seconds",))
    anchor = compare_anchor(baseline.anchor, anchors)
    if not anchor.agrees:
        why = f"{anchor}, over {ANCHOR_TOLERANCE:.0%}, so the stored samples are of no use"
        return StoredComparison(absolute, (f"{why}; {_REMEDY}",))
    new = [each.new for each in rounds]
    relative = [
        find_by_stored_samples(limit, new, baseline.measurements, anchor.ratio) for limit in limits if limit.is_relative
    ]
    return StoredComparison(
        (*relative, *absolute), warnings=(f"{anchor}; the intervals are wider by that, nothing was corrected",)
    )
