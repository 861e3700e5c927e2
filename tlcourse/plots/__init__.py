"""Draw what is given and return the axes; nothing here trains."""

from tlcourse.plots.curves import history_curves, learning_curves, stage_curves
from tlcourse.plots.evaluation import (
    confusion_matrices,
    confusion_matrix,
    precision_recall_curve,
    reliability_curve,
    roc,
)
from tlcourse.plots.images import heat_map, image_grid, patch_grid
from tlcourse.plots.layers import activation_stages, filters_grid, response_grid
from tlcourse.plots.learning_rates import rate_schedule, rate_test, schedule_curves, stage_rates
from tlcourse.plots.scores import class_counts, score_bars, top_predictions
from tlcourse.plots.style import OKABE_ITO, colour, colours_for, course_style, show

__all__ = [
    "OKABE_ITO",
    "activation_stages",
    "class_counts",
    "colour",
    "colours_for",
    "confusion_matrices",
    "confusion_matrix",
    "course_style",
    "filters_grid",
    "heat_map",
    "history_curves",
    "image_grid",
    "learning_curves",
    "patch_grid",
    "precision_recall_curve",
    "rate_schedule",
    "rate_test",
    "reliability_curve",
    "response_grid",
    "roc",
    "schedule_curves",
    "score_bars",
    "show",
    "stage_curves",
    "stage_rates",
    "top_predictions",
]
