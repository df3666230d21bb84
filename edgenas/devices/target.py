"""Targets: a device profile with a runtime, a precision, threads and an affinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgenas.devices.profile import DeviceProfile, check_values


@dataclass(frozen=True, init=False)
class Target:
    """What a table, a front and a choice belong to: a device profile, a runtime, a precision, threads, an affinity.

    The affinity is given as a cluster of the profile, as CPU numbers or as
    ``all``, and kept as CPU numbers, None for all. None stands for the
    profile's default. Raises UsageError, listing what exists, for a runtime,
    precision or cluster that the profile has not, or for more threads than
    CPUs.
    """

    profile: DeviceProfile
    runtime: str
    precision: str
    threads: int
    affinity: tuple[int, ...] | None

    def __init__(
        self,
        profile: DeviceProfile,
        runtime: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        affinity: str | Sequence[int] | None = None,
    ) -> None:
        default = profile.default
        object.__setattr__(self, "profile", profile)
        object.__setattr__(self, "runtime", default.runtime if runtime is None else runtime)
        object.__setattr__(self, "precision", default.precision if precision is None else precision)
        object.__setattr__(self, "threads", default.threads if threads is None else threads)
        object.__setattr__(self, "affinity", profile.cpus(default.affinity if affinity is None else affinity))
        check_values(profile, self.runtime, self.precision, self.threads, self.affinity)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers of its runtime."""
        return self.profile.runtimes[self.runtime].providers

    @property
    def options(self) -> Mapping[str, Mapping[str, bool | int | float | str]]:
        """The options of its providers, by provider."""
        return self.profile.runtimes[self.runtime].options

    @property
    def name(self) -> str:
        """A name that can be part of a file name: ``localhost-onnxruntime-fp32-1t``, ``rock-5b-…-4t-big``."""
        name = f"{self.profile.name}-{self.runtime}-{self.precision}-{self.threads}t"
        if self.affinity is not None:
            named = (name for name, cpus in sorted(self.profile.clusters.items()) if cpus == self.affinity)
            name += "-" + next(named, "cpu" + ".".join(map(str, self.affinity)))
        return name + (f"-{self.profile.power_mode.lower()}" if self.profile.power_mode else "")

    @property
    def cli_name(self) -> str:
        """How commands name it, ready for a shell: its profile, and options where it differs from that's default."""
        default = self.profile.default
        pairs = {
            "--runtime": (self.runtime, default.runtime),
            "--precision": (self.precision, default.precision),
            "--threads": (self.threads, default.threads),
        }
        options = [f"{option} {wanted}" for option, (wanted, usual) in pairs.items() if wanted != usual]
        return " ".join([self.profile.cli_name, *options])

    def to_dict(self) -> dict[str, Any]:
        """What a measurement is comparable by, as plain data; how the device is reached is left out."""
        described: dict[str, Any] = {
            "device": self.profile.name,
            "runtime": self.runtime,
            "providers": list(self.providers),
            "precision": self.precision,
            "threads": self.threads,
        }
        if self.options:
            described["options"] = {provider: dict(options) for provider, options in self.options.items()}
        if self.affinity is not None:
            described["affinity"] = list(self.affinity)
        if self.profile.power_mode is not None:
            described["power_mode"] = self.profile.power_mode
        return described
