"""The buried-walls problem."""

import pytest
import torch
from torch import nn

from diffdet.core.errors import GeometryError, InputError
from diffdet.core.materials import material, mix
from diffdet.core.random import Stream
from diffdet.tomography.benchmarks.small_walls.data import SmallWallsPassiveGenerator
from diffdet.tomography.benchmarks.small_walls.volume import get_small_walls_volume, get_small_walls_volume_wrapper
from diffdet.tomography.volume.layer import PassiveLayer
from diffdet.tomography.volume.volume import Volume


@pytest.fixture(scope="module")
def volume():
    return get_small_walls_volume()


def draw(generator, k):
    return generator.get_data(generator=Stream(k).generator())


def test_default_radiation_lengths_are_mixtures():
    soil = mix(
        "soil", [material(m) for m in ("SiO2", "soft tissue", "water", "air")], volume_fractions=[0.44, 0.6, 0.25, 0.25]
    )
    oxides = ("SiO2", "Al2O3", "Fe2O3", "MgO", "CaO", "Na2O", "K2O")
    wall = mix("wall", [material(m) for m in oxides], volume_fractions=[56, 17, 11.2, 4, 4.2, 3, 4.6])
    generator = SmallWallsPassiveGenerator(get_small_walls_volume())
    assert generator.x0_soil == pytest.approx(soil.x0, rel=1e-12)
    assert generator.x0_wall == pytest.approx(wall.x0, rel=1e-12)


def test_layouts_can_be_loaded_and_agree_with_their_target(volume):
    generator = SmallWallsPassiveGenerator(volume)
    for k in range(20):
        layout, target = draw(generator, k)
        volume.load_rad_length(layout, target)
        cube = volume.get_rad_cube()
        assert target.shape == cube.shape == (10, 10, 10)
        assert target.dtype == torch.int64
        wanted = torch.where(target == 1, generator.x0_wall, generator.x0_soil).to(cube)
        assert torch.equal(cube, wanted)


def columns_of(target):
    """Lowest and highest layer of wall in every column that has one."""
    found = {}
    for x, y in target.any(0).nonzero().tolist():
        layers = target[:, x, y].nonzero().flatten().tolist()
        assert layers == list(range(layers[0], layers[-1] + 1))
        found[x, y] = layers[0], layers[-1]
    return found


def test_walls_stand_on_one_level_with_their_minimum_height(volume):
    generator = SmallWallsPassiveGenerator(volume, min_height=3)
    grounds = set()
    for k in range(200):
        columns = columns_of(draw(generator, k)[1])
        levels = {low for low, _ in columns.values()}
        assert len(levels) == 1
        grounds |= levels
        assert all(high - low + 1 >= 3 for low, high in columns.values())
        assert len({high for _, high in columns.values()}) <= 4
    assert grounds == set(range(5))


def test_every_cell_of_a_wall_touches_another(volume):
    # With a minimum length of four, only walls that end at the border or at another one can be a single cell.
    generator = SmallWallsPassiveGenerator(volume)
    for k in range(100):
        columns = columns_of(draw(generator, k)[1])
        for x, y in columns:
            neighbours = [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
            assert any(n in columns for n in neighbours) or x in (0, 9) or y in (0, 9)


def mean_cells(volume, **arguments):
    generator = SmallWallsPassiveGenerator(volume, **arguments)
    return sum(len(columns_of(draw(generator, k)[1])) for k in range(150)) / 150


def test_constants_make_walls_longer():
    wide = get_small_walls_volume(passive_lwh=torch.tensor([30.0, 30.0, 10.0]))
    assert mean_cells(wide, stop_k=1) < 0.7 * mean_cells(wide, stop_k=10) < 0.7 * mean_cells(wide, stop_k=100)
    assert mean_cells(wide, min_length=1, stop_k=1) < mean_cells(wide, min_length=8, stop_k=1)


def test_layouts_follow_the_generator(volume):
    generator = SmallWallsPassiveGenerator(volume)
    targets = [draw(generator, k)[1] for k in range(5)]
    assert torch.equal(draw(generator, 0)[1], targets[0])
    assert any(not torch.equal(t, targets[0]) for t in targets[1:])


def test_nonsense_is_refused(volume):
    for name in ("x0_soil", "x0_wall", "stop_k", "turn_k", "min_length", "min_height"):
        with pytest.raises(InputError, match=f"`{name}`"):
            SmallWallsPassiveGenerator(volume, **{name: 0})
    flat = Volume(nn.ModuleList([PassiveLayer(torch.ones(2), 1.0 - 0.1 * k, 0.1) for k in range(5)]))
    with pytest.raises(GeometryError, match="`min_height` = 4"):
        SmallWallsPassiveGenerator(flat)


def test_volume_has_the_stated_geometry(volume):
    assert volume.h.item() == 12
    assert [float(z) for z in volume.get_passive_z_range()] == [1, 11]
    assert volume.n_zxy == (10, 10, 10)
    heights = [[p.z.item() for p in layer.panels] for layer in volume.get_detectors()]
    assert heights == [[12.0, 11.75, 11.5, 11.25], [1.0, 0.75, 0.5, 0.25]]
    for panel in volume.yield_panels():
        assert panel.xy.tolist() == [5, 5]
        assert panel.xy_span.tolist() == [40, 40]
        assert panel.resolution.item() == pytest.approx(1e4)
        assert panel.efficiency.item() == 1


def test_volume_can_be_resized_and_refuses_what_does_not_fit():
    other = get_small_walls_volume(size=0.5, passive_lwh=torch.tensor([2.0, 3.0, 4.0]), span=1.0, det_height=0.8)
    assert other.n_zxy == (8, 4, 6)
    assert other.h.item() == pytest.approx(5.6)
    with pytest.raises(InputError, match=r"`passive_lwh\[2\]` must be a whole multiple"):
        get_small_walls_volume(passive_lwh=torch.tensor([2.0, 2.0, 2.5]))


def test_wrapper_has_its_optimisers_and_muons():
    wrapper = get_small_walls_volume_wrapper()
    rates = {name: opt.param_groups[0]["lr"] for name, opt in wrapper.opts.items()}
    assert rates == {"xy_pos_opt": 5e4, "z_pos_opt": 5e3, "xy_span_opt": 1e4}
    assert wrapper.mu_generator.fixed_mom == 1
    assert wrapper.loss_func is None
