"""Checks: what the comparison with a baseline says."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgenas.regression.gate
from edgenas.devices import Target
from edgenas.devices.profile_files import profile_from_dict
from edgenas.errors import DeviceError, ModelError, UsageError
from edgenas.profilers import Measurement, MeasureSettings, ModelInputs
from edgenas.profilers.measure.statistics import ratio_interval
from edgenas.profilers.measure.validity import Validity
from edgenas.regression import Baseline, check_latency, record_baseline
from edgenas.regression.gate import compare_with_baseline

Make = Callable[..., tuple[Measurement, ...]]
Median = tuple[float, float, float]
STEADY = [1.0] * 12
MODEL = Path("model.onnx")
QUICK = MeasureSettings(max_runs=100, min_seconds=0.05, warmup_seconds=0.1)


@pytest.fixture
def baseline(make: Make) -> Baseline:
    """Twelve processes of exactly 1 ms."""
    return Baseline(make(STEADY))


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Give ``check`` batches of measurements instead of a device; the list grows by one number a batch."""

    def install(*batches: tuple[Measurement, ...] | Exception) -> list[int]:
        asked: list[int] = []

        def taken(model: Path, target: Target, settings: object, count: int, inputs: object) -> tuple[Measurement, ...]:
            asked.append(count)
            batch = batches[len(asked) - 1]
            if isinstance(batch, Exception):
                raise batch
            return batch

        monkeypatch.setattr(edgenas.regression.gate, "measure_processes", taken)
        return asked

    return install


