import pickle
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms import functional as TF

from tests.test_training import an_image_set
from tlcourse import backbones
from tlcourse.backbones import (
    ARCHITECTURES,
    Architecture,
    UnsupportedModel,
    classifiers,
    exact_size,
    head,
    image_categories,
    load_backbone,
    minimum_size,
    preprocess,
    preprocessing,
    replace_head,
    stages,
    weights_of,
)
from tlcourse.features import extract_features
from tlcourse.freezing import freeze
from tlcourse.training import fit

GIANT = 150e6  # parameters; above it the forward runs on the meta device, which only tells shapes
FILLERS = (
    "normal_",
    "trunc_normal_",
    "uniform_",
    "xavier_uniform_",
    "kaiming_normal_",
    "kaiming_uniform_",
)
ONE_OF_EACH = {
    "alexnet": ["stem", "stage1", "stage2", "hidden", "head"],
    "convnext_tiny": ["stem", "stage1", "stage2", "stage3", "stage4", "head"],
    "densenet121": ["stem", "stage1", "stage2", "stage3", "stage4", "head"],
    "efficientnet_b0": ["stem", "stage1", "stage2", "stage3", "stage4", "stage5", "head"],
    "googlenet": ["stem", "stage1", "stage2", "stage3", "head"],
    "inception_v3": ["stem", "stage1", "stage2", "stage3", "head"],
    "maxvit_t": ["stem", "stage1", "stage2", "stage3", "stage4", "hidden", "head"],
    "mnasnet0_5": ["stem", "stage1", "stage2", "stage3", "stage4", "stage5", "head"],
    "mobilenet_v2": ["stem", "stage1", "stage2", "stage3", "stage4", "stage5", "head"],
    "mobilenet_v3_small": ["stem", "stage1", "stage2", "stage3", "stage4", "hidden", "head"],
    "regnet_y_400mf": ["stem", "stage1", "stage2", "stage3", "stage4", "head"],
    "resnet18": ["stem", "stage1", "stage2", "stage3", "stage4", "head"],
    "shufflenet_v2_x0_5": ["stem", "stage1", "stage2", "stage3", "head"],
    "squeezenet1_1": ["stem", "stage1", "stage2", "stage3", "head"],
    "swin_t": ["stem", "stage1", "stage2", "stage3", "stage4", "head"],
    "vgg11_bn": ["stem", "stage1", "stage2", "stage3", "stage4", "hidden", "head"],
    "vit_b_32": ["stem", "stage1", "stage2", "stage3", "stage4", "head"],
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small forwards gain nothing from threads and lose much where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def without_initialisation():
    """Build networks in no time: initialisers leave alone what they are given."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FILLERS:
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


@pytest.fixture(scope="module")
def block():
    """Random numbers that the parameters of a network share: no network is ever filled."""
    seed = torch.Generator().manual_seed(0)
    return torch.empty(103_000_000).uniform_(-0.05, 0.05, generator=seed)


def build(name, block):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with without_initialisation():
        model = models.get_model(name, weights=None, **options)
    for parameter in model.parameters():
        parameter.data = block[: parameter.numel()].view(parameter.shape)
    return model.eval()


@pytest.fixture(scope="module", params=classifiers())
def named_model(request, block):
    return request.param, build(request.param, block)


@pytest.fixture
def changeable(named_model):
    """The network, whose modules are put back after the test."""
    parts = [(module, dict(module._modules)) for module in named_model[1].modules()]
    yield named_model
    for module, children in parts:
        module._modules.clear()
        module._modules.update(children)


def assert_partition(model, divided):
    names = [name for stage in divided.values() for name, _ in stage.named_parameters()]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    modules = [id(m) for stage in divided.values() for m in stage.modules()]
    assert len(modules) == len(set(modules))
    buffers = [name for stage in divided.values() for name, _ in stage.named_buffers()]
    assert sorted(buffers) == sorted(name for name, _ in model.named_buffers())


def run_and_watch(model, images):
    """Return the answer, and the stages' activations in the order in which they came."""
    seen, handles = [], []
    for name, stage in stages(model).items():
        keep = partial(lambda name, *call: seen.append((name, call[2].detach().clone())), name)
        handles.append(stage.output.register_forward_hook(keep))
    with torch.no_grad():
        answer = model(images)
    for handle in handles:
        handle.remove()
    return answer, seen


def test_there_are_about_eighty_classifiers():
    assert len(classifiers()) >= 80


def test_every_parameter_has_one_stage(named_model):
    _, model = named_model
    divided = stages(model)
    assert_partition(model, divided)
    names = list(divided)
    runs = [name for name in names if name.startswith("stage")]
    assert names[0] == "stem"
    assert names[-1] == "head"
    assert runs == [f"stage{i + 1}" for i in range(len(runs))]
    assert 2 <= len(runs) <= 5
    assert all(list(stage.parameters()) for stage in divided.values())
    assert {id(p) for p in head(model).parameters()} <= {
        id(p) for p in divided["head"].parameters()
    }


def test_every_classifier_runs_at_its_smallest_size(named_model):
    """Stages put out once each, in order, at ever lower resolution; the head answers."""
    _, model = named_model
    size, place = minimum_size(model), "cpu"
    if sum(p.numel() for p in model.parameters()) > GIANT:
        model, place = model.to("meta"), "meta"
    answer, seen = run_and_watch(model, torch.zeros(1, 3, size, size, device=place))
    divided = stages(model)
    assert answer.shape == (1, 1000)
    assert [name for name, _ in seen] == list(divided)
    sides = [divided[name].maps(activation).shape[2:] for name, activation in seen]
    assert sides == sorted(sides, reverse=True)
    assert divided["head"].maps(seen[-1][1]).shape == (1, 1000, 1, 1)
    if place == "cpu":
        assert torch.equal(seen[-1][1].flatten(1), answer)


def test_every_head_is_replaced(changeable):
    name, model = changeable
    before = {key: stage for key, stage in stages(model).items() if key != "head"}
    assert replace_head(model, 3) is model
    after = stages(model)
    assert_partition(model, after)
    assert list(after) == [*before, "head"]
    for key, stage in before.items():
        assert [n for n, _ in stage.named_parameters()] == [
            n for n, _ in after[key].named_parameters()
        ]
    layer = head(model)
    assert layer.weight.shape[0] == 3
    assert sum(p.numel() for p in after["head"].parameters()) == sum(
        p.numel() for p in layer.parameters()
    )
    assert weights_of(model) in models.get_model_weights(name)


@pytest.mark.parametrize(("name", "expected"), ONE_OF_EACH.items())
def test_stage_names_of_each_family(name, expected, block):
    assert list(stages(build(name, block))) == expected


def test_every_family_has_its_representative(block):
    kinds = {models.get_model_builder(n).__module__ for n in ONE_OF_EACH}
    assert kinds == {kind.__module__ for kind in ARCHITECTURES}


@pytest.mark.parametrize("name", ["mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_an_output_depends_on_its_own_and_earlier_stages_only(name):
    model = load_backbone(name, weights=None).eval()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = dict(run_and_watch(model, images)[1])
    names = list(before)
    for i, changed in enumerate(names):
        other = deepcopy(model)
        with torch.no_grad():
            for parameter in stages(other)[changed].parameters():
                parameter.mul_(1.5)
        after = dict(run_and_watch(other, images)[1])
        moved = [name for name in names if not torch.equal(before[name], after[name])]
        assert moved == names[i:], changed


def test_output_depends_on_own_stage_in_transformers():
    model = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    nn.init.normal_(model.heads.head.weight)
    model.eval()
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = dict(run_and_watch(model, images)[1])
    for i, changed in enumerate(before):
        other = deepcopy(model)
        with torch.no_grad():
            for parameter in stages(other)[changed].parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
        after = dict(run_and_watch(other, images)[1])
        assert [n for n in before if not torch.equal(before[n], after[n])] == list(before)[i:]


def test_resnet_and_mobilenet_stages_are_where_lessons_say(block):
    divided = stages(build("resnet18", block))
    roots = {name: [root for root, _ in stage.roots] for name, stage in divided.items()}
    assert roots["stem"] == ["conv1", "bn1", "relu", "maxpool"]
    assert [roots[f"stage{i}"] for i in (1, 2, 3, 4)] == [[f"layer{i}"] for i in (1, 2, 3, 4)]
    divided = stages(build("mobilenet_v2", block))
    assert [root for root, _ in divided["stem"].roots] == ["features.0"]
    assert divided["stage5"].output is divided["stage5"].roots[-1][1]
    assert "head" in repr(divided["head"])


def test_resnet_with_dilation_keeps_four_stages():
    with without_initialisation():
        model = models.resnet50(replace_stride_with_dilation=[False, True, True])
    assert list(stages(model)) == ONE_OF_EACH["resnet18"]


def test_convnext_norm_counts_to_the_last_stage_and_vit_tokens_to_the_stem(block):
    names = [n for n, _ in stages(build("convnext_tiny", block))["stage4"].named_parameters()]
    assert "classifier.0.weight" in names
    names = [n for n, _ in stages(build("vit_b_32", block))["stem"].named_parameters()]
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight"} == set(names) - {
        "conv_proj.bias"
    }


def test_a_head_of_several_layers_stays_one_head(block):
    model = build("resnet18", block)
    model.fc = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 2))
    assert list(stages(model)) == ONE_OF_EACH["resnet18"]
    assert len(list(stages(model)["head"].parameters())) == 6
    assert head(replace_head(model, 5)).out_features == 5


