"""What docs/coordinates_and_units.md says, held against the objects."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.core.materials import X0
from diffdet.kernels import angles, scattering
from diffdet.tomography.benchmarks.ladle_furnace.volume import get_baseline_detector_1
from diffdet.tomography.inference.scattering import GenScatterBatch
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.volume import Volume

THETA, PHI = 0.4, 2.1


@pytest.fixture
def volume():
    """The furnace without material."""
    return Volume(get_baseline_detector_1())


def one_muon(z, x=0.7, y=0.4):
    return MuonBatch(torch.tensor([[x, y, 5.0, THETA, PHI]]), init_z=z)


def test_a_muon_falls_towards_where_phi_points():
    muon = one_muon(2.0)
    muon.propagate_dz(0.5)
    assert muon.z.item() == pytest.approx(1.5)
    assert muon.x.item() - 0.7 == pytest.approx(0.5 * math.tan(THETA) * math.cos(PHI), rel=1e-5)
    assert muon.y.item() - 0.4 == pytest.approx(0.5 * math.tan(THETA) * math.sin(PHI), rel=1e-5)
    muon.propagate_d(1.0)
    assert muon.z.item() == pytest.approx(1.5 - math.cos(THETA))


def test_projected_angle_is_positive_towards_positive_x():
    muon = MuonBatch(torch.tensor([[0.0, 0.0, 5.0, 0.3, 0.0], [0.0, 0.0, 5.0, 0.3, math.pi]]), init_z=1.0)
    assert muon.theta_x.flatten().tolist() == pytest.approx([0.3, -0.3])
    slope = angles.slope_from_polar(torch.tensor(0.3), torch.tensor(0.0))
    assert slope[0] > 0


def test_layers_are_named_by_their_tops_and_listed_from_the_top(volume):
    heights = [float(layer.z) for layer in volume.layers]
    assert heights == sorted(heights, reverse=True)
    bottoms = [float(layer.z - layer.size) for layer in volume.layers]
    assert bottoms[:-1] == pytest.approx(heights[1:])


def test_tracks_of_a_straight_muon_keep_its_angles_and_hits_come_from_the_top(volume):
    muon = one_muon(float(volume.h))
    volume(muon)
    scatter = GenScatterBatch(muon, volume)
    assert scatter.theta_in.item() == pytest.approx(THETA, abs=1e-5)
    assert scatter.phi_out.item() == pytest.approx(PHI, abs=1e-5)
    z = scatter.reco_hits[0, :, 2].tolist()
    assert z == sorted(z, reverse=True)


def test_cube_and_position_name_their_axes_in_different_orders(volume):
    def layout(*, z, lw, size):
        x0 = torch.full((10, 10), X0["air"])
        if abs(float(z) - 0.6) < 0.01:  # the layer from 0.5 m to 0.6 m, the second from below
            x0[7, 2] = X0["lead"]
        return x0

    volume.load_rad_length(layout)
    cube = volume.get_rad_cube()
    assert cube.shape == (10, 10, 10)
    assert (cube == X0["lead"]).nonzero().tolist() == [[1, 7, 2]]
    positions = torch.tensor([[0.75, 0.25, 0.55], [0.25, 0.75, 0.55]])
    ix, iy, iz = volume.lookup_passive_xyz_coords(positions).T
    assert cube[iz, ix, iy].tolist() == pytest.approx([X0["lead"], X0["air"]])
    row = int((cube.permute(1, 2, 0).reshape(-1) == X0["lead"]).nonzero())
    assert row == (7 * 10 + 2) * 10 + 1
    assert volume.xyz_centres[row].tolist() == pytest.approx([0.75, 0.25, 0.55])


def test_displacement_goes_with_deflection():
    # correlation +sqrt(3)/2 in a homogeneous path, without the logarithm's bend; 4 standard deviations of 1e5 muons
    n = 100_000
    normals = torch.randn(4, n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    width = torch.full((n,), 0.01, dtype=torch.float64)
    length = torch.ones(n, dtype=torch.float64)
    moments = scattering.PathMoments(0.5 * length, length / math.sqrt(12))
    angle, displacement = scattering.correlated_draw(normals, width, moments)
    correlation = torch.corrcoef(torch.stack([angle[0], displacement[0]]))[0, 1]
    assert abs(correlation.item() - math.sqrt(3) / 2) < 4 * 0.25 / math.sqrt(n)
