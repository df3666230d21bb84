"""Running TFLite files: layouts, batches, integers, and files that the runtime refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgenas.errors import MissingExtraError, ModelError, UsageError
from edgenas.export.tflite.interpreter import run_tflite
from edgenas.export.tflite.writer import build_tflite

Graphs = Callable[..., bytes]
IMAGES = np.random.default_rng(0).standard_normal((6, 3, 4, 5), dtype=np.float32)
DOUBLE: tuple[str, str, dict[str, int]] = ("Add", "x x -> y", {})


@pytest.mark.parametrize("batch", [1, 3, "N"])
def test_images_are_run_in_the_models_batches(small_graph: Graphs, batch: int | str) -> None:
    """All images come back in order, for models of any batch."""
    actual = run_tflite(build_tflite(small_graph((batch, 3, 4, 5), DOUBLE)), IMAGES)
    np.testing.assert_array_equal(actual, 2 * np.moveaxis(IMAGES, 1, -1))


def test_a_file_is_run_like_its_bytes(small_graph: Graphs, tmp_path: Path) -> None:
    """A path may be given instead of bytes."""
    path = tmp_path / "double.tflite"
    path.write_bytes(build_tflite(small_graph((1, 3, 4, 5), DOUBLE)))
    np.testing.assert_array_equal(run_tflite(path, IMAGES), 2 * np.moveaxis(IMAGES, 1, -1))


def test_a_model_of_channels_first_gets_the_images_as_they_are(small_graph: Graphs) -> None:
    """A file whose input is (N, C, H, W) is fed without transposing."""
    file = build_tflite(small_graph((1, 5, 3, 4), DOUBLE))  # as TFLite (1, 3, 4, 5), which is the images' own shape
    np.testing.assert_array_equal(run_tflite(file, IMAGES), 2 * IMAGES)


def test_a_cube_is_taken_for_channels_last(small_graph: Graphs) -> None:
    """If both layouts fit, the input is (N, H, W, C), as always in TFLite."""
    cube = np.ascontiguousarray(IMAGES[:, :, :3, :3])
    actual = run_tflite(build_tflite(small_graph((1, 3, 3, 3), DOUBLE)), cube)
    np.testing.assert_array_equal(actual, 2 * np.moveaxis(cube, 1, -1))


@pytest.mark.parametrize(
    ("images", "rule"),
    [
        (IMAGES.astype(np.float64), "float32"),
        (IMAGES[:, :, :3], "(N, 3, 4, 5)"),
        (IMAGES[:0], "N above 0"),
        (IMAGES[0], "(N, 3, 4, 5)"),
        (IMAGES[:5], "3 images at a time"),
    ],
)
def test_images_that_do_not_fit_are_refused(small_graph: Graphs, images: np.ndarray, rule: str) -> None:
    """Wrong type, shape or number of images is refused with the rule."""
    with pytest.raises(UsageError) as caught:
        run_tflite(build_tflite(small_graph((3, 3, 4, 5), DOUBLE)), images)
    assert rule in str(caught.value)


@pytest.mark.parametrize("model", [b"no model", bytes(1000)])
def test_a_model_that_the_runtime_refuses_is_one_line(model: bytes) -> None:
    """The runtime's reason arrives on one line."""
    with pytest.raises(ModelError) as caught:
        run_tflite(model, IMAGES)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path without a file is named."""
    with pytest.raises(ModelError, match=r"gone\.tflite"):
        run_tflite(tmp_path / "gone.tflite", IMAGES)


def test_a_missing_runtime_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without LiteRT the pip command is given."""
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgenas\[litert\]'"):
        run_tflite(b"", IMAGES)


def test_the_runtime_prints_nothing(small_graph: Graphs, tmp_path: Path) -> None:
    """Neither LiteRT nor XNNPACK says anything on the standard streams, and these work afterwards."""
    (tmp_path / "double.tflite").write_bytes(build_tflite(small_graph((1, 3, 4, 5), DOUBLE)))
    script = (
        "import sys, pathlib, numpy as np\n"
        "from edgenas.export.tflite.interpreter import run_tflite\n"
        "run_tflite(pathlib.Path(sys.argv[1]), np.zeros((1, 3, 4, 5), np.float32))\n"
        "print('end', file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "double.tflite")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert (done.stdout, done.stderr) == ("", "end\n")


@pytest.mark.parametrize(
    ("name", "size", "largest", "classes"),
    [
        ("mlperf_tiny_vww96_float", 96, 1, 2),
        ("mlperf_tiny_vww96_int8", 96, 1, 2),
        ("mlperf_tiny_resnet8_int8", 32, 255, 10),
    ],
)
def test_published_files_give_probabilities(
    data_folder: Path, name: str, size: int, largest: float, classes: int
) -> None:
    """Files of others, with floats and with integers inside, end in a softmax: their rows sum to 1."""
    images = np.random.default_rng(1).random((3, 3, size, size), dtype=np.float32) * np.float32(largest)
    actual = run_tflite(data_folder / "models" / f"{name}.tflite", images)
    assert actual.shape == (3, classes)
    assert actual.min() >= 0
    np.testing.assert_allclose(actual.sum(axis=1), 1, atol=0.05)


def test_unsigned_integers_become_the_numbers_they_stand_for(data_folder: Path) -> None:
    """A uint8 output of scale 1/256 and zero point 0 gives multiples of 1/256."""
    images = np.random.default_rng(1).random((2, 3, 160, 160), dtype=np.float32)
    actual = run_tflite(data_folder / "models" / "mobilenet_v1_0.5_160_uint8.tflite", images)
    assert actual.shape == (2, 1001)
    np.testing.assert_array_equal(actual * 256, np.rint(actual * 256))
    assert actual.max() > 0


def test_quantised_and_float_twins_agree(data_folder: Path) -> None:
    """An int8 file gives nearly the probabilities of its float twin."""
    images = np.random.default_rng(1).random((4, 3, 96, 96), dtype=np.float32)
    first, second = (
        run_tflite(data_folder / "models" / f"mlperf_tiny_vww96_{kind}.tflite", images) for kind in ("float", "int8")
    )
    np.testing.assert_allclose(first, second, atol=0.1)


def test_a_file_with_another_processors_operator_is_refused(data_folder: Path) -> None:
    """A file compiled for another chip is refused on one line, naming the operator."""
    path = data_folder / "models" / "broken" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    with pytest.raises(ModelError, match="edgetpu-custom-op") as caught:
        run_tflite(path, np.zeros((1, 3, 128, 128), np.float32))
    assert "\n" not in str(caught.value)
