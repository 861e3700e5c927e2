# %% [markdown]
# # Meet the problem
#
# A network that learned from photographs of dogs, cups and lorries, and has never seen an
# ultrasound scan, is about to tell breast cancer from harmless scans. You hold a first result in a
# few minutes, before any theory. The other lessons explain it.
#
# **What you will be able to do**
#
# - say what is in an image set, and what its labels do and do not mean
# - explain why accuracy misleads when one class is rare, and read an AUC instead
# - fine-tune a pretrained network, and report its score with an interval
#
# **What you need:** Python functions, lists and numpy arrays. No deep learning, no medicine.
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
# with one label that doctors gave: *malignant* (cancer), or *normal or benign* (harmless). Harmless
# is not empty: many of these scans show a lump, too, such as a cyst or a benign tumour.
#
# If the real scans are not on your machine and cannot be fetched, the course draws simulated ones
# (a *phantom*) and says so; *patient split* then means that no patient, an invented one, is in two
# parts. Every lesson works on both. Neither is fit for judging a patient.

# %% [markdown] tags=["instructor"]
# - Say: Nobody here needs medicine. The sets show how unlike the scans are within one class;
#   simulated or real, the line under the images says which is in use.
# - Wrong: They expect that malignant means dark, or large. The set holds counterexamples of both.
# - Ask: Who would like to be the radiologist? Collect the six answers aloud before the labels are
#   shown.
# - Late: Show only the first grid; let the room call the six answers.

# %%
data = load_images("breast")
data

# %%
shown = data.train.subset(12, seed=3)
axes = plots.image_grid(
    shown.images, shown.labels, data.classes, rows=2, cols=6, title="Twelve scans with their labels"
)
plots.show(axes, alt="Twelve grey ultrasound images, each framed in the colour of its class")

# %% [markdown]
# Look for what the malignant ones share. Radiologists name a ragged edge, a shape taller than it
# is wide, and a dark shadow below (black because no sound gets there). No single sign decides. Now
# it is your turn: here are six scans without labels.

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
# Suppose a program answers "harmless" to every scan. It never finds a cancer. Yet look at the
# bars: most scans *are* harmless, so most of its answers are right. Accuracy, the share of right
# answers, rewards it.

# %% [markdown] tags=["instructor"]
# - Say: A score must be one that the lazy program cannot win by doing nothing. Let them find that
#   program first.
# - Wrong: They read the AUC as an accuracy. It is about pairs: one ill, one healthy.
# - Ask: What AUC does a program get that shouts 'malignant' at everyone?
# - Late: Skip Exercise 2, but read its sentence aloud: a pair, which one is more suspicious?

# %%
ax = plots.class_counts(data, title="Malignant scans are the minority in every part")
plots.show(ax, alt="Bars per part of the set: about a quarter of the images are malignant")

# %% [markdown]
# ### Exercise 1 (3 minutes)
#
# What accuracy does the program that always says "normal or benign" (label 1; malignant is label 0)
# reach on the test images? Compute it from `data.test.labels`.

# %% tags=["exercise"]
# BEGIN SOLUTION
lazy_accuracy = (data.test.labels == 1).mean()
# STUB: lazy_accuracy = ...  # data.test.labels == 1 is True or False for each; take its .mean()
# END SOLUTION

# %% tags=["check"]
lesson00.check_lazy_accuracy(lazy_accuracy, data.test.labels)

# %% [markdown]
# So ask something else. Draw one malignant and one harmless scan at random: how often does the
# program find the malignant one *more suspicious*? That share is the **AUC** (short for *area under
# the curve*; you will not need the curve). A program that guesses, or always says the same, gets
# one half; a perfect one gets 1. It does not depend on how rare a class is.
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
# more than a million photographs. We keep what it learned, replace its thousand answers by two, and
# let the whole network adjust itself to the scans for a few *epochs*, in each of which it sees
# every training image once. That is **fine-tuning**. The next lessons take this cell apart. For
# now: the *seed* fixes what is drawn at random, `size` enlarges the scans to 96 pixels a side, and
# the *validation* images are scored after each epoch, never trained on.
#
# The recipe was fixed beforehand. Only for such may the test images, which no network trains on, be
# opened. The next lessons keep them shut.

