"""Model files before they are sent to a device: what they are, what belongs to them, and their inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.devices import Device, Target
from edgenas.errors import UnusableModelsError, UsageError
from edgenas.files import check_regular_file, read_bytes, sha256_hex, write_bytes
from edgenas.on_device.work_folder import read_file_digest
from edgenas.runtimes import Runtime, load_runtime, runtime_of_suffix

# The beginnings of what is taken for a model by its name only, and what it is. A device's runtime refuses the rest.
_FOREIGN = (
    (rb"version https://git-lfs", "is a pointer of Git LFS, not the model; run git lfs pull"),
    (rb"PK[\x03\x05]", "is a zip archive, such as a PyTorch checkpoint; unpack it, or export the model"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "is compressed; unpack it"),
    (rb"\s*<[!?a-zA-Z]", "is a text in HTML or XML, such as an error page that was downloaded; download it again"),
    (rb"\x89HDF", "is an HDF5 file, such as a Keras model; export the model"),
)
_MAX_DIMENSIONS = 16
_MAX_INPUT_NUMBERS = 2**28
_MAX_ARRAY_BYTES = 2**30


@dataclass(frozen=True)
class ModelInputs:
    """What models are given; by default what can be made up.

    Attributes:
        shapes: The shapes of inputs whose file leaves dimensions open, by name; empty for a single number.
        file: An .npz file with an array for each input, by name; None to make up numbers.

    Raises:
        UsageError: A shape is no shape, the file cannot be read, or both are given.

    Example:
        >>> from edgenas import ModelInputs
        >>> ModelInputs.parse(["image=1x3x224x224"]).shapes
        {'image': (1, 3, 224, 224)}
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    file: Path | str | None = None

    def __post_init__(self) -> None:
        for name, shape in self.shapes.items():
            if len(shape) > _MAX_DIMENSIONS or min(shape, default=1) < 1 or math.prod(shape) > _MAX_INPUT_NUMBERS:
                raise UsageError(
                    f"the shape of input {name!r} must have at most {_MAX_DIMENSIONS} sizes above 0 and"
                    f" {_MAX_INPUT_NUMBERS} numbers, but is {'x'.join(map(str, shape))}"
                )
        if self.file is not None:
            if self.shapes:
                raise UsageError(f"{self.file}: its arrays have shapes; leave out --shape")
            _check_arrays(Path(self.file))

    @classmethod
    def parse(cls, shapes: Sequence[str], file: Path | str | None = None) -> ModelInputs:
        """Return the inputs of texts such as ``image=1x3x224x224`` or ``scale=scalar``; UsageError for others."""
        parsed: dict[str, tuple[int, ...]] = {}
        for text in shapes:
            name, _, sizes = text.rpartition("=")
            numbers = [] if sizes == "scalar" else sizes.split("x")
            if not name or not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in numbers):
                raise UsageError(f"--shape must be like image=1x3x224x224, but got {text!r}")
            if name in parsed:
                raise UsageError(f"--shape gives input {name!r} twice; give it once")
            parsed[name] = tuple(map(int, numbers))
        return cls(parsed, file)

    @property
    def cli_words(self) -> list[str]:
        """The inputs as options of commands."""
        shapes = [f"{name}={'x'.join(map(str, sizes)) or 'scalar'}" for name, sizes in self.shapes.items()]
        words = [word for shape in shapes for word in ("--shape", shape)]
        return words if self.file is None else [*words, "--inputs", str(self.file)]

    def push(self, device: Device) -> dict[str, Any]:
        """Send the arrays, if there are any; return the keys of a request."""
        if self.file is None:
            return {"shapes": {name: list(shape) for name, shape in self.shapes.items()}}
        path = Path(self.file)
        digest = _sha256_of_file(path)
        return {"arrays": device.push(path, f"{digest}.npz", digest)}


