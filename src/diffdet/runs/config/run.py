"""The whole configuration: sections together, and the rules between them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from diffdet.runs.config.geometry import VolumeConfig
from diffdet.runs.config.physics import InferenceConfig, LossConfig, MuonsConfig, PassivesConfig
from diffdet.runs.config.section import Section
from diffdet.runs.config.training import (
    PANEL_FAMILIES,
    CallbackConfig,
    CheckpointsConfig,
    OptimiserConfig,
    ScheduleConfig,
    TaskConfig,
)
from diffdet.runs.messages import did_you_mean, refuse

LOSS_CALLBACKS = ("SpreadRangeLoss", "CorrectedErrorLoss", "MissedBlockLoss")
"""Callbacks of ours that set the loss of a batch of volumes themselves."""

FORMAT_VERSION = 1
"""Version of the layout of configurations; a file of a later version is refused."""

_DEVICE = re.compile(r"cpu|auto|mps|cuda(:\d+)?")


DEFAULT_CALLBACKS = ("MuonResampler", "NoMoreNaNs")
"""Callbacks of a configuration that names none."""


def _default_callbacks() -> list[CallbackConfig]:
    return [CallbackConfig.model_validate(name) for name in DEFAULT_CALLBACKS]


def check_format(value: Any) -> Any:
    """Refuse the layout of a later version."""
    if isinstance(value, int) and not isinstance(value, bool) and value > FORMAT_VERSION:
        raise refuse(
            f"{FORMAT_VERSION}, the newest version that this diffdet reads", hint="A newer diffdet wrote this file"
        )
    return value


def check_device(name: str) -> str:
    """Refuse what is no device."""
    if not _DEVICE.fullmatch(name):
        raise refuse(
            "`cpu`, `cuda`, `cuda:N`, `mps` or `auto`", hint=did_you_mean(name, ["cpu", "cuda", "mps", "auto"])
        )
    return name


class RunConfig(Section):
    """Everything that decides what a run does: the same configuration and versions give the same numbers."""

    format_version: Literal[1] = FORMAT_VERSION
    """Version of this layout."""
    name: str = "unnamed"
    """Name of the design, for titles."""
    description: str = ""
    """A sentence or two, for the report."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all random streams."""
    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first accelerator found."""
    smoke: bool = False
    """Whether the sizes were made tiny, for trying things out; the figures of such a run mean nothing."""
    search_path: list[str] = Field(default_factory=list)
    """Folders in which the modules of `package.module:Class` are looked up, besides installed packages; relative ones
    start at the configuration file, whose own folder is always searched."""
    volume: VolumeConfig
    """Layers, panels and voxels."""
    passives: PassivesConfig
    """What stands in the volume while the detector learns."""
    muons: MuonsConfig = MuonsConfig.model_validate({})
    """Where muons come from, and how many."""
    inference: InferenceConfig = InferenceConfig()
    """From hits to the quantity that the task asks for."""
    loss: LossConfig | None
    """What the optimisation makes small; none where a callback supplies the loss."""
    optimiser: dict[str, OptimiserConfig]
    """For each family of parameters (`xy_pos`, `z_pos`, `xy_span`, with a budget `budget`; or those of your own
    panels) how it moves; `FAMILY.above` and `FAMILY.below` treat the two sides apart. A family that is not named
    stands still."""
    callbacks: list[CallbackConfig] = Field(default_factory=_default_callbacks)
    """What acts at events of the optimisation, in this order; the warm-ups that the schedule asks for come last."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How long the optimisation goes on."""
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    """How often the state is saved."""
    task: TaskConfig = TaskConfig.model_validate({})
    """How the detector is evaluated."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions that wrote a resolved configuration; for information, not read."""

    _known_format = field_validator("format_version", mode="before")(check_format)
    _known_device = field_validator("device")(check_device)

    @model_validator(mode="after")
    def _families_exist(self) -> RunConfig:
        own = any(panel.is_own for layer in self.volume.detectors for panel in layer.panels)
        known = [*PANEL_FAMILIES, "budget"]
        for family in self.optimiser:
            base, _, side = family.partition(".")
            if side not in ("", "above", "below") or (side and base == "budget"):
                raise refuse(
                    "`above` or `below` after the point, and neither for `budget`",
                    field=f"optimiser.{family}",
                    given=family,
                )
            if base not in known and not own:
                raise refuse(
                    f"a family of parameters: {', '.join(known)}",
                    field=f"optimiser.{family}",
                    given=family,
                    hint=did_you_mean(base, known),
                )
            if side and base in self.optimiser:
                raise refuse(f"either `{base}` or its two sides apart", field=f"optimiser.{family}", given=family)
        if not self.optimiser:
            raise refuse(f"at least one family of parameters: {', '.join(known)}", field="optimiser", given="none")
        if "budget" in self.optimiser and self.volume.budget is None:
            raise refuse(
                "no `budget` without `volume.budget`", field="optimiser.budget", given=self.optimiser["budget"].class_
            )
        return self

    @model_validator(mode="after")
    def _warmups_fit(self) -> RunConfig:
        rated = [family for family, optimiser in self.optimiser.items() if optimiser.rate is not None]
        named = {callback.class_ for callback in self.callbacks}
        if rated and self.schedule.warmup_epochs == 0:
            raise refuse(
                f"at least 1, because optimiser.{rated[0]} has a `rate`", field="schedule.warmup_epochs", given=0
            )
        if not rated and self.schedule.warmup_epochs > 0 and "OptConfig" not in named:
            raise refuse(
                "0, because no optimiser has a `rate`",
                field="schedule.warmup_epochs",
                given=self.schedule.warmup_epochs,
            )
        if self.schedule.cost_warmup_epochs and (self.loss is None or self.loss.target_budget is None):
            raise refuse(
                "0, because the loss has no `target_budget`",
                field="schedule.cost_warmup_epochs",
                given=self.schedule.cost_warmup_epochs,
            )
        return self

    @model_validator(mode="after")
    def _volumes_fill_an_update(self) -> RunConfig:
        size = self.schedule.volumes_per_update
        available = self.passives.train * self.passives.n_kinds
        if size is not None and size > available:
            raise refuse(
                f"at most {available}, the volumes of a training epoch", field="schedule.volumes_per_update", given=size
            )
        return self

    @model_validator(mode="after")
    def _something_to_minimise(self) -> RunConfig:
        supplied = any(callback.class_ in LOSS_CALLBACKS or callback.is_own for callback in self.callbacks)
        if self.loss is None and not supplied:
            known = ", ".join(LOSS_CALLBACKS)
            raise refuse(f"a loss, or a callback that supplies one ({known}, or your own)", field="loss", given=None)
        return self

    @property
    def volumes_per_update(self) -> int:
        """Passive volumes averaged in an update."""
        return self.schedule.volumes_per_update or self.passives.train * self.passives.n_kinds
