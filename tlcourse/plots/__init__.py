"""Draw what the lessons show: every function takes a title, draws what it is given, returns axes.

Nothing here trains or predicts. Colours mean the same in every lesson (`plots.look`); `show`
displays a figure with a text for readers who do not see it:

    show(roc(labels, probs, title="The network ranks 9 pairs in 10 rightly"),
         alt="ROC curve far above the diagonal of guessing, AUC 0.92")
"""

from tlcourse.plots.curves import learning_curves, stage_curves
from tlcourse.plots.display import show
from tlcourse.plots.history import history_curves
from tlcourse.plots.images import heat_map, image_grid, patch_grid
from tlcourse.plots.layers import activation_stages, filters_grid, response_grid
from tlcourse.plots.look import OKABE_ITO, colour, colours_for, style
from tlcourse.plots.matrices import confusion, confusions
from tlcourse.plots.operating import precision_recall_curve, roc
from tlcourse.plots.predictions import score_distribution, top_answers
from tlcourse.plots.rates import rate_schedule, rate_test
from tlcourse.plots.rates_given import schedule_curves, stage_rates
from tlcourse.plots.reliability import reliability_curve
from tlcourse.plots.scores import class_counts, score_bars

__all__ = [
    "OKABE_ITO",
    "activation_stages",
    "class_counts",
    "colour",
    "colours_for",
    "confusion",
    "confusions",
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
    "score_distribution",
    "show",
    "stage_curves",
    "stage_rates",
    "style",
    "top_answers",
]
