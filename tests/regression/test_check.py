"""Checks on made-up rounds and on a made-up device: what is decided, when, and what is said."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgenas.regression.check
from edgenas.bundle import Bundle, write_bundle
from edgenas.devices import Target
from edgenas.errors import DeviceError, ExitCode, FormatError, ModelError, UsageError, VerificationError
from edgenas.profilers import Measurement, ModelInputs
from edgenas.profilers.measure.validity import Validity
from edgenas.regression import Baseline, ModelCheck, check_model, record_baseline
from edgenas.regression.anchor import write_anchor
from edgenas.regression.checks import CheckReport, CheckRequest
from edgenas.regression.rounds import Round
from edgenas.regression.text import format_notes

Make = Callable[..., tuple[Measurement, ...]]
Play = Callable[..., list[Round]]
MODEL_BYTES = 1000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"m" * MODEL_BYTES)
    return path


@pytest.fixture
def baseline(model: Path, fake_target: Target, tmp_path: Path) -> Path:
    """The baseline of the model on the made-up device."""
    record_baseline(model, fake_target, tmp_path / "b.json")
    return tmp_path / "b.json"


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, baseline: Path) -> Play:
    """Let rounds be measured that are made up: latencies of the new model and of the other, ms; or end with an error.

    Returns the list of rounds that were taken. The boards are those of the baseline, unless ``fields`` say otherwise.
    """
    one = Baseline.load(baseline).measurements[0]

    def install(
        new: Sequence[float],
        other: Sequence[float] | None = None,
        error: Exception | None = None,
        rejected: Sequence[int] = (),
        other_fields: dict[str, Any] | None = None,
        **fields: Any,
    ) -> list[Round]:
        taken: list[Round] = []

        def rounds(*arguments: object) -> Generator[Round, None, None]:
            for number, (ms, other_ms) in enumerate(zip(new, other or itertools.repeat(None), strict=False)):
                validity = Validity("rejected", ("the board is hot: cool it",))
                changes = {name: next(value) if name == "probe_ms" else value for name, value in fields.items()}
                changes |= {"validity": validity} if number in rejected else {}
                beside = None if other_ms is None else replace(one, samples_ms=(other_ms,) * 2, **(other_fields or {}))
                taken.append(Round(replace(one, samples_ms=(ms, ms), **changes), beside, number + 1.0))
                yield taken[-1]
            if error is not None:
                raise error

        monkeypatch.setattr(edgenas.regression.check, "iter_rounds", rounds)
        return taken

    return install


@pytest.fixture
def check(model: Path, fake_target: Target, baseline: Path) -> Callable[..., ModelCheck]:
    """Check the model against its baseline on the made-up device."""
    return lambda **options: check_model(model, fake_target, baseline, **options)


Check = Callable[..., ModelCheck]


def test_an_unchanged_model_is_ok_after_eight_rounds(check: Check) -> None:
    """On a device without noise, as few rounds as an interval takes; each of both models."""
    got = check()
    assert (got.outcome, got.exit_code, got.method) == ("ok", 0, "side by side")
    assert len(got.rounds) == 8
    assert got.findings[0].ratio == got.findings[0].interval[0] == got.findings[0].interval[1] == 1
    assert got.reasons == ()


def test_a_model_that_grew_by_a_tenth_regressed(check: Check, model: Path) -> None:
    """1000 bytes take 1 + 1 µs on the made-up device, 1200 take 1 + 1.2 µs: 10% more."""
    model.write_bytes(b"m" * 1200)
    got = check()
    assert (got.outcome, got.exit_code) == ("regressed", ExitCode.REGRESSED)
    assert got.findings[0].ratio == pytest.approx(1.1, rel=0.01)
    assert got.reasons[0].startswith("the latency changed by +")
    assert got.reasons[0].endswith("; at most +5% is allowed")


def test_rounds_end_when_the_limit_is_decided(check: Check, play: Play) -> None:
    """One round above +5% leaves eight rounds undecided; the interval of eleven ends at the second largest."""
    new = [1.0, 0.96, 1.06, 1.0, 1.03, 0.99, 1.01, 1.02, 1.0, 0.98, 1.01, 1.0, 0.99, 1.0, 1.0]
    taken = play(new, [1.0] * 15)
    assert check().outcome == "ok"
    assert len(taken) == 11


def test_the_interval_decides_not_the_median(check: Check, play: Play) -> None:
    """Ratios from 1.01 to 1.10 around 1.07 prove neither a pass nor a regression at +5%, and the remedy is named."""
    ratios = [1.01, 1.02, 1.03, 1.06, 1.07, 1.08, 1.09, 1.1]
    play(ratios, [1.0] * 8)
    got = check()
    assert (got.outcome, got.exit_code) == ("not measurable", ExitCode.NOT_MEASURABLE)
    assert got.reasons == (
        "the latency changed by +6.5% (95%: +1.0% to +10.0%), which 8 s of measuring cannot tell from +5%;"
        " allow more time (about --seconds 170), or measure on a quieter device",
    )


def test_a_change_of_the_limit_itself_is_too_near(check: Check, play: Play) -> None:
    """More time would not help; another limit would."""
    play([1.0, 1.1] * 10, [1.0] * 20)
    assert check().reasons[0].endswith("it is too near to the limit: allow more, or less")


def test_rounds_that_differ_much_are_not_too_near(check: Check, play: Play) -> None:
    """Ratios between 0.99 and 1.46 around 1.02 are noise: another limit would not help."""
    play([0.99, 1.02, 1.46, 1.02, 1.0, 1.02, 1.4, 1.02], [1.0] * 8)
    assert (
        check()
        .reasons[0]
        .endswith(
            "the rounds differ too much: allow more time (--seconds 30), or stop other programs,"
            " or measure on a quieter device"
        )
    )


def test_a_time_that_no_check_may_take_is_not_suggested(
    check: Check, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one round takes 500 s, eight take more than an hour."""
    (one,) = play([1.0], [1.0]) or [check().rounds[0]]
    monkeypatch.setattr(edgenas.regression.check, "iter_rounds", lambda *_: (r for r in [replace(one, seconds=500.0)]))
    (reason,) = check().reasons
    assert reason == (
        "1 round in 500.0 s is too few to tell the latency, it takes 8 or more; run the model for less time"
    )


