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
# # A fixed budget
#
# A target budget in the loss, as in [Hello, world](00_hello_world.py), lets an optimisation trade money for quality.
# Often there is nothing to trade: the money is there, and the question is what to spend it on.
#
# A volume with a `budget` always costs exactly that. One learnable number per panel says, by a softmax, which share of
# the money it gets; its area follows from its share. Here a budget of 4 m² is first spent evenly on eight panels.

# %%
import os
from functools import partial

import matplotlib.pyplot as plt
import torch

from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.detector_callbacks import SigmoidPanelSmoothnessSchedule
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.data.passives import PassiveYielder, RandomBlockPassiveGenerator
from diffdet.tomography.optimisation.loss import AbsDetectorLoss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper
from diffdet.tomography.plotting.volume import draw_volume
from diffdet.tomography.volume import PanelDetectorLayer, PassiveLayer, SigmoidDetectorPanel, Volume

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs

# %% [markdown]
# ## The volume
#
# Two roomy detectors, 40 cm high, with four panels each. `init_xy_span` is now only a shape: the effective size comes
# from the money, `get_scaled_xy_span()` tells it.

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors are small here: more threads make them slower
ABOVE, BELOW = (1.2, 1.07, 0.93, 0.82), (0.18, 0.07, -0.07, -0.2)


def build_volume(budget=4.0):
    """Four panels above and four below a block of 0.6 m."""
    lw = torch.tensor([1.0, 1.0])

    def panels(heights):
        return [
            SigmoidDetectorPanel(smooth=0.2, res=1e4, eff=0.9, init_xyz=(0.5, 0.5, z), init_xy_span=(1.0, 1.0))
            for z in heights
        ]

    above = PanelDetectorLayer("above", lw=lw, z=1.2, size=0.4, panels=panels(ABOVE))
    below = PanelDetectorLayer("below", lw=lw, z=0.2, size=0.4, panels=panels(BELOW))
    block = [PassiveLayer(lw, round(0.8 - 0.1 * k, 2), 0.1) for k in range(6)]
    return Volume([above, *block, below], budget=budget)


volume = build_volume()
print("budget weights:", volume.budget_weights.tolist())
print("cost:", volume.get_cost().item())
for panel in list(volume.yield_panels())[:2]:
    print(panel, "for", round(panel.get_cost().item(), 6))

# %% [markdown]
# Changing one weight gives to one panel and takes from all others; the sum stays.

# %%
with torch.no_grad():
    volume.budget_weights[0] = 1.0
volume.assign_budget()  # a flight of muons does this by itself
print("costs:", [round(panel.get_cost().item(), 3) for panel in volume.yield_panels()])
print("in all:", round(sum(panel.get_cost().item() for panel in volume.yield_panels()), 6))

# %% [markdown]
# ## Spending the money better
#
# The wrapper takes an optimiser for the budget beside those for the other families. To see what money alone can do, the
# panels' places are held. Layouts are random blocks of lead, iron or beryllium in one another; the loss compares
# logarithms of X0, and needs no term for the cost.


# %%
class LogX0Loss(AbsDetectorLoss):
    """Mean squared error of the logarithm of X0."""

    def _get_inference_loss(self, pred, volume):
        return torch.nn.functional.mse_loss(pred.log(), volume.get_rad_cube().log())


class Ledger(Callback):
    """Writes down what every panel costs, before the first update and after each epoch."""

    saved = ("rows",)

    def __init__(self):
        self.rows = []

    def on_train_begin(self):
        """The first row."""
        super().on_train_begin()
        self.rows = [self._costs()]

    def on_epoch_end(self):
        """One more row."""
        self.wrapper.volume.assign_budget()
        self.rows.append(self._costs())

    def _costs(self):
        return [panel.get_cost().item() for panel in self.wrapper.volume.yield_panels()]


