"""A phone without Python: its own shell and tools run commands, keep files by their hash and hold the lock.

Needs what Android's toybox has: flock, mktemp, sha256sum, find, touch.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from edgenas.devices.adb.client import run_adb
from edgenas.devices.answers import MAX_FILE_BYTES, FreeText, PathText, check_answer
from edgenas.devices.channel import (
    CHUNK_BYTES,
    POLL_SECONDS,
    CommandChannel,
    StartCommand,
    check_shell_output_size,
    drain_stderr_into,
    lost_error,
    run_in_shell,
)
from edgenas.devices.contract import Deadline
from edgenas.devices.output import CommandOutput, CompletedCommand, last_line
from edgenas.devices.worker_device import MARK, transfer_deadline
from edgenas.errors import DeviceError, one_line
from edgenas.files import sha256_hex, write_bytes
from edgenas.on_device.work_folder import WorkFolder

_CLOSE_SECONDS = 5.0
_FILE_SIZE = re.compile(r"\d{1,12}", re.ASCII)
_SIGNALS = range(129, 193)  # the shell's status of a command that a signal has ended: 128 and its number
# Makes the work folder below $0 and removes it when its input ends, or adbd. It holds a lock in it: a folder whose lock
# is free was left by a reset. Those of earlier versions have none.
_KEEPER = f"""
umask 077
mkdir -p "$0/files" || exit 1
for old in "$0"/edgenas-shell-*; do
    if [ -f "$old/.lock" ]; then
        flock -n 8 8<>"$old/.lock" && rm -rf "$old"
    else
        find "$old" -prune -mtime +1 -exec rm -rf {{}} + 2>/dev/null
    fi
done
find "$0/files" -type f -mtime +30 -exec rm -f {{}} +
d=$(mktemp -d "$0/edgenas-shell-XXXXXX") || exit 1
trap 'rm -rf "$d"; exit 0' HUP TERM
exec 9>"$d/lock.new" || exit 1
flock -n 9 9>&9
mv "$d/lock.new" "$d/.lock"
echo "{MARK}$d"
read -r line
rm -rf "$d"
"""
# Takes the machine's lock, notes its holder $1 and keeps it until its input ends, or adbd. Its path is that of
# find_device_lock for the work_dir $0. mksh keeps 9 from commands that do not name it, and leaves a copy of it open
# when it is closed: so the lock has a process of its own.
_LOCK = f"""
command -v flock >/dev/null || {{ echo 'it has no flock' >&2; exit 1; }}
if [ -d /tmp ]; then f=/tmp/edgenas.lock; else f=${{TMPDIR:-$0}}/edgenas.lock; fi
[ ! -L "$f" ] || {{ echo "$f is a link" >&2; exit 1; }}
umask 0
exec 9<>"$f" || exit 1
if flock -n 9 9>&9; then
    printf %s "$1" >"$f"; echo "{MARK}taken"; read -r line; : >"$f"
else
    printf '{MARK}by %s\\n' "$(cat "$f")"
