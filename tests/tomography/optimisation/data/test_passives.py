"""Passive layouts: what is drawn, that it stays as drawn, and that it follows the seed."""

import math

import pytest
import torch
from torch import nn

from diffdet.core.errors import GeometryError, InputError
from diffdet.core.materials import MATERIALS, X0
from diffdet.core.random import Stream
from diffdet.tomography.optimisation.data.layouts import BlockLayout, VoxelLayout
from diffdet.tomography.optimisation.data.passives import (
    AbsBlockPassiveGenerator,
    AbsPassiveGenerator,
    BlockPresentPassiveGenerator,
    PassiveYielder,
    RandomBlockPassiveGenerator,
    VoxelPassiveGenerator,
)
from diffdet.tomography.volume.layer import PassiveLayer
from diffdet.tomography.volume.volume import Volume


def make_volume(z_low=0.2, n_layers=6, lw=(1.0, 0.8), size=0.1, dtype=torch.float32):
    extent = torch.tensor(lw, dtype=dtype)
    tops = [z_low + (k + 1) * size for k in reversed(range(n_layers))]
    return Volume(nn.ModuleList([PassiveLayer(extent, z, size) for z in tops]))


def cube(volume, layout, target=None):
    volume.load_rad_length(layout, target)
    return volume.get_rad_cube()


def generator_of(*key):
    return Stream(*key).generator()


GENERATORS = {
    "voxels": VoxelPassiveGenerator,
    "random_block": lambda v: RandomBlockPassiveGenerator(v, None, True, True, False),
    "random_block_fixed_size": lambda v: RandomBlockPassiveGenerator(v, (0.1, 0.3, 0.5), False, False),
    "block_present": lambda v: BlockPresentPassiveGenerator(v, None, True, ["air", "lead", "iron"]),
}


@pytest.fixture(params=GENERATORS)
def passives(request):
    volume = make_volume()
    return volume, GENERATORS[request.param](volume)


def test_a_layout_stays_as_drawn(passives):
    volume, generator = passives
    layout, target = generator.get_data(generator=generator_of(1))
    first = cube(volume, layout, target).clone()
    assert torch.equal(cube(volume, layout, target), first)
    assert first.shape == (6, 10, 8)


def test_layouts_follow_the_generator_and_nothing_else(passives):
    volume, generator = passives
    first = cube(volume, generator.generate(generator=generator_of(1))).clone()
    generator.generate()
    torch.rand(5)
    assert torch.equal(cube(volume, generator.generate(generator=generator_of(1))), first)
    others = [cube(volume, generator.generate(generator=generator_of(k))).clone() for k in range(2, 6)]
    assert any(not torch.equal(other, first) for other in others)


def test_torch_seeds_the_default(passives):
    volume, generator = passives
    torch.manual_seed(5)
    first = [cube(volume, generator.generate()).clone() for _ in range(4)]
    torch.manual_seed(5)
    assert all(torch.equal(cube(volume, generator.generate()), f) for f in first)
    assert not all(torch.equal(f, first[0]) for f in first)


def test_only_the_named_materials_occur(passives):
    volume, generator = passives
    for k in range(20):
        found = cube(volume, generator.generate(generator=generator_of(k))).unique()
        assert all(min(abs(x0 - known) / known for known in generator.x0s) < 1e-6 for x0 in found.tolist())


def test_all_materials_are_known_in_their_order():
    assert VoxelPassiveGenerator(make_volume()).materials == [m.name for m in MATERIALS]


def test_voxels_are_of_every_material_equally_often():
    volume = make_volume(n_layers=10, lw=(2.0, 2.0))
    generator = VoxelPassiveGenerator(volume, ["air", "lead", "iron"])
    layout, target = generator.get_data(generator=generator_of(2))
    assert target is None
    found = cube(volume, layout)
    for name in ("air", "lead", "iron"):
        fraction = (found == torch.tensor(X0[name], dtype=found.dtype)).double().mean().item()
        # 4000 voxels, four standard errors of a fraction of a third.
        assert fraction == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 4000))


def block_voxels(volume, layout):
    found = cube(volume, layout)
    return found == torch.tensor(layout.block_x0, dtype=found.dtype)


def test_a_block_of_fixed_size_has_its_volume_in_every_orientation():
    volume = make_volume()
    generator = BlockPresentPassiveGenerator(volume, (0.2, 0.3, 0.4), materials=["air", "lead"])
    shapes = set()
    for k in range(200):
        layout, target = generator.get_data(generator=generator_of(k))
        if layout.block_x0 == X0["air"]:
            continue
        assert target.item() == pytest.approx(X0["lead"])
        where = block_voxels(volume, layout).nonzero()
        extent = (where.amax(0) - where.amin(0) + 1).tolist()
        assert len(where) == math.prod(extent) == 24
        shapes.add(tuple(extent))
    assert len(shapes) == 6


