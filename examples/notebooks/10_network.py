# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A network that looks at pairs of objects
#
# A resonance of 400 GeV decays to two Z bosons, one of which is seen as two leptons, the other as two jets. Most events
# with a Z boson and jets are something else. This notebook trains a network to tell the two apart, by features of the
# whole event and by its leptons and jets, of which there are between four and eight.
#
# Everything here is ordinary PyTorch underneath: blocks are modules, data are arrays. The same training, with a report,
# is one command: `diffdet train signal_background --out RUN`.

# %%
import os
import tempfile
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch

from diffdet.nn.callbacks.cyclic_callbacks import OneCycle
from diffdet.nn.callbacks.monitors import MetricLogger
from diffdet.nn.examples import signal_background
from diffdet.nn.interpretation import get_nn_feat_importance
from diffdet.nn.metrics import RocAucScore
from diffdet.nn.models.blocks.body import FullyConnected
from diffdet.nn.models.blocks.head import CatEmbHead, InteractionNet, MultiHead
from diffdet.nn.models.helpers import CatEmbedder
from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder
from diffdet.nn.physics.significance import significance_of_cuts
from diffdet.nn.plotting.interpretation import plot_feat_importance
from diffdet.nn.plotting.plot_settings import PlotSettings
from diffdet.nn.plotting.results import plot_roc, plot_sample_pred
from diffdet.nn.plotting.training import plot_train_history

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs
N_EVENTS, N_EPOCHS = (400, 2) if SMOKE else (20_000, 8)

# %% [markdown]
# ## The events
#
# The package makes them itself: decays by phase space, a detector that smears and loses, jets from initial-state
# radiation and from other collisions. Every event knows how many real ones it stands for, `yields`: 300 signal events
# are expected above 31,500 of background.

# %%
torch.set_num_threads(1)
settings = PlotSettings(h_small=3.5, h_mid=5, lbl_sz=14, tk_sz=12, leg_sz=12)
events = signal_background.make(N_EVENTS, seed=1)
print(f"{len(events):,} events, {events.targets.sum():,} of them signal; expected: {events.yields.sum():,.0f}")
print(f"flat features: {', '.join(events.cont_feats)}; categories: {', '.join(events.cat_feats)}")
print(f"up to {len(events.vecs)} objects with {', '.join(events.feats_per_vec)}")

# %%
mass = events.flat[:, events.cont_feats.index("lljj_mass")]
figure, axes = plt.subplots(figsize=(8, 4.5))
for name, process, colour in (("Z + jets", 1, "tab:blue"), ("ZZ", 2, "tab:orange"), ("signal", 0, "tab:red")):
    chosen = events.extra["process"] == process
    axes.hist(
        mass[chosen],
        np.linspace(150, 900, 61),
        weights=events.yields[chosen],
        histtype="step",
        color=colour,
        label=name,
    )
axes.set(yscale="log", xlabel="mass of both leptons and the two hardest jets [GeV]", ylabel="expected events")
axes.legend()
plt.show()

# %% [markdown]
# The resonance is there, below ten times as many other events per bin. A cut on this mass alone is what has
# to be beaten.
#
# ## Folds
#
# The events are dealt to ten folds of equal composition; inputs are scaled. Eight folds are for training, one is for
# validation, one is kept for the figures below. What yields folds gives arrays: flat features, a matrix of objects
# padded with zeros, and a mask that says which of them exist. Interaction networks take objects as columns.

# %%
folds = events.fold_yielder(10, seed=1, row_wise=False)
fold = folds[0]
flat, matrix = fold["inputs"]
print(folds)
print("flat", flat.shape, " objects", matrix.shape, " mask", fold["mask"].shape)
print("objects that exist in the first five events:", fold["mask"][:5].sum(1).tolist())

# %% [markdown]
# ## Two networks
#
# The first sees flat features only, with embeddings for the two categories. The second has a second head beside: an
# interaction network, which passes every ordered pair of objects through one small network and sums up what comes out.
# Neither the order of objects nor padding can change its answer.


