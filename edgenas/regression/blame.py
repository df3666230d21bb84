"""Which operators make the difference between two models, or between two targets for one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgenas.errors import UsageError
from edgenas.profilers import Operator, OperatorProfile
from edgenas.profilers.measure.statistics import MIN_PROCESSES, median_of_medians_with_interval
from edgenas.regression.alignment import Pair, align_operators
from edgenas.regression.placement import PlacementComparison, place_pairs

Change = Literal["added", "removed", "fused", "unfused", "provider", "fusion", "type", "shapes", "slower", "faster"]
# A difference that is smaller than this share of the model's time is not called slower or faster: of a hundred
# operators some differ by chance, and onnxruntime counts whole microseconds.
_MIN_SHARE = 0.005
_DRAWS = 500  # of the bootstrap


@dataclass(frozen=True)
class OperatorChange:
    """An operator of two models side by side.

    Attributes:
        before: the operator of the first model; None where only the second has it.
        after: the operator of the second model; None where only the first has it.
        changes: what differs. ``added`` or ``removed``: only one model has it. ``unfused`` or ``fused``: only one has
            it, but the nodes it computes were, or are now, part of another operator. ``provider``: another execution
            provider or delegate ran it. ``fusion``: it computes other nodes. ``type``, ``shapes``: of its inputs and
            outputs. ``slower``, ``faster``: beyond what varies from process to process. Providers, types and layouts
            of different runtimes are not compared.
        difference_us: by how much its time in a run is longer in the second model, microseconds; the whole time where
            only one has it; None where a time is not known.
        interval_us: the ends of the difference's 95% interval; None with fewer than six processes.
        part: its part of the difference between the sums of both models' operators, 0.5 for half, below zero where it
            works against it; None where these sums do not differ beyond noise.
    """

    before: Operator | None
    after: Operator | None
    changes: tuple[Change, ...] = ()
    difference_us: float | None = None
    interval_us: tuple[float, float] | None = None
    part: float | None = None

    @property
    def operator(self) -> Operator:
        """The operator now, or the removed one."""
        operator = self.after or self.before
        assert operator is not None
        return operator


@dataclass(frozen=True)
class OperatorComparison:
    """The operators of two profiles side by side, and what each explains of the difference.

    Attributes:
        before: the first profile.
        after: the second.
        pairs: places of the operators that belong together in the two profiles; None where there is no partner.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import Target, compare_operators, load_profile, profile_operators
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> for name, size in (("old", 320_000), ("new", 480_000)):
        ...     _ = (folder / f"{name}.onnx").write_bytes(bytes(size))
        >>> files = [folder / "old.onnx", folder / "new.onnx"]
        >>> comparison = compare_operators(*profile_operators(files, Target(load_profile(folder / "toy.yaml"))))
        >>> comparison
        OperatorComparison(the operators take 160.0 us more (+50.0%), at 95% from 160.0 to 160.0 us)
        >>> [(change.operator.name, change.changes, change.part) for change in comparison.changes]
        [('fake', ('slower',), 1.0)]
    """

    before: OperatorProfile
    after: OperatorProfile
    pairs: tuple[Pair, ...]

    @cached_property
    def difference_us(self) -> float | None:
        """By how much longer the operators of the second take in all, microseconds; None where times are not known."""
        before, after = self.before.time_us, self.after.time_us
        return None if before is None or after is None else after - before

    @cached_property
    def interval_us(self) -> tuple[float, float] | None:
        """The ends of the 95% interval of ``difference_us``; None with fewer than six processes.

        A program that interrupts a process delays a few operators, others in each process. So the sum of the
        operators' medians is steadier than the median of the processes' sums, and its interval is that of the
        percentile bootstrap over processes: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), 13.3.
        """
        before, after = (_times_by_operator(profile.operators) for profile in (self.before, self.after))
        processes = min(before.shape[1], after.shape[1])
        if processes < MIN_PROCESSES:
            return None
        draws = np.random.default_rng(0).integers(processes, size=(_DRAWS, processes))
        sums = [(np.median(after[:, draw], axis=1).sum() - np.median(before[:, draw], axis=1).sum()) for draw in draws]
        low, high = np.percentile(sums, [2.5, 97.5])
        return float(low), float(high)

    @property
    def differs(self) -> bool:
        """True where the operators of one take longer in all, beyond what varies from process to process."""
        return self.interval_us is not None and not self.interval_us[0] <= 0 <= self.interval_us[1]

    @cached_property
    def changes(self) -> tuple[OperatorChange, ...]:
        """All operators of both models, in the order in which the second ran them."""
        return tuple(self._compare_pair(*pair) for pair in self.pairs)

    @property
    def by_difference(self) -> list[OperatorChange]:
        """All operators, those that make the largest difference first; of equal ones, those that changed first.

        Where only one of the two runtimes tells times, the longest first.
        """

        def importance(change: OperatorChange) -> tuple[float, bool]:
            times = [one.time_us or 0.0 for one in (change.before, change.after) if one is not None]
            return abs(max(times) if change.difference_us is None else change.difference_us), bool(change.changes)

        return sorted(self.changes, key=importance, reverse=True)

    @cached_property
    def placement(self) -> PlacementComparison:
        """Where the operators ran, and which of them left their provider."""
        return place_pairs(self.before, self.after, self.pairs)

    @cached_property
    def _sources(self) -> tuple[frozenset[str], frozenset[str]]:
        """The nodes of the model files that the operators of the first and of the second are known to compute."""
        before, after = (
            frozenset(source for operator in profile.operators for source in operator.sources)
            for profile in (self.before, self.after)
        )
        return before, after

    def _compare_pair(self, old: int | None, new: int | None) -> OperatorChange:
        before = None if old is None else self.before.operators[old]
        after = None if new is None else self.after.operators[new]
        difference, interval = _difference(before, after)
        changes = list(self._list_changes(before, after))
        threshold = _MIN_SHARE * (self.before.time_us or 0.0)
        if before and after and difference is not None and interval is not None and abs(difference) > threshold:
            changes += ["slower"] if interval[0] > 0 else ["faster"] if interval[1] < 0 else []
        part = (
            difference / self.difference_us if self.differs and difference is not None and self.difference_us else None
        )
        return OperatorChange(before, after, tuple(changes), difference, interval, part)

    def _list_changes(self, before: Operator | None, after: Operator | None) -> list[Change]:
        """Return what differs between an operator and its partner but their times."""
        sources_before, sources_after = self._sources
        if after is None:
            assert before is not None
            return ["fused" if before.sources and sources_after.issuperset(before.sources) else "removed"]
        if before is None:
            return ["unfused" if after.sources and sources_before.issuperset(after.sources) else "added"]
        same_runtime = self.before.target["runtime"] == self.after.target["runtime"]
        differs: dict[Change, bool] = {
            "provider": before.provider != after.provider and same_runtime,
            "fusion": bool(set(before.sources) & set(after.sources)) and set(before.sources) != set(after.sources),
            "type": before.type != after.type and same_runtime,
            "shapes": same_runtime
            and (before.input_shapes, before.output_shapes) != (after.input_shapes, after.output_shapes),
        }
        return [change for change, is_so in differs.items() if is_so]

    def to_dict(self) -> dict[str, Any]:
        """Return both profiles' conditions, the sums, the placement and every operator as plain data."""
        return {
            "before": _profile_dict(self.before),
            "after": _profile_dict(self.after),
            "difference_us": self.difference_us,
            "interval_95_us": self.interval_us,
            "placement": self.placement.to_dict(),
            "operators": [asdict(change) for change in self.changes],
        }

    def __str__(self) -> str:
        difference, interval = self.difference_us, self.interval_us
        if difference is None or self.before.time_us is None:
            return f"{self.after.runtime if self.before.time_us else self.before.runtime} tells no times of operators"
        more = "more" if difference >= 0 else "less"
        change = f"the operators take {abs(difference):.1f} us {more} ({difference / self.before.time_us:+.1%})"
        return change if interval is None else f"{change}, at 95% from {interval[0]:.1f} to {interval[1]:.1f} us"

    def __repr__(self) -> str:
        return f"OperatorComparison({self})"


