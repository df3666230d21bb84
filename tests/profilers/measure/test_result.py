"""Several processes of one file: what they say together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from edgenas.errors import MeasurementError, UsageError
from edgenas.profilers import Measurement, MeasurementResult, compare_results
from edgenas.profilers.measure.validity import Validity


def processes(medians: Sequence[float], **fields: Any) -> tuple[Measurement, ...]:
    """One measurement for each median in ms, in rounds from 0 on."""
    values: dict[str, Any] = {
        "model_sha256": "0" * 64,
        "target": {"device": "board"},
        "peak_bytes": 1000,
        "load_ms": 1.0,
        "device_s": 0.25,
        "facts": {},
        "versions": {},
        "conditions_before": {},
        "conditions_after": {},
        "validity": Validity("valid"),
        "synthetic": False,
        "settings": {},
        **fields,
    }
    return tuple(
        Measurement(**{"samples_ms": (median,) * 5, "round": place, **values}) for place, median in enumerate(medians)
    )


REJECTED = Validity("rejected", ("other programs interrupted 60% of its runs: stop them, then measure again",))


def test_the_median_is_that_of_the_processes() -> None:
    """Six processes of 1 to 6 ms: median 3.5, interval from the least to the greatest, 30 runs, 1.5 s."""
    result = MeasurementResult(processes([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]))
    assert (result.median_ms, result.interval_ms) == (3.5, (1.0, 6.0))
    assert (result.run_count, result.device_s, result.peak_bytes) == (30, 1.5, 1000)
    assert result.p90_ms == 6.0


def test_a_percentile_has_the_interval_of_the_processes() -> None:
    """Six processes of 1 to 6 ms: percentile 90 of all runs is 6 ms, those of the processes lie from 1 to 6 ms."""
    result = MeasurementResult(processes([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]))
    assert result.percentile_with_interval_ms(90) == (6.0, 1.0, 6.0)


def test_the_range_is_that_of_the_blocks() -> None:
    """Of 60 runs two take 0.5 ms and two 2 ms, the others 1 ms: places 1.475 and 57.525 are 0.7375 and 1.525 ms."""
    runs = (1.0,) * 10
    usual = processes([1.0] * 4, samples_ms=runs)
    result = MeasurementResult(
        usual + processes([1.0], samples_ms=(0.5,) * 2 + runs[2:]) + processes([1.0], samples_ms=(2.0,) * 2 + runs[2:])
    )
    assert result.median_ms == 1.0
    assert result.range_ms == pytest.approx((0.7375, 1.525))
    assert result.to_dict()["range_95_ms"] == list(result.range_ms)


def test_two_speeds_are_told() -> None:
    """Processes settle at 1.0 ms or 1.2 ms: the document has the median and the number of each."""
    result = MeasurementResult(processes([1.0, 1.2, 1.01, 1.0, 1.21, 1.2]))
    assert result.modes == [(1.0, 3), (1.2, 3)]
    assert result.to_dict()["modes"] == [{"median_ms": 1.0, "processes": 3}, {"median_ms": 1.2, "processes": 3}]
    assert MeasurementResult(processes([1.0] * 6)).to_dict()["modes"] == []


def test_rejected_processes_do_not_count_where_others_suffice() -> None:
    """Two disturbed processes of eight do not count, but their time does."""
    result = MeasurementResult.from_measurements(processes([1.0] * 6) + processes([9.0] * 2, validity=REJECTED), 6)
    assert result.median_ms == 1.0
    assert len(result.rejected) == 2
    assert result.device_s == 2.0
    assert result.validity == Validity("valid", (f"2 of 8 processes rejected: {REJECTED.reasons[0]}",))


def test_where_most_are_rejected_so_is_the_result() -> None:
    """Six calm processes of thirteen are a chance find; of twelve they are not."""
    calm = processes([1.0] * 6)
    assert not MeasurementResult.from_measurements(calm + processes([9.0] * 6, validity=REJECTED), 6).rejection_reasons
    found = MeasurementResult.from_measurements(calm + processes([9.0] * 7, validity=REJECTED), 6)
    assert found.validity.status == "rejected"
    assert found.rejection_reasons == (f"7 of 13 processes rejected: {REJECTED.reasons[0]}",)


@pytest.mark.parametrize(
    ("field", "values"),
    [("versions", ({"onnxruntime": "1.20"}, {"onnxruntime": "1.31"})), ("facts", ({"cpu": "a"}, {"cpu": "b"}))],
)
def test_one_runtime_and_device(field: str, values: tuple[dict[str, str], dict[str, str]]) -> None:
    """Processes of two versions of the runtime, or of two devices, are no measurement of one thing."""
    target = {"device": "board", "runtime": "onnxruntime"}
    mixed = [one for value in values for one in processes([1.0], target=target, **{field: value})]
    with pytest.raises(MeasurementError, match="measure all again"):
        MeasurementResult(tuple(mixed))


def test_where_too_few_are_left_all_count_and_it_is_rejected() -> None:
    """With five good processes where six are wanted, the validity is that of the rejected one."""
    result = MeasurementResult.from_measurements(processes([1.0] * 5) + processes([9.0], validity=REJECTED), 6)
    assert len(result.measurements) == 6
    assert result.validity == REJECTED


def test_reasons_that_differ_in_numbers_are_said_once() -> None:
    """60% and 70% of interrupted runs are one reason, the first."""
    more = Validity("rejected", (REJECTED.reasons[0].replace("60%", "70%"),))
    assert MeasurementResult(processes([1.0], validity=REJECTED) + processes([1.0], validity=more)).validity == REJECTED


def test_one_unknown_peak_makes_the_peak_unknown() -> None:
    """The most of several is not known where one is not."""
    assert MeasurementResult(processes([1.0]) + processes([1.0], peak_bytes=None)).peak_bytes is None
    assert MeasurementResult(processes([1.0]) + processes([1.0], peak_bytes=2000)).peak_bytes == 2000


def test_no_process_is_no_measurement() -> None:
    """Nothing is not a result."""
    with pytest.raises(UsageError, match="at least one measurement"):
        MeasurementResult(())


def test_one_process_has_the_interval_of_its_runs() -> None:
    """With nothing to compare it with, the runs of the process are all there is."""
    (one,) = processes([1.0], samples_ms=tuple(float(run) for run in range(1, 21)))
    assert MeasurementResult((one,)).interval_ms == one.interval_ms


def test_the_document_is_json_and_has_every_sample() -> None:
    """What is printed can be read again, with all measurements in it."""
    document = json.loads(json.dumps(MeasurementResult(processes([1.0] * 6)).to_dict()))
    assert document["interval_95_ms"] == [1.0, 1.0]
    assert [Measurement.from_dict(each) for each in document["measurements"]] == list(processes([1.0] * 6))


def test_it_prints_on_one_line() -> None:
    """The text has the median, its interval, and the validity; made-up numbers say so."""
    text = str(MeasurementResult(processes([1.0] * 6, synthetic=True)))
    assert text == "1.00 ms (95% interval 1.00 ms to 1.00 ms, synthetic, valid)"


def test_models_are_compared_round_by_round() -> None:
    """A device that slows down by half meanwhile does not hide that one model is 10% slower in each round."""
    level = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    found = compare_results(
        MeasurementResult(processes([1.1 * each for each in level])), MeasurementResult(processes(level))
    )
    assert found == pytest.approx((1.1, 1.1, 1.1))


def test_few_common_rounds_are_compared_by_their_medians() -> None:
    """One process missing from each leaves five rounds in common: the intervals of the two medians decide."""
    first, second = processes([1.1] * 7), processes([1.0] * 7)
    assert compare_results(MeasurementResult(first[1:]), MeasurementResult(second[:6])) == pytest.approx(
        (1.1, 1.1, 1.1)
    )


def test_rounds_of_two_targets_are_not_paired() -> None:
    """Equal numbers of rounds of two targets mean nothing: what cancels within one is noise between two."""
    level = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    first = MeasurementResult(processes([1.1 * each for each in level]))
    found = compare_results(first, MeasurementResult(processes(level, target={"device": "board", "runtime": "litert"})))
    assert found is not None
    assert found[0] == pytest.approx(1.1)
    assert found[1] < 1 < found[2]


def test_its_repr_is_one_line() -> None:
    """Median, interval from six processes on, number of processes and validity; made-up numbers say so."""
    one, six = MeasurementResult(processes([0.5])), MeasurementResult(processes([0.321] * 6, synthetic=True))
    assert repr(one) == "MeasurementResult(0.500 ms, 1 process, valid)"
    assert repr(six) == "MeasurementResult(0.321 ms, 95% interval 0.321 to 0.321 ms, 6 processes, synthetic, valid)"
    assert repr(processes([0.5])[0]) == "Measurement(0.500 ms, 95% interval 0.500 to 0.500 ms, 5 runs, valid)"


def test_fewer_than_six_processes_have_no_interval_to_show() -> None:
    """Of five the text and the document have no interval and no range, and they are not compared."""
    five = MeasurementResult(processes([1.0] * 5))
    assert str(five) == "1.00 ms (valid)"
    assert (five.to_dict()["interval_95_ms"], five.to_dict()["range_95_ms"]) == (None, None)
    assert compare_results(five, MeasurementResult(processes([1.0] * 6))) is None
