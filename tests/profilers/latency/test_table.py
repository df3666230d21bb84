"""Latency tables: predictions, files, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.costs import Genes, Vector
from edgenas.errors import FormatError, RunError, UsageError
from edgenas.files import read_document, write_document
from edgenas.profilers import LatencyTable, Measurement
from edgenas.profilers.latency.holdout import HoldoutReport
from edgenas.profilers.measure.validity import Validity
from edgenas.space import MobileNetV3
from edgenas.space.parts import macs

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)
_GENES = _SPACE.sample_distinct(64, np.random.default_rng(0))
_HELD_OUT = np.arange(64) >= 60
# How far each held-out subnet's prediction is from what is "measured": predicted / measured - 1.
_ERRORS = (0.02, -0.04, 0.08, -0.2)


def _latency_ms(genes: Genes) -> Vector:
    return 0.05 + _SPACE.sum_over_parts(genes, 0.01 + _SPACE.part_costs(macs) / 1e7)


def _peak_bytes(genes: Genes) -> Vector:
    return 1e6 + 2 * _SPACE.activation_bytes(genes) + 3 * _SPACE.weight_bytes(genes)


def _measured(median_ms: float, peak_bytes: float | None, status: Any = "valid") -> Measurement:
    """A made-up measurement with this median: three runs of equal distance."""
    return Measurement(
        model_sha256="0" * 64,
        target={"device": "made up"},
        samples_ms=(0.9 * median_ms, median_ms, 1.1 * median_ms),
        peak_bytes=None if peak_bytes is None else round(peak_bytes),
        load_ms=1.0,
        device_s=0.5,
        facts={},
        versions={},
        conditions_before={},
        conditions_after={},
        validity=Validity(status),
        synthetic=True,
        settings={},
    )


def _measurements() -> list[Measurement]:
    """Exact to the formula for fitted subnets; off by ``_ERRORS``, and by 10% in memory, for what is held out."""
    latency, peak = _latency_ms(_GENES), _peak_bytes(_GENES)
    latency[_HELD_OUT] /= 1 + np.array(_ERRORS)
    peak[_HELD_OUT] /= 1.1
    statuses = ["valid"] * 50 + ["unverified"] * 14
    return [_measured(*values) for values in zip(latency.tolist(), peak.tolist(), statuses, strict=True)]


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    """A table fitted to made-up measurements."""
    return LatencyTable.fit(_SPACE, "made-up", _GENES, _measurements(), _HELD_OUT, "inputs")


def _report(table: LatencyTable) -> HoldoutReport:
    assert table.holdout is not None
    return table.holdout


def test_unmeasured_subnets_are_predicted(table: LatencyTable) -> None:
    """Latency and memory of subnets that were never measured are within 1% of the formula of the measured values."""
    genes = _SPACE.sample(200, np.random.default_rng(9))
    np.testing.assert_allclose(table.latency_ms(genes), _latency_ms(genes), rtol=0.01)
    np.testing.assert_allclose(table.peak_bytes(genes), _peak_bytes(genes), rtol=0.01)


def test_zero_and_unknown_peaks_are_harmless() -> None:
    """Fitted and held-out peaks of 0 bytes, and unknown ones, change neither predictions nor the report."""
    measurements = _measurements()
    for row, peak in ((7, 0), (61, 0), (9, None), (62, None)):
        measurements[row] = dataclasses.replace(measurements[row], peak_bytes=peak)
    table = LatencyTable.fit(_SPACE, "made-up", _GENES, measurements, _HELD_OUT, "inputs")
    np.testing.assert_allclose(table.peak_bytes(_GENES), _peak_bytes(_GENES), rtol=0.01)
    assert _report(table).memory_mape == pytest.approx(0.1, abs=1e-3)


def test_held_out_subnets_are_not_fitted(table: LatencyTable) -> None:
    """Other measurements of the held-out subnets leave the table's costs the same."""
    measurements = _measurements()[:60] + [_measured(100.0, 1e9)] * 4
    other = LatencyTable.fit(_SPACE, "made-up", _GENES, measurements, _HELD_OUT, "inputs")
    assert np.array_equal(other.part_ms, table.part_ms)
    assert (other.overhead_ms, other.memory) == (table.overhead_ms, table.memory)
    assert _report(other).mape > 0.9


