"""Measuring model files on a device: one agent for many models, each answer handed on as it comes."""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgenas.devices import Deadline, Device, Target, connect
from edgenas.errors import DeviceError, EdgeNASError, MeasurementError, ModelError, UsageError
from edgenas.files import digest, nearest, read_bytes
from edgenas.profilers.measurement import Measurement
from edgenas.profilers.settings import MeasureSettings
from edgenas.profilers.trust import judge

_HERE = Path(__file__).parent
_AGENT = "agent.py"
_START_SECONDS = 60.0
_ENDINGS = {"onnxruntime": (".onnx",)}
# What became of a model, and what to do about it.
_FAILURES = {
    "refused": ("is refused by", "check the file with onnx.checker and export it again for this runtime"),
    "crashed": ("crashes", "the file is the suspect, the device is well; another version of the runtime may run it"),
    "timeout": ("is too slow for", "use a smaller model or raise model_timeout_seconds"),
    "out of memory": ("needs too much memory for", "use a smaller model or free memory on the device"),
}


def measure(model: Path | str, target: Target, settings: MeasureSettings | None = None) -> Measurement:
    """Measure one model file on its target's device.

    Raises UsageError for a file that cannot be read or is of an unknown kind,
    ModelError when the runtime refuses it or it kills its process, DeviceError
    when the device vanishes.
    """
    with connect(target.profile) as device:
        (answer,) = measure_many([Path(model)], target, device=device, settings=settings)
    if isinstance(answer, ModelError):
        raise answer
    return answer


def measure_many(
    models: Sequence[Path], target: Target, *, device: Device, settings: MeasureSettings | None = None
) -> Iterator[Measurement | ModelError]:
    """Measure model files in order, yielding each result, or what is wrong with the model, as soon as it is there.

    The caller keeps the device. Closing the iterator ends the agent. Raises
    UsageError before anything is run, and DeviceError when the device
    vanishes, after every result that came before has been yielded.
    """
    files = _check([Path(model) for model in models], target)
    return _Session(files, target, settings or MeasureSettings(), device).results() if files else iter(())


@dataclass(frozen=True)
class _Model:
    path: Path
    sha256: str


def _check(paths: Sequence[Path], target: Target) -> list[_Model]:
    if target.runtime not in _ENDINGS:
        raise UsageError(
            f"nothing is known about runtime {target.runtime!r}{nearest(target.runtime, sorted(_ENDINGS))}"
        )
    endings = _ENDINGS[target.runtime]
    models = []
    for path in paths:
        if path.suffix not in endings:
            raise UsageError(
                f"{path}: {target.runtime} runs files ending in {', '.join(endings)}; export the model as one"
            )
        data = read_bytes(path)
        if not data:
            raise UsageError(f"{path}: is empty; export the model again")
        models.append(_Model(path, digest(data)))
    return models


@dataclass
class _Session:
    """One run of the agent: a thread waits for the device, results are taken from its lines as they come."""

    models: Sequence[_Model]
    target: Target
    settings: MeasureSettings
    device: Device
    lines: queue.Queue[str | BaseException | None] = field(default_factory=queue.Queue)
    stderr: str = ""

    def results(self) -> Iterator[Measurement | ModelError]:
        facts = self.device.facts()
        command, request = self._prepare()
        each = self.settings.model_timeout_seconds
        deadline = Deadline(_START_SECONDS + len(self.models) * (each + 1))
        thread = threading.Thread(target=self._run, args=(command, request, deadline), daemon=True)
        thread.start()
        try:
            hello = self._expect("hello", _START_SECONDS, 0)
            for number, model in enumerate(self.models):
                answer = self._expect("result", each + _START_SECONDS, number)
                yield (
                    self._failure(model, answer, hello)
                    if "reason" in answer
                    else self._success(model, answer, hello, facts)
                )
            self._expect("end", _START_SECONDS, len(self.models))
        finally:
            deadline.cancel()
            thread.join()

    def _prepare(self) -> tuple[list[str], bytes]:
        agent = self.device.push(_HERE / _AGENT, _AGENT)
        runtime = f"agent_{self.target.runtime}.py"
        self.device.push(_HERE / runtime, runtime)
        suffixed = [(model, f"{model.sha256}{model.path.suffix}") for model in self.models]
        request = {
            "runtime": self.target.runtime,
            "providers": list(self.target.providers),
            "threads": self.target.threads,
            "settings": self.settings.to_dict(),
            "models": [
                {"id": number, "path": self.device.push(model.path, name)}
                for number, (model, name) in enumerate(suffixed)
            ],
        }
        return [self.device.python, agent], json.dumps(request).encode() + b"\n"

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
            install = f"{self.device.python} -m pip install {self.target.runtime}"
            raise DeviceError(f"{where}: {answer['detail']}; install it there ({install}) or correct the profile")
        number = {"result": "id", "failed": "id", "end": "count"}.get(found)
        if found.replace("failed", "result") != kind or (number and answer.get(number) != done):
            raise DeviceError(f"{where}: answered {line[:80]!r} where {kind} was due; try again")
        return dict(answer)

    def _failure(self, model: _Model, answer: dict[str, Any], hello: dict[str, Any]) -> ModelError:
        runtime = self.target.runtime
        version = hello.get("versions", {}).get(runtime, "of unknown version")
        happened, remedy = _FAILURES[answer["reason"]]
        pushed = re.escape(f"{model.sha256}{model.path.suffix}")
        said = re.sub(rf"\S*{pushed}", lambda _: model.path.name, answer["detail"]).rstrip(".")
        return ModelError(f"{model.path}: {happened} {runtime} {version} ({said}); {remedy}")

    def _success(
        self, model: _Model, answer: dict[str, Any], hello: dict[str, Any], facts: dict[str, Any]
    ) -> Measurement:
        merged = {**facts, **hello.get("facts", {})}
        data = {key: value for key, value in answer.items() if key not in ("kind", "id")}
        before, after = data.get("conditions_before", {}), data.get("conditions_after", {})
        data |= {
            "model_sha256": model.sha256,
            "target": self.target.to_dict(),
            "facts": merged,
            "versions": hello.get("versions"),
            "verdict": judge(before, after),
            "synthetic": facts["synthetic"],
            "settings": self.settings.to_dict(),
        }
        try:
            return Measurement.from_dict(data)
        except (UsageError, MeasurementError) as error:
            raise DeviceError(f"{self.target.profile.name}: answered nonsense for {model.path} ({error})") from None
