"""What the user's ssh configuration says about a machine, asked of ``ssh -G``, which reads it exactly."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from edgenas.devices.contract import Deadline
from edgenas.errors import DeviceError

_KEY_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa")
_TOKEN = re.compile(r"%(.?)")


class SshOptions:
    """The values that ssh would use for a machine; its defaults where no ssh client is installed here.

    Args:
        host: The machine's name, as on ssh's command line.
        config_file: An ssh configuration instead of the user's.
        user: A user that goes before the configuration's.
        port: A port that goes before the configuration's.
        deadline: The time for reading the configuration.

    Raises:
        DeviceError: ssh refuses its configuration, or ``config_file`` cannot be read.
    """

    def __init__(
        self, host: str, config_file: str | None, user: str | None, port: int | None, deadline: Deadline
    ) -> None:
        self._host, self._deadline = host, deadline
        self._command: list[str] = []
        program = shutil.which("ssh")
        if program is None:
            if config_file:
                raise DeviceError(f"{config_file}: needs an ssh client to be read; install openssh-client here")
            self._values = {"identityfile": [f"~/.ssh/{name}" for name in _KEY_NAMES]}
            return
        self._command = [program, "-G"]
        path = str(expand_home(config_file)) if config_file else None
        for flag, value in (("-F", path), ("-l", user), ("-p", port)):
            if value is not None:
                self._command += [flag, str(value)]
        self._values = self._query()

    def first(self, keyword: str) -> str | None:
        """Return the first value of a keyword in lower case, None without one."""
        return next(iter(self._values.get(keyword, [])), None)

    def paths(self, keyword: str) -> tuple[Path, ...]:
        """Return the files of a keyword with one path a line, in order, with ``~``, tokens and variables replaced."""
        texts = (text for text in self._values.get(keyword, []) if text != "none")
        return tuple(dict.fromkeys(map(self._expand_path, texts)))

    def expand_proxy(self, keyword: str, tokens: Mapping[str, str]) -> str | None:
        """Return the value of ProxyCommand or ProxyJump with its tokens replaced, None without one or for ``none``.

        Raises:
            DeviceError: It has another token.
        """

        def replace(token: re.Match[str]) -> str:
            if token[1] not in tokens:
                known = ", ".join(f"%{letter}" for letter in tokens)
                raise DeviceError(
                    f"{self._host}: {keyword} has the token {token[0]}, but takes {known} only;"
                    " correct ~/.ssh/config or config_file"
                )
            return tokens[token[1]]

        value = self.first(keyword.lower())
        return None if value in (None, "none") else _TOKEN.sub(replace, value)

    def _expand_path(self, text: str) -> Path:
        """Return a path as ssh expands it. ``ssh -G`` prints some as they stand, but always expands ControlPath."""
        if "%" in text or "${" in text:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            text = self._query("-o", f'ControlPath="{quoted}"')["controlpath"][0]
        return expand_home(text)

    def _query(self, *options: str) -> dict[str, list[str]]:
        """Return what ``ssh -G`` prints: the values of each keyword, in order."""
        values: dict[str, list[str]] = {}
        for line in self._run([*self._command, *options, "--", self._host]).splitlines():
            keyword, _, text = line.partition(" ")
            values.setdefault(keyword.lower(), []).append(text.strip())
        return values

    def _run(self, command: list[str]) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - an argument list, no shell
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._deadline.seconds_left,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"{self._host}: ssh -G did not end in time; look for a slow Match exec in ~/.ssh/config"
            ) from None
        if done.returncode:
            reason = " ".join(done.stderr.split())[:400]
            raise DeviceError(
                f"{self._host}: ssh refuses its configuration ({reason}); correct ~/.ssh/config or config_file"
            )
        return done.stdout


def expand_home(path: str) -> Path:
    """Return a path with its ``~`` replaced, which is the home folder of the user's account as it is to ssh.

    Raises:
        DeviceError: It is the home folder of an unknown user.
    """
    try:
        if path == "~" or path.startswith("~/"):
            return Path(pwd.getpwuid(os.getuid()).pw_dir + path[1:])
        return Path(path).expanduser()
    except (KeyError, RuntimeError):
        raise DeviceError(f"{path}: there is no such user here; correct the profile or ~/.ssh/config") from None
