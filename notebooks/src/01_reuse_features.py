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
import pandas as pd
from sklearn.linear_model import LogisticRegression

from tlcourse import plots
from tlcourse.backbones import load_backbone
from tlcourse.calibration import calibrate_statistics
from tlcourse.checks import lesson01
from tlcourse.classic import classic_features, hog_features, photo_textures
from tlcourse.datasets import grouped_folds, load_images
from tlcourse.experiments import fold_means, learning_curve, paired_gain
from tlcourse.features import extract_features
from tlcourse.metrics import accuracy, auc, bootstrap, mean_interval
from tlcourse.probes import probe
from tlcourse.results import load_table
from tlcourse.training import fit

# %% [markdown]
# ## 1 Build an extractor for photographs
#
# Here are patches of brick, grass and gravel. Light and contrast vary, so brightness alone tells
# nothing. What would you measure to tell them apart?

# %%
textures = photo_textures(300, seed=0)
few = textures.train.select(range(12))
axes = plots.image_grid(
    few.images, few.labels, textures.classes, rows=2, cols=6, title="Three textures to tell apart"
)
plots.show(axes, alt="Twelve grey patches of brick, grass and gravel, framed by class")

# %% [markdown]
# A **feature extractor** turns an image into a row of numbers, the *features*. The classic one
# used here notes which way edges run in each small cell (*HOG*, histograms of oriented gradients)
# and adds statistics of brightness and local patterns. People chose these rules; nothing in them
# is learned.
#
# A **learning block** then learns from rows and labels. Ours first *standardises*: every feature
# gets mean zero and spread one. Then it fits, say, a logistic regression.

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
    scores[name] = bootstrap(accuracy, textures.test.labels, probs)

# %%
title = "Made for this task: hand-made features tell the textures apart, pixels do not"
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
# Write the standardisation that comes before the fit. Training rows and judged rows go in, both
# come out scaled, a feature per column.


# %% tags=["exercise"]
def standardise(train_rows, judged_rows):
    """Scale both so that a feature has mean 0 and spread 1; return the two arrays."""
    # BEGIN SOLUTION
    mean, spread = train_rows.mean(axis=0), train_rows.std(axis=0)
    return (train_rows - mean) / spread, (judged_rows - mean) / spread
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
# tenth, in turn. Near copies of a scan stay in one fold. Ten scores give an interval; as the folds
# share training images, it is rather too narrow. That holds wherever this course deals folds. Which
# block do you expect to lead? Say it aloud before you look.

# %%
data = load_images("breast")
scans = data.development
hand_made = classic_features(scans.images)
blocks = {
    kind: learning_curve({kind: hand_made}, scans, folds=10, kind=kind, seed=0)
    for kind in ("logistic", "svm", "knn")
}

# %%
bars = {kind: mean_interval(runs["auc"]) for kind, runs in blocks.items()}
title = "Features built for brick and grass say something about tumours, with any block"
ax = plots.score_bars(bars, title=title, chance=0.5, xlabel="AUC on the judged folds")
plots.show(ax, alt="AUC of three learning blocks: all far right of chance, intervals overlapping")
assert all(score.low > 0.6 for score in bars.values())

# %%
runs = pd.concat(blocks.values())
for other in ("svm", "knn"):
    gain = paired_gain(runs, other, "logistic")
    decided = "decided" if gain.low > 0 or gain.high < 0 else "not decided"
    print(f"{other} minus logistic: {gain}: {decided} by these folds")

# %% [markdown]
# A classic extractor serves another task; only the block is trained anew. Which block leads
# matters less, and a lead is only a lead if its interval leaves zero out. From here on the block
# stays logistic regression, and the features change.

# %% tags=["instructor"]
# Ask: "the dots differ, so why not name a winner?" The dots' intervals overlap, yet a paired
# difference can still be decided: each fold is hard or easy for all blocks. When late, skip
# exercise 3; the cells before it are needed.

# %% [markdown]
# ## 3 Take features that a network learned
#
# A network without its head is a feature extractor too: scan in, numbers out. Nobody wrote its
# rules; they were learned from photographs.
#
# Is it the learning or just the network's shape? The baseline is the same network with random
# weights. It comes in three versions, and you choose.

# %%
trained = load_backbone("mobilenet_v2", weights="imagenet")
random = load_backbone("mobilenet_v2", weights=None, seed=0)
learned = extract_features(trained, scans.images)
untrained = extract_features(random, scans.images)
print(f"typical size of a feature: ImageNet {learned.mean():.1e}, random {untrained.mean():.1e}")

# %% [markdown]
# The random network whispers: its features are that small. *Batch normalisation* layers should keep
# numbers near one, with means and spreads noted in training (their *running statistics*). Without
# training the notes are empty: mean zero, spread one, whatever comes. So the signal shrinks from
# layer to layer.
#
# - **bare**: the tiny numbers go straight into a logistic regression
# - **standardised**: our learning block scales them first
# - **measured**: we let the network measure its statistics on the scans, without labels, then
#   standardise

