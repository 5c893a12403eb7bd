"""How far the smooth detector model, with which a detector learns, is from the physical one, by which it is judged."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range
from diffdet.core.errors import InputError, NoMuonsWarning, NotSupportedError
from diffdet.kernels.angles import angle_between
from diffdet.kernels.statistics import weighted_quantile
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import panel_efficiency
from diffdet.tomography.muon.hits import HitBatch
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.volume import Volume

__all__ = ["FIGURES", "ModelComparison", "Pair", "compare_models"]

FIGURES = {
    "share_used": "",
    "hit_efficiency": "",
    "hit_resolution_m": "m",
    "angle_in_rad": "rad",
    "angle_out_rad": "rad",
}
"""What is compared, with its unit."""

_CENTRAL = 0.6827
_N_SHELLS = 12
_N_STEPS = 48


@dataclass(frozen=True)
class Pair:
    """One figure of both models, with standard errors.

    Attributes:
        smooth: Of the smooth model; None where it cannot be measured.
        physical: Of the physical one, likewise.
        difference: Smooth minus physical. Its error is smaller than those of its parts, because both models saw the
            same muons with the same noise.
    """

    smooth: tuple[float, float] | None
    physical: tuple[float, float] | None
    difference: tuple[float, float] | None


@dataclass(frozen=True)
class ModelComparison:
    """Both models on the same muons.

    Attributes:
        figures: For each name in `FIGURES`, the pair.
        curves: For a picture: ``share_used`` by distance from the axis of the volume at half its height (``edges``, and
            for both models ``value`` and ``error``); ``hit_resolution_m``, ``angle_in_rad`` and ``angle_out_rad``: the
            share of hits and tracks (``value``) with a smaller error than ``edges``.
        n_muons: Muons sent through each model.
    """

    figures: dict[str, Pair]
    curves: dict[str, dict[str, list[float] | dict[str, list[float]]]]
    n_muons: int


@dataclass
class _Sample:
    """What is known of all muons of one model; muons count by their place in the whole sample."""

    n: int
    used: list[Tensor] = field(default_factory=list)  # (muon,) probability that it is used
    efficiency: list[Tensor] = field(default_factory=list)  # (muon,) mean over its hits
    distance: list[Tensor] = field(default_factory=list)  # (muon,) from the axis, m
    hit_errors: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)  # error, weight, muon
    angles: tuple[list[tuple[Tensor, Tensor, Tensor]], list[tuple[Tensor, Tensor, Tensor]]] = field(
        default_factory=lambda: ([], [])
    )


@torch.no_grad()
def compare_models(
    volume: Volume, send: Callable[[int], MuonBatch], *, n_batches: int, n_groups: int = 16
) -> ModelComparison:
    """Send the same muons through the smooth and the physical model of a detector.

    Compared are the share of muons that are used (the probability of two hits above and two below, and of a track that
    can be used), the efficiency of hits, the error of a hit in x or y, and the angle between fitted and true track
    above and below. Of errors and angles that is stated below which 68.27 % lie, weighted by the probability that the
    hit or track is recorded. Standard errors come from groups of muons.

    Args:
        volume: The detector with a layout; modes are as before afterwards. Its panels must have a physical model.
        send: Called with the number of a batch for muons above the volume; twice for each number, and must then give
            the same muons with the same stream. It may load another layout first.
        n_batches: Number of batches.
        n_groups: Groups into which muons are sorted, at least two.

    Returns:
        ModelComparison.

    Raises:
        InputError: If a number is out of range, or `send` gives other muons the second time.
        NotSupportedError: If no panel has a physical model.
    """
    check_in_range("n_batches", n_batches, 1)
    check_in_range("n_groups", n_groups, 2)
    if not any(panel.realistic_validation for panel in volume.yield_panels()):
        raise NotSupportedError(
            "no panel has a physical model to compare the smooth one with: `realistic_validation` is False for all"
        )
    modes = {module: module.training for module in volume.modules()}
    samples = _Sample(0), _Sample(0)
    try:
        for number in range(n_batches):
            sent = []
            for smooth, sample in zip((True, False), samples, strict=True):
                volume.train(smooth)
                mu = send(number)
                sent.append(mu.muons)
                _measure(volume, mu, sample)
            if not torch.equal(*sent):
                raise InputError(f"`send` must give the same muons when called again with {number}; it gave others")
    finally:
        for module, mode in modes.items():
            module.training = mode
    return _compare(samples, n_groups)


def _measure(volume: Volume, mu: MuonBatch, sample: _Sample) -> None:
    """Send one batch and note what became of every muon."""
    n, first = len(mu), mu.first
    (_, _, low), (size_x, size_y, high) = volume.passive_box
    position, direction = mu.position, mu.direction
    at = position[:2] + direction[:2] * ((0.5 * (low + high) - position[2]) / direction[2])
    distance = (at - at.new_tensor([size_x / 2, size_y / 2])[:, None]).norm(dim=0)
    volume(mu)
    used, efficiency = at.new_zeros(n), at.new_zeros(n)
    sides = [mu.hit_batch(side) for side in ("above", "below")]
    place = mu.ids - first
    efficiency[place] = torch.cat([_recorded(hits) for hits in sides]).mean(0)
    for hits in sides:
        error = (hits.reco_xy - hits.gen_xy).abs()
        weight = _recorded(hits)[:, None].expand_as(error)
        muon = (place + sample.n).expand_as(error)
        sample.hit_errors.append((error.flatten(), weight.flatten(), muon.flatten()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoMuonsWarning)
        scatters = ScatterBatch(mu, volume)
    if len(scatters):
        kept = mu.ids - first
        used[kept] = panel_efficiency(scatters)
        slopes = scatters.tracks.lines.slope
        for side, (hits, angles) in enumerate(zip(scatters.hit_batches(), sample.angles, strict=True)):
            angle = _angle(slopes[2 * side : 2 * side + 2], hits)
            angles.append((angle, used[kept], kept + sample.n))
    sample.used.append(used)
    sample.efficiency.append(efficiency)
    sample.distance.append(distance)
    sample.n += n


def _recorded(hits: HitBatch) -> Tensor:
    """``(hit, muon)`` probability that a hit is recorded; zero where there is none."""
    return torch.where(hits.mask, hits.eff, torch.zeros_like(hits.eff))


def _angle(slope: Tensor, hits: HitBatch) -> Tensor:
    """``(muon,)`` angle between a fitted track and the true one, rad; NaN where all panels are at one height."""
    z = hits.z.expand(-1, hits.n_muons)
    true = (hits.gen_xy[0] - hits.gen_xy[-1]) / (z[0] - z[-1])
    one = torch.ones_like(slope[:1])
    return angle_between(torch.cat([slope, one]), torch.cat([true, one]))


def _compare(samples: tuple[_Sample, _Sample], n_groups: int) -> ModelComparison:
    """Figures and curves of both samples."""
    n = samples[0].n
    n_groups = min(n_groups, n)
    found = [_figures(sample, n_groups) for sample in samples]
    figures = {}
    for name in FIGURES:
        (whole_a, groups_a), (whole_b, groups_b) = found[0][name], found[1][name]
        figures[name] = Pair(
            _with_error(whole_a, groups_a),
            _with_error(whole_b, groups_b),
            _with_error(whole_a - whole_b, groups_a - groups_b),
        )
    curves: dict[str, dict[str, list[float] | dict[str, list[float]]]] = {"share_used": _shells(samples)}
    for name, tables in (
        ("hit_resolution_m", [s.hit_errors for s in samples]),
        ("angle_in_rad", [s.angles[0] for s in samples]),
        ("angle_out_rad", [s.angles[1] for s in samples]),
    ):
        curve = _cumulative([_joined(table) for table in tables])
        if curve is not None:
            curves[name] = curve
    return ModelComparison(figures, curves, n)


def _joined(table: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Values, weights and muons of all batches, without what is not finite or has no weight."""
    if not table:
        empty = torch.zeros(0, dtype=torch.float64)
        return empty, empty, empty.to(torch.int64)
    value, weight, muon = (torch.cat(column).cpu() for column in zip(*table, strict=True))
    good = torch.isfinite(value) & (weight > 0)
    return value[good].double(), weight[good].double(), muon[good]


