"""Controls that redraw a picture at once; static without a kernel."""

from tlcourse.widgets.controls import Explorer
from tlcourse.widgets.freezing import explore_freezing
from tlcourse.widgets.rates import explore_rates

__all__ = ["Explorer", "explore_freezing", "explore_rates"]
