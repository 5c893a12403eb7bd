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
# Lorries full of scrap metal pass a portal. In some of them somebody has hidden 12 litres of uranium. A portal that
# looks with muons should tell which, from the two thousand muons that cross a cubic metre within a quarter of a minute.
#
# This notebook is about a question with the answer yes or no: how to ask it of an image, how to optimise a detector for
# it, and why it can be better to optimise for something else.

# %%
import os
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LogNorm

from diffdet.kernels.poca_image import axis_masses
from diffdet.kernels.scattering import x0_from_angles
from diffdet.tomography.benchmarks.u_lorry.data import ULorryPassiveGenerator
from diffdet.tomography.inference import AbsVolumeInferrer, DenseBlockClassifierFromX0s
from diffdet.tomography.inference.volume import panel_efficiency
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.detector_callbacks import (
    PanelCentring,
    SigmoidPanelSmoothnessSchedule,
)
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger
from diffdet.tomography.optimisation.callbacks.pred_callbacks import VolumeTargetPredHandler
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss import AbsDetectorLoss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper
from diffdet.tomography.plotting.volume import draw_volume
from diffdet.tomography.volume import PanelDetectorLayer, PassiveLayer, SigmoidDetectorPanel, Volume

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs

# %% [markdown]
# ## Lorries
#
# A lorry is a cubic metre on an iron floor; above it scrap, every voxel of 10 cm iron or air by chance, up to 80 cm,
# and in every second lorry a cuboid of uranium of any shape, somewhere. Uranium scatters 2.4 times as much as iron.

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors are small here: more threads make them slower


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
lorries = ULorryPassiveGenerator(PORTALS["corner"](), u_volume=0.012)

volume = PORTALS["corner"]()
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained")
for seed, axis in enumerate(axes):
    volume.load_rad_length(*lorries.get_data(generator=torch.Generator().manual_seed(seed)))
    cube = volume.get_rad_cube()
    middle = int((cube < 0.004).sum((0, 1)).argmax()) if volume.target else 5
    drawn = axis.imshow(cube[:, :, middle].numpy(), origin="lower", extent=(0, 1, 0.4, 1.4), cmap="viridis_r",
                        norm=LogNorm(0.003, 1, clip=True))  # fmt: skip
    axis.set(xlabel="x [m]", title="uranium" if volume.target else "clean")
axes[0].set_ylabel("z [m]")
figure.colorbar(drawn, ax=axes, label="$X_0$ [m]").ax.invert_yaxis()
plt.show()

# %% [markdown]
# ## From an image to an answer
#
# `DenseBlockClassifierFromX0s` asks an image of X0: how much denser are its 12 densest voxels than the rest? It takes
# any inferrer that makes such an image. The one here takes the *geometric* mean of the scattering angles in a voxel,
# which a few muons with tiny or huge angles cannot upset.


# %%
class SteadyX0(AbsVolumeInferrer):
    """X0 of every voxel from the mean logarithm of the scattering angle of the muons whose tracks meet there."""

    def __init__(self, volume):
        super().__init__(volume)
        self.edges = volume.voxel_edges()
        self.sums, self.n_muons = 0.0, 0

    def compute_efficiency(self, scatters):
        """Probability of two hits above and two below."""
        return panel_efficiency(scatters)

    def add_scatters(self, scatters):
        """Add a batch of muons; nothing of it is kept but sums."""
        poca, sigma = scatters.poca_xyz.T, scatters.poca_xyz_unc.T
        angle, angle_sigma = scatters.total_scatter.squeeze(-1), scatters.total_scatter_unc.squeeze(-1)
        weight = self.compute_efficiency(scatters) / (1 + (angle_sigma / 0.01) ** 2)
        usable = (poca + sigma).detach().isfinite().all(0) & angle_sigma.detach().isfinite()
        x, y, z = axis_masses(poca[:, usable], sigma[:, usable], *self.edges)
        rows = torch.stack([weight[usable] * angle[usable].clamp_min(1e-5).log(), weight[usable]])
        self.sums = self.sums + torch.einsum("zm,xm,ym,qm->qzxy", z, x, y, rows)
        self.n_muons += int(usable.sum())

    def get_prediction(self):
        """X0 (z, x, y), m; None where no muon was usable."""
        if self.n_muons == 0:
            return None
        logs, weights = self.sums
        everywhere = logs.sum() / (weights.sum() + 1e-3)
        angle = ((logs + everywhere) / (weights + 1)).exp()  # the overall mean where there are few muons
        return x0_from_angles(self.volume.passive_size, angle / 2**0.5, torch.ones_like(angle), torch.tensor(5.0))


classifier = partial(DenseBlockClassifierFromX0s, 12, SteadyX0, use_avgpool=False)

# %% [markdown]
# The answer is a number, larger where there is uranium. Where to draw the line is a matter of what is worse, a false
# alarm or a missed lorry; the curve of lorries caught against false alarms shows all choices, and the area under it,
# from 0.5 for guessing to 1, sums them up.

# %%
N_TEST = 24 if SMOKE else 300
N_MUONS = 300 if SMOKE else 2_000
tests = PassiveYielder([lorries.get_data(generator=torch.Generator().manual_seed(1000 + k)) for k in range(N_TEST)])
hold = partial(torch.optim.SGD, lr=0.0)


