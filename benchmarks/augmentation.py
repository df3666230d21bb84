"""Print how many training images a second are made, with each augmentation and with torchvision's transforms.

python -m benchmarks.augmentation

Synthetic photos: 32 x 32 in memory, and JPEG files of 500 x 375 that become 224 x 224. Torch has one thread; files are
read by as many threads as cores. torchvision's transforms are called image by image, because each draws anew.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from edgenas.data import Augmentation, DataSet, DataSetPreprocessing, ImagePaths, RandAugment, Split
from edgenas.data.images import map_images
from edgenas.data.torchvision_import import import_torchvision

IMAGES, ROUNDS = 128, 9
CROP = Augmentation(crop=(0.35, 1.0), flip=True)
OURS = {
    "crop, flip": CROP,
    "crop, flip, randaugment": replace(CROP, randaugment=RandAugment()),
    "crop, flip, erasing, mixup": replace(CROP, erasing=0.25, mixup=0.2),
    "turn, scale, shift, flip": Augmentation(turn=15.0, scale=0.1, shift=0.1, flip=True),
}


def make_photo(height: int, width: int, seed: int) -> np.ndarray:
    """Return smooth random colours, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def make_data_set(images: Any, augmentation: Augmentation) -> DataSet:
    """Return a data set of ten classes with the same images in all parts."""
    split = Split(images, np.arange(IMAGES) % 10, np.arange(IMAGES))
    preprocessing = DataSetPreprocessing(3, 1 / 255, (0.5,) * 3, (0.25,) * 3)
    return DataSet("photos", tuple("abcdefghij"), preprocessing, split, split, split, augmentation)


def images_per_second(rows: dict[str, Callable[[], object]]) -> dict[str, str]:
    """Return the median over rounds of each row; a round runs all rows in turn, so that a busy machine slows all."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(1 + ROUNDS):
        for name, make_batch in rows.items():
            began = time.perf_counter()
            make_batch()
            seconds[name].append(time.perf_counter() - began)
    return {name: f"{IMAGES / statistics.median(times[1:]):,.0f}" for name, times in seconds.items()}


def torchvision_rows(size: int) -> dict[str, Callable[[np.ndarray], torch.Tensor]]:
    """Return torchvision's transforms of one image by the name of their row."""
    import_torchvision("this benchmark")
    from torchvision.transforms import v2

    finish = (
        v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.5,) * 3, (0.25,) * 3),
    )  # fmt: skip
    crop = v2.Compose([v2.RandomResizedCrop(size, scale=(0.35, 1.0)), *finish])
    warp = v2.Compose([v2.Resize((size, size)), v2.RandomAffine(15, (0.05, 0.05), (0.9, 1.1)), *finish])
    return {
        "torchvision: crop, flip": lambda image: crop(Image.fromarray(image)),
        "torchvision: turn, scale, shift, flip": lambda image: warp(Image.fromarray(image)),
    }


def apply_to_each(transform: Callable[[np.ndarray], torch.Tensor], images: Any) -> torch.Tensor:
    """Return a batch, made by one thread."""
    return torch.stack([transform(images[index]) for index in range(IMAGES)])


def rows_of(images: Any, size: int) -> dict[str, str]:
    """Return images per second of every row of the table."""
    rows: dict[str, Callable[[], object]] = {}
    rng = np.random.default_rng(0)
    if isinstance(images, ImagePaths):
        rows["files read, nothing changed"] = lambda: map_images(lambda image, _: image, images)
    for name, augmentation in OURS.items():
        if augmentation.crop or not isinstance(images, ImagePaths):
            data = make_data_set(images, augmentation)
            rows[name] = partial(data.to_training_batch, np.arange(IMAGES), (size, size), rng)
    for name, transform in torchvision_rows(size).items():
        rows[name] = partial(apply_to_each, transform, images)
    return images_per_second(rows)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = tuple(Path(folder, f"{number}.jpg") for number in range(IMAGES))
        for number, path in enumerate(paths):
            Image.fromarray(make_photo(375, 500, number)).save(path, quality=90)
        small = rows_of(np.stack([make_photo(32, 32, number) for number in range(IMAGES)]), 32)
        large = rows_of(ImagePaths(paths), 224)
    print("| images/s | 32 x 32 in memory | JPEG files, to 224 x 224 |\n|---|---|---|")
    for name in small | large:
        print(f"| {name} | {small.get(name, '')} | {large.get(name, '')} |")


if __name__ == "__main__":
    main()
