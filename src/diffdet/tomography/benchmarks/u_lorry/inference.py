"""Is there uranium in the lorry? The evidence of all muons for a block of it, anywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffdet.core.checks import check_positive
from diffdet.core.materials import material
from diffdet.kernels import scatter_likelihood
from diffdet.kernels.lines import Lines
from diffdet.kernels.scattering import beta_momentum
from diffdet.tomography.benchmarks.u_lorry.data import ULorryPassiveGenerator
from diffdet.tomography.inference.likelihood import AbsKinkInferrer
from diffdet.tomography.volume.volume import Volume

__all__ = ["ULorryLikelihoodClassifier"]


class ULorryLikelihoodClassifier(AbsKinkInferrer):
    """Probability that there is uranium, from angles and offsets of all muons.

    For every layer that a muon crosses, the density of its kink (`kernels.scatter_likelihood`) with the voxel in that
    layer made of uranium is compared with that of a lorry of even scrap; the logarithm of the ratio, times the
    efficiency of the muon, is evidence for uranium in that voxel. Summed over muons, and over the voxels of a block of
    the volume that is looked for, it becomes the evidence for that block; the mean over all places and shapes of blocks
    of exp(evidence / temper) is the factor by which the odds for uranium change. Before, they are even.

    Two numbers make up for what the model leaves out. The path is taken as straight, which is wrong for muons that
    graze a face: no muon may say more than ``clip``. Scrap is not even: evidence is divided by ``temper``.

    It uses what `DenseBlockClassifierFromX0s` cannot see. That one asks for the voxels of smallest X0 in a map whose
    weights favour small angles, and finds the floor of the lorry or dense scrap, with uranium or without.

    Args:
        volume: the volume that the muons crossed.
        u_volume: see `ULorryPassiveGenerator`, as for the next three, m^3.
        fill_frac: likewise.
        x0_lorry: likewise, m.
        bkg_materials: likewise.
        clip: most that a muon may say.
        temper: what evidence is divided by.

    Raises:
        InputError: If `ULorryPassiveGenerator` would refuse an argument, or a number is not positive.
    """

    def __init__(
        self,
        volume: Volume,
        u_volume: float,
        fill_frac: float = 0.8,
        x0_lorry: float = 0.01757,
        bkg_materials: Sequence[str] = ("air", "iron"),
        clip: float = 3.0,
        temper: float = 2.0,
    ) -> None:
        super().__init__(volume)
        check_positive("clip", clip)
        check_positive("temper", temper)
        scene = ULorryPassiveGenerator(
            volume, u_volume, fill_frac=fill_frac, x0_lorry=x0_lorry, bkg_materials=bkg_materials
        )
        self.clip, self.temper, self.shapes = clip, temper, scene.shapes
        self._box, self._size, self._n_zxy = volume.passive_box, volume.passive_size, volume.n_zxy
        n_z = self._n_zxy[0]
        self._air = 1 / material("air").x0
        density = volume.lw.new_full((n_z,), self._air)  # lowest layer first
        density[: scene.n_filled] = sum(1 / x0 for x0 in scene.x0s) / len(scene.x0s)
        density[0] = 1 / x0_lorry
        self._density = density.flip(0)
        steps = torch.arange(n_z, dtype=torch.float64)
        self._heights = (self._box[1][2] - (steps + 0.5) * self._size).to(density)
        self._uranium = 1 / material("uranium").x0

    def _sum_over(self, tracks: Lines, efficiency: Tensor, momentum: Tensor) -> Tensor:
        """Evidence and information, ``(2, voxels)``."""
        (x0, y0, bottom), (x1, y1, top) = self._box
        n_z, n_x, n_y = self._n_zxy
        xy, stretch = scatter_likelihood.straight_path(tracks, top, bottom, self._heights)
        inside = scatter_likelihood.share_inside(xy, (x0, y0), (x1, y1))
        even = torch.where(inside > 0, self._density[:, None], self._air)
        layer = torch.arange(n_z, device=even.device)
        # hypothesis h puts uranium into the h-th layer from above; where the muon is outside there, it changes nothing
        changed = torch.where(
            (layer[:, None] == layer)[:, :, None] & (inside > 0), self._uranium, even.expand(n_z, -1, -1)
        )
        covariance = scatter_likelihood.path_covariance(
            torch.cat([even[None], changed]) * (self._size * stretch),
            self._heights - tracks.z_ref.reshape(()),
            self._size,
            beta_momentum(momentum),
        )
        kinks = scatter_likelihood.kinks(tracks)
        density = scatter_likelihood.log_density(kinks, covariance)
        ratio = self.clip * torch.tanh((density[1:] - density[0]) / self.clip)
        distance = scatter_likelihood.bhattacharyya_distance(kinks, covariance[:, :1], covariance[:, 1:])
        column = (xy / self._size).floor().long()
        i_x, i_y = column[0].clamp(0, n_x - 1), column[1].clamp(0, n_y - 1)
        voxel = ((n_z - 1 - layer)[:, None] * n_x + i_x) * n_y + i_y
        found = (torch.stack([ratio, distance]) * (inside * efficiency)).to(torch.float64)
        return found.new_zeros(2, n_z * n_x * n_y).index_add(1, voxel.flatten(), found.flatten(1))

    @property
    def evidence(self) -> Tensor:
        """``(z, x, y)`` logarithm of the ratio of densities with and without uranium in each voxel."""
        return self._total[0].reshape(self._n_zxy)

    @property
    def information(self) -> Tensor:
        """``(z, x, y)`` Bhattacharyya distance between uranium in a voxel and even scrap: whether there is uranium in
        it is decided wrongly with a probability of at most exp(-information) / 2.
        """
        return self._total[1].reshape(self._n_zxy)

    @property
    def log_odds(self) -> Tensor:
        """``()`` logarithm of the odds for uranium anywhere above the floor."""
        above = self.evidence[1:][None, None]
        every = torch.cat(
            [torch.nn.functional.avg_pool3d(above, s, stride=1).flatten() * math.prod(s) for s in self.shapes]
        )
        return torch.logsumexp(every / self.temper, 0) - math.log(len(every))

    def get_prediction(self) -> Tensor | None:
        """``(1, 1)`` probability that there is uranium; None without usable muons."""
        return torch.sigmoid(self.log_odds).to(self._density).reshape(1, 1) if self.n_mu else None
