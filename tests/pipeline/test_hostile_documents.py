"""Documents of a run that somebody changed and signed again are read or refused on one line, and do nothing else."""

from __future__ import annotations

import copy
import dataclasses
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgenas.bundle import Bundle
from edgenas.errors import EdgeNASError
from edgenas.files import Schema, canonical_json_bytes, parse_json, read_tensors_and_body, sha256_hex, write_tensors
from edgenas.ofa import load_checkpoint
from edgenas.ofa.checkpoint import has_ended_training
from edgenas.pipeline import Run
from edgenas.pipeline.choice import Choice
from edgenas.pipeline.documents import CHOICE, EVALUATED, FINETUNED, PROFILE_PLAN, RUN
from edgenas.pipeline.finetuned import FinetunedSubnet
from edgenas.pipeline.measurement_log import MeasurementLog, log_bytes
from edgenas.pipeline.profile_plan import ProfilePlan
from edgenas.pipeline.progress import Silent
from edgenas.profilers import LatencyTable, MeasurementResult
from edgenas.profilers.latency.table import TABLE_SCHEMA
from edgenas.regression.baseline import Baseline
from edgenas.search import Front
from edgenas.search.pareto import FRONT_SCHEMA

SECONDS = 6.0  # of each kind of document
SLOWEST = 10  # seconds that one document may take
MEMORY = 1 << 30  # bytes by which all documents of a kind may raise the peak
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 12, 10**9, 10**18, 2**63, -1.0, 0.0, 0.5, 1.5, 5.0, 1e-300, 1e15, 1e300, -1e300,
    "", "x", "\uff11\uff12", "1e5", "a\x1b[31mred", "two\nlines", "\x00", "\u202e", "\ud800", "é" * 3, "y" * 200_000,
    [], {}, [None], [[]], {"": {}}, [1e300] * 50, list(range(1000)), {"a\x1b[2J": 1}, {"k" * 100_000: 1},
]  # fmt: skip


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in plain data with each of its keys."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from nodes(value[key])


def mutate(body: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Return a copy of a body with one to three random changes."""
    changed = copy.deepcopy(body)
    for _ in range(random.integers(1, 4)):
        places = list(nodes(changed))
        if not places:
            break
        # Half of the time near the root: long lists would take all changes.
        container, key = places[random.integers(min(len(places), 30 if random.random() < 0.5 else len(places)))]
        action = random.integers(5)
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container[key], list):
            container[key] = container[key][: random.integers(len(container[key]) + 1)]
        elif action == 2 and isinstance(container[key], list):
            container[key] = container[key] * int(random.integers(2, 4))
        elif action == 3:
            other, other_key = places[random.integers(len(places))]
            container[key] = copy.deepcopy(other[other_key])
        else:
            container[key] = copy.deepcopy(HOSTILE[random.integers(len(HOSTILE))])
        if isinstance(container, dict) and random.random() < 0.1:
            container["extra\x1b" if random.random() < 0.5 else "extra"] = 1
    return changed


def signed(schema: Schema, body: dict[str, Any]) -> bytes:
    """Return a document with the right checksum, whatever is in it."""
    header = {"format": f"edgenas.{schema.kind}", "version": schema.version, "sha256": sha256_hex(canonical(body))}
    return canonical({**header, **body})


def canonical(value: Any) -> bytes:
    return canonical_json_bytes(value)


class Case:
    """A run, the files that are changed in it, and how each is read."""

    def __init__(self, root: Path) -> None:
        self.run = Run(root, progress=Silent())
        self.target = self.run.target("localhost")
        self.name, self.folder, self.space = self.target.name, self.run.folder, self.run.space
        subnet = dataclasses.replace(self.space.smallest, weights="000000").id
        weights, largest = self.run.workspace.weights_digest, self.space.largest.id
        facts = ("random weights", largest, "digits", 1.0, 32, 0.1, 360, 0.5, 0.5)
        finetuned = FinetunedSubnet(subnet, "0" * 64, weights, *facts)
        FINETUNED.write(self.folder.finetuned(subnet).result, dataclasses.asdict(finetuned))

    def documents(self) -> dict[str, tuple[Path, Schema, Callable[[], object]]]:
        folder, space, name = self.folder, self.space, self.name
        choice = folder.choices(name)[0]

        def read_front() -> object:
            front = Front.load(folder.front(name), space)
            return repr(front), front.architectures(), front.rows()

        def read_table() -> object:
            table = LatencyTable.load(folder.table(name), space)
            genes = space.encode([space.smallest, space.largest])
            table.latency_ms(genes), table.peak_bytes(genes), table.interval_ms(genes)
            return repr(table), str(table.holdout), table.part_costs_by_name(space.largest)

        return {
            "run": (folder.run, RUN, lambda: Run(folder.root, progress=Silent())),
            "evaluated": (folder.evaluated, EVALUATED, lambda: self.run.predictor()),
            "front": (folder.front(name), FRONT_SCHEMA, read_front),
            "table": (folder.table(name), TABLE_SCHEMA, read_table),
            "plan": (folder.plan(name), PROFILE_PLAN, lambda: ProfilePlan.load(folder.plan(name), "")),
            "finetuned": (next(self.folder.root.glob("finetuned/*/result.json")), FINETUNED, self.run.finetuned),
            "choice": (choice, CHOICE, lambda: repr(Choice.load(choice, space))),
        }


@pytest.fixture(scope="module")
def case(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A copy of a finished run."""
    root = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(finished, root)
    return Case(root)


def check(read: Callable[[], object]) -> None:
    """Fail unless ``read`` returns or raises an error of edgenas with one printable line, within the limits."""

    def stop(*_: object) -> None:
        raise AssertionError(f"takes more than {SLOWEST} seconds")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SLOWEST)
    try:
        read()
    except EdgeNASError as error:
        text = str(error)
        assert text.isprintable(), repr(text)[:2000]
        assert len(text) < 1500, text[:2000]
    finally:
        signal.alarm(0)


