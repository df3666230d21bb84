"""Addresses over SSH: the profile's connection and the user's ssh configuration."""

from __future__ import annotations

import getpass
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgenas.devices import Deadline, load_profile
from edgenas.devices.profile import DeviceProfile
from edgenas.devices.profile_files import profile_from_dict
from edgenas.devices.ssh.config import Endpoint, SshConnection, resolve_endpoint
from edgenas.errors import DeviceError, UsageError


def profile(**connection: Any) -> DeviceProfile:
    data = load_profile("localhost").to_dict()
    return profile_from_dict({**data, "connection": {"kind": "ssh", **connection}}, "test")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh client is installed here")
    return tmp_path / "config"


def resolved(config: Path, text: str, **connection: Any) -> Endpoint:
    config.write_text(text)
    return resolve_endpoint(SshConnection(kind="ssh", config_file=str(config), **connection), Deadline(30))


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        ({}, "host"),
        ({"host": "board", "pasword": "x"}, "unknown key 'pasword'"),
        ({"host": "board", "password": "x"}, "unknown key 'password'"),
        ({"host": "-oProxyCommand=x"}, "connection.host must be"),
        ({"host": "a b"}, "connection.host must be"),
        ({"host": ""}, "connection.host must be"),
        ({"host": "board", "user": "-x"}, "connection.user must be"),
        ({"host": "board", "user": "x\\"}, "connection.user must be"),
        ({"host": "board", "port": 0}, "connection.port must be from 1 to 65535, but got 0"),
        ({"host": "board", "port": 65536}, "connection.port must be"),
        ({"host": "board", "jump": "a,,b"}, "connection.jump must be user@host:port"),
        ({"host": "board", "jump": "-oX"}, "connection.host must be"),
        ({"host": "board", "jump": "a:99999"}, "connection.port must be"),
    ],
)
def test_a_wrong_connection_is_refused(connection: dict[str, Any], message: str) -> None:
    """Unknown keys, passwords, and names that ssh would take for options are refused by name."""
    with pytest.raises(UsageError, match=re.escape(message)):
        profile(**connection)


def test_only_the_host_is_needed() -> None:
    """Everything else is left to ssh's configuration."""
    assert profile(host="board").connection == SshConnection(kind="ssh", host="board")


def test_a_name_of_the_configuration_is_resolved(config: Path) -> None:
    """Host name, port, user, key and the name in known_hosts come from the user's configuration."""
    text = (
        "Host board\n HostName 10.0.0.5\n Port 2222\n User pi\n IdentityFile ~/.ssh/board\n IdentitiesOnly yes\n"
        " HostKeyAlias lab-board\n UserKnownHostsFile /lab/known /lab/more\n GlobalKnownHostsFile none\n"
    )
    endpoint = resolved(config, text, host="board")
    assert (endpoint.host, endpoint.port, endpoint.user) == ("10.0.0.5", 2222, "pi")
    assert endpoint.identity_files == (Path("~/.ssh/board").expanduser(),)
    assert endpoint.identities_only
    assert endpoint.host_key_alias == "lab-board"
    assert endpoint.known_hosts == (Path("/lab/known"), Path("/lab/more"))
    assert endpoint.jump_host is None


def test_the_profile_goes_before_the_configuration(config: Path) -> None:
    """The profile's values win, and Match blocks see them."""
    text = "Match user root\n HostName 10.0.0.6\nHost board\n HostName 10.0.0.5\n Port 2222\n User pi\n"
    endpoint = resolved(config, text, host="board", user="root", port=22, known_hosts="~/known", identity_file="~/key")
    assert (endpoint.host, endpoint.port, endpoint.user) == ("10.0.0.6", 22, "root")
    assert endpoint.known_hosts == (Path("~/known").expanduser(),)
    assert endpoint.identity_file == Path("~/key").expanduser()


def test_paths_with_blanks_stay_whole(config: Path) -> None:
    """ssh prints lists of files without quotes; a blank inside a path is no end of it."""
    text = 'UserKnownHostsFile "/lab/known hosts" ~/more "~/and more"\nGlobalKnownHostsFile "/etc/all hosts"\n'
    files = resolved(config, text, host="board").known_hosts
    home = Path.home()
    assert files == (Path("/lab/known hosts"), home / "more", home / "and more", Path("/etc/all hosts"))


def test_without_an_own_file_none_is_recorded_in(config: Path) -> None:
    """UserKnownHostsFile none leaves the machine's file to be read, not to be written."""
    endpoint = resolved(config, "UserKnownHostsFile none\nGlobalKnownHostsFile /etc/known\n", host="board")
    assert endpoint.known_hosts == (Path("/dev/null"), Path("/etc/known"))


