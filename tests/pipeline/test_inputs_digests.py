"""Digests that decide whether a step is done."""

from __future__ import annotations

import hashlib

from edgenas.pipeline.inputs_digests import front_inputs_digest


def test_fronts_from_before_there_were_strategies_stay_current() -> None:
    """NSGA-II adds nothing to the digest of predictor, table and seed."""
    expected = hashlib.sha256(b'["aa","bb",3]').hexdigest()[:16]
    assert front_inputs_digest("aa", "bb", 3, "nsga2") == front_inputs_digest("aa", "bb", 3) == expected


def test_another_strategy_has_another_digest() -> None:
    """A front of one strategy is not taken for that of another."""
    digests = {front_inputs_digest("aa", "bb", 3, strategy) for strategy in ("nsga2", "random", "annealing")}
    assert len(digests) == 3
