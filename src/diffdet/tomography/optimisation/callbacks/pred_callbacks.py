"""Callbacks that collect predictions."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffdet.core import storage
from diffdet.core.errors import InputError, StorageError
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.utils import x0targs_to_classtargs

if TYPE_CHECKING:
    import h5py

__all__ = ["PredHandler", "Save2HDF5PredHandler", "VolumeTargetPredHandler"]


class PredHandler(Callback):
    """Collects predictions and the true X0 of all voxels, volume by volume.

    Where a volume has no prediction, because none of its muons could be used, NaN with the shape of the target stands
    in its place, so that predictions and volumes stay aligned.
    """

    transient = ("preds",)

    def __init__(self) -> None:
        self.preds: list[tuple[np.ndarray, np.ndarray]] = []

    def on_pred_begin(self) -> None:
        """Forget earlier predictions."""
        super().on_pred_begin()
        self.preds = []

    def on_x0_pred_end(self) -> None:
        """Note the prediction and the target of a volume."""
        if self._fit.state == "test":
            self.preds.append(self._pair())

    def get_preds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Predictions and targets, in the order of the volumes."""
        return self.preds

    def _target(self) -> np.ndarray:
        """What is true of the volume that is loaded: ``(z, x, y)`` X0, m."""
        return _array(self._wrapper.volume.get_rad_cube())

    def _pair(self) -> tuple[np.ndarray, np.ndarray]:
        target, pred = self._target(), self._fit.pred
        return np.full(target.shape, np.nan, np.float32) if pred is None else _array(pred), target


class VolumeTargetPredHandler(PredHandler):
    """Collects predictions and the targets of the volumes instead of their X0.

    Args:
        x02id: Class by X0 [m], where the target is an X0 that is to be told as a class.

    Raises:
        InputError: While predicting, if a volume has no target.
    """

    def __init__(self, x02id: Mapping[float, int] | None = None) -> None:
        super().__init__()
        self.x02id = None if x02id is None else dict(x02id)

    def on_x0_pred_end(self) -> None:
        """Note the prediction and the target of a volume."""
        super().on_x0_pred_end()

    def _target(self) -> np.ndarray:
        target = self._wrapper.volume.target
        if target is None:
            raise InputError(
                f"`{type(self).__name__}` needs volumes with a target; volume {self._fit.volume_id} has none: pass "
                "(layout, target) in the passives, or use `PredHandler`"
            )
        return self._classes(_array(target))

    def _classes(self, x0: np.ndarray) -> np.ndarray:
        return x0 if self.x02id is None else np.asarray(x0targs_to_classtargs(x0, x02id=self.x02id))


class Save2HDF5PredHandler(VolumeTargetPredHandler):
    """Saves predictions and targets to an HDF5 file instead of keeping them.

    The file has the datasets ``preds`` and ``targs``, float32, one row per volume. It is put together in memory, so
    memory must hold the (compressed) file, and written whole beside the old one, which it then replaces: whenever a
    prediction is killed, the file opens and holds the rows that were there before and all rows written since.

    It is written after every volume, unless that would take more than a tenth of the time; then the next volumes go
    with a later one. What a kill can lose is so at most the work of ten times as long as writing takes. At the end, and
    after an error in a later volume, all rows are written.

    Args:
        path: The file.
        use_volume_target: Whether ``targs`` are the volumes' targets; otherwise the X0 of all voxels.
        overwrite: Whether to begin anew; otherwise rows are added to a file that exists.
        x02id: Class by X0 [m], for targets that are to be told as classes.
        compression: Of both datasets, as h5py names it; None for none.

    Raises:
        InputError: If a file to add to holds something else, or rows of another shape.
        StorageError: If it cannot be read or written.
    """

    transient = ("_memory", "_file", "_saved_at", "_took", "_unsaved")

    _SHARE = 0.1
    """Most of the time that may go into writing before the end."""

    def __init__(
        self,
        path: Path,
        use_volume_target: bool,
        overwrite: bool = False,
        x02id: Mapping[float, int] | None = None,
        compression: str | None = "lzf",
    ) -> None:
        super().__init__(x02id)
        self.path = Path(path)
        self.use_volume_target = use_volume_target
        self.overwrite = overwrite
        self.compression = compression
        self._memory = io.BytesIO()
        self._file: h5py.File | None = None
        self._saved_at, self._took, self._unsaved = 0.0, 0.0, False

    def on_pred_begin(self) -> None:
        """Begin the file, with the rows that it has, if they are to be kept."""
        import h5py

        super().on_pred_begin()
        old = b""
        if self.path.exists() and not self.overwrite:
            try:
                old = self.path.read_bytes()
            except OSError as error:
                raise StorageError(f"cannot read `{self.path}` to add to it: {error.strerror or error}") from error
        self._memory = io.BytesIO(old)
        try:
            self._file = h5py.File(self._memory, "r+" if old else "w")
        except OSError as error:
            raise InputError(f"`path` must name an HDF5 file, or none; got `{self.path}`: {error}") from error
        self._saved_at, self._took, self._unsaved = time.monotonic(), 0.0, False

    def on_x0_pred_end(self) -> None:
        """Add the row of a volume, and write the file if that is cheap."""
        if self._fit.state == "test":
            pred, target = self._pair()
            for name, row in (("preds", pred), ("targs", target)):
                self._check(name, row)
            self._add("preds", pred)
            self._add("targs", target)
            self._unsaved = True
            if self._took <= self._SHARE * (time.monotonic() - self._saved_at):
                self._save()

    def on_pred_end(self) -> None:
        """Write the file."""
        self._unsaved = True  # without a single volume, too, there is a file at the end
        self.release()

    def release(self) -> None:
        """Write what has not been written, and close the file in memory."""
        if self._file is not None:
            try:
                if self._unsaved:
                    self._save()
            finally:
                self._file.close()
                self._file, self._memory = None, io.BytesIO()

    def _save(self) -> None:
        """Write the file as it is now."""
        file: Any = self._file
        began = time.monotonic()
        file.flush()
        storage.write_bytes(self.path, self._memory.getvalue())
        self._saved_at, self._unsaved = time.monotonic(), False
        self._took = self._saved_at - began

    def get_preds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Nothing: predictions are in the file."""
        return []

    def _target(self) -> np.ndarray:
        if self.use_volume_target:
            return super()._target()
        return self._classes(PredHandler._target(self))

    def _check(self, name: str, row: np.ndarray) -> None:
        """Refuse a row of another shape than the dataset's before anything is added."""
        file: Any = self._file
        if name in file and file[name].shape[1:] != np.shape(row):
            raise InputError(
                f"`{self.path}` holds {name} of shape {file[name].shape[1:]}; got one of shape {np.shape(row)}"
            )

    def _add(self, name: str, row: np.ndarray) -> None:
        """Add a row to a dataset, which is created with the first."""
        file: Any = self._file
        row = np.asarray(row, dtype=np.float32)
        if name not in file:
            file.create_dataset(
                name,
                (0, *row.shape),
                np.float32,
                maxshape=(None, *row.shape),
                chunks=True,
                compression=self.compression,
            )
        dataset = file[name]
        dataset.resize(dataset.shape[0] + 1, axis=0)
        dataset[-1] = row


def _array(tensor: Tensor) -> np.ndarray:
    """A copy as an array."""
    with torch.no_grad():
        return tensor.detach().cpu().clone().numpy()
