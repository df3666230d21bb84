"""Commands that a shell runs as they are printed, from the folder and the environment that the user is in."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def format_command(*words: object) -> str:
    """Return a command of edgenas, its words quoted for a shell.

    It begins with ``edgenas`` where the shell finds that of this environment, else with this interpreter.
    """
    found, ours = shutil.which("edgenas"), Path(sys.executable).with_name("edgenas")
    is_found = found is not None and ours.exists() and Path(found).samefile(ours)
    return " ".join(["edgenas" if is_found else f"{format_python()} -m edgenas", *map(quote, words)])


def format_python() -> str:
    """Return this interpreter, quoted for a shell: ``python`` where the shell finds it under that name."""
    ours, found = Path(sys.executable), shutil.which("python")
    if found is not None and Path(found).parent == ours.parent and Path(found).samefile(ours):
        return "python"
    return quote(ours.relative_to(Path.cwd()) if ours.is_relative_to(Path.cwd()) else ours)


def quote(word: object) -> str:
    """Return a word quoted for a shell."""
    return shlex.quote(str(word))
