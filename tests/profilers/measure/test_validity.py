"""The validity of a measurement, on conditions made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.profilers.measure.validity import REQUIRED_FACTS, Validity, assess_validity

GOOD: dict[str, Any] = {
    "governor": "performance",
    "frequency_khz": 1_800_000,
    "frequency_limit_khz": 1_800_000,
    "frequency_max_khz": 1_800_000,
    "lowest_frequency_khz": 1_800_000,
    "frequency_fixed": False,
    "temperature_c": 50.0,
    "throttle_count": 0,
    "throttled_flags": None,
    "power_mode": None,
    "power": None,
    "interrupted_share": 0.01,
}
PHONE: dict[str, Any] = {
    **GOOD,
    "governor": "schedutil",
    "charging": False,
    "battery_temperature_c": 27.1,
    "thermal_status": 0,
    "cooling": False,
}
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, XNNPACK = "TensorrtExecutionProvider", "XnnpackExecutionProvider"

CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "governor": st.sampled_from([None, "performance", "ondemand", "performance,schedutil"]),
        "frequency_khz": st.none() | st.integers(0, 5_000_000),
        "frequency_limit_khz": st.none() | st.integers(0, 5_000_000),
        "frequency_max_khz": st.none() | st.integers(0, 5_000_000),
        "frequency_base_khz": st.none() | st.integers(0, 5_000_000),
        "lowest_frequency_khz": st.none() | st.integers(0, 5_000_000),
        "frequency_fixed": st.none() | st.booleans(),
        "temperature_c": st.none() | st.floats(-40, 150),
        "throttle_count": st.none() | st.integers(0, 100),
        "throttled_flags": st.none() | st.integers(0, 0xFFFFF),
        "power_mode": st.none() | st.sampled_from(["15W", "MAXN"]),
        "power": st.none() | st.sampled_from(["mains", "battery"]),
        "gpu_fixed": st.none() | st.booleans(),
        "charging": st.none() | st.booleans(),
        "battery_temperature_c": st.none() | st.floats(-40, 150),
        "thermal_status": st.none() | st.integers(0, 9),
        "cooling": st.none() | st.booleans(),
        "interrupted_share": st.none() | st.floats(0, 1),
    },
)
PLACEMENTS = st.none() | st.dictionaries(st.sampled_from([CPU, CUDA, XNNPACK]), st.integers(1, 99))


def test_a_steady_device_is_valid() -> None:
    """All facts known and steady are valid."""
    assert assess_validity(GOOD, GOOD) == Validity("valid")


def test_missing_facts_are_named() -> None:
    """A device that says nothing is unverified, not rejected."""
    validity = assess_validity(GOOD, {**GOOD, "governor": None, "temperature_c": None})
    assert validity == Validity("unverified", ("the device does not give governor, temperature_c",))
    assert assess_validity({}, {}).status == "unverified"


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({"governor": "ondemand"}, {}, "governor is ondemand: run sudo cpupower frequency-set -g performance"),
        ({}, {"governor": "performance,schedutil"}, "governor is schedutil: run sudo cpupower"),
        ({}, {"governor": "schedutil", "power_mode": "15W"}, "governor is schedutil: run sudo jetson_clocks"),
        ({}, {"governor": "ondemand", "throttled_flags": 0}, "governor is ondemand: run echo performance | sudo tee"),
        ({}, {"throttle_count": 1}, "the device throttled: cool it"),
        ({"temperature_c": 40.0}, {"temperature_c": 55.5}, "heated up from 40 to 56 °C"),
        ({}, {"interrupted_share": 0.52}, "other programs interrupted 52% of its runs: stop them"),
        ({}, {"lowest_frequency_khz": 1_200_000}, "the frequency fell to 1200 of 1800 MHz: cool the device"),
        ({"throttled_flags": 0}, {"throttled_flags": 0x10000}, "its voltage is too low: use the board's own power"),
        ({"throttled_flags": 0}, {"throttled_flags": 0x80008}, "the board throttled: cool it"),
        ({"throttled_flags": 0x4}, {"throttled_flags": 0x40000}, "the board throttled: cool it"),
        ({}, {"power": "battery"}, "it runs on battery: connect its power supply"),
    ],
)
def test_a_bad_condition_is_rejected(before: dict[str, Any], after: dict[str, Any], reason: str) -> None:
    """Each reason is given with what to do about it."""
    validity = assess_validity({**GOOD, **before}, {**GOOD, **after})
    assert validity.status == "rejected"
    assert reason in validity.reasons[0]


def test_all_reasons_are_given() -> None:
    """Two problems are two reasons, and rejection outweighs what is missing."""
    validity = assess_validity({"governor": "powersave"}, {"interrupted_share": 0.6})
    assert (validity.status, len(validity.reasons)) == ("rejected", 2)


@pytest.mark.parametrize(
    "after",
    [
        {"temperature_c": 65.0, "interrupted_share": 0.5},
        {"lowest_frequency_khz": 1_620_000},
        {"throttled_flags": 0x50000},
        {"lowest_frequency_khz": 2_100_000, "frequency_limit_khz": 4_000_000, "frequency_base_khz": 2_100_000},
    ],
)
def test_conditions_at_the_limit_pass(after: dict[str, Any]) -> None:
    """15 °C, half of the runs, a tenth; what the Pi remembers from before; turbo that is not reached."""
    before = {**GOOD, "throttled_flags": after.get("throttled_flags")}
    assert assess_validity(before, {**GOOD, **after}).status == "valid"


def test_a_governor_without_freedom_is_valid() -> None:
    """jetson_clocks leaves schedutil in charge of a single frequency: there is nothing for it to change."""
    fixed = {**GOOD, "governor": "schedutil", "frequency_fixed": True}
    assert assess_validity(fixed, fixed).status == "valid"
    assert assess_validity({**fixed, "frequency_fixed": False}, fixed).status == "rejected"


def test_a_cap_is_mentioned() -> None:
    """A device that someone holds below what it could is steady; the reason says at what."""
    validity = assess_validity(GOOD, {**GOOD, "frequency_max_khz": 2_400_000})
    assert str(validity) == "valid (the frequency is capped at 1800 of 2400 MHz)"


def test_another_power_mode_is_rejected() -> None:
    """A profile that names its mode is measured in no other; one that names none in any."""
    seven = {**GOOD, "power_mode": "7W"}
    assert assess_validity(seven, seven, power_mode="7W").status == "valid"
    assert assess_validity(seven, seven).status == "valid"
    validity = assess_validity(seven, seven, power_mode="15W")
    assert validity.reasons[0].startswith("power mode is 7W, the profile's is 15W: run sudo nvpmodel -m ")


def test_a_fallback_is_reported() -> None:
    """Nodes that did not run on the provider that the profile names first are said."""
    validity = assess_validity(GOOD, GOOD, placement={CPU: 12, XNNPACK: 50}, providers=(XNNPACK, CPU))
    assert str(validity) == f"valid (fallback: of 62 nodes, 12 ran on {CPU})"
    validity = assess_validity(GOOD, GOOD, placement={CPU: 3, TENSORRT: 2, CUDA: 12}, providers=(TENSORRT, CUDA, CPU))
    assert str(validity) == f"valid (fallback: of 17 nodes, 3 ran on {CPU}, 12 ran on {CUDA})"
    assert assess_validity(GOOD, GOOD, placement={CUDA: 62}, providers=(CUDA, CPU)) == Validity("valid")
    assert assess_validity(GOOD, GOOD, placement={}) == Validity("unverified", ("the device does not give placement",))


@pytest.mark.parametrize(
    ("ran", "providers"), [(CPU, (XNNPACK, CPU)), (CUDA, (TENSORRT, CUDA, CPU)), (CPU, (TENSORRT, CUDA, CPU))]
)
def test_another_provider_is_another_measurement(ran: str, providers: tuple[str, ...]) -> None:
    """Where the provider that the profile names first ran nothing, the measurement is rejected, whatever ran it."""
    validity = assess_validity(GOOD, GOOD, placement={ran: 62}, providers=providers)
    assert validity.status == "rejected"
    assert validity.reasons[0].startswith(f"all 62 nodes ran on {ran} instead of {providers[0]}, which the profile")


def test_a_gpu_wants_a_fixed_clock() -> None:
    """A GPU's free clock spoils what ran on it, and nothing else."""
    free = {**GOOD, "gpu_fixed": False}
    assert assess_validity(free, free, placement={CUDA: 5}).reasons == (
        "the GPU's clock is not fixed: run sudo jetson_clocks",
    )
    assert assess_validity(free, free).status == "valid"


