"""Dealing image by image: the mistake, on purpose."""

import numpy as np
import pytest

from tlcourse.datasets import ImageSet, InvalidDataset, Split, split_by_image


def patients(n, views, seed=0):
    """A set in which every image is its own number and three in a row are one patient."""
    images = np.arange(n * views, dtype=np.uint8).reshape(-1, 1, 1)
    groups = np.arange(n * views) // views
    whole = Split(images, groups % 2, groups)
    cut = n // 2 * views
    parts = whole.select(slice(cut)), whole.select(slice(cut, -6)), whole.select(slice(-6, None))
    return ImageSet("patients", *parts, classes=("a", "b"), partition="patient")


def test_every_image_is_dealt_once_and_keeps_label_and_group():
    data, split = patients(30, 3), split_by_image(patients(30, 3))
    assert [len(part) for part in split.parts.values()] == [63, 9, 18]
    pooled = np.concatenate([part.images.ravel() for part in split.parts.values()])
    assert sorted(pooled) == list(range(90))
    for part in split.parts.values():
        assert (part.groups == part.images.ravel() // 3).all()
        assert (part.labels == part.groups % 2).all()
    assert (split.name, split.classes, split.partition) == (data.name, data.classes, "image")


def test_patients_are_torn_apart_and_the_seed_says_how():
    first, again, other = (split_by_image(patients(30, 3), seed=s).test for s in (0, 0, 1))
    train = split_by_image(patients(30, 3)).train
    assert np.isin(first.groups, train.groups).mean() > 0.5
    assert (first.images == again.images).all()
    assert (first.images != other.images).any()


def test_too_few_images_are_refused():
    part = Split(np.zeros((1, 4, 4), np.uint8), np.array([0]))
    with pytest.raises(InvalidDataset, match="tiny"):
        split_by_image(ImageSet("tiny", part, part, part, classes=("a", "b")))
