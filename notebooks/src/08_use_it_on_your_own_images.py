# %% [markdown]
# # Use it on your own images
#
# So far the course brought the images. Now you bring them: a folder with files of odd sizes, one of
# them broken, in classes of unequal size. Today a folder goes in and a report comes out, first in
# the notebook, then as a script that may be killed, then with more images than you would dare.
#
# **What you will be able to do**
#
# - turn a folder of images into a report, and say what was left out
# - keep images together that belong together, where names tell it
# - take any classifier of torchvision as backbone
# - train from the command line, and go on after a kill
# - say what a hundred thousand images cost in seconds and memory
#
# **What you need:** lessons 00 to 04 and 06.
#
# **Minutes:** 50

# %%
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from unittest import mock

import numpy as np
import pandas as pd

from tlcourse import backbones, detectors, experiments, features, plots, reports, results, runtime
from tlcourse.checks import lesson08
from tlcourse.datasets import InvalidDataset, Split, load_images, simulate_smears, write_smears
from tlcourse.features.learning_curves import learning_curve, paired_gain

# %% [markdown]
# ## 1 A folder in, a report out
#
# Here is a second task, in colour: stained blood smears, **simulated**. A program drew them; no
# blood was looked at, and nothing here may be used on any. Each image shows a white cell among red
# ones, of one of three kinds. A *neutrophil* has a nucleus of joined lobes, a *monocyte* is large
# with a nucleus like a kidney, a *lymphocyte* is small with a round nucleus. (This lesson uses no
# other images, so it is the same with and without the real scans.)
#
# Pretend that they are yours: a folder, and in it a folder per class. One file was cut short when
# it was copied. What will `load_images` do?

# %% [markdown] tags=["instructor"]
# - Say: Bring your own folder if you have one; every line below takes it.
# - Wrong: They expect a silent skip, as many loaders do. Ask who would ever notice.
# - Ask: Which of your images show the same patient, plant or machine? Where is that written?
# - Late: Skip the curve against pixels; do not skip Exercise 1.

# %% tags=["predict"]
my_reaction = ...  # "stops", "skips it" or "fills it up"

# %%
workplace = TemporaryDirectory()
os.chdir(workplace.name)  # all files of this lesson go there, and are removed at its end
files = write_smears("smears", 300, seed=8, damaged=1)
print(*files[:3], sep="\n")
try:
    load_images("smears", progress=False)
    stopped = False
except InvalidDataset as error:
    stopped = True
    print(f"\nit stops: {error}")
assert stopped
print("you said:", "nothing" if my_reaction is ... else my_reaction)

# %%
data = load_images("smears", size=96, skip_bad=True, progress=False)
print("left out:", *data.skipped)
assert len(data.skipped) == 1
assert sum(len(part) for part in data.parts.values()) == len(files) - 1
shown = data.train.subset(18, seed=1)
shown = shown.select(np.argsort(shown.labels, kind="stable"))
title = "Simulated smears: one white cell each, among red ones"
axes = plots.image_grid(shown.images, shown.labels, data.classes, rows=3, cols=6, title=title)
plots.show(axes, alt="Eighteen drawn blood smears: a violet nucleus in each, pink red cells around")
data

# %% [markdown]
# It stopped, and said which file and what to do. `skip_bad=True` goes on without it, and every
# report will name it. Odd sizes were made equal; where any file has colour, all get three channels.
#
# Now lesson 06's order in one call: train, keep the epoch with the lowest validation loss, open the
# test images once, write a detector; then a report on one page. (Several seeds, a temperature and a
# card remain yours.) The backbone is frozen. The classes are of unequal size. Of which class will
# the smallest share be found?

# %% tags=["predict"]
my_hardest = ...  # "lymphocyte", "monocyte" or "neutrophil"

# %%
recipe = {"strategy": "frozen", "epochs": 20, "size": 96, "progress": False}
artifacts = detectors.train_detector(data, "first", **recipe)
page = reports.write_report("first")
print(artifacts, f"report: {page}, {page.stat().st_size // 1000} kB", sep="\n")
reports.preview(page)

# %%
predicted = artifacts.probs.argmax(axis=1)
share = (
    pd.Series(artifacts.labels == predicted)
    .groupby(np.array(data.classes)[artifacts.labels])
    .mean()
)
title = f"Hardest here: {share.idxmin()}, {share.min():.0%} of its cells are found"
ax = plots.confusion_matrix(artifacts.labels, predicted, artifacts.classes, title=title)
plots.show(ax, alt="Table of true against answered class: most counts lie on the diagonal")
print("you said:", "nothing" if my_hardest is ... else my_hardest)
assert artifacts.run["scores"]["test"]["auc"]["low"] > 0.7
assert artifacts.run["data"]["skipped"]

