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
# - catch four mistakes with groups and schedules, three of which raise no error
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
from tlcourse.optim import ULMFIT_DECAY, check_optimizer, find_lr, param_groups, warmup_cosine
from tlcourse.results import load_table
from tlcourse.training import fit
from tlcourse.training.steps import one_step
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
# As in lesson 03, ResNet-18 (four stages, not five) starts from random weights if ImageNet's are
# out of reach. What follows holds for both.

# %% [markdown] tags=["instructor"]
# - Say: A group is a list with a number. The last column of the first table IS the rate.
# - Wrong: They expect a frozen layer in a group to move, or a layer in no group to complain.
# - Ask: With equal gradients, who goes further, and how many times?
# - Late: Show the table, skip the package's version.

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
# Make one step, and measure for each group the norm of its gradient and how far it moved, a norm as
# well. In the first step there is no momentum yet. If the head and `layer4` had gradients of the
# same norm, which would move further, and how many times?

# %% tags=["predict"]
my_factor = ...  # movement of the head over that of layer4, at equal gradients

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
groups = param_groups(resnet, lrs={"stage4": 1e-4, "head": 1e-3})
for mine, theirs in zip(by_hand, groups, strict=True):
    assert [id(p) for p in mine["params"]] == [id(p) for p in theirs["params"]]
    assert mine["lr"] == theirs["lr"]
report

# %% [markdown]
# In the first table the last column is movement divided by gradient: it *is* the rate. Then three
# more steps followed, with momentum. The report says that only `layer4`, which the course calls
# *stage4*, and the head moved. *Drift*, from lesson 02, is a share of a stage's own size: the head
# has few numbers, so the same movement is a far larger drift. The assertions hold that the
# package's `param_groups` makes the same groups; it does so for any network.

# %% [markdown]
# ## 2 Rates that shrink from the head down
#
# With more stages, nobody wants to type every rate. *Decay* (not the *weight decay* of an
# optimizer) gives each stage a fixed part of the rate above it. Howard & Ruder (2018) divide by
# 2.6, layer by layer; here we do so stage by stage.
#
# ### Exercise 1 (6 minutes)
#
# Write it. The names come from the input to the head, as `stages(model)` lists them. Then use the
# explorer below the check, with the mouse, or with Tab and the arrow keys: how many times slower
# than the head is MobileNetV2's stem at a decay of 1/2.6?


# %% [markdown] tags=["instructor"]
# - Say: One number, the decay, in place of one rate per stage.
# - Wrong: They turn the ladder upside down: the stem gets the head's rate.
# - Ask: At 1/2.6 per stage, how slow is the stem?
# - Late: Do the exercise with the explorer only.


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
names = list(backbones.stages(pretrained(seed=0)))
print(f"at 1/2.6 the stem is {2.6 ** (len(names) - 1):.0f} times slower than the head")
explore_rates(pretrained(seed=0))

# %% [markdown]
# ## 3 Find a rate to start from
#
# All these rates hang on the head's. Where does that come from? The *range test* trains a copy
# while the rate rises at every step, from far too small to far too large, and measures the loss of
# the same few images, held back from training. In the ideal curve it stands still, falls, and
# breaks out. Suggested is the rate at which half of the first clear fall was done. Here only the
# last stage and the head train, so that it takes seconds.
#
# Will three seeds agree?

# %% [markdown] tags=["instructor"]
# - Say: A range test is a start, no verdict. Seeds agree on the power of ten, not on the number.
# - Wrong: They take the suggestion for the best rate.
# - Ask: Would you trust one seed? What would you compare the suggestion with?
# - Late: Skip the section; say that validation chooses.

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
assert found.max() < 10 * found.min()  # they agree on the power of ten
ax = plots.rate_test(tests[0], title=f"One of three: it suggests {tests[0].suggestion:.2g}")
plots.show(ax, alt="Loss by rate, log axis: it falls, then breaks out; the suggestion dashed")