def test_too_few_rounds_say_how_many_seconds_they_need(check: Check, play: Play) -> None:
    """Four rounds in 4 s are no interval; eight take 8 s, and a fifth more to be sure."""
    play([1.0] * 4, [1.0] * 4)
    got = check()
    assert got.outcome == "not measurable"
    assert got.reasons == (
        "4 rounds in 4.0 s are too few to tell the latency, it takes 8 or more; allow more time: --seconds 10",
    )
    assert got.to_dict()["findings"][0]["interval_95"] == [None, None]


def test_the_smallest_change_that_would_have_shown_is_said(check: Check, play: Play) -> None:
    """The lower end lies 2% below the median: a model slower by more would have been surely slower."""
    play([0.98, 0.99, 0.99, 1.0, 1.0, 1.01, 1.01, 1.02], [1.0] * 8)
    assert check().findings[0].smallest_change == pytest.approx(1 / 0.98 - 1)


def test_drift_of_the_machine_cancels(check: Check, play: Play) -> None:
    """A machine that becomes three times as slow meanwhile does so for both models of a round."""
    speeds = [1.0, 1.2, 1.4, 1.7, 2.0, 2.3, 2.6, 3.0]
    play([1.08 * speed for speed in speeds], speeds)
    got = check()
    assert got.outcome == "regressed"
    assert got.findings[0].ratio == pytest.approx(1.08)


