"""The search for the front of accuracy, latency and memory, and the ranking of its subnets for a budget."""

from edgenas.search.candidates import Candidates, rank_candidates
from edgenas.search.front_search import search_front
from edgenas.search.pareto import Front, nondominated_mask

__all__ = ["Candidates", "Front", "nondominated_mask", "rank_candidates", "search_front"]
