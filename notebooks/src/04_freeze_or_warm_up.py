# %% [markdown]
# # Freeze or warm up
#
# A new head knows nothing, and the network beneath it knows much. Will the first steps wreck what
# was learned? The usual advice: freeze the network, or raise the rate slowly from zero. Today you
# measure what each of them does, and what neither does.
#
# **What you will be able to do**
#
# - freeze a stage whole, and prove that it stood still
# - write a warmup, for all layers or for the new ones only
# - say what warmup delays and what it does not prevent
# - choose between freezing and fine-tuning from a table with intervals
# - say when keeping the frozen part's answers makes training fast
#
# **What you need:** lessons 00 to 03.
#
# **Minutes:** 50
#
# The test images stay shut here; only the published runs in section 3, whose recipes were fixed
# beforehand, were scored on them.

# %%
from functools import partial
from time import perf_counter

import numpy as np
import pandas as pd
import torch

from tlcourse import backbones, freezing, metrics, plots, similarity, widgets
from tlcourse.checks import lesson04
from tlcourse.datasets import load_images
from tlcourse.features import extract_features, probe
from tlcourse.optim import constant, param_groups
from tlcourse.results import load_table
from tlcourse.training import fit, linear_head
from tlcourse.training.steps import first_steps

# %%
data = load_images("breast")
few = data.train.subset(128, seed=0)
pretrained = partial(backbones.load_backbone, "mobilenet_v2", weights="imagenet", num_classes=2)
features = partial(extract_features, size=64, progress=False)
start, start_val = (features(pretrained(), part.images) for part in (few, data.val))
data

# %% [markdown]
# ## 1 The floor moves under the head
#
# Lesson 03 froze a network by `requires_grad = False` and saw its running statistics move. In train
# mode a normalisation layer scales each batch by the batch's own mean and spread, and moves its
# running ones towards them. In eval mode it uses the running ones and leaves them.
#
# What does that do to a head that stands on such features? Take a logistic regression fitted on
# them: that is a head, too. Then a few training images pass through the network in train mode; no
# weight changes. Five times, with other images.
#
# How many points of validation AUC (of a hundred) will the same regression lose? And a *new* one,
# fitted on the moved features?

# %% [markdown] tags=["instructor"]
# - Say: A floor that moves is not a bad floor; it is another one than the head learned to stand
#   on.
# - Wrong: They think that frozen means requires_grad = False. Let them find the second half
#   themselves.
# - Ask: No weight changed. Why does the old regression lose, and the new one less?
# - Late: Skip Exercise 1 and name its two lines.

# %% tags=["predict"]
my_losses = ..., ...  # points of AUC: the same regression, a new one

# %%
old = probe(start, few.labels)
rows = []
for seed in range(5):
    model = pretrained().requires_grad_(False).train()
    before, passing = freezing.snapshot(model), data.train.subset(96, seed=seed).images
    for batch in backbones.preprocess(model, passing, 64).split(16):
        model(batch)
    moved, moved_val = features(model, few.images), features(model, data.val.images)
    new = probe(moved, few.labels)
    scores = [p.predict_proba(f) for p, f in ((old, start_val), (old, moved_val), (new, moved_val))]
    aucs = [metrics.auc(data.val.labels, probs) for probs in scores]
    rows.append([*aucs, similarity.linear_cka(start_val, moved_val)])
moves = pd.DataFrame(rows, columns=["at the start", "same regression", "new regression", "cka"])
report = freezing.freeze_report(before, model)
assert not report["weights_moved"].any()

# %%
lost = {n: 100 * (moves["at the start"] - moves[n]) for n in ("same regression", "new regression")}
bars = {name: metrics.mean_interval(values) for name, values in lost.items()}
ax = plots.score_bars(
    bars,
    title="The old regression loses most; a new one wins most of it back",
    xlabel="points of validation AUC lost (of 100), five draws of passing images",
    ylabel="judged by",
    colours=dict.fromkeys(bars, "black"),
    guess=dict(zip(bars, my_losses, strict=True)),
)
ax.axvline(0, color="black", linewidth=1)
plots.show(ax, alt="Points lost: well above zero for the same regression, less for a new one")
print(f"AUC at the start {moves['at the start'][0]:.3f}; CKA {metrics.mean_interval(moves['cka'])}")
assert bars["same regression"].low > max(3, 2 * bars["new regression"].estimate)
assert metrics.paired_mean_interval(*lost.values()).low > 2

