"""`tlcourse train` and `predict`: one protocol, resumed when killed, nothing skipped in silence."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.test_training import an_image_set, one_thread  # noqa: F401 - a fixture
from tlcourse import backbones, training
from tlcourse.__main__ import main
from tlcourse.datasets import InvalidDataset, load_images
from tlcourse.detectors import InvalidArtifacts, load_detector, read_artifacts, train_detector
from tlcourse.detectors import search as trials_module
from tlcourse.detectors.artifacts import held
from tlcourse.detectors.config import HEAD_LR
from tlcourse.training import strategies as strategies_module
from tlcourse.training.strategies import STRATEGIES, Strategy, fitted_to

DRAWS = 20
NETWORK = "shufflenet_v2_x0_5"
COUNTS = {"disk": 24, "ring": 16, "square": 12}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("tlcourse.detectors.train.RESAMPLES", DRAWS)


def draw(kind, number):
    """A disk, a ring or a square somewhere in noise: grey or colour, of whatever size."""
    rng = np.random.default_rng([list(COUNTS).index(kind), number])
    height, width = rng.integers(28, 52, 2)
    y, x = np.mgrid[:height, :width] - rng.integers(8, 20, 2)[:, None, None]
    far = np.hypot(y, x)
    shape = {"disk": far < 8, "ring": (far > 5) & (far < 8), "square": (abs(y) < 5) & (abs(x) < 5)}
    pixels = rng.normal(100, 30, (height, width, 3)) + 90 * shape[kind][..., None]
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return picture if number % 3 else picture.convert("L")


def fill(root, counts, start=0):
    for kind, count in counts.items():
        (root / kind).mkdir(parents=True)
        for number in range(start, start + count):
            draw(kind, number).save(root / kind / f"{number:02}.png")
    return root


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of three classes of unequal size, grey and colour, odd sizes, one file corrupt."""
    monkeypatch.chdir(tmp_path)
    root = fill(tmp_path / "pictures", COUNTS)
    corrupt = root / "ring" / "07.png"
    corrupt.write_bytes(corrupt.read_bytes()[:300])
    return root


def command(*extra, out="run", strategy="scratch", epochs=2, data="pictures", size=32):
    words = ["train", "--data", data, "--backbone", NETWORK, "--strategy", strategy]
    return [*words, "--out", out, "--epochs", str(epochs), "--size", str(size), *extra]


def weights(folder):
    return torch.load(Path(folder) / "detector.pt", weights_only=True)["state"]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# Files that cannot be read -------------------------------------------------------------------


def test_a_corrupt_file_is_named_and_stops_the_training(pictures, capsys):
    assert main(command()) == 2
    said = capsys.readouterr().err
    assert f"{Path('pictures/ring/07.png')}: expected an image that can be read" in said
    assert "--skip-bad" in said
    assert not Path("run").exists()


def test_it_is_left_out_only_when_asked_and_the_run_says_so(pictures, capsys):
    assert main(command("--skip-bad")) == 0
    said = capsys.readouterr()
    assert "1 unreadable left out" in said.out
    assert "left out: pictures" in said.err
    data = json.loads(Path("run/run.json").read_text())["data"]
    (entry,) = data["skipped"]
    assert entry["file"] == str(Path("pictures/ring/07.png"))
    assert "truncated" in entry["reason"]
    counts = pd.DataFrame(data["counts"]).T.sum()
    assert counts.to_dict() == {**COUNTS, "ring": COUNTS["ring"] - 1}
    assert data["image_shape"] == [32, 32, 3]


def test_a_set_tells_what_was_skipped(pictures):
    data = load_images(pictures, size=16, skip_bad=True, progress=False)
    assert [Path(entry.file).name for entry in data.skipped] == ["07.png"]
    assert data.with_train(data.train).skipped == data.skipped
    assert "1 unreadable left out" in repr(data)
    (pictures / "ring" / "07.png").unlink()
    whole = load_images(pictures, size=16, progress=False)
    assert whole.skipped == ()
    assert "left out" not in repr(whole)
    assert all((whole.parts[p].images == data.parts[p].images).all() for p in whole.parts)


def test_a_class_of_which_nothing_can_be_read_is_refused(pictures):
    for file in (pictures / "square").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InvalidDataset, match=r"images of every class.*none of 'square'"):
        load_images(pictures, size=16, skip_bad=True, progress=False)
    for file in pictures.glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(InvalidDataset, match="no images at all"):
        load_images(pictures, size=16, skip_bad=True, progress=False)