def test_a_model_of_another_class_is_refused_with_its_name():
    class MyResNet(models.ResNet):
        pass

    with without_initialisation():
        subclass = MyResNet(models.resnet.BasicBlock, [1, 1, 1, 1])
        plain = models.resnet18()
    for act in (stages, head, weights_of, minimum_size, partial(replace_head, num_classes=2)):
        with pytest.raises(UnsupportedModel, match=r"got MyResNet: build.*load_backbone"):
            act(subclass)
        with pytest.raises(UnsupportedModel, match="got Linear"):
            act(nn.Linear(1, 1))
        with pytest.raises(UnsupportedModel, match=r"DataParallel wraps.*pass model.module"):
            act(nn.DataParallel(plain))


def test_a_changed_model_is_refused_with_the_reason(block):
    model = build("resnet18", block)
    model.extra = nn.Linear(2, 2)
    model.stray = nn.Parameter(torch.zeros(1))
    with pytest.raises(UnsupportedModel, match=r"'stray'.*put new layers into model.fc"):
        stages(model)
    model = build("resnet18", block)
    model.fc = nn.Identity()
    with pytest.raises(UnsupportedModel, match=r"in model.fc of ResNet, found Identity"):
        head(model)
    model = build("resnet18", block)
    del model.maxpool
    with pytest.raises(UnsupportedModel, match="a stem that ends at maxpool"):
        stages(model)


