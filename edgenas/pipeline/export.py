"""The step that exports a subnet as verified bundles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas.bundle import Bundle, check_replaceable, open_bundle, write_bundle
from edgenas.data.preprocess import preprocess
from edgenas.devices import Target
from edgenas.errors import ModelError, UsageError, VerificationError
from edgenas.export import check_parity
from edgenas.export.quantize.layer_errors import LayerError
from edgenas.export.quantize.layer_selection import is_kept_in_float
from edgenas.files import read_bytes
from edgenas.pipeline.export_formats import format_of, target_for
from edgenas.pipeline.model_card import VerifiedFile, bundle_digest, describe_bundle, describe_measurement
from edgenas.pipeline.precision_fallback import find_float_places
from edgenas.pipeline.prepared_model import ExportSettings, Floats, PreparedModel, prepare
from edgenas.pipeline.workspace import Workspace
from edgenas.runtimes import FLOAT32, ExportFormat
from edgenas.runtimes.building import float_layers, layer_errors
from edgenas.space import Architecture

_LAYER_IMAGES = 32
_NAMED = 3


@dataclass(frozen=True)
class ExportedBundle:
    """A bundle that was written and verified, with its archive and its card."""

    export_format: ExportFormat
    bundle: Bundle
    archive: Path | None
    card: dict[str, Any]

    def __repr__(self) -> str:
        return f"ExportedBundle({self.export_format}, {str(self.bundle.path)!r})"


class FailedExportError(VerificationError):
    """Formats whose files failed verification, with the reasons; ``done`` are the bundles of the others."""

    def __init__(self, failed: dict[str, str], done: Sequence[ExportedBundle]) -> None:
        written = f" (written: {', '.join(exported.bundle.path.name for exported in done)})" if done else ""
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in failed.items()) + written)
        self.failed, self.done = failed, tuple(done)


def export(
    workspace: Workspace,
    architecture: Architecture,
    target: Target,
    out: Path,
    export_format: ExportFormat | None,
    *,
    prepared: PreparedModel | None = None,
) -> Bundle:
    """Export one bundle to ``out``, as ``Run.export`` describes; skipped when ``out`` holds it already.

    ``prepared`` is the architecture's prepared model, where the caller has it.
    """
    check_replaceable(out)
    prepared = prepared or prepare(workspace, architecture)
    return _export_bundle(prepared, target, export_format or format_of(target), out).bundle


def export_all(
    workspace: Workspace,
    architecture: Architecture,
    target: Target,
    out: Path,
    formats: Sequence[ExportFormat],
    settings: ExportSettings,
) -> list[ExportedBundle]:
    """Export a bundle and its archive in each format, as ``Run.export_all`` describes; existing ones are skipped.

    Each file is run in its own runtime and compared with PyTorch on all
    validation images. A file that fails is not written, and an older bundle of
    its name is removed. Settings and ``out`` are checked before anything is written.
    """
    settings.check_effective(formats, has_data=workspace.has_data)
    _check_out_folder(out, [str(export_format) for export_format in formats])
    prepared = prepare(workspace, architecture, settings)
    prepared.check_settings(formats)
    done, failed = [], {}
    for export_format in formats:
        name = str(export_format)
        try:
            done.append(_export_bundle(prepared, target, export_format, out / name, archive=True))
        except VerificationError as error:
            failed[name] = str(error)
    if failed:
        raise FailedExportError(failed, done)
    return done


def _check_out_folder(out: Path, names: Sequence[str]) -> None:
    """Raise UsageError unless ``out`` is or can be a folder with bundles of these names and their archives."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UsageError(f"{existing}: is a file; --out needs a folder")
    if (out / "card.json").exists():
        raise UsageError(f"{out}: is a bundle itself; choose a folder for bundles")
    for name in names:
        check_replaceable(out / name)
        archive = _archive_path(out / name)
        try:
            if archive.exists():
                with open_bundle(archive) as bundle:
                    check_replaceable(bundle.path)
        except VerificationError as error:
            raise UsageError(f"{error}; move it away or choose another folder") from None


