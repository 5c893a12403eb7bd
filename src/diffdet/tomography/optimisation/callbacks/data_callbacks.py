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


def _with_lines(columns: Tensor, volume: Volume) -> tuple[Tensor, Tensor]:
    """Muons ``(N, 5)`` with their directions, ``(8, N)``, and which of them touch the volume, ``(N,)`` bool."""
    position, direction = _lines(columns, volume)
    return torch.cat([columns.T, direction]), _touches(position, direction, volume)


def _accepted(volume: Volume, gen: AbsMuonGenerator, stream: MuonStream, n_wanted: int, share: float) -> Tensor:
    """The first ``n_wanted`` muons of a stream that touch the volume, ``(8, n_wanted)``, see `_with_lines`.

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
        candidates, touches = _with_lines(gen(n_drawn_next - n_drawn, stream=stream, start=n_drawn), volume)
        found.append(candidates[:, touches])
        n_found, n_drawn, n_blocks = n_found + found[-1].shape[1], n_drawn_next, 2 * n_blocks
    return torch.cat(found, 1)[:, :n_wanted]


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
        Indices ``(n,)``, replacements ``(8, n)`` as `_with_lines` gives them, and the number of refused muons in the
        last block so far.
    """
    first_block = first // MUON_BLOCK
    n_blocks = (first + len(refused) - 1) // MUON_BLOCK + 1 - first_block
    idx = refused.nonzero().squeeze(-1)
    block = torch.div(idx + first, MUON_BLOCK, rounding_mode="floor") - first_block
    counts = torch.bincount(block, minlength=n_blocks)
    n_last = int(counts[-1]) + (earlier if n_blocks == 1 else 0)
    if not len(idx):
        return idx, torch.empty(8, 0), n_last
    # which of its block's replacements each refused muon gets
    offset = counts.cumsum(0) - counts
    offset[0] -= earlier
    rank = torch.arange(len(idx), device=idx.device) - offset[block]

    # One candidate for every muon of these blocks, drawn in one go: where at least half touch, they nearly suffice.
    drawn = gen(n_blocks * MUON_BLOCK, stream=stream.child("resample"), start=first_block * MUON_BLOCK)
    candidates, good = _with_lines(drawn, volume)
    n_good = good.view(n_blocks, MUON_BLOCK).sum(1)
    places = torch.cat([good.nonzero().squeeze(-1), idx.new_zeros(1)])
    last = len(places) - 1
    new = candidates.index_select(1, places[((n_good.cumsum(0) - n_good)[block] + rank).clamp(max=last)])
    short = rank >= n_good[block]
    if bool(short.any()):
        for k in block[short].unique().tolist():
            here = short & (block == k)
            rest = rank[here] - n_good[k]
            own = stream.child("resample", first_block + k)
            new[:, here] = _accepted(volume, gen, own, int(rest.max()) + 1, last / len(good)).index_select(1, rest)
    return idx, new, n_last


def _replace(
    out: Tensor, refused: Tensor, volume: Volume, gen: AbsMuonGenerator, stream: MuonStream, first: int, earlier: int
) -> None:
    """Write replacements over the refused rows of ``(N, 5)`` muons."""
    idx, new, _ = _replacements(refused, volume, gen, stream, first, earlier)
    out[idx] = new[:5].T.to(out)


def _replace_in_flight(mu: MuonBatch, refused: Tensor, volume: Volume, gen: AbsMuonGenerator, earlier: int) -> int:
    """Replace the refused muons of a batch at the top of the volume; the others keep every bit.

    Returns:
        Refused muons so far in the block of the batch's last muon.
    """
    idx, new, n_last = _replacements(refused, volume, gen, mu.stream, mu.first, earlier)
    if len(idx):
        new = new.to(mu.position)
        mu.position[:2].index_copy_(1, idx, new[:2])
        mu.position[2].index_fill_(0, idx, float(volume.h))
        mu.direction.index_copy_(1, idx, new[5:])
        mu.mom.index_copy_(0, idx, new[2])
    return n_last
