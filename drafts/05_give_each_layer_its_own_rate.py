# %% [markdown]
# # Give each layer its own rate
#
# Early layers see edges, late ones what counts for the task. Should all of them learn at the same
# speed? You hand out *learning rates* layer by layer, watch how far each one goes, and ask whether
# it pays.
#
# **What you will be able to do**
#
# - sort a network's parameters into groups with rates of their own, by hand and with the package
# - run a rate test, and say how far to trust it
# - predict from its rate how far a stage will drift
# - catch four mistakes with groups and schedules that raise no error or a puzzling one
#
# **What you need:** lessons 00 to 04.
#
# **Minutes:** 45
#
# The test images stay shut; only published tables quote scores on them.

# %%
import warnings
from functools import partial

import pandas as pd
import torch
from torchvision.models import ResNet18_Weights, resnet18

from tlcourse import backbones, freezing, metrics, plots, similarity
from tlcourse.checks import lesson05
from tlcourse.datasets import load_images
from tlcourse.onestep import one_step
from tlcourse.optim import ULMFIT_DECAY, check_optimizer, find_lr, param_groups, warmup_cosine
from tlcourse.results import load_table
from tlcourse.training import fit
from tlcourse.widgets import explore_rates

# %%
data = load_images("breast")
few = data.with_train(data.train.subset(64, seed=0))
data

# %% [markdown]
# ## 1 Two groups, two rates
#
# An optimizer takes a list of *groups*: dictionaries of parameters with a rate. The original notes
# use two on ResNet-18: its last stage, `layer4`, at `1e-4`, and the new head `fc` at `1e-3`.
# PyTorch explains this under [per-parameter
# options](https://docs.pytorch.org/docs/stable/optim.html#per-parameter-options). Everything
# below stays frozen.
#
# As in lesson 03, ResNet-18 starts from random weights if ImageNet's are out of reach. What
# follows holds for both.

# %%
try:
    backbones.fetch_checkpoint("resnet18")
    weights = ResNet18_Weights.IMAGENET1K_V1
except backbones.WeightsUnavailable:
    weights = None
print("ResNet-18 starts from", weights or "random weights: ImageNet's are out of reach here")
torch.manual_seed(0)
resnet = backbones.replace_head(resnet18(weights=weights), data.num_classes, seed=0)
freezing.freeze(resnet, through="stage3")
by_hand = [
    {"name": "layer4", "params": list(resnet.layer4.parameters()), "lr": 1e-4},
    {"name": "fc", "params": list(resnet.fc.parameters()), "lr": 1e-3},
]
optimizer = torch.optim.SGD(by_hand, momentum=0.9)

# %% [markdown]
# Make one step, and measure for each group the length of its gradient and of the way it went. Both
# are norms: the root of the sum of squares. In the first step there is no momentum yet. If the head
# and `layer4` had gradients of the same length, which would go further, and how many times?

# %% tags=["predict"]
my_factor = ...  # way of the head over way of layer4, at equal gradients

# %%
images = backbones.preprocess(resnet, few.train.images, size=64)
labels = torch.from_numpy(few.train.labels)
before = freezing.snapshot(resnet)
resnet.train()
first = one_step(resnet, optimizer, images[:16], labels[:16])
speeds = first["moved_per_gradient"]
expected = "" if my_factor is ... else f"your factor: {my_factor}; "
print(f"{expected}measured: {speeds['fc'] / speeds['layer4']:.2f}")
assert (speeds / first["lr"] - 1).abs().max() < 0.05
first

# %%
for batch in torch.arange(16, 64).split(16):
    one_step(resnet, optimizer, images[batch], labels[batch])
report = freezing.freeze_report(before, resnet, optimizer)
report["drift"] = similarity.drift_by_stage(before, resnet)
assert report.index[report["weights_moved"]].tolist() == ["stage4", "head"]
assert report.index[report["statistics_moved"]].tolist() == ["stage4"]
report

# %% [markdown]
# In the first table the last column is the way divided by the gradient: it *is* the rate. Three
# more steps followed, with momentum. The report says that only `layer4`, which the course calls
# *stage4*, and the head moved. *Drift*, from lesson 02, is how far a stage's weights went, as a
# share of their length. The package makes the same groups for any network:

# %%
groups = param_groups(resnet, lrs={"stage4": 1e-4, "head": 1e-3})
for mine, theirs in zip(by_hand, groups, strict=True):
    assert [id(p) for p in mine["params"]] == [id(p) for p in theirs["params"]]
    assert mine["lr"] == theirs["lr"]
pd.DataFrame([{**group, "params": len(group["params"])} for group in groups])