# %%
def build(objects):
    """A network with or without a head for objects."""
    head, feats = CatEmbHead, list(events.cont_feats)
    if objects:
        sizes = {"intfunc_depth": 2, "intfunc_width": 32, "intfunc_out_sz": 16}
        sizes |= {"outfunc_depth": 2, "outfunc_width": 32, "outfunc_out_sz": 16}
        names = {"vecs": events.vecs, "feats_per_vec": events.feats_per_vec}
        head = partial(MultiHead, matrix_head=partial(InteractionNet, agg_method="sum", act="swish", **names, **sizes))
        feats += events.matrix_names
    builder = ModelBuilder(
        "classification",
        1,
        feats,
        {"body": {"depth": 3, "width": 64, "act": "swish", "do": 0.1}},
        {"opt": "adamw", "lr": 2e-3, "weight_decay": 1e-3},
        CatEmbedder.from_fy(folds),
        head=head,
        body=FullyConnected,
    )
    return Model(builder, seed=1)


def train(objects):
    """A trained network and its history."""
    folds.yield_matrix = objects
    model, logger = build(objects), MetricLogger()
    cycle = OneCycle((0.4 * N_EPOCHS, 0.6 * N_EPOCHS), (2e-4, 4e-3, 1e-5))
    with tempfile.TemporaryDirectory() as folder:
        model.fit(
            *(N_EPOCHS, folds, 128 if not SMOKE else 16),
            trn_idxs=range(8),
            val_idx=8,
            cbs=[cycle, RocAucScore(), logger],
            cb_savepath=folder,
            seed=1,
        )
    losses, metrics = logger.get_loss_history()
    return model, {"losses": losses, "metrics": metrics}


models, histories = {}, {}
for name, objects in (("flat features", False), ("flat features and objects", True)):
    models[name], histories[name] = train(objects)
    print(f"{name}: {models[name].get_param_count():,} parameters")

# %%
_ = plot_train_history(histories["flat features and objects"], settings=settings)

# %% [markdown]
# ## How good they are
#
# On the fold that nobody has seen. Bands are one standard error, from resampling the events.

# %%
tables = []
for name, model in models.items():
    folds.yield_matrix = "objects" in name
    fold = folds[9]
    score = model.predict(fold["inputs"], mask=fold.get("mask"))[:, 0]
    sample = np.array(["signal", "Z + jets", "ZZ"])[folds.get_column("process", fold_idx=9)]
    expected = folds.get_column("yields", fold_idx=9) * len(events) / len(score)
    tables.append({"pred": score, "gen_target": fold["targets"][:, 0], "gen_weight": expected, "gen_sample": sample})
areas = plot_roc(tables, wgt_name="gen_weight", labels=list(models), log_x=True, settings=settings)
for name, (area, error) in areas.items():
    print(f"{name}: area {area:.4f} ± {error:.4f}")

# %%
_ = plot_sample_pred(tables[-1], settings=settings)

# %% [markdown]
# An analysis would cut on the score and count. The significance that it may expect, for the two networks and for a
# window in the mass:

# %%
for name, table in zip(models, tables, strict=True):
    cuts, z = significance_of_cuts(table["pred"], table["gen_target"], table["gen_weight"], min_events=5)
    print(f"{name}: {z.max():.1f} standard deviations at a cut of {cuts[z.argmax()]:.3f}")
distance = -np.abs(mass[folds.sample_rows(9)] - 405)
cuts, z = significance_of_cuts(distance, tables[0]["gen_target"], tables[0]["gen_weight"], min_events=5)
print(f"mass alone: {z.max():.1f} standard deviations, within {-cuts[z.argmax()]:.0f} GeV")

# %% [markdown]
# ## What the network looks at
#
# Each feature is shuffled among events, and the loss rises by what the network got from it.

# %%
folds.yield_matrix = True
importance = get_nn_feat_importance(models["flat features and objects"], folds, idxs=[8, 9], repeats=2)
_ = plot_feat_importance(importance, settings=PlotSettings(lbl_sz=16, h_mid=6))

# %% [markdown]
# ## Padding and order mean nothing
#
# Garbage where no object is, and jets in another order: the prediction stays.

# %%
model, fold = models["flat features and objects"], folds[9]
flat, matrix = fold["inputs"]
plain = model.predict((flat, matrix), mask=fold["mask"])
garbage = np.where(fold["mask"][:, None], matrix, np.float32(1000))
order = np.random.default_rng(0).permutation(matrix.shape[2])
for what, changed, mask in (
    ("garbage in the padding", garbage, fold["mask"]),
    ("another order", matrix[:, :, order], fold["mask"][:, order]),
):
    difference = np.abs(model.predict((flat, changed), mask=mask) - plain).max()
    print(f"{what}: largest change {'below 1e-5' if difference < 1e-5 else f'{difference:.1e}'}")
