"""What a choice is compared with: the other targets of its devices, and the best subnet of each device alone."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.pipeline.choice import Deployment, Regret, TargetOutcome
from edgenas.pipeline.subnet_pool import SubnetPool
from edgenas.pipeline.trials import Trials
from edgenas.search import Candidate, Candidates, TargetPredictions
from edgenas.units import format_ms

_EQUAL = 5e-5  # accuracies are printed to a hundredth of a point


def compare_targets(
    pool: SubnetPool, trials: Trials, chosen: Candidate, deployments: Sequence[Deployment]
) -> tuple[TargetOutcome, ...]:
    """Return what each target could do within its budget, and why it was chosen or not."""
    outcomes = []
    for targets, used, deployment in zip(pool.predictions, chosen.targets, deployments, strict=True):
        reached = trials.accuracy(chosen.index, used)
        for target in targets:
            if target is used:
                index, outcome = chosen.index, "chosen"
            else:
                alone = Candidates(pool.estimates, [[target]])
                best = alone.best(only_known=True) or alone.best()
                if best is None or not best.is_likely:
                    outcomes.append(TargetOutcome(target.target, _why_nothing_fits(pool, trials, target)))
                    continue
                index = best.index
                lost = reached - _accuracy(pool, trials, index, target)
                outcome = _describe_loss(lost, len(pool.devices))
            measured = deployment.measured if target is used else trials.measured.get((index, target.target))
            outcomes.append(
                TargetOutcome(
                    target.target,
                    outcome,
                    pool.architecture(index).id,
                    _accuracy(pool, trials, index, target),
                    trials.is_evaluated(index, target),
                    float(target.latency_ms[index]) if measured is None else measured.limited_ms,
                    measured is not None,
                )
            )
    return tuple(outcomes)


def _accuracy(pool: SubnetPool, trials: Trials, index: int, target: TargetPredictions) -> float:
    """Return the accuracy of a file that was evaluated, else what it is expected to be."""
    if trials.is_evaluated(index, target):
        return trials.accuracy(index, target)
    return pool.estimates.expected(index, target.file_format)


def _describe_loss(lost: float, devices: int) -> str:
    if lost > _EQUAL:
        return f"{100 * lost:.2f} points less accurate"
    if lost > -_EQUAL:
        return "as accurate, and takes more of the budget"
    if devices > 1:
        return "more accurate, but over the budget of another device"
    return "may be more accurate, but enough others were evaluated"


def _why_nothing_fits(pool: SubnetPool, trials: Trials, target: TargetPredictions) -> str:
    """Return why no subnet is left for a target."""
    rejected = [candidate for candidate in trials.rejected if candidate.target == target.target]
    if rejected:
        return f"{rejected[-1].architecture}: {rejected[-1].reason}"
    fastest = int(target.latency_ms.argmin())
    return f"nothing fits: the fastest, {pool.architecture(fastest).id}, takes {format_ms(target.latency_ms[fastest])}"


def find_regret(pool: SubnetPool, trials: Trials, chosen: Candidate) -> tuple[Regret, ...]:
    """Return what the best subnet of each device, and the one chosen for all, costs on each device.

    Empty for one device. Accuracies are those of files where files are evaluated; latencies are measured only where
    the choice was proven.
    """
    if len(pool.devices) == 1:
        return ()
    alone = [trials.settle(Candidates(pool.estimates, [targets])) for targets in pool.predictions]
    best = {device: chosen.index if own is None else own.index for device, own in zip(pool.devices, alone, strict=True)}
    own_accuracy = {}
    for device, targets, used in zip(pool.devices, pool.predictions, chosen.targets, strict=True):
        own_target = _best_target(pool, best[device], targets) or used
        own_accuracy[device] = trials.accuracy(best[device], own_target)
    rows = []
    for best_on, index in (*best.items(), ("", chosen.index)):
        for device, targets, used in zip(pool.devices, pool.predictions, chosen.targets, strict=True):
            target = used if index == chosen.index else _best_target(pool, index, targets)
            nearest = target or min(targets, key=lambda each: float(each.excess[index]))
            accuracy = trials.accuracy(index, nearest)
            measured = trials.measured.get((index, nearest.target))
            latency_ms = float(nearest.latency_ms[index]) if measured is None else measured.limited_ms
            lost = None if target is None else own_accuracy[device] - accuracy
            rows.append(
                Regret(
                    best_on,
                    pool.architecture(index).id,
                    device,
                    nearest.target,
                    accuracy,
                    latency_ms,
                    measured is not None,
                    lost,
                )
            )
    return tuple(rows)


def _best_target(pool: SubnetPool, index: int, targets: Sequence[TargetPredictions]) -> TargetPredictions | None:
    """Return the target on which a subnet that is likely to keep the budget is the most accurate; None for none."""
    likely = [target for target in targets if target.likely()[index]]
    return max(likely, key=lambda target: pool.estimates.expected(index, target.file_format), default=None)
