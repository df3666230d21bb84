"""The output of LiteRT's benchmark_model, as published logs of several versions have it."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.errors import DeviceError
from edgenas.profilers.measure.benchmark_output import parse_benchmark_output

# Texas Instruments, Processor SDK Linux documentation (github.com/TexasInstruments/processor-sdk-doc), "TensorFlow
# Lite": an AM62x, XNNPACK off.
TI = """\
INFO: STARTING!
INFO: Graph: [/usr/share/oob-demo-assets/models/ssd_mobilenet_v2_coco.tflite]
INFO: Use xnnpack: [0]
INFO: Initialized session in 5.579ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, Inference (avg): 1.24027e+06
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832
"""  # noqa: E501 - as it is printed
# README of a container with TensorFlow Lite for Qualcomm's boards, on GitHub: a QRB2210 RB1, the GPU.
QUALCOMM_GPU = """\
INFO: Use gpu: [1]
INFO: Created TensorFlow Lite delegate for GPU.
INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
INFO: count=5 first=125113 curr=112537 min=111758 max=125113 avg=115344 std=4959 p5=111758 median=112912 p95=125113
INFO: count=50 first=119614 curr=115889 min=111842 max=119614 avg=115246 std=1329 p5=112107 median=115350 p95=116620
INFO: Inference timings in us: Init: 1361236, First inference: 125113, Warmup (avg): 115344, Inference (avg): 115246
INFO: Memory footprint delta from the start of the tool (MB): init=132.816 overall=132.816
"""
# github.com/lp6m/yolov5s_android: a Xiaomi Mi 11, TensorFlow 2.4.
VERSION_2_4 = """\
count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442
Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, Inference (avg): 249684
Peak memory footprint (MB): init=4.92969 overall=138.809
"""
# Synaptics' documentation of Astra, "NNAPI": 31 nodes on the NPU, no median yet.
SYNAPTICS = """\
    VERBOSE: Replacing 31 out of 31 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 1 partitions for the whole graph.
    INFO: count=1 curr=637079
    INFO: count=520 first=2531 curr=2793 min=1171 max=9925 avg=1885.74 std=870
    INFO: Inference timings in us: Init: 66002, First inference: 637079, Warmup (avg): 637079, Inference (avg): 1885.74
    INFO: Memory footprint delta from the start of the tool (MB): init=7.40234 overall=7.83203
"""  # noqa: E501 - as it is printed


def test_the_order_of_times_is_kept() -> None:
    """The median of the five times is that of all runs; microseconds become milliseconds, MB bytes."""
    found = parse_benchmark_output(TI)
    assert found.times_ms == (1238.588, 1238.753, 1239.807, 1247.415, 1252.566)
    assert statistics.median(found.times_ms) == 1239.807
    assert found.load_ms == 5.579
    assert found.peak_bytes == round(109.832 * 1024 * 1024)
    assert found.delegated is None


def test_a_gpu_that_runs_all_is_read() -> None:
    """Whether the accelerator runs all nodes, some or none decides whether its number is one of the accelerator."""
    assert parse_benchmark_output(QUALCOMM_GPU).delegated == "all"
    assert parse_benchmark_output(QUALCOMM_GPU.replace("completely", "partially")).delegated == "some"
    assert parse_benchmark_output(QUALCOMM_GPU.replace("Explicitly", "Maybe")).delegated is None
    replaced = QUALCOMM_GPU + "VERBOSE: Replacing 48 out of 90 node(s) with delegate (LITERT_CL) node, yielding 2\n"
    assert parse_benchmark_output(replaced).delegated == "some"
    for_cpu = TI + "VERBOSE: Replacing 32 out of 43 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 4\n"
    assert parse_benchmark_output(for_cpu).delegated is None


@pytest.mark.parametrize("text", [VERSION_2_4, SYNAPTICS])
def test_a_version_without_a_median_is_refused(text: str) -> None:
    """An average is not a median, so it is not taken for one."""
    with pytest.raises(DeviceError, match="prints no median; give a newer one"):
        parse_benchmark_output(text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Inference timings", "", "no result"),
        ("count=50", "", "no result"),
        ("median=1239807", "median=12398070", "out of order"),
        ("min=1238588", "min=0", "where a time was due"),
        ("p5=1238753", "p5=1.2.3", "where a time was due"),
        ("max=1252566", "max=1e999", "where a time was due"),
        ("avg=1.24027e+06", "avg=9.24027e+06", "out of order"),
        ("median=1239807", "median=nan", "no result"),
        ("overall=109.832", "overall=1.2.3", "where a size was due"),
        ("overall=109.832", "overall=1e999", "where a size was due"),
    ],
)
def test_what_is_not_printed_by_it_is_refused(old: str, new: str, message: str) -> None:
    """A cut or changed output is an error of one line, never a number."""
    assert old in TI
    with pytest.raises(DeviceError, match=message):
        parse_benchmark_output(TI.replace(old, new))


def test_an_average_is_rounded() -> None:
    """Six digits of it are printed, so that it may be less than the shortest of equal times."""
    old = "min=1238588 max=1252566 avg=1.24027e+06 std=2565 p5=1238753 median=1239807 p95=1247415"
    assert old in TI
    equal = "min=1238588 max=1238588 avg=1.23858e+06 std=0 p5=1238588 median=1238588 p95=1238588"
    assert parse_benchmark_output(TI.replace(old, equal)).times_ms == (1238.588,) * 5


@given(st.text(alphabet=st.sampled_from("count=first curr min max avg std p5 median 0123456789.e+\n"), max_size=400))
def test_any_text_is_a_result_or_an_error(text: str) -> None:
    """Whatever is printed, the times are above zero and in order, or it is refused."""
    try:
        found = parse_benchmark_output(TI + text)
    except DeviceError:
        return
    assert 0 < found.times_ms[0] <= found.times_ms[2] <= found.times_ms[4]
