"""The log of measurements: what is appended comes back, whatever happens to the file's end."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgenas.errors import EdgeNASError, FormatError, UsageError
from edgenas.files import canonical_json_bytes, sha256_hex
from edgenas.pipeline.measurement_log import MeasurementLog, log_bytes
from edgenas.profilers import Measurement
from edgenas.profilers.measure.validity import Validity

SERIES = "0123abcd"
_PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
_FACTS = st.dictionaries(st.text(max_size=9), _PLAIN | st.text(max_size=9) | st.lists(_PLAIN, max_size=3), max_size=4)
_WORDS = st.text(st.characters(exclude_categories=("C", "Z")), max_size=9)
_SAMPLES = st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=9).map(tuple)
_MEASUREMENTS = st.builds(
    Measurement,
    model_sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    target=_FACTS,
    samples_ms=_SAMPLES,
    peak_bytes=st.none() | st.integers(0, 2**50),
    load_ms=st.floats(0, 1e9),
    device_s=st.floats(0, 1e9),
    facts=_FACTS,
    versions=st.dictionaries(_WORDS, _WORDS, max_size=2),
    conditions_before=_FACTS,
    conditions_after=_FACTS,
    validity=st.builds(
        Validity, st.sampled_from(["valid", "unverified", "rejected"]), st.lists(_WORDS, max_size=2).map(tuple)
    ),
    synthetic=st.booleans(),
    settings=_FACTS,
    round=st.integers(0, 99),
    taken_s=st.floats(0, 2e9),
    filled_shapes=st.dictionaries(_WORDS, st.lists(st.integers(0, 999), max_size=3).map(tuple), max_size=2),
    placement=st.none() | st.dictionaries(_WORDS, st.integers(0, 999), max_size=2),
    energy_mj=st.none() | st.floats(0, 1e9),
    memory_reason=st.none() | _WORDS,
)
_SLOWLY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)


def made(number: int = 0, **changes: Any) -> Measurement:
    """A measurement of the model with this number."""
    fields: dict[str, Any] = {
        "model_sha256": f"{number:064x}",
        "target": {"device": "board"},
        "samples_ms": tuple(1.0 + step / 7 for step in range(60)),
        "peak_bytes": 1000,
        "load_ms": 3.5,
        "device_s": 0.25,
        "facts": {"cpu": "x"},
        "versions": {"onnxruntime": "1.31.1"},
        "conditions_before": {},
        "conditions_after": {},
        "validity": Validity("valid"),
        "synthetic": True,
        "settings": {},
    }
    return Measurement(**{**fields, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log that is not there yet, in a folder that is not there yet."""
    return tmp_path / "targets" / "board" / "measurements.jsonl"


@pytest.fixture
def filled(path: Path) -> Path:
    """A log of three models."""
    log = MeasurementLog(path)
    for number in range(3):
        log.append(SERIES, made(number))
    return path


def contents(path: Path) -> list[Measurement]:
    return [entry.measurement for entry in MeasurementLog(path).entries]


def line_of(record: dict[str, Any]) -> bytes:
    """A line of a log, made by hand."""
    content = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return f'{{"sha256":"{sha256_hex(content.encode())}",{content[1:]}\n'.encode()


def change_line(path: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    lines = path.read_bytes().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"".join(line + b"\n" for line in lines))


@_SLOWLY
@given(st.lists(_MEASUREMENTS, max_size=4))
def test_any_measurement_round_trips(tmp_path: Path, measurements: list[Measurement]) -> None:
    """What is appended is read again as it was, in order, by the log that wrote it and by another one."""
    path = tmp_path / "log.jsonl"
    path.unlink(missing_ok=True)
    log = MeasurementLog(path)
    for measurement in measurements:
        log.append(SERIES, measurement)
    for read in (log, MeasurementLog(path)):
        assert [entry.measurement for entry in read.entries] == measurements
    records = [(SERIES, measurement.to_dict()) for measurement in measurements]
    assert not records or path.read_bytes() == log_bytes(records)


