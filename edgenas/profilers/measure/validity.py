"""The validity of a measurement, by the conditions of the device before and after it. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from edgenas.files import ShortText
from edgenas.runtimes import all_runtimes

# The facts without which nobody can say that the device ran at full, steady speed.
REQUIRED_FACTS = ("governor", "frequency_khz", "temperature_c", "interrupted_share")
_PHONE_FACTS = ("lowest_frequency_khz", "charging", "thermal_status")
_SLOW_GOVERNORS = {"ondemand", "powersave", "conservative", "schedutil", "interactive"}
_MAX_HEATING_C = 15.0
_MAX_BATTERY_C = 40.0
# By PowerManager.THERMAL_STATUS_... of Android.
_THERMAL_STATES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
MAX_INTERRUPTED = 0.5
_MIN_FREQUENCY_SHARE = 0.9
# Bits of a Raspberry Pi's get_throttled; 16 higher, the same since it started.
_UNDERVOLTAGE, THROTTLED_FLAGS = 0b0001, 0b1110


@dataclass(frozen=True)
class Validity:
    """The validity of a measurement, with reasons.

    Attributes:
        status: ``valid``; ``unverified`` where the device does not give the facts that would show it;
            ``rejected`` where the number is not what the device can do.
        reasons: missing facts, notes, or what is wrong with the remedy; one line each.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    status: Literal["valid", "unverified", "rejected"]
    reasons: tuple[ShortText, ...] = ()

    def __str__(self) -> str:
        return self.status + (f" ({'; '.join(self.reasons)})" if self.reasons else "")


def assess_validity(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    placement: Mapping[str, int] | None = None,
    providers: Sequence[str] = (),
    power_mode: str | None = None,
) -> Validity:
    """Return the validity of a measurement between two sets of conditions.

    It is rejected for: a governor that is free to change the frequency; a frequency more than a
    tenth below its bound; throttling, under-voltage, battery power, or heating
    up by more than 15 °C; other programs that interrupted more
    than half of the timed runs (the others make the median); another power mode than ``power_mode``; a free
    clock of a GPU that ran nodes; and no node on the first of ``providers``. Some nodes elsewhere are a fallback,
    which is noted in the reasons.

    A phone is rejected while it charges, is hot or slows itself down. Its governor cannot be chosen, and it may run
    on its battery: what it must show instead is the frequency that it kept.

    Args:
        before: conditions before the runs.
        after: conditions after the runs, with ``interrupted_share`` and ``lowest_frequency_khz``.
        placement: number of nodes by provider; None where the CPU runs all, empty where the runtime does not say.
        providers: the providers that the profile names, in order.
        power_mode: the power mode that the profile names.
    """
    problems = [
        *([] if _is_phone(after) else _governor_problems(before, after)),
        *_frequency_problems(after),
        *_heat_problems(before, after),
        *_throttled_flag_problems(before, after),
        *_power_problems(after, power_mode),
        *_phone_problems(before, after),
        *_interruption_problems(after),
        *_first_provider_problems(placement, providers),
        *_gpu_clock_problems(after, placement),
    ]
    notes = [*_fallback_notes(placement, providers), *_frequency_cap_notes(after)]
    if problems:
        return Validity("rejected", (*problems, *notes))
    required = (*REQUIRED_FACTS, *_PHONE_FACTS) if _is_phone(after) else REQUIRED_FACTS
    missing = [fact for fact in required if after.get(fact) is None]
    if placement is not None and not placement:
        missing.append("placement")
    if missing:
        return Validity("unverified", (f"the device does not give {', '.join(missing)}", *notes))
    return Validity("valid", tuple(notes))


