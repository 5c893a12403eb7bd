"""A fast painter of `ieagan`: spectral norms are constants, and the norms of a sensor's condition go into weights."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffdet.kernels import convolutions
from diffdet.overlay.inference.painter import Painter, add_doubled, positive_phases
from diffdet.overlay.networks.iea import BottleneckBlock, IeaGenerator
from diffdet.overlay.networks.layers import ConditionalBatchNorm2d, PlainBatchNorm2d, SNConv2d, SNLinear

__all__ = ["IeaPainter"]

_STRETCH: Final = 16


class IeaPainter(Painter):
    """Paints what the `paint` of an `IeaGenerator` paints: latents are its conditions, 256 numbers an image.

    Images pass one at a time: then the norms that an image's condition steers go into the convolutions before them,
    at the price of scaling a few small kernels.

    Args:
        model: Whose images to paint; its weights are read, not kept.
        precision: A name of `PRECISIONS`.
        images: How many images share the first layer's passes; the rest takes them one at a time.
    """

    def __init__(self, model: IeaGenerator, *, precision: str = "float32", images: int | None = None) -> None:
        super().__init__(precision=precision, images=images)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            first, first_bias = _constant(model.linear)
            n_start = first.shape[0] // (4 * 12)
            self.keep("first_weight", first.view(n_start, 4 * 12, -1).transpose(0, 1).flatten(0, 1))
            self.keep("first_bias", first_bias.view(n_start, 4 * 12).T.flatten())
            gains, shifts, offsets = [], [], []
            self._blocks: list[tuple[bool, int]] = []
            for k, stage in enumerate(model.blocks):
                assert isinstance(stage, nn.ModuleList)
                block = stage[0]
                assert isinstance(block, BottleneckBlock)
                self._blocks.append((block.upsample, block.n_out))
                for j in range(1, 5):
                    layer, norm = getattr(block, f"conv{j}"), getattr(block, f"bn{j}")
                    assert isinstance(layer, SNConv2d)
                    assert isinstance(norm, ConditionalBatchNorm2d)
                    weight, bias = _constant(layer)
                    if j == 2 and block.upsample:
                        weight = convolutions.phase_kernels(weight).flatten(0, 1)
                    self.keep(f"weight{k}_{j}", weight)
                    self.keep(f"bias{k}_{j}", bias)
                    scale, shift = convolutions.norm_as_line(norm.stored_mean, norm.stored_var, 1.0, 0.0, eps=norm.eps)
                    # norm(x) (1 + g) + b with norm(x) = s x + t is (s + s g) x + (t + t g + b).
                    gain, lift = norm.gain.normalised_weight(), norm.bias.normalised_weight()
                    gains.append(scale[:, None] * gain)
                    shifts.append(shift[:, None] * gain + lift)
                    offsets.append(torch.stack([scale, shift]))
            self._sizes = [offset.shape[1] for offset in offsets]
            self.keep("scale_weight", torch.cat(gains))
            self.keep("shift_weight", torch.cat(shifts))
            scale, shift = torch.cat(offsets, dim=1)
            self.keep("scale_offset", scale)
            self.keep("shift_offset", shift)
            norm, last = model.output_layer[0], model.output_layer[2]
            assert isinstance(norm, PlainBatchNorm2d)
            assert isinstance(last, SNConv2d)
            scale, shift = convolutions.norm_as_line(
                norm.stored_mean, norm.stored_var, norm.gain, norm.bias, eps=norm.eps
            )
            self.keep("last_scale", scale)
            self.keep("last_shift", shift)
            self.keep_last(*_constant(last), n=_STRETCH)
        model.train(was_training)

    def begin(self, latent: Tensor) -> Tensor:
        """The linear layer and what the condition steers: all in one row of numbers an image."""
        start = functional.linear(latent, self.get_buffer("first_weight"), self.get_buffer("first_bias"))
        scale = functional.linear(latent, self.get_buffer("scale_weight"), self.get_buffer("scale_offset"))
        shift = functional.linear(latent, self.get_buffer("shift_weight"), self.get_buffer("shift_offset"))
        return torch.cat([start, scale, shift], dim=1)

    def finish(self, start: Tensor) -> Tensor:
        """The blocks and the last convolution, image by image."""
        return torch.cat([self._image(row) for row in start.split(1)])

    def _image(self, row: Tensor) -> Tensor:
        n_lines = sum(self._sizes)
        first, scales, shifts = row[0].split([row.shape[1] - 2 * n_lines, n_lines, n_lines])
        lines = list(zip(scales.split(self._sizes), shifts.split(self._sizes), strict=True))
        x = first.view(1, 4, 12, -1).permute(0, 3, 1, 2)
        for k in range(len(self._blocks)):
            x = self._block(x, k, lines[4 * k : 4 * k + 4])
        # Two of the three rows beyond the sensor are not needed; the third is, by the last convolution.
        x = _positive_line(x[:, :, 2:-2], self.get_buffer("last_scale"), self.get_buffer("last_shift"))
        return self.last(x).permute(0, 2, 3, 1).flatten(2)

    def _block(self, x: Tensor, k: int, lines: list[tuple[Tensor, Tensor]]) -> Tensor:
        upsample, n_out = self._blocks[k]
        h = _positive_line(x, *lines[0])
        h = functional.conv2d(h, *self._scaled(k, 1, lines[1])).relu_()
        x = x[:, :n_out]
        if upsample:
            h = self._doubled(h, k, lines[2])
        else:
            h = functional.conv2d(h, *self._scaled(k, 2, lines[2]), padding=1).relu_()
        h = functional.conv2d(h, *self._scaled(k, 3, lines[3]), padding=1).relu_()
        h = functional.conv2d(h, self.get_buffer(f"weight{k}_4"), self.get_buffer(f"bias{k}_4"))
        if not upsample:
            return h.add_(x)
        return add_doubled(h, x)

    def _scaled(self, k: int, j: int, line: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Kernel and bias of convolution j of block k with the norm after it."""
        return convolutions.fold_scale(self.get_buffer(f"weight{k}_{j}"), self.get_buffer(f"bias{k}_{j}"), *line)

    def _doubled(self, h: Tensor, k: int, line: tuple[Tensor, Tensor]) -> Tensor:
        """Double the image, convolve it, normalise, and take the positive part."""
        scale, shift = line
        bias = self.get_buffer(f"bias{k}_2")
        weight, biases = convolutions.fold_scale(
            self.get_buffer(f"weight{k}_2"), bias.repeat(4), scale.repeat(4), shift.repeat(4)
        )
        _, _, u, v = h.shape
        return positive_phases(functional.conv2d(h, weight, biases, padding=1), u, v)


def _positive_line(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The positive part of a x + b, channel by channel."""
    return torch.addcmul(shift[None, :, None, None], x, scale[None, :, None, None]).relu_()


def _constant(layer: SNConv2d | SNLinear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer whose spectral norm is a constant."""
    assert layer.bias is not None
    return layer.normalised_weight(), layer.bias
