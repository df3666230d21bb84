"""Installing runtimes on a device: here this machine, with wheels made up for the purpose and no index but a folder."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgenas import on_device
from edgenas.devices import Deadline, Device, DeviceProfile, connect_device, local, wheels
from edgenas.devices import setup as installing
from edgenas.devices.fake import FakeDevice, Reply, Request
from edgenas.devices.profile_files import profile_from_dict
from edgenas.devices.setup import InstalledRuntimes, ProbeResult, install_runtimes
from edgenas.errors import DeviceError, EdgeNASError, UsageError

PINNED = importlib.metadata.version("onnxruntime")
GIVES = "__version__ = {version!r}\ndef get_available_providers(): return ['CPUExecutionProvider']\n"


def write_wheel(folder: Path, name: str, version: str, code: str, inside: str = "", tag: str = "py3-none-any") -> Path:
    """A wheel of one package whose code lies below ``inside``."""
    path = folder / f"{name}-{version}-{tag}.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        package = "onnxruntime" if name.startswith("onnxruntime") else name
        archive.writestr(f"{inside}{package}/__init__.py", code)
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def with_numpy_wheel(runtime: Path) -> list[Path]:
    return [write_wheel(runtime.parent, "numpy", "1.0", ""), runtime]


def profile_in(base: Path, **changes: Any) -> DeviceProfile:
    data = {
        "name": "board",
        "connection": {"kind": "local"},
        "runtimes": {"onnxruntime": {}},
        "default": {"runtime": "onnxruntime"},
        "work_dir": str(base),
    }
    return profile_from_dict({**data, **changes}, "board.yaml")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "base"


@pytest.fixture
def device(base: Path) -> Iterator[Device]:
    with connect_device(profile_in(base)) as device:
        yield device


def install(device: Device, profile: DeviceProfile, **options: Any) -> InstalledRuntimes:
    return install_runtimes(device, profile, Deadline(120), python=sys.executable, **options)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip can install from."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    passed = ("PIP_NO_INDEX", "PIP_FIND_LINKS")  # as a board's own pip would have them
    monkeypatch.setattr(local, "_PASSED_VARIABLES", (*local._PASSED_VARIABLES, *passed))
    return folder


def test_wheels_are_unpacked_without_pip(device: Device, base: Path, tmp_path: Path) -> None:
    """Given files are installed into an environment that has no pip, and the runtime can be imported there."""
    files = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime", "9.9", GIVES.format(version="9.9")))
    done = install(device, profile_in(base), wheels=files)
    assert done.versions == {"onnxruntime": "9.9"}
    assert done.providers == {"onnxruntime": ["CPUExecutionProvider"]}
    assert done.python == str(base / "venv" / "bin" / "python")
    command = [done.python, "-I", "-c", "import importlib.util as it; print(it.find_spec('pip'))"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"


def test_packages_in_a_wheels_data_folder_are_installed(device: Device, base: Path, tmp_path: Path) -> None:
    """Files below purelib or platlib of a wheel's data folder land among the packages."""
    inside = "onnxruntime-9.9.data/platlib/"
    files = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime", "9.9", GIVES.format(version="9.9"), inside))
    assert install(device, profile_in(base), wheels=files).versions == {"onnxruntime": "9.9"}
    assert not list(base.glob("venv/lib/*/site-packages/*.data"))


def test_the_same_call_does_nothing_again(device: Device, base: Path, tmp_path: Path) -> None:
    """A second call leaves the environment as it is; one with another wheel replaces it."""
    files = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime", "9.9", GIVES.format(version="9.9")))
    first = install(device, profile_in(base), wheels=files)
    made = (base / "venv").stat().st_ino
    again = install(device, profile_in(base), wheels=files)
    assert (again.how, again.versions) == ("already installed", first.versions)
    assert (base / "venv").stat().st_ino == made
    newer = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime", "10.0", GIVES.format(version="10.0")))
    assert install(device, profile_in(base), wheels=newer).versions == {"onnxruntime": "10.0"}


