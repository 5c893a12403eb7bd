"""Convolutions over the columns of a matrix, (batch, channel, column): a column is an object, a channel one of its
features. What weighs channels and pools columns is written in `_channels.py` and belongs here, too.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from diffdet.core.checks import check_shape
from diffdet.core.errors import InputError
from diffdet.nn.models.blocks._channels import (
    AdaptiveAvgMaxConcatPool1d,
    AdaptiveAvgMaxConcatPool2d,
    AdaptiveAvgMaxConcatPool3d,
    SEBlock1d,
    SEBlock2d,
    SEBlock3d,
)
from diffdet.nn.models.blocks._dense import BatchNormClass, activation
from diffdet.nn.models.blocks.abs_block import check_count
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act

__all__ = [
    "AdaptiveAvgMaxConcatPool1d",
    "AdaptiveAvgMaxConcatPool2d",
    "AdaptiveAvgMaxConcatPool3d",
    "Conv1DBlock",
    "Res1DBlock",
    "ResNeXt1DBlock",
    "SEBlock1d",
    "SEBlock2d",
    "SEBlock3d",
]

Padding = int | Literal["auto"]


class _EvenConv1d(nn.Conv1d):
    """A convolution with an even kernel that keeps the number of columns: one more zero after them than before."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gives it
        k = self.kernel_size[0]
        return super().forward(nn.functional.pad(input, ((k - 1) // 2, k // 2)))


def _zero_bias(conv: nn.Conv1d) -> None:
    """Start without bias."""
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


class Conv1DBlock(nn.Module):
    """One convolution: Conv1d, activation, batch norm.

    The number of columns goes from L to floor((L + 2 padding - kernel_sz) / stride) + 1; with padding ``auto`` to
    ceil(L / stride), for even kernels too. The older package gave one column more for an even kernel.

    Args:
        in_c: Channels of the input: features of an object.
        out_c: Channels of the output.
        kernel_sz: Number of columns that the kernel covers.
        padding: Columns of zeros on each side, or ``auto`` to keep their number at stride 1.
        stride: Columns that the kernel moves by.
        act: Name of the activation.
        bn: Whether to add a batch norm.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.

    Raises:
        InputError: If a size is below 1, the padding is negative or a word other than ``auto``, or the activation is
            unknown.
    """

    layers: nn.Sequential

    def __init__(
        self,
        in_c: int,
        out_c: int,
        kernel_sz: int,
        padding: Padding = "auto",
        stride: int = 1,
        act: str = "relu",
        bn: bool = False,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        *,
        bn_class: BatchNormClass = nn.BatchNorm1d,
    ) -> None:
        super().__init__()
        self.in_c, self.out_c = check_count("in_c", in_c), check_count("out_c", out_c)
        self.kernel_sz, self.stride = check_count("kernel_sz", kernel_sz), check_count("stride", stride)
        if padding != "auto":
            if isinstance(padding, str):
                raise InputError(f"`padding` must be 'auto' or a number of columns; got {padding!r}")
            check_count("padding", padding, low=0)
        self.padding: Padding = padding
        self.act, self.bn, self.bn_class = act, bn, bn_class
        self.lookup_init, self.lookup_act = lookup_init, lookup_act
        self.set_layers()

    def set_layers(self) -> None:
        """Make `layers`; called once, at the end of construction."""
        self.layers = self.get_conv_layer(self.in_c, self.out_c, self.kernel_sz, self.padding, self.stride)

    @staticmethod
    def get_padding(kernel_sz: int) -> int:
        """Columns of zeros on each side that keep the number of columns at stride 1.

        Args:
            kernel_sz: Number of columns that the kernel covers; odd.

        Raises:
            InputError: If it is even: no padding that is the same on both sides keeps the number.
        """
        if check_count("kernel_sz", kernel_sz) % 2 == 0:
            raise InputError(
                f"`kernel_sz` must be odd for a padding that is the same on both sides; got {kernel_sz}. "
                "`get_conv_layer` with padding 'auto' takes even ones too"
            )
        return kernel_sz // 2

    def get_conv_layer(
        self,
        in_c: int,
        out_c: int,
        kernel_sz: int,
        padding: Padding = "auto",
        stride: int = 1,
        pre_act: bool = False,
        groups: int = 1,
    ) -> nn.Sequential:
        """One convolution with activation and batch norm.

        Args:
            in_c: Channels of the input.
            out_c: Channels of the output.
            kernel_sz: Number of columns that the kernel covers.
            padding: Columns of zeros on each side, or ``auto``.
            stride: Columns that the kernel moves by.
            pre_act: Whether batch norm and activation come before the convolution, in this order; otherwise the
                activation and then the batch norm come after it.
            groups: Number of groups of channels that are not connected with each other.

        Returns:
            The layers; no layer for ``linear``.

        Raises:
            InputError: If channels cannot be divided into the groups.
        """
        if in_c % groups or out_c % groups:
            raise InputError(f"`groups` must divide `in_c` = {in_c} and `out_c` = {out_c}; got {groups}")
        even = padding == "auto" and kernel_sz % 2 == 0
        width = 0 if even else self.get_padding(kernel_sz) if padding == "auto" else int(padding)
        conv = (_EvenConv1d if even else nn.Conv1d)(in_c, out_c, kernel_sz, stride, width, groups=groups)
        self.lookup_init(self.act, in_c // groups * kernel_sz, out_c // groups * kernel_sz)(conv.weight)
        _zero_bias(conv)
        act = activation(self.act, self.lookup_act)
        norm = self.bn_class(in_c if pre_act else out_c) if self.bn else None
        layers = (norm, act, conv) if pre_act else (conv, act, norm)
        return nn.Sequential(*(layer for layer in layers if layer is not None))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Args:
            x: (batch, in_c, columns).

        Returns:
            (batch, out_c, columns).

        Raises:
            ShapeError: If x has another shape.
        """
        check_shape("x", x, f"batch {self.in_c} columns")
        return self.layers(x)


class Res1DBlock(Conv1DBlock):
    """Two convolutions and a short cut around them, y = S(x) + f2(f1(x)).

    Batch norm and activation come before each convolution. S is the identity, or a convolution of kernel 1 where the
    stride or the number of channels changes; it starts with weights for ``linear`` and no bias. The older package left
    it to torch's default.

    Source: K. He et al., "Identity mappings in deep residual networks", arXiv:1603.05027.

    Args:
        in_c: Channels of the input.
        out_c: Channels of the output.
        kernel_sz: Number of columns that the kernels cover.
        padding: ``auto``, or the number of columns that it stands for: the short cut keeps the columns.
        stride: Columns that the first kernel moves by.
        act: Name of the activation.
        bn: Whether to use batch norms.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.

    Raises:
        InputError: As `Conv1DBlock`, and if the padding changes the number of columns.
    """

    shortcut: nn.Conv1d | None

    def set_layers(self) -> None:
        """Make `layers` and `shortcut`."""
        self._check_padding()
        self.layers = nn.Sequential(
            self.get_conv_layer(self.in_c, self.out_c, self.kernel_sz, self.padding, self.stride, pre_act=True),
            self.get_conv_layer(self.out_c, self.out_c, self.kernel_sz, self.padding, pre_act=True),
        )
        self._set_shortcut()

    def _check_padding(self) -> None:
        """Refuse a padding with which the two ways have different numbers of columns."""
        if self.padding != "auto" and 2 * self.padding + 1 != self.kernel_sz:
            hint = f"'auto' or {self.kernel_sz // 2}" if self.kernel_sz % 2 else "'auto'"
            raise InputError(
                f"`padding` must be {hint} for a kernel of {self.kernel_sz} columns, the short cut keeps their number; "
                f"got {self.padding}"
            )

    def _set_shortcut(self) -> None:
        """The way around the layers: None for the identity."""
        if self.stride == 1 and self.in_c == self.out_c:
            self.shortcut = None
            return
        self.shortcut = nn.Conv1d(self.in_c, self.out_c, 1, self.stride)
        self.lookup_init("linear", self.in_c, self.out_c)(self.shortcut.weight)
        _zero_bias(self.shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, and add the short cut.

        Args:
            x: (batch, in_c, columns).

        Returns:
            (batch, out_c, ceil(columns / stride)).

        Raises:
            ShapeError: If x has another shape.
        """
        check_shape("x", x, f"batch {self.in_c} columns")
        return self.layers(x) + (x if self.shortcut is None else self.shortcut(x))


class ResNeXt1DBlock(Res1DBlock):
    """Groups of convolutions and a short cut around them.

    With c = inter_c cardinality: a convolution of kernel 1 to c channels with the stride, one of `kernel_sz` in
    `cardinality` groups, one of kernel 1 to out_c; batch norm and activation come before each. The short cut is that of
    `Res1DBlock`.

    Source: S. Xie et al., "Aggregated residual transformations for deep neural networks", arXiv:1611.05431.

    Args:
        in_c: Channels of the input.
        inter_c: Channels of each group.
        cardinality: Number of groups.
        out_c: Channels of the output.
        kernel_sz: Number of columns that the kernel of the groups covers.
        padding: ``auto``, or the number of columns that it stands for.
        stride: Columns that the first kernel moves by.
        act: Name of the activation.
        bn: Whether to use batch norms.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        bn_class: Number of channels -> batch norm.

    Raises:
        InputError: As `Res1DBlock`.
    """

    def __init__(
        self,
        in_c: int,
        inter_c: int,
        cardinality: int,
        out_c: int,
        kernel_sz: int,
        padding: Padding = "auto",
        stride: int = 1,
        act: str = "relu",
        bn: bool = False,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        *,
        bn_class: BatchNormClass = nn.BatchNorm1d,
    ) -> None:
        # `set_layers` needs these while the base is being constructed; numbers need no module.
        self.inter_c = check_count("inter_c", inter_c)
        self.cardinality = check_count("cardinality", cardinality)
        super().__init__(
            in_c, out_c, kernel_sz, padding, stride, act, bn, lookup_init, lookup_act, bn_class=bn_class
        )  # fmt: skip

    def set_layers(self) -> None:
        """Make `layers` and `shortcut`."""
        self._check_padding()
        c = self.inter_c * self.cardinality
        self.layers = nn.Sequential(
            self.get_conv_layer(self.in_c, c, 1, stride=self.stride, pre_act=True),
            self.get_conv_layer(c, c, self.kernel_sz, self.padding, pre_act=True, groups=self.cardinality),
            self.get_conv_layer(c, self.out_c, 1, pre_act=True),
        )
        self._set_shortcut()