def test_a_table_has_the_latencies_that_it_was_fitted_to(table: LatencyTable, tmp_path: Path) -> None:
    """They are the measured medians, in whatever order they are asked for, also after it was saved."""
    table.save(tmp_path / "table.json")
    for each in (table, LatencyTable.load(tmp_path / "table.json", _SPACE)):
        found = each.fitted_latencies_ms(_GENES[[59, 0, 7]])
        np.testing.assert_allclose(found, _latency_ms(_GENES[[59, 0, 7]]), rtol=1e-12)


def test_a_matrix_costs_what_its_parts_cost_one_by_one(table: LatencyTable) -> None:
    """The vector of a genes matrix is the overhead plus the cost of each part of each architecture."""
    cost = {part.key: ms for part, ms in zip(_SPACE.distinct_parts, table.part_ms.tolist(), strict=True)}
    summed = [
        table.overhead_ms + sum(cost[part.key] for part in architecture.parts.values())
        for architecture in _SPACE.decode(_GENES)
    ]
    np.testing.assert_allclose(table.latency_ms(_GENES), summed, rtol=1e-12)


def test_a_million_predictions_are_the_same_as_single_ones(table: LatencyTable) -> None:
    """Each row gets the bits that it gets alone."""
    genes = _SPACE.sample(5000, np.random.default_rng(1))
    together = table.latency_ms(genes)
    for row in (0, 2047, 2048, 4999):
        assert table.latency_ms(genes[row : row + 1])[0] == together[row]


def test_intervals_and_probabilities_belong_together(table: LatencyTable) -> None:
    """A budget at the prediction is kept with probability 0.5, at the interval's ends with 0.025 and 0.975."""
    genes = _GENES[:3]
    low, high = table.interval_ms(genes).T
    assert (low < table.latency_ms(genes)).all()
    for row in range(3):
        budgets = (low[row], table.latency_ms(genes)[row], high[row])
        found = [table.probability_within_budget(genes, float(budget))[row] for budget in budgets]
        assert found == pytest.approx([0.025, 0.5, 0.975])


def test_a_table_without_measurements_has_no_intervals(table: LatencyTable) -> None:
    """A table that was not fitted to measured subnets refuses to give intervals."""
    published = dataclasses.replace(table, process=None)
    with pytest.raises(UsageError, match="is not from measured subnets, so it has no intervals"):
        published.interval_ms(_GENES)


def test_tables_of_other_targets_help(tmp_path: Path, table: LatencyTable) -> None:
    """A table with a source table predicts as well, and comes back from its file with its intervals."""
    few = np.r_[np.arange(30), np.arange(60, 64)]
    measurements = [_measurements()[index] for index in few]
    other = LatencyTable.fit(_SPACE, "o", _GENES[few], measurements, _HELD_OUT[few], "", source_tables=[table])
    genes = _SPACE.sample(50, np.random.default_rng(8))
    np.testing.assert_allclose(other.latency_ms(genes), _latency_ms(genes), rtol=0.01)
    other.save(tmp_path / "other.json")
    loaded = LatencyTable.load(tmp_path / "other.json", _SPACE)
    assert np.array_equal(loaded.interval_ms(genes), other.interval_ms(genes))


def test_a_table_of_another_space_is_no_help(table: LatencyTable) -> None:
    """Another target's table must be of the same space."""
    foreign = dataclasses.replace(table, space=dataclasses.replace(_SPACE, classes=11))
    with pytest.raises(UsageError, match="give tables of the same space"):
        LatencyTable.fit(_SPACE, "t", _GENES, _measurements(), _HELD_OUT, "", source_tables=[foreign])


def test_too_little_to_fit_is_refused() -> None:
    """With 19 subnets to fit, or none held out, there is no table; the message says what to do."""
    measurements = _measurements()
    with pytest.raises(UsageError, match=r"at least 20 subnets to fit .* but got 19 and 1; give it more minutes"):
        LatencyTable.fit(_SPACE, "t", _GENES[:20], measurements[:20], np.arange(20) == 19, "")
    with pytest.raises(UsageError, match="but got 30 and 0"):
        LatencyTable.fit(_SPACE, "t", _GENES[:30], measurements[:30], np.zeros(30, dtype=bool), "")


