"""How far the smooth model of the final detector, with which it was optimised, is from the physical one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.errors import NoHitsError

if TYPE_CHECKING:
    from diffdet.runs.config import RunConfig
    from diffdet.runs.tasks.base import AbsTask, Progress
    from diffdet.tomography.muon.muon_batch import MuonBatch
    from diffdet.tomography.volume.volume import Volume

__all__ = ["compare_models"]

_N_GROUPS: Final = 16
_MAX_LAYOUTS: Final = 4
_MAX_MUONS: Final = 16_384


def compare_models(config: RunConfig, final: Volume, task: AbsTask, progress: Progress) -> dict[str, Any] | None:
    """Compare both models on muons of their own, and by the figures of the task.

    Args:
        config: The configuration of the run.
        final: A volume with the optimised detector.
        task: The task, for its figures.
        progress: Told how far the comparison is.

    Returns:
        ``figures`` (for each quantity `smooth`, `physical` and `difference` with their standard errors), ``task`` (the
        same for the figures of the task), ``curves``, numbers of muons and ``notes``; None where no panel has a
        physical model.
    """
    from diffdet.runs.build import same_volume
    from diffdet.tomography.inference.model_comparison import as_mapping
    from diffdet.tomography.inference.model_comparison import compare_models as compare

    panels = list(final.yield_panels())
    if not any(panel.realistic_validation for panel in panels):
        return None
    progress(0, 2, "models of the detector")
    source = _Source(config, final)
    n_layouts = len(source.layouts)
    found: dict[str, Any] = dict(as_mapping(compare(final, source.send, n_batches=n_layouts, n_groups=_N_GROUPS)))
    notes = []
    if any(not panel.realistic_validation for panel in panels):
        notes.append("Panels without a physical model are smooth on both sides.")
    progress(1, 2, "figures of the task")
    smooth = same_volume(config, final)
    for panel in smooth.yield_panels():
        panel.realistic_validation = False
    try:
        evaluation = task.compare_models(config, smooth, final, _silent)
    except NoHitsError as error:
        notes.append(f"No figures of the task: {error}.")
        found["task"], n_volumes = {}, 0
    else:
        found["task"] = _rows(evaluation.initial, evaluation.final)
        n_volumes = int(evaluation.details.get("n_test_volumes", 0))
    progress(2, 2, "done")
    return found | {"layouts": n_layouts, "task_volumes": n_volumes, "notes": notes}


class _Source:
    """Muons of the comparison: a few held-out layouts, and for each a batch that can be sent again."""

    def __init__(self, config: RunConfig, volume: Volume) -> None:
        from diffdet.core.random import Stream
        from diffdet.runs.build import build_muon_generator, yield_passives

        self.volume = volume
        self.generator = build_muon_generator(config, volume)
        self.resampled = any(callback.class_ == "MuonResampler" for callback in config.callbacks)
        layouts = list(yield_passives(config, volume, "model comparison", 1))
        self.layouts = layouts[:: max(1, len(layouts) // _MAX_LAYOUTS)][:_MAX_LAYOUTS]
        wanted = min(_N_GROUPS * config.muons.per_volume, _MAX_MUONS)
        self.n_muons = -(-wanted // len(self.layouts))
        self.stream = Stream(config.seed, "model comparison").muons()

    def send(self, number: int) -> MuonBatch:
        """Muons above the volume, with the layout of this number loaded."""
        from diffdet.tomography.muon.muon_batch import MuonBatch
        from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler

        volume, first = self.volume, number * self.n_muons
        volume.load_rad_length(*self.layouts[number])
        muons = self.generator(self.n_muons, stream=self.stream, start=first)
        if self.resampled:
            muons = MuonResampler.resample(muons, volume, self.generator, stream=self.stream, first=first)
        return MuonBatch(muons, volume.h, device=volume.device, stream=self.stream, first=first)


def _rows(smooth: dict[str, float], physical: dict[str, float]) -> dict[str, dict[str, float | None]]:
    """Figures of the task that have a standard error, as pairs. Errors of differences are those of independent figures:
    an upper limit, because both models see the same volumes and muons.
    """
    rows: dict[str, dict[str, float | None]] = {}
    for key in smooth:
        numbers = [smooth.get(key), smooth.get(f"{key}_se"), physical.get(key), physical.get(f"{key}_se")]
        if f"{key}_se" not in smooth:
            continue
        row: dict[str, float | None] = dict(
            zip(("smooth", "smooth_se", "physical", "physical_se"), numbers, strict=True)
        )
        a, a_se, b, b_se = numbers
        known = a is not None and b is not None and a_se is not None and b_se is not None
        row["difference"] = a - b if known else None  # type: ignore[operator]
        row["difference_se"] = math.hypot(a_se, b_se) if known else None  # type: ignore[arg-type]
        rows[key] = row
    return rows


def _silent(done: int, total: int | None, text: str) -> None:
    """Progress that nobody asked for."""
