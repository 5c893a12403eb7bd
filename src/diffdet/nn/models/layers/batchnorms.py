"""Batch norms: over the last axis, with absent objects left out, and with running statistics while training too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffdet.core.checks import check_in_range, check_positive, check_shape
from diffdet.core.errors import ShapeError
from diffdet.kernels.normalisation import masked_moments, running_moments, running_weight


class LCBatchNorm1d(nn.Module):
    """A batch norm over the last axis of (batch, ..., channels), where torch wants channels second.

    Args:
        bn: The batch norm, made for the number of channels: `nn.BatchNorm1d`, `RunningBatchNorm1d` or one like them.
    """

    def __init__(self, bn: nn.Module) -> None:
        super().__init__()
        self.bn = bn

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise every channel.

        Args:
            x: (batch, ..., channels).
            mask: (batch, ...), true for the rows that statistics of the batch come from; by default all.

        Returns:
            Tensor of the same shape. Rows that are left out are normalised as well.

        Raises:
            ShapeError: If the mask has another shape than x without its last axis.
        """
        if mask is not None and mask.shape != x.shape[:-1]:
            raise ShapeError(f"`mask` must have shape {tuple(x.shape[:-1])}, like `x` without its last axis; "
                             f"got {tuple(mask.shape)}")  # fmt: skip
        if x.ndim == 2 and mask is None:
            return self.bn(x)
        of_batch = self.bn.training or getattr(self.bn, "track_running_stats", True) is False
        if type(self.bn) is nn.BatchNorm1d and (mask is None or not of_batch):
            return self.bn(x.reshape(-1, x.shape[-1])).reshape(x.shape)  # without transposed copies
        if mask is None or not of_batch:
            columns = x.reshape(x.shape[0], -1, x.shape[-1]).transpose(1, 2)
            return self.bn(columns).transpose(1, 2).reshape(x.shape)
        if isinstance(self.bn, RunningBatchNorm):
            columns = x.reshape(x.shape[0], -1, x.shape[-1]).transpose(1, 2)
            return self.bn(columns, mask.reshape(x.shape[0], -1)).transpose(1, 2).reshape(x.shape)
        rows, kept = x.reshape(-1, x.shape[-1]), mask.reshape(-1)
        if type(self.bn) is nn.BatchNorm1d:
            return _masked_batch_norm(self.bn, rows, kept).reshape(x.shape)
        # Any other class: hand it the rows that are there.
        return torch.zeros_like(rows).masked_scatter(kept.unsqueeze(-1), self.bn(rows[kept])).reshape(x.shape)


def _masked_batch_norm(bn: nn.BatchNorm1d, x: Tensor, mask: Tensor) -> Tensor:
    """What a `nn.BatchNorm1d` in training would give for ``x[mask]``, at every row of x (row, channel)."""
    wide = x if bn.weight is None else x.to(bn.weight.dtype)  # half precision cannot count to 3000
    mean, variance, count = masked_moments(wide, mask)
    if bn.track_running_stats and bn.running_mean is not None and bn.running_var is not None:
        with torch.no_grad():
            some = count > 0  # a batch without objects teaches nothing
            if bn.num_batches_tracked is not None:
                bn.num_batches_tracked.add_(some)
            if bn.momentum is not None:
                share = torch.as_tensor(bn.momentum, dtype=count.dtype, device=x.device)
            else:
                assert bn.num_batches_tracked is not None
                share = 1 / bn.num_batches_tracked.clamp_min(1).to(count.dtype)
            share = share * some
            unbiased = variance * count / (count - 1).clamp_min(1)
            bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), share.to(bn.running_mean.dtype))
            bn.running_var.lerp_(unbiased.to(bn.running_var.dtype), share.to(bn.running_var.dtype))
    normal = (wide - mean) * (variance + bn.eps).rsqrt()
    return (normal * bn.weight + bn.bias if bn.affine else normal).to(x.dtype)


