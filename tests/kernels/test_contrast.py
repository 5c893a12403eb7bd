"""Correlation of images layer by layer: numpy's, what does not enter, edges, gradients."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from diffdet.kernels.contrast import layer_correlation

F64 = {"dtype": torch.float64}


def cubes(shape=(3, 4, 5), seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(shape, generator=generator, **F64)
    return truth + torch.randn(shape, generator=generator, **F64), truth


def test_one_layer_has_the_ordinary_correlation():
    image, truth = cubes((1, 6, 7))
    expected = np.corrcoef(image.flatten().numpy(), truth.flatten().numpy())[0, 1]
    assert layer_correlation(image, truth).item() == pytest.approx(expected, rel=1e-12)


def test_scale_offset_and_anything_about_whole_layers_do_not_enter():
    image, truth = cubes()
    before = layer_correlation(image, truth)
    depth = torch.tensor([-3.0, 0.5, 8.0], **F64)[:, None, None]
    assert layer_correlation(4 * image + 1 + depth, 0.1 * truth - depth).item() == pytest.approx(before.item())
    assert layer_correlation(truth, truth).item() == pytest.approx(1)
    assert layer_correlation(-truth, truth).item() == pytest.approx(-1)


def test_what_is_the_same_everywhere_correlates_with_nothing_and_has_finite_gradients():
    _, truth = cubes()
    flat = torch.ones_like(truth, requires_grad=True)
    found = layer_correlation(flat, truth)
    found.backward()
    assert found.item() == 0
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())


def test_gradients():
    image, truth = (cube.requires_grad_() for cube in cubes((2, 2, 3)))
    assert gradcheck(layer_correlation, (image, truth))
