"""Released checkpoints: the reference's files, and files that these tests write with the reference's names."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgenas.errors import FormatError, SpaceError, UsageError
from edgenas.ofa import Supernet, load_released
from edgenas.ofa.released import infer_space
from edgenas.ofa.released_file import ReleasedCheckpoint
from edgenas.ofa.released_keys import released_names
from edgenas.space import Architecture, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace
from edgenas.space.parts import weight_shapes

Case = tuple[Architecture, Tensor, Tensor]
Weights = dict[str, Tensor]
Lively = Callable[[SearchSpace], Supernet]
Refused = Callable[..., str]

_ARGUMENTS = {
    "ks_list": "kernel_sizes",
    "expand_ratio_list": "expand_ratios",
    "depth_list": "depths",
    "width_mult_list": "width_mults",
}
# From our names to those of released checkpoints, in order.
_BLOCK_NAMES = (
    (r"\bexpand\.(conv|bn)\.", r"inverted_bottleneck.\1.\1."),
    (r"\bdepthwise\.(conv|bn)\.", r"depth_conv.\1.\1."),
    (r"\bproject\.(conv|bn)\.", r"point_linear.\1.\1."),
    (r"\btransform\.", "depth_conv.conv."),
    (r"\bse\.", "depth_conv.se.fc."),
)
_FIXED_NAMES = (
    (r"^stem\.", "first_conv."),
    (r"^block0\.depthwise\.", "blocks.0.mobile_inverted_conv.depth_conv."),
    (r"^block0\.project\.", "blocks.0.mobile_inverted_conv.point_linear."),
    (r"^(final_expand|feature_mix)\.", r"\1_layer."),
)
_RESNET_NAMES = (
    (r"\b(conv|bn|linear)\.(?!.*\.(conv|bn)\.)", r"\1.\1."),
    (r"^stem\.conv1\.", "input_stem.0."),
    (r"^stem\.residual\.conv\.", "input_stem.1.conv.conv."),
    (r"^stem\.residual\.bn\.", "input_stem.1.conv.bn."),
    (r"^stem\.conv2\.", "input_stem.2."),
    (r"\breduce\.", "conv1."),
    (r"\bfilter\.", "conv2."),
    (r"\bproject\.", "conv3."),
    (r"\bshortcut\.", "downsample."),
)


def renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def to_released(supernet: Supernet) -> Weights:
    """The state_dict that the reference implementation would save of this network."""
    resnet = isinstance(supernet.space, ResNet50D)
    order = [slot.name for slot in supernet.space.slots if slot.name.startswith("stage")]
    written = {}
    for ours, tensor in supernet.state_dict().items():
        block, _, inside = ours.rpartition(".block")
        if not block:
            name = renamed(ours, _RESNET_NAMES if resnet else _FIXED_NAMES)
        else:
            place, _, inside = inside.partition(".")
            number = order.index(f"{block}.block{place}")
            prefix = f"blocks.{number}." if resnet else f"blocks.{number + 1}.mobile_inverted_conv."
            name = prefix + renamed(inside, _RESNET_NAMES if resnet else _BLOCK_NAMES)
        written[name] = tensor.clone()
    return written


def choices_of(space: SearchSpace) -> dict[str, Any]:
    """Return the choices of ``space`` that its tensors do not hold."""
    fields = ("kernel_sizes", "expand_ratios", "depths", "width_mults", "resolutions")
    return {field: getattr(space, field) for field in fields if hasattr(space, field)}


# -- the reference's own files ----------------------------------------------------


@pytest.fixture(scope="module", params=["mbv3_w0.35", "proxyless_w0.35", "resnet_small"])
def reference(request: pytest.FixtureRequest, data_folder: Path) -> dict[str, Any]:
    """Architectures, images and the logits that the reference gave, and where its weights are."""
    path = data_folder / "ofa/reference" / f"{request.param}.json"
    document: dict[str, Any] = json.loads(path.read_text())
    return {**document, "path": path.with_suffix(".pth")}


@pytest.fixture(scope="module")
def supernet(reference: dict[str, Any]) -> Supernet:
    """Our supernet of the reference's file."""
    given = {_ARGUMENTS[name]: values for name, values in reference["args"].items() if name in _ARGUMENTS}
    resolutions = sorted({case["resolution"] for case in reference["cases"]})
    return load_released(reference["path"], {**given, "resolutions": resolutions})


