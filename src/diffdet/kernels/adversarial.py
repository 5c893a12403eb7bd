"""Losses of networks that train against each other, and of the embeddings of an event's images.

Scores, embeddings and weights come in, numbers go out; who is held fixed while the other learns is the caller's matter.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "contrastive_2c",
    "gradient_penalty",
    "hinge_critic",
    "hinge_generator",
    "intra_event",
    "off_diagonal_gradient",
    "uniformity",
    "wasserstein_critic",
]


def wasserstein_critic(real: Float[Tensor, " image"], fake: Float[Tensor, " image"]) -> Float[Tensor, ""]:
    """What a critic minimises: mean D(fake) - mean D(real); minus the distance that it sees.

    Reference: I. Gulrajani et al., "Improved training of Wasserstein GANs", arXiv:1704.00028.
    """
    return fake.mean() - real.mean()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Float[Tensor, "image *shape"],
    fake: Float[Tensor, "image *shape"],
    mixing: Float[Tensor, " image"],
) -> Float[Tensor, ""]:
    """Mean of (|grad D| - 1)^2 at points between real and fake images; two-sided.

    Differentiable in: the parameters of the critic.

    Args:
        critic: D, from images to scores.
        real: Real images.
        fake: As many generated ones.
        mixing: Share of the real image at every point, uniform in [0, 1).

    Reference: arXiv:1704.00028, equation 3.
    """
    share = mixing.reshape(-1, *[1] * (real.ndim - 1))
    points = (share * real + (1 - share) * fake).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    # the length of a gradient of exactly zero has no slope itself; a tiny floor gives it one of zero
    length = (slope.flatten(1).square().sum(1) + torch.finfo(slope.dtype).tiny).sqrt()
    return (length - 1).square().mean()


def hinge_critic(real: Float[Tensor, " image"], fake: Float[Tensor, " image"]) -> Float[Tensor, ""]:
    """Mean relu(1 - D(real)) + mean relu(1 + D(fake)).

    Reference: J. H. Lim and J. C. Ye, "Geometric GAN", arXiv:1705.02894.
    """
    return torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()


def hinge_generator(fake: Float[Tensor, " image"]) -> Float[Tensor, ""]:
    """What a generator minimises: -mean D(fake)."""
    return -fake.mean()


def contrastive_2c(
    embedding: Float[Tensor, "image feature"], proxy: Float[Tensor, "image feature"], temperature: float = 1.0
) -> Float[Tensor, ""]:
    """Pull every image towards the proxy of its class and away from the other images of the event.

    With s_i = exp(cos(e_i, p_i) / t) and r_ij = exp(cos(e_i, e_j) / t): mean of -log(s_i / (s_i + sum_{j != i} r_ij)).
    Every class occurs once in an event, so there are no positive pairs.

    Args:
        embedding: Of the images of an event, of length 1.
        proxy: Of their classes, of length 1.
        temperature: t.

    Reference: M. Kang and J. Park, "ContraGAN", arXiv:2006.12681.
    """
    own = (embedding * proxy).sum(1, keepdim=True) / temperature
    others = embedding @ embedding.T / temperature
    others = others.masked_fill(torch.eye(len(others), dtype=torch.bool, device=others.device), -torch.inf)
    return (torch.logsumexp(torch.cat((own, others), dim=1), dim=1) - own[:, 0]).mean()


def uniformity(embedding: Float[Tensor, "image feature"]) -> Float[Tensor, ""]:
    """Log of the mean of exp(-2 |e_i - e_j|^2) over pairs: least where embeddings spread evenly over the sphere.

    Reference: T. Wang and P. Isola, arXiv:2005.10242.
    """
    n = len(embedding)
    row, column = torch.triu_indices(n, n, 1, device=embedding.device)
    squares = (embedding[row] - embedding[column]).square().sum(1)
    return torch.logsumexp(-2 * squares, dim=0) - torch.log(torch.as_tensor(len(row), dtype=embedding.dtype))


def intra_event(real: Float[Tensor, "image feature"], fake: Float[Tensor, "image feature"]) -> Float[Tensor, ""]:
    """How far the relations between an event's images are from those of a real event.

    Rows of the Gram matrices become distributions by a softmax; the Kullback-Leibler divergence from real to fake is
    averaged over rows. No gradient reaches the real event.

    Reference: H. Hashemi et al., "Ultra-high-granularity detector simulation with intra-event aware generative
    adversarial network and self-supervised relational reasoning", arXiv:2303.08046.
    """
    wanted = torch.log_softmax(real @ real.T, dim=1).detach()
    found = torch.log_softmax(fake @ fake.T, dim=1)
    return (wanted.exp() * (wanted - found)).sum(1).mean()


def off_diagonal_gradient(weight: Float[Tensor, "out *rest"]) -> Float[Tensor, "out *rest"]:
    """Gradient 2 (W W^T without its diagonal) W of the penalty that makes rows of a weight orthogonal, whatever length.

    Reference: A. Brock et al., "Large scale GAN training", arXiv:1809.11096, equation 3 and appendix C.
    """
    # W (W^T W) in place of (W W^T) W: there may be tens of thousands of rows
    rows = weight.reshape(len(weight), -1)
    return (2 * (rows @ (rows.T @ rows) - rows.square().sum(1, keepdim=True) * rows)).reshape(weight.shape)