# %% [markdown]
# The network itself was not touched; the test trains a copy. The three suggestions lie close
# together, though each seed has its own head and its own images held back. That makes none of them
# the best rate: the test saw each rate for one step. So a suggestion is a start and no verdict;
# validation decides. Below we keep the usual `1e-3` for the head.
#
# ## 4 Does a stage drift as far as its rate lets it?
#
# Three ways from the same start with the same few steps of AdamW, five seeds each:
#
# - *one rate*: `1e-3` for all, as lesson 04's *cold* runs
# - *discriminative* (Howard & Ruder's word for rates that differ): everything below the head a
#   tenth
# - *decay*: 1/2.6 from stage to stage

# %% [markdown] tags=["instructor"]
# - Say: With AdamW the rate alone says how far a stage may go.
# - Wrong: They expect lower stages to stay put because their gradients are small.
# - Ask: A tenth of the rate: what share of the drift?
# - Late: Skip the gradual run.

# %%
methods = {
    "one rate": dict(backbone_lr=1e-3),
    "discriminative": dict(backbone_lr=1e-4),
    "decay": dict(decay=ULMFIT_DECAY),
}


def trained_drift(seed, rates):
    model = pretrained(seed=seed)
    start, groups = freezing.snapshot(model), param_groups(model, head_lr=1e-3, **rates)
    fast = dict(epochs=1, batch_size=16, size=64, seed=seed, progress=False)
    fit(model, few, optimizer=torch.optim.AdamW(groups, fused=True), **fast)
    return similarity.drift_by_stage(start, model), pd.Series({g["name"]: g["lr"] for g in groups})


# %%
rows = []
for seed in range(5):
    one, one_rates = trained_drift(seed, methods["one rate"])
    for method in ("discriminative", "decay"):
        drift, rates = trained_drift(seed, methods[method])
        run = pd.DataFrame({"share": drift / one, "given": rates / one_rates})
        rows.append(run.rename_axis("stage").reset_index().assign(seed=seed, method=method))
shares = pd.concat(rows)

# %%
ax = plots.stage_curves(
    shares,
    y="share",
    group="method",
    title="A stage drifts about as far as its rate lets it",
    reference=shares.drop(columns="share").rename(columns={"given": "share"}),
    reference_name="share of the rate",
    ylabel="drift, as a share of one rate's",
)
ax.set(yscale="log", ylim=(1e-3, 2))
plots.show(ax, alt="Drift by stage, log axis: both ways follow the dashed lines of the rates given")
means = shares.groupby(["method", "stage"], sort=False)[["share", "given"]].mean()
assert (means["share"] / means["given"]).between(0.6, 1.6).all()
for _, run in shares[shares["method"] == "decay"].groupby("seed"):
    assert run["share"].is_monotonic_increasing

# %% [markdown]
# Solid lines run along the dashed ones: a tenth of the rate, about a tenth of the drift. AdamW
# divides each gradient by its usual size, so little but the rate sets the length of a step. With
# SGD the gradient's length counts as well, as section 1 showed.
#
# Another idea of Howard & Ruder is *gradual unfreezing*: the head trains first, then one stage
# after another joins in. `fit` releases stages before the epoch you name. `unfreezing="stage3"`
# makes groups now for stages that are frozen still and will be released later.

# %%
model = freezing.freeze(pretrained(seed=0))
start = freezing.snapshot(model)
groups = param_groups(model, head_lr=1e-3, decay=ULMFIT_DECAY, unfreezing="stage3")
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
ax = plots.rate_schedule(history, title="All rates rise and fall together, in fixed proportion")
plots.show(ax, alt="Rate of four groups by step, log axis: parallel curves, the head's on top")
lrs = history.steps.filter(like="lr/").iloc[1:]  # in step 0 every rate is zero
assert (lrs.div(lrs["lr/head"], axis=0).std() < 1e-6).all()
went.to_frame().T

# %% [markdown]
# This *schedule* warms up, then falls to zero along half a cosine wave: large steps first, small
# ones to settle. It multiplies every rate by the same number in each step. A stage that is released
# late has only the low end of its curve.
#
# ## 5 Does it pay?
#
# The drift obeys. Are the scores any better? The published runs of lesson 04 hold these ways, too,
# each with the rate, of three, that did best on validation. *Gradual*, unlike the run above, has
# one rate for all; stage after stage joins in. The first table: drift with decay over drift with
# one rate (*cold*). The second: the test AUC that each way gains on *cold*, seed by seed. In how
# many will zero lie outside the interval?

