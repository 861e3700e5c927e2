"""Score predictions, and say how sure the score is; each public name can be imported from here.

Everywhere: `labels` are integers `(N,)` from 0 to C - 1, `probs` are floats `(N, C)` whose rows
sum to 1.
"""

from tlcourse.metrics.calibrating import apply_temperature, fit_temperature, reliability
from tlcourse.metrics.intervals import (
    Interval,
    fold_interval,
    mean_interval,
    paired_mean_interval,
)
from tlcourse.metrics.operating import (
    ChosenThreshold,
    OperatingPoint,
    at_threshold,
    sensitivity_at_specificity,
    threshold_for_cost,
)
from tlcourse.metrics.resampling import bootstrap, paired_difference
from tlcourse.metrics.scores import (
    Metric,
    accuracy,
    auc,
    balanced_accuracy,
    calibration_error,
    check_predictions,
    confusion,
    log_loss,
)
from tlcourse.metrics.thresholds import precision_recall, roc_points

__all__ = [
    "ChosenThreshold",
    "Interval",
    "Metric",
    "OperatingPoint",
    "accuracy",
    "apply_temperature",
    "at_threshold",
    "auc",
    "balanced_accuracy",
    "bootstrap",
    "calibration_error",
    "check_predictions",
    "confusion",
    "fit_temperature",
    "fold_interval",
    "log_loss",
    "mean_interval",
    "paired_difference",
    "paired_mean_interval",
    "precision_recall",
    "reliability",
    "roc_points",
    "sensitivity_at_specificity",
    "threshold_for_cost",
]
