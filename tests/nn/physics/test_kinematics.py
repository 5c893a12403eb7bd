"""Kinematics of named vectors: round trips, identities, missing columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.nn.physics import kinematics as kin


def table(n=50, vecs=("a", "b", "mpt"), seed=0):
    draw = np.random.default_rng(seed)
    made = {}
    for vec in vecs:
        made |= {
            f"{vec}_pT": draw.exponential(30, n) + 1,
            f"{vec}_eta": draw.normal(0, 1.5, n),
            f"{vec}_phi": draw.uniform(-np.pi, np.pi, n),
            f"{vec}_mass": draw.uniform(0, 5, n),
        }
    return made


@pytest.fixture(params=["dict", "pandas"])
def df(request):
    if request.param == "dict":
        return table()
    return pytest.importorskip("pandas").DataFrame(table())


def test_coordinates_lead_back(df):
    before = {name: np.array(df[name]) for name in ("a_pT", "a_eta", "a_phi")}
    kin.to_cartesian(df, "a", drop=True)
    assert "a_pT" not in df
    kin.to_pt_eta_phi(df, "a", drop=True)
    assert "a_px" not in df
    for name, values in before.items():
        assert np.allclose(df[name], values)


def test_the_transverse_plane_needs_no_eta():
    df = {"mpt_pT": np.array([2.0]), "mpt_phi": np.array([np.pi / 2])}
    kin.to_cartesian(df, "mpt")
    assert "mpt_pz" not in df
    assert df["mpt_py"] == pytest.approx(2)
    del df["mpt_pT"], df["mpt_phi"]
    kin.to_pt_eta_phi(df, "mpt")
    assert "mpt_eta" not in df
    assert df["mpt_phi"] == pytest.approx(np.pi / 2)


def test_azimuth_along_minus_x_is_plus_pi_always():
    df = {"v_px": np.full(1000, -1.0), "v_py": np.resize([0.0, -0.0], 1000), "v_pz": np.zeros(1000)}
    kin.to_pt_eta_phi(df, "v")
    assert (df["v_phi"] == np.pi).all()


def test_energy_and_mass_lead_back(df):
    mass = np.array(df["a_mass"])
    kin.to_cartesian(df, "a")
    kin.add_abs_mom(df, "a")
    kin.add_energy(df, "a")
    assert np.allclose(np.array(df["a_E"]) ** 2, np.array(df["a_absp"]) ** 2 + mass**2)
    kin.add_mass(df, "a")
    assert np.allclose(df["a_mass"], mass, atol=1e-6)


def test_transverse_mass_has_its_jacobian_edge():
    df = {"l_pT": np.array([40.0, 40.0]), "l_phi": np.array([0.0, 1.0])}
    df |= {"mpt_pT": np.array([40.0, 40.0]), "mpt_phi": np.array([np.pi, 1.0])}
    kin.add_mt(df, "l")
    assert df["l_mT"].tolist() == pytest.approx([80, 0])


def test_pair_mass_is_the_mass_of_the_sum(df):
    total = kin.four_momentum(df, "a") + kin.four_momentum(df, "b")
    wanted = np.sqrt(total[:, 3] ** 2 - (total[:, :3] ** 2).sum(1))
    masses = np.array(df["a_mass"]), np.array(df["b_mass"])
    assert np.allclose(kin.calc_pair_mass(df, masses, ("a", "b")), wanted)
    for vec in "ab":
        kin.to_cartesian(df, vec)
    feat_map = {f"{k}_{c}": f"{vec}_{c}" for k, vec in enumerate("ab") for c in ("px", "py", "pz")}
    assert np.allclose(kin.calc_pair_mass(df, masses, feat_map), wanted)
    with pytest.raises(InputError, match="1_pz"):
        kin.calc_pair_mass(df, (0, 0), {k: v for k, v in feat_map.items() if k != "1_pz"})


def test_a_boost_brings_its_own_vector_to_rest_and_keeps_masses(df):
    at_rest = kin.boost("a", "a", df)
    assert np.allclose(at_rest[:, :3], 0, atol=1e-6)
    assert np.allclose(at_rest[:, 3], df["a_mass"])
    seen = kin.boost("a", "b", df)
    assert np.allclose(seen[:, 3] ** 2 - (seen[:, :3] ** 2).sum(1), np.array(df["b_mass"]) ** 2, atol=1e-6)
    beta = kin.boost2cm("a", df)
    assert ((beta**2).sum(1) < 1).all()


def test_angles_between_vectors(df):
    cos = kin.cos_delta("a", "b", df, name="cos_ab")
    a, b = (kin.four_momentum(df, vec)[:, :3] for vec in "ab")
    assert np.allclose(cos, (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
    assert np.array_equal(df["cos_ab"], cos)


def test_products_of_a_decay_are_back_to_back_in_the_frame_of_their_sum(df):
    a, b = kin.four_momentum(df, "a"), kin.four_momentum(df, "b")
    assert np.allclose(kin.cos_delta(kin.boost(a + b, a), kin.boost(a + b, b)), -1)
    at_rest = np.tile([0.0, 0.0, 0.0, 1.0], (50, 1))
    separation = kin.delta_r(kin.delta_phi(df["a_phi"], df["b_phi"]), np.array(df["a_eta"]) - np.array(df["b_eta"]))
    assert np.allclose(kin.delta_r_boosted("a", "b", at_rest, df), separation)


def test_numbers_arrays_and_tensors_do():
    assert kin.delta_phi(3.0, -3.0) == pytest.approx(2 * math.pi - 6)
    assert kin.delta_phi(np.float32([1]), np.float32([2])).dtype == np.float32
    assert isinstance(kin.delta_r(torch.ones(2), torch.ones(2)), torch.Tensor)
    assert kin.twist(1, 1) == pytest.approx(math.pi / 4)


def test_events_are_aligned():
    df = table()
    kin.fix_event_phi(df, "a")
    assert np.allclose(df["a_phi"], 0)
    kin.fix_event_y(df, "a", "b")
    assert (df["b_phi"] >= 0).all()
    kin.fix_event_z(df, "b")
    assert (df["b_eta"] >= 0).all()
    before = {name: np.array(values) for name, values in table().items()}
    masses = [kin.calc_pair_mass(t, (0, 0), ("a", "b")) for t in (before, df)]
    assert np.allclose(*masses)


def test_vectors_are_found_by_their_columns():
    names = ["a_px", "a_py", "a_pz", "b_pT", "b_eta", "weight_px"]
    assert kin.get_vecs(names) == {"a"}
    assert kin.get_vecs(names, strict=False) == {"a", "b", "weight"}
    df = table(vecs=("a", "b"))
    kin.event_to_cartesian(df, drop=True, ignore=["b"])
    assert "a_px" in df
    assert "b_px" not in df


def test_columns_that_do_not_exist_are_named():
    with pytest.raises(InputError, match=r"there is no 'a_px'"):
        kin.to_pt_eta_phi(table(), "a")
    with pytest.raises(InputError, match=r"'jet_pT'.*Did you mean"):
        kin.to_cartesian({"jets_pT": [1], "jets_eta": [1], "jets_phi": [1], "jet_eta": [1]}, "jet")
    with pytest.raises(InputError, match="`df` must be given"):
        kin.boost("a", "b")


def test_unphysical_four_momenta_are_refused():
    p = np.array([[[0, 0, 3, 5.0], [3, 0, 0, 3.0]], [[1, 2, 2, 2.9], [0, 0, 0, 0]]])
    with pytest.raises(InputError, match=r"1 of 4 are not, the first at \(1, 0\).*2\.9"):
        kin.check_four_momenta(p)
    kin.check_four_momenta(p, mask=[[True, True], [False, True]])
    p[1, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        kin.check_four_momenta(p)
