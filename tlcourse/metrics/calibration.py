"""Say whether probabilities mean what they say, and mend them with one number: temperature."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from tlcourse.metrics.scores import check_predictions, one_against_rest

_NONE_FITS = "no temperature fits: {} is always better; leave the probabilities as they are"


def fit_temperature(labels: ArrayLike, probs: ArrayLike) -> float:
    """Return the temperature that makes the log loss of these predictions smallest.

    Temperature scaling (Guo et al. 2017, *On Calibration of Modern Neural Networks*) divides all
    logits by one number: above 1 makes answers less sure, below 1 surer. The logarithms of
    probabilities serve as logits, since both differ only by a number per image, which softmax
    does not see. Fit it on validation predictions, then `apply_temperature` to the test part.

    Args:
        labels: `(N,)`, of the validation part.
        probs: `(N, C)`, what the model predicts for it.

    Raises:
        ValueError: If predictions are malformed, `labels` hold one class only, a true class has
            probability 0, or the loss has no smallest value: every image answered rightly, where
            surer is always better, or answers no better than guessing, where less sure is.

    >>> sure = np.array([[0.99, 0.01], [0.99, 0.01], [0.01, 0.99], [0.99, 0.01]])
    >>> round(fit_temperature([0, 0, 1, 1], sure), 2)  # right three times in four, not 99 in 100
    4.18
    """
    labels, probs = check_predictions(labels, probs)
    if len(np.unique(labels)) < 2:
        raise ValueError(f"a temperature needs images of two classes, found only {labels[0]}")
    lost = int((probs[np.arange(len(labels)), labels] == 0).sum())
    if lost:
        raise ValueError(
            f"{lost} images have probability 0 for their true class, an infinite loss at any "
            "temperature: compute the probabilities in float64"
        )
    if (probs[np.arange(len(labels)), labels] == probs.max(axis=1)).all():
        raise ValueError(_NONE_FITS.format("every image is answered rightly, so surer"))
    # In 1 / t the loss is convex: its slope crosses zero once, or never.
    if _slope(0.0, labels, probs) >= 0:
        raise ValueError(_NONE_FITS.format("answers are no better than guessing, so less sure"))
    upper = 1.0
    while _slope(upper, labels, probs) <= 0:
        upper *= 2
    return float(1 / optimize.brentq(_slope, 0, upper, args=(labels, probs), rtol=1e-9))


def apply_temperature(probs: ArrayLike, t: float) -> NDArray[np.float64]:
    """Return the probabilities `(N, C)` at temperature `t`; each image's answer stays the same.

    With two classes the order of images stays too, hence AUC and every ROC curve. Thresholds do
    not: one chosen before is worth nothing after.

    Args:
        probs: `(N, C)`.
        t: Above 0, from `fit_temperature`; 1 changes nothing.

    Raises:
        ValueError: If `probs` are no probabilities or `t` is not a finite number above 0.

    >>> apply_temperature([[0.9, 0.1]], 2).round(2).tolist()
    [[0.75, 0.25]]
    """
    if not np.isfinite(t) or t <= 0:
        raise ValueError(f"t must be a finite number above 0, got {t}: take fit_temperature's")
    _, probs = check_predictions(np.zeros(np.shape(probs)[:1], int), probs)
    with np.errstate(divide="ignore"):  # softmax makes a probability of 0 of -inf again
        return np.asarray(special.softmax(np.log(probs) / t, axis=1))


def calibration_error(labels: ArrayLike, probs: ArrayLike, *, bins: int = 10) -> float:
    """Return the expected calibration error (Guo et al. 2017), from 0 (honest) to 1.

    Answers are sorted into `bins` of equal width by their confidence; the error is the mean gap
    between confidence and share right, weighted by the images in each bin.

    >>> round(calibration_error([0, 1], [[0.9, 0.1], [0.9, 0.1]]), 2)
    0.4
    """
    table = reliability(labels, probs, bins)
    shares = table["images"] / table["images"].sum()
    gaps = (table["confidence"] - table["observed"]).abs() * shares
    return float(np.sum(gaps.to_numpy()))


def reliability(
    labels: ArrayLike,
    probs: ArrayLike,
    bins: int = 10,
    *,
    positive: int | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return for bins of confidence how sure the model was and how often it was right.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`.
        bins: Number of bins of equal width from 0 to 1.
        positive: None for the confidence of the answer and the share of right answers, as in
            `calibration_error`; a class for its probability and the share of images that have it.
        level: Share of such intervals that shall hold the truth.

    Returns:
        A row per bin that holds images, lowest first: `left`, `right` (a bin holds its left edge,
        the last one both), `confidence` (the mean), `observed` (a share), `images` (a count),
        `low`, `high` (Wilson 1927 interval of the share, by scipy; it takes images for
        independent, so near copies make it too narrow).

    Raises:
        ValueError: If predictions are malformed, `bins` is below 1 or `positive` no class.

    >>> table = reliability([0, 0, 1, 1], [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    >>> table[["confidence", "observed", "images"]].round(2).to_dict("records")[-1]
    {'confidence': 0.9, 'observed': 0.67, 'images': 3}
    """
    if bins < 1:
        raise ValueError(f"expected one bin or more, got bins={bins}")
    if positive is None:
        labels, probs = check_predictions(labels, probs)
        said, true = probs.max(axis=1), labels == probs.argmax(axis=1)
    else:
        true, said = one_against_rest(labels, probs, positive)
    which = np.minimum((said * bins).astype(int), bins - 1)
    rows = []
    for b in np.unique(which):
        inside = which == b
        hits, count = int(true[inside].sum()), int(inside.sum())
        wilson = stats.binomtest(hits, count).proportion_ci(level, method="wilson")
        shares = float(said[inside].mean()), hits / count
        rows.append((b / bins, (b + 1) / bins, *shares, count, wilson.low, wilson.high))
    names = ["left", "right", "confidence", "observed", "images", "low", "high"]
    return pd.DataFrame(rows, columns=names).astype({"images": int, "low": float, "high": float})


def _slope(inverse: float, labels: NDArray[np.int64], probs: NDArray[np.float64]) -> float:
    # Clipped, or a probability of 0 would make 0 times infinity; after softmax it is 0 again.
    logits = np.log(probs.clip(np.finfo(float).tiny))
    expected = (special.softmax(inverse * logits, axis=1) * logits).sum(axis=1)
    return float(np.mean(expected - logits[np.arange(len(labels)), labels]))
