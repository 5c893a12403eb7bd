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
# # One cycle in depth
#
# An optimisation repeats one cycle: muons, scattering, hits, tracks, image, loss, gradient. This notebook stops at
# every station of one cycle, looks at what is there, and compares it with what it should be.
#
# [Hello, world](00_hello_world.py) goes the whole way without stopping; begin there.

# %%
import math
import os

import matplotlib.pyplot as plt
import torch

from diffdet.core.materials import X0
from diffdet.core.random import Stream
from diffdet.kernels.budget import penalty
from diffdet.kernels.scattering import beta_momentum, highland_width
from diffdet.tomography.inference import GenScatterBatch, PanelX0Inferrer, ScatterBatch
from diffdet.tomography.muon import MuonBatch, MuonGenerator2016
from diffdet.tomography.optimisation.loss import VoxelX0Loss
from diffdet.tomography.volume import DetectorPanel, PanelDetectorLayer, PassiveLayer, SigmoidDetectorPanel, Volume

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs

# %%
torch.set_num_threads(1)  # tensors are small here: more threads make them slower
torch.set_default_dtype(torch.float64)  # everything runs in either type; this notebook looks at small differences
MANY = 3_000 if SMOKE else 50_000

# %% [markdown]
# ## Random numbers
#
# Every random number has a key that says what it is for: seed, purpose, number of the muon. A muon is therefore the
# same whatever it flies with, in whatever batch and order. Here are muons 0 to 9 of a stream, and muons 5 to 9 of the
# same stream.

# %%
LW = torch.tensor([1.0, 1.0])
generator = MuonGenerator2016(x_range=(0, 1), y_range=(0, 1), fixed_mom=5.0)
muons_of = Stream(2026, "one cycle").muons()
ten = generator(10, stream=muons_of)
five = generator(5, stream=muons_of, start=5)
print("columns: x [m], y [m], momentum [GeV], theta [rad], phi [rad]")
print(ten[5])
print(five[0])
assert torch.equal(ten[5:], five)

# %% [markdown]
# ## Scattering
#
# A muon that crosses matter is deflected many times by tiny angles. In sum its direction changes by a normally
# distributed angle in each of two planes; Highland's formula gives its width for the radiation lengths crossed. A
# passive layer carries a batch through and scatters it. Let muons fall straight down through 10 cm of lead:


# %%
def vertical(n, momentum=5.0):
    """Muons that fall straight down on the middle of a layer."""
    columns = torch.zeros(n, 5)
    columns[:, :2] = 0.5
    columns[:, 2] = momentum
    return MuonBatch(columns, init_z=1.0, stream=Stream(1, "vertical").muons())


