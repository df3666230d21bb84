"""Who may import whom, and where heavy libraries may be imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgenas"
MODULES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = {"errors", "units", "files"}
ROOMS = {
    "errors", "units", "files", "costs", "graph", "layout", "data", "devices", "space", "ofa", "accuracy", "export",
    "profilers", "search", "regression", "report", "pipeline", "cli",
}  # fmt: skip
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "units": {"errors"},
    "files": {"errors"},
    "costs": FOUNDATION,
    "graph": FOUNDATION,
    "layout": FOUNDATION,
    "data": FOUNDATION,
    "devices": FOUNDATION,
    "space": FOUNDATION | {"costs"},
    "ofa": FOUNDATION | {"space", "costs", "data"},
    "accuracy": FOUNDATION | {"space", "ofa", "data", "costs"},
    "export": FOUNDATION | {"space", "graph"},
    "profilers": FOUNDATION | {"devices", "space", "export", "graph", "costs"},
    "search": FOUNDATION | {"space", "costs"},
    "regression": FOUNDATION | {"profilers", "export", "devices", "costs"},
    "report": ROOMS - {"pipeline", "cli"},
    "pipeline": ROOMS - {"report", "cli"},
    "cli": ROOMS,
}

# Where a heavy library may be imported at all, and in which modules outside a function.
HEAVY_ROOMS: dict[str, set[str]] = {
    "torch": {"ofa", "accuracy", "data", "export"},
    "torchvision": {"data"},
    "pymoo": {"search"},
    "paramiko": {"devices/ssh_link.py", "devices/ssh_connection.py", "devices/ssh_login.py"},
    "sklearn": ROOMS,
    "scipy": ROOMS,
    "onnx": ROOMS,
    "onnxruntime": ROOMS,
    "matplotlib": ROOMS,
    "pydantic": ROOMS,
}
HEAVY_AT_TOP: dict[str, set[str]] = {
    "torch": {"ofa", "accuracy/evaluate.py", "data.py"},
    "pymoo": {"search/problem.py"},  # derives from pymoo's classes; the room itself loads without it
}


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, and how it is imported."""

    module: str
    line: int
    in_function: bool
    for_types: bool


def imports_of(path: Path, source: str) -> list[Import]:
    """Every import of a file, relative ones resolved; ``from edgenas import b`` gives ``edgenas.b``."""
    found: list[Import] = []

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(Import(name, node.lineno, in_function, for_types) for name in _names(node, path))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                visit(statement, in_function, True)
            for statement in node.orelse:
                visit(statement, in_function, for_types)
            return
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside, for_types)

    visit(ast.parse(source), False, False)
    return found


def _names(node: ast.Import | ast.ImportFrom, path: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        package = ("edgenas", *path.relative_to(PACKAGE).parent.parts)
        base = ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
    if base == "edgenas":
        yield from (f"edgenas.{alias.name}" for alias in node.names)
    else:
        yield base


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def place_of(path: Path) -> set[str]:
    """The names under which a rule may mean a module: its room and its path."""
    return {room_of(path), path.relative_to(PACKAGE).as_posix()}


def forbidden_rooms(path: Path, source: str) -> list[str]:
    room = room_of(path)
    wrong = []
    for item in imports_of(path, source):
        steps = item.module.split(".")
        if steps[0] != "edgenas" or (len(steps) > 1 and steps[1] == room):
            continue
        other_room = steps[1] if len(steps) > 1 else "edgenas itself"
        if other_room not in MAY_IMPORT[room] | {"__version__"}:
            wrong.append(f"line {item.line}: {room} may not import {other_room}")
    return wrong


def misplaced_libraries(path: Path, source: str) -> list[str]:
    wrong = []
    for item in imports_of(path, source):
        library = item.module.partition(".")[0]
        if library not in HEAVY_ROOMS or item.for_types:
            continue
        if not place_of(path) & HEAVY_ROOMS[library]:
            wrong.append(f"line {item.line}: {library} belongs to {', '.join(sorted(HEAVY_ROOMS[library]))}")
        elif not item.in_function and not place_of(path) & HEAVY_AT_TOP.get(library, set()):
            wrong.append(f"line {item.line}: {library} may only be imported inside a function")
    return wrong


def _module_id(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=_module_id)
def test_module_imports_only_permitted_rooms(path: Path) -> None:
    """A module imports only the rooms that the table of the design permits to its own room."""
    if path == PACKAGE / "__init__.py":
        pytest.skip("holds the public names of all rooms, loaded on first use")
    assert room_of(path) in ROOMS
    assert forbidden_rooms(path, path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=_module_id)
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    """A heavy library is imported only in its rooms, and outside of functions only where it is what the room is for."""
    assert misplaced_libraries(path, path.read_text()) == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "profilers").glob("agent*.py")), ids=_module_id)
def test_agent_stands_alone(path: Path) -> None:
    """What is sent to a device imports nothing of edgenas."""
    assert [item for item in imports_of(path, path.read_text()) if item.module.startswith("edgenas")] == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("space/new.py", "import edgenas.ofa"),
        ("space/new.py", "from edgenas import ofa"),
        ("space/new.py", "import edgenas"),
        ("space/new.py", "from ..ofa import layers"),
        ("space/new.py", "from .. import ofa"),
        ("space/new.py", "def late():\n    from edgenas.ofa.layers import ElasticConv"),
        ("space/new.py", "if TYPE_CHECKING:\n    from edgenas.ofa import Supernet"),
        ("pipeline/new.py", "import edgenas.cli.main"),
        ("units.py", "from edgenas import files"),
    ],
)
def test_rule_catches_every_form_of_import(place: str, source: str) -> None:
    """An import that is not permitted is found whether absolute, relative, late or for types only."""
    assert forbidden_rooms(PACKAGE / place, source)


def test_rule_accepts_permitted_imports() -> None:
    """Imports within the room and from permitted rooms are accepted, relative ones too."""
    lines = ["import math", "from edgenas import costs", "from edgenas.files import parse", "from . import parts"]
    assert forbidden_rooms(PACKAGE / "space" / "new.py", "\n".join([*lines, "from .base import Gene"])) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("space/new.py", "def late():\n    import torch"),
        ("export/new.py", "import torch"),
        ("devices/adb.py", "def late():\n    import paramiko"),
        ("search/new.py", "from pymoo.core.problem import Problem"),
    ],
)
def test_rule_catches_misplaced_libraries(place: str, source: str) -> None:
    """A heavy library in a wrong room, or at the top of a module, is found."""
    assert misplaced_libraries(PACKAGE / place, source)


def documented_rule(permitted: str) -> set[str]:
    """The rooms that a cell of the design's table permits."""
    if permitted == "all":
        return ROOMS
    if permitted.startswith("all but "):
        return ROOMS - set(permitted.removeprefix("all but ").split(" and "))
    return FOUNDATION | (set() if permitted == "-" else set(permitted.split(", ")))


def test_rules_are_those_of_the_design() -> None:
    """The table in docs/design.md says what this test checks."""
    text = (PACKAGE.parent / "docs" / "design.md").read_text()
    table = text.partition("| room | may also import |\n|---|---|\n")[2].partition("\n\n")[0]
    documented: dict[str, set[str]] = {}
    for row in table.splitlines():
        rooms, permitted = (cell.strip() for cell in row.strip("|").split("|"))
        documented |= {room: documented_rule(permitted) for room in rooms.split(", ")}
    assert documented == {room: rule for room, rule in MAY_IMPORT.items() if room not in FOUNDATION}
