"""What LiteRT's own benchmark_model prints, read strictly.

Its lines are in LiteRT's tflite/tools/benchmark/benchmark_model.cc, and in TensorFlow Lite's before. Versions differ:
the older ones print no median, and say the peak of memory instead of its growth.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edgenas.errors import DeviceError

_NUMBER = r"([0-9.]{1,20}(?:e[+-]?\d{1,3})?)"
# Before the text stands nothing, a severity, or what logcat puts there.
_RUNS = re.compile(
    rf"count=(\d{{1,9}}) first={_NUMBER} curr={_NUMBER} min={_NUMBER} max={_NUMBER} avg={_NUMBER} std={_NUMBER}"
    rf"(?: p5={_NUMBER} median={_NUMBER} p95={_NUMBER})?\s*$"
)
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER},"
    rf" Inference \(avg\): {_NUMBER}\s*$"
)
_MEMORY = re.compile(rf"Memory footprint delta from the start of the tool \(MB\): init={_NUMBER} overall={_NUMBER}\s*$")
_DELEGATED = re.compile(r"Replacing (\d{1,9}) out of (\d{1,9}) node\(s\) with delegate \(([A-Za-z0-9_]{1,60})\) node")
_EXPLICIT = re.compile(r"Explicitly applied ([A-Za-z0-9]{1,40}) delegate, and the model graph will be (\w+) executed")
_MIN_US, _MAX_US = 1e-3, 1e11
_MAX_MB = 1e7
_XNNPACK = "XNNPack"  # in the name of the delegate of the CPU


@dataclass(frozen=True)
class BenchmarkOutput:
    """What one process of benchmark_model measured.

    Attributes:
        times_ms: Times of single runs: the shortest, the 5th percentile, the median, the 95th percentile, the longest.
            Their median is the median of all runs.
        load_ms: The time until the model was ready.
        peak_bytes: The memory that the process needed more than at its start; None where it does not say.
        delegated: Whether an accelerator runs all nodes, some or none of them; None where it does not say.
    """

    times_ms: tuple[float, float, float, float, float]
    load_ms: float
    peak_bytes: int | None
    delegated: str | None


def parse_benchmark_output(printed: str) -> BenchmarkOutput:
    """Return what one process of benchmark_model measured.

    Raises:
        DeviceError: The text is not that of a whole run, has impossible numbers, or comes from a version that prints
            no median.
    """
    lines = printed.splitlines()
    runs = [match for line in lines if (match := _RUNS.search(line))]
    timings = [match for line in lines if (match := _TIMINGS.search(line))]
    if not runs or len(timings) != 1:
        raise DeviceError("benchmark_model printed no result; try it on the device by hand")
    last = runs[-1]  # the warm-up comes before
    if last[9] is None:
        raise DeviceError("this benchmark_model prints no median; give a newer one with --benchmark-model FILE")
    low, high, average = (_microseconds(last[number]) for number in (4, 5, 6))
    p5, median, p95 = (_microseconds(last[number]) for number in (8, 9, 10))
    rounding = 1e-4  # of the average, which is printed with six digits
    if not low <= p5 <= median <= p95 <= high or not low * (1 - rounding) <= average <= high * (1 + rounding):
        raise DeviceError(f"benchmark_model printed times out of order ({last[0]!r}); try again")
    memory = [match for line in lines if (match := _MEMORY.search(line))]
    return BenchmarkOutput(
        times_ms=(low / 1000, p5 / 1000, median / 1000, p95 / 1000, high / 1000),
        load_ms=_microseconds(timings[0][1]) / 1000,
        peak_bytes=round(_number(memory[-1][2], 0.0, _MAX_MB, "a size") * (1 << 20)) if memory else None,
        delegated=_delegated(printed),
    )


def _microseconds(text: str) -> float:
    return _number(text, _MIN_US, _MAX_US, "a time")


def _number(text: str, least: float, most: float, what: str) -> float:
    """Return a number that is between two others. Raise DeviceError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise DeviceError(f"benchmark_model printed {text!r} where {what} was due; try again")
    return value


def _delegated(printed: str) -> str | None:
    """Return ``all``, ``some`` or ``none`` for what an accelerator runs; None where nothing is said of one."""
    counts = [(int(part), int(whole)) for part, whole, name in _DELEGATED.findall(printed) if _XNNPACK not in name]
    if counts:
        part, whole = counts[0]
        return "none" if not part else "all" if part == whole else "some"
    words = [how for name, how in _EXPLICIT.findall(printed) if name.upper() != _XNNPACK.upper()]
    if words:
        return {"completely": "all", "partially": "some"}.get(words[0])
    return "none" if "will not be executed by the delegate" in printed else None