# %% [markdown]
# The title names the hardest class. With so few cells of a rare class its share is rough. If a rare
# class matters, `train_detector` takes `class_weights="balanced"` (lesson 03).
#
# One thing no program sees. These cells come from slides, ten from each, and cells of one slide
# share stain and light; so the score above is on slides it knew. `load_images` keeps near copies
# together, but what belongs together without looking alike, only you know: patients, slides,
# cameras.
#
# ### Exercise 1 (5 minutes)
#
# Here the names tell: `slide03_cell031.png`. Read the slide's number.


# %% tags=["exercise"]
def slide_of(name):
    """Return the number of the slide, such as 3 for slide03_cell031.png."""
    # BEGIN SOLUTION
    return int(name.split("_")[0].removeprefix("slide"))
    # STUB: return ...  # name.split("_") cuts at the underscores; int("03") is 3
    # END SOLUTION


# %% tags=["check"]
lesson08.check_slide_of(slide_of)

# %% [markdown]
# With such numbers you have two ways. Put the files into folders *train*, *val* and *test*
# yourself, a slide in one of them: `load_images` keeps these. Or, in Python, hand the numbers over
# as `groups`, and folds will keep them whole (lesson 01).
#
# Are ImageNet's features good for images that are no photographs and no scans? Compare them with
# pixels, in folds by slide. What AUC will frozen features reach with 100 cells? (With three classes
# it is the mean over one class against the rest.)

# %% tags=["predict"]
my_auc = ...  # AUC of ImageNet features, 100 training images

# %%
write_smears("by_slide", 300, seed=8, divided=True)  # way one: folders
print(load_images("by_slide", progress=False).partition, "split: that of the folders is kept")
cells = simulate_smears(400, seed=8)
part = Split(cells.images, cells.labels, groups=cells.slides)  # way two: numbers
pretrained = backbones.load_backbone("mobilenet_v2", weights="imagenet", num_classes=3)
learned = features.extract_features(pretrained, part.images, progress=False)
small = part.images.reshape(len(part), 16, 4, 16, 4, 3).mean((2, 4))  # a quarter of each side
kinds = {"ImageNet features": learned, "pixels": small.reshape(len(part), -1)}
curve = learning_curve(kinds, part, [50, 100, 200, None], progress=False)
gain = paired_gain(curve, "ImageNet features", "pixels")
own = dict(folds=5, guess=(100, my_auc), chance=0.5, ylabel="held-out AUC")
ax = plots.learning_curves(curve, title="ImageNet features beat pixels on drawn cells, too", **own)
plots.show(ax, alt="AUC by training images, two rising curves: ImageNet features far above pixels")
print(f"ImageNet features minus pixels: {gain}: {gain.verdict}")
assert gain.low > 0.03

# %% [markdown]
# ## 2 Another backbone
#
# Any classifier of torchvision goes in by its name, and every call stays the same: heads and stages
# are found, sizes checked, mean and spread taken from the weights. Only MobileNetV2's weights come
# with this course. Others are fetched when first asked for; where there is no network, an error
# says which file to put where. Here four networks run *with random weights*, to show that the calls
# fit, not how good they are. Which has the fewest parameters?

# %% [markdown] tags=["instructor"]
# - Say: The name is all that changes. What a network is worth on your images, only folds say.
# - Wrong: They read the number of parameters as quality, or as time.
# - Ask: Who has no network at work? Copy the file the error names on a stick.
# - Late: Show the table, skip the error.

# %% tags=["predict"]
my_smallest = ...  # "mobilenet_v2", "resnet18", "squeezenet1_1" or "efficientnet_b0"

# %%
rows = {}
for name in ("mobilenet_v2", "resnet18", "squeezenet1_1", "efficientnet_b0"):
    model = backbones.load_backbone(name, weights=None, num_classes=data.num_classes)
    found = features.extract_features(model, data.val.images[:8], size=64, progress=False)
    names = list(backbones.stages(model))
    count = sum(p.numel() for p in model.parameters())
    rows[name] = count, found.shape[1], f"{names[0]} to {names[-2]}, {names[-1]}"
    assert names[-1] == "head"
table = pd.DataFrame(rows, index=["parameters", "features", "stages"]).T
print("you said:", "nothing" if my_smallest is ... else my_smallest)
assert table["parameters"].astype(int).idxmin() == "squeezenet1_1"
table