def test_replaced_heads_are_reproducible_and_leave_the_generator_alone(block):
    model = build("resnet18", block)
    state = torch.get_rng_state()
    first = head(replace_head(model, 2, seed=1)).weight.clone()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(head(replace_head(model, 2, seed=1)).weight, first)
    assert not torch.equal(head(replace_head(model, 2, seed=2)).weight, first)


def test_a_replaced_head_keeps_kind_precision_mode_and_bias():
    model = load_backbone("squeezenet1_1", weights=None, num_classes=4).double().eval()
    layer = head(replace_head(model, 2))
    assert isinstance(layer, nn.Conv2d)
    assert (layer.weight.dtype, layer.training, model.num_classes) == (torch.float64, False, 2)
    assert model(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).shape == (1, 2)
    with torch.device("meta"):
        model = models.maxvit_t()
    layer = head(replace_head(model, 2))
    assert (layer.weight.device.type, layer.bias) == ("meta", None)


def test_replace_head_takes_numpy_numbers(block):
    assert head(replace_head(build("resnet18", block), np.int64(2))).out_features == 2


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "2", True, None])
def test_replace_head_refuses_a_bad_number(wrong, block):
    with pytest.raises(ValueError, match=r"whole number from 1 up, got"):
        replace_head(build("resnet18", block), wrong)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_go_so_that_training_sees_one_tensor(name, block):
    model = build(name, block).train()
    auxiliary = {name for name, _ in model.named_children() if name.lower().startswith("aux")}
    assert {root for root, _ in stages(model)["head"].roots} > auxiliary
    replace_head(model, 2)
    assert model(torch.zeros(2, 3, 80, 80)).shape == (2, 2)
    with without_initialisation():
        loaded = load_backbone(name, weights=None)
    assert loaded.transform_input
    assert not auxiliary & {name for name, _ in loaded.named_children()}
    assert loaded.train()(torch.zeros(2, 3, 80, 80)).shape == (2, 1000)


