"""Volume inference: a twin that loops over voxels, batching, forgetting, memory, classifiers, empty input."""

import gc
import math
import weakref
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffdet.core.errors import InputError, NoMuonsWarning
from diffdet.core.materials import X0
from diffdet.kernels import poca_image
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import (
    AbsIntClassifierFromX0,
    AbsX0Inferrer,
    DenseBlockClassifierFromX0s,
    PanelX0Inferrer,
    panel_efficiency,
)
from scenes import batch_of, beam, filled, hits_of_tracks, lead_in_beryllium, muons, scattered, volume

F64 = {"dtype": torch.float64}


def inferred(made, given, size=None, *, retain=True, kind=PanelX0Inferrer):
    """An inferrer that was given muons in batches of ``size``."""
    inferrer = kind(volume=made)
    inferrer.retain_muons = retain
    size = len(given) if size is None else size
    for first in range(0, len(given), size):
        inferrer.add_scatters(scattered(made, given[first : first + size], first=first))
    return inferrer


def phi(t):
    return 0.5 * torch.erfc(-t / math.sqrt(2))


def by_hand(sb, made):
    """The recipe of the published package, voxel by voxel: weighted RMS values and Highland's formula inverted."""
    probability = torch.ones((len(sb), *made.n_zxy), **F64)
    edges = made.voxel_edges()
    for axis, dim in ((2, 1), (0, 2), (1, 3)):
        mean, sigma = sb.poca_xyz[:, axis, None], sb.poca_xyz_unc[:, axis, None] + 1e-7
        mass = phi((edges[axis][1:] - mean) / sigma) - phi((edges[axis][:-1] - mean) / sigma)
        shape = [len(sb), 1, 1, 1]
        shape[dim] = -1
        probability = probability * mass.reshape(shape)
    probability = probability + 1e-15
    weight = panel_efficiency(sb).reshape(-1, 1, 1, 1) * probability

    def rms(values, sigma=None):
        v = values.reshape(-1, 1, 1, 1)
        w = weight if sigma is None else weight / (2 * v * sigma.reshape(-1, 1, 1, 1)).square()
        return ((w * v.square()).sum(0) / w.sum(0)).sqrt()

    total = rms(sb.total_scatter, sb.total_scatter_unc) / 2**0.5
    cosine = (torch.cos(rms(sb.theta_in, sb.theta_in_unc)) + torch.cos(rms(sb.theta_out, sb.theta_out_unc))) / 2
    return (0.0136 / rms(sb.mu.mom)).square() * made.passive_size / (total.square() * cosine), probability


