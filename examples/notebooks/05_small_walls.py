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
# The problem comes with the library, as the design `small_walls`: `diffdet optimise small_walls --out RUN` does all of
# it. Here we take it apart: what a good detector is for such a question, what to make small, and how to see more in
# the same muons with an **inferrer of one's own**.

# %%
import os
from functools import partial

import matplotlib.pyplot as plt
import torch

from diffdet.kernels.poca_image import axis_masses
from diffdet.kernels.scattering import x0_from_angles
from diffdet.runs.build import build_volume
from diffdet.runs.config import load_config
from diffdet.tomography.benchmarks.small_walls.data import SmallWallsPassiveGenerator
from diffdet.tomography.benchmarks.small_walls.loss import ContrastLoss
from diffdet.tomography.inference import AbsVolumeInferrer, PanelX0Inferrer
from diffdet.tomography.inference.volume import panel_efficiency
from diffdet.tomography.muon import MuonGenerator2016
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.detector_callbacks import PanelCentring, SigmoidPanelSmoothnessSchedule
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger
from diffdet.tomography.optimisation.callbacks.opt_callbacks import OneCycle
from diffdet.tomography.optimisation.callbacks.pred_callbacks import VolumeTargetPredHandler
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs

# %% [markdown]
# ## The volume
#
# Eight panels, four on the ground and four in a tunnel below it, share a budget of 512 m². They start as squares of
# 8 m about a point 2.5 m off the middle in x and y, within 12 cm of each other in height. Muons have 10 GeV: of those
# with less than 5 GeV, few would come through 10 m of soil.

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors are small here: more threads make them slower
design = load_config("small_walls")
initial = build_volume(design)
for panel in initial.yield_panels():
    print(panel)

walls = SmallWallsPassiveGenerator(initial)
figure = plt.figure(figsize=(13, 4.5))
for place in range(3):
    layout, target = walls.get_data(generator=torch.Generator().manual_seed(place))
    axis = figure.add_subplot(1, 3, place + 1, projection="3d")
    axis.voxels(target.permute(1, 2, 0).bool().numpy(), facecolor="#B5651D", edgecolor="0.3", linewidth=0.2)
    axis.set(xlim=(0, 10), ylim=(0, 10), zlim=(0, 10), xlabel="x [m]", ylabel="y [m]", zlabel="z [m]")
    axis.set_title(f"{int(target.sum())} m³ of wall")
plt.show()

# %% [markdown]
# A wall has a third of the radiation length of soil (8 cm to 26 cm). But a muon that crosses a metre of wall crosses
# forty radiation lengths of soil besides, and its point of closest approach says little about where it scattered: the
# picture will be faint.
#
# ## A judge
#
# `judge` sends muons through walls that no optimisation will meet, with physical panels. What counts is whether walls
# look denser than the soil beside them, so images are compared with the mean of each of their layers. Beside the
# correlation of image and truth it computes what archaeologists would ask: if voxels are dug up in the order of their
# density, how soon are walls found? The area under that curve is 1 for a perfect image and 0.5 for none.

# %%
N_TEST = 3 if SMOKE else 16
N_MUONS = 500 if SMOKE else 40_000
tests = PassiveYielder([walls.get_data(generator=torch.Generator().manual_seed(1000 + k)) for k in range(N_TEST)])
adam = partial(torch.optim.Adam, betas=(0.8, 0.95))


def wrap(volume, inferrer, seed, **learning_rates):
    """A wrapper with Adam for every family."""
    return PanelVolumeWrapper(
        volume,
        **{f"{name}_opt": partial(adam, lr=learning_rates.get(name, 0.0)) for name in ("xy_pos", "z_pos", "budget")},
        xy_span_opt=partial(torch.optim.SGD, lr=0.0),  # the money says how large panels are
        loss_func=ContrastLoss(target_budget=None),
        partial_volume_inferrer=inferrer,
        mu_generator=MuonGenerator2016.from_volume(volume, fixed_mom=10.0),
        seed=seed,
    )


def judge(volume, inferrer):
    """Densities relative to the layer, correlations with the truth, areas under the curve of digging, and the curve."""
    pairs = wrap(volume, inferrer, seed=99).predict(
        tests, N_MUONS, mu_bs=10_000, pred_cb=VolumeTargetPredHandler(), cbs=[MuonResampler()]
    )
    images, truths = (torch.stack([torch.as_tensor(one) for one in column]) for column in zip(*pairs, strict=True))
    density = -images.log()
    density = density - density.mean((2, 3), keepdim=True)
    of_walls = truths.double() - truths.double().mean((2, 3), keepdim=True)
    both = torch.stack([density.double(), of_walls]).flatten(2)
    correlation = both.prod(0).sum(1) / both.square().sum(2).prod(0).sqrt()
    dug = truths.flatten(1).double().gather(1, density.flatten(1).argsort(dim=1, descending=True))
    found, free = (column.cumsum(1) / column.sum(1, keepdim=True) for column in (dug, 1 - dug))
    return density, correlation, torch.trapezoid(found, free), found.mean(0)


