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
# # Uranium in a lorry
#
# Lorries full of scrap metal pass a portal. In some of them somebody has hidden four litres of uranium. A portal that
# looks with muons should tell which, from the two thousand muons that cross a cubic metre within a quarter of a minute.
#
# This notebook is about a question with the answer yes or no: how to ask it, and what to make small so that a detector
# becomes good at answering it. The library has the problem, in a larger portal, as the design `u_lorry`:
# `diffdet optimise u_lorry --out RUN`.

# %%
import os
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LogNorm

from diffdet.kernels.ranking import order_error
from diffdet.tomography.benchmarks.u_lorry.data import ULorryPassiveGenerator
from diffdet.tomography.benchmarks.u_lorry.inference import ULorryLikelihoodClassifier
from diffdet.tomography.benchmarks.u_lorry.objective import MissedBlockLoss
from diffdet.tomography.benchmarks.u_lorry.study import evaluate_detector, pairs_of_lorries
from diffdet.tomography.inference import DenseBlockClassifierFromX0s, PanelX0Inferrer
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.detector_callbacks import PanelCentring, SigmoidPanelSmoothnessSchedule
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger
from diffdet.tomography.optimisation.callbacks.opt_callbacks import OneCycle
from diffdet.tomography.optimisation.callbacks.pred_callbacks import PredHandler, VolumeTargetPredHandler
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss import VolumeMSELoss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper
from diffdet.tomography.plotting.volume import draw_volume
from diffdet.tomography.volume import PanelDetectorLayer, PassiveLayer, SigmoidDetectorPanel, Volume

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs

# %% [markdown]
# ## Lorries
#
# A lorry is a cubic metre on an iron floor; above it scrap, every voxel of 10 cm iron or air by chance, up to 80 cm;
# and in every second lorry a cuboid of four voxels of uranium, somewhere, lying or standing. Uranium has a radiation
# length of 3.2 mm, iron one of 17.6 mm: the same thickness scatters by angles 2.4 times as large.
#
# Two portals of eight square metres: one whose panels crowd over a corner, and one as in a textbook, over the middle
# and spread in height.

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors are small here: more threads make them slower
U_VOLUME = 0.004  # cubic metres


def build_volume(centre, above, below, budget=8.0):
    """A portal: four panels above and four below, for eight square metres."""
    lw = torch.tensor([1.0, 1.0])

    def panels(heights):
        return [
            SigmoidDetectorPanel(smooth=0.3, res=1e4, eff=0.9, init_xyz=(*centre, z), init_xy_span=(1.0, 1.0))
            for z in heights
        ]

    layers = [PanelDetectorLayer("above", lw=lw, z=1.8, size=0.4, panels=panels(above))]
    layers += [PassiveLayer(lw, round(1.4 - 0.1 * k, 2), 0.1) for k in range(10)]
    layers += [PanelDetectorLayer("below", lw=lw, z=0.4, size=0.4, panels=panels(below))]
    return Volume(layers, budget=budget)


PORTALS = {
    "corner": partial(build_volume, (0.0, 0.0), (1.63, 1.62, 1.61, 1.60), (0.20, 0.19, 0.18, 0.17)),
    "textbook": partial(build_volume, (0.5, 0.5), (1.75, 1.65, 1.55, 1.45), (0.35, 0.25, 0.15, 0.05)),
}
N_PAIRS = 10 if SMOKE else 100
N_MUONS = 300 if SMOKE else 2_000
pairs = pairs_of_lorries(PORTALS["corner"](), N_PAIRS, seed=7, u_volume=U_VOLUME)  # with, without, with, ...

volume = PORTALS["textbook"]()
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
for number, axis in enumerate(axes):
    volume.load_rad_length(*pairs[number])
    cube = volume.get_rad_cube()
    if volume.target:
        middle = int((cube < 0.004).sum((0, 1)).argmax())  # where the uranium is; the next lorry is the same without
    drawn = axis.imshow(cube[:, :, middle].numpy(), origin="lower", extent=(0, 1, 0.4, 1.4), cmap="viridis_r",
                        norm=LogNorm(0.003, 1, clip=True))  # fmt: skip
    axis.set(xlabel="x [m]", title="uranium" if volume.target else "the same without")
axes[0].set_ylabel("z [m]")
figure.colorbar(drawn, ax=axes, label="$X_0$ [m]").ax.invert_yaxis()
plt.show()

# %% [markdown]
# ## How to ask
#
# **Of an image.** `DenseBlockClassifierFromX0s` asks a map of X0: how much denser are its four densest voxels than the
# rest? It takes any inferrer that makes such a map.
#
# **Of the muons.** A map is made of points of closest approach, and throws away most of what a muon says. Between its
# track above and its track below, a muon shows how much it was bent in each of two planes, and by how much the two
# lines miss each other. Whatever it may have crossed, the probability of such a kink is known: a normal density, whose
# covariance follows from what lies where along the path, and from the errors of the hits. So any two ideas of what is
# in the lorry can be weighed against each other. `ULorryLikelihoodClassifier` does it for uranium in every voxel,
# against even scrap: the logarithm of the ratio of both densities, summed over muons, is the *evidence*. The evidence
# for a block is the sum over its voxels, and all places and shapes of a block together make the odds.
#
# Where to draw the line is a matter of what is worse, a false alarm or a missed lorry. What does not depend on it is
# the *order error*: of two lorries, one with and one without, how probably does the wrong one look worse?