@pytest.fixture(scope="module")
def cases(supernet: Supernet, reference: dict[str, Any]) -> list[Case]:
    """Architecture, input and expected logits of every case."""
    found = []
    for case in reference["cases"]:
        size, generator = case["resolution"], torch.Generator().manual_seed(case["input_seed"])
        architecture = supernet.space.from_ofa(case["config"], size)
        found.append((architecture, torch.randn(2, 3, size, size, generator=generator), torch.tensor(case["logits"])))
    return found


def _close(logits: Tensor, expected: Tensor) -> None:
    tolerance = 2e-5 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)


def test_forward_gives_the_references_logits(supernet: Supernet, cases: list[Case]) -> None:
    """With its weights our supernet gives the reference's logits, with every kind of choice."""
    with torch.no_grad():
        for architecture, x, expected in cases:
            _close(supernet(x, architecture), expected)


def test_extracted_subnets_give_the_references_logits(supernet: Supernet, cases: list[Case]) -> None:
    """The stand-alone subnets give the reference's logits too."""
    with torch.no_grad():
        for architecture, x, expected in cases:
            _close(supernet.extract(architecture)(x), expected)


def test_extracted_subnets_have_the_references_parameters(
    supernet: Supernet, reference: dict[str, Any], cases: list[Case]
) -> None:
    """The stand-alone subnets have as many parameters as the reference counts."""
    counts = [sum(p.numel() for p in supernet.extract(each).parameters()) for each, _, _ in cases]
    assert counts == [case["params"] for case in reference["cases"]]


def test_space_counts_the_references_costs(supernet: Supernet, reference: dict[str, Any], cases: list[Case]) -> None:
    """Parameters and multiply-accumulates of the space found are the reference's, as integers."""
    genes = supernet.space.encode([architecture for architecture, _, _ in cases])
    assert supernet.space.params(genes).tolist() == [case["params"] for case in reference["cases"]]
    assert supernet.space.macs(genes).tolist() == [case["macs"] for case in reference["cases"]]


def test_every_tensor_of_the_reference_is_written_back(supernet: Supernet, reference: dict[str, Any]) -> None:
    """The imported supernet holds every tensor of the file under its name, bit by bit, and no other."""
    released = torch.load(reference["path"], weights_only=True)["state_dict"]
    expected = {key: tensor for key, tensor in released.items() if not key.endswith("num_batches_tracked")}
    written = to_released(supernet)
    assert set(written) == set(expected)
    assert all(torch.equal(written[key], expected[key]) for key in expected)


def test_defaults_are_the_published_choices(data_folder: Path) -> None:
    """Without choices a file gives its family's published space of the width and classes of its tensors."""
    folder = data_folder / "ofa/reference"
    assert not load_released(folder / "mbv3_w0.35.pth").space.differs_in_more_than_resolutions(
        MobileNetV3(width=0.35, classes=16)
    )
    assert not load_released(folder / "proxyless_w0.35.pth").space.differs_in_more_than_resolutions(
        ProxylessNAS(width=0.35, classes=16)
    )


# -- files of this test's own -----------------------------------------------------


