"""Answer the learner: right, wrong and why, or not yet answered.

`from tlcourse.checks import lesson01` and call `lesson01.check_...(answer)` in a cell of its own.

* A blank (`...`, or a function that still returns `...`) is met with a hint and lets Run All go on.
* A wrong answer stops the cell with one message that names the mistake, without a traceback.
* A right answer is confirmed with what follows from it.
"""

from tlcourse.checks.core import CheckFailed, Verdict, blank, check

__all__ = ["CheckFailed", "Verdict", "blank", "check"]
