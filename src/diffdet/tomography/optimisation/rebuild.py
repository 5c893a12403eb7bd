"""Graphs that are built again instead of kept, so that memory does not grow with the muons of an update.

The graph of a batch of muons takes about 5 kB a muon. Where an update has many, each batch leaves only the few numbers
a muon that the inference needs, and its graph is built a second time when the gradient passes through it: the same
muons, the same random numbers, the same digits. That costs about half as much time again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import AbsVolumeInferrer
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.volume import Volume

__all__ = ["KEEP_GRAPHS_UP_TO", "rows_to_rebuild"]

KEEP_GRAPHS_UP_TO: Final = 50_000
"""Muons to an update whose graphs are kept: 250 MB. A larger number would be quicker for updates between, and need more
memory."""


def rows_to_rebuild(
    mu: MuonBatch,
    volume: Volume,
    partial_scatter_inferrer: Callable[..., ScatterBatch],
    inferrer: AbsVolumeInferrer,
    seen: Callable[[ScatterBatch], None],
) -> tuple[Tensor, ...]:
    """Fly muons through a volume and take from them what the inference needs, without keeping the graph.

    Args:
        mu: Muons before their flight; afterwards behind it, with hits.
        volume: Volume with the layout loaded.
        partial_scatter_inferrer: Called with ``mu`` and ``volume`` after the flight.
        inferrer: Says what it needs of each muon. Its ``rows_suffice`` must be true.
        seen: Called once with the scatterings.

    Returns:
        What ``inferrer.rows`` gives, differentiable in the detector.
    """
    start, layout = mu.copy(), volume.layout
    in_flight = [mu]  # given up after the flight: what is kept for the backward pass is the start, without hits

    def rows() -> tuple[Tensor, ...]:
        if in_flight:
            muons = in_flight.pop()
            volume(muons)
            scatters = partial_scatter_inferrer(mu=muons, volume=volume)
            seen(scatters)
            return inferrer.rows(scatters)
        now = volume.layout
        volume.layout = layout  # another one may have been loaded meanwhile
        try:
            again = start.copy()
            volume(again)
            return inferrer.rows(partial_scatter_inferrer(mu=again, volume=volume))
        finally:
            volume.layout = now

    # Random numbers are keyed by muon, so no state of a generator has to be kept.
    return checkpoint(rows, use_reentrant=False, preserve_rng_state=False)
