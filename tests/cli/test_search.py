"""The options of ``edgenas search``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgenas.devices import Target
from edgenas.pipeline import Run
from edgenas.search import Front
from edgenas.space import MobileNetV3

_SPACE = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10)


@pytest.mark.parametrize(("given", "expected"), [((), "nsga2"), (("--strategy", "random"), "random")])
def test_the_strategy_is_nsga2_unless_another_is_named(
    call: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    expected: str,
) -> None:
    """--strategy names the strategy of the search."""
    asked: list[str] = []

    def search(self: Run, targets: list[Target], seed: int, strategy: str, **options: object) -> Front:
        asked.append(strategy)
        values = {name: np.ones(1) for name in ("accuracy", "latency_ms", "peak_bytes")}
        return Front(_SPACE, targets[0].name, _SPACE.encode([_SPACE.smallest]), values, ("accuracy",), 1, "test")

    monkeypatch.setattr(Run, "search", search)
    run = Run(tmp_path / "run", _SPACE).folder.root
    code, _, err = call("search", "--run", run, *given)
    assert (code, asked) == (0, [expected]), err
