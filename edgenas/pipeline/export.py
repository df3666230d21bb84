"""The step that exports a subnet as verified bundles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.bundle import Bundle, check_replaceable, open_bundle, read_interface, run_model, write_bundle
from edgenas.devices import Target
from edgenas.errors import ModelError, UsageError, VerificationError
from edgenas.export import ExportFormat, check_parity
from edgenas.export.quantize.layer_errors import LayerError, layer_errors
from edgenas.export.quantize.quantize import float_layers, is_kept_in_float
from edgenas.files import read_bytes
from edgenas.pipeline.export_formats import format_of, target_for
from edgenas.pipeline.model_card import File, facts, inputs_of, measured
from edgenas.pipeline.precision_fallback import find_remedy
from edgenas.pipeline.prepared_model import ExportSettings, Floats, PreparedModel, prepare
from edgenas.space import Architecture

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

_LAYER_IMAGES = 32
_NAMED = 3


@dataclass(frozen=True)
class Exported:
    """A bundle that was written and verified, its archive, and the nodes of its file that compute in float."""

    kind: ExportFormat
    bundle: Bundle
    archive: Path | None
    card: dict[str, Any]


class FailedError(VerificationError):
    """Files that failed their check, by kind and with the reason; ``done`` are those that did not."""

    def __init__(self, failed: dict[str, str], done: Sequence[Exported]) -> None:
        written = f" (written: {', '.join(each.bundle.path.name for each in done)})" if done else ""
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in failed.items()) + written)
        self.failed, self.done = failed, tuple(done)


def export(
    run: Run,
    architecture: Architecture,
    target: Target,
    out: Path,
    kind: ExportFormat | None = None,
    *,
    prepared: PreparedModel | None = None,
) -> Bundle:
    """One bundle at ``out``, of the kind that the target runs unless another is asked for.

    ``network`` is the architecture's, where it is there already. Does nothing
    when ``out`` holds this bundle. Raises what ``export_all`` raises.
    """
    wanted = format_of(target) if kind is None else kind
    check_replaceable(out)
    prepared = prepared or prepare(run, architecture)
    return _export(prepared, target, wanted, out).bundle


def export_all(
    run: Run,
    architecture: Architecture,
    target: Target,
    out: Path,
    kinds: Sequence[ExportFormat],
    settings: ExportSettings,
) -> list[Exported]:
    """A bundle ``out/KIND`` of each kind and ``out/KIND.zip`` beside it; what is there already is not made again.

    Integers for TensorRT lie in ``out/onnx-int8-tensorrt``. Each file is run in
    its own runtime against PyTorch on all validation images. One that fails is
    not written, and a bundle of that name goes; when the others are done, that
    raises FailedError naming what failed and the places to keep in float.
    Raises UsageError, before anything is written, for settings that cannot be
    and where something else lies.
    """
    settings.check(kinds, has_data=run.has_data)
    _check_free(out, [settings.name(kind) for kind in kinds])
    prepared = prepare(run, architecture, settings)
    prepared.check(kinds)
    done, failed = [], {}
    for kind in kinds:
        name = settings.name(kind)
        try:
            done.append(_export(prepared, target, kind, out / name, archive=True))
        except VerificationError as error:
            failed[name] = str(error)
    if failed:
        raise FailedError(failed, done)
    return done


def _check_free(out: Path, names: Sequence[str]) -> None:
    """Raise UsageError unless ``out`` is or can be a folder with bundles of these names and their archives."""
    nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UsageError(f"{nearest}: is a file; --out needs a folder")
    if (out / "card.json").exists():
        raise UsageError(f"{out}: is a bundle itself; choose a folder for bundles")
    for name in names:
        check_replaceable(out / name)
        archive = _archive_of(out / name)
        try:
            if archive.exists():
                with open_bundle(archive) as bundle:
                    check_replaceable(bundle.path)
        except VerificationError as error:
            raise UsageError(f"{error}; move it away or choose another folder") from None


def _archive_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def _export(
    prepared: PreparedModel, target: Target, kind: ExportFormat, out: Path, *, archive: bool = False
) -> Exported:
    run, target_here = prepared.run, _target_here(prepared, target, kind)
    current = inputs_of(prepared, kind, target_here)
    bundle = _there(prepared, out, current, target_here)
    if bundle is None:
        try:
            file = _file(prepared, kind)
            with run.layout.writing():
                bundle = _write(prepared, file, out, facts(prepared, file, target_here, current))
        except VerificationError:
            _remove(prepared, out, _archive_of(out) if archive else None)
            raise
        run.progress.say(f"export    {out}")
    else:
        run.progress.say(f"export    already done ({out})")
    packed = None
    if archive:
        with run.layout.writing():
            packed = bundle.archive()
    return Exported(kind, bundle, packed, bundle.card)


def _target_here(prepared: PreparedModel, target: Target, kind: ExportFormat) -> Target | None:
    """The target that runs files of a kind, which for integers made for TensorRT must have that."""
    here = target_for(target, kind)
    if here is not None and prepared.is_for_tensorrt(kind) and "TensorrtExecutionProvider" not in here.providers:
        return None
    return here


def _remove(prepared: PreparedModel, out: Path, archive: Path | None) -> None:
    """Remove a bundle, and its archive, whose name stands for a file that failed."""
    with prepared.run.layout.writing():
        if archive is not None:
            archive.unlink(missing_ok=True)
        if (out / "card.json").exists():
            check_replaceable(out)
            shutil.rmtree(out)
            prepared.run.progress.say(f"export    {out} was of an earlier export: removed")


def _there(prepared: PreparedModel, out: Path, current: str, target: Target | None) -> Bundle | None:
    """The bundle at ``out`` when it was made from the same inputs, says what was measured since, and is whole."""
    bundle = Bundle(out)
    try:
        if not (out / "card.json").exists() or bundle.card["inputs_digest"] != current:
            return None
        if bundle.card["measured"] != measured(prepared, read_bytes(bundle.model), target):
            return None
        bundle.verify()
    except (UsageError, VerificationError):
        return None  # damaged: written anew
    return bundle


def _file(prepared: PreparedModel, kind: ExportFormat) -> File:
    """Make a file and prove it. Raises VerificationError naming what to keep in float."""
    model, base = prepared.build(kind)
    floats = _float_layers(prepared, kind, model)
    try:
        found = run_model(model, kind.format, prepared.parity_reference.inputs)
    except ModelError as error:
        raise VerificationError(str(error)) from None
    errors = _errors(prepared, kind, base, model)
    try:
        agreement = check_parity(
            prepared.parity_reference.expected, found, kind.precision, real=prepared.parity_reference.real
        )
    except VerificationError as error:
        raise VerificationError(f"{error}; {_remedy(prepared, kind, found, errors)}") from None
    return File(kind, model, found, agreement, read_interface(model, kind.format), floats, errors)


def _float_layers(prepared: PreparedModel, kind: ExportFormat, model: bytes) -> tuple[str, ...] | None:
    """The layers of an int8 file that compute in float; None where that is for TensorRT to choose.

    Raises VerificationError when TFLite has one that nobody named; what onnxruntime leaves in float is its choice.
    """
    if prepared.is_for_tensorrt(kind):
        return None
    if kind.precision != "int8":
        return ()
    layers = float_layers(model, kind)
    unnamed = [layer for layer in layers if not is_kept_in_float(layer, prepared.keep_float(kind))]
    if kind.format == "tflite" and unnamed:
        raise VerificationError(f"layers stay in float that should be int8: {', '.join(unnamed[:_NAMED])}")
    return layers


def _errors(prepared: PreparedModel, kind: ExportFormat, base: bytes, model: bytes) -> tuple[LayerError, ...]:
    """What each layer loses against float32, those that add most first; none in float32."""
    if kind.precision == "fp32":
        return ()
    return layer_errors(base, model, kind, prepared.parity_reference.inputs[:_LAYER_IMAGES])


def _remedy(prepared: PreparedModel, kind: ExportFormat, found: Floats, errors: Sequence[LayerError]) -> str:
    if not prepared.parity_reference.real:
        return "its batch norm is not this subnet's own and magnifies rounding: --calibration FOLDER calibrates it"
    prepared.run.progress.say(f"export    {kind} fails; trying what to keep in float")
    remedy = find_remedy(prepared, kind, found, errors)
    return "export it in another precision" if remedy is None else str(remedy)


def _write(prepared: PreparedModel, file: File, out: Path, card: dict[str, Any]) -> Bundle:
    from edgenas.data.preprocess import preprocess

    settings = {**prepared.preprocessing, "layout": file.interface.input.layout}
    sample = preprocess(prepared.sample, settings)
    return write_bundle(
        out,
        export_format=file.kind,
        model=file.model,
        preprocessing=settings,
        labels=prepared.labels,
        sample_image=prepared.sample,
        sample_input=sample,
        expected=file.logits[:1],
        reference=prepared.parity_reference.expected[:1],
        card=card,
    )