@_SLOWLY
@given(st.data())
def test_a_log_that_was_cut_anywhere_holds_the_complete_lines(tmp_path: Path, data: st.DataObject) -> None:
    """Cut at any byte, the log reads as the lines before the cut, says so once, and is appended to from there."""
    whole = log_bytes((SERIES, made(number, samples_ms=(1.0, 2.0)).to_dict()) for number in range(3))
    cut = data.draw(st.integers(0, len(whole)))
    path, said = tmp_path / "log.jsonl", list[str]()
    path.write_bytes(whole[:cut])
    log = MeasurementLog(path, said.append)
    kept = max(0, whole[:cut].count(b"\n") - 1)
    assert len(log.entries) == kept
    assert len(said) == (cut > 0 and whole[cut - 1 : cut] != b"\n")
    assert path.read_bytes() == whole[:cut]  # reading changes nothing
    log.append(SERIES, made(7))
    assert contents(path) == [*(made(number, samples_ms=(1.0, 2.0)) for number in range(kept)), made(7)]
    assert [entry.measurement for entry in log.entries] == contents(path)


def test_a_log_that_is_not_there_is_empty(path: Path) -> None:
    """Nothing is recorded where there is no file, and asking makes none."""
    log = MeasurementLog(path)
    assert (log.entries, log.of_model(SERIES, "0" * 64)) == ([], [])
    assert not log.has_model(SERIES, "0" * 64)
    assert not path.parent.exists()


def test_series_are_apart(path: Path) -> None:
    """Processes are found by series and model, in the order of writing."""
    log = MeasurementLog(path)
    first, second, other = made(1), replace(made(1), round=1), replace(made(1), round=2)
    log.append(SERIES, first)
    log.append("other", other)
    log.append(SERIES, second)
    for read in (log, MeasurementLog(path)):
        assert read.of_model(SERIES, first.model_sha256) == [first, second]
        assert read.of_model("other", first.model_sha256) == [other]
        assert not read.has_model("other", made(9).model_sha256)


def test_a_line_is_what_the_documentation_says(filled: Path) -> None:
    """A header, then JSON lines whose checksum is that of all other keys as canonical JSON."""
    header, line, *_ = filled.read_text().splitlines()
    assert json.loads(header) == {"format": "edgenas.measurements", "version": 5}
    record = json.loads(line)
    checksum = record.pop("sha256")
    assert checksum == sha256_hex(canonical_json_bytes(record))
    assert record == {"measurement": json.loads(json.dumps(made(0).to_dict())), "series": SERIES}


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize(
    "change", [lambda line: line[:-1], lambda line: line.replace(b"1.0", b"1.5"), lambda line: b""]
)
def test_a_damaged_line_is_named(filled: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    """A line that was cut, edited or emptied is refused with file, number and remedy, and so is all of the log."""
    change_line(filled, number, change)
    before = filled.read_bytes()
    with pytest.raises(FormatError, match=rf"measurements\.jsonl, line {number}: is damaged .*; remove that line"):
        MeasurementLog(filled).of_model(SERIES, made(0).model_sha256)
    with pytest.raises(FormatError, match=f"line {number}"):
        MeasurementLog(filled).append(SERIES, made(4))
    assert filled.read_bytes() == before


def test_after_the_remedy_the_others_are_there(filled: Path) -> None:
    """Without the damaged line the log holds all other measurements."""
    change_line(filled, 3, lambda line: line[:50])
    lines = filled.read_bytes().splitlines(keepends=True)
    filled.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert contents(filled) == [made(0), made(2)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"series": ""}, "line 2: is no measurement"),
        ({"measurement": 1, "series": ""}, "line 2"),
    ],
)
def test_a_line_with_a_checksum_and_nonsense_is_named(path: Path, body: dict[str, Any], message: str) -> None:
    """A checksum proves no content: a line without a measurement is refused."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"format":"edgenas.measurements","version":5}\n' + line_of(body))
    with pytest.raises(FormatError, match=message):
        MeasurementLog(path).has_model(SERIES, made().model_sha256)


def test_a_measurement_that_cannot_be_is_named(path: Path) -> None:
    """A measurement with an impossible value names its line when it is asked for."""
    path.parent.mkdir(parents=True)
    path.write_bytes(log_bytes([(SERIES, {**made().to_dict(), "samples_ms": [1.0]})]))
    with pytest.raises(
        FormatError, match=r"line 2: measurement: a measurement must have at least 2 samples.*remove that line"
    ):
        contents(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "edgenas.measurements", "version": 6}, "reads up to 5; upgrade edgenas"),
        ({"format": "edgenas.measurements", "version": 2}, "has schema version 2, this edgenas reads 5"),
        ({"format": "edgenas.front", "version": 1}, "expected format edgenas.measurements"),
        ([], "line 1: is damaged"),
    ],
)
def test_another_header_is_refused(filled: Path, header: object, message: str) -> None:
    """A log of a newer edgenas or one without an upgrade, another file, and a damaged header are told apart."""
    change_line(filled, 1, lambda line: json.dumps(header).encode())
    with pytest.raises(FormatError, match=message):
        contents(filled)


def test_a_file_of_something_else_is_not_overwritten(path: Path) -> None:
    """A file without an end of line that is no beginning of a log is refused, and stays as it is."""
    path.parent.mkdir(parents=True)
    path.write_text("my notes")
    with pytest.raises(FormatError, match="is no log of measurements; move it away"):
        MeasurementLog(path).append(SERIES, made())
    assert path.read_text() == "my notes"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_regular_files_are_opened(filled: Path, kind: str) -> None:
    """A link is not followed, a named pipe not waited for, and a folder is none."""
    path = filled.with_name("other.jsonl")
    if kind == "link":
        path.symlink_to(filled)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(UsageError, match=r"other\.jsonl: is a link or no regular file; move it away"):
        MeasurementLog(path).append(SERIES, made())


def test_a_full_disk_leaves_what_was_there(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a line does not fit, the file is what it was; with space again the same log is appended to."""
    before, write = filled.read_bytes(), os.write
    log = MeasurementLog(filled)
    assert len(log.entries) == 3

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) < 300:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:300])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(EdgeNASError, match=r"cannot be written \(No space left on device\); free space") as caught:
            log.append(SERIES, made(3))
    assert "\n" not in str(caught.value)
    assert filled.read_bytes() == before
    log.append(SERIES, made(3))
    assert contents(filled) == [made(number) for number in range(4)]


