"""Canonical names of the tensors of released checkpoints."""

from __future__ import annotations

import pytest

from edgenas.ofa.released_keys import canonical_name


@pytest.mark.parametrize(
    "key",
    [
        "module.blocks.3.conv.depth_conv.conv.weight",
        "_orig_mod.blocks.3.conv.depth_conv.conv.weight",
        "module._orig_mod.blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight",
        "_orig_mod.module.blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight",
        "model.module.module.blocks.3.mobile_inverted_conv.depth_conv.conv.conv.weight",
        "blocks.3._orig_mod.mobile_inverted_conv.depth_conv.conv.conv.weight",
        "_fsdp_wrapped_module.blocks.3._checkpoint_wrapped_module.mobile_inverted_conv.depth_conv.conv.conv.weight",
    ],
)
def test_wrappers_are_left_out(key: str) -> None:
    """A name within wrappers of the network or of a block, nested in any order, is that without them."""
    assert canonical_name(key) == "blocks.3.depth_conv.conv.weight"


@pytest.mark.parametrize("key", ["my_module.weight", "modules.weight", "remodel.bias", "first_conv.model"])
def test_similar_names_are_no_wrappers(key: str) -> None:
    """Only whole names of wrappers are left out."""
    assert canonical_name(key) == key
