# %% [markdown]
# # Replace the head
#
# A pretrained network has a thousand answers, and none of them is yours. Its last layer, the
# *head*, turns features into answers. Today you take that layer out, put your own in, and train
# nothing else.
#
# **What you will be able to do**
#
# - find the head of a ResNet, a MobileNet, a DenseNet and a ViT, and replace it by hand
# - freeze a network, and count and check what may still move
# - tell from the very first loss whether the wiring is right
# - spot a head that only answers the majority class, and repair it
#
# **What you need:** lessons 00 to 02.
#
# **Minutes:** 45
#
# The test images stay shut in this lesson. You work on the training and validation images,
# together the *development* images.

# %%
from functools import partial

import numpy as np
import pandas as pd
import torch
from skimage.data import coffee
from torch import nn
from torchvision.models import ResNet18_Weights, get_model, resnet18

from tlcourse import backbones, freezing, metrics, plots
from tlcourse.checks import lesson03
from tlcourse.datasets import grouped_folds, load_images
from tlcourse.features import extract_features
from tlcourse.results import load_table
from tlcourse.training import fit, linear_head, predict

# %%
data = load_images("breast")
development = data.development
data

# %% [markdown]
# ## 1 A thousand answers, none of them yours
#
# MobileNetV2 learned to choose among a thousand kinds of things: dogs, cups, lorries. It cannot
# say "I do not know". Its answers always add up to one. Show it a cup, then a scan.
#
# What will it call the scan? Write an everyday thing.

# %% [markdown] tags=["instructor"]
# - Say: A thousand answers that add up to one, whatever is shown. Let them enjoy the wrong words.
# - Wrong: They think that the features are useless because the answers are.
# - Ask: What would an honest network answer here?
# - Late: Show only the scan's answers.

# %% tags=["predict"]
my_word = ...  # such as "cloud"

# %%
photo_network = backbones.load_backbone("mobilenet_v2", weights="imagenet")
names = backbones.image_categories(photo_network)
scan_probs = predict(photo_network, data.val.images, size=224, batch_size=16)
photo_probs = predict(photo_network, coffee()[None], size=224)
title = "The network is sure of a cup of coffee"
ax = plots.top_predictions(photo_probs[0], names, title=title, image=coffee())
plots.show(ax, alt="A photograph of a cup, and the most probable of a thousand answers to it")

# %%
title = f"Of a scan it is unsure: its best answer is {names[scan_probs[0].argmax()]}"
ax = plots.top_predictions(scan_probs[0], names, title=title, image=data.val.images[0])
plots.show(ax, alt="An ultrasound scan, and the five most probable of a thousand answers to it")
common = pd.Series(names)[scan_probs.argmax(axis=1)].value_counts()
expected = "" if my_word is ... else f"your word: {my_word}; "
print(f"{expected}most common answers to {len(scan_probs)} scans:")
print(common.head(5).to_string())
medical = [name for name in names if any(w in name for w in ("tumor", "cancer", "ultrasound"))]
sure = np.median(scan_probs.max(axis=1))
print(f"answers that name a cancer: {len(medical)}; median of the highest probability {sure:.2f}")
assert medical == []
assert sure < photo_probs.max()  # the cup is recognised, the scans are not

# %% [markdown]
# Look at the kind of thing it names, and at the length of the bars. The answers are useless. The
# features beneath them are not: lesson 01 measured that. So keep the features and change the
# answers.
#
# ## 2 Where heads live
#
# In the networks here the head is one layer: `nn.Linear(in_features, num_classes)`. It takes the
# features of one image and gives a score, a *logit*, for each class. Nearly every classifier ends
# in such a layer. But each family gave it another name, and hands it another number of features.
#
# On the device `meta`, tensors have shapes but no numbers. So big networks are built at once.

# %% [markdown] tags=["instructor"]
# - Say: Every family named its head differently. Read the size from the layer, never from memory.
# - Wrong: They assign to .fc of a network without one: no error, no effect.
# - Ask: How would you notice, without reading the source?
# - Late: Skip Exercise 1, keep the trap.

