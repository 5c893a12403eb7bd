"""Initial weights by the activation that follows them.

With n = fan_in and m = fan_out of the weight, the variance that keeps the size of signals from layer to layer is

| activation | variance | source |
|---|---|---|
| relu, prelu, leaky_relu, elu, gelu, silu, swish, mish | 2 / n | He et al., arXiv:1502.01852, equation 10 |
| selu | 1 / n | Klambauer et al., arXiv:1706.02515, section 2 |
| sigmoid, tanh, softmax, logsoftmax, linear | 2 / (n + m) | Glorot and Bengio, AISTATS 2010, equation 12 |

`lookup_normal_init` draws from a normal distribution of that variance, `lookup_uniform_init` from a uniform one of the
same variance, that is within +-sqrt(3 variance).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.nn.models.layers.activations import check_act

LookupInit = Callable[..., Callable[[Tensor], object]]
"""(name of an activation, fan_in, fan_out) -> a function that fills a weight in place."""

_GLOROT = ("sigmoid", "tanh", "softmax", "logsoftmax", "linear")


def fans(weight: Tensor) -> tuple[int, int]:
    """Numbers of inputs and outputs that one element of the result, or of the input, of a layer is connected with.

    Args:
        weight: (out, in, *kernel).

    Returns:
        fan_in = in * elements of the kernel, fan_out = out * elements of the kernel.

    Raises:
        InputError: If the weight has fewer than two axes.
    """
    if weight.ndim < 2:
        raise InputError(f"`weight` must have at least 2 axes (out, in, *kernel); got shape {tuple(weight.shape)}")
    kernel = math.prod(weight.shape[2:])
    return weight.shape[1] * kernel, weight.shape[0] * kernel


def _variance(act: str, weight: Tensor, fan_in: int | None) -> float:
    """The variance of the table above."""
    n, m = fans(weight)
    if act == "selu":
        return 1 / max(1, fan_in or n)
    if act in _GLOROT:
        return 2 / max(1, n + m)
    return 2 / max(1, n)


def _fill(weight: Tensor, draw: Callable[[Tensor], object], generator: torch.Generator | None) -> Tensor:
    """Fill a weight in place; on the device of the generator if that is another one."""
    with torch.no_grad():
        if generator is None or generator.device == weight.device:
            draw(weight)
        else:
            drawn = torch.empty_like(weight, device=generator.device)
            draw(drawn)
            weight.copy_(drawn)
    return weight


def lookup_normal_init(
    act: str,
    fan_in: int | None = None,
    fan_out: int | None = None,  # noqa: ARG001 - part of the documented signature
    *,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Tensor]:
    """A function that fills a weight from a normal distribution.

    Args:
        act: Name of the activation that follows the weight; see `lookup_act`.
        fan_in: Number of inputs; used for ``selu`` only. By default, and for the others, taken from the weight.
        fan_out: Number of outputs; not needed, fans come from the weight.
        generator: Where draws come from; by default torch's generator of the device of the weight.

    Returns:
        A function (out, in, *kernel) -> the same tensor, filled in place.

    Raises:
        InputError: If the activation is unknown; from the returned function, if the weight has fewer than two axes.
    """
    check_act("act", act)

    def init(weight: Tensor) -> Tensor:
        std = math.sqrt(_variance(act, weight, fan_in))
        return _fill(weight, lambda w: w.normal_(0.0, std, generator=generator), generator)

    return init


def lookup_uniform_init(
    act: str,
    fan_in: int | None = None,
    fan_out: int | None = None,  # noqa: ARG001 - part of the documented signature
    *,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Tensor]:
    """A function that fills a weight from a uniform distribution around zero.

    Its variance is that of `lookup_normal_init` for every activation. The older package took a third of it for
    ``selu``, with which signals die out.

    Args:
        act: Name of the activation that follows the weight; see `lookup_act`.
        fan_in: Number of inputs; used for ``selu`` only. By default, and for the others, taken from the weight.
        fan_out: Number of outputs; not needed, fans come from the weight.
        generator: Where draws come from; by default torch's generator of the device of the weight.

    Returns:
        A function (out, in, *kernel) -> the same tensor, filled in place.

    Raises:
        InputError: If the activation is unknown; from the returned function, if the weight has fewer than two axes.
    """
    check_act("act", act)

    def init(weight: Tensor) -> Tensor:
        bound = math.sqrt(3 * _variance(act, weight, fan_in))
        return _fill(weight, lambda w: w.uniform_(-bound, bound, generator=generator), generator)

    return init
