"""A learner's own images: what is read, and what one clear error says of what is not."""

import io
import os
import pickle
import struct
import unicodedata
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tlcourse.datasets import InvalidDataset, LeakageWarning, load_images


def arrays(sizes=(20, 6, 10), shape=(12, 12), classes=2, seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for part, n in zip(("train", "val", "test"), sizes, strict=True):
        made[f"{part}_images"] = rng.integers(0, 256, (n, *shape), np.uint8)
        made[f"{part}_labels"] = (np.arange(n) % classes).astype(np.uint8)[:, None]
    return made


@pytest.fixture
def npz(tmp_path):
    def write(**changes):
        path = tmp_path / "mine.npz"
        content = {k: v for k, v in {**arrays(), **changes}.items() if v is not None}
        np.savez(path, **content)
        return path

    return write


@pytest.fixture
def folder(tmp_path):
    def write(names, mode="L", per_class=10, size=(20, 14), seed=0):
        rng = np.random.default_rng(seed)
        for name in names:
            (tmp_path / name).mkdir(parents=True)
            for number in range(per_class):
                pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(tmp_path / name / f"{number}.png")
        return tmp_path

    return write


def test_an_npz_is_dealt_anew_with_its_own_size(npz):
    data = load_images(npz(), progress=False)
    assert data.partition == "grouped"
    assert [len(s) for s in data.parts.values()] == [25, 4, 7]
    assert data.train.images.shape == (25, 12, 12)
    assert data.train.labels.dtype == np.int64
    assert data.classes == ("class 0", "class 1")
    assert data.name == "mine"


def test_the_official_parts_of_an_npz_are_kept(npz):
    data = load_images(npz(), split="official", classes=["no", "yes"], progress=False)
    assert (data.partition, data.classes) == ("official", ("no", "yes"))
    assert (data.test.images == arrays()["test_images"]).all()
    assert data.val.labels.tolist() == [0, 1] * 3


def test_an_npz_is_resized_when_asked(npz):
    coloured = {k: v for k, v in arrays(shape=(12, 12, 3)).items() if "images" in k}
    assert load_images(npz(), size=8, progress=False).train.images.shape[1:] == (8, 8)
    data = load_images(npz(**coloured), size=9, progress=False)
    assert data.train.images.shape[1:] == (9, 9, 3)


def test_copies_between_the_parts_of_an_npz_warn_and_stay_together(npz):
    images = arrays()
    images["test_images"][0] = images["train_images"][4]
    path = npz(**images)
    with pytest.warns(LeakageWarning, match=r"1 of 20 in train.*1 of 10 in test") as caught:
        load_images(path, split="official", progress=False)
    assert caught[0].filename == __file__
    with pytest.warns(LeakageWarning, match="dealt anew") as caught:
        data = load_images(path, progress=False)
    assert caught[0].filename == __file__
    owners = [set(split.groups.tolist()) for split in data.parts.values()]
    assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]


def test_half_of_a_part_shared_is_an_error_unless_dealt_anew(npz):
    images = arrays()
    images["test_images"][:5] = images["train_images"][:5]
    path = npz(**images)
    for split in (None, "official"):
        with pytest.raises(InvalidDataset, match=r"5 of 10 in test.*split='grouped'"):
            load_images(path, split=split, progress=False)
    with pytest.warns(LeakageWarning):
        assert len(load_images(path, split="grouped", progress=False).train) == 25