def test_a_faster_model_is_said_with_the_command_that_updates_the_baseline(
    check: Check, play: Play, baseline: Path, model: Path
) -> None:
    """It is ok, and the command names the same model, baseline and device."""
    play([0.9] * 8, [1.0] * 8)
    got = check()
    assert got.outcome == "ok"
    assert got.is_faster
    assert f"regress record {model} -o {baseline} --device board" in got.update_command


def test_the_limit_itself_is_allowed(check: Check, play: Play) -> None:
    """Exactly 50% slower is ok at +50%."""
    play([1.5] * 8, [1.0] * 8)
    assert check(latency="+50%").outcome == "ok"


def test_budget_and_relative_limit_are_both_kept(check: Check, play: Play) -> None:
    """A model within +5% of its baseline may still be over its budget."""
    play([16.0] * 8, [16.0] * 8)
    got = check(latency=["+5%", "15ms"])
    assert [one.outcome for one in got.findings] == ["ok", "regressed"]
    assert (got.outcome, got.reasons) == ("regressed", ("the latency is 16.0 ms, surely above 15ms",))


def test_a_budget_is_not_broken_by_a_cpu_that_changes_its_speed(
    model: Path, fake_target: Target, baseline: Path, play: Play
) -> None:
    """Three of eight processes ran on a CPU a fifth slower: what it does at other times, nobody knows."""
    probes = itertools.cycle([(1.0, 1.0)] * 5 + [(1.2, 1.2)] * 3)
    play([2.0] * 8, probe_ms=probes)
    got = check_model(model, fake_target, latency="1ms")
    assert (got.outcome, got.reasons) == (
        "not measurable",
        (
            "the latency is 2.00 ms, above 1ms, but the speed of the CPU was over 10% off in 3 of 8 processes;"
            " stop other programs, or measure on a quieter device",
        ),
    )
    play([2.0] * 8, probe_ms=itertools.cycle([(1.0, 1.0)] * 6 + [(1.2, 1.2)] * 2))
    assert check_model(model, fake_target, latency="1ms").outcome == "regressed"


def test_a_budget_needs_no_baseline(model: Path, fake_target: Target) -> None:
    """The made-up device takes 2 µs: within 3 µs and not within 1 µs."""
    assert check_model(model, fake_target, latency="3us").outcome == "ok"
    got = check_model(model, fake_target, latency="1us")
    assert (got.outcome, got.method, got.update_command) == ("regressed", "budget only", "")
    assert got.rounds[0].other is None


def test_memory_is_compared_in_the_same_rounds(check: Check, play: Play) -> None:
    """3% more peak memory than the baseline's model has now is a regression at +2%, whatever was stored."""
    play([1.0] * 8, [1.0] * 8, peak_bytes=10_300_000, other_fields={"peak_bytes": 10_000_000})
    got = check(memory="+2%")
    assert [(one.limit.quantity, one.outcome) for one in got.findings] == [("latency", "ok"), ("memory", "regressed")]
    assert check(memory="11MB").outcome == "ok"


def test_a_regressed_limit_ends_the_check(check: Check, play: Play) -> None:
    """The outcome cannot change any more, although the memory is undecided; only what decided it is a reason."""
    peaks = {"peak_bytes": 10_150_000, "other_fields": {"peak_bytes": 10_000_000}}
    taken = play([2.0] * 30, [1.0] * 30, **peaks)
    got = check(memory=["+2%", "+1%"])
    assert len(taken) == 8
    assert [one.outcome for one in got.findings] == ["regressed", "ok", "regressed"]
    assert len(got.reasons) == 2


def test_memory_that_is_not_measured_is_no_pass(check: Check, play: Play) -> None:
    """An accelerator's memory is not known, so its limit cannot be told, and why is said."""
    play([1.0] * 8, [1.0] * 8, peak_bytes=None, memory_reason="it lies on the GPU")
    got = check(memory="+2%")
    assert (got.outcome, got.reasons) == (
        "not measurable",
        ("peak memory is not measured (it lies on the GPU); leave out --memory",),
    )