def test_load_backbone_with_random_weights_is_seeded_and_channels_last():
    state = torch.get_rng_state()
    first, again = (load_backbone("resnet18", weights=None, num_classes=2) for _ in range(2))
    other = load_backbone("resnet18", weights=None, num_classes=2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert first.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_record_of_weights_survives_copy_and_pickle():
    model = load_backbone("mobilenet_v2", weights=None, num_classes=2)
    for same in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert weights_of(same) == models.MobileNet_V2_Weights.IMAGENET1K_V1
        assert list(stages(same)) == list(stages(model))


def test_exact_sizes():
    with torch.device("meta"):
        assert exact_size(models.vit_b_16()) == 224
        assert minimum_size(models.vit_b_16(image_size=384)) == 384
        assert exact_size(models.maxvit_t()) == 224
        assert exact_size(models.resnet18()) is None
        assert minimum_size(models.swin_t()) == 4


def images_of(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def every_entry():
    names = ("mobilenet_v2", "resnet50", "efficientnet_b0", "efficientnet_v2_l", "vgg16", "swin_t")
    return [entry for name in names for entry in models.get_model_weights(name)]


@pytest.mark.parametrize("entry", every_entry(), ids=str)
def test_preprocess_equals_the_transforms_of_the_weights(entry, block):
    """On an image resized to the square, their crop and resize change nothing."""
    with without_initialisation():
        model = models.resnet18()
    setattr(model, preprocessing.RECORD, str(entry))
    images = images_of((2, 50, 70, 3))
    square = TF.resize(torch.from_numpy(images).permute(0, 3, 1, 2), [224, 224], antialias=True)
    wanted = entry.transforms(resize_size=224, crop_size=224)(square)
    torch.testing.assert_close(preprocess(model, images, 224), wanted, atol=1e-5, rtol=1e-5)


def test_networks_built_elsewhere_get_their_own_normalisation():
    with torch.device("meta"):
        large, small = models.efficientnet_v2_l(), models.efficientnet_v2_s()
    black = images_of((1, 40, 40)) * 0
    assert preprocess(large, black, 40).unique().tolist() == [-1.0]
    assert len(preprocess(small, black, 40).unique()) == 3


def test_a_small_resnet_of_ones_own_has_the_family_normalisation():
    small = models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=2)
    grey = images_of((2, 28, 28))
    assert torch.equal(preprocess(small, grey), preprocess(models.resnet18(), grey))
    odd = models.EfficientNet(
        models.efficientnet._efficientnet_conf("efficientnet_b0", width_mult=0.5, depth_mult=0.5)[
            0
        ],
        0.1,
    )
    with pytest.raises(UnsupportedModel, match="EfficientNet of this width and depth"):
        preprocess(odd, grey)


def test_grey_images_become_three_equal_channels():
    model = models.resnet18()
    grey = images_of((3, 28, 28))
    colour = np.repeat(grey[..., None], 3, axis=3)
    prepared = preprocess(model, grey, 32)
    assert prepared.dtype == torch.float32
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(prepared, preprocess(model, colour, 32))
    assert torch.equal(prepared, preprocess(model, torch.from_numpy(grey), 32))


def test_preprocess_takes_read_only_and_reversed_arrays_and_leaves_them_alone(recwarn):
    grey = images_of((3, 28, 28))
    grey.flags.writeable = False
    copy = grey.copy()
    model = models.resnet18()
    prepared = preprocess(model, grey, 32)
    flipped = preprocess(model, grey[::-1], 32)
    assert torch.equal(flipped, prepared.flip(0))
    assert np.array_equal(grey, copy)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((2, 28, 28), np.float32), TypeError, "uint8 images .* got float32"),
        (torch.zeros(2, 28, 28), TypeError, r"got torch\.float32"),
        ([[1]], TypeError, "got list"),
        (np.zeros((28, 28), np.uint8), ValueError, r"images\[None\]"),
        (np.zeros((2, 3, 28, 28), np.uint8), ValueError, r"\(N, H, W, 3\).*got \(2, 3, 28, 28\)"),
        (np.zeros((0, 28, 28), np.uint8), ValueError, "N, H, W from 1 up"),
    ],
)
def test_preprocess_says_what_is_wrong_with_images(images, error, words):
    with pytest.raises(error, match=words):
        preprocess(models.resnet18(), images)


