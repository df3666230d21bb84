"""Search of the accuracy-latency-memory front, and candidates for a budget."""

from edgenas.search.candidates import candidates
from edgenas.search.nsga2 import search_front
from edgenas.search.pareto import Front, nondominated

__all__ = ["Front", "candidates", "nondominated", "search_front"]