def test_a_broken_environment_is_made_again(device: Device, base: Path, tmp_path: Path) -> None:
    """An environment whose runtime cannot be imported any more does not count as there."""
    files = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime", "9.9", GIVES.format(version="9.9")))
    install(device, profile_in(base), wheels=files)
    next(base.glob("venv/lib/*/site-packages/onnxruntime/__init__.py")).write_text("raise ImportError('cut')")
    assert install(device, profile_in(base), wheels=files).how == "from wheels fetched here"


@pytest.mark.parametrize(
    "note",
    [
        '"x"',
        "{}",
        '{"versions": {}}',
        '{"versions": {"ncnn": "1"}, "providers": {}, "skipped": {}, "asked": []}',
        '{"versions": {"onnxruntime": 1}, "providers": {}, "skipped": {}, "asked": []}',
        '{"versions": {}, "providers": {"onnxruntime": [1]}, "skipped": {}, "asked": []}',
        '{"versions": {}, "providers": {}, "skipped": {}, "asked": ["x"]}',
        '{"versions": {}, "providers": {}, "skipped": {}, "asked": [], "more": 1}',
        "[",
    ],
)
def test_a_note_that_is_none_of_ours_counts_for_nothing(device: Device, base: Path, tmp_path: Path, note: str) -> None:
    """An environment whose note is malformed is made again."""
    (base / "venv").mkdir(parents=True, exist_ok=True)
    (base / "venv" / "edgenas.json").write_text(note)
    files = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime", "9.9", GIVES.format(version="9.9")))
    assert install(device, profile_in(base), wheels=files).how == "from wheels fetched here"


def test_what_a_broken_off_call_left_is_removed(device: Device, base: Path, tmp_path: Path) -> None:
    """Half-made environments go with the next call, also where that has nothing to do."""
    files = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime", "9.9", GIVES.format(version="9.9")))
    install(device, profile_in(base), wheels=files)
    for name in ("venv.new", "venv.old"):
        (base / name / "lib").mkdir(parents=True)
    assert install(device, profile_in(base), wheels=files).how == "already installed"
    assert [path.name for path in base.glob("venv*")] == ["venv"]


def test_fetching_ends_with_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip here that hangs is ended when the time is up."""
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    runtimes = wheels.runtime_packages(profile_in(tmp_path), ())
    with pytest.raises(DeviceError, match=r"fetching wheels of onnxruntime by pip here: did not end within 0\.5 s"):
        wheels.download_wheels(runtimes[0], probe_result().interpreter, tmp_path, Deadline(0.5))


@pytest.mark.parametrize("python", ["bin/python", "~/bin/python", "x\x00"])
def test_an_interpreter_from_wherever_one_is_is_refused(device: Device, base: Path, python: str) -> None:
    """--python is absolute or a bare name: nobody knows from where another path would lead."""
    with pytest.raises(UsageError, match="--python must be an absolute path"):
        install_runtimes(device, profile_in(base), Deadline(60), python=python)


def test_a_failure_leaves_the_old_environment(device: Device, base: Path, tmp_path: Path) -> None:
    """A runtime that cannot be imported is refused in its words; what worked before still does."""
    good = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime", "9.9", GIVES.format(version="9.9")))
    python = install(device, profile_in(base), wheels=good).python
    bad = with_numpy_wheel(
        write_wheel(tmp_path, "onnxruntime", "10.0", "raise ImportError('libfoo.so.1: no such file')")
    )
    with pytest.raises(DeviceError, match=r"board: onnxruntime .* cannot be imported \(.*libfoo"):
        install(device, profile_in(base), wheels=bad)
    assert subprocess.run([python, "-c", "import onnxruntime"], check=False).returncode == 0
    assert [path.name for path in base.glob("venv*")] == ["venv"]


def test_pip_there_installs_the_version_that_is_here(device: Device, base: Path, index: Path) -> None:
    """The device's own pip is used first, and of several versions takes the one that this machine has."""
    write_wheel(index, "numpy", importlib.metadata.version("numpy"), "")
    for version in ("0.1", PINNED, "99.0"):
        write_wheel(index, "onnxruntime", version, GIVES.format(version=version))
    done = install(device, profile_in(base))
    assert (done.versions, done.how) == ({"onnxruntime": PINNED}, "by pip on the device")


