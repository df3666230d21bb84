"""Connections by way of the ProxyCommand of an ssh configuration, to a real server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.devices import Deadline, DeviceProfile, connect_device
from edgenas.devices.ssh.testing import Sshd
from edgenas.errors import DeviceError

SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
Proxied = Callable[[str], DeviceProfile]


@pytest.fixture
def proxied(sshd: Sshd, tmp_path: Path) -> Proxied:
    """Gives the profile of the server by way of a ProxyCommand."""

    def profile(command: str) -> DeviceProfile:
        config = tmp_path / "config"
        config.write_text(f"IdentityAgent none\nProxyCommand {command}\n")
        return sshd.profile(sshd.connection_data(config_file=str(config)), work_dir=str(tmp_path / "board"))

    return profile


@pytest.fixture
def relayed(proxied: Proxied, relay: Path, tmp_path: Path) -> DeviceProfile:
    """The profile of the server by way of a command that writes its process number into the file pid."""
    return proxied(f"{sys.executable} {relay} %h %p {tmp_path}/pid")


def test_a_device_behind_a_proxycommand_is_used(
    relayed: DeviceProfile, tmp_path: Path, is_gone: Callable[[int], bool]
) -> None:
    """Files and commands go both ways through a ProxyCommand, which ends with the connection."""
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(5_000_000))
    with connect_device(relayed) as device:
        device.pull(device.push(source, "name"), back)
        assert device.run(["echo", "hello"], deadline=Deadline(30)).stdout == "hello\n"
    assert back.read_bytes() == source.read_bytes()
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_proxycommand_that_ends_in_mid_run_is_noticed(relayed: DeviceProfile, tmp_path: Path) -> None:
    """The connection is lost with the command that it goes through."""

    def end_relay(line: str) -> None:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    with connect_device(relayed) as device, pytest.raises(DeviceError, match="loopback: the connection was lost"):
        device.run([device.python, "-c", SLEEPER], deadline=Deadline(600), on_line=end_relay)


def test_a_failing_proxycommand_is_named(proxied: Proxied, capfd: pytest.CaptureFixture[str]) -> None:
    """Its status is in the message; what it says of itself goes to standard error, as with ssh."""
    with pytest.raises(
        DeviceError,
        match=r"loopback: the ProxyCommand for 127.0.0.1 ended with status 3 before the login; correct it in",
    ):
        connect_device(proxied("sh -c 'echo no way >&2; exit 3'"))
    assert capfd.readouterr().err == "no way\n"


@pytest.mark.slow
def test_a_silent_proxycommand_is_given_up(proxied: Proxied, tmp_path: Path, is_gone: Callable[[int], bool]) -> None:
    """A command that says nothing, not even at a hang-up, is ended."""
    with pytest.raises(DeviceError, match="gives no answer"):
        connect_device(proxied(f"sh -c 'trap \"\" HUP; echo $$ > {tmp_path}/pid; while :; do sleep 1; done'"))
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
def test_a_stopped_proxycommand_is_noticed_while_a_file_is_sent(relayed: DeviceProfile, tmp_path: Path) -> None:
    """A command that takes no more data is no reason to wait for ever."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20_000_000))
    with connect_device(relayed) as device:
        device.run(["true"], deadline=Deadline(30))
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGSTOP)
        with pytest.raises(DeviceError, match=r"gave no sign of life for 10 s|connection was lost"):
            device.push(source, "name")
