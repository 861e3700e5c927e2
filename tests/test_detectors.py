"""A detector file gives the same answers anywhere, runs no code, and says what is wrong with it."""

import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision import models

from tests.test_training import SIZE, a_model, a_split, one_thread  # noqa: F401 - a fixture
from tlcourse import __version__
from tlcourse.backbones import load_backbone
from tlcourse.datasets import InvalidDataset
from tlcourse.detectors import InvalidDetector, load_detector, save_detector
from tlcourse.detectors.serialization import FORMAT
from tlcourse.files import written_whole
from tlcourse.training import predict

NAME = "shufflenet_v2_x0_5"
CLASSES = ("grey, dark", "grey & light")


@pytest.fixture
def model():
    return a_model(NAME)


def saved(path, model, **options):
    given = {"backbone": NAME, "classes": CLASSES, "size": SIZE, "image_shape": (28, 28)}
    return save_detector(path / "detector.pt", model, **{**given, **options})


def test_the_file_holds_all_that_use_needs_and_no_code(tmp_path, model):
    path = saved(tmp_path, model, temperature=1.5, threshold=0.3, notes={"seed": 3})
    content = torch.load(path, weights_only=True)
    assert content["format"] == FORMAT
    assert content["version"] == __version__
    assert content["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert content["preprocessing"]["std"] == [0.229, 0.224, 0.225]
    assert content["preprocessing"]["interpolation"] == "bilinear"
    detector = load_detector(path)
    assert (detector.backbone, detector.classes, detector.size) == (NAME, CLASSES, SIZE)
    assert (detector.temperature, detector.threshold) == (1.5, 0.3)
    assert (detector.positive, detector.notes, detector.version) == (
        "grey, dark", {"seed": 3}, __version__
    )  # fmt: skip
    assert not detector.model.training


FRESH = """
import sys, numpy as np, torch
from tlcourse.detectors import load_detector
torch.set_num_threads(1)
answers = load_detector(sys.argv[1]).predict(np.load(sys.argv[2]))
np.save(sys.argv[3], answers.to_numpy())
"""


def from_a_fresh_process(path, images, folder):
    np.save(folder / "images.npy", images)
    files = [str(path), str(folder / "images.npy"), str(folder / "answers.npy")]
    subprocess.run([sys.executable, "-c", FRESH, *files], check=True)
    return np.load(folder / "answers.npy")


@pytest.mark.slow
@pytest.mark.parametrize("build", ["load_backbone", "torchvision"])
def test_a_fresh_process_gives_the_same_probabilities_bit_for_bit(tmp_path, build):
    # torchvision's own builder leaves weights in another order in memory than load_backbone.
    if build == "torchvision":
        torch.manual_seed(0)
        network, name = models.resnet18(num_classes=2), "resnet18"
    else:
        network, name = a_model(NAME), NAME
    images = a_split(20).images
    path = saved(tmp_path, network, backbone=name)
    expected = predict(network, images, size=SIZE)
    assert load_detector(path).predict(images).to_numpy().tobytes() == expected.tobytes()
    assert from_a_fresh_process(path, images, tmp_path).tobytes() == expected.tobytes()


def test_other_weights_bring_their_own_preprocessing(tmp_path):
    network = load_backbone("mobilenet_v2", weights=None, num_classes=2)
    network.weights_entry = "MobileNet_V2_Weights.IMAGENET1K_V2"
    detector = load_detector(saved(tmp_path, network, backbone="mobilenet_v2"))
    assert detector.preprocessing["weights"] == network.weights_entry
    assert detector.model.weights_entry == network.weights_entry


def test_answers_come_under_the_names_of_the_classes(tmp_path, model):
    detector = load_detector(saved(tmp_path, model))
    probs = detector.predict(a_split(5).images)
    assert tuple(probs.columns) == CLASSES
    assert np.allclose(probs.sum(axis=1), 1)
    best = [CLASSES[i] for i in probs.to_numpy().argmax(axis=1)]
    assert detector.predicted_classes(probs).tolist() == best
    with pytest.raises(ValueError, match="at least one image"):
        detector.predict(a_split(5).images[:0])


def test_a_temperature_divides_the_logits(tmp_path, model):
    images = a_split(6).images
    plain = load_detector(saved(tmp_path, model)).predict(images).to_numpy()
    warm = load_detector(saved(tmp_path, model, temperature=2.5)).predict(images).to_numpy()
    expected = torch.from_numpy(np.log(plain) / 2.5).softmax(dim=1).numpy()
    assert np.allclose(warm, expected)
    assert (warm.max(axis=1) < plain.max(axis=1)).all()


def test_a_threshold_decides_for_the_class_it_is_meant_for(tmp_path, model):
    probs = pd.DataFrame([[0.2, 0.8], [0.3, 0.7], [0.9, 0.1]], columns=list(CLASSES))
    first = load_detector(saved(tmp_path, model, threshold=0.3))
    assert first.predicted_classes(probs).tolist() == [CLASSES[1], CLASSES[0], CLASSES[0]]
    second = load_detector(saved(tmp_path, model, threshold=0.75, positive=CLASSES[1]))
    assert second.predicted_classes(probs).tolist() == [CLASSES[1], CLASSES[0], CLASSES[0]]


def a_file(path, mode, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_files_are_read_as_the_images_it_learned_from(tmp_path, model):
    grey, colour = a_file(tmp_path / "a.png", "L"), a_file(tmp_path / "b.png", "RGB")
    for shape, mode in (((28, 20), "L"), ((28, 20, 3), "RGB")):
        detector = load_detector(saved(tmp_path, model, image_shape=shape))
        table = detector.predict_files([grey, colour])
        assert table.index.tolist() == [str(grey), str(colour)]
        images = []
        for file in (grey, colour):
            with Image.open(file) as opened:
                small = opened.resize((20, 28), Image.Resampling.BILINEAR)
                images.append(np.asarray(small.convert(mode)))
        assert table.to_numpy().tobytes() == detector.predict(np.stack(images)).to_numpy().tobytes()


def test_without_a_shape_files_keep_their_colour_at_the_size_of_the_network(tmp_path, model):
    assert load_detector(saved(tmp_path, model, image_shape=None)).image_shape == (SIZE, SIZE, 3)


def test_many_files_are_read_in_parts(tmp_path, model, monkeypatch):
    monkeypatch.setattr("tlcourse.detectors.detector.FILES_AT_ONCE", 2)
    files = [a_file(tmp_path / f"{i}.png", "L", seed=i) for i in range(5)]
    detector = load_detector(saved(tmp_path, model))
    table = detector.predict_files(files)
    assert len(table) == 5
    alone = detector.predict_files(files[4:])
    assert np.allclose(table.iloc[4], alone.iloc[0])


def test_a_file_that_cannot_be_read_stops_or_is_left_out_when_asked(tmp_path, model):
    good, bad = a_file(tmp_path / "good.png", "L"), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:100])
    detector = load_detector(saved(tmp_path, model))
    with pytest.raises(InvalidDataset, match=r"bad\.png.*can be read.*--skip-bad"):
        detector.predict_files([good, bad])
    table = detector.predict_files([bad, good], skip_bad=True)
    assert table.index.tolist() == [str(good)]
    assert [entry.file for entry in table.attrs["skipped"]] == [str(bad)]
    assert len(detector.predict_files([bad], skip_bad=True)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet18"}, r"parameters of resnet18 with 2 answers; found others: \d+ mis"),
        ({"backbone": "resnet_18"}, "this torchvision has; found .*'resnet_18'"),
        ({"classes": ("a", "b", "c")}, "with 3 answers; found others: 2 of another shape.*fc"),
        ({"classes": ("a", "a")}, "each with its own name"),
        ({"temperature": 0}, "temperature above 0; found 0"),
        ({"threshold": 1.5}, "threshold from 0 to 1"),
        ({"positive": "dark"}, "positive as one of"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, model, options, message):
    with pytest.raises(InvalidDetector, match=message):
        saved(tmp_path, model, **options)
    assert list(tmp_path.iterdir()) == []


def change(path, **entries):
    content = torch.load(path, weights_only=True)
    torch.save({**content, **entries}, path)


def test_a_newer_format_names_the_version_that_can_read_it(tmp_path, model):
    path = saved(tmp_path, model)
    change(path, format=FORMAT + 1, version="9.9")
    with pytest.raises(InvalidDetector, match=r"expected format 1 .*written by tlcourse 9\.9") as e:
        load_detector(path)
    assert str(path) in str(e.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "something"}, r"expected a detector file.*found a file of torch with \["),
        ({"backbone": "resnet18"}, "the parameters of resnet18 with 2 answers"),
        ({"classes": ["a", "b", "c"]}, "with 3 answers"),
        ({"size": "large"}, "with 'size'; found str there"),
        ({"preprocessing": {"weights": "Gone_Weights.V1"}}, "found 'Gone_Weights.V1'"),
    ],
)
def test_a_file_of_something_else_says_what_was_found(tmp_path, model, entries, message):
    path = saved(tmp_path, model)
    change(path, **entries)
    with pytest.raises(InvalidDetector, match=message) as caught:
        load_detector(path)
    assert str(caught.value).startswith(f"{path}: expected ")


