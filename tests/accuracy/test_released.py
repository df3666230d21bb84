"""Once-for-All's released accuracy predictor: features, arithmetic, files, refused input."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgenas.accuracy import ReleasedPredictor
from edgenas.errors import FormatError, MissingExtraError, UsageError
from edgenas.space import MobileNetV3, ProxylessNAS, SearchSpace, Stage

Tensors = dict[str, npt.NDArray[np.float32]]

_SPACE = MobileNetV3(width=0.5, classes=10)
_SIZES = (("0", 400, 128), ("2", 400, 400), ("4", 400, 400), ("6", 1, 400))


def _zeros() -> Tensors:
    """Weights of the right names and shapes, all zero."""
    tensors: Tensors = {}
    for layer, out, entry in _SIZES:
        tensors[f"{layer}.weight"] = np.zeros((out, entry), dtype=np.float32)
        tensors[f"{layer}.bias"] = np.zeros(out, dtype=np.float32)
    return tensors


def _random() -> Tensors:
    """Weights that let all features through to an answer."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.1, zeros.shape).astype(np.float32) for name, zeros in _zeros().items()}


def _write(path: Path, tensors: Tensors) -> Path:
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def predictor() -> ReleasedPredictor:
    """A predictor of random weights."""
    return ReleasedPredictor(_SPACE, _random())


# -- features and arithmetic --------------------------------------------------------------


def test_features_by_hand() -> None:
    """One-hot kernel sizes, then expand ratios, then the resolution; zeros for skipped blocks."""
    lists = {
        "ks": [3, 5, 7, 3, 5, 3, 3, 3, 7, 7, 7, 7, 3, 3, 3, 3, 5, 5, 5, 5],
        "e": [3, 4, 6, 3, 6, 3, 3, 3, 4, 4, 4, 4, 3, 3, 3, 3, 6, 6, 6, 6],
        "d": [3, 2, 4, 2, 2],
    }
    live = [0, 1, 2, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17]
    kernels = [(3, 5, 7).index(lists["ks"][block]) for block in live]
    ratios = [(3, 4, 6).index(lists["e"][block]) for block in live]
    expected = np.zeros(128)
    expected[[3 * block + place for block, place in zip(live, kernels, strict=True)]] = 1
    expected[[60 + 3 * block + place for block, place in zip(live, ratios, strict=True)]] = 1
    expected[120 + 3] = 1  # (160 - 112) // 16
    genes = _SPACE.encode([_SPACE.from_ofa(lists, 160)])
    assert np.array_equal(ReleasedPredictor(_SPACE, _zeros()).one_hot_features(genes), expected[None])


@pytest.mark.parametrize(("resolution", "place"), [(128, 1), (132, 1), (140, 1), (144, 2), (220, 6), (224, 7)])
def test_the_resolution_in_steps_of_sixteen(resolution: int, place: int) -> None:
    """Resolutions between two steps belong to the lower one."""
    genes = _SPACE.encode([_SPACE.smallest.at_resolution(resolution)])
    features = ReleasedPredictor(_SPACE, _zeros()).one_hot_features(genes)
    assert np.flatnonzero(features[0, 120:]).tolist() == [place]


def test_the_network_by_hand() -> None:
    """224 pixels give 2 - 0.5 after the first layer, doubled and added to; a negative sum is cut at zero."""
    tensors = _zeros()
    tensors["0.weight"][0, 127], tensors["0.bias"][0] = 2, -0.5
    tensors["0.weight"][1, 127] = -3
    tensors["2.weight"][0, :2] = (2, 100)
    tensors["4.weight"][5, 0] = 1
    tensors["6.weight"][0, 5], tensors["6.bias"][0] = 0.25, 0.125
    predictor = ReleasedPredictor(_SPACE, tensors)
    genes = _SPACE.encode([_SPACE.smallest.at_resolution(224), _SPACE.smallest])
    # (2 - 0.5) * 2 * 0.25 + 0.125; and without 224 pixels the first layer's -0.5 is cut to zero
    assert predictor(genes).tolist() == [0.875, 0.125]