def test_blocks_of_random_size_lie_inside_and_always_show():
    volume = make_volume()
    for half in (True, False):
        generator = RandomBlockPassiveGenerator(volume, None, True, True, half, ["air", "lead"])
        longest = [e / (2 if half else 1) for e in (1.0, 0.8, 0.6)]
        sizes = []
        for k in range(300):
            layout = generator.generate(generator=generator_of(k))
            edges = [b - a for a, b in zip(layout.low, layout.high, strict=True)]
            assert all(0.1 - 1e-6 <= e <= limit + 1e-6 for e, limit in zip(edges, longest, strict=True))
            assert all(a >= low - 1e-6 for a, low in zip(layout.low, (0, 0, 0.2), strict=True))
            assert all(b <= high + 1e-6 for b, high in zip(layout.high, (1.0, 0.8, 0.8), strict=True))
            assert block_voxels(volume, layout).any()
            sizes.append(edges)
        # Uniform from 0.1 to the limit; 300 of them, five standard errors of the mean.
        means = torch.tensor(sizes).mean(0)
        for mean, limit in zip(means.tolist(), longest, strict=True):
            assert mean == pytest.approx((0.1 + limit) / 2, abs=5 * (limit - 0.1) / math.sqrt(12 * 300))


def test_voxels_of_a_block_are_those_whose_centre_it_holds():
    volume = make_volume()
    layout = BlockLayout(X0["air"], X0["lead"], (0.149, 0.0, 0.2), (0.349, 0.1, 0.4))
    where = block_voxels(volume, layout).nonzero().tolist()
    assert where == [[z, x, 0] for z in (0, 1) for x in (1, 2)]


def test_edges_on_voxel_faces_are_not_lost_to_rounding():
    for size, dtype in ((0.1, torch.float32), (0.05, torch.float32), (0.1, torch.float64)):
        volume = make_volume(size=size, n_layers=round(0.6 / size), dtype=dtype)
        layout = BlockLayout(X0["air"], X0["lead"], (0.3, 0.1, 0.3), (0.7, 0.6, 0.5))
        n = round(0.1 / size)
        found = block_voxels(volume, layout)
        assert found[n : 3 * n, 3 * n : 7 * n, n : 6 * n].all()
        assert int(found.sum()) == 2 * n * 4 * n * 5 * n


def test_sorting_makes_the_block_the_denser_one_and_the_target_tells_it():
    volume = make_volume()
    generator = RandomBlockPassiveGenerator(volume, (0.3, 0.3, 0.3), True, True, materials=["lead", "air", "iron"])
    for k in range(50):
        layout, target = generator.get_data(generator=generator_of(k))
        assert layout.block_x0 < layout.x0
        assert target.shape == (1,)
        assert target.item() == pytest.approx(layout.block_x0)


def test_without_sorting_and_enforcing_everything_occurs():
    generator = RandomBlockPassiveGenerator(make_volume(), (0.3, 0.3, 0.3), False, False, materials=["lead", "air"])
    pairs = {
        (layout.x0, layout.block_x0) for layout in (generator.generate(generator=generator_of(k)) for k in range(60))
    }
    assert pairs == {(X0[a], X0[b]) for a in ("lead", "air") for b in ("lead", "air")}


def test_materials_differ_if_they_must():
    generator = RandomBlockPassiveGenerator(
        make_volume(), (0.3, 0.3, 0.3), False, True, materials=["lead", "air", "lead"]
    )
    for k in range(60):
        layout = generator.generate(generator=generator_of(k))
        assert layout.x0 != layout.block_x0


def test_background_of_a_present_block_is_the_first_material():
    generator = BlockPresentPassiveGenerator(make_volume(), (0.3, 0.3, 0.3), materials=["iron", "lead", "air"])
    layouts = [generator.generate(generator=generator_of(k)) for k in range(60)]
    assert {layout.x0 for layout in layouts} == {X0["iron"]}
    assert {layout.block_x0 for layout in layouts} == {X0["iron"], X0["lead"], X0["air"]}


def test_dtype_and_target_follow_the_volume():
    volume = make_volume(dtype=torch.float64)
    layout, target = RandomBlockPassiveGenerator(volume, (0.3, 0.3, 0.3), True, True).get_data()
    assert target.dtype == layout(z=torch.tensor([0.8]), lw=volume.lw, size=0.1).dtype == torch.float64


