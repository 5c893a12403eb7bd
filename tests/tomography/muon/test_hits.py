"""Stacked hits: the documented dictionaries and back, missing hits, selection, joining."""

import math

import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.tomography.muon.hits import HitBatch

F64 = {"dtype": torch.float64}


def batch(n=5, n_hits=3, *, valid=True, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(shape, generator=generator, **F64)

    seen = (draw(n_hits, n) > 0.3) if valid else None
    return HitBatch(
        draw(n_hits, 2, n), draw(n_hits, 2, n), draw(n_hits, 1), 0.1 + draw(n_hits, 2, n), draw(n_hits, n), seen
    )


def panel_hits(n=4, z=0.9):
    generator = torch.Generator().manual_seed(1)
    xyz = torch.rand((n, 3), generator=generator, **F64)
    xyz[:, 2] = z
    unc = torch.tensor([0.1, 0.2, 0.0], **F64).expand(n, 3).clone()
    return {"reco_xyz": xyz.clone(), "gen_xyz": xyz, "unc_xyz": unc, "eff": torch.full((n, 1), 0.9, **F64)}


def test_one_panel_there_and_back():
    given = panel_hits()
    back = HitBatch.from_dict(given).to_dict()
    for key, value in given.items():
        assert torch.equal(back[key][:, 0], value)


def test_missing_hits_there_and_back():
    given = panel_hits()
    given["reco_xyz"][1, :2] = math.nan
    given["unc_xyz"][1, :2] = math.inf
    given["unc_xyz"][2, 0] = math.inf
    hits = HitBatch.from_dict(given)
    assert hits.valid.tolist() == [[True, False, False, True]]
    for tensor in (hits.reco_xy, hits.unc_xy, hits.z, hits.eff):
        assert tensor.isfinite().all()
    assert hits.eff[0].tolist() == [0.9, 0, 0, 0.9]
    back = hits.to_dict()
    assert torch.isnan(back["reco_xyz"][1:3, 0, :2]).all()
    assert torch.isinf(back["unc_xyz"][1:3, 0, :2]).all()
    assert back["reco_xyz"][:, 0, 2].tolist() == [0.9] * 4


def test_a_missing_hit_without_height_is_put_where_the_muon_was():
    given = panel_hits()
    given["reco_xyz"][1] = math.nan
    hits = HitBatch.from_dict(given)
    assert hits.z[0].tolist() == [0.9] * 4


def test_gradients_pass_through_the_documented_form_and_missing_hits_have_none():
    leaf = panel_hits()["reco_xyz"].requires_grad_()
    gap = torch.tensor([[0.0], [math.inf], [0.0], [0.0]], **F64)
    given = {**panel_hits(), "reco_xyz": leaf, "unc_xyz": panel_hits()["unc_xyz"] + gap}
    hits = HitBatch.from_dict(given)
    (gradient,) = torch.autograd.grad(hits.reco_xy.sum() + hits.z.sum(), leaf)
    assert gradient[0].tolist() == [1, 1, 1]
    assert gradient[1].tolist() == [0, 0, 0]


def test_selection_by_mask_and_by_index():
    hits = batch()
    mask = torch.tensor([True, False, True, True, False])
    for keep in (mask, torch.tensor([0, 2, 3])):
        part = hits.select(keep)
        assert part.n_muons == 3
        for name in ("reco_xy", "gen_xy", "unc_xy", "eff", "valid"):
            assert torch.equal(getattr(part, name), getattr(hits, name)[..., mask])
        assert part.z.shape == (3, 1)
    assert hits.select(torch.zeros(5, dtype=torch.bool)).n_muons == 0


def test_heights_per_muon_are_selected_too():
    hits = HitBatch.from_dict(panel_hits())
    assert hits.z.shape == (1, 4)
    assert hits.select(torch.tensor([1])).z.shape == (1, 1)


def test_joining_keeps_order_and_what_is_missing():
    first, second = batch(seed=0), batch(n_hits=2, valid=False, seed=1)
    both = HitBatch.cat([first, second])
    assert len(both) == 5
    assert torch.equal(both.reco_xy, torch.cat([first.reco_xy, second.reco_xy]))
    assert torch.equal(both.mask[:3], first.valid)
    assert both.mask[3:].all()
    assert HitBatch.cat([second, second]).valid is None
    assert HitBatch.cat([first]) is first


@pytest.mark.parametrize("n", [0, 1])
def test_few_muons(n):
    hits = HitBatch.from_dict(panel_hits(n))
    assert hits.to_dict()["reco_xyz"].shape == (n, 1, 3)


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="eff"):
        HitBatch.from_dict({key: value for key, value in panel_hits().items() if key != "eff"})
    with pytest.raises(ShapeError, match="unc_xyz"):
        HitBatch.from_dict({**panel_hits(), "unc_xyz": torch.zeros(4, 2)})
    with pytest.raises(InputError, match="gen_xyz"):
        HitBatch.from_dict({**panel_hits(), "gen_xyz": torch.full((4, 3), math.nan)})
