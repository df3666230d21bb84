"""The contract that every device passes, as a test class to derive from.

::

    class TestMine(DeviceContract):
        @pytest.fixture
        def device(self) -> Iterator[Device]:
            with MyDevice(...) as device:
                yield device

        @pytest.fixture
        def other(self) -> Iterator[Device]:
            with MyDevice(...) as device:
                yield device

The commands are small Python programs; a device with scripted answers finds
them in COMMANDS. Needs pytest, which edgenas itself does not install.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from edgenas.devices.contract import Deadline, Device
from edgenas.devices.facts import FACTS, complete_facts
from edgenas.devices.output import STDERR_KEPT_BYTES
from edgenas.errors import DeviceError, UsageError
from edgenas.files import sha256_hex

COMMANDS = {
    "lines": "import sys; print('one'); print('two', flush=True); print('bad', file=sys.stderr); sys.exit(3)",
    "echo": "import sys; print(sys.stdin.readline().strip()[::-1])",
    "flood": "import sys; sys.stderr.write('e' * 5_000_000 + 'last'); print('done')",
    "slow": "import time; print('begun', flush=True); time.sleep(600)",
    "binary": "import os; os.write(1, bytes([255, 10]) + b'no line feed')",
    "where": "import os; print(sorted(name for name in os.listdir('.') if not name.startswith('.')))",
    "lifeline": "import select; input(); print('closed' if select.select([0], [], [], 0.2)[0] else 'still open')",
}


class DeviceContract:
    """Tests for any device. A subclass has fixtures ``device`` and ``other``, new connections to one machine."""

    def command(self, device: Device, name: str) -> list[str]:
        """Return the command line that runs one of COMMANDS on this device."""
        return [device.python, "-c", COMMANDS[name]]

    def test_run_returns_status_and_both_streams(self, device: Device) -> None:
        """A command that fails raises nothing; its exit status and output are returned."""
        done = device.run(self.command(device, "lines"), deadline=Deadline(30))
        assert (done.exit_status, done.stdout, done.stderr) == (3, "one\ntwo\n", "bad\n")

    def test_run_streams_lines(self, device: Device) -> None:
        """Lines go to on_line in order, and are not kept."""
        lines: list[str] = []
        done = device.run(self.command(device, "lines"), deadline=Deadline(30), on_line=lines.append)
        assert lines == ["one", "two"]
        assert done.stdout == ""

    def test_run_sends_stdin(self, device: Device) -> None:
        """The command reads what it was sent."""
        done = device.run(self.command(device, "echo"), deadline=Deadline(30), stdin=b"abc\n")
        assert done.stdout == "cba\n"

    def test_stdin_stays_open(self, device: Device) -> None:
        """Standard input does not end before the command does."""
        done = device.run(self.command(device, "lifeline"), deadline=Deadline(30), stdin=b"request\n")
        assert done.stdout == "still open\n"

    def test_flood_on_stderr_does_not_block(self, device: Device) -> None:
        """Both streams are drained; of standard error the last part is kept."""
        done = device.run(self.command(device, "flood"), deadline=Deadline(30))
        assert done.stdout == "done\n"
        assert done.stderr.endswith("last")
        assert len(done.stderr) <= STDERR_KEPT_BYTES

    def test_undecodable_output_is_shown(self, device: Device) -> None:
        """Bytes that are no text and a missing last line feed lose nothing else."""
        lines: list[str] = []
        device.run(self.command(device, "binary"), deadline=Deadline(30), on_line=lines.append)
        assert lines == ["\N{REPLACEMENT CHARACTER}", "no line feed"]

    def test_deadline_ends_the_command(self, device: Device) -> None:
        """A command that takes longer than its deadline ends in a DeviceError; its earlier lines were passed on."""
        lines: list[str] = []
        start = time.monotonic()
        with pytest.raises(DeviceError, match="did not end within 5 s"):
            device.run(self.command(device, "slow"), deadline=Deadline(5), on_line=lines.append)
        assert time.monotonic() - start < 60
        assert lines == ["begun"]

    def test_an_exception_in_on_line_is_passed_on(self, device: Device) -> None:
        """An exception in on_line ends the command and reaches the caller; the device stays usable."""

        def raise_key_error(line: str) -> None:
            raise KeyError(line)

        with pytest.raises(KeyError, match="begun"):
            device.run(self.command(device, "slow"), deadline=Deadline(30), on_line=raise_key_error)
        assert device.run(self.command(device, "lines"), deadline=Deadline(30)).exit_status == 3

    def test_push_and_pull_give_the_same_bytes(self, device: Device, tmp_path: Path) -> None:
        """A file comes back as it was sent, also when it replaces another of its name. Paths may be texts."""
        source, back = tmp_path / "source", tmp_path / "back"
        for content in (b"first", bytes(range(256)) * 1000):
            source.write_bytes(content)
            remote = device.push(source, "model.onnx")
            device.pull(remote, back)
            assert back.read_bytes() == content
            device.pull(device.push(str(source), "text.onnx"), str(back))
            assert back.read_bytes() == content

    def test_a_file_that_was_changed_is_not_stored(self, device: Device, tmp_path: Path) -> None:
        """A file whose content differs from the known digest is refused; an equal one is stored."""
        source, back = tmp_path / "source", tmp_path / "back"
        source.write_bytes(b"another")
        with pytest.raises(UsageError, match="source: has changed since its digest was taken"):
            device.push(source, "model.onnx", sha256_hex(b"content"))
        with pytest.raises(DeviceError, match="no such file"):
            device.pull("model.onnx", back)
        source.write_bytes(b"content")
        device.push(source, "model.onnx", sha256_hex(b"content"))
        device.pull("model.onnx", back)
        assert back.read_bytes() == b"content"

    def test_pushed_files_lie_in_the_work_folder(self, device: Device, tmp_path: Path) -> None:
        """Commands run in the folder that files are pushed to, and nothing half-sent lies there."""
        source = tmp_path / "source"
        source.write_bytes(b"x")
        device.push(source, "model.onnx")
        assert device.run(self.command(device, "where"), deadline=Deadline(30)).stdout == "['model.onnx']\n"

    @pytest.mark.parametrize("name", ["../out", "/etc/out", "a/b", "..", ".hidden", "", "a\nb", "-rf"])
    def test_a_name_cannot_leave_the_folder(self, device: Device, tmp_path: Path, name: str) -> None:
        """A file name that is not plain is refused."""
        source = tmp_path / "source"
        source.write_bytes(b"x")
        with pytest.raises(UsageError, match="file name"):
            device.push(source, name)

    def test_push_of_a_missing_file_is_refused(self, device: Device, tmp_path: Path) -> None:
        """A local file that is not there is the caller's error, and is named."""
        with pytest.raises(UsageError, match="absent"):
            device.push(tmp_path / "absent", "name")

    def test_pull_of_a_missing_file_leaves_nothing(self, device: Device, tmp_path: Path) -> None:
        """A file that is not there raises DeviceError and leaves no empty file here."""
        with pytest.raises(DeviceError, match="no such file"):
            device.pull("absent", tmp_path / "local")
        assert not (tmp_path / "local").exists()

    def test_facts_are_complete(self, device: Device) -> None:
        """Every fact is a key and has its type; those without a value are listed as missing."""
        facts = device.facts()
        assert set(FACTS) <= set(facts)
        assert complete_facts(facts, device.name) == facts

    def test_the_lock_keeps_another_connection_out(self, device: Device, other: Device) -> None:
        """While one connection has the lock, another cannot take it and the holder is named; afterwards it can."""
        taken = rf"is taken by .*, process {os.getpid()}, since 20\d\d-"
        with device.lock(Deadline(600)), pytest.raises(DeviceError, match=taken):
            _take_and_release(other, Deadline(0.5))
        with other.lock(Deadline(600)):
            pass

    def test_waiting_for_the_lock_names_its_holder(
        self, device: Device, other: Device, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whoever waits is told within two seconds, once, for whom."""
        with device.lock(Deadline(600)):
            caplog.clear()
            started = time.time()
            with pytest.raises(DeviceError, match="is taken by"):
                _take_and_release(other, Deadline(3))
        (warning,) = (record for record in caplog.records if record.name == "edgenas")
        assert f"is taken by {platform.node()}, process {os.getpid()}, since" in warning.getMessage()
        assert warning.created - started < 2

    def test_the_lock_may_be_taken_again_by_its_holder(self, device: Device, other: Device) -> None:
        """The inner of two nested locks does not let go of the outer one."""
        with device.lock(Deadline(600)):
            with device.lock(Deadline(600)):
                pass
            with pytest.raises(DeviceError, match="is taken by"):
                _take_and_release(other, Deadline(0))

    def test_closing_lets_go_of_the_lock(self, device: Device, other: Device) -> None:
        """A connection that is closed while it has the lock leaves it to the next."""
        with device.lock(Deadline(600)):
            device.close()
            with other.lock(Deadline(600)):
                pass

    def test_commands_run_while_the_lock_is_held(self, device: Device) -> None:
        """The holder of the lock can run commands."""
        with device.lock(Deadline(600)):
            assert device.run(self.command(device, "lines"), deadline=Deadline(30)).exit_status == 3

    def test_close_may_be_called_again(self, device: Device) -> None:
        """Closing twice is harmless; a closed device refuses to work."""
        device.close()
        device.close()
        with pytest.raises(DeviceError, match="closed"):
            device.run(self.command(device, "lines"), deadline=Deadline(30))


def _take_and_release(device: Device, deadline: Deadline) -> None:
    with device.lock(deadline):
        pass
