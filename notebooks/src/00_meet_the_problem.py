# %% [markdown]
# # Meet the problem
#
# A network that learned from photographs of dogs, cups and lorries, and has never seen an
# ultrasound scan, is about to find breast tumours. You hold a first result in a few minutes,
# before any theory. The other lessons explain it.
#
# **What you will be able to do**
#
# - say what is in an image set, and what its labels do and do not mean
# - explain why accuracy misleads when one class is rare, and read an AUC instead
# - fine-tune a pretrained network, and report its score with an interval
#
# **What you need:** Python functions and lists. No deep learning, no medicine.
#
# **Minutes:** 25

# %% [markdown]
# Click a cell and press Shift+Enter to run it. *Run > Run All Cells* runs the whole lesson in
# about a minute; nothing breaks if you leave questions open. The first cell brings the tools, the
# second says what machine you are on.

# %%
from functools import partial

import pandas as pd
from torch.optim import AdamW

from tlcourse import metrics, plots
from tlcourse.backbones import load_backbone
from tlcourse.checks import lesson00
from tlcourse.datasets import load_images
from tlcourse.metrics import auc, bootstrap
from tlcourse.optim import warmup_cosine
from tlcourse.results import load_table
from tlcourse.runtime import environment_report
from tlcourse.training import fit, predict

# %%
pd.Series(environment_report(), name="this machine").to_frame()

# %% [markdown]
# ## 1 Look before you train
#
# An ultrasound probe sends sound into the breast and draws the echoes: bright where tissue throws
# much back, black where it throws back nothing, as fluid does. BreastMNIST holds small scans, each
# with one label that doctors gave: *malignant* (cancer), or *normal or benign* (harmless).
#
# If the real scans are not on your machine and cannot be fetched, the course draws simulated ones
# and says so. Every lesson works on both. Neither is fit for judging a patient.

# %%
data = load_images("breast")
data

# %% tags=["instructor"]
# Ask the room before the labels are shown: "who would like to be the radiologist?" Collect the six
# answers aloud. People expect that malignant means dark or large; the set holds counterexamples.

# %%
shown = data.train.subset(12, seed=3)
axes = plots.image_grid(
    shown.images, shown.labels, data.classes, rows=2, cols=6, title="Twelve scans with their labels"
)
plots.show(axes, alt="Twelve grey ultrasound images, each framed in the colour of its class")

# %% [markdown]
# Look for what the malignant ones share. Radiologists name a ragged edge, a shape taller than it
# is wide, and a dark shadow below. Now it is your turn: here are six scans without labels.

# %%
quiz = data.train.subset(6, seed=8)
axes = plots.image_grid(
    quiz.images, rows=1, cols=6, title="Which are malignant?", captions=list("123456")
)
plots.show(axes, alt="Six grey ultrasound images, numbered 1 to 6, without labels")

# %% tags=["predict"]
my_reading = ...  # six letters, m for malignant and b for normal or benign, such as "mmmmmm"

# %%
lesson00.compare_reading(my_reading, quiz.labels)

# %% [markdown]
# ## 2 Ask a question that cannot be cheated
#
# Suppose a program answers "harmless" to every scan. It never finds a tumour. Yet look at the
# bars: most scans *are* harmless, so most of its answers are right. Accuracy, the share of right
# answers, rewards it.

# %%
ax = plots.class_counts(data, title="Malignant scans are the minority in every part")
plots.show(ax, alt="Bars per part of the set: about a quarter of the images are malignant")

# %% [markdown]
# ### Exercise 1 (3 minutes)
#
# What accuracy does the program that always says "normal or benign" (label 1) reach on the test
# images? Compute it from `data.test.labels`.

# %% tags=["exercise"]
# BEGIN SOLUTION
lazy_accuracy = (data.test.labels == 1).mean()
# STUB: lazy_accuracy = ...  # a share between 0 and 1, from data.test.labels
# END SOLUTION

# %% tags=["check"]
lesson00.check_lazy_accuracy(lazy_accuracy, data.test.labels)

# %% [markdown]
# So ask something else. Draw one malignant and one harmless scan at random: how often does the
# program find the malignant one *more suspicious*? That share is the **AUC**, the area under the
# ROC curve. A program that guesses, or always says the same, gets one half; a perfect one gets 1.
# It does not depend on how rare a class is.
#
# ### Exercise 2 (6 minutes)
#
# Write the AUC from that sentence. A tie counts one half.


# %% tags=["exercise"]
def auc_by_pairs(malignant_scores, harmless_scores):
    """Share of pairs in which the malignant scan has the higher score; ties count one half."""
    # BEGIN SOLUTION
    points = 0.0
    for m in malignant_scores:
        for h in harmless_scores:
            points += 1.0 if m > h else 0.5 if m == h else 0.0
    return points / (len(malignant_scores) * len(harmless_scores))
    # STUB: return ...  # two loops over the scores, then divide by the number of pairs
    # END SOLUTION


# %% tags=["check"]
lesson00.check_auc_by_pairs(auc_by_pairs)

