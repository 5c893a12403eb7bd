"""The learnable parameters of a volume's detectors, by family."""

from __future__ import annotations

from torch import nn

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError
from diffdet.tomography.volume.volume import Volume

__all__ = ["families", "family", "named_parameters"]


def families(volume: Volume) -> dict[str, list[nn.Parameter]]:
    """Parameters of all panels by family, for example ``{"xy_pos": [...], "z_pos": [...], "xy_span": [...]}``.

    Args:
        volume: Volume with detectors.

    Returns:
        Lists in the order of the layers and of the panels in them.
    """
    found: dict[str, list[nn.Parameter]] = {}
    for panel in volume.yield_panels():
        for name, parameter in panel.parameter_families().items():
            found.setdefault(name, []).append(parameter)
    return found


def family(volume: Volume, name: str) -> list[nn.Parameter]:
    """Parameters of one family.

    Raises:
        InputError: If no panel of the volume has it; the message lists those that there are.
    """
    found = families(volume)
    if name not in found:
        raise InputError(
            f"this volume's panels have no parameters {name!r} to optimise; they have {sorted(found) or 'none at all'}"
            f"{did_you_mean(name, found)}"
        )
    return found[name]


def named_parameters(volume: Volume) -> dict[str, nn.Parameter]:
    """Every learnable parameter of the detectors under a name that a person can follow.

    Panels are counted from the top for each position, on through all its layers.

    Returns:
        For example ``{"above.0.xy_pos": ..., "budget_weights": ...}``.
    """
    found: dict[str, nn.Parameter] = {}
    n_panels: dict[str, int] = {}
    for layer in volume.get_detectors():
        for panel in layer.yield_panels():
            number = n_panels.get(layer.pos, 0)
            n_panels[layer.pos] = number + 1
            for name, parameter in panel.parameter_families().items():
                found[f"{layer.pos}.{number}.{name}"] = parameter
    weights = getattr(volume, "budget_weights", None)
    if isinstance(weights, nn.Parameter):
        found["budget_weights"] = weights
    return found
