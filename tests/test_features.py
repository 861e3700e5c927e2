import gc

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits
from torch import nn
from torchvision import models

from tlcourse.backbones import head, load_backbone, preprocess, stages
from tlcourse.backbones.hooks import capture_activations, evaluating, prepared_batches
from tlcourse.features import cache_features, extract_features, probe, stage_features
from tlcourse.files import ArrayStore


def small_vit():
    return models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32
    )


def small_swin():
    return models.SwinTransformer([4, 4], 16, [1, 1], [2, 4], [4, 4])


BUILDERS = {
    "mobilenet_v2": lambda: load_backbone("mobilenet_v2", weights=None),
    "resnet18": models.resnet18,
    "densenet121": models.densenet121,
    "squeezenet1_1": models.squeezenet1_1,
    "convnext_tiny": models.convnext_tiny,
    "mobilenet_v3_small": models.mobilenet_v3_small,
    "vit": small_vit,
    "swin": small_swin,
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32), np.uint8)


@pytest.fixture(scope="module")
def mobilenet():
    return load_backbone("mobilenet_v2", weights=None)


@pytest.fixture(params=BUILDERS)
def model(request):
    torch.manual_seed(0)
    return BUILDERS[request.param]()


def state_of(model):
    """Everything that extraction must leave alone."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()
    ]
    gradients = [
        (p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()
    ]
    return tensors, modes, hooks, gradients


def assert_same_state(before, after):
    assert before[1:3] == after[1:3]
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    for (needed, old), (needs, new) in zip(before[3], after[3], strict=True):
        assert needed == needs
        assert (old is None and new is None) or torch.equal(old, new)


def by_hand(model, images, size=32):
    """The head's input, by the plainest means."""
    seen = []
    handle = head(model).register_forward_pre_hook(lambda _m, given: seen.append(given[0].clone()))
    model.eval()
    with torch.no_grad():
        model(preprocess(model, images, size))
    handle.remove()
    return seen[0].numpy()


def test_features_are_what_the_head_gets(model, images):
    found = extract_features(model, images, size=32, batch_size=3, progress=False)
    expected = by_hand(model, images)
    if expected.ndim == 4:
        expected = expected.mean((2, 3))
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_stage_features_are_means_over_positions(model, images):
    found = stage_features(model, images, size=32, batch_size=4, progress=False)
    body = {name: stage for name, stage in stages(model).items() if name != "head"}
    assert list(found) == list(body)
    for name, stage in body.items():
        full = cache_features(model, images, through=name, size=32, progress=False)
        assert full.dtype == found[name].dtype == np.float32
        means = stage.maps(torch.from_numpy(full)).mean((2, 3)).numpy()
        np.testing.assert_allclose(found[name], means, atol=1e-5)


@pytest.mark.parametrize("extract", [extract_features, stage_features, cache_features])
def test_a_training_model_is_left_as_it_was_and_answers_as_in_eval(extract, images):
    model = BUILDERS["mobilenet_v2"]().train()
    model.features[1].eval()
    model.features[3].requires_grad_(False)
    model.classifier[1].weight.grad = torch.ones_like(model.classifier[1].weight)
    options = {"size": 32, "progress": False}
    if extract is cache_features:
        options["through"] = "stage3"
    before = state_of(model)
    found = extract(model, images, batch_size=2, **options)
    assert_same_state(before, state_of(model))
    again = extract(model.eval(), images, batch_size=7, **options)
    values, others = (d.values() if isinstance(d, dict) else [d] for d in (found, again))
    for one, other in zip(values, others, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_state_is_restored_when_a_forward_fails(mobilenet, images, monkeypatch):
    mobilenet.train()
    before = state_of(mobilenet)
    monkeypatch.setattr(mobilenet.features[5], "forward", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract_features(mobilenet, images, size=32, progress=False)
    assert_same_state(before, state_of(mobilenet))


def test_layers_behind_the_stage_do_not_run(images, monkeypatch):
    model = models.resnet18()
    monkeypatch.setattr(model.layer3, "forward", lambda _: 1 / 0)
    assert cache_features(model, images, through="stage2", size=32, progress=False).shape[1] == 128


def test_an_in_place_relu_behind_the_last_stage_does_not_reach_the_features(images):
    model = models.densenet121()
    last = list(stages(model))[-2]
    assert cache_features(model, images, through=last, size=32, progress=False).min() < 0


def test_transformers_give_their_own_layouts(images):
    assert cache_features(small_vit(), images, through="stage1", size=32, progress=False).shape == (
        7,
        1 + 16,
        16,
    )
    swin = cache_features(small_swin(), images, through="stem", size=32, progress=False)
    assert swin.shape == (7, 8, 8, 16)


def test_grey_and_colour_images_agree(mobilenet, images):
    colour = np.repeat(images[..., None], 3, axis=3)
    options = {"size": 32, "progress": False}
    np.testing.assert_allclose(
        extract_features(mobilenet, images, **options),
        extract_features(mobilenet, colour, **options),
        atol=1e-5,
    )
    tensor = torch.from_numpy(images)
    np.testing.assert_array_equal(
        extract_features(mobilenet, images, **options),
        extract_features(mobilenet, tensor, **options),
    )


def test_images_stand_as_floats_one_batch_at_a_time(mobilenet, images, monkeypatch):
    counts = []

    def counting(model, batch, size):
        counts.append(len(batch))
        return preprocess(model, batch, size)

    monkeypatch.setattr("tlcourse.backbones.hooks.preprocess", counting)
    extract_features(mobilenet, images, size=32, batch_size=3, progress=False)
    assert counts == [3, 3, 1]


def test_the_bar_counts_images_and_is_gone_when_done(mobilenet, images, capfd):
    extract_features(mobilenet, images, size=32, batch_size=3)
    shown = capfd.readouterr().err
    assert "0/7" in shown
    assert shown.rpartition("\r")[0].endswith(" ")
    extract_features(mobilenet, images, size=32, batch_size=3, progress=False)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"through": "head"}, "one of .*'stem'.* got 'head'"),
        ({"through": "layer4"}, "got 'layer4'"),
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "at least one image"),
        ({"path": "features.bin"}, "ends in .npy"),
    ],
)
def test_wrong_arguments_are_named(mobilenet, images, change, message):
    arguments = {"images": images, "through": "stem", "size": 32, "progress": False} | change
    with pytest.raises(ValueError, match=message):
        cache_features(mobilenet, **arguments)


