"""What the painters share: types, chunks of images, from the last convolution to charges."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffdet.core.checks import check_choice
from diffdet.core.errors import InputError
from diffdet.kernels import convolutions, pixels

__all__ = [
    "PRECISIONS",
    "Painter",
    "add_doubled",
    "bias_of",
    "folded",
    "line_of_norm",
    "packed_phases",
    "positive_phases",
]

PRECISIONS: Final = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.bfloat16}
"""Types that painters compute in, by name."""

_GPU_IMAGES: Final = 40
# Below this the charge is 0 whatever the rounding: q >= 0.5 needs (x + 1) / 2 >= ln 1.5 / ln 256, with a margin.
_FAINT: Final = math.atanh(2 * math.log(1.5) / math.log(256) - 1) - 1e-3
_FEW: Final = 0.2


class Painter(nn.Module):
    """Paints sensor images in a form made for speed.

    Args:
        precision: A name of `PRECISIONS`.
        images: How many images pass at a time; chosen by the device when None.

    Raises:
        InputError: If an argument is out of range.
    """

    cpu_images: ClassVar[int] = 1
    """Images that pass at a time on a processor: more share the reading of weights, fewer stay in its cache."""

    def __init__(self, *, precision: str, images: int | None) -> None:
        super().__init__()
        check_choice("precision", precision, PRECISIONS)
        if images is not None and images < 1:
            raise InputError(f"`images` must be at least 1; got {images}")
        self.precision = precision
        self.dtype = PRECISIONS[precision]
        self.images = images

    def keep(self, name: str, tensor: Tensor) -> None:
        """Hold a tensor in the painter's type, kernels of convolutions with channels last, and no graph."""
        held = tensor.detach().to(self.dtype, copy=True)
        if held.ndim == 4:
            held = held.contiguous(memory_format=torch.channels_last)
        self.register_buffer(name, held, persistent=False)

    def keep_last(self, weight: Tensor, bias: Tensor, n: int) -> None:
        """Hold the last convolution, stretched over n pixels of a row; see `convolutions.stretched_kernels`."""
        self.n_stretched = n
        self.keep("last_weight", convolutions.stretched_kernels(weight, n).transpose(0, 1).flatten(0, 1))
        self.keep("last_bias", bias.repeat_interleave(n))

    def last(self, x: Tensor) -> Tensor:
        """The last convolution, without zeros above and below: ``(image, stretched channel, u - 2, v / n)``."""
        return functional.conv2d(
            x,
            self.get_buffer("last_weight"),
            self.get_buffer("last_bias"),
            stride=(1, self.n_stretched),
            padding=(0, 1),
        )

    @property
    def device(self) -> torch.device:
        """Where the painter computes."""
        return next(self.buffers()).device

    @abstractmethod
    def begin(self, latent: Tensor) -> Tensor:
        """The first, linear layers, of all images at once: their weights are large and the images still small."""

    @abstractmethod
    def finish(self, start: Tensor) -> Tensor:
        """The rest, of a few images: what `begin` returned for them to ``(image, 250, 768)``, before the last tanh."""

    @torch.inference_mode()
    def activations(self, latent: Tensor) -> Tensor:
        """Painted images.

        Args:
            latent: ``(image, number)``.

        Returns:
            ``(image, 250, 768)`` from -1 to 1, of the type of the latent: rows that a sensor has, no others.
        """
        return torch.cat(self._each(lambda chunk: self.finish(chunk).to(latent.dtype).tanh(), self._chunks(latent)))

    @torch.inference_mode()
    def charges(
        self, latent: Tensor, *, rounding: str = "basf2", threshold: int | None = None, cut: float | None = None
    ) -> Tensor:
        """Images of charge.

        Args:
            latent: ``(image, number)``.
            rounding: As in `pixels.charge_from_activation`, like the next two.
            threshold: Smallest charge, ADU.
            cut: Activations up to this one are empty.

        Returns:
            ``(image, 250, 768)`` ADU, uint8.
        """
        kind = torch.promote_types(latent.dtype, torch.float32)

        def charges(chunk: Tensor) -> Tensor:
            return _charge(self.finish(chunk).to(kind), rounding, threshold, cut)

        return torch.cat(self._each(charges, self._chunks(latent)))

    def _each(self, function: Callable[[Tensor], Tensor], chunks: Sequence[Tensor]) -> list[Tensor]:
        """Results of all chunks, in order. On a processor each of torch's threads takes chunks of its own.

        Threads inside operations would wait for each other at the end of every one, and the operations are small. So
        results do not depend on the number of threads, either.
        """
        n_threads = torch.get_num_threads()
        workers = min(n_threads, len(chunks)) if self.device.type == "cpu" else 1
        if workers < 2:
            return [function(chunk) for chunk in chunks]

        def quietly(chunk: Tensor) -> Tensor:
            with torch.inference_mode():
                return function(chunk)

        try:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(quietly, chunks))
        finally:
            torch.set_num_threads(n_threads)

    def _chunks(self, latent: Tensor) -> tuple[Tensor, ...]:
        size = self.images or (self.cpu_images if self.device.type == "cpu" else _GPU_IMAGES)
        return self.begin(latent.to(self.device, self.dtype)).split(size)


def _charge(raw: Tensor, rounding: str, threshold: int | None, cut: float | None) -> Tensor:
    """Charges of what the last convolution painted. Where few pixels are lit, only those are computed."""
    bright = raw > _FAINT
    if raw.device.type != "cpu" or int(bright.sum()) > _FEW * raw.numel():
        return pixels.charge_from_activation(raw.tanh(), rounding=rounding, threshold=threshold, cut=cut)
    image = torch.zeros(raw.shape, dtype=torch.uint8)
    place, _ = pixels.lit_pixels(bright.contiguous().view(torch.uint8))
    lit = raw.reshape(-1)[place].tanh()
    image.view(-1)[place] = pixels.charge_from_activation(lit, rounding=rounding, threshold=threshold, cut=cut)
    return image


def line_of_norm(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return convolutions.norm_as_line(norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def bias_of(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The bias of a layer that has one."""
    assert layer.bias is not None
    return layer.bias


def folded(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the norm that follows it."""
    return convolutions.fold_scale(layer.weight, bias_of(layer), *line_of_norm(norm))


def packed_phases(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Kernels of the four phases, one after the other along the output channels, and the bias of each."""
    return convolutions.phase_kernels(weight).flatten(0, 1), bias.repeat(4)


def positive_phases(phases: Tensor, height: int, width: int) -> Tensor:
    """The positive part of the four phases of a kernel of 3, put together to an image twice as large.

    Args:
        phases: ``(image, 4 channels, height + 1, width + 1)``, channels last in memory.
        height: Of the small image.
        width: Of the small image.

    Returns:
        ``(image, channels, 2 height, 2 width)``, channels last in memory.
    """
    n, c = phases.shape[0], phases.shape[1] // 4
    large = phases.new_empty((n, 2 * height, 2 * width, c)).permute(0, 3, 1, 2)
    for a in (0, 1):
        for b in (0, 1):
            # Phase (a, b) sees pixels i - 1 + a and i + a: it starts a rows and b columns further in.
            k = 2 * a + b
            part = phases[:, k * c : (k + 1) * c, a : a + height, b : b + width]
            torch.clamp_min(part, 0, out=large[:, :, a::2, b::2])
    return large


def add_doubled(large: Tensor, small: Tensor) -> Tensor:
    """Add a small image to one twice as large, each pixel to four, in place; both with channels last in memory."""
    return large.add_(functional.interpolate(small, scale_factor=2.0, mode="nearest"))
