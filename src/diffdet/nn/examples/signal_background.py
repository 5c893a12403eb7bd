"""A resonance above a continuum: find X -> ZZ -> l+ l- q q among events with a Z boson and jets.

Signal: a resonance X of 400 GeV and width 8 GeV decays isotropically into two Z bosons, one of them into two electrons
or muons, the other into two quarks, which are seen as jets. Background: a Z boson with two or three jets, by phase
space, from a falling spectrum of masses; and pairs of Z bosons without a resonance. All events have soft jets from
initial-state radiation, against which the rest recoils, and from other collisions. Decay products are smeared, lost
below thresholds and outside the acceptance; two leptons that make a Z and at least two jets are asked for.

An analysis expects, after this selection, 300 signal events, 30,000 of Z and jets, 1,500 of two Z: `Events.yields`. So
a classifier is wanted that keeps signal where background is rare; the mass of the two leading jets and that of all four
tell most, the directions of the objects the rest.

Numbers are in the order of magnitude of an experiment's, not those of one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffdet.core.checks import check_choice
from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.kernels.kinematics import cartesian_momentum, collider_momentum, delta_phi
from diffdet.kernels.lorentz import mass
from diffdet.kernels.phase_space import many_body_decay, two_body_decay
from diffdet.kernels.safe_math import safe_log
from diffdet.nn.examples.events import (
    LARGEST_WEIGHT_HEAVY,
    Draws,
    Events,
    Reconstructed,
    blocks,
    breit_wigner,
    moving,
    pad_objects,
    reconstruct,
    resolution,
)

__all__ = ["EXPECTED", "make"]

M_X, WIDTH_X = 400.0, 8.0
M_Z, WIDTH_Z = 91.1876, 2.4952
EXPECTED = {"signal": 300.0, "z_jets": 30_000.0, "zz": 1_500.0}
"""Events that an analysis expects of each process, after the selection."""
SHARES = {"signal": 0.5, "z_jets": 0.4, "zz": 0.1}
N_JETS, N_ISR, N_PILEUP = 6, 3, 3
CONT_FEATS = ("l0_pt", "l1_pt", "ll_pt", "ll_eta", "ll_mass", "met", "met_dphi", "ht", "jj_mass", "lljj_mass")
VECS = ("l0", "l1", *(f"j{k}" for k in range(N_JETS)))
OBJECTS = {
    "collider": ("log_pt", "eta", "dphi", "log_e", "is_lepton"),
    "cartesian": ("px", "py", "pz", "E"),
}
"""What `make` can say about an object."""


def make(n_events: int, seed: int = 0, *, objects: str = "collider") -> Events:
    """A sample with half signal.

    Args:
        n_events: Number of events after the selection.
        seed: Seed. A longer sample of one seed holds the events of a shorter one.
        objects: What the matrix says about leptons and jets: ``"collider"`` gives logarithms of transverse momentum and
            energy, pseudorapidity, azimuth relative to the pair of leptons, and whether it is a lepton;
            ``"cartesian"`` gives px, py, pz, E in GeV.

    Returns:
        Events with targets 1 (signal) and 0, in random order.

    Raises:
        InputError: If there are fewer than 20 events, or the objects unknown.

    Example:
        >>> events = make(100, seed=1)
        >>> events.flat.shape, events.matrix.shape, int(events.targets.sum())
        ((100, 12), (100, 8, 5), 50)
    """
    check_choice("objects", objects, OBJECTS)
    if n_events < 20:
        raise InputError(f"`n_events` must be at least 20; got {n_events}")
    counts = {name: round(share * n_events) for name, share in SHARES.items()}
    counts["signal"] += n_events - sum(counts.values())
    parts = [_process(name, count, seed) for name, count in counts.items()]
    flat, p, mask = (torch.cat([part[k] for part in parts]) for k in range(3))
    process = np.repeat(np.arange(len(counts)), list(counts.values()))
    yields = np.concatenate([np.full(count, EXPECTED[name] / count) for name, count in counts.items()])
    targets = (process == 0).astype(np.int64)
    weights = yields.copy()
    for k in (0, 1):  # each class counts as one an event, on average, for training
        weights[targets == k] /= weights[targets == k].mean()
    matrix = p if objects == "cartesian" else _relative(p, mask)
    order = torch.randperm(n_events, generator=Stream(seed, "order of signal and background").generator()).numpy()
    return Events(
        cont_feats=list(CONT_FEATS),
        cat_feats=["channel", "n_jets"],
        cat_maps={"channel": {0: "ee", 1: "mumu"}, "n_jets": {k: f"{k + 2}" for k in range(N_JETS - 1)}},
        vecs=list(VECS),
        feats_per_vec=list(OBJECTS[objects]),
        flat=flat.numpy()[order],
        matrix=matrix.numpy()[order],
        mask=mask.numpy()[order],
        targets=targets[order],
        weights=weights[order].astype(np.float32),
        yields=yields[order],
        momenta=p.numpy()[order],
        extra={"process": process[order]},
        description="a resonance decaying to ZZ -> l l q q, against Z + jets and ZZ",
    )


def _process(name: str, n_events: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Selected events of one process: flat features, four-momenta, mask."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    total = 0
    for draws in blocks("signal_background", seed, name):
        flat, p, mask, passes = _see(*_PROCESSES[name](draws), draws)
        found.append((flat[passes], p[passes], mask[passes]))
        total += len(found[-1][0])
        if total >= n_events:
            break
    flat, p, mask = (torch.cat(parts)[:n_events] for parts in zip(*found, strict=True))
    return flat, p, mask


def _hard_system(m: Tensor, draws: Draws, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """A system that recoils against initial-state radiation: four-momenta of both, and which of the jets exist."""
    exists = torch.arange(N_ISR) < draws.poisson("isr count", 0.7)[:, None]
    pt = 15 + 25 * draws.exponential("isr pt", N_ISR)
    eta = 2 * draws.normal("isr eta", N_ISR)
    phi = 2 * torch.pi * draws.uniform("isr phi", N_ISR)
    px, py, pz = (torch.where(exists, part, 0.0) for part in cartesian_momentum(pt, eta, phi))
    isr = torch.stack([px, py, pz, torch.where(exists, pt * torch.cosh(eta), 0.0)], dim=-1)
    kick = 4 * draws.normal("intrinsic pt", 2)
    system = moving(m, kick[:, 0] - px.sum(1), kick[:, 1] - py.sum(1), spread * draws.normal("rapidity"))
    return system, isr, exists


def _signal(draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _pair_of_z(breit_wigner(draws.uniform("m_x"), M_X, WIDTH_X, 60.0), draws)


def _zz(draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _pair_of_z(215 + 90 * draws.exponential("m_zz"), draws)


def _pair_of_z(m: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ZZ -> l l q q of some mass: leptons, partons, which of those exist, and whether the event does."""
    system, isr, exists = _hard_system(m, draws, 0.8)
    masses = breit_wigner(draws.uniform("m_z", 2), M_Z, WIDTH_Z, 15.0)
    z_ll, z_qq = two_body_decay(system, masses[:, 0], masses[:, 1], draws.uniform("zz", 2))
    none = torch.zeros(draws.n, dtype=torch.float64)
    leptons = two_body_decay(z_ll, none, none, draws.uniform("ll", 2))
    quarks = two_body_decay(z_qq, none, none, draws.uniform("qq", 2))
    partons = torch.cat([torch.stack(quarks, dim=1), isr], dim=1)
    there = torch.cat([torch.ones(draws.n, 2, dtype=torch.bool), exists], dim=1)
    return torch.stack(leptons, dim=1), partons, there, torch.ones(draws.n, dtype=torch.bool)


