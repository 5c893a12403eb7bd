"""The `volume` section: layers from top to bottom, with their panels and voxels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from diffdet.runs.config.quantities import Length, LengthTriple, Positive, PositiveLength, PositiveLengthPair
from diffdet.runs.config.section import ClassSpec, Section
from diffdet.runs.messages import refuse

_TOLERANCE = 1e-6
"""How far two lengths may differ and still count as equal, m; and the same for the number of voxels in a length."""


class PanelConfig(ClassSpec):
    """One panel: an infinitely thin rectangle that records where muons cross it."""

    role: ClassVar[str] = "panel"

    class_: str = Field("DetectorPanel", alias="class")
    """Response model: `DetectorPanel` (Gaussian), `SigmoidDetectorPanel`, or your own as `package.module:Class`."""
    xyz: LengthTriple
    """Initial centre, m, in the frame of the volume."""
    span: PositiveLengthPair
    """Initial full width in x and y, m; with a budget only their ratio and relative size matter."""
    resolution: Positive = 10_000.0
    """Hit resolution, 1/m: the standard deviation of a hit is its inverse, so 10000 means 0.1 mm."""
    efficiency: Annotated[Positive, Field(le=1)] = 0.9
    """Probability that a muon crossing the panel is recorded, above 0, at most 1."""
    cost_per_m2: Positive = 1.0
    """Cost of a square metre, unit currency."""
    smooth: Positive | None = None
    """Smoothness of the edge of sigmoid panels: larger is softer. None for other panels."""
    realistic_validation: bool = True
    """Whether the panel has hard edges outside training."""

    @model_validator(mode="before")
    @classmethod
    def _default_smoothness(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("class") == "SigmoidDetectorPanel" and data.get("smooth") is None:
            return {**data, "smooth": 1.0}
        return data

    @model_validator(mode="after")
    def _smooth_fits_class(self) -> PanelConfig:
        if self.class_ == "DetectorPanel" and self.smooth is not None:
            raise refuse(
                "no `smooth` for the class DetectorPanel",
                field="smooth",
                given=self.smooth,
                hint="`SigmoidDetectorPanel` has one",
            )
        return self


class DetectorConfig(Section):
    """A layer of air that holds panels."""

    kind: Literal["detector"]
    """Marks a detector layer."""
    position: Literal["above", "below"]
    """Whether its hits belong to the track above or below the passive block."""
    thickness: PositiveLength
    """From the top of the layer to its bottom, m."""
    z: Length | None = None
    """Top of the layer, m. Follows from the thicknesses; where given, it must agree with them."""
    panels: Annotated[list[PanelConfig], Field(min_length=1)]
    """The panels, in any order."""


class PassiveConfig(Section):
    """A block of voxels that scatter muons."""

    kind: Literal["passive"]
    """Marks a passive block."""
    thickness: PositiveLength
    """From the top of the block to its bottom, m: a whole number of voxels."""
    voxel: PositiveLength
    """Edge of the cubic voxels, m: `volume.lw` and `thickness` must be whole multiples of it."""
    step: PositiveLength = 0.01
    """Length of the steps in which muons scatter, m."""
    scatter_model: Literal["pdg", "pdg-step"] = "pdg"
    """`pdg`: Highland's width of the whole path, independent of the step. `pdg-step`: the formula applied to each
    step."""
    z: Length | None = None
    """Top of the block, m. Follows from the thicknesses; where given, it must agree with them."""

    @model_validator(mode="after")
    def _whole_voxels(self) -> PassiveConfig:
        _check_multiple(self.thickness, self.voxel, "thickness", "voxel")
        return self


LayerConfig = Annotated[DetectorConfig | PassiveConfig, Field(discriminator="kind")]


def _check_multiple(length: float, unit: float, field: str, unit_field: str) -> None:
    ratio = length / unit
    if ratio < 1 - _TOLERANCE or abs(ratio - round(ratio)) > _TOLERANCE:
        low, high = max(1, int(ratio)) * unit, (int(ratio) + 1) * unit
        raise refuse(
            f"a whole multiple of the voxel edge, `{unit_field}` = {unit:g} m",
            field=field,
            given=length,
            hint=f"{low:g} or {high:g} would do",
        )


class VolumeConfig(Section):
    """Everything that muons cross, from the highest layer to the lowest, which ends at z = 0."""

    lw: PositiveLengthPair
    """Length in x and width in y of all layers, m: whole multiples of the voxel edge."""
    budget: Positive | None = None
    """Total cost of the panels, unit currency. Given, panels share it in learnable fractions; none, their areas are
    free."""
    layers: Annotated[list[LayerConfig], Field(min_length=3)]
    """Layers from top to bottom: detectors above, passive blocks, detectors below."""

    @model_validator(mode="after")
    def _order(self) -> VolumeConfig:
        kinds = [layer.position if isinstance(layer, DetectorConfig) else "passive" for layer in self.layers]
        for place in ("above", "passive", "below"):
            if place not in kinds:
                what = "one passive block" if place == "passive" else f"one detector with position: {place}"
                raise refuse(f"at least {what}", field="layers", given=kinds)
        rank = {"above": 0, "passive": 1, "below": 2}
        if kinds != sorted(kinds, key=rank.__getitem__):
            raise refuse("detectors above, then passive blocks, then detectors below", field="layers", given=kinds)
        for place in ("above", "below"):
            count = sum(len(layer.panels) for layer in self.detectors if layer.position == place)
            if count < 2:
                raise refuse(
                    f"at least two panels {place} the passive block, which a track needs",
                    field="layers",
                    given=f"{count} {place}",
                )
        return self

    @model_validator(mode="after")
    def _voxels_fit(self) -> VolumeConfig:
        first: tuple[int, float] | None = None
        for place, layer in enumerate(self.layers):
            if not isinstance(layer, PassiveConfig):
                continue
            if first is not None and abs(layer.voxel - first[1]) > _TOLERANCE * first[1]:
                raise refuse(
                    f"the voxel edge of the other passive blocks, {first[1]:g} m (layers[{first[0]}].voxel)",
                    field=f"layers[{place}].voxel",
                    given=layer.voxel,
                )
            first = first or (place, layer.voxel)
            for axis in range(2):
                _check_multiple(self.lw[axis], layer.voxel, f"lw[{axis}]", f"volume.layers[{place}].voxel")
        return self

    @model_validator(mode="after")
    def _contiguous(self) -> VolumeConfig:
        for place, (layer, top) in enumerate(self._tops()):
            if layer.z is not None and abs(layer.z - top) > _TOLERANCE:
                raise refuse(
                    f"{top:.6g} m, where the layers below it end: layers must touch, and the lowest must end at 0",
                    field=f"layers[{place}].z",
                    given=layer.z,
                )
        return self

    @model_validator(mode="after")
    def _panels_inside(self) -> VolumeConfig:
        for place, (layer, top) in enumerate(self._tops()):
            if not isinstance(layer, DetectorConfig):
                continue
            limits = ((0.0, self.lw[0]), (0.0, self.lw[1]), (top - layer.thickness, top))
            for number, panel in enumerate(layer.panels):
                for axis, (low, high) in enumerate(limits):
                    if not low - _TOLERANCE <= panel.xyz[axis] <= high + _TOLERANCE:
                        raise refuse(
                            f"{'xyz'[axis]} inside the panel's layer, from {low:.6g} to {high:.6g} m",
                            field=f"layers[{place}].panels[{number}].xyz[{axis}]",
                            given=panel.xyz[axis],
                        )
        return self

    @property
    def detectors(self) -> list[DetectorConfig]:
        """The detector layers, from top to bottom."""
        return [layer for layer in self.layers if isinstance(layer, DetectorConfig)]

    @property
    def passives(self) -> list[PassiveConfig]:
        """The passive blocks, from top to bottom."""
        return [layer for layer in self.layers if isinstance(layer, PassiveConfig)]

    @property
    def voxel_shape(self) -> tuple[int, int, int]:
        """Number of voxels in z, x and y."""
        edge = self.passives[0].voxel
        depth = sum(round(block.thickness / edge) for block in self.passives)
        return depth, round(self.lw[0] / edge), round(self.lw[1] / edge)

    @property
    def passive_z(self) -> tuple[float, float]:
        """Bottom and top of all passive blocks together, m."""
        blocks = [(top, layer.thickness) for layer, top in self._tops() if isinstance(layer, PassiveConfig)]
        return round(blocks[-1][0] - blocks[-1][1], 10), blocks[0][0]

    def _tops(self) -> Iterator[tuple[DetectorConfig | PassiveConfig, float]]:
        """Each layer with the z of its top, from the highest down."""
        for place, layer in enumerate(self.layers):
            # Sums of decimals are rounded to a tenth of a nanometre, so that 0.4 + 1.0 + 0.4 is 1.8.
            yield layer, round(sum(below.thickness for below in self.layers[place:]), 10)

    def tops(self) -> list[float]:
        """z of the top of each layer, m."""
        return [top for _, top in self._tops()]
