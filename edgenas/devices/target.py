"""Targets: a device profile with a runtime, a precision, threads and an affinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas.devices.profile import AGENT, DeviceProfile, check_target
from edgenas.devices.profile_files import load_profile


@dataclass(frozen=True, init=False, repr=False)
class Target:
    """A device with a runtime, a precision, threads and an affinity: all that decides a latency besides the model.

    Measurements, latency tables, fronts and choices belong to a target.

    Args:
        profile: A device profile, its name, or the path of its YAML file.
        runtime: A runtime of the profile.
        precision: ``fp32``, ``fp16``, ``dynamic`` or ``int8``.
        threads: The number of threads, at most the number of CPUs.
        affinity: A cluster of the profile, CPU numbers, or ``all``; kept as CPU
            numbers in rising order, None for all.

    None stands for the profile's default.

    Raises:
        UsageError: The profile has no such runtime, precision or cluster, or
            fewer CPUs than threads; the message lists what exists.

    Example:
        >>> from edgenas import Target
        >>> Target("localhost")
        Target(localhost, onnxruntime, fp32, 1 thread)
        >>> Target("raspberry-pi-5", precision="int8", threads=4).name
        'raspberry-pi-5-onnxruntime-int8-4t'
    """

    profile: DeviceProfile
    runtime: str
    precision: str
    threads: int
    affinity: tuple[int, ...] | None

    def __init__(
        self,
        profile: DeviceProfile | str | Path,
        runtime: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        affinity: str | Sequence[int] | None = None,
    ) -> None:
        if not isinstance(profile, DeviceProfile):
            profile = load_profile(profile)
        default = profile.default
        object.__setattr__(self, "profile", profile)
        object.__setattr__(self, "runtime", default.runtime if runtime is None else runtime)
        object.__setattr__(self, "precision", default.precision if precision is None else precision)
        object.__setattr__(self, "threads", default.threads if threads is None else threads)
        object.__setattr__(
            self, "affinity", profile.resolve_affinity(default.affinity if affinity is None else affinity)
        )
        check_target(profile, self.runtime, self.precision, self.threads, self.affinity)

    def __repr__(self) -> str:
        parts = [self.profile.name, self.runtime, self.precision, f"{self.threads} thread{'s'[: self.threads > 1]}"]
        if self.affinity is not None:
            parts.append(f"CPUs {' '.join(map(str, self.affinity))}")
        if self.profile.power_mode is not None:
            parts.append(f"power mode {self.profile.power_mode}")
        return f"Target({', '.join(parts)})"

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers of its runtime."""
        return self.profile.runtimes[self.runtime].providers

    @property
    def options(self) -> Mapping[str, Mapping[str, bool | int | float | str]]:
        """The options of its execution providers, by provider."""
        return self.profile.runtimes[self.runtime].options

    @property
    def runner(self) -> str:
        """What runs its models: ``agent``, or the name of the runtime's own benchmark program."""
        return self.profile.runtimes[self.runtime].runner

    @property
    def name(self) -> str:
        """A name for files: ``localhost-onnxruntime-fp32-1t``, ``rock-5b-…-4t-big``."""
        name = f"{self.profile.name}-{self.runtime}-{self.precision}-{self.threads}t"
        if self.affinity is not None:
            clusters = (name for name, cpus in sorted(self.profile.clusters.items()) if cpus == self.affinity)
            name += "-" + next(clusters, "cpu" + ".".join(map(str, self.affinity)))
        if self.runner != AGENT:
            name += f"-{self.runner}"
        return name + (f"-{self.profile.power_mode.lower()}" if self.profile.power_mode else "")

    @property
    def cli_name(self) -> str:
        """The target after ``--device`` on a command line, quoted for a shell: its profile, and what is not default.

        An affinity has no option.
        """
        default = self.profile.default
        options = {
            "--runtime": (self.runtime, default.runtime),
            "--precision": (self.precision, default.precision),
            "--threads": (self.threads, default.threads),
        }
        differing = [f"{option} {value}" for option, (value, usual) in options.items() if value != usual]
        return " ".join([self.profile.cli_name, *differing])

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides a measurement, as plain data; the connection is left out."""
        data: dict[str, Any] = {
            "device": self.profile.name,
            "runtime": self.runtime,
            "providers": list(self.providers),
            "precision": self.precision,
            "threads": self.threads,
        }
        if self.runner != AGENT:
            data["runner"] = self.runner
        if self.options:
            data["options"] = {provider: dict(options) for provider, options in self.options.items()}
        if self.affinity is not None:
            data["affinity"] = list(self.affinity)
        if self.profile.power_mode is not None:
            data["power_mode"] = self.profile.power_mode
        return data
