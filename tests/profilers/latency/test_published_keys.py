"""The keys of published latency tables, newer and older."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import UsageError
from edgenas.profilers.latency.published_keys import is_published_key, published_keys
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D


def test_keys_of_mobilenet_v3_by_hand() -> None:
    """At width 1.2 and 224 pixels the newer keys have middle channels, squeeze-excite and h-swish."""
    (keys,) = published_keys(MobileNetV3(width=1.2, resolutions=(224,)))
    assert set(keys.values()) >= {
        "Conv-input:224x224x3-output:112x112x24",
        "expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
        "expanded_conv-input:112x112x24-output:56x56x32-expand:144-kernel:7-stride:2-idskip:0-se:0-hs:0",
        "expanded_conv-input:28x28x48-output:28x28x48-expand:192-kernel:5-stride:1-idskip:1-se:1-hs:0",
        "expanded_conv-input:28x28x48-output:14x14x96-expand:144-kernel:3-stride:2-idskip:0-se:0-hs:1",
        "expanded_conv-input:7x7x192-output:7x7x192-expand:1152-kernel:3-stride:1-idskip:1-se:1-hs:1",
        "Conv_1-input:7x7x192-output:7x7x1152",
        "AvgPool2D-input:7x7x1152-output:1x1x1152",
        "Conv_2-input:1x1x1152-output:1x1x1536",
        "Logits-input:1x1x1536-output:1000",
    }


def test_keys_of_proxyless_by_hand() -> None:
    """At width 1.0 and 224 pixels the older keys have the ratio, no more, and Logits reads the whole feature map."""
    (keys,) = published_keys(ProxylessNAS(resolutions=(224,)))
    assert set(keys.values()) >= {
        "Conv-input:224x224x3-output:112x112x32",
        "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0",
        "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:5-stride:2-idskip:0",
        "expanded_conv-input:7x7x192-output:7x7x192-expand:6-kernel:7-stride:1-idskip:1",
        "Conv_1-input:7x7x320-output:7x7x1280",
        "Logits-input:7x7x1280-output:1000",
        None,  # the pooling
    }
    assert not any("-se:" in key or key.startswith("AvgPool2D") for key in keys.values() if key is not None)


def test_every_resolution_has_its_own_keys() -> None:
    """The last feature map has ceil(resolution / 32) pixels a side: 5 at 160, 6 at 176."""
    first, second = published_keys(MobileNetV3(width=1.2, resolutions=(160, 176)))
    assert "Conv_1-input:5x5x192-output:5x5x1152" in first.values()
    assert "Conv_1-input:6x6x192-output:6x6x1152" in second.values()
    assert "Conv_1-input:6x6x192-output:6x6x1152" not in first.values()


def test_a_family_without_published_keys_is_refused() -> None:
    """ResNet-50D has no published tables; the message names the families that have."""
    with pytest.raises(UsageError, match=r"families mobilenet_v3 and proxyless, but the space is of resnet"):
        published_keys(ResNet50D())


@given(width=st.floats(0.1, 3.0), resolution=st.integers(32, 320), proxyless=st.booleans())
def test_what_is_made_is_recognised(width: float, resolution: int, proxyless: bool) -> None:
    """Every key of any space, newer or older, has a published key's form."""
    family = ProxylessNAS if proxyless else MobileNetV3
    (keys,) = published_keys(family(width=width, resolutions=(resolution,), depths=(2,), kernel_sizes=(3,)))
    assert all(is_published_key(key) for key in keys.values() if key is not None)


@given(st.text(max_size=60))
def test_other_text_is_no_key(text: str) -> None:
    """Whatever does not begin with a known operator's name is no key."""
    assert not is_published_key(text)


@pytest.mark.parametrize(
    "key",
    [
        "Conv_3-input:1x1x8-output:1x1x8",
        "Conv-input:8x8-output:8x8x8",
        "Conv-input:0x8x3-output:4x4x8",
        "Logits-input:1x1x8-output:1x1x10",
        "expanded_conv-input:8x8x8-output:8x8x8-expand:24-kernel:3-stride:1-idskip:2",
        "expanded_conv-input:8x8x8-output:8x8x8-expand:24-kernel:3-stride:1-idskip:1-se:1",
        "Conv-input:8x8x3-output:4x4x8 ",
        "Conv-input:8x8x3-output:4x4x8\n",
    ],
)
def test_a_nearly_right_key_is_none(key: str) -> None:
    """A key with a wrong operator, shape, flag or blank is none."""
    assert not is_published_key(key)
