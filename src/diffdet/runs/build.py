"""From a configuration to the objects that it describes.

Everything is built in memory before anything is written, so that what cannot be built is told in time. Errors name the
path of the field in the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError
from diffdet.runs.config import DetectorConfig, PassiveConfig, RunConfig
from diffdet.runs.messages import at
from diffdet.runs.passives import build_layout as build_layout
from diffdet.runs.passives import build_passives as build_passives
from diffdet.runs.passives import yield_passives as yield_passives
from diffdet.runs.registry import construct, resolve, searching

if TYPE_CHECKING:
    from diffdet.runs.tasks.base import AbsTask
    from diffdet.tomography.muon.generation import AbsMuonGenerator
    from diffdet.tomography.optimisation.callbacks.callback import Callback
    from diffdet.tomography.optimisation.data.passives import PassiveYielder
    from diffdet.tomography.optimisation.loss.loss import AbsDetectorLoss
    from diffdet.tomography.optimisation.wrapper.volume_wrapper import ArbVolumeWrapper
    from diffdet.tomography.volume.volume import Volume


@dataclass(frozen=True)
class Built:
    """What a configuration describes.

    Attributes:
        volume: Layers, panels and voxels.
        wrapper: The volume with its optimisers, loss, inference and muon source.
        callbacks: What acts during the optimisation, warm-ups first.
        train: Passive volumes to learn from.
        valid: Passive volumes to validate on; None for no validation.
        task: How the detector is evaluated.
    """

    volume: Volume
    wrapper: ArbVolumeWrapper
    callbacks: list[Callback]
    train: PassiveYielder
    valid: PassiveYielder | None
    task: AbsTask


def build(config: RunConfig) -> Built:
    """Build everything that a run needs.

    Args:
        config: The configuration.

    Returns:
        The objects.

    Raises:
        InputError: If something cannot be built; the message names the field.
    """
    with searching(config.search_path):
        volume = build_volume(config)
        train = build_passives(config, volume, "train")
        assert train is not None
        return Built(
            volume=volume,
            wrapper=build_wrapper(config, volume),
            callbacks=build_callbacks(config),
            train=train,
            valid=build_passives(config, volume, "valid"),
            task=build_task(config),
        )


def resolve_device(name: str) -> torch.device:
    """The device that a name stands for.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto``.

    Returns:
        A device that is there.

    Raises:
        InputError: If it is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    available = [
        "cpu",
        *(f"cuda:{k}" for k in range(torch.cuda.device_count() if cuda else 0)),
        *(["mps"] if mps else []),
    ]
    if (name != "cuda" and name not in available) or (name == "cuda" and not cuda):
        raise InputError(f"device: expected one that is there ({', '.join(available)}), given {name!r}")
    return torch.device(name)


def build_volume(config: RunConfig) -> Volume:
    """Build layers, panels and voxels.

    Args:
        config: The configuration.

    Returns:
        The volume, on the configuration's device, with no layout loaded.

    Raises:
        InputError: If a panel or layer cannot be built.
    """
    from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
    from diffdet.tomography.volume.volume import Volume

    device = resolve_device(config.device)
    lw = torch.tensor(config.volume.lw, device=device)
    layers: list[nn.Module] = []
    with searching(config.search_path):
        for place, (layer, top) in enumerate(zip(config.volume.layers, config.volume.tops(), strict=True)):
            where = f"volume.layers[{place}]"
            with at(where):
                if isinstance(layer, DetectorConfig):
                    panels = nn.ModuleList(_build_panels(layer, where, device))
                    layers.append(PanelDetectorLayer(layer.position, lw=lw, z=top, size=layer.thickness, panels=panels))
                else:
                    layers += [
                        PassiveLayer(
                            lw, z, layer.voxel, step_sz=layer.step, scatter_model=layer.scatter_model, device=device
                        )
                        for z in _voxel_tops(layer, top)
                    ]
        with at("volume"):
            return Volume(nn.ModuleList(layers), budget=config.volume.budget)


def _voxel_tops(layer: PassiveConfig, top: float) -> list[float]:
    """z of the top of each voxel layer of a block, from the highest down, m."""
    return [round(top - k * layer.voxel, 10) for k in range(round(layer.thickness / layer.voxel))]


def _build_panels(layer: DetectorConfig, where: str, device: torch.device) -> list[nn.Module]:
    panels = []
    for number, panel in enumerate(layer.panels):
        path = f"{where}.panels[{number}]"
        fixed: dict[str, Any] = {
            "res": panel.resolution,
            "eff": panel.efficiency,
            "init_xyz": panel.xyz,
            "init_xy_span": panel.span,
            "m2_cost": panel.cost_per_m2,
            "realistic_validation": panel.realistic_validation,
            "device": device,
        }
        if panel.smooth is not None:
            fixed["smooth"] = panel.smooth
        panels.append(construct(resolve("panel", panel.class_, f"{path}.class"), path, fixed, panel.args))
    return panels


def build_muon_generator(config: RunConfig, volume: Volume) -> AbsMuonGenerator:
    """Build the source of muons.

    Args:
        config: The configuration.
        volume: Decides where muons start, where the configuration does not say.

    Returns:
        The generator.

    Raises:
        InputError: If it cannot be built.
    """
    muons = config.muons
    with searching(config.search_path):
        found: Any = resolve("muon generator", muons.class_, "muons.class")
        fixed: dict[str, Any] = {
            "fixed_mom": muons.momentum,
            "energy_range": muons.energy_range,
            "theta_range": muons.theta_range,
        }
        if muons.x_range is None:
            with at("muons"):
                near: AbsMuonGenerator = found.from_volume(volume, **fixed, **muons.args)
            return near
        fixed |= {"x_range": muons.x_range, "y_range": muons.y_range}
        source: AbsMuonGenerator = construct(found, "muons", fixed, muons.args)
        return source


