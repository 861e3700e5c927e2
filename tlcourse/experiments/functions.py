"""Find the function of an experiment by the name that its grid gives."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def load_function(name: str) -> Callable[..., Any]:
    """Import what `name` stands for.

    Args:
        name: Module and function, as `"package.module:name"`.

    Raises:
        ValueError: If the name has another form, or its module lacks such a function.
        ImportError: If the module cannot be imported; the message says why.

    >>> load_function("statistics:mean")([1, 3])
    2
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute.isidentifier():
        raise ValueError(f'expected a function as "package.module:name", got {name!r}')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ImportError(
            f"the module of function {name!r} cannot be imported from here "
            f"({type(error).__name__}: {error}): correct the name, or install the module"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        there = sorted(n for n, value in vars(module).items() if callable(value) and n[0] != "_")
        raise ValueError(f"expected a function {attribute!r} in {module_name}, there are {there}")
    found: Callable[..., Any] = function
    return found