# %%
hold = partial(torch.optim.SGD, lr=0.0)
likelihood = partial(ULorryLikelihoodClassifier, u_volume=U_VOLUME)
image = partial(DenseBlockClassifierFromX0s, 4, PanelX0Inferrer)


def wrap(volume, classifier, seed=99, **optimisers):
    """A wrapper that, if not told otherwise, moves nothing."""
    options = {f"{name}_opt": optimisers.get(name, hold) for name in ("xy_pos", "z_pos", "xy_span", "budget")}
    return PanelVolumeWrapper(
        volume, **options, partial_volume_inferrer=classifier, loss_func=VolumeMSELoss(target_budget=None), seed=seed
    )


def ask_image(volume):
    """Answers of the classifier by image, for lorries with and without uranium."""
    found = wrap(volume, image).predict(
        PassiveYielder(pairs, shuffle=False), N_MUONS, N_MUONS, pred_cb=VolumeTargetPredHandler(), cbs=[MuonResampler()]
    )
    answers = torch.tensor([float(answer.reshape(-1)[0]) for answer, _ in found], dtype=torch.float64)
    return answers[0::2], answers[1::2]


def ask_muons(volume):
    """Logarithms of the odds from the likelihood, for the same lorries with and without uranium."""
    found = evaluate_detector(
        wrap(volume, likelihood), seed=7, n_pairs=N_PAIRS, n_muons=N_MUONS, batch=N_MUONS, u_volume=U_VOLUME
    )
    return found.with_uranium, found.without


found = {}
for name, portal in PORTALS.items():
    found[name] = ask_muons(portal())
    for question, answers in (("image", ask_image(portal())), ("muons", found[name])):
        print("{:9} {:6} order error {:.3f} +- {:.3f}".format(name, question, *order_error(*answers)))

# %% [markdown]
# The image knows next to nothing: four voxels among a thousand look densest by chance, with uranium or without. The
# likelihood finds four litres with the textbook's portal, though not always. Here is what it sees in the first lorry:
# the evidence in the slice of the picture above, with and without uranium, from ten times as many muons.


# %%
class Evidence(PredHandler):
    """Keeps the map of the evidence instead of the answer."""

    def on_pred_begin(self):
        """Forget earlier ones."""
        super().on_pred_begin()
        self.maps = []

    def on_x0_pred_end(self):
        """Note one."""
        inferrer = self.wrapper.fit_params.volume_inferrer
        self.maps.append((inferrer.evidence, inferrer.information))


def maps(volume, lorries, n_muons):
    """Evidence and information of lorries, ``(z, x, y)`` each."""
    handler = Evidence()
    wrap(volume, likelihood).predict(
        PassiveYielder(lorries, shuffle=False), n_muons, n_muons, pred_cb=handler, cbs=[MuonResampler()]
    )
    return handler.maps


volume.load_rad_length(*pairs[0])
uranium = volume.get_rad_cube() < 0.004
middle = int(uranium.sum((0, 1)).argmax())
seen = maps(volume, pairs[:2], 10 * N_MUONS)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
axes[0].imshow(uranium[:, :, middle].numpy(), origin="lower", extent=(0, 1, 0.4, 1.4), cmap="Reds", vmax=2)
axes[0].set(title="uranium", ylabel="z [m]")
limit = float(seen[0][0].abs().max())
for axis, (evidence, _), title in zip(axes[1:], seen, ("evidence", "evidence without uranium"), strict=True):
    drawn = axis.imshow(evidence[:, :, middle].numpy(), origin="lower", extent=(0, 1, 0.4, 1.4), cmap="RdBu_r",
                        vmin=-limit, vmax=limit)  # fmt: skip
    axis.set(title=title)
figure.colorbar(drawn, ax=axes, label="log of the ratio of densities")
plt.show()

# %% [markdown]
# ## What to make small
#
# The obvious loss is the classifier's: `VolumeClassLoss`, the cross-entropy of its answer. It fails twice. An answer is
# one number per lorry, and only a few muons in a hundred meet the uranium at all, so gradients are mostly luck. And a
# detector that sees little is punished for the little false evidence that it finds: the shortest way down is to see
# nothing.
#
# `MissedBlockLoss` asks every muon what it *could* tell about each voxel on its way, from the errors of its own
# measurement, and needs neither uranium nor luck. How well two hypotheses can be told apart, before the kink is known,
# is their Bhattacharyya distance; summed over muons it is the *information* on a voxel, and exp(-information) bounds
# the probability of a wrong decision. The loss is the mean of exp(-exposure information) over the voxels above the
# floor. The exponential stops rewarding what is well seen already: the portal has to see the whole lorry.
#
# `exposure` is 4 here, the voxels of the block, because the portal is used with as many muons as it is trained with.

