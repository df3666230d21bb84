"""Scripts of a phone's own shell, run by this machine's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgenas.devices.adb import plain_shell


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", "-c", script, *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)


def test_a_folder_that_is_gone_is_not_the_commands_status(tmp_path: Path) -> None:
    """The shell's own status for what it cannot run is given where the command did not run."""
    assert run(plain_shell._RUN, str(tmp_path), "sh", "-c", "exit 1").returncode == 1
    assert run(plain_shell._RUN, str(tmp_path / "absent"), "sh", "-c", "exit 1").returncode == 126
    assert run(plain_shell._RUN, str(tmp_path), "no-such-program").returncode == 127
