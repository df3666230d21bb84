"""What adb says of the devices that are attached, and what is said of that."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.devices.adb.client import AttachedDevice, check_server, find_serial, parse_attached
from edgenas.devices.adb.config import AdbConnection
from edgenas.devices.contract import Deadline
from edgenas.errors import DeviceError, UsageError

# Written from the format strings in AOSP, packages/modules/adb/transport.cpp (append_transport).
LISTING = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R5CX10ABCDE            device usb:1-2 product:e1qxxx model:SM_S921B device:e1q transport_id:1
39041FDJH00001         unauthorized usb:1-3 transport_id:2
10.0.2.15:5555         offline product:x transport_id:3
????????????           no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-4

"""
Adb = Callable[[str], None]


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adb:
    """Puts a synthetic adb on the PATH that prints a listing and notes its arguments; no server runs."""
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:nowhere:1")
    monkeypatch.setattr("edgenas.devices.adb.client._READY_SECONDS", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def install(listing: str) -> None:
        script = tmp_path / "adb"
        script.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/asked"\ncat <<\'END\'\n{listing}\nEND\n')
        script.chmod(0o755)

    return install


def find(serial: str | None = None) -> str:
    return find_serial(AdbConnection("adb", serial), "phone", Deadline(20))


def attached(*lines: str) -> str:
    return "\n".join(["List of devices attached", *lines, ""])


def test_the_listing_is_parsed() -> None:
    """Serial number, state and model of each line are read; what adb says before and beside is left out."""
    assert parse_attached(LISTING) == [
        AttachedDevice("R5CX10ABCDE", "device", "SM_S921B"),
        AttachedDevice("39041FDJH00001", "unauthorized", ""),
        AttachedDevice("10.0.2.15:5555", "offline", ""),
        AttachedDevice("????????????", "no permissions", ""),
    ]


@given(st.text(max_size=200))
def test_any_listing_is_parsed(text: str) -> None:
    """Whatever adb prints, states are words and models are printable."""
    for device in parse_attached("List of devices attached\n" + text):
        assert device.serial
        assert device.model.isprintable()


def test_one_device_needs_no_name(adb: Adb) -> None:
    """The only attached device is the profile's."""
    adb(attached("A1 device model:Pixel_8"))
    assert find() == "A1"


def test_of_several_one_must_be_named(adb: Adb) -> None:
    """With two devices attached, both are listed on one line; a serial number in the profile decides."""
    adb(attached("A1 device model:Pixel_8", "B2 unauthorized"))
    listed = r"2 devices are attached to adb \(A1 \(Pixel_8\), B2 \(unauthorized\)\); name one of them"
    with pytest.raises(DeviceError, match=listed) as raised:
        find()
    assert "\n" not in str(raised.value)
    assert find("A1") == "A1"


def test_android_serial_names_one(adb: Adb, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of adb itself decides where the profile does not."""
    adb(attached("A1 device", "B2 device"))
    monkeypatch.setenv("ANDROID_SERIAL", "B2")
    assert find() == "B2"
    assert find("A1") == "A1"


@pytest.mark.parametrize(
    ("lines", "serial", "message"),
    [
        ([], None, "no device is attached to adb; plug it in and switch on USB debugging"),
        (["A1 device"], "B2", r"no device B2 is attached to adb \(attached: A1\); plug it in"),
        (["A1 unauthorized"], None, "A1 is unauthorized; unlock it and allow USB debugging"),
        (["A1 offline"], None, "A1 is offline; unplug it and plug it in again"),
        (["A1 no permissions (x); see [y]"], None, "A1 is no permissions; this user may not open it: install Debian's"),
        (["A1 bootloader"], None, "it runs its boot loader: start Android"),
        (["A1 strange"], None, "A1 is strange; see what adb devices says"),
    ],
)
def test_a_device_that_is_not_ready_has_a_remedy(adb: Adb, lines: list[str], serial: str | None, message: str) -> None:
    """Each state is named with what to do about it."""
    adb(attached(*lines))
    with pytest.raises(DeviceError, match=message):
        find(serial)


ADDRESS = "10.0.0.9:5555"
BY_ADDRESS = """\
#!/bin/sh
echo "$@" >>"{folder}/asked"
case "$*" in
    devices*) printf 'List of devices attached\\n{line}\\n' ;;
    connect*) echo "failed to connect to '10.0.0.9:5555': Connection refused" ;;
    *shell*) exit {status} ;;
esac
"""


@pytest.mark.parametrize(
    ("state", "status", "verbs", "message"),
    [
        ("device", 7, [], None),
        ("device", 1, ["disconnect", "connect"], r"10\.0\.0\.9:5555 does not answer; .*: Connection refused\)"),
        ("offline", 1, ["disconnect", "connect"], r"10\.0\.0\.9:5555 is offline; .*: Connection refused\)"),
        (None, 1, ["connect"], r"no device 10\.0\.0\.9:5555 is attached .*: Connection refused\)"),
    ],
)
def test_a_device_is_taken_from_others_once_at_most(
    adb: Adb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: str | None,
    status: int,
    verbs: list[str],
    message: str | None,
) -> None:
    """One that answers is left alone, an absent one only connected to; in the end adb's own words are said."""
    monkeypatch.setattr("edgenas.devices.adb.client._SILENT_SECONDS", 1.0)
    adb("")
    line = f"{ADDRESS} {state}" if state else ""
    (tmp_path / "adb").write_text(BY_ADDRESS.format(folder=tmp_path, line=line, status=status))
    if message is None:
        assert find(ADDRESS) == ADDRESS
    else:
        with pytest.raises(DeviceError, match=message):
            find(ADDRESS)
    asked = [line.split()[0] for line in (tmp_path / "asked").read_text().splitlines()]
    connects = [verb for verb in asked if verb in ("connect", "disconnect")]
    assert (connects if state else sorted(set(connects))) == verbs


def test_an_absent_adb_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without adb the message says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:nowhere:1")
    with pytest.raises(DeviceError, match=r"adb is not installed here.*apt-get install adb"):
        find()


@pytest.mark.parametrize("serial", ["-s", "a b", "", "a\nb", "a;b", "$(x)"])
def test_an_odd_serial_is_refused(serial: str) -> None:
    """A serial number is a plain word, which cannot be taken for an option."""
    with pytest.raises(UsageError, match=r"connection\.serial must be a serial number"):
        AdbConnection("adb", serial)


def test_a_server_of_another_version_is_left_alone(adb: Adb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """adb would end it, so nothing else is asked of adb."""
    adb("Android Debug Bridge version 1.0.41")
    monkeypatch.delenv("ADB_SERVER_SOCKET")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.getsockname()[1]))
        server.settimeout(20)

        def answer() -> None:
            for _ in range(2):
                client, _ = server.accept()
                with client:
                    assert client.recv(100) == b"000chost:version"
                    client.sendall(b"OKAY0004" + versions.pop(0))

        versions = [b"0029", b"0027"]  # 41, 39
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        check_server("phone")
        with pytest.raises(DeviceError, match=r"another adb's server runs here \(version 39, .* has 41\)"):
            check_server("phone")
        thread.join(20)
    assert (tmp_path / "asked").read_text() == "version\nversion\n"
