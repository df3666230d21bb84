"""Parts of a process that do not count as a model's peak memory: code of the runtime, and the agent's statistics."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgenas.on_device import agent, model_process
from edgenas.profilers import MeasureSettings

_MEGABYTE = 2**20
_BRIEF = MeasureSettings(warmup_runs=1, warmup_seconds=0, min_runs=3, max_runs=3, min_seconds=0, max_seconds=0)


def _growth(path: Path) -> int:
    """Bytes of files that are in memory beyond what was, once a mapped file's folder is brought in."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ):
        before = model_process.read_process_memory("RssFile")
        model_process.load_library_pages(str(path.parent))
        after = model_process.read_process_memory("RssFile")
    assert before is not None
    assert after is not None
    return after - before


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file of 8 MB."""
    path = tmp_path / "library.so"
    path.write_bytes(bytes(range(256)) * (8 * _MEGABYTE // 256))
    return path


def test_all_code_of_a_library_is_brought_in(library: Path) -> None:
    """A library that was only mapped is in memory afterwards."""
    assert 7 * _MEGABYTE < _growth(library) < 9 * _MEGABYTE


def test_a_huge_library_is_left_out(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is larger than the bound stays where it is."""
    monkeypatch.setattr(model_process, "MAX_LIBRARY_BYTES", _MEGABYTE)
    assert _growth(library) < _MEGABYTE


def test_a_library_behind_a_link_is_brought_in(library: Path, tmp_path: Path) -> None:
    """The kernel names the file itself, however the folder was reached."""
    link = tmp_path.parent / (tmp_path.name + "-link")
    link.symlink_to(tmp_path)
    assert 7 * _MEGABYTE < _growth(link / library.name) < 9 * _MEGABYTE


@pytest.mark.parametrize(
    "maps",
    [
        "",
        "nonsense",
        "7f00-7f01",
        "zz-yy r-xp 0 fd:00 1 {folder}/lib.so",
        "1000-2000 r-xp 0 fd:00 1",
        "1000-2000 --xp 00000000 fd:00 1    {folder}/lib.so",
        "1000-2000 rw-p 00000000 fd:00 1    {folder}/lib.so",
        "1000-2000 r-xp 00000000 fd:00 1    {folder}-other/lib.so",
        "1000-2000 r-xp 00000000 00:00 0    [vdso]",
    ],
)
def test_what_is_no_code_of_the_library_is_left_alone(
    maps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a map, with lines of another form, and for memory that is not the library's, nothing is touched."""
    monkeypatch.setattr(
        model_process, "read_text_or_empty", lambda path: maps.format(folder=os.path.realpath(tmp_path))
    )
    model_process.load_library_pages(str(tmp_path))


def _peak(model: Path, settings: MeasureSettings) -> int:
    request = {
        "runtime": "onnxruntime",
        "providers": ["CPUExecutionProvider"],
        "threads": 1,
        "settings": settings.to_dict(),
        "models": [{"id": 0, "path": str(model)}],
    }
    command = [sys.executable, str(Path(agent.__file__))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        answers = [json.loads(line) for line in process.stdout]
    peak: int = answers[1]["peak_bytes"]
    return peak


def test_how_runs_are_judged_takes_no_memory(make_conv: Callable[..., Path]) -> None:
    """Runs that end before their median is ever judged have the same peak as those that are judged, to half a MB."""
    model = make_conv(shape=(1, 3, 128, 128))
    judged = replace(_BRIEF, max_runs=50, max_seconds=5)
    assert abs(_peak(model, judged) - _peak(model, _BRIEF)) < _MEGABYTE / 2
