"""Device profiles: how to reach a device and what to run there, as data; and the targets made from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgenas.devices.base import Connection
from edgenas.devices.registry import device_class
from edgenas.errors import UsageError
from edgenas.files import nearest, parse, read_yaml

PRECISIONS = ("fp32",)
_MOST_THREADS = 256
_FORBID_UNKNOWN = {"extra": "forbid"}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_PACKAGE = Path(__file__).parent.parent
# In the wheel, and in a source checkout.
_SHIPPED = (_PACKAGE / "device_profiles", _PACKAGE.parent / "device_profiles")


@dataclass(frozen=True)
class RuntimeOptions:
    """How one runtime is used on a device: execution providers, the first that can run a node runs it."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    def __post_init__(self) -> None:
        if not self.providers:
            raise UsageError("providers must name at least one, for example [CPUExecutionProvider]")


@dataclass(frozen=True)
class Default:
    """What a target is where it does not say otherwise."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    runtime: str
    precision: str = "fp32"
    threads: int = 1


@dataclass(frozen=True)
class DeviceProfile:
    """How to reach a device and what to run there. Data only; ``load_profile`` reads one.

    ``cores`` bounds a target's threads, ``python`` is the interpreter on the
    device, ``work_dir`` the folder there that work folders are made in; None
    leaves each to the device.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    name: str
    connection: Connection
    runtimes: Mapping[str, RuntimeOptions]
    default: Default
    cores: int | None = None
    python: str | None = None
    work_dir: str | None = None
    notes: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _require(
            _NAME.fullmatch(self.name) is not None,
            f"a profile's name must be lower-case letters, digits and _ . - only, but got {self.name!r}",
        )
        _require(bool(self.runtimes), f"profile {self.name} must list at least one runtime")
        for runtime in self.runtimes:
            _require(_NAME.fullmatch(runtime) is not None, f"profile {self.name}: {runtime!r} is no name of a runtime")
        _require(
            self.cores is None or self.cores > 0, f"profile {self.name}: cores must be above 0, but got {self.cores}"
        )
        _check(self, self.default.runtime, self.default.precision, self.default.threads)

    def __hash__(self) -> int:
        return hash((self.name, self.connection, tuple(sorted(self.runtimes)), self.default))

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain data, in the form of its YAML file."""
        return asdict(self)


@dataclass(frozen=True, init=False)
class Target:
    """What a table, a front and a choice belong to: a device profile, a runtime, a precision, a number of threads.

    None stands for the profile's default. Raises UsageError, listing what
    exists, for a runtime or precision that the profile has not, or for more
    threads than cores.
    """

    profile: DeviceProfile
    runtime: str
    precision: str
    threads: int

    def __init__(
        self,
        profile: DeviceProfile,
        runtime: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
    ) -> None:
        default = profile.default
        object.__setattr__(self, "profile", profile)
        object.__setattr__(self, "runtime", default.runtime if runtime is None else runtime)
        object.__setattr__(self, "precision", default.precision if precision is None else precision)
        object.__setattr__(self, "threads", default.threads if threads is None else threads)
        _check(profile, self.runtime, self.precision, self.threads)

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers of its runtime."""
        return self.profile.runtimes[self.runtime].providers

    @property
    def name(self) -> str:
        """A name that can be part of a file name: ``localhost-onnxruntime-fp32-1t``."""
        return f"{self.profile.name}-{self.runtime}-{self.precision}-{self.threads}t"

    def to_dict(self) -> dict[str, Any]:
        """What a measurement is comparable by, as plain data; how the device is reached is left out."""
        return {
            "device": self.profile.name,
            "runtime": self.runtime,
            "providers": list(self.providers),
            "precision": self.precision,
            "threads": self.threads,
        }


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _check(profile: DeviceProfile, runtime: str, precision: str, threads: int) -> None:
    _require(
        runtime in profile.runtimes,
        f"profile {profile.name} has no runtime {runtime!r}{nearest(runtime, sorted(profile.runtimes))}",
    )
    _require(precision in PRECISIONS, f"unknown precision {precision!r}{nearest(precision, list(PRECISIONS))}")
    _require(1 <= threads <= _MOST_THREADS, f"threads must be from 1 to {_MOST_THREADS}, but got {threads}")
    if profile.cores is not None:
        _require(
            threads <= profile.cores,
            f"threads must be at most {profile.name}'s {profile.cores} cores, but got {threads}",
        )


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """A device profile by the name of a shipped one (``localhost``), or from a YAML file.

    Anything with a folder in it or ending in .yaml or .yml is a file. Raises
    UsageError on one line, naming the nearest known name or key.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        shipped = shipped_profiles()
        if path.name not in shipped:
            known = nearest(path.name, sorted(shipped))
            raise UsageError(f"unknown device profile {path.name!r}{known}; or give the path of a .yaml file")
        path = shipped[path.name]
    return profile_from_dict(read_yaml(path), str(path))


def shipped_profiles() -> dict[str, Path]:
    """The files of the profiles that come with edgenas, by name."""
    folder = next((folder for folder in _SHIPPED if folder.is_dir()), _SHIPPED[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def profile_from_dict(data: Any, where: str) -> DeviceProfile:
    """A profile from plain data; ``where`` names its source in messages. Raises UsageError."""
    if not isinstance(data, dict):
        raise UsageError(f"{where}: a device profile must be a mapping that begins with 'name: ...'")
    connection = data.get("connection")
    if not isinstance(connection, dict) or not isinstance(connection.get("kind"), str):
        raise UsageError(f"{where}: key 'connection' must say its kind, for example 'connection: {{kind: local}}'")
    kind = device_class(connection["kind"], where).connection_type
    parsed: dict[str, Any] = {"connection": parse(kind, connection, f"{where}: connection")}
    runtimes = data.get("runtimes")
    if isinstance(runtimes, dict):
        parsed["runtimes"] = {
            name: parse(RuntimeOptions, options, f"{where}: runtimes.{name}") for name, options in runtimes.items()
        }
    return parse(DeviceProfile, {**data, **parsed}, where)