def test_other_means_than_this_version_uses_are_refused(tmp_path, model):
    path = saved(tmp_path, model)
    content = torch.load(path, weights_only=True)
    change(path, preprocessing={**content["preprocessing"], "mean": [0.5, 0.5, 0.5]})
    with pytest.raises(InvalidDetector, match=r"found mean \[0.5, 0.5, 0.5\], here \[0.485"):
        load_detector(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<html>404</html>", b"\x80\x04."])
def test_what_is_no_file_of_torch_says_so(tmp_path, content):
    path = tmp_path / "detector.pt"
    path.write_bytes(content)
    with pytest.raises(InvalidDetector, match=r"expected a detector file.*cut short, damaged"):
        load_detector(path)
    with pytest.raises(FileNotFoundError, match="no detector file at"):
        load_detector(tmp_path / "nowhere.pt")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_code_in_a_detector_file_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"kind": "tlcourse detector", "format": 1, "notes": Bomb()}, "detector.pt")
    with pytest.raises(InvalidDetector):
        load_detector("detector.pt")
    assert not (tmp_path / "exploded").exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_half(tmp_path, model):
    resource = pytest.importorskip("resource", reason="Windows has no limit on file sizes")
    path = saved(tmp_path, model)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match=r"detector\.pt|too large|write"):
            saved(tmp_path, model, notes={"second": True})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["detector.pt"]


def test_an_error_inside_the_block_writes_nothing(tmp_path):
    def fail():
        with written_whole(tmp_path / "a.csv") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []
