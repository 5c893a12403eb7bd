"""Digits: columns, images, and what is wrong with columns."""

from __future__ import annotations

import pytest
import torch

from diffdet.core.errors import InputError, ShapeError
from diffdet.overlay.digits import COLUMNS, Counts, Digits, tidy_columns


def images(n=2, share=2e-4, seed=2):
    generator = torch.Generator().manual_seed(seed)
    lit = torch.rand(n, 40, 250, 768, generator=generator) < share
    charge = torch.randint(1, 256, lit.shape, generator=generator)
    return torch.where(lit, charge, 0).to(torch.uint8)


@pytest.fixture(scope="module")
def painted():
    return images()


@pytest.fixture(scope="module")
def digits(painted):
    return Digits.from_images(painted, numbers=[7, 9])


def columns_of(digits):
    return [getattr(digits, name) for name in COLUMNS]


def test_images_come_back(painted, digits):
    assert torch.equal(digits.to_images(), painted)
    assert len(digits) == int((painted > 0).sum())
    assert digits.numbers.tolist() == [7, 9]
    assert torch.equal(digits.counts(), (painted > 0).sum((2, 3)))


def test_order_is_event_sensor_v_u(digits):
    key = [digits.event, digits.sensor, digits.v, digits.u]
    rows = torch.stack([column.to(torch.int64) for column in key], dim=1).tolist()
    assert rows == sorted(rows)


def test_axis_1_of_an_image_is_u_and_axis_2_is_v():
    image = torch.zeros(40, 250, 768, dtype=torch.uint8)
    image[39, 249, 767] = 11
    digits = Digits.from_images(image)
    assert [column.item() for column in columns_of(digits)] == [0, 39, 249, 767, 11]


def test_shuffled_columns_give_the_same_digits(digits):
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(1))
    shuffled = [column[order] for column in columns_of(digits)]
    assert Digits.from_columns(*shuffled, numbers=digits.numbers).equal(digits)


def test_parts_concatenate_to_the_whole(digits):
    assert Digits.concatenate(digits.events()).equal(digits)
    assert Digits.concatenate([digits.select(0, 1), digits.select(1, 2)]).equal(digits)
    assert digits.select(1, 1).n_events == 0
    offsets = digits.offsets.tolist()
    assert offsets[0] == 0
    assert offsets[-1] == len(digits)


def test_events_without_digits_exist():
    digits = Digits.empty([3, 4])
    assert digits.n_events == 2
    assert len(digits) == 0
    assert digits.counts().tolist() == [[0] * 40] * 2
    assert Digits.concatenate([digits, digits]).numbers.tolist() == [3, 4, 3, 4]


def test_keep_keeps_events(digits):
    kept = digits.keep(digits.charge > 300)
    assert len(kept) == 0
    assert kept.n_events == 2
    with pytest.raises(ShapeError, match="`mask`"):
        digits.keep(torch.ones(1, dtype=torch.bool))


@pytest.mark.parametrize(
    ("column", "value"),
    [("event", 2), ("sensor", 40), ("sensor", -1), ("u", 250), ("v", 768), ("charge", 0), ("charge", 256)],
)
def test_what_is_out_of_range_is_refused_with_its_count(digits, column, value):
    columns = dict(zip(COLUMNS, (c.clone().to(torch.int64) for c in columns_of(digits)), strict=True))
    columns[column][[3, 5]] = value
    with pytest.raises(InputError, match=rf"`{column}` must lie in .*; 2 of .*number 3, has {value}"):
        Digits.from_columns(**columns, numbers=digits.numbers)


def test_a_repeated_pixel_is_refused(digits):
    twice = [torch.cat([column, column[:3]]) for column in columns_of(digits)]
    with pytest.raises(InputError, match="3 of"):
        Digits.from_columns(*twice, numbers=digits.numbers)


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(3, dtype=torch.bool), [1, 2, 3]])
def test_columns_are_whole_numbers(bad):
    good = torch.ones(3, dtype=torch.int64)
    with pytest.raises(InputError, match="`sensor`"):
        Digits.from_columns(good, bad, good, good, good)


def test_columns_have_one_length():
    good = torch.ones(3, dtype=torch.int64)
    with pytest.raises(ShapeError, match="one length"):
        Digits.from_columns(good, good, good[:2], good, good)


def test_images_of_another_type_or_shape_are_refused(painted):
    with pytest.raises(InputError, match="uint8"):
        Digits.from_images(painted.to(torch.int16))
    with pytest.raises(ShapeError, match="250, 768"):
        Digits.from_images(painted[..., 1:])


def test_tidying_counts_everything_and_adds_charges_of_one_pixel():
    rows = [
        (0, 5, 10, 20, 30),
        (0, 5, 10, 20, 12),  # merged
        (0, -1, 1, 1, 9),  # unknown sensor
        (0, 40, 1, 1, 9),  # unknown sensor
        (0, 3, 250, 1, 9),  # outside
        (0, 3, 1, 768, 9),  # outside
        (1, 3, 1, 1, 0),  # empty
        (1, 3, 1, 1, 300),  # clipped
        (1, 2, 1, 1, 200),
        (1, 2, 1, 1, 100),  # merged, and the sum is clipped
    ]
    columns = [torch.tensor(column) for column in zip(*rows, strict=True)]
    digits, counts = tidy_columns(*columns, numbers=[8, 9])
    assert counts == Counts(kept=3, unknown_sensor=2, outside=2, empty=1, clipped=2, merged=2)
    assert [tuple(c[k].item() for c in columns_of(digits)) for k in range(3)] == [
        (0, 5, 10, 20, 42),
        (1, 2, 1, 1, 255),
        (1, 3, 1, 1, 255),
    ]
    assert "2 of unknown sensors dropped" in str(counts)
    assert (counts + counts).merged == 4


def test_tidying_leaves_good_columns_alone(digits):
    tidy, counts = tidy_columns(*columns_of(digits), numbers=digits.numbers)
    assert tidy.equal(digits)
    assert not counts.problems
