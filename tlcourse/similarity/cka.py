"""Compare what two networks, or two states of one, say about the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]
Hsic = Callable[[Matrix, Matrix], float]
_MINIMUM_ROWS = 4


def linear_cka(x: ArrayLike, y: ArrayLike, *, unbiased: bool = True) -> float:
    """Return the linear centred kernel alignment of two feature tables of the same images.

    1: equal up to rotation and scale; near 0: unrelated. Defined by Kornblith et al. 2019
    (Similarity of neural network representations revisited). Their plain estimate approaches 1
    for unrelated features when there are more features than images; the unbiased one of Song et
    al. 2012 (Feature selection via dependence maximization) does not, and may fall a little
    below 0.

    Args:
        x: `(N, F1)`, N of 4 or more.
        y: `(N, F2)`, the same images in the same order.
        unbiased: Whether to use the unbiased estimate.

    Raises:
        ValueError: If the tables do not fit together, are not finite, are too short, or hold
            features that do not vary.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(linear_cka(x, 2 * x[:, ::-1]), 6)
    1.0
    """
    first, second = _pair(x, y)
    for table, name in ((first, "x"), (second, "y")):
        if not table.any():
            raise ValueError(f"{name} does not vary between images: alignment is not defined")
    hsic = _choose(first, second, unbiased)
    sums = _sums(hsic, first, second)
    return _aligned(sums, np.array([0.0, _scale(first), _scale(second)]))


class MinibatchCKA:
    """Gather unbiased linear CKA batch by batch, for more images than fit one Gram matrix.

    HSIC_1 (Song et al. 2012) is averaged over the batches before the three averages are divided,
    as in Nguyen, Raghu & Kornblith 2021 (Do wide and deep networks learn the same things?). The
    expected value of each average does not depend on the batch size, so batches of any size
    agree up to chance; every batch counts the same, as in the paper, whatever its size.
    Averaging `linear_cka` over batches would not do: a mean of ratios is biased.

    Memory: the three sums. What was seen is not kept. One batch gives what `linear_cka` gives.

    >>> x = np.random.default_rng(0).normal(size=(64, 3))
    >>> cka = MinibatchCKA()
    >>> for rows in np.split(x, 4):
    ...     cka.update(rows, 2 * rows[:, ::-1])
    >>> cka.batches, round(cka.value(), 6)
    (4, 1.0)
    """

    def __init__(self) -> None:
        self.batches = 0
        self._widths: tuple[int, int] | None = None
        self._sums = np.zeros(3)
        self._scales = np.zeros(3)

    def update(self, x: ArrayLike, y: ArrayLike) -> None:
        """Add a batch.

        Features that do not vary within a batch are no fault here; the batch then adds nothing.

        Args:
            x: `(N, F1)`, N of 4 or more; F1 the same in every batch.
            y: `(N, F2)`, the same images in the same order.

        Raises:
            ValueError: If the tables do not fit together or those before, are not finite, or are
                too short (drop or join a short last batch).
        """
        first, second = _pair(x, y)
        widths = (first.shape[1], second.shape[1])
        if self._widths not in (None, widths):
            raise ValueError(
                f"expected x and y with {self._widths} features as in the batches before, got "
                f"{widths}: take one MinibatchCKA for each pair of stages"
            )
        self._widths = widths
        self._sums += _sums(_choose(first, second, unbiased=True), first, second)
        self._scales += (0.0, _scale(first), _scale(second))
        self.batches += 1

    def value(self) -> float:
        """Return the alignment over the batches so far: 1 equal, near 0 unrelated.

        Raises:
            ValueError: If there was no batch, or features that do not vary in any.
        """
        if not self.batches:
            raise ValueError("expected at least one batch before value(), got none: call update")
        return _aligned(self._sums, self._scales)


def cka_by_stage(
    features_a: Mapping[str, ArrayLike], features_b: Mapping[str, ArrayLike]
) -> pd.Series[float]:
    """Return the unbiased linear CKA of each stage, as `stage_features` names them.

    Args:
        features_a: Stage name to `(N, C)`.
        features_b: The same stages and images of another network, or of another state.

    Raises:
        ValueError: If the stages differ, or `linear_cka` refuses one of them.

    >>> rng = np.random.default_rng(0)
    >>> table = {"stem": rng.normal(size=(9, 2)), "stage1": rng.normal(size=(9, 20))}
    >>> cka_by_stage(table, table).round(3).to_dict()
    {'stem': 1.0, 'stage1': 1.0}
    """
    if list(features_a) != list(features_b):
        raise ValueError(
            f"expected the same stages, got {list(features_a)} and {list(features_b)}: "
            "compare networks of one architecture, or linear_cka of chosen stages"
        )
    scores = {name: linear_cka(features_a[name], features_b[name]) for name in features_a}
    return pd.Series(scores, name="cka", dtype=float).rename_axis("stage")


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Matrix, Matrix]:
    first, second = _centred(x, "x"), _centred(y, "y")
    if len(first) != len(second):
        raise ValueError(f"expected the same images, got {len(first)} and {len(second)} rows")
    return first, second


def _centred(features: ArrayLike, name: str) -> Matrix:
    """Return a table without its means, all zeros if it does not vary but for rounding."""
    table = np.asarray(features, dtype=np.float64)
    if table.ndim != 2 or len(table) < _MINIMUM_ROWS:
        raise ValueError(
            f"expected {name} of shape (N, F) with N of {_MINIMUM_ROWS} or more, got {table.shape}"
        )
    if not np.isfinite(table).all():
        raise ValueError(f"{name} holds NaN or infinity")
    # Means cancel in either estimate; taken off first, they do not cost digits.
    centred: Matrix = table - table.mean(axis=0)
    varies = np.abs(centred).max(initial=0) > 1e-12 * np.abs(table).max(initial=0)
    return centred if varies else np.zeros_like(centred)


def _sums(hsic: Hsic, x: Matrix, y: Matrix) -> Matrix:
    return np.array([hsic(x, y), hsic(x, x), hsic(y, y)])


def _scale(table: Matrix) -> float:
    """Return the size against which an HSIC of the table with itself is rounding or not."""
    return float(np.square(table).sum() ** 2 / len(table) ** 2)


def _aligned(sums: Matrix, scales: Matrix) -> float:
    """Return CKA from HSIC of x with y, x with x, y with y, each summed over batches."""
    for name, own, scale in zip("xy", sums[1:], scales[1:], strict=True):
        # Pairs all equally alike, such as one lone image that differs, leave only rounding.
        if own <= 1e-12 * scale:
            raise ValueError(
                f"all pairs of images are equally alike in {name}: alignment is not defined, "
                "take more images or unbiased=False"
            )
    return float(sums[0] / np.sqrt(sums[1] * sums[2]))


def _choose(x: Matrix, y: Matrix, unbiased: bool) -> Hsic:
    """Pick the estimate, by Gram matrices `(N, N)` or by feature products, whichever is cheaper."""
    widths = x.shape[1], y.shape[1]
    by_features = max(widths) < len(x)
    if unbiased:
        return _unbiased_by_features if by_features else _unbiased_by_grams
    return _biased_by_features if by_features else _biased_by_grams


def _biased_by_features(x: Matrix, y: Matrix) -> float:
    return float(np.square(x.T @ y).sum())


def _biased_by_grams(x: Matrix, y: Matrix) -> float:
    return float(((x @ x.T) * (y @ y.T)).sum())


def _unbiased_by_features(x: Matrix, y: Matrix) -> float:
    square_x, square_y = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    product = float(np.square(x.T @ y).sum() - square_x @ square_y)
    return _combine(product, x @ x.sum(axis=0) - square_x, y @ y.sum(axis=0) - square_y)


def _unbiased_by_grams(x: Matrix, y: Matrix) -> float:
    gram_x, gram_y = x @ x.T, y @ y.T
    np.fill_diagonal(gram_x, 0)
    np.fill_diagonal(gram_y, 0)
    return _combine(float((gram_x * gram_y).sum()), gram_x.sum(axis=1), gram_y.sum(axis=1))


def _combine(product: float, rows_x: Matrix, rows_y: Matrix) -> float:
    """Return HSIC_1 of Song et al. 2012 from sums over Gram matrices without their diagonals."""
    n = len(rows_x)
    means = rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2))
    return float((product + means - 2 / (n - 2) * rows_x @ rows_y) / (n * (n - 3)))
