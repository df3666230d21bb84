"""The baseline speed of a device, and measurements scaled to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgenas.profilers import Measurement, MeasurementResult
from edgenas.profilers.measure.baseline_speed import (
    find_baseline_probe_ms,
    find_common_baseline_ms,
    scale_to_common_baseline,
)
from edgenas.profilers.measure.validity import Validity

Made = Callable[..., Measurement]


@pytest.fixture
def made() -> Made:
    """Make a measurement of 10 ms with a probe time, at a time, on a device that remembers a baseline or none."""

    def make(probe: float | None, taken_s: float = 1.0, remembered: float | None = None, **changes: Any) -> Measurement:
        fields: dict[str, Any] = {
            "model_sha256": "0" * 64, "target": {}, "peak_bytes": 1, "load_ms": 1.0, "device_s": 1.0, "facts": {},
            "versions": {}, "conditions_before": {}, "conditions_after": {"baseline_probe_ms": remembered},
            "validity": Validity("valid"), "synthetic": True, "settings": {}, "samples_ms": (10.0,) * 5,
            "probe_ms": () if probe is None else (probe,) * 5, "taken_s": taken_s,
        }  # fmt: skip
        return Measurement(**{**fields, **changes})

    return make


def test_the_baseline_is_what_the_device_remembered_last(made: Made) -> None:
    """The one at the latest measurement, when the device knew most."""
    assert find_baseline_probe_ms([made(3.1, 2.0, 3.05), made(2.9, 3.0, 3.0), made(3.0, 1.0)]) == 3.0


def test_a_device_that_remembers_nothing_has_the_median(made: Made) -> None:
    """Probe times of 3, 4 and 2 have 3; without a probe there is none."""
    assert find_baseline_probe_ms([made(3.0), made(4.0), made(2.0), made(None)]) == 3.0
    assert find_baseline_probe_ms([made(None), made(None, remembered=2.0)]) is None
    assert find_baseline_probe_ms([]) is None


def test_a_device_that_has_changed_has_the_median(made: Made) -> None:
    """A third slower than remembered in the median is another governor; a fifth, a tenth of the latency, is not."""
    assert (
        find_baseline_probe_ms([made(4.0, remembered=3.0), made(4.1, remembered=3.0), made(3.0, remembered=3.0)]) == 4.0
    )
    assert (
        find_baseline_probe_ms([made(3.6, remembered=3.0), made(9.0, remembered=3.0), made(3.1, remembered=3.0)]) == 3.0
    )


def test_rejected_measurements_do_not_decide_the_baseline(made: Made) -> None:
    """They do where there are no others."""
    rejected = made(4.0, validity=Validity("rejected", ("hot",)))
    assert find_baseline_probe_ms([rejected, made(3.0)]) == 3.0
    assert find_baseline_probe_ms([rejected]) == 4.0


def test_measurements_at_one_baseline_are_comparable(made: Made) -> None:
    """10 ms at probe times of 3 and 2, with a baseline of 2.5, are 9.13 ms and 11.2 ms."""
    found = scale_to_common_baseline([made(3.0), made(2.0), made(None)])
    assert [each.median_ms for each in found] == pytest.approx([10 * (2.5 / 3) ** 0.5, 10 * 1.25**0.5, 10.0])


def test_the_baseline_follows_from_what_was_remembered(made: Made) -> None:
    """The one a batch chose does not count when measurements are compared with others."""
    alone = scale_to_common_baseline([made(3.6, taken_s=1.0), made(3.7, taken_s=2.0)])
    assert find_common_baseline_ms(alone) == pytest.approx(3.65)
    together = scale_to_common_baseline([*alone, made(3.1, taken_s=3.0, remembered=3.5)])
    assert find_common_baseline_ms(together) == 3.5


def test_the_baseline_is_chosen_anew_where_all_remember_an_old_one(made: Made) -> None:
    """A device that has become a third slower is at its own median, also where each process remembers the same."""
    assert find_common_baseline_ms(
        scale_to_common_baseline([made(4.0, remembered=3.0), made(4.2, remembered=3.0)])
    ) == pytest.approx(4.1)


def test_measurements_at_several_baselines_have_none_in_common(made: Made) -> None:
    """Those without a speed probe have none either."""
    assert find_common_baseline_ms([made(3.0, remembered=2.0), made(3.0, remembered=2.1)]) is None
    assert find_common_baseline_ms([made(None, remembered=2.0)]) is None


def test_a_result_keeps_the_baseline_of_its_batch(made: Made) -> None:
    """A batch chooses one baseline for all its models; the result of one model does not choose again."""
    first, second, _ = scale_to_common_baseline([made(3.0), made(3.2), made(5.0)])
    assert find_common_baseline_ms(MeasurementResult.from_measurements([first, second]).measurements) == 3.2
