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
# # Optimisation and callbacks
#
# [Hello, world](00_hello_world.py) called `fit` and watched the panels move. Here is how `fit` works: what happens
# when, how callbacks act in between, how to write one, and how a run that was killed goes on as if nothing had been.

# %%
import os
import tempfile
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image

from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.detector_callbacks import (
    PanelUpdateLimiter,
    SigmoidPanelSmoothnessSchedule,
)
from diffdet.tomography.optimisation.callbacks.diagnostic_callbacks import HitRecord, ScatterRecord
from diffdet.tomography.optimisation.callbacks.eval_metric import EvalMetric
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.callbacks.monitors import PanelMetricLogger
from diffdet.tomography.optimisation.callbacks.opt_callbacks import OneCycle
from diffdet.tomography.optimisation.callbacks.warmup_callbacks import CostCoefWarmup, OptConfig
from diffdet.tomography.optimisation.data.passives import PassiveYielder, RandomBlockPassiveGenerator
from diffdet.tomography.optimisation.events import EVENTS
from diffdet.tomography.optimisation.loss import AbsDetectorLoss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper
from diffdet.tomography.plotting.diagnostics import plot_hit_density, plot_scatter_density
from diffdet.tomography.volume import PanelDetectorLayer, PassiveLayer, SigmoidDetectorPanel, Volume

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))  # tiny sizes, only to see that everything runs

# %%
torch.manual_seed(0)
torch.set_num_threads(1)  # tensors are small here: more threads make them slower
SCRATCH = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Something to optimise
#
# A cube like that of the first notebook, with sigmoid panels, which begin off the middle and crowded within 6 cm. Every
# volume holds a block of random size and place, of one material in another.


# %%
def build_volume():
    """Four crowded panels on either side of a block of 0.6 m."""
    lw = torch.tensor([1.0, 1.0])

    def panels(heights):
        return [
            SigmoidDetectorPanel(smooth=1.0, res=1e4, eff=0.9, init_xyz=(0.35, 0.35, z), init_xy_span=(0.9, 0.9))
            for z in heights
        ]

    above = PanelDetectorLayer("above", lw=lw, z=1.0, size=0.2, panels=panels((0.93, 0.91, 0.89, 0.87)))
    below = PanelDetectorLayer("below", lw=lw, z=0.2, size=0.2, panels=panels((0.13, 0.11, 0.09, 0.07)))
    return Volume([above, *[PassiveLayer(lw, round(0.8 - 0.1 * k, 2), 0.1) for k in range(6)], below])


class LogX0Loss(AbsDetectorLoss):
    """Mean squared error of the logarithm of X0: dense voxels count as much as thin ones."""

    def _get_inference_loss(self, pred, volume):
        return torch.nn.functional.mse_loss(pred.log(), volume.get_rad_cube().log())


def build_wrapper(seed=0):
    """Volume, optimisers and loss. A seed fixes every random number."""
    return PanelVolumeWrapper(
        build_volume(),
        xy_pos_opt=partial(torch.optim.SGD, lr=0.0),
        z_pos_opt=partial(torch.optim.SGD, lr=0.0),
        xy_span_opt=partial(torch.optim.SGD, lr=0.0),
        loss_func=LogX0Loss(target_budget=10),
        seed=seed,
    )


def blocks(volume, n):
    """Fresh random blocks every epoch: lead, iron or beryllium in one another."""
    generator = RandomBlockPassiveGenerator(
        volume=volume,
        materials=["lead", "iron", "beryllium"],
        block_size=None,
        block_size_max_half=True,
        enforce_diff_mat=True,
        sort_x0=True,
    )
    return PassiveYielder(generator, n_passives=n)


wrapper = build_wrapper()
print("optimisers:", sorted(wrapper.opts))
print("parameters to learn:", wrapper.get_param_count())
wrapper.set_opt_lr(0.5, "z_pos_opt")
print("learning rate of z:", wrapper.get_opt_lr("z_pos_opt"))

# %% [markdown]
# ## What happens when
#
# A fit is a sequence of events, eighteen kinds of them. A callback is an object with methods of those names; the loop
# calls them. This one writes down what it hears:


# %%
class Eavesdropper(Callback):
    """Lists the events, repeats of one in a row counted."""

    def __init__(self):
        self.heard = []

    def hear(self, event):
        """Note an event."""
        if self.heard and self.heard[-1][0] == event:
            self.heard[-1][1] += 1
        else:
            self.heard.append([event, 1])


for event in EVENTS:
    setattr(Eavesdropper, event, lambda self, event=event: self.hear(event))

