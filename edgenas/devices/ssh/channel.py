"""Starting a command over an SSH connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgenas.devices.channel import POLL_SECONDS, SILENCE_SECONDS, lost_error
from edgenas.devices.contract import Deadline
from edgenas.devices.ssh.connection import closing_on_timeout, peer_errors
from edgenas.errors import one_line

if TYPE_CHECKING:
    from paramiko import Channel, Transport


def start_command(transport: Transport, command: str, name: str, deadline: Deadline) -> Channel:
    """Start a command line in the login shell of a device.

    Args:
        transport: The connection.
        command: The command line, quoted by ``shlex``.
        name: The device's name in messages.
        deadline: The time until the command must have started.

    Raises:
        DeviceError: The deadline passed or the connection broke.
    """
    try:
        with closing_on_timeout(transport, deadline):
            channel = transport.open_session(timeout=min(SILENCE_SECONDS, deadline.seconds_left))
            channel.settimeout(POLL_SECONDS)
            channel.exec_command(command)
    except peer_errors() as error:
        deadline.check(f"{name}: starting a command")
        raise lost_error(name, one_line(error)) from None
    return channel
