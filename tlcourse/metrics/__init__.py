"""Score predictions, and say how sure the score is.

Everywhere: `labels` are integers `(N,)` from 0 to C - 1, `probs` are floats `(N, C)` whose rows
sum to 1.
"""

import lazy_loader

# What each name needs is loaded when it is first asked for; `__init__.pyi` says where it stands.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