def tell(name, numbers):
    """Mean and standard error over the test volumes."""
    _, correlation, area, _ = numbers
    values = [f"{one.mean():.3f} +- {one.std() / N_TEST**0.5:.3f}" for one in (correlation, area)]
    print(f"{name:28} {values[0]:>18} {values[1]:>18}")


results = {"initial": judge(initial, PanelX0Inferrer)}

centred = build_volume(design)  # what a person would do first: panels over the middle, evenly spread in height
with torch.no_grad():
    for layer in centred.get_detectors():
        for k, panel in enumerate(layer.yield_panels()):
            panel.xy.fill_(5.0)
            panel.z.copy_(layer.z - layer.size * k / 3)
results["centred"] = judge(centred, PanelX0Inferrer)
print(f"{'':28} {'correlation':>18} {'area':>18}")
for name, numbers in results.items():
    tell(name, numbers)

# %% [markdown]
# ## What to make small
#
# The obvious loss is the squared error of X0 in all voxels, `VoxelX0Loss`. But the map from points of closest approach
# is biased, by a factor that depends on the depth:

# %%
initial.load_rad_length(*tests.passives[0])
image = torch.as_tensor(wrap(initial, PanelX0Inferrer, seed=98).predict(
    PassiveYielder(tests.passives[:1]), N_MUONS, 10_000, cbs=[MuonResampler()])[0][0])  # fmt: skip
of_layer = [f"{x0:.2f}" for x0 in image.flatten(1).quantile(0.5, 1).tolist()]
print("median X0 of the layers, lowest first [m]:", *of_layer)

# %% [markdown]
# A detector would lower that error by being biased less, not by showing the walls. `ContrastLoss` is one minus the
# correlation of the logarithms of predicted and true X0, layer by layer: scale, offset and trends with depth do not
# matter, only whether walls stand out.
#
# ## Optimisation
#
# Four other volumes every update. The callbacks keep the panels of a side in line, lower the softness of their edges
# from 0.5 to 0.05, and slow down in the second half.

# %%
N_EPOCHS = 2 if SMOKE else 40
RATES = {"xy_pos": 0.3, "z_pos": 0.05, "budget": 0.1}  # metres an update; the budget's is of its weights
middles = []


class Follow(MetricLogger):
    """Keeps losses, and notes where the panels are."""

    def print_losses(self):
        """Say nothing."""
        panels = list(self.wrapper.volume.yield_panels())
        middles.append([*panels[0].xy.tolist(), *panels[4].xy.tolist()])


