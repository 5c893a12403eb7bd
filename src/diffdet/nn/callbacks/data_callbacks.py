"""Callbacks that change what the network sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffdet.core.checks import check_finite, did_you_mean
from diffdet.core.errors import InputError
from diffdet.nn.callbacks.callback import Callback

__all__ = ["ParametrisedPrediction"]


class ParametrisedPrediction(Callback):
    """Sets an input that parametrises the network, for example a mass hypothesis, to one value while predicting.

    The caller's array is left as it is: the change is made on the batch. (The original wrote into the array.)

    Args:
        feats: Names of the flat input features, in their order, as the data hold them.
        param_feat: Name, or names, of the features to set.
        param_val: Value, or values, as the network sees them: scaled where its inputs are.

    Raises:
        InputError: If a name is unknown or a value not finite; while predicting, if the network does not see a feature.

    Reference: P. Baldi et al., "Parameterized neural networks for high-energy physics", arXiv:1601.07913.
    """

    def __init__(
        self,
        feats: Sequence[str],
        param_feat: str | Sequence[str],
        param_val: float | Sequence[float],
    ) -> None:
        names = [param_feat] if isinstance(param_feat, str) else list(param_feat)
        values = list(param_val) if isinstance(param_val, Sequence) else [param_val]
        if len(names) != len(values):
            raise InputError(f"`param_val` must hold one value for each of the features {names}; got {values}")
        for name, value in zip(names, values, strict=True):
            if name not in feats:
                raise InputError(
                    f"`param_feat` must be among {list(feats)}; got {name!r}{did_you_mean(name, list(feats))}"
                )
            check_finite("param_val", value)
        self.feats = list(feats)
        self.values = dict(zip(names, values, strict=True))

    def on_batch_begin(self) -> None:
        """Set the features of a batch that is to be predicted."""
        fit = self._fit
        if fit.state != "test" or fit.x is None:
            return
        x = fit.x
        fit.x = (self._set(x[0]), x[1]) if isinstance(x, tuple) else self._set(x)

    def _set(self, flat: Tensor) -> Tensor:
        columns = self._columns(flat.shape[-1])
        changed = flat.clone()
        for column, value in columns.items():
            changed[:, column] = torch.as_tensor(value, dtype=flat.dtype, device=flat.device)
        return changed

    def _columns(self, n: int) -> dict[int, float]:
        """Column of the batch by value: the network may see some of the features only."""
        kept = self._model.input_mask
        seen = list(range(n)) if kept is None else list(kept)
        found: dict[int, float] = {}
        for name, value in self.values.items():
            place = self.feats.index(name)
            if place not in seen:
                raise InputError(f"`param_feat` must be a feature that the network sees; {name!r} is masked out")
            found[seen.index(place)] = value
        return found
