"""``edgenas regress``: recording, checking, files for other programs, history."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # comes with rich

from edgenas.devices import load_profile
from edgenas.errors import UsageError
from edgenas.regression import ModelCheck, record_baseline
from edgenas.regression.checks import CheckReport, CheckRequest
from edgenas.regression.reports import build_markdown

Call = Callable[..., tuple[int, str, str]]
FAKE = "{name: board, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"


def model_bytes(name: str, size: int) -> bytes:
    return name.encode() + bytes(size - len(name))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a made-up device, whose time grows with the size of a file, and three models for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "board.yaml").write_text(FAKE)
    for name, size in (("old", 1_000_000), ("same", 1_000_000), ("slow", 1_200_000), ("fast", 800_000)):
        (tmp_path / f"{name}.onnx").write_bytes(model_bytes(name, size))
    return tmp_path


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the baseline ``b.json`` of ``old.onnx`` and of the model's copy."""
    folder = tmp_path_factory.mktemp("baseline")
    (folder / "board.yaml").write_text(FAKE)
    (folder / "old.onnx").write_bytes(model_bytes("old", 1_000_000))
    record_baseline(folder / "old.onnx", load_profile(str(folder / "board.yaml")), folder / "kept" / "b.json")
    return folder / "kept"


@pytest.fixture
def recorded(baseline: Path, folder: Path) -> None:
    """The baseline ``b.json`` of ``old.onnx`` in the working folder."""
    shutil.copytree(baseline, folder, dirs_exist_ok=True)


def check(call: Call, *arguments: object) -> tuple[int, str, str]:
    return call("regress", "check", *arguments, "--device", "./board.yaml", "--baseline", "b.json")


def test_record_says_what_it_wrote_and_what_comes_next(call: Call, folder: Path) -> None:
    """The baseline, the copy of the model, and the command that checks."""
    code, out, _ = call("regress", "record", "old.onnx", "--device", "./board.yaml", "-o", "b.json")
    (kept,) = folder.glob("b-*.onnx")
    assert code == 0
    assert "b.json: 1.00 ms" in out
    assert f"{kept.name}: the model, which checks measure again beside the new one; commit both" in out
    assert "regress check old.onnx --baseline b.json --device ./board.yaml" in out


def test_record_prints_one_document(call: Call) -> None:
    """With --json: where it was written, the target, the statistics; raw samples are in the file."""
    code, out, _ = call("regress", "record", "old.onnx", "--device", "./board.yaml", "-o", "b.json", "--json")
    document = json.loads(out)
    assert (code, document["baseline"], document["processes"]) == (0, "b.json", 12)
    assert "measurements" not in document


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("model", "code", "words"), [("same", 0, "ok SYNTHETIC"), ("slow", 3, "regressed SYNTHETIC"), ("fast", 0, "ok")]
)
def test_the_exit_code_is_the_outcome(call: Call, model: str, code: int, words: str) -> None:
    """The headline says it too."""
    found, out, _ = check(call, f"{model}.onnx")
    assert found == code
    assert out.startswith(f"{model}.onnx on board: {words}")


@pytest.mark.usefixtures("recorded")
def test_a_regression_is_shown_with_its_interval_and_what_would_have_shown(call: Call) -> None:
    """One line of a table for each limit, and the reason below."""
    _, out, _ = check(call, "slow.onnx", "--latency", "+5%", "--latency", "15ms", "--size", "+20%")
    rows = [line for line in out.splitlines() if line.startswith(("latency", "size"))]
    assert [row.split()[-1] for row in rows] == ["regressed", "ok", "ok"]
    assert "+20." in rows[0]
    assert "regressed: the latency changed by +20." in out


@pytest.mark.usefixtures("recorded")
def test_a_faster_model_gets_the_command_that_updates_the_baseline(call: Call) -> None:
    """It can be pasted."""
    _, out, _ = check(call, "fast.onnx")
    assert "it is faster than the baseline; to guard that, update the baseline:" in out
    assert "regress record fast.onnx -o b.json --device board" in out


