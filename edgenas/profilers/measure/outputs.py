"""Running a model once on a device and fetching what it makes of given inputs: the proof that a file works there."""

from __future__ import annotations

import io
import json
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
from edgenas.profilers.measure.answers import End, Failed, Hello, Stored, Unable, read_answer
from edgenas.profilers.measure.protocol import ModelFile, check_models, describe, model_error, send_agent, unable

Array = npt.NDArray[Any]

_SECONDS = 300.0
_LOCK_SECONDS = 600.0
_INPUTS, _OUTPUTS = "inputs.npz", "outputs.npz"


def run_on_device(model: Path, inputs: Sequence[Array], target: Target, *, device: Device | None = None) -> list[Array]:
    """What ``model`` makes of ``inputs`` on its target's device: one array for each output that it declares.

    Inputs are in the order, layout and type that the file itself declares; with
    ``device`` that connection is used and kept, else one is made and closed. It
    has the device to itself meanwhile, so that nobody's measurement suffers.
    Raises UsageError for a file that cannot be read or is of an unknown kind,
    ModelError when the runtime refuses it or its inputs, or it kills its
    process, DeviceError when the device vanishes or answers nonsense.
    """
    (file,) = check_models([Path(model)], target)
    connection = nullcontext(device) if device is not None else connect_device(target.profile)
    with connection as used, used.lock(Deadline(_LOCK_SECONDS)):
        return _run(file, inputs, target, used)


def _run(file: ModelFile, inputs: Sequence[Array], target: Target, device: Device) -> list[Array]:
    where = target.profile.name
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder, _INPUTS)
        np.savez(given, *inputs)
        command = send_agent(device, target.runtime)
        remote = device.push(file.path, file.remote_name)
        pushed = device.push(given, _INPUTS)
        request = {
            **describe(target),
            "mode": "outputs",
            "settings": {"model_timeout_seconds": _SECONDS},
            "models": [{"id": 0, "path": remote, "inputs": pushed, "outputs": _beside(pushed)}],
        }
        done = device.run(command, deadline=Deadline(_SECONDS + 60), stdin=json.dumps(request).encode() + b"\n")
        count = _check(done.stdout, done.stderr, file, target, device)
        found = Path(folder, _OUTPUTS)
        device.pull(_OUTPUTS, found)
        return _load(found, count, where)


def _beside(remote: str) -> str:
    return remote[: -len(_INPUTS)] + _OUTPUTS


def _check(stdout: str, stderr: str, file: ModelFile, target: Target, device: Device) -> int:
    """How many outputs the agent has stored; raises what its answers mean."""
    where = target.profile.name
    versions: Mapping[str, str] = {}
    count: int | None = None
    for answer in (read_answer(line, Stored, where) for line in stdout.splitlines()):
        if isinstance(answer, Unable):
            raise unable(answer, where, target, device.python)
        if isinstance(answer, Failed):
            raise model_error(file, answer, versions, target)
        if isinstance(answer, Hello):
            versions = answer.versions
        if isinstance(answer, Stored):
            count = answer.outputs
        if isinstance(answer, End) and count is not None:
            return count
    said = " ".join(stderr.strip().rpartition("\n")[2].split())[:400]
    raise DeviceError(f"{where}: the agent ended too early{f' ({said})' if said else ''}; try again")


def _load(path: Path, count: int, where: str) -> list[Array]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            return [_array(archive.read(f"arr_{number}.npy")) for number in range(count)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DeviceError(f"{where}: the stored outputs cannot be read ({error}); try again") from None


def _array(data: bytes) -> Array:
    array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    return array
