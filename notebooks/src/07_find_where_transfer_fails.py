# %% [markdown]
# # Find where transfer fails
#
# So far the pretrained network mostly won. A method that you have only seen winning, you do not
# know. Today you look for where its gain comes from, where it ends, and where it was never real: in
# leaking data, and in a published table.
#
# **What you will be able to do**
#
# - tell what a network learned from what it merely brings along: four starts, one training
# - measure who keeps a score when a scanner or a file format changes the images
# - audit an image set for near copies and double labels, and say what they are worth
# - find out what features throw away before you rely on them
# - recognise a score that is only the majority's
#
# **What you need:** lessons 00 to 06.
#
# **Minutes:** 50
#
# Section 3 searches, trains and judges on all images, and published tables have test scores. All
# recipes were fixed before; nothing here is chosen by a test image.

# %%
import numpy as np
import pandas as pd
import torch

from tlcourse import backbones, metrics, plots
from tlcourse.checks import lesson07
from tlcourse.datasets import Split, corrupt, join, load_images, near_duplicates, split_by_image
from tlcourse.features import cache_features, extract_features
from tlcourse.features.learning_curves import learning_curve, paired_gain
from tlcourse.metrics import rows_by_shift, shift_effects
from tlcourse.results import load_table
from tlcourse.training import linear_head

# %%
data = load_images("breast")
model = backbones.load_backbone("mobilenet_v2", weights="imagenet", num_classes=2)
SETS = ("breastmnist", "phantom")
data

# %% [markdown]
# ## 1 Where does the gain come from?
#
# Lesson 00 compared *pretrained* with *scratch*: random weights. But trained weights differ from
# random ones in two ways: in their *sizes*, layer by layer, and in their *order*, which makes them
# filters. So add a start: **shuffled**, the pretrained numbers of each layer in random order. It
# keeps the sizes and has no filters left. Or is the network just too large for so few images? So
# add **small**, a plain convolutional network from random weights with far fewer of them, but about
# as many multiplications.
#
# The published runs: 54 steps each, all layers train (*pretrained* is lesson 04's *cold*), and each
# start has the rate that did best on validation images. How good will *shuffled* be with all
# images?

# %% [markdown] tags=["instructor"]
# - Say: A gain is a difference. Ask what else differs between the two, and build a start for each.
# - Wrong: They take scratch for the only rival. Shuffled and small answer two other questions.
# - Ask: What would it mean if shuffled did as well as pretrained?
# - Late: Read the verdicts of the last column only.

# %% tags=["predict"]
my_shuffled = ...  # test AUC of the shuffled start with all training images

# %%
starts = pd.concat([load_table(f"07_starts_{s}") for s in SETS])
starts["start"] = starts["start"].replace("imagenet", "pretrained")
auc = starts.pivot(index=["images", "n", "seed"], columns="start", values="auc").dropna()
ahead = auc[["scratch", "shuffled", "small"]].rsub(auc["pretrained"], axis=0)
gains = ahead.groupby(["images", "n"]).agg(metrics.mean_interval)
for images, runs in starts.groupby("images"):
    over = gains.loc[images, runs["n"].max()].map(lambda gain: gain.estimate)
    title = f"{images}: {over['scratch']:.2f} ahead of scratch, only {over['small']:.2f} of small"
    guess = (runs["n"].max(), my_shuffled)
    look = {"title": title, "xlabel": "training images (log scale)", "ylim": (0.4, 1)}
    ax = plots.learning_curves(runs, x="n", group="start", guess=guess, chance=0.5, **look)
    plots.show(
        ax, alt=f"Test AUC by training images, {images} scans: pretrained highest with all images"
    )

# %%
print("AUC that pretrained gains over")
print(gains.map(lambda gain: f"{gain} {gain.verdict}").to_string())
sizes = auc["shuffled"].sub(auc["scratch"]).groupby(["images", "n"]).agg(metrics.mean_interval)
print("\nshuffled minus scratch")
print(sizes.map(lambda gain: f"{gain} {gain.verdict}").to_string())
shown = gains.map(lambda gain: gain.verdict == "better")
assert shown.xs(546, level="n").all(axis=None)
means = gains.map(lambda gain: gain.estimate).xs(546, level="n")
assert (means["scratch"] > 2 * means["small"]).all()
assert shown["small"].loc["simulated"].all()
assert not shown["small"].loc["real"].all()
assert sizes.loc["real", 546].verdict == "better"

