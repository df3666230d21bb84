"""The adb program on this machine: finding it, running it within a deadline, and the devices that are attached.

adb's own variables hold: ANDROID_ADB_SERVER_PORT, ADB_SERVER_SOCKET, ANDROID_SERIAL.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgenas.devices.adb.config import AdbConnection
from edgenas.devices.contract import Deadline
from edgenas.devices.output import CompletedCommand, last_line
from edgenas.errors import DeviceError, one_line

_DEFAULT_PORT = 5037
_SERVER_SECONDS = 2.0
_SILENT_SECONDS = 30.0  # a busy phone may take some
_READY_SECONDS = 10.0  # adbd that starts, or was connected to a moment ago, is offline first
_POLL_SECONDS = 0.5
_LINE = re.compile(r"(\S+)\s+(no permissions|\S+)(.*)")
_ADDRESS = re.compile(r".+:\d{1,5}")
_READY = "device"
_PASSING = ("offline", "connecting", "authorizing")
_REMEDIES = {
    "unauthorized": "unlock it and allow USB debugging for this computer on its screen, then try again",
    "authorizing": "unlock it and allow USB debugging for this computer on its screen, then try again",
    "offline": "unplug it and plug it in again, or run: adb reconnect offline",
    "connecting": "wait a moment and try again",
    "no permissions": "this user may not open it: install Debian's android-sdk-platform-tools-common, whose udev rules"
    " let group plugdev, and log in again as a member of plugdev",
    "recovery": "it runs its recovery system: start Android on it",
    "sideload": "it waits for an update: start Android on it",
    "rescue": "it runs its rescue system: start Android on it",
    "bootloader": "it runs its boot loader: start Android on it",
}


class _NotYetError(DeviceError):
    """A device that is not ready and may be in a moment."""


@dataclass(frozen=True)
class AttachedDevice:
    """A line of ``adb devices -l``: a serial number, its state, and what adb says of it."""

    serial: str
    state: str
    model: str

    def __str__(self) -> str:
        said = ", ".join(filter(None, (self.model, "" if self.state == _READY else self.state)))
        return self.serial + (f" ({said})" if said else "")


def find_adb() -> str:
    """Return the path of adb. Raise DeviceError where it is not installed."""
    found = shutil.which("adb")
    if found is None:
        raise DeviceError(
            "adb is not installed here, or not on the PATH; install it: sudo apt-get install adb,"
            " or Google's platform-tools from developer.android.com/tools/releases/platform-tools"
        )
    return found


def run_adb(arguments: Sequence[str], what: str, deadline: Deadline) -> CompletedCommand:
    """Run adb to its end; at the deadline it is killed, because it waits without end for a device that hangs.

    Raises:
        DeviceError: The deadline passed; the message begins with ``what``.
    """
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, no shell
            [find_adb(), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=max(0.1, deadline.seconds_left),
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"{what}: did not end within {deadline.seconds:g} s; check the device and its cable or network"
        ) from None
    stdout, stderr = (data.decode(errors="replace") for data in (done.stdout, done.stderr))
    return CompletedCommand(done.returncode, stdout, stderr)


def find_serial(connection: AdbConnection, name: str, deadline: Deadline) -> str:
    """Return the serial number of a profile's device, which is attached and ready.

    A device that is named by its address is connected to.

    Args:
        connection: The profile's connection.
        name: The profile's name in messages.
        deadline: The time for all of it.

    Raises:
        DeviceError: It is not attached or not ready, or several are and none is named.
    """
    check_server(name)
    wanted = connection.serial or os.environ.get("ANDROID_SERIAL") or None
    if wanted is not None and _ADDRESS.fullmatch(wanted):
        return _reach_address(wanted, name, deadline)
    ready = _within(_READY_SECONDS, deadline)
    while True:
        try:
            return _choose(list_attached(name, deadline), wanted, name)
        except _NotYetError:
            if not ready.seconds_left:
                raise
        time.sleep(_POLL_SECONDS)


def _reach_address(address: str, name: str, deadline: Deadline) -> str:
    """Return an address that is attached and answers; adb is connected to it.

    adb's server takes a machine that was reset for attached until it is told to try again. That takes it from
    everybody who uses the server, so it is done once, to one that is not ready or has said nothing for long.
    """
    ready, silent = _within(_READY_SECONDS, deadline), _within(_SILENT_SECONDS, deadline)
    may_disconnect, said = True, ""
    while True:
        attached = list_attached(name, deadline)
        state = next((one.state for one in attached if one.serial == address), None)
        if state == _READY and _answers(address, silent):
            return address
        is_over = not (silent if state == _READY else ready).seconds_left
        if may_disconnect and state is not None and (state != _READY or is_over):
            may_disconnect = False
            run_adb(["disconnect", address], f"{name}: adb disconnect {address}", deadline)
            said = _connect(address, name, deadline)
            ready = silent = _within(_READY_SECONDS, deadline)
        elif is_over:
            raise _unreachable_error(attached, address, name, said)
        elif state is None:
            said = _connect(address, name, deadline)
        time.sleep(_POLL_SECONDS)


def _connect(address: str, name: str, deadline: Deadline) -> str:
    """Connect adb to an address and return what it says of that: its exit status is 0 where it fails, too."""
    done = run_adb(["connect", address], f"{name}: adb connect {address}", deadline)
    return last_line(done.stdout) or done.failure


def _unreachable_error(attached: Sequence[AttachedDevice], address: str, name: str, said: str) -> DeviceError:
    reason = f" (adb connect: {said})" if said else ""
    try:
        _choose(attached, address, name)
    except DeviceError as error:
        return DeviceError(f"{error}{reason}")
    return DeviceError(f"{name}: {address} does not answer; check the device and its network{reason}")


def _within(seconds: float, deadline: Deadline) -> Deadline:
    return Deadline(min(seconds, deadline.seconds_left))


def _choose(attached: Sequence[AttachedDevice], wanted: str | None, name: str) -> str:
    """Return the serial number of the named device, or of the only one. Raise DeviceError where none is ready."""
    listed = ", ".join(map(str, attached)) or "none"
    found = [one for one in attached if one.serial == wanted] if wanted else attached
    if wanted and not found:
        raise DeviceError(
            f"{name}: no device {wanted} is attached to adb (attached: {listed}); plug it in and switch on USB"
            " debugging, or correct connection.serial in the profile"
        )
    if not found:
        raise DeviceError(
            f"{name}: no device is attached to adb; plug it in and switch on USB debugging in its developer options,"
            " or name an address as connection.serial in the profile"
        )
    if len(found) > 1:
        raise DeviceError(
            f"{name}: {len(found)} devices are attached to adb ({listed}); name one of them as connection.serial in"
            " the profile, or in ANDROID_SERIAL"
        )
    (device,) = found
    if device.state == _READY:
        return device.serial
    remedy = _REMEDIES.get(device.state, "see what adb devices says")
    error = _NotYetError if device.state in _PASSING else DeviceError
    raise error(f"{name}: {device.serial} is {device.state}; {remedy}")


def _answers(serial: str, deadline: Deadline) -> bool:
    """Return whether an attached device runs a command until the deadline."""
    try:
        return run_adb(["-s", serial, "shell", "-T", "exit 7"], serial, deadline).exit_status == 7
    except DeviceError:
        return False


def list_attached(name: str, deadline: Deadline) -> list[AttachedDevice]:
    """Return the devices that are attached to adb, whose server is started if it does not run."""
    done = run_adb(["devices", "-l"], f"{name}: adb devices", deadline)
    if done.exit_status:
        raise DeviceError(f"{name}: adb cannot list its devices ({done.failure}); try by hand: adb devices")
    return parse_attached(done.stdout)


def parse_attached(listing: str) -> list[AttachedDevice]:
    """Return the devices in the text of ``adb devices -l``."""
    devices = []
    for line in listing.partition("List of devices attached")[2].splitlines():
        if match := _LINE.fullmatch(line.strip()):
            serial, state, rest = match.groups()
            model = re.search(r"\bmodel:(\S+)", rest)
            devices.append(AttachedDevice(serial, state, one_line(model[1]) if model else ""))
    return devices


def check_server(name: str) -> None:
    """Raise DeviceError where a server of another version runs: this adb would end it, and what it does for others."""
    if os.environ.get("ADB_SERVER_SOCKET"):
        return
    running = _read_server_version()
    if running is None:
        return
    printed = run_adb(["version"], f"{name}: adb version", Deadline(30)).stdout
    own = re.search(r"version \d+\.\d+\.(\d+)", printed)
    if own and int(own[1]) != running:
        raise DeviceError(
            f"{name}: another adb's server runs here (version {running}, {find_adb()} has {own[1]}), which this one"
            " would end; put the adb that started it first on the PATH, or end it yourself: adb kill-server"
        )


def _read_server_version() -> int | None:
    """Return the version of the running server, in its protocol (SERVICES.TXT, host:version); None without one."""
    port = os.environ.get("ANDROID_ADB_SERVER_PORT", "")
    request = b"host:version"
    with contextlib.suppress(OSError, ValueError):
        address = ("127.0.0.1", int(port) if port else _DEFAULT_PORT)
        with socket.create_connection(address, timeout=_SERVER_SECONDS) as server:
            server.sendall(b"%04x" % len(request) + request)
            with server.makefile("rb") as answer:
                if answer.read(4) == b"OKAY":
                    return int(answer.read(int(answer.read(4), 16)), 16)
    return None
