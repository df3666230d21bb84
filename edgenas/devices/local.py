"""This machine as a device."""

from __future__ import annotations

import filecmp
import os
import platform
import selectors
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgenas.devices.contract import Deadline, Device, check_digest, checked_file_name
from edgenas.devices.facts import collect_facts
from edgenas.devices.output import CommandOutput, CompletedCommand
from edgenas.errors import DeviceError, UsageError
from edgenas.files import read_bytes
from edgenas.on_device.board import read_text_or_none
from edgenas.on_device.process import Process
from edgenas.on_device.work_folder import DeviceLock, WorkFolder, find_device_lock

if TYPE_CHECKING:
    from edgenas.devices.profile import DeviceProfile

_POLL_SECONDS = 0.2
_VERSION_SECONDS = 30.0
# What programs, Python and the runtimes are found and set by, and how pip reaches an index.
_PASSED_VARIABLES = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "LD_PRELOAD", "ADSP_LIBRARY_PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "XDG_CACHE_HOME"),
)
_PASSED_PREFIXES = ("PIP_", "LC_", "CUDA_", "NVIDIA_", "OMP_", "OPENBLAS_", "MKL_", "ORT_", "TF_", "OPENVINO_")


class LocalDevice(Device):
    """This machine. Each command has its own process group, which is killed when the command ends in any way.

    The work folder is a new one under the profile's ``work_dir``, by default
    under the system's folder for temporary files.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self.name = profile.name
        self._python = str(Path(profile.python).expanduser()) if profile.python else sys.executable
        try:
            self._work = WorkFolder(Path(profile.work_dir).expanduser() if profile.work_dir else None)
        except (OSError, RuntimeError) as error:
            place = error.filename if isinstance(error, OSError) else profile.work_dir
            why = error.strerror if isinstance(error, OSError) else "you have no home folder"
            raise DeviceError(
                f"{profile.name}: no work folder can be made in {place} ({why});"
                " free space there or set work_dir in the profile"
            ) from None
        self._folder = self._work.path
        self._lock = DeviceLock(find_device_lock(self._folder.parent))
        self._process: Process | None = None
        self._closed = False

    @classmethod
    def connect(cls, profile: DeviceProfile) -> Self:
        return cls(profile)

    @property
    def python(self) -> str:
        return self._python

    def run(
        self,
        command: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        on_line: Callable[[str], None] | None = None,
    ) -> CompletedCommand:
        self._check_open()
        output = CommandOutput(on_line)
        with selectors.DefaultSelector() as selector:
            try:
                process = Process(
                    selector, command, str(self._folder), output.add_stdout, output.add_stderr, _safe_environment()
                )
            except OSError as error:
                raise DeviceError(
                    f"{command[0]}: cannot be started ({error.strerror}); correct the profile's python"
                ) from None
            self._process = process
            try:
                process.queue_stdin(stdin)
                while not process.has_ended():
                    deadline.check(command[0])
                    for key, _ in selector.select(min(process.poll_interval_s, _POLL_SECONDS, deadline.seconds_left)):
                        key.data()
            finally:
                process.kill_and_close()
                self._process = None
        return output.to_completed_command(process.exit_status)

    def push(self, local: str | Path, name: str, sha256: str | None = None) -> str:
        self._check_open()
        local, target = Path(local), self._folder / checked_file_name(name)
        if not local.is_file():
            raise UsageError(f"{local}: cannot be read (no such file)")
        if sha256 is not None:
            check_digest(local, read_bytes(local), sha256)
        if not (target.is_file() and filecmp.cmp(local, target, shallow=False)):
            _copy_file_atomically(local, target)
        return str(target)

    def pull(self, remote: str, local: str | Path) -> None:
        self._check_open()
        source = self._folder / checked_file_name(remote.removeprefix(f"{self._folder}/"))
        if not source.is_file():
            raise DeviceError(f"{remote}: there is no such file on the device")
        _copy_file_atomically(source, Path(local))

    def facts(self) -> dict[str, Any]:
        self._check_open()
        version: str | None = platform.python_version()
        if self._python != sys.executable:
            command = [self._python, "-c", "import platform; print(platform.python_version())"]
            version = self.run(command, deadline=Deadline(_VERSION_SECONDS)).stdout.strip() or None
        return collect_facts(
            lambda path: read_text_or_none(Path(path)),
            self.name,
            kernel=platform.release() or None,
            arch=platform.machine() or None,
            python=version,
        )

    def _take_lock_or_get_holder(self, holder: str) -> str | None:
        self._check_open()
        try:
            return self._lock.acquire_or_get_holder(holder)
        except OSError as error:
            raise DeviceError(
                f"{self.name}: its lock {error.filename} cannot be taken ({error.strerror});"
                " make it writable for you, or remove it"
            ) from None

    def _release_lock(self) -> None:
        self._lock.release()

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            self._process.kill_and_close()
        self._lock.release()
        self._work.remove()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("the device was closed; connect again")


def _safe_environment() -> dict[str, str]:
    """Return the variables that a command gets: a model file's code must not find passphrases and tokens there."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_VARIABLES or name.startswith(_PASSED_PREFIXES)
    }


def _copy_file_atomically(source: Path, target: Path) -> None:
    """Copy a file under a temporary name and rename it; raise DeviceError when it cannot be written."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DeviceError(
            f"{target}: cannot be written ({error.strerror}); free space or choose another folder"
        ) from None