def an_npz(path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in {"train": 30, "val": 8, "test": 12}.items():
        labels = np.arange(count) % 2
        images = rng.normal(90, 20, (count, 24, 24)) + 60 * labels[:, None, None]
        arrays |= {f"{part}_images": images.clip(0, 255).astype(np.uint8), f"{part}_labels": labels}
    np.savez(path, **arrays)


def test_an_npz_is_read_whole_or_not_at_all(pictures, capsys):
    an_npz("mine.npz")
    assert main(command("--skip-bad", data="mine.npz")) == 2
    assert "skip_bad=True has no meaning for an .npz" in capsys.readouterr().err
    assert main(command(data="mine.npz")) == 0
    assert load_detector("run/detector.pt").image_shape == (24, 24)
    with pytest.raises(ValueError, match="skip_bad=True has no meaning for simulated"):
        load_images("phantom", n=40, skip_bad=True)


# The protocol --------------------------------------------------------------------------------


def test_everything_that_comes_of_it_lies_in_the_folder(pictures, capsys):
    assert main(command("--skip-bad", "--lr", "0.001", "0.01", epochs=3)) == 0
    assert "tlcourse report run" in capsys.readouterr().out
    names = {p.name for p in Path("run").iterdir()} - {".lock"}
    assert names == {
        "detector.pt", "history.csv", "predictions.csv", "most_wrong.npz", "run.json"
    }  # fmt: skip
    artifacts = read_artifacts("run")
    assert artifacts.classes == tuple(COUNTS)
    assert artifacts.run["arguments"]["lr"] == [0.001, 0.01]
    assert artifacts.run["command"].endswith("--seed 0 --copies-above 0.95 --skip-bad")
    assert artifacts.run["versions"].keys() > {"tlcourse", "torch"}
    assert len(artifacts.history) == 6
    scores = artifacts.run["scores"]["test"]
    assert all(scores[name]["low"] <= scores[name]["high"] for name in ("auc", "accuracy"))
    assert "auc" in repr(artifacts)


def test_rate_and_epoch_are_chosen_on_validation_alone(pictures):
    main(command("--skip-bad", "--lr", "0.0001", "0.003", "0.01", epochs=3))
    artifacts = read_artifacts("run")
    best = artifacts.history.loc[artifacts.history["val_loss"].idxmin()]
    chosen = artifacts.run["chosen"]
    assert (chosen["lr"], chosen["epoch"]) == (best["head_lr"], best["epoch"])
    assert chosen["val_loss"] == min(entry["val_loss"] for entry in artifacts.run["tried"])
    data = load_images("pictures", size=32, skip_bad=True, progress=False)
    val = load_detector(artifacts.detector).predict(data.val.images).to_numpy()
    assert -np.log(val[np.arange(len(val)), data.val.labels]).mean() == pytest.approx(
        chosen["val_loss"], rel=1e-4
    )


def test_the_test_images_are_opened_once_at_the_end(pictures, monkeypatch):
    data = load_images("pictures", size=32, skip_bad=True, progress=False)
    seen, fit, predict = [], strategies_module.fit, training.predict

    def predicting(model, images, **options):
        seen.append("test" if np.array_equal(images, data.test.images) else "other")
        return predict(model, images, **options)

    def fitting(*given, **options):
        seen.append("fit")
        return fit(*given, **options)

    monkeypatch.setattr("tlcourse.detectors.detector.predict", predicting)
    monkeypatch.setattr(strategies_module, "fit", fitting)
    choices = {"backbone": NETWORK, "strategy": "scratch", "size": 32, "epochs": 1}
    artifacts = train_detector(data, "run", lr=[1e-3, 3e-3], **choices, progress=False)
    assert seen == ["fit", "fit", "other", "test"]
    assert artifacts.labels.tolist() == data.test.labels.tolist()


def test_predictions_and_mistakes_are_those_of_the_file(pictures):
    main(command("--skip-bad"))
    artifacts = read_artifacts("run")
    data = load_images("pictures", size=32, skip_bad=True, progress=False)
    probs = load_detector(artifacts.detector).predict(data.test.images)
    assert artifacts.probs.tobytes() == probs.to_numpy().tobytes()
    assert artifacts.labels.tolist() == data.test.labels.tolist()
    rows = artifacts.most_wrong_rows
    assert (artifacts.most_wrong == data.test.images[rows]).all()
    wrong = artifacts.predictions.iloc[rows]
    assert (wrong["label"] != wrong["answer"]).all()
    truth = artifacts.probs[rows, artifacts.labels[rows]]
    assert (np.diff(truth) >= 0).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_of_the_nine_strategies_trains_any_network(pictures, monkeypatch, strategy):
    def without_weights(name, *, weights, **options):
        return backbones.load_backbone(name, weights=None, **options)

    monkeypatch.setattr(strategies_module, "load_backbone", without_weights)
    monkeypatch.setattr(trials_module, "KEEP", "last")
    assert main(command("--skip-bad", strategy=strategy, epochs=3)) == 0
    before = backbones.load_backbone(NETWORK, weights=None, num_classes=3).state_dict()
    moved = {k.split(".")[0] for k, v in weights("run").items() if not torch.equal(v, before[k])}
    assert "fc" in moved
    assert ("conv1" in moved) == (strategy != "frozen")
    plan = read_artifacts("run").run["training"]
    assert plan["unfreeze_at"].keys() == {
        "lp_ft": {"stem"}, "gradual": {"stage3", "stage2", "stage1", "stem"}
    }.get(strategy, set())  # fmt: skip
    assert (plan["frozen"] == plan["stages"][:-1]) == STRATEGIES[strategy].freeze
    rates = {group["name"]: group["lr"] for group in plan["rates"]}
    expected = {"frozen": None, "decay": 1e-3 * 0.38461538**4}
    expected |= dict.fromkeys(("discriminative", "warmup_discriminative"), 1e-4)
    assert rates.get("stem") == pytest.approx(expected.get(strategy, 1e-3))


def test_the_help_names_the_nine_strategies_and_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in STRATEGIES)
    assert f"(default: {HEAD_LR})" in " ".join(said.split())