@pytest.fixture(scope="module")
def thin(lively: Lively) -> Supernet:
    """A lively MobileNetV3 whose choices are the published ones, so that a file of it needs none."""
    return lively(MobileNetV3(width=0.25, classes=4))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file that a test writes its checkpoint to."""
    return tmp_path / "net.pth"


@pytest.fixture
def refused(path: Path) -> Refused:
    """Write something as a checkpoint, and return the one line that it is refused with."""

    def load(content: Any, choices: Any = None) -> str:
        torch.save(content, path)
        with pytest.raises(UsageError) as error:
            load_released(path, choices)
        assert "\n" not in str(error.value)
        return str(error.value)

    return load


def _assert_equal_weights(first: Supernet, second: Supernet) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


_subsets = st.sampled_from([(3, 5, 7), (5, 7), (3, 7), (5,), (3,)])
_blocks: dict[str, st.SearchStrategy[Any]] = {
    "width": st.floats(0.04, 4.0),
    "classes": st.integers(2, 30),
    "kernel_sizes": _subsets,
    "expand_ratios": st.sampled_from([(3, 4, 6), (2, 5), (4,)]),
    "depths": st.sampled_from([(2, 3, 4), (1, 3), (2,)]),
    "resolutions": st.just((64,)),
}
_spaces = st.one_of(
    st.builds(MobileNetV3, **_blocks),
    st.builds(ProxylessNAS, **_blocks),
    st.builds(
        ResNet50D,
        resolutions=st.just((64,)),
        classes=st.integers(2, 30),
        depths=st.sampled_from([(0, 1, 2), (0,), (1, 3)]),
        width_mults=st.lists(st.floats(0.02, 2.0), min_size=1, max_size=3, unique=True),
    ),
)


_common: dict[str, st.SearchStrategy[Any]] = {"classes": st.integers(2, 30), "resolutions": st.just((32,))}
_thin_spaces = (
    st.builds(MobileNetV3, width=st.floats(0.05, 0.5), kernel_sizes=_subsets, **_common),
    st.builds(ProxylessNAS, width=st.floats(0.05, 0.5), depths=st.sampled_from([(2, 3, 4), (1,)]), **_common),
    st.builds(ResNet50D, width_mults=st.sampled_from([(0.05, 0.1), (0.12,)]), **_common),
)


@pytest.mark.parametrize("spaces", _thin_spaces, ids=["mobilenet_v3", "proxyless", "resnet50d"])
def test_imported_is_what_was_exported(
    spaces: st.SearchStrategy[SearchSpace], lively: Lively, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A network written in the released format comes back with the same parts and every bit of its weights."""
    path = tmp_path_factory.mktemp("released") / "net.pth"

    @settings(max_examples=6)
    @given(space=spaces)
    def round_trip(space: SearchSpace) -> None:
        supernet = lively(space)
        torch.save({"state_dict": to_released(supernet)}, path)
        loaded = load_released(path, choices_of(space))
        assert loaded.space.largest.parts == space.largest.parts
        assert not loaded.training
        _assert_equal_weights(loaded, supernet)

    round_trip()