spy = Eavesdropper()
wrapper = build_wrapper()
wrapper.fit(
    n_epochs=1,
    passive_bs=2,  # volumes to an update
    n_mu_per_volume=200,
    mu_bs=100,  # muons to a batch: results do not depend on it
    trn_passives=blocks(wrapper.volume, 2),
    val_passives=None,
    cbs=[spy],
)
for event, times in spy.heard:
    print(f"{event:24}{f' x {times}' if times > 1 else ''}")

# %% [markdown]
# While a hook runs, `self.wrapper.fit_params` holds everything there is to know: `epoch`, `state` ("train", "valid" or
# "test"), the muons `mu`, the scatterings `sb`, the prediction `pred`, the losses. Hooks may change them: the linear
# correction of the ladle furnace replaces `pred` when the prediction has been made, `SpreadRangeLoss` replaces
# `mean_loss` when a batch of volumes ends.
#
# ## Callbacks that come along
#
# | what for | callbacks |
# |---|---|
# | muons | `MuonResampler` |
# | warm-up: watch, then set | `CostCoefWarmup` (weight of the cost), `OptConfig` (learning rates) |
# | schedules | `OneCycle`, `SigmoidPanelSmoothnessSchedule` |
# | keeping the detector in order | `PanelUpdateLimiter`, `PanelCentring`, `NoMoreNaNs` |
# | watching | `MetricLogger`, `PanelMetricLogger`, `HeatMapGif`, your own `EvalMetric` |
# | recording | `ScatterRecord`, `HitRecord`, `EpochSave`, `Save2HDF5PredHandler` |
#
# ### Learning rates in physical units
#
# How far should a panel move in one step? "About 2 cm" is easy to say; the learning rate that does it depends on the
# loss. `OptConfig` watches the gradients for some epochs while nothing moves, and then sets learning rates such that
# the median step is what was asked for. `OneCycle` then leads them, here up to twice and down to a tenth, and
# `PanelUpdateLimiter` stops the odd large step, which a few muons with large weights can cause.
#
# Panels begin with soft edges, 0.2 half widths, so that many muons feel them, and end with sharp ones. Much softer
# would be worse: a panel that seems to see everything need not be anywhere.
#
# ## A callback of one's own: a metric
#
# The loss is what gradients can follow; what people ask is another thing. Say: how well does the block stand out? An
# `EvalMetric` computes a number for every epoch, and loggers find it by themselves. What it learns while a fit runs is
# named in `saved`, so that it survives a kill.


# %%
class Contrast(EvalMetric):
    """Mean log X0 of the background minus that of the block, over what it truly is: 1 is right, 0 shows nothing."""

    saved = ("parts",)

    def __init__(self):
        super().__init__(lower_metric_better=False, name="contrast")
        self.parts = []

    def on_epoch_begin(self):
        """Begin a new mean."""
        self.parts = []

    def on_volume_end(self):
        """Look at one volume of the validation."""
        fit = self.wrapper.fit_params
        if fit.state == "valid" and fit.pred is not None:
            true, pred = self.wrapper.volume.get_rad_cube().log(), fit.pred.detach().log()
            block = true < true.max() - 0.01
            seen, there = (x[~block].mean() - x[block].mean() for x in (pred, true))
            self.parts.append((seen / there).item())

    def on_epoch_end(self):
        """The mean of the epoch."""
        if self.parts:
            self.metric = sum(self.parts) / len(self.parts)


# %%
N_EPOCHS = 4 if SMOKE else 30
N_VOLUMES = 2 if SMOKE else 6
SIZES = dict(passive_bs=N_VOLUMES, n_mu_per_volume=128 if SMOKE else 2_500, mu_bs=2_500)