def test_five_subnets_are_enough_with_a_source_table(table: LatencyTable) -> None:
    """With another target's table five subnets to fit are enough, and four are not."""
    measurements = _measurements()
    few = LatencyTable.fit(_SPACE, "t", _GENES[:6], measurements[:6], np.arange(6) == 5, "", source_tables=[table])
    assert (few.latency_ms(_GENES) > 0).all()
    with pytest.raises(UsageError, match="at least 5 subnets to fit and one held out, but got 4 and 1"):
        LatencyTable.fit(_SPACE, "t", _GENES[:5], measurements[:5], np.arange(5) == 4, "", source_tables=[table])


def test_a_device_that_hides_its_memory_has_a_table_too(table: LatencyTable, tmp_path: Path) -> None:
    """Without any peak, latencies are as with them, memory is counted, and the report says so."""
    measurements = [dataclasses.replace(each, peak_bytes=None) for each in _measurements()]
    blind = LatencyTable.fit(_SPACE, "t", _GENES, measurements, _HELD_OUT, "")
    assert np.array_equal(blind.latency_ms(_GENES), table.latency_ms(_GENES))
    np.testing.assert_allclose(blind.peak_bytes(_GENES), _SPACE.activation_bytes(_GENES) + _SPACE.weight_bytes(_GENES))
    assert _report(blind).memory_mape is None
    assert "the device does not say; activations and weights are counted once each" in str(blind.holdout)
    blind.save(tmp_path / "blind.json")
    assert LatencyTable.load(tmp_path / "blind.json", _SPACE).holdout == blind.holdout


def test_a_table_comes_back_from_its_file(table: LatencyTable, tmp_path: Path) -> None:
    """Saved and loaded it predicts the same bits, and saving it again gives the same bytes."""
    path, again = tmp_path / "table.json", tmp_path / "again.json"
    table.save(path)
    loaded = LatencyTable.load(path, _SPACE)
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert np.array_equal(loaded.latency_ms(_GENES), table.latency_ms(_GENES))
    assert np.array_equal(loaded.peak_bytes(_GENES), table.peak_bytes(_GENES))
    assert np.array_equal(loaded.interval_ms(_GENES), table.interval_ms(_GENES))
    assert loaded.holdout == table.holdout
    assert (loaded.target, loaded.inputs_digest) == ("made-up", "inputs")


def test_parts_without_a_cost_are_counted(table: LatencyTable, tmp_path: Path) -> None:
    """A table that lacks a part's cost, or has a negative one, is refused, naming the first."""
    path = tmp_path / "table.json"
    keys = [part.key for part in _SPACE.distinct_parts]
    table.save(path)
    body = read_document(path, "latency_table", 9)
    costs = dict(body["parts_ms"])
    del costs[keys[3]]
    costs[keys[5]] = -0.1
    write_document(path, "latency_table", 9, {**body, "parts_ms": costs})
    with pytest.raises(FormatError, match="has no cost for 2 parts, the first is " + keys[3]):
        LatencyTable.load(path, _SPACE)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "7.5"])
def test_an_edited_cost_is_refused(value: str, table: LatencyTable, tmp_path: Path) -> None:
    """A number that was changed by hand, or is not a number, is noticed."""
    path = tmp_path / "table.json"
    table.save(path)
    text = path.read_text()
    path.write_text(text.replace(f'"overhead_ms": {table.overhead_ms}', f'"overhead_ms": {value}'))
    assert path.read_text() != text
    with pytest.raises(FormatError, match=r"table\.json: is damaged"):
        LatencyTable.load(path, _SPACE)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("target", 3, "target: input should be a valid string, but got 3"),
        ("overhead_ms", None, "overhead_ms: input should be a valid number, but got None"),
        ("overhead_ms", -1, "overhead_ms: input should be greater than or equal to 0, but got -1"),
        ("parts_ms", [], "parts_ms: input should be a valid dictionary"),
        ("holdout", {}, "key 'holdout.mape' is missing"),
        ("memory", {"constant": -1}, "memory: .*constant: input should be greater than or equal to 0, but got -1"),
        ("curve", {"knots": []}, "curve: .*knots: list should have at least 2 items"),
        ("posterior", {}, "posterior: key 'architectures' is missing"),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused(
    name: str, value: object, message: str, table: LatencyTable, tmp_path: Path
) -> None:
    """A table that another program wrote, with a right checksum, is refused naming the key and the rule."""
    path = tmp_path / "table.json"
    table.save(path)
    body = read_document(path, "latency_table", 9)
    write_document(path, "latency_table", 9, {**body, name: value})
    with pytest.raises(UsageError, match=rf"table\.json: .*{message}"):
        LatencyTable.load(path, _SPACE)