# %%
with torch.device("meta"):
    skeletons = {n: get_model(n) for n in ("resnet18", "mobilenet_v2", "densenet121", "vit_b_16")}
rows = {}
for name, model in skeletons.items():
    total = sum(p.numel() for p in model.parameters())
    layer = backbones.head(model)
    share = sum(p.numel() for p in layer.parameters()) / total
    rows[name] = backbones.head_name(model), layer.in_features, total, f"{share:.1%}"
columns = ["head", "in_features", "parameters", "in the head"]
pd.DataFrame.from_dict(rows, orient="index", columns=columns)

# %%
by_hand = get_model("mobilenet_v2")
by_hand.fc = nn.Linear(1280, 2)  # no error, no effect
one_image = torch.zeros(1, 3, 64, 64)
wrong = by_hand.eval()(one_image).shape
by_hand.classifier[1] = nn.Linear(by_hand.classifier[1].in_features, 2)
right = by_hand(one_image).shape
packaged = backbones.replace_head(get_model("mobilenet_v2"), 2, seed=0).eval()(one_image).shape
print(f"assigned to .fc: {wrong}, to .classifier[1]: {right}, replace_head: {packaged}")
assert wrong[1] == 1000
assert right[1] == packaged[1] == 2

# %% [markdown]
# The trap: assigning to `fc` of a network that has no `fc` raises no error. Python makes a new
# attribute, which nothing ever calls. So check the shape of the answers. And read `in_features`
# from the old layer: the table shows that a size copied from one network does not fit the next.
#
# ### Exercise 1 (5 minutes)
#
# Give a DenseNet two answers by hand. The check tries your function on two DenseNets whose heads
# take different numbers of features.


# %% tags=["exercise"]
def two_classes(densenet):
    """Put a new head with two answers into a DenseNet, and return the network."""
    # BEGIN SOLUTION
    densenet.classifier = nn.Linear(densenet.classifier.in_features, 2)
    return densenet
    # STUB: return ...  # two lines: replace the layer that the table names, return the network
    # END SOLUTION


# %% tags=["check"]
lesson03.check_two_classes(two_classes)

# %% [markdown]
# ## 3 The original notes, run
#
# This course grew from lecture notes. Their recipe is a few lines: load ResNet-18 pretrained,
# replace `fc`, freeze everything else, train with SGD. Here they are in today's torchvision, which
# asks for `weights=`. If ResNet-18's weights are neither on your machine nor within reach, the
# lines run on random ones: counts and movements are the same, only the features are weaker.

# %% [markdown] tags=["instructor"]
# - Say: These are the notes that the course grew from, run line by line. The report's last column
#   is the surprise.
# - Wrong: They believe that requires_grad = False holds a layer still. Its statistics move.
# - Ask: Two answers from 512 features: how many numbers may move?
# - Late: Skip the loop and run only its report; Exercise 2 can go.

# %%
try:
    backbones.fetch_checkpoint("resnet18")
    weights = ResNet18_Weights.IMAGENET1K_V1
except backbones.WeightsUnavailable:
    weights = None
print("ResNet-18 starts from", weights or "random weights: ImageNet's are out of reach here")
torch.manual_seed(0)
model = resnet18(weights=weights)
for parameter in model.parameters():
    parameter.requires_grad = False
model.fc = nn.Linear(model.fc.in_features, data.num_classes)
optimizer = torch.optim.SGD(model.fc.parameters(), lr=1e-3, momentum=0.9)
criterion = nn.CrossEntropyLoss()

# %% [markdown]
# Training repeats: answer, measure the loss (`criterion`), find for every free number which way the
# loss falls (its *gradient*, `backward`), and take a small step (`step`). `lr` says how small,
# *SGD* is the plainest rule, *momentum* keeps some of the last step. `requires_grad = False`
# freezes: no gradient, so no step. The new layer came after the loop, so it may move. How many
# numbers of this network's millions may? Say aloud, too: will anything outside `fc` change?

# %% tags=["predict"]
my_count = ...  # a whole number: 512 features, two answers, and do not forget the biases

# %%
total = sum(parameter.numel() for parameter in model.parameters())
moving = freezing.count_trainable(model)
expected = "" if my_count is ... else f"your count: {my_count}; "
print(f"{expected}trainable {moving:,} of {total:,}, or {moving / total:.4%}")
assert (moving, total) == (1_026, 11_177_538)