@pytest.mark.usefixtures("recorded")
def test_another_target_exits_with_4(call: Call, folder: Path) -> None:
    """And names the field."""
    (folder / "board.yaml").write_text(FAKE.replace("name: board", "name: other"))
    code, out, _ = check(call, "same.onnx")
    assert code == 4
    assert "incomparable: device was board in the baseline, is other now; record a new baseline here" in out


def test_the_printed_check_asks_for_what_was_recorded(call: Call, folder: Path) -> None:
    """Threads and shapes are said again, or the check would be of another target or input."""
    options = ("--device", "board.yaml", "--threads", "2", "--shape", "x=1x4", "-o", "threads.json")
    code, out, _ = call("regress", "record", "old.onnx", *options)
    assert code == 0
    words = "old.onnx --baseline threads.json --device board.yaml --threads 2 --shape x=1x4"
    assert out.splitlines()[-1].endswith(f"regress check {words}")


@pytest.mark.usefixtures("recorded")
def test_a_missing_baseline_says_how_to_record_one(call: Call, folder: Path) -> None:
    """The first error that a user of CI meets."""
    code, _, err = call("regress", "check", "old.onnx", "--baseline", "none.json", "--device", "board.yaml")
    assert code == 2
    assert "none.json: there is no baseline; record one of the model to compare with: " in err
    assert err.endswith("regress record old.onnx -o none.json --device board.yaml\n")


@pytest.mark.usefixtures("recorded")
def test_a_time_that_is_too_short_exits_with_5(call: Call, folder: Path) -> None:
    """It is over before a second round is: nothing is known."""
    code, out, _ = check(call, "same.onnx", "--seconds", "0.001")
    assert code == 5
    assert "not measurable: 1 round in" in out


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent.onnx",), "absent.onnx: cannot be read"),
        (("board.yaml",), "board.yaml: is a file of checks, so --device stands in it; leave it out here"),
        (("old.onnx", "--latency", "5"), "latency limit '5' has no unit"),
        (("old.onnx", "--seconds", "0"), "seconds must be above 0"),
        (("b.json",), "b.json: is no model; give an ONNX or TFLite file, or a bundle"),
        ((".",), ".: is a folder without card.json, so it is no bundle"),
    ],
)
def test_wrong_use_exits_with_2_on_one_line(call: Call, arguments: tuple[str, ...], message: str) -> None:
    """Never with the code of a regression, and without a traceback."""
    code, out, err = check(call, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith(f"edgenas: {message}")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("recorded")
def test_a_document_is_printed_also_for_a_check_that_failed(call: Call, folder: Path) -> None:
    """With the error as text; the exit code stays."""
    code, out, _ = check(call, "same.onnx", "--json")
    document = json.loads(out)
    assert (code, document["exit_code"], document["checks"][0]["outcome"]) == (0, 0, "ok")
    assert document["checks"][0]["findings"][0]["smallest_change"] == 0
    (folder / "b.json").write_text("{}")
    code, out, _ = check(call, "same.onnx", "--json")
    document = json.loads(out)
    assert (code, document["exit_code"], document["checks"][0]["outcome"]) == (2, 2, "failed")
    assert "expected format edgenas.baseline" in document["checks"][0]["error"]


CHECKS = """
checks:
  - {model: same.onnx, device: ./board.yaml, baseline: b.json}
  - {model: slow.onnx, device: ./board.yaml, baseline: b.json, latency: [+5%, 15ms], name: "slow | one"}
  - {model: old.onnx, device: ./board.yaml, latency: 0.1ms, size: 4MB}
  - {model: absent.onnx, device: ./board.yaml, latency: 1ms}
"""


@pytest.mark.usefixtures("recorded")
def test_several_checks_in_one_call(call: Call, folder: Path) -> None:
    """One that fails stops no other, and a regression decides the exit code."""
    (folder / "checks.yaml").write_text(CHECKS)
    code, out, _ = call("regress", "check", "checks.yaml")
    assert code == 3
    heads = [line for line in out.splitlines() if line.startswith(("same", "slow |", "old", "absent"))]
    assert [head.split(": ")[1].split(" ")[0] for head in heads] == ["ok", "regressed", "regressed", "failed"]


@pytest.mark.usefixtures("recorded")
def test_junit_counts_regressions_as_failures_and_the_rest_as_errors(call: Call, folder: Path) -> None:
    """CI systems show them apart."""
    (folder / "checks.yaml").write_text(CHECKS)
    call("regress", "check", "checks.yaml", "--junit", "out/junit.xml")
    suite = ElementTree.parse(folder / "out" / "junit.xml").getroot()  # noqa: S314 - written just now
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "2", "1")
    assert [case[0].tag for case in suite] == ["system-out", "failure", "failure", "error"]
    assert str(suite[3][0].get("message")).startswith("absent.onnx: cannot be read")


