# %% [markdown]
# # Reuse features
#
# Before deep learning, people wrote feature extractors by hand and reused them from task to task.
# A pretrained network is reused in the same way. In this lesson you do both, on the same scans,
# with the same learning block, and measure what each brings.
#
# **What you will be able to do**
#
# - separate a feature extractor from a learning block, and exchange either one
# - train a learning block so that it learns nothing from the images it is judged on
# - compare features over folds and training sizes, and say what the data decide
# - choose a baseline that does not flatter your method
#
# **What you need:** lesson 00; arrays and functions in Python.
#
# **Minutes:** 35

# %%
import time

import pandas as pd
from sklearn.linear_model import LogisticRegression

from tlcourse import metrics, plots, results
from tlcourse.backbones import batchnorm, load_backbone
from tlcourse.checks import lesson01
from tlcourse.datasets import grouped_folds, load_images
from tlcourse.datasets.toy import photo_textures
from tlcourse.features import extract_features, probe
from tlcourse.features.handcrafted import classic_features, hog_features
from tlcourse.features.learning_curves import learning_curve, paired_gain
from tlcourse.training import fit

# %% [markdown]
# ## 1 Build an extractor for photographs
#
# Here are patches of brick, grass and gravel. Light and contrast vary, so brightness alone tells
# nothing. What would you measure to tell them apart?

# %% [markdown] tags=["instructor"]
# - Say: Two blocks: one turns an image into numbers, one learns from the numbers. All of transfer
#   learning is about which block is kept.
# - Wrong: They standardise with all rows. Let the check say it: held-out rows must not help.
# - Ask: Cut a patch one step to the side: how many pixels stay the same, how many features?
# - Late: Skip Exercise 1 and show its solution; the idea returns in every later lesson.

# %%
textures = photo_textures(300, seed=0)
few = textures.train.select(range(12))
names = [textures.classes[label] for label in few.labels]
title = "Three textures to tell apart"
axes = plots.image_grid(few.images, rows=2, cols=6, title=title, captions=names)
plots.show(axes, alt="Twelve grey patches of brick, grass and gravel, each with its name")

# %% [markdown]
# A **feature extractor** turns an image into a row of numbers, the *features*. The classic one
# used here notes which way edges run in each small cell (*HOG*, histograms of oriented gradients)
# and adds statistics of brightness and local patterns. People chose these rules; nothing in them
# is learned.
#
# A **learning block** then learns from rows and labels. Ours first *standardises*: every feature
# gets mean zero and spread (the standard deviation, `.std`) one. Then it fits, say, a *logistic
# regression*: a weight for each feature, and the weighted sum becomes a probability.

# %% tags=["predict"]
my_guess = ...  # accuracy of hand-made features on new patches; three classes, guessing gets 1/3


# %%
def pixels(images):
    """The plainest features: every pixel as it is."""
    return images.reshape(len(images), -1).astype("float32")


scores = {}
for name, extract in {
    "pixels": pixels,
    "HOG alone": hog_features,
    "hand-made features": classic_features,
}.items():
    block = probe(extract(textures.train.images), textures.train.labels)
    probs = block.predict_proba(extract(textures.test.images))
    scores[name] = metrics.bootstrap(metrics.accuracy, textures.test.labels, probs)

# %%
title = "Hand-made features tell the textures apart, pixels do not"
guess = {"hand-made features": my_guess}
ax = plots.score_bars(scores, title=title, xlabel="accuracy", guess=guess, chance=1 / 3)
plots.show(ax, alt="Accuracy with intervals: pixels at chance, HOG higher, hand-made highest")
assert scores["hand-made features"].low > scores["pixels"].high

# %% [markdown]
# Look at pixels: a patch cut one step to the side changes every pixel. The hand-made features
# hardly notice. That is what a good feature does: it ignores what does not matter.
#
# ### Exercise 1 (6 minutes)
#
# Write the standardisation that comes before the fit. Training rows and held-out rows go in, both
# come out scaled, a feature per column.


