"""One-dimensional convolutions over the objects, for networks of the user's own."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from diffdet.core.errors import InputError
from diffdet.kernels.graphs import pack_present
from diffdet.nn.models.blocks._dense import BatchNormClass
from diffdet.nn.models.blocks._head.base import HeadInput
from diffdet.nn.models.blocks._head.conv_masks import carry
from diffdet.nn.models.blocks._head.matrix import AbsMatrixHead
from diffdet.nn.models.blocks._head.sizes import trial_width
from diffdet.nn.models.blocks.conv_blocks import Conv1DBlock, Padding, Res1DBlock, ResNeXt1DBlock
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act


class AbsConv1dHead(AbsMatrixHead):
    """Base of heads that convolve along the objects. The matrix is column-wise, (B, P, V): features are channels.

    Derive from it and define `get_layers`; the width of the output is found by trying::

        class MyCNN(AbsConv1dHead):
            def get_layers(self, in_c, act="relu", bn=False, **kargs):
                return nn.Sequential(
                    self.get_conv1d_block(in_c, 16, kernel_sz=3, act=act, bn=bn),
                    self.get_conv1d_res_block(16, 32, kernel_sz=3, stride=2, act=act, bn=bn),
                    nn.AdaptiveAvgPool1d(1),
                )

    With a mask, an event gives what it gives in a matrix of its present objects only, in their order; see
    `diffdet.nn.models.blocks._head.conv_masks` for parts of your own. Without a last pool, columns that do not exist
    are zero.

    Args:
        cont_feats: Names of the flat columns, in their order.
        vecs: Names of the objects, in the order of the columns.
        feats_per_vec: Names of the features of an object.
        act: Name of the activation, handed to `get_layers`.
        bn: Whether to use batch norms, handed to `get_layers`.
        layer_kargs: More arguments for `get_layers`.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        freeze: Whether all parameters start as not trainable.
        bn_class: Number of channels -> batch norm, for the blocks that the helpers make.
        **kargs: Arguments that builders hand to all heads; others are refused.

    Attributes:
        layers: The network.

    Raises:
        InputError: As `AbsMatrixHead`; if `get_layers` returns no module.
    """

    def __init__(
        self,
        cont_feats: Sequence[str],
        vecs: Sequence[str],
        feats_per_vec: Sequence[str],
        act: str = "relu",
        bn: bool = False,
        layer_kargs: Mapping[str, Any] | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        freeze: bool = False,
        *,
        bn_class: BatchNormClass = nn.BatchNorm1d,
        **kargs: Any,
    ) -> None:
        super().__init__(
            cont_feats, vecs, feats_per_vec, row_wise=False,
            lookup_init=lookup_init, lookup_act=lookup_act, freeze=freeze, **kargs,
        )  # fmt: skip
        self.bn_class = bn_class
        settings: dict[str, Any] = {"in_c": self.n_fpv, "act": act, "bn": bn, **(layer_kargs or {})}
        expected = inspect.signature(self.get_layers).parameters
        if "in_c" not in expected and not any(one.kind is one.VAR_KEYWORD for one in expected.values()):
            del settings["in_c"]  # a network whose author wrote the number of features down
        layers = self.get_layers(**settings)
        layers = layers[0] if isinstance(layers, tuple) else layers
        if not isinstance(layers, nn.Module):
            raise InputError(f"`get_layers` must return a module; got {type(layers).__name__}")
        self.layers = layers
        self._out_size = self.check_out_sz()
        self._map_outputs()

    @abstractmethod
    def get_layers(self, in_c: int, act: str = "relu", bn: bool = False, **kargs: Any) -> Any:
        """The network from (B, in_c, V) to (B, ...).

        Args:
            in_c: Number of features of an object.
            act: Name of the activation.
            bn: Whether to use batch norms.
            **kargs: What the head was given as `layer_kargs`.

        Returns:
            A module, best a `nn.Sequential`.
        """

    def get_out_size(self) -> int:
        """Width of the output."""
        return self._out_size

    def check_out_sz(self) -> int:
        """Width of the output, found by passing one random event through the network.

        Returns:
            Number of columns of the flattened output.
        """
        return trial_width(self, (1, self.n_fpv, self.n_v))

    def forward(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Convolve and flatten.

        Args:
            x: Flat columns (B, F), matrix (B, P, V), or a tuple of both.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, width).

        Raises:
            NotSupportedError: If there is a mask, and it cannot be followed through a part of the network.
        """
        columns = self.get_matrix(x, mask)
        if mask is None:
            return self.layers(columns).flatten(1)
        packed, _, number = pack_present(columns.transpose(1, 2), mask)
        return carry(self.layers, packed.transpose(1, 2), number)[0].flatten(1)

    def get_conv1d_block(
        self,
        in_c: int,
        out_c: int,
        kernel_sz: int,
        padding: Padding = "auto",
        stride: int = 1,
        act: str = "relu",
        bn: bool = False,
    ) -> Conv1DBlock:
        """A `Conv1DBlock` with the look-ups of the head.

        Args:
            in_c: Channels of the input.
            out_c: Channels of the output.
            kernel_sz: Number of columns that the kernel covers.
            padding: Columns of zeros on each side, or ``auto`` to keep their number at stride 1.
            stride: Columns that the kernel moves by.
            act: Name of the activation; that of the head is not taken by itself.
            bn: Whether to add a batch norm.

        Returns:
            The block.
        """
        return Conv1DBlock(
            in_c, out_c, kernel_sz, padding, stride, act, bn, self.lookup_init, self.lookup_act, bn_class=self.bn_class
        )

    def get_conv1d_res_block(
        self,
        in_c: int,
        out_c: int,
        kernel_sz: int,
        padding: Padding = "auto",
        stride: int = 1,
        act: str = "relu",
        bn: bool = False,
    ) -> Res1DBlock:
        """A `Res1DBlock` with the look-ups of the head.

        Args:
            in_c: Channels of the input.
            out_c: Channels of the output.
            kernel_sz: Number of columns that the kernels cover.
            padding: ``auto``, or the number of columns that it stands for.
            stride: Columns that the first kernel moves by.
            act: Name of the activation; that of the head is not taken by itself.
            bn: Whether to use batch norms.

        Returns:
            The block.
        """
        return Res1DBlock(
            in_c, out_c, kernel_sz, padding, stride, act, bn, self.lookup_init, self.lookup_act, bn_class=self.bn_class
        )

    def get_conv1d_resNeXt_block(
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
    ) -> ResNeXt1DBlock:
        """A `ResNeXt1DBlock` with the look-ups of the head.

        Args:
            in_c: Channels of the input.
            inter_c: Channels of each group.
            cardinality: Number of groups.
            out_c: Channels of the output.
            kernel_sz: Number of columns that the kernel of the groups covers.
            padding: ``auto``, or the number of columns that it stands for.
            stride: Columns that the first kernel moves by.
            act: Name of the activation; that of the head is not taken by itself.
            bn: Whether to use batch norms.

        Returns:
            The block.
        """
        return ResNeXt1DBlock(
            in_c, inter_c, cardinality, out_c, kernel_sz, padding, stride, act, bn,
            self.lookup_init, self.lookup_act, bn_class=self.bn_class,
        )  # fmt: skip