def _figures(sample: _Sample, n_groups: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Every figure of the whole sample ``()`` and of each group ``(group,)``; NaN where it cannot be measured."""
    n = sample.n
    found = {}
    for name, values in (("share_used", sample.used), ("hit_efficiency", sample.efficiency)):
        value = torch.cat(values).double().cpu()
        parts = torch.stack([part.mean() for part in value.tensor_split(n_groups)])
        found[name] = (value.mean(), parts)
    tables = (sample.hit_errors, sample.angles[0], sample.angles[1])
    for name, table in zip(("hit_resolution_m", "angle_in_rad", "angle_out_rad"), tables, strict=True):
        value, weight, muon = _joined(table)
        # the same bounds as tensor_split, so that groups hold the same muons for all figures
        bounds = torch.cat([part[-1:] for part in torch.arange(n).tensor_split(n_groups)])
        group = torch.bucketize(muon, bounds)
        parts = torch.stack([_central(value[group == g], weight[group == g]) for g in range(n_groups)])
        found[name] = (_central(value, weight), parts)
    return found


def _central(value: Tensor, weight: Tensor) -> Tensor:
    """Value below which 68.27 % of the weight lie; NaN without values."""
    return weighted_quantile(value, weight, _CENTRAL) if len(value) else value.new_tensor(torch.nan)


def _with_error(whole: Tensor, groups: Tensor) -> tuple[float, float] | None:
    """Value and standard error; None where one of them is unknown."""
    known = groups[torch.isfinite(groups)]
    if not bool(torch.isfinite(whole)) or len(known) < 2:
        return None
    # Order statistics of groups may all agree where those of the whole do not: they are coarser.
    error = max(float(known.std()) / len(known) ** 0.5, float((whole - known.mean()).abs()) / 2)
    return float(whole), error


def _shells(samples: tuple[_Sample, _Sample]) -> dict[str, list[float] | dict[str, list[float]]]:
    """Share of muons used by distance from the axis."""
    distance = torch.cat(samples[0].distance).double().cpu()
    edges = torch.linspace(0, float(weighted_quantile(distance, torch.ones_like(distance), 0.98)), _N_SHELLS + 1)
    shell = torch.bucketize(distance, edges[1:-1].double())
    inside = distance <= float(edges[-1])
    curve: dict[str, list[float] | dict[str, list[float]]] = {"edges": edges.tolist()}
    for name, sample in zip(("smooth", "physical"), samples, strict=True):
        used = torch.cat(sample.used).double().cpu()
        parts = [used[inside & (shell == k)] for k in range(_N_SHELLS)]
        curve[name] = {
            "value": [float(part.mean()) if len(part) else 0.0 for part in parts],
            "error": [float(part.std()) / len(part) ** 0.5 if len(part) > 1 else 0.0 for part in parts],
        }
    return curve


def _cumulative(
    tables: list[tuple[Tensor, Tensor, Tensor]],
) -> dict[str, list[float] | dict[str, list[float]]] | None:
    """Share of the weight below each of some values, equal for both models; None where one has no values."""
    ends = []
    for value, weight, _ in tables:
        if not len(value):
            return None
        ends.append([float(weighted_quantile(value, weight, q)) for q in (0.02, 0.98)])
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    low = max(low, high / 1e4)
    if not 0 < low < high:
        return None
    edges = torch.logspace(0, 1, _N_STEPS, base=high / low, dtype=torch.float64) * low
    curve: dict[str, list[float] | dict[str, list[float]]] = {"edges": edges.tolist()}
    for name, (value, weight, _) in zip(("smooth", "physical"), tables, strict=True):
        order = value.argsort()
        below = weight[order].cumsum(0) / weight.sum()
        count = torch.searchsorted(value[order], edges, right=True)
        curve[name] = {"value": torch.cat([below.new_zeros(1), below])[count].tolist()}
    return curve


def as_mapping(comparison: ModelComparison) -> Mapping[str, object]:
    """Plain values for a file: figures as ``{smooth, smooth_se, physical, physical_se, difference, difference_se}``."""
    figures = {}
    for name, pair in comparison.figures.items():
        row: dict[str, float | None] = {}
        for key, entry in (("smooth", pair.smooth), ("physical", pair.physical), ("difference", pair.difference)):
            row[key], row[f"{key}_se"] = (None, None) if entry is None else entry
        figures[name] = row
    return {"figures": figures, "curves": comparison.curves, "muons": comparison.n_muons}
