"""Image sets as lessons see them: names, parts, the simulated set and its stand-in."""

import pickle

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tlcourse import datasets
from tlcourse.datasets import ImageSet, InvalidDataset, Split, load_images, medmnist, simulated
from tlcourse.simulation import Phantom


def part(n=10, classes=2, shape=(8, 8), seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)
    return Split(images, np.arange(n) % classes)


@pytest.fixture
def no_real_set(tmp_path, monkeypatch):
    monkeypatch.setenv("TLCOURSE_CACHE", str(tmp_path))
    monkeypatch.setenv("TLCOURSE_OFFLINE", "1")
    monkeypatch.setattr(medmnist, "_failures", {})


@pytest.fixture
def calls(monkeypatch):
    """Replace the simulation by noise; record what it was asked for."""
    asked = []

    def fake(n=780, *, seed=0, views=1, size=64, shift=None, progress=False, **more):
        asked.append({"n": n, "seed": seed, "views": views, "size": size, "shift": shift, **more})
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 200, (n, size, size), np.uint8) + np.uint8(50 * bool(shift))
        patients = np.arange(n) // views
        labels = (rng.permutation(n)[patients] >= round(0.27 * n)).astype(np.int64)
        return Phantom(images, labels, patients, pd.DataFrame({"row": np.arange(n)}))

    monkeypatch.setattr(simulated, "simulate", fake)
    return asked


def test_every_public_name_is_there():
    for name in datasets.__all__:
        assert getattr(datasets, name).__doc__


def test_a_split_numbers_groups_when_none_are_given():
    assert part(5).groups.tolist() == [0, 1, 2, 3, 4]
    assert part(5).labels.dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((4, 8, 8))}, "uint8.*float64"),
        ({"images": np.zeros((4, 3, 8, 8), np.uint8)}, r"\(4, 3, 8, 8\)"),
        ({"images": [[1]]}, "list"),
        ({"labels": np.zeros(3, int)}, r"\(4,\).*\(3,\)"),
        ({"labels": np.zeros(4)}, "float64"),
        ({"groups": np.zeros(3, int)}, r"groups.*\(3,\)"),
        ({"factors": pd.DataFrame({"a": [1]})}, "4 rows; found 1"),
    ],
)
def test_a_split_refuses_what_does_not_fit(changes, message):
    good = {"images": np.zeros((4, 8, 8), np.uint8), "labels": np.zeros(4, int)}
    with pytest.raises(InvalidDataset, match=message):
        Split(**{**good, **changes})


def test_selection_moves_images_labels_groups_and_factors_together():
    split = part(6)
    split = Split(split.images, split.labels, np.arange(6) // 2, pd.DataFrame({"k": range(6)}))
    for chosen in ([5, 0], np.array([5, 0]), slice(5, None, -5)):
        picked = split.select(chosen)
        assert picked.groups.tolist() == [2, 0]
        assert picked.labels.tolist() == [1, 0]
        assert picked.factors["k"].tolist() == [5, 0]
        assert picked.factors.index.tolist() == [0, 1]
        assert (picked.images == split.images[[5, 0]]).all()
    assert split.select(split.labels == 1).factors["k"].tolist() == [1, 3, 5]


def test_subsets_are_stratified_and_depend_on_the_seed_alone():
    split = part(100, classes=4)
    first, again, other = (split.subset(20, seed=s) for s in (1, 1, 2))
    assert np.bincount(first.labels).tolist() == [5] * 4
    assert (first.groups == again.groups).all()
    assert set(first.groups) != set(other.groups)
    with pytest.raises(ValueError, match="got 3"):
        split.subset(3)
    with pytest.raises(ValueError, match="got 101"):
        split.subset(101)


def test_a_set_counts_shows_and_replaces_its_parts():
    data = ImageSet("made", part(10), part(4, seed=1), part(6, seed=2), ("<a>", "b"))
    assert data.num_classes == 2
    assert data.counts().loc["train"].tolist() == [5, 5]
    assert "made: 8 x 8 uint8" in repr(data)
    assert "<a>" not in data._repr_html_()
    assert "&lt;a&gt;" in data._repr_html_()
    smaller = data.with_train(data.train.subset(4))
    assert (len(smaller.train), len(data.train)) == (4, 10)
    assert smaller.test is data.test
    assert len(pickle.loads(pickle.dumps(data)).train) == 10


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"classes": ("only",)}, InvalidDataset, "two classes"),
        ({"classes": ("a", "b"), "val": part(6, classes=3)}, InvalidDataset, "val.*0 to 1"),
        ({"test": part(0)}, InvalidDataset, "test.*at least one image"),
        ({"val": part(4, shape=(9, 9))}, InvalidDataset, "val.*as in train"),
        ({"partition": "random"}, ValueError, "partition"),
    ],
)
def test_a_set_refuses_parts_that_do_not_fit(changes, error, message):
    good = {"train": part(), "val": part(4), "test": part(4), "classes": ("a", "b")}
    with pytest.raises(error, match=message):
        ImageSet("made", **{**good, **changes})