def test_memory_that_is_not_measured_hides_no_regression(check: Check, play: Play) -> None:
    """Twice as slow is twice as slow; the memory is a note."""
    play([2.0] * 8, [1.0] * 8, peak_bytes=None, memory_reason="it lies on the GPU")
    got = check(memory="+2%")
    assert (got.outcome, len(got.findings)) == ("regressed", 1)
    assert "peak memory is not measured (it lies on the GPU); leave out --memory" in got.warnings


def test_a_lost_device_hides_no_larger_file(fake_target: Target, baseline: Path, tmp_path: Path, play: Play) -> None:
    """The size needs no device."""
    (tmp_path / "larger.onnx").write_bytes(b"m" * 2000)
    play([1.0] * 3, [1.0] * 3, DeviceError("board: the connection was lost"))
    got = check_model(tmp_path / "larger.onnx", fake_target, baseline, size="+0%")
    assert (got.outcome, got.warnings[0]) == ("regressed", "board: the connection was lost")
    assert [(one.limit.quantity, one.outcome) for one in got.findings] == [
        ("latency", "not measurable"),
        ("size", "regressed"),
    ]


def test_what_is_no_model_is_refused_for_its_size_alone(fake_target: Target, tmp_path: Path) -> None:
    """The pointer of a large file that was not fetched is small enough for any budget."""
    (tmp_path / "net.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UsageError, match=r"net\.onnx: is a pointer of Git LFS"):
        check_model(tmp_path / "net.onnx", fake_target, size="4MB")


@pytest.mark.parametrize(("limit", "outcome"), [("+0%", "regressed"), ("+1%", "ok"), ("1kB", "regressed")])
def test_the_size_is_known_exactly(check: Check, model: Path, limit: str, outcome: str) -> None:
    """One byte more than 1000 is over +0% and over 1 kB, and within +1%."""
    model.write_bytes(b"m" * 1001)
    assert check(size=limit).outcome == outcome


def test_a_size_alone_is_not_measured(model: Path, fake_target: Target, play: Play) -> None:
    """No device is needed for it."""
    taken = play([1.0])
    assert check_model(model, fake_target, size="2kB").outcome == "ok"
    assert taken == []


def test_a_check_needs_a_limit(model: Path, fake_target: Target) -> None:
    """Without baseline and budget there is nothing to check, and a relative limit is relative to nothing."""
    with pytest.raises(UsageError, match="a check needs a limit"):
        check_model(model, fake_target)
    with pytest.raises(UsageError, match=r"latency limit '\+5%' is relative to a baseline; give one with --baseline"):
        check_model(model, fake_target, latency="+5%")


@pytest.mark.parametrize("text", ["1.05", "5", "-5%", "fast", ""])
def test_a_limit_that_is_none_is_refused(check: Check, text: str) -> None:
    """The message shows one that is."""
    with pytest.raises(UsageError, match=r"latency limit.*for example .*5"):
        check(latency=text)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
def test_a_time_that_is_none_is_refused(check: Check, seconds: float) -> None:
    """From above 0 to an hour."""
    with pytest.raises(UsageError, match="seconds must be above 0 and at most 3600"):
        check(seconds=seconds)


# -- what cannot be compared ------------------------------------------------------------


def test_another_target_is_incomparable(model: Path, fake_target: Target, baseline: Path, play: Play) -> None:
    """Found before anything is measured, with the field and both values."""
    taken = play([1.0])
    got = check_model(model, Target(fake_target.profile, threads=4), baseline)
    assert (got.outcome, got.exit_code) == ("incomparable", ExitCode.INCOMPARABLE)
    assert got.reasons == ("threads was 1 in the baseline, is 4 now; record a new baseline here",)
    assert taken == []


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("facts", {"cpu": "Cortex-A53"}, "board's cpu was unknown in the baseline, is Cortex-A53 now"),
        ("facts", {"usable_cores": 2}, "board's usable_cores was unknown in the baseline, is 2 now"),
    ],
)
def test_another_board_is_incomparable(
    check: Check, play: Play, baseline: Path, field: str, value: dict[str, object], line: str
) -> None:
    """A board of the same name with another processor: the first round shows it, and no other is run."""
    merged = {**getattr(Baseline.load(baseline).measurements[0], field), **value}
    taken = play([9.0] * 8, [1.0] * 8, **{field: merged})
    got = check()
    assert (got.outcome, got.findings) == ("incomparable", ())
    assert got.reasons == (f"{line}; record a new baseline here",)
    assert len(taken) == 1