# %% [markdown]
# The same regression loses, clearly. A new one wins most of it back (on the real scans it even
# gained, when we ran it). So moved statistics do not spoil features. They make *other* features
# than the head learned on: look at CKA (lesson 02). (These intervals are over the passing images
# only; the validation images are few, and the same each time.)
#
# The repair is to hold the mode, too: in eval mode the statistics are used and not changed. But
# `model.train()`, which begins every epoch, switches everything back.
#
# ### Exercise 1 (4 minutes)
#
# Begin an epoch by hand: the model trains, the modules in `held` stay in eval mode.


# %% tags=["exercise"]
def start_epoch(model, held):
    """Put the model in train mode, every module of the list `held` in eval; return nothing."""
    # BEGIN SOLUTION
    model.train()
    for module in held:
        module.eval()
    # STUB: return ...  # two steps in place of this line; their order matters
    # END SOLUTION


# %% tags=["check"]
lesson04.check_start_epoch(start_epoch)

# %% [markdown]
# `freezing.freeze` does that for you: a stage it holds stays in eval mode whatever `train()` says.
# One more trap waits for those who freeze in the middle of training. Here a layer is frozen
# *after* `backward`, *before* the next `step`. Will it move?

# %%
moved = {}
for left in ("gradient left", "gradient dropped"):
    layer = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(3, 4)).sum().backward()
    layer.requires_grad_(False)
    if left == "gradient dropped":
        layer.weight.grad = layer.bias.grad = None
    before = layer.weight.clone()
    optimizer.step()
    moved[left] = not torch.equal(before, layer.weight)
print("moved:", moved)
assert moved == {"gradient left": True, "gradient dropped": False}

# %% [markdown]
# The optimizer looks at `.grad`, not at `requires_grad`. As long as a gradient stands there, each
# step uses it. `zero_grad` clears it, so in the usual loop that costs one step; `freeze` drops it
# at once.
#
# ## 2 The first steps, one by one
#
# The fear: a *random* head sends large, meaningless gradients back to the *backbone*, the network
# beneath the head. So measure their size (the *norm*: the root of the sum of squares) on the same
# two batches, once under a random head, once under a head that was trained on the features first.
# The rate is so small that hardly a weight moves. Which head sends back more?

# %% [markdown] tags=["instructor"]
# - Say: Take the fear seriously, then measure it: the random head is not the one that shouts.
# - Wrong: They expect warmup to protect for good. It delays.
# - Ask: Which way would you bet on before the curve is drawn: cold, warmup, or new layers only?
# - Late: Skip Exercise 2; the drawing shows the factor.

# %% tags=["predict"]
larger = ...  # "random" or "trained"

# %%
sent = {"random": [], "trained": []}
for seed in range(5):
    layer = linear_head.train_head(start, few.labels, lr=1e-2, epochs=20, seed=seed)
    for kind in sent:
        model = pretrained(seed=seed)
        if kind == "trained":
            backbones.head(model).load_state_dict(layer.state_dict())
        still = torch.optim.SGD(param_groups(model, head_lr=1e-6, backbone_lr=1e-6))
        table = first_steps(model, few, still, steps=2, batch_size=32, seed=seed)
        sent[kind].append(table["grad/backbone"].mean())
for kind, norms in sent.items():
    print(f"{kind} head, norm of the backbone's gradient: {metrics.mean_interval(norms)}")
more = metrics.paired_mean_interval(sent["trained"], sent["random"])
print(f"trained minus random: {more}; you said: {'-' if larger is ... else larger}")
assert more.low > 0

# %% [markdown]
# Here the trained head sends back *more*. A likely reason: a random head's weights are small, and
# what goes back is multiplied by them. Another: the trained one learned on eval-mode features and
# gets train-mode ones, so it is sometimes sure and wrong. And AdamW, lesson 00's optimizer, divides
# each gradient by its usual size: in its first step every number moves by about the rate, whatever
# the gradient. Then the rate is the danger. Lesson 05 measures that.
#
# A *schedule* changes the rate from step to step. **Warmup** raises it from zero in a straight
# line.
#
# ### Exercise 2 (5 minutes)
#
# For a given step: which share of the full rate does a warmup give?


