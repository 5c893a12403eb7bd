"""From flat columns to a matrix: scrambled, missing and misspelt columns, and three ways to hand objects over."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.nn.models.blocks.head import AbsMatrixHead
from nn.some_heads import FEATS, MATRIX_HEADS, VECS, columns, events, in_layout, matrix_head, taught


class Matrix(AbsMatrixHead):
    """Gives the matrix itself."""

    def __init__(self, *args, **kargs):
        super().__init__(*args, **kargs)
        self._map_outputs()

    def get_out_size(self):
        return self.n_v * self.n_fpv

    def forward(self, x, mask=None):
        return self.get_matrix(x, mask)


@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_flat_matrix_and_tuple_input_agree(name):
    head, objects = taught(matrix_head(name)), events(4)
    wanted = head(objects.flatten(1))
    torch.testing.assert_close(head(in_layout(head, objects)), wanted)
    torch.testing.assert_close(head((torch.zeros(4, 2), in_layout(head, objects))), wanted)
    torch.testing.assert_close(head((torch.zeros(4, 2), objects.flatten(1))), wanted)


@pytest.mark.parametrize("row_wise", [True, False])
def test_columns_may_come_in_any_order_and_with_others_between(row_wise):
    names, objects = columns(), events(3)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    flat = objects.flatten(1)[:, order]
    head = Matrix(["met", *(names[k] for k in order), "ht"], VECS, FEATS, row_wise=row_wise)
    found = head(torch.cat([torch.ones(3, 1), flat, torch.ones(3, 1)], 1))
    assert torch.equal(found, objects if row_wise else objects.transpose(1, 2))
    assert head.get_out_size() == 20
    assert head.feat_map["a_px"] == list(range(20))


@pytest.mark.parametrize("row_wise", [True, False])
def test_cells_without_a_column_are_zero_however_objects_are_handed_over(row_wise):
    names = [name for name in columns() if name not in ("b_pz", "d_E")]
    head = Matrix(names, VECS, FEATS, row_wise=row_wise)
    objects = events(3)
    objects[:, 1, 2], objects[:, 3, 3] = math.nan, math.nan  # what files store in cells that do not exist
    matrix = objects if row_wise else objects.transpose(1, 2)
    found = head(matrix)
    assert torch.equal(found, torch.nan_to_num(matrix))
    flat = objects.flatten(1)[:, [columns().index(name) for name in names]]
    assert torch.equal(head(flat), found)
    assert int(head.missing.sum()) == 2


def test_matrices_need_not_be_contiguous():
    objects = events(3)
    head = matrix_head("conv flat")
    assert torch.equal(head(objects.transpose(1, 2)), head(objects.transpose(1, 2).contiguous()))
    strided = torch.randn(3, 40)[:, ::2]
    assert torch.equal(head(strided), head(strided.contiguous()))


def test_lookups_move_with_the_head_and_are_not_saved():
    head = Matrix(columns(), VECS, FEATS)
    assert not head.state_dict()
    assert {name for name, _ in head.named_buffers()} == {"lookup", "missing"}
    assert head.to("meta")(torch.empty(2, 20, device="meta")).is_meta


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"row_wise": None}, "`row_wise` must be True .* or False"),
        ({"vecs": ["a", "b", "a", "d", "e"]}, "`vecs` must hold each name once; got a"),
        ({"feats_per_vec": "px"}, "`feats_per_vec` must be a list of names"),
        ({"feats_per_vec": []}, "at least one name"),
        ({"cont_feats": [*columns(), "a_px"]}, "`cont_feats` must hold each name once; got a_px"),
        ({"cont_feats": [1, 2]}, "`cont_feats` must hold names; got 1"),
        ({"vecs": ["x", "y"]}, "`cont_feats` has no column for 'x' of `vecs`"),
        ({"vecs": ["a", "bb"]}, "no column for 'bb' of `vecs`.*'bb_px'.*Is 'b_px' meant"),
        ({"feats_per_vec": ["px", "py", "pz", "e"]}, "no column for 'e' of `feats_per_vec`.*Is 'a_E' meant for 'a_e'"),
    ],
)
def test_names_that_cannot_be_meant_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Matrix(**{"cont_feats": columns(), "vecs": VECS, "feats_per_vec": FEATS, **wrong})


def test_an_object_may_have_no_column_when_none_is_left_over():
    head = Matrix(columns()[:-4], VECS, FEATS)  # features were dropped on purpose
    assert head.missing[-1].all()


@pytest.mark.parametrize("shape", [(3, 19), (20,), (3, 4, 5), (3, 5, 3), (3, 5, 4, 1)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ShapeError, match="`x` must"):
        Matrix(columns(), VECS, FEATS)(torch.zeros(shape))


@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_the_size_is_that_of_the_output_and_every_feature_has_its_columns(name):
    head = taught(matrix_head(name))
    size = head.get_out_size()
    shape = size if isinstance(size, tuple) else (size,)
    assert head(in_layout(head, events(3))).shape == (3, *shape)
    assert head.feat_map == {name: list(range(math.prod(shape))) for name in columns()}


@pytest.mark.parametrize("name", MATRIX_HEADS)
def test_freezing_freezes_everything(name):
    head = matrix_head(name, freeze=True)
    assert not any(p.requires_grad for p in head.parameters())
    head.unfreeze_layers()
    assert all(p.requires_grad for p in head.parameters())
    assert head.get_param_count() == head.get_param_count(trainable=False) > 0
