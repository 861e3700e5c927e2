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
# The test images stay shut here; the published runs at the end, whose recipes were fixed
# beforehand, were scored on them.

# %%
from functools import partial
from time import perf_counter

import pandas as pd
import torch

from tlcourse import backbones, freezing, heads, metrics, plots, probes, widgets
from tlcourse.checks import lesson04
from tlcourse.datasets import load_images
from tlcourse.features import extract_features
from tlcourse.firststeps import first_steps
from tlcourse.optim import constant, param_groups
from tlcourse.results import load_table
from tlcourse.similarity import linear_cka
from tlcourse.training import fit

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
# Lesson 03 froze a network by `requires_grad = False` and saw its running statistics move. What
# does that do to a head that stands on them? We take a logistic regression that was fitted on the
# pretrained features. Then a few training images pass through the network in train mode. No weight
# changes. Five times, with other images.
#
# How many points of validation AUC (of a hundred) will the same regression lose? And will a *new*
# one, fitted on the moved features, lose as much?

# %% tags=["predict"]
my_losses = ..., ...  # points of AUC: the same regression, a new one

# %%
old = probes.probe(start, few.labels)
rows = []
for seed in range(5):
    model = pretrained().requires_grad_(False).train()
    passing = backbones.preprocess(model, data.train.subset(96, seed=seed).images, 64)
    before = freezing.snapshot(model)
    for batch in passing.split(16):
        model(batch)
    moved, moved_val = features(model, few.images), features(model, data.val.images)
    new = probes.probe(moved, few.labels)
    scores = [p.predict_proba(f) for p, f in ((old, start_val), (old, moved_val), (new, moved_val))]
    aucs = [metrics.auc(data.val.labels, probs) for probs in scores]
    rows.append([*aucs, linear_cka(start_val, moved_val)])
moves = pd.DataFrame(rows, columns=["at the start", "same regression", "new regression", "cka"])
freezing.freeze_report(before, model)

# %%
lost = {n: moves["at the start"] - moves[n] for n in ("same regression", "new regression")}
bars = {name: metrics.mean_interval(values) for name, values in lost.items()}
ax = plots.score_bars(
    bars,
    title="Moved statistics cost the regression that was fitted before",
    xlabel="validation AUC lost, five draws of passing images",
    ylabel="judged by",
    colours=dict.fromkeys(bars, "black"),
    guess={n: g if g is ... else g / 100 for n, g in zip(bars, my_losses, strict=True)},
)
plots.show(ax, alt="AUC lost: well above zero for the same regression, less for a new one")
print("likeness of the features to the start (CKA):", metrics.mean_interval(moves["cka"]))
assert bars["same regression"].low > 0.03
assert metrics.paired_mean_interval(*lost.values()).low > 0.02
assert (bars["new regression"].low > 0) if data.simulated else (bars["new regression"].high < 0)

# %% [markdown]
# The same regression loses, clearly. A new one loses less; on the real scans it even gains, on the
# simulated ones it loses a little. So moved statistics are not bad features. They are *other*
# features than the head learned on. (These intervals are over the passing images only; the
# validation images are few, and the same each time.)
#
# The repair is to hold the mode, too: in eval mode the statistics are used and not changed. But
# `model.train()`, which begins every epoch, switches everything back.
#
# ### Exercise 1 (4 minutes)
#
# Begin an epoch by hand: the model trains, the modules in `held` stay in eval mode.


# %% tags=["exercise"]
def start_epoch(model, held):
    """Put the model in train mode, but every module of the list `held` in eval mode."""
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
# step uses it, with momentum and weight decay. `freeze` drops it.
#
# ## 2 The first steps, one by one
#
# The fear: a *random* head sends back large, meaningless gradients. So measure their size, the
# *norm*, twice on the same images: under a random head, and under a head that was trained on the
# features first. The rate is so small that nothing moves. Which head sends back more to the
# *backbone*, the network beneath the head?

# %% tags=["predict"]
larger = ...  # "random" or "trained"

