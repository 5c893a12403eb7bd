"""A small fit that uses everything: also run as a program, to be killed.

As a program it serves fits on request: a line ``start FOLDER`` on standard input forks a process that resumes the fit
in that folder, and answers with its number; ``wait`` answers with how it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.loop.checkpoint import Checkpoints
from diffdet.tomography.core import X0
from diffdet.tomography.inference.volume import PanelX0Inferrer
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.detector_callbacks import (
    PanelCentring,
    PanelUpdateLimiter,
    SigmoidPanelSmoothnessSchedule,
)
from diffdet.tomography.optimisation.callbacks.eval_metric import EvalMetric
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.callbacks.monitors import MetricLogger
from diffdet.tomography.optimisation.callbacks.opt_callbacks import OneCycle
from diffdet.tomography.optimisation.callbacks.warmup_callbacks import CostCoefWarmup, OptConfig
from diffdet.tomography.optimisation.data.passives import PassiveYielder, RandomBlockPassiveGenerator
from diffdet.tomography.optimisation.loss.loss import VoxelX0Loss
from diffdet.tomography.optimisation.wrapper.volume_wrapper import PanelVolumeWrapper
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel, SigmoidDetectorPanel
from diffdet.tomography.volume.volume import Volume


class MeanPrediction(EvalMetric):
    """Mean predicted X0 of the last validation volume, m."""

    def on_x0_pred_end(self) -> None:
        """Evaluate."""
        if self._fit.state == "valid" and self._fit.pred is not None:
            self.metric = float(self._fit.pred.mean())


class Quiet(MetricLogger):
    """Logs without printing."""

    def print_losses(self) -> None:
        """Print nothing."""


def volume(budget: float | None = 4.0, smooth: float | None = 1.0, n_panels: int = 3) -> Volume:
    """Two layers of 2 x 2 voxels of 0.25 m between two detectors."""
    lw = torch.tensor([0.5, 0.5])

    def panel(z: float) -> DetectorPanel:
        xyz = (0.25 + 0.1 * (z % 0.03), 0.2, z)
        if smooth is None:
            return DetectorPanel(res=1e4, eff=0.9, init_xyz=xyz, init_xy_span=(0.6, 0.6))
        return SigmoidDetectorPanel(smooth=smooth, res=1e4, eff=0.9, init_xyz=xyz, init_xy_span=(0.6, 0.6))

    heights = [0.02 + 0.03 * k for k in range(n_panels)]
    above = PanelDetectorLayer("above", lw=lw, z=0.8, size=0.15, panels=[panel(0.8 - h) for h in heights])
    below = PanelDetectorLayer("below", lw=lw, z=0.15, size=0.15, panels=[panel(0.15 - h) for h in heights])
    passives = [PassiveLayer(lw, z, 0.25) for z in (0.65, 0.4)]
    return Volume(nn.ModuleList([above, *passives, below]), budget=budget)


def wrapper(seed: int | None = 1, **options: Any) -> PanelVolumeWrapper:
    """A wrapper whose optimisers are of two kinds, all with a memory."""
    sgd = partial(torch.optim.SGD, lr=1e-3, momentum=0.5)
    vol = options.pop("volume", None) or volume()
    settings: dict[str, Any] = {
        "xy_pos_opt": sgd,
        "z_pos_opt": sgd,
        "xy_span_opt": partial(torch.optim.Adam, lr=1e-3),
        "budget_opt": sgd if vol.budget is not None else None,
        "loss_func": VoxelX0Loss(target_budget=3.0),
        "mu_generator": MuonGenerator2016((0.0, 0.5), (0.0, 0.5)),
        "partial_volume_inferrer": PanelX0Inferrer,
    }
    return PanelVolumeWrapper(vol, **(settings | options), seed=seed)


def passives(vol: Volume, n: int = 4) -> PassiveYielder:
    """Blocks of lead in aluminium, somewhere."""
    generator = RandomBlockPassiveGenerator(vol, (0.25, 0.25, 0.25), True, True, materials=["aluminium", "lead"])
    return PassiveYielder(generator, n_passives=n)


def layouts(n: int = 3) -> list[tuple[Any, Tensor]]:
    """Uniform layouts with a target: their X0."""
    found = []
    for name in ["lead", "iron", "aluminium", "water"][:n]:

        def x0(*, z: Tensor, lw: Tensor, size: float, name: str = name) -> Tensor:
            return torch.full((2, 2), X0[name]) + 0 * z

        found.append((x0, torch.tensor([X0[name]])))
    return found


def callbacks() -> list[Any]:
    """One of everything that has a memory."""
    return [
        MuonResampler(),
        CostCoefWarmup(1),
        NoMoreNaNs(),
        OptConfig(1, {"xy_pos_opt": 0.005, "z_pos_opt": 0.002, "budget_opt": 0.05}),
        OneCycle("xy_pos_opt", 1, 1.0, 0.9, 2.0, 0.5, 0.1, relative=True),
        SigmoidPanelSmoothnessSchedule((1.0, 0.1)),
        PanelUpdateLimiter((0.02, 0.02), 0.01, (0.05, 0.05)),
        PanelCentring(),
        MeanPrediction(lower_metric_better=True),
        Quiet(),
    ]


N_EPOCHS = 5


def run(wrap: PanelVolumeWrapper, cbs: list[Any], n_epochs: int = N_EPOCHS, **options: Any) -> list[Any]:
    """Fit with an incomplete last batch of volumes and of muons, and with validation."""
    trn, val = passives(wrap.volume, 3), PassiveYielder(layouts(2), shuffle=False)
    return wrap.fit(n_epochs, 2, 100, 60, trn, val, cbs, **options)


def everything(wrap: PanelVolumeWrapper, cbs: list[Any]) -> dict[str, Any]:
    """What must agree between two fits, in a form that JSON takes and that keeps every bit."""

    def shown(value: Any) -> Any:
        if isinstance(value, Tensor):
            return [str(value.dtype), list(value.shape), value.detach().contiguous().numpy().tobytes().hex()]
        if isinstance(value, dict):
            return {str(k): shown(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [shown(v) for v in value]
        return repr(value)

    fit = wrap.last_fit
    assert fit is not None
    return {
        "volume": shown(wrap.volume.state_dict()),
        "opts": shown({name: opt.state_dict() for name, opt in wrap.opts.items()}),
        "loss": shown(wrap.loss_func.state_dict()),
        "history": shown(fit.history.rows),
        "callbacks": [shown(cb.state_dict()) for cb in cbs if isinstance(cb, Callback)],
        "muons": fit.n_muons,
        "stop": fit.stop_reason,
    }


def digest(wrap: PanelVolumeWrapper, cbs: list[Any]) -> str:
    """SHA-256 of `everything`."""
    return hashlib.sha256(json.dumps(everything(wrap, cbs), sort_keys=True).encode()).hexdigest()


def killable(folder: Path) -> None:
    """The fit that is killed: begin it, or go on with it, and write the digest when it is done."""
    warnings.simplefilter("ignore")
    wrap, cbs = wrapper(), callbacks()
    # Folders with an even number save between steps, too; the others at the end of every epoch only.
    every_seconds = 1e-9 if int(folder.name) % 2 == 0 else None
    run(wrap, cbs, checkpoint=Checkpoints(folder / "checkpoints", every_seconds=every_seconds), resume=True)
    (folder / "digest").write_text(digest(wrap, cbs))


def serve() -> None:
    """Fork a fit for every request."""
    torch.set_num_threads(1)
    wrapper()  # torch imports half of itself with the first optimiser: once, here, not in every process
    pid = 0
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "start":
            pid = os.fork()
            if pid == 0:
                killable(Path(argument))
                os._exit(0)
            print(pid, flush=True)
        elif command == "wait":
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
