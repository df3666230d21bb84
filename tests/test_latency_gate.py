"""The latency gate as CI runs it: a shell script with exit codes over SSH, and the GitHub action."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgenas.devices import DeviceProfile
from edgenas.errors import ExitCode
from edgenas.export import build_onnx, random_weights
from edgenas.space import MobileNetV3

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guides" / "latency_gate.md"
FAKE = "{name: board, connection: {kind: fake}, runtimes: {onnxruntime: {}}, default: {runtime: onnxruntime}}"
Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run a script in bash as GitHub does, in a folder where ``edgenas`` is this one."""
    command = tmp_path / "bin" / "edgenas"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgenas "$@"\n')
    command.chmod(0o755)
    (tmp_path / "work").mkdir()

    def run(script: str, options: str = "-eo pipefail", **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.sh").write_text(script)
        return subprocess.run(
            [str(shutil.which("bash")), "--noprofile", "--norc", *shlex.split(options), str(tmp_path / "script.sh")],
            cwd=tmp_path / "work", capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", **variables},
        )  # fmt: skip

    return run


def write_net(path: Path, resolution: int) -> None:
    """A real network; at twice the resolution it takes about four times as long."""
    network = MobileNetV3(width=0.1, resolutions=(resolution,), classes=4).smallest
    path.write_bytes(build_onnx(network, random_weights(network)))


# -- over SSH ---------------------------------------------------------------------------

SCRIPT = """
code() { "$@" >> log 2>&1; echo "$?"; }
check() { code edgenas regress check "$@" --device my-board; }

echo "record $(code edgenas regress record model.onnx --device my-board -o baselines/model.json)"
echo "same $(check model.onnx --baseline baselines/model.json --latency +50% --seconds 60)"
echo "slower $(check slower.onnx --baseline baselines/model.json --latency +50% --seconds 60)"
echo "larger $(check larger.onnx --baseline baselines/model.json --latency +10000% --size +5%)"
echo "budget $(check model.onnx --latency 10s --size 4MB)"
echo "other threads $(check model.onnx --baseline baselines/model.json --threads 2)"
echo "other input $(check other.onnx --baseline baselines/model.json)"
echo "no time $(check model.onnx --baseline baselines/model.json --seconds 0.1)"
echo "wrong limit $(check model.onnx --baseline baselines/model.json --latency fast)"
echo "no model $(check absent.onnx --baseline baselines/model.json)"
echo "broken model $(check broken.onnx --latency 10s)"
sed -i 's/"load_ms": /"load_ms": 1/' baselines/model.json
echo "damaged $(check model.onnx --baseline baselines/model.json)"
"""
EXPECTED = {
    "record": ExitCode.OK,
    "same": ExitCode.OK,
    "slower": ExitCode.REGRESSED,
    "larger": ExitCode.REGRESSED,
    "budget": ExitCode.OK,
    "other threads": ExitCode.INCOMPARABLE,
    "other input": ExitCode.INCOMPARABLE,
    "no time": ExitCode.NOT_MEASURABLE,
    "wrong limit": ExitCode.WRONG_USE,
    "no model": ExitCode.WRONG_USE,
    "broken model": ExitCode.WRONG_USE,
    "damaged": ExitCode.WRONG_USE,
}


def repeat_convolution(source: Path, path: Path, times: int, add_bytes: int = 0) -> None:
    """Write a network that computes its first convolution so many times more, or that is only larger."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    first, sums = graph.node[0], []
    for number in range(times):
        copy = onnx.NodeProto()
        copy.CopyFrom(first)
        copy.name, copy.output[0] = f"again{number}", f"again{number}"
        # Another input each time, or else onnxruntime would merge them.
        scale = numpy_helper.from_array(np.array(1 + number, np.float32), f"scale{number}")
        graph.initializer.append(scale)
        graph.node.append(helper.make_node("Mul", [first.input[0], f"scale{number}"], [f"scaled{number}"]))
        copy.input[0] = f"scaled{number}"
        graph.node.append(copy)
        graph.node.append(helper.make_node("ReduceMax", [f"again{number}"], [f"most{number}"], keepdims=0))
        sums.append(f"most{number}")
    if sums:
        output = graph.output[0].name
        for node in graph.node:
            for place, name in enumerate(node.output):
                if name == output:
                    node.output[place] = "before"
        graph.node.append(helper.make_node("Sum", ["before", *sums], [output]))
    model.doc_string = "x" * add_bytes
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.fixture
def board(ssh_profile: DeviceProfile, tmp_path: Path, shell: Shell) -> Path:
    """A working folder with the profile ``my-board`` of a machine behind SSH, and models."""
    folder = tmp_path / "work"
    (folder / "device_profiles").mkdir()
    data = {**ssh_profile.to_dict(), "name": "my-board"}
    (folder / "device_profiles" / "my-board.yaml").write_text(json.dumps(data))
    write_net(folder / "model.onnx", 32)
    write_net(folder / "other.onnx", 48)
    repeat_convolution(folder / "model.onnx", folder / "slower.onnx", 60)
    repeat_convolution(folder / "model.onnx", folder / "larger.onnx", 0, add_bytes=100_000)
    (folder / "broken.onnx").write_bytes(b"this is no model")
    return folder


@pytest.mark.slow
def test_a_script_sees_every_outcome_by_its_exit_code(board: Path, shell: Shell) -> None:
    """Recording and checks over SSH, from a shell script as CI has it: each outcome has its code, a crash has 2."""
    done = shell(SCRIPT, "-u")
    found = {name: int(code) for name, _, code in (line.rpartition(" ") for line in done.stdout.splitlines())}
    assert found == EXPECTED, (board / "log").read_text()
    assert "Traceback" not in (board / "log").read_text()


# -- the guide --------------------------------------------------------------------------


def blocks() -> list[str]:
    """The guide's blocks of commands."""
    return [block.partition("```")[0] for block in GUIDE.read_text().split("```sh\n")[1:]]


@pytest.mark.slow
def test_the_guide_works_as_written(board: Path, shell: Shell) -> None:
    """Its commands in order, on a board behind SSH; the script of CI ends as its last check does."""
    shutil.copytree(board / "device_profiles", board / "elsewhere")
    (board / "checks.yaml").write_text(
        "checks: [{model: model.onnx, baseline: baselines/model.json, device: my-board, latency: +50%}]"
    )
    for block in blocks():
        done = shell(block, "-u")
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert (board / "gate.md").exists()
    assert (board / "history.png").exists()


def test_the_guide_lists_the_exit_codes() -> None:
    """All of them, each once, with the number that commands exit with."""
    table = GUIDE.read_text().partition("| exit code | meaning |\n|---|---|\n")[2].partition("\n\n")[0]
    assert [int(row.split("|")[1]) for row in table.splitlines()] == [code.value for code in ExitCode]


# -- the action -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "path"), [("github-actions", "action.yml"), ("github-workflows", "examples/latency_gate.yml")]
)
def test_the_action_and_its_example_follow_githubs_schema(schema: str, path: str) -> None:
    """As SchemaStore has it; the linter brings it along."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(ROOT / path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def test_the_example_uses_what_the_action_has() -> None:
    """Every input that the example gives and every output that it reads is one of the action's."""
    action, text = load("action.yml"), (ROOT / "examples" / "latency_gate.yml").read_text()
    (step,) = [step for step in load("examples/latency_gate.yml")["jobs"]["gate"]["steps"] if step.get("id") == "gate"]
    assert set(step["with"]) <= set(action["inputs"])
    read = {part.split(" ")[0].rstrip("}") for part in text.split("steps.gate.outputs.")[1:]}
    assert read
    assert read <= set(action["outputs"])


