"""Linear CKA over minibatches, and drift, against implementations with plain loops."""

from copy import deepcopy
from itertools import permutations

import numpy as np
import pytest
import torch
from torchvision import models

from tlcourse.backbones import stages
from tlcourse.similarity import MinibatchCKA, drift_by_stage, linear_cka


def tables(n, width_x, width_y, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 3))
    x = shared @ rng.normal(size=(3, width_x)) + 0.5 * rng.normal(size=(n, width_x)) + 10
    y = shared @ rng.normal(size=(3, width_y)) + 0.5 * rng.normal(size=(n, width_y)) - 3
    return x, y


def in_batches(x, y, *sizes):
    cka = MinibatchCKA()
    ends = np.cumsum(sizes)
    assert ends[-1] == len(x)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        cka.update(x[start:end], y[start:end])
    return cka


def plain_hsic(x, y):
    """HSIC_1 as Nguyen et al. 2021 write it, entry by entry, no matrix product anywhere."""
    n = len(x)

    def gram(table):
        rows = range(n)
        return [
            [sum(table[i][c] * table[j][c] for c in range(len(table[0]))) * (i != j) for j in rows]
            for i in rows
        ]

    k, m = gram(x), gram(y)
    trace = sum(k[i][j] * m[j][i] for i in range(n) for j in range(n))
    sum_k = sum(sum(row) for row in k)
    sum_m = sum(sum(row) for row in m)
    cross = sum(k[i][j] * m[j][q] for i in range(n) for j in range(n) for q in range(n))
    return (trace + sum_k * sum_m / ((n - 1) * (n - 2)) - 2 / (n - 2) * cross) / (n * (n - 3))


def hsic_of_quadruples(x, y):
    """HSIC_1 by its definition (Song et al. 2012): a mean over all ordered quadruples of rows."""
    k, m = x @ x.T, y @ y.T
    values = [
        k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q]
        for i, j, q, r in permutations(range(len(x)), 4)
    ]
    return float(np.mean(values))


def plain_minibatch_cka(batches, hsic):
    k = len(batches)
    xy = sum(hsic(x, y) for x, y in batches) / k
    xx = sum(hsic(x, x) for x, _ in batches) / k
    yy = sum(hsic(y, y) for _, y in batches) / k
    return xy / (xx**0.5 * yy**0.5)


@pytest.mark.parametrize("hsic", [plain_hsic, hsic_of_quadruples])
@pytest.mark.parametrize("widths", [(2, 3), (3, 20), (30, 12)])
def test_it_equals_the_plain_loops(hsic, widths):
    x, y = tables(19, *widths)
    x, y = x - 10, y + 3  # the loops are not guarded against lost digits
    parts = [slice(0, 8), slice(8, 12), slice(12, 19)]
    expected = plain_minibatch_cka([(x[p], y[p]) for p in parts], hsic)
    assert in_batches(x, y, 8, 4, 7).value() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("shape", [(40, 5, 7), (40, 5, 90), (4, 3, 50)])
def test_one_batch_gives_linear_cka(shape):
    x, y = tables(*shape)
    assert in_batches(x, y, len(x)).value() == pytest.approx(linear_cka(x, y), abs=1e-12)


def test_the_order_within_a_batch_and_of_the_batches_does_not_matter():
    x, y = tables(30, 6, 40)
    expected = in_batches(x, y, 10, 8, 12).value()
    rng = np.random.default_rng(1)
    order = np.concatenate([rng.permutation(range(*p)) for p in ((0, 10), (10, 18), (18, 30))])
    assert in_batches(x[order], y[order], 10, 8, 12).value() == pytest.approx(expected, abs=1e-10)
    turned = np.roll(np.arange(30), -10)
    assert in_batches(x[turned], y[turned], 8, 12, 10).value() == pytest.approx(expected, abs=1e-10)
    assert in_batches(y, x, 10, 8, 12).value() == pytest.approx(expected, abs=1e-10)