def judge(volume):
    """Answers for the test lorries, and which of them have uranium."""
    wrapper = PanelVolumeWrapper(
        volume, xy_pos_opt=hold, z_pos_opt=hold, xy_span_opt=hold, partial_volume_inferrer=classifier, seed=99
    )
    pairs = wrapper.predict(tests, N_MUONS, N_MUONS, pred_cb=VolumeTargetPredHandler(), cbs=[MuonResampler()])
    answers, truths = (torch.tensor([one.reshape(-1)[0] for one in column]) for column in zip(*pairs, strict=True))
    return answers, truths.bool()


def area(answers, truths):
    """Probability that a lorry with uranium gets the larger answer, and its standard error by resampling lorries."""
    wins = (answers[truths][:, None] > answers[~truths]).double()
    generator = torch.Generator().manual_seed(0)
    resampled = [
        wins[torch.randint(len(wins), (len(wins),), generator=generator)]
        .mean(0)[torch.randint(wins.shape[1], (wins.shape[1],), generator=generator)]
        .mean()
        for _ in range(200)
    ]
    return wins.mean(), torch.stack(resampled).std()


found = {name: judge(build()) for name, build in PORTALS.items()}
for name, result in found.items():
    print("{:9} area {:.3f} +- {:.3f}".format(name, *area(*result)))

# %% [markdown]
# ## What to optimise
#
# The obvious loss is the classifier's: `VolumeClassLoss`, the cross-entropy of its answer. But an answer is one number
# per lorry, and most of its variation is luck: which scrap, which muons. Gradients of it are mostly noise, and many
# lorries must be averaged for one good step.
#
# The image behind the answer has a thousand voxels, and every one of them can say whether it is right. So the loss here
# is how much of the variation of the true log X0 the image leaves unexplained, and the classifier comes back only to
# judge. Whether that is a good stand-in is not a matter of taste: the judge will say.


# %%
class UnexplainedImage(AbsDetectorLoss):
    """One minus the squared correlation of the logarithms of inferred and true X0."""

    def _get_inference_loss(self, pred, volume):
        image, truth = pred.log().flatten(), volume.get_rad_cube().log().flatten()
        image, truth = image - image.mean(), truth - truth.mean()
        return 1 - (image @ truth) ** 2 / (image @ image * (truth @ truth))


adam = partial(torch.optim.Adam, betas=(0.8, 0.95))
volume = PORTALS["corner"]()
wrapper = PanelVolumeWrapper(
    volume,
    xy_pos_opt=partial(adam, lr=0.04),
    z_pos_opt=partial(adam, lr=0.02),
    xy_span_opt=hold,  # the money says how large panels are
    budget_opt=partial(adam, lr=0.1),
    loss_func=UnexplainedImage(target_budget=None),
    partial_volume_inferrer=SteadyX0,
    seed=0,
)
logger = MetricLogger()
N_EPOCHS, N_LORRIES = (2, 2) if SMOKE else (60, 8)
wrapper.fit(
    n_epochs=N_EPOCHS,
    passive_bs=N_LORRIES,
    n_mu_per_volume=N_MUONS,
    mu_bs=N_MUONS,
    trn_passives=PassiveYielder(lorries, n_passives=N_LORRIES),
    val_passives=None,
    cbs=[MuonResampler(), NoMoreNaNs(), PanelCentring(), SigmoidPanelSmoothnessSchedule((0.3, 0.05)), logger],
)

# %%
found["optimised"] = judge(volume)
for name, result in found.items():
    print("{:9} area {:.3f} +- {:.3f}".format(name, *area(*result)))

figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
axes[0].plot(logger.get_loss_history()[0]["Training"], color="#0072B2")
axes[0].set(xlabel="update", ylabel="loss", title="training")
for (name, (answers, truths)), colour in zip(found.items(), ("0.6", "#E69F00", "#0072B2"), strict=True):
    order = answers.argsort(descending=True)
    caught, alarms = truths[order].double().cumsum(0), (~truths[order]).double().cumsum(0)
    axes[1].plot(alarms / alarms[-1], caught / caught[-1], color=colour, label=name)
axes[1].set(xlabel="false alarms", ylabel="uranium caught", title="test lorries")
axes[1].legend(frameon=False)
for axis, name in ((axes[2], "textbook"), (axes[3], "optimised")):
    answers, truths = found[name]
    bins = torch.linspace(answers.min(), answers.max(), 25).tolist()
    axis.hist(answers[~truths].numpy(), bins, color="0.7", label="clean")
    axis.hist(answers[truths].numpy(), bins, histtype="step", color="#D55E00", lw=2, label="uranium")
    axis.set(xlabel="answer", title=name)
axes[2].legend(frameon=False)
plt.show()

# %% [markdown]
# The optimised portal has left its corner, and catches more than the textbook's at the same price. Where did the panels
# go?

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
# A few large panels, and next to nothing for the others: the same lesson as in [a fixed budget](03_fixed_budget.py).
# The panels do not stand as far apart as the textbook's, because more muons then cross both. If the judge had said no,
# the stand-in would have been a bad one, and the next thing to try is the classifier's own loss with many lorries to an
# update.