def run_action(shell: Shell, tmp_path: Path, checks: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the action's second step in a runner's environment whose first step was done."""
    folder = tmp_path / "runner"
    (folder / "edgenas" / "bin").mkdir(parents=True)
    shutil.copy(tmp_path / "bin" / "edgenas", folder / "edgenas" / "bin")
    step = load("action.yml")["runs"]["steps"][1]
    files: Mapping[str, str] = {
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary"),
    }
    return shell(step["run"], **{**files, "RUNNER_TEMP": str(folder), "CHECKS": checks, "HISTORY": "", **variables})


def test_the_action_hands_on_the_outcome(shell: Shell, tmp_path: Path) -> None:
    """A check that regressed fails the step with its code; summary, outputs and files are there."""
    work = tmp_path / "work"
    (work / "board.yaml").write_text(FAKE)
    (work / "model.onnx").write_bytes(bytes(100_000))
    (work / "checks.yaml").write_text("checks: [{model: model.onnx, device: ./board.yaml, latency: 1us}]")
    done = run_action(shell, tmp_path, "checks.yaml", HISTORY="history")
    assert done.returncode == ExitCode.REGRESSED, done.stderr
    outputs = dict(line.split("=", 1) for line in (tmp_path / "runner" / "output").read_text().splitlines())
    assert outputs["exit-code"] == "3"
    assert json.loads(Path(outputs["json"]).read_text())["exit_code"] == 3
    assert Path(outputs["junit"]).exists()
    assert (tmp_path / "runner" / "summary").read_text() == Path(outputs["comment"]).read_text()
    assert [path.name for path in (work / "history").iterdir()] == ["model.onnx-on-board.jsonl"]


def test_the_action_fails_on_a_file_of_checks_that_is_none(shell: Shell, tmp_path: Path) -> None:
    """With the code of wrong use and the message in the log, in the comment and in the summary."""
    done = run_action(shell, tmp_path, "absent.yaml")
    assert done.returncode == ExitCode.WRONG_USE
    assert "absent.yaml: cannot be read" in done.stderr
    comment = (tmp_path / "runner" / "latency-gate" / "comment.md").read_text()
    assert comment.startswith(
        "### Latency gate\n\nNothing was checked (exit code 2):\n\n    edgenas: absent.yaml: cannot"
    )
    assert (tmp_path / "runner" / "summary").read_text() == comment


# A stand-in for GitHub's program, synthetic: it lists the comments of comments.json by the real jq, and records what it
# would write as lines of requests.
GH = """#!/bin/sh
test "$1" = api
for last in "$@"; do :; done
case "$*" in
  *--jq*) exec jq --raw-output "$last" comments.json ;;
  *) echo "$*" >> requests; cp "${last#body=@}" body ;;
