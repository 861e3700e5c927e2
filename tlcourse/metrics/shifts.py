"""Say what shifted images take from each way of training, and what they leave."""

from __future__ import annotations

import pandas as pd

from tlcourse.metrics.intervals import mean_interval, paired_mean_interval

UNSHIFTED = "none"
"""Name of the test images as they are."""


def rows_by_shift(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run and shift from a table with a column per shift.

    Args:
        runs: Columns `strategy`, `seed`, `auc` and one `auc_NAME` per shift, as in the tables
            `04_strategies_*`.

    Returns:
        Columns `way`, `seed`, `shift` and `auc`; `UNSHIFTED` is the shift of plain test images.

    Raises:
        ValueError: If no column is called `auc_NAME`.

    Example:
        >>> wide = pd.DataFrame({"strategy": ["cold"], "seed": [0], "auc": [0.9]})
        >>> wide["auc_blur"] = 0.8
        >>> rows_by_shift(wide)["shift"].tolist()
        ['none', 'blur']
    """
    scores = ["auc", *(name for name in runs.columns if name.startswith("auc_"))]
    if len(scores) == 1:
        raise ValueError(f"expected a column auc_NAME per shift, got {', '.join(runs.columns)}")
    rows = runs.melt(["strategy", "seed"], scores, "shift", "auc_")
    rows["shift"] = rows["shift"].str.removeprefix("auc").str.removeprefix("_")
    rows["shift"] = rows["shift"].replace("", UNSHIFTED)
    return rows.rename(columns={"strategy": "way", "auc_": "auc"})


def shift_effects(runs: pd.DataFrame, *, reference: str) -> pd.DataFrame:
    """Return what each way loses and keeps, as the mean over all shifts, with intervals.

    Two questions with two answers: who loses least, and who is best afterwards. A way that started
    lower can lose least and still end lowest.

    Args:
        runs: Columns `way`, `seed`, `shift` and `auc`, one row each; every way has every seed, and
            `UNSHIFTED` is among the shifts.
        reference: The way that the others are compared with, seed by seed.

    Returns:
        A row per way; columns `lost`, `lost_more` and `left_more` of intervals: AUC lost, AUC lost
        beyond the reference's loss, AUC afterwards beyond the reference's.

    Raises:
        ValueError: If the reference or the unshifted scores are missing, or a way lacks a score.

    Example:
        >>> rows = [(strategy, seed, shift, auc - 0.01 * seed * (shift == "blur"))
        ...         for strategy, auc in (("cold", 0.9), ("frozen", 0.8))
        ...         for seed in (0, 1) for shift in ("none", "blur")]
        >>> runs = pd.DataFrame(rows, columns=["way", "seed", "shift", "auc"])
        >>> round(shift_effects(runs, reference="frozen")["left_more"]["cold"].estimate, 2)
        0.1
    """
    scores = runs.pivot(index="seed", columns=["way", "shift"], values="auc")
    strategies = list(dict.fromkeys(runs["way"]))
    if reference not in strategies:
        raise ValueError(f"expected a reference among {', '.join(strategies)}, got {reference!r}")
    if scores.isna().any(axis=None) or any(
        (strategy, UNSHIFTED) not in scores for strategy in strategies
    ):
        raise ValueError(f"expected a score per way, seed and shift, {UNSHIFTED!r} among them")
    after = {
        strategy: scores[strategy].drop(columns=UNSHIFTED).mean(axis=1) for strategy in strategies
    }
    lost = {strategy: scores[strategy][UNSHIFTED] - after[strategy] for strategy in strategies}
    columns = {
        "lost": [mean_interval(lost[strategy]) for strategy in strategies],
        "lost_more": [
            paired_mean_interval(lost[strategy], lost[reference]) for strategy in strategies
        ],
        "left_more": [
            paired_mean_interval(after[strategy], after[reference]) for strategy in strategies
        ],
    }
    return pd.DataFrame(columns, index=pd.Index(strategies, name="way"))
