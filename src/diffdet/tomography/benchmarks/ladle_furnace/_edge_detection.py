"""Fill level of a ladle furnace as the place of an edge in the profile of X0 along z."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffdet.core.checks import check_choice, check_shape
from diffdet.core.errors import GeometryError, InputError, ShapeError
from diffdet.kernels import profile_filters
from diffdet.tomography.inference.volume import AbsIntClassifierFromX0

if TYPE_CHECKING:
    from diffdet.tomography.inference.volume import _PartialX0Inferrer
    from diffdet.tomography.volume.volume import Volume

__all__ = ["EdgeDetLadleFurnaceFillLevelInferrer"]

_DEFAULT_PIPELINE = ["remove_ladle", "avg_3d", "avg_layers", "avg_1d", "ridge_1d_0", "negative", "max_div_min"]


class EdgeDetLadleFurnaceFillLevelInferrer(AbsIntClassifierFromX0):
    """Fill level as a class: which layer holds the edge between the fill and what is above.

    The X0 map goes through a pipeline of filters that ends with one value per layer, large where X0 changes; softmax
    turns it into probabilities. Class k is the edge at the height z_low + (k + 1) size, with the bottom z_low of the
    passive block and the voxel edge: class 0 is an empty furnace, of which only the floor is full.
    `LadleFurnaceIntClassLoss` numbers levels alike.

    With the default pipeline the most probable class of an ideal map is one or two below the true one, because the
    smoothing carries the large X0 of what is above into the fill: calibrate classes, or compare them with each other.

    Stages are methods of this class, looked up by name; inherit and add methods to have more:

    - ``remove_ladle``: without floor and walls, one voxel thick;
    - ``avg_3d``, ``gauss_3d``: smoothing of voxels, by the mean of 3 x 3 x 3 or by (1, 2, 1)/4 along each axis;
    - ``avg_layers``: mean over x and y, which leaves a profile along z;
    - ``avg_1d``, ``gauss_1d``: smoothing of the profile, by the mean of three or by (1, 2, 1)/4;
    - ``ridge_1d_0``, ``_2``, ``_4``, ``_8``: correlation with (-1, c, -1);
    - ``prewit_1d``: with (-1, 0, 1); ``laplacian_1d``: with (1, -4, 1);
    - ``negative``: change of sign;
    - ``max_sub_min``, ``max_div_min``: largest of three neighbours minus, or over, the smallest. For the ratio to mean
      something the values must be of one sign.

    Args:
        partial_x0_inferrer: Called with ``volume=`` for the inferrer of X0.
        volume: The volume that the muons crossed.
        pipeline: Names of stages, the first to be applied first.
        add_batch_dim: Give the map a leading axis of one while it passes the pipeline, for stages that need it.
        output_probs: Predict probabilities of the classes; False predicts the level of the most probable one, m.

    Raises:
        InputError: If a stage is not known, or there is none.
        GeometryError: If nothing is left of the volume without floor and walls.
    """

    def __init__(
        self,
        partial_x0_inferrer: _PartialX0Inferrer,
        volume: Volume,
        pipeline: Sequence[str] = _DEFAULT_PIPELINE,
        add_batch_dim: bool = True,
        output_probs: bool = True,
    ) -> None:
        super().__init__(partial_x0_inferrer, volume, output_probs=output_probs, class2float=self._class_to_level)
        if isinstance(pipeline, str) or len(pipeline) == 0:
            raise InputError(f"`pipeline` must list names of stages; got {pipeline!r}")
        stages = [name for name in dir(type(self)) if name[0] != "_" and not hasattr(AbsIntClassifierFromX0, name)]
        stages.remove("edge_det")  # takes a kernel
        for k, name in enumerate(pipeline):
            check_choice(f"pipeline[{k}]", name, stages)
        if "remove_ladle" in pipeline and min(volume.n_zxy) < 3:
            raise GeometryError(
                f"a furnace with floor and walls needs at least 3 voxels in every direction; got {volume.n_zxy} "
                f"in z, x, y"
            )
        self.pipeline = list(pipeline)
        self.add_batch_dim = add_batch_dim

    @staticmethod
    def _class_to_level(number: Tensor, volume: Volume) -> Tensor:
        low, _ = volume.passive_box
        return (number + 1) * volume.passive_size + low[2]

    def x02probs(self, vox_preds: Tensor) -> Tensor:
        """Probability of every class.

        Args:
            vox_preds: ``(z, x, y)`` X0, lowest layer first, m.

        Returns:
            ``(class,)`` probabilities.

        Raises:
            ShapeError: If the map is no cube, or the pipeline does not end with one value per layer.
        """
        check_shape("vox_preds", vox_preds, "z x y")
        x = vox_preds[None] if self.add_batch_dim else vox_preds
        for name in self.pipeline:
            x = getattr(self, name)(x)
        if self.add_batch_dim:
            x = x[0]
        if x.ndim != 1:
            raise ShapeError(
                f"`pipeline` must end with one value per layer (`avg_layers` makes it so); "
                f"{' -> '.join(self.pipeline)} ends with the shape {tuple(x.shape)}"
            )
        return torch.softmax(x, -1)

    # ------------------------------------------------------------------------------------------------------------ cubes
    @staticmethod
    def remove_ladle(x: Tensor) -> Tensor:
        """``(..., z, x, y)`` without the lowest layer and the outer ring of voxels in x and y."""
        return x[..., 1:, 1:-1, 1:-1]

    @staticmethod
    def avg_3d(x: Tensor) -> Tensor:
        """``(..., z, x, y)`` means of 3 x 3 x 3 neighbours."""
        return profile_filters.mean_3d(x)

    @staticmethod
    def gauss_3d(x: Tensor) -> Tensor:
        """``(..., z, x, y)`` smoothed with (1, 2, 1)/4 along each axis."""
        return profile_filters.binomial_3d(x)

    @staticmethod
    def avg_layers(x: Tensor) -> Tensor:
        """``(..., z)`` means over x and y of ``(..., z, x, y)``."""
        return x.mean((-2, -1))

    # --------------------------------------------------------------------------------------------------------- profiles
    @staticmethod
    def avg_1d(x: Tensor) -> Tensor:
        """``(..., z)`` means of three neighbours."""
        return profile_filters.mean_1d(x)

    @staticmethod
    def edge_det(x: Tensor, kernel: Tensor) -> Tensor:
        """``(..., z)`` correlated with three weights, that of the lower layer first; outermost values are repeated."""
        return profile_filters.correlate(x, kernel)

    @staticmethod
    def gauss_1d(x: Tensor) -> Tensor:
        """``(..., z)`` smoothed with (1, 2, 1)/4."""
        return profile_filters.correlate(x, (0.25, 0.5, 0.25))

    def ridge_1d_0(self, x: Tensor) -> Tensor:
        """``(..., z)`` correlated with (-1, 0, -1)."""
        return self.edge_det(x, x.new_tensor((-1, 0, -1)))

    def ridge_1d_2(self, x: Tensor) -> Tensor:
        """``(..., z)`` correlated with (-1, 2, -1)."""
        return self.edge_det(x, x.new_tensor((-1, 2, -1)))

    def ridge_1d_4(self, x: Tensor) -> Tensor:
        """``(..., z)`` correlated with (-1, 4, -1)."""
        return self.edge_det(x, x.new_tensor((-1, 4, -1)))

    def ridge_1d_8(self, x: Tensor) -> Tensor:
        """``(..., z)`` correlated with (-1, 8, -1)."""
        return self.edge_det(x, x.new_tensor((-1, 8, -1)))

    def prewit_1d(self, x: Tensor) -> Tensor:
        """``(..., z)`` correlated with (-1, 0, 1)."""
        return self.edge_det(x, x.new_tensor((-1, 0, 1)))

    def laplacian_1d(self, x: Tensor) -> Tensor:
        """``(..., z)`` correlated with (1, -4, 1)."""
        return self.edge_det(x, x.new_tensor((1, -4, 1)))

    @staticmethod
    def negative(x: Tensor) -> Tensor:
        """``-x``."""
        return -x

    @staticmethod
    def max_sub_min(x: Tensor) -> Tensor:
        """``(..., z)`` largest minus smallest of three neighbours."""
        high, low = profile_filters.running_extrema(x)
        return high - low

    @staticmethod
    def max_div_min(x: Tensor) -> Tensor:
        """``(..., z)`` largest over smallest of three neighbours, for values of one sign."""
        high, low = profile_filters.running_extrema(x)
        return high / low