# %%
sent = {"random": [], "trained": []}
for seed in range(5):
    layer = heads.train_head(start, few.labels, lr=1e-2, epochs=20, seed=seed)
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
# So the size does not tell a random head: here the trained one sends back *more*. A likely reason:
# a random head's weights are small, and what goes back is multiplied by them. Another: in train
# mode each batch normalises itself, so a head trained on other features is wrong at times, and sure
# of it.
#
# Besides, AdamW, SGD's cousin that lesson 00 used, divides each gradient by its usual size: its
# first step is as long as the rate says, *whatever* the gradient. The rate bounds the first steps.
#
# **Warmup** raises the rate from zero to its target in a straight line.
#
# ### Exercise 2 (5 minutes)
#
# Write the factor by which the rate is multiplied in each step.


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
# changes drastically. In plain torch, `LambdaLR` takes one function per group. Three ways:
#
# - *cold*: full rate everywhere from the first step
# - *warmup*: all rates rise
# - *new layers only*: the head's rate rises, the backbone has its full rate at once
#
# All get the same steps, five seeds each. As in lesson 02, *drift* says how far a stage's weights
# are from their start. What share of the cold run's drift will *warmup* have: right after the
# warmup, and at the end?

# %%
WARMUP, STEPS = 5, 13


def rise(step):
    return min(step / WARMUP, 1.0)


def full(step):
    return 1.0


ways = {"cold": (full, full), "warmup": (rise, rise), "new layers only": (full, rise)}


# %%
def run(way, below, head, seed):
    model = pretrained(seed=seed)
    groups = param_groups(model, head_lr=1e-3, backbone_lr=1e-3)  # one a stage, the head last
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [below] * (len(groups) - 1) + [head])
    table = first_steps(model, few, optimizer, schedule, steps=STEPS, seed=seed)
    kept = linear_cka(start_val, features(model, data.val.images))
    return table.assign(way=way, seed=seed, kept=kept)


# %% tags=["predict"]
my_shares = ..., ...  # right after the warmup, at the end; 1 means as much as cold

# %%
steps = pd.concat([run(way, *ways[way], seed) for seed in range(5) for way in ways])
ax = plots.stage_curves(
    steps[steps["step"] % 2 == 1],
    x="step",
    y="drift/stage5",
    group="way",
    title="Warmup of all rates holds the backbone back; of the new layers' alone, not",
    xlabel="optimizer step",
    ylabel="drift of the last stage",
)
plots.show(ax, alt="Drift by step: cold and new layers only lie together, warmup below both")

