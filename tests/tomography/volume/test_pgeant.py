"""Tabulated scattering: a table made from Highland's formula gives Highland's widths back; a bad table is refused."""

from __future__ import annotations

import copy
import json
import math

import h5py
import numpy as np
import pytest
import torch
from scipy import stats

from diffdet.core.errors import FileDamagedError, InputError, StorageError
from diffdet.core.random import Stream
from diffdet.kernels import scattering
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.layer import PassiveLayer
from diffdet.tomography.volume.scatter_model import PGEANT_SCATTER_MODEL, PgeantScatterModel

STEP = 0.01
X0 = (0.3608, 0.005612)  # water, lead
BINS = (0.4, 1.0, 5.0, 6.0, 50.0)
RANKS = 2000
N = 40_000


def highland(x0, momentum, length=STEP):
    n_rad, p = torch.tensor(length / x0, dtype=torch.float64), torch.tensor(momentum, dtype=torch.float64)
    return float(scattering.highland_width(n_rad, scattering.beta_momentum(p)))


def content(**changes):
    """Datasets of a table whose angles are normal with Highland's width at each bin's middle."""
    shape = stats.halfnorm.ppf((np.arange(RANKS) + 0.5) / RANKS)
    shape /= np.sqrt(np.mean(shape**2))
    middle = [*np.sqrt(np.array(BINS[:-1]) * BINS[1:]), 100.0]
    width = np.array([[highland(x0, p) for p in middle] for x0 in X0])
    angle = (width[..., None] * shape).astype("f4")
    return {
        "model/dtheta": angle,
        "model/dxy": (angle * STEP / math.sqrt(3)).astype("f4"),
        "meta_data/deltaz": STEP,
        "meta_data/exp_disp_model": 1.5,
        "meta_data/mom_bins": np.array(BINS, "f4"),
        "meta_data/n_mom": len(BINS),
        "meta_data/n_rnd": RANKS,
        "meta_data/x02id": json.dumps({str(x0): k for k, x0 in enumerate(X0)}),
        **changes,
    }


def write(path, datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            if values is not None:
                compression = {"compression": "lzf"} if np.ndim(values) == 3 else {}
                file.create_dataset(name, data=values, **compression)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("table") / "dt_dx_10mm.hdf5", content())


@pytest.fixture(scope="module")
def model(path):
    return PgeantScatterModel(path)


def layer(model, x0=X0[1], size=0.1, n=10):
    return PassiveLayer(
        torch.tensor([n * size, n * size]),
        size,
        size,
        lambda *, z, lw, size: torch.full((n, n), x0),
        scatter_model=model,
    )


MIDDLE = math.sqrt(30.0)  # of the bin from 5 to 6 GeV


def muons(momentum=MIDDLE, theta=0.0, phi=0.0, z=0.1, n=N, where=0.5, seed=1):
    columns = [torch.full((n,), value) for value in (where, where, momentum, theta, phi)]
    return MuonBatch(torch.stack(columns, 1), z, stream=Stream(seed).muons())


def rms(values):
    return float(values.double().square().mean().sqrt())


# A relative error of an RMS of N = 40 000 numbers is 0.35 %, of both planes together 0.25 %.


@pytest.mark.parametrize("x0", X0)
@pytest.mark.parametrize("momentum", [math.sqrt(0.4), math.sqrt(5.0), math.sqrt(30.0), math.sqrt(300.0)])
def test_one_step_has_the_tabulated_width(model, x0, momentum):
    mu = muons(momentum, z=STEP)
    layer(model, x0, size=STEP, n=100)(mu)
    measured = rms(mu.theta_xy[mu.theta < 0.5])
    assert measured == pytest.approx(highland(x0, momentum), rel=0.012)


@pytest.mark.parametrize("momentum", [0.45, 0.95, 5.01, 5.99, 45.0, 400.0])
def test_width_follows_the_momentum_within_bins_and_beyond_them(model, momentum):
    mu = muons(momentum, z=STEP)
    layer(model, X0[0], size=STEP, n=100)(mu)
    assert rms(mu.theta_xy) == pytest.approx(highland(X0[0], momentum), rel=0.012)