def fuzz(seed: int, change: Callable[[np.random.Generator], None], read: Callable[[], object]) -> None:
    """Change a file and read it until the time is over."""
    random, end = np.random.default_rng(seed), time.monotonic() + SECONDS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    while time.monotonic() < end:
        change(random)
        check(read)
        count += 1
    assert count >= 3
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "evaluated", "front", "table", "plan", "choice", "finetuned"])
def test_a_changed_document_is_read_or_refused(case: Case, kind: str) -> None:
    """Any change of a signed document leaves it readable or gives one line; no traceback, no hang, no control code."""
    path, schema, read = case.documents()[kind]
    original = path.read_bytes()
    body = schema.read(path)
    try:
        read()
        fuzz(1, lambda random: _write(path, signed(schema, mutate(body, random))), read)
    finally:
        path.write_bytes(original)


@pytest.mark.slow
def test_a_changed_log_is_read_or_refused(case: Case, tmp_path: Path) -> None:
    """The same for a log of measurements, and for the statistics of what was read."""
    entries = MeasurementLog(case.folder.measurements(case.name)).entries[:2]
    records = [parse_json(entry.content, "log") for entry in entries]
    path = tmp_path / "measurements.jsonl"

    def change(random: np.random.Generator) -> None:
        changed = [mutate(record, random) for record in records]
        path.write_bytes(log_bytes([(each.get("series", ""), each.get("measurement", {})) for each in changed]))

    def read() -> object:
        measurements = [entry.measurement for entry in MeasurementLog(path).entries]
        return repr(MeasurementResult(tuple(measurements)))

    fuzz(2, change, read)


@pytest.mark.slow
def test_a_changed_baseline_is_read_or_refused(case: Case, tmp_path: Path) -> None:
    """The same for a baseline."""
    entries = MeasurementLog(case.folder.measurements(case.name)).entries
    body = {"measurements": [entries[0].measurement.to_dict()] * 6}
    schema, path = Schema("baseline", 4), tmp_path / "baseline.json"
    body = parse_json(canonical(body), "baseline")
    fuzz(3, lambda random: _write(path, signed(schema, mutate(body, random))), lambda: repr(Baseline.load(path)))


@pytest.mark.slow
def test_a_changed_checkpoint_is_read_or_refused(case: Case, tmp_path: Path) -> None:
    """The same for a checkpoint: its header, and tensors that are missing, of another shape or type, or not finite."""
    arrays, header = read_tensors_and_body(case.folder.checkpoint, "checkpoint", 1)
    path = tmp_path / "checkpoint.safetensors"

    def read() -> object:
        checkpoint = load_checkpoint(path)
        return has_ended_training(checkpoint, str(path)), repr(checkpoint.supernet)

    def change(random: np.random.Generator) -> None:
        changed = dict(arrays)
        if random.random() < 0.3:
            name = list(arrays)[random.integers(len(arrays))]
            replacement = [
                np.full_like(arrays[name], np.nan if arrays[name].dtype.kind == "f" else 7),
                arrays[name].astype(np.float64),
                np.zeros((0, 3), np.float32),
                np.zeros(1, np.bool_),
            ]
            changed[name] = replacement[random.integers(len(replacement))]
            if random.random() < 0.3:
                del changed[name]
        write_tensors(path, "checkpoint", 1, changed, mutate(dict(header), random))

    fuzz(4, change, read)


@pytest.mark.slow
def test_a_changed_card_is_read_or_refused(case: Case, tmp_path: Path) -> None:
    """The same for a bundle's model card, with the list of checksums made anew."""
    from edgenas.bundle.check import CARD_SCHEMA, CHECKSUMS_FILE, compute_sha256sums

    bundle = case.run.export(case.space.smallest, case.target, tmp_path / "bundle")
    path, card = bundle.path / "card.json", bundle.card
    file_format = bundle.model_path.suffix[1:]

    def change(random: np.random.Generator) -> None:
        path.write_bytes(signed(CARD_SCHEMA, mutate(dict(card), random)))
        (bundle.path / CHECKSUMS_FILE).write_bytes(compute_sha256sums(bundle.path, file_format))

    fuzz(5, change, lambda: Bundle(bundle.path).verify())


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