# %% [markdown]
# ## 2 Rates that shrink from the head down
#
# With more stages, nobody wants to type every rate. *Decay* gives each stage a fixed part of the
# rate above it. Howard & Ruder (2018) divide by 2.6, layer by layer; here we do so stage by stage.
#
# ### Exercise 1 (6 minutes)
#
# Write it. The names come from the input to the head, as `stages(model)` lists them. Then use the
# explorer below the check, with the mouse, or with Tab and the arrow keys: how many times slower
# than the head is MobileNetV2's stem at a decay of 1/2.6?


# %% tags=["exercise"]
def rates_by_decay(names, head_lr, decay):
    """Return a dict from name to rate: the last name has head_lr, each one below decay times it."""
    # BEGIN SOLUTION
    return {name: head_lr * decay**depth for depth, name in enumerate(reversed(names))}
    # STUB: return ...  # how often is head_lr multiplied for the last name, and for the one below?
    # END SOLUTION


# %% tags=["check"]
lesson05.check_rates_by_decay(rates_by_decay)

# %%
pretrained = partial(backbones.load_backbone, "mobilenet_v2", weights="imagenet", num_classes=2)
explore_rates(pretrained(seed=0))

# %% [markdown]
# ## 3 Find a rate to start from
#
# All this hands on the head's rate. Where does that come from? The *range test* trains a copy
# while the rate rises at every step, from far too small to far too large. First the loss stands
# still, then it falls, then it breaks out. A rate from the middle of the fall is a start. Here only
# the last stage and the head train, so that it takes seconds.
#
# Will three seeds agree?

# %%
tests = {}
for seed in range(3):
    model = freezing.freeze(pretrained(seed=seed), through="stage4")
    kept = freezing.snapshot(model)
    test = dict(steps=60, batch_size=16, size=64, seed=seed, progress=False)
    tests[seed] = find_lr(model, data, low=1e-5, high=1.0, **test)
    print(f"seed {seed}: {tests[seed]}")
    assert not freezing.freeze_report(kept, model)["weights_moved"].any()
found = pd.Series({seed: result.suggestion for seed, result in tests.items()})
print(f"largest suggestion over smallest: {found.max() / found.min():.1f}")
assert not found.max() < 1.5 * found.min()  # the seeds differ, or one found nothing
title = f"One range test of three: it suggests {tests[0].suggestion:.2g}"
ax = plots.rate_test(tests[0], title=title)
plots.show(ax, alt="Loss against the rate on a log axis, with the suggested rate as a dashed line")

# %% [markdown]
# The network itself was not touched; the test trains a copy. Compare the three suggestions: they
# differ by the new head and the order of a few small batches, nothing else. So a suggestion is a
# start and no verdict. If the loss does not fall beyond its noise, the test suggests nothing. Run
# several seeds, with more steps than here, and let validation decide.
#
# ## 4 Does a stage drift as far as its rate lets it?
#
# Three ways from the same start with the same few steps of AdamW, five seeds each:
#
# - *uniform*: `1e-3` for all
# - *discriminative*: the head `1e-3`, everything below a tenth
# - *decay*: 1/2.6 from stage to stage

# %%
ways = {
    "uniform": dict(backbone_lr=1e-3),
    "discriminative": dict(backbone_lr=1e-4),
    "decay": dict(decay=ULMFIT_DECAY),
}


def trained_drift(seed, rates):
    model = pretrained(seed=seed)
    start, groups = freezing.snapshot(model), param_groups(model, head_lr=1e-3, **rates)
    fast = dict(epochs=1, batch_size=16, size=64, seed=seed, progress=False)
    fit(model, few, optimizer=torch.optim.AdamW(groups, fused=True), **fast)
    return similarity.drift_by_stage(start, model), {group["name"]: group["lr"] for group in groups}


# %%
rows = []
for seed in range(5):
    uniform, uniform_rates = trained_drift(seed, ways["uniform"])
    for way in ("discriminative", "decay"):
        drift, rates = trained_drift(seed, ways[way])
        for stage in drift.index:
            share, given = drift[stage] / uniform[stage], rates[stage] / uniform_rates[stage]
            rows.append(dict(seed=seed, way=way, stage=stage, share=share, given=given))
shares = pd.DataFrame(rows)

# %%
ax = plots.stage_curves(
    shares,
    y="share",
    group="way",
    title="A stage drifts about as far as its rate lets it",
    reference=shares.drop(columns="share").rename(columns={"given": "share"}),
    reference_name="rate given",
    ylabel="drift over drift with one rate",
)
ax.set(yscale="log", ylim=(1e-3, 2))
plots.show(ax, alt="Drift by stage, log axis: both ways follow the dashed lines of the rates given")
means = shares.groupby(["way", "stage"], sort=False)[["share", "given"]].mean()
assert (means["share"] / means["given"]).between(0.6, 1.6).all()
for _, run in shares[shares["way"] == "decay"].groupby("seed"):
    assert run["share"].is_monotonic_increasing

