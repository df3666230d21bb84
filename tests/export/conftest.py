"""What the tests of export share: a small space, lively weights, and a bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.export import Bundle, build_onnx, random_weights, run_onnx, write_bundle
from edgenas.export.preprocess import preprocess
from edgenas.space import Architecture, MobileNetV3

Weights = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def small_space() -> MobileNetV3:
    """The space of the digits."""
    return MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)


@pytest.fixture(scope="session")
def lively_weights() -> Callable[[Architecture, int], Weights]:
    """Random weights whose batch norms and biases do something."""

    def make(architecture: Architecture, seed: int) -> Weights:
        rng = np.random.default_rng(seed)
        weights = random_weights(architecture, seed)
        for name, array in weights.items():
            if name.endswith("running_var"):
                weights[name] = rng.uniform(0.5, 2.0, array.shape).astype(np.float32)
            elif array.ndim == 1:
                weights[name] = (array + rng.normal(0, 0.2, array.shape)).astype(np.float32)
        return weights

    return make


@pytest.fixture(scope="session")
def bundle_arguments(small_space: MobileNetV3) -> dict[str, Any]:
    """Arguments of write_bundle for the smallest network and one grey image."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 17, (8, 8), dtype=np.uint8)
    settings = {"size": 24, "channels": 3, "scale": 1 / 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    architecture = small_space.smallest
    model = build_onnx(architecture, random_weights(architecture))
    entry = preprocess(image, settings)
    return {
        "model": model,
        "preprocessing": settings,
        "labels": [f"digit {number}" for number in range(10)],
        "sample_image": image,
        "sample_input": entry,
        "expected": run_onnx(model, entry),
        "card": {"architecture": architecture.id, "accuracy": 0.97, "metrics": {"macs": 12}},
    }


@pytest.fixture
def bundle(tmp_path: Path, bundle_arguments: dict[str, Any]) -> Bundle:
    """A fresh bundle in a folder with a space in its name."""
    return write_bundle(tmp_path / "to ship", **bundle_arguments)
