"""Downloads by name, from a file server of this test's own."""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path

import pytest

from edgenas.errors import EdgeNASError, FormatError, RunError, UsageError
from edgenas.pipeline.downloads import OFFICIAL, fetch
from edgenas.pipeline.progress import Silent
from tests.fixtures.file_server import FileServer

NAME = "ofa_resnet50"
CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def server(file_server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FileServer:
    """A running file server, named as the mirror; the cache is a new folder."""
    file_server.content = CONTENT
    monkeypatch.setenv("EDGENAS_MIRROR", file_server.address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return file_server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of cached files."""
    return tmp_path / "edgenas" / "checkpoints"


def get(mirror: str | None = None) -> bytes:
    return fetch(NAME, mirror, Silent()).read_bytes()


def break_off(server: FileServer, after: int) -> None:
    """Let a download break off after so many bytes, and mend the server."""
    server.sends = after
    with pytest.raises(EdgeNASError, match=f"broke off after {after} of {len(server.content)} bytes"):
        get()
    server.sends = 1 << 30


def test_file_is_downloaded_once(server: FileServer, cache: Path) -> None:
    """The first use downloads the file of the name, whose checksum is recorded beside it; the second only reads it."""
    assert [get(), get()] == [CONTENT, CONTENT]
    assert server.asked == [(f"/nets/{OFFICIAL[NAME]}", None)]
    assert (cache / f"{NAME}.sha256").read_text().strip() == hashlib.sha256(CONTENT).hexdigest()
    assert sorted(path.name for path in cache.iterdir()) == [NAME, f"{NAME}.lock", f"{NAME}.sha256"]


def test_mirror_goes_before_the_environment(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that is named is asked, not that of the environment; a slash at its end changes nothing."""
    monkeypatch.setenv("EDGENAS_MIRROR", "http://127.0.0.1:1")
    assert get(f"{server.address}/") == CONTENT


def test_broken_download_is_resumed(server: FileServer) -> None:
    """What arrived before the connection broke is not asked for again."""
    break_off(server, 1000)
    assert get() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-"]


def test_download_broken_twice_is_resumed(server: FileServer) -> None:
    """A resumed download that breaks again goes on from where it came to."""
    break_off(server, 1000)
    server.sends = 500
    with pytest.raises(EdgeNASError, match=f"broke off after 1500 of {len(CONTENT)} bytes"):
        get()
    server.sends = 1 << 30
    assert get() == CONTENT
    assert server.asked[-1][1] == "bytes=1500-"


def test_file_that_changed_in_between_is_downloaded_anew(server: FileServer) -> None:
    """Parts of two versions are never put together."""
    break_off(server, 1000)
    server.content, server.tag = CONTENT[::-1], '"v2"'
    assert get() == CONTENT[::-1]


def test_server_without_ranges(server: FileServer) -> None:
    """A server that always sends the whole file is understood."""
    server.ranges = False
    break_off(server, 1000)
    assert get() == CONTENT


@pytest.mark.parametrize("tag", [None, 'W/"v1"'])
def test_without_a_strong_tag_nothing_is_resumed(server: FileServer, tag: str | None) -> None:
    """Where nothing tells whether the file is still the same, it is downloaded from the beginning."""
    server.tag = tag
    break_off(server, 1000)
    assert get() == CONTENT
    assert [asked for _, asked in server.asked] == [None, None]


def test_date_tells_versions_apart(server: FileServer) -> None:
    """A server that gives only a date is resumed by it."""
    server.tag, server.modified = None, 1e9
    break_off(server, 1000)
    assert get() == CONTENT
    assert server.asked[-1][1] == "bytes=1000-"


def test_download_killed_before_its_last_step(server: FileServer, cache: Path) -> None:
    """A whole file that was not given its name yet is asked for from the beginning, not for a part that is none."""
    get()
    (cache / NAME).rename(cache / f"{NAME}.part")
    (cache / f"{NAME}.part.validator").write_text('"v1"')
    assert get() == CONTENT


def test_absent_file(server: FileServer) -> None:
    """A server's refusal is told with the remedy, and is no wrong use."""
    server.status = 404
    with pytest.raises(EdgeNASError, match=r"the server answered 404 Not Found\); .* import it by its path") as error:
        get()
    assert error.value.exit_code == 1


def test_no_network(server: FileServer) -> None:
    """A server that cannot be reached is told in one line with the remedy."""
    with pytest.raises(EdgeNASError, match=r"Connection refused\); .* import it by its path") as error:
        get("http://127.0.0.1:1")
    assert error.value.exit_code == 1


def test_file_of_unknown_length(server: FileServer) -> None:
    """A server that does not promise a length is refused: a cut file could not be told from a whole one."""
    server.length = False
    with pytest.raises(EdgeNASError, match="does not say how long the file is"):
        get()


@pytest.mark.parametrize("mirror", ["ftp://127.0.0.1/", "file:///etc", "nets", "http://"])
def test_mirror_that_is_no_web_address(server: FileServer, mirror: str) -> None:
    """Only http and https are spoken."""
    with pytest.raises(UsageError, match="must be an http or https address"):
        get(mirror)


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_redirection_to_another_protocol(server: FileServer, location: str) -> None:
    """A redirection away from http and https is not followed."""
    server.location = location
    with pytest.raises(EdgeNASError, match="cannot be downloaded"):
        get()


def test_cached_file_that_changed(server: FileServer, cache: Path) -> None:
    """A cached file that is not what was downloaded is refused at its next use."""
    get()
    (cache / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(FormatError, match="does not have the checksum that was recorded"):
        get()


def test_later_download_must_agree_with_the_first(server: FileServer, cache: Path) -> None:
    """Another file under the same name is refused, again and again, as long as the first one's checksum is there."""
    get()
    (cache / NAME).unlink()
    server.content, server.tag = CONTENT[::-1], '"v2"'
    for _ in range(2):
        with pytest.raises(FormatError, match="is another file than the one first downloaded"):
            get()
    (cache / f"{NAME}.sha256").unlink()
    assert get() == CONTENT[::-1]


def test_one_download_at_a_time(server: FileServer, cache: Path) -> None:
    """While another process downloads the file, a second is refused."""
    cache.mkdir(parents=True)
    with (cache / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another edgenas command is downloading it"):
            get()


def test_cache_in_the_home_folder(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without XDG_CACHE_HOME, read when a download is wanted, the cache is below ~/.cache."""
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    get()
    assert (tmp_path / ".cache" / "edgenas" / "checkpoints" / NAME).exists()
