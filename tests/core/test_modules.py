"""Claims about module helpers, deprecation and the tensor vocabulary."""

from __future__ import annotations

import copy

import pytest
import torch
from jaxtyping import jaxtyped
from torch import nn

from diffdet.core import typing as vocabulary
from diffdet.core.deprecation import deprecated
from diffdet.core.errors import InputError
from diffdet.core.modules import accept_renamed_keys, register_buffer_or_parameter, register_constant


class Box(nn.Module):
    def __init__(self, edge, lw=1.0):
        super().__init__()
        register_buffer_or_parameter(self, "edge", edge)
        register_constant(self, "lw", lw)


def test_the_caller_decides_what_is_learnable():
    assert [n for n, _ in Box(nn.Parameter(torch.ones(2))).named_parameters()] == ["edge"]
    assert [n for n, _ in Box(torch.ones(2)).named_parameters()] == []
    assert list(Box(3.0).state_dict()) == ["edge"]
    assert torch.equal(Box([1.0, 2.0]).edge, torch.tensor([1.0, 2.0]))


def test_buffers_and_constants_follow_the_module():
    box = Box(nn.Parameter(torch.ones(2)), lw=[1.0, 2.0]).double()
    assert box.edge.dtype == box.lw.dtype == torch.float64
    assert list(copy.deepcopy(box).state_dict()) == ["edge"]


def test_no_numbers_are_refused():
    with pytest.raises(InputError, match="`edge` must be a tensor or numbers; got 'wide'"):
        Box("wide")


class Net(nn.Module):
    def __init__(self, *, renamed):
        super().__init__()
        self.f_initial = nn.Linear(2, 3)
        self.f_initial_norm = nn.LayerNorm(3)
        if renamed:
            accept_renamed_keys(self, {"f_inital": "f_initial"})


def test_old_spelling_loads_at_any_depth_and_the_new_one_is_saved():
    outer = nn.Sequential(nn.Identity(), Net(renamed=True))
    old = {key.replace("f_initial.", "f_inital."): value + 1 for key, value in outer.state_dict().items()}
    assert any("f_inital." in key for key in old)
    outer.load_state_dict(old)
    assert torch.equal(outer[1].f_initial.weight, old["1.f_inital.weight"])
    assert not any("inital." in key for key in outer.state_dict())
    outer.load_state_dict(outer.state_dict())


def test_names_that_merely_begin_alike_stay():
    net = Net(renamed=False)
    accept_renamed_keys(net, {"f_init": "g"})
    assert not net.load_state_dict(net.state_dict()).missing_keys


def test_both_spellings_at_once_are_refused():
    net = Net(renamed=True)
    state = net.state_dict()
    state["f_inital.weight"] = state["f_initial.weight"]
    with pytest.raises(InputError, match="one spelling of a key"):
        net.load_state_dict(state)


def test_without_the_hook_old_spelling_fails():
    net = Net(renamed=False)
    old = {key.replace("f_initial.", "f_inital."): value for key, value in net.state_dict().items()}
    with pytest.raises(RuntimeError, match="f_inital"):
        net.load_state_dict(old)


@deprecated("old_add", new="add", since="0.1", until="0.3")
def old_add(a: int, b: int) -> int:
    """Add."""
    return a + b


@deprecated("OldBox", new="Box", since="0.1", until="0.3")
class OldBox:
    def __init__(self, edge: int) -> None:
        self.edge = edge


def test_deprecated_things_work_and_warn():
    with pytest.warns(
        DeprecationWarning, match="`old_add` is deprecated since diffdet 0.1 and will be removed in 0.3; use `add`"
    ) as seen:
        assert old_add(1, b=2) == 3
    assert seen[0].filename == __file__
    assert old_add.__doc__ == "Add."
    with pytest.warns(DeprecationWarning, match="`OldBox`"):
        box = OldBox(3)
    assert box.edge == 3
    assert isinstance(box, OldBox)


def test_vocabulary_names_axes_and_checks_them():
    from beartype import beartype

    @jaxtyped(typechecker=beartype)
    def speed(positions: vocabulary.Positions, directions: vocabulary.Directions) -> vocabulary.PerMuon:
        return (positions * directions).sum(0)

    assert speed(torch.ones(3, 4), torch.ones(3, 4)).shape == (4,)
    with pytest.raises(Exception, match="directions"):
        speed(torch.ones(3, 4), torch.ones(3, 5))


def test_every_name_of_the_vocabulary_is_listed():
    assert all(hasattr(vocabulary, name) for name in vocabulary.__all__)