def compare_operators(before: OperatorProfile, after: OperatorProfile) -> OperatorComparison:
    """Compare the operators of two models on one target, or of one model on two.

    Operators are paired by name, the nodes they compute, type and shapes, so that models whose names all changed are
    compared, too. Intervals are of the differences from process to process: take both profiles with one call of
    ``profile_operators``, which runs a process of each in turn.

    Args:
        before: the operators of the model that others are compared with.
        after: those of the other.

    Raises:
        UsageError: for a synthetic profile and a real one.
    """
    if before.synthetic != after.synthetic:
        raise UsageError("the operators of a fake device and of a real one cannot be compared; profile both on one")
    return OperatorComparison(before, after, tuple(align_operators(before.operators, after.operators)))


def _difference(before: Operator | None, after: Operator | None) -> tuple[float | None, tuple[float, float] | None]:
    """Return by how much longer an operator takes than its partner, and the ends of the 95% interval."""
    times = [() if operator is None else operator.times_us for operator in (before, after)]
    known = [operator.time_us for operator in (before, after) if operator is not None]
    if None in known:
        return None, None
    difference = (0.0 if after is None else after.time_us or 0.0) - (0.0 if before is None else before.time_us or 0.0)
    processes = max(map(len, times))
    return difference, _interval_of_difference(*(each or (0.0,) * processes for each in times))


def _times_by_operator(operators: Sequence[Operator]) -> npt.NDArray[np.float64]:
    """Return the times of the operators whose time is known, of shape (operators, processes)."""
    known = [operator.times_us for operator in operators if operator.times_us]
    return np.array(known, np.float64).reshape(len(known), -1 if known else 0)


def _interval_of_difference(before: Sequence[float], after: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95% interval of the differences between processes that ran in turn; None for fewer than six."""
    differences = [new - old for old, new in zip(before, after, strict=False)]
    return median_of_medians_with_interval(differences)[1:] if len(differences) >= MIN_PROCESSES else None


def _profile_dict(profile: OperatorProfile) -> dict[str, Any]:
    described = profile.to_dict()
    del described["operators"]
    return {**described, "time_us": profile.time_us}
