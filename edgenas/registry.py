"""The one loader of what packages add by entry points: spaces, data sets, runtimes, devices and search strategies.

What edgenas brings itself is listed here in the form of entry points, so that
it is found without installed metadata too, as in a source checkout, and is
loaded like what other packages add.
"""

from __future__ import annotations

import functools
import importlib
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgenas.errors import UsageError, printable
from edgenas.files import format_suggestion

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_GROUPS = "edgenas."  # the beginning of the names of all groups


@dataclass(frozen=True)
class _Entry:
    """An object that is imported when its name is used: ``module:name``, and the package that brings it."""

    group: str
    name: str
    value: str
    package: str


class Registry:
    """The things of one entry-point group, by name; each is imported when it is used.

    An installed package adds one in its own pyproject.toml::

        [project.entry-points."edgenas.data_sets"]
        keywords = "my_package.data:load_keywords"

    A package whose entry cannot be used is named in a warning, once, and left
    out; everything else works on.

    Args:
        group: The entry-point group, such as ``edgenas.data_sets``.
        noun: What one is called in messages.
        kind: ``module:name`` of the class that each must derive from; None where each must be a function.
        built_in: ``module:name`` of those that edgenas brings, by name.
        name_attribute: the attribute of the class that must be the entry point's name, because files hold it.
    """

    def __init__(
        self, group: str, noun: str, kind: str | None, built_in: Mapping[str, str], name_attribute: str | None = None
    ) -> None:
        self.group, self.noun = group, noun
        self._kind, self._name_attribute = kind, name_attribute
        self._built_in = {name: _Entry(group, name, value, "edgenas") for name, value in built_in.items()}

    def names(self) -> list[str]:
        """Return the known names: the built-in ones in their order, then those of other packages, sorted."""
        return list(self._entries())

    def load(self, name: object, where: str = "", refusal: str = "") -> Any:
        """Import and return the thing of a name.

        Args:
            name: Its name; from a file it may be anything.
            where: The file or argument that names it; the message begins with it.
            refusal: The words before an unknown name, by default ``unknown`` and the noun.

        Raises:
            UsageError: There is none of this name, with a list of those that exist, or it cannot be loaded.
        """
        prefix, entries = f"{where}: " if where else "", self._entries()
        entry = entries.get(name) if isinstance(name, str) else None
        if entry is None:
            known = format_suggestion(str(name), sorted(self.load_all()))
            raise UsageError(f"{prefix}{refusal or f'unknown {self.noun}'} {reprlib.repr(name)}{known}")
        loaded, problem = _load(entry, self._kind, self._name_attribute)
        if problem:
            raise UsageError(f"{prefix}{self.noun} {entry.name!r} of package {entry.package} {problem}")
        return loaded

    def load_all(self) -> dict[str, Any]:
        """Import and return everything that can be loaded, by name; the rest is named in a warning."""
        loaded = {}
        for name, entry in self._entries().items():
            thing, problem = _load(entry, self._kind, self._name_attribute)
            if problem:
                _warn(f"package {entry.package}: its {self.noun} {name!r} {problem}; it is left out")
            else:
                loaded[name] = thing
        return loaded

    def _entries(self) -> dict[str, _Entry]:
        added: dict[str, _Entry] = {}
        for entry in _installed_entries(tuple(sys.path)):
            if entry.group != self.group:
                continue
            other = self._built_in.get(entry.name) or added.get(entry.name)
            if other is None:
                added[entry.name] = entry
            elif (other.package, other.value) != (entry.package, entry.value):
                _warn(
                    f"package {entry.package}: its {self.noun} {entry.name!r} is left out, because {other.package}"
                    " has one of this name; rename it there"
                )
        return {**self._built_in, **added}


@functools.cache
def _installed_entries(path: tuple[str, ...]) -> tuple[_Entry, ...]:
    """Return edgenas's entry points of all packages on a search path, sorted by name and package."""
    from importlib.metadata import distributions

    found = {entry for distribution in distributions(path=list(path)) for entry in _entries_of(distribution)}
    return tuple(sorted(found, key=lambda entry: (entry.name, entry.package, entry.value)))


