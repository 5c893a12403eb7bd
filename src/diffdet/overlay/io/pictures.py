"""Trees of pictures: a folder for each sensor, a grey picture of 768 x 250 pixels for each event.

``<folder>/<layer.ladder.sensor>/<event>.png``; the same name in all folders is the same event. Columns are cells of v,
rows cells of u; a pixel's value is its charge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from diffdet.core.errors import FileDamagedError, StorageError
from diffdet.core.storage import make_folder, replacing
from diffdet.overlay.digits import Digits
from diffdet.overlay.io.source import BLOCK, EventSource
from diffdet.overlay.sensors import PXD

__all__ = ["PictureSource", "export_pictures"]


class PictureSource(EventSource):
    """Events in a tree of pictures.

    Args:
        path: The folder that holds the folders of the sensors.

    Raises:
        StorageError: If folders of sensors are absent, or sensors differ in their events; the message says how many.
    """

    kind = "tree of pictures"

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        absent = [name for name in PXD.names if not (self.path / name).is_dir()]
        if absent:
            raise StorageError(
                f"`{self.path}` must hold a folder for each of the {len(PXD)} sensors; {len(absent)} are absent: "
                f"{', '.join(absent[:5])}"
            )
        names = {name: {file.stem for file in (self.path / name).glob("*.png")} for name in PXD.names}
        everywhere = set.intersection(*names.values())
        partial = set.union(*names.values()) - everywhere
        if partial:
            raise StorageError(
                f"`{self.path}` must hold a picture of every event for each sensor; {len(partial)} events lack some, "
                f"for example {min(partial)!r}"
            )
        whole = all(stem.isdecimal() for stem in everywhere)
        self._stems = sorted(everywhere, key=int) if whole else sorted(everywhere)
        self._numbers = torch.tensor([int(stem) for stem in self._stems]) if whole else torch.arange(len(everywhere))
        self.metadata = {"source": "pictures: they do not say", "file": self.path.name}

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return len(self._stems)

    def blocks(self, block: int = BLOCK) -> Iterator[Digits]:
        """The events in order; see `EventSource.blocks`. A picture that cannot be read is named."""
        self._new_pass(block)
        for first in range(0, self.n_events, block):
            stop = min(first + block, self.n_events)
            events = [self._event(k) for k in range(first, stop)]
            digits = Digits.concatenate(events)
            self.counts.kept += len(digits)
            yield digits

    def _event(self, k: int) -> Digits:
        image = torch.stack([_read(self.path / name / f"{self._stems[k]}.png") for name in PXD.names])
        return Digits.from_images(image, numbers=self._numbers[k : k + 1])


def _read(path: Path) -> torch.Tensor:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.size != (PXD.n_v, PXD.n_u) or picture.mode != "L":
                width, height = picture.size
                raise FileDamagedError(
                    f"`{path}` must be a grey picture of {PXD.n_v} x {PXD.n_u} pixels of 8 bits; "
                    f"it is {width} x {height} of mode {picture.mode}"
                )
            picture.load()
            return torch.from_numpy(np.asarray(picture).copy())
    except FileDamagedError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FileDamagedError(f"`{path}` is not a whole picture: {error}") from error


def export_pictures(folder: str | Path, blocks: Iterable[Digits]) -> int:
    """Write a tree of pictures.

    Args:
        folder: Where to; made where it does not exist. Pictures of the same name are replaced.
        blocks: The events.

    Returns:
        How many events were written.

    Raises:
        StorageError: If something cannot be written.
    """
    from PIL import Image

    place = make_folder(folder)
    for name in PXD.names:
        make_folder(place / name)
    n_events = 0
    for block in blocks:
        for event in block.events():
            image: Any = event.to_images()[0].cpu().numpy()
            for sensor in PXD:
                with replacing(place / sensor.name / f"{int(event.numbers[0])}.png") as temporary:
                    Image.fromarray(image[sensor.index]).save(temporary, format="PNG")
            n_events += 1
    return n_events
