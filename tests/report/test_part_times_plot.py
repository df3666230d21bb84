"""The picture of the times of a subnet's parts."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from edgenas.errors import EdgeNASError
from edgenas.report import write_part_times_plot


@dataclass(frozen=True)
class Row:
    stage: str
    name: str
    what: str
    out: str
    ms: float
    share: float


def _rows(scale: float = 1.0) -> list[Row]:
    """A stem, five stages of four blocks, a head and the overhead; long texts among them."""
    names = [("stem", "stem"), ("stem", "block0")]
    names += [(f"stage{stage}", f"stage{stage}.block{block}") for stage in range(1, 6) for block in range(1, 5)]
    names += [("head", "final_expand"), ("head", "feature_mix"), ("overhead", "overhead")]
    what, out = "mbconv 7x7 /2, 1152 inside, SE", "112x112x1024"
    total = sum(range(1, len(names) + 1))
    numbers = range(len(names), 0, -1)
    return [Row(*name, what, out, scale * number, number / total) for name, number in zip(names, numbers, strict=True)]


@pytest.fixture
def boxes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """All texts of the figure that was written last, and the boxes around them in pixels."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    found: list[tuple[str, Any]] = []
    save = Figure.savefig

    def spy(self: Figure, *args: Any, **kwargs: Any) -> None:
        save(self, *args, **kwargs)
        texts = [text for text in self.findobj(Text) if text.get_text() and text.get_visible()]
        found[:] = [(text.get_text(), Text.get_window_extent(text)) for text in texts]

    monkeypatch.setattr(Figure, "savefig", spy)
    return found


def _size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.parametrize("scale", [0.0001, 0.01, 1.0, 100.0])
def test_no_text_covers_another_or_leaves_the_picture(
    scale: float, tmp_path: Path, boxes: list[tuple[str, Any]]
) -> None:
    """Names, times, sizes and ticks have room beside each other, from a 35 µs network to one of 350 s."""
    path = tmp_path / "parts.png"
    title = "Where the time of hxc9rb-21819f4nnzhbd3n goes on a-board-with-a-long-name-onnxruntime-fp32-4t-big"
    write_part_times_plot(_rows(scale), path, title=title, detail="predicted")
    width, height = _size(path)
    assert width == 1200
    for (text, box), (other, beside) in combinations(boxes, 2):
        assert not box.overlaps(beside), (text, other)
    for text, box in boxes:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text


def test_the_times_of_parts_and_stages_are_written(tmp_path: Path, boxes: list[tuple[str, Any]]) -> None:
    """Each part's time and share stands at its bar, each stage's once; a stage of one part has no second line."""
    rows = [Row("stem", "stem", "conv", "8x8x8", 1.0, 0.25), Row("stem", "block0", "mbconv", "8x8x8", 2.0, 0.5)]
    write_part_times_plot(
        [*rows, Row("overhead", "overhead", "rest", "", 1.0, 0.25)], tmp_path / "parts.png", title="a title"
    )
    texts = [text for text, _ in boxes]
    for expected in ("1.000 ms  25.0%", "2.000 ms  50.0%", "3.000 ms  75.0%", "block0", "8x8x8", "a title"):
        assert expected in texts
    assert texts.count("1.000 ms  25.0%") == 2
    assert texts.count("overhead") == 1


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    """Drawn twice, the same rows give the same file, which tells neither when nor with what it was made."""
    for name in ("first.png", "second.png"):
        write_part_times_plot(_rows(), tmp_path / name, title="a title")
    first = (tmp_path / "first.png").read_bytes()
    assert first == (tmp_path / "second.png").read_bytes()
    assert b"tEXt" not in first


def test_made_up_numbers_are_marked(tmp_path: Path, boxes: list[tuple[str, Any]]) -> None:
    """The title of a picture of a synthetic table says so."""
    write_part_times_plot(_rows(), tmp_path / "parts.png", title="a title", synthetic=True)
    assert "SYNTHETIC: a title" in [text for text, _ in boxes]


def test_parts_that_cost_nothing_are_drawn(tmp_path: Path) -> None:
    """A table may hold parts at no cost at all, even every one but the overhead."""
    write_part_times_plot([Row("stem", "stem", "conv", "8x8x8", 0.0, 0.0)], tmp_path / "parts.png", title="a title")
    assert _size(tmp_path / "parts.png")[0] == 1200


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A picture that cannot be written is an error with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeNASError, match=r"parts\.png: cannot be written"):
        write_part_times_plot(_rows(), tmp_path / "file" / "parts.png", title="a title")
