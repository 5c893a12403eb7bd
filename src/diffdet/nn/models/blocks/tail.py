"""Tails: from the width of the body to the outputs, in the range that the targets have."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffdet.core.checks import check_finite, check_in_range, check_positive, check_shape
from diffdet.core.errors import InputError, ShapeError
from diffdet.core.modules import register_constant
from diffdet.nn.models.blocks._dense import linear
from diffdet.nn.models.blocks.abs_block import AbsBlock, check_count
from diffdet.nn.models.helpers import read_objective
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init

__all__ = ["AbsTail", "ClassRegMulti", "IdentTail"]

Numbers = float | Sequence[float] | np.ndarray | Tensor


class AbsTail(AbsBlock):
    """Base of tails: (batch, n_in) -> (batch, n_out).

    Args:
        n_in: Width of the input.
        n_out: Number of outputs.
        objective: What the network is for; see `diffdet.nn.models.helpers.read_objective`.
        bias_init: Bias that outputs start with; None for the default of the objective.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        freeze: Whether all parameters start as not trainable.

    Raises:
        InputError: If a size is below 1 or the objective unknown: the older package took a misspelt one for regression.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        objective: str,
        bias_init: Numbers | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        freeze: bool = False,
    ) -> None:
        super().__init__(lookup_init=lookup_init, freeze=freeze)
        self.n_in, self.n_out = check_count("n_in", n_in), check_count("n_out", n_out)
        self.task = read_objective(objective)
        self.objective = objective
        self.bias_init = bias_init

    def get_out_size(self) -> int:
        """Number of outputs."""
        return self.n_out


