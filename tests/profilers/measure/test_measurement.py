"""Measurements as values and as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import FormatError, MeasurementError, UsageError
from edgenas.profilers import Measurement
from edgenas.profilers.measure.validity import Validity


def made(**changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "model_sha256": "0" * 64,
        "target": {"device": "board", "threads": 1, "providers": ["CPUExecutionProvider"]},
        "samples_ms": tuple(float(value) for value in range(1, 12)),
        "peak_bytes": 1000,
        "load_ms": 3.5,
        "device_s": 0.25,
        "facts": {"cpu": "x", "missing": ["model"]},
        "versions": {"onnxruntime": "1.31.1"},
        "conditions_before": {"governor": None},
        "conditions_after": {"governor": None},
        "validity": Validity("unverified", ("the device does not give governor",)),
        "synthetic": False,
        "settings": {"min_runs": 10},
    }
    return Measurement(**{**fields, **changes})


def test_what_is_derived_comes_from_the_samples() -> None:
    """Of 1 to 11 ms the median is 6 and the 90th percentile 10; the interval lies around the median."""
    measurement = made()
    assert (measurement.median_ms, measurement.p90_ms) == (6.0, 10.0)
    low, high = measurement.interval_ms
    assert low < 6.0 < high
    assert 6.0 - low == pytest.approx(high - 6.0)


@given(st.lists(st.floats(1e-6, 1e5), min_size=2, max_size=40), st.none() | st.integers(0, 2**40), st.booleans())
def test_plain_data_round_trips(samples: list[float], peak: int | None, synthetic: bool) -> None:
    """Through JSON and back it is the same value."""
    measurement = made(samples_ms=tuple(samples), peak_bytes=peak, synthetic=synthetic)
    assert Measurement.from_dict(json.loads(json.dumps(measurement.to_dict()))) == measurement


def test_a_file_round_trips(tmp_path: Path) -> None:
    """What is loaded equals what was saved."""
    made().save(tmp_path / "m.json")
    assert Measurement.load(tmp_path / "m.json") == made()


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    """A file whose samples were changed by hand is refused."""
    path = tmp_path / "m.json"
    made().save(path)
    path.write_text(path.read_text().replace("11.0", "10.5"))
    with pytest.raises(FormatError, match="checksum"):
        Measurement.load(path)


def test_an_unknown_key_is_refused() -> None:
    """A key that no measurement has is named."""
    with pytest.raises(UsageError, match="unknown key 'sample_ms'; did you mean 'samples_ms'"):
        Measurement.from_dict({**made().to_dict(), "sample_ms": []})


def test_interrupted_runs_do_not_count() -> None:
    """Of 1 to 11 ms without the last four the median is 4; samples are kept as they were taken."""
    measurement = made(interrupted=(7, 8, 9, 10))
    assert measurement.median_ms == 4.0
    assert len(measurement.samples_ms) == 11


def test_where_all_runs_are_interrupted_all_count() -> None:
    """Four calm runs are too few: the median is that of all."""
    assert made(interrupted=tuple(range(4, 11))).median_ms == 6.0
    assert made(interrupted=tuple(range(5, 11))).median_ms == 3.0


def test_runs_are_raw() -> None:
    """The speed probe, and what measurements of earlier versions have among their conditions, change no value."""
    after = {"baseline_probe_ms": 0.00225, "reference_probe_ms": 0.003, "drift": 0.05, "probe_deviation": 0.3}
    measurement = made(samples_ms=(4.0, 8.0, 16.0), probe_ms=(0.001, 0.004, 0.016), conditions_after=after)
    assert measurement.runs_ms == (4.0, 8.0, 16.0)
    assert (measurement.median_ms, measurement.median_probe_ms) == (8.0, 0.004)
    assert made().median_probe_ms is None


def test_a_process_is_disturbed_by_its_probe_only() -> None:
    """More than a tenth off the batch's median, slower or faster; it is not rejected."""
    found = [made(conditions_after={"probe_deviation": deviation}) for deviation in (0.1, 0.11, -0.1, -0.11)]
    assert [each.is_disturbed for each in found] == [False, True, False, True]
    assert not any(each.is_rejected for each in found)
    assert not made().is_disturbed


@pytest.mark.parametrize("probe_times", [(0.002,), (0.0,) * 11, (float("inf"),) * 11])
def test_impossible_probe_times_are_refused(probe_times: tuple[float, ...]) -> None:
    """There is one above nothing for each sample, or none at all."""
    with pytest.raises(MeasurementError, match="a speed probe time above 0 ms for each sample, or none"):
        made(probe_ms=probe_times)


@pytest.mark.parametrize("samples", [(), (1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, float("nan")), (1.0, float("inf"))])
def test_impossible_samples_are_refused(samples: tuple[float, ...]) -> None:
    """Too few samples, or times that cannot be, are no measurement."""
    with pytest.raises(MeasurementError, match="at least 2 samples"):
        made(samples_ms=samples)


def test_it_prints_on_one_line() -> None:
    """The text has the median, its interval, and the validity; made-up numbers say so."""
    assert str(made(synthetic=True)).startswith("6.00 ms (95% interval ")
    assert "synthetic, unverified (the device does not give governor)" in str(made(synthetic=True))
