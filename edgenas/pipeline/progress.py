"""Progress of long work on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from edgenas.errors import printable

LINE_SECONDS = 10.0


class Bar(Protocol):
    """Show one step's progress; ``done`` counts from 0 to the step's total."""

    def __call__(self, done: float, note: str = "", /) -> None: ...


class Progress:
    """Progress on standard error: a bar with the time left on a terminal, else a line every ten seconds."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream

    def say(self, text: str) -> None:
        """Print one line."""
        print(printable(text), file=self._stream, flush=True)

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Bar]:
        """Show a step while it runs; call the bar with the amount done and a short note."""
        show = self._bar(name, total) if self._stream.isatty() else self._lines(name, total)
        with show as bar:
            yield bar

    @contextmanager
    def _lines(self, name: str, total: float) -> Iterator[Bar]:
        began = shown = time.monotonic()
        first: tuple[float, float] | None = None  # when it was first called, and what was done: waiting is no work

        def bar(done: float, note: str = "") -> None:
            nonlocal shown, first
            now = time.monotonic()
            first = first or (now, done)
            if now - shown >= LINE_SECONDS and done > first[1]:
                shown = now
                left = (now - first[0]) * (total - done) / (done - first[1])
                self.say(f"{name} {done / total:4.0%}  {note}  {left:.0f} s left")

        yield bar
        self.say(f"{name} done in {time.monotonic() - began:.1f} s")

    @contextmanager
    def _bar(self, name: str, total: float) -> Iterator[Bar]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=Console(file=self._stream)) as display:
            task = display.add_task(name, total=total, note="")

            def bar(done: float, note: str = "") -> None:
                display.update(task, completed=done, note=printable(note))

            yield bar


class Silent(Progress):
    """Progress that shows nothing."""

    def say(self, text: str) -> None:
        """Print nothing."""

    @contextmanager
    def step(self, name: str, total: float) -> Iterator[Bar]:
        """Return a bar that shows nothing."""

        def bar(done: float, note: str = "") -> None:
            pass

        yield bar
