"""Who may import whom, and where heavy libraries may be imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edgenas"
MODULES = sorted(PACKAGE.rglob("*.py"))

FOUNDATION = {"errors", "units", "shell", "files", "appending", "locks", "version", "registry"}
PACKAGES = {
    *FOUNDATION, "costs", "graph", "data", "on_device", "devices",
    "space", "ofa", "accuracy", "export", "runtimes", "bundle", "profilers", "search", "regression", "report",
    "pipeline", "cli",
}  # fmt: skip
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "version": set(),
    "on_device": FOUNDATION,
    "units": {"errors"},
    "shell": set(),
    "files": {"errors"},
    "appending": {"files"},
    "locks": set(),
    "registry": {"errors", "files"},
    "costs": FOUNDATION,
    "graph": FOUNDATION,
    "data": FOUNDATION,
    "devices": FOUNDATION | {"on_device", "runtimes"},
    "space": FOUNDATION | {"costs"},
    "ofa": FOUNDATION | {"space", "costs", "data"},
    "accuracy": FOUNDATION | {"space", "ofa", "data", "costs"},
    "export": FOUNDATION | {"on_device", "space", "graph"},
    "runtimes": FOUNDATION | {"on_device", "space", "graph", "export"},
    "bundle": FOUNDATION | {"on_device", "data", "export", "runtimes"},
    "profilers": FOUNDATION | {"on_device", "devices", "space", "export", "runtimes", "graph", "costs"},
    "search": FOUNDATION | {"space", "costs"},
    "regression": FOUNDATION | {"on_device", "space", "export", "runtimes", "bundle", "profilers", "devices"},
    "report": PACKAGES - {"pipeline", "cli"},
    "pipeline": PACKAGES - {"report", "cli"},
    "cli": PACKAGES,
}

# Where a heavy library may be imported at all, and in which modules outside a function.
HEAVY_PACKAGES: dict[str, set[str]] = {
    "torch": {"ofa", "accuracy", "data", "export"},
    "torchvision": {"data"},
    "pymoo": {"search/strategies/nsga2.py"},
    "moocore": {"search"},
    "optuna": {"search/strategies/bayesian.py"},
    "paramiko": {f"devices/ssh/{name}.py" for name in ("agent", "connection", "key_files", "key_request", "login")},
    "sklearn": PACKAGES,
    "scipy": PACKAGES,
    "onnx": PACKAGES,
    "onnxruntime": PACKAGES,
    "matplotlib": PACKAGES,
    "pydantic": PACKAGES,
}
HEAVY_AT_TOP: dict[str, set[str]] = {
    "torch": {"ofa", "accuracy/evaluate.py", "data/data_set.py"},
    "paramiko": {"devices/ssh/key_request.py"},  # derives from one of its classes, and is imported at a login
    "pymoo": {"search/strategies/nsga2.py"},  # imported when it is used, by its name in the registry
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


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def place_of(path: Path) -> set[str]:
    """The names under which a rule may mean a module: its package and its path."""
    return {package_of(path), path.relative_to(PACKAGE).as_posix()}


def forbidden_packages(path: Path, source: str) -> list[str]:
    package = package_of(path)
    wrong = []
    for item in imports_of(path, source):
        steps = item.module.split(".")
        if steps[0] != "edgenas" or (len(steps) > 1 and steps[1] == package):
            continue
        other = steps[1] if len(steps) > 1 else "edgenas itself"
        if other not in MAY_IMPORT[package]:
            wrong.append(f"line {item.line}: {package} may not import {other}")
    return wrong


def misplaced_libraries(path: Path, source: str) -> list[str]:
    wrong = []
    for item in imports_of(path, source):
        library = item.module.partition(".")[0]
        if library not in HEAVY_PACKAGES or item.for_types:
            continue
        if not place_of(path) & HEAVY_PACKAGES[library]:
            wrong.append(f"line {item.line}: {library} belongs to {', '.join(sorted(HEAVY_PACKAGES[library]))}")
        elif not item.in_function and not place_of(path) & HEAVY_AT_TOP.get(library, set()):
            wrong.append(f"line {item.line}: {library} may only be imported inside a function")
    return wrong


def _module_id(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=_module_id)
def test_module_imports_only_permitted_packages(path: Path) -> None:
    """A module imports only the packages that the table of the design permits to its own package."""
    if path in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"):
        pytest.skip("holds the public names of all packages, loaded on first use, or runs the command line")
    assert package_of(path) in PACKAGES
    assert forbidden_packages(path, path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=_module_id)
def test_heavy_libraries_stay_in_their_packages(path: Path) -> None:
    """A heavy library is imported in its packages only, outside of functions only where the package is about it."""
    assert misplaced_libraries(path, path.read_text()) == []


def module_of(path: Path) -> str:
    """The dotted name of a module; a package's ``__init__`` has the package's name."""
    return ".".join(["edgenas", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


def imports_among(sources: dict[str, tuple[Path, str]]) -> dict[str, set[str]]:
    """Which of these modules each imports, anywhere in its file, for types only too."""
    found: dict[str, set[str]] = {}
    for name, (path, source) in sources.items():
        wanted: set[str] = set()
        for node in ast.walk(ast.parse(source)):
            for base in _names(node, path) if isinstance(node, ast.Import | ast.ImportFrom) else ():
                names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                wanted |= {f"{base}.{each}" if f"{base}.{each}" in sources else base for each in names or [""]}
        found[name] = (wanted & sources.keys()) - {name}
    return found


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or in a circle."""
    reached = {name: set(others) for name, others in imports.items()}
    for middle in imports:  # S. Warshall, A theorem on Boolean matrices, Journal of the ACM 9 (1962) 11
        for name in imports:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in imports}
    return sorted(sorted(group) for group in groups if group)