def test_copies_across_given_parts_are_noted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i, (part, count) in enumerate({"train": 12, "val": 4, "test": 5}.items()):
        fill(tmp_path / "pictures" / part, dict.fromkeys(COUNTS, count), start=20 * i)
    copied = Path("pictures/train/disk/00.png").read_bytes()
    Path("pictures/test/disk/copy.png").write_bytes(copied)
    assert main(command(epochs=1)) == 0
    (notice,) = read_artifacts("run").run["notices"]
    assert "1 of 16 in test" in notice
    assert f"LeakageWarning: {notice}" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_of_one_class_is_refused_before_training(tmp_path, part):
    data = an_image_set()
    alone = data.parts[part].select(data.parts[part].labels == 1)
    with pytest.raises(ValueError, match=f"more in {part}, found only 'class 1'"):
        train_detector(replace(data, **{part: alone}), tmp_path, strategy="scratch")


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("mobilenet_v2", ["stage5", "stage4", "stage3", "stem"]),
        ("vgg11", ["hidden", "stage4", "stage3", "stem"]),
        ("alexnet", ["hidden", "stage2", "stage1", "stem"]),
    ],
)
def test_stages_to_release_are_counted_from_the_head(name, stages):
    model = backbones.load_backbone(name, weights=None)
    assert list(fitted_to(STRATEGIES["gradual"], model).unfreeze) == stages


def test_a_stage_that_is_named_is_that_stage_in_every_network(tmp_path):
    own = Strategy("mine", freeze=True, unfreeze={"stage4": 0.5})
    given = {"backbone": "resnet18", "epochs": 2, "size": 32, "progress": False}
    made = train_detector(
        an_image_set(), tmp_path / "a", strategy=replace(own, pretrained=False), **given
    )
    assert made.run["training"]["unfreeze_at"] == {"stage4": 2}
    wrong = replace(own, pretrained=False, unfreeze={"stage5": 0.5})
    with pytest.raises(
        ValueError, match=r"mine releases 'stage5': .*ResNet \(stem, stage1, .*, stage4\)"
    ):
        train_detector(an_image_set(), tmp_path / "b", strategy=wrong, **given)


# Stopped and started again -------------------------------------------------------------------


def start(out, stdout=subprocess.DEVNULL):
    words = command("--skip-bad", "--lr", "0.001", "0.003", out=out, epochs=8)
    code = "import sys, torch; torch.set_num_threads(1); from tlcourse.__main__ import main; "
    code += f"import tlcourse.detectors.train as train; train.RESAMPLES = {DRAWS}; "
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    line = [sys.executable, "-c", code + "sys.exit(main(sys.argv[1:]))", *words]
    return subprocess.Popen(
        line, env=environment, stdout=stdout, stderr=subprocess.DEVNULL, text=True
    )


