"""Fitted tracks: which hits count, which muons are used, unequal sides, gradients that dropped muons do not spoil."""

import math

import pytest
import torch

from diffdet.core.errors import NoHitsError, NoMuonsWarning
from diffdet.kernels import lines
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.tracks import fit_tracks, pair_hits, usable
from diffdet.tomography.muon.hits import HitBatch
from scenes import batch_of, beam, hits_of_tracks, lead_in_beryllium, muons, pencil, scattered, volume

F64 = {"dtype": torch.float64}
IN = ((0.5, 0.5, 0.5), (0.3, -0.1))
OUT = ((0.5, 0.5, 0.5), (0.33, -0.08))
Z_REF = torch.tensor(0.5, **F64)
BOX = ((0.0, 0.0, 0.2), (1.0, 1.0, 0.8))


def hits(n=5, sigma=1e-4, **options):
    return hits_of_tracks(IN, OUT, n, sigma=sigma, **options)


def change(batch, **tensors):
    given = {name: getattr(batch, name) for name in ("reco_xy", "gen_xy", "z", "unc_xy", "eff", "valid")}
    return HitBatch(**{**given, **tensors})


def keep(above, below):
    pair = pair_hits(above, below)
    return usable(pair, fit_tracks(pair, Z_REF), BOX)


def test_each_side_is_fitted_like_the_kernel_does():
    made = hits(sigma=torch.tensor([[1e-4, 2e-4], [2e-4, 1e-4], [1e-4, 1e-4], [3e-4, 1e-4]], **F64))
    tracks = fit_tracks(pair_hits(made["above"], made["below"]), Z_REF)
    for rows, side in ((slice(0, 2), made["above"]), (slice(2, 4), made["below"])):
        weight = (side.eff[:, None] / side.unc_xy).square()
        alone = lines.at_plane(lines.fit_weighted(side.reco_xy, side.z[:, None], weight, side.unc_xy), Z_REF)
        for a, b in zip(tracks.lines[:5], alone[:5], strict=True):
            torch.testing.assert_close(a[rows], b, rtol=1e-9, atol=1e-15)
    assert tracks.z_ref is Z_REF
    picked = tracks.select(torch.tensor([3, 1]))
    assert torch.equal(picked.lines.slope, tracks.lines.slope[:, [3, 1]])


def test_exact_hits_give_the_tracks():
    made = hits_of_tracks(IN, OUT, 1, sigma=1e-12)
    tracks = fit_tracks(pair_hits(made["above"], made["below"]), Z_REF)
    assert tracks.lines.slope[:, 0].tolist() == pytest.approx([0.3, -0.1, 0.33, -0.08], abs=1e-9)
    assert tracks.lines.position[:, 0].tolist() == pytest.approx([0.5] * 4, abs=1e-9)


