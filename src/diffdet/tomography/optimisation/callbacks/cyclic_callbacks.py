"""Callbacks that come back to where they were."""

from __future__ import annotations

from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["CyclicCallback"]


class CyclicCallback(Callback):
    """Marks callbacks whose effect repeats in cycles; ``fit_params.cyclic_cbs`` lists them."""