@pytest.mark.usefixtures("recorded")
def test_markdown_has_a_table_and_a_picture_and_escapes_names(call: Call, folder: Path) -> None:
    """A name with a column's sign breaks no table."""
    (folder / "checks.yaml").write_text(CHECKS)
    call("regress", "check", "checks.yaml", "--markdown", "gate.md")
    text = (folder / "gate.md").read_text()
    rows = [line for line in text.split("**")[0].splitlines() if line.startswith("| ")][1:]
    assert {row.replace("\\|", "").count("|") for row in rows} == {10}
    assert "slow \\| one" in text
    assert text.count("```text") == 3
    assert "was │" in text


OPERATOR = "fake Fake slower 1000.0 1200.0 +200.0 100%"


@pytest.mark.usefixtures("recorded")
def test_a_slower_model_is_shown_with_its_operators(call: Call) -> None:
    """A table below the reasons; the made-up device has one operator, which explains it all."""
    _, out, _ = check(call, "slow.onnx")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines.index(OPERATOR) > lines.index("operators by onnxruntime fake") > 2
    assert "the operators take 200.0 us more (+20.0%), at 95% from 200.0 to 200.0 us" in lines


@pytest.mark.usefixtures("recorded")
def test_a_model_that_is_not_slower_is_shown_without(call: Call) -> None:
    """Operators are listed for a regression only."""
    _, out, _ = check(call, "same.onnx")
    assert "operators" not in out


