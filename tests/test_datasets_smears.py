"""The simulated blood smears: reproducible, made of slides, untidy where they lie as files."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tlcourse.datasets import (
    InvalidDataset,
    load_images,
    near_groups,
    simulate_smears,
    write_smears,
)
from tlcourse.datasets import smears as smears_module
from tlcourse.features import probe
from tlcourse.metrics import auc
from tlcourse.simulation.cells import SMEAR_CLASSES, Discs, thickness, white_cell


@pytest.fixture(scope="module")
def smears():
    return simulate_smears(240, seed=3)


def test_same_seed_gives_the_same_set_and_another_seed_another():
    first, again, other = (simulate_smears(12, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    pd.testing.assert_frame_equal(first.factors, again.factors)
    assert not np.array_equal(first.images, other.images)


def test_images_do_not_depend_on_how_they_are_batched(monkeypatch):
    whole = simulate_smears(10, seed=5)
    monkeypatch.setattr(smears_module, "SMEAR_BATCH", 3)
    np.testing.assert_array_equal(simulate_smears(10, seed=5).images, whole.images)


def test_global_generators_are_left_alone():
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    simulate_smears(6, seed=1)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize("size", [16, 33, 64, 128])
def test_shapes_and_types_at_every_size(size):
    got = simulate_smears(7, size=size, cells_per_slide=3)
    assert got.images.shape == (7, size, size, 3)
    assert got.images.dtype == np.uint8
    assert got.labels.dtype == got.slides.dtype == np.int64
    assert got.slides.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert len(got) == len(got.factors) == 7


def test_another_size_shows_the_same_cells():
    small, large = (simulate_smears(8, seed=2, size=size) for size in (32, 64))
    pd.testing.assert_frame_equal(small.factors, large.factors)
    halved = large.images.reshape(8, 32, 2, 32, 2, 3).mean((2, 4))
    for one, other in zip(small.images, halved, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9


def test_class_shares_are_met_exactly_and_every_class_is_there(smears):
    assert np.bincount(smears.labels).tolist() == [72, 36, 132]
    assert np.bincount(simulate_smears(4).labels, minlength=3).min() == 1
    even = simulate_smears(9, shares=(1 / 3, 1 / 3, 1 / 3))
    assert np.bincount(even.labels).tolist() == [3, 3, 3]


def test_cells_of_a_slide_share_its_stain_and_others_do_not(smears):
    by_slide = smears.factors.groupby(smears.slides)
    for name in ("stain", "blur", "noise", "lamp_red", "nucleus_green"):
        assert (by_slide[name].nunique() == 1).all()
        assert smears.factors[name].nunique() == len(by_slide)
    assert (by_slide["radius"].nunique() == 10).all()


def test_classes_differ_as_the_words_say(smears):
    means = smears.factors.groupby(np.array(SMEAR_CLASSES)[smears.labels]).mean()
    assert means["radius"].idxmax() == "monocyte"
    assert means["radius"].idxmin() == "lymphocyte"
    assert means["lobes"].idxmax() == means["span"].idxmax() == "neutrophil"
    columns = {name: smears.factors[name].to_numpy() for name in smears.factors}
    cell, nucleus = white_cell(columns, 64)
    share = (nucleus > 0.5).sum((1, 2)) / (cell > 0.5).sum((1, 2))
    by_class = [share[smears.labels == label].mean() for label in range(3)]
    assert by_class[0] > max(by_class[1:]) + 0.1
    assert min(by_class) > 0.2


def test_the_nucleus_is_violet_and_the_white_cell_whole(smears):
    columns = {name: smears.factors[name].to_numpy() for name in smears.factors}
    _, nucleus = white_cell(columns, 64)
    inside = smears.images[nucleus > 0.95].mean(0)
    around = smears.images[nucleus < 0.01].mean(0)
    assert inside[2] > inside[0] > inside[1]
    assert (inside < around - 20).all()
    assert np.abs(smears.factors[["x", "y"]]).max().max() < 0.25
    low, high = np.percentile(smears.images, [1, 99])
    assert 20 < low < 120
    assert 190 < high < 255


def test_overlapping_discs_take_more_stain():
    place = np.array([[0.0, 0.1]], np.float32)
    even = np.ones((1, 2), np.float32)
    discs = Discs(place, 0 * place, 0.2 * even, even, 0 * even, even)
    stain = thickness(discs, 64, pale=0.0)[0]
    assert stain.max() == pytest.approx(2, abs=1e-3)
    assert stain[:, :10].max() < 1e-3
    none = Discs(place, place, 0 * even, even, even, even)
    assert thickness(none, 16, pale=0.0).max() == 0


def test_no_two_cells_are_near_copies(smears):
    assert len(np.unique(near_groups(smears.images))) == len(smears)


def test_pixels_tell_something_but_not_all(smears):
    rows = smears.images.reshape(len(smears), -1).astype(np.float32)
    train = smears.slides % 2 == 0
    probs = probe(rows[train], smears.labels[train]).predict_proba(rows[~train])
    assert 0.55 < auc(smears.labels[~train], probs) < 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 2}, "3 images or more, got 2"),
        ({"seed": -1}, "seed of 0 or more"),
        ({"size": 8}, "size from 16 to 256"),
        ({"cells_per_slide": 0}, "at least 1 cell"),
        ({"shares": (0.5, 0.5)}, "a share above 0 for each"),
        ({"shares": (0.5, 0.5, 0.5)}, "1 in all"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_smears(**{"n": 10, **options})


# As files ------------------------------------------------------------------------------------


def test_a_folder_is_as_untidy_as_a_learners_own(tmp_path):
    files = write_smears(tmp_path / "mine", 120, seed=1)
    assert all(file.is_file() for file in files)
    pictures = [Image.open(file) for file in files]
    assert {p.format for p in pictures} == {"PNG", "JPEG"}
    assert {p.mode for p in pictures} == {"RGB", "L"}
    assert len({p.size for p in pictures}) > 50
    assert any(p.width != p.height for p in pictures)
    counts = Counter(file.parent.name for file in files)
    assert counts == {"lymphocyte": 36, "monocyte": 18, "neutrophil": 66}
    assert files[31].name.startswith("slide03_cell031.")


def test_it_loads_with_the_labels_it_was_drawn_with(tmp_path):
    files = write_smears(tmp_path / "mine", 60, seed=1)
    data = load_images(tmp_path / "mine", progress=False)
    assert data.classes == SMEAR_CLASSES
    assert data.train.images.shape[1:] == (64, 64, 3)
    assert sum(len(part) for part in data.parts.values()) == len(files)


def test_a_damaged_file_stops_the_reading_or_is_named(tmp_path):
    write_smears(tmp_path / "mine", 60, seed=1, damaged=1)
    with pytest.raises(InvalidDataset, match=r"monocyte.slide\d+_cell\d+.*image that can be read"):
        load_images(tmp_path / "mine", progress=False)
    data = load_images(tmp_path / "mine", skip_bad=True, progress=False)
    assert len(data.skipped) == 1


def test_divided_folders_keep_slides_whole(tmp_path):
    files = write_smears(tmp_path / "mine", 200, seed=1, divided=True)
    of_slide = {}
    for file in files:
        of_slide.setdefault(file.name.split("_")[0], set()).add(file.parents[1].name)
    assert {len(parts) for parts in of_slide.values()} == {1}
    data = load_images(tmp_path / "mine", progress=False)
    assert data.partition == "official"
    assert data.counts().min().min() > 0


def test_what_is_there_is_not_written_over(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(FileExistsError, match="new or empty folder"):
        write_smears(tmp_path, 10)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]