# %%
summed = round(sum(rise(step) for step in range(STEPS)))  # in steps at the full rate
compared = {  # a way and its step, and the step of the cold run
    "warmup, after the warmup": ("warmup", WARMUP, WARMUP),
    "warmup, at the end": ("warmup", STEPS, STEPS),
    "warmup, cold with the same sum of rates": ("warmup", STEPS, summed),
    "new layers only, after the warmup": ("new layers only", WARMUP, WARMUP),
    "new layers only, at the end": ("new layers only", STEPS, STEPS),
}
drift = steps.pivot(index="seed", columns=["way", "step"], values="drift/stage5")
share = {
    name: metrics.mean_interval(drift[way, step] / drift["cold", cold_step])
    for name, (way, step, cold_step) in compared.items()
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
plots.show(ax, alt="Shares of the cold drift: small after the warmup, larger at the end, 1 below")
early, late, summed_late, *only = share.values()
assert early.high < min(0.5, late.low - 0.1)
assert max(late.high, summed_late.high) < 1
assert all(abs(alone.estimate - 1) < 0.1 for alone in only)

# %%
kept = steps[steps["step"] == STEPS].pivot(index="seed", columns="way", values="kept")
for way in ways:
    print(f"likeness of the features to the start (CKA), {way}: {metrics.mean_interval(kept[way])}")
    assert metrics.mean_interval(kept[way]).high < 0.9
for way in ("warmup", "new layers only"):
    print(f"{way} minus cold:", metrics.paired_mean_interval(kept[way], kept["cold"]))

# %% [markdown]
# What is supported: warming up *all* rates keeps the backbone near its start for as long as they
# are low. Then it catches up, yet stays behind, also behind a cold run with the same sum of rates.
# But the features change drastically all the same: look at the likeness. The last lines say whether
# warmup keeps more.
#
# What is not: warming up the new layers alone leaves the backbone as exposed as no warmup. It makes
# sense above a backbone that is frozen or much slower, as in the next lesson.
#
# ## 3 Four ways from one start
#
# *Cold*, *warmup*, *frozen* (only the head trains), and *freeze then unfreeze*: first the head,
# then everything (Kumar et al. 2022). Same start, same steps, one seed.

# %%
live = data.with_train(few)
recipes = {
    "cold": {},
    "warmup": dict(schedule=partial(constant, warmup_steps=4)),
    "frozen": {},
    "freeze then unfreeze": dict(unfreeze_at={"stem": 3}),
}
rows = {}
for name, recipe in recipes.items():
    model = freezing.freeze(pretrained()) if name.startswith("fr") else pretrained()
    history = fit(model, live, epochs=4, size=64, progress=False, **recipe)
    kept = linear_cka(start_val, features(model, data.val.images))
    rows[name] = len(history.steps), kept
assert len({steps for steps, *_ in rows.values()}) == 1
pd.DataFrame(rows, index=["steps", "likeness"]).T.round(2)

# %% [markdown]
# One seed ranks nothing. The published runs have five: MobileNetV2, about 90 steps of 32 images,
# AdamW, the head's rate `1e-3` for all. It is a first look: no way got a rate chosen for it, and
# another rate may change the order. With 100 training images and with all, which ways beat
# *frozen* in test AUC? Say it aloud first.

# %%
NAMES = {"cold": "cold", "warmup": "warmup", "lp_ft": "freeze then unfreeze"}
published = pd.concat([load_table(f"04_first_look_{s}") for s in ("breastmnist", "phantom")])
gains = {}
for (images, n), runs in published.groupby(["images", "n"]):
    by_seed = runs.pivot(index="seed", columns="strategy", values="auc").dropna()
    for key, name in NAMES.items():
        gain = metrics.paired_mean_interval(by_seed[key], by_seed["frozen"])
        gains[f"{images}, {n}: {name}"] = gain
    gain = metrics.paired_mean_interval(by_seed["warmup"], by_seed["cold"])
    print(f"{images}, {n} images: AUC of warmup minus cold {gain}")
seconds = published.groupby("strategy")["train_seconds"].median()
assert seconds["frozen"] < seconds[list(NAMES)].min() / 2
likeness = {way: runs["cka_stage5"] for way, runs in published.groupby("strategy")}
assert likeness["frozen"].min() > 0.999
assert all(metrics.mean_interval(likeness[key]).high < 0.8 for key in NAMES)

# %%
ax = plots.score_bars(
    gains,
    title="Whoever's interval holds zero is not told apart from frozen",
    xlabel="test AUC, minus that of frozen, over seeds",
    ylabel="images, their number, way",
    reference=dict.fromkeys(gains, 0.0),
    reference_name="frozen",
    colours=dict.fromkeys(gains, "black"),
)
plots.show(ax, alt="AUC gained over frozen, with intervals over seeds, for two sets and two sizes")
for name, gain in gains.items():
    print(name, "is", "open" if not gain.excludes(0) else "better" if gain.low > 0 else "worse")
assert not any(gains[f"{images}, 100: cold"].excludes(0) for images in ("real", "simulated"))

# %% tags=["instructor"]
# People want a winner. Read the verdicts aloud, "open" included, then ask what they would do on
# Monday. (Start frozen, it is nearly free; fine-tune when there are images enough to see a gain.)
# When late, skip section 3's live runs.

# %% [markdown]
# With 100 images nobody can tell cold fine-tuning from frozen, on either set: then freezing is
# *enough*, for it is the cheapest. With all images read the lines: where a way is *better*,
# freezing *costs*; where it says *open*, five seeds do not decide. All that train the backbone end
# far from the start, warmed up or not.
#
# ## 4 Why frozen training takes seconds
#
# What a frozen part answers to an image never changes. So it need run only once; `fit` keeps its
# answers (a *cache*). `cache=False` computes them again in every epoch. How many times slower?

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
print(f"without a cache {factor:.1f} times slower{said}; the head's weights are the same")
assert torch.allclose(weights[True], weights[False], atol=1e-3)
assert factor > 2

# %% [markdown]
# Nothing is lost but the chance to see each image changed anew in every epoch.
#
# ### Exercise 3 (6 minutes)
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
# Now turn the controls: what does each stage, frozen or not, cost on *your* machine? Find out where
# most seconds go, and where most parameters are.

# %%
widgets.explore_freezing(pretrained(), images=len(data.train), size=64)

# %% [markdown]
# ## Key points
#
# - Moved statistics are other features: a head that was fitted before them suffers. Hold the mode.
# - Freeze before `backward`, or drop the gradient: the optimizer looks at `.grad`.
# - A random head's gradients are not larger than a trained head's. The rate bounds the first steps.
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
# - [PyTorch: LambdaLR](https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LambdaLR.html):
#   one function for all groups, or a list with one for each.
