"""Fixtures of the tests of SSH."""

from __future__ import annotations

from pathlib import Path

import pytest

RELAY = """
import os, select, socket, sys
host, port, *more = sys.argv[1:]
there = socket.create_connection((host, int(port)))
if more == ["pass"]:
    socket.send_fds(socket.socket(fileno=1), [b"x"], [there.fileno()])
    sys.exit()
for path in more:
    with open(path, "w") as file:
        file.write(str(os.getpid()))
while True:
    for source in select.select([0, there], [], [])[0]:
        data = os.read(0, 65536) if source == 0 else there.recv(65536)
        if not data:
            sys.exit()
        os.write(1, data) if source is there else there.sendall(data)
"""


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ProxyCommand's program: copies between its standard streams and ``HOST PORT``.

    With ``pass`` after these it passes the connected socket instead; any other
    word is a file that it writes its process number into.
    """
    script = tmp_path_factory.mktemp("relay") / "relay.py"
    script.write_text(RELAY)
    return script
