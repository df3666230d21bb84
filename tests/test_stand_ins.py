"""Tests of the emulated machines that other tests measure on: that they are as bare as they claim to be."""

from __future__ import annotations

import subprocess

import pytest

from tests.stand_ins.adb_server import AdbServer
from tests.stand_ins.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.aarch64]

_BARE = "command -v python3; ls /lib /usr /tmp 2>/dev/null; echo $?; uname -m; id -u"
_MODULES = (
    'from importlib.util import find_spec as f; print(*(f(name) is not None for name in ("venv", "pip", "ensurepip")))'
)


def test_android_has_no_python(android: Machine, adb_server: AdbServer) -> None:
    """adb's shell is uid 2000 on an arm64 machine without Python and without the usual folders."""
    done = adb_server.run("-s", android.serial, "shell", "-T", _BARE)
    assert (done.returncode, done.stdout) == (0, "1\naarch64\n2000\n")


def test_android_answers_getprop_and_dumpsys(android: Machine, adb_server: AdbServer) -> None:
    """Properties and services are answered in Android's form; a test may replace an answer."""
    shell = ("-s", android.serial, "shell", "-T")
    assert adb_server.run(*shell, "getprop ro.product.cpu.abi").stdout == "arm64-v8a\n"
    assert "  level: 80\n" in adb_server.run(*shell, "dumpsys battery").stdout
    answer = "/data/local/answers/battery"
    assert adb_server.run(*shell, f"echo hot > {answer}; dumpsys battery; rm {answer}").stdout == "hot\n"


def run_by_ssh(board: Machine, command: str) -> str:
    options = ["-F", str(board.folder / "ssh_config"), "-i", str(board.folder / "client_key")]
    options += ["-o", f"UserKnownHostsFile={board.folder / 'known_hosts'}", "-p", str(board.port)]
    ssh = ["ssh", *options, "root@127.0.0.1", command]
    done = subprocess.run(ssh, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_board_has_no_python(bare_board: Machine) -> None:
    """SSH logs in as root on an arm64 machine without Python and without the usual folders."""
    assert run_by_ssh(bare_board, _BARE) == "1\naarch64\n0\n"


def test_the_debian_board_has_python_without_pip(debian_board: Machine) -> None:
    """SSH logs in as root on an arm64 machine with Debian 12, whose Python has neither pip nor ensurepip."""
    said = run_by_ssh(debian_board, f". /etc/os-release; echo $ID $VERSION_ID; uname -m; python3 -c '{_MODULES}'")
    assert said == "debian 12\naarch64\nTrue False False\n"


def test_a_reset_keeps_the_disk(android: Machine, adb_server: AdbServer) -> None:
    """After a reset the machine has another boot id, and its files."""
    shell = ("-s", android.serial, "shell", "-T")
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = adb_server.run(*shell, f"echo kept > /data/local/tmp/file; sync; {boot}").stdout
    android.reset()
    android.wait_until_it_answers()
    adb_server.connect(android.serial)
    after, kept = adb_server.run(*shell, f"{boot}; cat /data/local/tmp/file").stdout.split()
    assert kept == "kept"
    assert after != before.strip()