# %% [markdown]
# With all images *pretrained* leads every rival: its filters are worth something. But see how much
# of the gain over *scratch* is left over *small*: in so few steps a random MobileNetV2 learns next
# to nothing. On real scans with fewer images no lead over *small* is shown. From 200 on *shuffled*
# beats *scratch* there: part of the gain is only sizes (as Raghu et al. found).
#
# ## 2 Another scanner
#
# The next hospital has another machine, or smaller files: the images *shift*. Kumar et al. (2022)
# report that fine-tuning then loses more than a frozen head, and *LP-FT*, lesson 04's *freeze then
# unfreeze*, least. Here all three, trained on all images, meet spoiled scans, and scans of another
# (simulated) machine. Which loses least?

# %% [markdown] tags=["instructor"]
# - Say: Two questions: who loses least, and who is best afterwards? They have two answers.
# - Wrong: They read a published finding as a law. It held for its images.
# - Ask: Which of these spoiled scans would you still read yourself?
# - Late: Skip the pictures; read the printed verdicts.

# %% tags=["predict"]
my_keeper = ...  # "frozen", "cold" or "freeze then unfreeze"

# %%
NAMES = {"frozen": "frozen", "cold": "cold", "lp_ft": "freeze then unfreeze"}
kinds = {"real": "breastmnist", "simulated": "phantom"}
tables = {f"{kind}, spoiled": load_table(f"07_shift_{name}") for kind, name in kinds.items()}
lesson04 = load_table("04_strategies_phantom").query("n == 546 and strategy in @NAMES")
# another machine: darker, blurred, more speckle, or all of that at once
tables["simulated, another scanner"] = rows_by_shift(lesson04)
tables = {name: runs.replace({"way": NAMES}) for name, runs in tables.items()}
names = [s for s in tables["real, spoiled"]["shift"].unique() if s != "none"]
scan = data.val.images[:1]
seen = np.concatenate([scan, *(corrupt(scan, name, severity=3, seed=0) for name in names)])
captions = [name.replace("_", " ") for name in ("as it is", *names)]
title = "One scan, spoiled in six ways (strength 3 of 5)"
axes = plots.image_grid(seen, rows=1, cols=7, title=title, captions=captions)
plots.show(axes, alt="A scan as it is, and noisy, speckled, blurred, coarse, flat and dark")

# %%
effects = {name: shift_effects(runs, reference="frozen") for name, runs in tables.items()}
for name, runs in tables.items():
    losses = effects[name]["lost"].map(lambda loss: loss.estimate)
    title = f"{name}: lowest mean loss {losses.min():.2f} ({losses.idxmin()})"
    ax = plots.stage_curves(runs, "shift", "auc", "way", title=title)
    plots.show(ax, alt=f"Test AUC by kind of shift, {name}: three ways of training")
print("You said:", "nothing" if my_keeper is ... else my_keeper)
effects, unfrozen = pd.concat(effects), NAMES["lp_ft"]
more, left = (effects[column].unstack() for column in ("lost_more", "left_more"))
assert all(loss.low > 0 for loss in effects["lost"])
assert more.loc["real, spoiled", "cold"].low > 0
assert all(loss.high > 0 for loss in more[unfrozen])  # nowhere shown to lose less
assert all(more.loc[name, unfrozen].low > 0 for name in more.index if "simulated" in name)
assert all(kept.verdict == "open" for kept in left["cold"])
effects.map(str)  # AUC, mean over the shifts; lost_more, left_more: than frozen

