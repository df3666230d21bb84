"""What the documents show is true."""

import re
from pathlib import Path

import pytest

from edgenas.devices import load_profile
from edgenas.space import MobileNetV3

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


def block_after(heading: str, tmp_path: Path) -> Path:
    """The first YAML block below a heading of docs/file_formats.md, as a file."""
    section = (ROOT / "docs" / "file_formats.md").read_text().partition(f"\n## {heading}\n")[2]
    path = tmp_path / "block.yaml"
    path.write_text(section.partition("```yaml\n")[2].partition("```")[0])
    return path


def test_documented_space_is_read(tmp_path: Path) -> None:
    """The search space in the file formats is one that edgenas reads, with its own stages."""
    space = MobileNetV3.from_yaml(block_after("Search space", tmp_path))
    assert [stage.width for stage in space.stages] == [24, 40]


def test_documented_device_profile_is_read(tmp_path: Path) -> None:
    """The device profile in the file formats is one that edgenas reads."""
    assert load_profile(block_after("Device profile", tmp_path)).cores == 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page leads to a file of the repository."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_anchors_lead_somewhere(page: Path) -> None:
    """Every anchor of a relative link is a heading of the page that it leads to."""
    links = re.findall(r"\]\(([^):#]*)#([^)]+)\)", page.read_text())
    targets = [(page.parent / link if link else page, anchor) for link, anchor in links]
    assert [f"{path}#{anchor}" for path, anchor in targets if anchor not in headings(path)] == []