def test_dead_genes_change_nothing(predictor: ReleasedPredictor) -> None:
    """Genes of skipped blocks may have any value."""
    genes = _SPACE.sample(50, np.random.default_rng(0))
    other = np.where(_SPACE.dead_genes(genes), 2, genes)
    assert (genes != other).any()
    assert np.array_equal(predictor(genes), predictor(other))


def test_an_empty_matrix_gives_an_empty_vector(predictor: ReleasedPredictor) -> None:
    """An empty matrix gives an empty vector."""
    assert predictor(_SPACE.encode([])).shape == (0,)


@given(st.integers(0, 2**32 - 1))
def test_a_matrix_is_its_rows(predictor: ReleasedPredictor, seed: int) -> None:
    """Every architecture gets the answer that it gets alone."""
    genes = _SPACE.sample(5, np.random.default_rng(seed))
    alone = [predictor(genes[index : index + 1])[0] for index in range(5)]
    np.testing.assert_allclose(predictor(genes), alone, rtol=1e-4, atol=1e-6)


def test_a_smaller_space_is_known_too() -> None:
    """Fewer choices, and stages of fewer blocks, keep their features' places."""
    space = MobileNetV3(width=1.0, resolutions=(224,), kernel_sizes=(5,), expand_ratios=(6,), depths=(1, 2))
    features = ReleasedPredictor(space, _zeros()).one_hot_features(space.encode([space.smallest]))
    first_blocks = [0, 4, 8, 12, 16]
    expected = [3 * block + 1 for block in first_blocks] + [60 + 3 * block + 2 for block in first_blocks] + [127]
    assert np.flatnonzero(features[0]).tolist() == expected


# -- files ------------------------------------------------------------------------------------


def test_a_checkpoint_becomes_a_file_without_torch(predictor: ReleasedPredictor, tmp_path: Path) -> None:
    """Read from PyTorch's file, saved and loaded, it answers the same bits; saved again it is the same bytes."""
    imported = ReleasedPredictor.load_checkpoint(_write(tmp_path / "p.pth", _random()), _SPACE)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    imported.save(first)
    loaded = ReleasedPredictor.load(first, _SPACE)
    loaded.save(second)
    genes = _SPACE.sample(20, np.random.default_rng(0))
    assert first.read_bytes() == second.read_bytes()
    assert np.array_equal(imported(genes), predictor(genes))
    assert np.array_equal(loaded(genes), predictor(genes))


def test_a_wrapped_predictor_is_read(predictor: ReleasedPredictor, tmp_path: Path) -> None:
    """Names within wrappers are those of the predictor."""
    path = _write(tmp_path / "p.pth", {f"module._orig_mod.{name}": tensor for name, tensor in _random().items()})
    genes = _SPACE.sample(20, np.random.default_rng(0))
    assert np.array_equal(ReleasedPredictor.load_checkpoint(path, _SPACE)(genes), predictor(genes))


def test_a_wrong_shape_names_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    """A predictor of another size is refused, naming the file, the tensor, and what it should and does hold."""
    tensors = _zeros() | {"2.weight": np.zeros((400, 300), dtype=np.float32)}
    path = _write(tmp_path / "p.pth", tensors)
    with pytest.raises(FormatError, match=r"p\.pth: tensor '2\.weight' .* must be 400x400, but is 400x300"):
        ReleasedPredictor.load_checkpoint(path, _SPACE)


def test_missing_and_foreign_tensors_are_refused(tmp_path: Path) -> None:
    """A tensor too few or too many is named."""
    tensors = _zeros()
    del tensors["4.bias"]
    with pytest.raises(FormatError, match=r"'4\.bias' .* must be 400, but is absent"):
        ReleasedPredictor.load_checkpoint(_write(tmp_path / "few.pth", tensors), _SPACE)
    more = _zeros() | {"8.bias": np.zeros(1, dtype=np.float32)}
    with pytest.raises(FormatError, match=r"'8\.bias' .* must be absent, but is 1"):
        ReleasedPredictor.load_checkpoint(_write(tmp_path / "more.pth", more), _SPACE)


