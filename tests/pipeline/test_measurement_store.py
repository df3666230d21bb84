"""A run's measurements: taken once, stored at once. The device makes its answers up."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgenas.devices import Device, DeviceProfile, Target, connect_device
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, FormatError, MeasurementError
from edgenas.pipeline.measurement_log import MeasurementLog, log_bytes
from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore
from edgenas.profilers import Measurement, MeasurementResult, MeasureSettings
from edgenas.profilers.measure.validity import Validity

ONE = MeasureSettings(processes=1, max_processes=1)
MODELS = [bytes([65 + number]) * 1000 * (number + 1) for number in range(20)]
CONNECT = "edgenas.profilers.measure.session.connect_device"


class StopError(Exception):
    """What kills a step in the middle."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the measurements are recorded; nothing is there yet."""
    return tmp_path / "targets" / "board" / "measurements.jsonl"


def recorded(log: Path) -> list[Measurement]:
    """What the log holds."""
    return [entry.measurement for entry in MeasurementLog(log).entries]


def rewrite(log: Path, change: Callable[[Measurement], Measurement]) -> None:
    """Write the log again with each measurement changed."""
    entries = MeasurementLog(log).entries
    log.write_bytes(log_bytes((each.series, change(each.measurement).to_dict()) for each in entries))


@pytest.fixture
def target() -> Target:
    """A device that makes its answers up: the time of a model grows with the size of its file."""
    profile = {
        "name": "board",
        "connection": {"kind": "fake"},
        "runtimes": {"onnxruntime": {}},
        "default": {"runtime": "onnxruntime"},
    }
    return Target(profile_from_dict(profile, "test"))


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let any further use of a device fail."""

    def connect(profile: object) -> Device:
        raise AssertionError("nothing was to be measured")

    return lambda: monkeypatch.setattr(CONNECT, connect)


def test_what_is_stored_is_not_measured_again(log: Path, target: Target, no_device: Callable[[], None]) -> None:
    """The second time no device is connected to, and the results are the same."""
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        first = store.measure_first(MODELS)
    no_device()
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        assert store.measure_first(MODELS) == first
    assert len(recorded(log)) == 20


def test_another_version_of_the_runtime_is_not_mixed_in(log: Path, target: Target) -> None:
    """When the runtime was updated since, nothing more is stored beside the old numbers, and the remedy is said."""
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        store.measure_first(MODELS[:1])
    rewrite(log, lambda old: replace(old, versions={**old.versions, "onnxruntime": "0.9"}))
    before = log.read_bytes()
    with (
        MeasurementStore(MeasurementLog(log), target, ONE) as store,
        pytest.raises(MeasurementError, match=r"another runtime's version .*onnxruntime was 0\.9.*bring that back"),
    ):
        store.measure_first(MODELS[1:2])
    assert log.read_bytes() == before


def test_a_record_that_cannot_be_read_costs_no_device_time(
    log: Path, target: Target, no_device: Callable[[], None]
) -> None:
    """Where what is recorded is damaged, that is said before the device is connected to."""
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        store.measure_first(MODELS[:2])
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:2], lines[2][:-9] + b"\n", *lines[3:]]))
    no_device()
    message = r"measurements\.jsonl, line 3: is damaged .*; remove that line; what it held is measured again"
    with MeasurementStore(MeasurementLog(log), target, ONE) as store, pytest.raises(FormatError, match=message):
        store.measure_first(MODELS[3:4])


def test_the_device_is_connected_to_once(log: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a store uses one connection, which is closed when the store is left."""
    connected: list[Device] = []

    def connect(profile: DeviceProfile) -> Device:
        connected.append(connect_device(profile))
        return connected[-1]

    monkeypatch.setattr(CONNECT, connect)
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        assert connected == []
        store.measure_first(MODELS[:3])
        store.measure_first(MODELS[:6])
    (device,) = connected
    with pytest.raises(DeviceError, match="the device was closed"):
        device.facts()
    assert len(recorded(log)) == 6


def test_models_are_measured_in_rounds(log: Path, target: Target) -> None:
    """The second process of any model comes after the first of all, so that a change of speed affects all alike."""
    with MeasurementStore(MeasurementLog(log), target, MeasureSettings(processes=2, max_processes=2)) as store:
        store.measure(MODELS[:3])
    taken = recorded(log)
    assert [each.round for each in taken] == [0, 0, 0, 1, 1, 1]
    assert [each.model_sha256 for each in taken[:3]] == [each.model_sha256 for each in taken[3:]]