def _check_arrays(path: Path) -> None:
    """Raise UsageError for a file that is no archive of arrays, holds Python objects, or is too large."""
    check_regular_file(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            size = sum(member.file_size for member in archive.zip.infolist())
            fits = size <= _MAX_ARRAY_BYTES
            are_arrays = not fits or all(isinstance(archive[name], np.ndarray) for name in archive.files)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); give an .npz file") from None
    except Exception:  # numpy raises what its parsers raise
        are_arrays, fits = False, True
    if not fits:
        raise UsageError(f"{path}: has {size} bytes of arrays, but at most {_MAX_ARRAY_BYTES} can be given; give less")
    if not are_arrays:
        raise UsageError(
            f"{path}: must hold arrays of numbers or text; write it with numpy.savez, an array for each input by name"
        )


@dataclass(frozen=True)
class ModelFile:
    """A model file that was read once, with all that belongs to it.

    Attributes:
        path: The file.
        sha256: The SHA-256 of its content, which names the files beside it by theirs: it changes when any does.
        content: What is sent instead of the file: it names the files beside it as they are called on a device.
            None where there are none.
        parts: The files beside it, by their names on a device.
        unranked: Names of inputs whose rank is not known.
    """

    path: Path
    sha256: str
    content: bytes | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    unranked: tuple[str, ...] = ()

    @property
    def remote_name(self) -> str:
        """The file's name on a device."""
        return f"{self.sha256}{self.path.suffix.lower()}"

    def push(self, device: Device, folder: Path) -> str:
        """Send the file and what belongs to it; return its path there. ``folder`` takes what is written for it."""
        for name, path in self.parts.items():
            device.push(path, name, name.partition(".")[0])
        path = self.path
        if self.content is not None:
            path = folder / self.remote_name
            write_bytes(path, self.content)
        return device.push(path, self.remote_name, self.sha256)

    def copy_to(self, path: Path) -> None:
        """Write the file, with what belongs to it beside it; read again, it has the same SHA-256."""
        for name, part in self.parts.items():
            write_bytes(path.with_name(name), read_bytes(part))
        write_bytes(path, read_bytes(self.path) if self.content is None else self.content)


def read_model_files(paths: Sequence[Path], target: Target) -> list[ModelFile]:
    """Read model files and check that the target's runtime can run them.

    Raises:
        UnusableModelsError: For files that are no models of that runtime, that cannot be read or whose other files
            are missing.
        UsageError: For an unknown runtime.
    """
    runtime = load_runtime(target.runtime, "nothing is known about runtime")
    files: dict[Path, ModelFile] = {}
    problems = []
    for path in dict.fromkeys(paths):
        try:
            files[path] = _read_model_file(path, runtime)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UnusableModelsError(problems)
    return [files[path] for path in paths]


def _read_model_file(path: Path, runtime: Runtime) -> ModelFile:
    check_regular_file(path)
    if path.suffix.lower() != runtime.suffix:
        raise UsageError(f"{path}: {runtime.name} runs files ending in {runtime.suffix}; export the model as one")
    data = read_bytes(path)
    if not data:
        raise UsageError(f"{path}: is empty; export the model again")
    for start, problem in _FOREIGN:
        if re.match(start, data) and not (runtime.file_start and data.startswith(runtime.file_start)):
            raise UsageError(f"{path}: {problem}")
    parts = runtime.read_parts(path, data)
    if not parts.locations:
        return ModelFile(path, sha256_hex(data), unranked=parts.unranked)
    names = {location: f"{_sha256_of_file(file)}.data" for location, file in parts.locations.items()}
    content = parts.with_locations(names)
    files = {names[location]: file for location, file in parts.locations.items()}
    return ModelFile(path, sha256_hex(content), content, files, parts.unranked)


def list_files(path: Path) -> list[Path]:
    """Return a model file and the files that it names, each once."""
    runtime = runtime_of_suffix(path.suffix.lower())
    parts = () if runtime is None else runtime.read_parts(path, read_bytes(path)).locations.values()
    return [path, *dict.fromkeys(parts)]


def count_file_bytes(path: Path) -> int:
    """Return the bytes of a model file and of the files that it names."""
    return sum(file.stat().st_size for file in list_files(path))


def _sha256_of_file(path: Path) -> str:
    try:
        return read_file_digest(path.resolve())  # a cache of models may hold links
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