def test_weights_that_are_not_finite_are_refused() -> None:
    """NaN among the weights is refused, naming the tensor."""
    tensors = _zeros()
    tensors["4.weight"][3, 3] = np.nan
    with pytest.raises(FormatError, match=r"'4\.weight' holds numbers that are not finite"):
        ReleasedPredictor(_SPACE, tensors)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no checkpoint is refused on one line that names it."""
    path = tmp_path / "p.pth"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"p\.pth") as refused:
        ReleasedPredictor.load_checkpoint(path, _SPACE)
    assert "\n" not in str(refused.value)


def test_a_damaged_file_is_refused(predictor: ReleasedPredictor, tmp_path: Path) -> None:
    """A flipped bit in the run's own file is noticed."""
    path = tmp_path / "p.safetensors"
    predictor.save(path)
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"p\.safetensors: is damaged"):
        ReleasedPredictor.load(path, _SPACE)


def test_importing_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where torch is not installed, the message has the pip command."""
    monkeypatch.setitem(sys.modules, "edgenas.ofa.released_file", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgenas\[train\]'"):
        ReleasedPredictor.load_checkpoint(tmp_path / "p.pth", _SPACE)


# -- spaces -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "what"),
    [
        (ProxylessNAS(), "family proxyless"),
        (replace(_SPACE, stages=(Stage(24, 2, "relu", False),)), "1 stages"),
        (replace(_SPACE, kernel_sizes=(3, 9)), r"stage\d\.block\d\.kernel_size 9"),
        (replace(_SPACE, expand_ratios=(2, 3)), r"stage\d\.block\d\.expand_ratio 2"),
        (replace(_SPACE, depths=(2, 5)), r"stage\d\.depth 5"),
        (replace(_SPACE, resolutions=(112, 128)), "resolution 112"),
        (replace(_SPACE, resolutions=(224, 240)), "resolution 240"),
    ],
)
def test_a_space_that_it_does_not_know_is_refused(space: SearchSpace, what: str) -> None:
    """Another family, other stages, choices or resolutions are refused by name."""
    with pytest.raises(UsageError, match=f"but the space has {what}; leave it out"):
        ReleasedPredictor(space, _zeros())


# -- as released ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(data_folder: Path) -> tuple[MobileNetV3, npt.NDArray[np.int64], list[float]]:
    """The 1,081 subnets of width 1.0 with their measured ImageNet accuracy: space, genes, top-1 in percent."""
    space = MobileNetV3(width=1.0)
    with (data_folder / "ofa" / "ofa_mbv3_w1.0_imagenet_top1.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {"ks": "kernel_sizes", "e": "expand_ratios", "d": "depths"}
    configs = [{name: [int(word) for word in row[column].split()] for name, column in columns.items()} for row in rows]
    found = [space.from_ofa(config, int(row["resolution"])) for config, row in zip(configs, rows, strict=True)]
    return space, space.encode(found), [float(row["top1"]) for row in rows]


def test_the_released_predictor_orders_published_subnets(
    data_folder: Path, published: tuple[MobileNetV3, npt.NDArray[np.int64], list[float]]
) -> None:
    """On 1,081 subnets of width 1.0 its order agrees with ImageNet: Kendall tau 0.88, Spearman 0.98."""
    from scipy.stats import kendalltau, spearmanr

    space, genes, top1 = published
    predicted = ReleasedPredictor.load_checkpoint(data_folder / "ofa" / "acc_predictor.pth", space)(genes)
    assert len(top1) == 1081
    assert kendalltau(predicted, top1).statistic == pytest.approx(0.881, abs=0.001)
    assert spearmanr(predicted, top1).statistic == pytest.approx(0.982, abs=0.001)
    assert 0.75 < predicted.min() < predicted.max() < 0.85  # fractions
