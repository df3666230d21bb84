"""A run of published latency tables: made, extended, searched without torch, and never measured on."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.costs import Budget
from edgenas.devices import Target, load_profile
from edgenas.errors import DeviceError, EdgeNASError, FormatError, RunError, UsageError
from edgenas.files import write_document
from edgenas.pipeline import Run
from edgenas.pipeline.import_tables import import_tables
from edgenas.pipeline.progress import Progress, Silent
from edgenas.profilers import PublishedTables
from edgenas.profilers.latency.published import Entry, published_keys_by_resolution
from edgenas.space import MobileNetV3, ProxylessNAS

_SPACE = MobileNetV3(width=0.25, resolutions=(128, 160), classes=10)
_SEARCH = """
import sys
sys.modules["torch"] = None  # as where it is not installed
from edgenas.pipeline import Run
run = Run(sys.argv[1])
print(len(run.search([run.target("phone")])))
"""


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up tables of the space; one entry at 160 pixels varies by half its mean."""
    folder = tmp_path_factory.mktemp("tables")
    made: dict[int, dict[str, Entry]] = {}
    for resolution, keys in zip(_SPACE.resolutions, published_keys_by_resolution(_SPACE), strict=True):
        named = [key for key in keys.values() if key is not None]
        made[resolution] = {key: Entry(10, resolution / 1e3 * (1 + at / 50), 1e-3) for at, key in enumerate(named)}
    key = "Logits-input:1x1x320-output:10"
    made[160][key] = Entry(10, made[160][key].mean_ms, made[160][key].mean_ms / 2)
    PublishedTables(made).save(folder)
    return folder


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the released predictor's names and shapes, and random weights."""
    path = tmp_path_factory.mktemp("predictor") / "acc_predictor.pth"
    rng, sizes = np.random.default_rng(0), (("0", 400, 128), ("2", 400, 400), ("4", 400, 400), ("6", 1, 400))
    state = {}
    for layer, out, entry in sizes:
        state[f"{layer}.weight"] = torch.from_numpy(rng.normal(0, 0.05, (out, entry)).astype(np.float32))
        state[f"{layer}.bias"] = torch.zeros(out)
    torch.save(state, path)
    return path


@pytest.fixture
def run(tmp_path: Path, tables: Path, predictor: Path) -> Run:
    """A fresh run of imported tables and predictor."""
    return import_tables(tmp_path / "run", tables, "phone", _SPACE, predictor, Silent())


def test_an_import_makes_a_run(run: Run) -> None:
    """The run has its space, the table, the predictor and the device's profile, and nothing else."""
    assert run.space == _SPACE
    assert set(_files(run.folder.root)) == {
        ".lock",
        "run.json",
        "targets/phone-published-fp32-1t/latency_table.json",
        "accuracy/predictor.safetensors",
        "devices/phone.yaml",
    }


