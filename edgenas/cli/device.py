"""``edgenas device``: getting to know a board."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgenas.cli.common import JsonOption, RuntimeOption, ThreadsOption, make_target, print_json, print_table
from edgenas.errors import EdgeNASError, UsageError

if TYPE_CHECKING:
    from edgenas.devices.profile import Connection
    from edgenas.devices.ssh.known_hosts import HostKey

app = typer.Typer(help="Get to know a board: its profile, its host key, the runtimes on it.", no_args_is_help=True)

Profile = Annotated[str, typer.Argument(help="A device profile: its name or a YAML file.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="Record an unknown host key without asking.")]
# [v6], a bare v6 address, or a name; the first and the last with or without a port.
_ADDRESS = re.compile(
    r"(?:\[([^\]]+)\]|([0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*)|([^:\[\]-][^:\[\]]*))(?::(\d{1,5}))?"
)
_MARKS = {"ok": "ok", "warning": "WARNING", "failed": "FAILED", "not tried": "not tried"}


@app.command("list", epilog="Example: edgenas device list")
def list_(json: JsonOption = False) -> None:
    """List the device profiles: those shipped, and those in device_profiles here."""
    from edgenas.devices import Target, load_profile
    from edgenas.devices.profile_files import known_profiles

    rows: list[dict[str, Any]] = []
    table: list[tuple[str, str, str, str]] = []
    for name, path in known_profiles().items():
        try:
            profile = load_profile(name)
        except EdgeNASError as error:
            rows.append({"name": name, "file": str(path), "error": str(error)})
            table.append((name, "cannot be used", "", str(error)))
            continue
        target = Target(profile).name
        found = {"connection": profile.connection.kind, "cores": profile.cores, "target": target}
        rows.append({"name": name, **found, "file": str(path)})
        table.append((name, _address(profile.connection), str(profile.cores or "?"), target))
    if json:
        print_json({"profiles": rows})
    else:
        print_table(("profile", "connection", "cores", "default target"), table, texts=4)


@app.command(epilog="Example: edgenas device facts raspberry-pi-5")
def facts(profile: Profile, json: JsonOption = False) -> None:
    """Show what a device says about itself."""
    from edgenas.devices import load_profile
    from edgenas.pipeline.device_setup import facts as ask

    found = ask(load_profile(profile))
    if json:
        print_json(found)
    else:
        rows = [(key, "not given" if value is None else _fact(value)) for key, value in found.items()]
        print_table((profile, "says"), rows, texts=2)


@app.command(epilog="Example: edgenas device check raspberry-pi-5")
def check(
    profile: Profile, runtime: RuntimeOption = None, threads: ThreadsOption = None, json: JsonOption = False
) -> None:
    """Try everything that measuring will need; say what does not work and what mends it."""
    from edgenas.pipeline.device_check import check as try_all
    from edgenas.pipeline.device_check import passed

    target = make_target(profile, runtime, threads)
    checks = try_all(target)
    if json:
        print_json({"target": target.to_dict(), "passed": passed(checks), "checks": [asdict(each) for each in checks]})
    else:
        rows = [(each.name, _MARKS[each.status], each.found) for each in checks]
        print_table((target.name, "", "found"), rows, texts=3)
        for each in checks:
            if each.remedy:
                print(f"{each.name}: {each.remedy}")
        measure = f"next: edgenas measure MODEL --device {target.profile.cli_name}"
        print(measure if passed(checks) else "it cannot be measured on yet")
    if not passed(checks):
        raise typer.Exit(1)


@app.command(epilog="Example: edgenas device trust raspberry-pi-5")
def trust(
    profile: Profile,
    yes: Yes = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a changed host key without asking.")] = False,
) -> None:
    """Record a device's SSH host key after showing its fingerprint."""
    from edgenas.devices import load_profile
    from edgenas.pipeline.device_setup import trust as record_all

    recorded = record_all(load_profile(profile), lambda key: _confirm(key, yes, replace))
    for key in recorded:
        print(f"recorded the key of {key.host} in {key.own}")
    if not recorded:
        print(f"{profile}: its host key is known already")