@pytest.mark.parametrize("x0", [0.08897, 0.01757, 0.003141, 303.9])
def test_width_of_materials_that_are_not_in_the_table(model, x0):
    mu = muons(z=STEP)
    layer(model, x0, size=STEP, n=100)(mu)
    assert rms(mu.theta_xy) == pytest.approx(highland(x0, MIDDLE), rel=0.012)


def test_ten_steps_add_in_variance(model):
    mu = muons()
    layer(model)(mu)
    assert rms(mu.theta_xy) == pytest.approx(math.sqrt(10) * highland(X0[1], MIDDLE), rel=0.012)


def test_displacement_is_that_of_a_homogeneous_block_and_on_the_side_of_the_angle(model):
    mu = muons()
    layer(model)(mu)
    shift, angle = (mu.xy - 0.5).flatten().double(), mu.theta_xy.flatten().double()
    assert rms(shift) == pytest.approx(0.1 * rms(angle) / math.sqrt(3), rel=0.015)
    assert float(torch.corrcoef(torch.stack([shift, angle]))[0, 1]) == pytest.approx(math.sqrt(3) / 2, abs=0.005)
    # so the mean vertex lies in the middle of the block
    assert float((shift * angle).mean() / angle.square().mean()) == pytest.approx(0.05, rel=0.02)


def test_inclined_muons_cross_more(model):
    theta = 0.8
    mu = muons(theta=theta, z=STEP, where=0.3)
    layer(model, X0[0], size=STEP, n=100)(mu)
    across = (mu.theta_y).double()  # the plane at right angles to the track's own: tan theta_y = deflection / cos theta
    width = highland(X0[0], MIDDLE) / math.sqrt(math.cos(theta))
    assert rms(across) * math.cos(theta) == pytest.approx(width, rel=0.02)
    straight = 0.3 + STEP * math.tan(theta)
    assert float(mu.x.mean()) == pytest.approx(straight, abs=1e-5)