# %% [markdown] tags=["instructor"]
# - Say: Run the cell first and talk while it trains. Every word in it comes back in a later
#   lesson.
# - Wrong: They take the validation AUC of the best epoch for the result. It was looked at five
#   times.
# - Ask: Before you open the test images: may we change the recipe afterwards if we do not like
#   the score?
# - Late: Nothing can go here; this is the result they came for.

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
title = "The training loss keeps falling and ends below the validation loss"
axes = plots.history_curves(history, title=title)
plots.show(axes, alt="Training and validation loss, and validation AUC, over five epochs")
assert history.table["train_loss"].is_monotonic_decreasing
assert history.table["train_loss"].iloc[-1] < history.table["val_loss"].iloc[-1]

# %% [markdown]
# The *loss* says how far the probabilities are from the labels; zero is best, and training lowers
# it. Its unit, the nat, waits until lesson 03. The AUC is what we want. Now the test images.

# %%
probs = predict(model, data.test.images, size=96)
score = bootstrap(auc, data.test.labels, probs)
print(f"test AUC {score}, accuracy {metrics.accuracy(data.test.labels, probs):.3f}")
assert score.low > 0.6  # far from guessing, even at the low end
assert score.estimate > (0.80 if data.simulated else 0.85)

# %% [markdown]
# The two figures in brackets are an *interval*. To imitate other patients we draw as many test
# images as there are, some twice and some never, and score them; a thousand times. The middle 95 of
# every 100 scores span it. It says nothing of another hospital or another training run.
#
# ## 4 Was it the photographs?
#
# Perhaps any network would do as well. A fair test at this price: the same network and the same few
# steps, but random weights at the start, *from scratch*. With many more steps scratch would get
# further. One run proves little, so the picture also shows runs that came with the course
# (*published*, in `data/results`): five seeds each, on the real and on the simulated set.

# %% [markdown] tags=["instructor"]
# - Say: One comparison that could have failed is worth more than ten that could not.
# - Wrong: They compare two overlapping intervals and stop. The paired difference is the question.
# - Ask: Was it the photographs, or would any start do with more steps? How would you find out?
# - Late: Show the picture of the published runs and leave out this seed's bars.

# %%
scratch = load_backbone("mobilenet_v2", weights=None, num_classes=data.num_classes)
fit(scratch, data, **recipe)
scratch_probs = predict(scratch, data.test.images, size=96)
gain = metrics.paired_difference(auc, data.test.labels, probs, scratch_probs)
print(f"AUC gained by the photographs: {gain}")
assert gain.low > 0

# %%
bars = {
    "pretrained, this run, one seed": score,
    "scratch, this run, one seed": bootstrap(auc, data.test.labels, scratch_probs),
}
published = pd.concat([load_table(f"00_first_result_{s}") for s in ("breastmnist", "phantom")])
for (images, start), runs in published.groupby(["images", "start"]):
    bars[f"{start}, {images}, {len(runs)} seeds"] = metrics.mean_interval(runs["auc"])
title = "After five epochs the start from photographs is far ahead"
guess = {"pretrained, this run, one seed": my_guess}
ax = plots.score_bars(bars, title=title, guess=guess, chance=0.5)
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
# Why should photographs of cups and dogs help with cancer? Lesson 02 looks inside. First, lesson
# 01 asks how far one gets with what was learned elsewhere and no training of the network at all.

# %% [markdown]
# ## Key points
#
# - Look at the images and count the classes before anything else.
# - Accuracy rewards the program that never finds a cancer. AUC compares pairs and does not.
# - Fine-tuning keeps what a network learned elsewhere and adjusts it to the new task.
# - A score comes with an interval, and a claim comes with a comparison that could have failed.
# - The test images only judge recipes that were fixed beforehand.
#
# **The way from here**
#
# | lesson | question |
# |---|---|
# | 01 Reuse features | How far do features get that were made for something else? |
# | 02 See what each layer learned | What is in there that could help? |
# | 03 Replace the head | How do a thousand answers become two? |
# | 04 Freeze or warm up | Do a new head's first steps wreck what was learned? |
# | 05 Give each layer its own rate | Should early layers learn more slowly? |
# | 06 Build the detector | How good is it, honestly? |
# | 07 Find where transfer fails | Where does the gain end? |
# | 08 Use it on your own images | What do your images need? |

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