def test_the_newest_is_taken_where_that_version_is_not(device: Device, base: Path, index: Path) -> None:
    """Without a wheel of the version that is here, the newest is installed."""
    for package in ("numpy", "onnxruntime"):
        for version in ("0.1", "0.2"):
            write_wheel(index, package, version, GIVES.format(version=version))
    assert install(device, profile_in(base), offline=True).versions == {"onnxruntime": "0.2"}


def test_what_pip_there_cannot_get_is_sent(
    device: Device, base: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When pip on the device fails, wheels are fetched here instead, and both steps are printed."""
    for package in ("numpy", "onnxruntime"):
        write_wheel(index, package, "0.1", GIVES.format(version="0.1"))
    real = Path(on_device.__file__).with_name("install.py").read_text()
    script = index / "install.py"
    script.write_text(real.replace('find_spec("pip")', 'find_spec("no_pip_here")'))
    monkeypatch.setattr(installing, "_SCRIPT", script)
    said: list[str] = []
    done = install(device, profile_in(base), say=said.append)
    assert done.how == "from wheels fetched here"
    assert said[0] == "board: installing onnxruntime by pip there"
    assert said[1] == "board: python3 there has no pip; fetching wheels here instead"
    assert said[2].startswith("board: sending onnxruntime")


def test_another_runtime_may_be_left_out(device: Device, base: Path, index: Path) -> None:
    """A runtime without a wheel is left out with the reason, unless it is the default one."""
    for package in ("numpy", "onnxruntime"):
        write_wheel(index, package, "0.1", GIVES.format(version="0.1"))
    both: dict[str, Any] = {"runtimes": {"onnxruntime": {}, "litert": {}}}
    done = install(device, profile_in(base, **both), offline=True)
    assert done.versions == {"onnxruntime": "0.1"}
    assert "no wheel of numpy, ai-edge-litert" in done.skipped["litert"]
    with pytest.raises(EdgeNASError, match=r"board: no wheel of numpy, ai-edge-litert .*give files with --wheel FILE"):
        install(device, profile_in(base, **both, default={"runtime": "litert"}), offline=True)


@pytest.mark.parametrize("offline", [False, True])
def test_what_was_left_out_is_tried_again(device: Device, base: Path, index: Path, offline: bool) -> None:
    """The same call installs a runtime that an earlier one could not get."""
    for package in ("numpy", "onnxruntime"):
        write_wheel(index, package, "0.1", GIVES.format(version="0.1"))
    both = profile_in(base, runtimes={"onnxruntime": {}, "litert": {}})
    assert install(device, both, offline=offline).skipped
    litert = write_wheel(index, "ai_edge_litert", "0.1", "")
    with zipfile.ZipFile(litert, "a") as archive:
        archive.writestr("ai_edge_litert/interpreter.py", "class Interpreter: pass\n")
    done = install(device, both, offline=offline)
    assert (done.versions, done.skipped) == ({"onnxruntime": "0.1", "litert": "0.1"}, {})


def test_a_build_without_the_wanted_provider_is_refused(device: Device, base: Path, tmp_path: Path) -> None:
    """A wheel of another build stands for the index's; if it lacks a provider of the profile, that is said."""
    gpu = {"runtimes": {"onnxruntime": {"providers": ["CUDAExecutionProvider"]}}}
    files = with_numpy_wheel(write_wheel(tmp_path, "onnxruntime_gpu", "9.9", GIVES.format(version="9.9")))
    with pytest.raises(DeviceError, match=r"has no CUDAExecutionProvider \(it has CPUExecutionProvider\)"):
        install(device, profile_in(base, **gpu), wheels=files)


def test_a_full_disk_is_said_before(device: Device, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device with too little space left is refused before anything is fetched."""
    monkeypatch.setattr(installing, "_NEEDED_BYTES", 10**18)
    with pytest.raises(DeviceError, match=r"MB left.*free space there or set work_dir"):
        install(device, profile_in(base))


def test_wrong_wheels_are_refused(device: Device, base: Path, tmp_path: Path) -> None:
    """A file that is no wheel, and a wheel of nothing in the profile, are refused by name."""
    other = write_wheel(tmp_path, "requests", "1.0", "")
    with pytest.raises(UsageError, match=r"requests-1\.0.*wheel of no runtime of profile board"):
        install(device, profile_in(base), wheels=[other])
    with pytest.raises(UsageError, match=r"absent\.whl: is no wheel file"):
        install(device, profile_in(base), wheels=[tmp_path / "absent.whl"])


def test_an_unknown_runtime_is_refused(device: Device, base: Path) -> None:
    """A runtime that edgenas cannot install is named, with those that it can."""
    unknown: dict[str, Any] = {"runtimes": {"ncnn": {}}, "default": {"runtime": "ncnn"}}
    with pytest.raises(UsageError, match="edgenas cannot install runtime 'ncnn'; known: litert, onnxruntime"):
        install(device, profile_in(base, **unknown))


def probe_result(**changes: Any) -> ProbeResult:
    given: dict[str, Any] = {
        "python": "3.11.2", "implementation": "CPython", "machine": "aarch64", "bits": 64, "libc": ("glibc", "2.19"),
        "free_bytes": 10**10, "noexec": False, "base": "/home/pi/.cache/edgenas", "works": False,
    }  # fmt: skip
    return ProbeResult(**{**given, **changes})


def test_platforms_follow_from_the_c_library() -> None:
    """glibc 2.19 runs wheels for 2.19, 2.18 and 2.17, newest first; musl those of musllinux."""
    glibc = ["manylinux_2_19_aarch64", "manylinux_2_18_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert probe_result().interpreter.platforms == glibc
    assert probe_result(libc=("", "")).interpreter.platforms == ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64"]


def test_a_32_bit_python_is_refused(device: Device, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no wheels for 32-bit Arm: the answer says what there is."""
    monkeypatch.setattr(installing._Installer, "probe", lambda self: probe_result(bits=32, machine="armv7l"))
    with pytest.raises(DeviceError, match=r"32-bit one \(armv7l\).*64-bit system, or tflite-runtime 2.14"):
        install(device, profile_in(base), offline=True)


PROBE: dict[str, Any] = {
    "python": "3.11.2", "implementation": "CPython", "machine": "aarch64", "bits": 64, "libc": ["glibc", "2.36"],
    "free_bytes": 10**10, "noexec": False, "base": "/home/pi/.cache/edgenas", "works": False, "note": None,
}  # fmt: skip
INSTALLED = {"versions": {"onnxruntime": "1.0"}, "providers": {}, "skipped": {}, "asked": []}


def scripted(probe: object, installed: object = None, status: int = 0) -> FakeDevice:
    """A device whose install script prints these texts, or these values as JSON."""

    def handler(request: Request) -> Reply:
        answer = probe if json.loads(request.stdin)["action"] == "probe" else installed
        return Reply(answer if isinstance(answer, str) else json.dumps(answer), exit_status=status)

    return FakeDevice(handler)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"python": "3"}, "python: Predicate 'is_version' failed"),
        ({"python": "3.x"}, "python: Predicate 'is_version' failed"),
        ({"python": f"3.{'9' * 5000}"}, "python: Predicate 'is_version' failed"),
        ({"python": None}, "python: Input should be a valid string"),
        ({"machine": "--index-url=x y"}, "machine: Predicate 'is_word' failed"),
        ({"bits": 128}, "bits: Input should be 32 or 64"),
        ({"bits": "64"}, "bits: Input should be 32 or 64"),
        ({"libc": ["glibc", ""]}, "libc: '' is no version of glibc"),
        ({"libc": ["glibc", "2.1000000000"]}, "libc: '2.1000000000' is no version of glibc"),
        ({"libc": ["glibc"]}, r"libc\.1: Field required"),
        ({"libc": 3}, "libc: Input should be a valid"),
        ({"free_bytes": -1}, "free_bytes: Input should be greater than or equal to 0"),
        ({"free_bytes": 1e30}, "free_bytes: Input should be a valid integer"),
        ({"base": "/home/\x1b[2J"}, "base: Predicate 'str.isprintable' failed"),
        ({"works": 1}, "works: Input should be a valid boolean"),
        ({"note": {}}, r"note\.versions: Field required"),
        ({"note": []}, "note: Input should be an object"),
        ({"note": {**INSTALLED, "versions": {"onnxruntime": "\x1b[2J"}}}, r"note\.versions\.onnxruntime: Predicate"),
        ({"note": {**INSTALLED, "asked": [3]}}, r"note\.asked\.0: Input should be a valid array"),
        ({"more": 1}, "more: Unexpected keyword argument"),
    ],
)
def test_a_hostile_probe_is_a_device_error(base: Path, change: dict[str, Any], problem: str) -> None:
    """What the script says of the board is checked before anything is concluded from it."""
    with pytest.raises(DeviceError, match=rf"^board: answered nonsense \(.*{problem}") as error:
        install(scripted({**PROBE, **change}), profile_in(base))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "printed",
    ["null", "[]", "7", "hello\n", "[" * 100_000, '{"failed": "no"}', " " * (2 << 20)],
    ids=lambda text: text[:9],
)
def test_a_probe_that_is_none_is_a_device_error(base: Path, printed: str) -> None:
    """Other JSON than an answer, no JSON, and a flood are refused on one line."""
    with pytest.raises(DeviceError, match=r"^board: answered nonsense"):
        install(scripted(printed), profile_in(base))