def test_no_modules_import_each_other() -> None:
    """No two modules of edgenas import each other, directly or in a circle, imports for types included."""
    assert circles(imports_among({module_of(path): (path, path.read_text()) for path in MODULES})) == []


def test_a_circle_is_found() -> None:
    """Three modules in a circle are found, one of which imports inside a function and one for types only."""
    sources = {
        "edgenas.a": "import edgenas.b",
        "edgenas.b": "def late():\n    from edgenas import c",
        "edgenas.c": "if TYPE_CHECKING:\n    from edgenas.a import Thing",
        "edgenas.d": "import edgenas.a",
    }
    written = {name: (PACKAGE / f"{name[-1]}.py", source) for name, source in sources.items()}
    assert circles(imports_among(written)) == [["edgenas.a", "edgenas.b", "edgenas.c"]]


@pytest.mark.parametrize("path", sorted((PACKAGE / "on_device").glob("*.py")), ids=_module_id)
def test_what_is_sent_to_a_device_stands_alone(path: Path) -> None:
    """What is sent to a device imports nothing of edgenas but what is sent with it."""
    imported = [item.module for item in imports_of(path, path.read_text()) if item.module.startswith("edgenas")]
    assert [name for name in imported if not name.startswith("edgenas.on_device.")] == []


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
    assert forbidden_packages(PACKAGE / place, source)


def test_rule_accepts_permitted_imports() -> None:
    """Imports within the package and from permitted packages are accepted, relative ones too."""
    lines = ["import math", "from edgenas import costs", "from edgenas.files import parse", "from . import parts"]
    assert forbidden_packages(PACKAGE / "space" / "new.py", "\n".join([*lines, "from .base import Gene"])) == []


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
    """A heavy library in a wrong package, or at the top of a module, is found."""
    assert misplaced_libraries(PACKAGE / place, source)


def documented_rule(permitted: str) -> set[str]:
    """The packages that a cell of the design's table permits."""
    if permitted == "all":
        return PACKAGES
    if permitted.startswith("all but "):
        return PACKAGES - set(permitted.removeprefix("all but ").split(" and "))
    return FOUNDATION | (set() if permitted == "-" else set(permitted.split(", ")))


def test_rules_are_those_of_the_design() -> None:
    """The table in docs/design.md says what this test checks."""
    text = (PACKAGE.parent / "docs" / "design.md").read_text()
    table = text.partition("| package | may also import |\n|---|---|\n")[2].partition("\n\n")[0]
    documented: dict[str, set[str]] = {}
    for row in table.splitlines():
        packages, permitted = (cell.strip() for cell in row.strip("|").split("|"))
        documented |= {package: documented_rule(permitted) for package in packages.split(", ")}
    assert documented == {package: rule for package, rule in MAY_IMPORT.items() if package not in FOUNDATION}
