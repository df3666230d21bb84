"""The result of a check: the outcome, what was found for each limit, and everything that it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgenas.errors import ExitCode
from edgenas.profilers import Measurement
from edgenas.regression.blame import OperatorComparison
from edgenas.regression.model import ModelFacts
from edgenas.regression.outcome import EXIT_CODES, Finding, Method, Outcome
from edgenas.regression.placement import PlacementComparison
from edgenas.regression.rounds import Round
from edgenas.regression.statistics import ASSUMPTION


@dataclass(frozen=True)
class ModelCheck:
    """The outcome of a check.

    Attributes:
        outcome: ``ok``, ``regressed``, ``incomparable`` or ``not measurable``; see ``check_model``.
        model: what is known of the checked model.
        target: the name of the target.
        method: ``side by side`` with the baseline's model, against its ``stored samples``, or ``budget only``.
        findings: one for each limit; empty where nothing was measured.
        reasons: why the outcome is not ok, one line each; each names what to do.
        warnings: what a reader should know although it did not change the outcome, one line each.
        rounds: the measurements, one or two of each round; rejected ones too.
        then: what is known of the baseline's model; None without a baseline, or where its file does not say.
        kept: the copy of the baseline's model that was measured; empty where none was.
        operators: the operators of both models side by side; None unless the latency regressed, side by side.
        placement: where the operators ran, in the baseline and now; None where they have no choice, or it is not known.
        stored: the stored measurements that were compared with; empty side by side.
        fingerprint: what the latency depends on besides the model, as it is now.
        seconds: the time of the measurements.
        update_command: the command that records a new baseline; empty without a baseline.
    """

    outcome: Outcome
    model: ModelFacts
    target: str
    method: Method
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rounds: tuple[Round, ...] = ()
    then: ModelFacts | None = None
    kept: str = ""
    operators: OperatorComparison | None = None
    placement: PlacementComparison | None = None
    stored: tuple[Measurement, ...] = ()
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    update_command: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command with this outcome."""
        return EXIT_CODES[self.outcome]

    @property
    def synthetic(self) -> bool:
        """True where the numbers are made up, by a fake device."""
        return any(one.synthetic for each in self.rounds for one in each.measurements)

    @property
    def is_faster(self) -> bool:
        """True where the model is surely faster than the baseline's, so that a new baseline would guard more."""
        return self.outcome == "ok" and any(one.is_lower for one in self.findings if one.limit.quantity == "latency")

    def costs_ms(self) -> tuple[list[float], list[float]]:
        """Return the latencies of the processes that count, ms: of the baseline's model, and of the new one."""
        counted = [each for each in self.rounds if not each.is_rejected]
        others = [each.other.median_ms for each in counted if each.other is not None]
        return [one.median_ms for one in self.stored] or others, [each.new.median_ms for each in counted]

    def to_dict(self) -> dict[str, Any]:
        """Return all but the raw samples as plain JSON data."""
        then, now = self.costs_ms()
        return {
            "outcome": self.outcome,
            "exit_code": int(self.exit_code),
            "model": self.model.name,
            "target": self.target,
            "method": self.method,
            "findings": [finding.to_dict() for finding in self.findings],
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "assumption": ASSUMPTION,
            "rounds": len(self.rounds),
            "rejected_rounds": sum(each.is_rejected for each in self.rounds),
            "seconds": round(self.seconds, 3),
            "then_ms": then,
            "now_ms": now,
            "faster": self.is_faster,
            "update_command": self.update_command,
            "operators": None if self.operators is None else self.operators.to_dict(),
            "placement": None if self.placement is None else self.placement.to_dict(),
            "accuracy": {"now": self.model.accuracy, "then": self.then.accuracy if self.then else None},
            "fingerprint": dict(self.fingerprint),
            "synthetic": self.synthetic,
        }

    def __repr__(self) -> str:
        changes = [f"{one.limit.quantity} {one.limit.format_ratio(one.ratio)}" for one in self.findings]
        changes += [self.placement.moves] if self.placement is not None and self.placement.moves else []
        made_up = " (synthetic)" if self.synthetic else ""
        return f"ModelCheck({self.outcome}{made_up}: {', '.join(changes) or '; '.join(self.reasons)[:160]})"
