"""A simulated sample, and a simple collider detector: what both built-in problems have in common.

Generator level: four-momenta (px, py, pz, E) in GeV, float64. Reconstruction: transverse momenta and directions are
smeared, soft and forward objects are lost, the missing transverse momentum is what is left over. Resolutions are those
of a general-purpose detector at a hadron collider, rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.kernels.kinematics import cartesian_momentum, collider_momentum
from diffdet.kernels.safe_math import safe_sqrt
from diffdet.nn.data._folds import Array
from diffdet.nn.data.fold_yielder import ArrayFoldYielder
from diffdet.nn.data.preprocessing import Scaler

__all__ = [
    "BLOCK",
    "LARGEST_WEIGHT",
    "LARGEST_WEIGHT_HEAVY",
    "Draws",
    "Events",
    "Reconstructed",
    "blocks",
    "breit_wigner",
    "moving",
    "pad_objects",
    "reconstruct",
    "resolution",
]

BLOCK = 8192
"""Events that are generated at a time; part of the identity of every sample."""

LARGEST_WEIGHT = {2: 1.0, 3: 0.385, 4: 0.0963, 5: 0.0182, 6: 0.0029}
"""Bounds of the phase-space weight of n massless bodies, a little above what is found by trying. To accept with weight
over bound makes events of weight 1."""

LARGEST_WEIGHT_HEAVY = {3: 0.5, 4: 0.1485}
"""Bounds where the last body has a mass."""


@dataclass(frozen=True)
class Events:
    """A sample: flat features, a padded matrix of objects with its mask, targets and weights.

    Attributes:
        cont_feats: Names of the continuous flat features.
        cat_feats: Names of the categorical ones.
        cat_maps: What their codes mean.
        vecs: Names of the objects.
        feats_per_vec: Names of the features of an object.
        flat: Flat features, (event, feature): continuous ones, then codes; GeV and rad.
        matrix: Objects, (event, object, feature); 0 where there is none.
        mask: Which objects exist, (event, object).
        targets: Class or value, (event,).
        weights: Weights to train with, of mean 1 in each class; None where all are 1.
        yields: Expected events that each simulated one stands for, (event,); None where that has no meaning.
        momenta: Reconstructed four-momenta of the objects, (event, object, 4), GeV.
        extra: Further columns by name, for example which process an event comes from.
        description: What the problem is, in a sentence.
    """

    cont_feats: Sequence[str]
    cat_feats: Sequence[str]
    cat_maps: dict[str, dict[int, Any]]
    vecs: Sequence[str]
    feats_per_vec: Sequence[str]
    flat: Array
    matrix: Array
    mask: Array
    targets: Array
    weights: Array | None
    yields: Array | None
    momenta: Array
    extra: dict[str, Array] = field(default_factory=dict)
    description: str = ""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def matrix_names(self) -> list[str]:
        """Names of the cells of the matrix, ``{object}_{feature}``, object by object."""
        return [f"{vec}_{feat}" for vec in self.vecs for feat in self.feats_per_vec]

    def fold_yielder(
        self, n_folds: int = 10, *, seed: int = 0, scale: bool = True, row_wise: bool = True
    ) -> ArrayFoldYielder:
        """The sample as folds, scaled to mean 0 and standard deviation 1.

        Args:
            n_folds: Number of folds.
            seed: Seed of the dealing.
            scale: Whether to scale; the scalers are then the yielder's `input_pipe` and `matrix_pipe`.
            row_wise: Whether to yield objects as rows of the matrix; else as columns.

        Raises:
            InputError: If there are fewer events than folds.
        """
        flat, matrix = self.flat.astype(np.float32), self.matrix.astype(np.float32)
        input_pipe = matrix_pipe = None
        if scale:
            n_cont = len(self.cont_feats)
            input_pipe = Scaler().fit(flat[:, :n_cont], self.weights)
            flat[:, :n_cont] = input_pipe.transform(flat[:, :n_cont])
            matrix_pipe = Scaler().fit(matrix, self.weights, self.mask)
            matrix = matrix_pipe.transform(matrix) * self.mask[..., None]
        extra = self.extra if self.yields is None else self.extra | {"yields": self.yields}
        return ArrayFoldYielder(
            (flat, matrix),
            self.targets,
            self.weights,
            self.mask,
            n_folds=n_folds,
            cont_feats=self.cont_feats,
            cat_feats=self.cat_feats,
            cat_maps=self.cat_maps,
            seed=seed,
            extra=extra,
            targ_feats="target",
            input_pipe=input_pipe,
            matrix_pipe=matrix_pipe,
            row_wise=row_wise,
            matrix_feats={
                "present_feats": self.matrix_names,
                "vecs": list(self.vecs),
                "feats_per_vec": list(self.feats_per_vec),
                "missing": [],
                "row_wise": True,
                "shape": [len(self.vecs), len(self.feats_per_vec)],
                "is_sparse": False,
            },
        )


class Draws:
    """Random numbers of one block of events, named by purpose."""

    def __init__(self, stream: Stream, n: int) -> None:
        self.stream, self.n = stream, n

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), (event, *shape)."""
        return torch.rand((self.n, *shape), dtype=torch.float64, generator=self.stream.generator(purpose))

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Normal numbers, (event, *shape)."""
        return torch.randn((self.n, *shape), dtype=torch.float64, generator=self.stream.generator(purpose))

    def exponential(self, purpose: str, *shape: int) -> Tensor:
        """Exponential numbers of mean 1, (event, *shape)."""
        return -torch.log1p(-self.uniform(purpose, *shape))

    def poisson(self, purpose: str, mean: float) -> Tensor:
        """Poisson counts, (event,)."""
        rate = torch.full((self.n,), mean, dtype=torch.float64)
        return torch.poisson(rate, generator=self.stream.generator(purpose)).long()


def blocks(name: str, seed: int, *key: int | str) -> Iterator[Draws]:
    """Blocks of random numbers without end: a longer sample begins with a shorter one.

    Args:
        name: Name of the problem.
        seed: Seed.
        *key: What the events are, for example the process.
    """
    for block in range(1_000_000):
        yield Draws(Stream(seed, name, *key, block), BLOCK)
    raise InputError(f"`n_events` must be fewer: more than {1_000_000 * BLOCK} trials would be needed")


def breit_wigner(uniform: Tensor, mass: float, width: float, window: float) -> Tensor:
    """Masses of a resonance: Breit and Wigner's curve, cut off at a distance.

    Args:
        uniform: Numbers in [0, 1).
        mass: Mass of the resonance, GeV.
        width: Width at half maximum, GeV.
        window: Largest distance from the mass, GeV.
    """
    edge = torch.atan(torch.tensor(2 * window / width, dtype=uniform.dtype))
    return mass + 0.5 * width * torch.tan((2 * uniform - 1) * edge)


def moving(mass: Tensor, px: Tensor, py: Tensor, rapidity: Tensor) -> Tensor:
    """Four-momenta from mass, transverse momentum and rapidity, (event, 4), GeV."""
    across = safe_sqrt(mass * mass + px * px + py * py)
    return torch.stack([px, py, across * torch.sinh(rapidity), across * torch.cosh(rapidity)], dim=-1)


def resolution(x: Tensor, stochastic: float, constant: float) -> Tensor:
    """Relative resolution, stochastic / sqrt(x) and a constant in quadrature; x in GeV."""
    return torch.sqrt(stochastic**2 / x.clamp_min(1e-3) + constant**2)


class Reconstructed(NamedTuple):
    """Objects as the detector sees them, all (event, object): GeV, rad, and whether they are seen."""

    pt: Tensor
    eta: Tensor
    phi: Tensor
    seen: Tensor


def reconstruct(
    p: Tensor,
    exists: Tensor,
    sigma_pt: Tensor,
    sigma_angle: float,
    draws: Draws,
    purpose: str,
    *,
    pt_min: float,
    eta_max: float,
    efficiency: Tensor | float = 1.0,
) -> Reconstructed:
    """Objects after smearing, thresholds and losses.

    Args:
        p: True four-momenta, (event, object, 4).
        exists: Whether there is one, (event, object).
        sigma_pt: Relative resolution of the transverse momentum, (event, object).
        sigma_angle: Resolution of pseudorapidity and azimuth, rad.
        draws: Random numbers.
        purpose: What they are for.
        pt_min: Smallest transverse momentum seen, GeV.
        eta_max: Largest pseudorapidity seen.
        efficiency: Probability to see what is above the threshold.
    """
    pt, eta, phi = collider_momentum(p[..., 0], p[..., 1], p[..., 2])
    n_objects = p.shape[1]
    noise = draws.normal(f"{purpose} smearing", n_objects, 3)
    pt = pt * (1 + sigma_pt * noise[..., 0]).clamp_min(0.05)
    eta = eta.clamp(-20, 20) + sigma_angle * noise[..., 1]
    phi = phi + sigma_angle * noise[..., 2]
    lucky = draws.uniform(f"{purpose} efficiency", n_objects) < efficiency
    return Reconstructed(pt, eta, phi, exists & lucky & (pt > pt_min) & (eta.abs() < eta_max))


def pad_objects(found: Reconstructed, n_max: int) -> tuple[Tensor, Tensor]:
    """The hardest objects first, as massless four-momenta, with the rest set to 0.

    Args:
        found: Objects.
        n_max: How many to keep.

    Returns:
        Four-momenta (event, n_max, 4), GeV, and which of them exist, (event, n_max).
    """
    order = torch.where(found.seen, found.pt, -1.0).argsort(dim=1, descending=True, stable=True)[:, :n_max]
    pt, eta, phi, seen = (part.gather(1, order) for part in found)
    px, py, pz = cartesian_momentum(pt, eta, phi)
    p = torch.stack([px, py, pz, pt * torch.cosh(eta)], dim=-1)
    return torch.where(seen[..., None], p, 0.0), seen