# %% tags=["exercise"]
def standardise(train_rows, held_out_rows):
    """Scale both so that a feature has mean 0 and spread 1; return the two arrays."""
    # BEGIN SOLUTION
    mean, spread = train_rows.mean(axis=0), train_rows.std(axis=0)
    return (train_rows - mean) / spread, (held_out_rows - mean) / spread
    # STUB: return ...  # whose mean and spread may be used?
    # END SOLUTION


# %% tags=["check"]
lesson01.check_standardise(standardise)

# %% [markdown]
# ## 2 Carry it to ultrasound
#
# Now the extractor moves to the scans, not a line changed. Only the learning block is exchanged:
# logistic regression, a support vector machine (*SVM*), or *k-NN*, which asks the most similar
# training images.
#
# The test images stay shut. The others are dealt into ten **folds**: train on nine, judge on the
# tenth, which is *held out*, in turn. Near copies of a scan stay in one fold. Ten scores give an
# interval. Folds share training images, so it is wider than that of ten independent tries
# (`metrics.fold_interval` says by how much). Which block do you expect to lead? Say it aloud before
# you look.

# %% [markdown] tags=["instructor"]
# - Say: Only the block changes here, not the features. Say what a fold is with ten people and ten
#   chairs.
# - Wrong: They name a winner from overlapping dots, or refuse to where the paired difference
#   decides.
# - Ask: The dots differ, so why not name a winner?
# - Late: Run the cells without exercise; the ten folds are needed later.

# %%
data = load_images("breast")
scans = data.development  # training and validation images together
hand_made = classic_features(scans.images)
blocks = {
    kind: learning_curve({kind: hand_made}, scans, folds=10, kind=kind, seed=0)
    for kind in ("logistic", "svm", "knn")
}

# %%
bars = {kind: metrics.fold_interval(runs["auc"], folds=10) for kind, runs in blocks.items()}
title = "Hand-made features say something about cancer, too"
black = dict.fromkeys(bars, "black")  # blocks are no features
ax = plots.score_bars(bars, title=title, chance=0.5, xlabel="held-out AUC", colours=black)
plots.show(ax, alt="AUC of three learning blocks: all far right of chance, intervals overlapping")
assert all(score.low > 0.55 for score in bars.values())

# %%
runs = pd.concat(blocks.values())
for other in ("svm", "knn"):
    gain = paired_gain(runs, other, "logistic")
    decided = "decided" if gain.low > 0 or gain.high < 0 else "not decided"
    print(f"{other} minus logistic: {gain}: {decided} by these folds")

# %% [markdown]
# A classic extractor serves another task; only the block is trained anew. The bars overlap, yet the
# difference is known better: a hard fold is hard for every block. *Decided* means that the interval
# of the difference leaves zero out. From here on the block stays logistic regression, the simplest,
# and only the features change.

# %% [markdown]
# ## 3 Take features that a network learned
#
# A network without its last layer, the *head* that gives the answers, is a feature extractor too:
# scan in, numbers out. Nobody wrote its rules; they were learned from photographs.
#
# Is it the learning or just the network's shape? The baseline is the same network with random
# weights. It comes in three versions, and you choose.

# %% [markdown] tags=["instructor"]
# - Say: A network without its head is an extractor that nobody wrote. The random network is the
#   fair rival, in its strongest version.
# - Wrong: They pick the weakest baseline, because it makes the gain largest.
# - Ask: Which of the three random versions would a reviewer ask for, and why?
# - Late: Skip Exercise 3; the cells before it are needed.

# %%
trained = load_backbone("mobilenet_v2", weights="imagenet")
random = load_backbone("mobilenet_v2", weights=None, seed=0)
learned = extract_features(trained, scans.images)
untrained = extract_features(random, scans.images)
print(f"typical size of a feature: ImageNet {learned.mean():.1e}, random {untrained.mean():.1e}")

