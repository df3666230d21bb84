"""The paths in a run folder of version 1, and where their files are in today's layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgenas.errors import EdgeNASError
from edgenas.files import Schema
from edgenas.pipeline.documents import CHOICE, EVALUATED, PROFILE_PLAN, TABLE_CHECK, TABLE_CHECK_PLAN
from edgenas.pipeline.run_folder import RunFolder
from edgenas.profilers.latency.table import TABLE_SCHEMA
from edgenas.runtimes import all_formats
from edgenas.search.pareto import FRONT_SCHEMA
from edgenas.space import SearchSpace


@dataclass(frozen=True)
class OldDocument:
    """A document of the old layout: its path, its path in the new layout, its schema, and its target if it has one."""

    old: Path
    new: Path
    schema: Schema
    target: str = ""


@dataclass(frozen=True)
class OldMeasurementFile:
    """The path of a measurement and what its name says: series, model (or series of the reference model), number."""

    path: Path
    series: str
    is_reference: bool
    sequence: str
    number: int


@dataclass(frozen=True)
class OldRunFolder:
    """The paths of a run folder of version 1. Only ``remove_empty_folders`` changes anything."""

    root: Path

    @property
    def evaluated(self) -> Path:
        """Accuracies of evaluated subnets, by id."""
        return self.root / "accuracy" / "evaluated.json"

    def table(self, target: str) -> Path:
        """Return a target's latency table."""
        return self.root / "tables" / f"{target}.json"

    def front(self, target: str) -> Path:
        """Return a target's front."""
        return self.root / "fronts" / f"{target}.json"

    def measurement_folders(self) -> list[Path]:
        """Return the folders of the targets' measurements, which have their names."""
        return sorted(path for path in self.root.glob("measurements/*") if path.is_dir())

    def measurement_files(self, folder: Path) -> Iterator[OldMeasurementFile]:
        """Yield the measurements in a target's folder."""
        for path in folder.glob("*.json"):
            if match := re.fullmatch(r"([0-9a-f]{24}-([0-9a-f]{8}))-(\d+)\.json", path.name):
                yield OldMeasurementFile(path, match[2], False, match[1], int(match[3]))
        for path in folder.glob("reference/*.json"):
            if match := re.fullmatch(r"([0-9a-f]{8})-(\d+)\.json", path.name):
                yield OldMeasurementFile(path, match[1], True, match[1], int(match[2]))

    def documents(self, new: RunFolder) -> list[OldDocument]:
        """Return the documents, each after those whose SHA-256 it contains, with their paths in ``new``."""
        documents, check_plans = [], []
        if self.evaluated.exists():
            documents.append(OldDocument(self.evaluated, new.evaluated, EVALUATED))
        for path in sorted(self.root.glob("tables/*.json")):
            if match := re.fullmatch(r"(.+)\.check-(\d+)\.plan\.json", path.name):
                plan = new.check_plan(match[1], int(match[2]))
                check_plans.append(OldDocument(path, plan, TABLE_CHECK_PLAN, match[1]))
            elif match := re.fullmatch(r"(.+)\.check-(\d+)\.json", path.name):
                documents.append(OldDocument(path, new.check(match[1], int(match[2])), TABLE_CHECK, match[1]))
            elif match := re.fullmatch(r"(.+)\.plan\.json", path.name):
                documents.append(OldDocument(path, new.plan(match[1]), PROFILE_PLAN, match[1]))
            else:
                documents.append(OldDocument(path, new.table(path.stem), TABLE_SCHEMA, path.stem))
        documents += check_plans
        for path in sorted(self.root.glob("fronts/*.json")):
            documents.append(OldDocument(path, new.front(path.stem), FRONT_SCHEMA, path.stem))
        for path in sorted(self.root.glob("choices/*/*.json")):
            target = path.parent.name
            documents.append(OldDocument(path, new.choice(target, path.stem), CHOICE, target))
        return documents

    def pictures(self, new: RunFolder) -> list[tuple[Path, Path]]:
        """Return the pictures of fronts with their paths in ``new``."""
        return [(path, new.picture(path.stem)) for path in sorted(self.root.glob("fronts/*.png"))]

    def bundles(self, new: RunFolder, space: SearchSpace) -> list[tuple[Path, Path]]:
        """Return the bundles of targets with their paths in ``new``; what the user exported there is not among them."""
        formats = set(map(str, all_formats()))
        cards = sorted(self.root.glob("bundles/*/*/card.json"))
        folders = [card.parent for card in cards if card.parents[1].name not in formats]
        return [(path, new.bundle(path.parent.name, path.name)) for path in folders if _is_id(path.name, space)]

    def remove_empty_folders(self) -> None:
        """Remove the folders that this layout had, where nothing is left in them."""
        for pattern in ("measurements/*/reference", "measurements/*", "choices/*", "bundles/*"):
            for path in sorted(self.root.glob(pattern)):
                with suppress(OSError):
                    path.rmdir()
        for name in ("measurements", "tables", "fronts", "choices", "bundles"):
            with suppress(OSError):  # not empty, or it does not exist
                (self.root / name).rmdir()


def _is_id(name: str, space: SearchSpace) -> bool:
    try:
        space.from_id(name)
    except EdgeNASError:
        return False
    return True
