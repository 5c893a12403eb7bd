"""Heads that learn particles and rest frames and look at the ones from the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_in_range
from diffdet.core.errors import InputError, ShapeError
from diffdet.kernels.graphs import unordered_pairs
from diffdet.kernels.lorentz import boost, is_physical, pair_cosines
from diffdet.nn.models.blocks._dense import BatchNormClass, dense_stack
from diffdet.nn.models.blocks._head.base import HeadInput
from diffdet.nn.models.blocks._head.matrix import AbsMatrixHead
from diffdet.nn.models.blocks._head.sizes import trial_width
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act


class LorentzBoostNet(AbsMatrixHead):
    """Lorentz boost network: features of learned particles, each seen from a learned rest frame of its own.

    Source: M. Erdmann et al., "Lorentz Boost Networks", arXiv:1812.09722. With four-momenta x_v of V objects, particles
    and frames i = 1 ... N are sums with learned weights,

        q_i = sum_v |part_wgts[i, v]| x_v,   f_i = sum_v |rf_wgts[i, v]| x_v,

    q_i is boosted into the rest frame of f_i, and features are read off: by default the boosted four-momenta, particle
    by particle, then the cosines of the angles between all pairs (0, 1), (0, 2), ..., (1, 2), ... The matrix is
    row-wise, (B, V, 4), with columns px, py, pz, E in this order, unscaled.

    Boosts keep masses, and value and gradient stay finite for frames that have no rest frame; see
    `diffdet.kernels.lorentz`. An absent object adds nothing to any sum.

    Args:
        cont_feats: Names of the flat columns, in their order.
        vecs: Names of the objects.
        feats_per_vec: Names of px, py, pz and E, in this order.
        n_particles: N.
        feat_extractor: Function of the boosted four-momenta (B, N, 4) that returns (B, ...), to take the place of the
            default; overriding the method does the same.
        bn: Whether to pass the features through a batch norm.
        lookup_init: Kept for blocks that derive from this one.
        lookup_act: Kept for blocks that derive from this one.
        freeze: Whether all parameters start as not trainable.
        bn_class: Number of channels -> batch norm.
        check_input: Whether to refuse objects with E < |p| in `forward`, by name; not while a graph is traced.
        in_float64: Whether sums and boosts are done in float64 whatever the input is, where the device has it. They are
            a small part of the work; in float32, what a fast frame sees of a particle of its own is rounding.
        mass_floor: Smallest mass of a frame over its size; None takes one that belongs to the dtype.
        **kargs: Arguments that builders hand to all heads; others are refused.

    Attributes:
        part_wgts: (N, 1, V, 1), weights of particles.
        rf_wgts: (N, 1, V, 1), weights of frames.
        comb: (pairs, 2), indices of all pairs of particles.

    Raises:
        InputError: As `AbsMatrixHead`; if there are not four features an object, they end in px, py, pz, E in another
            order, `n_particles` is below 1, or `mass_floor` outside (0, 1).
    """

    comb: Tensor

    def __init__(
        self,
        cont_feats: Sequence[str],
        vecs: Sequence[str],
        feats_per_vec: Sequence[str],
        n_particles: int,
        feat_extractor: Callable[[Tensor], Tensor] | None = None,
        bn: bool = True,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
        *,
        bn_class: BatchNormClass = nn.BatchNorm1d,
        check_input: bool = False,
        in_float64: bool = True,
        mass_floor: float | None = None,
        **kargs: Any,
    ) -> None:
        super().__init__(
            cont_feats, vecs, feats_per_vec, row_wise=True,
            lookup_init=lookup_init, lookup_act=lookup_act, freeze=freeze, **kargs,
        )  # fmt: skip
        check_four_momentum_names(self.feats_per_vec)
        if mass_floor is not None:
            check_in_range("mass_floor", mass_floor, 0, 1, low_open=True, high_open=True)
        self.n_particles = check_count("n_particles", n_particles)
        self.check_input, self.in_float64, self.mass_floor = check_input, in_float64, mass_floor
        shape = (self.n_particles, 1, self.n_v, 1)
        self.part_wgts = nn.Parameter(nn.init.normal_(torch.empty(shape), std=1 / self.n_particles, generator=None))
        self.rf_wgts = nn.Parameter(nn.init.normal_(torch.empty(shape), std=1 / self.n_particles, generator=None))
        self.register_buffer("comb", torch.stack(unordered_pairs(self.n_particles), 1), persistent=False)
        self._user_extractor = feat_extractor
        self.bn: nn.Module | None = None  # until the width is known
        norm_features = self._build(bn, bn_class)
        self._out_size = self.check_out_sz()
        self.bn = bn_class(self._out_size) if norm_features else None
        self._map_outputs()

    def _build(self, bn: bool, bn_class: BatchNormClass) -> bool:  # noqa: ARG002 - for classes that derive
        """Make what the feature extractor needs, and say whether features pass through a batch norm."""
        return bn

    def get_out_size(self) -> int:
        """Width of the output."""
        return self._out_size

    def check_out_sz(self) -> int:
        """Width of the output, found by passing one random event through the network.

        Returns:
            Number of features.
        """
        return trial_width(self, (1, self.n_v, self.n_fpv), _make_physical)

    def boosted(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Learned particles seen from their learned frames.

        Args:
            x: Flat columns (B, F), matrix (B, V, 4), or a tuple of both.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, N, 4), boosted four-momenta.

        Raises:
            InputError: If `check_input` is set and an object has E < |p|; the message names the object.
        """
        p = self.get_matrix(x, mask)
        if self.check_input and not torch.compiler.is_compiling():
            self._check_physical(p)
        if self.in_float64 and p.device.type != "mps":
            p = p.to(torch.float64)
        particles, frames = _combine(self.part_wgts, p), _combine(self.rf_wgts, p)
        return boost(particles, frames, self.mass_floor).to(self.part_wgts.dtype)

    def _check_physical(self, p: Tensor) -> None:
        """Refuse objects that no particle or set of particles can be."""
        wrong = ~is_physical(p)
        if bool(wrong.any()):
            row, vec = wrong.nonzero()[0].tolist()
            momentum = ", ".join(f"{number:.6g}" for number in p[row, vec].tolist())
            raise InputError(
                f"`x` must hold physical four-momenta, finite and with E >= |p|; object {self.vecs[vec]!r} in row "
                f"{row} has (px, py, pz, E) = ({momentum}), {int(wrong.sum())} such objects in all"
            )

    def feat_extractor(self, x: Tensor) -> Tensor:
        """Features of boosted particles: four-momenta and cosines of the angles between pairs.

        Args:
            x: (B, N, 4), four-momenta (px, py, pz, E).

        Returns:
            (B, 4 N + N (N - 1) / 2), or what the user's function gives.
        """
        if self._user_extractor is not None:
            return self._user_extractor(x)
        return torch.cat([x.flatten(1), pair_cosines(x, self.comb[:, 0], self.comb[:, 1])], 1)

    def forward(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Boost, extract features, normalise them.

        Args:
            x: Flat columns (B, F), matrix (B, V, 4), or a tuple of both.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, width).

        Raises:
            InputError: If `check_input` is set and an object has E < |p|.
            ShapeError: If a feature extractor returns no batch.
        """
        boosted = self.boosted(x, mask)
        features = self.feat_extractor(boosted)
        if features.ndim < 1 or features.shape[0] != boosted.shape[0]:
            raise ShapeError(f"`feat_extractor` must return (batch, ...) for {tuple(boosted.shape)}; "
                             f"got {tuple(features.shape)}")  # fmt: skip
        features = features.flatten(1) if features.ndim > 1 else features.unsqueeze(1)
        return features if self.bn is None else self.bn(features)


class AutoExtractLorentzBoostNet(LorentzBoostNet):
    """Lorentz boost network that learns its features: one network for particles, one for pairs of them.

    Boosts are those of `LorentzBoostNet`. All 4 N components pass through a batch norm, always; then a network maps
    every particle to `n_singles` features and another every pair [z_i ; z_j], i < j, to `n_pairs`. The output is the
    features of particles, particle by particle, then those of pairs, pair by pair.

    Args:
        cont_feats: Names of the flat columns, in their order.
        vecs: Names of the objects.
        feats_per_vec: Names of px, py, pz and E, in this order.
        n_particles: N.
        depth: Number of dense layers of each network.
        width: Width of all but the last of them.
        n_singles: Number of features a particle.
        n_pairs: Number of features a pair.
        act: Name of the activation of all dense layers, the last ones included.
        do: Dropout rate in all dense layers.
        bn: Whether all dense layers have a batch norm.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable.
        **kargs: More arguments of `LorentzBoostNet`: `bn_class`, `check_input`, `in_float64`, `mass_floor`.

    Raises:
        InputError: As `LorentzBoostNet`; if neither `n_singles` nor `n_pairs` is above 0, or there are pairs to look at
            but only one particle.
    """

    def __init__(
        self,
        cont_feats: Sequence[str],
        vecs: Sequence[str],
        feats_per_vec: Sequence[str],
        n_particles: int,
        depth: int,
        width: int,
        n_singles: int = 0,
        n_pairs: int = 0,
        act: str = "swish",
        do: float = 0,
        bn: bool = False,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
        **kargs: Any,
    ) -> None:
        self._hidden = [check_count("width", width)] * (check_count("depth", depth) - 1)
        self._singles, self._pairs = check_count("n_singles", n_singles, low=0), check_count("n_pairs", n_pairs, low=0)
        self._act, self._do = act, do
        if not self._singles + self._pairs:
            raise InputError("`n_singles` or `n_pairs` must be above 0; with both 0 the head would have no output")
        if self._pairs and check_count("n_particles", n_particles) < 2:
            raise InputError("`n_pairs` must be 0 with `n_particles` = 1: there is no pair")
        super().__init__(
            cont_feats, vecs, feats_per_vec, n_particles, None, bn, lookup_init, lookup_act, freeze, **kargs
        )  # fmt: skip

    def _build(self, bn: bool, bn_class: BatchNormClass) -> bool:
        dense: dict[str, Any] = {"act": self._act, "do": self._do, "bn": bn, "bn_class": bn_class, "objects": True}
        dense |= {"lookup_init": self.lookup_init, "lookup_act": self.lookup_act}
        if self._singles:
            self.single_nn = dense_stack(4, [*self._hidden, self._singles], **dense)
        if self._pairs:
            self.pair_nn = dense_stack(8, [*self._hidden, self._pairs], **dense)
        self.pre_bn = bn_class(4 * self.n_particles)
        return False  # they stand before and inside of the networks

    def feat_extractor(self, x: Tensor) -> Tensor:
        """Learned features of particles and of pairs.

        Args:
            x: (B, N, 4), four-momenta.

        Returns:
            (B, N n_singles + N (N - 1) / 2 n_pairs).
        """
        z = self.pre_bn(x.flatten(1)).reshape(x.shape)
        found = []
        if self._singles:
            found.append(self.single_nn(z).flatten(1))
        if self._pairs:
            pairs = torch.cat([z[:, self.comb[:, 0]], z[:, self.comb[:, 1]]], -1)
            found.append(self.pair_nn(pairs).flatten(1))
        return torch.cat(found, 1)


def check_four_momentum_names(feats_per_vec: Sequence[str]) -> None:
    """Refuse features that are not px, py, pz, E.

    Args:
        feats_per_vec: Names of the features of an object.

    Raises:
        InputError: If there are not four, or the names are those of the components in another order.
    """
    if len(feats_per_vec) != 4:
        raise InputError(f"`feats_per_vec` must name px, py, pz and E, in this order; got {list(feats_per_vec)}")
    plain = [name.lower() for name in feats_per_vec]
    if set(plain) == {"px", "py", "pz", "e"} and plain != ["px", "py", "pz", "e"]:
        raise InputError(f"`feats_per_vec` must be in the order px, py, pz, E; got {list(feats_per_vec)}")


def _combine(weights: Tensor, p: Tensor) -> Tensor:
    """Sums of four-momenta (B, V, 4) with the magnitudes of weights (N, 1, V, 1), as (B, N, 4).

    Where mixed precision is on, products and sums are done element by element, which it leaves in full precision:
    momenta overflow half precision, and masses need the digits.
    """
    wide = weights[:, 0, :, 0].abs().to(p.dtype)
    if not p.is_meta and torch.is_autocast_enabled(p.device.type):
        return (wide[:, :, None] * p[:, None]).sum(2)
    return torch.matmul(wide, p)


def _make_physical(x: Tensor) -> Tensor:
    """Turn random numbers (..., 4) into four-momenta of unit mass."""
    momentum = x[..., :3]
    return torch.cat([momentum, (1 + momentum.square().sum(-1, keepdim=True)).sqrt()], -1)