layer = PassiveLayer(LW, z=1.0, size=0.1, rad_length_func=lambda *, z, lw, size: torch.full((10, 10), X0["lead"]))
beam = vertical(4 * MANY)
layer(beam)
angle = beam.theta_x.squeeze(-1)
shift = beam.x - 0.5
width = float(highland_width(torch.tensor(0.1 / X0["lead"]), beta_momentum(torch.tensor(5.0))))
print(f"width of the angle: {1e3 * angle.std():.2f} mrad, formula {1e3 * width:.2f} mrad")
correlation = torch.corrcoef(torch.stack([angle, shift]))[0, 1]
print(f"correlation of angle and displacement: {correlation:.3f}, for a homogeneous slab {math.sqrt(3) / 2:.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
edges = torch.linspace(-4, 4, 61) * width
left.hist(1e3 * angle.numpy(), bins=(1e3 * edges).tolist(), density=True, color="#56B4E9", label="muons")
normal = torch.exp(-0.5 * (edges / width) ** 2) / (1e3 * width * math.sqrt(2 * math.pi))
left.plot(1e3 * edges, normal, color="#D55E00", lw=2, label="Highland")
left.set(xlabel="change of direction in the xz plane [mrad]", ylabel="per mrad")
left.legend(frameon=False)
right.plot(1e3 * angle[:4000], 1e3 * shift[:4000], ".", ms=2, alpha=0.4, color="#0072B2")
right.plot(1e3 * edges, 1e3 * 0.05 * edges, color="#D55E00", lw=2, label="kink in the middle of the slab")
right.set(xlabel="change of direction [mrad]", ylabel="displacement at the exit [mm]")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# The displacement is on the side of the deflection, as if the muon had turned in the middle of the slab, give or take:
# that is what makes a point of closest approach meaningful.
#
# The formula is meant for a *total* thickness. Applied to many thin steps one by one, its logarithm makes the sum too
# narrow. The model `"pdg"` remembers what a muon has crossed and adds variances such that the steps do not matter;
# `"pdg-step"` is the other way, for comparison. (All points of `"pdg"` are made of the same random numbers, so they
# fluctuate together.)

# %%
steps = (0.1, 0.05, 0.02, 0.01, 0.005)
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for model, colour in (("pdg", "#0072B2"), ("pdg-step", "#D55E00")):
    ratios = []
    for step in steps[:2] if SMOKE else steps:
        layer = PassiveLayer(LW, 1.0, 0.1, lambda *, z, lw, size: torch.full((10, 10), X0["lead"]), step, model)
        beam = vertical(4 * MANY)
        layer(beam)
        ratios.append(float(beam.theta_x.std()) / width)
    error = 1 / math.sqrt(2 * 4 * MANY)
    drawn = [100 * step for step in steps[: len(ratios)]]
    axis.errorbar(drawn, ratios, yerr=error, fmt="o-", color=colour, label=f'"{model}"')
axis.axhline(1, color="0.7", lw=1)
axis.set(xscale="log", xlabel="step [cm]", ylabel="width / formula", title="10 cm of lead, 5 GeV")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Hits
#
# A panel measures where a muon crosses it. A real panel has edges, at which muons begin to be missed; there is no slope
# to follow across an edge. In training a smooth response stands in for it: the resolution falls towards the edge and
# beyond, so hits become uncertain instead of vanishing. `DetectorPanel` falls as a Gaussian; `SigmoidDetectorPanel` has
# an edge as sharp as its `smooth` says.

# %%
positions = torch.stack([torch.linspace(-1.2, 1.2, 241), torch.zeros(241)], dim=1)
place = dict(res=1e4, eff=0.9, init_xyz=(0.0, 0.0, 1.0), init_xy_span=(1.0, 1.0))
shown = {"Gaussian": DetectorPanel(**place)}
shown |= {f"sigmoid, smooth {smooth}": SigmoidDetectorPanel(smooth=smooth, **place) for smooth in (1.0, 0.3, 0.05)}
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for name, panel in shown.items():
    left.plot(positions[:, 0], 1e3 / panel.get_resolution(positions)[:, 0].detach(), label=name)
    right.plot(positions[:, 0], panel.get_efficiency(positions).detach(), label=name)
panel.eval()  # the physical panel
right.plot(positions[:, 0], panel.get_efficiency(positions).detach(), "k--", label="evaluation")
seen = positions[:, 0].abs() < 0.5
left.plot(positions[seen, 0], 1e3 / panel.get_resolution(positions)[seen, 0].detach(), "k--", label="evaluation")
left.set(yscale="log", ylim=(0.05, 1e3), xlabel="x [m], panel from -0.5 to 0.5", ylabel="hit uncertainty [mm]")
right.set(xlabel="x [m]", ylabel="efficiency")
left.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## A volume to look at
#
# Two pairs of panels on either side of a block of 60 cm with a slab of lead inside, 10 cm thick. Panels are off-centre
# by a little, so that gradients have something to say.


# %%
def slab(*, z, lw, size):
    """Water, with lead in the layer from 0.4 to 0.5 m."""
    return torch.full((10, 10), X0["lead"] if abs(float(z) - 0.5) < 0.01 else X0["water"])


def build_volume():
    """Two pairs of panels on either side of a block of water with a slab of lead."""

    def panels(heights):
        return [DetectorPanel(res=1e4, eff=0.9, init_xyz=(0.4, 0.5, z), init_xy_span=(1.6, 1.6)) for z in heights]

    above = PanelDetectorLayer("above", lw=LW, z=1.0, size=0.2, panels=panels((0.99, 0.95, 0.86, 0.82)))
    below = PanelDetectorLayer("below", lw=LW, z=0.2, size=0.2, panels=panels((0.18, 0.14, 0.05, 0.01)))
    volume = Volume([above, *[PassiveLayer(LW, round(0.8 - 0.1 * k, 2), 0.1) for k in range(6)], below])
    volume.load_rad_length(slab)
    return volume.double()


def fly(volume, n):
    """Muons of one stream through a volume: always the same ones, with the same random numbers."""
    stream = Stream(3, "flight").muons()
    muons = MuonBatch(generator(n, stream=stream), init_z=volume.h, stream=stream)
    volume(muons)
    return muons


volume = build_volume().eval()  # physical panels, for now
muons = fly(volume, MANY)
hits = muons.get_hits()
print({side: {key: tuple(value.shape) for key, value in of_side.items()} for side, of_side in hits.items()})

# %% [markdown]
# ## Tracks and what they say
#
# `ScatterBatch` fits a straight line to the hits above and one to those below. Everything else follows from the two
# lines: the point of closest approach, angles, and for each an uncertainty. Here is one muon that was scattered well.

# %%
GenScatterBatch(mu=muons, volume=volume)  # drops the muons that miss the volume by far
scatters = ScatterBatch(mu=muons, volume=volume)
inside = scatters.get_scatter_mask()
angles = torch.where(inside, scatters.total_scatter.detach().squeeze(-1), 0)
scatters.plot_scatter(int(angles[:2000].argmax()))

# %% [markdown]
# The two lines pass each other closest at the diamond, about where the lead is.
#
# Are the uncertainties right? `GenScatterBatch` does the same with the true hits, so the difference of the two in units
# of the stated uncertainty, the *pull*, should be standard normal.

# %%
true = GenScatterBatch(mu=muons, volume=volume)
quantities = {
    "total_scatter": "scattering angle",
    "theta_in": "theta before",
    "poca_xyz": "closest approach, z",
    "xyz_out": "exit point, x",
}
components = {"poca_xyz": 2}
figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained", sharey=True)
grid = torch.linspace(-4, 4, 41)
for axis, (name, text) in zip(axes, quantities.items(), strict=True):
    k = components.get(name, 0)
    pull = ((getattr(scatters, name) - getattr(true, name)) / getattr(scatters, f"{name}_unc"))[:, k].detach()
    # An angle near zero is not normal about the truth: it cannot be negative. So look at those that are not near it.
    pull = pull[true.total_scatter.detach().squeeze(-1) > 0.01]
    core = pull[pull.abs() < 4]
    axis.hist(core.numpy(), bins=grid.tolist(), density=True, color="#56B4E9")
    axis.plot(grid, torch.exp(-0.5 * grid**2) / math.sqrt(2 * math.pi), color="#D55E00")
    axis.set(xlabel=f"pull of the {text}", title=f"width {core.std():.2f}")
plt.show()

# %% [markdown]
# ## An image
#
# How far a muon's point lies from the truth is mostly a matter of height: nearly parallel lines meet somewhere along
# themselves. So a point is spread over the voxels by its uncertainty; here are the probabilities of three muons in a
# vertical plane.

# %%
inferrer = PanelX0Inferrer(volume=volume)
inferrer.add_scatters(scatters)
sharpness = scatters.poca_xyz_unc[:, 2].detach()
inside &= (scatters.poca_xyz[:, 0] - 0.5).abs() < 0.3
three = [int(inside.nonzero()[(sharpness[inside] - goal).abs().argmin()]) for goal in (0.01, 0.06, 0.2)]
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
edges_x, edges_y, edges_z = volume.voxel_edges()
for axis, k in zip(axes, three, strict=True):
    point, sigma = scatters.poca_xyz[k].detach(), scatters.poca_xyz_unc[k].detach()
    masses = [
        torch.special.ndtr((edges[1:] - point[j]) / sigma[j]) - torch.special.ndtr((edges[:-1] - point[j]) / sigma[j])
        for j, edges in ((0, edges_x), (2, edges_z))
    ]
    axis.pcolormesh(edges_x.numpy(), edges_z.numpy(), torch.outer(masses[1], masses[0]).numpy(), cmap="Blues")
    axis.errorbar(*point[[0, 2]].tolist(), xerr=float(sigma[0]), yerr=float(sigma[2]), fmt="o", color="#D55E00")
    axis.set(xlabel="x [m]", ylabel="z [m]", aspect="equal", title=f"sigma of z: {100 * float(sigma[2]):.0f} cm")
    axis.set(xlim=(0, 1), ylim=(0.2, 0.8))
plt.show()

# %% [markdown]
# Per voxel, a weighted mean of the squared scattering angles is turned into a radiation length. Averaged over each
# layer, the profile shows the slab, and the two faults of the method: what scatters in one layer is smeared into its
# neighbours, and a muon's *whole* scattering is booked at its one point. See
# [the page on estimators](../../docs/numerics/radiation_length.md) for images without the second fault.

# %%
image = inferrer.get_prediction().detach()
truth = volume.get_rad_cube()
centres = 0.5 * (edges_z[1:] + edges_z[:-1])
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
axis.stairs((1 / truth.mean((1, 2))).tolist(), edges_z.tolist(), color="0.5", label="true", lw=2)
axis.plot(centres, 1 / image.median(1).values.median(1).values, "o-", color="#0072B2", label="inferred")
axis.set(xlabel="z [m]", ylabel="radiation lengths per metre", yscale="log")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Loss and cost
#
# The loss is the error of the image plus `cost_coef` times a penalty on the cost of the panels. The penalty is soft:
# next to nothing well below the budget, 1 at the budget, and rising beyond it.

# %%
costs = torch.linspace(0, 40, 401)
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for steep, text in ((True, "steep"), (False, "not steep")):
    axis.plot(costs, penalty(costs, 20.0, steep=steep), label=text)
axis.axvline(20, color="0.7", lw=1)
axis.set(xlabel="cost of the panels, budget 20", ylabel="penalty", ylim=(0, 6))
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The gradient
#
# `backward` goes from the loss through image, uncertainties, tracks and hits to the panels. Is it right? The test that
# needs no trust: move a panel a little, send **the same muons with the same random numbers** again, and see by how much
# the loss changes. Random numbers keyed by muon make that a fair comparison.

# %%
n_muons = 1_000 if SMOKE else 20_000
loss_function = VoxelX0Loss(target_budget=20, cost_coef=0.1)


def loss_of(volume):
    """One whole cycle."""
    inferrer = PanelX0Inferrer(volume=volume)
    inferrer.add_scatters(ScatterBatch(mu=fly(volume, n_muons), volume=volume))
    return loss_function(inferrer.get_prediction(), volume)


volume = build_volume()
loss_of(volume).backward()


def difference(k, family, component, by):
    """Slope of the loss from two cycles with one number moved up and down."""
    values = []
    for sign in (1, -1):
        moved = build_volume()
        with torch.no_grad():
            list(moved.yield_panels())[k].parameter_families()[family][component] += sign * by
            values.append(loss_of(moved))
    return float(values[0] - values[1]) / (2 * by)


print("panel  parameter      autograd    difference")
pairs = []
for k in (0, 5) if SMOKE else range(8):
    panel = list(volume.yield_panels())[k]
    for family, component in (("xy_pos", 0), ("z_pos", 0), ("xy_span", 0)):
        slope = float(panel.parameter_families()[family].grad[component])
        pairs.append((slope, difference(k, family, component, 1e-5)))
        print(f"{k:5}  {family + f'[{component}]':12} {slope:+10.5f}  {pairs[-1][1]:+12.5f}")
slopes, differences = torch.tensor(pairs).T
worst = (slopes - differences).abs().max() / slopes.abs().max()
print(f"largest disagreement: {worst:.1e} of the largest slope")

# %% [markdown]
# They agree. `diffdet check CONFIG` does this for any design of yours, and adds how noisy the gradient is.
#
# Next: [optimisation and callbacks](02_optimisation_and_callbacks.py).