def kill_when_there_is(path, out):
    child = start(out)
    while not Path(path).exists():
        assert child.poll() is None, "it ended too early"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_killed_at_any_moment_the_same_command_ends_with_the_same_weights(pictures, capsys):
    for moment in ("run.json", "checkpoints/lr-0.003.pt", "detector.pt"):
        kill_when_there_is(f"killed/{moment}", "killed")
        assert json.loads(Path("killed/run.json").read_text())["finished"] is False
        with pytest.raises(InvalidArtifacts, match="not finished; the same command goes on"):
            read_artifacts("killed")
    assert main(command("--skip-bad", "--lr", "0.001", out="killed", epochs=8)) == 2
    assert r"lr: [0.001, 0.003] then, [0.001] now" in capsys.readouterr().err
    last = start("killed", stdout=subprocess.PIPE)
    assert "going on with lr-0.001.pt" in last.communicate()[0]
    assert last.returncode == 0
    words = command("--skip-bad", "--lr", "0.001", "0.003", out="whole", epochs=8)
    assert main(words) == 0
    assert "going on" not in capsys.readouterr().out
    assert same(weights("killed"), weights("whole"))
    files = [Path(out, "predictions.csv").read_bytes() for out in ("killed", "whole")]
    assert files[0] == files[1]
    first, second = (read_artifacts(out) for out in ("killed", "whole"))
    assert first.history.drop(columns="seconds").equals(second.history.drop(columns="seconds"))
    assert first.run["scores"] == second.run["scores"]
    assert sorted(p.name for p in Path("killed").iterdir()) == sorted(
        p.name for p in Path("whole").iterdir()
    )


