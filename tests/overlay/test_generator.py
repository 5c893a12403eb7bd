"""Generators: an event is keyed by what it is; conditions take out, and draw nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.overlay.conditions import Conditions, gate_of
from diffdet.overlay.digits import Digits
from diffdet.overlay.generator import GENERATORS, AbsGenerator, make_generator
from diffdet.overlay.network_generators import ConvNetGenerator, IeaGanGenerator, ResNetGenerator
from diffdet.overlay.sensors import PXD
from overlay_scenes import network, sparse_resnet


@pytest.fixture(scope="module")
def painter():
    return ResNetGenerator(sparse_resnet())


@pytest.mark.parametrize("make", [lambda: make_generator("clusters"), lambda: ResNetGenerator(sparse_resnet())])
def test_the_same_event_in_other_batches_orders_and_threads_has_the_same_digits(make):
    generator = make()
    together = generator.sample(2, seed=3, experiment=1, run=2, start=5)
    alone = generator.sample_events([6, 5], seed=3, experiment=1, run=2)
    assert alone.select(1, 2).equal(together.select(0, 1))
    assert alone.select(0, 1).equal(together.select(1, 2))
    with ThreadPoolExecutor(2) as pool:
        threaded = list(pool.map(lambda k: generator.sample(1, seed=3, experiment=1, run=2, start=k), (5, 6)))
    assert Digits.concatenate(threaded).equal(together)
    assert len(together) > 0


@pytest.mark.parametrize("changed", [{"seed": 4}, {"experiment": 2}, {"run": 3}, {"start": 6}])
def test_another_key_is_another_event(changed):
    generator = make_generator("clusters")
    key = {"seed": 3, "experiment": 1, "run": 2, "start": 5}
    assert not generator.sample(1, **key).equal(generator.sample(1, **{**key, **changed}))


def test_blocks_hold_the_events_of_sample():
    generator = make_generator("clusters")
    blocks = list(generator.blocks(5, seed=1, block=2))
    assert [block.n_events for block in blocks] == [2, 2, 1]
    assert Digits.concatenate(blocks).equal(generator.sample(5, seed=1))
    with pytest.raises(InputError, match="`block`"):
        list(generator.blocks(5, block=0))
    with pytest.raises(InputError, match="`n_events`"):
        generator.sample(-1)
    assert generator.sample(0).n_events == 0


def test_digits_of_a_network_are_the_lit_pixels_of_its_images(painter):
    stream = torch.Generator().manual_seed(4)
    images = painter.images(stream)
    columns = painter.draw(torch.Generator().manual_seed(4))
    digits = Digits.from_columns(torch.zeros_like(columns[0]), *columns)
    assert torch.equal(digits.to_images()[0], images)
    assert images.shape == (40, 250, 768)
    assert not bool(((images > 0) & (images < 7)).any())


def test_every_generator_is_registered_under_its_name():
    assert {c.name for c in (ConvNetGenerator, ResNetGenerator, IeaGanGenerator)} | {"clusters"} == set(GENERATORS)
    with pytest.raises(InputError, match=r"`name`.*Did you mean 'clusters'"):
        make_generator("cluster")


def test_generators_refuse_what_is_not_theirs():
    with pytest.raises(InputError, match="`model` must be a ConvNet"):
        ConvNetGenerator(network("resnet"))
    with pytest.raises(InputError, match="`rounding`"):
        ResNetGenerator(network("resnet"), rounding="up")
    with pytest.raises(InputError, match="`compatible`"):
        ResNetGenerator(network("resnet"), compatible=True, precision="bf16")


def test_descriptions_say_what_a_generator_cannot_do(painter):
    assert painter.describe()["knows_the_sensor"] is False
    assert painter.describe()["correlates_sensors"] is False
    assert IeaGanGenerator(network("ieagan")).describe()["correlates_sensors"] is False
    free = IeaGanGenerator(network("ieagan_public_rdof"), class_order="lexicographic").describe()
    assert free["correlates_sensors"] is True
    assert free["class_order"] == "lexicographic"


class Comb(AbsGenerator):
    """One digit in every gate of two sensors, and charges around the threshold."""

    name = "comb"

    @classmethod
    def from_checkpoint(cls, checkpoint=None, **options):
        return cls(**options)

    def draw(self, generator):
        v = torch.arange(0, 768, 2)
        sensor = torch.tensor([0, 16]).repeat_interleave(len(v))
        v = v.repeat(2)
        return sensor, torch.full_like(v, 3), v, torch.where(v % 4 == 0, 7, 6)

    def describe(self):
        return {"generator": "comb", "weights_sha256": None, "trained_on": "nothing"}


def test_conditions_take_out_what_is_not_delivered():
    assert int(Comb().sample(1).charge.min()) == 7
    assert len(Comb(conditions=Conditions(threshold=0)).sample(1)) == 768
    assert Comb(conditions=Conditions(missing=("1.1.1",))).sample(1).sensor.unique().tolist() == [16]
    dead = torch.zeros(40, 250, 768, dtype=torch.bool)
    dead[0, 3, :400] = True
    assert int(Comb(conditions=Conditions(dead=dead)).sample(1).v.min()) == 0
    left = Comb(conditions=Conditions(dead=dead)).sample(1)
    assert int(left.v[left.sensor == 0].min()) == 400
    everything = Comb(conditions=Conditions(missing=PXD.names)).sample(2)
    assert everything.n_events == 2
    assert len(everything) == 0


def test_closed_gates_leave_a_band_whose_order_of_reading_differs_between_layers():
    digits = Comb(conditions=Conditions(gates=(0, 13), threshold=0)).sample(1)
    inner, outer = digits.v[digits.sensor == 0], digits.v[digits.sensor == 16]
    assert int(outer.min()) == 52
    assert int(inner.max()) == 767 - 53
    around = Comb(conditions=Conditions(gates=(190, 4), threshold=0)).sample(1)
    outer = around.v[around.sensor == 16]
    assert [int(outer.min()), int(outer.max())] == [8, 758]
    assert gate_of(torch.tensor([0, 767]), torch.tensor([0, 0])).tolist() == [191, 0]


def test_conditions_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match=r"3\.1\.1"):
        Conditions(missing=("3.1.1",))
    with pytest.raises(ShapeError, match="`dead`"):
        Conditions(dead=torch.zeros(40, 250, 768))
    with pytest.raises(InputError, match="`gates`"):
        Conditions(gates=(192, 1))
    with pytest.raises(InputError, match="`threshold`"):
        Conditions(threshold=256)
