"""Search strategies, one file each: which architectures to evaluate next."""

from edgenas.search.strategies.contract import Strategy

__all__ = ["Strategy"]
