"""The README does what it says: the tour, then the commands, in the run that the tour made."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.slow


def block(language: str, beginning: str) -> str:
    """The README's block of code in a language that begins with these words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(next(text for text in blocks if text.startswith(beginning)))


def run_tour(folder: Path) -> list[str]:
    """Run the README's Python code in a folder and return the lines that it prints."""
    code = block("python", "import edgenas as en")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder that the tour was run in, and the lines that it printed."""
    folder = tmp_path_factory.mktemp("tour")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder, run_tour(folder)


@pytest.fixture(scope="module")
def commands(tour: tuple[Path, list[str]]) -> list[tuple[str, subprocess.CompletedProcess[str]]]:
    """The README's command lines, run one after the other in the folder of the tour."""
    run = []
    for line in block("sh", "edgenas train").splitlines():
        command = [sys.executable, "-m", "edgenas", *line.split()[1:]]
        run.append((line, subprocess.run(command, cwd=tour[0], capture_output=True, text=True, check=False)))
    return run


def test_tour_ends_with_an_unchanged_model_not_called_regressed(tour: tuple[Path, list[str]]) -> None:
    """The file that was just recorded is ok, or the machine is too busy to say; it has not regressed."""
    assert tour[1][-1] in ("ok", "not measurable")


def test_tour_chooses_within_the_budget(tour: tuple[Path, list[str]]) -> None:
    """The chosen subnet is measured below the 1 ms that the tour asks for."""
    _, _, measured = tour[1][-2].split()
    assert float(measured) < 1


def test_commands_go_on_in_the_run_of_the_tour(
    commands: list[tuple[str, subprocess.CompletedProcess[str]]],
) -> None:
    """Each command line of the README works as written, and what the tour did is not done again."""
    for line, done in commands:
        assert done.returncode == 0, f"{line}: {done.stderr}"
        if line.split()[1] in ("train", "evaluate", "profile", "search"):
            assert "already done" in done.stderr, line


@pytest.mark.usefixtures("commands")
def test_the_gate_works_on_what_was_exported(tour: tuple[Path, list[str]]) -> None:
    """Its two commands as written: an unchanged bundle is ok, or the machine is too busy to say."""
    codes = []
    for line in block("sh", "edgenas regress").splitlines():
        command = [sys.executable, "-m", "edgenas", *line.split()[1:]]
        codes.append(subprocess.run(command, cwd=tour[0], capture_output=True, text=True, check=False).returncode)
    assert codes in ([0, 0], [0, 5])


@pytest.mark.usefixtures("commands")
def test_tour_works_after_the_commands(tour: tuple[Path, list[str]]) -> None:
    """In the folder where the commands have run, the tour runs again, with the choice that it had made."""
    assert run_tour(tour[0])[-2] == tour[1][-2]
