"""Choose what may move, and prove what did."""

from tlcourse.freezing.freeze import freeze, frozen_stages, unfreeze, unfreeze_in_training
from tlcourse.freezing.report import (
    FrozenError,
    Snapshot,
    assert_frozen,
    count_parameters,
    count_trainable,
    freeze_report,
    snapshot,
)

__all__ = [
    "FrozenError",
    "Snapshot",
    "assert_frozen",
    "count_parameters",
    "count_trainable",
    "freeze",
    "freeze_report",
    "frozen_stages",
    "snapshot",
    "unfreeze",
    "unfreeze_in_training",
]