volume = build_volume()
hold = partial(torch.optim.SGD, lr=0.0)
wrapper = PanelVolumeWrapper(
    volume,
    xy_pos_opt=hold,
    z_pos_opt=hold,
    xy_span_opt=hold,
    budget_opt=partial(torch.optim.Adam, lr=0.1, betas=(0.8, 0.95)),
    loss_func=LogX0Loss(target_budget=None),
    seed=0,
)
generator = RandomBlockPassiveGenerator(
    volume=volume,
    materials=["lead", "iron", "beryllium"],
    block_size=None,
    block_size_max_half=True,
    enforce_diff_mat=True,
    sort_x0=True,
)
N_VOLUMES = 2 if SMOKE else 6
ledger = Ledger()
wrapper.fit(
    n_epochs=3 if SMOKE else 40,
    passive_bs=N_VOLUMES,
    n_mu_per_volume=128 if SMOKE else 3_000,
    mu_bs=3_000,
    trn_passives=PassiveYielder(generator, n_passives=N_VOLUMES),
    val_passives=None,
    cbs=[MuonResampler(), NoMoreNaNs(), SigmoidPanelSmoothnessSchedule((0.2, 0.05)), ledger],
)

# %%
costs = torch.tensor(ledger.rows)
figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
for axis, side, heights, title in zip(
    axes, (slice(0, 4), slice(4, 8)), (ABOVE, BELOW), ("above", "below"), strict=True
):
    labels = [f"panel at {z:g} m" for z in heights]
    colours = ["#0072B2", "#56B4E9", "#E69F00", "#D55E00"]
    axis.stackplot(range(len(costs)), costs[:, side].T.numpy(), labels=labels, colors=colours)
    axis.set(xlabel="epoch", title=title, xlim=(0, len(costs) - 1))
    axis.legend(loc="lower left", fontsize=8)
axes[0].set_ylabel("money")
plt.show()

# %% [markdown]
# Four small panels on a side are a poor way to spend the money: a track needs two hits, and two large panels that are
# well apart catch more muons than four small ones. The optimisation finds that out by starving one half of the panels.

# %%
figure = plt.figure(figsize=(11, 5.5))
limits = {"xlim": (-0.2, 1.2), "ylim": (-0.2, 1.2), "zlim": (-0.2, 1.2)}
for place, (shown, title) in enumerate(((build_volume(), "before"), (volume, "after"))):
    axis = figure.add_subplot(1, 2, place + 1, projection="3d")
    draw_volume(shown, **limits, ax=axis)
    axis.set_title(title)
    if place:
        axis.get_legend().remove()
plt.show()

# %% [markdown]
# ## Was it worth it?
#
# On blocks and muons that neither detector has met, with panels as they are, hard edges and all. Every detector sees
# the same muons, so differences are known better than values. A physicist's answer to the lesson, two panels of 1 m² on
# either side and as far apart as there is room, stands beside them.

# %%
N_TEST = 4 if SMOKE else 24
tests = [generator.get_data(generator=torch.Generator().manual_seed(k)) for k in range(N_TEST)]


def errors(volume):
    """Mean squared error of log X0 in every test volume."""
    judge = PanelVolumeWrapper(volume, xy_pos_opt=hold, z_pos_opt=hold, xy_span_opt=hold, seed=99)
    n_muons = 500 if SMOKE else 5_000
    pairs = judge.predict(PassiveYielder(tests), n_mu_per_volume=n_muons, mu_bs=5_000, cbs=[MuonResampler()])
    logs = [(torch.as_tensor(pred) / torch.as_tensor(true)).log() for pred, true in pairs]
    return torch.stack([log.square().mean() for log in logs])


def two_on_a_side():
    """All the money for the outermost panels."""
    volume = build_volume()
    with torch.no_grad():
        volume.budget_weights.copy_(torch.tensor([8.0, 0, 0, 8, 8, 0, 0, 8]))
    volume.assign_budget()
    return volume


found = {
    "eight equal panels": errors(build_volume()),
    "learned": errors(volume),
    "two on a side": errors(two_on_a_side()),
}
first = found["eight equal panels"]
print(f"eight equal panels: error {first.mean():.2f}")
for name in ("learned", "two on a side"):
    gain = first - found[name]
    print(f"{name}: error {found[name].mean():.2f}, better by {gain.mean():.2f} +- {gain.std() / N_TEST**0.5:.2f}")

# %% [markdown]
# The same from a configuration: `budget:` in the section `volume`, and an optimiser `budget`. The ladle furnace is such
# a design: `diffdet optimise --out RUN` runs it.