# %% [markdown]
# Solid lines run along the dashed ones: a tenth of the rate, about a tenth of the drift. AdamW
# divides each gradient by its usual size, so little but the rate sets the length of a step. With
# SGD the gradient's length counts as well, as section 1 showed.
#
# The third idea of Howard & Ruder is *gradual unfreezing*: the head trains first, then one stage
# after another joins in. `fit` releases stages before the epoch you name. `releasing` puts stages
# into groups that are still frozen.

# %%
model = freezing.freeze(pretrained(seed=0))
start = freezing.snapshot(model)
groups = param_groups(model, head_lr=1e-3, decay=ULMFIT_DECAY, releasing="stage3")
history = fit(
    model,
    few,
    epochs=5,
    optimizer=torch.optim.AdamW(groups, fused=True),
    schedule=partial(warmup_cosine, warmup_steps=4),
    unfreeze_at={"stage5": 2, "stage4": 3, "stage3": 4},
    batch_size=16,
    size=64,
    progress=False,
)

# %%
went = similarity.drift_by_stage(start, model)
assert (went[["stem", "stage1", "stage2"]] == 0).all()
assert went["stage3"] < went["stage4"] < went["stage5"]
ax = plots.rate_schedule(history, title="One rise and fall, in the proportions of the groups")
plots.show(ax, alt="Rate of four groups by step, log axis: parallel curves, the head's on top")
lrs = history.steps.filter(like="lr/").iloc[1:]  # in step 0 every rate is zero
assert (lrs.div(lrs["lr/head"], axis=0).std() < 1e-6).all()
went.to_frame().T

# %% [markdown]
# The *schedule* (lesson 04) multiplies every rate by the same number in each step, so the curves
# stay apart by the same factor. A stage that is released late has only the low end of its curve.
#
# ## 5 Does it pay?
#
# The drift obeys. Are the scores any better? The published runs used AdamW, about ninety steps and
# the same head rate for every way, tuned for none. *Cold* is one rate for all; *gradual* too, but
# stage after stage joins in. The first table: drift with decay over drift with *cold*, for `n`
# training images. The second: the test AUC that each way gains on *cold*, seed by seed. In how many
# of twelve comparisons will zero lie outside the interval?

# %%
tables = {s: load_table(f"04_first_look_{s}") for s in ("breastmnist", "phantom")}
longer = {}
for source, table in tables.items():
    for n, runs in table.groupby("n"):
        mean = runs.groupby("strategy").mean(numeric_only=True).filter(like="drift_")
        longer[source, n] = (mean.loc["decay"] / mean.loc["cold"]).drop("drift_head")
        assert longer[source, n].is_monotonic_increasing
pd.DataFrame(longer).round(3)

# %% tags=["predict"]
my_decided = ...  # a whole number from 0 to 12

# %%
rows = []
for (source, n), runs in pd.concat(tables.values()).groupby(["images", "n"]):
    auc = runs.pivot(index="seed", columns="strategy", values="auc")
    for way in ("discriminative", "decay", "gradual"):
        pairs = auc[[way, "cold"]].dropna()
        gain = metrics.paired_mean_interval(pairs[way], pairs["cold"])
        row = {"way": way, "images": source, "n": n, "seeds": len(pairs), "AUC gained": str(gain)}
        rows.append(row | {"better": gain.low > 0, "worse": gain.high < 0})
gained = pd.DataFrame(rows)
decided = gained["better"] | gained["worse"]
expected = "" if my_decided is ... else f"your guess: {my_decided}; "
print(f"{expected}decided: {decided.sum()} of {len(gained)}")
assert decided.mean() < 0.5
assert not gained.groupby("way")["better"].all().any()
gained.sort_values("way", kind="stable")

# %% tags=["instructor"]
# Let people defend their guess before the table. Most expect a clear win for decay. Ask: "What
# would you have to measure to find a difference of one point?" (Many more seeds.) When late, skip
# the range test and the gradual run; the traps take ten minutes.

# %% [markdown]
# Most intervals hold zero, and no way leads clearly at both sizes on both sets. So a rate for each
# layer does to the weights what it promises. Whether it helps the score, these seeds do not decide.
# Of twelve intervals, one may leave zero out by chance.
#
# ## 6 Four traps
#
# **A rate that nobody reads.** The library timm writes a factor `lr_scale` into each group, for its
# own schedulers. A plain torch optimizer keeps the key and ignores it: first cell.
#
# **In no group.** The optimizer is made, then the head is replaced. No error, yet the new head gets
# no step; `check_optimizer` warns. **In two groups.** Torch refuses. Both: second cell.

