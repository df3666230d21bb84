"""One run of the agent on a device: its answers, each as soon as it comes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edgenas.devices import Deadline, Device, Target
from edgenas.devices.answers import MAX_OUTPUT_BYTES
from edgenas.devices.output import CompletedCommand
from edgenas.errors import DeviceError, EdgeNASError
from edgenas.profilers.measure.protocol import (
    Answer,
    End,
    Failed,
    Hello,
    Profiled,
    Result,
    ResultKind,
    Stored,
    Unable,
    device_error,
    encode_request,
    ended_early_error,
    parse_answer,
)

Kind = TypeVar("Kind", bound=Answer)

_START_SECONDS = 180.0  # TensorRT's libraries on a slow card
_SILENT_SECONDS = 60.0  # beyond the time that a model may take


@dataclass
class AgentRun:
    """One run of the agent on a device that is locked: a thread waits for the device and queues its lines.

    Attributes:
        device: An open connection.
        target: How models are run.
        command: The command that starts the agent.
        models: The models of the request, in order; their ``id`` is their index.
        model_timeout_seconds: The most time that one model may take.
        result: The kind of answer that a model which ran gets.
        request: More keys of the request.
    """

    device: Device
    target: Target
    command: Sequence[str]
    models: Sequence[Mapping[str, Any]]
    model_timeout_seconds: float
    result: ResultKind = Result
    request: Mapping[str, Any] = field(default_factory=dict)
    _lines: queue.Queue[str | BaseException | CompletedCommand] = field(default_factory=queue.Queue, init=False)

    def iter_answers(self) -> Generator[Hello | Result | Stored | Profiled | Failed, None, None]:
        """Yield the agent's greeting, then one answer for each model. Closing the iterator ends the agent.

        Raises:
            DeviceError: The device cannot run any model, vanishes, says nothing for too long, or answers what the
                protocol does not allow.
        """
        seconds = self.model_timeout_seconds
        deadline = Deadline(_START_SECONDS + len(self.models) * (seconds + 1))
        thread = threading.Thread(target=self._run_in_thread, args=(deadline,), daemon=True)
        thread.start()
        try:
            yield self._wait_for_answer(_START_SECONDS, 0, Hello)
            for number in range(len(self.models)):
                yield self._wait_for_answer(seconds + _SILENT_SECONDS, number, self.result, Failed)
            self._wait_for_answer(_SILENT_SECONDS, len(self.models), End)
        finally:
            deadline.expire_now()
            thread.join()

    def _run_in_thread(self, deadline: Deadline) -> None:
        settings = {"model_timeout_seconds": self.model_timeout_seconds}
        request = encode_request(self.target, **{"settings": settings, **self.request}, models=list(self.models))
        try:
            self._lines.put(self.device.run(self.command, deadline=deadline, stdin=request, on_line=self._queue_line))
        except BaseException as error:
            self._lines.put(error)

    def _queue_line(self, line: str) -> None:
        """Queue a line; raise DeviceError for more than the agent has to send, or than may wait here to be read."""
        with self._lines.mutex:
            waiting = sum(len(each) for each in self._lines.queue if isinstance(each, str))
        if self._lines.qsize() > len(self.models) + 2 or waiting > MAX_OUTPUT_BYTES:
            raise DeviceError("answered more than it was asked for; try again")
        self._lines.put(line)

    def _wait_for_answer(self, seconds: float, done: int, *kinds: type[Kind]) -> Kind:
        """Return the next answer, which must be of one of these kinds; raise DeviceError for anything else."""
        where = self.target.profile.name + (f", after {done} of {len(self.models)} processes" if done else "")
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise DeviceError(f"{where}: said nothing for {seconds:g} s; check the device and try again") from None
        if isinstance(line, EdgeNASError):
            raise DeviceError(f"{where}: {line}") from line
        if isinstance(line, BaseException):
            raise line
        if isinstance(line, CompletedCommand):
            raise ended_early_error(line, where)
        answer = parse_answer(line, self.result, where)
        if isinstance(answer, Unable):
            raise device_error(answer, where, self.target, self.device.python)
        number = answer.count if isinstance(answer, End) else done if isinstance(answer, Hello) else answer.id
        if not isinstance(answer, kinds) or number != done:
            due = " or ".join(kind.__name__.lower() for kind in kinds)
            raise DeviceError(f"{where}: answered {line[:80]!r} where {due} was due; try again")
        return answer
