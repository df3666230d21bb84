"""Commands that a shell runs as they are printed."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgenas.shell import format_command, format_python

BIN = Path(sys.executable).parent
IN_A_SHELL = ["env", "-i", "PATH=/usr/bin:/bin", "sh", "-c"]


def test_an_activated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an activated environment the programs have their short names."""
    monkeypatch.setenv("PATH", f"{BIN}:/usr/bin:/bin")
    assert format_command("search", "--run", "runs/a") == "edgenas search --run runs/a"
    assert format_python() == "python"


def test_an_environment_that_is_not_activated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the interpreter is named by its path, and the line runs in a shell that knows nothing of it."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)  # not the clone, which may hold the environment
    assert format_command("search") == f"{shlex.quote(sys.executable)} -m edgenas search"
    done = subprocess.run([*IN_A_SHELL, format_command("--version")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("edgenas ")


def test_an_edgenas_of_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of another environment that come first on the PATH are not taken for ours."""
    for name in ("edgenas", "python"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 7\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{BIN}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    assert format_command("search") == f"{shlex.quote(sys.executable)} -m edgenas search"


def test_an_edgenas_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to this environment's edgenas, as pipx makes one, is ours."""
    (tmp_path / "edgenas").symlink_to(BIN / "edgenas")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert format_command("search") == "edgenas search"


def test_an_environment_in_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter below the working folder is named from there."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(BIN.parent)
    assert format_python() == f"bin/{Path(sys.executable).name}"


@pytest.mark.parametrize("word", ["my runs/a", "it's", "$HOME", "a;b", "*"])
def test_words_reach_the_program(word: str) -> None:
    """A shell takes each word for what it is."""
    assert shlex.split(format_command("search", "--run", word))[-1] == word
