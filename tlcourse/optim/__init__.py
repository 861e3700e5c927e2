"""Give each stage its own learning rate, find the rate, and let it follow a schedule.

`param_groups` sorts the parameters that may move into groups named after their stage; every torch
optimizer takes the groups as they are. The schedules set the rate of every optimizer step;
`find_lr` tries rates out. Every public name can be imported from here.
"""

from tlcourse.optim.finder import RateTest, find_lr
from tlcourse.optim.groups import (
    NO_DECAY,
    ULMFIT_DECAY,
    OptimizerWarning,
    check_optimizer,
    param_groups,
    trainable_parameters,
)
from tlcourse.optim.making import MakeOptimizer, make_class_weights, make_optimizer
from tlcourse.optim.schedules import constant, slanted_triangular, warmup_cosine

__all__ = [
    "NO_DECAY",
    "ULMFIT_DECAY",
    "MakeOptimizer",
    "OptimizerWarning",
    "RateTest",
    "check_optimizer",
    "constant",
    "find_lr",
    "make_class_weights",
    "make_optimizer",
    "param_groups",
    "slanted_triangular",
    "trainable_parameters",
    "warmup_cosine",
]
