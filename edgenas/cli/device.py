"""The commands of ``edgenas device``: profiles, host keys, facts, checks and set-up of a board."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgenas.cli.common import (
    JsonOption,
    RuntimeOption,
    ThreadsOption,
    load_target,
    print_json,
    print_lines,
    print_table,
)
from edgenas.errors import EdgeNASError, ExitCode, UsageError
from edgenas.shell import format_command

if TYPE_CHECKING:
    from edgenas.devices.ssh.known_hosts import HostKey

app = typer.Typer(help="Get to know a board: its profile, its host key, the runtimes on it.", no_args_is_help=True)

Profile = Annotated[str, typer.Argument(help="A device profile: its name or a YAML file.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Record an unknown host key without asking.")]
# [v6] or a name, each with or without a port, or a bare v6 address.
_ADDRESS = re.compile(
    r"(?:\[([^\]]+)\]|([0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*)|([^:\[\]-][^:\[\]]*))(?::(\d{1,5}))?"
)
_STATUS_LABELS = {"ok": "ok", "warning": "WARNING", "failed": "FAILED", "not tried": "not tried"}


@app.command("list", epilog="Example: edgenas device list")
def list_profiles(json: JsonOption = False) -> None:
    """List the device profiles: those shipped, and those in device_profiles here."""
    from edgenas.devices import Target, load_profile
    from edgenas.devices.profile_files import profile_files_by_name

    rows: list[dict[str, Any]] = []
    table: list[tuple[str, str, str, str]] = []
    for name, path in profile_files_by_name().items():
        try:
            profile = load_profile(name)
        except EdgeNASError as error:
            rows.append({"name": name, "file": str(path), "error": str(error)})
            table.append((name, "cannot be used", "", str(error)))
            continue
        target = Target(profile).name
        kind, cores = profile.connection.kind, profile.cores
        row = {"name": name, "connection": kind, "cores": cores, "target": target, "file": str(path)}
        rows.append({**row, "notes": profile.notes})
        address = getattr(profile.connection, "host", None) or getattr(profile.connection, "serial", None)
        table.append((name, f"{kind} {address}" if address else kind, str(cores or "?"), target))
    if json:
        print_json({"profiles": rows})
    else:
        print_table(("profile", "connection", "cores", "default target"), table, texts=4)


@app.command("show", epilog="Example: edgenas device show pixel-8")
def show_profile(profile: Profile, json: JsonOption = False) -> None:
    """Show a device profile, with the documents it was checked against; nothing is connected to."""
    from edgenas.devices import load_profile

    data = {key: value for key, value in load_profile(profile).to_dict().items() if value not in (None, {}, "")}
    if json:
        print_json(data)
    else:
        notes = data.pop("notes", "")
        print_table(("key", "value"), [(key, _format_value(value)) for key, value in data.items()], texts=2)
        if notes:
            print_lines("", notes)


@app.command("facts", epilog="Example: edgenas device facts raspberry-pi-5")
def show_facts(profile: Profile, json: JsonOption = False) -> None:
    """Show what a device says about itself."""
    from edgenas.devices import load_profile
    from edgenas.pipeline.device_setup import read_device_facts

    facts = read_device_facts(load_profile(profile))
    if json:
        print_json(facts)
    else:
        rows = [(key, "not given" if value is None else _format_fact(value)) for key, value in facts.items()]
        print_table((profile, "says"), rows, texts=2)


@app.command("check", epilog="Example: edgenas device check raspberry-pi-5")
def check_profile(
    profile: Profile, runtime: RuntimeOption = None, threads: ThreadsOption = None, json: JsonOption = False
) -> None:
    """Try each step that measuring needs; print what fails and how to fix it."""
    from edgenas.pipeline.device_check import all_passed, check_device

    target = load_target(profile, runtime, threads)
    results = check_device(target)
    passed = all_passed(results)
    if json:
        print_json({"target": target.to_dict(), "passed": passed, "checks": [asdict(result) for result in results]})
    else:
        rows = [(result.name, _STATUS_LABELS[result.status], result.found) for result in results]
        print_table((target.name, "", "found"), rows, texts=3)
        for result in results:
            if result.remedy:
                print_lines(f"{result.name}: {result.remedy}")
        measure = f"next: {format_command('measure', 'MODEL')} --device {target.cli_name}"
        print_lines(measure if passed else "it cannot be measured on yet")
    if not passed:
        raise typer.Exit(ExitCode.FAILED)


@app.command("trust", epilog="Example: edgenas device trust raspberry-pi-5")
def trust_profile(
    profile: Profile,
    yes: Yes = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a changed host key without asking.")] = False,
) -> None:
    """Record a device's SSH host key after showing its fingerprint."""
    from edgenas.devices import load_profile
    from edgenas.pipeline.device_setup import trust_host_keys

    recorded = trust_host_keys(load_profile(profile), lambda key: _confirm_host_key(key, yes, replace))
    for key in recorded:
        print_lines(f"recorded the key of {key.host} in {key.own_file}")
    if not recorded:
        print_lines(f"{profile}: its host key is known already")