def test_what_was_recorded_before_a_time_is_measured_again(log: Path, target: Target) -> None:
    """Of two processes one was taken at second 9 and one at 11: since second 10 the model lacks one."""
    twice = MeasureSettings(processes=2, max_processes=2)
    with MeasurementStore(MeasurementLog(log), target, twice) as store:
        store.measure(MODELS[:1])
    times = iter((9.0, 11.0))
    rewrite(log, lambda old: replace(old, taken_s=next(times)))
    with MeasurementStore(MeasurementLog(log), target, twice, since_s=10.0) as store:
        (result,) = store.measure(MODELS[:1])
    before, kept, added = recorded(log)
    assert isinstance(result, MeasurementResult)
    assert result.measurements == (kept, added)
    assert (before.taken_s, kept.taken_s) == (9.0, 11.0)


def test_a_killed_step_goes_on_where_it_was(log: Path, target: Target) -> None:
    """What came before the kill is stored, is not taken again, and the rest is measured."""
    seen: list[Measurement] = []

    def stop(measurement: Measurement) -> None:
        seen.append(measurement)
        if len(seen) == 5:
            raise StopError

    with MeasurementStore(MeasurementLog(log), target, ONE) as store, pytest.raises(StopError):
        store.measure_first(MODELS, stop)
    kept = log.read_bytes()
    assert len(recorded(log)) == 5
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        assert store.measure_first(MODELS)[:5] == seen
    assert log.read_bytes().startswith(kept)
    assert len(recorded(log)) == 20


def test_equal_models_are_measured_once(log: Path, target: Target) -> None:
    """The same bytes twice have the same measurement."""
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        first, second = store.measure_first([MODELS[0], MODELS[0]])
    assert first == second
    assert len(recorded(log)) == 1


def test_proof_takes_six_processes(log: Path, target: Target) -> None:
    """A proof is six stored measurements; they can be had again without a device."""
    with MeasurementStore(MeasurementLog(log), target, SETTINGS) as store:
        assert store.reliable_result(MODELS[0]) is None
        result = store.measure_reliably(MODELS[0])
        assert len(result.measurements) == 6
        assert store.reliable_result(MODELS[0]) == result


def test_a_recorded_result_is_raw(log: Path, target: Target) -> None:
    """Processes that an earlier version scaled to a speed that the device remembered have their raw median."""
    with MeasurementStore(MeasurementLog(log), target, SETTINGS) as store:
        measured = store.measure_reliably(MODELS[0])

    def scaled(taken: Measurement) -> Measurement:
        after = {**taken.conditions_after, "baseline_probe_ms": 3.0}
        return replace(taken, probe_ms=(4.0,) * len(taken.samples_ms), conditions_after=after)

    rewrite(log, scaled)
    with MeasurementStore(MeasurementLog(log), target, SETTINGS) as store:
        for result in (store.measure_reliably(MODELS[0]), store.reliable_result(MODELS[0])):
            assert result is not None
            assert (result.median_ms, result.interval_ms) == (measured.median_ms, measured.interval_ms)


@pytest.fixture
def disturbed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A reliable measurement that fails with this message, since processes of these turns are rejected."""

    def fail(store: MeasurementStore, message: str, is_rejected: Callable[[int], bool] = lambda turn: True) -> None:
        turns = iter(range(1000))

        def assess_validity(*before: object, **options: object) -> Validity:
            return Validity("rejected", ("busy: wait",)) if is_rejected(next(turns)) else Validity("valid")

        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(sys.modules["edgenas.profilers.measure.session"], "assess_validity", assess_validity)
            with pytest.raises(MeasurementError, match=message):
                store.measure_reliably(MODELS[0])

    return fail


def test_no_reliable_result_of_rejected_processes(log: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every process is rejected for its conditions, the error names the remedy."""
    rejected = Validity("rejected", ("governor is powersave: change it",))
    monkeypatch.setattr(
        sys.modules["edgenas.profilers.measure.session"], "assess_validity", lambda *before, **options: rejected
    )
    with (
        MeasurementStore(MeasurementLog(log), target, SETTINGS) as store,
        pytest.raises(MeasurementError, match="governor is powersave: change it"),
    ):
        store.measure_reliably(MODELS[0])