BAD = {
    "missing key": ({"val_labels": None}, "val_labels.*only"),
    "float images": ({"train_images": np.zeros((20, 12, 12))}, "train_images.*uint8.*float64"),
    "volume": ({"val_images": np.zeros((6, 9, 9, 9), np.uint8)}, r"val_images.*\(6, 9, 9, 9\)"),
    "flat images": ({"test_images": np.zeros((10, 144), np.uint8)}, r"test_images.*\(10, 144\)"),
    "another size": ({"val_images": np.zeros((6, 9, 9), np.uint8)}, "one image shape"),
    "float labels": ({"test_labels": np.zeros(10)}, "test_labels.*integers.*float64"),
    "many labels": ({"train_labels": np.zeros((20, 14), np.uint8)}, r"\(20, 14\)"),
    "short labels": ({"train_labels": np.zeros(19, np.uint8)}, r"\(20,\).*\(19,\)"),
    "negative labels": ({"val_labels": np.array([-1, 0, 1] * 2)}, "labels 0 to 1.*-1"),
    "gap in labels": ({"train_labels": np.arange(20) % 2 * 2}, "none of 'class 1'"),
    "class only in test": ({"test_labels": np.arange(10) % 3}, "in train.*'class 2'"),
    "one class": ({f"{p}_labels": np.zeros(n, int) for p, n in
                   (("train", 20), ("val", 6), ("test", 10))}, "two classes or more.*one"),
    "no images": ({"val_images": np.zeros((0, 12, 12), np.uint8),
                   "val_labels": np.zeros((0, 1), int)}, "every class in val"),
    "pickled labels": ({"train_labels": np.array([0, "x"] * 10, object)}, "pickled"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_npz_gets_one_error_that_names_file_expectation_and_finding(npz, case):
    changes, message = BAD[case]
    path = npz(**changes)
    with pytest.raises(InvalidDataset, match=message) as caught:
        load_images(path, progress=False)
    assert str(path) in str(caught.value)
    assert "expected" in str(caught.value)
    assert "found" in str(caught.value)


def test_labels_beyond_the_given_classes_are_refused(npz):
    with pytest.raises(InvalidDataset, match=r"labels 0 to 1 for 2 classes.*0 to 2"):
        load_images(npz(train_labels=np.arange(20) % 3), classes=["a", "b"], progress=False)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_pickles_are_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "whole.npz"
    whole.write_bytes(pickle.dumps(Bomb()))
    inside = tmp_path / "inside.npz"
    np.savez(inside, **{**arrays(), "test_images": np.array([Bomb()], object)})
    for path in (whole, inside):
        with pytest.raises(InvalidDataset, match="pickled"):
            load_images(path, progress=False)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>not found</html>"])
def test_what_is_no_archive_is_called_damaged(tmp_path, content):
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidDataset, match=r"mine\.npz: expected .*; found"):
        load_images(path, progress=False)


def test_a_single_array_is_no_archive(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 4, 4), np.uint8))
    (tmp_path / "mine.npz").write_bytes(buffer.getvalue())
    with pytest.raises(InvalidDataset, match="single array"):
        load_images(tmp_path / "mine.npz", progress=False)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_truncation_or_flipped_byte_gets_past_the_one_error(tmp_path, save):
    path = tmp_path / "mine.npz"
    save(path, **arrays(shape=(4, 4)))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refusals = []
    for _ in range(150):
        broken = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.5 else whole)
        broken[rng.integers(len(broken))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(broken))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # zipfile on duplicate names, numpy on headers
                load_images(path, progress=False)
        except InvalidDataset as error:  # else a byte that nothing depends on, such as a date
            refusals.append(str(error))
    assert len(refusals) > 75
    assert all(str(path) in refusal for refusal in refusals)