# %% [markdown]
# The random network whispers: its features are that small. *Batch normalisation* layers should keep
# numbers near one, with means and spreads noted in training (their *running statistics*). Without
# training the records are empty: mean zero, spread one, whatever comes. So the signal shrinks from
# layer to layer.
#
# - **bare**: the tiny numbers go straight into a logistic regression
# - **standardised**: our learning block scales them first
# - **measured**: we let the network measure its statistics on all these scans, held-out ones
#   included, without labels. That can only flatter this version; for your own method do not do it

# %%
bare = []
for train, held_out in grouped_folds(scans, 10, seed=0):
    block = LogisticRegression().fit(untrained[train], scans.labels[train])
    bare.append(metrics.auc(scans.labels[held_out], block.predict_proba(untrained[held_out])))
measured = extract_features(batchnorm.calibrate_statistics(random, scans.images), scans.images)
versions = learning_curve({"standardised": untrained, "measured": measured}, scans, folds=10)
random_scores = versions.groupby("method")["auc"].mean().to_dict()
random_scores["bare"] = sum(bare) / len(bare)
pd.Series(random_scores, name="AUC").round(3).to_frame()

# %% [markdown]
# ### Exercise 2 (4 minutes)
#
# You want to show that ImageNet features are better than random ones. Which version do you compare
# with?

# %% tags=["exercise"]
# BEGIN SOLUTION
my_baseline = "standardised"
# STUB: my_baseline = ...  # "bare", "standardised" or "measured"
# END SOLUTION

# %% tags=["check"]
lesson01.check_baseline(my_baseline, random_scores)

# %% [markdown]
# Measured statistics need not make better features: which version is strongest is measured, not
# guessed.
#
# Now all four kinds of features, from fifty training scans to all. Each fold draws a subset of
# each size, the same for every kind. A block that suits one kind of features would favour it, so
# this one (`"tuned"`) chooses its one setting, the penalty, inside the training folds, for each
# kind anew.

# %% tags=["predict"]
my_auc = ...  # the AUC of ImageNet features with only 50 training scans

# %%
features = {
    "pixels": pixels(scans.images),
    "hand-made features": hand_made,
    "random network": untrained,
    "ImageNet network": learned,
}
sizes = [50, 100, 200, None]
curve = learning_curve(features, scans, sizes, folds=10, seed=0, kind="tuned")
published = pd.concat(
    [results.load_table(f"01_learning_curves_{s}") for s in ("breastmnist", "phantom")]
)

# %%
for images, runs in published.groupby("set"):
    live = images == ("simulated" if data.simulated else "real")
    ax = plots.learning_curves(
        curve if live else None,
        title=f"{images} scans: the ImageNet network leads at every size",
        reference=runs,
        folds=10,
        guess=(50, my_auc) if live else None,
        ylabel="held-out AUC",
        ylim=(0.45, 0.95),
        chance=0.5,
    )
    plots.show(ax, alt=f"AUC against training images, {images} scans: ImageNet network on top")

# %%
others = ("random network", "pixels", "hand-made features")
for other in others:
    gain = paired_gain(curve, "ImageNet network", other)
    decided = "decided" if gain.low > 0 else "not decided"
    print(f"these ten folds, ImageNet minus {other}, mean over sizes: {gain}: {decided}")

# %%
for images, runs in published.groupby("set"):
    for other in others:
        gain = paired_gain(runs, "ImageNet network", other)
        by_size = [
            paired_gain(runs, "ImageNet network", other, images=n) for n in set(runs["images"])
        ]
        print(f"published, {images} scans, four dealings, minus {other}: {gain}")
        assert min(g.estimate for g in by_size) > 0  # ahead at every size
        decided = images == "simulated" or other != "hand-made features"
        assert (gain.low > 0) == decided

# %%
open_pairs = ("hand-made features", "pixels"), ("random network", "hand-made features")
for images, runs in published.groupby("set"):
    for first, second in open_pairs:
        gain = paired_gain(runs, first, second)
        print(f"published, {images} scans: {first} minus {second} {gain}")
        assert not gain.excludes(0)