def test_made_up_and_real_are_incomparable(check: Check, play: Play) -> None:
    """A made-up baseline says nothing about a real device."""
    play([1.0] * 8, [1.0] * 8, synthetic=False)
    assert check().reasons == ("synthetic was True in the baseline, is False now; record a new baseline here",)


def test_another_runtime_version_is_said_but_compares(check: Check, play: Play) -> None:
    """Both models are measured with the new one, so it cannot blame the model."""
    play([1.0] * 8, [1.0] * 8, versions={"onnxruntime": "9.9"})
    got = check()
    assert got.outcome == "ok"
    assert got.warnings[0] == (
        "runtime version was fake in the baseline, is 9.9 now; what was measured now has it in common"
    )


def test_another_precision_is_incomparable(
    target: Target, make_net: Callable[[str, int], Path], tmp_path: Path, make: Make
) -> None:
    """A baseline of an int8 file says nothing about one in float32; the precision is read from the file."""
    Baseline(make([1.0] * 6, target={**target.to_dict(), "precision": "int8"})).save(tmp_path / "b.json")
    got = check_model(make_net("net.onnx", 1), target, tmp_path / "b.json")
    assert got.outcome == "incomparable"
    assert got.reasons == ("precision was int8 in the baseline, is fp32 now; record a new baseline here",)


def test_another_format_is_incomparable(
    target: Target, make_relu: Callable[..., Path], tmp_path: Path, make: Make
) -> None:
    """A TFLite file is run by another runtime than the ONNX file of the baseline."""
    Baseline(make([1.0] * 6, target=target.to_dict())).save(tmp_path / "b.json")
    got = check_model(make_relu([1, 4, 4, 3]), target.profile, tmp_path / "b.json")
    assert got.outcome == "incomparable"
    assert got.reasons[0] == "runtime was onnxruntime in the baseline, is litert now; record a new baseline here"


def test_a_model_with_another_input_is_incomparable(
    fake_target: Target, make_onnx: Callable[..., Path], tmp_path: Path
) -> None:
    """Another resolution is another task for the device: never ok, never regressed."""
    record_baseline(make_onnx({"x": ("FLOAT", (1, 3, 96, 96))}), fake_target, tmp_path / "b.json")
    got = check_model(make_onnx({"x": ("FLOAT", (1, 3, 64, 64))}), fake_target, tmp_path / "b.json")
    assert got.outcome == "incomparable"
    assert got.reasons[0].startswith("input of the model was float 1x3x96x96 in the baseline, is float 1x3x64x64 now")


def test_renamed_inputs_compare(fake_target: Target, make_onnx: Callable[..., Path], tmp_path: Path) -> None:
    """Exporters choose names; the device does not care."""
    record_baseline(make_onnx({"x": ("FLOAT", (1, 3))}), fake_target, tmp_path / "b.json")
    assert check_model(make_onnx({"y": ("FLOAT", (1, 3))}), fake_target, tmp_path / "b.json").outcome == "ok"


# -- faults -----------------------------------------------------------------------------


