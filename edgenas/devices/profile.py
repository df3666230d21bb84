"""Device profiles: how to reach a device and what to run there, as data; and the targets made from them."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgenas.devices.base import Connection
from edgenas.devices.registry import device_class
from edgenas.errors import UsageError
from edgenas.files import Whole, nearest, parse, read_yaml

LOCALHOST = "localhost"
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
_PACKAGE = Path(__file__).parent.parent
OWN_PROFILES = Path("device_profiles")  # in the working folder
# In the wheel, and in a source checkout.
_SHIPPED = (_PACKAGE / "device_profiles", _PACKAGE.parent / "device_profiles")


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
            _require(_PROVIDER.fullmatch(provider) is not None, f"providers: {provider!r} is no provider's name")
        for provider, options in self.options.items():
            known = nearest(provider, list(self.providers))
            _require(provider in self.providers, f"options are for {provider!r}, which is no provider here{known}")
            for name, value in options.items():
                _check_option(f"options.{provider}.{name}", name, value)


@dataclass(frozen=True)
class Default:
    """What a target is where it does not say otherwise."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    runtime: str
    precision: str = "fp32"
    threads: Whole = 1
    affinity: str | tuple[Whole, ...] | None = None


@dataclass(frozen=True)
class DeviceProfile:
    """How to reach a device and what to run there. Data only; ``load_profile`` reads one.

    ``cores`` bounds a target's threads and CPU numbers, ``clusters`` names
    groups of equal CPUs by their numbers, ``power_mode`` is the one that the
    board is measured in (Jetson: nvpmodel's name), ``python`` is the
    interpreter on the device (absolute, ``~/...``, or a name), ``work_dir`` the
    folder there that work folders are made in (absolute or ``~/...``); None
    leaves each to the device. ``given`` is how commands name the profile, ready
    for a shell: its name, or the path that it was loaded from.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID_UNKNOWN

    name: str
    connection: Connection
    runtimes: Mapping[str, RuntimeOptions]
    default: Default
    cores: Whole | None = None
    clusters: Mapping[str, tuple[Whole, ...]] = field(default_factory=dict)
    power_mode: str | None = None
    python: str | None = None
    work_dir: str | None = None
    notes: str = field(default="", compare=False)
    given: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "given", self.name)
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
        _require(
            self.power_mode is None or _MODE.fullmatch(self.power_mode) is not None,
            f"profile {self.name}: power_mode must be letters, digits and _ only, but got {self.power_mode!r}",
        )
        for name, cpus in self.clusters.items():
            _check_cluster(self, name, cpus)
        _check_texts(self)
        default = self.default
        _check(self, default.runtime, default.precision, default.threads, self.cpus(default.affinity))

    def cpus(self, affinity: str | Sequence[int] | None) -> tuple[int, ...] | None:
        """The CPU numbers of a cluster's name or of a list; None where nothing bounds them. Raises UsageError."""
        if affinity is None or affinity == ALL_CPUS:
            return None
        if isinstance(affinity, str):
            known = nearest(affinity, [*sorted(self.clusters), ALL_CPUS])
            _require(affinity in self.clusters, f"profile {self.name} has no cluster {affinity!r}{known}")
            return self.clusters[affinity]
        cpus = tuple(sorted(set(affinity)))
        _check_cpus(f"profile {self.name}: affinity", cpus, self.cores)
        return cpus

    def __hash__(self) -> int:
        return hash((self.name, self.connection, tuple(sorted(self.runtimes)), self.default))

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain data, in the form of its YAML file."""
        return {key: value for key, value in asdict(self).items() if key != "given"}


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
        _check(profile, self.runtime, self.precision, self.threads, self.affinity)

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
    def given(self) -> str:
        """How commands name it, ready for a shell: its profile, and options where it differs from that's default."""
        default = self.profile.default
        pairs = {
            "--runtime": (self.runtime, default.runtime),
            "--precision": (self.precision, default.precision),
            "--threads": (self.threads, default.threads),
        }
        options = [f"{option} {wanted}" for option, (wanted, usual) in pairs.items() if wanted != usual]
        return " ".join([self.profile.given, *options])

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


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