volume = build_volume(design)
logger = Follow()
wrap(volume, PanelX0Inferrer, seed=1, **RATES).fit(
    n_epochs=N_EPOCHS,
    passive_bs=4,
    n_mu_per_volume=min(N_MUONS, 10_000),
    mu_bs=10_000,
    trn_passives=PassiveYielder(walls, n_passives=4),
    val_passives=None,
    cbs=[
        MuonResampler(),
        NoMoreNaNs(),
        PanelCentring(),
        SigmoidPanelSmoothnessSchedule((0.5, 0.05)),
        *[
            OneCycle(f"{name}_opt", warmup_length=N_EPOCHS // 2, init_lr=rate, mid_lr=rate, final_lr=rate / 20)
            for name, rate in RATES.items()
        ],
        logger,
    ],
)
results["optimised"] = judge(volume, PanelX0Inferrer)
for panel in volume.yield_panels():
    print(panel)
print(f"{'':28} {'correlation':>18} {'area':>18}")
for name, numbers in results.items():
    tell(name, numbers)

# %%
SHOWN = {"initial": "0.55", "centred": "#E69F00", "optimised": "#0072B2"}
figure, axes = plt.subplots(1, 4, figsize=(15, 4), layout="constrained")
axes[0].plot(range(1, len(middles) + 1), logger.get_loss_history()[0]["Training"], color="#0072B2")
axes[0].set(xlabel="update", ylabel="1 - correlation", title="training")
for column, label in enumerate(("x above", "y above", "x below", "y below")):
    axes[1].plot(range(1, len(middles) + 1), [row[column] for row in middles], label=label)
axes[1].set(xlabel="update", ylabel="[m]", title="middle of the panels")
axes[1].legend(frameon=False)
axes[2].add_patch(plt.Rectangle((0, 0), 10, 10, fc="0.92"))
for (name, colour), one in zip(SHOWN.items(), (initial, centred, volume), strict=True):
    curve = results[name][3]
    axes[3].plot(torch.linspace(0, 1, len(curve)), curve, color=colour, label=name)
    for k, panel in enumerate(one.yield_panels()):
        span = panel.get_scaled_xy_span().detach()
        corner = (panel.xy.detach() - span / 2).tolist()
        label = None if k else name
        axes[2].add_patch(plt.Rectangle(corner, *span.tolist(), fill=False, ec=colour, lw=1.5, label=label))
axes[2].set(xlim=(-2.5, 12.5), ylim=(-2.5, 12.5), aspect="equal", xlabel="x [m]", ylabel="y [m]", title="panels")
axes[3].plot([0, 1], [0, 1], color="0.8", lw=1)
axes[3].set(xlabel="part of the voxels dug up", ylabel="part of the walls found", title="held-out ground")
axes[3].legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# The panels have found the middle, and half of them have given their money away: on each side, two panels of 11 m
# cover the whole block, where four of 8 m did not. (A softmax leaves the others a little; they could be left out.) And
# the two stand close together, though a longer lever would measure angles better. Is that chance? A detector can be
# copied by hand, with another distance between its panels:


# %%
def by_hand(distance):
    """Two large panels on each side, this far apart, over the middle; the other two between them."""
    volume = build_volume(design)
    with torch.no_grad():
        for layer in volume.get_detectors():
            for k, panel in enumerate(layer.yield_panels()):
                panel.xy.fill_(5.0)
                panel.z.copy_(layer.z - layer.size / 2 + distance * (0.5 - k / 3))
        volume.budget_weights.copy_(torch.tensor([3.0, 0.0, 0.0, 3.0] * 2))
    volume.assign_budget()
    return volume


tell("optimised", results["optimised"])
for distance in (0.03, 0.1, 0.3, 1.0):
    tell(f"by hand, {100 * distance:.0f} cm", judge(by_hand(distance), PanelX0Inferrer))

# %% [markdown]
# It is not chance. Ten metres of soil scatter so much that angles need not be measured better than a lever of some
# centimetres does; and what a longer lever costs are muons that miss one of the panels, most of all those at a large
# angle, without which nobody can tell how deep a wall is. Once found, the rule is simple enough to build by hand.
#
# ## An inferrer of one's own
#
# `PanelX0Inferrer` weighs muons by one over the square of their angle: a few that were hardly scattered at all outweigh
# the rest (see [volume inference](../../docs/numerics/volume_inference.md)). The mean of the *logarithm* of the angle,
# all muons counting nearly alike, is steadier. The sums are differentiable in the detector, because points,
# uncertainties and efficiencies are; so an inferrer like this can also be optimised with.


# %%
class LogAngleX0(AbsVolumeInferrer):
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
        of_rows = (rows[:, None] * z).flatten(0, 1)  # a product of matrices: (rows z, muon) by (muon, x y)
        sums = of_rows @ (x[:, None] * y).flatten(0, 1).T
        self.sums = self.sums + sums.reshape(2, len(z), len(x), len(y))
        self.n_muons += int(usable.sum())

    def get_prediction(self):
        """X0 (z, x, y), m; None where no muon was usable."""
        if self.n_muons == 0:
            return None
        logs, weights = self.sums
        of_layer = (logs.sum((1, 2)) / (weights.sum((1, 2)) + 1e-3))[:, None, None]
        angle = ((logs + of_layer) / (weights + 1)).exp()  # one muon's worth of the layer where there are few
        return x0_from_angles(self.volume.passive_size, angle / 2**0.5, torch.ones_like(angle), torch.tensor(10.0))


for name, one in (("initial", initial), ("centred", centred), ("optimised", volume)):
    results[f"{name}, LogAngleX0"] = judge(one, LogAngleX0)
print(f"{'':28} {'correlation':>18} {'area':>18}")
for name, numbers in results.items():
    tell(name, numbers)

# %% [markdown]
# The same muons show more. The detector was optimised with the other inferrer, and is best with this one, too: where
# panels should be is less a matter of the inferrer than how to read their hits.
#
# Here is one block of ground, layer by layer, the highest on the left.

# %%
number = int(torch.stack([target.sum() for _, target in tests.passives]).argmax())
rows = {"walls": tests.passives[number][1]}
for name in ("initial", "optimised", "optimised, LogAngleX0"):
    rows[name.replace(", ", "\n")] = results[name][0][number]
figure, axes = plt.subplots(4, 6, figsize=(12, 8.2), layout="constrained")
for place, (name, cube) in enumerate(rows.items()):
    for axis, layer in zip(axes[place], (8, 7, 6, 5, 4, 3), strict=True):
        low, high = (0, 1) if place == 0 else (-cube.std(), 2.5 * cube.std())
        axis.imshow(cube[layer].T.numpy(), origin="lower", vmin=low, vmax=high, cmap="cividis")
        axis.set(xticks=[], yticks=[], title="" if place else f"z = {1.5 + layer:.1f} m")
    axes[place, 0].set_ylabel(name)
plt.show()

# %% [markdown]
# An inferrer or a loss of one's own is also named in a configuration, as `package.module:Class`; see
# [extending](../../docs/extending.md).
#
# Next: [uranium in a lorry](06_u_lorry.py).
