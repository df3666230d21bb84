"""The operators of a model as a device ran them: where, for how long, and of which nodes of the file they were made."""

from __future__ import annotations

import contextlib
import re
import statistics
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from edgenas.devices import Target
from edgenas.errors import MeasurementError
from edgenas.files import Amount, Count, ShortText, read_bytes, sha256_hex
from edgenas.profilers.measure.model_files import ModelInputs
from edgenas.profilers.measure.protocol import RanOperator
from edgenas.profilers.measure.session import MeasuringSession, RanModel
from edgenas.profilers.measure.settings import MeasureSettings
from edgenas.runtimes import load_runtime

# A profiler writes an event for each operator and run: fewer runs than are timed without it.
SETTINGS = MeasureSettings(max_runs=50)
PROCESSES = 10
Shape = tuple[Count, ...]
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True)
class Operator:
    """One operator of the graph that a runtime made of a model.

    Attributes:
        name: the runtime's name for it; where it names none, that of its output.
        type: its type, such as ``Conv``.
        provider: the execution provider or delegate that ran it.
        times_us: its median time in a run, in microseconds, once for each process; empty where the runtime does not
            tell it.
        input_shapes: shapes of its inputs, weights included.
        output_shapes: shapes of its outputs.
        sources: names of the nodes of the model file that it computes, several where they were fused; empty where that
            is not known, and for what the runtime added itself, as a change of layout.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: ShortText
    type: ShortText
    provider: ShortText
    times_us: tuple[Amount, ...] = ()
    input_shapes: tuple[Shape, ...] = ()
    output_shapes: tuple[Shape, ...] = ()
    sources: tuple[ShortText, ...] = ()

    @property
    def time_us(self) -> float | None:
        """The median over processes of its time in a run, microseconds; None where it is not known."""
        return statistics.median(self.times_us) if self.times_us else None


@dataclass(frozen=True)
class OperatorProfile:
    """The operators of a model file on a target.

    Attributes:
        model: the file.
        model_sha256: SHA-256 of its content.
        target: device, runtime, providers, precision and threads, as in measurements.
        versions: versions of the runtime and of Python.
        operators: in the order they ran.
        synthetic: true where the numbers are made up, by a fake device.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from edgenas import Target, load_profile, profile_operators
        >>> folder = Path(tempfile.mkdtemp())
        >>> fake = "{name: toy, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
        >>> _ = (folder / "toy.yaml").write_text(fake)
        >>> _ = (folder / "model.onnx").write_bytes(bytes(320_000))
        >>> (profile,) = profile_operators([folder / "model.onnx"], Target(load_profile(folder / "toy.yaml")))
        >>> profile
        OperatorProfile(model.onnx, 1 operator in 320.0 us, synthetic)
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: str
    model_sha256: ShortText
    target: Mapping[str, Any]
    versions: Mapping[ShortText, ShortText]
    operators: tuple[Operator, ...]
    synthetic: bool = False

    @property
    def runtime(self) -> str:
        """The runtime with its version."""
        name = str(self.target["runtime"])
        return f"{name} {self.versions.get(name, 'of unknown version')}"

    @property
    def time_us(self) -> float | None:
        """The sum of its operators' times in a run, microseconds; None where the runtime tells no times.

        Less than a run takes: what lies between operators is in none of them.
        """
        times = [operator.time_us for operator in self.operators if operator.time_us is not None]
        return sum(times) if times else None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        return asdict(self)

    def __repr__(self) -> str:
        number = len(self.operators)
        time = "" if self.time_us is None else f" in {self.time_us:.1f} us"
        made_up = ", synthetic" if self.synthetic else ""
        return f"OperatorProfile({Path(self.model).name}, {number} operator{'s'[: number > 1]}{time}{made_up})"


def profile_operators(
    models: Sequence[Path | str],
    target: Target,
    inputs: ModelInputs | None = None,
    *,
    processes: int = PROCESSES,
    settings: MeasureSettings = SETTINGS,
    session: MeasuringSession | None = None,
    on_process: Callable[[], None] = lambda: None,
) -> list[OperatorProfile]:
    """List the operators of model files on a device, with the time of each by the runtime's own profiler.

    Each file is run in several processes, one of each file in turn. Times under a profiler are a little longer than
    without it, and are rounded down to whole microseconds by onnxruntime. A runtime without a profiler gives no times
    and is asked once.

    Args:
        models: ONNX or TFLite files of the target's runtime.
        target: the device and how the models are run there.
        inputs: what the models are given; by default what can be made up.
        processes: how many processes each file is run in.
        settings: how long each process runs; of these, the warm-up, the fewest and the most runs and seconds.
        session: one on the target to use, which stays open; by default one of its own.
        on_process: called after each process.

    Raises:
        UsageError: for a file that cannot be read.
        ModelError: when the runtime refuses a file or does not list its operators.
        DeviceError: when the device cannot be reached or vanishes.
        MeasurementError: when a runtime made other operators of a file from one process to the next.
    """
    paths, inputs = [Path(model) for model in models], inputs or ModelInputs()
    with contextlib.nullcontext(session) if session else MeasuringSession(target) as opened:
        ran = opened.list_operators(paths, settings, inputs, on_process)
        if processes > 1 and any(operator.us is not None for one in ran for operator in one.operators):
            ran += opened.list_operators(paths * (processes - 1), settings, inputs, on_process)
    return [_make_profile(path, target, ran[place :: len(paths)]) for place, path in enumerate(paths)]


def _make_profile(path: Path, target: Target, ran: Sequence[RanModel]) -> OperatorProfile:
    first = ran[0]
    processes = [_number_operators(one.operators) for one in ran]
    if any(process.keys() != processes[0].keys() for process in processes):
        raise MeasurementError(f"{path}: ran as other operators in each process, so their times cannot be told")
    content = read_bytes(path)
    names = [operator.name for operator in first.operators]
    sources = load_runtime(target.runtime).find_sources(content, names, first.graph)
    operators = []
    for key, operator in processes[0].items():
        times = [process[key].us for process in processes]
        operators.append(
            Operator(
                name=operator.name,
                type=operator.type,
                provider=operator.provider,
                times_us=tuple(time for time in times if time is not None),
                input_shapes=operator.inputs,
                output_shapes=operator.outputs,
                sources=sources.get(operator.name, ()),
            )
        )
    return OperatorProfile(
        str(path), sha256_hex(content), target.to_dict(), dict(first.versions), tuple(operators), first.synthetic
    )


def _number_operators(operators: Sequence[RanOperator]) -> dict[Hashable, RanOperator]:
    """Return operators by what is the same in each process: names without numbers, types, shapes, and their order.

    onnxruntime numbers what it adds anew in each session, and runs branches in another order.
    """
    numbered: dict[Hashable, RanOperator] = {}
    counts: Counter[Hashable] = Counter()
    for each in operators:
        key = _NUMBER.sub("", each.name), each.type, each.provider, each.inputs, each.outputs
        numbered[key, counts[key]] = each
        counts[key] += 1
    return numbered
