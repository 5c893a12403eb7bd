"""Endcaps: a last step after training, for networks that were trained on a proxy of what is wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError


class AbsEndcap(nn.Module, ABC):
    """A function of a trained model's outputs.

    Derive from it and write `func`. The endcap does not own the model: it has no parameters of it, and moving or saving
    the endcap leaves the model where it is.

    Args:
        model: Trained model with a method ``predict(inputs, as_np=...)``. For exclusive classes its tensors are
            logarithms of probabilities, and so is what `func` receives.

    Raises:
        InputError: If the model has no method `predict`.
    """

    model: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not callable(getattr(model, "predict", None)):
            raise InputError(f"`model` must have a method `predict`; got {type(model).__name__}")
        object.__setattr__(self, "model", model)  # so that a module is not taken for a part of this one

    @abstractmethod
    def func(self, x: Tensor) -> Tensor:
        """What to make of the model's outputs.

        Args:
            x: (batch, n_out), outputs of the model.

        Returns:
            The result.
        """

    def forward(self, x: Tensor) -> Tensor:
        """The function of outputs that are there already; does not run the model.

        Args:
            x: (batch, n_out), outputs of the model.

        Returns:
            The result of `func`.
        """
        return self.func(x)

    @torch.no_grad()
    def predict(self, inputs: Any, as_np: bool = True) -> np.ndarray | Tensor:
        """Run the model and then the function, without gradient.

        Args:
            inputs: What the model's `predict` takes.
            as_np: Whether to give a NumPy array; otherwise a tensor on the model's device.

        Returns:
            The result of `func`.
        """
        result = self.func(self.model.predict(inputs, as_np=False))
        return result.cpu().numpy() if as_np else result
