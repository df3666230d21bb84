"""Getting to know a board: its host key, its facts, its profile, the runtimes on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.devices import Deadline, Device, DeviceProfile, connect_device
from edgenas.devices.profile_files import OWN_PROFILES, check_own, profile_from_dict
from edgenas.devices.setup import Installed, set_up
from edgenas.errors import DeviceError, UsageError
from edgenas.files import write_bytes
from edgenas.pipeline.device_check import conditions

if TYPE_CHECKING:
    from edgenas.devices.ssh.known_hosts import HostKey

_REACH_SECONDS = 30.0
_MOST_THREADS = 4
_CLUSTERS = {2: ("little", "big"), 3: ("little", "middle", "big")}
_SETUP_SECONDS = 1800.0
# What an own build of onnxruntime on a board brings along, in the order in which providers are worth trying.
_ACCELERATORS = {
    "TensorrtExecutionProvider": {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": "~/.cache/edgenas/tensorrt",
    },
    "CUDAExecutionProvider": {},
}
_PROVIDERS = "import onnxruntime as it; print(*it.get_available_providers())"


def facts(profile: DeviceProfile) -> dict[str, Any]:
    """What a device says about itself. Raises DeviceError when it cannot be reached."""
    with connect_device(profile) as device:
        return device.facts()


def trust(profile: DeviceProfile, confirm: Callable[[HostKey], bool]) -> list[HostKey]:
    """Record the host keys of a device and of the jump hosts on the way, each after ``confirm``; those recorded.

    Raises UsageError for a device that is not reached by SSH, DeviceError when
    it cannot be reached, or a key is not confirmed or is revoked.
    """
    from edgenas.devices.ssh.config import SshConnection
    from edgenas.devices.ssh.connection import fetch_host_key
    from edgenas.devices.ssh.known_hosts import check as check_key
    from edgenas.devices.ssh.known_hosts import record

    if not isinstance(profile.connection, SshConnection):
        raise UsageError(f"{profile.name}: is reached as {profile.connection.kind}, which has no host keys")
    recorded: list[HostKey] = []
    while (key := fetch_host_key(profile.connection, Deadline(_REACH_SECONDS))).state != "known":
        if key.state == "revoked":
            check_key(key, profile.cli_name)
        if key.host in (before.host for before in recorded):
            raise DeviceError(
                f"{profile.name}: {key.host} showed another key right after one was recorded in {key.own};"
                " several machines may answer to that name, reach one by its address"
            )
        if not confirm(key):
            raise DeviceError(
                f"{profile.name}: the host key of {key.host} was not confirmed and is not recorded;"
                " compare it with what ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub says on the device"
            )
        record(key)
        recorded.append(key)
    return recorded


def new(name: str, connection: dict[str, Any], confirm: Callable[[HostKey], bool], out: Path | None = None) -> Path:
    """Ask a device what it is and write its profile, by default where its name finds it; returns the file.

    A host key that is not known is recorded after ``confirm``. Raises
    UsageError when the file is there already, DeviceError when the device
    cannot be reached.
    """
    path = out or OWN_PROFILES / f"{name}.yaml"
    if path.exists():
        raise UsageError(f"{path}: is there already; choose another name, or move it away")
    if out is None:
        check_own(path)
    draft: dict[str, Any] = {
        "name": name,
        "connection": connection,
        "runtimes": {"onnxruntime": {}, "litert": {}},
        "default": {"runtime": "onnxruntime"},
    }
    profile = profile_from_dict(draft, str(path))
    if connection["kind"] == "ssh":
        trust(profile, confirm)
    with connect_device(profile) as device:
        described = describe(draft, {**device.facts(), **conditions(device)}, _providers(device))
    profile_from_dict(described, str(path))
    write_bytes(path, render(described).encode())
    return path


def setup(
    profile: DeviceProfile,
    *,
    offline: bool = False,
    wheels: Sequence[Path] = (),
    python: str = "python3",
    say: Callable[[str], None] = lambda text: None,
) -> Installed:
    """Install the runtimes of a profile on its device, as ``devices.setup.set_up`` does.

    Raises UsageError where what it makes would not be used.
    """
    if profile.python is not None:
        raise UsageError(
            f"{profile.name}: its profile names python {profile.python}, so nothing that setup installs would be used;"
            " remove python from the profile, or install there yourself"
        )
    if profile.connection.kind != "ssh":
        raise UsageError(
            f"{profile.name}: setup is for boards that are reached by ssh, this one is {profile.connection.kind};"
            " install here with: pip install edgenas"
        )
    with connect_device(profile) as device:
        deadline = Deadline(_SETUP_SECONDS)
        with device.lock(Deadline(_REACH_SECONDS)):
            return set_up(device, profile, deadline, offline=offline, wheels=wheels, python=python, say=say)


def describe(draft: dict[str, Any], found: dict[str, Any], providers: Sequence[str]) -> dict[str, Any]:
    """A draft of a profile with what the device says: cores, clusters of unequal ones, power mode, accelerators.

    With unequal cores, models are bound to the fastest cluster.
    """
    clusters = _clusters(found["clusters"] or [])
    default = {**draft["default"], "precision": "fp32", "threads": min(found["cores"] or 1, _MOST_THREADS)}
    if clusters:
        name, cpus = list(clusters.items())[-1]
        default |= {"threads": min(len(cpus), _MOST_THREADS), "affinity": name}
    described = {
        "name": draft["name"],
        "connection": draft["connection"],
        "cores": found["cores"],
        "clusters": clusters,
        "power_mode": found.get("power_mode"),
        "runtimes": {**draft["runtimes"], "onnxruntime": _onnxruntime(providers)},
        "default": default,
        "notes": f"Written by edgenas device new from what the board said: {found['model'] or found['cpu']}.",
    }
    return {key: value for key, value in described.items() if value not in (None, {})}


def _onnxruntime(providers: Sequence[str]) -> dict[str, Any]:
    wanted = {name: options for name, options in _ACCELERATORS.items() if name in providers}
    options = {name: dict(options) for name, options in wanted.items() if options}
    return {"providers": [*wanted, "CPUExecutionProvider"], **({"options": options} if options else {})}


def _clusters(found: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Clusters of unequal cores by name, the slowest first; none where all are equal or their speeds are not given."""
    unknown = [each for each in found if each["capacity"] is None and each["max_frequency_khz"] is None]
    if len(found) not in _CLUSTERS or unknown:
        return {}
    return {name: each["cores"] for name, each in zip(_CLUSTERS[len(found)], found, strict=True)}


def _providers(device: Device) -> list[str]:
    """The providers of an onnxruntime that is on the device already; none where there is none."""
    done = device.run([device.python, "-c", _PROVIDERS], deadline=Deadline(_REACH_SECONDS))
    return done.stdout.split() if done.exit_status == 0 else []


def render(described: dict[str, Any]) -> str:
    """A profile as YAML text, lists on one line."""
    import yaml

    text = yaml.safe_dump(described, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return f"# {described['name']}: edgenas device check {described['name']} says whether it can be measured.\n{text}"
