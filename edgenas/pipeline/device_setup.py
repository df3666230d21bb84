"""Setting up a board: recording its host key, reading its facts, writing its profile, installing runtimes on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.devices import Deadline, Device, DeviceProfile, connect_device
from edgenas.devices.answers import MAX_ANSWER_BYTES, Words, check_answer
from edgenas.devices.profile import RuntimeOptions
from edgenas.devices.profile_files import OWN_PROFILES, check_not_localhost, profile_from_dict
from edgenas.devices.self_contained.install import has_python, install_userland
from edgenas.devices.setup import PYTHON_BY_DEFAULT, InstalledRuntimes, install_runtimes
from edgenas.devices.worker_device import WorkerDevice
from edgenas.errors import DeviceError, UsageError
from edgenas.files import write_bytes
from edgenas.pipeline.benchmark_program import set_up_benchmark_program, uses_benchmark_program
from edgenas.pipeline.device_check import read_conditions
from edgenas.pipeline.progress import Progress, Silent
from edgenas.registry import DEVICES
from edgenas.runtimes import FLOAT32, Runtime, all_runtimes, load_runtime

if TYPE_CHECKING:
    from edgenas.devices.ssh.known_hosts import HostKey

_CONNECT_SECONDS = 30.0
_SETUP_SECONDS = 1800.0
_MOST_THREADS = 4
_CLUSTER_NAMES = {2: ("little", "big"), 3: ("little", "middle", "big")}


def read_device_facts(profile: DeviceProfile) -> dict[str, Any]:
    """Connect to a device and return its facts.

    Raises:
        DeviceError: The device cannot be reached.
    """
    with connect_device(profile) as device:
        return device.facts()


def trust_host_keys(profile: DeviceProfile, confirm: Callable[[HostKey], bool]) -> list[HostKey]:
    """Record the unknown host keys of a device and of the jump hosts on the way to it.

    Args:
        profile: A profile of kind ``ssh``.
        confirm: Returns whether a person knows a key to be the device's own.

    Returns:
        The keys that were recorded, in the order of the machines.

    Raises:
        UsageError: The device is not reached by SSH.
        DeviceError: It cannot be reached, or a key is not confirmed or is revoked.
    """
    from edgenas.devices.ssh.config import SshConnection
    from edgenas.devices.ssh.connection import fetch_host_key
    from edgenas.devices.ssh.known_hosts import check_host_key, record_host_key

    if not isinstance(profile.connection, SshConnection):
        raise UsageError(f"{profile.name}: is reached as {profile.connection.kind}, which has no host keys")
    recorded: list[HostKey] = []
    while (key := fetch_host_key(profile.connection, Deadline(_CONNECT_SECONDS))).state != "known":
        if key.state == "revoked":
            check_host_key(key, profile.cli_name)
        if key.host in (earlier.host for earlier in recorded):
            raise DeviceError(
                f"{profile.name}: {key.host} showed another key right after one was recorded in {key.own_file};"
                " several machines may answer to that name, reach one by its address"
            )
        if not confirm(key):
            raise DeviceError(
                f"{profile.name}: the host key of {key.host} was not confirmed and is not recorded;"
                " compare it with what ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub says on the device"
            )
        record_host_key(key)
        recorded.append(key)
    return recorded


def create_profile(
    name: str, connection: dict[str, Any], confirm: Callable[[HostKey], bool], out: str | Path | None = None
) -> Path:
    """Connect to a device, read its facts and write its profile.

    Args:
        name: The name of the new profile.
        connection: The ``connection`` of the profile.
        confirm: Returns whether a person knows a host key to be the device's
            own; it is then recorded.
        out: The file to write, by default the one that ``load_profile(name)`` reads.

    Returns:
        The file.

    Raises:
        UsageError: The file exists already, or a value is wrong.
        DeviceError: The device cannot be reached, its host key is not confirmed, or what it says of itself is wrong.
    """
    path = Path(out) if out else OWN_PROFILES / f"{name}.yaml"
    if path.exists():
        raise UsageError(f"{path}: is there already; choose another name, or move it away")
    if out is None:
        check_not_localhost(path)
    draft: dict[str, Any] = {
        "name": name,
        "connection": connection,
        "runtimes": {runtime.name: {} for runtime in all_runtimes()},
        "default": {"runtime": all_runtimes()[0].name},
    }
    profile = profile_from_dict(draft, str(path))
    if connection["kind"] == "ssh":
        trust_host_keys(profile, confirm)
    with connect_device(profile) as device:
        facts, providers = device.facts(), list[str]()
        if facts["python"] is not None:  # else setup brings it along
            facts, providers = {**facts, **read_conditions(device)}, _read_providers(device)
        data = complete_draft(draft, facts, providers)
    try:
        profile_from_dict(data, str(path))
    except UsageError as error:
        raise DeviceError(
            f"{name}: what it says of itself makes no profile ({error}); write {path} by hand, or check the device"
        ) from None
    write_bytes(path, profile_yaml(data).encode(), replace=False)
    return path


def set_up_device(
    profile: DeviceProfile,
    *,
    offline: bool = False,
    wheels: Sequence[str | Path] = (),
    python: str = PYTHON_BY_DEFAULT,
    self_contained: bool = False,
    userland: str | Path | None = None,
    benchmark_model: str | Path | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> InstalledRuntimes:
    """Connect to a device, take its lock and install the runtimes of its profile.

    A device without Python gets a self-contained runtime. Nothing is installed on a device all of whose runtimes
    measure by their own benchmark programs.

    Args:
        profile: A profile of kind ``ssh`` or ``adb`` without ``python``.
        offline: Fetch wheels on this machine, without trying the device's pip.
        wheels: Wheel files to use instead of the index's.
        python: The interpreter on the device to make the environment with.
        self_contained: Bring Python and its libraries along, whatever the device has.
        userland: A self-contained runtime that was packed before.
        benchmark_model: The benchmark program of runtimes whose ``runner`` it is, instead of a downloaded one.
        progress: Receives the progress of that download; by default nothing does.
        say: Called with a line about each longer step.

    Raises:
        UsageError: The profile would not use the installation, or an argument is wrong.
        DeviceError: The device cannot be reached or installed on.
    """
    programs: dict[str, str] = {}
    if benchmark_model is not None or uses_benchmark_program(profile):
        file = None if benchmark_model is None else Path(benchmark_model)
        programs = set_up_benchmark_program(profile, file, progress or Silent(), say)
    if programs.keys() >= profile.runtimes.keys():
        return InstalledRuntimes("", programs, {}, {}, "by its own benchmark program, which is sent when it is used")
    if profile.python is not None:
        raise UsageError(
            f"{profile.name}: its profile names python {profile.python}, so nothing that setup installs would be used;"
            " remove python from the profile, or install there yourself"
        )
    if not issubclass(DEVICES.load(profile.connection.kind, profile.name), WorkerDevice):
        raise UsageError(
            f"{profile.name}: setup is for devices that are reached by ssh or adb, this one is"
            f" {profile.connection.kind}; install here with: pip install onnxruntime ai-edge-litert"
        )
    files, deadline = [Path(wheel) for wheel in wheels], Deadline(_SETUP_SECONDS)
    packed = None if userland is None else Path(userland)
    with connect_device(profile) as device:
        assert isinstance(device, WorkerDevice)
        brings_python = self_contained or packed is not None
        if not brings_python and python == PYTHON_BY_DEFAULT and not has_python(device, python, deadline):
            say(f"{profile.name}: has no {python}, so Python is brought along (--self-contained)")
            brings_python = True
        if brings_python:
            return install_userland(device, profile, deadline, userland=packed, wheels=files, say=say)
        with device.lock(Deadline(_CONNECT_SECONDS)):
            return install_runtimes(device, profile, deadline, offline=offline, wheels=files, python=python, say=say)


def complete_draft(draft: dict[str, Any], facts: dict[str, Any], providers: Sequence[str]) -> dict[str, Any]:
    """Add to the draft of a profile what the device's facts say.

    Args:
        draft: ``name``, ``connection``, ``runtimes`` and ``default`` of a profile.
        facts: The device's facts, and its ``power_mode`` where it has one.
        providers: The execution providers of the runtimes on the device.

    Returns:
        The profile as plain data, with cores, clusters of unequal cores, power
        mode and accelerators. With unequal cores the fastest cluster is the
        default affinity.
    """
    clusters = _unequal_clusters(facts["clusters"] or [])
    default = {**draft["default"], "precision": FLOAT32, "threads": min(facts["cores"] or 1, _MOST_THREADS)}
    if clusters:
        fastest, cpus = list(clusters.items())[-1]
        default |= {"threads": min(len(cpus), _MOST_THREADS), "affinity": fastest}
    data = {
        "name": draft["name"],
        "connection": draft["connection"],
        "cores": facts["cores"],
        "clusters": clusters,
        "power_mode": facts.get("power_mode"),
        "runtimes": {name: _runtime_options(load_runtime(name), providers) for name in draft["runtimes"]},
        "default": default,
        "notes": f"Written by edgenas device new from what the board said: {facts['model'] or facts['cpu']}.",
    }
    return {key: value for key, value in data.items() if value not in (None, {})}


def profile_yaml(data: dict[str, Any]) -> str:
    """Return the plain data of a profile as YAML text, with lists on one line."""
    import yaml

    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return f"# {data['name']}: edgenas device check {data['name']} says whether it can be measured.\n{text}"


def _unequal_clusters(groups: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Return clusters of unequal cores by name, the slowest first; none for equal cores or unknown speeds."""
    unknown = [group for group in groups if group["capacity"] is None and group["max_frequency_khz"] is None]
    if len(groups) not in _CLUSTER_NAMES or unknown:
        return {}
    return {name: group["cores"] for name, group in zip(_CLUSTER_NAMES[len(groups)], groups, strict=True)}


def _runtime_options(runtime: Runtime, providers: Sequence[str]) -> dict[str, Any]:
    """Return a runtime's part of a profile: the accelerators that it knows and the board has, then the processor."""
    if not runtime.accelerators:
        return {}
    found = {provider: options for provider, options in runtime.accelerators.items() if provider in providers}
    part: dict[str, Any] = {"providers": [*found, *RuntimeOptions().providers]}
    if any(found.values()):
        part["options"] = {provider: dict(options) for provider, options in found.items() if options}
    return part


def _read_providers(device: Device) -> list[str]:
    """Return the execution providers of the runtimes that are on the device and may have any."""
    providers: list[str] = []
    for program in (runtime.version_program for runtime in all_runtimes() if runtime.accelerators):
        done = device.run([device.python, "-c", program], deadline=Deadline(_CONNECT_SECONDS))
        if done.exit_status == 0:
            words = done.stdout[:MAX_ANSWER_BYTES].split()[1:]
            providers += check_answer(Words, words, f"{device.name}: its providers")
    return providers
