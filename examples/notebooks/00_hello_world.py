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
# # Hello, world
#
# Cosmic muons rain on everything, some 130 a second and square metre. Dense matter scatters them more than light
# matter, so whoever measures their directions above and below a volume can make an image of what is inside. How well
# depends on the detector: where its panels stand, how large they are, how sharply they measure.
#
# This notebook goes the whole way once, with the objects that every study is made of:
#
# 1. a **volume**: detector panels above and below a block of voxels;
# 2. a **layout** of materials in the block;
# 3. **muons** that fly through it, scatter, and leave hits;
# 4. an **image** of the block from the hits;
# 5. an **optimisation**: the gradient of the image's error tells every panel where to go.
#
# Lengths are in metres, momenta in GeV, angles in radians.

# %%
import os
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LogNorm

from diffdet.core.materials import X0
from diffdet.tomography.inference import PanelX0Inferrer, ScatterBatch
from diffdet.tomography.muon import MuonBatch, MuonGenerator2016
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger
from diffdet.tomography.optimisation.callbacks.warmup_callbacks import CostCoefWarmup
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.loss import AbsDetectorLoss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper
from diffdet.tomography.plotting.volume import draw_volume
from diffdet.tomography.volume import DetectorPanel, PanelDetectorLayer, PassiveLayer, Volume

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors are small here: more threads make them slower

# %% [markdown]
# ## A volume
#
# Layers lie on top of each other, from the highest to the lowest. A layer is named by the height `z` of its **top** and
# is `size` thick. Passive layers are one voxel thick; detector layers hold panels. Here: a cube of 1 m with a block of
# 0.6 m in the middle and four panels above and below it. All panels start off-centre, over one quarter of the block:
# something for the optimisation to mend.

# %%
LW = torch.tensor([1.0, 1.0])  # length in x and width in y
VOXEL = 0.1


def panels(heights):
    """Four panels of 1 m x 1 m that measure to 0.1 mm (`res` is 1/sigma) and see 90 % of the muons."""
    return [
        DetectorPanel(res=1e4, eff=0.9, init_xyz=(0.25, 0.25, z), init_xy_span=(1.0, 1.0), m2_cost=1.0) for z in heights
    ]


def build_volume():
    """Detector, six layers of voxels, detector."""
    above = PanelDetectorLayer("above", lw=LW, z=1.0, size=0.2, panels=panels((1.0, 0.95, 0.9, 0.85)))
    block = [PassiveLayer(LW, z=round(0.8 - k * VOXEL, 2), size=VOXEL) for k in range(6)]
    below = PanelDetectorLayer("below", lw=LW, z=0.2, size=0.2, panels=panels((0.2, 0.15, 0.1, 0.05)))
    return Volume([above, *block, below])


volume = build_volume()
figure = plt.figure(figsize=(7, 7))
draw_volume(volume, xlim=(-0.5, 1.25), ylim=(-0.5, 1.25), zlim=(0, 1.1), ax=figure.add_subplot(projection="3d"))
plt.show()

# %% [markdown]
# ## What is inside
#
# A layout is a function that gives the radiation length X0 of every voxel of one layer. The smaller X0, the denser:
# lead has 5.6 mm, beryllium 35 cm. Here is beryllium with a block of lead in one quarter, 20 cm thick.


