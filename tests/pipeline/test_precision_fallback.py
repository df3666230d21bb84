"""What is suggested where a file fails its check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from edgenas.export.onnx.session import OnnxFile
from edgenas.export.quantize.layer_errors import LayerError
from edgenas.pipeline import Run
from edgenas.pipeline.precision_fallback import PrecisionFallback, find_float_places
from edgenas.pipeline.prepared_model import ExportSettings, PreparedModel, prepare
from edgenas.pipeline.progress import Silent
from edgenas.runtimes import ExportFormat
from edgenas.runtimes.building import layer_errors

INT8 = [ExportFormat("onnx", "int8"), ExportFormat("tflite", "int8")]


@pytest.fixture(scope="module")
def spoilt(trained: Path) -> PreparedModel:
    """A network that computes the same with one channel before a ReLU a thousand times as large: too wide for int8."""
    run = Run(trained, progress=Silent())
    network = prepare(run.workspace, run.space.smallest)
    model = onnx.load_model_from_string(network.source.onnx)
    for tensor in model.graph.initializer:
        place, _, part = tensor.name.partition("stage1.block1.")
        factor = {"expand.conv.weight": 1000, "expand.conv.bias": 1000, "depthwise.conv.weight": 0.001}.get(part)
        if not place and factor:
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0] *= factor
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return replace(network, source=replace(network.source, onnx=OnnxFile(model.SerializeToString())))


def _remedy(network: PreparedModel, kind: ExportFormat) -> tuple[PrecisionFallback | None, float]:
    """The remedy, and the relative error of the logits on all images."""
    model, base = network.build(kind), network.source.float_file(kind.runtime)
    found = kind.runtime.run(model, network.parity_reference.inputs)
    errors = layer_errors(base, model, kind, network.parity_reference.inputs[:16])
    expected = network.parity_reference.expected
    lost = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    return find_float_places(network, kind, found, errors), float(lost)


@pytest.mark.parametrize("kind", INT8, ids=str)
def test_what_is_suggested_helps(spoilt: PreparedModel, kind: ExportFormat) -> None:
    """The place that spoils the network is found; with it in float the file loses what was said, a third at most."""
    remedy, before = _remedy(spoilt, kind)
    assert remedy is not None
    assert remedy.places[0] in ("stage1", "stage1.block1")
    settings = ExportSettings(keep_float=remedy.places)
    again, after = _remedy(replace(spoilt, settings=settings), kind)
    assert after < before / 3
    assert again is not None
    assert again.before == pytest.approx(remedy.after)
    assert not set(again.tried) & set(remedy.places)
    assert " ".join(f"--keep-float {place}" for place in remedy.places) in str(remedy)


def test_what_does_not_help_is_not_suggested(spoilt: PreparedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no place helps, it says so, naming what was tried."""
    monkeypatch.setattr("edgenas.pipeline.precision_fallback._error_with_float", lambda *arguments: 1.0)
    layers = [LayerError(name, 0.1, 0.1) for name in ("stage2.block1.se.mul", "stem.conv", "stage2.block1.add")]
    remedy = find_float_places(spoilt, INT8[0], spoilt.parity_reference.expected + 1, layers)
    assert remedy is not None
    assert (remedy.places, remedy.tried) == ((), ("stage2.block1", "stem", "stage2"))
    assert "keeping any of stage2.block1, stem, stage2 in float does not help" in str(remedy)


def test_nothing_is_tried_where_all_is_float(spoilt: PreparedModel) -> None:
    """A layer that is in float already is no candidate."""
    network = replace(spoilt, settings=ExportSettings(keep_float=("stem",)))
    assert (
        find_float_places(network, INT8[0], spoilt.parity_reference.expected, [LayerError("stem.conv", 0.1, 0.1)])
        is None
    )
