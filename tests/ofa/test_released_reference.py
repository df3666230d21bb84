"""The elastic arithmetic against Once-for-All's own implementation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from edgenas.ofa import Supernet
from edgenas.space import Architecture, MobileNetV3

Case = tuple[Architecture, torch.Tensor, torch.Tensor]

# From the keys of released checkpoints to names of ours, in order.
_RENAMED = (
    (r"^first_conv\.", "stem."),
    (r"^final_expand_layer\.", "final_expand."),
    (r"^feature_mix_layer\.", "feature_mix."),
    (r"^blocks\.0\.mobile_inverted_conv\.", "block0."),
    (r"\.mobile_inverted_conv\.", "."),
    (r"\.conv\.(\dto\d_matrix)$", r".transform.\1"),
    (r"\.conv\.conv\.", ".conv."),
    (r"\.bn\.bn\.", ".bn."),
    (r"\.depth_conv\.se\.fc\.", ".se."),
    (r"\.depth_conv\.transform\.", ".transform."),
    (r"\.inverted_bottleneck\.", ".expand."),
    (r"\bdepth_conv\.", "depthwise."),
    (r"\bpoint_linear\.", "project."),
)


def _ours(key: str) -> str:
    block = re.match(r"blocks\.([1-9]\d*)\.", key)
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    if block:
        stage, place = divmod(int(block[1]) - 1, 4)
        key = key.replace(f"blocks.{block[1]}.", f"stage{stage + 1}.block{place + 1}.")
    return key


@pytest.fixture(scope="module")
def reference(data_folder: Path) -> dict[str, Any]:
    """Architectures, images and the logits that the reference gave."""
    document: dict[str, Any] = json.loads((data_folder / "ofa/reference/mbv3_w0.35.json").read_text())
    return document


@pytest.fixture(scope="module")
def supernet(data_folder: Path, reference: dict[str, Any]) -> Supernet:
    """Our supernet with the reference's weights: every tensor of either is used."""
    released = torch.load(data_folder / "ofa/reference/mbv3_w0.35.pth", weights_only=True)["state_dict"]
    resolutions = tuple({case["resolution"] for case in reference["cases"]})
    classes = reference["args"]["n_classes"]
    supernet = Supernet(MobileNetV3(width=reference["args"]["width_mult"], resolutions=resolutions, classes=classes))
    kept = {key: tensor for key, tensor in released.items() if not key.endswith("num_batches_tracked")}
    supernet.load_state_dict({_ours(key): tensor for key, tensor in kept.items()})
    return supernet.eval()


@pytest.fixture(scope="module")
def cases(supernet: Supernet, reference: dict[str, Any]) -> list[Case]:
    """Architecture, input and expected logits of every case."""
    space = supernet.space
    assert isinstance(space, MobileNetV3)
    found = []
    for case in reference["cases"]:
        size, generator = case["resolution"], torch.Generator().manual_seed(case["input_seed"])
        architecture = space.from_ofa(case["config"], size)
        found.append((architecture, torch.randn(2, 3, size, size, generator=generator), torch.tensor(case["logits"])))
    return found


def _close(logits: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = 2e-5 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance)


def test_forward_gives_the_references_logits(supernet: Supernet, cases: list[Case]) -> None:
    """With its weights our supernet gives the reference's logits, with every kind of choice."""
    with torch.no_grad():
        for architecture, x, expected in cases:
            _close(supernet(x, architecture), expected)


def test_extracted_subnets_give_the_references_logits(supernet: Supernet, cases: list[Case]) -> None:
    """So do the stand-alone subnets."""
    with torch.no_grad():
        for architecture, x, expected in cases:
            _close(supernet.extract(architecture)(x), expected)


def test_extracted_subnets_have_the_references_parameters(
    supernet: Supernet, reference: dict[str, Any], cases: list[Case]
) -> None:
    """Their parameters are as many as the reference counts."""
    counts = [sum(p.numel() for p in supernet.extract(each).parameters()) for each, _, _ in cases]
    assert counts == [case["params"] for case in reference["cases"]]
