"""The files that a call writes of its checks: reports and history."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgenas.errors import EdgeNASError, UsageError
from edgenas.files import check_regular_file, write_bytes
from edgenas.regression.checks import CheckReport, CheckRequest, add_unfinished
from edgenas.regression.history import append_history, check_history
from edgenas.regression.reports import JUNIT_START, MARKDOWN_START, build_junit, build_markdown


@dataclass(frozen=True)
class ReportFiles:
    """Where reports and history go; None for what nobody asked for.

    Reports are written before the first check and after each, and always name all checks: those that did not end as
    failed. So whatever ends the command, there is a report that does not read as if all were well.

    Attributes:
        junit: the file of JUnit XML.
        markdown: the file of Markdown.
        history: the folder of the history.
    """

    junit: Path | None = None
    markdown: Path | None = None
    history: Path | None = None

    def prepare(self, requests: Sequence[CheckRequest]) -> None:
        """Write the reports of checks of which none has ended, and make the history's folder.

        Raises:
            UsageError: a file cannot be written, or it is there and no earlier report, such as the model.
        """
        if self.junit is not None and self.markdown is not None and self.junit.resolve() == self.markdown.resolve():
            raise UsageError(f"{self.junit}: cannot be both JUnit XML and Markdown; give two files")
        for path, start in ((self.junit, JUNIT_START), (self.markdown, MARKDOWN_START)):
            if path is not None:
                _check_replaceable(path, start.encode())
        if self.history is not None:
            check_history(self.history, requests)
        for error in self._write_reports(add_unfinished((), requests)):
            raise UsageError(str(error))

    def write(self, reports: Sequence[CheckReport], requests: Sequence[CheckRequest]) -> list[EdgeNASError]:
        """Write what came of the first checks, and append the last of these to the history.

        Returns:
            The errors of what could not be written.
        """
        errors = self._write_reports(add_unfinished(reports, requests))
        if self.history is not None:
            with _collected(errors):
                append_history(self.history, reports[-1:])
        return errors

    def _write_reports(self, reports: Sequence[CheckReport]) -> list[EdgeNASError]:
        errors: list[EdgeNASError] = []
        if self.junit is not None:
            with _collected(errors):
                write_bytes(self.junit, build_junit(reports))
        if self.markdown is not None:
            with _collected(errors):
                write_bytes(self.markdown, build_markdown(reports).encode())
        return errors


@contextlib.contextmanager
def _collected(errors: list[EdgeNASError]) -> Iterator[None]:
    """Append the error that is raised within."""
    try:
        yield
    except EdgeNASError as error:
        errors.append(error)


def _check_replaceable(path: Path, start: bytes) -> None:
    """Raise UsageError for a path where something else is than a file that begins like this, or an empty one."""
    if not os.path.lexists(path):
        return
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            found = file.read(len(start))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    if not start.startswith(found):
        raise UsageError(f"{path}: is there already and is no report of checks; choose another name, or move it away")
