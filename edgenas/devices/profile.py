"""Device profiles: how to reach a device and what to run there, as data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from edgenas.errors import UsageError
from edgenas.files import StrictInt, suggest_nearest

PRECISIONS = ("fp32", "fp16", "dynamic", "int8")
ALL_CPUS = "all"  # the affinity of a target that no cluster bounds
_MOST_THREADS = 256
_FORBID_UNKNOWN = {"extra": "forbid"}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_PROVIDER = re.compile(r"[A-Za-z0-9]+")
_MODE = re.compile(r"[A-Za-z0-9_]{1,40}")
_SECRET = re.compile(r"passw|passphrase|secret|token|credential|private_?key|api_?key", re.IGNORECASE)
_CODE = re.compile(r"\.(so(\.\d+)*|dll|dylib|py|sh)$", re.IGNORECASE)
_QNN = re.compile(r"libQnn[A-Za-z0-9]+\.so")  # a backend in onnxruntime-qnn's own folder, chosen by backend_path
# Absolute, below the home folder, or for an interpreter a name that the search path has.
_PLACE = re.compile(r"~?/.*")
_PYTHON = re.compile(r"~?/.*|[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Connection:
    """The ``connection`` of a profile for kinds that need nothing but their name; others derive from it."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: str


@dataclass(frozen=True)
class RuntimeOptions:
    """How one runtime is used on a device: execution providers, the first that can run a node runs it.

    ``options`` are a provider's own, by its name: plain values, no secret and
    no library to load. One that begins with ``~/`` is a path below the home
    folder there.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    options: Mapping[str, Mapping[str, bool | int | float | str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.providers:
            raise UsageError("providers must name at least one, for example [CPUExecutionProvider]")
        for provider in self.providers:
            require(_PROVIDER.fullmatch(provider) is not None, f"providers: {provider!r} is no provider's name")
        for provider, options in self.options.items():
            known = suggest_nearest(provider, list(self.providers))
            require(provider in self.providers, f"options are for {provider!r}, which is no provider here{known}")
            for name, value in options.items():
                _check_option(f"options.{provider}.{name}", name, value)


@dataclass(frozen=True)
class Default:
    """What a target is where it does not say otherwise."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    runtime: str
    precision: str = "fp32"
    threads: StrictInt = 1
    affinity: str | tuple[StrictInt, ...] | None = None