def test_float_images_are_refused(mobilenet, images):
    with pytest.raises(TypeError, match="uint8"):
        extract_features(mobilenet, images / 255, size=32, progress=False)


def test_a_result_beyond_the_limit_is_a_memory_map_with_the_same_numbers(mobilenet, images):
    options = {"through": "stage1", "size": 32, "progress": False, "batch_size": 2}
    plain = cache_features(mobilenet, images, **options)
    mapped = cache_features(mobilenet, images, memory_limit=plain.nbytes - 1, **options)
    assert not isinstance(plain, np.memmap)
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(plain, mapped)
    assert not isinstance(
        cache_features(mobilenet, images, memory_limit=plain.nbytes, **options), np.memmap
    )


def test_the_temporary_folder_goes_with_the_array(mobilenet, images):
    from pathlib import Path

    mapped = cache_features(
        mobilenet, images, through="stem", size=32, memory_limit=0, progress=False
    )
    folder = Path(mapped.filename).parent
    assert [p.name for p in folder.iterdir()] == ["features.npy"]
    view = mapped[2:4]
    expected = view.copy()
    del mapped
    gc.collect()
    np.testing.assert_array_equal(view, expected)
    del view
    gc.collect()
    assert not folder.exists()


def test_a_given_path_is_written_whole_replaced_and_not_written_through(
    mobilenet, images, tmp_path
):
    path = tmp_path / "deep" / "stem.npy"
    options = {"through": "stem", "size": 32, "progress": False, "path": path}
    first = cache_features(mobilenet, images, **options)
    np.testing.assert_array_equal(np.load(path), first)
    first[:] = 0
    assert np.load(path).any()
    assert len(cache_features(mobilenet, images[:3], **options)) == 3
    assert len(np.load(path)) == 3
    assert [p.name for p in path.parent.iterdir()] == ["stem.npy"]


def test_a_failed_run_leaves_no_file_and_keeps_the_old_one(
    mobilenet, images, tmp_path, monkeypatch
):
    path = tmp_path / "stem.npy"
    options = {"through": "stage3", "size": 32, "progress": False, "path": path, "batch_size": 2}
    cache_features(mobilenet, images, **options)
    old = path.read_bytes()
    calls = []
    plain = mobilenet.features[4].forward

    def failing(batch):
        calls.append(len(batch))
        return plain(batch) if len(calls) < 3 else 1 / 0

    monkeypatch.setattr(mobilenet.features[4], "forward", failing)
    with pytest.raises(ZeroDivisionError):
        cache_features(mobilenet, images, **options)
    assert len(calls) == 3
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_said_before_anything_is_written(mobilenet, images, tmp_path, monkeypatch):
    import tlcourse.files

    class Usage:
        free = 10

    monkeypatch.setattr(tlcourse.files.shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(OSError, match=r"features need .* free: choose another path"):
        cache_features(
            mobilenet, images, through="stem", size=32, path=tmp_path / "x.npy", progress=False
        )
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_rows_says_so():
    with ArrayStore(3, 100) as store, pytest.raises(RuntimeError, match="expected rows"):
        store.result()


def test_evaluating_restores_a_mixture_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())

    def fail():
        with evaluating(model):
            model[1].train()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_a_module_of_another_model_is_noticed(images):
    model, stranger = models.resnet18(), nn.Identity()
    with (
        capture_activations(model, {"stranger": stranger}, lambda _, seen: seen.clone()) as capture,
        pytest.raises(RuntimeError, match=r"'stranger'.* did not run"),
    ):
        capture(torch.zeros(1, 3, 32, 32))


