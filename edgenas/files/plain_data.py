"""Plain data of JSON and YAML text, within bounds of memory and time."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from edgenas.errors import FormatError
from edgenas.files.disk import read_bytes

# More is an attack or a mistake. They bound the memory and the time that a file can take.
_MAX_YAML_BYTES = 1 << 22
_MAX_VALUES = 5_000_000  # of JSON
_MAX_YAML_VALUES = 100_000
_MAX_ALIASED_NODES = 100_000  # "billion laughs" is a file of nine lines
_MAX_DEPTH = 50
_MAX_INTEGER_BITS, _MAX_INTEGER_DIGITS = 64, 20


def read_yaml(path: Path) -> Any:
    """Return the plain data of a YAML or JSON file.

    No objects are constructed. Raises FormatError, with the line where it is
    known, for a syntax error, a repeated key, very many or very deeply nested
    values, aliases that expand to very much, or an integer of more than 64 bits.
    """
    import yaml

    data = read_bytes(path, _MAX_YAML_BYTES)
    try:
        try:
            value = parse_json(data, str(path))
        except (ValueError, RecursionError):  # YAML, or JSON that the YAML loader refuses with its line
            value = yaml.load(data, _make_yaml_loader_class(path))  # noqa: S506 - a SafeLoader
        if _has_huge_integer(value):
            raise FormatError(f"{path}: holds an integer of more than {_MAX_INTEGER_BITS} bits; correct it")
        _check_depth(value, str(path))
        return value
    # PyYAML lets ValueError through for an impossible date, AttributeError and LookupError for malformed tagged ones.
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "unreadable"
        raise FormatError(f"{path}{line}: is not valid YAML ({problem}); correct it") from None


def parse_json(data: bytes, where: str) -> Any:
    """Return the value of JSON text, which is not all YAML: PyYAML takes 1e-05 for text, and no tab as a blank.

    Raises:
        FormatError: It holds very many or very deeply nested values; the message names ``where``.
        ValueError: It is other text, or holds a repeated key, an integer of very many digits, NaN or infinity.
        RecursionError: It is nested even more deeply.
    """
    if data.count(b",") > _MAX_VALUES or data.count(b"[") + data.count(b"{") > _MAX_VALUES:
        raise FormatError(f"{where}: holds more than {_MAX_VALUES} values; move it away")

    def make_unique_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            raise ValueError("a key is repeated")
        return mapping

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no JSON")

    def parse_integer(text: str) -> int:
        if len(text) > _MAX_INTEGER_DIGITS:
            raise ValueError("an integer has too many digits")
        return int(text)

    value = json.loads(data, object_pairs_hook=make_unique_mapping, parse_constant=refuse, parse_int=parse_integer)
    _check_depth(value, where)
    return value


def _check_depth(value: Any, where: str) -> None:
    """Raise FormatError for plain data that is nested so deeply that code which follows it could fail."""
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [each for each in level if isinstance(each, (dict, list))]
        if not level:
            return
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
    raise FormatError(f"{where}: is nested more than {_MAX_DEPTH} deep; move it away")


def _make_yaml_loader_class(path: Path) -> Any:
    """Return a safe loader class that refuses repeated keys and aliases without end."""
    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader whose FormatErrors name the file."""

        nodes = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            self.nodes += 1
            if self.nodes > _MAX_YAML_VALUES:
                raise FormatError(f"{path}: holds more than {_MAX_YAML_VALUES} values; write it as JSON, or less of it")
            node: yaml.Node | None = super().compose_node(parent, index)
            return node

        def get_single_node(self) -> yaml.Node | None:
            root: yaml.Node | None = super().get_single_node()
            if root is not None and _count_aliased_nodes(root) > _MAX_ALIASED_NODES:
                raise FormatError(f"{path}: its aliases repeat more than {_MAX_ALIASED_NODES} values; write less of it")
            return root

    def construct_unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = loader.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # PyYAML refuses it below
            if key in keys:  # PyYAML would take the second one without a word
                line = key_node.start_mark.line + 1
                raise FormatError(f"{path}, line {line}: key {key!r} stands twice; remove one")
            keys.add(key)
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("tag:yaml.org,2002:map", construct_unique_mapping)
    return Loader


def _count_aliased_nodes(root: Any) -> int:
    """Count the nodes that writing out every alias would add to a YAML graph."""
    sizes: dict[int, int] = {}

    def expanded_size(node: Any) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 1  # ends the recursion at a node that holds itself, which PyYAML refuses later
            items = node.value if isinstance(node.value, list) else []
            pairs = (item if isinstance(item, tuple) else (item,) for item in items)
            sizes[id(node)] = 1 + sum(expanded_size(child) for pair in pairs for child in pair)
        return sizes[id(node)]

    return expanded_size(root) - len(sizes)


def _has_huge_integer(value: Any) -> bool:
    """Return true for plain data with an integer that no setting can mean and that Python may refuse to print."""
    if isinstance(value, dict):
        return any(_has_huge_integer(item) for pair in value.items() for item in pair)
    if isinstance(value, list):
        return any(_has_huge_integer(item) for item in value)
    return isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS
