"""The step that searches a target's front."""

from __future__ import annotations

from edgenas.accuracy import AccuracyPredictor, ReleasedPredictor
from edgenas.devices import Target
from edgenas.files import read_bytes, sha256_hex
from edgenas.pipeline.evaluate import find_predictor_file, load_predictor
from edgenas.pipeline.inputs_digests import front_inputs_digest
from edgenas.pipeline.workspace import Workspace
from edgenas.profilers import LatencyTable
from edgenas.search import Front, search_front


def search(workspace: Workspace, target: Target, seed: int, strategy: str) -> Front:
    """Search the front from predictor and table; skipped while these, the seed and the strategy are the same."""
    folder, progress = workspace.folder, workspace.progress
    path = folder.front(target.name)
    with folder.writing():  # from here on, so that predictor and table stay those of the digest
        predictor, table = load_predictor(workspace), workspace.table(target)
        predictor_sha256 = sha256_hex(read_bytes(find_predictor_file(workspace)))
        table_sha256 = sha256_hex(read_bytes(folder.table(target.name)))
        inputs_digest = front_inputs_digest(predictor_sha256, table_sha256, seed, strategy)
        source = _describe_imported(predictor, table)
        if source:
            progress.say(f"search    {source}")
        if path.exists():
            front = Front.load(path, workspace.space)
            if front.inputs_digest == inputs_digest:
                progress.say(f"search    already done ({len(front)} subnets on the front)")
                return front
        with progress.step("search", 1.0) as bar:
            front = search_front(
                workspace.space,
                predictor,
                table.latency_ms,
                table.peak_bytes,
                target=target.name,
                seed=seed,
                strategy=strategy,
                inputs_digest=inputs_digest,
                source=source,
                on_progress=lambda done, total: bar(done / total),
            )
        front.save(path)
    return front


def _describe_imported(predictor: AccuracyPredictor | ReleasedPredictor, table: LatencyTable) -> str:
    """Return what of a front comes from imported files instead of this run's measurements; empty for nothing."""
    notes = []
    if table.holdout is None:
        notes.append(f"latency is summed from {table.source}, memory is counted from activations and weights")
    if isinstance(predictor, ReleasedPredictor):
        notes.append(
            "accuracy is by the Once-for-All authors' predictor for width 1.2: elsewhere only its order counts"
        )
    return "; ".join(notes)