# %% [markdown]
# Read what is lost, and what is *left*. That fine-tuning loses more than a frozen head shows on
# spoiled real scans only. That LP-FT loses least has no support here: on simulated scans it loses
# *more*. (On real scans it trails unshifted, too.) And nowhere is *cold* shown better or worse than
# *frozen* afterwards. A finding holds for its images and steps; on yours, measure.
#
# ## 3 Your data leak
#
# Published scores use BreastMNIST's *official* split. Audit it: correlate each image with every
# other; above `0.95` call two *near copies*, **twins** for short. On the simulated set the truth is
# known: we draw three images of each patient and deal them one by one.
#
# Of a hundred test images, how many have a twin in training or validation?

# %% [markdown] tags=["instructor"]
# - Say: Look at the pairs before you count them. Would you call this one lesion?
# - Wrong: They think of leaks as other people's carelessness. This set is cited by hundreds.
# - Ask: You publish on the official split. What do you write beside your score?
# - Late: Skip Exercise 1 and name the double label.

# %% tags=["predict"]
my_twins = ...  # test images with a twin elsewhere, of a hundred

# %%
if data.simulated:
    leaky = split_by_image(load_images("phantom", views=3, progress=False))
else:
    leaky = load_images("breast", split="official")
report, whole = near_duplicates(leaky), join(leaky.development, leaky.test)
said = "" if my_twins is ... else f", you said {my_twins}"
twins = 100 * report.crossing["test"] / len(leaky.test)
print(f"{report}\nof a hundred test images {twins:.0f} have a twin{said}")
if data.simulated:
    one_patient = np.diff(whole.groups[report.pairs[["first", "second"]]]) == 0
    related = 100 * np.isin(leaky.test.groups, leaky.development.groups).mean()
    print(f"twins of one patient: {one_patient.mean():.0%}; related {related:.0f} of a hundred")
    assert one_patient.all()
    assert related > 3 * twins
assert twins > 5

# %%
across = report.pairs[report.pairs["first_part"] != report.pairs["second_part"]]
drawn = across.iloc[np.linspace(0, len(across) - 1, 6).astype(int)]
places = np.concatenate([drawn["first"], drawn["second"]])
axes = plots.image_grid(
    whole.images[places],
    whole.labels[places],
    data.classes,
    rows=2,
    cols=6,
    title="Pairs across the parts, one above the other, most alike first",
    captions=report.parts[places].tolist(),
)
plots.show(axes, alt="Six pairs of scans; in each pair the same lesion, nearly at the same place")
assert report.exact_conflicts == (0 if data.simulated else 1)

# %% [markdown]
# Look at each pair: one lesion filmed again, or with other marks. Who has seen the upper one knows
# the answer to the lower. Does the search find all? Only the simulated set can tell: every pair it
# finds is one patient's, but it misses most **relatives**: images of one patient, filmed from
# another place. So there it gives a lower bound; on real scans, probably.
#
# ### Exercise 1 (6 minutes)
#
# Worse than a twin: the very same image under two labels. Write the search.


# %% tags=["exercise"]
def two_labels(images, labels):
    """List the pairs (i, j), i < j, with every pixel equal and different labels."""
    # BEGIN SOLUTION
    return [
        (i, j)
        for i in range(len(images))
        for j in range(i + 1, len(images))
        if labels[i] != labels[j] and np.array_equal(images[i], images[j])
    ]
    # STUB: return ...  # for each i, j runs over range(i + 1, len(images))
    # END SOLUTION


# %% tags=["check"]
lesson07.check_two_labels(two_labels)

# %% [markdown]
# BreastMNIST has one such pair: on real scans it is the first above, one image in training and one
# in test. Nobody here can tell which label is right. On the simulated set the label belongs to the
# patient, so there is none.
#
# Now what are the twins *worth*? Deal all scans into five folds, once image by image, once with
# relatives kept together (twins, where nothing else is known); five dealings each. How many points
# of AUC (of a hundred) does the first way add?

# %% tags=["predict"]
my_worth = ...  # points of AUC that folds by image add

