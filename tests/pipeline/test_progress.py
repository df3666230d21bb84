"""What long work says of itself."""

from __future__ import annotations

import io

import pytest

from edgenas.pipeline.progress import Progress


def test_the_time_left_counts_only_what_is_done_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 an earlier call had done 50; 10 more in 20 s leave 80 s for the last 40."""
    clock = iter([0.0, 0.0, 20.0, 25.0])
    monkeypatch.setattr("edgenas.pipeline.progress.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress(stream).step("profile", 100) as bar:
        bar(50)
        bar(60, "60 subnets")
    assert stream.getvalue() == "profile  60%  60 subnets  80 s left\nprofile done in 25.0 s\n"