# %%
N_EPOCHS = 2 if SMOKE else 60
RATES = {"xy_pos": 0.04, "z_pos": 0.02, "budget": 0.1}  # metres an update; the budget's is of its weights


class Quiet(MetricLogger):
    """Keeps losses, and prints nothing."""

    def print_losses(self):
        """Say nothing."""


volume, logger = PORTALS["corner"](), Quiet()
adam = partial(torch.optim.Adam, betas=(0.8, 0.95))
wrap(volume, likelihood, seed=0, **{name: partial(adam, lr=rate) for name, rate in RATES.items()}).fit(
    n_epochs=N_EPOCHS,
    passive_bs=4,
    n_mu_per_volume=N_MUONS,
    mu_bs=N_MUONS,
    trn_passives=PassiveYielder(ULorryPassiveGenerator(volume, u_volume=U_VOLUME), n_passives=4),
    val_passives=None,
    cbs=[
        MuonResampler(),
        NoMoreNaNs(),
        MissedBlockLoss(exposure=4),  # takes the place of the wrapper's loss
        PanelCentring(),
        SigmoidPanelSmoothnessSchedule((0.3, 0.05)),
        *[
            OneCycle(f"{name}_opt", warmup_length=N_EPOCHS // 2, init_lr=rate, mid_lr=rate, final_lr=rate / 20)
            for name, rate in RATES.items()
        ],
        logger,
    ],
)
found["optimised"] = ask_muons(volume)
for name, answers in found.items():
    print("{:9} order error {:.3f} +- {:.3f}".format(name, *order_error(*answers)))

# %%
figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
losses = logger.get_loss_history()[0]["Training"]
axes[0].plot(range(1, len(losses) + 1), losses, color="#0072B2")
axes[0].set(xlabel="update", ylabel="loss", title="training", yscale="log")
for (name, (with_, without)), colour in zip(found.items(), ("0.6", "#E69F00", "#0072B2"), strict=True):
    cuts = torch.cat([with_, without]).sort(descending=True).values
    caught, alarms = ((one >= cuts[:, None]).double().mean(1) for one in (with_, without))
    axes[1].step([0, *alarms.tolist()], [0, *caught.tolist()], where="post", color=colour, label=name)
axes[1].set(xlabel="false alarms", ylabel="uranium caught", title="test lorries")
axes[1].legend(frameon=False)
for axis, name in ((axes[2], "textbook"), (axes[3], "optimised")):
    with_, without = found[name]
    bins = torch.linspace(-4, 8, 25).tolist()
    axis.hist(without.clamp(-4, 8).numpy(), bins, color="0.7", label="without")
    axis.hist(with_.clamp(-4, 8).numpy(), bins, histtype="step", color="#D55E00", lw=2, label="uranium")
    axis.set(xlabel="log of the odds (the last bin: 7.5 and more)", title=name)
axes[2].legend(frameon=False)
plt.show()

# %% [markdown]
# The optimised portal has left its corner, and confuses fewer lorries than the textbook's at the same price. Where did
# the panels go?

# %%
figure = plt.figure(figsize=(13, 5))
shown = {"corner": PORTALS["corner"](), "textbook": PORTALS["textbook"](), "optimised": volume}
for place, (name, one) in enumerate(shown.items()):
    axis = figure.add_subplot(1, 3, place + 1, projection="3d")
    draw_volume(one, xlim=(-0.6, 1.4), ylim=(-0.6, 1.4), zlim=(0, 1.8), ax=axis)
    axis.set(title=name, xticks=(-0.5, 0, 0.5, 1), yticks=(-0.5, 0, 0.5, 1))
    axis.get_legend().remove()
plt.show()
for panel in volume.yield_panels():
    print(panel)

# %% [markdown]
# Close to the lorry, where panels see muons from all sides, and wider than it; one panel on each side is all but given
# up, for the sake of the others. What that is worth shows in the information: the picture is the probability that a
# block around a voxel is missed, as the loss counts it, averaged over x.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
for axis, (name, one) in zip(axes, shown.items(), strict=True):
    ((_, information),) = maps(one, pairs[1:2], N_MUONS)
    missed = torch.exp(-4 * information[1:]).mean(1)
    drawn = axis.imshow(missed.numpy(), origin="lower", extent=(0, 1, 0.5, 1.4), cmap="magma", vmin=0, vmax=1)
    axis.set(title=f"{name}: mean {missed.mean():.2f}", xlabel="y [m]")
axes[0].set_ylabel("z [m]")
figure.colorbar(drawn, ax=axes, label="missed")
plt.show()