# %%
alone = mock.patch.dict(os.environ, TLCOURSE_OFFLINE="1", TORCH_HOME="an_empty_folder")
with alone:  # pretend, for these lines only: no network, no stored weights
    try:
        backbones.load_backbone("resnet18", weights="imagenet", num_classes=3)
    except backbones.WeightsUnavailable as error:
        advice = str(error)
print(advice)
assert "place it" in advice

# %% [markdown]
# ## 3 From notebook to script
#
# A training of hours belongs into a script. `tlcourse train` is `train_detector` as a command. This
# is section 1 again:
#
#     tlcourse train --data smears --skip-bad --strategy frozen --epochs 20 --size 96 --out run
#
# After each epoch, all that is needed to go on lies in the folder: weights, the optimizer's memory,
# the state of the random numbers. Kill it in the middle, then give the same command again. Of the
# probabilities for the test images, how many will differ from those of section 1, which was never
# stopped?

# %% [markdown] tags=["instructor"]
# - Say: Killed means killed: no goodbye, no last save. What counts was written before.
# - Wrong: They think that resuming from weights alone is the same. Order, momentum, schedule?
# - Ask: What would you have to save, if you wrote this yourself?
# - Late: Run the cells without the guess; do Exercise 2 aloud.

# %% tags=["predict"]
my_differences = ...  # "none", "some" or "all"

# %%
line = "train --data smears --skip-bad --strategy frozen --epochs 20 --size 96 --out run"
command = [sys.executable, "-m", "tlcourse", *line.split()]
quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
training = subprocess.Popen(command, **quiet)
while training.poll() is None and not list(Path("run").glob("checkpoints/[!.]*.pt")):
    sleep(0.02)
training.kill()
training.wait()
print("killed; in the folder:", sorted(path.name for path in Path("run").glob("[!.]*")))
assert not Path("run/detector.pt").exists()

# %%
again = subprocess.run(command, capture_output=True, text=True, check=True)
print(again.stdout)
resumed = detectors.read_artifacts("run")
differing = int((resumed.probs != artifacts.probs).sum())
guessed = "" if my_differences is ... else f"; you said: {my_differences}"
print(f"{differing} of {resumed.probs.size} probabilities differ{guessed}")
assert "going on with" in again.stdout
assert differing == 0

# %% [markdown]
# To the last digit: the resumed training is the one that was never stopped (on one machine, with
# the same number of threads). Anything less, and you would not know which of the two you report.
#
# ### Exercise 2 (4 minutes)
#
# After the kill somebody changes something and starts again with `--out run`. In which cases must
# the command refuse, as two halves would not make one training? Write the letters.
#
# - A: it was killed a second time
# - B: `--epochs 30` instead of 20
# - C: one of the images was replaced by a better one
# - D: the folder of images was moved, and `--data` names the new place
# - E: `--seed 1` instead of 0

# %% tags=["exercise"]
# BEGIN SOLUTION
my_refused = "BCE"
# STUB: my_refused = ...  # letters such as "AB"
# END SOLUTION

# %% tags=["check"]
lesson08.check_refused(my_refused)

# %% [markdown]
# The folder holds a detector file as in lesson 06, and its scores. `tlcourse report run` writes the
# page, and `tlcourse predict run/detector.pt new` asks the detector about a folder of new images.
# Here is the latter in Python:

# %%
new = write_smears("new", 6, seed=99)
detector = detectors.load_detector("run/detector.pt")
told = detector.predict_files(new)
told.insert(0, "answer", detector.predicted_classes(told))
told.round(2)

# %% [markdown]
# ## 4 More images than memory
#
# Images stay small whole numbers until their batch is due. What frozen stages answer is computed
# once, and goes to a file where it would take too much of the free memory.
#
# Is that enough? The published measurement (`benchmarks/scaling.py`): one thousand, ten thousand
# and a hundred thousand grey images of 64 px, in a file on the disk (at most 410 megabytes), and
# three works: compute features, train the head only, train all layers; each in a fresh process on
# two cores. With a hundred thousand, how many megabytes will the hungriest process hold?

# %% [markdown] tags=["instructor"]
# - Say: Linear is the good news: measure on ten thousand, multiply.
# - Wrong: They fear the images. Look what else takes memory: torch itself, and the features.
# - Ask: How long would your own set take on this machine? `tlcourse bench` tells.
# - Late: Read the two printed lines, skip the grid.

# %% tags=["predict"]
my_megabytes = ...  # at 100,000 images: the peak of the hungriest of the three

