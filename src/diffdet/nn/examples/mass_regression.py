"""The mass of a parent from what a detector sees of its decay products, of which there are two to six.

A parent with a mass anywhere from 50 to 250 GeV decays by phase space into massless products. In half of the decays
with three or more, one product is a neutrino: it leaves missing transverse momentum and nothing else. Products are
smeared, lost below 8 GeV and beyond a pseudorapidity of 3. The mass of what is seen is therefore too low, by an amount
that depends on multiplicity, direction and missing momentum: what a network has to learn.

Events with fewer than two objects seen are left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.kernels.kinematics import collider_momentum, delta_phi
from diffdet.kernels.lorentz import mass
from diffdet.kernels.phase_space import many_body_decay
from diffdet.kernels.safe_math import safe_log
from diffdet.nn.examples.events import (
    LARGEST_WEIGHT,
    Draws,
    Events,
    blocks,
    moving,
    pad_objects,
    reconstruct,
    resolution,
)

__all__ = ["M_MAX", "M_MIN", "make"]

M_MIN, M_MAX = 50.0, 250.0
"""Limits of the true mass, GeV."""
N_MIN, N_MAX = 2, 6
CONT_FEATS = ("vis_mass", "vis_pt", "vis_eta", "met", "met_dphi", "mt")
FEATS_PER_VEC = ("log_pt", "eta", "dphi", "log_e")


def make(n_events: int, seed: int = 0) -> Events:
    """A sample with masses evenly from 50 to 250 GeV.

    Args:
        n_events: Number of events.
        seed: Seed. A longer sample of one seed begins with a shorter one.

    Returns:
        Events whose target is the mass of the parent, GeV. ``extra`` has the mass of what is seen (``vis_mass``), and
        the number of products (``n_products``).

    Raises:
        InputError: If there are fewer than 20 events.

    Example:
        >>> events = make(100, seed=1)
        >>> events.flat.shape, events.matrix.shape, bool((events.targets > 50).all())
        ((100, 7), (100, 6, 4), True)
    """
    if n_events < 20:
        raise InputError(f"`n_events` must be at least 20; got {n_events}")
    found: list[list[Tensor]] = []
    total = 0
    for draws in blocks("mass_regression", seed):
        found.append(_block(draws))
        total += len(found[-1][0])
        if total >= n_events:
            break
    flat, p, mask, m, n_products = (torch.cat(parts)[:n_events] for parts in zip(*found, strict=True))
    return Events(
        cont_feats=list(CONT_FEATS),
        cat_feats=["n_seen"],
        cat_maps={"n_seen": {k: f"{k + 2}" for k in range(N_MAX - 1)}},
        vecs=[f"o{k}" for k in range(N_MAX)],
        feats_per_vec=list(FEATS_PER_VEC),
        flat=flat.numpy(),
        matrix=_relative(p, mask).numpy(),
        mask=mask.numpy(),
        targets=m.numpy().astype("float32"),
        weights=None,
        yields=None,
        momenta=p.numpy(),
        extra={"vis_mass": flat[:, 0].numpy(), "n_products": n_products.numpy()},
        description="the mass of a parent from the products of its decay that are seen",
    )


def _block(draws: Draws) -> list[Tensor]:
    """Flat features, four-momenta, mask, true mass, number of products of the events that are kept."""
    m = M_MIN + (M_MAX - M_MIN) * draws.uniform("mass")
    pt, phi = 40 * draws.exponential("pt"), 2 * torch.pi * draws.uniform("phi")
    parent = moving(m, pt * torch.cos(phi), pt * torch.sin(phi), draws.normal("rapidity"))
    n_products = N_MIN + (draws.uniform("multiplicity") * (N_MAX - N_MIN + 1)).long()
    products = torch.zeros(draws.n, N_MAX, 4, dtype=torch.float64)
    accepted = torch.zeros(draws.n, dtype=torch.bool)
    chance = draws.uniform("phase space")
    for n in range(N_MIN, N_MAX + 1):
        rows = (n_products == n).nonzero()[:, 0]
        massless = torch.zeros(len(rows), n, dtype=torch.float64)
        decayed, weight = many_body_decay(parent[rows], massless, draws.uniform(f"decay {n}", 3 * n - 4)[rows])
        products[rows, :n] = decayed
        accepted[rows] = chance[rows] < weight / LARGEST_WEIGHT[n]
    exists = torch.arange(N_MAX) < n_products[:, None]
    neutrino = (n_products >= 3) & (draws.uniform("neutrino") < 0.5)
    visible = exists.clone()
    visible[:, 0] &= ~neutrino
    sigma = resolution(products[..., 3], 0.5, 0.03)
    found = reconstruct(products, visible, sigma, 0.01, draws, "objects", pt_min=8, eta_max=3.0)
    p, mask = pad_objects(found, N_MAX)
    kept = accepted & mask[:, 1]
    flat = _flat_features(p, mask, parent, 4 * draws.normal("soft", 2))
    return [part[kept] for part in (flat, p, mask, m, n_products)]


def _flat_features(p: Tensor, mask: Tensor, parent: Tensor, soft: Tensor) -> Tensor:
    """Columns of `CONT_FEATS`, then the number of objects seen."""
    seen = p.sum(1)
    pt, eta, phi = collider_momentum(seen[:, 0], seen[:, 1], seen[:, 2])
    # What recoils against the parent is measured, too: the missing momentum is that of what was lost of the decay.
    missing = parent[:, :2] - seen[:, :2] + soft
    met = missing.square().sum(-1).sqrt()
    dphi = delta_phi(phi, torch.atan2(missing[:, 1], missing[:, 0]))
    across = (mass(seen).square() + pt.square()).sqrt()
    both = torch.stack([seen[:, 0] + missing[:, 0], seen[:, 1] + missing[:, 1]], dim=-1).square().sum(-1)
    mt = ((across + met).square() - both).clamp_min(0).sqrt()
    return torch.stack(
        [mass(seen), pt, eta.clamp(-10, 10), met, dphi.abs(), mt, (mask.sum(1) - 2).clamp_min(0).double()], dim=1
    )


def _relative(p: Tensor, mask: Tensor) -> Tensor:
    """What `FEATS_PER_VEC` lists, from four-momenta; 0 where there is no object."""
    pt, eta, phi = collider_momentum(p[..., 0], p[..., 1], p[..., 2])
    seen = p.sum(1)
    reference = torch.atan2(seen[:, 1], seen[:, 0])[:, None].expand_as(phi)
    matrix = torch.stack(
        [safe_log(pt, 1e-3), eta.clamp(-10, 10), delta_phi(reference, phi), safe_log(p[..., 3], 1e-3)], dim=-1
    )
    return torch.where(mask[..., None], matrix, 0.0)