class RunningBatchNorm(nn.Module):
    """A batch norm that uses running statistics while training, too, so that small batches are normalised stably.

    Running sums of the numbers, of their squares and of how many there are move towards those of each batch by
    `running_weight`; mean and variance come from them. Gradients go through the share of the present batch. Before
    anything was seen the mean is 0 and the variance 1.

    Source: J. Howard, "Running batch norm", fast.ai course 2019, lesson 10.

    Args:
        nf: Number of channels.
        mom: Share of a batch of two samples, in (0, 1].
        n_warmup: While fewer samples were seen than this, variances below 0.01 are taken as 0.01.
        eps: Added to the variance.
        affine: Whether to scale and shift channels by learnable `weight` and `bias`.

    Attributes:
        sums, sqrs: (nf,), running sums.
        count: Running number of numbers a channel.
        batch: Number of samples seen.

    Raises:
        InputError: If `nf` or `eps` is not positive, or `mom` outside (0, 1].
    """

    axes: tuple[int, ...]

    def __init__(
        self, nf: int, mom: float = 0.1, n_warmup: int = 20, eps: float = 1e-5, affine: bool = True
    ) -> None:  # fmt: skip
        super().__init__()
        check_positive("nf", nf)
        check_in_range("mom", mom, 0, 1, low_open=True)
        check_positive("eps", eps)
        self.nf, self.mom, self.n_warmup, self.eps, self.affine = nf, mom, n_warmup, eps, affine
        self.weight = nn.Parameter(torch.ones(nf)) if affine else None
        self.bias = nn.Parameter(torch.zeros(nf)) if affine else None
        self.sums: Tensor
        self.sqrs: Tensor
        self.batch: Tensor
        self.count: Tensor
        self.register_buffer("sums", torch.zeros(nf))
        self.register_buffer("sqrs", torch.zeros(nf))
        self.register_buffer("batch", torch.tensor(0))
        self.register_buffer("count", torch.tensor(0.0))

    def _update(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Running sums after a batch x (batch, channel, position), with the graph of the batch's own share."""
        if mask is None:
            counted = x
            number = torch.as_tensor(x.shape[0] * x.shape[2], dtype=self.count.dtype, device=x.device)
        else:
            counted = x.masked_fill(~mask.unsqueeze(1), 0)
            number = mask.sum().to(self.count.dtype)
        share = running_weight(self.mom, x.shape[0], self.eps)
        sums = torch.lerp(self.sums, counted.sum((0, 2)), share)
        sqrs = torch.lerp(self.sqrs, counted.square().sum((0, 2)), share)
        count = torch.lerp(self.count, number, share)
        with torch.no_grad():
            self.sums.copy_(sums)
            self.sqrs.copy_(sqrs)
            self.count.copy_(count)
            self.batch.add_(x.shape[0])
        return sums, sqrs, count

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise every channel.

        Args:
            x: (batch, channel, *positions), as many axes of positions as the name of the class says; for
                `RunningBatchNorm1d` also (batch, channel).
            mask: (batch, *positions), true for what the running sums learn from; by default all.

        Returns:
            Tensor of the same shape.

        Raises:
            ShapeError: If x has another number of axes or channels.
        """
        if x.ndim not in self.axes or x.shape[1] != self.nf:
            numbers = " or ".join(map(str, self.axes))
            raise ShapeError(f"`x` must be (batch, {self.nf} channels, ...) with {numbers} axes; got {tuple(x.shape)}")
        flat = x.reshape(x.shape[0], self.nf, -1).to(self.sums.dtype)  # sums of squares do not fit in half precision
        if mask is not None:
            check_shape("mask", mask, " ".join(str(n) for n in (x.shape[0], *x.shape[2:])))
            mask = mask.reshape(x.shape[0], -1)
        sums, sqrs, count = self._update(flat, mask) if self.training else (self.sums, self.sqrs, self.count)
        mean, variance = running_moments(sums, sqrs, count)
        variance = torch.where(self.batch < self.n_warmup, variance.clamp_min(0.01), variance)
        factor = (variance + self.eps).rsqrt()
        if self.weight is not None:
            factor = factor * self.weight
        shift = -mean * factor
        if self.bias is not None:
            shift = shift + self.bias
        return torch.addcmul(shift.unsqueeze(-1), flat, factor.unsqueeze(-1)).reshape(x.shape).to(x.dtype)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{self.nf}, mom={self.mom}, n_warmup={self.n_warmup}, eps={self.eps}, affine={self.affine}"


class RunningBatchNorm1d(RunningBatchNorm):
    """`RunningBatchNorm` of (batch, channel) or (batch, channel, position)."""

    axes = (2, 3)


class RunningBatchNorm2d(RunningBatchNorm):
    """`RunningBatchNorm` of (batch, channel, row, column)."""

    axes = (4,)


class RunningBatchNorm3d(RunningBatchNorm):
    """`RunningBatchNorm` of (batch, channel, depth, row, column)."""

    axes = (5,)