def _entries_of(distribution: Distribution) -> list[_Entry]:
    """Return edgenas's entry points of a package, none where its metadata is damaged."""
    try:
        points = [point for point in distribution.entry_points if point.group.startswith(_GROUPS)]
        return [_Entry(point.group, point.name, point.value, str(distribution.name)) for point in points]
    except Exception as error:  # its lines are parsed by the standard library, which raises what comes
        where = getattr(distribution, "_path", "of unknown place")
        _warn(f"package {where}: its entry points cannot be read ({error}); install it again")
        return []


@functools.cache
def _load(entry: _Entry, kind: str | None, name_attribute: str | None) -> tuple[Any, str]:
    """Return the object of an entry, and the problem with it, empty where there is none."""
    try:
        loaded = _import(entry.value)
    except (Exception, SystemExit) as error:  # whatever another package's module raises must not end a command
        if entry.package == "edgenas":
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return None, f"cannot be loaded ({reason}); update or uninstall the package"
    if kind is None:
        return loaded, "" if callable(loaded) else f"gives {loaded!r}, which is no function"
    if not (isinstance(loaded, type) and issubclass(loaded, _import(kind))):
        return loaded, f"gives {loaded!r}, not an edgenas {kind.partition(':')[2]} class"
    if name_attribute is None:  # a kind of device, whose ``connect`` makes instances, may be abstract
        return loaded, ""
    if missing := sorted(getattr(loaded, "__abstractmethods__", ())):
        return loaded, f"lacks {', '.join(missing)}"
    own_name = getattr(loaded, name_attribute, None)
    return (
        loaded,
        "" if own_name == entry.name else f"has {name_attribute} {own_name!r}; give its entry point that name",
    )


def _import(value: str) -> Any:
    """Import ``module:name``."""
    module, _, path = value.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module.strip()))


@functools.cache
def _warn(message: str) -> None:
    """Log a warning, once; without a log of the caller's own it is a line on standard error."""
    import logging

    logging.getLogger("edgenas").warning("edgenas: %s", printable(message))


SPACES = Registry(
    "edgenas.spaces",
    "family",
    "edgenas.space.base:SearchSpace",
    {
        "mobilenet_v3": "edgenas.space.mobilenet_v3:MobileNetV3",
        "proxyless": "edgenas.space.proxyless:ProxylessNAS",
        "resnet50d": "edgenas.space.resnet:ResNet50D",
    },
    name_attribute="family",
)
DATA_SETS = Registry(
    "edgenas.data_sets",
    "data set",
    None,
    {
        "digits": "edgenas.data.digits:load_digits",
        "fashion_mnist": "edgenas.data.torchvision_sets:load_fashion_mnist",
        "cifar10": "edgenas.data.torchvision_sets:load_cifar10",
        "cifar100": "edgenas.data.torchvision_sets:load_cifar100",
        "imagenet": "edgenas.data.imagenet:load_imagenet",
    },
)
DEVICES = Registry(
    "edgenas.devices",
    "kind of connection",
    "edgenas.devices.contract:Device",
    {
        "local": "edgenas.devices.local:LocalDevice",
        "ssh": "edgenas.devices.ssh.device:SshDevice",
        "adb": "edgenas.devices.adb.device:AdbDevice",
        "fake": "edgenas.devices.fake:FakeDevice",
        "absent": "edgenas.devices.absent:AbsentDevice",
    },
)
RUNTIMES = Registry(
    "edgenas.runtimes",
    "runtime",
    "edgenas.runtimes.contract:Runtime",
    {"onnxruntime": "edgenas.runtimes.onnxruntime:OnnxRuntime", "litert": "edgenas.runtimes.litert:LiteRT"},
    name_attribute="name",
)
DEFAULT_STRATEGY = "nsga2"
STRATEGIES = Registry(
    "edgenas.strategies",
    "search strategy",
    None,
    {
        DEFAULT_STRATEGY: "edgenas.search.strategies.nsga2:search",
        "random": "edgenas.search.strategies.random_search:search",
        "regularized_evolution": "edgenas.search.strategies.regularized_evolution:search",
        "reinforce": "edgenas.search.strategies.reinforce:search",
        "predictor_guided": "edgenas.search.strategies.predictor_guided:search",
        "bayesian": "edgenas.search.strategies.bayesian:search",
    },
)