# %%
features = extract_features(model, whole.images, progress=False)
splits = {"by image": Split(whole.images, whole.labels), "by group": whole}
folds = pd.concat(
    learning_curve({by: features}, part, folds=5, seed=seed, progress=False).assign(seed=seed)
    for by, part in splits.items()
    for seed in range(5)
)
worth = {"frozen features, here": folds.rename(columns={"method": "by"})}
for kind, name in kinds.items():
    worth[f"fine-tuned, {kind}, published"] = load_table(f"07_leak_{name}").replace(
        {"by": {"image": "by image", "group": "by group"}}
    )

# %%
bars = {}
for name, runs in worth.items():
    auc = 100 * runs.pivot(index=["seed", "fold"], columns="by", values="auc")
    bars[name] = metrics.fold_interval(auc["by image"], auc["by group"], folds=5)
sure = [name for name, gain in bars.items() if gain.low > 0]
title = f"Relatives across folds add points; shown in {len(sure)} of {len(bars)}"
look = {"xlabel": "points of AUC (of 100) added", "ylabel": "where measured"}
look["colours"] = dict.fromkeys(bars, "black")
ax = plots.score_bars(bars, title=title, guess={"frozen features, here": my_worth}, **look)
ax.axvline(0, color="black", linewidth=1)
plots.show(ax, alt="Points of AUC added by dealing image by image: every dot above zero")
assert all(gain.estimate > 0 for gain in bars.values())
assert "fine-tuned, simulated, published" in sure
assert "fine-tuned, real, published" not in sure
assert data.simulated == ("frozen features, here" in sure)

# %% [markdown]
# Where the truth is known, forgetting the patients adds points that are not there. On real scans
# the mean gain is above zero, too, but zero lies inside the interval: not shown. Still, a score on
# parts that leak answers another question: how well are *known* patients told apart?
#
# ## 4 What features forget
#
# A quality check: one side of the probe has lost contact, and the image darkens to that side. Which
# side? We make the task from our scans: half get a slope of light to the left, half to the right.
# Features are the frozen network's, or the scan shrunk to 16 by 16 pixels; the same logistic
# regression learns from both, its penalty chosen for each (lesson 01). Guess the two AUCs.

# %% [markdown] tags=["instructor"]
# - Say: A feature is good at what it keeps. Ask first what your task needs.
# - Wrong: They believe that ImageNet features are better at everything.
# - Ask: Name a task in your own work that needs the place, or the absolute brightness.
# - Late: Skip Exercise 2.

# %% tags=["predict"]
my_aucs = ..., ...  # network, pixels

# %%
scans = data.development
side = np.random.default_rng(0).permutation(np.arange(len(scans)) % 2)
slope = np.linspace(0.9, 1.1, scans.images.shape[2])  # from the dark edge to the bright one
lit = np.where(side[:, None, None] == 1, slope, slope[::-1]) * scans.images
task = Split(lit.clip(0, 255).astype(np.uint8), side, scans.groups)
sides, title = ("left bright", "right bright"), "You will hardly see which side is brighter"
axes = plots.image_grid(task.images[:6], side[:6], sides, rows=1, cols=6, title=title)
plots.show(axes, alt="Six scans, lit from the left or from the right; hardly to be seen")


# %%
maps = torch.tensor(cache_features(model, task.images, through="stage5", progress=False))
means = torch.nn.functional.adaptive_avg_pool2d  # of each field of a grid, for each channel
fields = {
    "ImageNet network": means(maps, 1),  # what its head gets: one field
    "pixels, 16 by 16": means(torch.tensor(task.images[:, None]).float(), 16),
    "network, by halves": means(maps, (1, 2)),  # one row of two fields
}
kinds = {name: numbers.flatten(1).numpy() for name, numbers in fields.items()}
curve = learning_curve(kinds, task, folds=5, kind="tuned", progress=False)
bars = {n: metrics.fold_interval(r["auc"], folds=5) for n, r in curve.groupby("method", sort=False)}
look = {"xlabel": "held-out AUC", "guess": dict(zip(kinds, my_aucs, strict=False))}
ax = plots.score_bars(bars, title="Pixels know the side; overall means do not", chance=0.5, **look)
plots.show(ax, alt="Held-out AUC: pixels high, the network's means near chance, halves between")
assert paired_gain(curve, "pixels, 16 by 16", "ImageNet network").low > 0
assert paired_gain(curve, "network, by halves", "ImageNet network").low > 0