# %% [markdown]
# ## 3 Get a first result
#
# MobileNetV2 is a small network that learned to tell a thousand kinds of things apart on ImageNet,
# more than a million photographs. We keep what it learned, replace its thousand answers by two,
# and let the whole network adjust itself to the scans for a few rounds (*epochs*). That is
# **fine-tuning**. The course takes the next cell apart, word by word. For now: the *seed* fixes
# what is drawn at random, and the *validation* images are scored after each epoch, never trained
# on.
#
# The recipe was fixed beforehand. So the test images, which the network never trains on, may be
# opened once, here. The next lessons keep them shut.

# %% tags=["predict"]
my_guess = ...  # the AUC on the test images: between 0.5 (guessing) and 1 (perfect)

# %%
recipe = dict(
    epochs=5,
    optimizer=partial(AdamW, lr=1e-3),
    schedule=partial(warmup_cosine, warmup_steps=10),
    augment="flip",
    size=96,
    seed=0,
)
model = load_backbone("mobilenet_v2", weights="imagenet", num_classes=data.num_classes)
history = fit(model, data, **recipe)
history

# %%
axes = plots.history_curves(
    history, title="Training loss keeps falling; validation soon levels off"
)
plots.show(axes, alt="Training and validation loss, and validation AUC, over five epochs")

# %% [markdown]
# The *loss* is what training lowers. The AUC is what we want. Now the test images, once.

# %%
probs = predict(model, data.test.images, size=96)
score = bootstrap(auc, data.test.labels, probs)
print(f"test AUC {score}, accuracy {metrics.accuracy(data.test.labels, probs):.3f}")
assert score.low > 0.6  # far from guessing, even at the low end
assert score.estimate > (0.80 if data.simulated else 0.85)

# %% [markdown]
# The two figures in brackets are an *interval*. Other patients would have given another score: the
# test images are drawn again and again, and 95 draws in 100 give an AUC inside the brackets.
#
# ## 4 Was it the photographs?
#
# Perhaps any network would do as well. The fair test: the same network, the same steps, but random
# weights at the start, *from scratch*. One run proves little, so the picture also shows published
# runs over five seeds on the real and on the simulated set.

# %%
scratch = load_backbone("mobilenet_v2", weights=None, num_classes=data.num_classes)
fit(scratch, data, **recipe)
scratch_probs = predict(scratch, data.test.images, size=96)
gain = metrics.paired_difference(auc, data.test.labels, probs, scratch_probs)
print(f"AUC gained by the photographs: {gain}")
assert gain.low > 0

# %%
bars = {
    "pretrained, this run": score,
    "scratch, this run": bootstrap(auc, data.test.labels, scratch_probs),
}
published = pd.concat([load_table(f"00_first_result_{s}") for s in ("breastmnist", "phantom")])
for (images, start), runs in published.groupby(["images", "start"]):
    bars[f"{start}, {images} images, published"] = metrics.mean_interval(runs["auc"])
title = "Starting from photographs beats starting from nothing"
ax = plots.score_bars(bars, title=title, guess={"pretrained, this run": my_guess}, chance=0.5)
plots.show(ax, alt="Dots with intervals: pretrained lies to the right of scratch in every setting")

# %% [markdown]
# Look whether the intervals of *pretrained* and *scratch* overlap. For this run they say how far
# the test images may move the score; for the published ones, how far the seed does. The next cell
# asks the sharper question: what is the *gain*, seed by seed?

# %%
for images, runs in published.groupby("images"):
    by_start = runs.pivot(index="seed", columns="start", values="auc")
    gain = metrics.paired_mean_interval(by_start["pretrained"], by_start["scratch"])
    print(f"published, {images} images, {len(by_start)} seeds: gain {gain}")
    assert gain.low > 0

# %% [markdown]
# Why should photographs of cups and dogs help with tumours? Lesson 02 looks inside. First, lesson
# 01 asks how far one gets with what was learned elsewhere and no training of the network at all.

# %% [markdown]
# ## Key points
#
# - Look at the images and count the classes before anything else.
# - Accuracy rewards the program that never finds a tumour. AUC compares pairs and does not.
# - Fine-tuning keeps what a network learned elsewhere and adjusts it to the new task.
# - A score comes with an interval, and a claim comes with a comparison that could have failed.
# - The test images are opened once, with a recipe fixed beforehand.
#
# **The way from here**
#
# | lesson | question |
# |---|---|
# | 01 Reuse features | How far do features get that were made for something else? |
# | 02 See what each layer learned | What is in there that could help? |
# | 03 Replace the head | How do a thousand answers become two? |

# %% [markdown]
# ## Further reading
#
# - Yang et al., *MedMNIST v2* (Scientific Data, 2023): where the images come from, with the scores
#   of networks trained from scratch.
# - Al-Dhabyani et al., *Dataset of breast ultrasound images* (Data in Brief, 2020): how the scans
#   were taken and labelled.
# - [torchvision: models and pre-trained
# weights](https://docs.pytorch.org/vision/stable/models.html): the networks that this course can
# start from.