# %%
def lead_in_beryllium(*, z, lw, size):
    """X0 of the layer whose top is at z: shape (x, y), metres."""
    n_x, n_y = (int(n) for n in (lw / size).round())
    x0 = torch.full((n_x, n_y), X0["beryllium"])
    if 0.35 < float(z) < 0.55:  # the layers with tops at 0.4 m and 0.5 m
        x0[n_x // 2 :, n_y // 2 :] = X0["lead"]
    return x0


volume.load_rad_length(lead_in_beryllium)
cube = volume.get_rad_cube()  # (z, x, y), the lowest layer first
print("voxels (z, x, y):", tuple(cube.shape), " of lead:", int((cube == X0["lead"]).sum()))

# %% [markdown]
# ## Muons
#
# The generator knows the spectrum of cosmic muons at sea level; `from_volume` makes one that covers the volume with a
# margin. By default all muons have 5 GeV, as if a spectrometer had selected them; `fixed_mom=None` samples the momentum
# as well.

# %%
n_look = 2_000 if SMOKE else 50_000
cosmic = MuonGenerator2016.from_volume(volume, fixed_mom=None)
print(cosmic)
sample = cosmic(n_look)  # columns x, y, momentum, theta, phi

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
left.hist(sample[:, 2].clamp_max(30).numpy(), bins=60, color="#0072B2")
left.set(xlabel="momentum [GeV], the last bin holds all above", ylabel="muons", yscale="log")
right.hist(sample[:, 3].rad2deg().numpy(), bins=60, color="#D55E00")
right.set(xlabel="angle to the vertical [degrees]")
plt.show()

# %% [markdown]
# A `MuonBatch` holds muons in flight. Calling the volume carries them down through all layers: passive layers scatter
# them, panels record hits. A `ScatterBatch` then fits a straight line above and one below and compares the two. It
# needs two hits on either side; muons that miss the panels are dropped.

# %%
volume.eval()  # panels as they are: hard edges, and no hit beside them
generator = MuonGenerator2016.from_volume(volume)
muons = MuonBatch(generator(5_000 if SMOKE else 100_000), init_z=volume.h)
volume(muons)
scatters = ScatterBatch(mu=muons, volume=volume)
angle = scatters.total_scatter.detach().squeeze(-1)
inside = scatters.get_scatter_mask()
print(f"{len(scatters)} muons have tracks on both sides, {int(inside.sum())} of them met in the block")
print(f"median scattering angle of those: {1e3 * float(angle[inside].median()):.2f} mrad")

# %% [markdown]
# The two tracks of a muon come closest to each other about where it scattered: the *point of closest approach*, PoCA.
# Those of the muons that scattered by more than 10 mrad draw the lead, as far as the panels see it.

# %%
poca = scatters.poca_xyz.detach()
strong = inside & (angle > 0.01)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", width_ratios=(1, 1.15))
for axis, (across, up, names) in zip(axes, ((0, 1, ("x", "y")), (0, 2, ("x", "z"))), strict=True):
    axis.plot(poca[strong, across], poca[strong, up], ".", ms=2, alpha=0.35, color="#0072B2")
    axis.set(xlabel=f"{names[0]} [m]", ylabel=f"{names[1]} [m]", aspect="equal", xlim=(0, 1))
axes[0].add_patch(plt.Rectangle((0.5, 0.5), 0.5, 0.5, fill=False, ec="#D55E00", lw=2, label="lead"))
axes[1].add_patch(plt.Rectangle((0.5, 0.3), 0.5, 0.2, fill=False, ec="#D55E00", lw=2))
axes[0].add_patch(plt.Rectangle((-0.25, -0.25), 1, 1, fill=False, ec="0.4", ls=":", lw=2, label="panels"))
axes[0].set(ylim=(0, 1), title="from above")
axes[1].set_title("from the front")
axes[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# ## An image
#
# `PanelX0Inferrer` turns points and angles into a radiation length for every voxel.

# %%
inferrer = PanelX0Inferrer(volume=volume)
inferrer.add_scatters(scatters)
image = inferrer.get_prediction().detach()
lead = cube == X0["lead"]
print(f"median X0 in the lead {image[lead].median():.3f} m, elsewhere {image[~lead].median():.3f} m")


def show_layers(cubes, title):
    """Horizontal slices, the highest first; X0 on a logarithmic scale, dense is bright."""
    figure, axes = plt.subplots(len(cubes), 6, figsize=(11, 1.9 * len(cubes) + 0.5), layout="constrained")
    for number, (name, values) in enumerate(cubes.items()):
        for axis, layer in zip(axes[number], range(5, -1, -1), strict=True):
            drawn = axis.imshow(
                torch.as_tensor(values[layer]).T.numpy(),
                origin="lower",
                extent=(0, 1, 0, 1),
                norm=LogNorm(0.005, 0.5, clip=True),
                cmap="viridis_r",
            )
            axis.set(xticks=[], yticks=[], title="" if number else f"z = {0.25 + 0.1 * layer:.2f} m")
        axes[number, 0].set_ylabel(name)
    figure.colorbar(drawn, ax=axes, label="$X_0$ [m]", shrink=0.8).ax.invert_yaxis()
    figure.suptitle(title, x=0.01, ha="left")
    plt.show()


show_layers({"predicted": image, "true": cube}, "what the first detector sees")

# %% [markdown]
# The near corner of the lead shows, and of the rest nothing: no muon that crossed it also crossed the panels. And
# panels 5 cm apart measure a track's direction poorly.
#
# ## Which way should the panels go?
#
# The image is a differentiable function of every panel's position and size. A loss says how wrong it is, and what the
# detector costs. The built-in `VoxelX0Loss` takes the mean squared error of X0, in which thin voxels count most; here
# dense ones matter as much, so this loss compares logarithms. A loss of one's own is one method.


# %%
class LogX0Loss(AbsDetectorLoss):
    """Mean squared error of the logarithm of X0."""

    def _get_inference_loss(self, pred, volume):
        return torch.nn.functional.mse_loss(pred.log(), volume.get_rad_cube().log())


# %% [markdown]
# One backward pass gives the slope of the loss with respect to all 40 parameters. Hard edges have no slope, so in
# training a panel's edge is soft: outside, hits become uncertain instead of vanishing.

# %%
volume.train()
muons = MuonBatch(generator(2_000 if SMOKE else 20_000), init_z=volume.h)
volume(muons)
inferrer = PanelX0Inferrer(volume=volume)
inferrer.add_scatters(ScatterBatch(mu=muons, volume=volume))
loss = LogX0Loss(target_budget=20)(inferrer.get_prediction(), volume)
loss.backward()
print(f"loss {loss.detach():.3f}")
for panel in list(volume.yield_panels())[:4]:
    dx, dy = panel.xy.grad.tolist()
    print(f"panel at z = {panel.z.item():.2f} m: slope {dx:+.3f} per metre in x, {dy:+.3f} in y")

# %% [markdown]
# Most slopes are negative: moving the panels towards larger x and y, over the block, makes the image better.
#
# ## Optimisation
#
# A wrapper holds the volume, one optimiser for each family of parameters, and the loss. `fit` then repeats: load a
# layout, send muons, infer, compare, step. Adam's learning rate is the length of its first steps: 3 cm. Callbacks act
# in between:
#
# * `MuonResampler` replaces muons that would miss the block;
# * `CostCoefWarmup` watches one epoch while nothing moves, and sets the weight of the cost to the error it finds;
# * `MetricLogger` keeps the losses.
#
# The target budget of 20 is generous: the panels start at 8 m², for 1 a square metre.

# %%
volume = build_volume()  # a fresh start
wrapper = PanelVolumeWrapper(
    volume,
    xy_pos_opt=partial(torch.optim.Adam, lr=0.03),
    z_pos_opt=partial(torch.optim.Adam, lr=0.015),
    xy_span_opt=partial(torch.optim.Adam, lr=0.03),
    loss_func=LogX0Loss(target_budget=20),
    seed=0,
)
layouts = PassiveYielder([lead_in_beryllium])


def held_out(wrapper, n_volumes=3 if SMOKE else 8):
    """Error with muons that the optimisation has never met, its standard error, and one image."""
    tests = PassiveYielder([lead_in_beryllium] * n_volumes)
    n_muons = 500 if SMOKE else 10_000
    pairs = wrapper.predict(tests, n_mu_per_volume=n_muons, mu_bs=5_000, cbs=[MuonResampler()], seed=99)
    logs = [(torch.as_tensor(pred) / torch.as_tensor(true)).log() for pred, true in pairs]
    errors = torch.stack([log.square().mean() for log in logs])
    return errors.mean(), errors.std() / n_volumes**0.5, pairs[0][0]


error_before, se_before, image_before = held_out(wrapper)
start = [(p.xy.detach().clone(), p.xy_span.detach().clone(), p.z.item()) for p in volume.yield_panels()]
logger = MetricLogger()
wrapper.fit(
    n_epochs=3 if SMOKE else 60,
    passive_bs=1,
    n_mu_per_volume=256 if SMOKE else 5_000,
    mu_bs=5_000,
    trn_passives=layouts,
    val_passives=layouts,
    cbs=[MuonResampler(), CostCoefWarmup(n_warmup=1), logger],
)
error_after, se_after, image_after = held_out(wrapper)

# %%
history, _ = logger.get_loss_history()
figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
for name, text in (("Training", "training, soft edges"), ("Validation", "validation, hard edges")):
    axis.plot(range(1, len(history[name]) + 1), history[name], label=text)
axis.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# Where did the panels go? Over the block, and apart in height: the further apart two hits are, the better the
# direction.

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained")
optimised = [(p.xy.detach(), p.xy_span.detach(), p.z.item()) for p in volume.yield_panels()]
for axis, side, title in zip(axes, (slice(0, 4), slice(4, 8)), ("above", "below"), strict=False):
    axis.add_patch(plt.Rectangle((0, 0), 1, 1, fc="0.9", ec="none", label="block"))
    axis.add_patch(plt.Rectangle((0.5, 0.5), 0.5, 0.5, fc="#E69F00", ec="none", alpha=0.5, label="lead"))
    for panels_of, colour, line, text in ((start, "0.4", ":", "start"), (optimised, "#0072B2", "-", "optimised")):
        for k, (xy, span, _) in enumerate(panels_of[side]):
            corner = (xy - span / 2).tolist()
            label = None if k else text
            axis.add_patch(plt.Rectangle(corner, *span.tolist(), fill=False, ec=colour, ls=line, lw=1.8, label=label))
    axis.set(xlim=(-0.45, 1.55), ylim=(-0.45, 1.55), aspect="equal", xlabel="x [m]", ylabel="y [m]", title=title)
for panels_of, colour, line in ((start, "0.4", ":"), (optimised, "#0072B2", "-")):
    for xy, span, z in panels_of:
        axes[2].plot([xy[0] - span[0] / 2, xy[0] + span[0] / 2], [z, z], color=colour, ls=line, lw=2)
axes[2].add_patch(plt.Rectangle((0, 0.2), 1, 0.6, fc="0.9", ec="none"))
axes[2].add_patch(plt.Rectangle((0.5, 0.3), 0.5, 0.2, fc="#E69F00", ec="none", alpha=0.5))
axes[2].set(xlabel="x [m]", ylabel="z [m]", title="from the front", xlim=(-0.45, 1.55))
axes[0].legend(loc="upper left", frameon=False, ncols=2)
plt.show()

# %%
print(f"mean squared error of log X0 before: {error_before:.3f} +- {se_before:.3f}")
print(f"                              after: {error_after:.3f} +- {se_after:.3f}")
print(f"cost of the panels: 8.00 before, {volume.get_cost().item():.2f} after")
show_layers(
    {"before": image_before, "after": image_after, "true": cube},
    "images from 10,000 muons that the optimisation has never met",
)

# %% [markdown]
# ## Where to go from here
#
# * [One cycle in depth](01_one_cycle_in_depth.py) opens the box: what each step computes, with its uncertainties.
# * [Optimisation and callbacks](02_optimisation_and_callbacks.py) is about the loop, and about writing a callback.
# * `diffdet optimise hello_world --out RUN` does a study like this one from a configuration, with checkpoints and a
#   report.
