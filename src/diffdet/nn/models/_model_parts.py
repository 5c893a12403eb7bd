"""What a model is made of: network, optimiser, loss, and the files that hold them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from diffdet.core.errors import CheckpointError, InputError
from diffdet.loop import packing
from diffdet.loop.update import load_optimisers
from diffdet.nn.losses import WeightedBCE
from diffdet.nn.models._building import state_of_model
from diffdet.nn.models.model_builder import KIND, ModelBuilder
from diffdet.nn.models.net import HeadBodyTail, count_parameters
from diffdet.nn.training.fit_params import FitParams
from diffdet.nn.training.loading import load_state, read_state

__all__ = ["ModelParts"]


class ModelParts:
    """A network, its optimiser and its loss; see `diffdet.nn.models.model.Model`."""

    net: HeadBodyTail
    opt: Optimizer
    loss: Any = None
    input_mask: list[int] | None = None
    objective: str = ""
    n_out: int = 1
    fit_params: FitParams | None = None
    last_fit: FitParams | None = None

    def __init__(
        self,
        model_builder: ModelBuilder | None = None,
        *,
        seed: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.model_builder = model_builder
        if model_builder is not None:
            self._build(model_builder, seed, device)

    def _build(self, builder: ModelBuilder, seed: int | None, device: torch.device | str | None) -> None:
        self.model_builder = builder
        self.net, self.opt, self.loss, self.input_mask = builder.get_model(seed=seed, device=device)
        self.objective, self.n_out = builder.objective, builder.n_out

    def __getattr__(self, name: str) -> Any:
        if name in ("net", "opt"):
            raise InputError(f"`{name}` is not there yet: pass a `model_builder`, or `load` with one")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # ------------------------------------------------------------------------------------------------------------ parts
    @property
    def model(self) -> HeadBodyTail:
        """The network, under its documented name."""
        return self.net

    @property
    def head(self) -> Any:
        """Head of the network."""
        return self.net.part("head")

    @property
    def body(self) -> Any:
        """Body of the network."""
        return self.net.part("body")

    @property
    def tail(self) -> Any:
        """Tail of the network."""
        return self.net.part("tail")

    def __getitem__(self, key: int | str) -> Any:
        return self.net.part(key)

    def __repr__(self) -> str:
        if "net" not in vars(self):
            return "Model without network"
        head = self.head
        counts = {name: getattr(head, f"n_{name}_in", 0) for name in ("cont", "cat", "matrix")}
        if not hasattr(getattr(head, "head", head), "matrix_head"):
            counts["cont"] -= counts["matrix"]  # a head of objects counts their features as continuous, too
        inputs = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        n, trainable = self.get_param_count(False), self.get_param_count()
        return (
            f"Model({self.objective}, inputs: {inputs or 'none'}, outputs: {self.n_out}, {n} parameters, "
            f"{trainable} of them trainable)\n{self.net}\nOptimiser: {self.opt}\nLoss: {self.loss}"
        )

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of the network."""
        return list(self.net.parameters())

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Type of the network's parameters, to which inputs are converted."""
        return next((p.dtype for p in self.net.parameters()), torch.get_default_dtype())

    @property
    def classes(self) -> bool:
        """Whether targets are class numbers."""
        return "multiclass" in self.objective and self.n_out > 1

    @property
    def n_classes(self) -> int:
        """Number of classes where targets are class numbers, else 0."""
        return self.n_out if self.classes else 0

    @property
    def labels(self) -> bool:
        """Whether the loss is a binary cross-entropy, whose targets are from 0 to 1."""
        loss = self.loss
        while isinstance(loss, partial):
            loss = loss.func
        return isinstance(loss, type) and issubclass(loss, nn.BCELoss | WeightedBCE)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the network and the state of its optimiser.

        Args:
            device: Where to; where it is if None.
            dtype: To which type; as it is if None.
        """
        self.net.to(device=device, dtype=dtype)
        self.opt.load_state_dict(self.opt.state_dict())  # takes device and type of the parameters
        return self

    def get_out_size(self) -> int:
        """Number of outputs."""
        return self.n_out

    def get_param_count(self, trainable: bool = True) -> int:
        """Number of parameters.

        Args:
            trainable: Whether to count only those that are trained.
        """
        return count_parameters(self.net, trainable)

    def freeze_layers(self) -> None:
        """Make all parameters untrainable."""
        self.net.requires_grad_(False)

    def unfreeze_layers(self) -> None:
        """Make all parameters trainable."""
        self.net.requires_grad_(True)

    def set_input_mask(self, mask: Sequence[int] | np.ndarray | None) -> None:
        """Choose the columns of flat inputs that the network sees.

        Args:
            mask: Numbers of columns; None for all.
        """
        self.input_mask = None if mask is None else [int(k) for k in mask]

    def get_weights(self) -> OrderedDict[str, Tensor]:
        """A copy of the network's state."""
        return OrderedDict((key, value.detach().clone()) for key, value in self.net.state_dict().items())

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Give the network a state.

        Args:
            weights: As `get_weights` gives it.

        Raises:
            CheckpointError: If it does not fit; every key is listed.
        """
        load_state(self.net, weights, "weights")

    # -------------------------------------------------------------------------------------------------------- optimiser
    def get_lr(self) -> float:
        """Learning rate."""
        return float(self.opt.param_groups[0]["lr"])

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of all groups of parameters."""
        for group in self.opt.param_groups:
            group["lr"] = float(lr)

    def get_mom(self) -> float:
        """Momentum, or beta_1.

        Raises:
            InputError: If the optimiser has neither.
        """
        group = self.opt.param_groups[0]
        if "betas" in group:
            return float(group["betas"][0])
        if "momentum" in group:
            return float(group["momentum"])
        raise InputError(f"the optimiser {type(self.opt).__name__} has no momentum")

    def set_mom(self, mom: float) -> None:
        """Set the momentum, or beta_1, of all groups of parameters.

        Raises:
            InputError: If the optimiser has neither.
        """
        self.get_mom()
        for group in self.opt.param_groups:
            if "betas" in group:
                group["betas"] = (float(mom), *group["betas"][1:])
            else:
                group["momentum"] = float(mom)

    # ------------------------------------------------------------------------------------------------------------ files
    def save(self, name: str | Path, *, weights: Mapping[str, Tensor] | None = None) -> None:
        """Save network, optimiser and input mask to a file, atomically: safetensors, never pickle.

        Args:
            name: Name of the file, any ending.
            weights: State to save instead of the network's own.

        Raises:
            StorageError: If it cannot be written.
        """
        state = {
            "model": dict(self.net.state_dict() if weights is None else weights),
            "opt": self.opt.state_dict(),
            "input_mask": self.input_mask,
        }
        packing.save_file(name, state, KIND)

    def load(self, name: str | Path, model_builder: ModelBuilder | None = None) -> None:
        """Load what `save` saved, or a file of `torch.save` with the same content; nothing in it is executed.

        Args:
            name: Name of the file.
            model_builder: Builds the network first; needed by an empty model.

        Raises:
            StorageError: If the file is missing or cannot be read; `FileDamagedError` if it is broken, or holds more
                than tensors, arrays and plain values.
            CheckpointError: If it does not fit; every key is listed. The model is then as it was.
        """
        content = read_state(name, KIND)
        state = state_of_model(content)
        old = dict(vars(self))
        try:
            if model_builder is not None:
                self._build(model_builder, None, None)
            self._take(state, None if content is state else content.get("opt"), str(name))
        except BaseException:
            vars(self).clear()
            vars(self).update(old)
            raise
        if content is not state and "input_mask" in content:
            self.set_input_mask(content["input_mask"])

    def _take(self, state: Mapping[str, Any], opt: Any, where: str) -> None:
        """Give network and optimiser a state; both are as they were where one does not fit."""
        before = self.get_weights(), copy.deepcopy(self.opt.state_dict())
        load_state(self.net, state, where)
        if opt is None:
            return
        try:
            load_optimisers({"opt": self.opt}, {"opt": opt})
        except CheckpointError:
            self.net.load_state_dict(before[0])
            self.opt.load_state_dict(before[1])
            raise

    @classmethod
    def from_save(cls, name: str | Path, model_builder: ModelBuilder) -> Self:
        """A model from a file.

        Args:
            name: Name of the file.
            model_builder: Builds the network that the file's weights go to.

        Raises:
            StorageError: As `load`.
            CheckpointError: As `load`.
        """
        model = cls(model_builder)
        model.load(name)
        return model
