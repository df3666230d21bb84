"""Measuring several model files on the runtimes of one device. The device is a fake one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgenas.devices import DeviceProfile, Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.profilers import (
    Measurement,
    MeasureSettings,
    MeasuringRounds,
    MeasuringSession,
    compare_results,
    measure_models,
)

SIX = MeasureSettings(max_processes=6)


@pytest.fixture
def board() -> DeviceProfile:
    """A fake device with two runtimes."""
    profile = {
        "name": "board",
        "connection": {"kind": "fake"},
        "runtimes": {"onnxruntime": {}, "litert": {}},
        "default": {"runtime": "onnxruntime"},
    }
    return profile_from_dict(profile, "test")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two ONNX files with a TFLite file between them; the fake device takes 1 ms a megabyte."""
    paths = [tmp_path / name for name in ("a.onnx", "b.tflite", "c.onnx")]
    for number, path in enumerate(paths, 1):
        path.write_bytes(b"m" * 1000 * number)
    return paths


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let the measuring of TFLite files end with an error."""

    def install(error: BaseException) -> None:
        measure = MeasuringSession.measure

        def run(session: MeasuringSession, rounds: MeasuringRounds) -> None:
            if rounds.files[0].path.suffix == ".tflite":
                raise error
            measure(session, rounds)

        monkeypatch.setattr(MeasuringSession, "measure", run)

    return install


def test_each_file_has_the_runtime_that_runs_it(board: DeviceProfile, files: list[Path]) -> None:
    """The results are in the order given, those of one target in common rounds, and each process is reported."""
    seen: list[tuple[Path, Measurement]] = []
    planned: list[int] = []
    measured = measure_models(
        files,
        board,
        SIX,
        on_start=planned.append,
        on_process=lambda model, measurement: seen.append((model, measurement)),
    )
    assert planned == [18]
    assert list(measured.results) == files
    assert [target.runtime for target in measured.targets.values()] == ["onnxruntime", "litert", "onnxruntime"]
    assert [path for path, _ in seen] == [files[0], files[2]] * 6 + [files[1]] * 6
    ratio = compare_results(measured.results[files[2]], measured.results[files[0]])
    assert ratio is not None
    assert ratio[0] == pytest.approx(2.0, rel=0.02)
    assert measured.stopped_by is None
    measured.raise_for_errors()


def test_text_paths_and_repeated_files_are_taken(board: DeviceProfile, files: list[Path]) -> None:
    """A file that is named twice is measured once."""
    assert list(measure_models([str(files[0]), files[0]], board, SIX).results) == files[:1]


def test_a_target_is_that_of_all_files(board: DeviceProfile, files: list[Path]) -> None:
    """A file that its runtime does not run is refused, and so are options beside a target."""
    target = Target(board, threads=1)
    assert measure_models(files[:1], target, SIX).targets == {files[0]: target}
    with pytest.raises(UsageError, match=r"b\.tflite: onnxruntime runs files ending in \.onnx"):
        measure_models(files, target, SIX)
    with pytest.raises(
        UsageError, match=r"^board-onnxruntime-fp32-1t: has its runtime, precision and threads; give the"
    ):
        measure_models(files, target, SIX, threads=1)


def test_options_hold_for_all_files(board: DeviceProfile, files: list[Path]) -> None:
    """A runtime that is given is not exchanged for one that would run the file."""
    measured = measure_models(files[1:2], board, SIX, runtime="litert", threads=1)
    assert measured.targets[files[1]] == Target(board, "litert", threads=1)
    with pytest.raises(UsageError, match=r"a\.onnx: litert runs files ending in \.tflite"):
        measure_models(files, board, SIX, runtime="litert")


def test_a_wrong_file_is_refused_before_anything_is_measured(board: DeviceProfile, files: list[Path]) -> None:
    """A file of the second runtime that does not exist costs no measurement of the first's."""
    files[1].unlink()
    started: list[int] = []
    with pytest.raises(UsageError, match=r"b\.tflite: cannot be read"):
        measure_models(files, board, SIX, on_start=started.append)
    assert started == []


def test_a_lost_device_keeps_the_results(
    board: DeviceProfile, files: list[Path], fail: Callable[[BaseException], None]
) -> None:
    """The files that were not measured have the device's error, which is raised on demand."""
    error = DeviceError("board: the connection was lost")
    fail(error)
    measured = measure_models(files, board, SIX)
    assert list(measured.results) == [files[0], files[2]]
    assert measured.outcomes[files[1]] is measured.stopped_by is error
    with pytest.raises(DeviceError, match="the connection was lost"):
        measured.raise_for_errors()


def test_an_interrupt_keeps_the_results(
    board: DeviceProfile, files: list[Path], fail: Callable[[BaseException], None]
) -> None:
    """Ctrl-C ends the measuring; the files that were not measured have no outcome."""
    fail(KeyboardInterrupt())
    measured = measure_models(files, board, SIX)
    assert list(measured.results) == [files[0], files[2]]
    assert measured.outcomes[files[1]] is None
    with pytest.raises(KeyboardInterrupt):
        measured.raise_for_errors()


def test_a_result_of_several_files_is_one_line(board: DeviceProfile, files: list[Path]) -> None:
    """The representation counts the files that were measured."""
    assert repr(measure_models(files, board, SIX)) == "MeasuredModels(3 of 3 measured)"


def test_failed_files_are_counted(board: DeviceProfile, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One failed file is raised as it is, of several the first with their number."""

    def run(session: MeasuringSession, rounds: MeasuringRounds) -> None:
        for turn in rounds.next_turns():
            rounds.add(turn, ModelError(f"{rounds.files[turn.number].path.name}: is refused"))

    monkeypatch.setattr(MeasuringSession, "measure", run)
    measured = measure_models(files, board, SIX)
    assert list(measured.errors) == files
    with pytest.raises(ModelError, match=r"^3 of 3 models failed; the first: a\.onnx: is refused$"):
        measured.raise_for_errors()
    with pytest.raises(ModelError, match=r"^a\.onnx: is refused$"):
        measure_models(files[:1], board, SIX).raise_for_errors()
