"""Importing edgenas is cheap, and what needs no torch loads none."""

import subprocess
import sys

import pytest

import edgenas

HEAVY = (
    "torch",
    "torchvision",
    "pymoo",
    "onnx",
    "onnxruntime",
    "sklearn",
    "scipy",
    "pydantic",
    "yaml",
    "numpy",
    "matplotlib",
)
WITHOUT_TORCH = (
    "costs", "graph", "devices", "space", "accuracy", "export", "profilers", "search", "regression", "pipeline", "cli",
)  # fmt: skip


def loaded_by(statement: str, libraries: tuple[str, ...]) -> list[str]:
    """Which of ``libraries`` a fresh Python has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint(*[name for name in {libraries!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_package_loads_nothing_heavy() -> None:
    """`import edgenas` loads no library besides the standard one."""
    assert loaded_by("import edgenas", HEAVY) == []


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_room_loads_without_torch(room: str) -> None:
    """A room that works in a base install imports no torch before it is used."""
    assert loaded_by(f"import edgenas.{room}", ("torch", "pymoo", "sklearn", "onnxruntime")) == []


def test_public_name_loads_its_room_only() -> None:
    """Using a space loads neither torch nor onnx."""
    libraries = ("torch", "onnx", "pymoo", "sklearn")
    assert loaded_by("import edgenas; edgenas.MobileNetV3(width=0.35).largest.id", libraries) == []


def test_wrong_attribute_lists_what_exists() -> None:
    """A public name that does not exist is answered with those that do."""
    with pytest.raises(AttributeError, match=r"no attribute 'Pareto'; it has AccuracyPredictor, .*record_baseline"):
        _ = edgenas.Pareto