def test_tails_of_the_table_survive(tmp_path):
    # one angle in a hundred is twenty times as large: no Gaussian has a kurtosis of 3 (1 + 16000) / (1 + 4)^2
    heavy = content()
    angle = heavy["model/dtheta"].copy()
    angle[..., -RANKS // 100 :] *= 20
    model = PgeantScatterModel(write(tmp_path / "heavy.h5", {**heavy, "model/dtheta": angle}))
    mu = muons(50.0, z=STEP)
    layer(model, X0[0], size=STEP, n=100)(mu)
    width = highland(X0[0], 50.0)
    beyond = float((mu.theta_xy.abs() > 10 * width).double().mean())
    assert beyond == pytest.approx(0.01, abs=4 * math.sqrt(0.01 / (2 * N)))


def test_steps_are_the_tables_own(model):
    # 25 mm are two steps of 10 mm and one of 5 mm, whatever the layer's step
    for step_sz in (0.001, 0.1):
        mu = muons(n=1000)
        thick = PassiveLayer(
            torch.tensor([1.0, 1.0]),
            0.025,
            0.025,
            lambda *, z, lw, size: torch.full((40, 40), X0[1]),
            step_sz=step_sz,
            scatter_model=model,
        )
        thick(mu)
        assert set(mu._n_draws) == {"scatter-table"}
        assert mu._n_draws["scatter-table"] == 3
        assert torch.equal(mu.z, torch.zeros(1000))


def test_results_do_not_depend_on_the_batch(model):
    whole = muons(n=3000)
    layer(model)(whole)
    parts = []
    for first, n in ((0, 700), (700, 2300)):
        columns = [torch.full((n,), value) for value in (0.5, 0.5, MIDDLE, 0.0, 0.0)]
        mu = MuonBatch(torch.stack(columns, 1), 0.1, stream=Stream(1).muons(), first=first)
        layer(model)(mu)
        parts.append(mu.muons)
    assert torch.allclose(torch.cat(parts), whole.muons, atol=1e-7)
    other = muons(n=3000, seed=2)
    layer(model)(other)
    assert not torch.allclose(other.muons, whole.muons)


def test_vacuum_and_what_is_outside_do_not_scatter(model):
    mu = muons(n=100)
    layer(model, math.inf)(mu)
    assert float(mu.theta.max()) == 0
    outside = muons(n=100, where=-0.2)
    layer(model)(outside)
    assert float(outside.theta.max()) == 0


def test_radiation_lengths_are_counted(model):
    mu = muons(50.0, n=100)
    layer(model)(mu)
    assert mu.n_rad.tolist() == pytest.approx([0.1 / X0[1]] * 100, rel=1e-4)


def test_double_precision(model):
    columns = [torch.full((100,), value, dtype=torch.float64) for value in (0.5, 0.5, 5.0, 0.1, 1.0)]
    mu = MuonBatch(torch.stack(columns, 1), 0.1, stream=Stream(1).muons())
    layer(model).double()(mu)
    assert mu.dtype == torch.float64
    assert bool((mu.theta - 0.1).abs().max() > 0)


def test_muons_turned_up_are_removed_not_lost_in_numbers(model):
    mu = muons(0.4, theta=1.5, n=2000, where=0.05)
    layer(model, 0.003141)(mu)
    assert 0 < len(mu) < 2000
    assert bool(mu.muons.isfinite().all())
    assert mu.upwards_muons.shape[0] == 2000 - len(mu)


# ------------------------------------------------------------------------------------------------------------ by name
def test_by_name_with_a_table_loaded_later(path, monkeypatch):
    monkeypatch.setattr(PGEANT_SCATTER_MODEL, "_table", None)
    monkeypatch.setattr(PGEANT_SCATTER_MODEL, "_as", {})
    lead = copy.deepcopy(layer("pgeant"))
    with pytest.raises(
        InputError, match=r"needs a table.*`PGEANT_SCATTER_MODEL.load\(path\)`.*PgeantScatterModel\(path\)"
    ):
        lead(muons(n=10))
    assert PGEANT_SCATTER_MODEL.load(path) is PGEANT_SCATTER_MODEL
    mu, expected = muons(n=100), muons(n=100)
    lead(mu)
    layer(PgeantScatterModel(path))(expected)
    assert torch.equal(mu.muons, expected.muons)


def test_another_table_replaces_the_first(path, tmp_path):
    model = PgeantScatterModel(path)
    before, after = muons(n=100), muons(n=100)
    layer(model)(before)
    doubled = content()
    model.load(write(tmp_path / "two.h5", {**doubled, "model/dtheta": doubled["model/dtheta"] * 2}))
    layer(model)(after)
    assert rms(after.theta_xy) == pytest.approx(2 * rms(before.theta_xy), rel=0.05)


# ---------------------------------------------------------------------------------------------------------- bad files
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model/dxy": None}, r"the dataset `model/dxy` is missing; there are .*`model/dtheta`"),
        ({"meta_data/x02id": None}, r"the dataset `meta_data/x02id` is missing"),
        ({"model/dxy": np.ones((2, 5, 7), "f4")}, r"`model/dxy` must have shape .* = \(2, 5, 2000\); got \(2, 5, 7\)"),
        ({"model/dtheta": np.ones((2, 5), "f4")}, r"`model/dtheta` must hold numbers with 3 axes; got type float32"),
        (
            {"model/dtheta": np.full((2, 5, RANKS), b"a")},
            r"`model/dtheta` must hold numbers with 3 axes; got type \|S1",
        ),
        (
            {"meta_data/mom_bins": np.array([1, 2, 3, 2, 5.0])},
            "`meta_data/mom_bins` must be 2 or more ascending momenta",
        ),
        ({"meta_data/mom_bins": np.array([0, 1, 2, 3, 4.0])}, r"`meta_data/mom_bins` .* got 5 from 0 to 4"),
        ({"meta_data/n_mom": 7}, "`meta_data/n_mom` must agree with `model/dtheta`, 5; got 7"),
        ({"meta_data/n_rnd": 10}, "`meta_data/n_rnd` must agree with `model/dtheta`, 2000; got 10"),
        ({"meta_data/deltaz": 0.0}, "`meta_data/deltaz` must be finite and greater than 0; got 0.0"),
        ({"meta_data/exp_disp_model": math.nan}, "`meta_data/exp_disp_model` must be finite"),
        ({"meta_data/x02id": "__import__('os')"}, r"`meta_data/x02id` must be a JSON object .*__import__"),
        ({"meta_data/x02id": '{"0.36": 0, "0.0056": 2}'}, "must be a JSON object of indices 0, 1"),
        ({"meta_data/x02id": '{"0.36": 0, "-1": 1}'}, r"greater than 0; got \[0.36, -1.0\]"),
        ({"meta_data/x02id": '{"0.36": 0}'}, r"must have shape .* = \(1, 5, 2000\); got \(2, 5, 2000\)"),
        ({"meta_data/x02id": 3.0}, "must be a JSON object .* got type float64"),
    ],
)
def test_tables_that_are_not_what_they_should_be(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        PgeantScatterModel(write(tmp_path / "bad.h5", content(**changes)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a[..., ::-1], "`model/dtheta` must ascend along its last axis"),
        (lambda a: np.where(a == a.max(), np.nan, a), "`model/dtheta` must hold finite sizes"),
        (lambda a: a - 1, "`model/dtheta` must hold finite sizes, none below 0; got 20000 from -1"),
    ],
)
def test_quantiles_that_are_none(tmp_path, spoil, message):
    with pytest.raises(InputError, match=message):
        PgeantScatterModel(write(tmp_path / "bad.h5", content(**{"model/dtheta": spoil(content()["model/dtheta"])})))