def test_validity_prints_its_reasons() -> None:
    """The text names status and reasons."""
    assert str(Validity("rejected", ("a", "b"))) == "rejected (a; b)"
    assert str(Validity("valid")) == "valid"


@given(CONDITIONS, CONDITIONS, PLACEMENTS)
def test_every_validity_is_explained(
    before: dict[str, Any], after: dict[str, Any], placement: dict[str, int] | None
) -> None:
    """Whatever a device says: never valid without the required facts, never less than valid without a reason."""
    validity = assess_validity(before, after, placement=placement, providers=(CUDA, CPU), power_mode="15W")
    assert "\n" not in str(validity)
    if validity.status == "valid":
        assert all(after.get(fact) is not None for fact in REQUIRED_FACTS)
    else:
        assert validity.reasons
    if validity.status == "rejected":
        assert any(": " in reason for reason in validity.reasons)


@given(CONDITIONS, CONDITIONS, PLACEMENTS)
def test_missing_facts_never_reject(
    before: dict[str, Any], after: dict[str, Any], placement: dict[str, int] | None
) -> None:
    """A device that says less is never rejected for it where one that said more was not."""
    # These speak in a device's favour: a base frequency below the bound, a clock that cannot change, being a phone.
    hidden = set(after) - {"frequency_base_khz", "frequency_fixed", "thermal_status"}
    if assess_validity(before, after, placement=placement, providers=(CUDA, CPU)).status != "rejected":
        for fact in hidden:
            less = {key: value for key, value in after.items() if key != fact}
            assert assess_validity(before, less, placement=placement, providers=(CUDA, CPU)).status != "rejected"


