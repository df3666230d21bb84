"""From an image to an input, against Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgenas.data.preprocess import preprocess

SETTINGS: dict[str, Any] = {"size": 24, "channels": 1, "scale": 1.0, "mean": [0.0], "std": [1.0]}


def _image(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(8, 8), (24, 24), (31, 50), (100, 40), (224, 200)])
@pytest.mark.parametrize("crop", [None, 0.875, 1.0])
def test_antialiased_resizing_equals_pillow(shape: tuple[int, int], crop: float | None) -> None:
    """Shrunk with antialiasing, whole or its middle square, an image is what Pillow makes of it in floats."""
    from PIL import Image

    image = _image(shape)
    height, width = shape
    part = (width, height) if crop is None else (crop * min(shape),) * 2
    left, top = (width - part[0]) / 2, (height - part[1]) / 2
    box = (left, top, left + part[0], top + part[1])
    expected = np.asarray(Image.fromarray(image.astype(np.float32)).resize((24, 24), Image.Resampling.BILINEAR, box))
    actual = preprocess(image, {**SETTINGS, "crop": crop, "antialias": True})
    np.testing.assert_allclose(actual[0, 0], expected, atol=1e-2)


def test_layout_moves_the_channels_last() -> None:
    """NHWC holds the same numbers, contiguous, channels last."""
    settings = {**SETTINGS, "channels": 3, "mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 4.0]}
    first = preprocess(_image((9, 9, 3)), settings)
    last = preprocess(_image((9, 9, 3)), {**settings, "layout": "NHWC"})
    assert last.shape == (1, 24, 24, 3)
    assert last.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), first)