def test_rows_of_another_image_do_matter():
    x, y = tables(30, 6, 40)
    other = np.roll(y, 1, axis=0)
    assert in_batches(x, other, 10, 20).value() < in_batches(x, y, 10, 20).value() - 0.3


def test_small_batches_are_not_biased_where_the_plain_estimate_is():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 300)), rng.normal(size=(400, 300))
    assert abs(in_batches(x, y, *[8] * 50).value()) < 0.05
    plain = [linear_cka(x[i : i + 8], y[i : i + 8], unbiased=False) for i in range(0, 400, 8)]
    assert np.mean(plain) > 0.8


def test_small_batches_come_near_the_whole():
    x, y = tables(1200, 8, 12)
    assert in_batches(x, y, *[12] * 100).value() == pytest.approx(linear_cka(x, y), abs=0.03)


def test_the_value_can_be_asked_for_along_the_way():
    x, y = tables(24, 4, 6)
    cka = MinibatchCKA()
    cka.update(x[:12], y[:12])
    assert cka.value() == pytest.approx(linear_cka(x[:12], y[:12]))
    cka.update(x[12:], y[12:])
    assert cka.value() == pytest.approx(in_batches(x, y, 12, 12).value())
    assert cka.batches == 2


def test_torch_batches_and_large_offsets_keep_their_digits():
    x, y = tables(48, 8, 100)
    cka = MinibatchCKA()
    for rows in np.split(np.arange(48), 3):
        cka.update(torch.tensor(x[rows] + 1000).float(), torch.tensor(y[rows]).float())
    assert cka.value() == pytest.approx(in_batches(x, y, 16, 16, 16).value(), abs=1e-3)


def test_a_batch_of_silent_features_adds_nothing():
    x, y = tables(24, 4, 6)
    silent = in_batches(x[:12], y[:12], 12)
    silent.update(np.full((8, 4), 0.1), y[12:20])
    one = (y[:12] - y[:12].mean(0), y[12:20] - y[12:20].mean(0))
    own = [plain_hsic(part, part) for part in one]
    smaller = np.sqrt(own[0] / sum(own))
    assert silent.value() == pytest.approx(linear_cka(x[:12], y[:12]) * smaller)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 4)), np.zeros((3, 6)), r"N of 4 or more, got \(3, 4\)"),
        (np.eye(5, 4), np.eye(6), "5 and 6 rows"),
        (np.full((5, 4), np.nan), np.eye(5, 6), "x holds NaN or infinity"),
        (np.eye(5), np.eye(5, 6), r"\(4, 6\) features as in the batches before, got \(5, 6\)"),
    ],
)
def test_a_batch_that_does_not_fit_is_named_and_leaves_no_trace(x, y, message):
    cka = in_batches(*tables(12, 4, 6), 12)
    before = cka.value()
    with pytest.raises(ValueError, match=message):
        cka.update(x, y)
    assert (cka.value(), cka.batches) == (before, 1)


def test_nothing_to_compare_is_named():
    with pytest.raises(ValueError, match="at least one batch"):
        MinibatchCKA().value()
    cka = MinibatchCKA()
    cka.update(np.full((5, 2), 3.3), np.eye(5))
    with pytest.raises(ValueError, match="equally alike in x"):
        cka.value()


def test_drift_equals_a_plain_loop_over_the_weights():
    model = models.shufflenet_v2_x0_5()
    before = deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.rand(1) * torch.randn_like(parameter)
    drift = drift_by_stage(before, model)
    after = model.state_dict()
    for name, stage in stages(model).items():
        change = size = 0.0
        for key, _ in stage.named_parameters():
            pairs = zip(before[key].flatten().tolist(), after[key].flatten().tolist(), strict=True)
            for old, new in pairs:
                change += (new - old) ** 2
                size += old**2
        assert drift[name] == pytest.approx((change / size) ** 0.5, rel=1e-6), name
    assert drift.nunique() == len(drift) > 4
