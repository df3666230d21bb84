"""Checkpoints come back whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgenas.errors import FormatError, UsageError
from edgenas.files import read_tensors_and_body, write_tensors
from edgenas.ofa import Checkpoint, Position, Schedule, Supernet, load_checkpoint, save_checkpoint, to_channels_last
from edgenas.ofa.checkpoint import has_ended_training
from edgenas.space import MobileNetV3, SearchSpace


def checkpoint_of(supernet: Supernet) -> Checkpoint:
    return Checkpoint(supernet, Position(1, 7), {"classifier.linear.bias": torch.ones(10)}, {"seed": 3}, threads=2)


@pytest.fixture
def saved(tiny: MobileNetV3, lively: Callable[[SearchSpace], Supernet], tmp_path: Path) -> tuple[Path, Supernet]:
    """A checkpoint in a file, and its supernet."""
    path, supernet = tmp_path / "checkpoint.safetensors", lively(tiny)
    save_checkpoint(path, checkpoint_of(supernet))
    return path, supernet


def test_a_checkpoint_carries_everything(saved: tuple[Path, Supernet]) -> None:
    """Space, weights, statistics, position, momenta and recipe are those that were saved."""
    path, supernet = saved
    loaded = load_checkpoint(path)
    assert loaded.supernet.space == supernet.space
    assert (loaded.position, loaded.recipe, loaded.threads) == (Position(1, 7), {"seed": 3}, 2)
    torch.testing.assert_close(loaded.supernet.state_dict(), supernet.state_dict(), rtol=0, atol=0)
    assert {name: tensor.tolist() for name, tensor in loaded.momenta.items()} == {"classifier.linear.bias": [1.0] * 10}


def test_memory_layout_leaves_no_trace_in_the_file(saved: tuple[Path, Supernet], tmp_path: Path) -> None:
    """A network in channels-last layout gives the same bytes."""
    path, supernet = saved
    to_channels_last(supernet)
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, checkpoint_of(supernet))
    assert other.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("place", [0.0, 0.02, 0.5, 0.999])
def test_a_flipped_byte_is_refused(saved: tuple[Path, Supernet], place: float) -> None:
    """One changed byte, in the header or in a weight, and the file is refused with its name."""
    path = saved[0]
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"checkpoint\.safetensors: is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_a_cut_file_is_refused(saved: tuple[Path, Supernet], share: float) -> None:
    """A file that ends too early is refused."""
    path = saved[0]
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FormatError, match="is damaged"):
        load_checkpoint(path)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    """A checkpoint that is not there is an error of the user's."""
    with pytest.raises(UsageError, match=r"none\.safetensors: cannot be read"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_weights_that_do_not_fit_the_space_are_refused(saved: tuple[Path, Supernet]) -> None:
    """A whole file that lacks a tensor is refused, naming the tensor, on one line."""
    path = saved[0]
    arrays, body = read_tensors_and_body(path, "checkpoint", 1)
    del arrays["weights/stem.conv.weight"]
    write_tensors(path, "checkpoint", 1, arrays, body)
    with pytest.raises(FormatError, match=r"do not fit its space.*stem\.conv\.weight") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "origin", [{"initial": {"name": "net.pth"}}, {"finetuned": {"architecture": "a", "supernet": "b"}}]
)
def test_a_recipe_names_its_origin_whole(tiny: MobileNetV3, brief: Schedule, origin: dict[str, Any]) -> None:
    """What training began with lacks no digest and no field, which messages and cards name later."""
    recipe = {"data": "digits", "schedule": brief.to_dict(), "seed": 0, **origin}
    with pytest.raises(FormatError, match=rf"file: recipe.*{next(iter(origin))}"):
        has_ended_training(Checkpoint(Supernet(tiny), Position(0, 0), {}, recipe, 1), "file")