def test_a_device_lost_in_mid_check_is_not_measurable(check: Check, play: Play) -> None:
    """Seven rounds of a model twice as slow prove nothing; they are kept, and what happened is said."""
    play([2.0] * 7, [1.0] * 7, DeviceError("board: the connection was lost"))
    got = check()
    assert (got.outcome, got.reasons) == ("not measurable", ("board: the connection was lost",))
    assert len(got.rounds) == 7


def test_a_device_that_cannot_be_reached_is_not_measurable(check: Check, play: Play) -> None:
    """Nothing was measured at all."""
    play([], error=DeviceError("board: cannot be reached"))
    assert (check().outcome, check().findings) == ("not measurable", ())


def test_conditions_lost_in_mid_check_are_not_measurable(check: Check, play: Play) -> None:
    """Where more rounds are rejected than count, the others decide nothing, although they are clear."""
    play([2.0] * 17, [1.0] * 17, rejected=range(2, 11))
    got = check()
    assert (got.outcome, got.reasons) == (
        "not measurable",
        ("9 of 17 rounds rejected: the board is hot: cool it",),
    )


def test_a_few_rejected_rounds_are_said_and_do_not_count(check: Check, play: Play) -> None:
    """The first two of ten; the other eight decide."""
    taken = play([5.0, 5.0, *[1.0] * 8], [1.0] * 10, rejected=(0, 1))
    got = check()
    assert (got.outcome, got.findings[0].ratio, len(taken)) == ("ok", 1.0, 10)
    assert "2 of 10 rounds rejected: the board is hot: cool it" in got.warnings


def test_hopeless_conditions_end_the_check_early(check: Check, play: Play) -> None:
    """A governor that rejects the first six rounds would reject the next, too."""
    taken = play([1.0] * 50, [1.0] * 50, rejected=range(50))
    assert check().outcome == "not measurable"
    assert len(taken) == 6


def test_a_damaged_baseline_is_wrong_use(check: Check, baseline: Path) -> None:
    """A changed number no longer fits the checksum: no outcome at all, exit code 2."""
    baseline.write_text(baseline.read_text().replace('"load_ms": 1.0', '"load_ms": 2.0', 1))
    with pytest.raises(FormatError, match=r"b\.json: is damaged or was edited") as error:
        check()
    assert error.value.exit_code == ExitCode.WRONG_USE


def test_a_baseline_of_a_newer_edgenas_is_wrong_use(check: Check, baseline: Path) -> None:
    """The remedy is an upgrade."""
    baseline.write_text(baseline.read_text().replace('"version": 6', '"version": 7', 1))
    with pytest.raises(FormatError, match="has schema version 7, this edgenas reads up to 6; upgrade edgenas"):
        check()


@pytest.mark.parametrize("broken", ["new", "kept"])
def test_a_model_that_crashes_never_reads_as_a_regression(
    broken: str, target: Target, make_net: Callable[[str, int], Path], tmp_path: Path, make: Make
) -> None:
    """A file that the runtime refuses is the user's error, exit code 2, whichever of the two it is."""
    nets = {"new": make_net("new.onnx", 1), "kept": make_net("b-kept.onnx", 2)}
    nets[broken].write_bytes(b"this is no model")
    import hashlib

    digest = hashlib.sha256(nets["kept"].read_bytes()).hexdigest()
    recorded = make([1.0] * 6, target=target.to_dict(), model_sha256=digest)
    Baseline(recorded, kept="b-kept.onnx").save(tmp_path / "b.json")
    with pytest.raises(ModelError, match="is refused by onnxruntime") as error:
        check_model(nets["new"], target, tmp_path / "b.json")
    assert error.value.exit_code == ExitCode.WRONG_USE


# -- without the baseline's model -------------------------------------------------------


@pytest.fixture
def stored(baseline: Path) -> Baseline:
    """The baseline, whose copy of the model was lost."""
    recorded = Baseline.load(baseline)
    baseline.with_name(str(recorded.kept)).unlink()
    return recorded


