"""The command line: each command parses, calls one public function, prints, and sets the exit code.

Exit codes are those of ``edgenas.errors.ExitCode``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from edgenas.cli import (
    choose,
    demo,
    device,
    evaluate,
    export,
    finetune,
    import_,
    measure,
    profile,
    regress,
    search,
    show,
    status,
    train,
    verify,
)
from edgenas.cli.common import print_lines
from edgenas.errors import EdgeNASError, ExitCode, UsageError

# typer brings its own copy of click, or uses the installed one: this finds the class of either.
_ClickException: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    name="edgenas",
    help="Find, measure and ship the best network for an edge device.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
_COMMANDS = (
    demo, train, status, import_, evaluate, profile, search, show, choose, finetune, export, verify, measure,
)  # fmt: skip
for module in _COMMANDS:
    app.command(module.__name__.rpartition(".")[2].rstrip("_"), epilog=module.EXAMPLE)(module.command)
app.add_typer(device.app, name="device")
app.add_typer(regress.app, name="regress")


def _print_version_and_exit(wanted: bool) -> None:
    if wanted:
        from edgenas.version import __version__

        print_lines(f"edgenas {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_print_version_and_exit, is_eager=True, help="Print the version."
    ),
) -> None:
    """Find, measure and ship the best network for an edge device."""


def main() -> None:
    """Run the command line and exit; raise KeyboardInterrupt on Ctrl-C."""
    try:
        _check_arguments(sys.argv[1:])
        code = app(standalone_mode=False)
    except EdgeNASError as error:
        _print_error_and_exit(str(error), error.exit_code)
    except _ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
            print_lines(*error.format_message().splitlines(), file=sys.stderr)
            sys.exit(ExitCode.WRONG_USE)
        _print_error_and_exit(" ".join(error.format_message().split()), ExitCode.WRONG_USE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(ExitCode.FAILED)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        _print_error_and_exit(
            "this command needs PyTorch, which is not installed; run: pip install 'edgenas[train]'", ExitCode.FAILED
        )
    except OSError as error:
        _print_error_and_exit(f"{error.filename or 'input or output'}: {error.strerror or error}", ExitCode.FAILED)
    except typer.Abort:  # of a prompt without an answer, and of older typers on Ctrl-C
        raise KeyboardInterrupt from None
    if code == ExitCode.INTERRUPTED:  # what typer returns for Ctrl-C
        raise KeyboardInterrupt
    sys.exit(code)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise UsageError for an empty argument, which would be the current folder, and for digits of other scripts."""
    for before, argument in zip(("", *arguments), arguments):  # noqa: B905 - one longer
        name, equals, value = argument.partition("=") if argument.startswith("--") else (before, "=", argument)
        what = name if name.startswith("-") else "an argument"
        if equals and not value:
            raise UsageError(f"{what} must not be empty; '.' is the current folder")
        if not value.isascii() and _is_number(value):
            raise UsageError(f"{what} must be written with the digits 0 to 9, but got {value!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _print_error_and_exit(message: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")  # torchrun's number of this process
    print_lines(f"edgenas: {message}" if rank == "0" else f"edgenas: rank {rank}: {message}", file=sys.stderr)
    sys.exit(code)
