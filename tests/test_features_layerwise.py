import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from tlcourse.datasets import grouped_folds
from tlcourse.datasets.toy import edge_orientations, photograph, texture_patches
from tlcourse.features import flat_maps
from tlcourse.features.learning_curves import stage_scores


def test_a_noiseless_edge_lies_as_its_label_says():
    task = edge_orientations(40, orientations=4, noise=0)
    images = task.images.astype(float)
    down, right = np.gradient(images, axis=1), np.gradient(images, axis=2)
    upright = task.labels == 0
    assert np.abs(down[upright]).max() == 0
    assert np.abs(right[task.labels == 2]).max() == 0
    assert np.abs(right[upright]).max(axis=(1, 2)).min() > 2


def test_brightness_and_side_do_not_tell_the_orientation():
    task = edge_orientations(800, orientations=2, noise=0)
    means = task.images.mean(axis=(1, 2))
    assert abs(means[task.labels == 0].mean() - means[task.labels == 1].mean()) < 5
    rising = task.factors["contrast"] > 0
    assert 0.4 < rising[task.labels == 0].mean() < 0.6


def test_one_seed_gives_one_task_and_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    assert (edge_orientations(8, seed=3).images == edge_orientations(8, seed=3).images).all()
    assert (edge_orientations(8, seed=3).images != edge_orientations(8, seed=4).images).any()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "wrong", [{"n": 3}, {"orientations": 1}, {"size": 4}, {"noise": -1.0}], ids=str
)
def test_edges_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="expected 2 orientations"):
        edge_orientations(**wrong)


def test_texture_folds_never_judge_a_place_they_trained_on():
    patches = texture_patches(90)
    assert patches.images.shape == (90, 16, 16)
    for train, held_out in grouped_folds(patches, 3):
        assert not set(patches.groups[train]) & set(patches.groups[held_out])
        assert set(patches.labels[held_out]) == {0, 1, 2}


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_photographs_are_square_and_in_colour(name):
    assert photograph(name, size=64).shape == (64, 64, 3)
    assert photograph(name, size=64).dtype == np.uint8


def test_an_unknown_photograph_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        photograph("lena")


def test_scores_find_the_stage_that_knows():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = {"noise": rng.normal(size=(60, 4)), "answer": np.eye(3)[labels]}
    folds = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    scores = stage_scores(features, labels, folds)
    assert list(scores.columns) == ["stage", "fold", "score", "chance"]
    means = scores.groupby("stage")["score"].mean()
    assert means["answer"] == 1
    assert abs(means["noise"] - 0.5) < 0.25
    assert (scores["chance"] == 0.5).all()


def test_scores_refuse_nothing_and_leaks():
    rows = np.arange(10)
    with pytest.raises(ValueError, match="at least one stage"):
        stage_scores({}, rows % 2, [(rows[:5], rows[5:])])
    with pytest.raises(ValueError, match="at least one stage and one fold"):
        stage_scores({"stem": np.eye(10)}, rows % 2, [])
    with pytest.raises(ValueError, match="fold 0 judges images that it trained on"):
        stage_scores({"stem": np.eye(10)}, rows % 2, [(rows, rows[5:])])


def test_flat_maps_hold_every_number_of_every_stage():
    maps = flat_maps(resnet18(), np.zeros((2, 32, 32), np.uint8), size=32)
    assert list(maps) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert maps["stem"].shape == (2, 64 * 8 * 8)