def test_errors_survive_a_process_boundary():
    error = pickle.loads(pickle.dumps(InvalidDataset("file", "this", "that", "Do so")))
    assert str(error) == "file: expected this; found that. Do so"


def test_the_phantom_is_divided_by_patient_in_breastmnists_proportions(calls):
    data = load_images("phantom", progress=False)
    assert [len(split) for split in data.parts.values()] == [546, 78, 156]
    assert data.partition == "patient"
    assert data.simulated
    assert data.classes == ("malignant", "normal or benign")
    assert "simulate(n=780, seed=0, size=64)" in data.source
    assert calls == [{"n": 780, "seed": 0, "views": 1, "size": 64, "shift": None}]


def test_patients_with_several_views_stay_on_one_side(calls):
    data = load_images("phantom", n=300, views=3, seed=4, progress=False)
    owners = [set(split.groups.tolist()) for split in data.parts.values()]
    assert sum(map(len, owners)) == 100
    assert len(owners[0] | owners[1] | owners[2]) == 100
    assert [len(split) for split in data.parts.values()] == [210, 30, 60]


def test_options_reach_the_simulation(calls):
    load_images("phantom", n=60, size=32, shift="blur", contrast=2.0, mimic=0.1, progress=False)
    assert calls == [
        {"n": 60, "seed": 0, "views": 1, "size": 32, "shift": "blur", "contrast": 2.0, "mimic": 0.1}
    ]


def test_only_the_test_images_can_be_shifted(calls):
    plain = load_images("phantom", n=60, progress=False)
    shifted = load_images("phantom", n=60, shift_test="scanner", progress=False)
    assert (plain.train.images == shifted.train.images).all()
    assert (plain.test.groups == shifted.test.groups).all()
    assert (shifted.test.images == plain.test.images + np.uint8(50)).all()
    assert "shift_test='scanner'" in shifted.source


def test_the_simulation_itself_fits():
    data = load_images("phantom", n=60, size=32, views=2, shift_test="scanner", progress=False)
    assert data.train.factors is not None
    assert len(data.train.factors) == len(data.train)
    assert set(data.test.labels) == {0, 1}


def test_breast_falls_back_with_a_line_that_nobody_can_miss(calls, no_real_set, capsys):
    data = load_images("breast", seed=3, progress=False)
    assert data.simulated
    line = capsys.readouterr().out
    assert line.startswith("SIMULATED IMAGES")
    assert "tlcourse fetch" in line
    assert calls[0]["seed"] == 3
    assert load_images("breast", split="official", progress=False).partition == "patient"


def test_in_a_notebook_the_line_is_a_box(monkeypatch):
    import sys
    import types

    shown = []
    shell = types.SimpleNamespace(kernel=object())
    fake = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    display = types.SimpleNamespace(display=lambda data, raw: shown.append(data))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    simulated.announce("<reason>")
    assert "background:" in shown[0]["text/html"]
    assert "&lt;reason&gt;" in shown[0]["text/html"]
    assert shown[0]["text/plain"].startswith("SIMULATED")