@pytest.mark.usefixtures("recorded")
def test_reports_name_the_operators(call: Call, folder: Path) -> None:
    """JSON has all that ``compare`` has, Markdown the table, JUnit one line."""
    _, out, _ = check(call, "slow.onnx", "--json", "--markdown", "gate.md", "--junit", "junit.xml")
    operators = json.loads(out)["checks"][0]["operators"]
    assert (operators["difference_us"], operators["operators"][0]["part"]) == (200.0, 1.0)
    rows = [row for row in (folder / "gate.md").read_text().splitlines() if row.startswith("| fake")]
    assert rows == ["| fake | Fake | slower | 1000.0 | 1200.0 | +200.0 | 100% |"]
    failure = ElementTree.parse(folder / "junit.xml").getroot()[0][0]  # noqa: S314 - written just now
    (line,) = [line for line in str(failure.text).splitlines() if "operators" in line]
    assert line.startswith("operators: the operators take 200.0 us more (+20.0%)")
    assert line.endswith("; fake (slower) 100%")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checks: []", "must have the key 'checks' with a list"),
        ("- model: a.onnx", "must have the key 'checks' with a list"),
        ("checks: [{model: a.onnx}]\nbaseline: b.json", "unknown key 'baseline'"),
        ("checks: [{modle: a.onnx}]", "check 1: unknown key 'modle'; did you mean 'model'?"),
        ("checks: [{model: a.onnx, seconds: fast}]", "check 1: seconds"),
        ("checks: [{model: a.onnx, latency: 5}]", "check 1: latency limit '5' has no unit"),
        ("checks: [{model: a.onnx, latency: 5ms, seconds: 0}]", "check 1: seconds must be above 0"),
        ("checks: [{model: a.onnx}]", "check 1: a check needs a limit"),
        (
            "checks: [{model: a.onnx, size: 1MB}, {model: b/a.onnx, size: 1MB}]",
            "2 checks are called 'a.onnx on localhost'",
        ),
    ],
)
def test_a_malformed_file_of_checks_is_refused(call: Call, folder: Path, text: str, message: str) -> None:
    """Before anything is measured, with what and where."""
    (folder / "checks.yaml").write_text(text)
    code, _, err = call("regress", "check", "checks.yaml")
    assert code == 2
    assert message in err


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("option", ["--junit", "--markdown"])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("old.onnx/report", "old.onnx/report: cannot be written"),
        ("same.onnx", "same.onnx: is there already and is no report of checks; choose another name"),
        ("b.json", "b.json: is there already and is no report of checks"),
        ("board.yaml", "board.yaml: is there already and is no report of checks"),
        (".", ".: is a folder"),
        ("/dev/null", "/dev/null: is no regular file"),
    ],
)
def test_a_report_that_would_replace_an_input_is_refused(
    call: Call, folder: Path, option: str, path: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one that cannot be written: before anything is measured, and all files stay as they are."""
    monkeypatch.setattr(CheckRequest, "run", lambda *arguments: pytest.fail("was measured"))
    before = {each: each.read_bytes() for each in folder.iterdir()}
    code, out, err = check(call, "same.onnx", option, path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"edgenas: {message}")
    assert {each: each.read_bytes() for each in folder.iterdir()} == before


def test_one_file_for_both_reports_is_refused(call: Call) -> None:
    """However it is written."""
    code, _, err = check(call, "same.onnx", "--junit", "gate", "--markdown", "./gate")
    assert (code, err) == (2, "edgenas: gate: cannot be both JUnit XML and Markdown; give two files\n")


def test_a_history_that_cannot_be_written_is_refused(call: Call) -> None:
    """Before anything is measured."""
    code, out, err = check(call, "same.onnx", "--history", "old.onnx")
    assert (code, out) == (2, "")
    assert "cannot be written (File exists); choose another folder" in err


@pytest.mark.usefixtures("recorded")
def test_a_report_replaces_an_earlier_one_or_an_empty_file(call: Call, folder: Path) -> None:
    """As a second check in the same folder does, or one whose file ``mktemp`` made."""
    (folder / "gate.md").touch()
    for _ in range(2):
        code, _, _ = check(call, "same.onnx", "--markdown", "gate.md", "--junit", "junit.xml")
        assert code == 0


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(("model", "code"), [("slow", 3), ("same", 1)])
def test_a_report_that_can_no_longer_be_written_loses_no_result(
    call: Call, folder: Path, model: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk fills in mid-check: what was found is printed, the other files are written, and a regression stays one."""
    run = CheckRequest.run

    def run_and_remove(request: CheckRequest, on_round: Callable[[float], None]) -> ModelCheck:
        shutil.rmtree(folder / "out")
        (folder / "out").touch()
        return run(request, on_round)

    monkeypatch.setattr(CheckRequest, "run", run_and_remove)
    found, out, err = check(
        call, f"{model}.onnx", "--junit", "out/j.xml", "--markdown", "gate.md", "--history", "history"
    )
    assert found == code
    assert out.startswith(f"{model}.onnx on board: ")
    assert "edgenas: out/j.xml: cannot be written (" in err
    assert f"{model}.onnx on board" in (folder / "gate.md").read_text()
    assert "the command ended before" not in (folder / "gate.md").read_text()
    assert len(list((folder / "history").iterdir())) == 1


@pytest.fixture
def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of three checks, and a Ctrl-C in the second."""
    (folder / "checks.yaml").write_text(CHECKS)
    run = CheckRequest.run

    def run_or_stop(request: CheckRequest, on_round: Callable[[float], None]) -> ModelCheck:
        if request.label == "slow | one":
            raise KeyboardInterrupt
        return run(request, on_round)

    monkeypatch.setattr(CheckRequest, "run", run_or_stop)


@pytest.mark.usefixtures("recorded", "interrupted")
def test_an_interrupted_file_of_checks_keeps_what_was_checked(call: Call, folder: Path) -> None:
    """It is printed and written; checks that did not end are errors, so that no report reads as if all were ok."""
    code, out, err = call(
        "regress", "check", "checks.yaml", "--junit", "j.xml", "--markdown", "gate.md", "--history", "history"
    )
    assert code == 130
    assert out.startswith("same.onnx on board: ok")
    assert "slow | one: failed\nfailed: the command ended before this check did" in out
    assert err == "edgenas: interrupted; what was checked until then is shown, the same command begins anew\n"
    suite = ElementTree.parse(folder / "j.xml").getroot()  # noqa: S314 - written just now
    assert [case[0].tag for case in suite] == ["system-out", "error", "error", "error"]
    assert (folder / "gate.md").read_text().count("the command ended before this check did") == 3
    assert [path.name for path in (folder / "history").iterdir()] == ["same.onnx-on-board.jsonl"]


@pytest.mark.usefixtures("recorded", "interrupted")
def test_the_document_of_an_interrupted_file_of_checks_has_its_exit_code(call: Call) -> None:
    """The one check that ended is complete."""
    code, out, _ = call("regress", "check", "checks.yaml", "--json")
    document = json.loads(out)
    assert (code, document["exit_code"]) == (130, 130)
    assert [one["exit_code"] for one in document["checks"]] == [0, 130, 130, 130]


@pytest.mark.usefixtures("recorded")
def test_a_check_that_is_interrupted_alone_leaves_a_report_that_says_so(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier report, which said ok, does not stay."""
    check(call, "same.onnx", "--markdown", "gate.md")

    def stop(request: CheckRequest, on_round: Callable[[float], None]) -> ModelCheck:
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckRequest, "run", stop)
    code, out, err = check(call, "same.onnx", "--markdown", "gate.md")
    assert (code, out, err) == (130, "", "edgenas: interrupted; the same command begins anew\n")
    assert "failed: the command ended before this check did" in (folder / "gate.md").read_text()


