"""Reading every image of a folder once before training: an error in mid-epoch would cost hours."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgenas.data.cache_lock import cache_lock, say
from edgenas.data.images import map_in_threads, read_image
from edgenas.errors import one_line
from edgenas.files import cache_folder, sha256_hex, write_bytes

_CHUNK = 2048  # images that are read between two looks at the clock
_SECONDS = 10.0  # between lines that say how far it is, each after what was found is kept


@dataclass(frozen=True)
class CheckedImage:
    """The SHA-256 of a file's content, or why it cannot be read as an image; the other is empty."""

    sha256: str
    problem: str


def check_images(root: Path, paths: Sequence[Path]) -> dict[Path, CheckedImage]:
    """Read images of a folder, and return what was found of each.

    It is kept until a file changes or Pillow does, because reading all takes long; an interrupted check goes on. A
    second process that checks the same folder waits.
    """
    kept_path = cache_folder("images") / f"{sha256_hex(str(root).encode())}.json"
    with cache_lock(kept_path):
        return _check_images(root, paths, kept_path)


def _check_images(root: Path, paths: Sequence[Path], kept_path: Path) -> dict[Path, CheckedImage]:
    import PIL

    kept = _load_kept(kept_path, PIL.__version__)
    states = {path: [(stat := path.stat()).st_size, stat.st_mtime_ns] for path in paths}
    found: dict[Path, CheckedImage] = {}
    for path, state in states.items():
        entry = kept.get(str(path))
        if isinstance(entry, list) and entry[:2] == state and list(map(type, entry[2:])) == [str, str]:
            found[path] = CheckedImage(*entry[2:])

    def keep() -> None:
        entries = {str(path): [*states[path], image.sha256, image.problem] for path, image in found.items()}
        write_bytes(kept_path, json.dumps({"pillow": PIL.__version__, "images": entries}).encode())

    missing = [path for path in paths if path not in found]
    said = time.monotonic()
    for start in range(0, len(missing), _CHUNK):
        chunk = missing[start : start + _CHUNK]
        found.update(zip(chunk, map_in_threads(_check_image, chunk), strict=True))
        if time.monotonic() - said > _SECONDS:
            keep()
            say(f"{root}: checked {len(found)} of {len(paths)} images, which is done once")
            said = time.monotonic()
    if missing or len(kept) > len(found):
        keep()
    return found


def _load_kept(path: Path, pillow: str) -> Mapping[str, Any]:
    """Return what an earlier check with the same Pillow found, by path; nothing where its file is gone or damaged."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or document.get("pillow") != pillow:
        return {}
    images = document.get("images")
    return images if isinstance(images, dict) else {}


def _check_image(path: Path) -> CheckedImage:
    try:
        read_image(path)
        return CheckedImage(sha256_hex(path.read_bytes()), "")
    except Exception as error:  # Pillow's parsers raise whatever they run into
        return CheckedImage("", one_line(error) or type(error).__name__)