# %% [markdown]
# The network's last step is a mean over all positions. Where a channel answered is lost. And it
# learned on photographs in any light; probably it learned to ignore slow changes of brightness.
# Pixels keep both. So a baseline belongs beside every transfer: it shows what was thrown away.
#
# ### Exercise 2 (6 minutes)
#
# Often the place can be had before the mean. `maps` are a stage's answers, `(images, channels,
# rows, columns)`. Give the mean of the left and of the right half for each channel, side by side:
# `(images, 2 * channels)`, the left half's first.


# %% tags=["exercise"]
def by_halves(maps):
    """Return two means per channel: left half, then right half."""
    # BEGIN SOLUTION
    half = maps.shape[3] // 2
    left, right = maps[..., :half], maps[..., half:]
    return np.concatenate([left.mean(axis=(2, 3)), right.mean(axis=(2, 3))], axis=1)
    # STUB: return ...  # maps[..., :half] are the left columns; .mean(axis=(2, 3)) as above
    # END SOLUTION


# %% tags=["check"]
lesson07.check_by_halves(by_halves)

# %% [markdown]
# The last bar above is that repair, in part: torch's pooling on a grid of two fields.
#
# ## 5 Audit a published number
#
# MedMNIST+ (Doerrich et al.) prints for a linear probe on BreastMNIST: accuracy 73.08, and no
# spread at all over three seeds. Its test part has 156 images.
#
# ### Exercise 3 (5 minutes)
#
# Which of these accuracies does a program get that always answers the most frequent class?
# (*Retina* is another set, with five classes.) Compute it from the counts, in points with two
# decimals.

# %% [markdown] tags=["instructor"]
# - Say: A spread of zero over seeds is not precision. It is a sign that nothing moved.
# - Wrong: They conclude that the features are useless. See what the same table's k-NN gets.
# - Ask: Which single extra number in the table would have shown it?
# - Late: Give the answer 114 of 156 aloud and go to the steps.

# %% tags=["exercise"]
rows = {  # accuracy in points, images of the largest class, test images
    "Breast, linear probe, 224 px": (73.08, 114, 156),
    "Breast, k-NN, 224 px": (80.77, 114, 156),
    "Breast, fine-tuned, 224 px": (87.18, 114, 156),
    "Retina, linear probe, 28 px": (43.50, 174, 400),
    "Retina, linear probe, 224 px": (49.50, 174, 400),
}
# BEGIN SOLUTION
suspects = [n for n, (points, most, of) in rows.items() if points == round(100 * most / of, 2)]
# STUB: suspects = ...  # a list of names from rows
# END SOLUTION

# %% tags=["check"]
lesson07.check_suspects(suspects, rows)

# %% [markdown]
# How does a probe come to say always the same? Watch one learn: the features of section 3, a plain
# head, AdamW at the paper's rate `1e-4`, batches of 64, five seeds. (A head as timid as lesson 03's
# first one.) After five epochs it calls only a few of the validation scans malignant. What is its
# AUC then?

# %% tags=["predict"]
my_auc = ...  # validation AUC of a head that says "harmless" to nearly all


# %%
def watch(seed):
    torch.manual_seed(seed)
    layer, watched = torch.nn.Linear(features.shape[1], 2), []
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-4)
    inputs, labels = torch.tensor(features[: len(leaky.train)]), torch.tensor(leaky.train.labels)
    val = slice(len(inputs), len(leaky.development))
    for epoch in range(1, 17):
        for batch in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        probs = linear_head.head_probabilities(layer, features[val])
        said = (probs.argmax(axis=1) == 0).mean()
        watched.append((epoch, said, metrics.auc(leaky.val.labels, probs)))
    return pd.DataFrame(watched, columns=["epoch", "called malignant", "AUC"]).assign(seed=seed)


