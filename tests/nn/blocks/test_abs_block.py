"""What all blocks share: freezing, counting, indexing."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.nn.models.blocks.abs_block import AbsBlock, check_count
from diffdet.nn.models.blocks.body import FullyConnected


class Base(AbsBlock):
    """A block with one layer."""

    def __init__(self, n, freeze=False):
        super().__init__(freeze=freeze)
        self.layers = nn.ModuleList([nn.Linear(n, n)])

    def forward(self, x):
        return self.layers[0](x)

    def get_out_size(self):
        return 1


class Derived(Base):
    """Makes a layer after the constructor of its base has returned."""

    def __init__(self, n, freeze=False, *, extra=2):
        super().__init__(n, freeze)
        self.later = nn.Linear(extra, extra)
        self.bare = nn.Parameter(torch.zeros(3))


class Same(Derived):
    """Has no constructor of its own."""


class Mixin:
    """Knows nothing of blocks, and makes a layer last."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mixed = nn.Linear(2, 2)


class Mixed(Mixin, Base):
    """A block whose outermost constructor is not that of a block."""


class Holder(AbsBlock):
    """A block of blocks."""

    def __init__(self, freeze=False):
        super().__init__(freeze=freeze)
        self.inner = Derived(2)

    def forward(self, x):
        return x

    def get_out_size(self):
        return 2


@pytest.mark.parametrize("block", [Base, Derived, Same, Mixed])
def test_freezing_freezes_everything_whoever_made_it(block):
    assert not any(p.requires_grad for p in block(2, freeze=True).parameters())
    assert all(p.requires_grad for p in block(2).parameters())


def test_freezing_reaches_into_blocks_within():
    assert not any(p.requires_grad for p in Holder(freeze=True).parameters())
    assert all(p.requires_grad for p in Holder().parameters())


def test_signatures_are_those_of_the_constructors():
    assert list(inspect.signature(Derived).parameters) == ["n", "freeze", "extra"]
    assert inspect.signature(FullyConnected).parameters["growth_rate"].default == 0
    assert Derived.__init__.__name__ == "__init__"


def test_a_block_may_freeze_itself_and_be_thawed():
    block = Derived(2, freeze=True)
    block.unfreeze_layers()
    assert all(p.requires_grad for p in block.parameters())
    block.freeze_layers()
    assert not any(p.requires_grad for p in block.parameters())


def test_parameters_are_counted_trainable_or_all():
    block = Derived(2)
    assert block.get_param_count() == block.get_param_count(trainable=False) == 6 + 6 + 3
    block.later.requires_grad_(False)
    assert block.get_param_count() == 9
    assert Derived(2, freeze=True).get_param_count() == 0
    assert Derived(2, freeze=True).get_param_count(trainable=False) == 15


def test_batch_norms_of_frozen_blocks_still_follow_the_data():
    body = FullyConnected(3, {}, 2, 4, bn=True, freeze=True)
    body(torch.randn(8, 3) + 5)
    assert bool((body[0][2].running_mean != 0).any())


def test_index_gives_a_layer():
    block = Base(2)
    assert block[0] is block.layers[0]
    with pytest.raises(IndexError):
        block[1]


def test_failing_constructors_raise_what_they_raise():
    with pytest.raises(TypeError, match="'m'"):
        Derived(m=2)


def test_a_block_needs_its_methods():
    with pytest.raises(TypeError, match="get_out_size"):
        type("Half", (AbsBlock,), {"forward": lambda self, x: x})()


@pytest.mark.parametrize("value", [0, -3, 1.5, "2", None, True, float("nan")])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(InputError, match="`width` must be a whole number of at least 1; got"):
        check_count("width", value)


def test_whole_numbers_of_other_types_are_counts():
    assert check_count("width", torch.tensor(3)) == 3
    assert check_count("width", 0, low=0) == 0
