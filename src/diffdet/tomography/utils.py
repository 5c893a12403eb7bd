"""Small helpers: full Jacobians, class ids to and from radiation lengths, and mixtures of materials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.core.materials import mixture_x0_density

__all__ = ["class_to_x0preds", "jacobian", "nearest_class", "x0_from_mixture", "x0targs_to_classtargs"]


def jacobian(y: Tensor, x: Tensor, create_graph: bool = False, allow_unused: bool = True) -> Tensor:
    """All derivatives dy/dx, by one vectorised reverse pass with a row per element of y.

    Cost and memory grow with numel(y) * numel(x). Where every row of y depends on its own row of x only, as muons do,
    use `diffdet.kernels.uncertainty.propagate`, which takes one pass per column instead.

    Args:
        y: Tensor to differentiate, any shape, computed from ``x`` with gradients on. Its graph is kept.
        x: Tensor to differentiate by, any shape.
        create_graph: Whether the result itself can be differentiated.
        allow_unused: Whether a ``y`` that does not depend on ``x`` has derivative 0; otherwise that is an error.

    Returns:
        ``(*y.shape, *x.shape)`` derivatives; with no elements if ``y`` or ``x`` has none.

    Raises:
        InputError: If ``y`` does not depend on ``x`` and ``allow_unused`` is False, or ``x`` does not require
            gradients.
    """
    if not x.requires_grad:
        raise InputError("`x` must require gradients before `y` is computed from it; call `x.requires_grad_()`")
    rows = None
    if y.requires_grad and y.numel():
        flat = y.reshape(-1)
        unit = torch.eye(flat.numel(), dtype=y.dtype, device=y.device)
        (rows,) = torch.autograd.grad(
            flat, x, unit, retain_graph=True, create_graph=create_graph, allow_unused=True, is_grads_batched=True
        )
    if rows is None:
        if not allow_unused and y.numel():
            raise InputError("`y` must be computed from `x`; no path between them was recorded")
        return x.new_zeros((*y.shape, *x.shape))
    return rows.reshape((*y.shape, *x.shape))


def class_to_x0preds(array: np.ndarray, id2x0: Mapping[int, float]) -> np.ndarray:
    """Radiation length of every class id.

    Args:
        array: Class ids, any shape. Not modified.
        id2x0: Radiation length [m] by class id.

    Returns:
        Radiation lengths, m, same shape, in the precision of torch's default dtype.

    Raises:
        InputError: If an id is not in the map.
    """
    array = np.asarray(array)
    values = np.empty(array.shape, dtype=torch.empty(0).numpy().dtype)
    known = np.zeros(array.shape, dtype=bool)
    for identity, x0 in id2x0.items():
        here = array == identity
        values[here] = x0
        known |= here
    if not known.all():
        raise InputError(
            f"`array` must hold the class ids {sorted(id2x0)}; got {np.unique(array[~known]).tolist()} as well"
        )
    return values


def nearest_class(x0: Tensor, x02id: Mapping[float, int]) -> Tensor:
    """Class id of every radiation length: that of the nearest radiation length in the map.

    Being nearest makes up for rounding, and means that a material which is not in the map goes unnoticed.

    Args:
        x0: Radiation lengths, m, any shape. Not modified.
        x02id: Class id by radiation length [m].

    Returns:
        Class ids, int64, same shape and device.

    Raises:
        InputError: If the map is empty.
    """
    if not x02id:
        raise InputError("`x02id` must map at least one radiation length to a class id; got none")
    known = torch.tensor(list(x02id), dtype=torch.float64, device=x0.device)
    identities = torch.tensor(list(x02id.values()), dtype=torch.int64, device=x0.device)
    return identities[(x0.detach().double().unsqueeze(-1) - known).abs().argmin(-1)]


def x0targs_to_classtargs(array: np.ndarray | Tensor, x02id: Mapping[float, int]) -> np.ndarray:
    """Class id of every radiation length, as `nearest_class`, for arrays.

    Args:
        array: Radiation lengths, m, any shape. Not modified.
        x02id: Class id by radiation length [m].

    Returns:
        Class ids, int64, same shape.

    Raises:
        InputError: If the map is empty, or a radiation length is not a number.
    """
    x0 = array.detach().cpu() if isinstance(array, Tensor) else torch.tensor(np.asarray(array, dtype=np.float64))
    if bool(x0.isnan().any()):
        raise InputError(f"`array` must hold radiation lengths; got {int(x0.isnan().sum())} that are NaN")
    return nearest_class(x0, x02id).numpy()


def x0_from_mixture(
    x0s: np.ndarray | Sequence[float],
    densities: np.ndarray | Sequence[float],
    weight_fracs: np.ndarray | Sequence[float] | None = None,
    volume_fracs: np.ndarray | Sequence[float] | None = None,
) -> dict[str, float]:
    """Radiation length and density of a mixture of materials that are not chemically bonded.

    With weight fractions w_i of sum 1, 1 / (X0 rho) = sum_i w_i / (X0_i rho_i) and 1 / rho = sum_i w_i / rho_i. Volume
    fractions v_i count as weights rho_i v_i.

    Args:
        x0s: Radiation lengths of the parts, m.
        densities: Densities of the parts, kg/m^3.
        weight_fracs: Parts by weight; need not add up to 1.
        volume_fracs: Parts by volume; need not add up to 1. Exactly one of the two must be given.

    Returns:
        ``{"X0": radiation length [m], "density": density [kg/m^3]}`` of the mixture.

    Raises:
        InputError: If not exactly one kind of fraction is given, the lengths differ, or a value is out of range.

    Reference: CERN PH-EP-Tech-Note-2010-013; PDG Review, "Passage of particles through matter", radiation length of
        mixtures.
    """
    if (weight_fracs is None) == (volume_fracs is None):
        got = "neither" if weight_fracs is None else "both"
        raise InputError(f"exactly one of `weight_fracs` and `volume_fracs` must be given; got {got}")
    x0, density = mixture_x0_density(
        _numbers(x0s),
        _numbers(densities),
        weight_fractions=None if weight_fracs is None else _numbers(weight_fracs),
        volume_fractions=None if volume_fracs is None else _numbers(volume_fracs),
    )
    return {"X0": x0, "density": density}


def _numbers(values: np.ndarray | Sequence[float]) -> list[float]:
    """Plain numbers of a list or array."""
    return [float(value) for value in values]