# %% [markdown] tags=["instructor"]
# - Say: Let people defend their guess before the table.
# - Wrong: Most expect a clear win for small rates below.
# - Ask: What would you have to measure to find a difference of one point? (Many more seeds.)
# - Late: Read the count of decided comparisons and go on.

# %%
published = pd.concat([load_table(f"04_strategies_{s}") for s in ("breastmnist", "phantom")])
published = published[published["split"] != "official"]
by_size = published.groupby(["images", "n", "strategy"]).mean(numeric_only=True)
drifts = by_size.filter(like="drift_").drop(columns="drift_head")
ratio = drifts.xs("decay", level="strategy") / drifts.xs("cold", level="strategy")
assert all(row.is_monotonic_increasing for _, row in ratio.iterrows())
ratio.round(3)

# %% tags=["predict"]
my_decided = ...  # a whole number from 0 to 24: three ways, four sizes, two sets

# %%
METHODS = ["discriminative", "decay", "gradual"]
auc = published.pivot(index=["images", "n", "seed"], columns="strategy", values="auc")
gains = auc[METHODS].sub(auc["cold"], axis=0).groupby(["images", "n"]).agg(metrics.mean_interval)
verdicts = gains.map(lambda gain: gain.verdict)
decided = (verdicts != "open").to_numpy().sum()
expected = "" if my_decided is ... else f"your guess: {my_decided}; "
print(f"{expected}decided: {decided} of {verdicts.size}, {auc.index.unique('seed').size} seeds")
print(
    "rates of the head:", published.groupby("strategy")["lr"].first()[[*METHODS, "cold"]].to_dict()
)
assert not (verdicts == "better").all().any()
assert decided < verdicts.size / 2
assert (verdicts["discriminative"].groupby("images").last() == "worse").all()  # all images
gains.map(lambda gain: f"{gain} {gain.verdict}")

# %% [markdown]
# Most intervals hold zero, and no way is better at every size on both sets. A rate for each layer
# does to the weights what it promises. Whether it helps the score, these seeds mostly leave open.
# (Of two dozen intervals one or so may leave zero out by chance.)
#
# Look at the rates, too. Validation gave *discriminative* the lowest of three, and its backbone had
# a tenth of that. With all images, where fine-tuning pays, it lost to *cold*.
#
# ## 6 Four traps
#
# A fifth, freezing after `backward`, you met in lesson 04.
#
# **A rate that nobody reads.** timm, a library of pretrained networks, writes a factor `lr_scale`
# into each group, for its own schedulers. A plain torch optimizer keeps the key and ignores it.

# %% [markdown] tags=["instructor"]
# - Say: Three of these raise no error; only torch's own refusal names its mistake. Each is caught
#   by one look at the groups or the history.
# - Wrong: They step a per-step schedule once per epoch.
# - Ask: Which of these have you met at work?
# - Late: Exercise 2 can be homework; the traps take ten minutes.

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

# %% [markdown]
# **In no group.** The optimizer is made, then the head is replaced. No error, yet the new head gets
# no step; `check_optimizer` warns. **In two groups.** Torch refuses.

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
# ### Exercise 2 (8 minutes)
#
# Write the search yourself: the names of parameters that may move but stand in no group. Compare
# by identity, not by value: two fresh layers can hold the same numbers.
# `model.named_parameters()` gives names and parameters.


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
# **A step per epoch where one per batch was meant.** The schedules here count optimizer steps; some
# of torch's count epochs. If you call `schedule.step()` once per epoch, the training ends inside
# the warmup:

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
# (`fit` lets a single image left over join the batch before it; leave that case out.)


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
# - A group is a list of parameters with a rate. In SGD's first step, movement over gradient is the
#   rate.
# - With AdamW a stage drifts about in proportion to its rate.
# - A range test gives a start, to about a power of ten; validation chooses.
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