def run(wrapper, n_epochs=N_EPOCHS, more=(), **options):
    """A fit with warm-ups, schedules and a logger."""
    logger = PanelMetricLogger(gif_filename="history.gif", show_plots=True)
    rates = {"xy_pos_opt": 0.02, "z_pos_opt": 0.02, "xy_span_opt": 0.01}
    warmup = 1 if SMOKE else 2
    callbacks = [
        MuonResampler(),
        NoMoreNaNs(),
        CostCoefWarmup(n_warmup=1),
        OptConfig(n_warmup=warmup, rates=rates),
        *[
            OneCycle(name, warmup_length=n_epochs // 3, init_lr=0.5, mid_lr=2.0, final_lr=0.1, relative=True)
            for name in rates
        ],
        SigmoidPanelSmoothnessSchedule((0.2, 0.05)),
        PanelUpdateLimiter(max_xy_step=(0.05, 0.05), max_z_step=0.02, max_xy_span_step=(0.05, 0.05)),
        Contrast(),
        logger,
        *more,
    ]
    wrapper.fit(
        n_epochs=n_epochs,
        **SIZES,
        trn_passives=blocks(wrapper.volume, N_VOLUMES),
        val_passives=blocks(wrapper.volume, 2 * N_VOLUMES),
        cbs=callbacks,
        cb_savepath=SCRATCH,
        **options,
    )
    return logger


wrapper = build_wrapper()
logger = run(wrapper)
losses, metrics = logger.get_loss_history()
for name, values in (("validation loss", losses["Validation"]), ("contrast", metrics["contrast"])):
    print(f"{name}: {values[0]:.2f} at first, {values[-1]:.2f} in the end")
print({name: f"{wrapper.get_opt_lr(name):.3g}" for name in wrapper.opts})

# %% [markdown]
# In a notebook `show_plots=True` draws the history live, epoch by epoch, and the detector with it; at the end it is
# saved as an animation. This is its last frame: losses, what they are made of, the metric, and the panels from the
# front, from the side and from above, with the response of a panel on the right.

# %%
with Image.open(SCRATCH / "history.gif") as animation:
    animation.seek(animation.n_frames - 1)
    frame = animation.convert("RGB").copy()
figure = plt.figure(figsize=(frame.width / 90, frame.height / 90))
figure.add_axes((0, 0, 1, 1)).imshow(frame)
figure.axes[0].axis("off")
plt.show()

# %% [markdown]
# ## Looking at what the detector sees
#
# `predict` sends muons through volumes with the detector as it is, hard edges and all. Recorders keep points of closest
# approach and hits; memory grows with them, so use them on one layout.

# %%
one_block = blocks(wrapper.volume, 1)
scatter_record, hit_record = ScatterRecord(), HitRecord()
predictions = wrapper.predict(
    one_block,
    n_mu_per_volume=1_000 if SMOKE else 50_000,
    mu_bs=10_000,
    cbs=[MuonResampler(), scatter_record, hit_record],
)
points, hits = scatter_record.get_record(), hit_record.get_record()
print(f"{len(points)} points in the passive block, {len(hits)} muons with {hits.shape[1]} hits each")
plot_hit_density(hits)

# %% [markdown]
# Points of closest approach by passive layer, the highest first. Any table with columns `x`, `y` and `layer` will do.

# %%
_, top = wrapper.volume.passive_box
layer = ((top[2] - points[:, 2]) / wrapper.volume.passive_size).long()
plot_scatter_density({"x": points[:, 0], "y": points[:, 1], "layer": layer})

# %% [markdown]
# ## A power cut
#
# With `checkpoint=FOLDER` the state is saved after every epoch: parameters, optimisers, schedules, warm-ups, history,
# and where random numbers come from. Files are written to a temporary name, flushed, and renamed, so a kill at any
# moment leaves a whole one behind. Here the power goes in the middle of a fit, and comes back:


# %%
class PowerCut(Callback):
    """Fails in the middle of an epoch."""

    transient = ("at",)

    def __init__(self, at=None):
        self.at = at

    def on_backwards_end(self):
        """Fail, if it is time."""
        if self.wrapper.fit_params.epoch == self.at:
            raise RuntimeError("power cut")


def quiet_fit(wrapper, cut, **options):
    """A short fit without pictures."""
    wrapper.fit(
        n_epochs=6,
        passive_bs=2,
        n_mu_per_volume=200,
        mu_bs=200,
        trn_passives=blocks(wrapper.volume, 4),
        val_passives=None,
        cbs=[MuonResampler(), NoMoreNaNs(), CostCoefWarmup(1), OptConfig(1, {"xy_pos_opt": 0.01}), cut],
        **options,
    )
    return [panel.xy.detach() for panel in wrapper.volume.yield_panels()]


undisturbed = quiet_fit(build_wrapper(), PowerCut())
try:
    quiet_fit(build_wrapper(), PowerCut(at=5), checkpoint=SCRATCH / "checkpoints")
except RuntimeError as error:
    print("the fit ended with:", error)
resumed = quiet_fit(build_wrapper(), PowerCut(), checkpoint=SCRATCH / "checkpoints", resume=True)
same = all(torch.equal(a, b) for a, b in zip(undisturbed, resumed, strict=True))
print("resumed and undisturbed fit end with the same bits:", same)

# %% [markdown]
# ## Detectors to keep
#
# `wrapper.save` writes detector and optimisers to one file, `wrapper.load` reads it, and `from_save` builds a wrapper
# with it. Nothing in such a file can execute code.

# %%
wrapper.save(SCRATCH / "detector.safetensors")
again = build_wrapper()
again.load(SCRATCH / "detector.safetensors")
print(next(again.volume.yield_panels()))

# %% [markdown]
# Next: [a fixed budget](03_fixed_budget.py).