# %%
few = data.train.subset(64, seed=0)
images = backbones.preprocess(model, few.images, size=64)
labels = torch.from_numpy(few.labels)
before = freezing.snapshot(model)
model.train()
for _ in range(3):  # epochs
    for batch in torch.arange(len(few)).split(16):
        optimizer.zero_grad()
        loss = criterion(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()

# %%
report = freezing.freeze_report(before, model, optimizer)
assert report.index[report["weights_moved"]].tolist() == ["head"]
assert report["statistics_moved"].drop("head").all()
print("only the head's weights moved, but the statistics of every other stage moved, too")
report

# %% [markdown]
# Look at the last column. Batch normalisation keeps lesson 01's running statistics of what passes
# through it. They are no parameters, so `requires_grad` does not hold them: in train mode every
# forward pass moves them (`train()` and `eval()` switch how such layers behave). The "frozen"
# network is no longer the pretrained one. Lesson 04 measures what that costs. Until then,
# `freeze` from the package holds weights *and* statistics.
#
# ### Exercise 2 (4 minutes)
#
# Write the count yourself: how many numbers of a network may move?


# %% tags=["exercise"]
def count_trainable(model):
    """Count the numbers in all parameters that require a gradient."""
    # BEGIN SOLUTION
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
    # STUB: return ...  # p.numel() tells how many numbers a parameter p holds
    # END SOLUTION


# %% tags=["check"]
lesson03.check_count(count_trainable)

# %% [markdown]
# ## 4 The first loss tells
#
# An untrained head knows nothing. So it gives each of $C$ classes about the same probability,
# $1/C$. The cross-entropy is minus the logarithm of what the true class got: about $\ln C$. This is
# the cheapest test in deep learning, and it comes before any training. (The logarithm is the
# natural one, so losses count in *nats*.) A first loss far above $\ln C$ means confidence without
# knowledge: images not normalised, logits scaled, labels of another head.
#
# What do you expect for two classes, and for a thousand?

# %% [markdown] tags=["instructor"]
# - Say: The cheapest test there is, before any training.
# - Wrong: They read a first loss far above ln C as bad luck.
# - Ask: Ten classes, first loss 2.3: good or bad? And 9.1?
# - Late: Give the two numbers aloud, skip the drawing.

# %% tags=["predict"]
my_first_losses = ..., ...  # in nats: two classes, a thousand classes

# %%
photo_features = extract_features(photo_network, development.images, size=96)
pretend = np.arange(len(development)) % 1000  # any labels will do: the head knows none
measured = {
    "2 classes": linear_head.first_losses(photo_features, development.labels, 2, seeds=range(20)),
    "1000 classes": linear_head.first_losses(photo_features, pretend, 1000, seeds=range(20)),
    "1000 classes, features 20 times too large": linear_head.first_losses(
        20 * photo_features, pretend, 1000, seeds=range(20)
    ),
}
found = {name: metrics.mean_interval(losses) for name, losses in measured.items()}

# %%
expected = dict(zip(found, np.log([2, 1000, 1000]), strict=True))
ax = plots.score_bars(
    found,
    colours=dict.fromkeys(found, "black"),
    title="Sound wiring starts near ln C; a wrong scale shows at once",
    xlabel="first loss in nats, 20 untrained heads",
    ylabel="head",
    reference=expected,
    reference_name="ln C",
    guess=dict(zip(found, my_first_losses, strict=False)),
)
plots.show(ax, alt="Dots beside diamonds at ln C; oversized features lie far to the right")
for name in ("2 classes", "1000 classes"):
    assert abs(found[name].estimate - expected[name]) < 0.1 * expected[name], name
assert found["1000 classes, features 20 times too large"].low > np.log(1000) + 2

# %% [markdown]
# Look at the distance of each dot from its diamond. The sound heads start at $\ln C$ or a little
# above, because random weights are not quite undecided. The third has a bug, and you know it before
# you have waited for a single epoch.
#
# ## 5 Train only the head
#
# Now with the package: ImageNet weights, two answers, everything frozen but the head, the notes'
# SGD. `assert_frozen` stops the cell if anything else moves.

# %% [markdown] tags=["instructor"]
# - Say: The head alone, ten folds in seconds. Draw the four cells of a confusion matrix on the
#   board first.
# - Wrong: They take class weights for better features: point at the two dot plots side by side.
# - Ask: Which accuracy makes you suspicious without any further information? (The share of the
#   majority class.)
# - Late: Skip Exercise 3 and the published table.

# %%
model = backbones.load_backbone("mobilenet_v2", weights="imagenet", num_classes=2, seed=0)
freezing.freeze(model)
notes_sgd = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
with freezing.assert_frozen(model):
    history = fit(model, data, epochs=4, optimizer=notes_sgd, size=96, seed=0)
val_probs = predict(model, data.val.images, size=96)
print(f"validation AUC {metrics.bootstrap(metrics.auc, data.val.labels, val_probs)}")
axes = plots.history_curves(history, title="The head alone learns: its loss falls")
plots.show(axes, alt="Training and validation loss, and validation AUC, over four epochs")

# %% [markdown]
# Few validation images, a wide interval. The frozen backbone ran only once: `fit` kept its
# features. Do so by hand, with the features from section 4: then many folds cost seconds. Three
# recipes:
#
# - *timid*: a single epoch at rate `1e-4`
# - *notes*: ten epochs at the notes' rate `1e-3`
# - *weighted*: the same with *class weights*, by which a rare class counts more in the loss
#
# Beside them stands lesson 01's logistic regression (*logistic probe*). What share of the malignant
# scans will each find (its *sensitivity*)? First one fold, as a *confusion matrix*: a row per true
# class, a column per answer; top left cancers found, bottom left false alarms. One fold proves
# nothing, so two dealings into five folds follow.

# %% tags=["predict"]
my_shares = ..., ..., ...  # timid, notes, weighted: shares between 0 and 1

# %%
recipes = {
    "timid": dict(lr=1e-4, epochs=1),
    "notes": dict(lr=1e-3, epochs=10),
    "weighted": dict(lr=1e-3, epochs=10, balanced=True),
}
order = [*recipes, "logistic probe"]
train, held_out = grouped_folds(development, 5, seed=0)[0]
truth, predicted = development.labels[held_out], {}
for name, recipe in recipes.items():
    layer = linear_head.train_head(photo_features[train], development.labels[train], **recipe)
    predicted[name] = linear_head.head_probabilities(layer, photo_features[held_out]).argmax(axis=1)
title = "On one fold the timid head calls hardly any scan malignant"
axes = plots.confusion_matrices(truth, predicted, data.classes, title=title)
plots.show(axes, alt="Three confusion matrices: true class by answered class, per recipe")
assert (predicted["timid"] == 0).mean() < 0.1

# %%
runs = linear_head.compare_heads(photo_features, development, recipes, with_probe=True)
by_recipe = {name: rows.reset_index(drop=True) for name, rows in runs.groupby("recipe")}
titles = {
    "sensitivity": "The timid head finds hardly any cancer; class weights find more",
    "auc": "Class weights leave the AUC where it was",
}
published = load_table("03_head_only_" + ("phantom" if data.simulated else "breastmnist"))
means = published.groupby("recipe")[[*titles]].mean().loc[order]
for column, title in titles.items():
    scores = {name: metrics.fold_interval(by_recipe[name][column], folds=5) for name in order}
    guess = dict(zip(recipes, my_shares, strict=True)) if column == "sensitivity" else None
    label = f"held-out {column.replace('auc', 'AUC')}, two dealings of five folds"
    marks = dict(guess=guess, reference=dict(means[column]), colours=dict.fromkeys(order, "black"))
    ax = plots.score_bars(scores, title=title, xlabel=label, ylabel="recipe", **marks)
    plots.show(ax, alt=f"Dots with intervals: {column} of timid, notes, weighted and the probe")


# %%
def gained(tables, first, second, column):
    return metrics.fold_interval(tables[first][column], tables[second][column], folds=5)


found_more = gained(by_recipe, "weighted", "notes", "sensitivity")
ranked_better = gained(by_recipe, "weighted", "notes", "auc")
learned = gained(by_recipe, "notes", "timid", "balanced_accuracy")
print(f"notes over timid: balanced accuracy {learned}")
print(f"weighted over notes: sensitivity {found_more}, AUC {ranked_better}")
print(f"notes over probe, left open: AUC {gained(by_recipe, 'notes', 'logistic probe', 'auc')}")
assert metrics.fold_interval(by_recipe["timid"]["sensitivity"], folds=5).high < 0.2
assert learned.low > 0.1
assert found_more.low > 0
assert max(abs(ranked_better.low), abs(ranked_better.high)) < 0.05

# %% [markdown]
# Look at the left column of the first matrix. The timid head calls hardly any scan malignant. It
# learned how common the classes are, so its accuracy is about that of "always harmless". It has
# learned hardly more.
#
# Weights find more malignant scans and raise more false alarms, while the AUC hardly moves: they
# shift the *threshold* (from which probability on a scan is called malignant) and add no knowledge.
# *Balanced accuracy* is the mean of the shares found in each class; whether it gains depends on the
# image set. Ten folds leave notes against probe open. Can thirty, dealt from the same scans, close
# it?

# %%
always_harmless = (development.labels == 1).mean()
for images in ("breastmnist", "phantom"):
    table = load_table(f"03_head_only_{images}")
    tables = {name: rows.reset_index(drop=True) for name, rows in table.groupby("recipe")}
    shown = table[table["recipe"].isin(order)].groupby("recipe", sort=False)
    scores = shown[["sensitivity", "balanced_accuracy", "auc"]]
    print(f"published, {images}, {len(tables['notes'])} folds")
    print(scores.agg(lambda v: str(metrics.fold_interval(v.to_numpy(), folds=5))).to_string())
    behind = gained(tables, "notes", "logistic probe", "auc")
    print(f"AUC, notes minus probe: {behind}\n")
    assert abs(tables["timid"]["accuracy"].mean() - always_harmless) < 0.02
    assert gained(tables, "notes", "timid", "sensitivity").low > 0.2
    assert gained(tables, "weighted", "notes", "sensitivity").low > 0.05
    assert gained(tables, "notes", "weighted", "specificity").low > 0  # fewer false alarms
    assert not behind.excludes(0)

# %% [markdown]
# Thirty folds are six dealings of the same scans; they do not count as thirty tries, and the
# intervals allow for that. So probe and notes are not told apart on either set.
#
# ### Exercise 3 (6 minutes)
#
# Write the balanced weights: for a class with $n_c$ of $N$ images, $N / (C \, n_c)$. A class with
# the average number of images gets weight 1.


# %% tags=["exercise"]
def balanced_weights(labels):
    """Return one weight per class; `np.bincount(labels)` counts the images of each class."""
    # BEGIN SOLUTION
    counts = np.bincount(labels)
    return len(labels) / (len(counts) * counts)
    # STUB: return ...  # count the images of each class, then put the counts into the formula
    # END SOLUTION


# %% tags=["check"]
lesson03.check_balanced_weights(balanced_weights)

# %% [markdown]
# ## Key points
#
# - The head is the last layer. Its name differs by family: read name and `in_features` from the
#   model.
# - Assigning to a name that does not exist fails silently. Check the shape of the answers.
# - `requires_grad = False` holds weights, not the statistics of batch normalisation.
# - An untrained head with $C$ answers starts near a loss of $\ln C$. Far from it means a bug.
# - A head trained too little answers the majority class. Compare accuracy with that.
# - Class weights move the threshold and hardly the ranking.
#
# ## Further reading
#
# - Doerrich et al., *Rethinking model prototyping through the MedMNIST+ dataset collection*: heads
#   on twelve medical sets; lesson 07 looks at one row.
# - [pytorch/pytorch issue 86590](https://github.com/pytorch/pytorch/issues/86590): others who met
#   frozen layers whose statistics move.
# - [torchvision: models and pre-trained
# weights](https://docs.pytorch.org/vision/stable/models.html): what `weights=` takes, and what each
# network's weights expect of an image.