def test_without_the_model_stored_samples_are_compared(check: Check, stored: Baseline) -> None:
    """The anchor runs as fast as it did then: what was measured counts, nothing is corrected, and both are said."""
    got = check()
    assert (got.outcome, got.method, got.stored) == ("ok", "stored samples", stored.measurements)
    assert len(got.rounds) == 12
    assert "the baseline's model is not there" in got.warnings[0]
    assert got.warnings[1] == (
        "the anchor's latency changed by +0.0% (95%: +0.0% to +0.0%);"
        " the intervals are wider by that, nothing was corrected"
    )


def test_without_the_model_a_regression_is_found(check: Check, stored: Baseline, model: Path) -> None:
    """10% more than the stored samples."""
    model.write_bytes(b"m" * 1200)
    assert check().outcome == "regressed"


def anchor_ms(stored: Baseline) -> float:
    return stored.anchor[0].median_ms


def test_an_anchor_that_changed_forbids_stored_samples(check: Check, stored: Baseline, play: Play) -> None:
    """A device that is 3% slower than it was cannot tell whose fault it is: neither ok nor regressed."""
    fields = {"model_sha256": stored.anchor[0].model_sha256}
    play([0.002] * 12, [1.03 * anchor_ms(stored)] * 12, other_fields=fields)
    got = check()
    assert got.outcome == "not measurable"
    assert got.reasons[0].startswith("the anchor's latency changed by +3.0%")
    assert got.reasons[0].endswith("put the baseline's model beside it, or record a new baseline")


def test_what_the_anchor_is_off_widens_the_interval(check: Check, stored: Baseline, play: Play) -> None:
    """The model is 4% slower, as it seems; the anchor is 1.5% faster, so it may be 5.5%: not surely within +5%."""
    fields = {"model_sha256": stored.anchor[0].model_sha256}
    now = 1.04 * stored.result.median_ms
    play([now] * 12, [anchor_ms(stored) / 1.015] * 12, other_fields=fields)
    finding = check().findings[0]
    assert finding.interval == pytest.approx((1.04, 1.04 * 1.015))
    assert finding.outcome == "not measurable"


def test_another_kernel_forbids_stored_samples(check: Check, stored: Baseline, play: Play) -> None:
    """Side by side it would not matter; between two days it may."""
    taken = play([1.0] * 12, [1.0] * 12, facts={**stored.measurements[0].facts, "kernel": "6.2"})
    got = check()
    assert got.outcome == "incomparable"
    assert got.reasons == ("kernel was unknown in the baseline, is 6.2 now; record a new baseline here",)
    assert len(taken) == 1


def test_a_copy_that_is_another_model_is_not_taken_for_the_baseline(check: Check, baseline: Path) -> None:
    """Its hash is checked."""
    kept = baseline.with_name(str(Baseline.load(baseline).kept))
    kept.write_bytes(b"other" * 300)
    got = check()
    assert got.method == "stored samples"
    assert "is not the model that was recorded, its SHA-256 is another" in got.warnings[0]


def test_a_baseline_of_an_earlier_edgenas_cannot_be_compared_across_days(
    model: Path, fake_target: Target, baseline: Path
) -> None:
    """It has neither the model nor an anchor: not measurable, with what to do."""
    Baseline(Baseline.load(baseline).measurements).save(baseline)
    got = check_model(model, fake_target, baseline)
    assert got.outcome == "not measurable"
    assert got.reasons[0].startswith("the stored samples cannot be used, because nothing tells whether the device")
    with pytest.raises(UsageError, match="does not say how large its model is"):
        check_model(model, fake_target, baseline, size="+0%")


# -- bundles ----------------------------------------------------------------------------


