"""What the agent on a device is sent and asked, and what its complaints mean: for measuring and for verifying."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas import on_device
from edgenas.devices import Device, Target
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.files import digest, read_bytes, suggest_nearest
from edgenas.profilers.measure.answers import Failed, Unable

# Which files a runtime runs, and the package that brings it.
ENDINGS = {"onnxruntime": (".onnx",), "litert": (".tflite",)}
_PACKAGES = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
_ON_DEVICE = Path(on_device.__file__).parent
_AGENT = "agent.py"
AGENT_FILES = (_AGENT, "board.py", "speed_probe.py", "sampling.py")
# What became of a model, and what to do about it.
_FAILURES = {
    "refused": ("is refused by", "check the file{checker} and export it again for this runtime"),
    "too old": ("needs a newer version of", "{install}, or export it for an older version"),
    "crashed": ("crashes", "the file is the suspect, the device is well; another version of the runtime may run it"),
    "timeout": ("is too slow for", "use a smaller model or raise model_timeout_seconds"),
    "out of memory": ("needs too much memory for", "use a smaller model or free memory on the device"),
}


@dataclass(frozen=True)
class ModelFile:
    """A model file that was read once: its content is named by its hash."""

    path: Path
    sha256: str

    @property
    def remote_name(self) -> str:
        """What it is called on a device."""
        return f"{self.sha256}{self.path.suffix}"


def check_models(paths: Sequence[Path], target: Target) -> list[ModelFile]:
    """The files, if the target's runtime can run such; raises UsageError, also for what is empty or cannot be read."""
    if target.runtime not in ENDINGS:
        raise UsageError(
            f"nothing is known about runtime {target.runtime!r}{suggest_nearest(target.runtime, sorted(ENDINGS))}"
        )
    endings = ENDINGS[target.runtime]
    models = []
    for path in paths:
        if path.suffix not in endings:
            raise UsageError(
                f"{path}: {target.runtime} runs files ending in {', '.join(endings)}; export the model as one"
            )
        data = read_bytes(path)
        if not data:
            raise UsageError(f"{path}: is empty; export the model again")
        models.append(ModelFile(path, digest(data)))
    return models


def describe(target: Target) -> dict[str, Any]:
    """The part of a request that says how models are run."""
    return {
        "runtime": target.runtime,
        "providers": list(target.providers),
        "provider_options": {name: dict(options) for name, options in target.options.items()},
        "precision": target.precision,
        "threads": target.threads,
        "affinity": None if target.affinity is None else list(target.affinity),
    }


def send_agent(device: Device, runtime: str) -> list[str]:
    """Push the agent with the file of a runtime; returns the command that starts it."""
    paths = [device.push(_ON_DEVICE / name, name) for name in (*AGENT_FILES, f"runtime_{runtime}.py")]
    return [device.python, paths[AGENT_FILES.index(_AGENT)]]


def unable(answer: Unable, where: str, target: Target, python: str) -> DeviceError:
    """The error for a device that cannot run models at all, by what its agent answered."""
    if answer.reason == "affinity":
        remedy = "correct the CPUs of the profile's clusters, or let this user have those CPUs there"
        return DeviceError(f"{where}: {one_line(answer.detail)}; {remedy}")
    return DeviceError(f"{where}: {one_line(answer.detail)}; {_install(target, python)} or correct the profile")


def model_error(model: ModelFile, answer: Failed, versions: Mapping[str, str], target: Target) -> ModelError:
    """The error for a model that could not be run, by what the agent answered."""
    runtime = target.runtime
    happened, remedy = _FAILURES[answer.reason]
    remedy = remedy.format(
        checker=" with onnx.checker" if runtime == "onnxruntime" else "",
        install=_install(target, target.profile.python or "python3", upgrade=True),
    )
    said = re.sub(rf"\S*{re.escape(model.remote_name)}", lambda _: model.path.name, one_line(answer.detail))
    version = versions.get(runtime, "of unknown version")
    return ModelError(f"{model.path}: {happened} {runtime} {version} ({said.rstrip('.')}); {remedy}")


def one_line(said: str) -> str:
    """A runtime's words as the agent sends them, without what would move a terminal's cursor."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in said[:1000]).split())


def _install(target: Target, python: str, *, upgrade: bool = False) -> str:
    package = _PACKAGES.get(target.runtime, target.runtime)
    pip = f"{python} -m pip install {'-U ' if upgrade else ''}{package}"
    return f"install it there (edgenas device setup {target.profile.cli_name}, or {pip})"
