"""The pace of a CPU, and what a device remembers of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.on_device import speed_probe
from edgenas.on_device.speed_probe import ENOUGH_OFF, FEWEST, Looks, Pacer, Paces


def test_looks_take_a_twentieth_of_the_time() -> None:
    """A turn of the work takes some time; two looks after the first take a tenth of what lies between two."""
    looks = Looks(Pacer())
    looks.after(4)
    looks.after(5)
    assert looks.every_ns > 0
    assert looks.taken_ns == looks.every_ns // 10
    assert len(looks.paces) == 5
    assert min(looks.paces) > 0


class Script:
    """A pacer of given paces."""

    every_ns = 1

    def __init__(self, *paces: float) -> None:
        self._left = iter(paces)

    def __call__(self) -> float:
        return next(self._left)


def test_a_run_has_the_median_of_the_looks_near_it() -> None:
    """Three on each side where there are as many; one that was disturbed changes little."""
    looks = Looks(cast(Pacer, Script(1.0, 2.0, 9.0, 3.0, 4.0, 5.0)))
    for runs in (2, 3, 4, 5, 6):
        looks.after(runs)
    assert looks.paces == [2.5, 2.5, 3.0, 3.5, 4.0, 4.5]


def test_a_run_feels_the_root_of_the_pace() -> None:
    """Work that takes four times as long makes runs twice as long."""
    looks = Looks(cast(Pacer, Script(1.0, 1.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0)))
    for runs in (1, 2, 3, 4, 5, 6, 7):
        looks.after(runs)
    assert looks.felt[0] == pytest.approx(2.5**0.5)
    assert looks.felt[-1] == 2.0


BAD = ['{"a": [[-1.0], []]}', '{"a": [[1], [], 1]}', '{"a": [[1%s], []]}' % ("0" * 400), "[" * 10_000]


def remembered(folder: Path | None, affinity: list[int] | None = None, **changes: Any) -> Paces:
    place = None if folder is None else str(folder)
    request = {"threads": 1, "runtime": "onnxruntime", "affinity": affinity, "remember_in": place, **changes}
    return Paces(request, "1.31.1")


def filled(folder: Path, paces: list[float], affinity: list[int] | None = None) -> Paces:
    found = remembered(folder, affinity)
    for pace in paces:
        found.add([pace] * 3)
    return found


def test_the_usual_pace_is_the_median_of_enough_processes(tmp_path: Path) -> None:
    """Nine processes say nothing, ten do; a process counts with the median of its paces."""
    few = filled(tmp_path, [3.0] * (FEWEST - 1))
    assert few.usual_ms is None
    few.add([3.0, 3.0, 99.0])
    assert few.usual_ms == 3.0


def test_paces_are_remembered_for_these_cpus(tmp_path: Path) -> None:
    """The next request finds them; one on other CPUs does not, and forgets nothing of these."""
    filled(tmp_path, [3.0] * FEWEST, [4, 5]).write()
    filled(tmp_path, [2.0] * FEWEST).write()
    assert remembered(tmp_path, [4, 5]).usual_ms == 3.0
    assert remembered(tmp_path).usual_ms == 2.0
    assert remembered(tmp_path, [0]).usual_ms is None
    assert remembered(tmp_path, threads=2).usual_ms is None
    assert remembered(tmp_path, runtime="litert").usual_ms is None


def test_a_disturbed_process_does_not_change_what_is_usual(tmp_path: Path) -> None:
    """More than a tenth off, but not ten times one after the other."""
    paces = filled(tmp_path, [3.0] * FEWEST + [4.0] * (ENOUGH_OFF - 1) + [3.0] + [4.0] * (ENOUGH_OFF - 1))
    assert paces.usual_ms == 3.0


def test_a_device_that_has_changed_begins_anew(tmp_path: Path) -> None:
    """Ten processes that are all a third slower: another governor; a request in between forgets none of them."""
    filled(tmp_path, [3.0] * 50 + [4.0] * (ENOUGH_OFF - 1)).write()
    paces = remembered(tmp_path)
    paces.add([4.0])
    assert paces.usual_ms == 4.0


def test_what_is_usual_settles(tmp_path: Path) -> None:
    """A thousand processes say it; what comes later does not move it."""
    paces = filled(tmp_path, [3.0] * speed_probe.MOST + [3.2] * (2 * speed_probe.MOST))
    assert paces.usual_ms == 3.0


def test_models_without_a_pace_are_no_processes(tmp_path: Path) -> None:
    """One that failed or that runs on other hardware adds nothing, and nothing is written."""
    paces = remembered(tmp_path)
    paces.add(None)
    paces.add([])
    paces.write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"any": 1}',
        '{"any": [[1, "x"], []]}',
        '{"any": [[-1.0], []]}',
        '{"a": [[1], [], 1]}',
        '{"a": [[1%s], []]}' % ("0" * 400),
        "[" * 10_000,
    ],
)
def test_a_damaged_file_is_as_none(tmp_path: Path, text: str) -> None:
    """Nothing is remembered, and the next request writes a sound one."""
    (tmp_path / "pace.json").write_text(text)
    paces = filled(tmp_path, [3.0] * FEWEST)
    assert paces.usual_ms == 3.0
    paces.write()
    assert remembered(tmp_path).usual_ms == 3.0


@given(st.text(max_size=50))
def test_any_text_can_lie_there(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever the file holds, a request is answered."""
    folder = tmp_path_factory.mktemp("paces")
    (folder / "pace.json").write_text(text)
    assert remembered(folder).usual_ms is None


def test_a_folder_of_everybody_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user could put a link there: paces go among one's own files."""
    shared, cache = tmp_path / "shared", tmp_path / "cache"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    filled(shared, [3.0] * FEWEST).write()
    assert list(shared.iterdir()) == []
    assert (cache / "edgenas" / "pace.json").exists()


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """A full or read-only device measures all the same."""
    folder = tmp_path / "gone"
    folder.mkdir()
    paces = filled(folder, [3.0] * FEWEST)
    folder.rmdir()
    folder.write_text("")
    paces.write()
    assert paces.usual_ms == 3.0