@pytest.mark.usefixtures("recorded")
def test_a_reader_that_leaves_early_loses_no_report(folder: Path) -> None:
    """As ``| head`` does: reports and history are written before anything is printed."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edgenas", "regress", "check", "same.onnx", "--device", "./board.yaml"]
    options = ["--latency", "15ms", "--junit", "j.xml", "--markdown", "gate.md", "--history", "history"]
    done = subprocess.run([*command, *options], stdout=write, stderr=subprocess.DEVNULL, check=False)
    os.close(write)
    assert done.returncode == 1
    assert "the command ended before" not in (folder / "j.xml").read_text()
    assert "the command ended before" not in (folder / "gate.md").read_text()
    assert len(list((folder / "history").iterdir())) == 1


SIGNS = [*r"\`*_{}[]<>()#|~@&$!+-.:;=^'/ ab1", '"', "&lt;", "&#36;", "<b>", "~~", "**"]


@given(st.lists(st.sampled_from(SIGNS), max_size=30))
def test_markdown_shows_a_name_as_it_is(signs: list[str]) -> None:
    """Whatever it holds; the page that a reader of CommonMark with tables makes of it has that text."""
    request = CheckRequest("a.onnx", name=f"x{''.join(signs)}x")
    text = build_markdown([CheckReport(request, error=UsageError("no"))])
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    (cell,) = re.findall(r"<tr>\n<td>💥</td>\n<td>(.*?)</td>", page)
    assert html.unescape(re.sub(r"</?span>", "", cell)) == request.label


def test_markdown_takes_signs_of_github_apart() -> None:
    """It looks for formulas, issues and people in the text of an element, where no backslash is left."""
    request = CheckRequest("a.onnx", name="$x$ #1 @you")
    text = build_markdown([CheckReport(request, error=UsageError("no"))])
    assert "<span>$</span>x<span>$</span> <span>#</span>1 <span>@</span>you" in text


@pytest.mark.usefixtures("recorded")
def test_a_history_grows_by_a_line_a_check(call: Call, folder: Path) -> None:
    """It names no path and no host of the machine, so it can be committed."""
    for model in ("same", "slow"):
        check(call, f"{model}.onnx", "--history", "history")
    check(call, "same.onnx", "--history", "history")
    path = folder / "history" / "same.onnx-on-board.jsonl"
    assert len(path.read_text().splitlines()) == 3
    assert str(folder) not in path.read_text()
    code, out, _ = call("regress", "history", "history", "-o", "history.png")
    assert code == 0
    assert "same.onnx on board: 2 checks from" in out
    assert (folder / "history.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_a_history_is_refused(call: Call) -> None:
    """With what to give."""
    code, _, err = call("regress", "history", ".")
    assert (code, err) == (2, "edgenas: .: holds no history; give the folder of edgenas regress check --history\n")