def test_two_logs_of_one_file_lose_nothing(filled: Path) -> None:
    """A log that another one of the same process has appended to sees that before it appends."""
    one, other = MeasurementLog(filled), MeasurementLog(filled)
    assert len(one.entries) == len(other.entries) == 3
    other.append(SERIES, made(3))
    one.append(SERIES, made(4))
    assert contents(filled) == [made(number) for number in range(5)]
    assert [entry.measurement for entry in one.entries] == contents(filled)


def test_a_cut_line_is_said_once(filled: Path) -> None:
    """However often a log is asked, and read again after others changed it, one line says what it ignores."""
    filled.write_bytes(filled.read_bytes()[:-40])
    said = list[str]()
    log = MeasurementLog(filled, said.append)
    assert len(log.entries) == len(log.of_model(SERIES, made(0).model_sha256)) + 1 == 2
    assert said == [f"measure   {filled}: ignores its last line, which was cut off while it was written"]
    filled.write_bytes(filled.read_bytes()[:-1])
    assert len(log.entries) == 2
    assert len(said) == 1
    log.append(SERIES, made(5))
    assert contents(filled) == [made(0), made(1), made(5)]


def test_a_log_sees_what_another_has_appended(filled: Path) -> None:
    """A log that was read is read again when the file has changed."""
    log = MeasurementLog(filled)
    assert not log.has_model(SERIES, made(3).model_sha256)
    MeasurementLog(filled).append(SERIES, made(3))
    assert log.of_model(SERIES, made(3).model_sha256) == [made(3)]


