"""Kinematics of named vectors in tables of events.

A table is a DataFrame of pandas or a dict of arrays; vector ``"jet_0"`` has columns ``jet_0_pT``, ``jet_0_eta``,
``jet_0_phi`` or ``jet_0_px``, ``jet_0_py``, ``jet_0_pz``, and, as needed, ``jet_0_E``, ``jet_0_mass``, ``jet_0_absp``,
``jet_0_mT``. Functions that make columns put them into the table. GeV and rad. The formulas are in
`diffdet.kernels.kinematics` and `diffdet.kernels.lorentz`.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
import torch

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError
from diffdet.kernels import kinematics as kernels
from diffdet.kernels import lorentz
from diffdet.nn.physics._arrays import Array, call

__all__ = [
    "add_abs_mom",
    "add_energy",
    "add_mass",
    "add_mt",
    "boost",
    "boost2cm",
    "calc_pair_mass",
    "check_four_momenta",
    "cos_delta",
    "delta_phi",
    "delta_r",
    "delta_r_boosted",
    "event_to_cartesian",
    "fix_event_phi",
    "fix_event_y",
    "fix_event_z",
    "four_momentum",
    "get_vecs",
    "to_cartesian",
    "to_pt_eta_phi",
    "twist",
]

Table = MutableMapping[str, Any]
"""A dict of arrays, or a DataFrame of pandas."""

CARTESIAN = ("px", "py", "pz")
COLLIDER = ("pT", "eta", "phi")


def _names(df: Any) -> list[str]:
    return [str(name) for name in (df.columns if hasattr(df, "columns") else df)]


def _get(df: Table, vec: str, *feats: str) -> list[Array]:
    """Columns of a vector.

    Raises:
        InputError: If one is not there.
    """
    known = _names(df)
    for feat in feats:
        name = f"{vec}_{feat}"
        if name not in known:
            raise InputError(
                f"`vec` {vec!r} must have columns {', '.join(f'{vec}_{f}' for f in feats)}; there is no {name!r}"
                f"{did_you_mean(name, known)}"
            )
    return [np.asarray(df[f"{vec}_{feat}"]) for feat in feats]


def _put(df: Table, vec: str, feats: Sequence[str], values: Sequence[Array]) -> None:
    for feat, value in zip(feats, values, strict=True):
        df[f"{vec}_{feat}"] = value


def _drop(df: Table, vec: str, feats: Sequence[str]) -> None:
    for feat in feats:
        del df[f"{vec}_{feat}"]


def _momentum(df: Table, vec: str) -> list[Array]:
    """px, py, pz of a vector, whichever coordinates the table has."""
    if all(f"{vec}_{feat}" in _names(df) for feat in CARTESIAN):
        return _get(df, vec, *CARTESIAN)
    pt, eta, phi = _get(df, vec, *COLLIDER)
    return list(call(kernels.cartesian_momentum, pt=pt, eta=eta, phi=phi))


def get_vecs(feats: Sequence[str], strict: bool = True) -> set[str]:
    """Vectors that a list of columns describes.

    Args:
        feats: Names of columns.
        strict: Whether a vector needs three components, (px, py, pz) or (pT, eta, phi); else one column named so is
            enough.
    """
    names = list(feats)
    ends = (*CARTESIAN, *COLLIDER)
    vecs = {name.removesuffix(f"_{end}") for name in names for end in ends if name.endswith(f"_{end}")}
    if not strict:
        return vecs
    complete = [{f"{vec}_{feat}" for feat in feats3} <= set(names) for vec in vecs for feats3 in (CARTESIAN, COLLIDER)]
    return {vec for k, vec in enumerate(vecs) if any(complete[2 * k : 2 * k + 2])}


def to_cartesian(df: Table, vec: str, drop: bool = False) -> None:
    """Add px, py, pz of a vector that has pT, eta, phi; columns without eta are in the transverse plane.

    Args:
        df: Table.
        vec: Name of the vector.
        drop: Whether to remove the old columns.

    Raises:
        InputError: If a column is not there.
    """
    flat = f"{vec}_eta" not in _names(df)
    old = ("pT", "phi") if flat else COLLIDER
    columns = _get(df, vec, *old)
    pt, eta, phi = (columns[0], np.zeros(1), columns[1]) if flat else columns
    new = call(kernels.cartesian_momentum, pt=pt, eta=eta, phi=phi)
    _put(df, vec, CARTESIAN[:2] if flat else CARTESIAN, new[:2] if flat else new)
    if drop:
        _drop(df, vec, old)


def to_pt_eta_phi(df: Table, vec: str, drop: bool = False) -> None:
    """Add pT, eta, phi of a vector that has px, py, pz; columns without pz give no eta.

    Along -x the azimuth is +pi. (The original gives +pi or -pi at random.)

    Args:
        df: Table.
        vec: Name of the vector.
        drop: Whether to remove the old columns.

    Raises:
        InputError: If a column is not there.
    """
    flat = f"{vec}_pz" not in _names(df)
    old = CARTESIAN[:2] if flat else CARTESIAN
    columns = _get(df, vec, *old)
    px, py, pz = (*columns, np.zeros(1)) if flat else columns
    pt, eta, phi = call(kernels.collider_momentum, px=px, py=py, pz=pz)
    _put(df, vec, ("pT", "phi") if flat else COLLIDER, (pt, phi) if flat else (pt, eta, phi))
    if drop:
        _drop(df, vec, old)


def delta_phi(arr_a: Any, arr_b: Any) -> Any:
    """Azimuth of b as seen from a, phi_b - phi_a, in [-pi, pi).

    Args:
        arr_a: Azimuths, rad.
        arr_b: Azimuths, rad.
    """
    return call(kernels.delta_phi, arr_a=arr_a, arr_b=arr_b)


def delta_r(dphi: Any, deta: Any) -> Any:
    """Angular separation, sqrt(dphi^2 + deta^2).

    Args:
        dphi: Differences of azimuths, rad.
        deta: Differences of pseudorapidities.
    """
    return call(kernels.delta_r, dphi=dphi, deta=deta)


def twist(dphi: Any, deta: Any) -> Any:
    """Twist of pairs, atan(|dphi / deta|), rad; see `diffdet.kernels.kinematics.twist`.

    Args:
        dphi: Differences of azimuths, rad.
        deta: Differences of pseudorapidities.
    """
    return call(kernels.twist, dphi=dphi, deta=deta)


def add_abs_mom(df: Table, vec: str, z: bool = True) -> None:
    """Add the momentum ``{vec}_absp``, from px, py and, with `z`, pz.

    Raises:
        InputError: If a column is not there.
    """
    columns = _get(df, vec, *(CARTESIAN if z else CARTESIAN[:2]))
    df[f"{vec}_absp"] = np.sqrt(sum(np.square(c) for c in columns))


def _abs_mom(df: Table, vec: str) -> Array:
    if f"{vec}_absp" in _names(df):
        return _get(df, vec, "absp")[0]
    return np.sqrt(sum(np.square(c) for c in _momentum(df, vec)))


def add_energy(df: Table, vec: str) -> None:
    """Add the energy ``{vec}_E``, from the momentum and the mass; massless where the table has no mass.

    Raises:
        InputError: If a column is not there.
    """
    p = _abs_mom(df, vec)
    mass = _get(df, vec, "mass")[0] if f"{vec}_mass" in _names(df) else np.zeros(1, dtype=p.dtype)
    df[f"{vec}_E"] = call(kernels.energy, p_squared=p * p, mass=mass)


def add_mass(df: Table, vec: str) -> None:
    """Add the mass ``{vec}_mass``, from the energy and the momentum; 0 where the energy is less than the momentum.

    Raises:
        InputError: If a column is not there.
    """
    p, (e,) = _abs_mom(df, vec), _get(df, vec, "E")
    df[f"{vec}_mass"] = np.sqrt(np.clip((e - p) * (e + p), 0, None))


def add_mt(df: Table, vec: str, mpt_name: str = "mpt") -> None:
    """Add the transverse mass ``{vec}_mT`` of a vector with the missing transverse momentum.

    Args:
        df: Table.
        vec: Name of the vector, with pT and phi.
        mpt_name: Name of the missing momentum, with pT and phi.

    Raises:
        InputError: If a column is not there.
    """
    (pt, phi), (mpt, mpt_phi) = _get(df, vec, "pT", "phi"), _get(df, mpt_name, "pT", "phi")
    df[f"{vec}_mT"] = call(kernels.transverse_mass, pt_a=pt, pt_b=mpt, dphi=phi - mpt_phi)


def calc_pair_mass(df: Table, masses: tuple[Any, Any], feat_map: dict[str, str] | tuple[str, str]) -> Array:
    """Invariant mass of pairs.

    Args:
        df: Table.
        masses: Masses of the two particles, GeV: numbers or columns.
        feat_map: Names of the two vectors; or, as for older scripts, a dict from ``0_px``, ``0_py``, ``0_pz``,
            ``1_px``, ... to names of columns.

    Returns:
        Masses, GeV.

    Raises:
        InputError: If a column is not there.
    """
    if isinstance(feat_map, dict):
        needed = [f"{k}_{feat}" for k in (0, 1) for feat in CARTESIAN]
        missing = [name for name in needed if name not in feat_map or feat_map[name] not in _names(df)]
        if missing:
            raise InputError(f"`feat_map` must name columns for {needed}; {missing} lead to none")
        pair = [[np.asarray(df[feat_map[f"{k}_{feat}"]]) for feat in CARTESIAN] for k in (0, 1)]
    else:
        pair = [_momentum(df, vec) for vec in feat_map]
    (a, b) = (call(kernels.collider_momentum, px=p[0], py=p[1], pz=p[2]) for p in pair)

    def mass(*parts: torch.Tensor) -> torch.Tensor:
        pt, eta, phi, m = ((parts[k], parts[k + 1]) for k in (0, 2, 4, 6))
        return kernels.pair_mass(pt, eta, phi, m)

    named = {f"{name}_{k}": v[i] for i, name in enumerate(("pt", "eta", "phi")) for k, v in enumerate((a, b))}
    return call(mass, **named, mass_0=masses[0], mass_1=masses[1])


def four_momentum(df: Table, vec: str) -> Array:
    """Four-momentum (px, py, pz, E) of a vector, (event, 4); the energy from the mass where there is no E.

    Raises:
        InputError: If a column is not there.
    """
    momentum = _momentum(df, vec)
    if f"{vec}_E" in _names(df):
        (e,) = _get(df, vec, "E")
    else:
        squared = sum(np.square(c) for c in momentum)
        mass = _get(df, vec, "mass")[0] if f"{vec}_mass" in _names(df) else np.zeros(1)
        e = np.sqrt(squared + np.square(mass))
    return np.stack([*momentum, e], axis=-1)


def _boosted(q: Array, frame: Array) -> Array:
    return lorentz.boost(torch.from_numpy(q), torch.from_numpy(frame).to(torch.from_numpy(q).dtype)).numpy()


def boost(ref_vec: str | Array, boost_vec: str | Array, df: Table | None = None) -> Array:
    """Four-momenta seen from the rest frame of others.

    Args:
        ref_vec: Whose rest frame: name of a vector, or four-momenta (event, 4).
        boost_vec: What to boost: name of a vector, or four-momenta (event, 4).
        df: Table; needed for names.

    Returns:
        Four-momenta (px, py, pz, E), (event, 4).

    Raises:
        InputError: If a column is not there.
    """
    frame, q = (_vector(v, df) for v in (ref_vec, boost_vec))
    return _boosted(q, frame)


def boost2cm(vec: str | Array, df: Table | None = None) -> Array:
    """Velocity of a vector's rest frame, p / E, (event, 3): what to boost by to bring the vector to rest.

    Raises:
        InputError: If a column is not there.
    """
    p = _vector(vec, df)
    return p[:, :3] / p[:, 3:]


def _vector(vec: str | Array, df: Table | None) -> Array:
    if isinstance(vec, str):
        if df is None:
            raise InputError(f"`df` must be given to look up the vector {vec!r}")
        return four_momentum(df, vec)
    p = np.asarray(vec, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != 4:
        raise InputError(f"four-momenta must have shape (event, 4); got {p.shape}")
    return p


def cos_delta(vec_0: str | Array, vec_1: str | Array, df: Table | None = None, name: str | None = None) -> Array:
    """Cosine of the angle between the momenta of two vectors.

    Args:
        vec_0: Name of a vector, or four-momenta (event, 4).
        vec_1: Name of a vector, or four-momenta (event, 4).
        df: Table; needed for names.
        name: Column to put the cosine into.

    Returns:
        Cosines, (event,); 0 where a momentum vanishes.

    Raises:
        InputError: If a column is not there.
    """
    a, b = (torch.from_numpy(_vector(v, df)) for v in (vec_0, vec_1))
    index = torch.tensor([0]), torch.tensor([1])
    cos = lorentz.pair_cosines(torch.stack([a, b.to(a.dtype)], dim=-2), *index)[..., 0].clamp(-1, 1).numpy()
    if df is not None and name is not None:
        df[name] = cos
    return cos


def delta_r_boosted(vec_0: str | Array, vec_1: str | Array, ref_vec: str | Array, df: Table | None = None) -> Array:
    """Angular separation of two vectors, seen from the rest frame of a third.

    Args:
        vec_0: Name of a vector, or four-momenta (event, 4).
        vec_1: Name of a vector, or four-momenta (event, 4).
        ref_vec: Whose rest frame.
        df: Table; needed for names.

    Returns:
        Separations, (event,).

    Raises:
        InputError: If a column is not there.
    """
    directions = []
    for vec in (vec_0, vec_1):
        q = boost(ref_vec, vec, df)
        directions.append(call(kernels.collider_momentum, px=q[:, 0], py=q[:, 1], pz=q[:, 2]))
    (_, eta_0, phi_0), (_, eta_1, phi_1) = directions
    return delta_r(delta_phi(phi_0, phi_1), eta_0 - eta_1)


def check_four_momenta(p: Any, mask: Any = None, tolerance: float = 1e-3) -> None:
    """Refuse four-momenta that no particle can have: not finite, or with less energy than momentum.

    Args:
        p: (px, py, pz, E) along the last axis, (..., 4).
        mask: Which vectors to look at, (...); all where None.
        tolerance: How far |p| may exceed E, relative to |p|: storage in float16 or rounding leave as much.

    Raises:
        InputError: If there is one; the message says how many, and where the first is.
    """
    tensor = torch.as_tensor(np.asarray(p))
    if tensor.shape[-1] != 4:
        raise InputError(f"`p` must have (px, py, pz, E) along its last axis; got shape {tuple(tensor.shape)}")
    bad = ~lorentz.is_physical(tensor.to(torch.float64), tolerance)
    if mask is not None:
        bad &= torch.as_tensor(np.asarray(mask)).bool()
    if bool(bad.any()):
        first = tuple(bad.nonzero()[0].tolist())
        raise InputError(
            f"four-momenta must be finite with E >= |p|; {int(bad.sum())} of {bad.numel()} are not, the first at "
            f"{first}: (px, py, pz, E) = {tuple(round(v, 6) for v in tensor[first].tolist())}"
        )


def event_to_cartesian(df: Table, drop: bool = False, ignore: Sequence[str] = ()) -> None:
    """Add px, py, pz of all vectors that have pT, eta, phi.

    Args:
        df: Table.
        drop: Whether to remove the old columns.
        ignore: Vectors to leave alone.
    """
    for vec in sorted(get_vecs(_names(df))):
        if vec not in ignore and f"{vec}_pT" in _names(df):
            to_cartesian(df, vec, drop)


def fix_event_phi(df: Table, ref_vec: str) -> None:
    """Turn events about the beam so that a vector has azimuth 0.

    Args:
        df: Table; all its vectors need phi.
        ref_vec: Name of the vector.

    Raises:
        InputError: If a column is not there.
    """
    (reference,) = _get(df, ref_vec, "phi")
    reference = np.array(reference, copy=True)
    for name in _names(df):
        if name.endswith("_phi"):
            df[name] = delta_phi(reference, np.asarray(df[name]))


def _reflect(df: Table, axis: str, where: Array) -> None:
    for name in _names(df):
        if name.endswith({"y": ("_py", "_phi"), "z": ("_pz", "_eta")}[axis]):
            values = np.asarray(df[name])
            df[name] = np.where(where, -values, values)


def fix_event_y(df: Table, ref_vec_0: str, ref_vec_1: str) -> None:
    """Reflect events in y so that a second vector has a positive y where the first is at azimuth 0.

    Args:
        df: Table; vectors with phi or py.
        ref_vec_0: Vector that `fix_event_phi` took; left as it is.
        ref_vec_1: Vector to have a positive y.

    Raises:
        InputError: If a column is not there.
    """
    check = "py" if f"{ref_vec_1}_py" in _names(df) else "phi"
    _get(df, ref_vec_0, check)
    (values,) = _get(df, ref_vec_1, check)
    _reflect(df, "y", np.array(values) < 0)


def fix_event_z(df: Table, ref_vec: str) -> None:
    """Reflect events in z so that a vector has a positive eta.

    Args:
        df: Table; vectors with eta or pz.
        ref_vec: Name of the vector.

    Raises:
        InputError: If a column is not there.
    """
    check = "pz" if f"{ref_vec}_pz" in _names(df) else "eta"
    (values,) = _get(df, ref_vec, check)
    _reflect(df, "z", np.array(values) < 0)