def test_a_voxel_layout_refuses_another_volume():
    layout = VoxelPassiveGenerator(make_volume()).generate()
    assert isinstance(layout, VoxelLayout)
    for other in (make_volume(z_low=0.7), make_volume(lw=(1.0, 1.0))):
        with pytest.raises(GeometryError, match="load it into the volume that it was made for"):
            other.load_rad_length(layout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_size": None}, "`block_size_max_half` must be True or False"),
        ({"block_size": (0.1, 0.1)}, "three lengths"),
        ({"block_size": (0.1, -0.1, 0.1)}, "greater than 0"),
        ({"block_size": (0.05, 0.1, 0.1)}, "at least a voxel"),
        ({"block_size": (0.7, 0.7, 0.7)}, "some orientation"),
        ({"block_size": (0.1, 0.1, 0.1), "materials": ["lea"]}, "Did you mean 'lead'"),
        ({"block_size": (0.1, 0.1, 0.1), "materials": []}, "at least one material"),
        ({"block_size": (0.1, 0.1, 0.1), "materials": ["lead", "lead"]}, "at least two"),
    ],
)
def test_nonsense_is_refused_before_anything_is_drawn(arguments, message):
    with pytest.raises(InputError, match=message):
        RandomBlockPassiveGenerator(make_volume(), sort_x0=True, enforce_diff_mat=True, **arguments)
    with pytest.raises(InputError, match="room for a voxel"):
        BlockPresentPassiveGenerator(make_volume(n_layers=1), None, True)


class Documented(AbsPassiveGenerator):
    """A user's generator as the original documentation describes one: `_generate` takes nothing."""

    def _generate(self):
        return (lambda *, z, lw, size: torch.full((10, 8), 0.5)), torch.ones(1)


def test_generators_written_without_a_generator_still_work():
    layout, target = Documented(make_volume(), ["air"]).get_data(generator=generator_of(1))
    assert cube(make_volume(), layout, target).unique().tolist() == [0.5]
    assert AbsBlockPassiveGenerator.__abstractmethods__ == {"_generate"}


# ------------------------------------------------------------------------------------------------------------- yielder
def layouts(n):
    return [
        (BlockLayout(1.0, 0.1 * (k + 1), (0, 0, 0), (1, 1, 1)), torch.tensor([float(k)])) if k % 2 else
        BlockLayout(1.0, 0.1 * (k + 1), (0, 0, 0), (1, 1, 1))
        for k in range(n)
    ]  # fmt: skip


def names(pairs):
    return [round(layout.block_x0 / 0.1) - 1 for layout, _ in pairs]


def test_a_list_is_handed_out_whole_and_left_alone():
    passives = layouts(9)
    before = list(passives)
    yielder = PassiveYielder(passives)
    assert len(yielder) == 9
    seen = list(yielder)
    assert sorted(names(seen)) == list(range(9))
    assert all((target is None) == (k % 2 == 0) for k, (_, target) in zip(names(seen), seen, strict=True))
    assert passives == before
    assert names(PassiveYielder(passives, shuffle=False)) == list(range(9))


def test_order_follows_the_stream():
    yielder = PassiveYielder(layouts(20))
    first = names(yielder.epoch(Stream(1, "train", 0)))
    assert first == names(yielder.epoch(Stream(1, "train", 0)))
    assert first != names(yielder.epoch(Stream(1, "train", 1)))
    assert names(yielder.epoch(Stream(1), shuffle=False)) == list(range(20))
    assert names(PassiveYielder(layouts(20), shuffle=False).epoch(Stream(1, "train", 0), shuffle=True)) == first
    torch.manual_seed(3)
    default = [names(yielder), names(yielder)]
    torch.manual_seed(3)
    assert [names(yielder), names(yielder)] == default
    assert default[0] != default[1]


def test_every_order_is_as_likely():
    yielder = PassiveYielder(layouts(3))
    counts = {}
    for k in range(600):
        order = tuple(names(yielder.epoch(Stream(k))))
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    # Expected 100 each; chi-squared with 5 degrees of freedom exceeds 20.5 once in 1000.
    assert sum((c - 100) ** 2 / 100 for c in counts.values()) < 20.5


def test_a_generator_is_asked_for_fresh_layouts_keyed_by_their_number():
    volume = make_volume()
    generator = RandomBlockPassiveGenerator(volume, (0.3, 0.3, 0.3), True, True)
    short, long = PassiveYielder(generator, 3), PassiveYielder(generator, 5)
    assert len(long) == 5
    first = list(long.epoch(Stream(1)))
    assert [layout for layout, _ in short.epoch(Stream(1))] == [layout for layout, _ in first[:3]]
    assert len({layout.low for layout, _ in first}) == 5
    assert {layout.low for layout, _ in long.epoch(Stream(2))}.isdisjoint({layout.low for layout, _ in first})
    assert len(list(long)) == 5


@pytest.mark.parametrize(
    ("passives", "n_passives", "message"),
    [
        ([], None, "at least one layout"),
        ([3], None, r"`passives\[0\]` must be a layout function"),
        ([(abs, 3.0)], None, r"`passives\[0\]`"),
        ("generator", None, "`n_passives` must be given"),
        ("generator", 0, "at least 1"),
    ],
)
def test_nonsense_is_refused_by_the_yielder(passives, n_passives, message):
    if passives == "generator":
        passives = VoxelPassiveGenerator(make_volume())
    with pytest.raises(InputError, match=message):
        PassiveYielder(passives, n_passives)