class IdentTail(AbsTail):
    """Passes its input through: for bodies whose output is the prediction.

    Args:
        n_in: Width of the input.
        n_out: Number of outputs; must be `n_in`.
        objective: What the network is for.
        bias_init: Not used.
        lookup_init: Not used.
        freeze: Not used: there are no parameters.

    Raises:
        InputError: If `n_out` is not `n_in`.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        objective: str,
        bias_init: Numbers | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        freeze: bool = False,
    ) -> None:
        super().__init__(n_in, n_out, objective, bias_init, lookup_init, freeze)
        if n_out != n_in:
            raise InputError(f"`n_out` must be `n_in` = {n_in}, an identity changes no width; got {n_out}")

    def forward(self, x: Tensor) -> Tensor:
        """The input itself."""
        return x


class ClassRegMulti(AbsTail):
    """Outputs for classification, exclusive classes, or regression: a linear layer, an activation, and a scale.

    | objective contains | activation | default bias |
    |---|---|---|
    | ``multiclass`` | log softmax over the outputs | 1 / n_out |
    | else ``class`` | sigmoid of every output: one class, or several labels | 0 |
    | ``regress``, no `y_range` | none | 0 |
    | ``regress``, `y_range` | sigmoid, scaled to the range | 0 |

    With `y_range` the outputs are lo + (hi - lo) f(x), so targets need no normalisation; leave some leeway, since a
    sigmoid reaches its ends at infinity only. With `y_mean` and `y_std` they are y_mean + y_std f(x).

    Note: `bias_init` is added before the activation: the first predictions of a sigmoid are around sigmoid(bias_init),
    not around bias_init. `prior` is what the first predictions shall be around, and finds the bias.

    Args:
        n_in: Width of the input.
        n_out: Number of outputs.
        objective: What the network is for.
        y_range: (low, high), or one such pair an output; the order does not matter.
        bias_init: Bias that outputs start with, one number or one an output. Not used with `y_mean`: the mean is the
            bias.
        y_mean: Mean of the targets, one number or one an output.
        y_std: Standard deviation of the targets, one number or one an output.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        freeze: Whether all parameters start as not trainable.
        prior: What predictions shall be around before training, one number or one an output: a probability, the
            frequencies of exclusive classes, or a value within `y_range`. Excludes `bias_init`.

    Attributes:
        dense: The linear layer, ``tail[0]``.
        act: The activation, ``tail[1]``.
        y_min, y_diff: Lower end and length of the ranges, if there are any.
        y_mean, y_std: As given, if they are.

    Raises:
        InputError: If a size is below 1, the objective unknown, `y_range` is given with `y_mean` or `y_std`, one of the
            two last alone, `y_std` is not positive, a range has no length, or `prior` cannot be reached.
        ShapeError: If numbers for outputs are not as many as outputs.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        objective: str,
        y_range: Any = None,
        bias_init: Numbers | None = None,
        y_mean: Numbers | None = None,
        y_std: Numbers | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        freeze: bool = False,
        *,
        prior: Numbers | None = None,
    ) -> None:
        super().__init__(n_in, n_out, objective, bias_init, lookup_init, freeze)
        if y_range is not None and (y_mean is not None or y_std is not None):
            raise InputError("`y_range` excludes `y_mean` and `y_std`: it scales the outputs already; got both")
        if (y_mean is None) != (y_std is None):
            given, missing = ("y_std", "y_mean") if y_mean is None else ("y_mean", "y_std")
            raise InputError(f"`{missing}` must be given along with `{given}`; got None")
        if prior is not None and bias_init is not None:
            raise InputError("`prior` and `bias_init` exclude each other: both set the bias; got both")
        self._set_scale(y_range, y_mean, y_std)
        if self.task == "multiclass":
            name, self.act = "softmax", nn.LogSoftmax(1)
        elif self.task == "classification" or y_range is not None:
            name, self.act = "sigmoid", nn.Sigmoid()
        else:
            name, self.act = "linear", nn.Identity()
        self.dense = linear(n_in, n_out, act=name, lookup_init=lookup_init)
        self._set_bias(prior)

    def _numbers(self, name: str, value: Numbers) -> Tensor:
        """One number an output, or one for all, as a tensor of (n_out,) or ()."""
        numbers = torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value, dtype=np.float64))
        numbers = numbers.detach().to(torch.get_default_dtype()).squeeze()
        check_finite(name, numbers)
        if numbers.ndim and numbers.shape != (self.n_out,):
            raise ShapeError(f"`{name}` must be one number or one for each of {self.n_out} outputs; "
                             f"got shape {tuple(numbers.shape)}")  # fmt: skip
        return numbers

    def _set_scale(self, y_range: Any, y_mean: Numbers | None, y_std: Numbers | None) -> None:
        """Constants of the last step; they move with the module and are not saved."""
        self.y_min: Tensor | None = None
        self.y_diff: Tensor | None = None
        self.y_mean: Tensor | None = None
        self.y_std: Tensor | None = None
        if y_range is not None:
            ends = torch.as_tensor(y_range if isinstance(y_range, Tensor) else np.asarray(y_range, dtype=np.float64))
            ends = ends.detach().to(torch.get_default_dtype())
            if ends.shape not in ((2,), (self.n_out, 2)):
                raise ShapeError(f"`y_range` must have shape (2) or (n_out = {self.n_out}, 2); got {tuple(ends.shape)}")
            check_finite("y_range", ends)
            low, length = ends.amin(-1), (ends[..., 1] - ends[..., 0]).abs()
            if bool((length == 0).any()):
                raise InputError(f"`y_range` must have two different ends; got {ends.tolist()}")
            self._constants(y_min=low, y_diff=length)
        elif y_mean is not None and y_std is not None:
            std = self._numbers("y_std", y_std)
            check_positive("y_std", std)
            self._constants(y_mean=self._numbers("y_mean", y_mean), y_std=std)

    def _constants(self, **values: Tensor) -> None:
        """Put constants in the place of None. Buffers that are None would not do: `torch.export` counts them."""
        for name, value in values.items():
            delattr(self, name)
            register_constant(self, name, value)

    def _set_bias(self, prior: Numbers | None) -> None:
        """The bias that the outputs start with."""
        if prior is not None:
            bias = self._bias_for(self._numbers("prior", prior))
        elif self.bias_init is not None and self.y_mean is None:
            bias = self._numbers("bias_init", self.bias_init)
        else:
            if self.bias_init is not None:
                warnings.warn("`bias_init` is not used with `y_mean` and `y_std`: the mean is the bias", stacklevel=3)
            bias = torch.tensor(1 / self.n_out if self.task == "multiclass" else 0.0)
        with torch.no_grad():
            self.dense.bias.copy_(bias.expand(self.n_out))

    def _bias_for(self, prior: Tensor) -> Tensor:
        """The bias with which an input of zeros gives the prior."""
        if self.y_diff is not None and self.y_min is not None:
            prior = (prior - self.y_min) / self.y_diff
        if self.y_mean is not None and self.y_std is not None:
            prior = (prior - self.y_mean) / self.y_std
        if self.task == "multiclass":
            prior = prior.expand(self.n_out)
            check_positive("prior", prior)
            if not math.isclose(float(prior.sum()), 1, rel_tol=1e-3):
                raise InputError(f"`prior` must be frequencies that sum to 1; got a sum of {float(prior.sum()):g}")
            return prior.log()
        if isinstance(self.act, nn.Sigmoid):
            check_in_range("prior", prior, 0, 1, low_open=True, high_open=True, unit="of the range")
            return prior.logit()
        return prior

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of a batch.

        Args:
            x: (batch, n_in).

        Returns:
            (batch, n_out): logarithms of probabilities for exclusive classes, probabilities for other classes, values
            for regression.

        Raises:
            ShapeError: If x has another shape.
        """
        check_shape("x", x, f"batch {self.n_in}")
        x = self.act(self.dense(x))
        if self.y_diff is not None and self.y_min is not None:
            x = self.y_diff * x + self.y_min
        if self.y_std is not None and self.y_mean is not None:
            x = self.y_std * x + self.y_mean
        return x

    def __getitem__(self, key: int | slice) -> nn.Module:
        return nn.Sequential(self.dense, self.act)[key] if isinstance(key, slice) else (self.dense, self.act)[key]
