"""A subnet's accuracy is a function of its architecture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from edgenas.accuracy import Evaluator
from edgenas.data import DataSet, ImageFiles, load_data
from edgenas.data.images import Images, Labels
from edgenas.ofa import Supernet
from edgenas.space import MobileNetV3


@pytest.fixture(scope="module")
def digits() -> DataSet:
    """The real digits."""
    return load_data("digits")


@pytest.fixture(scope="module")
def evaluator(tiny: MobileNetV3, digits: DataSet) -> Evaluator:
    """An evaluator of an untrained supernet."""
    return Evaluator(Supernet(tiny), digits, seed=0)


def _bytes(evaluator: Evaluator, space: MobileNetV3) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in evaluator.calibrated_subnet(space.largest).weights().items()}


def test_an_architecture_always_gives_the_same_weights(
    evaluator: Evaluator, tiny: MobileNetV3, digits: DataSet
) -> None:
    """Statistics are calibrated to the same bits each time, by a second evaluator too, whatever ran in between."""
    first = _bytes(evaluator, tiny)
    evaluator(tiny.smallest)
    np.random.seed(5)
    torch.manual_seed(5)
    assert _bytes(evaluator, tiny) == first
    assert _bytes(Evaluator(Supernet(tiny), digits, seed=0), tiny) == first


def test_another_seed_calibrates_on_other_images(evaluator: Evaluator, tiny: MobileNetV3, digits: DataSet) -> None:
    """The seed chooses the calibration images: only statistics differ."""
    one, other = _bytes(evaluator, tiny), _bytes(Evaluator(Supernet(tiny), digits, seed=1), tiny)
    changed = {name for name in one if one[name] != other[name]}
    assert changed
    assert all(name.endswith(("running_mean", "running_var")) for name in changed)


def test_statistics_are_those_of_training_images(evaluator: Evaluator, tiny: MobileNetV3, digits: DataSet) -> None:
    """The stem's running mean is near the mean of its convolution over all training images."""
    subnet = evaluator.calibrated_subnet(tiny.largest)
    stem = subnet.get_submodule("stem")
    inputs = torch.from_numpy(digits.to_inputs(digits.train.images, (8, 8)))
    with torch.no_grad():
        features = nn.functional.conv2d(inputs, stem.get_parameter("conv.weight"), padding=1)
    mean = stem.get_buffer("bn.running_mean")
    torch.testing.assert_close(mean, features.mean((0, 2, 3)), rtol=0, atol=0.05)


def test_the_supernet_is_left_as_it_was(evaluator: Evaluator, tiny: MobileNetV3, digits: DataSet) -> None:
    """Evaluation calibrates the copy, not the supernet."""
    supernet = Supernet(tiny)
    Evaluator(supernet, digits)(tiny.largest)
    torch.testing.assert_close(supernet.state_dict(), Supernet(tiny).state_dict(), rtol=0, atol=0)


def test_accuracy_is_the_share_of_right_answers(evaluator: Evaluator, tiny: MobileNetV3, digits: DataSet) -> None:
    """Over the validation split, at the architecture's resolution: as counted from the logits."""
    subnet = evaluator.calibrated_subnet(tiny.smallest)
    logits = evaluator.logits(subnet, digits.validation.images, (6, 6))
    assert logits.shape == (360, 10)
    right = sum(int(np.argmax(row)) == label for row, label in zip(logits, digits.validation.labels, strict=True))
    assert evaluator(tiny.smallest) == right / 360
    relabelled = dataclasses.replace(digits.validation, labels=logits.argmax(1))
    assert evaluator.accuracy(subnet, relabelled, (6, 6)) == 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class _CountedFiles(ImageFiles):
    """Images as if they were files; ``reads`` gets a place for each that is read."""

    images: Images
    reads: list[int]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Images:
        self.reads.append(index)
        image: Images = self.images[index]
        return image

    def select(self, indices: Labels) -> _CountedFiles:
        return _CountedFiles(self.images[indices], self.reads)


@pytest.mark.parametrize(("limit", "reads"), [(10**9, 360), (0, 3 * 360)], ids=["they fit", "they do not fit"])
def test_files_are_read_once_for_all_subnets(
    tiny: MobileNetV3, digits: DataSet, monkeypatch: pytest.MonkeyPatch, limit: int, reads: int
) -> None:
    """Three evaluations read each validation image once where all fit into memory, and are equal."""
    monkeypatch.setattr("edgenas.accuracy.evaluate._KEPT_BYTES", limit)
    images = digits.validation.images
    assert isinstance(images, np.ndarray)
    files = _CountedFiles(images, [])
    data = dataclasses.replace(digits, validation=dataclasses.replace(digits.validation, images=files))
    evaluator = Evaluator(Supernet(tiny), data)
    accuracies = [evaluator(tiny.largest) for _ in range(3)]
    assert len(files.reads) == reads
    subnet = evaluator.calibrated_subnet(tiny.largest)
    assert accuracies == [evaluator.accuracy(subnet, data.validation, tiny.largest.image_size)] * 3
