"""The verdict on a measurement, on conditions made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edgenas.profilers.trust import Verdict, judge

GOOD: dict[str, Any] = {
    "governor": "performance",
    "frequency_khz": 1_800_000,
    "temperature_c": 50.0,
    "throttle_count": 0,
    "interrupted_share": 0.01,
}


def test_a_steady_device_is_trusted() -> None:
    """Everything given and steady is trusted."""
    assert judge(GOOD, GOOD) == Verdict("trusted")


def test_facts_that_are_not_given_are_named() -> None:
    """A device that says nothing is not believed, and not refused either."""
    verdict = judge(GOOD, {**GOOD, "governor": None, "temperature_c": None})
    assert verdict == Verdict("unverified", ("the device does not give governor, temperature_c",))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({"governor": "ondemand"}, {}, "governor is ondemand: run sudo cpupower frequency-set -g performance"),
        ({}, {"governor": "performance,schedutil"}, "governor is schedutil: run sudo cpupower"),
        ({}, {"throttle_count": 1}, "the device throttled: cool it"),
        ({"temperature_c": 40.0}, {"temperature_c": 55.5}, "heated up from 40 to 56 °C"),
        ({}, {"interrupted_share": 0.22}, "other programs interrupted 22% of its runs: stop them"),
    ],
)
def test_a_bad_condition_is_refused(before: dict[str, Any], after: dict[str, Any], reason: str) -> None:
    """Each reason is given with what to do about it."""
    verdict = judge({**GOOD, **before}, {**GOOD, **after})
    assert verdict.status == "refused"
    assert reason in verdict.reasons[0]


def test_all_reasons_are_given() -> None:
    """Two problems are two reasons, and a refusal outweighs what is missing."""
    verdict = judge({"governor": "powersave"}, {"interrupted_share": 0.5})
    assert (verdict.status, len(verdict.reasons)) == ("refused", 2)


def test_conditions_at_the_limit_pass() -> None:
    """15 °C more and a fifth of the runs interrupted are still accepted."""
    assert judge(GOOD, {**GOOD, "temperature_c": 65.0, "interrupted_share": 0.2}).status == "trusted"


def test_a_verdict_prints_its_reasons() -> None:
    """The text names status and reasons."""
    assert str(Verdict("refused", ("a", "b"))) == "refused (a; b)"
    assert str(Verdict("trusted")) == "trusted"