def test_an_encrypted_looking_archive_is_refused(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offsets = [info.header_offset for info in archive.infolist()]
    for offset in offsets:
        content[offset + 6] |= 1
    for at in [i for i in range(len(content)) if content[i : i + 4] == b"PK\x01\x02"]:
        content[at + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InvalidDataset, match="damaged"):
        load_images(path, progress=False)


def test_a_folder_of_classes_is_dealt_stratified_and_by_seed(folder):
    path = folder(["cats", "dogs", "elks"])
    data = load_images(path, size=16, progress=False)
    assert data.classes == ("cats", "dogs", "elks")
    assert data.counts().to_numpy().tolist() == [[7] * 3, [1] * 3, [2] * 3]
    assert data.train.images.shape == (21, 16, 16)
    again, other = (load_images(path, size=16, seed=s, progress=False) for s in (0, 1))
    assert (data.test.images == again.test.images).all()
    assert not (data.test.images == other.test.images).all()


def test_a_folder_is_64_pixels_unless_told(folder):
    assert load_images(folder(["a", "b"]), progress=False).train.images.shape[1:] == (64, 64)


def test_a_folder_with_parts_keeps_them(folder):
    parts = [f"{part}/{name}" for part in ("Train", "valid", "test") for name in ("a", "b")]
    path = folder(parts, per_class=4)
    data = load_images(path, size=8, progress=False)
    assert data.partition == "official"
    assert data.counts().to_numpy().tolist() == [[4, 4]] * 3
    assert load_images(path, size=8, split="grouped", progress=False).partition == "grouped"


def test_copies_between_part_folders_warn(folder):
    path = folder([f"{part}/{c}" for part in ("train", "val", "test") for c in "ab"], per_class=4)
    image = path / "train" / "a" / "0.png"
    image.replace(path / "kept.png")
    for place in ("train/a/0.png", "test/b/extra.png"):
        (path / place).write_bytes((path / "kept.png").read_bytes())
    with pytest.warns(LeakageWarning, match="1 of 9 in test"):
        load_images(path, size=8, progress=False)


def test_an_undivided_folder_has_no_official_split(folder):
    with pytest.raises(ValueError, match="has no train, val and test"):
        load_images(folder(["a", "b"]), split="official", progress=False)


def test_grey_and_colour_together_become_colour(folder):
    path = folder(["a"], mode="L")
    folder(["b"], mode="RGB", seed=1)
    data = load_images(path, size=8, progress=False)
    assert data.train.images.shape[1:] == (8, 8, 3)
    grey = data.train.images[data.train.labels == 0]
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize(("mode", "shape"), [("1", ()), ("LA", ()), ("P", (3,)), ("RGBA", (3,))])
def test_other_modes_become_grey_or_colour(folder, mode, shape):
    data = load_images(folder(["a", "b"], mode=mode), size=8, progress=False)
    assert data.train.images.shape[1:] == (8, 8, *shape)


def test_photographs_are_turned_upright(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = rng.integers(0, 100, (8, 8), np.uint8)
            pixels[0] = 200
            picture = Image.fromarray(pixels)
            exif = picture.getexif()
            exif[0x0112] = 3  # the camera was upside down
            picture.save(tmp_path / name / f"{number}.png", exif=exif)
    data = load_images(tmp_path, size=8, progress=False)
    assert (data.train.images[:, -1] == 200).all()
    assert (data.train.images[:, 0] < 100).all()


def test_hidden_files_and_other_files_are_left_out(folder):
    path = folder(["a", "b"])
    (path / "a" / ".DS_Store").write_bytes(b"x")
    (path / "a" / "notes.txt").write_text("x")
    (path / ".ipynb_checkpoints").mkdir()
    (path / "b" / ".ipynb_checkpoints").mkdir()
    assert load_images(path, size=8, progress=False).counts().sum().tolist() == [10, 10]


def bad_folders(path):
    """What to break, by name, with what the message must say."""
    return {
        "unreadable": (lambda: (path / "a" / "3.png").write_bytes(b"\x89PNG broken"), r"3\.png"),
        "cut short": (
            lambda: (path / "a" / "3.png").write_bytes((path / "a" / "3.png").read_bytes()[:200]),
            r"3\.png.*read",
        ),
        "empty file": (lambda: (path / "b" / "0.png").write_bytes(b""), r"0\.png"),
        "empty class": (lambda: (path / "c").mkdir(), "image files such as"),
        "folders inside": (lambda: (path / "a" / "p1").mkdir(), "no folders, in a class.*'p1'"),
        "deep grey": (
            lambda: Image.fromarray(np.zeros((4, 4), np.uint16)).save(path / "a" / "3.png"),
            r"3\.png.*8 bits.*I;16",
        ),
        "some parts": (lambda: (path / "train").mkdir(), "train, val and test.*only train"),
    }


@pytest.mark.parametrize("case", bad_folders(None))
def test_a_bad_folder_gets_one_error(folder, case):
    path = folder(["a", "b"])
    spoil, message = bad_folders(path)[case]
    spoil()
    with pytest.raises(InvalidDataset, match=message) as caught:
        load_images(path, size=8, progress=False)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("names", [[], ["lonely"]])
def test_a_folder_needs_two_classes(folder, names):
    with pytest.raises(InvalidDataset, match="two classes or more"):
        load_images(folder(names), progress=False)


def test_parts_must_hold_the_same_classes(folder):
    path = folder(["train/a", "train/b", "val/a", "val/b", "test/a", "test/c"])
    with pytest.raises(InvalidDataset, match="class folders a, b; found a, c"):
        load_images(path, progress=False)


def test_the_order_of_classes_can_be_chosen_but_not_invented(folder):
    path = folder(["a", "b"])
    data = load_images(path, size=8, classes=("b", "a"), progress=False)
    assert data.classes == ("b", "a")
    with pytest.raises(InvalidDataset, match="class folders a, x"):
        load_images(path, classes=("a", "x"), progress=False)


def test_too_few_images_to_divide_say_so(folder):
    with pytest.raises(InvalidDataset, match="4 images"):
        load_images(folder(["a", "b"], per_class=2), progress=False)


def test_nothing_at_a_path_names_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="names are breast, breastmnist, phantom"):
        load_images(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"<html>404</html>", b""])
