"""The works whose methods a training used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["works"]

_BY_NAME: dict[str, tuple[str, str, str]] = {
    "InteractionNet": (
        "Pairs of objects",
        "P. W. Battaglia et al., Interaction networks for learning about objects, relations and physics (2016)",
        "arXiv:1612.00222",
    ),
    "GravNet": (
        "Neighbours in a learnt space",
        "S. R. Qasim et al., Learning representations of irregular particle-detector geometry with distance-weighted "
        "graph networks, European Physical Journal C 79 (2019) 608",
        "arXiv:1902.07987",
    ),
    "LorentzBoostNet": (
        "Boosts of learnt particles",
        "M. Erdmann et al., Lorentz boost networks: autonomous physics-inspired feature engineering, Journal of "
        "Instrumentation 14 (2019) P06006",
        "arXiv:1812.09722",
    ),
    "OneCycle": (
        "Learning rate in one cycle",
        "L. N. Smith, A disciplined approach to neural network hyper-parameters: Part 1 (2018)",
        "arXiv:1803.09820",
    ),
    "swish": (
        "Activation",
        "P. Ramachandran, B. Zoph and Q. V. Le, Searching for activation functions (2017)",
        "arXiv:1710.05941",
    ),
    "SWA": (
        "Averages of weights",
        "P. Izmailov et al., Averaging weights leads to wider optima and better generalization (2018)",
        "arXiv:1803.05407",
    ),
}

_OPTIMISERS: dict[str, tuple[str, str]] = {
    "adam": ("D. P. Kingma and J. Ba, Adam: a method for stochastic optimization (2014)", "arXiv:1412.6980"),
    "adamw": ("I. Loshchilov and F. Hutter, Decoupled weight decay regularization (2017)", "arXiv:1711.05101"),
}


def works(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Works to cite.

    Args:
        config: The resolved configuration.

    Returns:
        ``(what for, work, where)`` for each.
    """
    text = json.dumps({key: config.get(key) for key in ("network", "callbacks", "optimiser")}, default=str)
    found = [work for name, work in _BY_NAME.items() if name in text]
    optimiser = str((config.get("optimiser") or {}).get("class", "adam"))
    if optimiser in _OPTIMISERS:
        found.append(("Optimiser", *_OPTIMISERS[optimiser]))
    if (config.get("network") or {}).get("objective") == "classification":
        found.append(
            (
                "Expected significance",
                "G. Cowan et al., Asymptotic formulae for likelihood-based tests of new physics, European Physical "
                "Journal C 71 (2011) 1554",
                "arXiv:1007.1727",
            )
        )
    found.append(
        (
            "Importance by permutation",
            "L. Breiman, Random forests, Machine Learning 45 (2001) 5",
            "doi:10.1023/A:1010933404324",
        )
    )
    return found
