"""A bundle: the folder that is deployed, with everything needed to run the model and to prove it."""

from __future__ import annotations

import glob
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.bundle.archive import pack_arrays, unpacked, write_archive
from edgenas.bundle.check import (
    CARD,
    SUMS,
    StoredPreprocessing,
    Verified,
    check_bundle,
    check_contents,
    checksums,
    files_of,
)
from edgenas.bundle.texts import model_card, scripts
from edgenas.errors import EdgeNASError, UsageError, VerificationError
from edgenas.export.formats import FORMATS, ExportFormat
from edgenas.files import TEMPORARY_SUFFIX, canonical_json, parse_dataclass, read_document, write_bytes, write_document

_NEW, _OLD = ".edgenas-new", ".edgenas-old"
_DAY_S = 86400


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder. Nothing is read before it is asked for."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def model(self) -> Path:
        """The model file."""
        tflite = self.path / "model.tflite"
        return tflite if tflite.exists() else self.path / "model.onnx"

    @property
    def card(self) -> dict[str, Any]:
        """The model card's facts. Raises FormatError when the file is damaged."""
        return read_document(self.path / "card.json", *CARD)

    def verify(self) -> Verified:
        """Prove that the bundle is whole and does what it did when it was made.

        Every file has its recorded SHA-256 and none is missing, extra or a
        link; the model is of the kind that the card names; the sample image
        gives the recorded input and, through the model, the recorded logits,
        as near as its kind must (``LIMITS``, which no bundle can widen).
        Raises VerificationError naming the file and the rule, and
        MissingExtraError where the model's runtime is not installed.
        """
        return check_bundle(self.path)

    def archive(self) -> Path:
        """The bundle as NAME.zip beside its folder NAME; equal bundles give equal bytes.

        Raises UsageError when something else lies there.
        """
        path = self.path.with_name(f"{self.path.name}.zip")
        write_archive(self.path, path, _names(self.model.suffix.removeprefix(".")))
        return path


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """The bundle in a folder, or in a .zip, which is unpacked into a temporary folder until it is left.

    Raises VerificationError for a zip that is not byte for byte what
    ``Bundle.archive`` writes; nothing of such a one is unpacked.
    """
    if path.is_dir() or not path.exists():
        yield Bundle(path)
        return
    with unpacked(path, *map(_names, FORMATS)) as folder:
        try:
            yield Bundle(folder)
        except VerificationError as error:
            raise VerificationError(str(error).replace(str(folder), str(path))) from None


def _names(file_format: str) -> tuple[str, ...]:
    return (*files_of(file_format), SUMS)


def write_bundle(
    folder: Path,
    *,
    kind: ExportFormat,
    model: bytes,
    preprocessing: Mapping[str, Any],
    labels: Sequence[str],
    sample_image: npt.NDArray[np.uint8],
    sample_input: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    card: Mapping[str, Any],
) -> Bundle:
    """Write a bundle, verify it, and only then put it in place; equal arguments give equal bytes.

    ``sample_image`` is (H, W) or (H, W, C), ``sample_input`` what
    preprocessing makes of it, in the model's layout; ``expected`` (1, classes)
    are the logits of ``model``, ``reference`` those of the network in float32.
    A bundle that lies at ``folder`` is replaced. Raises UsageError when
    something else does or labels or preprocessing are impossible, and
    VerificationError when the model disagrees with the sample.
    """
    target = folder.resolve()
    check_replaceable(target)
    if any(set(label) & {"\n", "\r"} for label in labels):
        raise UsageError("a label must be one line: labels.txt has one a line")
    settings = parse_dataclass(StoredPreprocessing, dict(preprocessing), "preprocessing")
    facts = {"kind": str(kind), **card}
    _check_json(facts)
    sample = pack_arrays(image=sample_image, input=sample_input, expected=expected, reference=reference)
    _sweep(target)
    temporary = _beside(target, _NEW)
    try:
        write_document(temporary / "card.json", *CARD, facts)
        write_document(temporary / "preprocessing.json", "preprocessing", StoredPreprocessing.VERSION, asdict(settings))
        write_bytes(temporary / f"model.{kind.format}", model)
        write_bytes(temporary / "labels.txt", "".join(f"{label}\n" for label in labels).encode())
        for name, script in scripts(kind.format).items():
            write_bytes(temporary / name, script)
        write_bytes(temporary / "README.md", model_card(kind.format, facts, asdict(settings), labels).encode())
        write_bytes(temporary / "sample.npz", sample)
        write_bytes(temporary / SUMS, checksums(temporary, kind.format))
        check_contents(temporary, kind.format)
        _put_in_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(folder)


def check_replaceable(folder: Path) -> None:
    """Raise UsageError unless ``folder`` is absent, empty or a bundle: nothing of the user's is ever deleted."""
    target = folder.resolve()
    if not target.exists():
        return
    names = {entry.name for entry in target.iterdir()} if target.is_dir() else {target.name}
    known = {*(name for file_format in FORMATS for name in _names(file_format)), "__pycache__"}
    foreign = sorted(names - known)
    remedy = "move it away or choose another folder"
    if foreign:
        raise UsageError(f"{target}: holds {foreign[0]!r}, which is no part of a bundle; {remedy}")
    if names and not _says_bundle(target / "card.json"):
        raise UsageError(f"{target}: is neither empty nor a bundle that edgenas made; {remedy}")


def _says_bundle(card: Path) -> bool:
    """Whether a file is a model card, of this edgenas or another."""
    try:
        document = json.loads(card.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("format") == f"edgenas.{CARD[0]}"


def _check_json(card: Mapping[str, Any]) -> None:
    try:
        canonical_json(dict(card))
    except (TypeError, ValueError) as error:
        raise UsageError(f"card: must be plain JSON data ({error})") from None


def _put_in_place(temporary: Path, target: Path) -> None:
    """Two renames: at any moment the old bundle or the new one lies whole at its place or beside it."""
    old = _beside(target, _OLD)
    try:
        if target.exists():
            target.replace(old)
        temporary.replace(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.replace(target)
        raise EdgeNASError(f"{target}: cannot be written ({error.strerror}); choose another folder") from None
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, suffix: str) -> Path:
    """A name that no other process takes."""
    return target.with_name(f".{target.name}.{os.getpid()}{suffix}")


def _sweep(target: Path) -> None:
    """Delete what killed writes of this bundle and its archive left beside it, but no bundle that lost its place."""
    kinds = [(target.name, _NEW), (f"{target.name}.zip", TEMPORARY_SUFFIX)]
    for name, suffix in [*kinds, (target.name, _OLD)] if target.exists() else kinds:
        start = f".{name}."
        for remains in target.parent.glob(f"{glob.escape(start)}*{suffix}"):
            process = remains.name.removeprefix(start).removesuffix(suffix)
            if not (process.isdecimal() and _is_abandoned(remains, int(process))):
                continue
            if remains.is_dir():
                shutil.rmtree(remains, ignore_errors=True)
            else:
                with suppress(OSError):
                    remains.unlink()


def _is_abandoned(remains: Path, process: int) -> bool:
    """Whether the process that wrote something is gone, or has had a day's time: its number may be another's by now."""
    with suppress(OSError):
        if time.time() - remains.stat().st_mtime > _DAY_S:
            return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False  # another user's
    return process == os.getpid()
