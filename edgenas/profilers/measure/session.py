"""One run of the agent on a device: each model file in a process of its own, each result yielded as it comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgenas.devices import Deadline, Device, Target
from edgenas.devices.profile import check_cores
from edgenas.errors import DeviceError, EdgeNASError, ModelError
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.protocol import (
    LOCK_SECONDS,
    Answer,
    End,
    Failed,
    Hello,
    ModelFile,
    Result,
    Unable,
    device_error,
    encode_request,
    ended_early_error,
    model_error,
    parse_answer,
    read_model_files,
    send_agent,
)
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.validity import assess_validity
from edgenas.runtimes import load_runtime

_START_SECONDS = 60.0


def iter_measurements(
    models: Sequence[Path],
    target: Target,
    *,
    device: Device,
    settings: MeasureSettings | None = None,
    exceptions: Mapping[Path, MeasureSettings] | None = None,
    checked: Mapping[Path, ModelFile] | None = None,
) -> Generator[Measurement | ModelError, None, None]:
    """Measure model files in order, each in a process of its own, and yield each result as soon as it is there.

    The device is locked meanwhile and stays open. Closing the iterator ends the agent.

    Args:
        models: paths; a path may occur several times. A file that failed is not run again, but fails again.
        target: how the models are run.
        device: an open connection to the target's device.
        settings: how long and how often each model is run.
        exceptions: settings for single files, instead of ``settings``.
        checked: files that ``read_model_files`` has read before.

    Yields:
        A Measurement, or the ModelError of a file that the runtime cannot run.

    Raises:
        UsageError: before anything is run, for a file that cannot be read or run, and for more threads than the
            device has cores.
        DeviceError: when another edgenas measures there, or when the device vanishes,
            after every earlier result has been yielded.
    """
    paths = [Path(model) for model in models]
    unread = [path for path in dict.fromkeys(paths) if path not in (checked or {})]
    files = {**(checked or {}), **dict(zip(unread, read_model_files(unread, target), strict=True))}
    if not paths:
        nothing: tuple[ModelError, ...] = ()
        return (outcome for outcome in nothing)
    by_digest = {files[path].sha256: own for path, own in (exceptions or {}).items()}
    run = _AgentRun([files[path] for path in paths], target, settings or MeasureSettings(), by_digest, device)
    return run.iter_results()


@dataclass
class _AgentRun:
    """One run of the agent: a thread waits for the device and queues its lines, which become measurements."""

    models: Sequence[ModelFile]
    target: Target
    settings: MeasureSettings
    exceptions: Mapping[str, MeasureSettings]  # by the model's SHA-256
    device: Device
    lines: queue.Queue[str | BaseException | None] = field(default_factory=queue.Queue)
    stderr: str = ""

    def iter_results(self) -> Generator[Measurement | ModelError, None, None]:
        with self.device.lock(Deadline(LOCK_SECONDS)):
            facts = self.device.facts()
            # The profile may not say how many cores there are.
            check_cores(self.target.profile.name, self.target.threads, facts.get("cores"))
            command, request = self._push_files_and_build_request()
            yield from self._iter_agent_results(command, request, facts)

    def _push_files_and_build_request(self) -> tuple[list[str], bytes]:
        """Push the agent and the models; return the agent's command and its standard input."""
        command = send_agent(self.device, load_runtime(self.target.runtime))
        distinct = {model.remote_name: model for model in self.models}
        paths = {name: self.device.push(model.path, name, model.sha256) for name, model in distinct.items()}
        models: list[dict[str, Any]] = []
        for number, model in enumerate(self.models):
            models.append({"id": number, "path": paths[model.remote_name]})
            if model.sha256 in self.exceptions:
                models[-1]["settings"] = self.exceptions[model.sha256].to_dict()
        return command, encode_request(self.target, settings=self.settings.to_dict(), models=models)

    def _iter_agent_results(
        self, command: list[str], request: bytes, facts: dict[str, Any]
    ) -> Iterator[Measurement | ModelError]:
        seconds = self.settings.model_timeout_seconds
        deadline = Deadline(_START_SECONDS + len(self.models) * (seconds + 1))
        thread = threading.Thread(target=self._run_agent_in_thread, args=(command, request, deadline), daemon=True)
        thread.start()
        try:
            hello = self._wait_for_answer((Hello,), _START_SECONDS, 0)
            assert isinstance(hello, Hello)
            for number, model in enumerate(self.models):
                answer = self._wait_for_answer((Result, Failed), seconds + _START_SECONDS, number)
                if isinstance(answer, Failed):
                    yield model_error(model, answer, hello.versions, self.target)
                else:
                    assert isinstance(answer, Result)
                    yield self._make_measurement(model, answer, hello, facts)
            self._wait_for_answer((End,), _START_SECONDS, len(self.models))
        finally:
            deadline.expire_now()
            thread.join()

    def _run_agent_in_thread(self, command: list[str], request: bytes, deadline: Deadline) -> None:
        try:
            done = self.device.run(command, deadline=deadline, stdin=request, on_line=self._queue_line)
            self.stderr = done.stderr
            self.lines.put(None)
        except BaseException as error:
            self.lines.put(error)

    def _queue_line(self, line: str) -> None:
        """Queue a line; raise DeviceError for more lines than the agent has to send."""
        if self.lines.qsize() > len(self.models) + 2:
            raise DeviceError("answered more than it was asked for; try again")
        self.lines.put(line)

    def _wait_for_answer(self, kinds: tuple[type[Answer], ...], seconds: float, done: int) -> Answer:
        """Return the next answer, which must be of one of these kinds; raise DeviceError for anything else."""
        where = f"{self.target.profile.name}, after {done} of {len(self.models)} processes"
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise DeviceError(f"{where}: said nothing for {seconds:g} s; check the device and try again") from None
        if isinstance(line, EdgeNASError):
            raise DeviceError(f"{where}: {line}") from line
        if isinstance(line, BaseException):
            raise line
        if line is None:
            raise ended_early_error(self.stderr, where)
        return self._parse_due_answer(line, kinds, done, where)

    def _parse_due_answer(self, line: str, kinds: tuple[type[Answer], ...], done: int, where: str) -> Answer:
        answer = parse_answer(line, Result, where)
        if isinstance(answer, Unable):
            raise device_error(answer, where, self.target, self.device.python)
        number = answer.count if isinstance(answer, End) else done if isinstance(answer, Hello) else answer.id
        if not isinstance(answer, kinds) or number != done:
            due = " or ".join(kind.__name__.lower() for kind in kinds)
            raise DeviceError(f"{where}: answered {line[:80]!r} where {due} was due; try again")
        return answer

    def _make_measurement(self, model: ModelFile, answer: Result, hello: Hello, facts: dict[str, Any]) -> Measurement:
        fields = asdict(answer)
        del fields["kind"], fields["id"]
        validity = assess_validity(
            answer.conditions_before,
            answer.conditions_after,
            placement=answer.placement,
            providers=self.target.providers,
            power_mode=self.target.profile.power_mode,
        )
        return Measurement(
            **fields,
            model_sha256=model.sha256,
            target=self.target.to_dict(),
            facts={**facts, **hello.facts},
            versions=hello.versions,
            validity=validity,
            synthetic=facts["synthetic"],
            settings=self.exceptions.get(model.sha256, self.settings).to_dict(),
        )