@app.command("new", epilog="Example: edgenas device new my-board --host pi@raspberrypi.local")
def new_profile(
    name: Annotated[str, typer.Argument(help="What to call the device.", show_default=False)],
    host: Annotated[str, typer.Option(help="user@host:port, or a name of ~/.ssh/config.")] = "",
    local: Annotated[bool, typer.Option("--local", help="This machine, instead of a host.")] = False,
    adb: Annotated[str, typer.Option(help="A phone, by its serial number of adb devices.")] = "",
    jump: Annotated[str, typer.Option(help="Jump hosts on the way, as for ssh -J.")] = "",
    identity_file: Annotated[str, typer.Option(help="The private key to log in with.")] = "",
    known_hosts: Annotated[str, typer.Option(help="The file of host keys; by default ssh's.")] = "",
    config_file: Annotated[str, typer.Option(help="The ssh configuration; by default the user's.")] = "",
    out: Annotated[Path | None, typer.Option(help="The file; by default device_profiles/NAME.yaml.")] = None,
    yes: Yes = False,
) -> None:
    """Ask a connected device what it is and write its profile."""
    from edgenas.pipeline.device_setup import create_profile

    files = {"identity_file": identity_file, "known_hosts": known_hosts, "config_file": config_file}
    ssh_options = {key: _absolute_path(value) for key, value in files.items() if value}
    if jump:
        ssh_options["jump"] = jump
    if [local, bool(host), bool(adb)].count(True) != 1 or (ssh_options and not host):
        raise UsageError("give one of --host user@host, with its options, --adb SERIAL and --local")
    if adb:
        connection = {"kind": "adb", "serial": adb}
    else:
        connection = {"kind": "local"} if local else {"kind": "ssh", **_parse_host(host), **ssh_options}
    path = create_profile(name, connection, lambda key: _confirm_host_key(key, yes, False), out)
    print_lines(f"wrote {path}", f"next: {format_command('device', 'check' if local else 'setup', out or name)}")


@app.command("setup", epilog="Example: edgenas device setup raspberry-pi-5")
def set_up_profile(
    profile: Profile,
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch wheels here, for a board without internet.")
    ] = False,
    wheel: Annotated[list[Path] | None, typer.Option(help="A wheel file to install instead of the index's.")] = None,
    python: Annotated[str, typer.Option(help="The interpreter on the board.")] = "python3",
    self_contained: Annotated[
        bool, typer.Option("--self-contained", help="Bring Python along; so is done by itself where there is none.")
    ] = False,
    userland: Annotated[
        Path | None, typer.Option(help="A self-contained runtime packed by this command on a Debian machine.")
    ] = None,
    benchmark_model: Annotated[
        Path | None, typer.Option(help="LiteRT's benchmark_model, for a profile that measures by it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Install the profile's runtimes on its board."""
    from edgenas.devices import load_profile
    from edgenas.pipeline.device_setup import set_up_device
    from edgenas.pipeline.progress import Progress

    loaded = load_profile(profile)
    installed = set_up_device(
        loaded,
        offline=offline,
        wheels=wheel or (),
        python=python,
        self_contained=self_contained,
        userland=userland,
        benchmark_model=benchmark_model,
        progress=Progress(sys.stderr),
        say=lambda text: print_lines(text, file=sys.stderr),
    )
    if json:
        print_json(asdict(installed))
        return
    for runtime, version in installed.versions.items():
        providers = installed.providers.get(runtime)
        print_lines(f"{runtime} {version}{f' with {chr(44).join(providers)}' if providers else ''}, {installed.how}")
    for runtime, reason in installed.skipped.items():
        print_lines(f"{runtime}: skipped ({reason})")
    if installed.python:
        print_lines(f"python: {installed.python}", f"next: {format_command('device', 'check')} {loaded.cli_name}")
    else:
        print_lines(f"next: {format_command('measure', 'MODEL.tflite', '--device')} {loaded.cli_name}")


def _confirm_host_key(key: HostKey, yes: bool, replace: bool) -> bool:
    """Print a host key and return whether the user, or an option, says that it is the device's."""
    print_lines(f"{key.host} shows the {key.type} key {key.fingerprint}")
    is_changed = key.state == "changed"
    if is_changed:
        place = f"{key.file}:{key.line}" if key.line else str(key.file)
        print_lines(f"That is ANOTHER key than the one in {place}: a new system on the board, or somebody in between.")
    if replace if is_changed else yes:
        return True
    try:
        return input("Is it the device's own? [y/N]: ").strip().lower() in ("y", "yes")
    except EOFError:
        print_lines("")
        return False


def _parse_host(text: str) -> dict[str, Any]:
    """Parse ``user@host:port`` into keys of a connection. An IPv6 address with a port stands in brackets."""
    user, _, address = text.rpartition("@")
    match = _ADDRESS.fullmatch(address)
    if match is None or any(letter.isspace() for letter in text):
        raise UsageError(f"--host must be user@host or user@host:port, but got {text!r}")
    bracketed, bare, host, port = match.groups()
    parts = {"host": bracketed or bare or host, "user": user, "port": int(port) if port else None}
    return {key: value for key, value in parts.items() if value not in (None, "")}


def _absolute_path(path: str) -> str:
    """Return a path that means the same from any folder. A path that begins with ~ stays as it is."""
    return path if path.startswith("~") else str(Path(path).absolute())


def _format_value(value: object) -> str:
    """Return a value of a profile on one line, without what it leaves open."""
    if isinstance(value, dict):
        given = {key: part for key, part in value.items() if part not in (None, {})}
        return ", ".join(f"{key} {_format_value(part)}" for key, part in given.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def _format_fact(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    if not all(isinstance(item, dict) for item in value):
        return ", ".join(map(str, value))
    return "; ".join(", ".join(f"{key} {part}" for key, part in item.items() if part is not None) for item in value)