# %%
stages = param_groups(resnet, lrs={"stage4": 1e-3, "head": 1e-3})
stages[0]["lr_scale"] = 0.1
ignored = one_step(resnet, torch.optim.SGD(stages), images[:16], labels[:16])
print(ignored["moved_per_gradient"].round(6).to_dict())
for group in stages:
    group["lr"] *= group.pop("lr_scale", 1)
applied = one_step(resnet, torch.optim.SGD(stages), images[:16], labels[:16])
print(applied["moved_per_gradient"].round(6).to_dict())
assert abs(ignored["moved_per_gradient"]["stage4"] / 1e-3 - 1) < 0.05
assert abs(applied["moved_per_gradient"]["stage4"] / 1e-4 - 1) < 0.05

# %%
stale = torch.optim.SGD([p for p in resnet.parameters() if p.requires_grad], lr=1e-3)
backbones.replace_head(resnet, data.num_classes, seed=1)
before = freezing.snapshot(resnet)
one_step(resnet, stale, images[:16], labels[:16])
assert not freezing.freeze_report(before, resnet)["weights_moved"]["head"]
with warnings.catch_warnings(record=True) as caught:
    check_optimizer(resnet, stale)  # fit does this, too
print(*(warning.message for warning in caught), sep="\n")
assert "'head'" in str(caught[0].message)
try:
    torch.optim.SGD(
        [{"params": resnet.parameters()}, {"params": resnet.fc.parameters(), "lr": 1e-4}]
    )
except ValueError as error:
    print("torch:", error)

# %% [markdown]
# ### Exercise 2 (6 minutes)
#
# Write the search yourself: the names of parameters that may move but stand in no group. Compare
# by identity, not by value: two fresh layers can hold the same numbers.


# %% tags=["exercise"]
def missing_names(model, optimizer):
    """List the names of trainable parameters that the optimizer does not hold."""
    # BEGIN SOLUTION
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    # STUB: return ...  # optimizer.param_groups holds the groups; id(p) tells objects apart
    # END SOLUTION


# %% tags=["check"]
lesson05.check_missing(missing_names)

# %% [markdown]
# **A step per epoch where one per batch was meant.** The schedules here count optimizer steps.
# Call `step()` once per epoch, as with some schedulers of torch, and the training ends inside the
# warmup:

# %%
drawn = {}
for wrong in (False, True):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule, seen = warmup_cosine(optimizer, total_steps=40, warmup_steps=8), []
    for step in range(1, 41):  # 5 epochs of 8 batches
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        if not wrong or step % 8 == 0:
            schedule.step()
    drawn["step per epoch" if wrong else "step per batch"] = seen
ax = plots.schedule_curves(drawn, title="Stepped per epoch, the rate never leaves the warmup")
plots.show(ax, alt="Two curves: one rises and falls; the other climbs stairs to half the rate")
assert max(drawn["step per batch"]) == 1e-3 > max(drawn["step per epoch"])
assert history.steps["lr/head"].max() == 1e-3  # the training of section 4 did reach its rate

# %% [markdown]
# The rate written down in `history.steps` catches it: its maximum must be the rate you gave.
#
# ### Exercise 3 (3 minutes)
#
# How many steps must a schedule be told? The last batch of an epoch may be smaller, but it counts.


# %% tags=["exercise"]
def total_steps(num_images, batch_size, epochs):
    """Count the optimizer steps of a whole training."""
    # BEGIN SOLUTION
    return -(-num_images // batch_size) * epochs
    # STUB: return ...  # how many batches has an epoch? -(-a // b) divides and rounds up
    # END SOLUTION


# %% tags=["check"]
lesson05.check_total_steps(total_steps)

# %% [markdown]
# ## Key points
#
# - A group is a list of parameters with a rate. In SGD's first step, way over gradient is the rate.
# - With AdamW a stage drifts about in proportion to its rate.
# - A range test gives a start, and seeds disagree about it; validation chooses.
# - Decay keeps lower stages near their start. That it raises the score is not decided here.
# - Before training: is every parameter that may move in exactly one group? After it: did the rate
#   reach its target?
#
# ## Further reading
#
# - [PyTorch: torch.optim](https://docs.pytorch.org/docs/stable/optim.html#per-parameter-options):
#   groups and their options, and when to call a scheduler.
# - Howard & Ruder, *Universal Language Model Fine-tuning for Text Classification* (2018): decay by
#   2.6, gradual unfreezing and the slanted triangular schedule, for text.
# - Lee et al., *Surgical Fine-Tuning Improves Adaptation to Distribution Shifts* (2023): why the
#   lowest layers are sometimes the ones to train.
