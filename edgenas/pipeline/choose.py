"""The step that chooses a subnet, and how it is deployed, for the budgets of one or several devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from edgenas.costs import MEDIAN, Budget
from edgenas.devices import Target, is_absent
from edgenas.errors import DeviceError, NoChoiceError, UsageError
from edgenas.files import digest_of_inputs, read_bytes, sha256_hex
from edgenas.pipeline.candidate_files import CandidateFiles
from edgenas.pipeline.choice import Choice
from edgenas.pipeline.comparison import compare_targets, find_regret
from edgenas.pipeline.evaluate import find_predictor_file
from edgenas.pipeline.finetuned import digest_weights
from edgenas.pipeline.inputs_digests import choice_inputs_digest
from edgenas.pipeline.search import SearchOptions, search
from edgenas.pipeline.subnet_pool import SubnetPool, make_pool
from edgenas.pipeline.trials import USUAL_WORK, Trials
from edgenas.pipeline.workspace import Workspace
from edgenas.search import Candidates

Devices = Mapping[str, Sequence[Target]]


def choose(workspace: Workspace, budgets: Mapping[Target, Budget], max_drop: float, measure: bool = True) -> Choice:
    """Choose a subnet and a target of each device, as ``Run.choose`` describes."""
    devices = _group_by_device(budgets)
    if not 0 <= max_drop <= 1:
        raise UsageError(f"max_drop must be from 0 to 1 (100 points), but got {max_drop:g}")
    if measure:
        _check_measurable(workspace, devices)
    for target in budgets:
        if not workspace.folder.front(target.name).exists():
            workspace.table(target)  # raises where there is none to search
            search(workspace, [target], SearchOptions())
    if not measure:
        pool = make_pool(workspace, devices, budgets, optimism=0.0)
        return _try_candidates(workspace, pool, Trials(workspace, pool, _by_name(budgets), max_drop, None, _no_bar))
    return _choose_by_measuring(workspace, devices, budgets, max_drop)


def _choose_by_measuring(
    workspace: Workspace, devices: Devices, budgets: Mapping[Target, Budget], max_drop: float
) -> Choice:
    """Choose by evaluating and measuring; skipped while everything that it depends on is the same."""
    folder, progress = workspace.folder, workspace.progress
    with folder.writing():  # from here on, so that fronts, tables and weights stay those of the digest
        inputs_digest = _digest_inputs(workspace, devices, budgets, max_drop)
        file_name = _file_name(devices, budgets)
        considered = {target.name for target in budgets}
        paths = [folder.choice(target.name, file_name) for target in next(iter(devices.values()))]
        earlier = {path: Choice.load(path, workspace.space) for path in paths if path.exists()}
        for choice in earlier.values():
            if choice.inputs_digest == inputs_digest:
                progress.say(f"choose    already done ({choice.arch})")
                return choice
        pool = make_pool(workspace, devices, budgets, optimism=1.0)
        with CandidateFiles(workspace) as files, progress.step("choose", USUAL_WORK) as bar:
            trials = Trials(workspace, pool, _by_name(budgets), max_drop, files, bar)
            choice = _try_candidates(workspace, pool, trials, inputs_digest)
        path = folder.choice(choice.deployments[0].target, file_name)
        choice.save(path)
        for other, old in earlier.items():
            if other != path and {outcome.target for outcome in old.considered} <= considered:
                other.unlink()  # the older answer to the same question, with another target
    return choice


def _try_candidates(workspace: Workspace, pool: SubnetPool, trials: Trials, inputs_digest: str = "") -> Choice:
    """Return the best candidate that keeps all budgets, compared with what else there was."""
    trials.evaluate_best_of_each_target()
    candidates = Candidates(pool.estimates, pool.predictions)
    while (candidate := trials.settle(candidates)) is not None:
        deployments = trials.prove(candidates, candidate)
        if deployments is None:
            continue
        deployments = tuple(trials.add_test_accuracy(candidate.index, each) for each in deployments)
        tried = tuple(trials.rejected)
        considered = compare_targets(pool, trials, candidate, deployments)
        regret = find_regret(pool, trials, candidate)
        return Choice(
            pool.architecture(candidate.index),
            deployments,
            considered,
            tuple(trials.evaluated),
            tried,
            regret,
            inputs_digest,
        )
    places = zip(pool.devices, pool.predictions, strict=True)
    budgets = " and ".join(
        f"{targets[0].budget} on {targets[0].target if len(targets) == 1 else name}" for name, targets in places
    )
    last = trials.rejected[-1]
    if not trials.measured:
        remedies = ["choose another precision", "train longer"]
        if trials.loses_too_much:
            remedies.append("allow a larger loss of accuracy with --max-drop")
        raise NoChoiceError(
            f"none of the {len(trials.rejected)} best candidates is good enough as a file for the budget ({budgets});"
            f" the last, {last.architecture} for {last.target}: {last.reason}; {', or '.join(remedies)}"
        )
    raise NoChoiceError(
        f"none of the {len(trials.rejected)} best candidates kept the budget ({budgets}) when measured; the last,"
        f" {last.architecture} on {last.target}: {last.reason}; raise the budget or profile longer"
    )


def _no_bar(done: float, note: str = "", /) -> None:
    """Show nothing."""


def _by_name(targets: Mapping[Target, Budget]) -> dict[str, Target]:
    return {target.name: target for target in targets}


def _group_by_device(budgets: Mapping[Target, Budget]) -> dict[str, list[Target]]:
    """Return the targets of each device; UsageError for none, and for different budgets on one device."""
    if not budgets:
        raise UsageError("choose needs a target with its budget, but got none")
    devices: dict[str, list[Target]] = {}
    for target in budgets:
        devices.setdefault(target.profile.name, []).append(target)
    for name, targets in devices.items():
        first, *others = dict.fromkeys(budgets[target] for target in targets)
        if others:
            raise UsageError(f"the targets of {name} must have one budget, but got {first} and {others[0]}")
    return devices


def _check_measurable(workspace: Workspace, devices: Devices) -> None:
    """Raise where files of candidates cannot be made here, or not measured there."""
    for name, targets in devices.items():
        if is_absent(targets[0].profile):
            raise DeviceError(
                f"{name}: is known from published latency tables only, there is no device to measure on; --no-measure"
                " chooses by predictions alone"
            )
    if not workspace.folder.checkpoint.exists():
        _ = workspace.trained  # raises, and says how to train
    if not all(workspace.folder.front(target.name).exists() for targets in devices.values() for target in targets):
        workspace.require_data()  # without images no front can be made


def _digest_inputs(workspace: Workspace, devices: Devices, budgets: Mapping[Target, Budget], max_drop: float) -> str:
    folder = workspace.folder
    described = [
        [
            target.to_dict(),
            asdict(budgets[target]),
            *(sha256_hex(read_bytes(path)) for path in (folder.front(target.name), folder.table(target.name))),
        ]
        for target in budgets
    ]
    described.append([sha256_hex(read_bytes(find_predictor_file(workspace)))])
    return choice_inputs_digest(digest_weights(workspace), described, max_drop)


def _file_name(devices: Devices, budgets: Mapping[Target, Budget]) -> str:
    """Return the name of the file of a choice: the first device's budget, and a digest of the other devices'."""
    (_, first), *others = [(name, budgets[targets[0]]) for name, targets in devices.items()]
    limits = []
    if first.latency is not None:
        tail = "" if first.percentile == MEDIAN else f"p{first.percentile}-"
        limits.append(f"latency-{tail}{first.latency_ms:g}ms")
    if first.memory is not None:
        limits.append(f"memory-{first.memory_bytes:.0f}B")
    if others:
        limits.append(f"with-{digest_of_inputs(*([name, asdict(budget)] for name, budget in others))[:8]}")
    return "_".join(limits)
