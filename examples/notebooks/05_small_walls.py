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
# # Walls in the ground
#
# Somewhere in a block of soil, 10 m on every side, there are buried walls: one to four of them, a metre thick,
# wandering about. Where? Archaeologists would like to know before they dig.
#
# The problem comes with the library (`benchmarks.small_walls`): the volume, and a generator of random walls. This
# notebook adds what is particular to the question: an **inferrer** of its own and a **loss** of its own, a few lines
# each.

# %%
import os
from functools import partial

import matplotlib.pyplot as plt
import torch

from diffdet.kernels.poca_image import axis_masses
from diffdet.tomography.benchmarks.small_walls.data import SmallWallsPassiveGenerator
from diffdet.tomography.benchmarks.small_walls.volume import get_small_walls_volume
from diffdet.tomography.inference import AbsVolumeInferrer
from diffdet.tomography.inference.volume import panel_efficiency
from diffdet.tomography.muon import MuonGenerator2016
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger
from diffdet.tomography.optimisation.callbacks.pred_callbacks import VolumeTargetPredHandler
from diffdet.tomography.optimisation.callbacks.warmup_callbacks import CostCoefWarmup
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss import AbsDetectorLoss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs

# %% [markdown]
# ## The volume
#
# Eight panels, four above the ground and four in a tunnel below it, that measure to 1 mm. They are as wide as the
# block, but were put up in one corner, where the tunnel is easy to reach. Muons have 10 GeV: of those with less, few
# would come through 10 m of soil.

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors are small here: more threads make them slower


def build_volume():
    """Block of soil with panels of 10 m, off-centre by 2.5 m."""
    volume = get_small_walls_volume(span=1.0, res=1e3, eff=0.9)
    with torch.no_grad():
        for panel in volume.yield_panels():
            panel.xy.fill_(2.5)
    return volume


volume = build_volume()
walls = SmallWallsPassiveGenerator(volume)
muons_of = partial(MuonGenerator2016.from_volume, fixed_mom=10.0)

figure = plt.figure(figsize=(13, 4.5))
for place in range(3):
    layout, target = walls.get_data(generator=torch.Generator().manual_seed(place))
    axis = figure.add_subplot(1, 3, place + 1, projection="3d")
    axis.voxels(target.permute(1, 2, 0).bool().numpy(), facecolor="#B5651D", edgecolor="0.3", linewidth=0.2)
    axis.set(xlim=(0, 10), ylim=(0, 10), zlim=(0, 10), xlabel="x [m]", ylabel="y [m]", zlabel="z [m]")
    axis.set_title(f"{int(target.sum())} m³ of wall")
plt.show()

# %% [markdown]
# ## An inferrer of one's own
#
# A wall scatters three times as much as soil, but every muon crosses 40 radiation lengths of soil besides, so its point
# of closest approach says little about where it scattered. `PanelX0Inferrer` weighs muons with small angles most; here
# a plain mean of the *logarithm* of the angle is steadier. The inferrer adds up, per voxel, weights and weighted
# logarithms, and at the end takes from each layer its mean: what is left stands out from the soil beside it.
#
# The sums are differentiable in the detector, because points, uncertainties and efficiencies are.


# %%
class LogAngleImage(AbsVolumeInferrer):
    """Mean logarithm of the scattering angle of the muons whose tracks meet in a voxel, relative to its layer."""

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
        weight, log_angle = weight[usable], angle[usable].clamp_min(1e-5).log()
        rows = torch.stack([weight * log_angle, weight])
        self.sums = self.sums + torch.einsum("zm,xm,ym,qm->qzxy", z, x, y, rows)
        self.n_muons += len(log_angle)

    def get_prediction(self):
        """Contrast to the layer, (z, x, y); None where no muon was usable."""
        if self.n_muons == 0:
            return None
        logs, weights = self.sums
        of_layer = (logs.sum((1, 2)) / (weights.sum((1, 2)) + 1e-3))[:, None, None]
        return (logs + of_layer) / (weights + 1) - of_layer  # one muon's worth of the layer where there are few


# %% [markdown]
# ## A loss of one's own
#
# The contrast has no unit, and needs none: what counts is whether it goes with the walls. The loss is one minus the
# square of their correlation, the part of the wall map's variance that the image does not explain. As any loss it can
# carry a penalty on the cost.


# %%
class UnexplainedWalls(AbsDetectorLoss):
    """One minus the squared correlation of image and wall map."""

    def _get_inference_loss(self, pred, volume):
        image, truth = pred.flatten(), volume.target.flatten().to(pred)
        image, truth = image - image.mean(), truth - truth.mean()
        return 1 - (image @ truth) ** 2 / (image @ image * (truth @ truth))


# %% [markdown]
# ## What the first detector sees
#
# `judge` sends muons through walls that no optimisation will meet, with physical panels. Beside the loss it computes
# what archaeologists would ask: if voxels are dug up in the order of their contrast, how soon are walls found? The area
# under that curve is 1 for a perfect image and 0.5 for none.

# %%
N_TEST = 3 if SMOKE else 16
N_MUONS = 500 if SMOKE else 10_000
tests = PassiveYielder([walls.get_data(generator=torch.Generator().manual_seed(1000 + k)) for k in range(N_TEST)])


