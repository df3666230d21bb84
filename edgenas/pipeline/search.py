"""The step that searches a target's front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.devices import Target
from edgenas.files import digest, read_bytes
from edgenas.pipeline.evaluate import predictor_file
from edgenas.pipeline.inputs import digest_of_inputs
from edgenas.profilers import LatencyTable
from edgenas.search import Front, search_front

if TYPE_CHECKING:
    from edgenas.pipeline.run import Run


def search(run: Run, target: Target, seed: int) -> Front:
    """The front from the run's predictor and the target's table; skipped while both and the seed are the same."""
    predictor, table = run.predictor(), run.table(target)
    path = run.layout.front(target.name)
    inputs = [digest(read_bytes(file)) for file in (predictor_file(run), run.layout.table(target.name))]
    current = digest_of_inputs(*inputs, seed)
    source = _source(predictor, table)
    if source:
        run.progress.say(f"search    {source}")
    with run.layout.writing():
        if path.exists():
            front = Front.load(path, run.space)
            if front.inputs_digest == current:
                run.progress.say(f"search    already done ({len(front)} subnets on the front)")
                return front
        with run.progress.step("search", 1.0) as bar:
            front = search_front(
                run.space,
                predictor,
                table.latency_ms,
                table.peak_bytes,
                target=target.name,
                seed=seed,
                inputs_digest=current,
                source=source,
                on_generation=lambda done, total: bar(done / total),
            )
        front.save(path)
    return front


def _source(predictor: AccuracyPredictor | ReleasedPredictor, table: LatencyTable) -> str:
    """What of a front does not come from this run's own measurements; empty when all does."""
    notes = []
    if table.holdout is None:
        notes.append(f"latency is summed from {table.source}, memory is counted from activations and weights")
    if isinstance(predictor, ReleasedPredictor):
        notes.append(
            "accuracy is by the Once-for-All authors' predictor for width 1.2: elsewhere only its order counts"
        )
    return "; ".join(notes)
