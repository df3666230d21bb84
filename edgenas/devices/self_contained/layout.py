"""Laying out Python and its libraries from unpacked Debian packages in one folder that starts from anywhere.

::

    bin/python                    a shell script that starts bin/python3.11 through the loader
    bin/python3.11                Debian's
    lib/                          the loader of glibc and the shared libraries
    lib/python3.11/               the standard library
    lib/python3/dist-packages/    numpy and the runtimes

Nothing in it depends on where it lies or on environment variables: Python
finds its folders from argv[0], which the loader sets.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from edgenas.errors import EdgeNASError

PYTHON = "3.11"
SUITE = "bookworm"  # Debian's, which has this Python
GLIBC = ("glibc", "2.36")  # of this suite
SITE_PACKAGES = "lib/python3/dist-packages"
PACKAGES = (
    *(f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libc6", "libgcc-s1", "libstdc++6", "zlib1g"),
    *("libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "python3-numpy", "libblas3", "liblapack3"),
)
_LIBRARIES = (
    *("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6"),
    *("libz.so.1", "libexpat.so.1", "libffi.so.8", "libbz2.so.1.0", "liblzma.so.5"),
    *("libblas.so.3", "liblapack.so.3", "libgfortran.so.5"),
)
_EXTENSION_MODULES = (
    *("_asyncio", "_bz2", "_contextvars", "_ctypes", "_decimal", "_json", "_lzma", "_multiprocessing", "_posixshmem"),
    *("_queue", "_typing", "_zoneinfo", "mmap", "resource", "termios"),
)
_UNUSED_MODULES = ("dist-packages", "lib-dynload", "pydoc_data", "sitecustomize.py", "test", "turtle.py")
_UNUSED_OF_NUMPY = ("tests", "f2py", "distutils", "*.pyi", "*.pxd", "*.a", "*.h", "include", "array_api", "doc")
_WRAPPER = """\
#!/bin/sh
R=${{0%/bin/*}}
exec "$R/lib/{loader}" --library-path "$R/lib" --argv0 "$0" "$R/bin/python{version}" "$@"
"""


@dataclass(frozen=True)
class Machine:
    """A processor that a folder can be made for.

    Attributes:
        architecture: Debian's name of it.
        loader: The loader of its glibc.
        libraries: Shared libraries that only it needs.
    """

    architecture: str
    loader: str
    libraries: tuple[str, ...] = ()


# By the name that ``uname -m`` prints.
MACHINES: Mapping[str, Machine] = {
    "aarch64": Machine("arm64", "ld-linux-aarch64.so.1"),
    "x86_64": Machine("amd64", "ld-linux-x86-64.so.2", ("libquadmath.so.0",)),
}


def lay_out_python(unpacked: Path, root: Path, machine: Machine) -> None:
    """Lay out Python, numpy and the libraries.

    Args:
        unpacked: The folder with the unpacked PACKAGES and what they depend on.
        root: The new folder.
        machine: The processor.
    """
    binaries, libraries, site = root / "bin", root / "lib", root / SITE_PACKAGES
    standard, debian_standard = libraries / f"python{PYTHON}", unpacked / f"usr/lib/python{PYTHON}"
    for folder in (binaries, libraries, site):
        folder.mkdir(parents=True)
    shutil.copy(unpacked / f"usr/bin/python{PYTHON}", binaries)
    wrapper = binaries / "python"
    wrapper.write_text(_WRAPPER.format(loader=machine.loader, version=PYTHON))
    copy_libraries(unpacked, libraries, (machine.loader, *_LIBRARIES, *machine.libraries))
    for executable in (wrapper, libraries / machine.loader):
        executable.chmod(0o755)
    shutil.copytree(debian_standard, standard, ignore=shutil.ignore_patterns(*_UNUSED_MODULES))
    (standard / "lib-dynload").mkdir()
    for module in _EXTENSION_MODULES:
        for path in (debian_standard / "lib-dynload").glob(f"{module}.*.so"):
            shutil.copy(path, standard / "lib-dynload")
    numpy = unpacked / "usr/lib/python3/dist-packages/numpy"
    shutil.copytree(numpy, site / "numpy", ignore=shutil.ignore_patterns(*_UNUSED_OF_NUMPY))


def copy_libraries(unpacked: Path, target: Path, names: Iterable[str]) -> None:
    """Copy shared libraries to a folder.

    Raises:
        EdgeNASError: A library is in none of the packages.
    """
    inside = unpacked.resolve()
    # An absolute link, as in lib64, leads to this machine's own files.
    found = {path.name: path for path in unpacked.rglob("lib*/**/*.so*") if path.resolve().is_relative_to(inside)}
    for name in names:
        if name not in found:
            raise EdgeNASError(f"{name} is in none of Debian's packages; use another mirror of {SUITE}")
        shutil.copy(found[name], target / name)


def copy_needed_files(wheel: Path, root: Path, patterns: Iterable[str]) -> None:
    """Copy those files of an unpacked wheel whose paths match a pattern to the folder's packages."""
    wanted = tuple(patterns)
    for path in sorted(wheel.rglob("*")):
        name = path.relative_to(wheel).as_posix()
        if path.is_file() and any(fnmatchcase(name, pattern) for pattern in wanted):
            target = root / SITE_PACKAGES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def compile_modules(root: Path) -> None:
    """Replace modules by their bytecode, where this Python is of the folder's version; else Python there does it."""
    if sys.version_info[:2] != tuple(map(int, PYTHON.split("."))):
        return
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(root / "lib", quiet=2, legacy=True, invalidation_mode=mode, stripdir=str(root))
    for source in root.rglob("*.py"):
        if source.with_suffix(".pyc").exists():
            source.unlink()