# %%
heads_watched = pd.concat([watch(seed) for seed in range(5)])
ax = plots.stage_curves(
    heads_watched.melt(["epoch", "seed"], var_name="score"),
    x="epoch",
    y="value",
    group="score",
    title="It ranks the scans well while it calls few malignant",
    guess=(5, my_auc),
    ylabel="AUC; share of scans",
)
plots.show(ax, alt="By epoch: AUC rises at once, the share called malignant stays low")
early = heads_watched.query("epoch == 5")
assert metrics.mean_interval(early["AUC"]).low > 0.5
assert early["called malignant"].mean() < 0.15  # of all scans, 0.27 are

# %% [markdown]
# A head first learns how common the classes are. Stopped there, it answers as the majority,
# though it ranks better. *Early stopping* ends a training when the validation loss has not improved
# for some epochs (its *patience*). And the paper's code slows the start: small images in a black
# frame of 224 pixels, a "frozen" network whose statistics move (lesson 04).
#
# Here that recipe with MobileNetV2 and 28 px on the official real parts, five seeds: stopped by us
# at ten epochs (the paper does not say where its runs stopped), as published (none of ours stopped
# before the cap of 30), then repaired step by step. The last two steps are other probes: logistic
# regression (no chance in it) and images of 64 px. Which repair gives most accuracy?

# %%
steps = load_table("07_probe").rename(columns={"auc": "AUC"})
scores = steps.pivot(index="seed", columns="step", values=["accuracy", "AUC"])
early = scores.xs("stopped at 10 epochs", axis=1, level="step")
repaired = scores.xs("higher rate, more patience", axis=1, level="step")
gains = scores["accuracy"][steps["step"].unique()].diff(axis=1).iloc[:, 1:]
added = pd.Series({step: metrics.mean_interval(gain) for step, gain in gains.items()})
assert all(added[step].low > 0 for step in ("statistics held", "enlarged, not padded"))
both = steps.assign(step=steps["step"].str.replace(" ", "\n"))
both, majority = both.melt(["step", "seed"], ["accuracy", "AUC"], "score"), steps["majority"][0]
title = f"Stopped, it says what most are; repaired, {repaired['accuracy'].mean():.0%} are right"
look = {"xlabel": "each step keeps the repairs before it", "ylabel": "test score"}
ax = plots.stage_curves(both, x="step", y="value", group="score", title=title, **look)
ax.axhline(majority, color="black", linewidth=1, linestyle="--")
alt = "Accuracy and AUC by step rise through the first repairs, then vary; majority dashed"
plots.show(ax, alt=alt)

# %%
exactly = np.isclose(early["accuracy"], majority).sum()
print(f"stopped: {exactly} of {len(early)} seeds get {majority:.2%}, the majority's share (dashed)")
print("accuracy that each step adds", added.map(str).to_string(), sep="\n")
for name, step in {"stopped": early, "repaired": repaired}.items():
    print(name, *(f"{score} {metrics.mean_interval(step[score])}" for score in step), sep=", ")
assert exactly >= 3  # the paper has three seeds
assert metrics.mean_interval(early["AUC"]).low > 0.5
assert metrics.paired_mean_interval(repaired["accuracy"], early["accuracy"]).low > 0.05

# %% [markdown]
# ## Key points
#
# - Compare with shuffled weights and with a small network: a gain over scratch alone does not say
#   what it is a gain of.
# - A shift is measured, not assumed; who loses least and who is best afterwards are two questions.
# - Search your data for near copies before you trust a split, and look at the pairs.
# - Features keep what their training needed. A plain baseline shows what they threw away.
# - Accuracy equal to the majority's and no spread over seeds: ask what the model answers.
#
# ## Further reading
#
# - Doerrich et al., *Rethinking model prototyping through the MedMNIST+ dataset collection*: the
#   audited table; its k-NN rows show that the features were fine.
# - Kumar et al. 2022, [*Fine-tuning can distort pretrained features and underperform
#   out-of-distribution*](https://arxiv.org/abs/2202.10054): the claim that section 2 tests.
# - Raghu et al., *Transfusion* (2019): medical images, large networks against small ones.
# - [arXiv 2401.14497](https://arxiv.org/abs/2401.14497): lesions shared between the training and
#   test parts of another MedMNIST set.
