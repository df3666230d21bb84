"""A bundle: the folder that is deployed, with everything needed to run the model and to verify it."""

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

from edgenas.bundle.archive import open_unpacked_archive, pack_npz_bytes, write_archive
from edgenas.bundle.check import (
    CARD_SCHEMA,
    CHECKSUMS_FILE,
    PreprocessingSettings,
    VerifiedBundle,
    bundle_file_names,
    compute_sha256sums,
    find_file_format,
    verify_bundle_folder,
    verify_contents,
)
from edgenas.bundle.texts import bundle_scripts, render_model_card
from edgenas.errors import EdgeNASError, UsageError, VerificationError
from edgenas.files import TEMPORARY_SUFFIX, canonical_json_bytes, parse_dataclass, write_bytes, write_document
from edgenas.runtimes import ExportFormat, file_formats

_NEW, _OLD = ".edgenas-new", ".edgenas-old"
_DAY_S = 86400


@dataclass(frozen=True, init=False)
class Bundle:
    """A bundle in a folder; its files are read on request only.

    Args:
        path: the folder.

    Example:
        >>> from edgenas import Bundle
        >>> bundle = Bundle("ship")
        >>> bundle
        Bundle('ship')
        >>> bundle.model_path.name
        'model.onnx'
    """

    path: Path

    def __init__(self, path: str | Path) -> None:
        object.__setattr__(self, "path", Path(path))

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"

    @property
    def model_path(self) -> Path:
        """The model file."""
        return self.path / f"model.{find_file_format(self.path)}"

    @property
    def card(self) -> dict[str, Any]:
        """The facts of the model card. Raises FormatError when the file is damaged."""
        return CARD_SCHEMA.read(self.path / "card.json")

    def verify(self) -> VerifiedBundle:
        """Check that the bundle is complete and still gives its recorded logits.

        Every file must have its recorded SHA-256, and none may be missing,
        extra or a link. The model must have the format and precision that the
        card names. The sample image must give the recorded input and, through
        the model, the recorded logits within the limits of its precision
        (``PARITY_LIMITS``, which a bundle cannot widen).

        Raises:
            VerificationError: naming the file and the rule.
            MissingExtraError: when the model's runtime is not installed.
        """
        return verify_bundle_folder(self.path)

    def write_archive(self) -> Path:
        """Write the bundle as NAME.zip beside its folder NAME; equal bundles give equal bytes.

        Raises:
            UsageError: when another file has that name.
        """
        path = self.path.with_name(f"{self.path.name}.zip")
        write_archive(self.path, path, bundle_file_names(find_file_format(self.path)))
        return path


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """Open a bundle in a folder or in a .zip, which is unpacked into a temporary folder for the time being.

    Raises:
        VerificationError: for a zip other than ``Bundle.write_archive`` writes; it is not unpacked.
    """
    if path.is_dir() or not path.exists():
        yield Bundle(path)
        return
    with open_unpacked_archive(path, *map(bundle_file_names, file_formats())) as folder:
        try:
            yield Bundle(folder)
        except VerificationError as error:
            raise VerificationError(str(error).replace(str(folder), str(path))) from None


def write_bundle(
    folder: Path,
    *,
    export_format: ExportFormat,
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

    Args:
        folder: place of the bundle; a bundle that is there is replaced.
        export_format: format and precision of ``model``.
        model: the model file.
        preprocessing: the ``settings`` of ``edgenas.data.preprocess``.
        labels: name of each class.
        sample_image: uint8 (H, W) or (H, W, C).
        sample_input: the preprocessed image, in the model's layout.
        expected: logits (1, classes) of ``model``.
        reference: logits (1, classes) of the network in float32.
        card: facts for the model card, plain JSON data.

    Raises:
        UsageError: when ``folder`` holds something else, or labels, preprocessing or card are impossible.
        VerificationError: when the model does not reproduce the sample.
    """
    target = folder.resolve()
    check_replaceable(target)
    if any(set(label) & {"\n", "\r"} for label in labels):
        raise UsageError("a label must be one line: labels.txt has one a line")
    settings = asdict(parse_dataclass(PreprocessingSettings, dict(preprocessing), "preprocessing"))
    facts = {"kind": str(export_format.stored), **card}
    try:
        canonical_json_bytes(facts)
    except (TypeError, ValueError) as error:
        raise UsageError(f"card: must be plain JSON data ({error})") from None
    sample = pack_npz_bytes(image=sample_image, input=sample_input, expected=expected, reference=reference)
    file_format = export_format.format
    _delete_abandoned_files(target)
    temporary = _temporary_path(target, _NEW)
    try:
        CARD_SCHEMA.write(temporary / "card.json", facts)
        write_document(temporary / "preprocessing.json", "preprocessing", PreprocessingSettings.VERSION, settings)
        write_bytes(temporary / f"model.{file_format}", model)
        write_bytes(temporary / "labels.txt", "".join(f"{label}\n" for label in labels).encode())
        for name, script in bundle_scripts(file_format).items():
            write_bytes(temporary / name, script)
        write_bytes(temporary / "README.md", render_model_card(file_format, facts, settings, labels).encode())
        write_bytes(temporary / "sample.npz", sample)
        write_bytes(temporary / CHECKSUMS_FILE, compute_sha256sums(temporary, file_format))
        verify_contents(temporary, file_format)
        _replace_by_renames(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(folder)


def check_replaceable(folder: Path) -> None:
    """Raise UsageError unless ``folder`` is absent, empty or a bundle, so that no user file is ever deleted."""
    target = folder.resolve()
    if not target.exists():
        return
    names = {entry.name for entry in target.iterdir()} if target.is_dir() else {target.name}
    allowed = {*(name for file_format in file_formats() for name in bundle_file_names(file_format)), "__pycache__"}
    foreign = sorted(names - allowed)
    remedy = "move it away or choose another folder"
    if foreign:
        raise UsageError(f"{target}: holds {foreign[0]!r}, which is no part of a bundle; {remedy}")
    if names and not _is_model_card(target / "card.json"):
        raise UsageError(f"{target}: is neither empty nor a bundle that edgenas made; {remedy}")


def _is_model_card(path: Path) -> bool:
    """Return True for a model card of any version of edgenas."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("format") == f"edgenas.{CARD_SCHEMA.kind}"


def _replace_by_renames(temporary: Path, target: Path) -> None:
    """Replace the old bundle by two renames: at any moment one of the two is complete, in place or beside it."""
    old = _temporary_path(target, _OLD)
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


def _temporary_path(target: Path, suffix: str) -> Path:
    """Return a path beside the target that no other running process uses."""
    return target.with_name(f".{target.name}.{os.getpid()}{suffix}")


def _delete_abandoned_files(target: Path) -> None:
    """Delete what killed writes of this bundle and its archive left beside it.

    An old bundle stays while there is none at the target: it may be the only copy.
    """
    patterns = [(target.name, _NEW), (f"{target.name}.zip", TEMPORARY_SUFFIX)]
    if target.exists():
        patterns.append((target.name, _OLD))
    for name, suffix in patterns:
        start = f".{name}."
        for path in target.parent.glob(f"{glob.escape(start)}*{suffix}"):
            process = path.name.removeprefix(start).removesuffix(suffix)
            if not (process.isdecimal() and _is_abandoned(path, int(process))):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()


def _is_abandoned(path: Path, process: int) -> bool:
    """Return True when the process that wrote a path has ended, or after a day: its number may be reused."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _DAY_S:
            return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False  # a process of another user
    return process == os.getpid()
