"""Recurrent networks over the sequence of objects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_choice, check_in_range
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.kernels.graphs import clear_absent, pack_present, unpack_present
from diffdet.nn.models.blocks._head.base import HeadInput
from diffdet.nn.models.blocks._head.matrix import AbsMatrixHead
from diffdet.nn.models.blocks.abs_block import check_count

_GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
"""torch's name of a recurrent network -> number of gates, whose weights are stacked."""


class RecurrentHead(AbsMatrixHead):
    """RNN, LSTM or GRU over the objects of an event, in their order. The matrix is row-wise, (B, V, P).

    The output is the last hidden state: of a bidirectional network that of the forward direction after the last object
    and that of the backward direction after the first. The older package took the backward state after it had seen the
    last object only; `legacy_last_step=True` does so for weights that were trained with it. With `stateful=True`
    the output is the hidden state after every object, (B, V, H); the older package could not build that.

    With a mask, the network runs over the objects that are present; an event without any has the initial state, zero.

    Weights: input weights are orthogonal; hidden weights are orthogonal gate by gate; biases are 0, except 1 for the
    forget gate of an LSTM and -1 for the reset gate of a GRU, in both of torch's bias vectors.

    Args:
        cont_feats: Names of the flat columns, in their order.
        vecs: Names of the objects, in the order of the sequence.
        feats_per_vec: Names of the features of an object.
        depth: Number of recurrent layers.
        width: Width of a hidden state.
        bidirectional: Whether to run in both directions.
        rnn: `nn.RNN`, `nn.LSTM`, `nn.GRU` or a class like them.
        do: Dropout rate between layers; needs a depth of 2.
        act: Activation of `nn.RNN`, ``tanh`` or ``relu``; LSTM and GRU have their own.
        stateful: Whether to return the hidden states after all objects.
        freeze: Whether all parameters start as not trainable.
        legacy_last_step: Whether to read a bidirectional network as the older package does. Takes no mask.
        **kargs: Arguments that builders hand to all heads; others are refused.

    Attributes:
        rnn: The network.

    Raises:
        InputError: As `AbsMatrixHead`; if depth or width is below 1, the rate outside [0, 1), there is dropout with a
            depth of 1, or `act` is unknown to `nn.RNN`.
    """

    def __init__(
        self,
        cont_feats: Sequence[str],
        vecs: Sequence[str],
        feats_per_vec: Sequence[str],
        depth: int,
        width: int,
        bidirectional: bool = False,
        rnn: Callable[..., nn.RNNBase] = nn.RNN,
        do: float = 0.0,
        act: str = "tanh",
        stateful: bool = False,
        freeze: bool = False,
        *,
        legacy_last_step: bool = False,
        **kargs: Any,
    ) -> None:
        shared = {name: kargs.pop(name) for name in ("lookup_init", "lookup_act") if name in kargs}
        super().__init__(cont_feats, vecs, feats_per_vec, row_wise=True, freeze=freeze, **shared, **kargs)
        self.depth, self.width = check_count("depth", depth), check_count("width", width)
        self.bidirectional, self.stateful, self.legacy_last_step = bool(bidirectional), bool(stateful), legacy_last_step
        self.do = do or 0.0
        check_in_range("do", self.do, 0, 1, high_open=True)
        if self.do and self.depth == 1:
            raise InputError(f"`do` must be 0 with `depth` = 1, since it acts between layers; got {do}")
        settings: dict[str, Any] = {"bias": True, "batch_first": True, "bidirectional": self.bidirectional}
        if _takes_nonlinearity(rnn):
            check_choice("act", act, ("tanh", "relu"))
            settings["nonlinearity"] = act
        self.rnn = rnn(self.n_fpv, self.width, self.depth, dropout=self.do, **settings)
        self._initialise()
        self._map_outputs()

    def _initialise(self) -> None:
        """Fill weights and biases; see the class."""
        gates = _GATES.get(self.rnn.mode, 1)
        for name, weight in self.rnn.named_parameters():
            if "weight_ih" in name:
                nn.init.orthogonal_(weight)
            elif "weight_hh" in name:
                for gate in range(gates):
                    nn.init.orthogonal_(weight.data[gate * self.width : (gate + 1) * self.width])
            elif "bias" in name:
                nn.init.zeros_(weight)
                if self.rnn.mode == "LSTM":
                    weight.data[self.width : 2 * self.width] = 1
                elif self.rnn.mode == "GRU":
                    weight.data[: self.width] = -1

    def get_out_size(self) -> int | tuple[int, int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Width of the output; of a stateful head, numbers of objects and of features."""
        width = self.width * (2 if self.bidirectional else 1)
        return (self.n_v, width) if self.stateful else width

    def forward(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Run over the objects.

        Args:
            x: Flat columns (B, F), matrix (B, V, P), or a tuple of both.
            mask: (B, V), true where an object is present; None when all are.

        Returns:
            (B, H) with H = width, or 2 width if bidirectional; (B, V, H) if stateful, zero for absent objects.

        Raises:
            NotSupportedError: If there is a mask, and `legacy_last_step` is set or the network is none of torch's.
        """
        objects = self.get_matrix(x, mask)
        if mask is not None:
            return self._over_present(objects, mask)
        states, last = self.rnn(objects)
        if self.stateful:
            return states
        if self.bidirectional and not self.legacy_last_step:
            last = last[0] if isinstance(last, tuple) else last
            return torch.cat([last[-2], last[-1]], -1)
        return states[:, -1]

    def _over_present(self, objects: Tensor, mask: Tensor) -> Tensor:
        """The same over the objects that are present, which are first packed to the front."""
        if self.legacy_last_step and self.bidirectional:
            raise NotSupportedError("`mask` needs `legacy_last_step=False`: the old reading takes the last slot")
        packed, order, number = pack_present(objects, mask)
        if self.bidirectional:
            states = self._both_ways(packed, number)
        else:
            states, _ = self.rnn(packed)  # what follows the last object comes after it is read
        if self.stateful:
            return clear_absent(unpack_present(states, order), mask)
        forward, backward = states[..., : self.width], states[:, 0, self.width :]
        end = (number - 1).clamp_min(0)[:, None, None].expand(-1, 1, self.width)
        last = torch.cat([forward.gather(1, end).squeeze(1), backward], -1)
        return torch.where(mask.any(1, keepdim=True), last, torch.zeros_like(last))

    def _both_ways(self, x: Tensor, number: Tensor) -> Tensor:
        """Hidden states of a bidirectional network over sequences of different lengths, layer by layer.

        The backward direction runs over each sequence reversed within its own length.
        """
        if self.rnn.mode not in _GATES:
            raise NotSupportedError(f"`mask` needs nn.RNN, nn.LSTM or nn.GRU; got {type(self.rnn).__name__}")
        place = torch.arange(x.shape[1], device=x.device)
        turned = torch.where(place < number[:, None], number[:, None] - 1 - place, place)[..., None]
        for layer in range(self.depth):
            forward = self._one_way(x, f"l{layer}")
            reverse = self._one_way(x.gather(1, turned.expand(-1, -1, x.shape[-1])), f"l{layer}_reverse")
            x = torch.cat([forward, reverse.gather(1, turned.expand_as(reverse))], -1)
            if layer < self.depth - 1:
                x = nn.functional.dropout(x, self.do, self.training)
        return x

    def _one_way(self, x: Tensor, suffix: str) -> Tensor:
        """Hidden states of one layer in one direction."""
        weights = [getattr(self.rnn, f"{name}_{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        start = x.new_zeros(1, x.shape[0], self.width)
        first: Any = (start, start) if self.rnn.mode == "LSTM" else start
        run = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}
        # has biases, 1 layer, no dropout, training or not, one direction, batch first
        return run[self.rnn.mode](x, first, weights, True, 1, 0.0, self.training, False, True)[0]


def _takes_nonlinearity(rnn: Callable[..., nn.RNNBase]) -> bool:
    """Whether a class of recurrent networks lets its activation be chosen."""
    if isinstance(rnn, type) and issubclass(rnn, nn.RNN):  # whose signature says *args, **kwargs
        return True
    return "nonlinearity" in inspect.signature(rnn).parameters
