"""The sections `optimiser`, `callbacks`, `schedule`, `checkpoints` and `task`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from diffdet.runs.config.quantities import Duration, Positive, PositiveLength
from diffdet.runs.config.section import ClassSpec, Section
from diffdet.runs.messages import refuse

PANEL_FAMILIES = ("xy_pos", "z_pos", "xy_span")
"""Families of parameters that every panel of ours has; with a budget there is also `budget`."""


class OptimiserConfig(ClassSpec):
    """How one family of parameters moves: by a learning rate, or by a rate in physical units."""

    role: ClassVar[str] = "optimiser"

    class_: str = Field("SGD", alias="class")
    """Name of an optimiser of torch."""
    rate: PositiveLength | None = None
    """Wanted movement per update, m (for `budget`: in its weights). The learning rate follows from the median
    gradient, measured in `schedule.warmup_epochs` epochs during which the detector stands still."""
    lr: Positive | None = None
    """Learning rate, instead of `rate`."""

    @model_validator(mode="after")
    def _one_rate(self) -> OptimiserConfig:
        if (self.rate is None) == (self.lr is None):
            raise refuse("either `rate` or `lr`", given={"rate": self.rate, "lr": self.lr})
        return self


class CallbackConfig(ClassSpec):
    """Acts at events of the optimisation."""

    role: ClassVar[str] = "callback"


class ScheduleConfig(Section):
    """How long the optimisation goes on."""

    epochs: Annotated[int, Field(ge=1)] = 20
    """Epochs in which the detector moves."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs before those, in which gradients are measured and learning rates set; needed where an optimiser has a
    `rate`."""
    cost_warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs before those, in which the median error is measured and becomes the weight of the cost term."""
    volumes_per_update: Annotated[int, Field(ge=1)] | None = None
    """Passive volumes averaged in an update; none: all of an epoch."""

    @property
    def total_epochs(self) -> int:
        """All epochs, those of the warm-ups included."""
        return self.epochs + self.warmup_epochs + self.cost_warmup_epochs


class CheckpointsConfig(Section):
    """How often the state is saved, from which an interrupted run goes on bit for bit."""

    every_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs between checkpoints."""
    every: Duration = 300.0
    """Longest time between checkpoints, s; one is then written after the update in progress."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Checkpoints kept, beside the best."""


class TaskConfig(ClassSpec):
    """What the detector is for: how it is evaluated on held-out volumes, and with what it is compared."""

    role: ClassVar[str] = "task"

    class_: str = Field("held_out_loss", alias="class")
    """`held_out_loss`, `ladle_furnace`, `u_lorry`, or your own as `package.module:Class`."""
