"""Models run by the runtime's own benchmark program on a device, where the agent would run them otherwise."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenas.devices import Deadline, Device, Target
from edgenas.errors import DeviceError, UsageError
from edgenas.files import cache_folder, read_bytes, sha256_hex
from edgenas.profilers.measure.benchmark_output import BenchmarkOutput, parse_benchmark_output
from edgenas.profilers.measure.board_conditions import read_conditions_by_shell
from edgenas.profilers.measure.protocol import Failed, Hello, Result
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.runtimes import load_runtime
from edgenas.shell import format_command

_STEP_SECONDS = 60.0
_MAX_SHARE = 0.25  # of a process's time: as much again goes for the warm-up, and each exceeds it by one run
_NOT_STARTED = (126, 127)  # the shell's status of a program that cannot be run, or is not there
_CPU = "CPUExecutionProvider"
# The flag that lets a provider run nodes; the processor runs what is left.
_PROVIDER_FLAGS = {
    _CPU: "",
    "GpuDelegate": "--use_gpu=true",
    "NpuDelegate": "--use_npu=true",
    "NnapiDelegate": "--use_nnapi=true",
}
_FLAG = re.compile(r"[a-z][a-z0-9_]{0,60}")
_OTHER_NAMES = {"xnnpack": "use_xnnpack"}  # of options that the agent has, too
_OWN_FLAGS = {"graph", "num_threads", "num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs"}


def benchmark_program_folder(profile_name: str) -> Path:
    """Return the folder of this machine that has the benchmark program for a profile, below a folder of its version."""
    return cache_folder("benchmark_programs") / profile_name


def find_benchmark_program(target: Target) -> tuple[str, Path]:
    """Return the version and the file of the benchmark program for a target's device.

    Raises:
        UsageError: Its runtime has no such program, or none was set up.
    """
    program = load_runtime(target.runtime).benchmark_program
    if target.runner != program:
        known = f"; it has {program}" if program else ""
        raise UsageError(f"{target.profile.name}: {target.runtime} has no runner {target.runner!r}{known}")
    found = sorted(benchmark_program_folder(target.profile.name).glob(f"*/{program}"))
    if len(found) != 1:
        raise UsageError(
            f"{target.profile.name}: there is no {program} for it here; run"
            f" {format_command('device', 'setup')} {target.profile.cli_name}"
        )
    return found[0].parent.name, found[0]


def benchmark_flags(target: Target, settings: MeasureSettings) -> list[str]:
    """Return the program's arguments but the model.

    Raises:
        UsageError: A provider or an option that it does not have.
    """
    unknown = [name for name in target.providers if name not in _PROVIDER_FLAGS]
    if unknown:
        known = ", ".join(_PROVIDER_FLAGS)
        raise UsageError(f"{target.runner} has no provider {unknown[0]!r}; it has {known}")
    flags = [flag for name in target.providers if (flag := _PROVIDER_FLAGS[name])]
    for options in target.options.values():
        for name, value in options.items():
            if not _FLAG.fullmatch(name) or name in _OWN_FLAGS:
                raise UsageError(f"{target.runner}: option {name!r} is none of its flags, or one that edgenas sets")
            flags.append(f"--{_OTHER_NAMES.get(name, name)}={str(value).lower() if isinstance(value, bool) else value}")
    return [
        f"--num_threads={target.threads}",
        f"--num_runs={settings.min_runs}",
        f"--min_secs={settings.min_seconds:g}",
        f"--max_secs={settings.model_timeout_seconds * _MAX_SHARE:g}",
        f"--warmup_runs={settings.warmup_runs}",
        f"--warmup_min_secs={settings.warmup_seconds:g}",
        *flags,
    ]


@dataclass(frozen=True)
class BenchmarkRun:
    """Models in order, each in one process of the benchmark program, on a device that is locked.

    Attributes:
        device: An open connection.
        target: How models are run.
        models: The paths of the models there, in order; a path may occur several times.
        settings: How long each is run.
    """

    device: Device
    target: Target
    models: Sequence[str]
    settings: MeasureSettings

    def iter_answers(self) -> Generator[Hello | Result | Failed, None, None]:
        """Yield a greeting, then one answer for each model, as ``AgentRun`` does. A model that failed is not run again.

        Raises:
            UsageError: The program is not there, or does not have what the target wants.
            DeviceError: The device vanishes, or prints what cannot be.
        """
        flags = benchmark_flags(self.target, self.settings)
        version, local = find_benchmark_program(self.target)
        program = self.device.push(local, self.target.runner)
        done = self.device.run(["chmod", "755", program], deadline=Deadline(_STEP_SECONDS))
        if done.exit_status:
            raise self._start_error(done.failure)
        versions = {self.target.runtime: version, self.target.runner: sha256_hex(read_bytes(local))[:12]}
        yield Hello("hello", versions, {})
        cpus = self.target.affinity
        command = [*(["taskset", f"{sum(1 << cpu for cpu in cpus):x}"] if cpus else []), program, *flags]
        failed: dict[str, Failed] = {}
        for number, model in enumerate(self.models):
            if model in failed:
                yield Failed("failed", number, failed[model].reason, failed[model].detail)
                continue
            answer = self._run_model(number, [*command, f"--graph={model}"])
            if isinstance(answer, Failed):
                failed[model] = answer
            yield answer

    def _run_model(self, number: int, command: Sequence[str]) -> Result | Failed:
        """Run one model in one process; return its answer."""
        seconds, started = self.settings.model_timeout_seconds, time.monotonic()
        before = read_conditions_by_shell(self.device, self.target.affinity)
        deadline = Deadline(seconds)
        try:
            done = self.device.run(command, deadline=deadline)
        except DeviceError:
            if deadline.seconds_left:
                raise
            read_conditions_by_shell(self.device, self.target.affinity)  # raises where the device is to blame
            return Failed("failed", number, "timeout", f"did not end within {seconds:g} s")
        if done.exit_status < 0:
            return Failed("failed", number, "crashed", f"its process was {done.failure}")
        if done.exit_status in _NOT_STARTED:
            raise self._start_error(done.failure)
        if done.exit_status:
            return Failed("failed", number, "refused", done.failure)
        output = parse_benchmark_output(f"{done.stdout}\n{done.stderr}")
        return Result(
            kind="result",
            id=number,
            samples_ms=output.times_ms,
            peak_bytes=output.peak_bytes,
            load_ms=output.load_ms,
            device_s=round(time.monotonic() - started, 6),
            conditions_before=before,
            conditions_after=read_conditions_by_shell(self.device, self.target.affinity),
            running_s=round(time.monotonic() - started, 6),
            placement=_placement(output, self.target.providers),
            memory_reason=None if output.peak_bytes is not None else "the program does not say",
        )

    def _start_error(self, reason: str) -> DeviceError:
        return DeviceError(
            f"{self.device.name}: {self.target.runner} cannot be started there ({reason}); set work_dir in the profile"
            " to a folder on a disk that is not mounted noexec, or give another program with --benchmark-model FILE"
        )


def _placement(output: BenchmarkOutput, providers: Sequence[str]) -> Mapping[str, int] | None:
    """Return the nodes by provider as far as the program says: one stands for all, where it says no numbers."""
    first = providers[0]
    if first == _CPU:
        return None
    by_word: dict[str | None, dict[str, int]] = {"all": {first: 1}, "some": {first: 1, _CPU: 1}, "none": {_CPU: 1}}
    return by_word.get(output.delegated, {})
