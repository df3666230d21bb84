"""The picture of a front."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.errors import EdgeNASError
from edgenas.report import Marker, write_front_plot
from edgenas.search import Front

MARKERS = (Marker("smallest", 0.31, (0.3, 0.32), 0.94), Marker("chosen", 0.6, (0.58, 0.63), 0.97))
Texts = list[str]


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Texts:
    """All texts of the figure that was written last."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    found: Texts = []
    save = Figure.savefig

    def spy(self: Figure, *args: Any, **kwargs: Any) -> None:
        found[:] = [str(text.get_text()) for text in self.findobj(Text)]
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    return found


def size(path: Path) -> tuple[int, int]:
    """Width and height from a PNG's header chunk."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def pixels(path: Path) -> Any:
    from matplotlib.image import imread

    return (255 * imread(path)[:, :, :3]).round().astype(int)


def share_of(path: Path, color: tuple[int, int, int]) -> int:
    """Count the pixels that have exactly this color."""
    return int((pixels(path) == color).all(axis=2).sum())


def test_the_picture_is_a_png_of_1200_by_800(front: Front, tmp_path: Path) -> None:
    """A front with markers and a budget becomes a PNG that decodes, of the documented size."""
    path = tmp_path / "front.png"
    write_front_plot(front, path, markers=MARKERS, budget_ms=0.65)
    assert size(path) == (1200, 800)
    assert pixels(path).shape == (800, 1200, 3)


def test_equal_input_gives_equal_bytes(front: Front, tmp_path: Path) -> None:
    """Drawn twice, a front gives the same file, which tells neither when nor with what it was made."""
    for name in ("first.png", "second.png"):
        write_front_plot(front, tmp_path / name, markers=MARKERS, budget_ms=0.65)
    first = (tmp_path / "first.png").read_bytes()
    assert first == (tmp_path / "second.png").read_bytes()
    assert b"tEXt" not in first


def test_no_global_state_of_matplotlib_is_touched(front: Front, tmp_path: Path) -> None:
    """Drawing needs no pyplot, whose figures and backend belong to the whole process."""
    front.save(tmp_path / "front.json")
    code = (
        "import sys; from pathlib import Path; from edgenas.report import write_front_plot;"
        "from edgenas.search import Front; from edgenas.space import MobileNetV3;"
        "space = MobileNetV3(width=0.35, resolutions=(24, 28, 32), classes=10);"
        "write_front_plot(Front.load(Path('front.json'), space), Path('front.png'));"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_front_of_one_subnet_is_drawn(make_front: Callable[[int], Front], tmp_path: Path, texts: Texts) -> None:
    """A single point has no span of latency, accuracy or memory, and is drawn all the same."""
    write_front_plot(make_front(1), tmp_path / "front.png", budget_ms=0.3)
    assert size(tmp_path / "front.png") == (1200, 800)
    assert any(text.startswith("1 subnet on the front") for text in texts)


def test_without_markers_nothing_is_called_measured(front: Front, tmp_path: Path, texts: Texts) -> None:
    """A front alone shows predictions only, and no budget."""
    write_front_plot(front, tmp_path / "front.png")
    assert "predicted" in texts
    assert not any("measured" in text or "budget" in text for text in texts)


def test_predicted_and_measured_are_told_apart(front: Front, tmp_path: Path, texts: Texts) -> None:
    """The legend names both; a measured subnet is labelled with its own numbers."""
    write_front_plot(front, tmp_path / "front.png", markers=MARKERS)
    assert {"predicted", "measured, with 95% interval of the median"} <= set(texts)
    assert "chosen\n0.600 ms, 97.0%" in texts


def test_the_title_names_the_target(front: Front, tmp_path: Path, texts: Texts) -> None:
    """A picture says which target it is of, and axes say their units."""
    write_front_plot(front, tmp_path / "front.png")
    assert "Accuracy against latency on board-onnxruntime-fp32-1t" in texts
    assert {"median latency of one inference (ms)", "accuracy (%)", "predicted peak memory (MB)"} <= set(texts)


def test_made_up_numbers_are_marked(front: Front, tmp_path: Path, texts: Texts) -> None:
    """A front from a fake device says so in its title."""
    write_front_plot(front, tmp_path / "front.png", synthetic=True)
    assert "SYNTHETIC: Accuracy against latency on board-onnxruntime-fp32-1t" in texts


@pytest.mark.parametrize(
    ("budget_ms", "text"),
    [(10.65, "budget 10.7 ms"), (80.0, "budget 80.0 ms →"), (0.5, "← budget 0.500 ms")],
)
def test_a_budget_is_named_where_it_lies(
    front: Front, tmp_path: Path, texts: Texts, budget_ms: float, text: str
) -> None:
    """A budget among the latencies is a line; one far off is named at the edge and leaves the scale alone."""
    slow = replace(front, values={**front.values, "latency_ms": front.latency_ms + 10})
    write_front_plot(slow, tmp_path / "front.png", budget_ms=budget_ms)
    assert text in texts
    assert ("latency budget" in texts) == (budget_ms == 10.65)


def test_an_infinite_budget_is_none(front: Front, tmp_path: Path) -> None:
    """A budget without a limit of latency draws the picture without a budget."""
    write_front_plot(front, tmp_path / "without.png", markers=MARKERS)
    write_front_plot(front, tmp_path / "infinite.png", markers=MARKERS, budget_ms=float("inf"))
    assert (tmp_path / "without.png").read_bytes() == (tmp_path / "infinite.png").read_bytes()


def test_a_long_target_stays_in_the_picture(front: Front, tmp_path: Path) -> None:
    """The title of the longest name that a target may have leaves the right margin white."""
    write_front_plot(replace(front, target="m" * 64 + "-onnxruntime-fp32-16t"), tmp_path / "front.png", synthetic=True)
    assert (pixels(tmp_path / "front.png")[:80, -5:] == 255).all()


def test_markers_at_the_edges_are_within_the_picture(front: Front, tmp_path: Path) -> None:
    """A measured subnet slower and less accurate than all predictions is drawn whole, with its interval."""
    write_front_plot(front, tmp_path / "plain.png")
    write_front_plot(front, tmp_path / "marked.png", markers=[Marker("far", 3.0, (2.5, 3.9), 0.2)])
    accent = (0xD6, 0x45, 0x45)
    assert share_of(tmp_path / "plain.png", accent) == 0
    red = (pixels(tmp_path / "marked.png")[:700] == accent).all(axis=2)
    columns = np.flatnonzero(red.any(axis=0))
    # The plot is 966 pixels wide; of 0.3 to 3.9 ms, with a margin of 5% on both sides, the interval is 1.4.
    assert columns.max() - columns.min() == pytest.approx(966 / 1.1 * 1.4 / 3.6, abs=8)


def test_a_folder_that_cannot_be_written_is_named(front: Front, tmp_path: Path) -> None:
    """Where a file stands in the way of the folder, the error names the picture."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeNASError, match=r"front\.png: cannot be written"):
        write_front_plot(front, tmp_path / "file" / "front.png")


def test_references_are_drawn_and_widen_the_axes(front: Front, tmp_path: Path, texts: Texts) -> None:
    """Networks that no search found are crosses with a line in the legend, also where they are slower than all."""
    slow = replace(front, values={**front.values, "latency_ms": front.latency_ms + 10})
    write_front_plot(front, tmp_path / "front.png", references=slow)
    assert "smallest, largest at each resolution" in texts
    write_front_plot(front, tmp_path / "without.png")
    assert (tmp_path / "front.png").read_bytes() != (tmp_path / "without.png").read_bytes()


@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        (("accuracy", "latency_ms", "peak_bytes"), "front of accuracy, latency and memory, of 1,000"),
        (("accuracy", "latency_ms"), "front of accuracy and latency, of 1,000"),
        (("params",), "front of params, of 1,000"),
    ],
)
def test_the_detail_names_the_objectives(
    front: Front, tmp_path: Path, texts: Texts, objectives: tuple[str, ...], words: str
) -> None:
    """The line below the title says which front it is."""
    write_front_plot(replace(front, objectives=objectives), tmp_path / "front.png")
    assert any(words in text for text in texts)