def test_batches_are_channels_last_on_the_models_device(mobilenet, images):
    batches = prepared_batches(mobilenet, images, size=32, batch_size=4, progress=False)
    _, batch = next(iter(batches))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.device == next(mobilenet.parameters()).device


# The probe


def two_clouds(n=60, width=300, distance=0.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    features = rng.normal(size=(n, width)) + distance * labels[:, None]
    return features.astype(np.float32), labels


@pytest.mark.parametrize("kind", ["logistic", "svm", "knn"])
def test_a_probe_learns_with_more_features_than_images(kind):
    fitted = probe(*two_clouds(), kind=kind)
    features, labels = two_clouds(seed=1)
    probabilities = fitted.predict_proba(features)
    assert probabilities.shape == (60, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    assert fitted.score(features, labels) > 0.9


@pytest.mark.parametrize("kind", ["logistic", "svm", "knn"])
@pytest.mark.filterwarnings("error")
def test_a_probe_warns_of_nothing_with_several_classes_and_dead_features(kind):
    features, labels = two_clouds()
    features[:, :40] = 0
    fitted = probe(features, labels + 2 * (np.arange(60) % 3 == 0), kind=kind)
    assert fitted.predict_proba(features).shape == (60, 4)


@pytest.mark.parametrize("kind", ["logistic", "svm", "knn"])
def test_a_probe_is_deterministic_and_leaves_its_input_alone(kind):
    features, labels = two_clouds()
    kept = features.copy()
    one, other = (probe(features, labels, kind=kind).predict_proba(features) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(features, kept)


def test_a_fit_stays_on_one_thread_and_gives_the_threads_back(monkeypatch):
    """A fit took 16 ms on one thread, near 900 ms where BLAS shared the work."""
    seen = []
    fit = LogisticRegression.fit

    def spied(*arguments, **options):
        seen.extend(_blas_threads())
        return fit(*arguments, **options)

    monkeypatch.setattr(LogisticRegression, "fit", spied)
    with threadpool_limits(2, user_api="blas"):
        probe(*two_clouds(n=50, width=128))
        assert set(_blas_threads()) == {2}
    assert seen
    assert set(seen) == {1}


def _blas_threads():
    return [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"]


def test_the_scale_of_a_feature_does_not_matter():
    features, labels = two_clouds()
    factors = np.logspace(-3, 3, features.shape[1])
    plain = probe(features.astype(float), labels).predict_proba(features)
    scaled = probe(features * factors, labels).predict_proba(features * factors)
    np.testing.assert_allclose(plain, scaled, atol=1e-4)


@pytest.mark.parametrize(
    ("features", "labels", "kind", "message"),
    [
        (np.ones((4, 2)), [1, 1, 1, 1], "logistic", r"two classes or more, found only \[1\]"),
        (np.ones((4, 2)), [0, 1], "logistic", "4 rows, 2 labels"),
        (np.ones((4, 2, 3)), [0, 1, 0, 1], "logistic", "flatten"),
        (np.full((4, 2), np.nan), [0, 1, 0, 1], "knn", "NaN or infinity in 4 rows"),
        (np.eye(4), [0, 0, 0, 1], "svm", "found 1 of class 1"),
        (np.eye(4), [0, 0, 1, 1], "tree", "got 'tree'"),
    ],
)
def test_a_probe_says_what_is_wrong(features, labels, kind, message):
    with pytest.raises(ValueError, match=message):
        probe(features, labels, kind=kind)


@pytest.mark.slow
def test_imagenet_features_beat_pixels_on_the_real_images(real_data):
    from sklearn.metrics import roc_auc_score

    from tlcourse.backbones import checkpoint_path

    if not checkpoint_path("mobilenet_v2").is_file():
        pytest.skip("the MobileNetV2 checkpoint is not on this machine")
    with np.load(real_data / "breastmnist_64.npz") as parts:
        train, test = parts["train_images"], parts["test_images"]
        labels, truth = parts["train_labels"][:, 0], parts["test_labels"][:, 0]
    model = load_backbone("mobilenet_v2")
    deep = [extract_features(model, part, progress=False) for part in (train, test)]
    flat = [part.reshape(len(part), -1).astype(np.float32) for part in (train, test)]
    scores = {
        name: roc_auc_score(truth, probe(known, labels).predict_proba(unknown)[:, 1])
        for name, (known, unknown) in {"deep": deep, "pixels": flat}.items()
    }
    assert 0.85 < scores["deep"] < 0.92
    assert scores["deep"] > scores["pixels"]