def wrap(volume, seed, **learning_rates):
    """A wrapper with Adam for every family."""
    optimisers = {
        name: partial(torch.optim.Adam, lr=learning_rates.get(name, 0.0))
        for name in ("xy_pos_opt", "z_pos_opt", "xy_span_opt")
    }
    return PanelVolumeWrapper(
        volume,
        **optimisers,
        loss_func=UnexplainedWalls(target_budget=1_600),
        partial_volume_inferrer=LogAngleImage,
        mu_generator=muons_of(volume),
        seed=seed,
    )


def judge(volume):
    """Images, wall maps, and curves of walls found against voxels dug up."""
    pairs = wrap(volume, seed=99).predict(
        tests, N_MUONS, mu_bs=10_000, pred_cb=VolumeTargetPredHandler(), cbs=[MuonResampler()]
    )
    images, truths = (torch.stack([torch.as_tensor(one) for one in column]) for column in zip(*pairs, strict=True))
    order = images.flatten(1).argsort(dim=1, descending=True)
    dug = truths.flatten(1).double().gather(1, order)
    curves = dug.cumsum(1) / dug.sum(1, keepdim=True)
    free = (1 - dug).cumsum(1) / (1 - dug).sum(1, keepdim=True)
    areas = torch.stack([torch.trapezoid(curve, x) for curve, x in zip(curves, free, strict=True)])
    return images, truths, curves.mean(0), areas


images_before, truths, curve_before, area_before = judge(volume)
print(f"area under the curve: {area_before.mean():.3f} +- {area_before.std() / N_TEST**0.5:.3f}")

# %% [markdown]
# ## Optimisation

# %%
logger = MetricLogger()
wrapper = wrap(volume, seed=0, xy_pos_opt=0.4, z_pos_opt=0.03, xy_span_opt=0.4)
wrapper.fit(
    n_epochs=2 if SMOKE else 30,
    passive_bs=4,
    n_mu_per_volume=N_MUONS,
    mu_bs=10_000,
    trn_passives=PassiveYielder(walls, n_passives=4),
    val_passives=None,
    cbs=[MuonResampler(), NoMoreNaNs(), CostCoefWarmup(1), logger],
)

# %%
images_after, _, curve_after, area_after = judge(volume)
gain = area_after - area_before
print(f"area under the curve: {area_after.mean():.3f} +- {area_after.std() / N_TEST**0.5:.3f}")
print(f"better by {gain.mean():.3f} +- {gain.std() / N_TEST**0.5:.3f}")
print(f"square metres of panel: 800 before, {volume.get_cost().item():.0f} after")

figure, axes = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
axes[0].plot(logger.get_loss_history()[0]["Training"], color="#0072B2")
axes[0].set(xlabel="update", ylabel="loss", title="training")
part = torch.linspace(0, 1, len(curve_before))
axes[1].plot(part, curve_before, color="0.5", label="before")
axes[1].plot(part, curve_after, color="#0072B2", label="after")
axes[1].plot([0, 1], [0, 1], color="0.8", lw=1)
axes[1].set(xlabel="part of the voxels dug up", ylabel="part of the walls found", title="held-out ground")
axes[1].legend(frameon=False)
axes[2].add_patch(plt.Rectangle((0, 0), 10, 10, fc="0.92"))
for shown, colour, text in ((build_volume(), "0.5", "before"), (volume, "#0072B2", "after")):
    for k, panel in enumerate(shown.yield_panels()):
        corner = (panel.xy - panel.xy_span / 2).tolist()
        label = None if k else text
        axes[2].add_patch(plt.Rectangle(corner, *panel.xy_span.tolist(), fill=False, ec=colour, lw=1.5, label=label))
axes[2].set(xlim=(-5, 16), ylim=(-5, 16), aspect="equal", xlabel="x [m]", ylabel="y [m]", title="panels")
axes[2].legend(loc="lower right", fontsize=8)
plt.show()

# %% [markdown]
# With about as many square metres, in a better place, walls come out that were out of sight. Here is one block of
# ground from ten times as many muons, layer by layer, the highest on the left.

# %%
layout, target = tests.passives[int(truths.flatten(1).sum(1).argmax())]
rows = {"walls": target}
for name, shown in (("before", build_volume()), ("after", volume)):
    one = PassiveYielder([(layout, target)])
    rows[name] = torch.as_tensor(wrap(shown, seed=98).predict(one, 10 * N_MUONS, 10_000, cbs=[MuonResampler()])[0][0])
figure, axes = plt.subplots(3, 6, figsize=(12, 6.4), layout="constrained")
for number, (name, cube) in enumerate(rows.items()):
    for axis, layer in zip(axes[number], (8, 7, 6, 5, 4, 3), strict=True):
        low, high = (0, 1) if name == "walls" else (-0.2, 0.4)
        axis.imshow(cube[layer].T.numpy(), origin="lower", vmin=low, vmax=high, cmap="cividis")
        axis.set(xticks=[], yticks=[], title="" if number else f"z = {1.5 + layer:.1f} m")
    axes[number, 0].set_ylabel(name)
plt.show()

# %% [markdown]
# An inferrer or a loss of one's own is also named in a configuration, as `package.module:Class`; see
# [extending](../../docs/extending.md).
#
# Next: [uranium in a lorry](06_u_lorry.py).