# %% tags=["exercise"]
def rising(step, warmup_steps):
    """Return 0 at step 0, 1 from step `warmup_steps` on, a straight line between."""
    # BEGIN SOLUTION
    return min(step / warmup_steps, 1.0) if warmup_steps else 1.0
    # STUB: return ...  # what must come out if there is no warmup, warmup_steps = 0?
    # END SOLUTION


# %% tags=["check"]
lesson04.check_rising(rising)

# %% [markdown]
# The notes behind this course say: raise the *new* layers' rate from zero, so that nothing learned
# changes drastically. In torch an optimizer may hold several *groups* of parameters, each with its
# own rate, and `LambdaLR` takes one function per group. Three ways:
#
# - *cold*: full rate everywhere from the first step
# - *warmup*: all rates rise
# - *new layers only*: the head's rate rises, the backbone has its full rate at once
#
# Rates rise over 5 steps; there are 13 in all, five seeds each. As in lesson 02, *drift* says how
# far a stage's weights are from their start. What share of the cold run's drift will *warmup* have:
# right after the warmup, and at the end?

# %% tags=["predict"]
my_shares = ..., ...  # right after the warmup, at the end; 1 means as much as cold

# %%
WARMUP, STEPS = 5, 13


def rise(step):
    return np.interp(step, [0, WARMUP], [0, 1])


def full(step):
    return 1.0


methods = {"cold": (full, full), "warmup": (rise, rise), "new layers only": (full, rise)}


# %%
def run(method, below, head, seed):
    model = pretrained(seed=seed)
    groups = param_groups(model, head_lr=1e-3, backbone_lr=1e-3)  # one a stage, the head last
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [below] * (len(groups) - 1) + [head])
    table = first_steps(model, few, optimizer, schedule, steps=STEPS, seed=seed)
    kept = similarity.linear_cka(start_val, features(model, data.val.images))
    return table.assign(method=method, seed=seed, kept=kept)


# %%
steps = pd.concat([run(method, *methods[method], seed) for seed in range(5) for method in methods])
ax = plots.stage_curves(
    steps[steps["step"] % 2 == 1],
    x="step",
    y="drift/stage5",
    group="method",
    title="Only warming up all rates holds the last stage back",
    xlabel="optimizer step",
    ylabel="relative drift of the last stage",
)
plots.show(ax, alt="Drift by step: cold and new layers only lie together, warmup below both")

# %%
summed = round(sum(rise(step) for step in range(STEPS)))  # in steps at the full rate
compared = {  # a way and its step, and the step of the cold run
    "warmup, after the warmup": ("warmup", WARMUP, WARMUP),
    "warmup, at the end": ("warmup", STEPS, STEPS),
    f"warmup at the end, cold after {summed} steps": ("warmup", STEPS, summed),
    "new layers only, after the warmup": ("new layers only", WARMUP, WARMUP),
    "new layers only, at the end": ("new layers only", STEPS, STEPS),
}
drift = steps.pivot(index="seed", columns=["method", "step"], values="drift/stage5")
share = {
    name: metrics.mean_interval(drift[method, step] / drift["cold", cold_step])
    for name, (method, step, cold_step) in compared.items()
}

# %%
ax = plots.score_bars(
    share,
    title="What warmup saves at first, it partly gives back",
    xlabel="drift of the last stage, as a share of the cold run's",
    ylabel="way and time",
    reference=dict.fromkeys(share, 1.0),
    reference_name="as much as cold",
    guess=dict(zip(share, my_shares, strict=False)),
    colours=dict.fromkeys(share, "black"),
)
ax.set_xlim(left=0)
plots.show(ax, alt="Shares of the cold drift: small after the warmup, larger at the end, 1 below")
early, late, summed_late, *only = share.values()
assert early.high < min(0.5, late.low - 0.1)
assert max(late.high, summed_late.high) < 1

# %%
kept = steps[steps["step"] == STEPS].pivot(index="seed", columns="method", values="kept")
assert all(abs(alone.estimate - 1) < 0.1 for alone in only)
print("CKA with the start, moved statistics alone:", metrics.mean_interval(moves["cka"]))
for method in methods:
    print(f"{method}: {metrics.mean_interval(kept[method])}")
    assert metrics.mean_interval(kept[method]).high < 0.9