# %%
scaling = results.load_table("scaling")
scaling["each"] = 1000 * scaling["seconds"] / scaling["images"]
title = "An image takes as long among a hundred thousand as among ten thousand"
own = dict(y="each", group="work", interval=False, ylim=(0, 1.2 * scaling["each"].max()))
own |= dict(title=title, xlabel="images (log scale)", ylabel="milliseconds per image")
ax = plots.learning_curves(scaling, **own)
plots.show(ax, alt="Milliseconds per image by number of images: three lines, level to the right")
most = scaling["images"].max()
print(scaling.pivot(index="images", columns="work", values="peak_mb").round().to_string())
print("you said:", "nothing" if my_megabytes is ... else my_megabytes)
assert scaling["peak_mb"].max() < 1500
# time per image against ten times fewer images
assert scaling.loc[scaling["images"] == most, "per_image"].between(0.8, 1.25).all()

# %% [markdown]
# ### Exercise 3 (4 minutes)
#
# What grew for *features* and *head only* is mostly what is kept of each image. How much will the
# cached answers of a stage take? They are float32: 4 bytes a number. The shape is that of one
# image's answer, such as `(1280,)` before the head, or `(96, 4, 4)`: 96 maps of 4 by 4.


# %% tags=["exercise"]
def cache_bytes(images, shape):
    """Return the bytes that the answers for so many images take."""
    # BEGIN SOLUTION
    return images * np.prod(shape) * 4
    # STUB: return ...  # np.prod multiplies what stands in the shape
    # END SOLUTION


# %% tags=["check"]
lesson08.check_cache_bytes(cache_bytes)

# %%
limits = dict(size=64, memory_limit=0, progress=False)  # no memory allowed: it takes a file
cached = features.cache_features(pretrained, part.images, through="stage4", **limits)
print(f"{type(cached).__name__} {cached.shape}: {cached.nbytes / 1e6:.1f} MB in a file")
print("this machine trains on:", runtime.device())
grown = scaling.pivot(index="work", columns="images", values="peak_mb").diff(axis=1)[most]
kept = 0.9 * most * 1280 * 4 / 1e6  # from a tenth of the images to all
assert (grown[["features", "head only"]] / kept).between(0.8, 1.2).all()
assert isinstance(cached, np.memmap)
assert cached.nbytes == len(part) * np.prod(cached.shape[1:]) * 4

# %% [markdown]
# A memory map looks like an array and is read from the disk as needed. A *GPU* needs no other code:
# where there is one, `fit` and `train` use it; `TLCOURSE_DEVICE=cpu` forbids it.
#
# For many *trainings* there is the grid: a table of settings, a row per run, each run made once.
# It may be stopped, too. Here it compares three sizes with two seeds, on two processes.


# %%
def held_out(images, seed):
    kind = {"ImageNet features": learned}
    curve = learning_curve(kind, part, [images], seed=seed, progress=False)
    return {"auc": curve["auc"].mean()}


grid = experiments.Grid({"images": [50, 100, 200], "seed": [0, 1]})
runs = experiments.run_grid(held_out, grid, "runs.jsonl", workers=2, progress=False)
assert len(runs) == len(grid)
del cached
os.chdir(Path(workplace.name).parent)
workplace.cleanup()
runs.pivot(index="images", columns="seed", values="auc").round(3)

# %% [markdown]
# With a *cluster* (several machines that a *Dask* scheduler deals the runs to) one word changes.
# We do not run it here; the course's tests do, with workers that die on the way:
#
#     run_grid(held_out, grid, "runs.jsonl", scheduler="tcp://host:8786")
#
# The function must then lie in a module that every worker can import. A grid may be a file, too:
# `tlcourse experiments grid.toml --workers 2`.

# %% [markdown]
# ## Key points
#
# Your own images, in this order:
#
# - Look at a dozen of each class. Would you know them apart? Who gave the labels?
# - What belongs together (patient, slide, camera)? Deal it out together, by folders or `groups`.
# - Load, read what was left out and why, and count the classes.
# - Start with a frozen backbone and folds, against pixels; it takes minutes. Then fine-tune.
# - Decide rates, epochs and thresholds on validation images; open the test images once.
# - Train by a command with a folder of its own: it can be killed, and it says what made it.
# - Measure seconds on ten thousand images and multiply.
# - Write the card (lesson 06): what it is for, where it fails.
#
# ## Further reading
#
# - [torchvision: classification models](https://docs.pytorch.org/vision/stable/models.html): every
#   name that goes in as a backbone, with its weights and what they reach on ImageNet.
# - [MedMNIST](https://medmnist.com): more sets in the layout that `load_images` reads, in four
#   sizes.
# - [numpy: memmap](https://numpy.org/doc/stable/reference/generated/numpy.memmap.html): arrays that
#   stay on the disk.
# - [Dask: deploy clusters](https://docs.dask.org/en/stable/deploying.html): how schedulers and
#   workers are started, from one machine to many.
