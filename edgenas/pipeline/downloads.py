"""Downloads of files into a cache, such as released checkpoints: resumed, and refused when the file changed."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from edgenas.errors import EdgeNASError, FormatError, RunError, UsageError
from edgenas.files import cache_folder, opened_without_links, read_bytes, sha256_hex, write_bytes
from edgenas.locks import take_lock
from edgenas.pipeline.progress import Progress
from edgenas.units import format_bytes

BASE = "https://hanlab18.mit.edu/files/OnceForAll/ofa_nets/"
MIRROR = "EDGENAS_MIRROR"
# Official name -> file below the base.
OFFICIAL = {
    "ofa_mbv3_d234_e346_k357_w1.0": "ofa_mbv3_d234_e346_k357_w1.0",
    "ofa_mbv3_d234_e346_k357_w1.2": "ofa_mbv3_d234_e346_k357_w1.2",
    "ofa_proxyless_d234_e346_k357_w1.3": "ofa_proxyless_d234_e346_k357_w1.3",
    "ofa_resnet50": "ofa_resnet50_d=0+1+2_e=0.2+0.25+0.35_w=0.65+0.8+1.0",
}
_TIMEOUT_S = 30.0
_CHUNK = 1 << 18


def fetch(name: str, mirror: str | None, progress: Progress) -> Path:
    """Return the cached file of an official checkpoint; download it if it is missing.

    No checksum is published: the first download records one, and the file must
    agree with it at every use and after every later download.

    Args:
        name: The name of the checkpoint.
        mirror: Address of a folder that has it; by default EDGENAS_MIRROR, else the authors'.
        progress: Receives progress.

    Raises:
        UsageError: The name or the mirror is wrong.
        FormatError: The checksum disagrees.
        EdgeNASError: The download failed; what arrived is kept, and the same call resumes.
    """
    path = cache_folder("checkpoints") / name
    elsewhere = "download the file elsewhere and import it by its path"
    fetch_file(_resolve_address(name, mirror), path, progress, f"delete it and import {name} again", elsewhere)
    return path


def fetch_file(address: str, path: Path, progress: Progress, remedy: str, elsewhere: str) -> None:
    """Download a file unless it is there. Its SHA-256 is recorded beside it, and must be the same at every later use.

    Args:
        address: Where it is.
        path: Where it goes, in the cache.
        progress: Receives progress.
        remedy: What to do where the file there has changed; the end of that message.
        elsewhere: What to do where it cannot be downloaded here; the end of that message.

    Raises:
        FormatError: The checksum disagrees.
        EdgeNASError: The download failed; what arrived is kept, and the same call resumes.
    """
    with _lock(path):
        if not path.exists():
            _download(address, path, progress, elsewhere)
        elif _read_checksum(path) != sha256_hex(read_bytes(path)):
            raise FormatError(
                f"{path}: does not have the checksum that was recorded when it was first downloaded; {remedy}"
            )


def _resolve_address(name: str, mirror: str | None) -> str:
    base = mirror or os.environ.get(MIRROR) or BASE
    if not re.match(r"https?://[^/\s]", base):
        raise UsageError(f"the mirror must be an http or https address, but got {base!r}")
    return f"{base.rstrip('/')}/{urllib.parse.quote(OFFICIAL[name], safe='=+')}"


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One download of a file at a time."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(opened_without_links(_beside(path, "lock"), os.O_RDWR | os.O_CREAT))
        except OSError as error:
            raise EdgeNASError(f"{path.parent}: cannot be written ({error.strerror}); set XDG_CACHE_HOME") from None
        if not take_lock(lock):
            raise RunError(f"{path}: another edgenas command is downloading it; wait for it to end")
        yield


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _read_checksum(path: Path) -> str | None:
    record = _beside(path, "sha256")
    return read_bytes(record).decode(errors="replace").strip() if record.exists() else None


def remove_download(path: Path) -> None:
    """Remove a cached file and its recorded checksum."""
    path.unlink(missing_ok=True)
    _beside(path, "sha256").unlink(missing_ok=True)


def _download(address: str, path: Path, progress: Progress, elsewhere: str) -> None:
    """Receive what is missing, record or compare the checksum, then rename the file."""
    partial, validator = _beside(path, "part"), _beside(path, "part.validator")
    try:
        _receive(address, partial, validator, progress)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise EdgeNASError(
            f"{address}: cannot be downloaded ({_describe_failure(error)}); the same command resumes it, or {elsewhere}"
        ) from None
    checksum, recorded = sha256_hex(read_bytes(partial)), _read_checksum(path)
    if recorded not in (None, checksum):
        partial.unlink()
        raise FormatError(
            f"{address}: is another file than the one first downloaded (its checksum {checksum[:12]} is not the"
            f" recorded {str(recorded)[:12]}); delete {_beside(path, 'sha256')} if you trust the new one"
        )
    write_bytes(_beside(path, "sha256"), f"{checksum}\n".encode())
    partial.replace(path)
    validator.unlink(missing_ok=True)


def _describe_failure(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)


def _receive(address: str, partial: Path, validator: Path, progress: Progress) -> None:
    """Append what ``partial`` lacks; start anew when the server has another file by now."""
    tag = read_bytes(validator).decode("latin-1").strip() if validator.exists() else ""
    have = partial.stat().st_size if tag and partial.exists() else 0
    headers = {"Range": f"bytes={have}-", "If-Range": tag} if have else {}
    try:
        with _open(address, headers) as answer:
            first = _parse_first_byte(answer, have)
            total = first + _parse_length(answer)
            if not first:
                partial.unlink(missing_ok=True)  # before its validator changes: else a kill could mix two versions
                write_bytes(validator, _read_validator(answer).encode("latin-1"))
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with opened_without_links(partial, flags) as descriptor, open(descriptor, "ab", closefd=False) as file:
                _copy_body(answer, file, first, total, progress)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        error.close()
        partial.unlink()
        _receive(address, partial, validator, progress)


def _open(address: str, headers: dict[str, str]) -> Any:
    """Open an address; only http and https are followed, also by redirections."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener.open(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT_S)  # noqa: S310 - see above


def _parse_first_byte(answer: Any, have: int) -> int:
    """Return where in the file the answer begins: at ``have``, or at 0 when the server sends all of it."""
    if answer.status != http.client.PARTIAL_CONTENT:
        return 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", answer.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != have:
        raise OSError("the server sent another part than was asked for")
    return have


def _parse_length(answer: Any) -> int:
    length = answer.headers.get("Content-Length", "")
    if not length.isdecimal():
        raise OSError("the server does not say how long the file is")
    return int(length)


def _read_validator(answer: Any) -> str:
    """Return what identifies this version of the file; empty where the server gives nothing strong."""
    tag: str = answer.headers.get("ETag", "")
    return answer.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def _copy_body(answer: Any, file: IO[bytes], first: int, total: int, progress: Progress) -> None:
    done = first
    with progress.step("download", max(total, 1)) as bar:
        while chunk := answer.read(min(_CHUNK, total - done)):
            file.write(chunk)
            done += len(chunk)
            bar(done, f"{format_bytes(done)} of {format_bytes(total)}")
        if done < total:
            raise OSError(f"it broke off after {done} of {total} bytes")
    file.flush()
    os.fsync(file.fileno())
