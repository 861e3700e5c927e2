"""Load, verify, divide and examine images."""

import lazy_loader

# What each name needs is loaded when it is first asked for; `__init__.pyi` says where it stands.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