def interrupt(monkeypatch):
    def stopped(*_given, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tlcourse.detectors.train.best_trial", stopped)


def test_ctrl_c_says_how_to_go_on_and_other_arguments_are_refused(pictures, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        interrupt(patch)
        assert main(command("--skip-bad")) == 1
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    for other in (
        command("--skip-bad", epochs=5),
        command("--skip-bad", size=48),
        command("--skip-bad", strategy="cold"),
        command("--skip-bad", "--seed", "3"),
        [*command("--skip-bad"), "--backbone", "resnet18"],
    ):
        assert main(other) == 2
    said = capsys.readouterr().err
    assert "run holds an interrupted training with other arguments (epochs: 2 then, 5 now)" in said
    for change in ("size: 32 then, 48 now", "strategy: scratch then, cold now", "seed: 0 then, 3"):
        assert change in said
    assert f"backbone: '{NETWORK}' then, 'resnet18' now" in said
    (pictures / "disk" / "00.png").unlink()
    assert main(command("--skip-bad")) == 2
    assert "(images: " in capsys.readouterr().err


def test_a_finished_training_is_only_read_back(pictures, monkeypatch, capsys):
    assert main(command("--skip-bad")) == 0
    before = Path("run/run.json").stat().st_mtime_ns
    interrupt(monkeypatch)
    assert main(command("--skip-bad")) == 0
    assert Path("run/run.json").stat().st_mtime_ns == before
    assert main(command("--skip-bad", epochs=3)) == 2
    assert "holds a finished training with other arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--strategy", "lukewarm"], "expected a strategy of scratch, frozen, .*got 'lukewarm'"),
        (["--backbone", "resnet_18"], "expected a classifier of torchvision, got 'resnet_18'"),
        (["--epochs", "0"], "expected at least 1 epoch"),
        (["--lr", "-1"], "expected lr as a rate above 0"),
        (["--lr", "0.1", "0.1"], "several different ones"),
        (["--strategy", "cold"], "not on this machine and could not be fetched"),
        (["--backbone", "vit_b_16"], "takes images of 224 px only, got size=32"),
        (["--data", "nowhere"], "no file or folder at 'nowhere'"),
        (["--out", "pictures/run"], "lies in the folder of the images"),
    ],
)
def test_what_cannot_start_says_why_and_leaves_the_folder_free(pictures, capsys, changed, message):
    assert main([*command("--skip-bad"), *changed]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    if Path("run").exists():
        assert [p.name for p in Path("run").iterdir() if p.name != ".lock"] == []


def test_a_folder_of_something_else_is_left_alone(pictures, capsys):
    Path("run").mkdir()
    Path("run/thesis.docx").write_text("years of work")
    assert main(command("--skip-bad")) == 2
    assert "found thesis.docx: name another one" in capsys.readouterr().err
    assert [p.name for p in Path("run").iterdir()] == ["thesis.docx"]
    Path("run/run.json").write_text("{}")
    assert main(command("--skip-bad")) == 2
    assert "expected a file of `tlcourse train`" in capsys.readouterr().err
    with pytest.raises(InvalidArtifacts, match=r"no run\.json here"):
        read_artifacts("pictures")


def test_two_processes_never_train_into_one_folder(pictures, capsys):
    with held(Path("run")):
        assert main(command("--skip-bad")) == 2
    assert "another process is training into it" in capsys.readouterr().err
    assert main(command("--skip-bad", epochs=1)) == 0


def test_classes_can_be_made_to_weigh_alike(pictures, monkeypatch, capsys):
    given = []

    def fitting(*arguments, **options):
        given.append(options["class_weights"])
        return training.fit(*arguments, **options)

    monkeypatch.setattr(strategies_module, "fit", fitting)
    assert main(command("--skip-bad", out="plain", epochs=1)) == 0
    assert main(command("--skip-bad", "--class-weights", "balanced", out="even", epochs=1)) == 0
    assert given == [None, "balanced"]
    plain, even = (read_artifacts(out) for out in ("plain", "even"))
    assert plain.history["train_loss"][0] != even.history["train_loss"][0]
    assert "--class-weights balanced" in even.run["command"]
    assert even.run["training"]["class_weights"] == "balanced"
    assert main(command("--skip-bad", out="even", epochs=1)) == 2
    assert "class_weights: 'balanced' then, None now" in capsys.readouterr().err
    with pytest.raises(ValueError, match="class_weights None or 'balanced', got 'even'"):
        train_detector(an_image_set(), "new", strategy="scratch", class_weights="even")


# Predict -------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A detector, trained on a folder with parts, so that its test images are known files."""
    monkeypatch.chdir(tmp_path)
    for i, (part, count) in enumerate({"train": 12, "val": 4, "test": 5}.items()):
        fill(tmp_path / "pictures" / part, dict.fromkeys(COUNTS, count), start=20 * i)
    assert main(command(epochs=1)) == 0
    return Path("run")


def test_predict_gives_for_files_what_the_training_gave_for_images(trained, capsys):
    capsys.readouterr()
    assert main(["predict", "run/detector.pt", "pictures/test", "--out", "answers.csv"]) == 0
    assert "15 answers in answers.csv" in capsys.readouterr().out
    table = pd.read_csv("answers.csv")
    artifacts = read_artifacts("run")
    assert [Path(file).parent.name for file in table["file"]] == artifacts.predictions[
        "label"
    ].tolist()
    assert table["answer"].tolist() == artifacts.predictions["answer"].tolist()
    probs = table.filter(like="p_").to_numpy()
    assert np.abs(probs - artifacts.probs).max() < 1e-15


def test_predict_prints_a_table_and_takes_files_and_folders(trained, capsys):
    capsys.readouterr()
    hidden = Path("pictures/test/.thumbnails")
    hidden.mkdir()
    draw("disk", 1).save(hidden / "x.png")
    assert main(["predict", "run/detector.pt", "pictures/val/disk/20.png", "pictures/test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "file,answer,p_disk,p_ring,p_square"
    assert len(lines) == 1 + 1 + 15
    assert lines[1].startswith("pictures/val/disk/20.png,")


def test_predict_names_what_it_cannot_read(trained, capsys):
    Path("pictures/test/disk/bad.png").write_bytes(b"")
    words = ["predict", "run/detector.pt", "pictures/test/disk"]
    assert main(words) == 2
    assert "bad.png: expected an image that can be read" in capsys.readouterr().err
    assert main([*words, "--skip-bad"]) == 0
    said = capsys.readouterr()
    assert "left out: pictures/test/disk/bad.png" in said.err
    assert len(said.out.splitlines()) == 1 + 5
    for wrong, message in {
        ("nowhere.pt", "pictures"): "no detector file at nowhere.pt",
        ("run/run.json", "pictures"): "expected a detector file",
        ("run/detector.pt", "nowhere"): "no file or folder at nowhere",
        ("run/detector.pt", "run"): "expected image files such as",
    }.items():
        assert main(["predict", *wrong]) == 2
        assert message in capsys.readouterr().err
