"""The examples in the docstrings of public names."""

import doctest

import pytest

import edgenas


@pytest.mark.parametrize("name", edgenas.__all__)
def test_examples_of_public_names_run(name: str) -> None:
    """Each example imports what it uses, and prints what its docstring says."""
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(getattr(edgenas, name), name, globs={}):
        runner.run(example)
    assert runner.failures == 0


@pytest.mark.parametrize("name", ["Architecture", "Budget", "Front", "MobileNetV3", "ProxylessNAS", "ResNet50D"])
def test_values_print_on_one_short_line(name: str) -> None:
    """The docstring of a value shows its repr, which starts with the name and fits on a line."""
    shown = [line.strip() for line in (getattr(edgenas, name).__doc__ or "").splitlines()]
    assert any(line.startswith(f"{name}(") and line.endswith(")") and len(line) < 100 for line in shown)
