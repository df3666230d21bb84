"""Whatever is printed or logged passes one filter: no control characters, lines of bounded length."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.cli.common import print_lines, print_table
from edgenas.errors import MAX_LINE_LENGTH, DeviceError, one_line, printable
from edgenas.pipeline.progress import Progress

PACKAGE = Path(__file__).parents[1] / "edgenas"
# Where lines are filtered; __main__ prints one of its own words before anything is loaded.
PRINTING = {"cli/common.py", "pipeline/progress.py", "__main__.py"}
ELSEWHERE = {"on_device", "bundle"}  # on_device prints on devices; bundle holds the text of a script
HOSTILE = "\x1b]0;title\x07\x1b[2J[/red][red]:warning:\r\n\u202egpj.onnx\x9b31m\udce9\u200b\0"


def printing_calls(path: Path) -> list[int]:
    """The lines of a module that print, or write to a standard stream."""
    names = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write", "warnings.warn"}
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call.func) in names]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_the_filters_print(path: Path) -> None:
    """A module that wants to print a line calls print_lines, print_table or Progress.say."""
    where = path.relative_to(PACKAGE)
    if where.as_posix() not in PRINTING and where.parts[0] not in ELSEWHERE:
        assert printing_calls(path) == []


@given(st.text())
def test_printable_text_is_one_line_of_the_same_length(text: str) -> None:
    """Each sign that is not printable becomes a blank, all others stay."""
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert all(new in (old, " ") for old, new in zip(text, shown, strict=True))
    assert printable(shown) == shown


def test_a_long_text_keeps_its_ends() -> None:
    """Of a long text the middle is left out: the remedy stands at the end of a message."""
    shown = printable("begin" + "\x1b" * 10**6 + "end")
    assert (shown[:5], shown[-3:], len(shown) <= MAX_LINE_LENGTH) == ("begin", "end", True)
    assert len(one_line("x" * 10**6)) <= 400


def test_a_quote_has_no_blank_twice() -> None:
    """What an exception says becomes one short line."""
    assert one_line(ValueError("no such\n\t operator\x1b[0m")) == "no such operator [0m"


def test_messages_of_errors_are_printable() -> None:
    """An error that quotes a device can be logged as it is."""
    error = DeviceError(f"board: is taken by {HOSTILE}; wait")
    assert str(error).isprintable()
    assert f"{error}".startswith("board: is taken by  ]0;title  [2J")


def test_lines_are_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    """Each argument is one line, on the stream that is asked for."""
    print_lines("first", f"second {HOSTILE}")
    print_lines("third\n", file=sys.stderr)
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), out.replace("\n", "").isprintable()) == (2, True)
    assert err == "third \n"


def test_tables_are_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    """Cells and the title hold no control characters, and are not read as markup or names of pictures."""
    print_table(("model", "median"), [(HOSTILE, "1 ms")], HOSTILE)
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    assert out.count("[/red][red]:warning:") == 2


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_is_filtered(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """What a step says while it runs is filtered, beside a bar and without one."""
    clock = iter(range(0, 10**6, 20))
    monkeypatch.setattr("edgenas.pipeline.progress.time.monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    progress = Progress(stream)
    progress.say(HOSTILE)
    with progress.step("measure", 10) as bar:
        bar(1)
        bar(2, HOSTILE)
    assert "\x1b]0;" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()
    assert "[/red][red]" in stream.getvalue()


def test_a_command_prints_no_control_characters_of_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose name would clear the terminal is named without that."""
    from edgenas.cli import main

    model = tmp_path / "a\x1b[2J\nb.onnx"
    model.write_bytes(b"no model")
    monkeypatch.setattr(sys, "argv", ["edgenas", "measure", str(model)])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines()), err.rstrip("\n").isprintable()) == ("", 1, True)
    assert "a [2J b.onnx" in err