@pytest.mark.parametrize("training", [True, False])
def test_radiation_lengths_are_those_of_the_recipe(training):
    made = volume(x0=lead_in_beryllium, shift=0.03, voxel=0.2).train(training)
    given = beam(60)
    given[:, 2] = torch.linspace(1, 10, 60)
    sb = scattered(made, given)
    inferrer = PanelX0Inferrer(made)
    inferrer.add_scatters(sb)
    expected, probability = by_hand(sb, made)
    prediction = inferrer.get_prediction()
    assert prediction.shape == made.n_zxy == (3, 5, 5)
    torch.testing.assert_close(prediction, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(inferrer.muon_probs_per_voxel_zxy, probability, rtol=1e-9, atol=1e-16)


def test_reference_values():
    hits = {
        "above": ([0.20, 0.30, 1.0], [0.23, 0.31, 0.9]),
        "below": ([0.47, 0.40, 0.15], [0.505, 0.41, 0.05]),
    }
    mu = muons(beam(1))
    unc = 1e-3 * torch.tensor([[1.0, 2, 0], [2, 4, 0]], **F64)
    for pos, pair in hits.items():
        for k in range(2):
            xyz = torch.tensor([pair[k]], **F64)
            mu.append_hits(
                {"reco_xyz": xyz, "gen_xyz": xyz, "unc_xyz": unc[k : k + 1], "eff": torch.full((1, 1), 0.9, **F64)}, pos
            )
    made = volume()
    inferrer = PanelX0Inferrer(made)
    inferrer.add_scatters(ScatterBatch(mu, made))
    # The reference depends on the width of the point through the float32 fit, known to 1 %.
    assert inferrer.muon_probs_per_voxel_zxy.sum().item() == pytest.approx(0.445155, rel=0.01)
    assert inferrer.muon_efficiency.tolist() == [pytest.approx([0.6561])]
    given = (torch.tensor(value, **F64) for value in (0.01, 0.2, 0.25, 5.0))
    assert AbsX0Inferrer.x0_from_scatters(0.1, *given).item() == pytest.approx(0.00759208, rel=1e-6)


def test_rows_of_the_muons():
    made = volume(x0=lead_in_beryllium)
    first, second = scattered(made, beam(30)), scattered(made, beam(20, seed=1), first=30)
    inferrer = PanelX0Inferrer(made)
    for sb in (first, second):
        inferrer.add_scatters(sb)
    assert inferrer.n_mu == 50
    for ours, theirs in [
        ("muon_poca_xyz", "poca_xyz"),
        ("muon_poca_xyz_unc", "poca_xyz_unc"),
        ("muon_total_scatter", "total_scatter"),
        ("muon_total_scatter_unc", "total_scatter_unc"),
        ("muon_theta_in", "theta_in"),
        ("muon_theta_in_unc", "theta_in_unc"),
        ("muon_theta_out", "theta_out"),
        ("muon_theta_out_unc", "theta_out_unc"),
    ]:
        assert torch.equal(getattr(inferrer, ours), torch.cat([getattr(sb, theirs) for sb in (first, second)]))
    assert torch.equal(inferrer.muon_mom, torch.full((50, 1), 5.0, **F64))
    assert not inferrer.muon_mom_unc.any()
    assert inferrer.muon_efficiency.shape == (50, 1)


def test_adding_muons_renews_the_prediction():
    made, given = volume(x0=lead_in_beryllium), beam(100)
    for retain in (True, False):
        inferrer = inferred(made, given[:50], retain=retain)
        before = inferrer.get_prediction()
        inferrer.add_scatters(scattered(made, given[50:], first=50))
        assert not torch.equal(before, inferrer.get_prediction())
        assert torch.equal(inferrer.get_prediction(), inferred(made, given, 50).get_prediction())


@pytest.mark.parametrize("kind", ["gaussian", "sigmoid"])
@pytest.mark.parametrize("training", [True, False])
def test_predictions_do_not_depend_on_how_muons_are_batched_nor_on_forgetting_them(kind, training, dtype):
    """Bit for bit: 64, 1000 or all 2500 muons to a batch, kept or forgotten."""
    made = volume(kind, x0=lead_in_beryllium, shift=0.03, dtype=dtype).train(training)
    given = beam(2500, low=-0.1, high=1.1, dtype=dtype)
    with torch.no_grad():
        whole = inferred(made, given)
        for size, retain in ((64, False), (1000, True), (1000, False), (2500, False)):
            cut = inferred(made, given, size, retain=retain)
            assert torch.equal(cut.get_prediction(), whole.get_prediction())
            assert cut.n_mu == whole.n_mu


def test_gradients_do_not_depend_on_forgetting():
    made = volume(x0=lead_in_beryllium, shift=0.03)
    gradients = []
    for retain in (True, False):
        made.zero_grad()
        inferred(made, beam(2500), 700, retain=retain).get_prediction().log().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in made.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_forgotten_muons_are_gone():
    made = volume(x0=lead_in_beryllium)
    inferrer = PanelX0Inferrer(made)
    inferrer.retain_muons = False
    with torch.no_grad():
        sb = scattered(made, beam(3000))
        gone = weakref.ref(sb), weakref.ref(sb.mu)
        inferrer.add_scatters(sb)
        del sb
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    assert inferrer.n_mu == 3000
    kept = [t for table in inferrer._pending for t in table]
    assert max(t.shape[-1] for t in kept) < 1024
    assert inferrer.get_prediction().shape == made.n_zxy
    with pytest.raises(InputError, match="retain_muons"):
        _ = inferrer.muon_poca_xyz


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest result of any operation."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.size = max(self.size, leaf.numel())
        return out


def test_no_array_of_muons_times_voxels_exists():
    """4096 muons, 20 x 20 x 12 voxels: the largest array has 400 numbers a muon, forward and backward, not 4800."""
    made = volume(x0=lead_in_beryllium, voxel=0.05)
    sb = scattered(made, beam(4096))
    with LargestTensor() as largest:
        inferrer = PanelX0Inferrer(made)
        inferrer.add_scatters(sb)
        inferrer.get_prediction().log().sum().backward()
    n_zxy = made.n_zxy
    assert largest.size <= len(sb) * n_zxy[1] * n_zxy[2]
    assert largest.size * 10 < len(sb) * math.prod(n_zxy)


def test_memory_of_the_sums_does_not_grow_with_the_muons():
    made = volume(x0=filled("lead"), voxel=0.2, dtype=torch.float32)
    sizes = []
    for n in (3000, 12_000):
        with torch.no_grad():
            inferrer = inferred(made, beam(n, dtype=torch.float32))
            _ = inferrer.muon_efficiency
            with LargestTensor() as largest:
                inferrer.get_prediction()
            sizes.append(largest.size)
    assert sizes[0] == sizes[1]


def test_uncertainty_of_a_voxel_from_one_muon():
    """One muon in one voxel, angles known to a few percent: X0 goes with the square of the scattering angle."""
    hits = hits_of_tracks(((0.5, 0.5, 0.5), (0.3, -0.1)), ((0.5, 0.5, 0.5), (0.4, -0.05)), 1, sigma=1e-4)
    made = volume(voxel=0.2)
    inferrer = PanelX0Inferrer(made)
    inferrer.add_scatters(ScatterBatch(batch_of(hits), made))
    relative = (inferrer.vox_zxy_x0_pred_uncs / inferrer.vox_zxy_x0_preds)[1, 2, 2]
    by_angle = 2 * inferrer.muon_total_scatter_unc / inferrer.muon_total_scatter
    assert relative.item() == pytest.approx(by_angle.item(), rel=0.01)
    assert inferrer.vox_zxy_x0_pred_uncs.shape == made.n_zxy


def test_uncertainties_of_voxels_are_those_of_repeated_measurements():
    """Points and angles of 40 muons redrawn 1,000 times within a tenth of their errors; widths known to 2.2 %."""
    made = volume(x0=lead_in_beryllium, voxel=0.2, res=2e4)
    inferrer = inferred(made, beam(40, low=0.3, high=0.7))
    table = type(inferrer._muons)(*(t.detach() for t in inferrer._muons))
    generator = torch.Generator().manual_seed(1)
    small, repeated = 0.1, []
    for _ in range(1000):
        poca = table.poca + small * table.poca_sigma * torch.randn(table.poca.shape, generator=generator, **F64)
        angles = table.values.clone()
        angles[:3] += small * table.sigmas * torch.randn(table.sigmas.shape, generator=generator, **F64)
        sums = poca_image.voxel_sums(poca, table.poca_sigma, angles, *table[3:], *inferrer._edges)
        rms = poca_image.rms_from_sums(sums)
        repeated.append(AbsX0Inferrer.x0_from_scatters(0.2, rms[0] / 2**0.5, *rms[1:]))
    width = torch.stack(repeated).std(0) / small
    ratio = inferrer.vox_zxy_x0_pred_uncs / width
    assert ratio.median().item() == pytest.approx(1, abs=0.05)
    assert ((ratio - 1).abs() < 0.2).double().mean() > 0.8


# ---- nothing to go on


@pytest.mark.parametrize("retain", [True, False])
def test_without_muons_there_is_no_prediction(retain):
    made = volume(x0=lead_in_beryllium)
    inferrer = PanelX0Inferrer(made)
    inferrer.retain_muons = retain
    assert inferrer.get_prediction() is None
    assert inferrer.n_mu == 0
    with pytest.raises(InputError, match="add_scatters"):
        _ = inferrer.vox_zxy_x0_preds
    inferrer.add_scatters(scattered(made, beam(0)))
    assert inferrer.get_prediction() is None
    with pytest.raises(InputError, match="no usable muon"):
        _ = inferrer.vox_zxy_x0_preds
    with pytest.warns(NoMuonsWarning):
        inferrer.add_scatters(scattered(made.eval(), beam(5, low=5, high=6)))
    assert inferrer.get_prediction() is None
    inferrer.add_scatters(scattered(made.train(), beam(1)))
    assert inferrer.n_mu == 1
    assert inferrer.get_prediction().isfinite().all()


def test_true_hits_of_a_vertical_beam_give_numbers():
    """All thetas before the block are exactly 0: their RMS is 0, not 0/0."""
    from diffdet.tomography.inference.scattering import GenScatterBatch
    from scenes import pencil

    made = volume(x0=lead_in_beryllium)
    mu = muons(pencil(200))
    made(mu)
    inferrer = PanelX0Inferrer(made)
    inferrer.add_scatters(GenScatterBatch(mu, made))
    assert inferrer.get_prediction().isfinite().all()


# ---- classifiers


class Fixed(AbsX0Inferrer):
    """An X0 inferrer that knows the answer."""

    cube = None

    def compute_efficiency(self, scatters):
        return panel_efficiency(scatters)

    def get_prediction(self):
        return self.cube


def cube_with_block(n_block, contrast, seed=0):
    cells = 0.3 + 0.02 * torch.rand((6, 10, 10), generator=torch.Generator().manual_seed(seed), **F64)
    cells.view(-1)[torch.randperm(600, generator=torch.Generator().manual_seed(seed))[:n_block]] -= contrast
    return cells


def classifier(cube, **options):
    made = DenseBlockClassifierFromX0s(12, Fixed, volume(), **options)
    made.x0_inferrer.cube = cube
    return made


def test_dense_block_statistic_is_that_of_the_recipe():
    cube = cube_with_block(12, 0.1)
    out = classifier(cube, use_avgpool=False).get_prediction()
    assert out.shape == (1, 1)
    # 12 of 600 voxels: the cut is the 13th smallest value. The original takes the 5th.
    cut = cube.flatten().sort().values[12]
    weight = torch.sigmoid(1e4 * (cube - cut))
    background, block = (weight * cube).sum() / weight.sum(), ((1 - weight) * cube).sum() / (1 - weight).sum()
    r = 2 * (background - block) / (background + block)
    assert out.item() == pytest.approx(torch.sigmoid(r - 1).item(), rel=1e-9)
    scaled = classifier(cube, use_avgpool=False, ratio_offset=-0.2, ratio_coef=3.0, cut_coef=10.0).get_prediction()
    assert scaled.item() != pytest.approx(out.item())


def test_dense_blocks_raise_the_statistic():
    values = [
        classifier(cube_with_block(12, c), use_avgpool=False).get_prediction().item() for c in (0, 0.05, 0.1, 0.25)
    ]
    assert values == sorted(values)
    assert values[-1] > values[0] + 0.1


def test_averaging_does_not_count_what_lies_outside():
    flat = classifier(torch.full((6, 10, 10), 0.5, **F64), use_avgpool=True)
    assert flat.get_prediction().item() == pytest.approx(torch.sigmoid(torch.tensor(-1.0)).item(), rel=1e-6)


def test_dense_block_gradients_are_finite():
    cube = cube_with_block(12, 0.1).requires_grad_()
    classifier(cube).get_prediction().sum().backward()
    assert cube.grad.isfinite().all()
    assert cube.grad.any()


def test_dense_block_classifier_passes_muons_on():
    made = volume(x0=lead_in_beryllium)
    inferrer = inferred(made, beam(300), 100, kind=partial(DenseBlockClassifierFromX0s, 12, PanelX0Inferrer))
    assert inferrer.get_prediction().shape == (1, 1)
    assert inferrer.x0_inferrer.n_mu == 300
    sb = scattered(made, beam(5))
    assert torch.equal(inferrer.compute_efficiency(sb), panel_efficiency(sb))
    assert classifier(None).get_prediction() is None
    for n in (0, 600):
        with pytest.raises(InputError, match="n_block_voxels"):
            DenseBlockClassifierFromX0s(n, Fixed, made)


class Which(AbsIntClassifierFromX0):
    """Class = layer of the lowest mean X0."""

    def x02probs(self, vox_preds):
        return torch.softmax(-100 * vox_preds.mean((1, 2)), 0)[None]


def test_integer_classifier():
    made = volume(x0=lead_in_beryllium)
    cube = torch.full((6, 10, 10), 0.3, **F64)
    cube[4] = 0.1
    probabilities = Which(Fixed, made)
    probabilities.x0_inferrer.cube = cube
    assert probabilities.get_prediction().shape == (1, 6)
    assert probabilities.get_prediction().sum().item() == pytest.approx(1)
    number = Which(Fixed, made, output_probs=False)
    number.x0_inferrer.cube = cube
    assert number.get_prediction().tolist() == [4]
    assert number.get_prediction().dtype == torch.int64
    height = Which(Fixed, made, output_probs=False, class2float=lambda k, v: (k + 1) * v.passive_size)
    height.x0_inferrer.cube = cube
    assert height.get_prediction().tolist() == pytest.approx([0.5])
    assert Which(Fixed, made).get_prediction() is None
    assert X0["lead"] < 0.1
