"""The export step: every kind of file, proven before it is put in place."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import torch

from edgenas.bundle import Bundle
from edgenas.costs import Budget
from edgenas.devices import Target, load_profile
from edgenas.errors import MissingExtraError, RunError, UsageError, VerificationError
from edgenas.export.tflite.file import schema
from edgenas.files import sha256_hex
from edgenas.pipeline import Run
from edgenas.pipeline.calibration_images import split_folder
from edgenas.pipeline.demo import try_export_int8_tflite
from edgenas.pipeline.export import FailedExportError
from edgenas.pipeline.export_formats import combine_formats, format_of, make_for, target_for
from edgenas.pipeline.import_weights import import_weights
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.pipeline.prepared_model import ExportSettings, prepare
from edgenas.pipeline.progress import Progress, Silent
from edgenas.runtimes import ExportFormat, all_formats

Write = Callable[..., Path]
KINDS = [kind for kind in all_formats() if kind.details.made_for is None]
FLOATS = [kind for kind in KINDS if kind.precision != "int8"]
INT8 = [kind for kind in KINDS if kind.precision == "int8"]


class Heard(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(load_profile("localhost"))


@pytest.fixture
def run(trained: Path) -> Run:
    return Run(trained, progress=Silent())


@pytest.fixture(scope="module")
def shipped(trained: Path, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest subnet in every kind. Do not write to it."""
    out = tmp_path_factory.mktemp("ship")
    run = Run(trained, progress=Silent())
    run.export_all(run.space.smallest, target, out, KINDS)
    return out


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with twelve pictures, grey and coloured, of several sizes."""
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        shape = (20 + number, 30) if number % 2 else (20 + number, 30, 3)
        picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        picture.save(folder / f"{number}.{'png' if number % 3 else 'jpg'}")
    return folder


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_is_a_bundle_that_verifies(shipped: Path, kind: ExportFormat) -> None:
    """Each kind lies in a folder of its name, is what it is called, and keeps 98% of the classes."""
    bundle = Bundle(shipped / str(kind))
    assert bundle.verify().export_format == kind
    assert bundle.card["agreement_with_pytorch"]["top1"] >= 0.98
    assert bundle.card["agreement_with_pytorch"]["images"] == bundle.card["images"]["validation"]


def test_a_file_is_parsed_once(run: Run, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """edgenas parses each file once to convert, run and describe it, and once more where it verifies the bundle."""
    parsed: Counter[str] = Counter()

    def counting(parse: Callable[..., Any]) -> Callable[..., Any]:
        def count(model: bytes, *arguments: Any, **options: Any) -> Any:
            if sys._getframe(1).f_globals["__name__"].startswith("edgenas."):  # the quantizers parse for themselves
                parsed[sha256_hex(model)] += 1
            return parse(model, *arguments, **options)

        return count

    for name in ("load_from_string", "load_model_from_string"):
        monkeypatch.setattr(onnx, name, counting(getattr(onnx, name)))
    for table in (schema().Model, schema().ModelT):
        for name in ("GetRootAs", "InitFromPackedBuf"):
            if hasattr(table, name):
                monkeypatch.setattr(table, name, counting(getattr(table, name)))
    done = run.export_all(run.space.smallest, target, tmp_path, all_formats())
    exported = {sha256_hex(each.bundle.model_path.read_bytes()) for each in done}
    assert len(exported) == len(done)
    assert {digest: count for digest, count in parsed.items() if count != 1} == dict.fromkeys(exported, 2)


def test_archives_lie_beside_the_folders(shipped: Path) -> None:
    """There is a folder and a zip for each kind, and nothing else."""
    assert sorted(entry.name for entry in shipped.iterdir()) == sorted(
        name for kind in KINDS for name in (str(kind), f"{kind}.zip")
    )


def test_smaller_kinds_are_smaller(shipped: Path) -> None:
    """Float16 is smaller than float32, dynamic range than float16, though this network is mostly names."""
    sizes = {kind: Bundle(shipped / f"tflite-{kind}").model_path.stat().st_size for kind in ("fp32", "fp16", "dynamic")}
    assert sizes["dynamic"] < sizes["fp16"] < sizes["fp32"]


def test_int8_tflite_takes_and_gives_integers(shipped: Path) -> None:
    """Its input and output are int8 with scale and zero point, and no layer is float."""
    card = Bundle(shipped / "tflite-int8").card
    assert (card["input"]["dtype"], card["output"]["dtype"], card["float_layers"]) == ("int8", "int8", [])
    assert card["input"]["layout"] == "NHWC"
    assert card["input"]["scale"] > 0


def test_card_says_what_int8_was_calibrated_on(shipped: Path) -> None:
    """Number, source, method and seed of the calibration images are in the card, and the layers that lose most."""
    card = Bundle(shipped / "onnx-int8").card
    calibration = card["calibration"]
    assert calibration["images"] == 200
    assert calibration["source"] == "200 training images of digits"
    assert calibration["seed"] == 0
    errors = [layer["added_error"] for layer in card["layer_errors"]]
    assert 0 < len(errors) <= 10
    assert errors == sorted(errors, reverse=True)


def test_card_counts(shipped: Path, run: Run) -> None:
    """Sizes, parameters, MACs and the peak of activations are in the card; the peak is the float32 graph's in both."""
    genes = run.space.encode([run.space.smallest])
    cards = {kind: Bundle(shipped / f"tflite-{kind}").card for kind in ("fp32", "int8")}
    assert cards["fp32"]["macs"] == int(run.space.macs(genes)[0])
    assert cards["fp32"]["params"] == int(run.space.params(genes)[0])
    assert cards["fp32"]["activation_bytes"] == cards["int8"]["activation_bytes"]
    assert cards["int8"]["activation_of"] == "the float32 graph, its nodes in file order"
    assert cards["fp32"]["activation_peak_at"] in {name for name in _places(run)}


