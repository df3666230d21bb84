"""The speed probe, and its baseline that a device remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.on_device import speed_probe
from edgenas.on_device.speed_probe import CHANGED_PROCESSES, MIN_PROCESSES, BaselineSpeeds, ProbeSamples, SpeedProbe


def test_probing_takes_a_twentieth_of_the_time() -> None:
    """The work takes some time; two samples after the first take a tenth of the time between two."""
    probe_samples = ProbeSamples(SpeedProbe())
    probe_samples.take_sample(4)
    probe_samples.take_sample(5)
    assert probe_samples.every_ns > 0
    assert probe_samples.spent_ns == probe_samples.every_ns // 10
    assert len(probe_samples.probe_times) == 5
    assert min(probe_samples.probe_times) > 0


class Script:
    """A probe of given times."""

    every_ns = 1

    def __init__(self, *probe_times: float) -> None:
        self._left = iter(probe_times)

    def __call__(self) -> float:
        return next(self._left)


def test_a_run_has_the_median_of_the_samples_around_it() -> None:
    """Three on each side where there are as many; one that was disturbed changes little."""
    probe_samples = ProbeSamples(cast(SpeedProbe, Script(1.0, 2.0, 9.0, 3.0, 4.0, 5.0)))
    for runs in (2, 3, 4, 5, 6):
        probe_samples.take_sample(runs)
    assert probe_samples.probe_times == [2.5, 2.5, 3.0, 3.5, 4.0, 4.5]


def test_runs_are_scaled_by_the_root_of_the_probe() -> None:
    """Work that takes four times as long makes runs twice as long."""
    probe_samples = ProbeSamples(cast(SpeedProbe, Script(1.0, 1.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0)))
    for runs in (1, 2, 3, 4, 5, 6, 7):
        probe_samples.take_sample(runs)
    assert probe_samples.scale_factors[0] == pytest.approx(2.5**0.5)
    assert probe_samples.scale_factors[-1] == 2.0


BAD = ['{"a": [[-1.0], []]}', '{"a": [[1], [], 1]}', '{"a": [[1%s], []]}' % ("0" * 400), "[" * 10_000]


def remembered_speeds(folder: Path | None, affinity: list[int] | None = None, **changes: Any) -> BaselineSpeeds:
    place = None if folder is None else str(folder)
    request = {"threads": 1, "runtime": "onnxruntime", "affinity": affinity, "remember_in": place, **changes}
    return BaselineSpeeds(request, "1.31.1")


def filled(folder: Path, probe_times: list[float], affinity: list[int] | None = None) -> BaselineSpeeds:
    found = remembered_speeds(folder, affinity)
    for probe in probe_times:
        found.add([probe] * 3)
    return found


def test_the_baseline_is_the_median_of_enough_processes(tmp_path: Path) -> None:
    """Nine processes say nothing, ten do; a process counts with the median of its probe_times."""
    few = filled(tmp_path, [3.0] * (MIN_PROCESSES - 1))
    assert few.baseline_ms is None
    few.add([3.0, 3.0, 99.0])
    assert few.baseline_ms == 3.0


def test_times_are_remembered_for_these_cpus(tmp_path: Path) -> None:
    """The next request finds them; one on other CPUs does not, and forgets nothing of these."""
    filled(tmp_path, [3.0] * MIN_PROCESSES, [4, 5]).write()
    filled(tmp_path, [2.0] * MIN_PROCESSES).write()
    assert remembered_speeds(tmp_path, [4, 5]).baseline_ms == 3.0
    assert remembered_speeds(tmp_path).baseline_ms == 2.0
    assert remembered_speeds(tmp_path, [0]).baseline_ms is None
    assert remembered_speeds(tmp_path, threads=2).baseline_ms is None
    assert remembered_speeds(tmp_path, runtime="litert").baseline_ms is None


def test_a_disturbed_process_does_not_change_the_baseline(tmp_path: Path) -> None:
    """More than a tenth off, but not ten times one after the other."""
    probe_times = filled(
        tmp_path, [3.0] * MIN_PROCESSES + [4.0] * (CHANGED_PROCESSES - 1) + [3.0] + [4.0] * (CHANGED_PROCESSES - 1)
    )
    assert probe_times.baseline_ms == 3.0


def test_a_device_that_has_changed_begins_anew(tmp_path: Path) -> None:
    """Ten processes that are all a third slower: another governor; a request in between forgets none of them."""
    filled(tmp_path, [3.0] * 50 + [4.0] * (CHANGED_PROCESSES - 1)).write()
    probe_times = remembered_speeds(tmp_path)
    probe_times.add([4.0])
    assert probe_times.baseline_ms == 4.0


def test_the_baseline_settles(tmp_path: Path) -> None:
    """A thousand processes decide it; what comes later does not move it."""
    probe_times = filled(tmp_path, [3.0] * speed_probe.MAX_PROCESSES + [3.2] * (2 * speed_probe.MAX_PROCESSES))
    assert probe_times.baseline_ms == 3.0


def test_models_without_a_probe_are_no_processes(tmp_path: Path) -> None:
    """One that failed or that runs on other hardware adds nothing, and nothing is written."""
    probe_times = remembered_speeds(tmp_path)
    probe_times.add(None)
    probe_times.add([])
    probe_times.write()
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
    (tmp_path / "speed_probe.json").write_text(text)
    probe_times = filled(tmp_path, [3.0] * MIN_PROCESSES)
    assert probe_times.baseline_ms == 3.0
    probe_times.write()
    assert remembered_speeds(tmp_path).baseline_ms == 3.0


@given(st.text(max_size=50))
def test_any_text_can_lie_there(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever the file holds, a request is answered."""
    folder = tmp_path_factory.mktemp("probe_times")
    (folder / "speed_probe.json").write_text(text)
    assert remembered_speeds(folder).baseline_ms is None


def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user could put a link there: times go into one's own cache."""
    shared, cache = tmp_path / "shared", tmp_path / "cache"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    filled(shared, [3.0] * MIN_PROCESSES).write()
    assert list(shared.iterdir()) == []
    assert (cache / "edgenas" / "speed_probe.json").exists()


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """A full or read-only device measures all the same."""
    folder = tmp_path / "gone"
    folder.mkdir()
    probe_times = filled(folder, [3.0] * MIN_PROCESSES)
    folder.rmdir()
    folder.write_text("")
    probe_times.write()
    assert probe_times.baseline_ms == 3.0