def test_preprocess_says_what_size_a_network_takes():
    with torch.device("meta"):
        fixed, least = models.vit_b_16(), models.inception_v3(init_weights=False)
    with pytest.raises(ValueError, match=r"224 px only, got size=128: pass size=224"):
        preprocess(fixed, images_of((1, 28, 28)))
    assert preprocess(fixed, images_of((1, 28, 28)), 224).shape == (1, 3, 224, 224)
    with pytest.raises(ValueError, match=r"Inception3 takes images of 75 px or more, got size=64"):
        preprocess(least, images_of((1, 28, 28)), 64)


def test_image_categories_are_those_of_imagenet_until_the_head_is_replaced():
    model = models.resnet18()
    assert len(image_categories(model)) == 1000
    with pytest.raises(ValueError, match="1000 answers of ImageNet, found 2"):
        image_categories(replace_head(model, 2))


def test_loading_does_not_hash_or_fetch_a_file_that_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = backbones.checkpoint_path("squeezenet1_1")
    path.parent.mkdir(parents=True)
    wanted = models.squeezenet1_1()
    torch.save(wanted.state_dict(), path)
    with (
        mock.patch("tlcourse.backbones.weights._fetch"),
        mock.patch("hashlib.file_digest") as digest,
    ):
        model = load_backbone("squeezenet1_1", num_classes=2)
    assert not digest.called
    assert torch.equal(model.features[0].weight, wanted.features[0].weight)
    assert head(model).out_channels == 2


class OwnNetwork(nn.Module):
    """A network that torchvision does not know."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, 10)

    def forward(self, images):
        return self.fc(self.pool(self.body(self.stem(images))).flatten(1))


def test_a_network_of_ones_own_takes_one_entry(monkeypatch):
    model = OwnNetwork()
    with pytest.raises(UnsupportedModel, match=r"got OwnNetwork.*ARCHITECTURES\[OwnNetwork\] = "):
        stages(model)
    own = Architecture("stem", head="fc", containers=("body",), minimum=1)
    monkeypatch.setitem(ARCHITECTURES, OwnNetwork, own)
    with pytest.raises(UnsupportedModel, match=r"model\.weights_entry = "):
        weights_of(model)
    model.weights_entry = "ResNet18_Weights.IMAGENET1K_V1"
    parts = {name: [root for root, _ in stage.roots] for name, stage in stages(model).items()}
    assert parts == {
        "stem": ["stem"],
        "stage1": ["body.0", "body.1"],
        "stage2": ["body.2"],
        "head": ["pool", "fc"],
    }
    assert head(replace_head(model, 2)).out_features == 2
    assert preprocess(model, np.zeros((1, 28, 28), np.uint8), 32).shape == (1, 3, 32, 32)


def test_a_network_of_ones_own_gives_features_and_trains_frozen(monkeypatch):
    own = Architecture("stem", head="fc", containers=("body",), minimum=1)
    monkeypatch.setitem(ARCHITECTURES, OwnNetwork, own)
    model = replace_head(OwnNetwork(), 2)
    model.weights_entry = "ResNet18_Weights.IMAGENET1K_V1"
    before = deepcopy(model.state_dict())
    data = an_image_set(train=8, val=4)
    assert extract_features(model, data.train.images, size=32).shape == (8, 32)
    history = fit(freeze(model), data, epochs=1, batch_size=4, size=32, progress=False)
    assert len(history.table) == 1
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"fc.weight", "fc.bias"}
