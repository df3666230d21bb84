"""Once-for-All supernets (arXiv 1908.09791): elastic layers, progressive training, extraction of subnets."""

from edgenas.ofa.batch_norm import calibrate_batch_norm
from edgenas.ofa.checkpoint import Checkpoint, Position, load_checkpoint, save_checkpoint
from edgenas.ofa.initial_weights import InitialWeights
from edgenas.ofa.layers import to_channels_last
from edgenas.ofa.ranks import Ranks, count_ranks, is_first_rank, join_ranks, select_accelerator
from edgenas.ofa.recipe import check_channels, check_recipe, make_recipe
from edgenas.ofa.released import load_released
from edgenas.ofa.schedule import SCHEDULES, Phase, Schedule, load_schedule, make_finetuning_schedule
from edgenas.ofa.subnet import Subnet
from edgenas.ofa.supernet import Supernet
from edgenas.ofa.threads import torch_threads
from edgenas.ofa.trainees import SingleSubnet
from edgenas.ofa.training import Trainer, TrainingFiles, TrainingStep

__all__ = [
    "SCHEDULES",
    "Checkpoint",
    "InitialWeights",
    "Phase",
    "Position",
    "Ranks",
    "Schedule",
    "SingleSubnet",
    "Subnet",
    "Supernet",
    "Trainer",
    "TrainingFiles",
    "TrainingStep",
    "calibrate_batch_norm",
    "check_channels",
    "check_recipe",
    "count_ranks",
    "is_first_rank",
    "join_ranks",
    "load_checkpoint",
    "load_released",
    "load_schedule",
    "make_finetuning_schedule",
    "make_recipe",
    "save_checkpoint",
    "select_accelerator",
    "to_channels_last",
    "torch_threads",
]