def test_the_name_of_a_new_log_is_on_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of a new file are synchronised after its first line, those of an existing one are not."""
    synced, fsync = list[int](), os.fsync

    def recording(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    log = MeasurementLog(path)
    log.append(SERIES, made(0))
    names = [folder.stat().st_ino for folder in (path, *path.parents[:3])]
    assert synced == names
    log.append(SERIES, made(1))
    assert synced == [*names, names[0]]


# -- an earlier edgenas --------------------------------------------------------------


@pytest.fixture
def with_references(path: Path) -> Path:
    """A log of this version as an earlier edgenas wrote it: the reference model ran between two models."""
    rows = [(made(0), False), (made(9), True), (made(1), False)]
    lines = [line_of({"measurement": each.to_dict(), "reference": of, "series": SERIES}) for each, of in rows]
    path.parent.mkdir(parents=True)
    path.write_bytes(log_bytes([]) + b"".join(lines))
    return path


def test_lines_of_the_reference_model_are_skipped(with_references: Path) -> None:
    """Its processes are neither entries nor found as those of a model; the others are."""
    log = MeasurementLog(with_references)
    assert [entry.measurement for entry in log.entries] == [made(0), made(1)]
    assert not log.has_model(SERIES, made(9).model_sha256)


def test_an_append_keeps_the_lines_of_the_reference_model(with_references: Path) -> None:
    """A log is only ever appended to: what is skipped stays in the file."""
    before = with_references.read_bytes()
    MeasurementLog(with_references).append(SERIES, made(2))
    assert with_references.read_bytes().startswith(before)
    assert contents(with_references) == [made(0), made(1), made(2)]


def test_a_damaged_line_after_a_skipped_one_is_named(with_references: Path) -> None:
    """Lines are counted as they are in the file."""
    change_line(with_references, 4, lambda line: line[:-1])
    with pytest.raises(FormatError, match=r"line 4: is damaged"):
        contents(with_references)


def test_a_log_of_the_reference_model_alone_is_appended_to(path: Path) -> None:
    """Where nothing but the reference model was measured, the log holds no entries, and takes new ones."""
    path.parent.mkdir(parents=True)
    path.write_bytes(log_bytes([]) + line_of({"measurement": made().to_dict(), "reference": True, "series": SERIES}))
    log = MeasurementLog(path)
    assert log.entries == []
    log.append(SERIES, made(1))
    assert contents(path) == [made(1)] == log.of_model(SERIES, made(1).model_sha256)


# -- an older version ----------------------------------------------------------------

BODY_OF_VERSION_3 = {
    "model_sha256": "0" * 64,
    "target": {"device": "board"},
    "samples_ms": [2.0, 2.5, 3.0],
    "peak_bytes": 1000,
    "load_ms": 3.5,
    "device_s": 0.25,
    "facts": {"cpu": "x"},
    "versions": {"onnxruntime": "1.31.1"},
    "conditions_before": {"load": 0.5},
    "conditions_after": {"usual_pace_ms": 1.25, "base_pace_ms": 1.5},
    "verdict": {"status": "trusted", "reasons": []},
    "synthetic": True,
    "settings": {},
    "interrupted": [],
    "pace_ms": [1.0, 1.25, 1.5],
    "round": 1,
    "taken_s": 5.0,
    "running_s": 0.125,
    "placement": None,
    "energy_mj": None,
    "energy_rail": None,
    "memory_reason": None,
    "unit": "ms",
}
AS_THIS_VERSION = made(
    0,
    samples_ms=(2.0, 2.5, 3.0),
    conditions_before={"load": 0.5},
    conditions_after={"baseline_probe_ms": 1.25, "reference_probe_ms": 1.5},
    probe_ms=(1.0, 1.25, 1.5),
    round=1,
    taken_s=5.0,
    running_s=0.125,
)


def line_of_version_3(*, reference: bool = False, **changes: Any) -> bytes:
    """A line of a log of version 3, made by hand; by default not of the reference model."""
    return line_of({"measurement": {**BODY_OF_VERSION_3, **changes}, "reference": reference, "series": SERIES})


@pytest.fixture
def older(path: Path) -> Path:
    """A log of version 3 with three processes of one model, valid, unverified and rejected."""
    lines = [
        line_of_version_3(),
        line_of_version_3(verdict={"status": "unverified", "reasons": ["no governor"]}),
        line_of_version_3(verdict={"status": "refused", "reasons": ["busy: wait"]}),
    ]
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"format":"edgenas.measurements","version":3}\n' + b"".join(lines))
    return path


UPGRADED = [
    AS_THIS_VERSION,
    replace(AS_THIS_VERSION, validity=Validity("unverified", ("no governor",))),
    replace(AS_THIS_VERSION, validity=Validity("rejected", ("busy: wait",))),
]


def test_a_log_of_an_older_version_is_read(older: Path) -> None:
    """Every measurement is there with every number, in the words of this version; reading changes nothing."""
    before = older.read_bytes()
    log = MeasurementLog(older)
    assert log.of_model(SERIES, "0" * 64) == UPGRADED
    assert json.loads(log.entries[0].content)["measurement"] == json.loads(json.dumps(AS_THIS_VERSION.to_dict()))
    assert older.read_bytes() == before


def test_an_append_writes_a_log_of_an_older_version_anew(older: Path) -> None:
    """The first append writes all lines in this version, with their checksums; the next one only adds a line."""
    older.write_bytes(older.read_bytes() + b'{"sha256":"cut off')
    log = MeasurementLog(older)
    log.append(SERIES, made(1))
    kept = [line_of({"measurement": each.to_dict(), "reference": False, "series": SERIES}) for each in UPGRADED]
    added = line_of({"measurement": made(1).to_dict(), "series": SERIES})
    assert older.read_bytes() == log_bytes([]) + b"".join([*kept, added])
    inode = older.stat().st_ino
    log.append(SERIES, made(2))
    assert older.stat().st_ino == inode
    assert contents(older) == [*UPGRADED, made(1), made(2)] == [entry.measurement for entry in log.entries]
    assert [path.name for path in older.parent.iterdir()] == [older.name]


def test_a_log_of_an_older_version_is_written_anew_without_the_reference_model(older: Path) -> None:
    """Its lines serve nothing in this version."""
    older.write_bytes(older.read_bytes() + line_of_version_3(reference=True))
    assert contents(older) == UPGRADED
    MeasurementLog(older).append(SERIES, made(1))
    assert older.read_bytes().count(b"\n") == 1 + 3 + 1  # header, measurements, the new one
    assert contents(older) == [*UPGRADED, made(1)]


def test_two_logs_of_an_older_version_lose_nothing(older: Path) -> None:
    """A log that was read before another one wrote the file anew sees that before it appends."""
    one, other = MeasurementLog(older), MeasurementLog(older)
    assert len(one.entries) == len(other.entries) == 3
    other.append(SERIES, made(1))
    one.append(SERIES, made(2))
    assert contents(older) == [*UPGRADED, made(1), made(2)]


def test_a_log_of_an_older_version_is_kept_where_it_cannot_be_written(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the log stays as it was; with space again nothing is missing."""
    before, log = older.read_bytes(), MeasurementLog(older)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EdgeNASError, match="cannot be written") as caught:
            log.append(SERIES, made(1))
    assert "\n" not in str(caught.value)
    assert older.read_bytes() == before
    log.append(SERIES, made(1))
    assert contents(older) == [*UPGRADED, made(1)]


@pytest.mark.parametrize(
    "changes", [{"conditions_after": None}, {"verdict": 7}, {"verdict": {"reasons": []}}, {"conditions_before": [1]}]
)
def test_a_line_of_an_older_version_with_nonsense_is_named(older: Path, changes: dict[str, Any]) -> None:
    """What cannot be upgraded is refused with its line; the file stays as it was."""
    change_line(older, 3, lambda line: line_of_version_3(**changes).rstrip())
    before = older.read_bytes()
    with pytest.raises(FormatError, match=r"line 3: is no measurement; remove that line"):
        MeasurementLog(older).append(SERIES, made(1))
    assert older.read_bytes() == before


def test_thousands_of_lines_are_read_quickly(path: Path) -> None:
    """4,000 measurements are indexed within a second or two, and only those that are asked for are parsed."""
    records = [(SERIES, made(number).to_dict()) for number in range(4000)]
    path.parent.mkdir(parents=True)
    path.write_bytes(log_bytes(records))
    log, began = MeasurementLog(path), time.monotonic()
    assert log.of_model(SERIES, f"{1234:064x}") == [made(1234)]
    assert time.monotonic() - began < 5
    assert sum("measurement" in vars(entry) for entry in log.entries) == 1