def _z_jets(draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A Z with two or three jets by phase space: leptons, partons, which of those exist, and whether the event does."""
    system, isr, exists = _hard_system(160 + 130 * draws.exponential("m_hard"), draws, 1.0)
    m_z = breit_wigner(draws.uniform("m_z"), M_Z, WIDTH_Z, 15.0)
    none = torch.zeros(draws.n, dtype=torch.float64)
    three = draws.uniform("multiplicity") < 0.4
    two_jets, weight_two = many_body_decay(system, torch.stack([none, none, m_z], -1), draws.uniform("two", 5))
    with_three, weight_three = many_body_decay(
        system, torch.stack([none, none, none, m_z], -1), draws.uniform("three", 8)
    )
    z = torch.where(three[:, None], with_three[:, 3], two_jets[:, 2])
    jets = torch.where(three[:, None, None], with_three[:, :3], torch.cat([two_jets[:, :2], isr[:, :1] * 0], dim=1))
    leptons = two_body_decay(z, none, none, draws.uniform("ll", 2))
    partons = torch.cat([jets, isr], dim=1)
    there = torch.cat([torch.ones(draws.n, 2, dtype=torch.bool), three[:, None], exists], dim=1)
    top = torch.where(three, LARGEST_WEIGHT_HEAVY[4], LARGEST_WEIGHT_HEAVY[3])
    accepted = draws.uniform("phase space") < torch.where(three, weight_three, weight_two) / top
    return torch.stack(leptons, dim=1), partons, there, accepted


_PROCESSES: dict[str, Callable[[Draws], tuple[Tensor, Tensor, Tensor, Tensor]]] = {
    "signal": _signal,
    "z_jets": _z_jets,
    "zz": _zz,
}


def _see(
    leptons: Tensor, partons: Tensor, there: Tensor, accepted: Tensor, draws: Draws
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Flat features, four-momenta and mask of leptons and jets, and which events pass the selection."""
    muons = (draws.uniform("channel") < 0.5)[:, None]
    pt = leptons[..., :2].square().sum(-1).sqrt()
    sigma = torch.where(muons, (1e-4 + (1e-4 * pt).square()).sqrt(), resolution(leptons[..., 3], 0.1, 0.01))
    efficiency = torch.where(muons, 0.95, 0.85)
    both = torch.ones(draws.n, 2, dtype=torch.bool)
    found = reconstruct(*(leptons, both, sigma, 0.001, draws, "leptons"), pt_min=10, eta_max=2.5, efficiency=efficiency)
    p_l, seen_l = pad_objects(found, 2)
    sigma_jets = resolution(partons[..., :2].square().sum(-1).sqrt(), 0.9, 0.05)
    jets = reconstruct(partons, there, sigma_jets, 0.03, draws, "jets", pt_min=25, eta_max=4.5)
    pileup = Reconstructed(
        25 + 8 * draws.exponential("pileup pt", N_PILEUP),
        9 * draws.uniform("pileup eta", N_PILEUP) - 4.5,
        2 * torch.pi * draws.uniform("pileup phi", N_PILEUP),
        torch.arange(N_PILEUP) < draws.poisson("pileup count", 0.3)[:, None],
    )
    together = Reconstructed(*(torch.cat(pair, dim=1) for pair in zip(jets, pileup, strict=True)))
    p_j, seen_j = pad_objects(together, N_JETS)
    flat = _flat_features(p_l, p_j, seen_j, muons[:, 0], 8 * draws.normal("soft", 2))
    m_ll = flat[:, CONT_FEATS.index("ll_mass")]
    lepton_pt = flat[:, 0]
    passes = accepted & seen_l.all(1) & seen_j[:, 1] & (lepton_pt > 20) & (m_ll > 76) & (m_ll < 106)
    return flat, torch.cat([p_l, p_j], dim=1), torch.cat([seen_l, seen_j], dim=1), passes


def _flat_features(p_l: Tensor, p_j: Tensor, seen_j: Tensor, muons: Tensor, soft: Tensor) -> Tensor:
    """Columns of `CONT_FEATS`, then the channel and the number of jets."""
    ll, jj = p_l.sum(1), p_j[:, :2].sum(1)
    missing = soft - p_l[..., :2].sum(1) - p_j[..., :2].sum(1)
    met = missing.square().sum(-1).sqrt()
    ll_pt, ll_eta, ll_phi = collider_momentum(ll[:, 0], ll[:, 1], ll[:, 2])
    met_phi = torch.atan2(missing[:, 1], missing[:, 0])
    lepton_pt = p_l[..., :2].square().sum(-1).sqrt()
    ht = (p_j[..., :2].square().sum(-1).sqrt() * seen_j).sum(1)
    columns = [
        *(lepton_pt[:, 0], lepton_pt[:, 1], ll_pt, ll_eta.clamp(-10, 10), mass(ll)),
        *(met, delta_phi(ll_phi, met_phi).abs(), ht, mass(jj), mass(ll + jj)),
        *(muons.double(), (seen_j.sum(1) - 2).clamp_min(0).double()),
    ]
    return torch.stack(columns, dim=1)


def _relative(p: Tensor, mask: Tensor) -> Tensor:
    """What `OBJECTS["collider"]` lists, from four-momenta; 0 where there is no object."""
    pt, eta, phi = collider_momentum(p[..., 0], p[..., 1], p[..., 2])
    ll = p[:, :2].sum(1)
    ll_phi = torch.atan2(ll[:, 1], ll[:, 0])[:, None].expand_as(phi)
    lepton = torch.zeros_like(pt)
    lepton[:, :2] = 1
    matrix = torch.stack(
        [safe_log(pt, 1e-3), eta.clamp(-10, 10), delta_phi(ll_phi, phi), safe_log(p[..., 3], 1e-3), lepton], dim=-1
    )
    return torch.where(mask[..., None], matrix, 0.0)