def test_an_imported_run_is_searched_without_torch(run: Run) -> None:
    """Where torch is not installed, the search finds a front, and stores it."""
    command = [sys.executable, "-W", "error", "-c", _SEARCH, str(run.folder.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(run.front(run.target("phone"))) > 1
    assert "nothing was measured here, memory is counted from activations and weights" in done.stderr


def test_importing_again_changes_nothing(run: Run, tables: Path, predictor: Path) -> None:
    """The same import gives the same bytes; one without a predictor leaves the predictor there."""
    before = _files(run.folder.root)
    import_tables(run.folder.root, tables, "phone", _SPACE, predictor, Silent())
    import_tables(run.folder.root, tables, "phone", _SPACE, None, Silent())
    assert _files(run.folder.root) == before


def test_a_second_device_joins_the_run(run: Run, tables: Path) -> None:
    """A run may hold the tables of several devices."""
    import_tables(run.folder.root, tables, "tablet", _SPACE, None, Silent())
    assert {run.target(name).profile.name for name in ("phone", "tablet")} == {"phone", "tablet"}
    assert run.table(run.target("tablet")).target == "tablet-published-fp32-1t"


def test_resolutions_without_a_table_are_left_out(tmp_path: Path, tables: Path) -> None:
    """Of a space's resolutions those are kept that there are tables of, and the import says so."""
    every, stream = MobileNetV3(width=0.25, classes=10), io.StringIO()
    assert import_tables(tmp_path / "run", tables, "phone", every, None, Progress(stream)).space == _SPACE
    assert "of the space's 25 resolutions those with a table are kept: 128, 160" in stream.getvalue()


def test_noisy_entries_are_said(tmp_path: Path, tables: Path) -> None:
    """Entries that vary by more than 10% are counted and named."""
    stream = io.StringIO()
    import_tables(tmp_path / "run", tables, "phone", _SPACE, None, Progress(stream))
    assert "1 entries vary by more than 10%" in stream.getvalue()
    assert "50.0%  Logits-input:1x1x320-output:10 at 160" in stream.getvalue()


def test_evaluated_subnets_go_before_an_imported_predictor(run: Run) -> None:
    """The imported predictor serves until the run has evaluated subnets of its own; then the search is done again."""
    assert isinstance(run.predictor(), ReleasedPredictor)
    target = run.target("phone")
    first = run.search([target])
    genes = _SPACE.sample_distinct(12, np.random.default_rng(0))
    accuracy = {each.id: 0.5 + number / 100 for number, each in enumerate(_SPACE.decode(genes))}
    write_document(run.folder.evaluated, "evaluated", 2, {"inputs_digest": "test", "accuracy": accuracy})
    assert isinstance(run.predictor(), AccuracyPredictor)
    assert run.search([target]).inputs_digest != first.inputs_digest


def test_a_search_without_any_accuracy_says_what_to_run(tmp_path: Path, tables: Path) -> None:
    """With neither evaluated subnets nor a predictor, the message has both commands."""
    run = import_tables(tmp_path / "run", tables, "phone", _SPACE, None, Silent())
    with pytest.raises(RunError, match=r"edgenas evaluate --run .* edgenas import --tables again, with --predictor"):
        run.search([run.target("phone")])


def test_a_choice_needs_a_device(run: Run) -> None:
    """choose fails at once with one line: there is no device to measure on."""
    target = run.target("phone")
    run.search([target])
    with pytest.raises(
        DeviceError, match="phone: is known from published latency tables only, there is no device"
    ) as e:
        run.choose({target: Budget(latency="100ms")})
    assert "\n" not in str(e.value)


def test_other_devices_are_found_as_ever(run: Run, tmp_path: Path) -> None:
    """A name that the run has no tables of is a shipped profile's, or a file, or refused with what exists."""
    assert run.target("localhost") == Target(load_profile("localhost"))
    with pytest.raises(UsageError, match="unknown device profile 'phon'"):
        run.target("phon")


@pytest.mark.parametrize("what", ["tables", "predictor", "name", "family"])
def test_a_failed_import_leaves_no_run(tmp_path: Path, tables: Path, predictor: Path, what: str) -> None:
    """With a wrong file or name nothing is written."""
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"garbage")
    space = MobileNetV3(width=3.0, resolutions=(128,)) if what == "family" else _SPACE
    with pytest.raises(UsageError):
        import_tables(
            tmp_path / "run",
            tmp_path if what == "tables" else tables,
            "No Name" if what == "name" else "phone",
            space,
            garbage if what == "predictor" else predictor,
            Silent(),
        )
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_space_is_refused(run: Run, tables: Path) -> None:
    """Tables of a space are not imported into a run of another."""
    narrower = MobileNetV3(width=0.25, resolutions=(128,), classes=10)
    with pytest.raises(RunError, match="is a run of space"):
        import_tables(run.folder.root, tables, "phone", narrower, None, Silent())


def test_a_measured_device_is_not_replaced(run: Run, tables: Path) -> None:
    """A device that the run has measured keeps its name."""
    table = run.folder.table("board-onnxruntime-fp32-1t")
    table.parent.mkdir()
    table.write_text("{}")
    with pytest.raises(RunError, match=r"measured on board .*; import the published ones under another device name"):
        import_tables(run.folder.root, tables, "board", _SPACE, None, Silent())


def test_a_damaged_predictor_is_refused(run: Run) -> None:
    """A predictor file that was cut is named when the run is searched."""
    path = run.folder.released_predictor
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match=r"predictor\.safetensors: is damaged"):
        run.search([run.target("phone")])


def test_the_note10_as_published_is_searched(data_folder: Path, tmp_path: Path) -> None:
    """The authors' tables and predictor give a front within the tables' range, from the fastest subnet on."""
    folder = data_folder / "ofa"
    space = MobileNetV3(width=1.2)
    run = import_tables(tmp_path / "run", folder / "note10", "note10", space, folder / "acc_predictor.pth", Silent())
    target = run.target("note10")
    front = run.search([target])
    assert len(front) > 50
    assert front.latency_ms[0] == pytest.approx(9.89, abs=0.005)
    assert front.latency_ms.max() <= 92.40
    assert 0.7 < front.accuracy.min() < front.accuracy.max() < 0.9
    assert np.array_equal(front.latency_ms, run.table(target).latency_ms(front.genes))
    counted = run.space.activation_bytes(front.genes) + run.space.weight_bytes(front.genes)
    assert np.array_equal(front.peak_bytes, counted)


def test_the_pixel_as_published_is_searched(data_folder: Path, tmp_path: Path) -> None:
    """With accuracies of its own, a run of the ProxylessNAS authors' table has a front of that table's latencies."""
    path = data_folder / "ofa" / "proxyless_pixel" / "pixel_trim.yaml"
    space = ProxylessNAS(expand_ratios=(3, 6))
    run = import_tables(tmp_path / "run", path, "pixel1", space, None, Silent())
    assert run.space.resolutions == (224,)
    genes = run.space.sample_distinct(20, np.random.default_rng(0))
    accuracy = {each.id: macs / 1e9 for each, macs in zip(run.space.decode(genes), run.space.macs(genes), strict=True)}
    write_document(run.folder.evaluated, "evaluated", 2, {"inputs_digest": "test", "accuracy": accuracy})
    front = run.search([run.target("pixel1")])
    assert len(front) > 10
    assert np.array_equal(front.latency_ms, run.table(run.target("pixel1")).latency_ms(front.genes))


def test_a_search_on_a_device_without_tables_says_what_to_run(run: Run) -> None:
    """A device that was neither imported nor profiled is answered with the command that profiles it."""
    with pytest.raises(EdgeNASError, match="run: edgenas profile --run"):
        run.search([run.target("localhost")])
