"""Give every stage its learning rate, change it over time, find a good one."""

import lazy_loader

# What each name needs is loaded when it is first asked for; `__init__.pyi` says where it stands.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
