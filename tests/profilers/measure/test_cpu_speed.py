"""How steady the CPU was, by the speed probe."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgenas.profilers import Measurement, MeasurementResult
from edgenas.profilers.measure.cpu_speed import (
    measurement_with_probe_deviation,
    median_probe_ms,
    speed_variation,
)
from edgenas.profilers.measure.validity import Validity

Made = Callable[..., Measurement]


@pytest.fixture
def made() -> Made:
    """Make a measurement of 10 ms with these times of the speed probe."""

    def make(*probe_ms: float) -> Measurement:
        return Measurement(
            model_sha256="0" * 64, target={}, peak_bytes=1, load_ms=1.0, device_s=1.0, facts={}, versions={},
            conditions_before={}, conditions_after={"governor": "performance"}, validity=Validity("valid"),
            synthetic=True, settings={}, samples_ms=(10.0,) * (len(probe_ms) or 5), probe_ms=probe_ms,
        )  # fmt: skip

    return make


def test_the_usual_time_is_the_median_of_the_processes(made: Made) -> None:
    """Medians of 3, 4 and 2 have 3, however many runs each has; without a probe there is none."""
    assert median_probe_ms([made(3.0, 3.0, 9.0), made(4.0, 4.0), made(*[2.0] * 9), made()]) == 3.0
    assert median_probe_ms([made(), made()]) is None
    assert median_probe_ms([]) is None


def test_variation_is_from_the_10th_to_the_90th_percentile(made: Made) -> None:
    """Of 100, 101 to 110 in two processes, the percentiles are 101 and 109: 7.9%."""
    times = [100.0 + place for place in range(11)]
    assert speed_variation([made(*times[:4]), made(*times[4:])]) == pytest.approx(109 / 101 - 1)
    assert MeasurementResult((made(*times),)).speed_variation == pytest.approx(109 / 101 - 1)


def test_a_few_disturbed_runs_do_not_change_the_variation(made: Made) -> None:
    """One run of twenty at ten times the others' probe time."""
    assert speed_variation([made(*[3.0] * 19, 30.0)]) == 0.0


def test_without_a_probe_the_variation_is_unknown(made: Made) -> None:
    """None of its processes has the speed probe."""
    assert speed_variation([made(), made()]) is None
    assert MeasurementResult((made(),)).to_dict()["speed_variation"] is None


def test_a_deviation_joins_the_conditions(made: Made) -> None:
    """A probe of 3.3 where 3 is usual is 10% slower; the other conditions and all values stay."""
    found = measurement_with_probe_deviation(made(3.3, 3.3), 3.0)
    assert found.conditions_after == {"governor": "performance", "probe_deviation": pytest.approx(0.1)}
    assert (found.median_ms, found.validity) == (10.0, Validity("valid"))


def test_what_is_unknown_changes_nothing(made: Made) -> None:
    """Without a probe, or without a usual time, there is no deviation."""
    assert measurement_with_probe_deviation(made(), 3.0) == made()
    assert measurement_with_probe_deviation(made(3.0, 3.0), None) == made(3.0, 3.0)