@settings(max_examples=60)
@given(space=_spaces)
def test_space_is_found_from_shapes(space: SearchSpace) -> None:
    """Channels, blocks and classes of any space follow from the tensors of its largest network."""
    shapes = {
        f"{name}.{tensor}": shape
        for name, part in space.largest.parts.items()
        for tensor, shape in weight_shapes(part).items()
    }
    names = released_names(space, shapes)
    tensors = {theirs: torch.empty(shapes[ours], device="meta") for theirs, ours in names.items()}
    found = infer_space(ReleasedCheckpoint("net.pth", tensors, {name: name for name in tensors}), choices_of(space))
    assert found.largest.parts == space.largest.parts
    assert found.genes[1:] == space.genes[1:]


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.2, 1.3])
def test_round_multipliers_are_found_themselves(width: float, path: Path) -> None:
    """Of all multipliers that give a checkpoint's channels the roundest is found."""
    space = MobileNetV3(width=width, resolutions=(224,))
    shapes = {
        f"{name}.{tensor}": shape
        for name, part in space.largest.parts.items()
        for tensor, shape in weight_shapes(part).items()
    }
    tensors = {
        theirs: torch.empty(shapes[ours], device="meta") for theirs, ours in released_names(space, shapes).items()
    }
    assert infer_space(ReleasedCheckpoint("net.pth", tensors, {}), {"resolutions": (224,)}) == space


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: key.replace(".mobile_inverted_conv.", ".conv."),
        lambda key: re.sub(r"\b(conv|bn)\.\1\b", r"\1", key),
        lambda key: f"module._orig_mod.{key}",
    ],
    ids=["new", "static", "wrapped"],
)
def test_other_names_of_the_same_tensors(rename: Callable[[str], str], thin: Supernet, path: Path) -> None:
    """New names, static names and names within wrappers give the same supernet as old ones."""
    torch.save({rename(key): tensor for key, tensor in to_released(thin).items()}, path)
    loaded = load_released(path)
    assert not loaded.space.differs_in_more_than_resolutions(thin.space)
    _assert_equal_weights(loaded, thin)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model": weights, "optimizer": {"state": {}}, "epoch": 3},
        lambda weights: {"model_state_dict": weights, "loss": 0.5},
        lambda weights: {"net": weights, "acc": 71.3},
        lambda weights: {"ema": {"module": weights, "updates": 3}, "model": {}},
        lambda weights: {"state_dict": weights, "ema": {"decay": 0.999, "shadow_params": [torch.ones(1)]}},
        lambda weights: {
            "model_ema": {"n_averaged": torch.tensor(3), **{f"module.{k}": v for k, v in weights.items()}}
        },
    ],
    ids=["model", "model_state_dict", "net", "ema.module", "settings of ema", "AveragedModel"],
)
def test_other_places_of_the_same_tensors(wrap: Callable[[Weights], Any], thin: Supernet, path: Path) -> None:
    """A state_dict is found under the usual keys of training programs, beside other things."""
    torch.save(wrap(to_released(thin)), path)
    _assert_equal_weights(load_released(path), thin)


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema"])
def test_averaged_weights_go_before_the_latest(averaged: str, thin: Supernet, path: Path) -> None:
    """Of the last step's weights and their moving average, which follows in the file, the average is read."""
    weights = to_released(thin)
    latest = {key: tensor + 1 for key, tensor in weights.items()}
    torch.save({"state_dict": latest, "model": latest, averaged: weights}, path)
    _assert_equal_weights(load_released(path), thin)


def test_file_of_an_old_torch(thin: Supernet, path: Path) -> None:
    """The format of torch before 1.6, in which the official files were saved, is read as well."""
    torch.save({"state_dict": to_released(thin)}, path, _use_new_zipfile_serialization=False)
    loaded = load_released(path)
    assert not loaded.space.differs_in_more_than_resolutions(thin.space)
    _assert_equal_weights(loaded, thin)


def test_full_network_gets_the_identity(thin: Supernet, path: Path) -> None:
    """A file without kernel matrices gives a supernet whose smaller kernels are the centres of the largest."""
    torch.save({key: tensor for key, tensor in to_released(thin).items() if "matrix" not in key}, path)
    loaded = load_released(path)
    assert not loaded.space.differs_in_more_than_resolutions(thin.space)
    assert torch.equal(loaded.get_parameter("stage1.block1.transform.7to5_matrix"), torch.eye(25))


def test_published_choices_end_at_the_checkpoints_largest(lively: Lively, path: Path) -> None:
    """A network of depth 3, kernel 5 and expand ratio 4 gets the published choices up to these."""
    space = MobileNetV3(width=0.25, kernel_sizes=(3, 5), expand_ratios=(3, 4), depths=(2, 3))
    torch.save(to_released(lively(space)), path)
    assert not load_released(path).space.differs_in_more_than_resolutions(space)


def test_half_precision_is_widened(thin: Supernet, path: Path) -> None:
    """Tensors of half precision are read as float32."""
    torch.save({key: tensor.half() for key, tensor in to_released(thin).items()}, path)
    assert load_released(path).get_parameter("stem.conv.weight").dtype == torch.float32


# -- what is refused ----------------------------------------------------------------

PROJECT = "blocks.3.mobile_inverted_conv.point_linear.conv.conv.weight"


def test_misshapen_tensor(thin: Supernet, refused: Refused) -> None:
    """A tensor of another shape is named with both shapes."""
    answer = refused(to_released(thin) | {PROJECT: torch.zeros(8, 40, 1, 1)})
    assert f": 1 of another shape ({PROJECT} is (8, 40, 1, 1), but must be (8, 48, 1, 1)); give the choices" in answer


