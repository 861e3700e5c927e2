"""Controls that redraw a picture at once; static without a kernel."""

from tlcourse.widgets.controls import Explorer
from tlcourse.widgets.explorers import explore_freezing, explore_rates

__all__ = ["Explorer", "explore_freezing", "explore_rates"]
