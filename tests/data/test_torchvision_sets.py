"""Data sets of torchvision: how its files become a data set with splits."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgenas.data import DataSet, load_data
from edgenas.data.torchvision_import import import_torchvision
from edgenas.errors import EdgeNASError


@pytest.fixture(scope="module")
def fashion_mnist(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """The real Fashion-MNIST, from its published files."""
    cache = tmp_path_factory.mktemp("cache")
    raw = cache / "edgenas/data/FashionMNIST/raw"
    raw.mkdir(parents=True)
    for path in (data_folder / "FashionMNIST/raw").glob("*.gz"):
        (raw / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        return load_data("fashion_mnist")


def test_fashion_mnist_is_split(fashion_mnist: DataSet) -> None:
    """Of 60,000 training images 2,000 are for validation, 200 of each class; the 10,000 test images are its own."""
    data = fashion_mnist
    assert (len(data.train), len(data.validation), len(data.test)) == (58_000, 2_000, 10_000)
    assert np.bincount(data.validation.labels).tolist() == [200] * 10
    assert not set(data.train.indices.tolist()) & set(data.validation.indices.tolist())
    assert data.labels[9] == "Ankle boot"


def test_its_inputs_are_about_standard(fashion_mnist: DataSet) -> None:
    """Mean 0 and deviation 1 over training images, to the rounding of the published constants."""
    inputs = fashion_mnist.to_inputs(fashion_mnist.train.images[:5000], (28, 28))
    assert inputs.shape == (5000, 3, 28, 28)
    assert abs(inputs.mean()) < 0.02
    assert abs(inputs.std() - 1) < 0.02


@pytest.fixture
def cifar(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Synthetic images in the place of CIFAR-10, twenty of each class; returns the training images."""
    images = np.random.default_rng(0).integers(0, 256, (4000, 32, 32, 3)).astype(np.uint8)

    def make(root: str, train: bool, download: bool) -> Any:
        count = len(images) if train else 40
        classes = [f"class {number}" for number in range(10)]
        return SimpleNamespace(data=images[:count], targets=list(np.arange(count) % 10), classes=classes)

    monkeypatch.setattr(import_torchvision("a test").datasets, "CIFAR10", make)
    return images


def test_images_in_colour_keep_their_channels(cifar: np.ndarray) -> None:
    """CIFAR's images are RGB: inputs have three different channels, each scaled by its own mean and deviation."""
    data = load_data("cifar10")
    assert (len(data.train), len(data.validation), len(data.test)) == (2_000, 2_000, 40)
    image = data.train.images[:1]
    expected = (image[0, 5, 7] / 255 - [0.4914, 0.4822, 0.4465]) / [0.247, 0.2435, 0.2616]
    np.testing.assert_allclose(data.to_inputs(image, (32, 32))[0, :, 5, 7], expected, atol=1e-5)


def test_a_failed_download_says_where_the_files_may_be_put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a network the folder of the cache is named."""

    def fail(root: str, train: bool, download: bool) -> Any:
        raise OSError("no route to host")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(import_torchvision("a test").datasets, "CIFAR100", fail)
    with pytest.raises(EdgeNASError, match=r"cifar100 cannot be downloaded to .*edgenas/data \(no route to host\)"):
        load_data("cifar100")
