"""Search strategies, one file each: which architectures to evaluate next."""

from edgenas.search.strategies.contract import Evaluate, Strategy

__all__ = ["Evaluate", "Strategy"]
