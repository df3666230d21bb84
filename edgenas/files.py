"""Atomic writing and strict reading of files: JSON documents, tensors, YAML, and plain data as dataclasses.

Every edgenas file begins with ``{"format": "edgenas.<kind>", "version": n}``
and carries a checksum of its body. A damaged or foreign file is refused, and
the message says what to do.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import hashlib
import json
import os
import reprlib
import stat
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from annotated_types import Interval, MaxLen, Predicate

from edgenas.errors import EdgeNASError, FormatError, UsageError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
Upgrade = Callable[[Mapping[str, Any]], dict[str, Any]]  # a body of one schema version to that of the next
TEMPORARY_SUFFIX = ".edgenas-tmp"  # of files that are being written
_UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")  # pydantic's types of error
_MISSING_KEY = ("missing", "missing_argument")
# More is an attack or a mistake. They bound the memory and the time that a file can take.
_MAX_BYTES = 1 << 32  # of any file
MAX_DOCUMENT_BYTES = 1 << 26  # of JSON
_MAX_YAML_BYTES = 1 << 22
_MAX_VALUES = 5_000_000  # of JSON
_MAX_YAML_VALUES = 100_000
_MAX_ALIASED_NODES = 100_000  # "billion laughs" is a file of nine lines
_MAX_DEPTH = 50
_MAX_INTEGER_BITS, _MAX_INTEGER_DIGITS = 64, 20
_LONGEST_KEY, _LONGEST_MESSAGE = 100, 600  # in messages
_REMEDY = "move it away and run the command that made it again"


def write_bytes(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file as a whole or not at all: to a temporary file beside it, fsync, rename.

    Folders that are missing are made.

    Raises:
        EdgeNASError: The folder cannot be written or the disk is full.
        UsageError: There is a file already, and ``replace`` is false.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not replace:
            _create_empty(path)
        temporary.unlink(missing_ok=True)  # what an earlier process of this number left, or a link that waits for us
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = f"cannot be written ({error.strerror})"
        raise EdgeNASError(f"{path}: {reason}; free space or choose another folder") from None


def _create_empty(path: Path) -> None:
    """Create a file; raise UsageError where there is one, also when another process was faster."""
    try:
        path.open("xb").close()
    except FileExistsError:
        raise UsageError(f"{path}: is there already; choose another name, or move it away") from None


def read_bytes(path: Path, max_bytes: int = _MAX_BYTES) -> bytes:
    """Return the content of a regular file, or of the one that a link leads to; never wait for a pipe or a terminal.

    Raises:
        UsageError: The file is absent, unreadable, no regular file, or larger than ``max_bytes`` or the memory.
    """
    try:
        with _opened(path, os.O_RDONLY, "is no regular file; give a file") as descriptor:
            size = os.fstat(descriptor).st_size
            if size > max_bytes:
                raise UsageError(f"{path}: has {size} bytes, and no such file has more than {max_bytes}; move it away")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
    except MemoryError:
        raise UsageError(f"{path}: has {size} bytes, more than fit into memory; move it away") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def check_regular_file(path: Path) -> None:
    """Raise UsageError for a file that is absent, a folder, or one that reading may wait for, such as a pipe."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise UsageError(f"{path}: is {kind}; give a file")


def cache_folder(name: str) -> Path:
    """Return the folder of downloads of a kind: below XDG_CACHE_HOME, else below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(base).is_absolute():
        base = str(Path("~/.cache").expanduser())
    return Path(base) / "edgenas" / name


@contextlib.contextmanager
def opened_without_links(path: Path, flags: int) -> Iterator[int]:
    """Open a regular file of a folder that others may have filled, and close it again.

    Its name may not be a link, which could lead to any file of the user, and a pipe is not waited for. A new file is
    readable and writable as the umask says.

    Raises:
        UsageError: It is a link or no regular file.
        OSError: It cannot be opened.
    """
    with _opened(path, flags | os.O_NOFOLLOW, "is a link or no regular file; move it away") as descriptor:
        yield descriptor


@contextlib.contextmanager
def _opened(path: Path, flags: int, problem: str) -> Iterator[int]:
    try:
        # O_NONBLOCK: opening a named pipe would wait for its other end.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO) or (error.errno == errno.ELOOP and flags & os.O_NOFOLLOW):
            raise UsageError(f"{path}: {problem}") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path}: {problem}")
        yield descriptor
    finally:
        os.close(descriptor)


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


def canonical_json_bytes(value: Any) -> bytes:
    """Return a JSON value as bytes that depend on its content alone: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of_inputs(*inputs: Any) -> str:
    """Return a digest of a step's inputs (JSON values): its result is current while this stays equal."""
    return sha256_hex(canonical_json_bytes(list(inputs)))[:16]