@app.command(epilog="Example: edgenas device new my-board --host pi@raspberrypi.local")
def new(
    name: Annotated[str, typer.Argument(help="What to call the device.", show_default=False)],
    host: Annotated[str, typer.Option(help="user@host:port, or a name of ~/.ssh/config.")] = "",
    local: Annotated[bool, typer.Option("--local", help="This machine, instead of a host.")] = False,
    jump: Annotated[str, typer.Option(help="Jump hosts on the way, as for ssh -J.")] = "",
    identity_file: Annotated[str, typer.Option(help="The private key to log in with.")] = "",
    known_hosts: Annotated[str, typer.Option(help="The file of host keys; by default ssh's.")] = "",
    config_file: Annotated[str, typer.Option(help="The ssh configuration; by default the user's.")] = "",
    out: Annotated[Path | None, typer.Option(help="The file; by default device_profiles/NAME.yaml.")] = None,
    yes: Yes = False,
) -> None:
    """Ask a connected device what it is and write its profile."""
    from edgenas.pipeline.device_setup import new as write

    files = {"identity_file": identity_file, "known_hosts": known_hosts, "config_file": config_file}
    given = {key: _absolute(value) for key, value in files.items() if value} | ({"jump": jump} if jump else {})
    if local == bool(host) or (local and given):
        raise UsageError("give either --host user@host, with its options, or --local")
    connection = {"kind": "local"} if local else {"kind": "ssh", **_parse_host(host), **given}
    path = write(name, connection, lambda key: _confirm(key, yes, False), out)
    where = shlex.quote(str(out or name))
    print(f"wrote {path}\nnext: edgenas device {'check' if local else 'setup'} {where}")


@app.command(epilog="Example: edgenas device setup raspberry-pi-5")
def setup(
    profile: Profile,
    offline: Annotated[
        bool, typer.Option("--offline", help="Fetch wheels here, for a board without internet.")
    ] = False,
    wheel: Annotated[list[Path] | None, typer.Option(help="A wheel file to install instead of the index's.")] = None,
    python: Annotated[str, typer.Option(help="The interpreter on the board.")] = "python3",
    json: JsonOption = False,
) -> None:
    """Install the profile's runtimes on its board."""
    from edgenas.devices import load_profile
    from edgenas.pipeline.device_setup import setup as install

    loaded = load_profile(profile)
    done = install(
        loaded, offline=offline, wheels=wheel or (), python=python, say=lambda text: print(text, file=sys.stderr)
    )
    if json:
        print_json(asdict(done))
        return
    for runtime, version in done.versions.items():
        providers = done.providers.get(runtime)
        print(f"{runtime} {version}{f' with {chr(44).join(providers)}' if providers else ''}, {done.how}")
    for runtime, reason in done.skipped.items():
        print(f"{runtime}: left out ({reason})")
    print(f"python: {done.python}\nnext: edgenas device check {loaded.cli_name}")


def _confirm(key: HostKey, yes: bool, replace: bool) -> bool:
    """Show a host key and ask whether it is the device's."""
    print(f"{key.host} shows the {key.type} key {key.fingerprint}")
    changed = key.state == "changed"
    if changed:
        place = f"{key.file}:{key.line}" if key.line else str(key.file)
        print(f"That is ANOTHER key than the one in {place}: a new system on the board, or somebody in between.")
    if replace if changed else yes:
        return True
    try:
        return typer.confirm("Is it the device's own?", default=False)
    except typer.Abort:
        print()
        return False


def _parse_host(text: str) -> dict[str, Any]:
    """``user@host:port``; an IPv6 address with a port stands in brackets. Raises UsageError."""
    user, _, address = text.rpartition("@")
    match = _ADDRESS.fullmatch(address)
    if match is None or any(letter.isspace() for letter in text):
        raise UsageError(f"--host must be user@host or user@host:port, but got {text!r}")
    bracketed, bare, host, port = match.groups()
    found: dict[str, Any] = {"host": bracketed or bare or host}
    return {**found, **({"user": user} if user else {}), **({"port": int(port)} if port else {})}


def _absolute(path: str) -> str:
    """A path that means the same from any folder; one below the home folder stays so."""
    return path if path.startswith("~") else str(Path(path).absolute())


def _address(connection: Connection) -> str:
    return " ".join([connection.kind, *filter(None, [getattr(connection, "host", None)])])


def _fact(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "; ".join(", ".join(f"{key} {part}" for key, part in each.items() if part is not None) for each in value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
