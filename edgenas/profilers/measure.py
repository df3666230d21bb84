"""One run of the agent on a device: a process for each model file in order, each answer handed on as it comes."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgenas.devices import Deadline, Device, Target
from edgenas.errors import DeviceError, EdgeNASError, MeasurementError, ModelError, UsageError
from edgenas.profilers.measurement import Measurement
from edgenas.profilers.request import ModelFile, check_models, describe, model_error, send_agent, unable
from edgenas.profilers.settings import MeasureSettings
from edgenas.profilers.trust import Verdict, judge

_START_SECONDS = 60.0
_LOCK_SECONDS = 60.0


def measure_many(
    models: Sequence[Path],
    target: Target,
    *,
    device: Device,
    settings: MeasureSettings | None = None,
    exceptions: Mapping[Path, MeasureSettings] | None = None,
) -> Iterator[Measurement | ModelError]:
    """Measure model files in order, each in a process of its own, yielding each result as soon as it is there.

    What is wrong with a model is yielded in place of its result. A file may
    occur several times; one that failed is not run again, but fails again.
    Those in ``exceptions`` are run by settings of their own. The caller keeps
    the device, which is locked meanwhile. Closing the iterator ends the agent.
    Raises UsageError before anything is run, and DeviceError when another
    edgenas measures there, or when the device vanishes, after every result that
    came before has been yielded.
    """
    paths = [Path(model) for model in models]
    distinct = list(dict.fromkeys(paths))
    files = dict(zip(distinct, check_models(distinct, target), strict=True))
    if not files:
        return iter(())
    own = {files[path].sha256: special for path, special in (exceptions or {}).items()}
    return _Session([files[path] for path in paths], target, settings or MeasureSettings(), own, device).results()


def with_drift(measurement: Measurement, drift: float, target: Target) -> Measurement:
    """A measurement with the drift that a reference model showed before it, and the verdict that follows."""
    after = {**measurement.conditions_after, "drift": drift}
    verdict = _verdict(measurement.conditions_before, after, measurement.placement, target)
    return replace(measurement, conditions_after=after, verdict=verdict)


def _verdict(
    before: Mapping[str, Any], after: Mapping[str, Any], placement: Mapping[str, int] | None, target: Target
) -> Verdict:
    return judge(before, after, placement=placement, power_mode=target.profile.power_mode)


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

    def results(self) -> Iterator[Measurement | ModelError]:
        with self.device.lock(Deadline(_LOCK_SECONDS)):
            yield from self._results(*self._prepare(), self.device.facts())

    def _results(self, command: list[str], request: bytes, facts: dict[str, Any]) -> Iterator[Measurement | ModelError]:
        each = self.settings.model_timeout_seconds
        deadline = Deadline(_START_SECONDS + len(self.models) * (each + 1))
        thread = threading.Thread(target=self._run, args=(command, request, deadline), daemon=True)
        thread.start()
        try:
            hello = self._expect("hello", _START_SECONDS, 0)
            for number, model in enumerate(self.models):
                answer = self._expect("result", each + _START_SECONDS, number)
                yield (
                    model_error(model, answer, hello.get("versions", {}), self.target)
                    if "reason" in answer
                    else self._success(model, answer, hello, facts)
                )
            self._expect("end", _START_SECONDS, len(self.models))
        finally:
            deadline.cancel()
            thread.join()

    def _prepare(self) -> tuple[list[str], bytes]:
        command = send_agent(self.device, self.target.runtime)
        distinct = {model.remote_name: model.path for model in self.models}
        paths = {name: self.device.push(path, name) for name, path in distinct.items()}
        request = {
            **describe(self.target),
            "settings": self.settings.to_dict(),
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
            done = self.device.run(command, deadline=deadline, stdin=request, on_line=self.lines.put)
            self.stderr = done.stderr
            self.lines.put(None)
        except BaseException as error:
            self.lines.put(error)

    def _expect(self, kind: str, seconds: float, done: int) -> dict[str, Any]:
        """The next answer, of this kind (a failure counts as a result); raises DeviceError for anything else."""
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
        return self._parse(line, kind, done, where)

    def _parse(self, line: str, kind: str, done: int, where: str) -> dict[str, Any]:
        try:
            answer = json.loads(line)
            found = answer["kind"]
        except (ValueError, TypeError, KeyError):
            raise DeviceError(f"{where}: answered nonsense ({line[:80]!r}); try again") from None
        if found == "unable":
            raise unable(answer, where, self.target, self.device.python)
        number = {"result": "id", "failed": "id", "end": "count"}.get(found)
        if found.replace("failed", "result") != kind or (number and answer.get(number) != done):
            raise DeviceError(f"{where}: answered {line[:80]!r} where {kind} was due; try again")
        return dict(answer)

    def _success(
        self, model: ModelFile, answer: dict[str, Any], hello: dict[str, Any], facts: dict[str, Any]
    ) -> Measurement:
        merged = {**facts, **hello.get("facts", {})}
        data = {key: value for key, value in answer.items() if key not in ("kind", "id")}
        before, after = data.get("conditions_before", {}), data.get("conditions_after", {})
        data |= {
            "model_sha256": model.sha256,
            "target": self.target.to_dict(),
            "facts": merged,
            "versions": hello.get("versions"),
            "verdict": _verdict(before, after, data.get("placement"), self.target),
            "synthetic": facts["synthetic"],
            "settings": self.exceptions.get(model.sha256, self.settings).to_dict(),
        }
        try:
            return Measurement.from_dict(data)
        except (UsageError, MeasurementError) as error:
            raise DeviceError(f"{self.target.profile.name}: answered nonsense for {model.path} ({error})") from None
