from copy import deepcopy
from itertools import permutations

import numpy as np
import pytest
import torch
from torchvision import models

from tlcourse.backbones import replace_head, stages
from tlcourse.similarity import cka_by_stage, drift_by_stage, linear_cka

SHAPES = [(40, 5, 7), (40, 5, 90), (12, 200, 100), (30, 30, 29), (4, 3, 50)]


def tables(n, width_x, width_y, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 3))
    x = shared @ rng.normal(size=(3, width_x)) + 0.5 * rng.normal(size=(n, width_x)) + 10
    y = shared @ rng.normal(size=(3, width_y)) + 0.5 * rng.normal(size=(n, width_y)) - 3
    return x, y


def plain_cka(x, y, unbiased):
    """The formulas as the papers write them, with loops and matrices of ones."""
    n = len(x)
    ones = np.ones((n, 1))

    def hsic(a, b):
        k, m = a @ a.T, b @ b.T
        if not unbiased:
            centring = np.eye(n) - ones @ ones.T / n
            return np.trace(k @ centring @ m @ centring) / (n - 1) ** 2
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        middle = (ones.T @ k @ ones) * (ones.T @ m @ ones) / ((n - 1) * (n - 2))
        cross = 2 / (n - 2) * ones.T @ k @ m @ ones
        return ((np.trace(k @ m) + middle - cross) / (n * (n - 3))).item()

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


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


@pytest.mark.parametrize("hsic", [plain_hsic, hsic_of_quadruples])
@pytest.mark.parametrize("widths", [(2, 3), (3, 20), (30, 12)])
def test_it_equals_the_plain_loops(hsic, widths):
    x, y = tables(12, *widths)
    x, y = x - 10, y + 3  # the loops are not guarded against lost digits
    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_the_plain_formulas(shape, unbiased):
    x, y = tables(*shape)
    found = linear_cka(x, y, unbiased=unbiased)
    assert found == pytest.approx(plain_cka(x, y, unbiased), abs=1e-8)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_rotation_scale_shift_and_order_do_not_matter(shape, unbiased):
    x, y = tables(*shape)
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))
    order = rng.permutation(len(x))
    expected = linear_cka(x, y, unbiased=unbiased)
    for changed, other in (
        (x @ rotation, y),
        (7 * x, y),
        (x + 100, y),
        (x[order], y[order]),
    ):
        assert linear_cka(changed, other, unbiased=unbiased) == pytest.approx(expected, abs=1e-7)
    assert linear_cka(y, x, unbiased=unbiased) == pytest.approx(expected, abs=1e-9)
    assert linear_cka(x, x, unbiased=unbiased) == pytest.approx(1, abs=1e-9)


def test_stretching_one_feature_does_matter():
    x, y = tables(40, 5, 7)
    stretched = x * np.array([100, 1, 1, 1, 1])
    assert abs(linear_cka(stretched, y) - linear_cka(x, y)) > 0.01


def test_unrelated_features_give_zero_only_without_the_bias():
    rng = np.random.default_rng(0)
    runs = [(rng.normal(size=(30, 1000)), rng.normal(size=(30, 1000))) for _ in range(10)]
    assert abs(np.mean([linear_cka(x, y) for x, y in runs])) < 0.05
    assert np.mean([linear_cka(x, y, unbiased=False) for x, y in runs]) > 0.9


def test_float32_tables_with_a_large_offset_keep_their_digits():
    x, y = tables(50, 8, 300)
    wide = (x + 1000).astype(np.float32)
    assert linear_cka(wide, y) == pytest.approx(linear_cka(x, y), abs=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2)), r"N of 4 or more, got \(3, 2\)"),
        (np.eye(5), np.arange(5.0), r"expected y of shape \(N, F\)"),
        (np.arange(10.0).reshape(5, 2), np.arange(12.0).reshape(6, 2), "5 and 6 rows"),
        (np.full((5, 2), np.inf), np.eye(5), "x holds NaN or infinity"),
        (np.full((5, 2), 3.3), np.eye(5), "x does not vary"),
        (np.arange(10.0).reshape(5, 2), np.eye(5), "equally alike in y"),
    ],
)
def test_what_cannot_be_compared_is_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        linear_cka(x, y)


def test_stages_are_compared_by_name():
    x, y = tables(40, 5, 90)
    scores = cka_by_stage({"stem": x, "stage1": x}, {"stem": x, "stage1": y})
    assert scores.index.name == "stage"
    assert scores["stem"] == pytest.approx(1)
    assert scores["stage1"] == pytest.approx(linear_cka(x, y))
    with pytest.raises(ValueError, match="same stages"):
        cka_by_stage({"stem": x}, {"stage1": x})


@pytest.fixture(scope="module")
def resnet():
    return models.resnet18()


def test_drift_is_the_relative_change_of_the_weights(resnet):
    model = deepcopy(resnet)
    before = deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in model.layer2.parameters():
            parameter *= 1.25
        model.layer3[0].bn1.running_mean += 5
    drift = drift_by_stage(before, model)
    assert list(drift.index) == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert drift["stage2"] == pytest.approx(0.25, rel=1e-5)
    assert (drift.drop("stage2") == 0).all()


def test_drift_reads_a_snapshot_of_freezing(resnet):
    from tlcourse.freezing import snapshot

    model = deepcopy(resnet)
    before = snapshot(model)
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.zero_()
    drift = drift_by_stage(before, model)
    assert drift["head"] == pytest.approx(1)
    assert drift["stage4"] == 0


def test_weights_that_began_at_zero_have_no_relative_change(resnet):
    model = deepcopy(resnet)
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.zero_()
    before = deepcopy(model.state_dict())
    with torch.no_grad():
        model.fc.bias += 1
    assert np.isnan(drift_by_stage(before, model)["head"])


def test_another_head_or_network_is_named(resnet):
    before = deepcopy(resnet.state_dict())
    with pytest.raises(ValueError, match=r"fc.weight was \(1000, 512\) and is \(2, 512\)"):
        drift_by_stage(before, replace_head(deepcopy(resnet), 2))
    with pytest.raises(ValueError, match="not in the snapshot"):
        drift_by_stage(before, models.squeezenet1_1())
    with pytest.raises(TypeError, match="snapshot or a state dict, got ResNet"):
        drift_by_stage(resnet, resnet)


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
