"""Turn the times of all turns into ratios, pair by pair, and into the published table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

import pandas as pd

from benchmarks.contenders import BARE, COURSE, PEERS, UNCACHED, is_installed
from benchmarks.turns import Part, Turn

FASTEST = "fastest of the three"
ALLOWED = "uncached, as arithmetic allows"

WANTED = {
    ("head only", 5, FASTEST): 8.0,
    ("head only", 50, FASTEST): 60.0,
    ("cached boundary", 10, UNCACHED): 2.0,
    ("full fine-tuning", 3, FASTEST): 1.4,
    ("full fine-tuning", 3, BARE): 0.97,
}
"""What `times_longer` is to be at least, by part, epochs and contender."""


def table(turns: list[Turn], chosen: list[Part], images: int) -> pd.DataFrame:
    """Return one row per part and contender.

    Columns: `part`, `epochs`, `contender`, `state` ("measured", "not installed"), `workers` of its
    data loaders, `rounds`, `seconds` (median), `images_per_second` (training images seen, by the
    median), `times_longer_min`, `times_longer`, `times_longer_max` (its seconds by those of the
    course in the same round: least, median, most), `wanted`, `met`, `val_auc` (median),
    `others` (the largest share of the cores that other programs used).

    Args:
        turns: What was measured.
        chosen: The comparisons.
        images: Number of training images.
    """
    rows = [row for part in chosen for row in _rows(part, turns, images)]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def allowed(share: float, epochs: int) -> float:
    """Return how many times faster caching the frozen part can make a training.

    Amdahl's law, with the frozen part run once instead of in every epoch: of the uncached time,
    the share `share` becomes `share / epochs` and the rest stays.

    Args:
        share: Part of the uncached time spent in the frozen part, 0 to 1.
        epochs: Number of epochs.

    >>> allowed(0.5, 1), round(allowed(0.5, 10), 2)
    (1.0, 1.82)
    """
    return 1 / (1 - share + share / epochs)


def _rows(part: Part, turns: list[Turn], images: int) -> Iterable[dict[str, object]]:
    own = {name: _of(turns, part, name) for name in part.contenders}
    for name in part.contenders:
        yield _row(part, name, own[name], own[COURSE], images)
    peers = [own[name] for name in PEERS if own.get(name)]
    if peers:
        # In each round whoever was fastest in it: no peer gets a lucky round of another's.
        best = [
            min(several, key=lambda t: t.measured.seconds) for several in zip(*peers, strict=True)
        ]
        yield _row(part, FASTEST, best, own[COURSE], images)
    if own.get(UNCACHED):
        bounds = [allowed(t.measured.frozen_share, part.epochs) for t in own[UNCACHED]]
        yield _heading(part, ALLOWED, len(bounds)) | _spread(bounds)


def _of(turns: list[Turn], part: Part, contender: str) -> list[Turn]:
    return [turn for turn in turns if turn.part == part and turn.contender == contender]


def _row(
    part: Part, contender: str, turns: list[Turn], course: list[Turn], images: int
) -> dict[str, object]:
    if not turns:
        return _heading(part, contender, 0) | {"state": "not installed"}
    pairs = zip(turns, course, strict=True)
    ratios = [theirs.measured.seconds / ours.measured.seconds for theirs, ours in pairs]
    seconds = median(turn.measured.seconds for turn in turns)
    return {
        **_heading(part, contender, len(turns)),
        "workers": turns[0].workers if contender in PEERS else math.nan,
        "seconds": seconds,
        "images_per_second": images * part.epochs / seconds,
        **_spread(ratios),
        **_verdict(part, contender, median(ratios)),
        "frozen_share": median(turn.measured.frozen_share for turn in turns),
        "val_auc": median(turn.measured.val_auc for turn in turns),
        "others": max(turn.measured.others for turn in turns),
    }


def _heading(part: Part, contender: str, rounds: int) -> dict[str, object]:
    return {
        "part": part.name,
        "epochs": part.epochs,
        "contender": contender,
        "state": "measured",
        "rounds": rounds,
    }


def _spread(ratios: list[float]) -> dict[str, object]:
    return {
        "times_longer_min": min(ratios),
        "times_longer": median(ratios),
        "times_longer_max": max(ratios),
    }


def _verdict(part: Part, contender: str, ratio: float) -> dict[str, object]:
    wanted = WANTED.get((part.name, part.epochs, contender))
    if wanted is None:
        return {}
    absent = [peer for peer in PEERS if not is_installed(peer)] if contender == FASTEST else []
    met = f"open: without {' and '.join(absent)}" if absent else "yes" if ratio >= wanted else "no"
    return {"wanted": wanted, "met": met}
