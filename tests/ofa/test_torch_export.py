"""A subnet exported by torch.export runs without edgenas."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from edgenas.ofa import Supernet
from edgenas.space import MobileNetV3, SearchSpace

_ELSEWHERE = """
import sys
sys.modules["edgenas"] = None  # from here on its import raises ImportError
try:
    import edgenas
except ImportError:
    pass
else:
    raise SystemExit("edgenas can still be imported")
import torch
program, case = sys.argv[1:]
expected = torch.load(case, weights_only=True)
with torch.no_grad():
    logits = torch.export.load(program).module()(expected["x"])
torch.testing.assert_close(logits, expected["logits"], rtol=1e-5, atol=1e-5)
assert not [name for name in sys.modules if name.startswith("edgenas.")]
"""


def test_the_exported_program_runs_without_edgenas(
    tiny: MobileNetV3, lively: Callable[[SearchSpace], Supernet], tmp_path: Path
) -> None:
    """A subnet's torch.export program, saved, gives the same logits where edgenas cannot be imported."""
    architecture = tiny.decode(tiny.sample_distinct(3, np.random.default_rng(0)))[2]
    subnet = lively(tiny).extract(architecture)
    x = torch.randn(1, 3, architecture.resolution, architecture.resolution)
    program, case = tmp_path / "subnet.pt2", tmp_path / "case.pt"
    torch.export.save(torch.export.export(subnet, (x,)), program)
    with torch.no_grad():
        torch.save({"x": x, "logits": subnet(x)}, case)
    command = [sys.executable, "-c", _ELSEWHERE, str(program), str(case)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
