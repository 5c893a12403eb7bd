"""Callbacks that act on the muons."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from diffdet.core.errors import NoHitsError
from diffdet.core.random import MUON_BLOCK, MuonStream, Stream
from diffdet.tomography.muon.generation import AbsMuonGenerator
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.volume.volume import Volume

__all__ = ["MuonResampler"]

MAX_BLOCKS: Final = 1024
"""Most blocks of candidates that are drawn to replace the muons of one block. Larger values would let a source that
misses the volume run for minutes before it is told."""


class MuonResampler(Callback):
    """Replaces muons that would not touch the passive volume by muons that would, also if they hit its lowest layer
    only.

    A muon is accepted if its straight line crosses the *top* plane of at least one passive layer inside the footprint.
    Refused ones are replaced by accepted muons of the same source. The replacements of a block of 1024 muons are
    candidates that belong to that block, in order, so they depend on neither the size of batches nor what was drawn
    before.

    Raises:
        NoHitsError: If too few of about a million candidates would touch the volume.
    """

    transient = ("_counted",)

    def __init__(self) -> None:
        # Refused muons before the one that the next batch begins with: (key of the stream, that muon, how many).
        self._counted: tuple[tuple[int | str, ...], int, int] | None = None

    @staticmethod
    def check_mu_batch(mu: MuonBatch, volume: Volume) -> Tensor:
        """Which muons would touch the passive volume.

        Args:
            mu: Muons, anywhere on their lines.
            volume: Volume with the passive layers.

        Returns:
            ``(muons,)`` bool, true where a muon would.
        """
        return _touches(mu.position, mu.direction, volume)

    @staticmethod
    def resample(
        mus: Tensor, volume: Volume, gen: AbsMuonGenerator, *, stream: MuonStream | None = None, first: int = 0
    ) -> Tensor:
        """Muons all of which would touch the passive volume, starting from the top of the whole volume.

        Args:
            mus: ``(muons, 5)`` x, y [m], momentum [GeV], theta, phi [rad], or ``(muons, 6)`` with z in third place,
                which is ignored.
            volume: Volume with the passive layers.
            gen: Source of replacements.
            stream: Stream of these muons; replacements come from streams below it. One of torch's default generator
                where None.
            first: Number of the first of these muons in the stream.

        Returns:
            ``(muons, 5)``; accepted muons as they were, in their places.

        Raises:
            NoHitsError: If too few candidates would touch the volume.
        """
        columns = mus if mus.shape[1] == 5 else mus[:, [0, 1, 3, 4, 5]]
        stream = Stream.from_torch().muons() if stream is None else stream
        refused = ~_touches(*_lines(columns, volume), volume)
        if not bool(refused.any()):
            return columns
        earlier = _n_refused_before(volume, gen, stream, first)
        out = columns.clone()
        _replace(out, refused, volume, gen, stream, first, earlier)
        return out

    def on_mu_batch_begin(self) -> None:
        """Resample the muons before they fly through the volume."""
        mu, wrapper = self._fit.mu, self._wrapper
        assert mu is not None
        refused = ~self.check_mu_batch(mu, wrapper.volume)
        key, first = mu.stream.key, mu.first
        earlier = 0
        if first % MUON_BLOCK:
            if self._counted is not None and self._counted[:2] == (key, first):
                earlier = self._counted[2]
            else:
                earlier = _n_refused_before(wrapper.volume, wrapper.mu_generator, mu.stream, first)
        n_refused = _replace_in_flight(mu, refused, wrapper.volume, wrapper.mu_generator, earlier)
        self._counted = (key, first + len(mu), n_refused)


def _touches(position: Tensor, direction: Tensor, volume: Volume) -> Tensor:
    """Which straight lines cross the top plane of a passive layer inside the footprint.

    Args:
        position: ``(3, N)`` points on the lines, m.
        direction: ``(3, N)`` their directions.
        volume: Volume with passive layers.

    Returns:
        ``(N,)`` bool. A horizontal line crosses no plane.
    """
    layers = volume.get_passives()
    tops = position.new_tensor([layer.top for layer in layers])
    extent = position.new_tensor(layers[0].extent)[:, None, None]
    slope = direction[:2] / direction[2]
    crossing = torch.addcmul(position[:2, None], slope[:, None], tops[:, None] - position[2])  # (xy, layer, muon)
    return ((crossing >= 0) & (crossing < extent)).all(0).any(0)


def _lines(columns: Tensor, volume: Volume) -> tuple[Tensor, Tensor]:
    """Positions ``(3, N)`` at the top of the volume and directions ``(3, N)`` of muons ``(N, 5)``."""
    x, y, _, theta, phi = columns.T
    sine = torch.sin(theta)
    height = volume.h.to(columns).expand_as(x)
    direction = torch.stack([sine * torch.cos(phi), sine * torch.sin(phi), -torch.cos(theta)])
    return torch.stack([x, y, height]), direction


def _n_refused_before(volume: Volume, gen: AbsMuonGenerator, stream: MuonStream, first: int) -> int:
    """Refused muons in the block of muon `first` that come before it."""
    n_before = first % MUON_BLOCK
    if n_before == 0:
        return 0
    before = gen(n_before, stream=stream, start=first - n_before)
    return int((~_touches(*_lines(before, volume), volume)).sum())


def _accepted(volume: Volume, gen: AbsMuonGenerator, stream: MuonStream, n_wanted: int, share: float) -> Tensor:
    """The first ``n_wanted`` muons of a stream that touch the volume, ``(n_wanted, 5)``.

    ``share`` is about how many of them do; it decides how many are drawn at a time, not which are found.
    """
    found: list[Tensor] = []
    n_found = n_drawn = 0
    n_blocks = min(MAX_BLOCKS, math.ceil(1.1 * n_wanted / (max(share, 0.01) * MUON_BLOCK)))
    while n_found < n_wanted:
        n_drawn_next = min(n_drawn + n_blocks * MUON_BLOCK, MAX_BLOCKS * MUON_BLOCK)
        if n_drawn_next == n_drawn:
            raise NoHitsError(
                f"only {n_found} of {n_drawn} muons (the bound) would touch the passive volume, {n_wanted} are needed: "
                f"check the ranges of {gen!r} against the volume's footprint of {volume.get_passives()[0].extent} m"
            )
        candidates = gen(n_drawn_next - n_drawn, stream=stream, start=n_drawn)
        good = candidates[_touches(*_lines(candidates, volume), volume)]
        found.append(good)
        n_found, n_drawn, n_blocks = n_found + len(good), n_drawn_next, 2 * n_blocks
    return torch.cat(found)[:n_wanted]


def _replacements(
    refused: Tensor, volume: Volume, gen: AbsMuonGenerator, stream: MuonStream, first: int, earlier: int
) -> tuple[Tensor, Tensor, int]:
    """What to put in place of refused muons.

    Args:
        refused: ``(N,)`` bool.
        volume: Volume.
        gen: Source.
        stream: Stream of the muons.
        first: Number of the first of them.
        earlier: Refused muons in the first one's block that come before it.

    Returns:
        Indices ``(n,)``, replacements ``(n, 5)``, and the number of refused muons in the last block so far.
    """
    first_block = first // MUON_BLOCK
    n_blocks = (first + len(refused) - 1) // MUON_BLOCK + 1 - first_block
    idx = refused.nonzero().squeeze(-1)
    block = (idx + first) // MUON_BLOCK - first_block
    counts = torch.bincount(block, minlength=n_blocks)
    rank = torch.arange(len(idx), device=idx.device) - (counts.cumsum(0) - counts)[block]
    rank[: int(counts[0])] += earlier
    n_last = int(counts[-1]) + (earlier if n_blocks == 1 else 0)
    if not len(idx):
        return idx, torch.empty(0, 5), n_last

    # One candidate for every muon of these blocks, drawn in one go: where at least half touch, they nearly suffice.
    n = n_blocks * MUON_BLOCK
    candidates = gen(n, stream=stream.child("resample"), start=first_block * MUON_BLOCK)
    good = _touches(*_lines(candidates, volume), volume)
    n_good, share = good.view(n_blocks, MUON_BLOCK).sum(1), float(good.double().mean())
    good_idx = good.nonzero().squeeze(-1)
    served = rank < n_good[block]
    place = (n_good.cumsum(0) - n_good)[block] + rank
    new = candidates.index_select(0, good_idx[place.clamp(max=max(len(good_idx) - 1, 0))] if len(good_idx) else idx * 0)
    for k in block[~served].unique().tolist():
        short = (block == k) & ~served
        n_missing = int(rank[short].max()) - int(n_good[k]) + 1
        more = _accepted(volume, gen, stream.child("resample", first_block + k), n_missing, share)
        new[short] = more[rank[short] - n_good[k]]
    return idx, new, n_last


def _replace(
    out: Tensor, refused: Tensor, volume: Volume, gen: AbsMuonGenerator, stream: MuonStream, first: int, earlier: int
) -> None:
    """Write replacements over the refused rows of ``(N, 5)`` muons."""
    idx, new, _ = _replacements(refused, volume, gen, stream, first, earlier)
    out[idx] = new.to(out)


def _replace_in_flight(mu: MuonBatch, refused: Tensor, volume: Volume, gen: AbsMuonGenerator, earlier: int) -> int:
    """Replace the refused muons of a batch at the top of the volume; the others keep every bit.

    Returns:
        Refused muons so far in the block of the batch's last muon.
    """
    idx, new, n_last = _replacements(refused, volume, gen, mu.stream, mu.first, earlier)
    if len(idx):
        new = new.to(mu.position)
        position, direction = _lines(new, volume)
        mu.position[:, idx] = position
        mu.direction[:, idx] = direction
        mu.mom[idx] = new[:, 2]
    return n_last