for method in ("warmup", "new layers only"):
    print(f"{method} minus cold:", metrics.paired_mean_interval(kept[method], kept["cold"]))

# %% [markdown]
# Warming up *all* rates keeps the last stage near its start while they are low. Then it catches up,
# yet stays behind, also behind a shorter cold run whose rates add up to the same. The features
# change drastically all the same: look at CKA. The last lines say whether warmup kept more.
#
# Warming up the new layers *alone* does not protect the backbone: it went as far as with no warmup.
# Above a frozen backbone it may make sense; this course does not measure that.
#
# ## 3 Four ways from one start
#
# *Cold*, *warmup*, *frozen* (only the head trains), and *freeze then unfreeze*: first the head,
# then everything (Kumar et al. 2022). Same start, same steps, one seed.

# %% [markdown] tags=["instructor"]
# - Say: Read the verdicts aloud, 'open' included.
# - Wrong: They want a winner, and take a dot to the right for one.
# - Ask: What would you do on Monday? (Start frozen, it is nearly free; fine-tune when a gain was
#   seen on images like yours.)
# - Late: Skip the live runs; the published figures carry the section.

# %%
live = data.with_train(few)
recipes = {
    "cold": {},
    "warmup": dict(schedule=partial(constant, warmup_steps=4)),
    "frozen": {},  # this one and the next start with a frozen backbone
    "freeze then unfreeze": dict(unfreeze_at={"stem": 3}),
}
rows = {}
for name, recipe in recipes.items():
    model = freezing.freeze(pretrained()) if name.startswith("fr") else pretrained()
    history = fit(model, live, epochs=4, size=64, progress=False, **recipe)
    kept = similarity.linear_cka(start_val, features(model, data.val.images))
    rows[name] = len(history.steps), kept, history.table["val_auc"].iloc[-1]
assert len({steps for steps, *_ in rows.values()}) == 1
pd.DataFrame(rows, index=["steps", "CKA with the start", "validation AUC"]).T.round(2)

# %% [markdown]
# One seed ranks nothing. The published runs have five, with 50 to all training images: MobileNetV2,
# AdamW, about 54 steps whatever the number of images. Each way has the rate, of three, that did
# best on validation images; then the test images were opened. The images are dealt as in these
# lessons. From how many images on will fine-tuning beat *frozen*? Say it aloud first.

# %%
NAMES = {"cold": "cold", "warmup": "warmup", "lp_ft": "freeze then unfreeze"}
published = pd.concat([load_table(f"04_strategies_{s}") for s in ("breastmnist", "phantom")])
published = published[published["split"] != "official"]  # whose parts leak: see lesson 07
auc = published.pivot(index=["images", "n", "seed"], columns="strategy", values="auc")
gains = auc[[*NAMES]].sub(auc["frozen"], axis=0).rename(columns=NAMES)
lines = gains.melt(ignore_index=False, var_name="method", value_name="gain").reset_index()
look = dict(
    x="n", y="gain", group="method", ylim=(-0.2, 0.2), ylabel="test AUC minus that of frozen"
)
for images, runs in lines.groupby("images"):
    title = f"{images} scans: cold and warmup lead frozen with all images, not with 50"
    ax = plots.learning_curves(runs, title=title, xlabel="training images (log scale)", **look)
    ax.axhline(0, color="black", linewidth=1)
    plots.show(ax, alt=f"AUC gained over frozen, {images} scans: around zero, above it at the end")

# %%
decided = gains.groupby(["images", "n"]).agg(metrics.mean_interval)
print(decided.map(lambda gain: f"{gain} {gain.verdict}").to_string())
for key, runs in auc.groupby(["images", "n"]):
    print("warmup minus cold:", *key, metrics.paired_mean_interval(runs["warmup"], runs["cold"]))
verdicts = decided[["cold", "warmup"]].map(lambda gain: gain.verdict).groupby("images")
assert (verdicts.first() == "open").all(axis=None)  # with 50 images
assert (verdicts.last() == "better").all(axis=None)  # with all
seconds = published.groupby("strategy")["train_seconds"].median()
assert seconds["frozen"] < seconds[[*NAMES]].min() / 2
assert gains.groupby(["images", "n"]).size().eq(5).all()  # seeds, the same for every way
kept = {method: runs["cka_stage5"] for method, runs in published.groupby("strategy")}
assert kept["frozen"].min() > 0.999
assert all(metrics.mean_interval(kept[key]).high < 0.8 for key in NAMES)