@pytest.mark.parametrize(("n_above", "n_below"), [(2, 4), (4, 2), (3, 2), (2, 2)])
def test_sides_may_have_different_numbers_of_panels(n_above, n_below):
    heights = {"above": (0.99, 0.95, 0.90, 0.85)[:n_above], "below": (0.15, 0.10, 0.05, 0.01)[:n_below]}
    made = hits(**heights)
    pair = pair_hits(made["above"], made["below"])
    assert pair.xy.shape == (2, max(n_above, n_below), 2, 5)
    assert pair.n_hits.tolist() == [[n_above] * 5, [n_below] * 5]
    tracks = fit_tracks(pair, Z_REF)
    for rows, pos in ((slice(0, 2), "above"), (slice(2, 4), "below")):
        twin = fit_tracks(pair_hits(made[pos], made[pos]), Z_REF)
        torch.testing.assert_close(tracks.lines.slope[rows], twin.lines.slope[:2], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(tracks.lines.var_position[rows], twin.lines.var_position[:2], rtol=1e-9, atol=0)
    assert keep(made["above"], made["below"]).all()


def test_heights_may_differ_from_muon_to_muon_on_one_side():
    made = hits()
    per_muon = change(made["above"], z=made["above"].z.expand(-1, 5).clone())
    both = [fit_tracks(pair_hits(above, made["below"]), Z_REF) for above in (per_muon, made["above"])]
    torch.testing.assert_close(both[0].lines.slope, both[1].lines.slope, rtol=1e-12, atol=1e-14)


def test_two_hits_on_each_side_are_enough_and_one_is_not():
    """The original drops a muon that misses a single panel."""
    made = hits()
    seen = torch.tensor(
        [
            [True] * 5,
            [True, False, True, False, False],
            [True, True, False, False, False],
            [True, False, False, True, True],
        ]
    )
    seen[0, 3] = False
    assert keep(change(made["above"], valid=seen), made["below"]).tolist() == [True, True, True, False, True]
    assert keep(made["above"], change(made["below"], valid=seen)).tolist() == [True, True, True, False, True]


def test_hits_that_say_nothing_do_not_count():
    made = hits()
    unc = made["above"].unc_xy.clone()
    eff = made["above"].eff.clone()
    unc[:3, :, 0] = 1e11  # unknown
    unc[:3, 1, 1] = 1e3  # ten million times worse than the fourth
    eff[:3, 2] = 0  # never recorded
    eff[:2, 3] = 0
    above = change(made["above"], unc_xy=unc, eff=eff)
    assert pair_hits(above, made["below"]).n_hits[0].tolist() == [1, 1, 1, 2, 4]
    assert keep(above, made["below"]).tolist() == [False, False, False, True, True]


def test_tracks_that_are_parallel_or_pass_by_are_not_used():
    same = hits_of_tracks(IN, IN, 1, sigma=1e-15)
    exact = {
        pos: change(batch, reco_xy=batch.gen_xy[:, :1].expand_as(batch.gen_xy) * 0 + 0.5) for pos, batch in same.items()
    }
    assert keep(exact["above"], exact["below"]).tolist() == [False]
    far = hits_of_tracks(((40.0, 0.5, 0.5), (0.3, 0.0)), ((40.0, 0.5, 0.5), (0.31, 0.0)), 1, sigma=1e-4)
    assert keep(far["above"], far["below"]).tolist() == [False]
    near = hits_of_tracks(((-9.0, 9.0, 0.5), (0.3, 0.0)), ((-9.0, 9.0, 0.5), (0.31, 0.0)), 1, sigma=1e-4)
    assert keep(near["above"], near["below"]).tolist() == [True]
    not_there = change(same["above"], reco_xy=torch.full_like(same["above"].reco_xy, math.nan))
    assert keep(not_there, same["below"]).tolist() == [False]


def test_panels_at_one_height_determine_nothing():
    made = hits(above=(0.9, 0.9), below=(0.15, 0.05))
    assert not keep(made["above"], made["below"]).any()


def test_true_hits_count_alike():
    made = hits(sigma=1e-2)
    tracks = fit_tracks(pair_hits(made["above"], made["below"], generated=True), Z_REF)
    assert tracks.lines.slope[:, 0].tolist() == pytest.approx([0.3, -0.1, 0.33, -0.08], abs=1e-12)


# ---- through a volume


def test_evaluation_uses_all_muons_with_two_hits_on_each_side():
    made = volume(x0=lead_in_beryllium, span=(0.7, 0.7), shift=0.12).eval()
    mu = muons(beam(500))
    made(mu)
    n_seen = [(side["eff"][..., 0] > 0).sum(1) for side in mu.get_hits().values()]
    enough = (n_seen[0] >= 2) & (n_seen[1] >= 2)
    all_panels = (n_seen[0] == 4) & (n_seen[1] == 4)
    sb = ScatterBatch(mu, made)
    assert len(sb) == int(enough.sum())
    assert len(sb) > 1.5 * int(all_panels.sum()) > 0
    assert sb.n_removed == 500 - len(sb)
    assert torch.equal(mu.ids, enough.nonzero().squeeze(-1))


def test_without_hits_on_a_side_it_is_told_which():
    mu = batch_of(hits())
    del mu._hits["below"]
    with pytest.raises(NoHitsError, match="below"):
        ScatterBatch(mu, volume())


def test_one_panel_on_a_side_warns_that_nothing_can_be_used():
    made = volume(x0=lead_in_beryllium, above=(0.9,))
    with pytest.warns(NoMuonsWarning, match="none of 20 muons"):
        sb = scattered(made, beam(20))
    assert len(sb) == len(sb.mu) == 0
    assert sb.poca_xyz.shape == (0, 3)


def test_a_beam_that_misses_all_panels_warns():
    made = volume(x0=lead_in_beryllium).eval()
    with pytest.warns(NoMuonsWarning, match="panels' positions"):
        sb = scattered(made, beam(20, low=3.0, high=4.0))
    assert len(sb) == 0


@pytest.mark.parametrize("kind", ["gaussian", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_muons_that_are_dropped_leave_no_nan_in_the_gradients(kind, dtype):
    """Muons metres beside the panels, in vacuum (no kink), horizontal, and some good ones, all in one batch."""
    made = volume(kind, x0=lead_in_beryllium, shift=0.05, budget=9.0, dtype=dtype, smooth=0.05)
    given = torch.cat(
        [
            beam(30, dtype=dtype),
            beam(30, low=2.0, high=30.0, dtype=dtype),
            pencil(10, at=(1e4, -1e4), dtype=dtype),
            pencil(10, theta=math.pi / 2 - 1e-7, dtype=dtype),
            pencil(10, at=(0.5, -0.2), dtype=dtype),
        ]
    )
    mu = muons(given)
    made(mu)
    sb = ScatterBatch(mu, made)
    assert 30 <= len(sb) < 90
    values = [
        sb.poca_xyz,
        sb.poca_xyz_unc,
        sb.total_scatter,
        sb.total_scatter_unc,
        sb.theta_in_unc,
        sb.phi_out_unc,
        sb.dxy_unc,
    ]
    assert all(value.isfinite().all() for value in values)
    sum(value.log1p().sum() if (value >= 0).all() else value.sum() for value in values).backward()
    for parameter in made.parameters():
        assert parameter.grad.isfinite().all()


def test_gradients_with_unequal_sides_and_missing_panels_are_finite():
    made = volume(
        ["gaussian", "sigmoid", "gaussian"], x0=lead_in_beryllium, above=(0.99, 0.9, 0.85), below=(0.15, 0.05)
    )
    sb = scattered(made, beam(50, low=-0.5, high=1.5))
    (sb.poca_xyz_unc.log().sum() + sb.total_scatter_unc.log().sum()).backward()
    for parameter in made.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
