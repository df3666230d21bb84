"""Digests of the inputs of a front and of a choice: a step is done while its result's digest stays equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgenas.files import digest_of_inputs
from edgenas.pipeline.measurement_store import SETTINGS
from edgenas.registry import DEFAULT_STRATEGY


def front_inputs_digest(
    predictor_sha256: str, table_sha256: str, seed: int, strategy: str = DEFAULT_STRATEGY, *options: Any
) -> str:
    """Return the digest of a front's inputs, from the SHA-256 of its accuracy predictor's and latency table's files.

    NSGA-II's name is left out, as before there were other strategies, so that its older fronts stay current. So are
    ``options`` of a search (plain data) that are the default.
    """
    names = [] if strategy == DEFAULT_STRATEGY else [strategy]
    return digest_of_inputs(predictor_sha256, table_sha256, seed, *names, *options)


def choice_inputs_digest(weights_sha256: str, targets: Sequence[Sequence[Any]], max_drop: float) -> str:
    """Return the digest of a choice's inputs.

    Args:
        weights_sha256: SHA-256 of the trained checkpoint; where there are fine-tuned subnets, a digest of all weights.
        targets: For each target that was considered, plain data of it, its budget, its front and its table.
        max_drop: The accuracy that the file may lose, as a fraction.
    """
    return digest_of_inputs(weights_sha256, [list(target) for target in targets], max_drop, SETTINGS.to_dict())
