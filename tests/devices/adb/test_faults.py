"""Faults of a machine behind adb: each ends within its deadline in one line, and the next connection works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgenas.devices import Deadline, connect_device
from edgenas.errors import DeviceError
from edgenas.files import sha256_hex
from tests.fixtures.adb_machine import AdbMachine

pytestmark = pytest.mark.slow
COMMAND = ["sh", "-c", "echo begun; sleep 600"]
Fault = Callable[[AdbMachine], None]


def start_again(machine: AdbMachine) -> None:
    machine.start(connect=False)  # in the main thread, with which it would end


FAULTS: dict[str, tuple[Fault, Fault]] = {
    "adbd killed": (AdbMachine.kill_adbd, lambda machine: None),
    "frozen": (AdbMachine.freeze, AdbMachine.thaw),
    "link cut": (AdbMachine.cut_link, AdbMachine.mend_link),
    "reset": (AdbMachine.stop, start_again),
}


@pytest.fixture(params=["phone", "bare_phone"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbMachine]:
    """A machine with Python, and one without; each is well again after the test."""
    monkeypatch.setattr("edgenas.devices.link.SILENCE_SECONDS", 3.0)
    machine: AdbMachine = request.getfixturevalue(request.param)
    yield machine
    machine.thaw()
    machine.mend_link()
    machine.connect()


@contextmanager
def shortly_after_its_start(act: Callable[[], None]) -> Iterator[Callable[[str], None]]:
    """Give an ``on_line`` that does something in a thread once the command has begun."""
    threads: list[threading.Thread] = []

    def on_line(line: str) -> None:
        assert line == "begun"
        threads.append(threading.Thread(target=act))
        threads[0].start()

    yield on_line
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_mid_run_ends_the_run(machine: AdbMachine, fault: str) -> None:
    """The run ends by an error of one line, not as a command that has ended, and the next connection runs commands."""
    happen, undo = FAULTS[fault]
    with connect_device(machine.profile()) as device, shortly_after_its_start(lambda: happen(machine)) as on_line:
        started = time.monotonic()
        with pytest.raises(DeviceError, match=r"connection was lost|no sign of life|did not end within") as raised:
            device.run(COMMAND, deadline=Deadline(12), on_line=on_line)
        assert "\n" not in str(raised.value)
        assert time.monotonic() - started < 30
    undo(machine)
    with connect_device(machine.profile()) as device:
        assert device.run(["sh", "-c", "echo well"], deadline=Deadline(20)).stdout == "well\n"
        with device.lock(Deadline(20)):
            pass


def test_a_file_that_cannot_arrive_ends_at_its_deadline(
    machine: AdbMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending to a machine that froze ends in an error, and nothing half-sent is there afterwards."""
    monkeypatch.setattr("edgenas.devices.worker_device.START_SECONDS", 5.0)
    (tmp_path / "file").write_bytes(bytes(range(256)) * 400)
    with connect_device(machine.profile()) as device:
        device.run(["sh", "-c", "true"], deadline=Deadline(20))
        machine.freeze()
        with pytest.raises(DeviceError, match=r"no sign of life|did not end within|connection was lost"):
            device.push(tmp_path / "file", "model.onnx")
    machine.thaw()
    with connect_device(machine.profile()) as device:
        device.pull(device.push(tmp_path / "file", "model.onnx"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


def test_two_machines_need_a_name(phone: AdbMachine, bare_phone: AdbMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With both attached, a profile without a serial number connects to none, and lists both."""
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    with pytest.raises(DeviceError, match="2 devices are attached to adb") as raised:
        connect_device(phone.profile(connection={"kind": "adb"}))
    assert phone.serial in str(raised.value)
    assert bare_phone.serial in str(raised.value)


def test_the_command_ends_with_the_host(bare_phone: AdbMachine) -> None:
    """A command that its caller gives up is not running any more."""
    with connect_device(bare_phone.profile()) as device:
        device.run(["true"], deadline=Deadline(60))  # so that the next command is running when its time is over
        with pytest.raises(DeviceError, match="did not end within 2 s"):
            device.run(["sleep", "612"], deadline=Deadline(2))
        listing = ["sh", "-c", "ps -A -o ARGS | grep '[s]leep 612'; true"]
        end = time.monotonic() + 20
        while device.run(listing, deadline=Deadline(20)).stdout and time.monotonic() < end:
            time.sleep(0.2)
        assert device.run(listing, deadline=Deadline(20)).stdout == ""


def test_nothing_is_left_after_closing(bare_phone: AdbMachine, tmp_path: Path) -> None:
    """The work folder goes with the connection, the kept file stays and is not sent again."""
    (tmp_path / "file").write_bytes(b"content")
    with connect_device(bare_phone.profile()) as device:
        first = device.push(tmp_path / "file", "a")
    folder = bare_phone.root / first.lstrip("/")
    assert not folder.parent.exists()
    with connect_device(bare_phone.profile()) as device:
        kept = bare_phone.root / "data/local/tmp/edgenas/files" / sha256_hex(b"content")
        sent = kept.stat().st_ino
        device.push(tmp_path / "file", "b")
        assert kept.stat().st_ino == sent


def test_an_absent_python_is_said(bare_phone: AdbMachine) -> None:
    """What needs Python says how to get it there; facts do not need it."""
    with connect_device(bare_phone.profile()) as device:
        assert device.facts()["python"] is None
        with pytest.raises(DeviceError, match=r"there is no Python there .*edgenas device setup phone"):
            device.run([device.python, "-c", "1"], deadline=Deadline(20))
