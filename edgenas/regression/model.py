"""The model of a baseline or a check: a file, or the file of a bundle."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

from annotated_types import Interval

from edgenas.bundle import Bundle, open_bundle
from edgenas.errors import UsageError
from edgenas.files import Fraction, ShortText, check_regular_file, read_bytes
from edgenas.profilers.measure.model_files import count_file_bytes
from edgenas.runtimes import ModelSignature, runtime_of_suffix


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model without running it.

    Attributes:
        name: the name of the file or bundle.
        file_bytes: the size of the model file and of the files that it names.
        signature: types and shapes of its inputs and outputs; None where edgenas cannot tell.
        accuracy: of a bundle, that of its file on the test images, as its card says; else None.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: ShortText
    file_bytes: Annotated[int, Interval(ge=1, le=2**62)]
    signature: ModelSignature | None = None
    accuracy: Fraction | None = None


class OpenedModel(NamedTuple):
    """A model file on the disk, and what is known of it."""

    path: Path
    facts: ModelFacts


@contextlib.contextmanager
def opened_model(path: Path) -> Iterator[OpenedModel]:
    """Open a model file, or a bundle's folder or .zip, which is verified: its sample must give its logits.

    Raises:
        UsageError: it is neither.
        VerificationError: the bundle breaks a rule.
    """
    # A TFLite file with metadata is a zip, too.
    if runtime_of_suffix(path.suffix.lower()) is not None or not (path.is_dir() or zipfile.is_zipfile(path)):
        yield OpenedModel(path, _read_facts(path, path.name))
        return
    if path.is_dir() and not (path / "card.json").exists():
        raise UsageError(f"{path}: is a folder without card.json, so it is no bundle; give a model file or a bundle")
    with open_bundle(path) as bundle:
        bundle.verify()
        facts = _read_facts(bundle.model_path, path.name, _read_accuracy(bundle))
        yield OpenedModel(bundle.model_path, facts)


def _read_facts(path: Path, name: str, accuracy: float | None = None) -> ModelFacts:
    check_regular_file(path)
    runtime = runtime_of_suffix(path.suffix.lower())
    if runtime is None:
        raise UsageError(f"{path}: is no model; give an ONNX or TFLite file, or a bundle")
    return ModelFacts(name, count_file_bytes(path), runtime.read_signature(read_bytes(path)), accuracy)


def _read_accuracy(bundle: Bundle) -> float | None:
    accuracy = bundle.card.get("accuracy")
    value = accuracy.get("test") if isinstance(accuracy, dict) else None
    return value if isinstance(value, float) and 0 <= value <= 1 else None
