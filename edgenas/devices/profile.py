"""Device profiles as data: the address of a device, and what can run there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from edgenas.errors import UsageError
from edgenas.files import format_suggestion
from edgenas.runtimes import target_precisions

AGENT = "agent"  # the runner of a runtime whose models edgenas's own program runs
ALL_CPUS = "all"  # the affinity of a target that may use every CPU
_MOST_THREADS = 256
_MOST_CPUS = 4096
_FORBID_UNKNOWN = {"extra": "forbid"}
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_PROVIDER = re.compile(r"[A-Za-z0-9]+")
_RUNNER = re.compile(r"[a-z][a-z0-9_]{0,40}")
_POWER_MODE = re.compile(r"[A-Za-z0-9_]{1,40}")
_SECRET = re.compile(r"passw|passphrase|secret|token|credential|private_?key|api_?key", re.IGNORECASE)
_CODE_FILE = re.compile(r"\.(so(\.\d+)*|dll|dylib|py|sh)$", re.IGNORECASE)
_QNN_BACKEND = re.compile(r"libQnn[A-Za-z0-9]+\.so")  # in onnxruntime-qnn's own folder, chosen by backend_path
_FOLDER = re.compile(r"~?/.*")
_PYTHON = re.compile(r"~?/.*|[A-Za-z0-9_][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Connection:
    """The ``connection`` of a profile. Kinds that need more than their name derive from it."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: str


@dataclass(frozen=True)
class RuntimeOptions:
    """The use of one runtime on a device.

    ``providers`` are execution providers in order: the first that supports a
    node runs it. ``options`` are those of a provider, by its name: plain
    values, neither secrets nor libraries to load. A value that begins with
    ``~/`` is a path below the home folder on the device. ``runner`` is what
    runs models: the agent of edgenas, or the runtime's own benchmark program.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    options: Mapping[str, Mapping[str, bool | int | float | str]] = field(default_factory=dict)
    runner: str = AGENT

    def __post_init__(self) -> None:
        require(_RUNNER.fullmatch(self.runner) is not None, f"runner: {self.runner!r} is no name of a program")
        if not self.providers:
            raise UsageError("providers must name at least one, for example [CPUExecutionProvider]")
        for provider in self.providers:
            require(_PROVIDER.fullmatch(provider) is not None, f"providers: {provider!r} is no provider's name")
        for provider, options in self.options.items():
            known = format_suggestion(provider, list(self.providers))
            require(provider in self.providers, f"options are for {provider!r}, which is no provider here{known}")
            for name, value in options.items():
                _check_option(f"options.{provider}.{name}", name, value)


@dataclass(frozen=True)
class DefaultTarget:
    """The values of a target that its caller leaves out."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    runtime: str
    precision: str = "fp32"
    threads: int = 1
    affinity: str | tuple[int, ...] | None = None


@dataclass(frozen=True, repr=False)
class DeviceProfile:
    """The address of a device, and what can run there, as data. ``load_profile`` reads one.

    Attributes:
        name: Lower-case letters, digits and ``_ . -``.
        connection: The kind of connection and its address.
        runtimes: The runtimes that may be used, by name.
        default: The values of a target that its caller leaves out.
        cores: The number of CPUs, which bounds threads and CPU numbers.
        clusters: Groups of equal CPUs, by name, as CPU numbers.
        power_mode: The mode that the board is measured in (Jetson: a name of nvpmodel).
        python: The interpreter on the device: an absolute path, ``~/...`` or a bare name.
        work_dir: The folder on the device that work folders are made in: absolute or ``~/...``.
        notes: Free text.
        cli_name: The profile as an argument of commands, quoted for a shell: its
            name, or the path that it was loaded from.

    None in an optional attribute leaves it to the device.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    name: str
    connection: Connection
    runtimes: Mapping[str, RuntimeOptions]
    default: DefaultTarget
    cores: int | None = None
    clusters: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    power_mode: str | None = None
    python: str | None = None
    work_dir: str | None = None
    notes: str = field(default="", compare=False)
    cli_name: str = field(default="", init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cli_name", self.name)
        require(
            _NAME.fullmatch(self.name) is not None,
            f"a profile's name must be lower-case letters, digits and _ . - only, but got {self.name!r}",
        )
        where = f"profile {self.name}"
        require(bool(self.runtimes), f"{where} must list at least one runtime")
        for runtime in self.runtimes:
            require(_NAME.fullmatch(runtime) is not None, f"{where}: {runtime!r} is no name of a runtime")
        require(self.cores is None or self.cores > 0, f"{where}: cores must be above 0, but got {self.cores}")
        require(
            self.power_mode is None or _POWER_MODE.fullmatch(self.power_mode) is not None,
            f"{where}: power_mode must be letters, digits and _ only, but got {self.power_mode!r}",
        )
        for name, cpus in self.clusters.items():
            _check_cluster(f"{where}: clusters.{name}", name, cpus, self.cores)
        _check_connection_and_paths(self, where)
        default = self.default
        check_target(self, default.runtime, default.precision, default.threads, self.resolve_affinity(default.affinity))

    def __repr__(self) -> str:
        return f"DeviceProfile({self.name}, {self.connection.kind}, runtimes {' '.join(self.runtimes)})"

    def __hash__(self) -> int:
        return hash((self.name, self.connection, tuple(sorted(self.runtimes)), self.default))

    def resolve_affinity(self, affinity: str | Sequence[int] | None) -> tuple[int, ...] | None:
        """Return the CPUs that an affinity means.

        Args:
            affinity: The name of a cluster, a list of CPU numbers, ``all`` or None.

        Returns:
            CPU numbers in rising order; None where every CPU may be used.

        Raises:
            UsageError: No such cluster or CPU.
        """
        if affinity is None or affinity == ALL_CPUS:
            return None
        if isinstance(affinity, str):
            known = format_suggestion(affinity, [*sorted(self.clusters), ALL_CPUS])
            require(affinity in self.clusters, f"profile {self.name} has no cluster {affinity!r}{known}")
            return self.clusters[affinity]
        cpus = tuple(sorted(set(affinity)))
        _check_cpus(f"profile {self.name}: affinity", cpus, self.cores)
        return cpus

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as plain data, in the form of its YAML file."""
        return {key: value for key, value in asdict(self).items() if key != "cli_name"}