@pytest.fixture
def stated(tmp_path: Path, bundle_arguments: dict[str, Any]) -> Bundle:
    """A bundle whose card states an accuracy on test images."""
    card = {**bundle_arguments["card"], "accuracy": {"test": 0.97}}
    return write_bundle(tmp_path / "ship" / "net", **{**bundle_arguments, "card": card})


def test_a_bundle_is_recorded_and_checked(stated: Bundle, fake_target: Target, tmp_path: Path) -> None:
    """As a folder and as a zip; the accuracy that it states is kept, and shown beside the new one's."""
    record_baseline(stated.path, fake_target, tmp_path / "b.json")
    got = check_model(stated.write_archive(), fake_target, tmp_path / "b.json", size="+0%")
    assert (got.outcome, got.model.name) == ("ok", "net.zip")
    assert got.to_dict()["accuracy"] == {"now": 0.97, "then": 0.97}
    report = CheckReport(CheckRequest("net.zip"), got)
    assert "accuracy of the bundle: 97.00%, was 97.00%" in format_notes(report)


def test_a_bundle_that_was_changed_is_not_measured(stated: Bundle, fake_target: Target, play: Play) -> None:
    """It is verified first: a failed job, not a regression."""
    taken = play([1.0] * 8)
    (stated.path / "labels.txt").write_text("other\n")
    with pytest.raises(VerificationError, match=r"labels\.txt: its SHA-256 is not") as error:
        check_model(stated.path, fake_target, latency="15ms")
    assert error.value.exit_code == ExitCode.FAILED
    assert taken == []


# -- the rest ---------------------------------------------------------------------------


def test_inputs_are_given_to_both_models(
    target: Target, make_onnx: Callable[..., Path], tmp_path: Path, no_conditions: None
) -> None:
    """A model with an open length is checked at the length of its baseline, on the real device of this machine."""
    net = make_onnx({"tokens": ("FLOAT", ("length", 64))})
    inputs = ModelInputs({"tokens": (4, 64)})
    assert record_baseline(net, target, tmp_path / "b.json", inputs=inputs).anchor == ()
    got = check_model(net, target, tmp_path / "b.json", latency="+900%", inputs=inputs)
    assert got.outcome == "ok"
    assert [one.filled_shapes for one in got.rounds[0].measurements] == [{"tokens": (4, 64)}] * 2
    got = check_model(net, target, tmp_path / "b.json", inputs=ModelInputs({"tokens": (8, 64)}))
    assert got.reasons == ("shape of input tokens was 4x64 in the baseline, is 8x64 now; record a new baseline here",)


def test_the_anchor_runs_on_every_runtime(target: Target, tmp_path: Path) -> None:
    """It is made in the format of the target's runtime."""
    pytest.importorskip("ai_edge_litert")
    for runtime, suffix in (("onnxruntime", ".onnx"), ("litert", ".tflite")):
        path = write_anchor(Target(target.profile, runtime), tmp_path)
        assert path is not None
        assert path.suffix == suffix


@pytest.mark.slow
def test_a_model_six_times_as_large_regresses_on_this_machine(
    make_net: Callable[[str, int], Path], target: Target, tmp_path: Path, no_conditions: None
) -> None:
    """18 convolutions in place of 3, on the real device, are far more than 50% slower; 3 are not."""
    record_baseline(make_net("before.onnx", 3), target, tmp_path / "b.json")
    got = check_model(make_net("after.onnx", 18), target, tmp_path / "b.json", latency="+50%", seconds=60)
    assert (got.outcome, got.synthetic) == ("regressed", False)
    assert got.findings[0].ratio > 2
    assert check_model(make_net("again.onnx", 3), target, tmp_path / "b.json", latency="+50%").outcome == "ok"


def test_paths_may_be_text_and_its_repr_is_one_line(model: Path, fake_target: Target, baseline: Path) -> None:
    """As a notebook shows it."""
    got = check_model(str(model), fake_target, str(baseline))
    assert repr(got) == "ModelCheck(ok (synthetic): latency +0.0%)"