def test_a_phone_that_kept_its_frequency_is_valid() -> None:
    """Its governor cannot be chosen, so the frequency that it kept decides; unknown, it is unverified."""
    assert assess_validity(PHONE, PHONE) == Validity("valid")
    validity = assess_validity(PHONE, {**PHONE, "lowest_frequency_khz": None})
    assert validity == Validity("unverified", ("the device does not give lowest_frequency_khz",))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"charging": True}, "it charges, which heats it"),
        ({"thermal_status": 1}, "the phone is hot (thermal status light)"),
        ({"thermal_status": 3}, "the phone is hot (thermal status severe)"),
        ({"cooling": True}, "the phone slows its processors down"),
        ({"battery_temperature_c": 40.0}, "its battery has 40 °C"),
        ({"lowest_frequency_khz": 900_000}, "the frequency fell to 900 of 1800 MHz"),
    ],
)
def test_a_phone_that_charges_or_is_hot_is_rejected(change: dict[str, Any], reason: str) -> None:
    """Each is a reason with its remedy, after the runs, and but for the frequency also before them."""
    found = assess_validity(PHONE, {**PHONE, **change})
    assert found.status == "rejected"
    assert found.reasons[0].startswith(reason)
    if "lowest_frequency_khz" not in change:
        assert assess_validity({**PHONE, **change}, PHONE) == found
