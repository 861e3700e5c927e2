"""Name the runs of an experiment: every combination of factors, and the function that makes one."""

from __future__ import annotations

import copy
import hashlib
import importlib
import itertools
import json
import math
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Run = dict[str, Any]
"""One value of every factor, by name."""

RESERVED = frozenset({"key", "seconds"})
"""Columns that the table of runs fills in itself."""

KEY_DIGITS = 16
"""Hexadecimal digits of a run's key: 64 bits, enough for any grid that can be run."""


@dataclass(frozen=True)
class Grid:
    """Every combination of the values of some factors.

    Args:
        factors: Values by name. Names are arguments of the function that will be called; values
            are what JSON can hold (numbers, text, booleans, None, lists and dicts of those).
        function: Where that function is, as `"package.module:name"`; None if the caller has it.

    Raises:
        ValueError: If there is no factor, a factor has no value or one value twice, or a name is
            no argument's name or is reserved.
        TypeError: If values have no order (a set), are text, or are nothing that JSON can hold.

    >>> grid = Grid({"strategy": ["cold", "warmup"], "images": [50, None], "seed": range(5)})
    >>> len(grid), next(grid.runs())
    (20, {'strategy': 'cold', 'images': 50, 'seed': 0})
    """

    factors: Mapping[str, Iterable[Any]]
    function: str | None = None

    def __post_init__(self) -> None:
        if not self.factors:
            raise ValueError("expected at least one factor with its values, got none")
        plain = {name: _values(name, values) for name, values in self.factors.items()}
        object.__setattr__(self, "factors", plain)

    def __len__(self) -> int:
        return math.prod(len(tuple(values)) for values in self.factors.values())

    def runs(self) -> Iterator[Run]:
        """Yield the runs in the order of the factors: the last one changes fastest.

        >>> [list(run.values()) for run in Grid({"a": [1, 2], "b": ["x", "y"]}).runs()]
        [[1, 'x'], [1, 'y'], [2, 'x'], [2, 'y']]
        """
        for values in itertools.product(*self.factors.values()):
            yield copy.deepcopy(dict(zip(self.factors, values, strict=True)))

    def keyed(self) -> dict[str, Run]:
        """Return the runs by key, in the same order.

        >>> list(Grid({"seed": [0, 1]}).keyed().values())
        [{'seed': 0}, {'seed': 1}]
        """
        return {run_key(run): run for run in self.runs()}

    @classmethod
    def from_file(cls, path: str | Path) -> Grid:
        """Read a grid that is kept as a file.

        The file holds a table `factors` and, if wanted, `function`. TOML has no null: the word
        that the key `none` names stands for None in every factor.

            function = "package.module:name"
            none = "all"
            [factors]
            images = [50, 100, "all"]
            seed = [0, 1, 2]

        Args:
            path: A `.toml` or `.json` file.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is neither TOML nor JSON, or holds something else; it is named.
        """
        try:
            return cls._from_data(_parse(Path(path)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def _from_data(cls, data: Any) -> Grid:
        known = {"factors", "function", "none"}
        if not isinstance(data, dict) or "factors" not in data or set(data) - known:
            found = sorted(data) if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"expected factors and perhaps function and none, got {found}")
        if not isinstance(data["factors"], dict):
            raise ValueError("expected a table of factors: [factors] and a list of values by name")
        factors = data["factors"]
        if "none" in data:
            factors = {
                name: [None if value == data["none"] else value for value in _listed(name, values)]
                for name, values in factors.items()
            }
        return cls(factors, data.get("function"))


def run_key(run: Mapping[str, Any]) -> str:
    """Return the name of a run: the start of the SHA-256 of its sorted JSON.

    It does not depend on the order of the factors, the machine or the version of Python.

    >>> run_key({"seed": 0, "strategy": "cold"}) == run_key({"strategy": "cold", "seed": 0})
    True
    >>> run_key({"strategy": "cold", "seed": 0})
    'bfe48a8ce7adfa17'
    """
    return hashlib.sha256(_canonical(dict(run)).encode()).hexdigest()[:KEY_DIGITS]


def to_builtin(value: Any) -> Any:
    """Turn a numpy or torch number or array into what JSON can hold; pass to `json.dumps`.

    >>> import numpy as np
    >>> json.dumps({"auc": np.float32(0.5), "drift": np.zeros(2)}, default=to_builtin)
    '{"auc": 0.5, "drift": [0.0, 0.0]}'
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"expected numbers, text, booleans, None, lists or dicts, got {value!r}")


def _canonical(value: Any) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=to_builtin
    )


def _values(name: str, values: Iterable[Any]) -> tuple[Any, ...]:
    if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
        raise ValueError(
            f"expected names of arguments other than {sorted(RESERVED)} for factors, got {name!r}"
        )
    try:
        texts = [_canonical(value) for value in _listed(name, values)]
    except (TypeError, ValueError) as error:
        raise type(error)(f"factor {name!r}: {error}") from None
    if not texts or len(set(texts)) < len(texts):
        raise ValueError(f"factor {name!r}: expected values, each once, got [{', '.join(texts)}]")
    return tuple(json.loads(text) for text in texts)


def _listed(name: str, values: Iterable[Any]) -> list[Any]:
    unordered = isinstance(values, str | bytes | Mapping | Set)
    if unordered or not isinstance(values, Iterable):
        raise TypeError(f"expected a list of values for factor {name!r}, got {values!r}")
    return list(values)


def _parse(path: Path) -> Any:
    if path.suffix not in (".toml", ".json"):
        raise ValueError("expected a file that ends in .toml or .json")
    text = path.read_text(encoding="utf-8")
    return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)


def load_function(name: str) -> Callable[..., Any]:
    """Import what `name` stands for.

    The working folder is searched too, after what is installed; it stays on `sys.path`, because
    worker processes look the function up as well.

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
    # An installed command has its own folder there in place of the working one.
    if not {"", here := str(Path.cwd())} & set(sys.path):
        sys.path.append(here)
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