@pytest.fixture
def no_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure whatever else this machine does: its load is not what these tests are about."""
    module = sys.modules["edgenas.profilers.measure.session"]
    monkeypatch.setattr(module, "assess_validity", lambda before, after, **options: Validity("unverified"))


def test_a_ratio_surely_within_the_tolerance_is_ok(baseline: Baseline, make: Make) -> None:
    """Medians of 1.00 to 1.04 ms against 1 ms are ok at +5%, with nothing to add."""
    got = compare_with_baseline(baseline, make([1.0, 1.01, 1.02, 1.02, 1.03, 1.04]), 0.05)
    assert got.outcome == "ok"
    assert got.reasons == ()
    assert got.ratio == pytest.approx(1.02)
    assert got.interval == pytest.approx((1.0, 1.04))


def test_a_ratio_surely_above_the_tolerance_is_a_regression(baseline: Baseline, make: Make) -> None:
    """Medians of 1.28 to 1.32 ms against 1 ms regressed at +5%, and both medians are named."""
    got = compare_with_baseline(baseline, make([1.28, 1.29, 1.3, 1.3, 1.31, 1.32]), 0.05)
    assert got.outcome == "regressed"
    assert got.reasons == (
        "the median is 1.30 ms, it was 1.00 ms: +30.0%, at 95% from +28.0% to +32.0%, over the +5.0% that is allowed",
    )


def test_a_ratio_within_but_not_surely_is_ok_and_says_so(baseline: Baseline, make: Make) -> None:
    """A ratio of 1.03 whose interval reaches 1.08 is not called ok in silence."""
    got = compare_with_baseline(baseline, make([0.99, 1.02, 1.03, 1.03, 1.04, 1.08]), 0.05)
    assert got.outcome == "ok"
    assert "not surely" in got.reasons[0]


def test_a_ratio_above_but_not_surely_is_not_measurable(baseline: Baseline, make: Make) -> None:
    """A ratio of 1.07 whose interval begins at 1.01 proves neither a pass nor a regression."""
    got = compare_with_baseline(baseline, make([1.01, 1.06, 1.07, 1.07, 1.08, 1.1]), 0.05)
    assert got.outcome == "not measurable"
    assert "too noisy to tell from +5.0%" in got.reasons[0]
    assert got.ratio == pytest.approx(1.07)


def test_a_faster_model_is_ok(baseline: Baseline, make: Make) -> None:
    """Only slower counts."""
    assert compare_with_baseline(baseline, make([0.5] * 6), 0.05).outcome == "ok"


def test_raw_medians_are_compared(make: Make) -> None:
    """8% more is a regression, also where the speed probe took longer, and a baseline was scaled to another speed."""
    count = len(make([1.0])[0].samples_ms)
    scaled = {"baseline_probe_ms": 0.002, "reference_probe_ms": 0.002}  # of a baseline from before
    before = Baseline(make([1.0] * 6, probe_ms=(0.003,) * count, conditions_after=scaled))
    slow = make([1.08] * 6, probe_ms=(0.003 * 1.08**2,) * count)
    assert before.result.median_ms == 1.0
    assert compare_with_baseline(before, slow, 0.05).ratio == pytest.approx(1.08)
    assert compare_with_baseline(before, slow, 0.05).outcome == "regressed"


def test_the_limit_itself_is_allowed(baseline: Baseline, make: Make) -> None:
    """Exactly 50% slower is ok at +50%."""
    assert compare_with_baseline(baseline, make([1.5] * 6), 0.5).outcome == "ok"


def test_a_clear_pass_takes_six_processes(
    baseline: Baseline, fake_target: Target, make: Make, take: Callable[..., list[int]]
) -> None:
    """Nothing more is measured when the first six leave no doubt."""
    asked = take(make([1.0] * 6))
    assert check_latency(MODEL, baseline, fake_target).outcome == "ok"
    assert asked == [6]


def test_a_doubt_is_measured_again(
    baseline: Baseline, fake_target: Target, make: Make, take: Callable[..., list[int]]
) -> None:
    """Where the first six reach over the limit, all twelve decide: here, that it was the noise."""
    asked = take(make([1.0, 1.0, 1.01, 1.01, 1.02, 1.3]), make([1.0] * 6))
    got = check_latency(MODEL, baseline, fake_target)
    assert (got.outcome, got.reasons) == ("ok", ())
    assert asked == [6, 6]
    assert len(got.measurements) == 12


def test_a_regression_is_confirmed_before_it_is_called_one(
    baseline: Baseline, fake_target: Target, make: Make, take: Callable[..., list[int]]
) -> None:
    """Six processes in a slow moment of the machine are no regression when the next six are as before."""
    take(make([1.2] * 6), make([1.0] * 6))
    assert check_latency(MODEL, baseline, fake_target).outcome == "not measurable"
    take(make([1.2] * 6), make([1.2] * 6))
    assert check_latency(MODEL, baseline, fake_target).outcome == "regressed"


def test_the_tolerance_is_the_callers(
    baseline: Baseline, fake_target: Target, make: Make, take: Callable[..., list[int]]
) -> None:
    """20% slower is ok at +25%, and a tolerance that is no percentage is refused before anything is measured."""
    take(make([1.2] * 6))
    assert check_latency(MODEL, baseline, fake_target, latency="+25%").outcome == "ok"
    asked = take()
    with pytest.raises(UsageError, match="latency tolerance must be a percentage"):
        check_latency(MODEL, baseline, fake_target, latency="1.05")
    assert asked == []


def test_another_target_is_incomparable(
    baseline: Baseline, fake_target: Target, target: Target, take: Callable[..., list[int]]
) -> None:
    """Another device or number of threads is found before anything is measured, and both sides are named."""
    asked = take()
    got = check_latency(MODEL, baseline, Target(fake_target.profile, threads=4))
    assert got.outcome == "incomparable"
    assert got.reasons == ("another target: threads was 1 in the baseline, is 4 now; record a new baseline here",)
    assert "device was board in the baseline, is localhost now" in check_latency(MODEL, baseline, target).reasons[0]
    assert asked == []


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("facts", {"cpu": "Cortex-A53"}, "another device: cpu was Cortex-A72 in the baseline, is Cortex-A53 now"),
        ("facts", {"cores": 2}, "another device: cores was 4 in the baseline, is 2 now"),
        ("facts", {"usable_cores": None}, "another device: usable_cores was 4 in the baseline, is None now"),
        (
            "versions",
            {"onnxruntime": "1.21.0"},
            "another runtime's version: onnxruntime was 1.20.0 in the baseline, is 1.21.0 now",
        ),
    ],
)
def test_another_device_or_runtime_is_incomparable(
    baseline: Baseline,
    fake_target: Target,
    make: Make,
    take: Callable[..., list[int]],
    field: str,
    value: dict[str, object],
    line: str,
) -> None:
    """A device of the same name with another processor, or another runtime, is named by both sides at once."""
    merged = {**getattr(baseline.measurements[0], field), **value}
    asked = take(make([9.0] * 6, **{field: merged}))
    got = check_latency(MODEL, baseline, fake_target)
    assert got.outcome == "incomparable"
    assert got.reasons == (f"{line}; record a new baseline here",)
    assert (got.ratio, got.interval) == (None, None)
    assert asked == [6]


def test_a_new_kernel_or_python_is_still_the_same_device(baseline: Baseline, make: Make) -> None:
    """What is updated between two checks without making the device another one does not matter."""
    facts = {**baseline.measurements[0].facts, "kernel": "6.2"}
    versions = {**baseline.measurements[0].versions, "python": "3.12.0"}
    assert compare_with_baseline(baseline, make([1.0] * 6, facts=facts, versions=versions), 0.05).outcome == "ok"


def test_another_shape_is_incomparable(make: Make) -> None:
    """A model with an open length is compared at the same length; an unknown or another input compares."""
    baseline = Baseline(make(STEADY, filled_shapes={"tokens": (128, 64)}))
    got = compare_with_baseline(baseline, make([1.0] * 6, filled_shapes={"tokens": (16, 64)}), 0.05)
    assert got.outcome == "incomparable"
    assert got.reasons == (
        "another shape: tokens was 128x64 in the baseline, is 16x64 now; record a new baseline here",
    )
    for shapes in ({"tokens": (128, 64)}, {"ids": (16, 64)}, {}):
        assert compare_with_baseline(baseline, make([1.0] * 6, filled_shapes=shapes), 0.05).outcome == "ok"


def test_a_model_is_guarded_at_a_given_shape(
    fake_target: Target, make_onnx: Callable[..., Path], target: Target
) -> None:
    """Without one, a model with an open length has no baseline."""
    model = make_onnx({"tokens": ("FLOAT", ("length", 64))})
    brief = MeasureSettings(max_runs=10, min_seconds=0, max_seconds=0.02, warmup_seconds=0.02)
    with pytest.raises(ModelError, match="input 'tokens' has an open dimension 'length'"):
        record_baseline(model, target, brief)
    inputs = ModelInputs({"tokens": (4, 64)})
    baseline = record_baseline(model, target, brief, inputs)
    assert baseline.measurements[0].filled_shapes == {"tokens": (4, 64)}
    check = check_latency(model, baseline, target, "+1000%", brief, inputs)
    assert all(one.filled_shapes == {"tokens": (4, 64)} for one in check.measurements)


def test_synthetic_and_real_are_incomparable(baseline: Baseline, make: Make) -> None:
    """A made-up baseline says nothing about a real device, nor the other way round."""
    real = make([1.0] * 12, synthetic=False)
    assert compare_with_baseline(baseline, real, 0.05).reasons[0].startswith("the baseline is synthetic, this is real")
    assert (
        compare_with_baseline(Baseline(real), make(STEADY), 0.05)
        .reasons[0]
        .startswith("the baseline is real, this is synthetic")
    )


def test_rejected_conditions_are_not_measurable(
    baseline: Baseline, fake_target: Target, make: Make, take: Callable[..., list[int]]
) -> None:
    """Where all measurements are rejected, the reason is said once and nothing more is measured."""
    rejected = make([1.0] * 6, validity=Validity("rejected", ("the device throttled: cool it",)))
    asked = take(rejected)
    got = check_latency(MODEL, baseline, fake_target)
    assert (got.outcome, got.reasons, got.measurements) == (
        "not measurable",
        ("the device throttled: cool it",),
        rejected,
    )
    assert asked == [6]


def test_rejected_measurements_do_not_count(
    baseline: Baseline, fake_target: Target, make: Make, take: Callable[..., list[int]]
) -> None:
    """A first process in which the device heated up is replaced by the later ones."""
    hot = make([2.0], validity=Validity("rejected", ("the device heated up",)))
    asked = take(hot + make([1.0] * 5), make([1.0] * 6))
    got = check_latency(MODEL, baseline, fake_target)
    assert (got.outcome, got.ratio) == ("ok", 1.0)
    assert asked == [6, 6]


def test_a_lost_device_is_not_measurable(
    baseline: Baseline, fake_target: Target, make: Make, take: Callable[..., list[int]]
) -> None:
    """A device that vanishes says nothing about the model; what was measured before is kept."""
    first = make([1.0, 1.0, 1.01, 1.01, 1.02, 1.3])
    take(first, DeviceError("board: the connection was lost"))
    got = check_latency(MODEL, baseline, fake_target)
    assert (got.outcome, got.reasons) == ("not measurable", ("board: the connection was lost",))
    assert got.measurements == first


def test_a_device_that_cannot_be_reached_is_not_measurable(baseline: Baseline, tmp_path: Path) -> None:
    """The real device of this machine without the interpreter that its profile names is no reason to blame a model."""
    profile = {
        "name": "board",
        "connection": {"kind": "local"},
        "runtimes": {"onnxruntime": {}},
        "default": {"runtime": "onnxruntime"},
        "python": "/nonexistent/python",
    }
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    got = check_latency(model, baseline, Target(profile_from_dict(profile, "test")))
    assert got.outcome == "not measurable"
    assert "/nonexistent/python" in got.reasons[0]


def test_a_check_says_what_it_found_on_one_line(baseline: Baseline, make: Make) -> None:
    """As text: the outcome, that it is made up, and the change or the reasons."""
    assert (
        str(compare_with_baseline(baseline, make([1.02] * 6), 0.05))
        == "ok (synthetic): +2.0%, at 95% from +2.0% to +2.0%"
    )
    assert str(compare_with_baseline(baseline, make([2.0] * 6), 0.05)).startswith(
        "regressed (synthetic): the median is 2.00 ms, it"
    )


def test_the_interval_of_a_ratio_adds_squares_of_logarithms() -> None:
    """3% and 4% off on either side are 5% off together: a triangle of 3, 4 and 5 on the logarithms."""
    low, high = ratio_interval((2.0, 2 * math.exp(-0.03), 2 * math.exp(0.04)), (1.0, math.exp(-0.03), math.exp(0.04)))
    assert low == pytest.approx(2 * math.exp(-0.05))
    assert high == pytest.approx(2 * math.exp(0.05))


def test_a_baseline_known_exactly_only_scales() -> None:
    """With no uncertainty then, the interval of the ratio is that of now, divided."""
    assert ratio_interval((2.0, 1.0, 4.0), (0.5, 0.5, 0.5)) == pytest.approx((2.0, 8.0))


@st.composite
def medians(draw: st.DrawFn) -> Median:
    low, middle, high = sorted(draw(st.tuples(*[st.floats(1e-3, 1e3)] * 3)))
    return middle, low, high


@given(medians(), medians())
def test_the_interval_holds_the_ratio_and_turns_over(now: Median, then: Median) -> None:
    """The ratio lies within its interval, and that of then to now is its inverse."""
    low, high = ratio_interval(now, then)
    ratio = now[0] / then[0]
    assert low <= ratio * (1 + 1e-12)
    assert ratio <= high * (1 + 1e-12)
    assert ratio_interval(then, now) == pytest.approx((1 / high, 1 / low))


def test_noise_alone_is_hardly_ever_a_regression(make: Make) -> None:
    """With medians that vary by 3% from process to process, fewer than 1 in 100 unchanged models is not ok at +5%."""
    noise = np.exp(0.03 * np.random.default_rng(0).standard_normal((300, 24)))
    outcomes = [
        compare_with_baseline(Baseline(make(row[:12].tolist())), make(row[12:].tolist()), 0.05).outcome for row in noise
    ]
    assert outcomes.count("ok") >= 298
    assert "regressed" not in outcomes


def test_a_tenth_slower_is_found_in_the_same_noise(make: Make) -> None:
    """With medians that vary by 1% from process to process, a model 10% slower never passes at +5%."""
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal((300, 24)))
    outcomes = [
        compare_with_baseline(Baseline(make(row[:12].tolist())), make((1.1 * row[12:]).tolist()), 0.05).outcome
        for row in noise
    ]
    assert outcomes.count("regressed") >= 298
    assert "ok" not in outcomes


@pytest.mark.usefixtures("no_conditions")
def test_an_unchanged_model_is_ok_on_this_machine(make_net: Callable[[str, int], Path], target: Target) -> None:
    """The same file measured twice on the real device; half as slow again is far beyond any noise here."""
    model = make_net("net.onnx", 6)
    got = check_latency(model, record_baseline(model, target, QUICK), target, "+50%", QUICK)
    assert got.outcome == "ok"
    assert not got.synthetic
    assert got.measurements[0].model_sha256


@pytest.mark.usefixtures("no_conditions")
def test_a_model_six_times_as_large_regresses_on_this_machine(
    make_net: Callable[[str, int], Path], target: Target
) -> None:
    """A changed file is the normal case: 18 convolutions in place of 3 are far more than 50% slower."""
    baseline = record_baseline(make_net("before.onnx", 3), target, QUICK)
    got = check_latency(make_net("after.onnx", 18), baseline, target, "+50%", QUICK)
    assert got.outcome == "regressed"
    assert got.ratio is not None
    assert got.ratio > 2


def test_a_model_that_is_refused_raises(baseline: Baseline, tmp_path: Path, make: Make, target: Target) -> None:
    """A file that the runtime cannot load is none of the outcomes."""
    path = tmp_path / "garbage.onnx"
    path.write_bytes(b"this is no model")
    with pytest.raises(ModelError, match=r"garbage\.onnx: is refused by onnxruntime"):
        check_latency(path, Baseline(make(STEADY, target=target.to_dict())), target)


def test_a_baseline_may_be_a_file(
    baseline: Baseline, fake_target: Target, make: Make, take: Callable[..., list[int]], tmp_path: Path
) -> None:
    """The saved baseline, as a path or as text, gives the same check."""
    path = tmp_path / "baseline.json"
    baseline.save(path)
    for saved in (path, str(path)):
        take(make([1.0] * 6))
        assert check_latency(str(MODEL), saved, fake_target).outcome == "ok"
    take()
    with pytest.raises(UsageError, match=r"absent\.json: cannot be read"):
        check_latency(MODEL, tmp_path / "absent.json", fake_target)


def test_its_repr_is_one_line(baseline: Baseline, make: Make) -> None:
    """A check shows its outcome and the change."""
    check = compare_with_baseline(baseline, make([1.02] * 6), 0.05)
    assert repr(check) == "LatencyCheck(ok (synthetic): +2.0%, at 95% from +2.0% to +2.0%)"
