"""Say what a choice of frozen stages costs on this machine: parameters, memory, seconds.

`stage_costs` measures a network once, `estimate` adds up what a choice costs.
"""

from tlcourse.costs.estimating import Estimate, estimate
from tlcourse.costs.measuring import stage_costs

__all__ = ["Estimate", "estimate", "stage_costs"]