def require(holds: bool, message: str) -> None:
    """Raise UsageError with the message unless the rule holds."""
    if not holds:
        raise UsageError(message)


def check_target(
    profile: DeviceProfile, runtime: str, precision: str, threads: int, affinity: tuple[int, ...] | None
) -> None:
    """Raise UsageError, listing what exists, when a profile does not have these values of a target."""
    require(
        runtime in profile.runtimes,
        f"profile {profile.name} has no runtime {runtime!r}{format_suggestion(runtime, sorted(profile.runtimes))}",
    )
    precisions = target_precisions()
    require(precision in precisions, f"unknown precision {precision!r}{format_suggestion(precision, precisions)}")
    require(1 <= threads <= _MOST_THREADS, f"threads must be from 1 to {_MOST_THREADS}, but got {threads}")
    check_cores(profile.name, threads, profile.cores)
    if affinity is not None:
        require(
            threads <= len(affinity),
            f"threads must be at most the {len(affinity)} CPUs {list(affinity)} that they are bound to,"
            f" but got {threads}",
        )


def check_cores(name: str, threads: int, cores: int | None) -> None:
    """Raise UsageError for more threads than a device has cores; None is an unknown number."""
    require(cores is None or threads <= cores, f"threads must be at most {name}'s {cores} cores, but got {threads}")


def check_python_path(python: str, where: str) -> None:
    """Raise UsageError for text that names no interpreter on a device, such as a relative path."""
    require(
        python.isprintable() and _PYTHON.fullmatch(python) is not None,
        f"{where} must be an absolute path, one that begins with ~/, or a bare name, but got {python!r}",
    )


def _check_option(place: str, name: str, value: bool | int | float | str) -> None:
    remedy = "a profile holds neither secrets nor code; remove it"
    require(not _SECRET.search(name), f"{place}: looks like a secret; {remedy}")
    if isinstance(value, float):
        require(math.isfinite(value), f"{place}: must be a finite number, but got {value}")
    if isinstance(value, str):
        require(value.isprintable(), f"{place}: must be printable text, but got {value!r}")
        is_code = _CODE_FILE.search(value.strip()) is not None and not _QNN_BACKEND.fullmatch(value)
        require(not is_code, f"{place}: {value!r} is code to be loaded; {remedy}")
        leaves_home = value.startswith("~/") and ".." in value.split("/")
        require(not leaves_home, f"{place}: must stay below the home folder, but got {value!r}; leave out ..")


def _check_connection_and_paths(profile: DeviceProfile, where: str) -> None:
    """Check the texts that are sent to the device: the connection's, the interpreter and the work folder."""
    for key, value in asdict(profile.connection).items():
        is_printable = not isinstance(value, str) or value.isprintable()
        require(is_printable, f"{where}: connection.{key} must be printable text, but got {value!r}")
    if profile.python is not None:
        check_python_path(profile.python, f"{where}: python")
    work_dir = profile.work_dir
    require(
        work_dir is None or (work_dir.isprintable() and _FOLDER.fullmatch(work_dir) is not None),
        f"{where}: work_dir must be an absolute path or begin with ~/, but got {work_dir!r}",
    )


def _check_cluster(where: str, name: str, cpus: tuple[int, ...], cores: int | None) -> None:
    require(_NAME.fullmatch(name) is not None and name != ALL_CPUS, f"{where}: is no name of a cluster; choose another")
    _check_cpus(where, cpus, cores)
    require(list(cpus) == sorted(set(cpus)), f"{where}: must list each CPU once, in rising order, but got {list(cpus)}")


def _check_cpus(where: str, cpus: tuple[int, ...], cores: int | None) -> None:
    most = _MOST_CPUS if cores is None else cores
    require(
        bool(cpus) and all(0 <= cpu < most for cpu in cpus),
        f"{where}: must be CPU numbers from 0 to {most - 1}, but got {list(cpus)}",
    )
