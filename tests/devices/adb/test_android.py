"""Facts of a phone, from what getprop prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.devices.adb.android import android_facts, parse_properties
from edgenas.devices.facts import complete_facts

# In the form of getprop (AOSP, toybox's getprop.c); the values are those that Google publishes of the Pixel 8.
GETPROP = """\
[ro.board.platform]: [zuma]
[ro.build.id]: [UD1A.230803.041]
[ro.build.version.release]: [14]
[ro.product.board]: [shiba]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
[persist.sys.locale]: []
[debug.odd]: [a]: [b]
no property
"""


def test_properties_are_parsed() -> None:
    """A value may hold brackets; empty ones, and lines that are no property, are left out."""
    properties = parse_properties(GETPROP)
    assert properties["ro.product.model"] == "Pixel 8"
    assert properties["debug.odd"] == "a]: [b"
    assert len(properties) == 9


def test_a_phone_says_what_it_is() -> None:
    """Model and SoC have their makers' names, once."""
    facts = android_facts(parse_properties(GETPROP))
    assert facts == {
        "model": "Google Pixel 8",
        "os": "Android 14 UD1A.230803.041",
        "board": "shiba",
        "soc": "Google Tensor G3",
    }
    assert complete_facts(facts, "phone")["soc"] == "Google Tensor G3"
    samsung = {"ro.build.version.release": "14", "ro.product.manufacturer": "vivo", "ro.product.model": "Vivo X"}
    assert android_facts(samsung) == {"model": "Vivo X", "os": "Android 14"}


@pytest.mark.parametrize("listing", ["", "getprop: not found", "[ro.product.model]: [Pixel 8]"])
def test_another_system_says_nothing(listing: str) -> None:
    """Without Android's version there are no facts of Android."""
    assert android_facts(parse_properties(listing)) == {}


@given(st.text(max_size=200))
def test_any_listing_makes_facts_or_none(text: str) -> None:
    """Whatever getprop prints, the facts pass the strict reader."""
    complete_facts(android_facts(parse_properties(f"{GETPROP}\n[ro.product.model]: [{text}]")), "phone")