def test_missing_tensor(thin: Supernet, refused: Refused) -> None:
    """A tensor that is absent is named with the shape that it must have."""
    weights = to_released(thin)
    del weights[PROJECT]
    assert ": 1 missing (blocks.3.point_linear.conv.weight (8, 48, 1, 1)); give the choices" in refused(weights)


def test_missing_block(thin: Supernet, refused: Refused) -> None:
    """Of a file that ends a block too early the missing tensors are counted, and the first three are named."""
    weights = {key: tensor for key, tensor in to_released(thin).items() if not key.startswith("blocks.20.")}
    lacking = len(to_released(thin)) - len(weights)
    first = "blocks.20.inverted_bottleneck.conv.weight (240, 40, 1, 1); blocks.20.inverted_bottleneck.bn.weight (240,)"
    answer = refused(weights)
    assert (
        f"its {len(weights)} tensors are not the {len(weights) + lacking} of a mobilenet_v3 with width 0.25" in answer
    )
    assert f": {lacking} missing ({first}; blocks.20.inverted_bottleneck.bn.bias (240,); ...); give" in answer


def test_extra_tensor(thin: Supernet, refused: Refused) -> None:
    """A tensor that the network has no place for is named with its shape."""
    answer = refused(to_released(thin) | {"blocks.4.shift": torch.zeros(3)})
    assert ": 1 unexpected (blocks.4.shift (3,)); give the choices" in answer


def test_all_that_does_not_fit(thin: Supernet, refused: Refused) -> None:
    """Missing, unexpected and misshapen tensors are told in one message, with the places in the file."""
    weights = to_released(thin) | {PROJECT: torch.zeros(8, 40, 1, 1), "blocks.4.shift": torch.zeros(3)}
    del weights["classifier.linear.bias"]
    answer = refused({"ema": weights, "model": to_released(thin)})
    assert "net.pth: ema: its " in answer
    assert answer.endswith(
        "give the choices of the network in the file, or a file with these tensors (such as its model, saved alone)"
    )
    assert "1 missing (classifier.linear.bias (4,)), 1 unexpected (blocks.4.shift (3,)), 1 of another shape (" in answer