esac
"""
OWN = "<!-- latency gate / gate -->\n### Latency gate"


def comment(number: int, login: str, body: str) -> dict[str, Any]:
    return {"id": number, "user": {"login": login}, "body": body}


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize(
    ("own", "request_line"),
    [
        ([], "api --silent repos/me/nets/issues/7/comments"),
        ([12], "api --silent --method PATCH repos/me/nets/issues/comments/12"),
        ([12, 14], "api --silent --method PATCH repos/me/nets/issues/comments/12"),
    ],
)
@pytest.mark.parametrize("result", ["### Latency gate\n\nall ok\n", None])
def test_the_example_edits_its_own_comment(
    shell: Shell, tmp_path: Path, own: list[int], request_line: str, result: str | None
) -> None:
    """Neither another workflow's nor a person's; without a result it says so, instead of leaving an old one."""
    bot = "github-actions[bot]"
    others = [comment(11, "somebody", OWN), comment(13, bot, "coverage: 99%"), comment(15, bot, f"> {OWN}")]
    (tmp_path / "bin" / "gh").write_text(GH)
    (tmp_path / "bin" / "gh").chmod(0o755)
    work = tmp_path / "work"
    (work / "comments.json").write_text(json.dumps([*others, *(comment(number, bot, OWN) for number in own)]))
    if result is not None:
        (work / "comment.md").write_text(result)
    (step,) = [step for step in load("examples/latency_gate.yml")["jobs"]["gate"]["steps"] if "GH_TOKEN" in str(step)]
    done = shell(
        step["run"], "-e", GITHUB_WORKFLOW="latency gate", GITHUB_JOB="gate", RUNNER_TEMP=str(tmp_path), NUMBER="7",
        GITHUB_REPOSITORY="me/nets", GITHUB_SERVER_URL="https://github.com", GITHUB_RUN_ID="99",
        COMMENT="comment.md" if result else "",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = (work / "requests").read_text().splitlines()
    assert found.startswith(f"{request_line} --field body=@")
    text = result or "### Latency gate\n\nIt gave no result: [log](https://github.com/me/nets/actions/runs/99)\n"
    assert (work / "body").read_text() == f"<!-- latency gate / gate -->\n{text}"


@pytest.mark.slow
def test_the_action_installs_edgenas(shell: Shell, tmp_path: Path) -> None:
    """Its first step gives a command that runs, from a copy of the repository."""
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".mypy_cache")
    shutil.copytree(ROOT, source, ignore=ignore)
    step = load("action.yml")["runs"]["steps"][0]
    variables = {"PYTHON": sys.executable, "EXTRAS": "", "SOURCE": str(source), "RUNNER_TEMP": str(tmp_path)}
    done = shell(step["run"], **variables)
    assert done.returncode == 0, done.stderr
    done = shell('"$RUNNER_TEMP/edgenas/bin/edgenas" regress check --help', RUNNER_TEMP=str(tmp_path))
    assert "--baseline" in done.stdout