@dataclass(frozen=True)
class DeviceProfile:
    """How to reach a device and what to run there. Data only; ``load_profile`` reads one.

    ``cores`` bounds a target's threads and CPU numbers, ``clusters`` names
    groups of equal CPUs by their numbers, ``power_mode`` is the one that the
    board is measured in (Jetson: nvpmodel's name), ``python`` is the
    interpreter on the device (absolute, ``~/...``, or a name), ``work_dir`` the
    folder there that work folders are made in (absolute or ``~/...``); None
    leaves each to the device. ``cli_name`` is how commands name the profile, ready
    for a shell: its name, or the path that it was loaded from.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    name: str
    connection: Connection
    runtimes: Mapping[str, RuntimeOptions]
    default: Default
    cores: StrictInt | None = None
    clusters: Mapping[str, tuple[StrictInt, ...]] = field(default_factory=dict)
    power_mode: str | None = None
    python: str | None = None
    work_dir: str | None = None
    notes: str = field(default="", compare=False)
    cli_name: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cli_name", self.name)
        require(
            _NAME.fullmatch(self.name) is not None,
            f"a profile's name must be lower-case letters, digits and _ . - only, but got {self.name!r}",
        )
        require(bool(self.runtimes), f"profile {self.name} must list at least one runtime")
        for runtime in self.runtimes:
            require(_NAME.fullmatch(runtime) is not None, f"profile {self.name}: {runtime!r} is no name of a runtime")
        require(
            self.cores is None or self.cores > 0, f"profile {self.name}: cores must be above 0, but got {self.cores}"
        )
        require(
            self.power_mode is None or _MODE.fullmatch(self.power_mode) is not None,
            f"profile {self.name}: power_mode must be letters, digits and _ only, but got {self.power_mode!r}",
        )
        for name, cpus in self.clusters.items():
            _check_cluster(self, name, cpus)
        _check_texts(self)
        default = self.default
        check_values(self, default.runtime, default.precision, default.threads, self.cpus(default.affinity))

    def cpus(self, affinity: str | Sequence[int] | None) -> tuple[int, ...] | None:
        """The CPU numbers of a cluster's name or of a list; None where nothing bounds them. Raises UsageError."""
        if affinity is None or affinity == ALL_CPUS:
            return None
        if isinstance(affinity, str):
            known = suggest_nearest(affinity, [*sorted(self.clusters), ALL_CPUS])
            require(affinity in self.clusters, f"profile {self.name} has no cluster {affinity!r}{known}")
            return self.clusters[affinity]
        cpus = tuple(sorted(set(affinity)))
        _check_cpus(f"profile {self.name}: affinity", cpus, self.cores)
        return cpus

    def __hash__(self) -> int:
        return hash((self.name, self.connection, tuple(sorted(self.runtimes)), self.default))

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain data, in the form of its YAML file."""
        return {key: value for key, value in asdict(self).items() if key != "cli_name"}


def require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _check_option(place: str, name: str, value: bool | int | float | str) -> None:
    remedy = "a profile holds neither secrets nor code; remove it"
    require(not _SECRET.search(name), f"{place}: looks like a secret; {remedy}")
    if isinstance(value, float):
        require(math.isfinite(value), f"{place}: must be a finite number, but got {value}")
    if isinstance(value, str):
        require(value.isprintable(), f"{place}: must be printable text, but got {value!r}")
        is_code = _CODE.search(value.strip()) is not None and not _QNN.fullmatch(value)
        require(not is_code, f"{place}: {value!r} is code to be loaded; {remedy}")
        leaves = value.startswith("~/") and ".." in value.split("/")
        require(not leaves, f"{place}: must stay below the home folder, but got {value!r}; leave out ..")


def check_python(python: str, where: str) -> None:
    """Raises UsageError for what names no interpreter on a device, such as a path from wherever one happens to be."""
    require(
        python.isprintable() and _PYTHON.fullmatch(python) is not None,
        f"{where} must be an absolute path, one that begins with ~/, or a bare name, but got {python!r}",
    )


def _check_texts(profile: DeviceProfile) -> None:
    """What a path or a word must be, for a device to mean by it what the profile does."""
    for key, value in asdict(profile.connection).items():
        is_text = not isinstance(value, str) or value.isprintable()
        require(is_text, f"profile {profile.name}: connection.{key} must be printable text, but got {value!r}")
    if profile.python is not None:
        check_python(profile.python, f"profile {profile.name}: python")
    work_dir = profile.work_dir
    require(
        work_dir is None or (work_dir.isprintable() and _PLACE.fullmatch(work_dir) is not None),
        f"profile {profile.name}: work_dir must be an absolute path or begin with ~/, but got {work_dir!r}",
    )


def _check_cluster(profile: DeviceProfile, name: str, cpus: tuple[int, ...]) -> None:
    where = f"profile {profile.name}: clusters.{name}"
    require(_NAME.fullmatch(name) is not None and name != ALL_CPUS, f"{where}: is no name of a cluster; choose another")
    _check_cpus(where, cpus, profile.cores)
    require(list(cpus) == sorted(set(cpus)), f"{where}: must list each CPU once, in rising order, but got {list(cpus)}")


def _check_cpus(where: str, cpus: tuple[int, ...], cores: int | None) -> None:
    most = 4096 if cores is None else cores
    require(
        bool(cpus) and all(0 <= cpu < most for cpu in cpus),
        f"{where}: must be CPU numbers from 0 to {most - 1}, but got {list(cpus)}",
    )


def check_values(
    profile: DeviceProfile, runtime: str, precision: str, threads: int, affinity: tuple[int, ...] | None
) -> None:
    require(
        runtime in profile.runtimes,
        f"profile {profile.name} has no runtime {runtime!r}{suggest_nearest(runtime, sorted(profile.runtimes))}",
    )
    require(precision in PRECISIONS, f"unknown precision {precision!r}{suggest_nearest(precision, list(PRECISIONS))}")
    require(1 <= threads <= _MOST_THREADS, f"threads must be from 1 to {_MOST_THREADS}, but got {threads}")
    if profile.cores is not None:
        require(
            threads <= profile.cores,
            f"threads must be at most {profile.name}'s {profile.cores} cores, but got {threads}",
        )
    if affinity is not None:
        require(
            threads <= len(affinity),
            f"threads must be at most the {len(affinity)} CPUs {list(affinity)} that they are bound to,"
            f" but got {threads}",
        )
