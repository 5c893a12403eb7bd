"""The sections `passives`, `muons`, `inference` and `loss`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from diffdet.runs.config.quantities import (
    AnglePair,
    LengthPair,
    LengthTriple,
    Momentum,
    MomentumPair,
    Number,
    Positive,
    PositiveLength,
)
from diffdet.runs.config.section import ClassSpec, Section
from diffdet.runs.messages import refuse

_MAX_THETA = 1.5707963267948966


class PassiveGeneratorConfig(ClassSpec):
    """Draws passive volumes at random."""

    role: ClassVar[str] = "passive generator"

    variants: list[dict[str, Any]] = Field(default_factory=list)
    """Keyword arguments of the generator's draw, one volume for each: for example `{fixed_mat_z: 0.6}`. Empty: free
    draws."""


class BlockConfig(Section):
    """A cuboid of one material."""

    material: str | None = None
    """Name of a material of the library."""
    x0: PositiveLength | None = None
    """Radiation length, m, for a material that the library does not list."""
    low: LengthTriple
    """Lowest corner (x, y, z), m."""
    high: LengthTriple
    """Highest corner (x, y, z), m."""

    @model_validator(mode="after")
    def _one_material(self) -> BlockConfig:
        if (self.material is None) == (self.x0 is None):
            raise refuse("either `material` or `x0`", given={"material": self.material, "x0": self.x0})
        for axis in range(3):
            if not self.low[axis] < self.high[axis]:
                raise refuse(
                    f"a corner below `high[{axis}]` = {self.high[axis]:g}", field=f"low[{axis}]", given=self.low[axis]
                )
        return self


class LayoutConfig(Section):
    """A passive volume that is the same every time."""

    background: str | None = None
    """Material around the blocks."""
    background_x0: PositiveLength | None = None
    """Radiation length around the blocks, m, for a material that the library does not list."""
    blocks: list[BlockConfig] = Field(default_factory=list)
    """Cuboids laid into the background, later ones over earlier ones. A voxel belongs to a block that holds its
    centre."""
    file: str | None = None
    """NPZ or HDF5 file with an array `x0` (z, x, y) of radiation lengths, m, lowest layer first; instead of a
    background."""
    target: Number | list[Number] | None = None
    """What the inference should find, for losses that compare with a target of the volume."""

    @model_validator(mode="after")
    def _one_source(self) -> LayoutConfig:
        given = {
            name: value
            for name in ("background", "background_x0", "file")
            if (value := getattr(self, name)) is not None
        }
        if len(given) != 1:
            raise refuse("exactly one of `background`, `background_x0` and `file`", given=given or "none of them")
        if self.file is not None and self.blocks:
            raise refuse("no blocks beside a file", field="blocks", given=f"{len(self.blocks)} blocks")
        return self


class PassivesConfig(Section):
    """The passive volumes that the detector is trained on: a generator, or a list of layouts."""

    generator: PassiveGeneratorConfig | None = None
    """Draws volumes at random."""
    layouts: list[LayoutConfig] = Field(default_factory=list)
    """Volumes that are the same every time."""
    train: Annotated[int, Field(ge=1)] = 1
    """Volumes in a training epoch; for layouts and variants, how many of each."""
    valid: Annotated[int, Field(ge=0)] = 0
    """Volumes in a validation epoch, counted in the same way; 0 for no validation."""
    fresh: bool = False
    """Whether a generator without variants draws new volumes every epoch; otherwise the first ones are kept."""
    shuffle: bool = True
    """Whether the order of kept volumes changes from epoch to epoch."""

    @model_validator(mode="after")
    def _one_source(self) -> PassivesConfig:
        if (self.generator is None) == (not self.layouts):
            given = {"generator": self.generator and self.generator.class_, "layouts": len(self.layouts)}
            raise refuse("either a `generator` or a list of `layouts`", given=given)
        if self.fresh and (self.generator is None or self.generator.variants):
            raise refuse("false, because layouts and variants are kept", field="fresh", given=True)
        return self

    @property
    def n_kinds(self) -> int:
        """Number of volumes that one of `train` or `valid` stands for."""
        return len(self.layouts) or (len(self.generator.variants) if self.generator else 0) or 1


class MuonsConfig(ClassSpec):
    """Where muons come from, and how many."""

    role: ClassVar[str] = "muon generator"

    class_: str = Field("MuonGenerator2016", alias="class")
    """Flux model."""
    momentum: Momentum | None = 5.0
    """Momentum of all muons, GeV; none: drawn from the flux model."""
    energy_range: MomentumPair = (0.5, 500.0)
    """Range of the spectrum, GeV, used where `momentum` is none."""
    theta_range: AnglePair = (0.0, 1.2217304763960306)
    """Range of the angle to the vertical, rad."""
    x_range: LengthPair | None = None
    """Where muons start in x, m; none: the volume and a margin around it."""
    y_range: LengthPair | None = None
    """Where muons start in y, m; none: the volume and a margin around it."""
    per_volume: Annotated[int, Field(ge=1)] = 1000
    """Muons sent through each passive volume: at least one."""
    batch: Annotated[int, Field(ge=1)] | None = None
    """Muons propagated at once; none: all of a volume. Results do not depend on it, memory does."""

    @model_validator(mode="after")
    def _ranges(self) -> MuonsConfig:
        for name in ("energy_range", "theta_range", "x_range", "y_range"):
            pair = getattr(self, name)
            if pair is not None and not pair[0] < pair[1]:
                raise refuse("a lower and a higher value", field=name, given=list(pair))
        if self.theta_range[1] >= _MAX_THETA:
            raise refuse(
                "an angle below pi/2, because muons must fall", field="theta_range[1]", given=self.theta_range[1]
            )
        if (self.x_range is None) != (self.y_range is None):
            raise refuse(
                "both `x_range` and `y_range`, or neither", given={"x_range": self.x_range, "y_range": self.y_range}
            )
        return self

    @property
    def batch_size(self) -> int:
        """Muons propagated at once."""
        return min(self.per_volume, self.batch or self.per_volume)


class VolumeInferrerConfig(ClassSpec):
    """Turns scattered muons into a statement about the volume."""

    role: ClassVar[str] = "volume inferrer"

    class_: str = Field("PanelX0Inferrer", alias="class")
    """Documented name, or your own class as `package.module:Class`."""


class TrackInferrerConfig(ClassSpec):
    """Turns hits into tracks and scatterings."""

    role: ClassVar[str] = "track inferrer"

    class_: str = Field("ScatterBatch", alias="class")
    """Documented name, or your own class as `package.module:Class`."""


class InferenceConfig(Section):
    """From hits to the quantity that the task asks for."""

    tracks: TrackInferrerConfig = TrackInferrerConfig.model_validate({})
    """From hits to tracks and scatterings."""
    volume: VolumeInferrerConfig = VolumeInferrerConfig.model_validate({})
    """From scatterings to the prediction."""


class LossConfig(ClassSpec):
    """What the optimisation makes small."""

    role: ClassVar[str] = "loss"

    target_budget: Positive | None = None
    """Cost above which the loss rises steeply, unit currency; none: cost does not enter."""
    budget_smoothing: Positive = 10.0
    """How sharply the cost term rises at the budget."""
    cost_coef: Positive | None = None
    """Weight of the cost term; none: the first error."""
    steep_budget: bool = True
    """Whether the cost term rises linearly above the budget, or flattens."""