def _archive_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def _export_bundle(
    prepared: PreparedModel, target: Target, export_format: ExportFormat, out: Path, *, archive: bool = False
) -> ExportedBundle:
    """Write a bundle unless it is current; remove an older one of this name when its file fails verification."""
    folder, progress = prepared.workspace.folder, prepared.workspace.progress
    file_target = target_for(target, export_format)
    inputs_digest = bundle_digest(prepared, export_format, file_target)
    bundle = _load_current_bundle(prepared, out, inputs_digest, file_target)
    if bundle is None:
        replaced = " (the earlier bundle there is replaced)" if (out / "card.json").exists() else ""
        try:
            file = _make_verified_file(prepared, export_format)
            with folder.writing():
                bundle = _write_bundle(prepared, file, out, describe_bundle(prepared, file, file_target, inputs_digest))
        except VerificationError:
            _remove_bundle(prepared, out, archive)
            raise
        progress.say(f"export    {out}{replaced}")
    else:
        progress.say(f"export    already done ({out})")
    if not archive:
        return ExportedBundle(export_format, bundle, None, bundle.card)
    with folder.writing():
        return ExportedBundle(export_format, bundle, bundle.write_archive(), bundle.card)


def _remove_bundle(prepared: PreparedModel, out: Path, archive: bool) -> None:
    """Remove an older bundle, and its archive, under the name of a file that failed."""
    with prepared.workspace.folder.writing():
        if archive:
            _archive_path(out).unlink(missing_ok=True)
        if (out / "card.json").exists():
            check_replaceable(out)
            shutil.rmtree(out)
            prepared.workspace.progress.say(f"export    {out} was of an earlier export: removed")


def _load_current_bundle(
    prepared: PreparedModel, out: Path, inputs_digest: str, target: Target | None
) -> Bundle | None:
    """Return the bundle at ``out`` if it is intact, of the same inputs, and names what was measured since."""
    bundle = Bundle(out)
    try:
        if not (out / "card.json").exists() or bundle.card["inputs_digest"] != inputs_digest:
            return None
        if bundle.card["measured"] != describe_measurement(prepared, read_bytes(bundle.model_path), target):
            return None
        bundle.verify()
    except (UsageError, VerificationError):
        return None  # damaged: written anew
    return bundle


def _make_verified_file(prepared: PreparedModel, export_format: ExportFormat) -> VerifiedFile:
    """Make a file and compare it with PyTorch; raise VerificationError naming what to keep in float."""
    reference, runtime = prepared.parity_reference, export_format.runtime
    model = prepared.build(export_format)
    floats = _find_float_layers(prepared, export_format, model)
    try:
        logits = runtime.run(model, reference.inputs)
    except ModelError as error:
        raise VerificationError(str(error)) from None
    errors: tuple[LayerError, ...] = ()
    if export_format.precision != FLOAT32:
        base = prepared.source.float_file(runtime)
        errors = layer_errors(base, model, export_format, reference.inputs[:_LAYER_IMAGES])
    try:
        agreement = check_parity(reference.expected, logits, export_format.parity_precision, real=reference.real)
    except VerificationError as error:
        raise VerificationError(f"{error}; {_suggest_remedy(prepared, export_format, logits, errors)}") from None
    return VerifiedFile(export_format, model, logits, agreement, runtime.read_interface(model), floats, errors)


def _find_float_layers(prepared: PreparedModel, export_format: ExportFormat, model: bytes) -> tuple[str, ...] | None:
    """Return the layers of an int8 file that compute in float; None where the provider it is made for chooses them.

    Raises VerificationError for a layer that nobody named, where the runtime leaves none in float by itself.
    """
    if export_format.details.made_for is not None:
        return None
    if not export_format.is_calibrated:
        return ()
    layers = float_layers(model, export_format)
    kept = prepared.float_places(export_format)
    unnamed = [layer for layer in layers if not is_kept_in_float(layer, kept)]
    if unnamed and not export_format.runtime.leaves_layers_in_float:
        raise VerificationError(f"layers stay in float that should be int8: {', '.join(unnamed[:_NAMED])}")
    return layers


def _suggest_remedy(
    prepared: PreparedModel, export_format: ExportFormat, logits: Floats, errors: Sequence[LayerError]
) -> str:
    """Return what to do about a file that failed, found by trying which places to keep in float."""
    if not prepared.parity_reference.real:
        return "its batch norm is not this subnet's own and magnifies rounding: --calibration FOLDER calibrates it"
    prepared.workspace.progress.say(f"export    {export_format} fails; trying what to keep in float")
    fallback = find_float_places(prepared, export_format, logits, errors)
    return "export it in another precision" if fallback is None else str(fallback)


def _write_bundle(prepared: PreparedModel, file: VerifiedFile, out: Path, card: dict[str, Any]) -> Bundle:
    settings = {**prepared.preprocessing, "layout": file.interface.input.layout}
    return write_bundle(
        out,
        export_format=file.export_format,
        model=file.model,
        preprocessing=settings,
        labels=prepared.source.labels,
        sample_image=prepared.sample,
        sample_input=preprocess(prepared.sample, settings),
        expected=file.logits[:1],
        reference=prepared.parity_reference.expected[:1],
        card=card,
    )
