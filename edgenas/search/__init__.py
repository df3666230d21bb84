"""The search for a front of any costs of architectures, and the ranking of its subnets for a budget."""

from edgenas.search.candidates import Candidates, rank_candidates
from edgenas.search.front_search import EVALUATIONS, search_front
from edgenas.search.measured_table import MeasuredTable
from edgenas.search.pareto import Front, hypervolume, nondominated_mask
from edgenas.search.problem import Costs, GeneSpace, Problem
from edgenas.search.store import EvaluationStore

__all__ = [
    "EVALUATIONS",
    "Candidates",
    "Costs",
    "EvaluationStore",
    "Front",
    "GeneSpace",
    "MeasuredTable",
    "Problem",
    "hypervolume",
    "nondominated_mask",
    "rank_candidates",
    "search_front",
]
