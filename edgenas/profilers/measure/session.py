"""One run of the agent on a device: a process for each model file in order, each answer handed on as it comes."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from edgenas.devices import Deadline, Device, Target
from edgenas.errors import DeviceError, EdgeNASError, ModelError
from edgenas.profilers.measure.answers import Answer, End, Failed, Hello, Result, Unable, read_answer
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.protocol import ModelFile, check_models, describe, model_error, send_agent, unable
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.validity import Validity, assess

_START_SECONDS = 60.0
_LOCK_SECONDS = 600.0


def measure_many(
    models: Sequence[Path],
    target: Target,
    *,
    device: Device,
    settings: MeasureSettings | None = None,
    exceptions: Mapping[Path, MeasureSettings] | None = None,
    checked: Mapping[Path, ModelFile] | None = None,
) -> Generator[Measurement | ModelError, None, None]:
    """Measure model files in order, each in a process of its own, yielding each result as soon as it is there.

    What is wrong with a model is yielded in place of its result. A file may
    occur several times; one that failed is not run again, but fails again.
    Those in ``exceptions`` are run by settings of their own, those in
    ``checked`` were read before. The caller keeps the device, which is locked
    meanwhile. Closing the iterator ends the agent. Raises UsageError before
    anything is run, and DeviceError when another
    edgenas measures there, or when the device vanishes, after every result that
    came before has been yielded.
    """
    paths = [Path(model) for model in models]
    unread = [path for path in dict.fromkeys(paths) if path not in (checked or {})]
    files = {**(checked or {}), **dict(zip(unread, check_models(unread, target), strict=True))}
    if not paths:
        nothing: tuple[ModelError, ...] = ()
        return (outcome for outcome in nothing)
    own = {files[path].sha256: special for path, special in (exceptions or {}).items()}
    return _Session([files[path] for path in paths], target, settings or MeasureSettings(), own, device).results()


def with_drift(measurement: Measurement, drift: float, target: Target) -> Measurement:
    """A measurement with the drift that a reference model showed around it, and the verdict that follows."""
    after = {**measurement.conditions_after, "drift": drift}
    validity = _verdict(measurement.conditions_before, after, measurement.placement, target)
    return replace(measurement, conditions_after=after, validity=validity)


def _verdict(
    before: Mapping[str, Any], after: Mapping[str, Any], placement: Mapping[str, int] | None, target: Target
) -> Validity:
    return assess(before, after, placement=placement, providers=target.providers, power_mode=target.profile.power_mode)


@dataclass
class _Session:
    """One run of the agent: a thread waits for the device, results are taken from its lines as they come."""

    models: Sequence[ModelFile]
    target: Target
    settings: MeasureSettings
    exceptions: Mapping[str, MeasureSettings]  # by the model's SHA-256
    device: Device
    lines: queue.Queue[str | BaseException | None] = field(default_factory=queue.Queue)
    stderr: str = ""

    def results(self) -> Generator[Measurement | ModelError, None, None]:
        with self.device.lock(Deadline(_LOCK_SECONDS)):
            yield from self._results(*self._prepare(), self.device.facts())

    def _results(self, command: list[str], request: bytes, facts: dict[str, Any]) -> Iterator[Measurement | ModelError]:
        each = self.settings.model_timeout_seconds
        deadline = Deadline(_START_SECONDS + len(self.models) * (each + 1))
        thread = threading.Thread(target=self._run, args=(command, request, deadline), daemon=True)
        thread.start()
        try:
            hello = self._expect((Hello,), _START_SECONDS, 0)
            assert isinstance(hello, Hello)
            for number, model in enumerate(self.models):
                answer = self._expect((Result, Failed), each + _START_SECONDS, number)
                if isinstance(answer, Failed):
                    yield model_error(model, answer, hello.versions, self.target)
                else:
                    assert isinstance(answer, Result)
                    yield self._success(model, answer, hello, facts)
            self._expect((End,), _START_SECONDS, len(self.models))
        finally:
            deadline.cancel()
            thread.join()

    def _prepare(self) -> tuple[list[str], bytes]:
        command = send_agent(self.device, self.target.runtime)
        distinct = {model.remote_name: model for model in self.models}
        paths = {name: self.device.push(model.path, name, model.sha256) for name, model in distinct.items()}
        request = {
            **describe(self.target),
            "settings": self.settings.to_dict(),
            "remember_in": str(PurePosixPath(command[-1]).parent.parent),
            "models": [
                {"id": number, "path": paths[model.remote_name], **self._own(model)}
                for number, model in enumerate(self.models)
            ],
        }
        return command, json.dumps(request).encode() + b"\n"

    def _own(self, model: ModelFile) -> dict[str, Any]:
        special = self.exceptions.get(model.sha256)
        return {} if special is None else {"settings": special.to_dict()}

    def _run(self, command: list[str], request: bytes, deadline: Deadline) -> None:
        try:
            done = self.device.run(command, deadline=deadline, stdin=request, on_line=self._take)
            self.stderr = done.stderr
            self.lines.put(None)
        except BaseException as error:
            self.lines.put(error)

    def _take(self, line: str) -> None:
        """Keep a line until it is wanted; raises DeviceError for more of them than the agent has to say."""
        if self.lines.qsize() > len(self.models) + 2:
            raise DeviceError("answered more than it was asked for; try again")
        self.lines.put(line)

    def _expect(self, kinds: tuple[type[Answer], ...], seconds: float, done: int) -> Answer:
        """The next answer, of one of these kinds; raises DeviceError for anything else."""
        where = f"{self.target.profile.name}, after {done} of {len(self.models)} models"
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise DeviceError(f"{where}: said nothing for {seconds:g} s; check the device and try again") from None
        if isinstance(line, EdgeNASError):
            raise DeviceError(f"{where}: {line}") from line
        if isinstance(line, BaseException):
            raise line
        if line is None:
            said = " ".join(self.stderr.strip().rpartition("\n")[2].split())[:400]
            raise DeviceError(f"{where}: the agent ended too early{f' ({said})' if said else ''}; try again")
        return self._parse(line, kinds, done, where)

    def _parse(self, line: str, kinds: tuple[type[Answer], ...], done: int, where: str) -> Answer:
        answer = read_answer(line, Result, where)
        if isinstance(answer, Unable):
            raise unable(answer, where, self.target, self.device.python)
        number = answer.count if isinstance(answer, End) else done if isinstance(answer, Hello) else answer.id
        if not isinstance(answer, kinds) or number != done:
            due = " or ".join(kind.__name__.lower() for kind in kinds)
            raise DeviceError(f"{where}: answered {line[:80]!r} where {due} was due; try again")
        return answer

    def _success(self, model: ModelFile, answer: Result, hello: Hello, facts: dict[str, Any]) -> Measurement:
        said = asdict(answer)
        del said["kind"], said["id"]
        before, after = answer.conditions_before, answer.conditions_after
        return Measurement(
            **said,
            model_sha256=model.sha256,
            target=self.target.to_dict(),
            facts={**facts, **hello.facts},
            versions=hello.versions,
            validity=_verdict(before, after, answer.placement, self.target),
            synthetic=facts["synthetic"],
            settings=self.exceptions.get(model.sha256, self.settings).to_dict(),
        )
