"""Callbacks that record what muons did, for diagnosis."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from diffdet.core.errors import NoHitsError, NotSupportedError
from diffdet.tomography.optimisation.callbacks.callback import Callback

__all__ = ["HitRecord", "ScatterRecord"]


class ScatterRecord(Callback):
    """Records the points of closest approach that lie inside the passive volume.

    All volumes go into one record, so use it on a single layout. Memory grows with the number of muons.
    """

    transient = ("record",)

    def __init__(self) -> None:
        self.record: list[Tensor] = []

    def on_train_begin(self) -> None:
        """Begin a new record."""
        super().on_train_begin()
        self.record = []

    def on_pred_begin(self) -> None:
        """Begin a new record."""
        super().on_pred_begin()
        self.record = []

    def on_scatter_end(self) -> None:
        """Record the points of a batch of muons."""
        batch = self._fit.sb
        assert batch is not None
        self.record.append(batch.poca_xyz.detach()[batch.get_scatter_mask()].cpu().clone())

    def get_record(self, as_df: bool = False) -> Tensor | Any:
        """What was recorded.

        Args:
            as_df: Whether to return a pandas data frame with the columns x, y, z [m] and layer (0 is the highest).

        Returns:
            ``(points, xyz)`` tensor, m, or the data frame.

        Raises:
            NoHitsError: If nothing was recorded.
            NotSupportedError: If a data frame is wanted and pandas is not installed.
        """
        if not self.record:
            raise NoHitsError(
                f"`{type(self).__name__}` has recorded nothing yet: pass it in `cbs` of `fit` or `predict`"
            )
        record = torch.cat(self.record)
        if not as_df:
            return record
        flat = record.reshape(-1, 3)
        return _data_frame(flat, self._layer(record))

    def _layer(self, record: Tensor) -> Tensor:
        """Number of the passive layer of each point, 0 the highest."""
        volume = self._wrapper.volume
        _, high = volume.passive_box
        layer = ((high[2] - record[:, 2]) / volume.passive_size).floor().long()
        return layer.clamp(0, len(volume.get_passives()) - 1)


class HitRecord(ScatterRecord):
    """Records the hits of the muons whose scattering could be inferred.

    All volumes go into one record, so use it on a single layout. Memory grows with the number of muons.
    """

    def on_scatter_end(self) -> None:
        """Record the hits of a batch of muons."""
        batch = self._fit.sb
        assert batch is not None
        self.record.append(batch.reco_hits.detach().cpu().clone())

    def _layer(self, record: Tensor) -> Tensor:
        """Number of the panel of each hit, counted from the top."""
        n_muons, n_hits = record.shape[:2]
        order = record[0, :, 2].argsort(descending=True).argsort()
        return order.expand(n_muons, n_hits).reshape(-1)


def _data_frame(points: Tensor, layer: Tensor) -> Any:
    """Points and layers as a pandas data frame."""
    try:
        pandas: Any = importlib.import_module("pandas")
    except ImportError as error:
        raise NotSupportedError("a record as a data frame needs pandas: pip install pandas") from error
    columns: dict[str, Any] = {name: points[:, k].numpy() for k, name in enumerate("xyz")}
    return pandas.DataFrame({**columns, "layer": layer.numpy()})
