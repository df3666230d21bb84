"""Once-for-All's lists with the resolution beside them, as its implementation prints them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from edgenas.errors import UsageError
from edgenas.space import MobileNetV3, ProxylessNAS, ResNet50D, SearchSpace

_SPACE = MobileNetV3(width=0.25, resolutions=(128, 160, 224))
_LISTS = {"ks": [5] * 20, "e": [4] * 20, "d": [2] * 5}
_FAMILIES: list[tuple[SearchSpace, dict[str, Any]]] = [
    (_SPACE, _LISTS),
    (ProxylessNAS(width=0.25, resolutions=(128, 160)), {"ks": [3] * 21, "e": [3] * 21, "d": [2, 2, 2, 2, 2, 1]}),
    (ResNet50D(resolutions=(128, 160)), {"d": [0] * 5, "e": [0.2] * 18, "w": [0] * 6}),
]


@pytest.mark.parametrize(("space", "lists"), _FAMILIES, ids=["mobilenet_v3", "proxyless", "resnet50d"])
@pytest.mark.parametrize("key", ["image_size", "r"])
@pytest.mark.parametrize("value", [160, [160]], ids=["number", "list"])
def test_the_resolution_stands_beside_the_lists(
    space: SearchSpace, lists: dict[str, Any], key: str, value: Any
) -> None:
    """Each family takes the resolution by both names, as a number and as a list of one."""
    assert space.from_ofa({**lists, key: value}) == space.from_ofa(lists, 160)


@pytest.mark.parametrize(
    "printed",
    [
        str({**_LISTS, "image_size": 160}),
        str({"wid": None, **_LISTS, "r": [160]}),
        json.dumps({"wid": None, **_LISTS, "image_size": 160}),
    ],
    ids=["current", "tutorial", "json"],
)
def test_printed_dictionaries_are_read(printed: str) -> None:
    """What Python prints of the implementation's dictionaries is YAML of the same architecture, None included."""
    assert _SPACE.from_ofa(yaml.safe_load(printed)) == _SPACE.from_ofa(_LISTS, 160)


def test_without_a_resolution_it_is_the_largest() -> None:
    """Lists alone, as the supernet's sampling gives them, are the network at the space's largest resolution."""
    assert _SPACE.from_ofa(_LISTS).resolution == 224


def test_the_argument_goes_before_the_lists() -> None:
    """The same lists serve another resolution, if it is given."""
    assert _SPACE.from_ofa({**_LISTS, "image_size": 160}, 128).resolution == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": [128, 160]}, "'image_size' must be the resolution in pixels or a list of it, but got [128, 1"),
        ({"image_size": True}, "'image_size' must be the resolution in pixels or a list of it, but got True"),
        ({"r": "160"}, "'r' must be the resolution in pixels or a list of it, but got '160'"),
        ({"r": []}, "'r' must be the resolution in pixels or a list of it, but got []"),
        ({"image_size": 128, "r": 160}, "'image_size' and 'r' must be the same resolution, but got 128 and 160"),
        ({"image_size": 0}, "resolution must be one of 128, 160, 224, but got 0"),
        ({"imagesize": 160}, "unknown key 'imagesize'; did you mean 'image_size'? known: d, e, image_size, ks, r"),
        ({"wid": 1.2}, "unknown key 'wid'; known: d, e, image_size, ks, r"),
        ({"ks": None}, "key 'ks' is missing; known: d, e, image_size, ks, r"),
    ],
)
def test_other_keys_and_resolutions_are_refused(change: dict[str, Any], message: str) -> None:
    """A resolution that is none, and an unknown or missing key, are named, with the rule or all known keys."""
    with pytest.raises(UsageError) as caught:
        _SPACE.from_ofa({**_LISTS, **change}, where="arch.json")
    assert str(caught.value).startswith(f"arch.json: {message}")
