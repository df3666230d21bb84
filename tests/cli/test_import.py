"""``edgenas import``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


def test_help_shows_an_example(call: Call) -> None:
    """--help shows how to import an official checkpoint."""
    code, out, _ = call("import", "--help")
    assert code == 0
    assert "Example: edgenas import ofa_mbv3_d234_e346_k357_w1.0 --run runs/ofa" in out


def test_import_makes_a_run(call: Call, released: Write, tmp_path: Path) -> None:
    """import says what the run is of and what comes next; again, it is already done."""
    code, out, _ = call("import", released(), "--run", tmp_path / "run")
    assert code == 0
    assert "mobilenet_v3 of 4 classes" in out
    assert f"next: edgenas evaluate --run {tmp_path / 'run'} --data FOLDER\n" in out
    assert f"without images: edgenas profile --run {tmp_path / 'run'} --device localhost\n" in out
    code, _, err = call("import", released(), "--run", tmp_path / "run")
    assert (code, err) == (0, "import    already done (net.pth)\n")


def test_choices_and_json(call: Call, released: Write, tmp_path: Path) -> None:
    """--choices names a file of choices; --json prints the run's space."""
    choices = tmp_path / "choices.json"
    choices.write_text('{"resolutions": [96, 128]}')
    code, out, _ = call("import", released(), "--run", tmp_path / "run", "--choices", choices, "--json")
    assert code == 0
    assert json.loads(out)["space"]["resolutions"] == [96, 128]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "import needs a FILE or --tables"),
        (("net.pth", "--tables", "note10"), "FILE cannot be given together with --tables"),
        (("--tables", "note10", "--mirror", "c.json"), "--mirror cannot be given together with --tables"),
        (
            ("--tables", "t", "--device", "n", "--space", "proxyless", "--choices", "c.json"),
            "c.json: cannot be read (No such file",
        ),
        (("net.pth", "--device", "note10", "--width", "1"), "--device and --width cannot be given together with"),
        (("--tables", "note10", "--device", "note10"), "--tables needs --device NAME and --space FAMILY"),
        (("--tables", "note10", "--device", "n", "--space", "mobilnet_v3"), "did you mean 'mobilenet_v3'?"),
        (("--tables", "t", "--device", "n", "--space", "resnet50d", "--width", "1"), "unknown key 'width'"),
    ],
)
def test_wrong_use(arguments: tuple[str, ...], expected: str, call: Call, tmp_path: Path) -> None:
    """Options that do not belong together are answered in one line, and nothing is made."""
    code, out, err = call("import", *arguments, "--run", tmp_path / "run")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err
    assert not (tmp_path / "run").exists()


def test_download_without_a_network(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, an official name is answered in one line with the remedy and exit code 1."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    code, out, err = call("import", "ofa_resnet50", "--run", tmp_path / "run", "--mirror", "http://127.0.0.1:1/nets")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "download the file elsewhere and import it by its path" in err
