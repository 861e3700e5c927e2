"""The page of a training opens offline, says what must be said, and escapes what it is given."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.test_cli_train import NETWORK, few_draws  # noqa: F401 - a fixture
from tests.test_training import an_image_set, one_thread  # noqa: F401 - a fixture
from tlcourse.__main__ import main
from tlcourse.datasets import split_by_image
from tlcourse.datasets.base import PARTITIONS, Skipped
from tlcourse.detectors import InvalidArtifacts, read_artifacts, train_detector
from tlcourse.detectors.artifacts import write_run, write_worst
from tlcourse.reports import preview, write_report
from tlcourse.reports.page import SPLIT_TEXTS

CLASSES = ("<b>dark</b>", "light & grey", "3")


def train(folder, *, count=2, **changes):
    """Train on noise whose brightness tells the class; classes and files have awkward names."""
    data = replace(an_image_set(classes=count), classes=CLASSES[:count], **changes)
    choices = {"backbone": NETWORK, "strategy": "scratch", "size": 32, "epochs": 2}
    notices = ["3 of 8 are copies"]
    train_detector(data, folder, **choices, lr=[1e-3, 3e-3], notices=notices, progress=False)
    return folder


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlcourse.detectors.train.RESAMPLES", 20)
        skipped = (Skipped("<script>alert(1)</script>.png", "cut & short"),)
        return train(tmp_path_factory.mktemp("two"), skipped=skipped)


class Reader(HTMLParser):
    """Collect tags with attributes, and the words that a reader sees."""

    def __init__(self):
        super().__init__()
        self.tags, self.words, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open += [] if tag in ("meta", "img", "br") else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def read(path):
    reader = Reader()
    reader.feed(Path(path).read_text(encoding="utf-8"))
    assert reader.open == []
    return reader, " ".join(" ".join(reader.words).split())


def images(reader):
    return [attributes for tag, attributes in reader.tags if tag == "img"]


def test_the_page_needs_nothing_from_outside(two_classes):
    reader, _ = read(write_report(two_classes))
    assert {tag for tag, _ in reader.tags} & {"script", "link", "iframe"} == set()
    sources = [a[key] for _, a in reader.tags for key in ("src", "href", "srcset") if key in a]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in Path(two_classes, "report.html").read_text(encoding="utf-8")
    assert ("html", {"lang": "en"}) in reader.tags


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_page_says_of_every_partition_how_it_came_about(two_classes, tmp_path, partition):
    folder = Path(shutil.copytree(two_classes, tmp_path / partition))
    run = read_artifacts(folder).run
    write_run(folder, {**run, "data": {**run["data"], "partition": partition}})
    _, words = read(write_report(folder))
    assert f"The parts {SPLIT_TEXTS[partition]}." in words


def test_a_detector_of_torn_patients_is_reported_and_the_page_says_so(few_draws, tmp_path):  # noqa: F811
    whole = replace(an_image_set(), classes=CLASSES[:2])
    torn = split_by_image(whole)
    choices = {"backbone": NETWORK, "strategy": "scratch", "size": 32, "epochs": 1}
    train_detector(torn, tmp_path, **choices, lr=1e-3, progress=False)
    _, words = read(write_report(tmp_path))
    assert "so every score flatters" in words


def test_every_picture_has_a_text_that_tells_its_figures(two_classes):
    artifacts = read_artifacts(two_classes)
    texts = [image["alt"] for image in images(read(write_report(two_classes))[0])]
    wrong = (artifacts.predictions["label"] != artifacts.predictions["answer"]).any()
    assert len(texts) == 4 + wrong
    assert texts[0].startswith("Learning rate of each stage on a log axis: stem 0.00")
    assert "validation loss from" in texts[1]
    assert "of 4 <b>dark</b>" in texts[2]
    assert f"AUC {artifacts.run['scores']['test']['auc']['estimate']:.2f}" in texts[3]


def test_names_are_shown_as_they_are_and_never_run(two_classes):
    page = write_report(two_classes).read_text(encoding="utf-8")
    assert "<b>dark" not in page
    assert "<script" not in page
    _, words = read(two_classes / "report.html")
    assert "<b>dark</b>" in words
    assert "<script>alert(1)</script>.png" in words
    assert "light & grey" in words


def test_it_says_what_must_be_said(two_classes):
    _, words = read(write_report(two_classes))
    artifacts = read_artifacts(two_classes)
    auc = artifacts.run["scores"]["test"]["auc"]
    assert f"test AUC {auc['estimate']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in words
    assert "1 file could not be read and was left out" in words
    assert "cut & short" in words
    assert "Not for patients." in words
    assert "Beware: 3 of 8 are copies" in words
    assert "tlcourse predict detector.pt IMAGE_OR_FOLDER" in words
    assert 'load_detector("detector.pt")' in words
    assert "Of all epochs and rates the one with the lowest validation loss is kept" in words
    assert f"{NETWORK}, strategy scratch , images at 32 px, seed 0" in words
    assert re.search(r"<b>dark</b> 12 8 4 24 light & grey 12 8 4 24", words)
    assert "stem 0.00" in words
    assert "simulated" not in words


def test_three_classes_have_no_roc_and_simulated_images_say_so(tmp_path, few_draws):  # noqa: F811
    reader, words = read(write_report(train(tmp_path / "run", count=3, simulated=True)))
    assert not any("ROC" in image["alt"] for image in images(reader))
    assert "no score here says anything about real ones" in words
    assert "A program drew these images." in words
    assert "No file was left out." in words


def test_no_mistakes_are_a_reason_to_look_for_a_leak(tmp_path, few_draws):  # noqa: F811
    folder = train(tmp_path / "run")
    write_worst(folder, np.empty((0, 28, 28), np.uint8), np.empty(0, np.int64))
    table = read_artifacts(folder).predictions
    table.assign(answer=table["label"]).to_csv(folder / "predictions.csv", index=False)
    _, words = read(write_report(folder))
    assert "None of 8 test images is answered wrongly" in words
    assert "look for a leak" in words


def test_stages_say_when_they_are_released(two_classes, tmp_path):
    for file in two_classes.glob("[!.]*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    run = json.loads((tmp_path / "run.json").read_text())
    plan = run["training"]
    plan["frozen"], plan["unfreeze_at"] = plan["stages"][:-1], {"stage3": 2, "stage2": 4}
    plan["rates"] = [group for group in plan["rates"] if group["name"] not in ("stem", "stage1")]
    write_run(tmp_path, run)
    _, words = read(write_report(tmp_path, out=tmp_path / "pages" / "mine.html"))
    assert "stem none never: frozen stage1 none never: frozen stage2 0.00" in words
    assert re.search(r"stage2 \S+ epoch 4 stage3 \S+ epoch 2 head \S+ epoch 1", words)


def test_the_command_writes_the_page_or_says_what_is_missing(two_classes, tmp_path, capsys):
    assert main(["report", str(two_classes)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert main(["report", str(two_classes), "--out", str(tmp_path / "a.html")]) == 0
    assert (tmp_path / "a.html").read_bytes() == (two_classes / "report.html").read_bytes()
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "no run.json here" in capsys.readouterr().err
    (tmp_path / "run.json").write_bytes((two_classes / "run.json").read_bytes())
    with pytest.raises(InvalidArtifacts, match="missing or damaged"):
        write_report(tmp_path)
    assert main(["report", str(tmp_path)]) == 2


def test_a_preview_holds_the_whole_page_closed_to_scripts_and_warns_of_nothing(tmp_path):
    page = tmp_path / "report.html"
    page.write_text('<h1 class="a">A & B</h1><script>alert(1)</script>', encoding="utf-8")
    reader = Reader()
    reader.feed(preview(page, height=300).data)
    (outer, _), (tag, frame) = reader.tags
    assert (outer, tag) == ("div", "iframe")
    assert frame["srcdoc"] == page.read_text(encoding="utf-8")
    assert frame["sandbox"] == ""
    assert frame["title"]
    assert "300px" in frame["style"]
    with pytest.raises(FileNotFoundError):
        preview(tmp_path / "none.html")