def write_document(path: Path, kind: str, version: int, body: Mapping[str, Any]) -> None:
    """Write a JSON document with header and checksum. Bodies of equal content and order give equal bytes."""
    header = {"format": f"edgenas.{kind}", "version": version, "sha256": sha256_hex(canonical_json_bytes(body))}
    write_bytes(path, (json.dumps({**header, **body}, indent=1, allow_nan=False) + "\n").encode())


def parse_header_version(
    header: Mapping[str, Any], path: Path, kind: str, version: int, oldest: int | None = None
) -> int:
    """Return the schema version of a file's header.

    Raises:
        FormatError: The file is of another kind, newer than ``version``, or older than ``oldest``
            (by default ``version``).
    """
    if header.get("format") != f"edgenas.{kind}":
        given = reprlib.repr(header.get("format"))
        raise FormatError(f"{path}: expected format edgenas.{kind}, but it says {given}; {_REMEDY}")
    found = header.get("version")
    if type(found) is not int or found > version:  # true is an int, too
        raise FormatError(
            f"{path}: has schema version {reprlib.repr(found)}, this edgenas reads up to {version};"
            " upgrade edgenas (pip install -U edgenas)"
        )
    if found < (version if oldest is None else oldest):
        raise FormatError(f"{path}: has schema version {found}, this edgenas reads {version}; {_REMEDY}")
    return found


