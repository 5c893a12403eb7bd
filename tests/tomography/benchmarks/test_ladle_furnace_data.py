"""Layouts of the ladle furnace."""

import math

import pytest
import torch

from diffdet.core.errors import GeometryError, InputError
from diffdet.core.materials import X0
from diffdet.core.random import Stream
from diffdet.tomography.benchmarks.ladle_furnace.data import LadleFurnacePassiveGenerator
from diffdet.tomography.benchmarks.ladle_furnace.volume import get_initial_detector
from diffdet.tomography.volume.layer import PassiveLayer
from diffdet.tomography.volume.volume import Volume

HEIGHTS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)


@pytest.fixture(scope="module")
def volume():
    return Volume(get_initial_detector())


def inner_column(volume, layout, target):
    volume.load_rad_length(layout, target)
    cube = volume.get_rad_cube()
    walls = cube.clone()
    walls[:, 1:-1, 1:-1] = X0["steel"]
    assert torch.equal(walls, torch.full_like(walls, X0["steel"]))
    inner = cube[:, 1:-1, 1:-1].flatten(1)
    assert (inner == inner[:, :1]).all()
    return [
        next(name for name in ("steel", "hot liquid steel", "slag", "air") if abs(X0[name] / x0 - 1) < 1e-6)
        for x0 in inner[:, 0].tolist()
    ]


@pytest.mark.parametrize("height", HEIGHTS)
def test_levels_on_layer_boundaries_fill_up_to_them(volume, height):
    generator = LadleFurnacePassiveGenerator(volume)
    layout, target = generator.get_data(fixed_mat_z=height, fixed_slag_z=height + 0.1)
    n_fill = round((height - 0.5) / 0.1)
    wanted = ["steel"] + ["hot liquid steel"] * n_fill + ["slag"] + ["air"] * (8 - n_fill)
    assert inner_column(volume, layout, target) == wanted
    assert target.shape == (1,)
    assert target.item() == pytest.approx(height)


def test_a_level_inside_a_layer_leaves_that_layer_unfilled(volume):
    layout, target = LadleFurnacePassiveGenerator(volume).get_data(fixed_mat_z=0.79, fixed_slag_z=0.79)
    assert inner_column(volume, layout, target) == ["steel", "hot liquid steel", "hot liquid steel"] + ["air"] * 7


def test_drawn_levels_are_uniform_in_their_ranges(volume):
    generator = LadleFurnacePassiveGenerator(volume)
    n = 2000
    fills, fractions = [], []
    for k in range(n):
        layout, target = generator.get_data(generator=Stream(k).generator())
        assert target.item() == pytest.approx(layout.fill_z)
        assert 0.6 - 1e-6 <= layout.fill_z <= layout.slag_z <= 1.4 + 1e-6
        fills.append(layout.fill_z)
        fractions.append((layout.slag_z - layout.fill_z) / (1.4 - layout.fill_z))
    # Four standard errors of the mean of uniform numbers.
    assert sum(fills) / n == pytest.approx(1.0, abs=4 * 0.8 / math.sqrt(12 * n))
    assert sum(fractions) / n == pytest.approx(0.5, abs=4 / math.sqrt(12 * n))


def test_fixing_the_slag_keeps_the_drawn_fill(volume):
    generator = LadleFurnacePassiveGenerator(volume)
    free, fixed = (generator.get_data(generator=Stream(1).generator(), fixed_slag_z=z)[0] for z in (None, 1.4))
    assert free.fill_z == fixed.fill_z
    assert fixed.slag_z == 1.4
    assert generator.generate(generator=Stream(1).generator()) == free


def test_other_materials(volume):
    generator = LadleFurnacePassiveGenerator(volume, 0.5, "lead", "water")
    volume.load_rad_length(*generator.get_data(fixed_mat_z=1.0, fixed_slag_z=1.2))
    wanted = torch.tensor([0.5, X0["lead"], X0["water"], X0["air"]])
    assert torch.equal(volume.get_rad_cube().unique(), wanted.sort().values)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"fixed_mat_z": 0.3}, "`fixed_mat_z` must lie in"),
        ({"fixed_mat_z": 1.5}, "`fixed_mat_z` must lie in"),
        ({"fixed_mat_z": math.nan}, "`fixed_mat_z` must be finite"),
        ({"fixed_mat_z": 1.0, "fixed_slag_z": 0.9}, "`fixed_slag_z` must lie in"),
        ({"fixed_slag_z": 1.5}, "`fixed_slag_z` must lie in"),
    ],
)
def test_levels_outside_the_furnace_are_refused(volume, levels, message):
    with pytest.raises(InputError, match=message):
        LadleFurnacePassiveGenerator(volume).get_data(**levels)


def test_nonsense_is_refused(volume):
    with pytest.raises(InputError, match="known material"):
        LadleFurnacePassiveGenerator(volume, fill_material="liquid steel")
    with pytest.raises(InputError, match="`x0_furnace`"):
        LadleFurnacePassiveGenerator(volume, x0_furnace=-1.0)
    tiny = Volume([PassiveLayer(torch.tensor([0.2, 0.2]), 0.3 - 0.1 * k, 0.1) for k in range(3)])
    with pytest.raises(GeometryError, match="at least 3 voxels"):
        LadleFurnacePassiveGenerator(tiny)
