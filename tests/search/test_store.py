"""The store of evaluations: nothing is evaluated twice, and what was killed resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgenas.costs import CostModel, Genes, Vector
from edgenas.errors import EdgeNASError, FormatError, RunError, UsageError
from edgenas.registry import STRATEGIES
from edgenas.search import EvaluationStore, Front, Problem, search_front
from edgenas.space import MobileNetV3


class Counted:
    """A cost model that counts its calls, and fails after some."""

    def __init__(self, model: CostModel, most: int = 10**9) -> None:
        self.model, self.most, self.calls = model, most, list[int]()

    def __call__(self, genes: Genes) -> Vector:
        if len(self.calls) >= self.most:
            raise KeyboardInterrupt
        self.calls.append(len(genes))
        return self.model(genes)


def search(path: Path, space: MobileNetV3, model: CostModel, strategy: str, seed: int = 0) -> Front:
    store = EvaluationStore(path, space, "weights and device")
    costs = {"macs": store.cost_model("macs", model), "params": space.params}
    return search_front(
        Problem(space, costs, ("macs", "params"), real=["macs"], maximised=["macs"]),
        strategy=strategy, evaluations=60, seed=seed,
    )  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES.names())
def test_a_search_that_was_killed_resumes(tmp_path: Path, tiny: MobileNetV3, strategy: str) -> None:
    """Ended after 25 evaluations and begun again, a search evaluates the others and gives the same front."""
    if strategy == "bayesian":
        pytest.importorskip("optuna", reason="the extra bayesian is not installed")
    whole = search(tmp_path / "whole.jsonl", tiny, tiny.macs, strategy)
    killed, again = Counted(tiny.macs, 25), Counted(tiny.macs)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed.jsonl", tiny, killed, strategy)
    resumed = search(tmp_path / "killed.jsonl", tiny, again, strategy)
    assert killed.calls + again.calls == [1] * whole.evaluations
    assert np.array_equal(resumed.genes, whole.genes)
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_nothing_is_evaluated_twice_across_searches(tmp_path: Path, tiny: MobileNetV3) -> None:
    """Three searches by different strategies share their evaluations: each architecture is in the file once."""
    model = Counted(tiny.macs)
    for seed, strategy in enumerate(("nsga2", "random", "regularized_evolution")):
        search(tmp_path / "evaluations.jsonl", tiny, model, strategy, seed)
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()[1:]
    assert len(set(lines)) == len(lines) == len(model.calls) < 180


@given(st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=5))
def test_values_come_back_to_the_bit(values: list[float]) -> None:
    """What was evaluated is read with the same bits."""
    import tempfile

    space = MobileNetV3(width=0.5)
    genes = space.sample_distinct(len(values), np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.jsonl"
        expected = iter(values)
        written = EvaluationStore(path, space, "x").cost_model("cost", lambda rows: np.array([next(expected)]))(genes)
        read = EvaluationStore(path, space, "x").cost_model("cost", lambda rows: np.array([np.nan]))(genes)
    assert read.tolist() == written.tolist() == values


@pytest.fixture
def written(tmp_path: Path, tiny: MobileNetV3) -> Path:
    """A store of ten evaluations."""
    path = tmp_path / "evaluations.jsonl"
    genes = tiny.sample_distinct(10, np.random.default_rng(0))
    EvaluationStore(path, tiny, "inputs").cost_model("macs", tiny.macs)(genes)
    return path


def test_a_line_that_was_cut_off_is_written_again(written: Path, tiny: MobileNetV3) -> None:
    """A kill in the middle of a line loses that evaluation only, and leaves the file as if it had not been."""
    whole = written.read_bytes()
    written.write_bytes(whole[:-7])
    store = EvaluationStore(written, tiny, "inputs")
    assert len(store) == 9
    store.cost_model("macs", tiny.macs)(tiny.sample_distinct(10, np.random.default_rng(0)))
    assert written.read_bytes() == whole


def test_a_state_of_another_search_is_refused(written: Path, tiny: MobileNetV3) -> None:
    """A store of another space or of other inputs is refused, naming both."""
    other = MobileNetV3(width=0.5)
    with pytest.raises(RunError, match=f"state of another search .space {tiny.short_hash}.* {other.short_hash}"):
        EvaluationStore(written, other, "inputs")
    with pytest.raises(RunError, match=r"inputs inputs; this search: .* other weights"):
        EvaluationStore(written, tiny, "other weights")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"value":', '"value":"x', 1), "line 2: is damaged; remove that line"),
        (lambda text: text.replace('"cost":"macs"', '"cost":5', 1), "line 2: cost: input should be a valid string"),
        (lambda text: text.replace('"cost"', '"price"', 1), "line 2: unknown key 'price'"),
        (lambda text: text.replace("edgenas.evaluations", "edgenas.front"), "expected format edgenas.evaluations"),
        (lambda text: text.replace('"version":1', '"version":9'), "upgrade edgenas"),
        (lambda text: "no JSON\n" + text, "line 1: is damaged"),
    ],
)
def test_a_damaged_store_is_refused(
    written: Path, tiny: MobileNetV3, change: Callable[[str], str], message: str
) -> None:
    """A damaged line is named with its number; nothing is lost."""
    text = change(written.read_text())
    written.write_text(text)
    with pytest.raises(FormatError, match=message):
        EvaluationStore(written, tiny, "inputs")
    assert written.read_text() == text


def test_what_is_no_number_is_not_stored(tmp_path: Path, tiny: MobileNetV3) -> None:
    """NaN of a measured cost ends the search with the architecture's name, and is evaluated again next time."""
    with pytest.raises(UsageError, match=f"macs gives nan for architecture {tiny.smallest.id}"):
        search(tmp_path / "store.jsonl", tiny, lambda genes: np.full(len(genes), np.nan), "random")
    assert not (tmp_path / "store.jsonl").exists()


def test_a_folder_that_cannot_be_written_ends_in_one_line(tmp_path: Path, tiny: MobileNetV3) -> None:
    """A store below a file cannot be written, which one line says."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeNASError, match="cannot be written"):
        search(tmp_path / "file" / "store.jsonl", tiny, tiny.macs, "random")
