"""Getting the runtime's own benchmark program for a phone: from its makers' storage, or a file of the user's."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path

from edgenas.devices import DeviceProfile
from edgenas.devices.profile import AGENT
from edgenas.errors import EdgeNASError, UsageError
from edgenas.files import read_bytes, sha256_hex, write_bytes
from edgenas.pipeline.downloads import fetch_file, remove_download
from edgenas.pipeline.progress import Progress
from edgenas.profilers.measure.benchmark_run import benchmark_program_folder
from edgenas.runtimes import Runtime, load_runtime

# As Google's litert-cli has it, which takes benchmark_model from below android_arm64 there.
BASE = "https://storage.googleapis.com/litert/binaries/"
_FOLDER = "android_arm64"
_ELF_ARM64 = (b"\x7fELF\x02", 0xB7)  # e_machine of arm64


def uses_benchmark_program(profile: DeviceProfile) -> list[str]:
    """Return the runtimes of a profile whose models their own benchmark program runs."""
    return sorted(name for name, options in profile.runtimes.items() if options.runner != AGENT)


def set_up_benchmark_program(
    profile: DeviceProfile, file: Path | None, progress: Progress, say: Callable[[str], None]
) -> dict[str, str]:
    """Get the benchmark program for a profile's device, unless it is here already.

    Nothing is sent: the program is pushed when models are measured, once, and kept there by its hash.

    Args:
        profile: A profile with a runtime whose ``runner`` is such a program.
        file: The program, to use instead of a downloaded one.
        progress: Receives the progress of the download.
        say: Called with a line about each longer step.

    Returns:
        The version of each such runtime.

    Raises:
        UsageError: The profile has no such runtime, or the file is no program for 64-bit Arm.
        EdgeNASError: The program cannot be downloaded.
    """
    names = uses_benchmark_program(profile)
    if not names:
        raise UsageError(
            f"{profile.name}: none of its runtimes has runner: benchmark_model, so --benchmark-model is not used;"
            " add that to the runtime in the profile, or leave the option out"
        )
    return {name: _set_up(load_runtime(name), profile, file, progress, say) for name in names}


def _set_up(
    runtime: Runtime, profile: DeviceProfile, file: Path | None, progress: Progress, say: Callable[[str], None]
) -> str:
    program, folder = runtime.benchmark_program, benchmark_program_folder(profile.name)
    if not program:
        raise UsageError(f"{profile.name}: edgenas knows no benchmark program of {runtime.name}; remove its runner")
    if file is not None:
        data = read_bytes(file)
        version = f"sha256-{sha256_hex(data)[:12]}"
        _check_program(data, file)
        _remove_others(folder, version)
        (folder / version).mkdir(parents=True, exist_ok=True)
        write_bytes(folder / version / program, data)
        return version
    version = _version_here(runtime, profile)
    path = folder / version / program
    if not path.exists():
        say(f"{profile.name}: fetching {program} of {runtime.name} {version} for {_FOLDER}")
    address = f"{BASE}{version}/{_FOLDER}/{program}"
    fetch_file(address, path, progress, "delete it and run setup again", "give another by --benchmark-model FILE")
    try:
        _check_program(read_bytes(path), path)
    except UsageError:
        remove_download(path)  # or it would stay for ever what this address has
        raise EdgeNASError(
            f"{address}: gave no program for 64-bit Arm; try again where no proxy answers instead,"
            " or give another by --benchmark-model FILE"
        ) from None
    _remove_others(folder, version)
    return version


def _version_here(runtime: Runtime, profile: DeviceProfile) -> str:
    """Return the version of the runtime that is in use here, which the program shall have, too."""
    try:
        return importlib.metadata.version(runtime.package)
    except importlib.metadata.PackageNotFoundError:
        raise EdgeNASError(
            f"{profile.name}: {runtime.package} is not installed here, whose version decides which program is fetched;"
            f" install it (pip install 'edgenas[{runtime.name}]'), or give --benchmark-model FILE"
        ) from None


def _check_program(data: bytes, path: Path) -> None:
    start, machine = _ELF_ARM64
    if not data.startswith(start) or int.from_bytes(data[18:20], "little") != machine:
        raise UsageError(f"{path}: is no program for 64-bit Arm; give the benchmark_model of {_FOLDER}")


def _remove_others(folder: Path, version: str) -> None:
    """Remove the program's other versions, so that there is one."""
    for other in folder.glob("*"):
        if other.name != version:
            shutil.rmtree(other)