# %% [markdown]
# Ten folds of your own may leave some of it open. The published ones, dealt four times, say more.
# The ImageNet network leads the random one on both sets: what it learned helps, not only its shape.
# It leads pixels on both, too. Against hand-made features the simulated scans decide, the real ones
# do not. Whether hand-made features beat pixels, or random weights hand-made features, stays open
# on both. Dealing anew uses the same scans, though. It cannot replace new patients.
#
# ### Exercise 3 (4 minutes)
#
# Read the means. How many scans do pixels need to reach what the ImageNet network reaches with 50?
# Give the smallest of the sizes, or 0 if none is enough.

# %%
means = curve.pivot_table(index="images", columns="method", values="auc")
by_size, goal = means["pixels"].to_dict(), means.loc[50, "ImageNet network"]
means.round(3)

# %% tags=["exercise"]
# BEGIN SOLUTION
images_needed = next((size for size in sorted(by_size) if by_size[size] >= goal), 0)
# STUB: images_needed = ...  # one of the sizes in the table, or 0
# END SOLUTION

# %% tags=["check"]
lesson01.check_images_needed(images_needed, by_size, goal)

# %% [markdown]
# ## 4 Count what it costs
#
# Features are extracted once and kept. After that a learning block takes milliseconds, so you can
# try hundreds. Fine-tuning sends every image through the network forwards and backwards, epoch
# after epoch.

# %% [markdown] tags=["instructor"]
# - Say: Features are made once. That is why an afternoon of trials costs a minute.
# - Wrong: They conclude that fine-tuning is worse. Nothing here compares the scores.
# - Ask: How many learning blocks could you try while one epoch runs?
# - Late: Read the printed ratio and go on.

# %% tags=["predict"]
my_ratio = ...  # one epoch of fine-tuning takes as long as how many learning blocks?

# %%
part = data.with_train(scans.subset(128, seed=0))
model = load_backbone("mobilenet_v2", weights="imagenet", num_classes=data.num_classes)
started = time.perf_counter()
extract_features(trained, part.train.images, size=128)
extracting = (time.perf_counter() - started) * len(scans) / 128
tuned = fit(model, part, epochs=1, batch_size=16, size=128, seed=0)
epoch = tuned.table["seconds"].sum() * len(scans) / 128
largest = blocks["logistic"]["seconds"].median()
print(f"for all scans: extraction, once, about {extracting:.0f} s; an epoch about {epoch:.0f} s")
expected = "" if my_ratio is ... else f", you expected {my_ratio}"
print(f"one learning block {largest:.3f} s; ratio {epoch / largest:.0f}{expected}")
assert epoch > 5 * largest
assert extracting < epoch  # forwards only, and only once

# %% [markdown]
# Your machine gives other seconds; the ratio stays large. Extracting costs less than one epoch, and
# only once. So reusing a network and training only its top needs far less computing. Whether
# fine-tuning scores higher must be asked on the same scans; later lessons do.

# %% [markdown]
# ## Key points
#
# - An extractor turns images into features; a learning block learns from them. Either can be
#   exchanged alone.
# - Whatever prepares the features is fitted on training images only.
# - Hand-made features tell textures apart and say something about cancer, too. That ImageNet's say
#   more is decided on simulated scans only.
# - ImageNet features beat those of a random network on scans that neither has seen.
# - Compare with the strongest version of a baseline, over folds, and say what is not decided.
# - Features are extracted once; then every trial is nearly free.

# %% [markdown]
# ## Further reading
#
# - Kornblith et al., *Do better ImageNet models transfer better?* (2019): sixteen networks as fixed
#   extractors and fine-tuned, on twelve sets.
# - Yosinski et al., *How transferable are features in deep neural networks?* (2014): what is lost
#   when layers move to another task.
# - [scikit-image:
# HOG](https://scikit-image.org/docs/stable/auto_examples/features_detection/plot_hog.html): a
# picture of what the hand-made extractor sees.
