"""What long work says of itself."""

from __future__ import annotations

import io

import pytest

from edgenas.pipeline.progress import Progress


def at_times(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> io.StringIO:
    """Let progress see these times, one after the other, and return what it is to write to."""
    clock = iter(seconds)
    monkeypatch.setattr("edgenas.pipeline.progress.time.monotonic", lambda: next(clock))
    return io.StringIO()


def test_the_time_left_counts_only_what_is_done_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 an earlier call had done 50; 10 more in 20 s leave 80 s for the last 40."""
    stream = at_times(monkeypatch, 0.0, 0.0, 20.0, 25.0)
    with Progress(stream).step("profile", 100) as bar:
        bar(50)
        bar(60, "60 subnets")
    assert stream.getvalue() == "profile  60%  60 subnets  80 s left\nprofile done in 25.0 s\n"


def test_the_time_left_does_not_count_waiting_for_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 100 s of waiting for a device, 4 of 30 in 4 s, from 1 to 5, leave 25 s."""
    stream = at_times(monkeypatch, 0.0, 100.0, 104.0, 130.0)
    with Progress(stream).step("check", 30) as bar:
        bar(1)
        bar(5, "kws")
    assert stream.getvalue() == "check  17%  kws  25 s left\ncheck done in 130.0 s\n"
