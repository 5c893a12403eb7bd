"""Predictions of a run for its test events, and what follows from them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffdet.core.errors import FileDamagedError
from diffdet.report.collect import RunRecord

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PREDICTIONS", "BestCut", "Judged", "read_predictions"]

PREDICTIONS = "predictions.npz"
N_REPLICATES = 200


@dataclass(frozen=True)
class BestCut:
    """The cut with the highest expected significance.

    Attributes:
        cut: Score from which on events are kept.
        significance: Expected significance there, in standard deviations.
        error: Its standard error from resampling, at the same cut.
        cuts: Cuts of the curve.
        curve: Significance at each of them.
        band: Lower and upper end of its band.
        signal: Signal expected above the cut.
        background: Background expected above the cut.
        scope: What yields are of, where not of all data.
    """

    cut: float
    significance: float
    error: float
    cuts: Any
    curve: Any
    band: tuple[Any, Any]
    signal: float
    background: float
    scope: str = ""


@dataclass(frozen=True)
class Judged:
    """Predictions beside the truth.

    Attributes:
        objective: ``"classification"``, ``"multiclass"`` or ``"regression"``.
        pred: Predictions, (event, output).
        target: True values, (event, output), or class numbers (event, 1).
        weight: Weight of each event.
        yields: Expected events that each stands for; None where the data have none.
        seed: Root of the random numbers of resamplings.
        names: Names of the targets, where known.
        best_cut: Where an analysis would cut; None where that has no meaning.
    """

    objective: str
    pred: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    yields: np.ndarray | None
    seed: int
    names: tuple[str, ...]
    best_cut: BestCut | None = None


def read_predictions(record: RunRecord) -> Judged | None:
    """What a run predicted for its test events; None where it has not come to that.

    Raises:
        FileDamagedError: If the file cannot be read.
    """
    import numpy as np

    path = record.folder / PREDICTIONS
    if not path.is_file() or not record.result.get("final"):
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        pred, target, weight = arrays["pred"], arrays["target"], arrays["weight"]
        if not len(pred) == len(target) == len(weight) or pred.ndim != 2 or not np.isfinite(pred).all():
            raise ValueError("arrays do not fit together")
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise FileDamagedError(f"{path}: expected predictions as a run writes them: {error}") from error
    seed = int(record.config.get("seed") or 0)
    objective = str(record.result.get("objective") or (record.config.get("network") or {}).get("objective"))
    yields = arrays.get("extra_yields")
    names = tuple(str(name).replace("_", " ") for name in (record.config.get("data") or {}).get("targets") or ())
    judged = Judged(objective, pred, target, weight, yields, seed, names)
    if yields is None or objective != "classification" or pred.shape[1] != 1:
        return judged
    data = record.config.get("data") or {}
    whole = 1.0  # test events stand for all, where it is known how many there are
    if data.get("example") and data.get("folds") and data.get("test_folds"):
        whole = float(data["folds"]) / float(data["test_folds"])
    scope = "" if whole > 1 else " among those tested"
    return replace(judged, best_cut=_best_cut(judged, yields * whole, scope))


def counts(n: int, seed: int, n_replicates: int = N_REPLICATES) -> Any:
    """How often each replicate of a bootstrap holds each of n events, (replicate, event)."""
    import torch

    from diffdet.core.random import Stream

    rate = torch.ones(n_replicates, n)
    return torch.poisson(rate, generator=Stream(seed, "report").generator()).long()


def _best_cut(judged: Judged, yields: np.ndarray, scope: str) -> BestCut | None:
    """Significance by cut."""
    import numpy as np
    import torch

    from diffdet.kernels.significance import asimov_significance

    signal = judged.target[:, 0] > 0.5
    if signal.all() or not signal.any() or (yields < 0).any() or yields[~signal].sum() <= 0:
        return None
    scores = judged.pred[:, 0]
    grid = np.unique(np.quantile(scores, np.linspace(0, 1, 201)))
    above = torch.from_numpy(scores[None, :] >= grid[:, None])
    weights = torch.from_numpy(yields.astype(np.float64))
    expected = above.to(torch.float64) * weights
    s_all, b_all = expected * torch.from_numpy(signal), expected * torch.from_numpy(~signal)
    # Cuts with few background events left would win by luck.
    enough = (above & torch.from_numpy(~signal)).sum(1) >= 10

    def significance(times: torch.Tensor) -> torch.Tensor:
        s, b = (s_all @ times.T), (b_all @ times.T)
        return torch.where(enough[:, None], asimov_significance(s, b, torch.zeros_like(b)), float("nan"))

    once = torch.ones(1, len(scores), dtype=torch.float64)
    curve = significance(once)[:, 0]
    if not bool(torch.isfinite(curve).any()):
        return None
    best = int(torch.nan_to_num(curve, nan=-1.0).argmax())
    band = significance(counts(len(scores), judged.seed, 100).to(torch.float64))
    spread = band.std(1)
    return BestCut(
        float(grid[best]),
        float(curve[best]),
        float(spread[best]),
        grid,
        curve.numpy(),
        ((curve - spread).numpy(), (curve + spread).numpy()),
        float(s_all[best].sum()),
        float(b_all[best].sum()),
        scope,
    )