def test_tokens_and_variables_are_replaced(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of keys, certificates and host keys, and the agent, take all tokens of ssh_config(5) and variables."""
    monkeypatch.setenv("LAB", "my lab")
    host = "Host board\n HostName 10.0.0.5\n Port 2222\n User pi\n HostKeyAlias lab-board\n"
    text = '"%d/.ssh/${LAB} %r@%h:%p-%n-%k-%u-%i-%%"'
    files = f" IdentityFile {text}\n CertificateFile {text}\n UserKnownHostsFile {text}\n IdentityAgent {text}\n"
    endpoint = resolved(config, host + files, host="board")
    user = f"{getpass.getuser()}-{os.getuid()}"
    path = Path.home() / ".ssh" / f"my lab pi@10.0.0.5:2222-board-lab-board-{user}-%"
    assert endpoint.identity_files == endpoint.certificate_files == (path,)
    assert (endpoint.known_hosts[0], endpoint.agent) == (path, str(path))


def test_an_unset_variable_is_named(config: Path) -> None:
    """A path with a variable that is not set is refused in ssh's own words."""
    with pytest.raises(DeviceError, match=r"ssh refuses its configuration \(.*NO_SUCH_VARIABLE"):
        resolved(config, "IdentityFile ~/${NO_SUCH_VARIABLE}\n", host="board")


@pytest.mark.parametrize(
    ("agent", "expected"),
    [("none", None), ("SSH_AUTH_SOCK", "/run/agent"), ("$LAB_AGENT", "/run/lab"), ("/run/x", "/run/x"), ("run", "run")],
)
def test_the_agent_is_a_path_or_a_variable(
    config: Path, agent: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IdentityAgent names a socket, or the variable that does, or that there is none."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("LAB_AGENT", "/run/lab")
    assert resolved(config, f"IdentityAgent {agent}\n", host="board").agent == expected


def test_the_home_folder_is_that_of_the_account(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As to ssh, ~ is the account's home folder, not HOME."""
    home = Path.home()
    monkeypatch.setenv("HOME", "/elsewhere")
    assert resolved(config, "IdentityFile ~/key\n", host="board").identity_files == (home / "key",)


def test_the_home_of_nobody_is_refused(config: Path) -> None:
    """A path in the home folder of a user that is not there is named."""
    with pytest.raises(DeviceError, match="~nobody-here/key: there is no such user here"):
        resolved(config, "", host="board", identity_file="~nobody-here/key")


def test_included_files_are_read(config: Path, tmp_path: Path) -> None:
    """ssh itself reads its configuration, so Include works."""
    (tmp_path / "more").write_text("Host board\n HostName 10.0.0.7\n")
    assert resolved(config, f"Include {tmp_path}/more\n", host="board").host == "10.0.0.7"


def test_jump_hosts_are_in_order(config: Path) -> None:
    """The last one of a list is next to the device, and is reached by way of those before it."""
    endpoint = resolved(config, "Host inner\n User me\n", host="board", jump="you@outer:2222,inner")
    assert endpoint.jump_host is not None
    assert (endpoint.jump_host.host, endpoint.jump_host.jump) == ("inner", "you@outer:2222")
    before = resolve_endpoint(endpoint.jump_host, Deadline(30))
    assert before.user == "me"
    assert before.jump_host is not None
    assert (before.jump_host.user, before.jump_host.host, before.jump_host.port) == ("you", "outer", 2222)


def test_proxyjump_of_the_configuration_is_followed(config: Path) -> None:
    """A device that the configuration puts behind a jump host is reached by way of it."""
    endpoint = resolved(config, "Host board\n ProxyJump me@gate\n", host="board")
    assert endpoint.jump_host is not None
    assert (endpoint.jump_host.user, endpoint.jump_host.host) == ("me", "gate")


def test_tokens_of_proxyjump_are_replaced(config: Path) -> None:
    """The jump host may be named after the device."""
    endpoint = resolved(config, "Host board\n HostName 10.0.0.5\n User pi\n ProxyJump %r@gate-%n\n", host="board")
    assert endpoint.jump_host is not None
    assert (endpoint.jump_host.user, endpoint.jump_host.host) == ("pi", "gate-board")


def test_tokens_of_a_proxycommand_are_replaced(config: Path) -> None:
    """%%, %h, %k, %n, %p and %r are replaced; variables are left to the shell."""
    text = "Host board\n HostName 10.0.0.5\n User pi\n HostKeyAlias lab\n ProxyCommand go %h %k %n %p %r %% ${X}\n"
    endpoint = resolved(config, text, host="board")
    assert endpoint.proxy_command == "go 10.0.0.5 lab board 22 pi % ${X}"


def test_an_unknown_token_is_named(config: Path) -> None:
    """A token that a ProxyCommand does not take is refused, as by ssh."""
    with pytest.raises(DeviceError, match=r"ProxyCommand has the token %d, but takes .*%h.*; correct ~/.ssh/config"):
        resolved(config, "ProxyCommand go %d\n", host="board")


@pytest.mark.parametrize("jump", ["gate", "none"])
def test_a_jump_host_goes_before_a_proxycommand(config: Path, jump: str) -> None:
    """As with ssh -J, the profile's jump takes the place of a ProxyCommand."""
    assert resolved(config, "ProxyCommand go\n", host="board", jump=jump).proxy_command is None


def test_a_broken_configuration_is_named(config: Path) -> None:
    """ssh's own words say what is wrong with its configuration."""
    with pytest.raises(DeviceError, match=r"ssh refuses its configuration \(.*line 1.*\)"):
        resolved(config, "Nonsense yes\n", host="board")


def test_a_loop_of_jump_hosts_ends(config: Path) -> None:
    """A machine that is reached by way of itself is refused."""
    from edgenas.devices.ssh.connection import fetch_host_key

    config.write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    with pytest.raises(DeviceError, match="by way of itself"):
        fetch_host_key(SshConnection(kind="ssh", host="a", config_file=str(config)), Deadline(30))


def test_without_an_ssh_client_the_usual_values_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an ssh client port 22 and the usual keys are used, and a config_file cannot be read."""
    monkeypatch.setenv("PATH", "")
    endpoint = resolve_endpoint(SshConnection(kind="ssh", host="board", user="pi"), Deadline(30))
    assert (endpoint.host, endpoint.port, endpoint.known_hosts[0].name) == ("board", 22, "known_hosts")
    assert endpoint.identity_files[0].name == "id_ed25519"
    with pytest.raises(DeviceError, match="install openssh-client"):
        resolve_endpoint(SshConnection(kind="ssh", host="board", config_file="config"), Deadline(30))
