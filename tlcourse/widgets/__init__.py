"""Explore choices before training: turn a control, see figures and numbers at once.

Every control has a label, answers to the keyboard, and redraws when it is let go. Without a front
end (tests, a run of all cells) an explorer is made and drawn all the same.
"""

from tlcourse.widgets.explorer import Explorer
from tlcourse.widgets.freezing import explore_freezing
from tlcourse.widgets.rates import explore_rates

__all__ = ["Explorer", "explore_freezing", "explore_rates"]
