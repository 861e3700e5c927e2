"""`fit` takes a loader of one's own in place of an image set: same steps, nothing cached."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.test_training import SIZE, a_model, an_image_set, same, weights_of
from tlcourse.backbones import preprocess
from tlcourse.freezing import freeze
from tlcourse.loaders.batches import LoaderBatches, LoaderWarning
from tlcourse.training import fit, predict
from tlcourse.training.checkpoint import CheckpointMismatch


class Scans(Dataset):
    """Images of a split, prepared one by one, as a learner's own data set would."""

    def __init__(self, model, part):
        self.images, self.labels = preprocess(model, part.images, SIZE), part.labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


def loaders(model, data, batch_size=8, **options):
    train = DataLoader(Scans(model, data.train), batch_size, **options)
    return train, DataLoader(Scans(model, data.val), batch_size)


def test_a_loader_trains_as_the_plain_loop_does():
    data, model, by_hand = an_image_set(), a_model(), a_model()
    train, val = loaders(model, data)
    history = fit(model, train, val, epochs=2, progress=False)

    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    by_hand.to(memory_format=torch.channels_last).train()
    for _ in range(2):
        for images, labels in train:
            optimizer.zero_grad()
            images = images.to(memory_format=torch.channels_last)
            nn.functional.cross_entropy(by_hand(images), labels).backward()
            optimizer.step()
    assert same(weights_of(model), weights_of(by_hand))
    assert len(history.steps) == 2 * len(train)
    assert not model.training


def test_validation_scores_are_those_of_the_loaders_images():
    data, model = an_image_set(), a_model()
    history = fit(model, *loaders(model, data), epochs=1, progress=False)
    probs = predict(model, data.val.images, size=SIZE)
    loss = -np.log(probs[np.arange(len(data.val)), data.val.labels]).mean()
    assert history.table["val_loss"][0] == pytest.approx(loss, rel=1e-4)


def test_frozen_stages_stay_with_a_loader():
    data, model, start = an_image_set(), freeze(a_model()), a_model().state_dict()
    fit(model, *loaders(model, data), epochs=1, progress=False)
    moved = {n for n, values in model.state_dict().items() if not torch.equal(values, start[n])}
    assert moved == {"fc.weight", "fc.bias"}


def test_shuffling_and_workers_are_the_loaders_own_and_the_global_generator_stays():
    data, model = an_image_set(), a_model()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    history = fit(model, *loaders(model, data, shuffle=True), epochs=2, progress=False)
    assert torch.equal(torch.rand(1), expected)
    assert np.isfinite(history.table["val_loss"]).all()


def test_a_checkpoint_says_that_a_loaders_order_is_not_in_it(tmp_path):
    file, data = tmp_path / "run.pt", an_image_set()
    with pytest.warns(LoaderWarning, match="not bit for bit"):
        fit(a_model(), *loaders(a_model(), data), epochs=2, checkpoint=file, progress=False)
    model = a_model()
    with pytest.warns(LoaderWarning):
        fit(model, *loaders(model, data), epochs=2, checkpoint=file, progress=False)
    with pytest.warns(LoaderWarning), pytest.raises(CheckpointMismatch, match="batches: 3 then"):
        fit(a_model(), *loaders(model, data, 12), epochs=2, checkpoint=file, progress=False)


def images_and(labels):
    return TensorDataset(torch.rand(len(labels), 3, SIZE, SIZE), labels)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([torch.rand(2, 3, 32, 32)], "pairs of tensors, got Tensor"),
        ([{"image": 1}], "pairs of tensors, got dict"),
        ([(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2))], "torch.uint8"),
        ([(torch.rand(2, 3, 32, 32), torch.zeros(3).long())], r"got \(2, 3, 32, 32\), .* \(3,\)"),
        ([(torch.rand(2, 3, 32, 32), torch.eye(2))], r"labels \(N,\), int"),
        ([(torch.rand(2, 3, 32, 32), torch.rand(2))], r"labels \(N,\), int"),
        ([([1, 2], [0, 1])], "pairs of tensors"),
    ],
)
def test_batches_of_another_form_are_told_with_what_came(batches, message):
    with pytest.raises(ValueError, match=message):
        fit(a_model(), batches, batches, epochs=1, progress=False)


def test_a_label_beyond_the_classes_names_the_repair():
    loader = DataLoader(images_and(torch.tensor([0, 1, 2, 1])), 2)
    with pytest.raises(ValueError, match=r"labels from 0 to 1, .* got 2: call replace_head"):
        fit(a_model(), loader, loader, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a loader for validation lacks"),
        ({"val": []}, "one batch from the validation loader"),
        ({"val": [1], "class_weights": "balanced"}, "class_weights as numbers with a loader"),
        ({"val": [1], "augment": "flip"}, "augment .* loader"),
        ({"val": [1], "views": 2}, "views .* loader"),
    ],
)
def test_what_does_not_go_with_a_loader_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit(a_model(), [1], epochs=1, progress=False, **options)


def test_an_image_set_brings_its_own_validation_images():
    with pytest.raises(ValueError, match="val goes with a loader"):
        fit(a_model(), an_image_set(), [1], epochs=1, progress=False)


def test_class_weights_as_numbers_weigh_the_loss():
    loader = DataLoader(images_and(torch.tensor([0, 1, 0, 1])), 4)
    plain = fit(a_model(), loader, loader, epochs=1, progress=False)
    one_class = fit(a_model(), loader, loader, epochs=1, class_weights=[0, 1.0], progress=False)
    assert plain.steps["loss"][0] != one_class.steps["loss"][0]
    assert len(LoaderBatches(a_model(), loader, loader)) == 1