def _governor_problems(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    governors = {name for facts in (before, after) for name in (facts.get("governor") or "").split(",")}
    slow = sorted(governors & _SLOW_GOVERNORS)
    # jetson_clocks keeps the governor and narrows its bounds to one frequency.
    if not slow or (before.get("frequency_fixed") and after.get("frequency_fixed")):
        return []
    return [f"governor is {', '.join(slow)}: run {_governor_remedy(after)}"]


def _governor_remedy(after: Mapping[str, Any]) -> str:
    if after.get("power_mode") is not None or "gpu_fixed" in after:
        return "sudo jetson_clocks"
    if after.get("throttled_flags") is not None:
        return "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return "sudo cpupower frequency-set -g performance"


def _frequency_problems(after: Mapping[str, Any]) -> list[str]:
    lowest, limit = after.get("lowest_frequency_khz"), after.get("frequency_limit_khz")
    # A CPU with turbo promises to hold its base frequency only.
    promised = min((value for value in (limit, after.get("frequency_base_khz")) if value), default=None)
    if lowest is None or promised is None or lowest >= _MIN_FREQUENCY_SHARE * promised:
        return []
    return [
        f"the frequency fell to {lowest / 1000:.0f} of {promised / 1000:.0f} MHz:"
        " cool the device, give it a better power supply, then measure again"
    ]


def _frequency_cap_notes(after: Mapping[str, Any]) -> list[str]:
    limit, most = after.get("frequency_limit_khz"), after.get("frequency_max_khz")
    if limit is None or most is None or limit >= most:
        return []
    return [f"the frequency is capped at {limit / 1000:.0f} of {most / 1000:.0f} MHz"]


def _heat_problems(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    problems = []
    if _increase(before, after, "throttle_count") > 0:
        problems.append("the device throttled: cool it, then measure again")
    if _increase(before, after, "temperature_c") > _MAX_HEATING_C:
        problems.append(
            f"the device heated up from {before['temperature_c']:.0f} to {after['temperature_c']:.0f} °C:"
            " measure again now that it is warm, or cool it"
        )
    return problems


def _increase(before: Mapping[str, Any], after: Mapping[str, Any], fact: str) -> float:
    first, last = before.get(fact), after.get(fact)
    return 0.0 if first is None or last is None else float(last - first)


def _interruption_problems(after: Mapping[str, Any]) -> list[str]:
    share = after.get("interrupted_share")
    if share is None or share <= MAX_INTERRUPTED:
        return []
    return [f"other programs interrupted {share:.0%} of its runs: stop them, then measure again"]


def _throttled_flag_problems(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Check the flags of a Raspberry Pi: what holds before or after, or happened between."""
    first, last = before.get("throttled_flags"), after.get("throttled_flags")
    if last is None:
        return []
    first = last if first is None else first
    flags = (first | last | ((last & ~first) >> 16)) & 0xF
    problems = []
    if flags & _UNDERVOLTAGE:
        problems.append("its voltage is too low: use the board's own power supply and a short, thick cable")
    if flags & THROTTLED_FLAGS:
        problems.append("the board throttled: cool it (a heat sink, a fan), then measure again")
    return problems


def _power_problems(after: Mapping[str, Any], wanted: str | None) -> list[str]:
    problems = []
    if after.get("power") == "battery":
        problems.append("it runs on battery: connect its power supply, then measure again")
    mode = after.get("power_mode")
    if wanted is not None and mode is not None and mode != wanted:
        problems.append(
            f"power mode is {mode}, the profile's is {wanted}: run sudo nvpmodel -m with its number"
            " (grep POWER_MODEL /etc/nvpmodel.conf), then sudo jetson_clocks"
        )
    return problems


def _is_phone(after: Mapping[str, Any]) -> bool:
    return "thermal_status" in after  # only Android has it


def _phone_problems(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Check what a phone says before or after of its charging and its heat."""
    problems = []
    if before.get("charging") or after.get("charging"):
        problems.append(
            "it charges, which heats it: wait until it is full, or unplug it and reach it by adb over Wi-Fi"
        )
    status = max(before.get("thermal_status") or 0, after.get("thermal_status") or 0)
    if status:
        problems.append(f"the phone is hot (thermal status {_THERMAL_STATES[min(status, 6)]}): let it cool down")
    if before.get("cooling") or after.get("cooling"):
        problems.append("the phone slows its processors down to cool them: let it cool down, then measure again")
    heat = max((facts.get("battery_temperature_c") or 0.0 for facts in (before, after)), default=0.0)
    if heat >= _MAX_BATTERY_C:
        problems.append(f"its battery has {heat:.0f} °C, {_MAX_BATTERY_C:.0f} or more: let it cool down")
    return problems


def _first_provider_problems(placement: Mapping[str, int] | None, providers: Sequence[str]) -> list[str]:
    if not placement or not providers or placement.get(providers[0]):
        return []
    ran = f"all {sum(placement.values())} nodes ran on {' and '.join(sorted(placement))}"
    return [
        f"{ran} instead of {providers[0]}, which the profile names first:"
        " install a runtime that has its libraries, or leave it out of the profile"
    ]


def _fallback_notes(placement: Mapping[str, int] | None, providers: Sequence[str]) -> list[str]:
    if not placement or not providers or not placement.get(providers[0]):
        return []
    others = [f"{placement[name]} ran on {name}" for name in sorted(placement) if name != providers[0]]
    return [f"fallback: of {sum(placement.values())} nodes, {', '.join(others)}"] if others else []


def _gpu_clock_problems(after: Mapping[str, Any], placement: Mapping[str, int] | None) -> list[str]:
    on_gpu = frozenset[str]().union(*(runtime.gpu_providers for runtime in all_runtimes()))
    if after.get("gpu_fixed") is not False or not on_gpu & set(placement or ()):
        return []
    return ["the GPU's clock is not fixed: run sudo jetson_clocks"]