def test_nothing_outside_the_file_is_opened(tmp_path, path):
    for kind, link in (
        ("external", h5py.ExternalLink(str(path), "/model/dxy")),
        ("soft", h5py.SoftLink("/model/dtheta")),
    ):
        bad = write(tmp_path / f"{kind}.h5", content(**{"model/dxy": None}))
        with h5py.File(bad, "a") as file:
            file["model/dxy"] = link
        with pytest.raises(InputError, match="`model/dxy` must be part of the file; it is a link to another place"):
            PgeantScatterModel(bad)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(bytes(2 * 5 * RANKS * 4))
    bad = write(tmp_path / "stored.h5", content(**{"model/dxy": None}))
    with h5py.File(bad, "a") as file:
        file.create_dataset("model/dxy", (2, 5, RANKS), "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(InputError, match="`model/dxy` must be stored in the file itself"):
        PgeantScatterModel(bad)


def test_a_dataset_that_claims_to_be_huge_is_not_read(tmp_path):
    bad = write(tmp_path / "bomb.h5", content(**{"model/dxy": None}))
    with h5py.File(bad, "a") as file:
        file.create_dataset("model/dxy", (2, 5, 10**10), "f4", chunks=(1, 1, 1000), compression="lzf")
    with pytest.raises(InputError, match="`model/dxy` must hold at most 134,217,728 values"):
        PgeantScatterModel(bad)


def test_files_that_are_no_tables(tmp_path, path):
    with pytest.raises(StorageError, match=r"there is no scatter table `.*nowhere.h5`"):
        PgeantScatterModel(tmp_path / "nowhere.h5")
    text = tmp_path / "text.h5"
    text.write_text("dtheta, dxy\n")
    with pytest.raises(FileDamagedError, match="cannot be read as HDF5: it is damaged, cut short, or of another kind"):
        PgeantScatterModel(text)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FileDamagedError, match="cannot be read as HDF5"):
        PgeantScatterModel(cut)


def test_a_table_that_cannot_be_read_leaves_the_one_before(path, tmp_path):
    model = PgeantScatterModel(path)
    table = model.table
    with pytest.raises(StorageError):
        model.load(tmp_path / "nowhere.h5")
    assert model.table is table