class _Body(dict[str, Any]):
    """The body of a file. A missing key raises FormatError, for it is the file's fault."""

    def __init__(self, path: Path, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise FormatError(f"{self._path}: has no {key!r}, another edgenas wrote it; {_REMEDY}")


def oldest_version(version: int, upgrades: Mapping[int, Upgrade]) -> int:
    """Return the oldest version that upgrades lead from to ``version``."""
    while version - 1 in upgrades:
        version -= 1
    return version


def read_document(path: Path, kind: str, version: int, upgrades: Mapping[int, Upgrade] | None = None) -> dict[str, Any]:
    """Read what ``write_document`` wrote, without its header.

    Args:
        path: The file.
        kind: Its format, without ``edgenas.``.
        version: The schema version of the body that is returned.
        upgrades: For an older version, the function that makes the body of the next version from its body.

    Raises:
        FormatError: The file is damaged, of another kind, newer, or of an older version without an upgrade.
    """
    upgrades = upgrades or {}
    try:
        document = parse_json(read_bytes(path, MAX_DOCUMENT_BYTES), str(path))
    except (ValueError, RecursionError):
        raise FormatError(f"{path}: is damaged (not JSON); {_REMEDY}") from None
    if not isinstance(document, dict):
        raise FormatError(f"{path}: is not an edgenas file; {_REMEDY}")
    found = parse_header_version(document, path, kind, version, oldest_version(version, upgrades))
    body = _Body(path, {key: value for key, value in document.items() if key not in ("format", "version", "sha256")})
    try:
        intact = document.get("sha256") == sha256_hex(canonical_json_bytes(body))
    except ValueError:
        intact = False
    if not intact:
        raise FormatError(f"{path}: is damaged or was edited (its checksum does not match); {_REMEDY}")
    for older in range(found, version):
        try:
            body = _Body(path, upgrades[older](body))
        except (AttributeError, LookupError, TypeError, ValueError):
            raise FormatError(f"{path}: lacks what version {older} of edgenas.{kind} has; {_REMEDY}") from None
    return body


@dataclass(frozen=True, eq=False)
class Schema:
    """The schema of one kind of document.

    Args:
        kind: The format, without ``edgenas.``.
        version: The version that is written.
        upgrades: For each older version that is still read, the function that makes the next version's body.
    """

    kind: str
    version: int
    upgrades: Mapping[int, Upgrade] = field(default_factory=dict)

    def read(self, path: Path) -> dict[str, Any]:
        """Return the body of a document in today's version; raise FormatError as ``read_document``."""
        return read_document(path, self.kind, self.version, self.upgrades)

    def read_as(self, cls: type[T], path: Path) -> T:
        """Return the body of a document as a dataclass; raise FormatError where it is none, although it is intact."""
        try:
            return parse_dataclass(cls, dict(self.read(path)), str(path))
        except FormatError:
            raise
        except UsageError as error:
            raise FormatError(f"{error}; {_REMEDY}") from None

    def write(self, path: Path, body: Mapping[str, Any]) -> None:
        """Write a document."""
        write_document(path, self.kind, self.version, body)


def rename_keys(value: Any, names: Mapping[str, str]) -> Any:
    """Return plain data with keys renamed at any depth."""
    if isinstance(value, Mapping):
        return {names.get(key, key): rename_keys(part, names) for key, part in value.items()}
    return [rename_keys(part, names) for part in value] if isinstance(value, list) else value


def write_tensors(
    path: Path, kind: str, version: int, tensors: Mapping[str, np.ndarray], body: Mapping[str, Any]
) -> None:
    """Write arrays and a JSON body as one safetensors file. Equal content gives equal bytes."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(tensors.items())}
    header = {
        "format": f"edgenas.{kind}",
        "version": version,
        "sha256": _digest_tensors(arrays, body),
        "body": dict(body),
    }
    # A single metadata key, because safetensors writes several in random order.
    write_bytes(path, save(arrays, metadata={"edgenas": canonical_json_bytes(header).decode()}))


def read_tensors_and_body(path: Path, kind: str, version: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the body that ``write_tensors`` wrote.

    Raises FormatError when the file is damaged, of another kind, or of another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = read_bytes(path)
    try:
        size = int.from_bytes(data[:8], "little")
        names = parse_json(data[8 : 8 + min(size, MAX_DOCUMENT_BYTES)], str(path))
        header = dict(parse_json(names["__metadata__"]["edgenas"].encode(), str(path)))
        arrays, body = load(data), dict(header["body"])
        digest = _digest_tensors(arrays, body)
    except (SafetensorError, AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError):
        raise FormatError(f"{path}: is damaged or no edgenas file (its header cannot be read); {_REMEDY}") from None
    parse_header_version(header, path, kind, version)
    if header.get("sha256") != digest:
        raise FormatError(f"{path}: is damaged (its checksum does not match); {_REMEDY}")
    return arrays, _Body(path, body)


def _digest_tensors(arrays: Mapping[str, np.ndarray], body: Mapping[str, Any]) -> str:
    hasher = hashlib.sha256(canonical_json_bytes(body))
    for name, array in sorted(arrays.items()):
        hasher.update(f"{name} {array.dtype} {array.shape}\n".encode())
        hasher.update(array.tobytes())
    return hasher.hexdigest()


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


# The ranges of numbers in files. A number may be huge, but not so that sums and products of it overflow.
_LARGEST = 1e15
Amount = Annotated[float, Interval(ge=0, le=_LARGEST)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Number = Annotated[float, Interval(ge=-_LARGEST, le=_LARGEST)]
Milliseconds = Annotated[float, Interval(ge=1e-6, le=1e9)]  # a clock counts nanoseconds; days are no latency
Count = Annotated[int, Interval(ge=0, le=2**62)]
ShortText = Annotated[str, MaxLen(1000), Predicate(str.isprintable)]


@functools.cache
def _validator(cls: Any) -> Any:
    from pydantic import TypeAdapter
    from pydantic_core import SchemaValidator

    return SchemaValidator(_with_exact_numbers(TypeAdapter(cls).core_schema))


def _with_exact_numbers(schema: Any) -> Any:
    """Return a schema of pydantic that converts nothing of another type to a number, such as true or "4"."""
    if isinstance(schema, (list, tuple)):
        return type(schema)(_with_exact_numbers(each) for each in schema)
    if not isinstance(schema, dict):
        return schema
    exact = {key: value if key == "metadata" else _with_exact_numbers(value) for key, value in schema.items()}
    if exact.get("type") in ("int", "float", "bool"):
        exact["strict"] = True
    return exact


def parse_dataclass(cls: type[T], data: Any, where: str) -> T:
    """Return a frozen dataclass made from plain data, with types checked and unknown keys refused by name.

    Args:
        cls: The dataclass; its fields may be dataclasses, tuples and mappings of them.
        data: Mappings, lists, text and numbers, as from JSON or YAML.
        where: The file or argument that messages name.

    Raises:
        UsageError: A key is unknown or missing, or a value has a wrong type. Where the dataclass itself raised a
            subclass of UsageError, that subclass; where it raised another EdgeNASError, FormatError.
    """
    from pydantic import ValidationError

    try:
        result: T = _validator(cast("Any", cls)).validate_python(data)
    except ValidationError as error:
        raise UsageError(f"{where}: {_format_first_problem(cls, error)}") from None
    except UsageError as error:
        raise type(error)(f"{where}: {_shorten(str(error))}") from None
    except EdgeNASError as error:
        raise FormatError(f"{where}: {_shorten(str(error))}") from None
    return result


def _shorten(text: str) -> str:
    """Return a message; of a very long one, which quotes a hostile value, the beginning and the end."""
    half = _LONGEST_MESSAGE // 2
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:half]} ... {text[-half:]}"


def check_keys(data: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Raise UsageError for the first key that is not known, with the nearest one."""
    unknown = next((key for key in data if key not in known), None)
    if unknown is not None:
        raise UsageError(
            f"{where}: unknown key {reprlib.repr(unknown)}{format_suggestion(str(unknown), sorted(known))}"
        )


def _format_first_problem(cls: type[Any], error: Any) -> str:
    problems = error.errors()
    # A misspelt key is also reported as a missing one; the key that was given helps more.
    problem = next((item for item in problems if item["type"] in _UNKNOWN_KEY), problems[0])
    place = ".".join(format_value(step) for step in problem["loc"])
    if problem["type"] in _UNKNOWN_KEY or problem["type"] in _MISSING_KEY:
        known = sorted(_field_names(cls, problem["loc"][:-1]))
        if problem["type"] in _MISSING_KEY:
            return f"key {place!r} is missing; known: {', '.join(known)}"
        return f"unknown key {place!r}{format_suggestion(format_value(problem['loc'][-1]), known)}"
    if problem["type"] == "dataclass_type":
        return f"{place + ': ' if place else ''}must be a mapping with keys, but got {reprlib.repr(problem['input'])}"
    if problem["type"] == "predicate_failed":  # the only one is that of ShortText
        return f"{place}: must be printable text, but got {reprlib.repr(problem['input'])}"
    return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}, but got {reprlib.repr(problem['input'])}"


def format_value(value: object) -> str:
    """Return a key, an index or another value of a document as short printable text."""
    text = str(value)
    return text if text.isprintable() and len(text) <= _LONGEST_KEY else reprlib.repr(text)


def _field_names(cls: type[Any], path: tuple[Any, ...]) -> list[str]:
    """Return the field names of the dataclass at ``path`` below ``cls``."""
    import dataclasses
    import typing

    for step in path:
        if isinstance(step, str) and dataclasses.is_dataclass(cls):
            hint: Any = typing.get_type_hints(cls).get(step)
            while hint is not None and not dataclasses.is_dataclass(hint):
                candidates = [arg for arg in typing.get_args(hint) if arg is not type(None) and arg is not Ellipsis]
                hint = candidates[-1] if candidates else None
            if hint is None:
                return []
            cls = cast("type[Any]", hint)
    return [field.name for field in dataclasses.fields(cls)]


def format_suggestion(word: str, known: list[str]) -> str:
    """Return the end of a message about an unknown word: the nearest known word, and all known ones."""
    close = difflib.get_close_matches(word[:_LONGEST_KEY], known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} known: {', '.join(known)}"
