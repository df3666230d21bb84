"""What is refused of a family that contradicts itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from edgenas.costs import Genes
from edgenas.errors import SpaceError, UsageError
from edgenas.space import Architecture, Gene, MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace, Slot, check_space
from edgenas.space.blocks.plain import ConvPart, GlobalPoolPart, LinearPart
from edgenas.space.layers import GraphBuilder


@dataclass(frozen=True, repr=False)
class Small(SearchSpace):
    """A convolution of two kernels, the mean, the classifier; ``fault`` names what is wrong."""

    family: ClassVar[str] = "small"

    resolutions: tuple[int, ...] = (8, 12)
    classes: int = 4
    fault: str = ""

    @property
    def genes(self) -> tuple[Gene, ...]:
        kernels = Gene("conv.kernel_size", (5, 3) if self.fault == "order" else (3, 5))
        resolution = Gene("resolution", self.resolutions)
        if self.fault == "twice":
            return (resolution, kernels, kernels)
        return (kernels, resolution) if self.fault == "first" else (resolution, kernels)

    @property
    def slots(self) -> tuple[Slot, ...]:
        channels = 8 if self.fault == "shapes" else 16
        convs = tuple(
            ConvPart((3, size, size), 16, kernel, 1, "relu") for size in self.resolutions for kernel in (3, 5)
        )
        pools = tuple(GlobalPoolPart((channels, size, size)) for size in self.resolutions)
        linear = LinearPart((16, 1, 1), 3 if self.fault == "classes" else 4)
        pool = "conv" if self.fault == "slots" else "pool"
        convs = convs[:3] if self.fault == "parts" else convs
        return (Slot("conv", (0, 1), convs), Slot(pool, (0,), pools), Slot("classifier", (), (linear,)))

    @property
    def size(self) -> int:
        return 0 if self.fault == "size" else 4

    def dead_genes(self, genes: Genes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        if self.fault == "raises":
            raise ZeroDivisionError("by zero")
        return np.zeros(genes.shape[1] if self.fault == "dead" else genes.shape, dtype=bool)

    def describe(self, architecture: Architecture) -> dict[str, Any]:
        return dict(self._gene_values(architecture))

    def from_description(self, data: Mapping[str, Any], where: str) -> Architecture:
        return self._from_gene_values(data, where)


@pytest.mark.parametrize("space", [Small(), MobileNetV3(), ProxylessNAS(), ResNet50D()], ids=lambda space: space.family)
def test_sound_families_pass(space: SearchSpace) -> None:
    """The built-in ones and the small one break no rule."""
    check_space(space)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("first", "the first gene must be the resolution"),
        ("twice", r"genes must have different names, but \['conv.kernel_size'\] occurs twice"),
        ("order", r"values of gene conv.kernel_size must ascend, but are \[5, 3\]"),
        ("slots", r"slots must have different names, but \['conv'\] occurs twice"),
        ("parts", "slot conv must have 4 parts, but has 3"),
        ("shapes", r"conv makes \(16, 8, 8\), but pool takes \(8, 8, 8\) \(channels, height, width\)"),
        ("classes", r"classifier is the last part and must make \(4, 1, 1\), but makes \(3, 1, 1\)"),
        ("size", "size must be an int above 0, but is 0"),
        ("dead", "dead_genes must return a mask of the shape of its genes"),
        ("raises", "ZeroDivisionError: by zero; correct the family"),
    ],
)
def test_a_contradiction_is_named(fault: str, rule: str) -> None:
    """One line names the family and the rule."""
    with pytest.raises(SpaceError, match=f"^family small: {rule}") as caught:
        check_space(Small(fault=fault))
    assert "\n" not in str(caught.value)


def test_unknown_keys_of_any_family_are_refused() -> None:
    """A misspelt field of a config never means the default."""
    with pytest.raises(UsageError, match=r"space\.yaml: unknown key 'fualt'"):
        Small.from_dict({"family": "small", "fualt": "size"}, "space.yaml")


def test_layers_that_do_not_fit_are_refused_as_they_are_written() -> None:
    """Sums of two shapes, unknown activations, even kernels, groups that do not divide, fractions of channels."""
    b = GraphBuilder((6, 9, 9))
    y = b.conv("conv", 0, 8)
    with pytest.raises(SpaceError, match=r"layer 'add': a sum needs values of one shape, but got \(8, 9, 9\) and"):
        b.add("add", y, 0)
    with pytest.raises(SpaceError, match="layer 'act': unknown activation 'gelu'; known: relu, relu6"):
        b.activation("act", y, "gelu")
    with pytest.raises(SpaceError, match="layer 'even': kernels must be odd, but got 2"):
        b.conv("even", y, 8, 2)
    with pytest.raises(SpaceError, match=r"layer 'wide': groups \(3\) must divide the channels, 8 and 6"):
        b.conv("wide", y, 6, groups=3)
    with pytest.raises(SpaceError, match="layer 'half': sizes must be integers above 0"):
        b.conv("half", y, 2.5)  # type: ignore[arg-type]


def test_a_space_too_large_for_memory_is_refused_with_its_size() -> None:
    """The supernet is not made: the message says how much it takes, and how much there is."""
    with pytest.raises(SpaceError, match=r"has 149,747,718,720 parameters, which take 1797 GB in training, and this"):
        check_space(MobileNetV3(width=16, head=(8192, 8192), classes=1_000_000))
