"""Running a model once on a device and fetching its outputs for given inputs."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.devices import Deadline, Device, Target, connect_device
from edgenas.errors import DeviceError
from edgenas.profilers.measure.protocol import (
    LOCK_SECONDS,
    End,
    Failed,
    Hello,
    ModelFile,
    Stored,
    Unable,
    device_error,
    encode_request,
    ended_early_error,
    model_error,
    parse_answer,
    read_model_files,
    send_agent,
)
from edgenas.runtimes import load_runtime

Array = npt.NDArray[Any]

_SECONDS = 300.0
_INPUTS, _OUTPUTS = "inputs.npz", "outputs.npz"


def compute_outputs_on_device(
    model: Path, inputs: Sequence[Array], target: Target, *, device: Device | None = None
) -> list[Array]:
    """Run a model once on its target's device and return its outputs.

    The device is locked meanwhile, so that nobody's measurement suffers.

    Args:
        model: an ONNX or TFLite file.
        inputs: one array for each input, in the order, layout and type that the file declares.
        target: the device and how the model is run there.
        device: an open connection, which stays open; without it one is opened and closed.

    Returns:
        One array for each output that the file declares.

    Raises:
        UsageError: for a file that cannot be read or is of an unknown kind.
        ModelError: when the runtime refuses the file or its inputs, or the file kills its process.
        DeviceError: when another edgenas measures there, or the device cannot run models, vanishes or answers nonsense.
    """
    (file,) = read_model_files([Path(model)], target)
    connection = nullcontext(device) if device is not None else connect_device(target.profile)
    with connection as connected, connected.lock(Deadline(LOCK_SECONDS)):
        return _push_run_pull(file, inputs, target, connected)


def _push_run_pull(file: ModelFile, inputs: Sequence[Array], target: Target, device: Device) -> list[Array]:
    with tempfile.TemporaryDirectory() as folder:
        local_inputs, local_outputs = Path(folder, _INPUTS), Path(folder, _OUTPUTS)
        np.savez(local_inputs, *inputs)
        command = send_agent(device, load_runtime(target.runtime))
        remote_model = device.push(file.path, file.remote_name)
        remote_inputs = device.push(local_inputs, _INPUTS)
        remote_outputs = remote_inputs[: -len(_INPUTS)] + _OUTPUTS
        request = encode_request(
            target,
            mode="outputs",
            settings={"model_timeout_seconds": _SECONDS},
            models=[{"id": 0, "path": remote_model, "inputs": remote_inputs, "outputs": remote_outputs}],
        )
        done = device.run(command, deadline=Deadline(_SECONDS + 60), stdin=request)
        count = _parse_output_count(done.stdout, done.stderr, file, target, device)
        device.pull(_OUTPUTS, local_outputs)
        return _load_outputs(local_outputs, count, target.profile.name)


def _parse_output_count(stdout: str, stderr: str, file: ModelFile, target: Target, device: Device) -> int:
    """Return how many outputs the agent has stored; raise the error that its answers tell."""
    where = target.profile.name
    versions: Mapping[str, str] = {}
    count: int | None = None
    for answer in (parse_answer(line, Stored, where) for line in stdout.splitlines()):
        if isinstance(answer, Unable):
            raise device_error(answer, where, target, device.python)
        if isinstance(answer, Failed):
            raise model_error(file, answer, versions, target)
        if isinstance(answer, Hello):
            versions = answer.versions
        if isinstance(answer, Stored):
            count = answer.outputs
        if isinstance(answer, End) and count is not None:
            return count
    raise ended_early_error(stderr, where)


def _load_outputs(path: Path, count: int, where: str) -> list[Array]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = [archive.read(f"arr_{number}.npy") for number in range(count)]
        return [np.load(io.BytesIO(member), allow_pickle=False) for member in members]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DeviceError(f"{where}: the stored outputs cannot be read ({error}); try again") from None
