"""Reports of checks for other programs: JSON, JUnit XML, Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from edgenas.errors import printable
from edgenas.regression.blame import OperatorComparison
from edgenas.regression.checks import CheckReport, exit_code_of
from edgenas.regression.operator_text import format_blame, make_operator_table
from edgenas.regression.picture import draw_distributions
from edgenas.regression.text import COLUMNS, MAX_OPERATORS, format_headline, format_notes, format_rows

_SUITE, _XML = "edgenas regress check", '<?xml version="1.0" encoding="utf-8"?>\n'
JUNIT_START = f'{_XML}<testsuite name="{_SUITE}"'  # of each file of this kind, by which it is known again
MARKDOWN_START = "### Latency gate"
_SIGNS = {"ok": "✅", "regressed": "❌", "failed": "💥"}
_UNDECIDED = "⚠️"


def build_json(reports: Sequence[CheckReport]) -> dict[str, Any]:
    """Return the JSON document of checks."""
    return {"exit_code": int(exit_code_of(reports)), "checks": [report.to_dict() for report in reports]}


def build_junit(reports: Sequence[CheckReport]) -> bytes:
    """Return checks as JUnit XML: a regression is a failure; what cannot be told, or failed, an error."""
    failures = sum(report.outcome == "regressed" for report in reports)
    errors = sum(report.outcome not in ("ok", "regressed") for report in reports)
    counts = {"tests": str(len(reports)), "failures": str(failures), "errors": str(errors)}
    suite = ElementTree.Element("testsuite", {"name": _SUITE, **counts})
    for report in reports:
        seconds = report.check.seconds if report.check else 0.0
        attributes = {"classname": "edgenas.regress", "name": printable(report.request.label), "time": f"{seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        text = "\n".join(map(printable, _build_text(report)))
        if report.outcome == "ok":
            ElementTree.SubElement(case, "system-out").text = text
            continue
        tag = "failure" if report.outcome == "regressed" else "error"
        message = printable(next(iter(report.check.reasons), "") if report.check else str(report.error))
        ElementTree.SubElement(case, tag, {"type": report.outcome, "message": message}).text = text
    return f"{_XML}{ElementTree.tostring(suite, encoding='unicode')}\n".encode()


def build_markdown(reports: Sequence[CheckReport]) -> str:
    """Return checks as Markdown: a table, and for each check its reasons and a picture of the two distributions.

    The picture is text, because GitHub shows neither SVG nor data: links in comments and job summaries.
    """
    lines = [MARKDOWN_START, "", f"| | check | {' | '.join(COLUMNS)} |", f"|---|---|{'---|' * len(COLUMNS)}"]
    for report in reports:
        for *cells, outcome in format_rows(report) or [("",) * (len(COLUMNS) - 1) + (report.outcome,)]:
            sign = _SIGNS.get(outcome, _UNDECIDED)
            lines.append(f"| {sign} | {' | '.join(map(_escape, (report.request.label, *cells, outcome)))} |")
    for report in reports:
        lines += ["", f"**{_escape(format_headline(report))}**", ""]
        lines += [f"- {_escape(line)}" for line in format_notes(report)]
        if report.check and report.check.operators:
            lines += _build_operator_table(report.check.operators)
        picture = draw_distributions(*report.check.costs_ms()) if report.check else []
        if picture:
            lines += ["", "```text", *picture, "```"]
    return "\n".join(lines) + "\n"


def _build_text(report: CheckReport) -> list[str]:
    rows = ["  ".join(filter(None, cells)) for cells in format_rows(report)]
    operators = report.check.operators if report.check else None
    blame = [f"operators: {format_blame(operators)}"] if operators else []
    return [format_headline(report), *rows, *format_notes(report), *blame]


def _build_operator_table(comparison: OperatorComparison) -> list[str]:
    """Return the lines of a table of operators in Markdown."""
    title, columns, rows, below = make_operator_table(comparison, MAX_OPERATORS)
    cells = [f"| {' | '.join(map(_escape, row))} |" for row in (columns, *rows)]
    ruler = f"|{'---|' * len(columns)}"
    return ["", _escape(title), "", cells[0], ruler, *cells[1:], "", *[f"- {_escape(line)}" for line in below]]


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is, also in a table: names of files may hold anything."""
    return "".join(map(_escape_sign, printable(text)))


def _escape_sign(sign: str) -> str:
    if sign in "$#@":  # GitHub finds formulas, issues and people in the text of an element, without its backslashes
        return f"<span>{sign}</span>"
    return f"\\{sign}" if sign in r"\`*_{}[]<>|~&" else sign