def _check_option(place: str, name: str, value: bool | int | float | str) -> None:
    remedy = "a profile holds neither secrets nor code; remove it"
    _require(not _SECRET.search(name), f"{place}: looks like a secret; {remedy}")
    if isinstance(value, float):
        _require(math.isfinite(value), f"{place}: must be a finite number, but got {value}")
    if isinstance(value, str):
        _require(value.isprintable(), f"{place}: must be printable text, but got {value!r}")
        is_code = _CODE.search(value.strip()) is not None and not _QNN.fullmatch(value)
        _require(not is_code, f"{place}: {value!r} is code to be loaded; {remedy}")
        leaves = value.startswith("~/") and ".." in value.split("/")
        _require(not leaves, f"{place}: must stay below the home folder, but got {value!r}; leave out ..")


def check_python(python: str, where: str) -> None:
    """Raises UsageError for what names no interpreter on a device, such as a path from wherever one happens to be."""
    _require(
        python.isprintable() and _PYTHON.fullmatch(python) is not None,
        f"{where} must be an absolute path, one that begins with ~/, or a bare name, but got {python!r}",
    )


def _check_texts(profile: DeviceProfile) -> None:
    """What a path or a word must be, for a device to mean by it what the profile does."""
    for key, value in asdict(profile.connection).items():
        is_text = not isinstance(value, str) or value.isprintable()
        _require(is_text, f"profile {profile.name}: connection.{key} must be printable text, but got {value!r}")
    if profile.python is not None:
        check_python(profile.python, f"profile {profile.name}: python")
    work_dir = profile.work_dir
    _require(
        work_dir is None or (work_dir.isprintable() and _PLACE.fullmatch(work_dir) is not None),
        f"profile {profile.name}: work_dir must be an absolute path or begin with ~/, but got {work_dir!r}",
    )


def _check_cluster(profile: DeviceProfile, name: str, cpus: tuple[int, ...]) -> None:
    where = f"profile {profile.name}: clusters.{name}"
    _require(
        _NAME.fullmatch(name) is not None and name != ALL_CPUS, f"{where}: is no name of a cluster; choose another"
    )
    _check_cpus(where, cpus, profile.cores)
    _require(
        list(cpus) == sorted(set(cpus)), f"{where}: must list each CPU once, in rising order, but got {list(cpus)}"
    )


def _check_cpus(where: str, cpus: tuple[int, ...], cores: int | None) -> None:
    most = 4096 if cores is None else cores
    _require(
        bool(cpus) and all(0 <= cpu < most for cpu in cpus),
        f"{where}: must be CPU numbers from 0 to {most - 1}, but got {list(cpus)}",
    )


def _check(
    profile: DeviceProfile, runtime: str, precision: str, threads: int, affinity: tuple[int, ...] | None
) -> None:
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
    if affinity is not None:
        _require(
            threads <= len(affinity),
            f"threads must be at most the {len(affinity)} CPUs {list(affinity)} that they are bound to,"
            f" but got {threads}",
        )


def load_profile(name_or_path: str | Path, given: str | None = None) -> DeviceProfile:
    """A device profile by its name (``localhost``), or from a YAML file.

    Anything with a folder in it or ending in .yaml or .yml is a file. A name
    is looked for in the folder device_profiles here, then among the shipped
    ones; ``localhost`` is always the shipped one. ``given`` is how remedies name
    it, by default as it is named here. Raises UsageError on one line, naming the
    nearest known name or key.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) == 1:
        known = known_profiles()
        if path.name not in known:
            close = nearest(path.name, sorted(known))
            raise UsageError(f"unknown device profile {path.name!r}{close}; or give the path of a .yaml file")
        path = known[path.name]
        check_own(path)
        profile = profile_from_dict(read_yaml(path), str(path))
        _require(
            profile.name == path.stem,
            f"{path}: calls itself {profile.name}, so that neither name finds it; rename the file or correct its name",
        )
        return profile
    profile = profile_from_dict(read_yaml(path), str(path))
    object.__setattr__(profile, "given", shlex.quote(given or str(path)))
    return profile


def check_own(path: Path) -> None:
    """Raises UsageError for a profile in device_profiles here that would stand in for ``localhost``."""
    shipped = shipped_profiles().get(LOCALHOST)
    # In a checkout of edgenas the folder is its own, whichever copy of the package runs.
    is_shipped = shipped is not None and path.exists() and path.read_bytes() == shipped.read_bytes()
    _require(
        path.stem != LOCALHOST or is_shipped,
        f"{path}: {LOCALHOST} always means the shipped profile of this machine; give the file and its name another",
    )


def known_profiles() -> dict[str, Path]:
    """The files of all profiles that can be given by name: the shipped ones, and those in device_profiles here."""
    return {**shipped_profiles(), **{path.stem: path for path in sorted(OWN_PROFILES.glob("*.yaml"))}}


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