def _places(run: Run) -> list[str]:
    return [
        node.name
        for node in onnx.load_model_from_string(prepare(run.workspace, run.space.smallest).source.onnx).graph.node
    ]


def test_a_file_is_compared_on_some_of_many_images(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more validation images than are compared on, some are drawn, always the same, with their labels."""
    monkeypatch.setattr("edgenas.pipeline.prepared_model._MOST_COMPARED", 50)
    data = run.workspace.data
    reference, again = (prepare(run.workspace, run.space.smallest).parity_reference for _ in range(2))
    assert reference.source == "50 validation images of digits"
    assert np.array_equal(reference.inputs, again.inputs)
    inputs = data.to_inputs(data.validation.images, run.space.smallest.image_size)
    places = [int((inputs == image).all((1, 2, 3)).argmax()) for image in reference.inputs]
    assert places == sorted(set(places))
    assert reference.labels is not None
    assert np.array_equal(reference.labels, data.validation.labels[places])


def test_what_was_measured_is_in_the_card(finished: Path, target: Target, tmp_path: Path) -> None:
    """The chosen subnet's file was measured: its card has the median, the interval and the conditions."""
    run = Run(finished, progress=Silent())
    (choice,) = run.choices(target)
    measured = run.export(choice.arch, target, tmp_path / "ship").card["measured"]
    assert choice.deployments[0].measured is not None
    assert measured["median_ms"] == choice.deployments[0].measured.latency_ms
    assert measured["conditions_before"]
    assert not measured["synthetic"]


def test_second_export_writes_nothing(shipped: Path, trained: Path, target: Target) -> None:
    """What is there already is verified and left as it is, and each says so."""
    before = {path: path.stat().st_mtime_ns for path in shipped.rglob("*")}
    heard = Heard()
    run = Run(trained, progress=heard)
    run.export_all(run.space.smallest, target, shipped, KINDS)
    assert {path: path.stat().st_mtime_ns for path in shipped.rglob("*")} == before
    assert heard.lines == [f"export    already done ({shipped / str(kind)})" for kind in KINDS]


def test_damaged_bundle_is_written_anew(run: Run, target: Target, tmp_path: Path) -> None:
    """A bundle with a changed byte is not taken for done."""
    bundle = run.export(run.space.smallest, target, tmp_path / "ship")
    bundle.model_path.write_bytes(bundle.model_path.read_bytes()[:-1] + b"x")
    run.export(run.space.smallest, target, tmp_path / "ship").verify()


def test_kind_is_that_of_the_target(run: Run, target: Target, tmp_path: Path) -> None:
    """A target that runs LiteRT gets a TFLite file, unless another kind is asked for."""
    litert = Target(target.profile, runtime="litert", precision="int8")
    assert run.export(run.space.smallest, litert, tmp_path / "one").verify().export_format == ExportFormat(
        "tflite", "int8"
    )
    kind = ExportFormat("onnx", "fp16")
    assert run.export(run.space.smallest, litert, tmp_path / "two", export_format=kind).verify().export_format == kind


def test_file_that_fails_is_not_written(
    run: Run, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kind loses too much: it is not there, the other is, and a place to keep in float is named."""

    def failing(expected: Any, found: Any, precision: str, *, real: bool) -> Any:
        if precision == "int8":
            raise VerificationError("50.0% of 360 images keep their class, but at least 98% must")
        return proper(expected, found, precision, real=real)

    from edgenas.export import check_parity as proper

    monkeypatch.setattr("edgenas.pipeline.export.check_parity", failing)
    with pytest.raises(VerificationError) as caught:
        run.export_all(run.space.smallest, target, tmp_path, [ExportFormat("onnx", "int8"), ExportFormat()])
    message = str(caught.value)
    assert message.startswith("onnx-int8: 50.0% of 360 images keep their class")
    assert "--keep-float" in message
    assert message.endswith("(written: onnx-fp32)")
    assert isinstance(caught.value, FailedExportError)
    assert list(caught.value.failed) == ["onnx-int8"]
    assert [each.export_format for each in caught.value.done] == [ExportFormat()]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["onnx-fp32", "onnx-fp32.zip"]


def test_failed_check_removes_the_file_of_an_earlier_export(
    run: Run, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file fails, neither a bundle nor a zip of another network stays under its name; other kinds stay."""
    run.export_all(run.space.smallest, target, tmp_path, [ExportFormat(), ExportFormat("onnx", "fp16")])

    def failing(*arguments: Any, real: bool) -> Any:
        raise VerificationError("logits are off")

    monkeypatch.setattr("edgenas.pipeline.export.check_parity", failing)
    with pytest.raises(VerificationError, match="onnx-fp32: logits are off"):
        run.export_all(run.space.smallest, target, tmp_path, [ExportFormat()], ExportSettings(batch=2))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["onnx-fp16", "onnx-fp16.zip"]


@pytest.mark.parametrize("kind", INT8, ids=str)
def test_layer_that_is_named_stays_float(run: Run, target: Target, tmp_path: Path, kind: ExportFormat) -> None:
    """A layer kept in float is in the card, and the file still verifies as int8."""
    name = "classifier.linear"
    (done,) = run.export_all(run.space.smallest, target, tmp_path, [kind], ExportSettings(keep_float=(name,)))
    assert done.card["keep_float"] == [name]
    assert done.card["float_layers"]


def test_unknown_layer_is_refused(run: Run, target: Target, tmp_path: Path) -> None:
    """A layer that there is not is refused with the nearest, and nothing is left."""
    settings = ExportSettings(keep_float=("classifier.linaer",))
    with pytest.raises(UsageError, match=r"classifier\.linear"):
        run.export_all(run.space.smallest, target, tmp_path, [ExportFormat(), ExportFormat("onnx", "int8")], settings)
    assert not list(tmp_path.iterdir())


def test_layer_of_one_format_is_kept_there(run: Run, target: Target, tmp_path: Path) -> None:
    """TFLite needs no flatten: to keep that in float is for ONNX alone, and no mistake."""
    settings = ExportSettings(keep_float=("classifier.flatten",))
    done = run.export_all(run.space.smallest, target, tmp_path, INT8, settings)
    assert [each.card["keep_float"] for each in done] == [["classifier.flatten"], []]


def test_settings_without_effect_are_refused(run: Run, target: Target, tmp_path: Path) -> None:
    """Layers to keep in float and calibration mean nothing to float32, TensorRT's integers nothing to TFLite."""
    for settings, kind in (
        (ExportSettings(keep_float=("stem.conv",)), ExportFormat()),
        (ExportSettings(calibration=tmp_path), ExportFormat("onnx", "fp16")),
        (ExportSettings(method="minmax"), ExportFormat("tflite", "dynamic")),
    ):
        with pytest.raises(UsageError, match="give"):
            run.export_all(run.space.smallest, target, tmp_path, [kind], settings)
    with pytest.raises(UsageError, match="target tensorrt is for int8 ONNX; give --format onnx --precision int8"):
        make_for("tensorrt", [ExportFormat("tflite", "int8"), ExportFormat("onnx", "fp16")])


def test_only_the_format_with_a_variant_is_made_for_a_target() -> None:
    """For TensorRT the integers of ONNX are replaced, others stay."""
    formats = [ExportFormat(), ExportFormat("onnx", "int8"), ExportFormat("tflite", "int8")]
    assert list(map(str, make_for("tensorrt", formats))) == ["onnx-fp32", "onnx-int8-tensorrt", "tflite-int8"]


def test_symmetric_integers_have_no_zero_points(run: Run, target: Target, tmp_path: Path) -> None:
    """For TensorRT every zero point in the file is 0."""
    (done,) = run.export_all(
        run.space.smallest, target, tmp_path, [ExportFormat("onnx", "int8-tensorrt")], ExportSettings()
    )
    graph = onnx.load(done.bundle.model_path).graph
    points = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert points
    for tensor in graph.initializer:
        if tensor.name in points:
            assert not onnx.numpy_helper.to_array(tensor).any(), tensor.name
    assert done.bundle.path.name == "onnx-int8-tensorrt"
    assert done.archive == tmp_path / "onnx-int8-tensorrt.zip"
    assert done.bundle.verify().export_format == ExportFormat("onnx", "int8")
    # Which layers stay in float, and how fast it is, is for TensorRT to say, which localhost has not.
    assert [done.card[name] for name in ("for", "float_layers", "target", "measured")] == ["tensorrt", None, None, None]


@pytest.mark.parametrize("batch", [4, None])
@pytest.mark.parametrize("file_format", ["onnx", "tflite"])
def test_batch(run: Run, target: Target, tmp_path: Path, batch: int | None, file_format: str) -> None:
    """A file of a fixed or an open batch is proven on all images, though they are no multiple of it."""
    (done,) = run.export_all(
        run.space.smallest, target, tmp_path, [ExportFormat(file_format)], ExportSettings(batch=batch)
    )
    assert done.card["input"]["shape"][0] == batch
    assert done.bundle.verify().interface.batch == batch


@pytest.mark.parametrize("batch", [0, 5000])
def test_impossible_batch(batch: int) -> None:
    """No image and thousands at a time are refused."""
    with pytest.raises(UsageError, match="batch must be"):
        ExportSettings(batch=batch)


def test_weights_that_are_not_finite(run: Run, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subnet with a NaN is refused by the weight's name, and nothing is left."""
    subnet = run.workspace.evaluator.calibrated_subnet(run.space.smallest)
    with torch.no_grad():
        next(iter(subnet.parameters()))[0] = float("nan")
    monkeypatch.setattr(type(run.workspace.evaluator), "calibrated_subnet", lambda self, architecture: subnet)
    with pytest.raises(VerificationError, match=r"weight 'stem\.conv\.weight' .* holds NaN"):
        run.export_all(run.space.smallest, target, tmp_path, KINDS)
    assert not list(tmp_path.iterdir())


def test_bundle_is_no_folder_for_bundles(run: Run, target: Target, tmp_path: Path) -> None:
    """Bundles are not put into a bundle, which would not verify any more."""
    bundle = run.export(run.space.smallest, target, tmp_path / "ship")
    with pytest.raises(UsageError, match="is a bundle itself"):
        run.export_all(run.space.smallest, target, bundle.path, [ExportFormat()])
    bundle.verify()


def test_folder_of_something_else_is_refused_at_once(run: Run, target: Target, tmp_path: Path) -> None:
    """Where something else lies, nothing is computed, nothing is written, not for the other kinds either."""
    (tmp_path / "tflite-fp32").mkdir()
    (tmp_path / "tflite-fp32" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        run.export_all(run.space.smallest, target, tmp_path, [ExportFormat(), ExportFormat("tflite")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["tflite-fp32"]


def test_archive_of_something_else_is_refused_at_once(run: Run, target: Target, tmp_path: Path) -> None:
    """Where a zip is no bundle's, nothing is written, and the zip stays."""
    with zipfile.ZipFile(tmp_path / "tflite-fp32.zip", "w") as archive:
        archive.writestr("thesis.txt", "years of work")
    with pytest.raises(UsageError, match=r"tflite-fp32\.zip: .* move it away"):
        run.export_all(run.space.smallest, target, tmp_path, [ExportFormat(), ExportFormat("tflite")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["tflite-fp32.zip"]


# -- calibration images -------------------------------------------------------------------


def test_images_of_a_folder_calibrate(run: Run, target: Target, tmp_path: Path, images: Path) -> None:
    """Images of a folder take the place of training images; which and how many is in the card."""
    network = prepare(run.workspace, run.space.smallest, ExportSettings(calibration=images, method="minmax"))
    calibration = network.calibration
    assert calibration.images.shape == (12, 3, 16, 16)
    assert (calibration.method, calibration.source) == ("minmax", "12 images of folder pictures")


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no image"),
        (lambda folder: (folder / "3.jpg").write_bytes(b"no picture"), r"3\.jpg: cannot be read as an image"),
        (lambda folder: (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60]), r"1\.png: cannot be"),
        (lambda folder: (folder / "x.png").mkdir(), r"x\.png: cannot be read as an image"),
        (lambda folder: folder.rename(folder.with_name("away")), "cannot be read .No such file"),
    ],
)
def test_images_that_cannot_be_used(
    run: Run, target: Target, tmp_path: Path, images: Path, damage: Callable[[Path], object], rule: str
) -> None:
    """No image, one that is none, half of one, a folder and no folder: one line each, and nothing is left."""
    damage(images)
    settings = ExportSettings(calibration=images)
    with pytest.raises(UsageError, match=rule) as caught:
        run.export_all(run.space.smallest, target, tmp_path / "ship", [ExportFormat("onnx", "int8")], settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ship").exists()


def test_many_images_are_divided(tmp_path: Path) -> None:
    """Of 50 images 40 calibrate and 10 others prove: no image is in both."""
    from PIL import Image

    for number in range(50):
        Image.fromarray(np.full((2, 2), number, np.uint8)).save(tmp_path / f"{number}.png")
    settings = {"size": 2, "channels": 1, "scale": 1.0, "mean": (0.0,), "std": (1.0,), "crop": None, "antialias": True}
    shown, held = split_folder(tmp_path, settings)
    numbers = [sorted(images.inputs[:, 0, 0, 0].tolist()) for images in (shown, held)]
    assert [len(each) for each in numbers] == [40, 10]
    assert sorted(numbers[0] + numbers[1]) == list(range(50))
    assert held.source == f"10 other images of folder {tmp_path.name}"


def test_images_of_more_than_eight_bits_are_refused(run: Run, images: Path) -> None:
    """A picture of 16 bits a channel would be cut in silence; it is refused."""
    from PIL import Image

    Image.fromarray(np.full((9, 9), 70_00, np.uint16)).save(images / "deep.png")
    with pytest.raises(UsageError, match=r"deep\.png: cannot be read as an image \(it has more than 8 bits"):
        _ = prepare(run.workspace, run.space.smallest, ExportSettings(calibration=images)).calibration


# -- imported networks --------------------------------------------------------------------


@pytest.fixture
def imported(released: Write, tmp_path: Path) -> Run:
    """A run of imported weights, of a thin network at low resolution."""
    return import_weights(tmp_path / "imported", str(released()), {"resolutions": [64]}, progress=Silent())


def test_imported_network_is_exported_in_float(imported: Run, target: Target, tmp_path: Path) -> None:
    """Without data it is proven on noise; its card claims no accuracy and says what its batch norm is."""
    done = imported.export_all(imported.space.smallest, target, tmp_path / "ship", FLOATS)
    assert [each.export_format for each in done] == FLOATS
    for each in done:
        each.bundle.verify()
        assert each.card["accuracy"] == "not measured"
        assert each.card["agreement_with_pytorch"]["on"] == "32 images of noise"
        assert "not this subnet's own" in each.card["batch_norm"]
    assert (done[0].bundle.path / "labels.txt").read_text() == "class 0\nclass 1\nclass 2\nclass 3\n"
    settings = json.loads((done[0].bundle.path / "preprocessing.json").read_text())
    assert settings["mean"] == [0.485, 0.456, 0.406]
    assert (settings["size"], settings["crop"], settings["antialias"]) == (64, 0.875, True)


def test_imported_network_needs_images_for_int8(imported: Run, target: Target, tmp_path: Path) -> None:
    """int8 of a network without data asks for a folder of images; nothing is written."""
    with pytest.raises(UsageError, match="--calibration FOLDER"):
        imported.export_all(imported.space.smallest, target, tmp_path / "ship", [ExportFormat(), *INT8])
    assert not (tmp_path / "ship").exists()


def test_imported_network_with_images(
    imported: Run, target: Target, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a folder its batch norm is calibrated on these images, and so are integers; both are proven on them."""
    # An untrained network is undecided: any rounding changes its class.
    monkeypatch.setattr("edgenas.pipeline.export.check_parity", lambda *arguments, real: _loosely(*arguments))
    settings = ExportSettings(calibration=images)
    done = imported.export_all(imported.space.smallest, target, tmp_path / "ship", [ExportFormat(), *INT8], settings)
    for each in done:
        assert each.card["batch_norm"] == "calibrated on 12 images of folder pictures"
        on = each.card["agreement_with_pytorch"]["on"]
        assert on == "12 images of folder pictures, the same as for calibration"


def _loosely(expected: Any, found: Any, precision: str) -> Any:
    from edgenas.export import check_parity

    return check_parity(expected, found, precision, real=False)


def test_run_of_tables_alone_has_nothing_to_export(run: Run, tmp_path: Path, target: Target) -> None:
    """A run without weights says that it has none."""
    bare = Run(tmp_path / "bare", run.space, progress=Silent())
    with pytest.raises(RunError, match="has no trained supernet yet"):
        bare.export(bare.space.smallest, target, tmp_path / "ship")


# -- kinds --------------------------------------------------------------------------------


def test_pairs_that_do_not_exist_are_skipped_beside_others() -> None:
    """Of two formats, the one without a precision is skipped with a line."""
    kinds, skipped = combine_formats(["onnx", "tflite"], ["fp32", "dynamic", "fp32"])
    assert [str(kind) for kind in kinds] == ["onnx-fp32", "tflite-fp32", "tflite-dynamic"]
    assert skipped == ["onnx has no precision dynamic, it has fp32, fp16, int8: skipped"]


@pytest.mark.parametrize(
    ("formats", "precisions", "rule"),
    [
        (["onnx"], ["fp32", "dynamic"], "onnx has no precision 'dynamic'"),
        (["onnx", "coreml"], ["fp32"], "unknown format 'coreml'"),
        (["onnx", "tflite"], ["int4"], "no precision 'int4'"),
    ],
)
def test_pairs_that_nothing_stands_for_are_refused(formats: list[str], precisions: list[str], rule: str) -> None:
    """A precision that no format has, and an unknown format, are refused."""
    with pytest.raises(UsageError, match=rule):
        combine_formats(formats, precisions)


def test_target_of_a_kind(target: Target) -> None:
    """The target of a kind has its runtime and precision, and the threads of the one it came from."""
    two = Target(target.profile, threads=2)
    there = target_for(two, ExportFormat("tflite", "int8"))
    assert there is not None
    assert (there.runtime, there.precision, there.threads) == ("litert", "int8", 2)
    assert format_of(there) == ExportFormat("tflite", "int8")


def test_archive_holds_the_bundles_files(shipped: Path) -> None:
    """Unpacked, the zip is the folder."""
    with zipfile.ZipFile(shipped / "onnx-fp32.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files == {path.name: path.read_bytes() for path in (shipped / "onnx-fp32").iterdir()}


def test_demo_goes_on_without_the_quantiser(
    run: Run, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the libraries for int8 TFLite are missing, the demo says so in one line and has no such bundle."""

    def missing(*arguments: Any, **options: Any) -> bytes:
        raise MissingExtraError("needs ai-edge-quantizer; pip install 'edgenas[export]'")

    heard = Heard()
    monkeypatch.setattr("edgenas.pipeline.prepared_model.quantize", missing)
    told = Run(run.folder.root, progress=heard)
    assert try_export_int8_tflite(prepare(told.workspace, run.space.smallest), target) is None
    assert heard.lines == ["export    no tflite-int8: needs ai-edge-quantizer; pip install 'edgenas[export]'"]


@pytest.mark.slow
def test_whole_road_in_int8_on_litert(finished: Path, tmp_path: Path, target: Target) -> None:
    """A target that runs int8 TFLite is profiled, searched and chosen for with such files."""
    run = Run(shutil.copytree(finished, tmp_path / "copy"), progress=Silent())
    litert = Target(target.profile, runtime="litert", precision="int8")
    run.profile(litert, minutes=0.01)
    run.search([litert])
    choice = run.choose({litert: Budget(latency="50ms")}, max_drop=0.2)
    # What was measured is the very file that would be exported.
    model = prepare(run.workspace, choice.arch).build(format_of(litert))
    with MeasurementStore(run.workspace.measurement_log(litert), litert, SETTINGS) as measurer:
        assert choice.deployments[0].measured is not None
        assert measurer.measure_reliably(model).median_ms == choice.deployments[0].measured.latency_ms
