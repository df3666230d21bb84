"""Measuring sessions: a device that is connected to and locked while models run on it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgenas.devices import Deadline, Device, Target, connect_device
from edgenas.devices.profile import AGENT, check_cores
from edgenas.errors import ModelError, UsageError
from edgenas.files import read_bytes, write_bytes
from edgenas.on_device.work_folder import WorkFolder
from edgenas.profilers.measure.agent_run import AgentRun
from edgenas.profilers.measure.benchmark_run import BenchmarkRun
from edgenas.profilers.measure.measurement import Measurement
from edgenas.profilers.measure.model_files import ModelFile, ModelInputs, read_model_files
from edgenas.profilers.measure.outputs import Array, read_outputs
from edgenas.profilers.measure.protocol import (
    LOCK_SECONDS,
    Failed,
    Hello,
    Profiled,
    RanOperator,
    Result,
    Stored,
    model_error,
    send_agent,
)
from edgenas.profilers.measure.rounds import MeasuringRounds
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.profilers.measure.validity import assess_validity
from edgenas.runtimes import load_runtime

_OUTPUTS_SECONDS = 300.0
_INPUTS, _OUTPUTS = "inputs.npz", "outputs.npz"


@dataclass(frozen=True)
class RanModel:
    """A model that ran in one process under its runtime's profiler.

    Attributes:
        operators: in the order they ran.
        graph: the file of the graph that the runtime made of the model; None where it stores none.
        versions: versions of the runtime and of the agent's Python.
        synthetic: true where the numbers are made up, by a fake device.
    """

    operators: tuple[RanOperator, ...]
    graph: bytes | None
    versions: Mapping[str, str]
    synthetic: bool


class MeasuringSession:
    """A target's device on which models are run, one at a time, while nobody else measures there.

    Everything that runs models on a device goes through a session: ``edgenas measure``, profiling, choosing,
    latency checks and benchmarks. The device is connected to, locked and sent the agent when the first model is
    run. Leaving the session unlocks and closes it.

    Args:
        target: The device and how models are run there.
        device: An open connection to use, which stays open; by default the session opens its own.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import MeasuringSession, MeasuringRounds, Target, load_profile
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> for name, size in (("small", 320_000), ("large", 640_000)):
        ...     _ = (folder / f"{name}.onnx").write_bytes(bytes(size))
        >>> target = Target(load_profile(folder / "toy.yaml"))
        >>> rounds = MeasuringRounds([folder / "small.onnx", folder / "large.onnx"], target)
        >>> with MeasuringSession(target) as session:
        ...     session.measure(rounds)
        >>> [round(result.median_ms, 1) for result in rounds.outcomes()]
        [0.3, 0.6]
    """

    def __init__(self, target: Target, device: Device | None = None) -> None:
        self._target, self._given = target, device
        self._device: Device | None = None
        self._facts: dict[str, Any] = {}
        self._command: list[str] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> MeasuringSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._device = None
        self._stack.close()

    def measure(self, rounds: MeasuringRounds) -> None:
        """Measure what ``rounds`` lack, one process of each model in turn. Called again after an error, it continues.

        Raises:
            DeviceError: The device cannot be reached, another edgenas measures there, or the device vanishes; what
                was measured until then is in ``rounds``.
            UsageError: The target has more threads than the device has cores.
        """
        while turns := rounds.next_turns():
            files = [rounds.files[turn.number] for turn in turns]
            with contextlib.closing(self._iter_outcomes(files, rounds.settings, rounds.inputs)) as found:
                for turn, outcome in zip(turns, found, strict=True):
                    rounds.add(turn, outcome)

    def iter_measurements(
        self, models: Sequence[str | Path], settings: MeasureSettings | None = None, inputs: ModelInputs | None = None
    ) -> Generator[Measurement | ModelError, None, None]:
        """Measure model files in order, each in one process, and yield each result as soon as it is there.

        Closing the iterator ends the agent.

        Args:
            models: Paths; a path may occur several times. A file that failed is not run again, but fails again.
            settings: How long each model is run in its process.
            inputs: What the models are given; by default what can be made up.

        Raises:
            UsageError: A file cannot be read or the target's runtime does not run it; nothing was run.
            DeviceError: As ``measure``, after every earlier result has been yielded.
        """
        files = read_model_files([Path(model) for model in models], self._target)
        return self._iter_outcomes(files, settings or MeasureSettings(), inputs or ModelInputs())

    def _iter_outcomes(
        self, models: Sequence[ModelFile], settings: MeasureSettings, inputs: ModelInputs
    ) -> Generator[Measurement | ModelError, None, None]:
        if not models:
            return
        with contextlib.closing(self._iter_answers(models, settings, inputs, Result)) as answers:
            for hello, model, answer in answers:
                if isinstance(answer, Failed):
                    yield model_error(model, answer, hello.versions, self._target)
                else:
                    assert isinstance(answer, Result)
                    yield self._make_measurement(model, answer, hello, settings)

    def list_operators(
        self,
        models: Sequence[str | Path],
        settings: MeasureSettings,
        inputs: ModelInputs,
        on_process: Callable[[], None] = lambda: None,
    ) -> list[RanModel]:
        """Run model files under their runtime's profiler, each in one process, in order.

        Args:
            models: Paths; a path may occur several times.
            settings: How long each model is run in its process.
            inputs: What the models are given.
            on_process: Called after each process.

        Raises:
            UsageError: A file cannot be read or the target's runtime does not run it.
            ModelError: The runtime refuses a file or does not list its operators.
            DeviceError: As ``measure``.
        """
        files = read_model_files([Path(model) for model in models], self._target)
        ran = []
        with contextlib.closing(self._iter_answers(files, settings, inputs, Profiled, mode="operators")) as answers:
            for hello, file, answer in answers:
                if isinstance(answer, Failed):
                    raise model_error(file, answer, hello.versions, self._target)
                assert isinstance(answer, Profiled)
                ran.append((hello, file, answer))
                on_process()
        device, synthetic = self._open(), bool(self._facts["synthetic"])
        with WorkFolder() as folder:
            for name in {file.remote_name for _, file, answer in ran if answer.has_graph}:
                device.pull(f"{name}.graph", folder / name)
            return [
                RanModel(
                    answer.operators,
                    read_bytes(folder / file.remote_name) if answer.has_graph else None,
                    hello.versions,
                    synthetic,
                )
                for hello, file, answer in ran
            ]

    def compute_outputs(self, model: str | Path, inputs: Sequence[Array]) -> list[Array]:
        """Run a model once and return its outputs.

        Args:
            model: An ONNX or TFLite file.
            inputs: One array for each input, in the order, layout and type that the file declares.

        Returns:
            One array for each output that the file declares.

        Raises:
            UsageError: The file cannot be read or the target's runtime does not run it.
            ModelError: The runtime refuses the file or its inputs, or the file kills its process.
            DeviceError: As ``measure``.
        """
        (file,) = read_model_files([Path(model)], self._target)
        if self._target.runner != AGENT:
            raise UsageError(f"{self._target.profile.name}: {self._target.runner} gives no outputs; use the agent")
        device = self._open()
        with WorkFolder() as folder:
            local_inputs, local_outputs = folder / _INPUTS, folder / _OUTPUTS
            packed = io.BytesIO()
            np.savez(packed, *inputs)
            write_bytes(local_inputs, packed.getvalue())
            path = file.push(device, folder)
            remote_inputs = device.push(local_inputs, _INPUTS)
            remote_outputs = remote_inputs[: -len(_INPUTS)] + _OUTPUTS
            models = [{"id": 0, "path": path, "inputs": remote_inputs, "outputs": remote_outputs}]
            request = {"mode": "outputs"}
            run = AgentRun(device, self._target, self._command, models, _OUTPUTS_SECONDS, Stored, request)
            hello, answer = run.iter_answers()
            assert isinstance(hello, Hello)
            if isinstance(answer, Failed):
                raise model_error(file, answer, hello.versions, self._target)
            assert isinstance(answer, Stored)
            device.pull(_OUTPUTS, local_outputs)
            return read_outputs(local_outputs, answer.outputs, self._target.profile.name)

    def _iter_answers(
        self,
        models: Sequence[ModelFile],
        settings: MeasureSettings,
        inputs: ModelInputs,
        kind: type[Result] | type[Profiled],
        **request: str,
    ) -> Generator[tuple[Hello, ModelFile, Result | Profiled | Stored | Failed], None, None]:
        """Run models in order; yield the agent's greeting, the model and its answer as soon as that is there."""
        device = self._open()
        distinct = {model.remote_name: model for model in models}
        with WorkFolder() as folder:
            paths = {name: model.push(device, folder) for name, model in distinct.items()}
        run: AgentRun | BenchmarkRun
        if self._target.runner != AGENT:
            _check_runner_can(self._target, kind, inputs)
            run = BenchmarkRun(device, self._target, [paths[model.remote_name] for model in models], settings)
        else:
            run = self._agent_run(device, models, paths, settings, inputs, kind, request)
        with contextlib.closing(run.iter_answers()) as answers:
            hello = next(answers)
            assert isinstance(hello, Hello)
            for model, answer in zip(models, answers, strict=True):
                assert not isinstance(answer, Hello)
                yield hello, model, answer

    def _agent_run(
        self,
        device: Device,
        models: Sequence[ModelFile],
        paths: Mapping[str, str],
        settings: MeasureSettings,
        inputs: ModelInputs,
        kind: type[Result] | type[Profiled],
        request: Mapping[str, str],
    ) -> AgentRun:
        """Return a run of the agent on models that were pushed."""
        return AgentRun(
            device,
            self._target,
            self._command,
            [
                {"id": number, "path": paths[model.remote_name], "unranked": model.unranked}
                for number, model in enumerate(models)
            ],
            settings.model_timeout_seconds,
            kind,
            {**request, "settings": settings.to_dict(), "inputs": inputs.push(device)},
        )

    def _open(self) -> Device:
        """Return the device: connected to, locked, and with the agent on it."""
        if self._device is None:
            with contextlib.ExitStack() as stack:
                device = self._given or stack.enter_context(connect_device(self._target.profile))
                stack.enter_context(device.lock(Deadline(LOCK_SECONDS)))
                self._facts = device.facts()
                # The profile may not say how many cores there are.
                check_cores(self._target.profile.name, self._target.threads, self._facts.get("cores"))
                if self._target.runner == AGENT:
                    self._command = send_agent(device, load_runtime(self._target.runtime))
                self._stack, self._device = stack.pop_all(), device
        return self._device

    def _make_measurement(
        self, model: ModelFile, answer: Result, hello: Hello, settings: MeasureSettings
    ) -> Measurement:
        fields = asdict(answer)
        del fields["kind"], fields["id"]
        validity = assess_validity(
            answer.conditions_before,
            answer.conditions_after,
            placement=answer.placement,
            providers=self._target.providers,
            power_mode=self._target.profile.power_mode,
        )
        return Measurement(
            **fields,
            model_sha256=model.sha256,
            target=self._target.to_dict(),
            facts={**self._facts, **hello.facts},
            versions=hello.versions,
            validity=validity,
            synthetic=self._facts["synthetic"],
            settings=settings.to_dict(),
        )


def _check_runner_can(target: Target, kind: type[Result] | type[Profiled], inputs: ModelInputs) -> None:
    """Raise ModelError for operators, UsageError for inputs: with both only the agent can do something."""
    if kind is not Result:
        raise ModelError(f"{target.profile.name}: {target.runner} lists no operators; measure by the agent")
    if inputs.file is not None or inputs.shapes:
        raise UsageError(f"{target.profile.name}: {target.runner} makes up its inputs; leave out --inputs and --shape")