def test_what_is_no_archive_is_not_called_a_pickle(tmp_path, content):
    path = tmp_path / "images.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidDataset, match=r"images\.npz.*damaged"):
        load_images(path)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": -3}, {"size": 8.5}, {"classes": "ab"}])
def test_sizes_and_names_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="got"):
        load_images(tmp_path, **wrong)


@pytest.mark.parametrize(
    "pair", [("val", "validation"), ("test", "Testing"), ("train", "Training")]
)
def test_two_folders_for_one_part_are_refused(folder, pair):
    parts = {"train", "val", "test", *pair}
    path = folder([f"{part}/{name}" for part in parts for name in ("a", "b")], per_class=4)
    with pytest.raises(InvalidDataset, match=f"one folder for '{pair[0]}'") as caught:
        load_images(path, size=8, progress=False)
    assert all(repr(name) in str(caught.value) for name in pair)


def test_one_class_name_written_in_two_ways_is_one_class(folder):
    ways = {"train": "NFC", "val": "NFD", "test": "NFC"}
    names = {part: unicodedata.normalize(way, "m\u00fcde") for part, way in ways.items()}
    path = folder([f"{part}/{name}" for part in ways for name in ("a", names[part])], per_class=4)
    for classes in (None, ["a", names["val"]]):
        data = load_images(path, size=8, classes=classes, progress=False)
        assert data.classes == ("a", names["train"])
        assert data.counts().to_numpy().tolist() == [[4, 4]] * 3
    (path / "val" / names["train"]).mkdir()
    with pytest.raises(InvalidDataset, match=r"m\\xfcde.*Join them"):
        load_images(path, size=8, progress=False)


def test_a_link_whose_target_is_gone_is_told(folder):
    path = folder(["a", "b"])
    (path / "a" / "gone.png").symlink_to(path / "nowhere.png")
    with pytest.raises(InvalidDataset, match=r"gone\.png.*skip_bad"):
        load_images(path, size=8, progress=False)
    data = load_images(path, size=8, skip_bad=True, progress=False)
    assert [entry.file for entry in data.skipped] == [str(path / "a" / "gone.png")]


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colour_of_more_than_8_bits_is_refused(folder, kind, channels):
    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(4 * 2 * channels) for _ in range(4))
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    path = folder(["a", "b"])
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts.items())
    (path / "a" / "3.png").write_bytes(content)
    with pytest.raises(InvalidDataset, match=r"3\.png.*8 bits"):
        load_images(path, size=8, progress=False)