@pytest.mark.parametrize(
    ("installed", "problem"),
    [
        ({**INSTALLED, "versions": {}}, "versions: onnxruntime is missing"),
        ({**INSTALLED, "versions": {"onnxruntime": 1}}, r"versions\.onnxruntime: Input should be a valid string"),
        ({**INSTALLED, "providers": {"onnxruntime": "all"}}, r"providers\.onnxruntime: Input should be a valid array"),
        ({**INSTALLED, "skipped": None}, "skipped: Input should be an object"),
        ({}, "versions: Field required"),
    ],
)
def test_a_hostile_installation_is_a_device_error(base: Path, installed: object, problem: str) -> None:
    """What the script says that it has installed is checked."""
    with pytest.raises(DeviceError, match=rf"^board: answered nonsense \(.*{problem}"):
        install(scripted(PROBE, installed), profile_in(base))


def test_a_reason_in_colours_is_printable(base: Path) -> None:
    """The script's own words are shown without what would move the cursor."""
    with pytest.raises(DeviceError, match=r"^board: \[31mno space; set another work_dir") as error:
        install(scripted({"failed": "\x1b[31mno space"}, status=3), profile_in(base))
    assert str(error.value).isprintable()


@pytest.mark.parametrize("change", [{"python": "3.7.16"}, {"implementation": "PyPy"}])
def test_an_interpreter_that_cannot_run_the_agent_is_refused(
    device: Device, base: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    """An old Python, or another than CPython, for which there are no wheels, is refused before anything is fetched."""
    monkeypatch.setattr(installing._Installer, "_run_script", lambda self, kind, request: probe_result(**change))
    with pytest.raises(DeviceError, match=r"install CPython 3\.8 or newer there, name one with --python, or bring one"):
        install(device, profile_in(base))


def test_a_python_that_does_not_answer_is_named(device: Device, base: Path) -> None:
    """An interpreter that is no Python is named with the remedy."""
    with pytest.raises(DeviceError, match=r"/bin/true there cannot be used \(status 0\); install Python 3\.8"):
        install_runtimes(device, profile_in(base), Deadline(60), python="/bin/true")


def test_a_setup_without_memory_is_not_blamed_on_python(base: Path) -> None:
    """A script that is killed by SIGKILL found too little memory; another Python would not help."""
    with pytest.raises(DeviceError, match=r"setup was killed by SIGKILL, .*; free memory there, then"):
        install_runtimes(scripted(PROBE, "", status=-9), profile_in(base), Deadline(60))


def test_the_script_runs_on_python_3_8() -> None:
    """The script that is sent has the syntax of Python 3.8 and imports the standard library only."""
    tree = ast.parse(Path(on_device.__file__).with_name("install.py").read_text(), feature_version=(3, 8))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.slow
def test_wheels_for_an_arm_board_are_fetched(tmp_path: Path) -> None:
    """From the real index come wheels for the board's processor, not for this one's."""
    runtimes = wheels.runtime_packages(profile_in(tmp_path), ())
    found = wheels.download_wheels(
        runtimes[0], probe_result(libc=("glibc", "2.36")).interpreter, tmp_path / "wheels", Deadline(300)
    )
    assert sorted(path.name.partition("-")[0] for path in found) == ["numpy", "onnxruntime"]
    assert all("cp311" in path.name and path.name.endswith("aarch64.whl") for path in found)