def test_the_environment_forces_simulated_images(calls, real_data, monkeypatch, capsys):
    monkeypatch.setenv("TLCOURSE_IMAGES", "simulated")
    assert load_images("breast", progress=False).simulated
    assert "TLCOURSE_IMAGES=simulated" in capsys.readouterr().out
    assert not load_images("breastmnist", progress=False).simulated


@pytest.mark.parametrize("size", sorted(medmnist.FILES))
def test_the_stand_in_comes_in_every_size_of_the_real_set(no_real_set, size):
    data = load_images("breast", size=size, progress=False)
    assert data.simulated
    assert data.test.images.shape[1:] == (size, size)
    assert ("enlarged to 224 px" in data.source) == (size == 224)


@pytest.mark.parametrize("wanted", ["any", "simulated", "real"])
def test_breast_refuses_one_size_whatever_stands_in_for_it(no_real_set, monkeypatch, wanted):
    monkeypatch.setenv("TLCOURSE_IMAGES", wanted)
    with pytest.raises(ValueError, match=r"in \[28, 64, 128, 224\] px, not in 100"):
        load_images("breast", size=100, progress=False)


def test_enlarged_images_are_the_largest_simulated_ones(no_real_set):
    large, native = (load_images("phantom", n=60, size=size, progress=False) for size in (224, 128))
    assert (large.train.groups == native.train.groups).all()
    assert "size=128" in large.source
    # a bilinear enlargement invents nothing: averaged back, it is the original but for rounding
    shrunk = np.stack(
        [np.asarray(Image.fromarray(i).resize((128, 128))) for i in large.test.images]
    )
    assert abs(shrunk.astype(int) - native.test.images).mean() < 8


@pytest.mark.parametrize("size", [15, 225])
def test_simulated_images_name_the_sizes_there_are(size):
    with pytest.raises(ValueError, match=f"from 16 to 224 pixels, got {size}"):
        load_images("phantom", n=60, size=size, progress=False)


def test_the_environment_forbids_the_stand_in(calls, no_real_set, monkeypatch):
    monkeypatch.setenv("TLCOURSE_IMAGES", "real")
    with pytest.raises(datasets.DatasetUnavailable):
        load_images("breast", progress=False)
    monkeypatch.setenv("TLCOURSE_IMAGES", "reel")
    with pytest.raises(ValueError, match="TLCOURSE_IMAGES is 'reel'"):
        load_images("breast", progress=False)


@pytest.mark.parametrize("size", [28, 64])
def test_the_real_set_says_what_it_is(real_data, size, capsys):
    data = load_images("breast", size=size, progress=False)
    assert data.train.images.shape == (546, size, size)
    assert (data.name, data.partition, data.simulated) == ("breastmnist", "grouped", False)
    assert (data.license, data.classes[0]) == ("CC BY 4.0", "malignant")
    assert "Al-Dhabyani" in data.citation
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("phantom", {"split": "official"}, "split='official' has no meaning"),
        ("phantom", {"classes": ("a", "b")}, "classes="),
        ("breast", {"shift": "blur"}, "shift='blur' has no meaning"),
        ("breast", {"n": 100}, "n=100 has no meaning"),
        ("breastmnist", {"views": 2}, "views=2"),
        ("breastmnist", {"classes": ("a", "b")}, "BreastMNIST"),
        ("breast", {"split": "random"}, "'grouped' or 'official'"),
        ("phantom", {"shift": "no such"}, "no such"),
    ],
)
def test_options_without_a_meaning_are_refused(no_real_set, name, options, message):
    with pytest.raises(ValueError, match=message):
        load_images(name, progress=False, **options)


def test_a_misspelled_name_lists_the_names():
    with pytest.raises(FileNotFoundError, match=r"'brest'.*names are breast"):
        load_images("brest")