# %%
train, judged = grouped_folds(scans, 10, seed=0)[0]
bare = LogisticRegression().fit(untrained[train], scans.labels[train])
measured = extract_features(calibrate_statistics(random, scans.images), scans.images)
versions = learning_curve({"standardised": untrained, "measured": measured}, scans, folds=10)
random_scores = versions.groupby("method")["auc"].mean().to_dict()
random_scores["bare"] = auc(scans.labels[judged], bare.predict_proba(untrained[judged]))
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
# Now all four kinds of features, from fifty training scans to all. Each fold draws two subsets
# of each size, the same for every kind.

# %% tags=["predict"]
my_auc = ...  # the AUC of ImageNet features with only 50 training scans

# %%
features = {
    "pixels": pixels(scans.images),
    "hand-made features": hand_made,
    "random network": untrained,
    "ImageNet network": learned,
}
curve = learning_curve(features, scans, [50, 100, 200, None], folds=10, subsets=2, seed=0)
published = pd.concat([load_table(f"01_learning_curves_{s}") for s in ("breastmnist", "phantom")])

# %%
for images, runs in published.groupby("set"):
    live = images == ("simulated" if data.simulated else "real")
    ax = plots.learning_curves(
        fold_means(curve) if live else runs,
        title=f"{images} scans: the ImageNet network leads at every size",
        reference=runs if live else None,
        interval=live,
        guess=(50, my_auc) if live else None,
        ylabel="AUC on the judged folds",
    )
    plots.show(ax, alt=f"AUC against training images, {images} scans: ImageNet network on top")

# %%
for other in ("pixels", "hand-made features", "random network"):
    gain = paired_gain(curve, "ImageNet network", other)
    decided = "decided" if gain.low > 0 else "not decided"
    print(f"ImageNet minus {other}, mean over sizes: {gain}: {decided}")
    claimed = data.simulated or other == "random network"
    assert gain.low > 0 or not claimed
gain = paired_gain(curve, "hand-made features", "pixels")
print(f"hand-made minus pixels: {gain}")

# %% [markdown]
# The ImageNet network leads the random one: what it learned helps, not its shape. Against pixels
# and hand-made features the simulated scans decide too; on the real ones these folds leave it open.
# Hand-made features and pixels hardly differ: what was built for textures no longer stands out so
# far from home. And random weights? On simulated scans they come out above hand-made features, on
# real ones below. Look whether the lines below decide it.

# %%
print("published, ImageNet minus ..., folds dealt anew with each seed")
for (images, seed), runs in published.groupby(["set", "seed"]):
    for other in ("random network", "pixels"):
        gain = paired_gain(runs, "ImageNet network", other)
        print(f"{images} scans, seed {seed}, minus {other}: {gain}")
        assert gain.estimate > 0.01
    surprise = paired_gain(runs, "random network", "hand-made features")
    print(f"{images} scans, seed {seed}: random network minus hand-made {surprise}")
    assert (surprise.estimate > 0) == (images == "simulated")

# %% [markdown]
# Does the lead over pixels depend on how the folds were dealt? Look down the published lines: it
# keeps its sign each time, and most intervals leave zero out. Dealing anew uses the same scans,
# though. It cannot replace new patients.
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

# %% tags=["predict"]
my_ratio = ...  # one epoch of fine-tuning takes as long as how many learning blocks?

# %%
part = data.with_train(scans.subset(128, seed=0))
model = load_backbone("mobilenet_v2", weights="imagenet", num_classes=data.num_classes)
epoch = (
    fit(model, part, epochs=1, batch_size=16, size=128, seed=0).table["seconds"].sum()
    * len(scans)
    / 128
)
largest = curve[(curve["method"] == "ImageNet network") & (curve["images"] > 200)]
block_seconds = largest["seconds"].median()
print(f"an epoch over all scans: about {epoch:.0f} s; one learning block: {block_seconds:.3f} s")
expected = "" if my_ratio is ... else f", you expected {my_ratio}"
print(f"ratio {epoch / block_seconds:.0f}{expected}")
assert epoch > 5 * block_seconds

# %% [markdown]
# Your machine gives other seconds; the ratio stays large. Reusing a network and training only its
# top needs far less computing. It is not the best score, though: lesson 00 fine-tuned, and later
# lessons ask when that is worth its price.

# %% [markdown]
# ## Key points
#
# - An extractor turns images into features; a learning block learns from them. Either can be
#   exchanged alone.
# - Whatever prepares the features is fitted on training images only.
# - Hand-made features shine on the task they were made for, less far from it.
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