def _left_to_callbacks(pred: Tensor, volume: Volume) -> Tensor:  # noqa: ARG001
    """A loss of nothing, in whose place a callback puts that of the whole batch of volumes."""
    return 0 * pred.sum()


def build_loss(config: RunConfig) -> AbsDetectorLoss | Callable[[Tensor, Volume], Tensor]:
    """Build the loss; nothing where a callback supplies it."""
    loss = config.loss
    if loss is None:
        return _left_to_callbacks
    fixed = {
        "target_budget": loss.target_budget,
        "budget_smoothing": loss.budget_smoothing,
        "cost_coef": loss.cost_coef,
        "steep_budget": loss.steep_budget,
    }
    found: AbsDetectorLoss = construct(resolve("loss", loss.class_, "loss.class"), "loss", fixed, loss.args)
    return found


def build_callbacks(config: RunConfig) -> list[Callback]:
    """Build the callbacks: those that the schedule asks for come where their place matters, after repairs of
    gradients.
    """
    with searching(config.search_path):
        callbacks: list[Callback] = [
            construct(resolve("callback", spec.class_, f"callbacks[{k}].class"), f"callbacks[{k}]", {}, spec.args)
            for k, spec in enumerate(config.callbacks)
        ]
    from diffdet.tomography.optimisation.callbacks.warmup_callbacks import CostCoefWarmup, OptConfig

    schedule = config.schedule
    if schedule.cost_warmup_epochs:
        callbacks.append(CostCoefWarmup(n_warmup=schedule.cost_warmup_epochs))
    rates = {optimiser_name(family): spec.rate for family, spec in config.optimiser.items() if spec.rate is not None}
    if rates:
        callbacks.append(OptConfig(n_warmup=schedule.warmup_epochs, rates=rates))
    return callbacks


def build_task(config: RunConfig) -> AbsTask:
    """Build what evaluates the detector."""
    with searching(config.search_path):
        task: AbsTask = construct(resolve("task", config.task.class_, "task.class"), "task", {}, config.task.args)
    if config.smoke:
        task.shrink()
    return task


def optimiser_name(family: str) -> str:
    """Name of the optimiser of a family, as wrapper and callbacks know it: ``xy_pos`` has ``xy_pos_opt``."""
    return f"{family.replace('.', '_')}_opt"


def _families(volume: Volume) -> dict[str, dict[str, list[nn.Parameter]]]:
    """Parameters by family, for each position of the detectors."""
    found: dict[str, dict[str, list[nn.Parameter]]] = {}
    for layer in volume.get_detectors():
        for panel in layer.yield_panels():
            for family, parameter in panel.parameter_families().items():
                found.setdefault(family, {}).setdefault(layer.pos, []).append(parameter)
    return found


def build_optimisers(config: RunConfig, volume: Volume) -> dict[str, torch.optim.Optimizer]:
    """Build one optimiser for each family that moves.

    Args:
        config: The configuration.
        volume: Has the parameters.

    Returns:
        Optimisers by name; parameters of families that are not named stand still.

    Raises:
        InputError: If a family does not exist, or an optimiser refuses its arguments.
    """
    families = _families(volume)
    optimisers = {}
    for key, spec in config.optimiser.items():
        family, _, side = key.partition(".")
        if family == "budget":
            parameters: Sequence[nn.Parameter] = [volume.budget_weights]
        else:
            by_side = families.get(family)
            if by_side is None:
                raise InputError(
                    f"optimiser.{key}: expected a family that the panels have ({', '.join(families)}), given {family!r}"
                )
            parameters = by_side.get(side, []) if side else [p for group in by_side.values() for p in group]
        where = f"optimiser.{key}"
        # A rate becomes a learning rate when the gradients have been measured; until then nothing moves.
        rate = spec.lr if spec.lr is not None else 1.0
        found = resolve("optimiser", spec.class_, f"{where}.class")
        optimisers[optimiser_name(key)] = construct(found, where, {"params": parameters, "lr": rate}, spec.args)
    return optimisers


def build_wrapper(config: RunConfig, volume: Volume) -> ArbVolumeWrapper:
    """Put the volume together with its optimisers, loss, inference and muon source.

    Args:
        config: The configuration.
        volume: The volume.

    Returns:
        A wrapper whose random streams are keyed by the configuration's seed.

    Raises:
        InputError: If a part cannot be built.
    """
    from diffdet.tomography.optimisation.wrapper.volume_wrapper import ArbVolumeWrapper

    with searching(config.search_path):
        tracks, inferrer = config.inference.tracks, config.inference.volume
        return ArbVolumeWrapper(
            volume,
            opts=build_optimisers(config, volume),
            loss_func=build_loss(config),
            partial_scatter_inferrer=_part("track inferrer", tracks, "inference.tracks"),
            partial_volume_inferrer=_part("volume inferrer", inferrer, "inference.volume"),
            mu_generator=build_muon_generator(config, volume),
            seed=config.seed,
        )


def _part(role: str, spec: Any, where: str) -> Any:
    """A class whose remaining arguments are given later."""
    found = resolve(role, spec.class_, f"{where}.class")
    return construct(found, where, {}, spec.args, late=("volume",)) if spec.args else found


def same_volume(config: RunConfig, volume: Volume) -> Volume:
    """A new volume of the same configuration with the parameters of another, for evaluations that must not touch it."""
    copy = build_volume(config)
    copy.load_state_dict(volume.state_dict())
    return copy
