"""The search for a front of any costs of architectures, and the candidates for a budget."""

from edgenas.search.candidates import AccuracyEstimates, Candidate, Candidates, TargetPredictions
from edgenas.search.front_search import EVALUATIONS, search_front
from edgenas.search.measured_table import MeasuredTable
from edgenas.search.pareto import Front, hypervolume, nondominated_mask
from edgenas.search.problem import Costs, GeneSpace, Problem
from edgenas.search.store import EvaluationStore

__all__ = [
    "EVALUATIONS",
    "AccuracyEstimates",
    "Candidate",
    "Candidates",
    "Costs",
    "EvaluationStore",
    "Front",
    "GeneSpace",
    "MeasuredTable",
    "Problem",
    "TargetPredictions",
    "hypervolume",
    "nondominated_mask",
    "search_front",
]
