"""Device profiles by name or from a YAML file: the shipped ones, and those in ``device_profiles`` here."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from edgenas.devices.profile import DeviceProfile, RuntimeOptions, require
from edgenas.errors import UsageError
from edgenas.files import check_keys, format_suggestion, parse_dataclass, read_yaml
from edgenas.registry import DEVICES

LOCALHOST = "localhost"
OWN_PROFILES = Path("device_profiles")  # in the working folder
_SHIPPED_PROFILES = Path(__file__).parent.parent / "device_profiles"


def load_profile(name_or_path: str | Path, cli_name: str | None = None) -> DeviceProfile:
    """Return a device profile by its name, or from a YAML file.

    Args:
        name_or_path: A path with a folder in it or ending in .yaml or .yml is a
            file. A name is looked for in the folder device_profiles here, then
            among the shipped ones; ``localhost`` is always the shipped one.
        cli_name: The name of a file's profile in messages, by default its path.

    Raises:
        UsageError: No such profile, or a wrong key or value; the message names
            the nearest known one.

    Example:
        >>> from edgenas import load_profile
        >>> load_profile("raspberry-pi-5")
        DeviceProfile(raspberry-pi-5, ssh, runtimes onnxruntime litert)
        >>> load_profile("raspberry-pi-5").cores
        4
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        profile = profile_from_dict(read_yaml(path), str(path))
        object.__setattr__(profile, "cli_name", shlex.quote(cli_name or str(path)))
        return profile
    known = profile_files_by_name()
    if path.name not in known:
        close = format_suggestion(path.name, sorted(known))
        raise UsageError(f"unknown device profile {path.name!r}{close}; or give the path of a .yaml file")
    path = known[path.name]
    check_not_localhost(path)
    profile = profile_from_dict(read_yaml(path), str(path))
    require(
        profile.name == path.stem,
        f"{path}: calls itself {profile.name}, so that neither name finds it; rename the file or correct its name",
    )
    return profile


def check_not_localhost(path: Path) -> None:
    """Raise UsageError for a profile in device_profiles here that would replace the shipped ``localhost``."""
    require(
        path.stem != LOCALHOST or path.parent == _SHIPPED_PROFILES,
        f"{path}: {LOCALHOST} always means the shipped profile of this machine; give the file and its name another",
    )


def profile_files_by_name() -> dict[str, Path]:
    """Return the files of all profiles with a name: the shipped ones, and those in device_profiles here."""
    return {**shipped_profile_files_by_name(), **{path.stem: path for path in sorted(OWN_PROFILES.glob("*.yaml"))}}


def shipped_profile_files_by_name() -> dict[str, Path]:
    """Return the files of the profiles that come with edgenas, by name."""
    return {path.stem: path for path in sorted(_SHIPPED_PROFILES.glob("*.yaml"))}


def profile_from_dict(data: Any, where: str) -> DeviceProfile:
    """Return a profile from plain data, in the form of its YAML file.

    Args:
        data: A mapping with keys ``name``, ``connection``, ``runtimes``, ``default``.
        where: The source of the data; messages begin with it.

    Raises:
        UsageError: A wrong key or value.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{where}: a device profile must be a mapping that begins with 'name: ...'")
    check_keys(data, [field.name for field in fields(DeviceProfile) if field.init], where)
    connection = data.get("connection")
    if not isinstance(connection, dict) or not isinstance(connection.get("kind"), str):
        raise UsageError(f"{where}: key 'connection' must say its kind, for example 'connection: {{kind: local}}'")
    connection_type = DEVICES.load(connection["kind"], where).connection_type
    parsed: dict[str, Any] = {"connection": parse_dataclass(connection_type, connection, f"{where}: connection")}
    runtimes = data.get("runtimes")
    if isinstance(runtimes, dict):
        parsed["runtimes"] = {
            name: parse_dataclass(RuntimeOptions, options, f"{where}: runtimes.{name}")
            for name, options in runtimes.items()
        }
    return parse_dataclass(DeviceProfile, {**data, **parsed}, where)
