import io
import pickle
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.convnext import CNBlockConfig

from tlcourse.backbones import head, replace_head, stages
from tlcourse.freezing import (
    FrozenError,
    assert_frozen,
    count_parameters,
    freeze,
    freeze_report,
    frozen_stages,
    snapshot,
    unfreeze,
)
from tlcourse.freezing.report import count_trainable

CLASSES = 3


def small_vgg_bn():
    model = models.VGG(models.vgg.make_layers([8, "M", 16, "M", 16, 16, "M"], batch_norm=True))
    model.classifier = nn.Sequential(
        nn.Linear(16 * 7 * 7, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10)
    )
    return model


def small_convnext():
    blocks = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)]
    return models.ConvNeXt(blocks, stochastic_depth_prob=0.5, layer_scale=0.5)


# Each network as torchvision ships it, or its own class at a size that trains in a moment, with
# the dropout and stochastic depth that full-size ones have.
ARCHITECTURES = {
    "ResNet": models.resnet18,
    "MobileNet": models.mobilenet_v2,
    "EfficientNet": models.efficientnet_b0,
    "DenseNet": partial(models.DenseNet, 8, (2, 2, 2, 2), 16, drop_rate=0.2),
    "VGG-BN": small_vgg_bn,
    "ConvNeXt": small_convnext,
    "ViT": partial(models.VisionTransformer, 32, 8, 4, 2, 16, 32, dropout=0.2),
    "Swin": partial(
        models.SwinTransformer, [4, 4], 12, [2, 2, 2, 2], [2, 2, 2, 2], [4, 4], dropout=0.2
    ),
}
WITH_STATISTICS = ("ResNet", "MobileNet", "EfficientNet", "DenseNet", "VGG-BN")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def originals():
    """Each network built once; tests take copies."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {
            architecture: replace_head(build(), CLASSES)
            for architecture, build in ARCHITECTURES.items()
        }


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture
def model(architecture, originals):
    return deepcopy(originals[architecture])


@pytest.fixture
def resnet(originals):
    return deepcopy(originals["ResNet"])


def batch(seed=0):
    """Noise with an offset, so that statistics have somewhere to move."""
    generator = torch.Generator().manual_seed(seed)
    images = 2 + torch.randn(4, 3, 32, 32, generator=generator)
    return images, torch.arange(4) % CLASSES


def train(model, optimizer=None, steps=2):
    """Take real steps: SGD with momentum and weight decay on every parameter, frozen or not."""
    optimizer = optimizer or sgd(model)
    for step in range(steps):
        model.train()
        images, labels = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return optimizer


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


def flags(model):
    return {name: p.requires_grad for name, p in model.named_parameters()}


def test_frozen_stages_stay_still_through_real_steps(model, architecture):
    names = list(stages(model))
    freeze(model)
    before = snapshot(model)
    with assert_frozen(model):
        optimizer = train(model)
    report = freeze_report(before, model, optimizer)
    assert report.index.tolist() == names
    body = report.loc[names[:-1]]
    assert not body[["weights_moved", "statistics_moved", "trainable"]].any(axis=None)
    assert report.loc["head", "weights_moved"]
    assert report.loc["head", "trainable"] == report.loc["head", "parameters"]
    assert frozen_stages(model) == tuple(names[:-1])


def test_a_part_is_frozen_and_the_rest_moves(model, architecture):
    names = list(stages(model))
    freeze(model, through="stage1")
    before = snapshot(model)
    with assert_frozen(model):
        optimizer = train(model)
    report = freeze_report(before, model, optimizer)
    still = names[:2]
    assert report.index[~report["weights_moved"]].tolist() == still
    assert not report.loc[still, "statistics_moved"].any()
    if architecture in WITH_STATISTICS:
        assert report.loc["stage2", "statistics_moved"]


def test_requires_grad_alone_lets_statistics_move(model, architecture):
    """The mistake that this module is there for, and that the report shows."""
    for name, stage in stages(model).items():
        if name != "head":
            for parameter in stage.parameters():
                parameter.requires_grad_(False)
    before = snapshot(model)
    assert frozen_stages(model) == ()
    if architecture not in WITH_STATISTICS:
        with assert_frozen(model):
            train(model)
        return
    words = r"statistics of stem.*use freeze\(model"
    with pytest.raises(FrozenError, match=words), assert_frozen(model):
        train(model)
    report = freeze_report(before, model)
    assert not report.loc["stem":"stage1", "weights_moved"].any()
    assert report.loc["stem":"stage1", "statistics_moved"].all()


def test_features_of_a_frozen_backbone_are_those_of_a_fixed_function(model):
    """Dropout, stochastic depth and batch statistics are off even in train mode."""
    freeze(model).train()
    last = stages(model)[frozen_stages(model)[-1]]
    seen = []
    handle = last.output.register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    images, _ = batch()
    with torch.no_grad():
        for _ in range(2):
            model(images)
        model.eval()(images)
    handle.remove()
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("mode", [True, False])
def test_unfreezing_restores_exactly(model, mode):
    model.train(mode)
    first, inner = next(model.parameters()), next(m for m in model.modules() if not [*m.children()])
    first.requires_grad_(False)
    inner.train(not mode)
    wanted = modes(model), flags(model), {name: set(vars(m)) for name, m in model.named_modules()}
    unfreeze(freeze(freeze(model, through="stage1")))
    kept = {name: set(vars(m)) for name, m in model.named_modules()}
    assert (modes(model), flags(model), kept) == wanted


def test_a_released_stage_has_the_mode_last_asked_for(resnet):
    freeze(resnet.eval())
    resnet.train()
    assert not resnet.layer4[0].bn1.training
    unfreeze(resnet, down_to="stage4")
    assert resnet.layer4[0].bn1.training
    resnet.eval()
    unfreeze(resnet)
    assert not any(modes(resnet).values())


def test_a_stage_released_in_training_moves_again(model, architecture):
    freeze(model)
    optimizer = train(model, steps=1)
    names = list(stages(model))
    unfreeze(model, down_to=names[-2])
    assert frozen_stages(model) == tuple(names[:-2])
    before = snapshot(model)
    with assert_frozen(model):
        train(model, optimizer, steps=1)
    report = freeze_report(before, model, optimizer)
    assert report.index[report["weights_moved"]].tolist() == names[-2:]


def test_freezing_again_adds_and_forgets_nothing(resnet):
    resnet.conv1.weight.requires_grad_(False)
    before = flags(resnet), modes(resnet)
    freeze(resnet, through="stage3")
    freeze(resnet, through="stem")
    assert frozen_stages(resnet) == ("stem", "stage1", "stage2", "stage3")
    freeze(resnet)
    unfreeze(unfreeze(resnet, down_to="stage2"))
    assert (flags(resnet), modes(resnet)) == before


def test_the_hold_survives_train_of_every_module(resnet):
    freeze(resnet, through="stage2")
    before = snapshot(resnet)
    resnet.apply(lambda module: module.train())
    for module in resnet.modules():
        module.train()
    assert resnet.train() is resnet
    assert resnet.layer1.train() is resnet.layer1
    resnet(batch()[0])
    report = freeze_report(before, resnet)
    assert report["statistics_moved"].tolist() == [False, False, False, True, True, False]


def saved_and_loaded(model):
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize(
    "carry",
    [deepcopy, saved_and_loaded, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["deepcopy", "torch.save", "pickle"],
)
def test_the_hold_travels_with_copies(model, carry):
    original = modes(model), flags(model)
    freeze(model)
    copy = carry(model)
    assert frozen_stages(copy) == frozen_stages(model)
    with assert_frozen(copy):
        train(copy)
    unfreeze(copy)
    assert (modes(copy), flags(copy)) == original
    assert frozen_stages(copy) == ()
    assert len(frozen_stages(model)) > 3
    assert not any(m.training for s in frozen_stages(model) for m in stages(model)[s].modules())


def test_state_dict_and_answers_are_those_of_the_network(resnet):
    images, _ = batch()
    keys, answer = list(resnet.state_dict()), resnet.eval()(images)
    freeze(resnet)
    assert list(resnet.state_dict()) == keys
    assert torch.equal(resnet(images), answer)


def test_stale_gradients_are_dropped(resnet):
    """Freezing between backward and step would let momentum and decay move the weights."""
    optimizer = train(resnet)
    F.cross_entropy(resnet(batch()[0]), batch()[1]).backward()
    freeze(resnet, through="stage2")
    with assert_frozen(resnet):
        optimizer.step()
    assert resnet.conv1.weight.grad is None
    assert resnet.layer4[0].conv1.weight.grad is not None


@pytest.mark.parametrize(
    ("act", "argument"), [(freeze, "through"), (unfreeze, "down_to")], ids=["freeze", "unfreeze"]
)
@pytest.mark.parametrize("wrong", ["layer4", "stage9", "", "body"])
def test_unknown_stages_are_refused_with_those_there_are(act, argument, wrong, resnet):
    before = flags(resnet)
    words = rf"expected {argument} as a stage of ResNet, got '{wrong}'; its stages: stem, .*head"
    with pytest.raises(ValueError, match=words):
        act(resnet, **{argument: wrong})
    assert flags(resnet) == before


def test_the_head_can_be_frozen_by_name_and_replaced_after(resnet):
    freeze(resnet, through="head")
    assert count_trainable(resnet) == 0
    replace_head(resnet, 2)
    assert frozen_stages(resnet)[-1] == "stage4"
    assert count_trainable(resnet) == 1026
    assert head(resnet).training
    assert all(flags(unfreeze(resnet)).values())


def test_a_layer_put_into_a_frozen_stage_is_not_held(resnet):
    freeze(resnet)
    resnet.layer1[0] = deepcopy(models.resnet18().layer1[0])
    assert "stage1" not in frozen_stages(resnet)
    freeze(resnet)
    assert "stage1" in frozen_stages(resnet)


def test_the_optimizer_is_searched_by_identity(resnet):
    """Two fresh batch norms have equal weights; a twin in the optimizer is not the parameter."""
    twin = deepcopy(resnet)
    table = freeze_report(snapshot(resnet), resnet, sgd(twin))
    assert table["in_optimizer"].sum() == 0
    only = torch.optim.SGD(stages(resnet)["head"].parameters(), lr=0.1)
    table = freeze_report(snapshot(resnet), resnet, only)
    assert table["in_optimizer"].tolist() == [0, 0, 0, 0, 0, 512 * CLASSES + CLASSES]
    assert freeze_report(snapshot(resnet), resnet)["in_optimizer"].isna().all()


def test_the_report_reads_a_copy_as_well_as_a_snapshot(resnet):
    before = deepcopy(resnet)
    train(resnet, steps=1)
    table = freeze_report(before, resnet)
    assert list(table) == [
        "parameters",
        "trainable",
        "in_optimizer",
        "weights_moved",
        "statistics_moved",
    ]
    assert table.index.name == "stage"
    assert table["weights_moved"].all()
    assert table["parameters"].sum() == sum(p.numel() for p in resnet.parameters())


def test_the_report_refuses_one_network_under_two_names(resnet):
    before = resnet
    with pytest.raises(ValueError, match=r"one and the same network.*before = snapshot\(model\)"):
        freeze_report(before, resnet)


def test_a_replaced_head_counts_as_moved(resnet):
    before = snapshot(resnet)
    replace_head(resnet, 5)
    moved = freeze_report(before, resnet)["weights_moved"]
    assert moved.index[moved].tolist() == ["head"]


def test_a_snapshot_does_not_follow_the_network(resnet):
    before = snapshot(resnet)
    with torch.no_grad():
        resnet.conv1.weight.zero_()
    assert before.parameters["conv1.weight"].abs().sum() > 0
    assert not before.parameters["conv1.weight"].requires_grad
    assert "bn1.running_mean" in before.buffers


def shift(weight):
    with torch.no_grad():
        weight.add_(1)


def test_assert_frozen_names_what_moved(resnet):
    freeze(resnet)
    words = r"not trainable: weights of stage2\. "
    with pytest.raises(FrozenError, match=words) as caught, assert_frozen(resnet):
        shift(resnet.layer2[0].conv1.weight)
    assert isinstance(caught.value, AssertionError)


def test_assert_frozen_needs_something_frozen(resnet):
    words = r"found none: call freeze\(model"
    with pytest.raises(FrozenError, match=words), assert_frozen(resnet):
        pass


def test_assert_frozen_lets_errors_of_the_block_through(resnet):
    freeze(resnet)

    def move_and_stumble():
        shift(resnet.conv1.weight)
        raise KeyError("the block's own")

    with pytest.raises(KeyError, match="own"), assert_frozen(resnet):
        move_and_stumble()


def test_counts_of_resnet18():
    with torch.device("meta"):
        model = replace_head(models.resnet18(), 2)
    assert count_trainable(model) == 11_177_538
    freeze(model)
    assert count_trainable(model) == 1_026
    table = count_parameters(model)
    assert table["parameters"].sum() == 11_177_538
    assert table["trainable"].tolist() == [0, 0, 0, 0, 0, 1_026]
