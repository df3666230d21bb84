"""The step that exports a subnet as verified bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.devices import Target
from edgenas.errors import ModelError, UsageError, VerificationError
from edgenas.export import (
    Bundle,
    Kind,
    agree,
    check_replaceable,
    read_interface,
    run_model,
    write_bundle,
)
from edgenas.export.layer_errors import LayerError, layer_errors
from edgenas.export.quantize import float_layers, is_named
from edgenas.files import read_bytes
from edgenas.pipeline.card import File, facts, inputs_of, measured
from edgenas.pipeline.kinds import kind_of, target_of
from edgenas.pipeline.network import ExportSettings, Network, prepare
from edgenas.space import Architecture

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run

_LAYER_IMAGES = 32
_NAMED = 3


@dataclass(frozen=True)
class Exported:
    """A bundle that was written and verified, its archive, and the nodes of its file that compute in float."""

    kind: Kind
    bundle: Bundle
    archive: Path | None
    card: dict[str, Any]


def export(
    run: Run,
    architecture: Architecture,
    target: Target,
    out: Path,
    kind: Kind | None = None,
    *,
    network: Network | None = None,
) -> Bundle:
    """One bundle at ``out``, of the kind that the target runs unless another is asked for.

    ``network`` is the architecture's, where it is there already. Does nothing
    when ``out`` holds this bundle. Raises what ``export_all`` raises.
    """
    wanted = kind_of(target) if kind is None else kind
    check_replaceable(out)
    network = network or prepare(run, architecture)
    return _export(network, target, wanted, out).bundle


def export_all(
    run: Run, architecture: Architecture, target: Target, out: Path, kinds: Sequence[Kind], settings: ExportSettings
) -> list[Exported]:
    """A bundle ``out/KIND`` of each kind and ``out/KIND.zip`` beside it; what is there already is not made again.

    Each file is run in its own runtime against PyTorch on all validation
    images. One that fails is not written; when the others are done, that
    raises VerificationError naming what failed and the layers that lose most.
    Raises UsageError for settings that cannot be and a folder of something else.
    """
    settings.check(kinds)
    if (out / "card.json").exists():
        raise UsageError(f"{out}: is a bundle itself; choose a folder for bundles")
    for kind in kinds:
        check_replaceable(out / str(kind))
    network = prepare(run, architecture, settings)
    done, failed = [], []
    for kind in kinds:
        try:
            done.append(_export(network, target, kind, out / str(kind), archive=True))
        except VerificationError as error:
            failed.append(f"{kind}: {error}")
    if failed:
        written = f" (written: {', '.join(str(each.kind) for each in done)})" if done else ""
        raise VerificationError("; ".join(failed) + written)
    return done


def _export(network: Network, target: Target, kind: Kind, out: Path, *, archive: bool = False) -> Exported:
    run, target_here = network.run, target_of(target, kind)
    current = inputs_of(network, kind, target_here)
    bundle = _there(network, out, current, target_here)
    if bundle is None:
        file = _file(network, kind)
        with run.layout.writing():
            bundle = _write(network, file, out, facts(network, file, target_here, current))
        run.progress.say(f"export    {out}")
    else:
        run.progress.say(f"export    already done ({out})")
    packed = None
    if archive:
        with run.layout.writing():
            packed = bundle.archive()
    return Exported(kind, bundle, packed, bundle.card)


def _there(network: Network, out: Path, current: str, target: Target | None) -> Bundle | None:
    """The bundle at ``out`` when it was made from the same inputs, says what was measured since, and is whole."""
    bundle = Bundle(out)
    try:
        if not (out / "card.json").exists() or bundle.card["made_from"] != current:
            return None
        if bundle.card["measured"] != measured(network, read_bytes(bundle.model), target):
            return None
        bundle.verify()
    except (UsageError, VerificationError):
        return None  # damaged: written anew
    return bundle


def _file(network: Network, kind: Kind) -> File:
    """Make a file and prove it. Raises VerificationError naming the layers that lose most."""
    model, base = network.build(kind)
    floats = _float_layers(network, kind, model)
    try:
        found = run_model(model, kind.format, network.proof.inputs)
    except ModelError as error:
        raise VerificationError(str(error)) from None
    errors = _errors(network, kind, base, model)
    try:
        agreement = agree(network.proof.expected, found, kind.precision, real=network.proof.real)
    except VerificationError as error:
        raise VerificationError(f"{error}{_remedy(network, errors)}") from None
    return File(kind, model, found, agreement, read_interface(model, kind.format), floats, errors)


def _float_layers(network: Network, kind: Kind, model: bytes) -> tuple[str, ...]:
    """The layers of an int8 file that compute in float.

    Raises VerificationError when TFLite has one that nobody named; what onnxruntime leaves in float is its choice.
    """
    if kind.precision != "int8":
        return ()
    layers = float_layers(model, kind)
    unnamed = [layer for layer in layers if not is_named(layer, network.keep_float(kind))]
    if kind.format == "tflite" and unnamed:
        raise VerificationError(f"layers stay in float that should be int8: {', '.join(unnamed[:_NAMED])}")
    return layers


def _errors(network: Network, kind: Kind, base: bytes, model: bytes) -> tuple[LayerError, ...]:
    """What each layer loses against float32, those that add most first; none in float32."""
    if kind.precision == "fp32":
        return ()
    return layer_errors(base, model, kind, network.proof.inputs[:_LAYER_IMAGES])


def _remedy(network: Network, errors: Sequence[LayerError]) -> str:
    if not network.proof.real:
        return "; its batch norm is not this subnet's own and magnifies rounding: --calibration FOLDER calibrates it"
    if not errors:
        return ""
    worst = ", ".join(f"{each.layer} ({each.added_error:.1%})" for each in errors[:_NAMED])
    flags = " ".join(f"--keep-float {each.layer}" for each in errors[:_NAMED])
    return f"; the layers that lose most are {worst}: keep them in float ({flags}) or calibrate on other images"


def _write(network: Network, file: File, out: Path, card: dict[str, Any]) -> Bundle:
    from edgenas.export.preprocess import preprocess

    settings = {**network.preprocessing, "layout": file.interface.input.layout}
    sample = preprocess(network.sample, settings)
    return write_bundle(
        out,
        kind=file.kind,
        model=file.model,
        preprocessing=settings,
        labels=network.labels,
        sample_image=network.sample,
        sample_input=sample,
        expected=file.logits[:1],
        reference=network.proof.expected[:1],
        card=card,
    )