# %% [markdown]
# With 50 images nothing is decided on either set: then freezing is *enough*, for it is the
# cheapest. With all images cold and warmup lead: there freezing *costs*. In between, and for warmup
# against cold, read the lines; *open* means that five seeds do not tell. (The test images are the
# same for each.) *Freeze then unfreeze* had as many steps as the others, so its backbone had half
# of them; more steps may change that. All that train the backbone end far from the start, warmed up
# or not.
#
# ## 4 Why frozen training takes seconds
#
# What a frozen part answers to an image never changes. So it need run only once; `fit` keeps its
# answers (a *cache*). `cache=False` computes them again in every epoch. How many times slower?

# %% [markdown] tags=["instructor"]
# - Say: What never changes need be computed once. Then turn the explorer's controls together.
# - Wrong: They expect the cache to help full fine-tuning. Where nothing is frozen there is
#   nothing to keep.
# - Ask: Half of the time is spent below the boundary: how much faster can it get at most?
# - Late: Skip Exercise 3.

# %% tags=["predict"]
my_factor = ...  # times slower without a cache, over ten epochs

# %%
seconds, weights = {True: [], False: []}, {}
for cache in (True, False, True, False):  # twice each: other programs may disturb one
    model, began = freezing.freeze(pretrained()), perf_counter()
    fit(model, live, epochs=10, size=64, cache=cache, progress=False)
    seconds[cache].append(perf_counter() - began)  # filling the cache included
    weights[cache] = backbones.head(model).weight.detach()
factor = min(seconds[False]) / min(seconds[True])
said = "" if my_factor is ... else f", you said {my_factor}"
apart = (weights[True] - weights[False]).abs().max()
print(f"without a cache {factor:.1f} times slower{said}; the heads differ by {apart:.0e} at most")
assert apart < 1e-3
assert factor > 2

# %% [markdown]
# One thing is lost: images cannot be flipped or shifted anew in every epoch (*augmentation*). With
# `views=2`, `fit` caches two versions of each image instead.
#
# ### Exercise 3 (4 minutes)
#
# One pass through the frozen part takes `below` seconds an epoch, training what stands above it
# `above` seconds. How many times faster does the cache make a training of `epochs` epochs?


# %% tags=["exercise"]
def speedup(epochs, below, above):
    """Return uncached seconds over cached seconds; the cache must be filled once."""
    # BEGIN SOLUTION
    return epochs * (below + above) / (below + epochs * above)
    # STUB: return ...  # uncached seconds divided by cached seconds
    # END SOLUTION


# %% tags=["check"]
lesson04.check_speedup(speedup)

# %% [markdown]
# However many epochs, the factor cannot pass (below + above) / above: what still trains is the
# limit. Now turn the controls: what does each stage, frozen or not, cost on *your* machine? Find
# out where most seconds go, and where most parameters are.

# %%
widgets.explore_freezing(pretrained(), images=len(data.train), size=64)

# %% [markdown]
# ## Key points
#
# - Moved statistics are other features: a head that was fitted before them suffers. Hold the mode.
# - Freeze before `backward`, or drop the gradient: the optimizer looks at `.grad`.
# - A random head need not shout: here a trained one sent back more. Mind the rate.
# - Warmup of all rates delays the backbone's way. It does not keep the network as it was. Warmup of
#   the new layers' rate alone leaves the backbone exposed.
# - With few images start frozen: it is cheapest, and the rest was not told apart from it.
# - Frozen stages run once. The part that still trains bounds what caching gains.
#
# ## Further reading
#
# - Kumar et al. 2022, [*Fine-tuning can distort pretrained features and underperform
#   out-of-distribution*](https://arxiv.org/abs/2202.10054): why to train the head first, and that
#   the gain shows mostly on images of another kind.
# - [pytorch/pytorch issue 86590](https://github.com/pytorch/pytorch/issues/86590): frozen layers
#   whose statistics move, and what others did about it.
# - [PyTorch:
#   LambdaLR](https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LambdaLR.html):
#   one function for all groups, or a list with one for each.
