"""Compare features fairly: the same folds, the same training images, several subsets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from tlcourse.datasets.base import Split, stratified_choice
from tlcourse.datasets.splits import grouped_folds
from tlcourse.features.probe import Kind, probe
from tlcourse.metrics.intervals import Interval, fold_interval
from tlcourse.metrics.scores import auc

Indices = NDArray[np.int64]

CHANCE_AUC = 0.5
"""AUC of guessing, whatever the number of classes: that makes scores of tasks comparable."""


def learning_curve(
    features: Mapping[str, ArrayLike],
    part: Split,
    sizes: Sequence[int | None] = (None,),
    *,
    folds: int = 5,
    subsets: int = 1,
    seed: int = 0,
    kind: Kind = "logistic",
    progress: bool = True,
) -> pd.DataFrame:
    """Judge a probe on each kind of feature, trained on more and more images.

    Folds keep groups whole. A subset is drawn stratified from the training side of a fold and
    serves every kind of feature, so that differences are paired. Smaller subsets are part of
    larger ones.

    Args:
        features: Rows `(N, F)` by name, one per image of `part`.
        part: The images whose labels and groups count, usually `data.development`.
        sizes: Numbers of training images; None for as many as every fold has.
        folds: Number of folds, at least 2.
        subsets: Drawings of each size in each fold; all images are taken once.
        seed: What dealing and drawing start from.
        kind: The learning block, see `tlcourse.features.probe.probe`.
        progress: Whether to show a bar.

    Returns:
        A row per method, size, fold and subset: `method, images, fold, subset, auc, seconds`;
        `seconds` of wall time to fit and to answer.

    Raises:
        ValueError: If rows and images differ in number, nothing is asked for, or a size is out
            of range.

    >>> part = Split(np.zeros((40, 4, 4), np.uint8), np.arange(40) % 2)
    >>> curve = learning_curve({"labels": part.labels[:, None]}, part, [10, None], progress=False)
    >>> curve.groupby("images")["auc"].mean().to_dict()
    {10: 1.0, 32: 1.0}
    """
    rows = {name: _checked(name, values, part) for name, values in features.items()}
    if not rows or not len(sizes) or subsets < 1:
        raise ValueError("expected at least one kind of features, one size and one subset")
    jobs = list(_jobs(part, sizes, folds, subsets, seed))
    found = [
        {"method": name, "images": len(train), "fold": fold, "subset": subset}
        | _evaluate(values, part, train, held_out, kind)
        for fold, subset, train, held_out in tqdm(jobs, "probes", leave=False, disable=not progress)
        for name, values in rows.items()
    ]
    return pd.DataFrame(found)


def fold_means(curve: pd.DataFrame) -> pd.DataFrame:
    """Average a learning curve over subsets: a row per method, size and fold.

    Subsets of one fold are judged on the same images. Counting each as a run of its own would
    make intervals too narrow. Where a table holds several dealings (column `seed`), each keeps
    its folds.

    >>> curve = pd.DataFrame({"method": "a", "images": 50, "fold": 0, "auc": [0.7, 0.8]})
    >>> float(fold_means(curve)["auc"].iloc[0])
    0.75
    """
    keys = ["method", "images", *_split_columns(curve)]
    return curve.groupby(keys)["auc"].mean().reset_index()


def paired_gain(
    curve: pd.DataFrame, method: str, other: str, *, images: int | None = None
) -> Interval:
    """Return by how much AUC `method` beats `other`, paired over folds, with a 95 % interval.

    The interval is `metrics.fold_interval`: folds share training images and are no independent
    runs. Subsets smaller than all images share fewer, so that there it is rather too wide.

    Args:
        curve: What `learning_curve` returned; or several such tables, told apart by a column
            `seed`, each dealt into as many folds.
        method: A name in its column `method`.
        other: Another.
        images: A size; None averages over all sizes of the curve.

    Raises:
        ValueError: If a name or the size does not occur.

    >>> curve = pd.DataFrame({"method": ["a", "a", "b", "b"], "images": 50, "fold": [0, 1, 0, 1],
    ...                       "auc": [0.8, 0.9, 0.7, 0.8]})
    >>> print(paired_gain(curve, "a", "b"))
    0.100 [0.100, 0.100]
    """
    means = fold_means(curve)
    if images is not None:
        means = means[means["images"] == images]
    by_fold = means.pivot_table(index=_split_columns(curve), columns="method", values="auc")
    missing = [name for name in (method, other) if name not in by_fold]
    if missing:
        raise ValueError(
            f"expected methods {sorted(set(curve['method']))} and sizes "
            f"{sorted(set(curve['images']))}, got {missing} at {images or 'all sizes'}"
        )
    return fold_interval(by_fold[method], by_fold[other], folds=curve["fold"].nunique())


def stage_scores(
    features: Mapping[str, ArrayLike],
    labels: ArrayLike,
    folds: Sequence[tuple[Indices, Indices]],
) -> pd.DataFrame:
    """Fit a linear probe at every stage in every fold; return its score on what it did not see.

    The score is the AUC (mean of one against the rest), whose chance level is one half for any
    number of classes, so that tasks may stand in one picture. The probe and its penalty are the
    same at every stage, as `tlcourse.features.probe.probe` chose them on the last one's features.

    Args:
        features: Stage name to `(N, C)`, as `features.stage_features` gives.
        labels: `(N,)`, from 0 up.
        folds: Pairs of indices, to train on and to judge on; see `datasets.grouped_folds`.

    Returns:
        A row per stage and fold: columns stage, fold, score, chance.

    Raises:
        ValueError: If there is no stage or fold, or a fold judges images that it trained on.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(40) % 2
    >>> table = {"noise": rng.normal(size=(40, 3)), "answer": labels[:, None] + np.zeros((40, 2))}
    >>> folds = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    >>> scores = stage_scores(table, labels, folds)
    >>> scores.loc[scores["stage"] == "answer", "score"].tolist()
    [1.0, 1.0]
    """
    if not features or not len(folds):
        raise ValueError("expected at least one stage and one fold, got none")
    truth, rows = np.asarray(labels), []
    for number, (train, held_out) in enumerate(folds):
        if np.intersect1d(train, held_out).size:
            raise ValueError(f"fold {number} judges images that it trained on: use grouped_folds")
        for stage, values in features.items():
            table = np.asarray(values)
            fitted = probe(table[train], truth[train])
            score = auc(truth[held_out], fitted.predict_proba(table[held_out]))
            rows.append((stage, number, score, CHANCE_AUC))
    return pd.DataFrame(rows, columns=["stage", "fold", "score", "chance"])


def _split_columns(curve: pd.DataFrame) -> list[str]:
    return [name for name in ("seed", "fold") if name in curve]


def _jobs(
    part: Split, sizes: Sequence[int | None], folds: int, subsets: int, seed: int
) -> Iterator[tuple[int, int, Indices, Indices]]:
    splits = grouped_folds(part, folds, seed=seed)
    most = min(len(train) for train, _ in splits)
    wanted = sorted({most if size is None else size for size in sizes})
    if wanted[-1] > most:
        raise ValueError(f"the folds leave {most} images to train on, got a size of {wanted[-1]}")
    for fold, (train, held_out) in enumerate(splits):
        for size in wanted:
            for subset in range(1 if size == most else subsets):
                # One stream per seed, fold and subset, whatever else is asked for.
                drawn = int(np.random.SeedSequence((seed, fold, subset)).generate_state(1)[0])
                chosen = stratified_choice(part.labels[train], size, seed=drawn)
                yield fold, subset, train[chosen], held_out


def _evaluate(
    rows: NDArray[np.generic], part: Split, train: Indices, held_out: Indices, kind: Kind
) -> dict[str, float]:
    start = time.perf_counter()
    block = probe(rows[train], part.labels[train], kind=kind, groups=part.groups[train])
    probs = block.predict_proba(rows[held_out])
    seconds = time.perf_counter() - start
    return {"auc": auc(part.labels[held_out], probs), "seconds": seconds}


def _checked(name: str, values: ArrayLike, part: Split) -> NDArray[np.generic]:
    rows = np.asarray(values)
    if rows.ndim != 2 or len(rows) != len(part):
        raise ValueError(
            f"features {name!r}: expected ({len(part)}, F), a row per image, got {rows.shape}"
        )
    return rows