def test_after_the_remedy_it_is_proven(log: Path, target: Target, disturbed: Callable[..., None]) -> None:
    """Refused, then quiet: the next proof takes six processes, and is what is recorded."""
    with MeasurementStore(MeasurementLog(log), target, SETTINGS) as store:
        disturbed(store, "busy: wait")
        assert store.reliable_result(MODELS[0]) is None
        result = store.measure_reliably(MODELS[0])
        assert len(result.measurements) == 6
        assert not result.rejected
        assert store.reliable_result(MODELS[0]) == result


def test_a_proof_among_disturbances_is_taken_anew(log: Path, target: Target, disturbed: Callable[..., None]) -> None:
    """Two of three processes are disturbed: refused the first time, not proven by its six calm ones the second."""
    with MeasurementStore(MeasurementLog(log), target, SETTINGS) as store:
        disturbed(store, "of 16 processes rejected: busy: wait", lambda turn: turn % 3 > 0)
        assert store.reliable_result(MODELS[0]) is None
        result = store.measure_reliably(MODELS[0])
        assert len(result.measurements) == 6
        assert store.reliable_result(MODELS[0]) == result


def test_a_few_valid_processes_do_not_complete_a_disturbed_result(
    log: Path, target: Target, disturbed: Callable[..., None]
) -> None:
    """Four of 18 processes were calm: two more would make six, but the second proof is of six calm ones of its own."""
    with MeasurementStore(MeasurementLog(log), target, SETTINGS) as store:
        disturbed(store, "busy: wait", lambda turn: turn % 4 < 3)
        result = store.measure_reliably(MODELS[0])
        assert len(result.measurements) == 6
        assert not result.rejected
        assert store.reliable_result(MODELS[0]) == result


def test_another_series_is_another_measurement(log: Path, target: Target) -> None:
    """With other settings a model is measured again, in the same log, and neither reads the other's."""
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        first = store.measure_first(MODELS[:1])
    with MeasurementStore(
        MeasurementLog(log), target, MeasureSettings(processes=1, max_processes=1, max_runs=20)
    ) as store:
        assert not store.has_measured(MODELS[0])
        second = store.measure_first(MODELS[:1])
    assert recorded(log) == [*first, *second]


def test_what_was_cut_off_is_measured_again(log: Path, target: Target) -> None:
    """A log that was cut in its last line has lost that measurement alone; one line says so."""
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        store.measure_first(MODELS)
    whole, said = log.read_bytes(), list[str]()
    log.write_bytes(whole[:-40])
    with MeasurementStore(MeasurementLog(log, said.append), target, ONE) as store:
        store.measure_first(MODELS)
    assert said == [f"measure   {log}: ignores its last line, which was cut off while it was written"]
    assert len(recorded(log)) == 20
    assert log.read_bytes().startswith(b"".join(whole.splitlines(keepends=True)[:-1]))


def test_a_log_of_a_newer_edgenas_raises(log: Path, target: Target, no_device: Callable[[], None]) -> None:
    """A log of a later version asks for an upgrade."""
    with MeasurementStore(MeasurementLog(log), target, ONE) as store:
        store.measure_first(MODELS[:1])
    log.write_bytes(log.read_bytes().replace(b'"version":5', b'"version":6', 1))
    no_device()
    with (
        MeasurementStore(MeasurementLog(log), target, ONE) as store,
        pytest.raises(FormatError, match="upgrade edgenas"),
    ):
        store.measure_first(MODELS[:1])


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """A model file that cannot be written is named with the remedy, and leaves nothing behind."""
    program = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from edgenas.devices import Target, load_profile\n"
        "from edgenas.pipeline.measurement_log import MeasurementLog\n"
        "from edgenas.pipeline.measurement_store import SETTINGS, MeasurementStore\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "log = MeasurementLog(Path(sys.argv[1], 'measurements.jsonl'))\n"
        "MeasurementStore(log, Target(load_profile('localhost')), SETTINGS).measure([bytes(1_000_000)])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert re.search(r"EdgeNASError: .*\.onnx: cannot be written \(File too large\); free space or", done.stderr)
    assert not list(tmp_path.iterdir())