def test_some_kernel_matrices(thin: Supernet, refused: Refused) -> None:
    """Kernel matrices are all there or none."""
    weights = to_released(thin)
    del weights["blocks.9.mobile_inverted_conv.depth_conv.conv.7to5_matrix"]
    assert ": 1 missing (blocks.9.depth_conv.conv.7to5_matrix (25, 25));" in refused(weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_number_that_is_not_finite(value: float, thin: Supernet, refused: Refused) -> None:
    """A tensor with NaN or infinity is named with its shape."""
    weights = to_released(thin)
    weights[PROJECT][0, 0] = value
    assert f"{PROJECT}: of shape (8, 48, 1, 1) has numbers that are not finite" in refused(weights)


def test_tensor_of_integers(thin: Supernet, refused: Refused) -> None:
    """A tensor that holds no floats is named with its type."""
    assert "torch.int64" in refused(to_released(thin) | {PROJECT: torch.zeros(8, 48, 1, 1, dtype=torch.int64)})


def test_tensor_that_claims_more_than_it_holds(thin: Supernet, refused: Refused) -> None:
    """A tensor whose shape is larger than its storage is refused before anything is made of its size."""
    huge = torch.zeros(1, 1).expand(1 << 40, 320)
    assert "classifier.linear.weight: has fewer numbers" in refused(
        to_released(thin) | {"classifier.linear.weight": huge}
    )


def test_two_names_of_one_tensor(thin: Supernet, refused: Refused) -> None:
    """Doubled and undoubled names of the same tensor are ambiguous."""
    other = PROJECT.replace("conv.conv", "conv")
    answer = refused(to_released(thin) | {other: torch.zeros(8, 48, 1, 1)})
    assert f"{PROJECT} and {other} are names of the same tensor" in answer


def test_unknown_choice(thin: Supernet, refused: Refused) -> None:
    """A misspelt choice is named with the nearest."""
    assert "unknown key 'depth'; did you mean 'depths'?" in refused(to_released(thin), {"depth": [2]})


def test_choice_of_another_family(thin: Supernet, refused: Refused) -> None:
    """Width multipliers cannot be chosen where the width is found from the tensors."""
    assert "has no width_mults to choose" in refused(to_released(thin), {"width_mults": [1.0]})


def test_choice_that_does_not_fit(thin: Supernet, refused: Refused) -> None:
    """Choices whose largest is not the checkpoint's are refused, with the tensors that do not fit."""
    answer = refused(to_released(thin), {"expand_ratios": [3, 4]})
    assert "inverted_bottleneck.conv.conv.weight is (48, 8, 1, 1), but must be (32, 8, 1, 1)" in answer


def test_empty_choice(thin: Supernet, refused: Refused) -> None:
    """An empty choice is refused."""
    assert "depths must name at least one choice" in refused(to_released(thin), {"depths": []})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            {},
            "has no tensor first_conv.* or input_stem.*, one of which every Once-for-All network has; it has 0 tensors",
        ),
        ({"0.weight": torch.zeros(2, 2)}, "it has 1 tensors (0.weight); give the file of such a network"),
        ({"state_dict": 3}, "'state_dict' is of type int, not a tensor; save the state_dict alone"),
        ({"state_dict": {}}, "'state_dict' is of type dict, not a tensor"),
        ([1, 2], "must hold a state_dict, but holds list"),
        ({"first_conv.conv.weight": "x"}, "not a tensor"),
        (Path("x"), "it holds pathlib"),
    ],
)
def test_file_of_something_else(content: Any, expected: str, refused: Refused) -> None:
    """A torch file that holds something else is refused, and objects other than tensors are never made."""
    assert expected in refused(content)


def test_file_that_is_absent(path: Path) -> None:
    """A file that cannot be read is named."""
    with pytest.raises(UsageError, match=r"net\.pth: cannot be read \(No such file"):
        load_released(path)


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_file(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file that was cut or flipped anywhere, or is of random bytes, is refused in one line."""
    path = tmp_path_factory.mktemp("damaged") / "net.pth"
    torch.save(
        {"first_conv.conv.weight": torch.ones(8, 3, 3, 3)},
        path,
        _use_new_zipfile_serialization=data.draw(st.booleans()),
    )
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path.write_bytes(data.draw(st.sampled_from([whole[:place], flipped]) | st.binary(max_size=64)))
    with pytest.raises(FormatError) as error:
        load_released(path)
    assert "\n" not in str(error.value)


def test_flipped_weight_is_refused(thin: Supernet, path: Path) -> None:
    """One flipped bit among the weights, which torch would load, is found by the archive's checksum."""
    tensors = to_released(thin)
    torch.save(tensors, path)
    load_released(path)
    data = bytearray(path.read_bytes())
    data[data.find(tensors["classifier.linear.weight"].numpy().tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"net\.pth: is damaged in .*; download it again"):
        load_released(path)


def test_negative_variance_is_refused(thin: Supernet, refused: Refused) -> None:
    """Batch-norm statistics that would give NaN are refused by the name of their tensor."""
    tensors = to_released(thin)
    tensors["first_conv.bn.running_var"] = -tensors["first_conv.bn.running_var"]
    assert "first_conv.bn.running_var: of shape (8,) has a negative variance" in refused(tensors)


def test_weights_serve_any_resolution(thin: Supernet) -> None:
    """An architecture of a space that differs in its resolutions only runs; one of another space does not."""
    other = dataclasses.replace(thin.space, resolutions=(40,))  # type: ignore[type-var] # every space is a dataclass
    assert thin(torch.zeros(1, 3, 40, 40), other.largest).shape == (1, thin.space.classes)
    with pytest.raises(SpaceError, match="of another space than this supernet"):
        thin(torch.zeros(1, 3, 40, 40), MobileNetV3(width=2.0, resolutions=(40,)).largest)