@pytest.mark.parametrize("lengths", [(2, 2), (3, 1), (3, 0)])
def test_costs_that_are_not_for_each_resolution_are_refused(
    lengths: tuple[int, int], table: LatencyTable, tmp_path: Path
) -> None:
    """The space has three resolutions: lists of three numbers for all parts, or one number for all."""
    path = tmp_path / "table.json"
    table.save(path)
    body = read_document(path, "latency_table", 9)
    first, *rest = body["parts_ms"]
    regular, odd = ([0.1] * length if length else 0.1 for length in lengths)
    costs = {first: odd, **dict.fromkeys(rest, regular)}
    write_document(path, "latency_table", 9, {**body, "parts_ms": costs})
    with pytest.raises(FormatError, match="parts_ms must have a number a part, or one for each resolution"):
        LatencyTable.load(path, _SPACE)


def test_a_cut_table_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    """A file that ends too early is refused."""
    path = tmp_path / "table.json"
    table.save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FormatError, match="is damaged"):
        LatencyTable.load(path, _SPACE)


def test_a_table_of_another_space_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    """A table is only read for the space that it was made for."""
    path = tmp_path / "table.json"
    table.save(path)
    with pytest.raises(RunError, match=f"is of space {_SPACE.short_hash}, not of"):
        LatencyTable.load(path, dataclasses.replace(_SPACE, classes=11))


def _write_older(table: LatencyTable, path: Path, version: int, **changes: Any) -> None:
    """Write the table as version 8 had it, with changes for an earlier version."""
    table.save(path)
    body = read_document(path, "latency_table", 9)
    holdout = {**body["holdout"], "kendall_tau_at": {"24": 0.8}, "drift_corrected": [0.01], "probe_ms": 0.003}
    for key in ("kendall_tau_within", "compared_pairs"):
        del holdout[key]
    body = {**body, "holdout": {**holdout, "reference_ms": 2.0}}
    write_document(path, "latency_table", version, {**body, **changes})


def test_a_table_of_version_8_loads(table: LatencyTable, tmp_path: Path) -> None:
    """Its costs and its report stay, without what is not computed any more; pairs were not counted then."""
    path = tmp_path / "table.json"
    _write_older(table, path, 8)
    upgraded = LatencyTable.load(path, _SPACE)
    assert np.array_equal(upgraded.interval_ms(_GENES), table.interval_ms(_GENES))
    assert upgraded.inputs_digest == "inputs"
    assert upgraded.holdout == dataclasses.replace(_report(table), kendall_tau_within=None, compared_pairs=0)


def test_a_published_table_of_version_8_loads(table: LatencyTable, tmp_path: Path) -> None:
    """A table without a report has none after the upgrade."""
    path = tmp_path / "table.json"
    dataclasses.replace(table, holdout=None, process=None, fitted_genes=None).save(path)
    write_document(path, "latency_table", 8, read_document(path, "latency_table", 9))
    upgraded = LatencyTable.load(path, _SPACE)
    assert upgraded.holdout is None
    assert np.array_equal(upgraded.latency_ms(_GENES), table.latency_ms(_GENES))


def test_a_table_of_other_covariances_is_fitted_anew(table: LatencyTable, tmp_path: Path) -> None:
    """The costs and intervals of a table of version 7 are those of a fit to its samples; it has no digest."""
    path = tmp_path / "table.json"
    table.save(path)
    body = read_document(path, "latency_table", 9)
    older = dict.fromkeys(("own", "place", "detail", "overhead", "curve", "noise"), 0.01)
    posterior = {**body["posterior"], "variances": older}
    parts = dict.fromkeys(body["parts_ms"], 1.0)
    _write_older(table, path, 7, posterior=posterior, parts_ms=parts, overhead_ms=9.0)
    upgraded = LatencyTable.load(path, _SPACE)
    genes = _SPACE.sample(200, np.random.default_rng(9))
    np.testing.assert_allclose(upgraded.latency_ms(genes), table.latency_ms(genes), rtol=1e-6)
    np.testing.assert_allclose(upgraded.latency_std_ms(genes), table.latency_std_ms(genes), rtol=1e-3)
    assert upgraded.inputs_digest == ""
    assert upgraded.holdout == dataclasses.replace(_report(table), kendall_tau_within=None, compared_pairs=0)