fi
"""
# Runs "$@" in the folder $0, killed when adb's connection ends; 126 is the shell's status of what it cannot run. A job
# in the background gets no input but a named one.
_RUN = (
    'cd "$0" || exit 126; exec 3<&0; "$@" <&3 3<&- & p=$!; echo $p >.running; '
    "trap 'kill -9 $p' HUP; exec 3<&-; wait $p"
)
# Kills the command that runs in the folder $0: adbd does not always notice that its client was killed.
_KILL = f'echo "{MARK}"; kill -9 "$(cat "$0/.running")"'
# Copies the kept file of the hash $1 to $2, if it is kept and intact.
_COPY = (
    f'echo "{MARK}"; f="$0/files/$1"; [ "$(sha256sum <"$f" 2>/dev/null | cut -c 1-64)" = "$1" ] && touch "$f" &&'
    ' cp "$f" "$2.new" && mv -f "$2.new" "$2" && echo copied'
)
# Removes the kept files that were used least recently, so that the others take $1 bytes at most; mksh counts to 2 GiB.
_TRIM = (
    f'echo "{MARK}"; cd "$0/files" || exit 1; t=0; ls -t | while read -r f; do'
    ' [ $t -gt $1 ] || t=$((t + $(wc -c <"$f"))); [ $t -le $1 ] || rm -f "$f"; done'
)
_MOST_KEPT_BYTES = 512 << 20
_KEEP = f'echo "{MARK}"; mv -f "$2" "$0/files/$1"'
_SIZE_AND_DIGEST = f'echo "{MARK}"; [ -f "$0" ] && wc -c <"$0" && sha256sum <"$0"'


class PlainShell:
    """The shell of a phone, with a work folder and the lock. It is what the remote worker is where there is Python.

    Args:
        start: Starts a command line there.
        serial: The phone, for adb's push and pull.
        name: The phone's name in messages.
        work_dir: The folder for the work folder and the kept files.
        deadline: The time until it must be ready.

    Attributes:
        folder: The path of the work folder.

    Raises:
        DeviceError: The folder cannot be made there, or the phone is lost.
    """

    def __init__(self, start: StartCommand, serial: str, name: str, work_dir: str, deadline: Deadline) -> None:
        self._start, self._serial, self._name, self._work_dir = start, serial, name, work_dir
        self._lock: CommandChannel | None = None
        self._keeper, line = self._start_keeper([_KEEPER, work_dir], deadline)
        try:
            self.folder = check_answer(PathText, line, f"{name}: its work folder")
        except BaseException:
            self._keeper.close()
            raise

    def run(
        self, command: Sequence[str], stdin: bytes, on_line: Callable[[str], None] | None, deadline: Deadline
    ) -> CompletedCommand:
        """Run a command to its end; as ``Device.run``."""
        output = CommandOutput(on_line)
        channel = self._start(shlex.join(["sh", "-c", _RUN, self.folder, *command]), deadline)
        try:
            while True:
                deadline.check(command[0])
                channel.settimeout(min(POLL_SECONDS, deadline.seconds_left))
                if stdin:
                    with contextlib.suppress(TimeoutError, OSError):
                        stdin = stdin[channel.send(stdin) :]
                if channel.recv_stderr_ready():
                    output.add_stderr(channel.recv_stderr(CHUNK_BYTES))
                with contextlib.suppress(TimeoutError):
                    data = channel.recv(CHUNK_BYTES)
                    if not data:
                        break
                    output.add_stdout(data)
            _add_last_errors(channel, output, deadline)
        except BaseException:
            with contextlib.suppress(DeviceError):
                self._run_script(_KILL, self.folder, deadline=Deadline(_CLOSE_SECONDS))
            raise
        finally:
            channel.close()
        status = channel.exit_status
        if status < 0:
            raise lost_error(self._name)
        return output.to_completed_command(128 - status if status in _SIGNALS else status)

    def push(self, local: Path, data: bytes, name: str, deadline: Deadline) -> str:
        """Store a file in the work folder and return its path; its content is sent if it is not kept there."""
        sha256, target = sha256_hex(data), f"{self.folder}/{name}"
        if self._run_script(_COPY, self._work_dir, sha256, target, deadline=deadline) != "copied":
            self._run_script(_TRIM, self._work_dir, str(_MOST_KEPT_BYTES), deadline=deadline)
            with WorkFolder() as folder:
                write_bytes(folder / name, data)  # what was read and checked, whatever the file is by now
                done = self._run_adb(
                    "push", str(folder / name), f"{target}.part", what=f"sending {local}", deadline=deadline
                )
            self._run_script(_KEEP, self._work_dir, sha256, f"{target}.part", deadline=deadline)
            if self._run_script(_COPY, self._work_dir, sha256, target, deadline=deadline) != "copied":
                reason = done.failure if done.exit_status else "it did not arrive whole"
                raise DeviceError(
                    f"{self._name}: {local} cannot be stored there ({reason});"
                    " free space there or set work_dir in the profile"
                )
        return target

    def pull(self, remote: str, name: str, local: Path, deadline: Deadline) -> None:
        """Fetch a file of the work folder, whole or not at all."""
        path = f"{self.folder}/{name}"
        size, _, digest = self._run_script(_SIZE_AND_DIGEST, path, deadline=deadline).partition("\n")
        if not digest:
            raise DeviceError(f"{remote}: there is no such file on the device")
        if not _FILE_SIZE.fullmatch(size) or int(size) > MAX_FILE_BYTES:
            raise DeviceError(
                f"{remote}: has {one_line(size)} bytes on the device, which is no size of at most"
                f" {MAX_FILE_BYTES >> 20} MiB; look at what writes it"
            )
        deadline = transfer_deadline(int(size))
        with WorkFolder() as folder:
            done = self._run_adb("pull", path, str(folder / name), what=f"fetching {remote}", deadline=deadline)
            if done.exit_status:
                raise DeviceError(f"{remote}: cannot be fetched from the device ({done.failure})")
            came = folder / name
            data = came.read_bytes() if came.stat().st_size == int(size) else b""
        if len(data) != int(size) or sha256_hex(data) != digest[:64]:
            raise DeviceError(f"{remote}: changed while it was fetched; fetch it when nothing writes to it")
        write_bytes(local, data)

    def take_lock_or_get_holder(self, holder: str, deadline: Deadline) -> str | None:
        """Take the lock and note its holder in it; return None, or the other holder's note."""
        channel, line = self._start_keeper([_LOCK, self._work_dir, holder], deadline)
        if line == "taken":
            self._lock = channel
            return None
        channel.close()
        note = check_answer(FreeText, line.removeprefix("by").strip(), f"{self._name}: its lock")
        return note or "another edgenas"

    def release_lock(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            _end_keeper(self._lock, wait=True)
            self._lock = None

    def close(self, *, wait: bool) -> None:
        """Let go of the lock and remove the work folder; wait for that five seconds at most."""
        if self._lock is not None:
            _end_keeper(self._lock, wait=wait)
        _end_keeper(self._keeper, wait=wait)

    def _start_keeper(self, script: Sequence[str], deadline: Deadline) -> tuple[CommandChannel, str]:
        """Start a script that says one line and lives until its input ends; return its channel and the line."""
        channel = self._start(shlex.join(["sh", "-c", *script]), deadline)
        printed, stderr = bytearray(), bytearray()
        try:
            while not printed.endswith(b"\n"):
                deadline.check(f"{self._name}: its shell")
                drain_stderr_into(channel, stderr)
                with contextlib.suppress(TimeoutError):
                    data = channel.recv(CHUNK_BYTES)
                    if not data:
                        raise self._keeper_error(channel, stderr)
                    printed += data
                    check_shell_output_size(printed, self._name)
        except BaseException:
            channel.close()
            raise
        return channel, printed.decode(errors="replace").partition(MARK)[2].strip()

    def _keeper_error(self, channel: CommandChannel, stderr: bytearray) -> DeviceError:
        channel.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            while data := channel.recv_stderr(CHUNK_BYTES):
                stderr += data
        reason = last_line(stderr.decode(errors="replace"))
        if channel.exit_status < 0:
            return lost_error(self._name, reason)
        return DeviceError(
            f"{self._name}: no files can be stored in {self._work_dir} there, or its lock cannot be taken ({reason});"
            " free space there or set work_dir in the profile"
        )

    def _run_script(self, script: str, *arguments: str, deadline: Deadline) -> str:
        return run_in_shell(self._start, self._name, ["sh", "-c", script, *arguments], MARK, deadline).strip()

    def _run_adb(self, *arguments: str, what: str, deadline: Deadline) -> CompletedCommand:
        return run_adb(["-s", self._serial, *arguments], f"{self._name}: {what}", deadline)


def _end_keeper(channel: CommandChannel, *, wait: bool) -> None:
    """End a script's input, and wait for its end five seconds at most."""
    deadline = Deadline(_CLOSE_SECONDS)
    with contextlib.suppress(OSError):
        channel.shutdown_write()
    while wait and deadline.seconds_left and not channel.exit_status_ready():
        with contextlib.suppress(OSError):
            channel.recv_stderr(CHUNK_BYTES)
    channel.close()


def _add_last_errors(channel: CommandChannel, output: CommandOutput, deadline: Deadline) -> None:
    """Collect the rest of standard error after standard output has ended."""
    while not channel.exit_status_ready() or channel.recv_stderr_ready():
        deadline.check("the end of a command")
        with contextlib.suppress(TimeoutError):
            output.add_stderr(channel.recv_stderr(CHUNK_BYTES))
