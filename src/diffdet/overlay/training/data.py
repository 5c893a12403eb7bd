"""Images of sensors for training, made from digits when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from diffdet.core.checks import check_in_range
from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.kernels import pixels
from diffdet.overlay.digits import Digits

__all__ = ["DEQUANTISATION", "SensorImages"]

DEQUANTISATION: Final = 4e-3
"""Width of the uniform noise that is added to logarithms of charges, empty pixels included."""


class SensorImages:
    """What a network learns from: 256 x 768 images from -1 (no charge) to 1.

    Args:
        digits: Events.
        stream: Source of the order and of the noise.
        dequantise: Whether noise is added.

    Raises:
        InputError: If there are no events.
    """

    def __init__(self, digits: Digits, stream: Stream, *, dequantise: bool = False) -> None:
        if not digits.n_events:
            raise InputError("`digits` must hold at least one event; got none")
        self.digits, self.stream, self.dequantise = digits, stream, dequantise
        self._n_sensors = len(digits.layout)
        image = digits.event * self._n_sensors + digits.sensor
        self._starts = torch.searchsorted(image, torch.arange(digits.n_events * self._n_sensors + 1))

    @property
    def n_images(self) -> int:
        """Images that there are."""
        return self.digits.n_events * self._n_sensors

    def images(self, numbers: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images by their numbers, ``event * sensors + sensor``.

        Args:
            numbers: Which.
            generator: Source of the noise; none is added where None.

        Returns:
            ``(image, 1, 256, 768)``.
        """
        layout = self.digits.layout
        length = self._starts[numbers + 1] - self._starts[numbers]
        target = torch.repeat_interleave(length)
        ends = length.cumsum(0)
        rows = torch.arange(len(target)) + (self._starts[numbers] - (ends - length))[target]
        flat = torch.zeros(len(numbers) * layout.n_pixels)
        place = (target * layout.n_u + self.digits.u[rows]) * layout.n_v + self.digits.v[rows]
        flat[place] = self.digits.charge[rows].to(flat.dtype)
        image = pixels.activation_from_charge(flat.reshape(len(numbers), 1, layout.n_u, layout.n_v))
        image = pixels.pad_rows(image, value=-1)
        if generator is not None:
            image = image + 2 * DEQUANTISATION * torch.rand(image.shape, generator=generator)
        return image

    def shuffled(self, epoch: int, batch_size: int, n_batches: int | None = None) -> Iterator[Tensor]:
        """Batches of an epoch, sensors and events mixed.

        Args:
            epoch: Number of the epoch; it decides the order.
            batch_size: Images to a batch.
            n_batches: How many batches; all whole ones where None.
        """
        check_in_range("batch_size", batch_size, 1, self.n_images)
        order = torch.randperm(self.n_images, generator=self.stream.generator("order", epoch))
        whole = self.n_images // batch_size
        for number in range(whole if n_batches is None else min(whole, n_batches)):
            yield self.images(order[number * batch_size : (number + 1) * batch_size], self._noise(epoch, number))

    def events(self, epoch: int, sensors: Tensor, n_events: int | None = None) -> Iterator[Tensor]:
        """Events of an epoch: the images of some sensors, in their order.

        Args:
            epoch: Number of the epoch; it decides the order.
            sensors: Indices of the sensors.
            n_events: How many events; all where None.
        """
        order = torch.randperm(self.digits.n_events, generator=self.stream.generator("events", epoch))
        for number, event in enumerate(order[:n_events].tolist()):
            yield self.images(event * self._n_sensors + sensors, self._noise(epoch, number))

    def _noise(self, epoch: int, number: int) -> torch.Generator | None:
        return self.stream.generator("noise", epoch, number) if self.dequantise else None
