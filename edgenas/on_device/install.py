"""Makes a virtual environment with the runtimes on the device. Sent there as a file by edgenas.devices.setup.

Python 3.8 and its standard library only; never imports edgenas. Standard
input: one JSON line with ``action``; standard output: one JSON line. Where it
could not be done that has ``failed`` alone, and the exit status is 3. Nothing
at the environment's place changes before the new one works.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

NOTE = "edgenas.json"
PIP_SECONDS = "15"
REFUSED_STATUS = 3


class RefusedError(Exception):
    """The request cannot be fulfilled; the message says why."""


def clean_up_and_probe(request: dict[str, Any]) -> dict[str, Any]:
    """Return what decides which wheels fit, and what an earlier call has installed."""
    base = Path(request["base"]).expanduser()
    base.mkdir(parents=True, exist_ok=True)
    venv = base / "venv"
    for leftover in ("venv.new", "venv.old"):
        shutil.rmtree(base / leftover, ignore_errors=True)
    checks = request["checks"]
    note = read_note(venv, checks)
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "machine": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "libc": list(platform.libc_ver()),
        "free_bytes": shutil.disk_usage(base).free,
        "noexec": bool(os.statvfs(base).f_flag & getattr(os, "ST_NOEXEC", 0)),
        "base": str(base),
        "note": note,
        "works": note is not None and not any(try_import_runtime(venv, checks[name])[1] for name in note["versions"]),
    }


def read_note(venv: Path, checks: dict[str, str]) -> dict[str, Any] | None:
    """Return what ``install_environment`` noted of the environment; None where that is nothing about these runtimes."""
    try:
        note = json.loads((venv / NOTE).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    kinds = {"versions": dict, "providers": dict, "skipped": dict, "asked": list}
    if not isinstance(note, dict) or {key: type(value) for key, value in note.items()} != kinds:
        return None
    texts = [
        list(note["versions"].values()),
        list(note["skipped"].values()),
        *note["providers"].values(),
        *note["asked"],
    ]
    if not all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in texts):
        return None
    return note if set(note["versions"]) <= set(checks) else None


def install_environment(request: dict[str, Any]) -> dict[str, Any]:
    """Make an environment with these runtimes, from wheel files or by pip; it replaces the old one if it works."""
    target = Path(request["base"]).expanduser() / "venv"
    fresh = target.with_name("venv.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        site = create_venv_site_packages(fresh)
        done: dict[str, Any] = {"versions": {}, "providers": {}, "skipped": request["skipped"]}
        for runtime in request["runtimes"]:
            install_runtime_or_skip(runtime, fresh, site, done, request["required"])
        done["asked"] = request["asked"]
        (fresh / NOTE).write_text(json.dumps(done))
        replace_environment(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return done


def install_runtime_or_skip(
    runtime: dict[str, Any], venv: Path, site: Path, done: dict[str, Any], required: str
) -> None:
    """Install one runtime; one that is not required and cannot be installed is noted as skipped."""
    name = runtime["name"]
    try:
        if "wheels" in runtime:
            for wheel in runtime["wheels"]:
                unpack_wheel(wheel, site)
        else:
            install_by_pip(runtime["requirements"], site)
        output, problem = try_import_runtime(venv, runtime["check"])
        if problem:
            raise RefusedError(f"{name} was installed and cannot be imported ({problem})")
    except RefusedError as error:
        if name == required:
            raise
        done["skipped"][name] = str(error)
        return
    done["versions"][name], *done["providers"][name] = output.split()


def create_venv_site_packages(folder: Path) -> Path:
    """Make an empty environment and return its packages' folder, without pip and ensurepip, which Debian splits off."""
    try:
        import venv
    except ImportError:
        raise RefusedError("python3 has no module venv; run there: sudo apt-get install python3-venv") from None
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    return folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def install_by_pip(choices: list[list[str]], site: Path) -> None:
    """Install the first of these lists of requirements that pip can install."""
    if importlib.util.find_spec("pip") is None:
        raise RefusedError("python3 there has no pip")
    options = ["--no-deps", "--only-binary=:all:", "--upgrade", "--quiet", "--no-input", "--disable-pip-version-check"]
    limits = ["--retries", "0", "--timeout", PIP_SECONDS]
    problem = ""
    for requirements in choices:
        command = [sys.executable, "-m", "pip", "install", *options, *limits, "--target", str(site), *requirements]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)  # noqa: S603 - a list
        if done.returncode == 0:
            return
        problem = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), "it failed")
    raise RefusedError(f"pip there: {problem}")


def unpack_wheel(wheel: str, site: Path) -> None:
    """Unpack a wheel, which is a zip file: its packages, and those in its data folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)  # zipfile lets no member out of the folder
    for data in site.glob("*.data"):
        for part in (data / "purelib", data / "platlib"):
            if part.is_dir():
                shutil.copytree(part, site, dirs_exist_ok=True)
        shutil.rmtree(data)


def try_import_runtime(venv: Path, program: str) -> tuple[str, str]:
    """Run a program that imports a runtime in the environment and prints its version and providers.

    That shows that its wheel fits. Return the output and the problem, empty where there is none.
    """
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    command = [str(venv / "bin" / "python"), "-I", "-c", program]
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, no shell
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
        )
    except OSError as error:
        return "", str(error)
    problem = done.stderr.strip().rpartition("\n")[2] or f"status {done.returncode}"
    return done.stdout, "" if done.returncode == 0 else problem


def replace_environment(fresh: Path, target: Path) -> None:
    """Replace the old environment by the new one."""
    old = target.with_name("venv.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists() or target.is_symlink():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def main() -> int:
    """Answer the request on standard input; return the exit status."""
    request = json.loads(sys.stdin.readline())
    actions = {"probe": clean_up_and_probe, "install": install_environment}
    try:
        print(json.dumps(actions[request["action"]](request)))
    except (RefusedError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        print(json.dumps({"failed": " ".join(str(error).split())}))
        return REFUSED_STATUS
    return 0


if __name__ == "__main__":
    sys.exit(main())
