"""Part costs recovered from the latencies of whole subnets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgenas.costs import Genes, Vector
from edgenas.profilers import PublishedTables
from edgenas.profilers.fit import PartCosts, count_parts, fit_parts, remembered, restored_parts
from edgenas.profilers.part_process import PartProcess
from edgenas.space import MobileNetV3
from edgenas.space.parts import macs

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_UNSEEN = _SPACE.sample(200, np.random.default_rng(77))


def _by_work() -> Vector:
    """A cost for each part, ms: 10 us a call and 0.1 us for a thousand MACs."""
    return 0.01 + _SPACE.part_costs(macs) / 1e7


def _own(deviation: float, seed: int = 4) -> Vector:
    """As by work, but each part deviates from that by itself."""
    return _by_work() * np.random.default_rng(seed).lognormal(0, deviation, len(_SPACE.distinct_parts))


def _subnets(count: int) -> Genes:
    return _SPACE.sample_distinct(count, np.random.default_rng(2))


def _latency(genes: Genes, costs: Vector) -> Vector:
    """True latencies in ms, with 50 us overhead."""
    return 0.05 + _SPACE.sum_over_parts(genes, costs)


def _fit(costs: Vector, fitted: int, noise: float) -> PartProcess:
    """A fit to so many noisy latencies."""
    genes = _subnets(fitted)
    return fit_parts(_SPACE, genes, _latency(genes, costs) * np.random.default_rng(3).lognormal(0, noise, fitted))


def _errors(process: PartProcess, costs: Vector) -> Vector:
    """Relative errors on unseen subnets."""
    predicted = process.overhead + _SPACE.sum_over_parts(_UNSEEN, process.costs)
    errors: Vector = np.abs(predicted / _latency(_UNSEEN, costs) - 1)
    return errors


def test_counts_by_hand() -> None:
    """A row counts each part of its architecture as often as it occurs."""
    [architecture] = _SPACE.decode(_UNSEEN[:1])
    keys = [part.key for part in architecture.parts.values()]
    expected = [keys.count(part.key) for part in _SPACE.distinct_parts]
    assert count_parts(_SPACE, _UNSEEN[:1])[0].tolist() == expected


def test_costs_that_follow_work_are_recovered() -> None:
    """From 60 exact latencies, made from calls and MACs, unseen subnets are predicted within 1% each."""
    assert _errors(_fit(_by_work(), 60, noise=0), _by_work()).max() < 0.01


def test_costs_of_parts_own_are_recovered() -> None:
    """Where each part deviates by some 10% from its work, 600 exact latencies predict to 1% on average."""
    assert _errors(_fit(_own(0.1), 600, noise=0), _own(0.1)).mean() < 0.01


def test_noise_is_averaged_out() -> None:
    """With 3% of noise on 100 latencies, predictions of the true ones are nearer than one measurement would be."""
    assert _errors(_fit(_by_work(), 100, noise=0.03), _by_work()).mean() < 0.015


def test_costs_are_never_negative() -> None:
    """However much noise there is, no part is said to save time."""
    process = _fit(_by_work(), 40, noise=0.3)
    assert process.overhead >= 0
    assert process.costs.min() >= 0


def test_more_subnets_make_a_better_table() -> None:
    """The error falls with the number of measured subnets."""
    errors = [_errors(_fit(_own(0.2), count, noise=0.02), _own(0.2)).mean() for count in (30, 120, 480)]
    assert errors == sorted(errors, reverse=True)


def test_a_machine_that_slows_down_for_a_while_is_seen_through() -> None:
    """Minutes in which all takes 30% longer worsen a fit that knows the times by less than half of what they do."""
    genes, costs = _subnets(150), _own(0.1)
    at_s = np.linspace(0.0, 298.0, 150)
    slow = np.where((at_s > 100) & (at_s < 200), 1.3, 1.0)
    latency = _latency(genes, costs) * slow * np.random.default_rng(3).lognormal(0, 0.01, 150)

    def spread(process: PartProcess) -> float:
        ratio = (process.overhead + _SPACE.sum_over_parts(_UNSEEN, process.costs)) / _latency(_UNSEEN, costs)
        return float(np.std(np.log(ratio)))

    quiet = spread(fit_parts(_SPACE, genes, latency / slow))
    without, aware = (spread(fit_parts(_SPACE, genes, latency, times)) for times in (None, at_s))
    assert aware - quiet < (without - quiet) / 2


def test_values_that_fit_nowhere_lose_weight() -> None:
    """Three of 100 latencies are three times too long: they count little, and the others decide."""
    genes, costs = _subnets(100), _by_work()
    latency = _latency(genes, costs) * np.random.default_rng(3).lognormal(0, 0.01, 100)
    latency[[20, 50, 80]] *= 3
    process = fit_parts(_SPACE, genes, latency)
    assert process.evidence.weights[[20, 50, 80]].max() < 0.1
    assert np.median(process.evidence.weights) > 0.9
    assert _errors(process, costs).mean() < 0.02


@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_the_spread_is_as_large_as_the_errors(noise: float) -> None:
    """Over four fits, 95% of true latencies of unseen subnets are within 1.96 standard deviations, give or take 6%."""
    counts, within, found = count_parts(_SPACE, _UNSEEN), [], []
    for seed in range(4):
        costs, genes = _own(0.1, seed), _SPACE.sample(150, np.random.default_rng(50 + seed))
        latency = _latency(genes, costs) * np.random.default_rng(60 + seed).lognormal(0, noise, 150)
        process = fit_parts(_SPACE, genes, latency)
        within.append((_errors(process, costs) <= 1.96 * process.spread(counts) / _latency(_UNSEEN, costs)).mean())
        found.append(process.noise)
    assert np.mean(within) == pytest.approx(0.95, abs=0.06)
    assert np.mean(found) == pytest.approx(noise, rel=0.3)


def test_another_targets_costs_save_measurements() -> None:
    """Where a device is twice as slow give or take 5% a part, 20 subnets do better with that than 40 without."""
    other = _own(0.3)
    mine = 2 * other * np.random.default_rng(6).lognormal(0, 0.05, len(other))
    genes = _subnets(40)
    latency = _latency(genes, mine) * np.random.default_rng(3).lognormal(0, 0.02, 40)
    plain = fit_parts(_SPACE, genes, latency)
    informed = fit_parts(_SPACE, genes[:20], latency[:20], others=[PartCosts(0.1, other)])
    assert _errors(informed, mine).mean() < _errors(plain, mine).mean()


def test_a_process_is_restored_to_the_same_bits() -> None:
    """From what is remembered of it, costs, overhead and spread come back exactly."""
    process = _fit(_own(0.1), 60, noise=0.02)
    again = restored_parts(_SPACE, _subnets(60), remembered(process))
    counts = count_parts(_SPACE, _UNSEEN)
    assert np.array_equal(again.costs, process.costs)
    assert again.overhead == process.overhead
    assert np.array_equal(again.spread(counts), process.spread(counts))


def test_resolutions_in_between_are_interpolated() -> None:
    """From 160, 192 and 224 pixels the published tables of 176 and 208 are predicted within 2% on average."""
    folder = os.environ.get("EDGENAS_DATA")
    if folder is None:
        pytest.skip("EDGENAS_DATA does not name the folder of published data")
    space = MobileNetV3(width=1.2, resolutions=(160, 176, 192, 208, 224))
    table = PublishedTables.load(Path(folder) / "ofa" / "note10").to_table(space, "note10")
    genes = space.sample(1000, np.random.default_rng(0))
    measured = genes[np.isin(genes[:, 0], (0, 2, 4))][:120]
    between = genes[np.isin(genes[:, 0], (1, 3))]
    latency = table.latency_ms(measured) * np.random.default_rng(1).lognormal(0, 0.01, 120)
    process = fit_parts(space, measured, latency)
    predicted = process.overhead + space.sum_over_parts(between, process.costs)
    assert np.abs(predicted / table.latency_ms(between) - 1).mean() < 0.02
