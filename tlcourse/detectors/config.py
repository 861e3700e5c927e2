"""Say what shall be trained, and whether a folder holds that training or another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tlcourse.datasets.base import ImageSet
from tlcourse.detectors.artifacts import InvalidArtifacts
from tlcourse.training.checkpoint import fingerprint
from tlcourse.training.strategies import Strategy

HEAD_LR = 1e-3
"""Rate of the head where neither the caller nor the strategy names one."""


@dataclass(frozen=True, eq=False)
class TrainingConfig:
    """What shall be trained, and how; see `train_detector`.

    Raises:
        ValueError: If the weighting is unknown, or a part to be scored holds one class alone.
    """

    data: ImageSet
    backbone: str
    strategy: Strategy
    rates: tuple[float, ...]
    epochs: int
    size: int
    seed: int
    class_weights: Literal["balanced"] | None
    progress: bool

    def __post_init__(self) -> None:
        if self.class_weights not in (None, "balanced"):
            raise ValueError(
                f"expected class_weights None or 'balanced', got {self.class_weights!r}"
            )
        for part in ("val", "test"):
            present = np.unique(self.data.parts[part].labels)
            if len(present) < 2:
                only = self.data.classes[present[0]]
                raise ValueError(f"expected two classes or more in {part}, found only {only!r}")

    def arguments(self) -> dict[str, Any]:
        """Return what makes this training this one, as plain values, the same in any process."""
        strategy = {k: v for k, v in asdict(self.strategy).items() if k != "lr"}
        arrays = [a for part in self.data.parts.values() for a in (part.images, part.labels)]
        return {
            "backbone": self.backbone,
            "strategy": {**strategy, "unfreeze": dict(self.strategy.unfreeze)},
            "epochs": self.epochs,
            "lr": list(self.rates),
            "size": self.size,
            "seed": self.seed,
            "class_weights": self.class_weights,
            "images": fingerprint(*arrays),
        }

    def check_against(self, begun: dict[str, Any] | None, folder: Path) -> None:
        """Compare with what a folder's `run.json` says was asked for there; None: nothing.

        Raises:
            InvalidArtifacts: If it is another training; the message names what differs.
        """
        if begun is None:
            return
        then, now = begun.get("arguments", {}), self.arguments()
        differing = [key for key in now if then.get(key) != now[key]]
        if differing:
            what = "; ".join(f"{k}: {_differing(then, now, k)}" for k in differing)
            state = "a finished training" if begun["finished"] else "an interrupted training"
            raise InvalidArtifacts(
                f"{folder} holds {state} with other arguments ({what}): give those it was started "
                "with to go on, name another folder, or delete this one"
            )

    def say(self, what: str) -> None:
        """Print a line of progress, if progress is wanted."""
        if self.progress:
            print(what, flush=True)


def head_rates(strategy: Strategy, lr: float | Sequence[float] | None) -> tuple[float, ...]:
    """Return the rates of the head to try: those given, or else the strategy's own or `HEAD_LR`.

    Raises:
        ValueError: If a rate is not above 0, or is given twice.

    >>> head_rates(Strategy("cold"), None), head_rates(Strategy("cold"), [0.1, 0.2])
    ((0.001,), (0.1, 0.2))
    """
    wanted = (strategy.lr or HEAD_LR) if lr is None else lr
    rates = (wanted,) if isinstance(wanted, int | float) else tuple(wanted)
    if not rates or len(set(rates)) < len(rates) or not all(rate > 0 for rate in rates):
        raise ValueError(f"expected lr as a rate above 0, or several different ones, got {lr}")
    return tuple(float(rate) for rate in rates)


def _differing(then: dict[str, Any], now: dict[str, Any], key: str) -> str:
    said = [arguments.get(key) for arguments in (then, now)]
    names = [value["name"] for value in said if key == "strategy" and isinstance(value, dict)]
    if len(set(names)) == 2:  # else the names do not tell the strategies apart
        return "{} then, {} now".format(*names)
    return "{!r} then, {!r} now".format(*said)
